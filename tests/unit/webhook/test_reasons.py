"""What a tenant's user is told of a failure: in words of the portal, whatever the message holds."""

from __future__ import annotations

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import CredentialError, decrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem

from tests import factories
from webhook.operations import user_reason

REFUSED_KEY = (
    "tenant acme: bot b1 is unclean and its orders could not be checked: settle: OSError: Error executing request GET "
    'https://api.binance.com/api/v3/openOrders. HTTP status is 401. Error: {"code":-2015,"msg":"Invalid API-key, IP, '
    'or permissions for action, request ip: 203.0.113.7"}. It was not started again; converge once more'
)
SILENT = (
    "tenant acme: not healthy after 180 s: bot grid-1 is settling: its orders could not be checked on the exchange yet "
    "(its log: SETTLE_RETRY the exchange cannot be asked about own orders (TimeoutError: ); trying again); "
    "bot b2 is settling: its orders could not be checked on the exchange yet"
)
REJECTED = (
    "tenant acme: not healthy after 180 s: bot b1 does not stay up: container acme-bot_b1 is restarting (Restarting "
    "(2) 1 second ago) (its log: CONFIGURATION conf_client.yml is not accepted by the engine: rate_limits is 0)"
)


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (
            "credentials_refused",
            "tenant acme: Tenant acme, connection ex1, field api_key: `encrypted_api_key` does not open with key k1.",
            "The exchange credentials of connection ex1 could not be opened; please enter them again.",
        ),
        (
            "exchange_unanswered",
            REFUSED_KEY,
            "The exchange refused the API key of bot b1; please check the key and its permissions. The exchange said: "
            '"Invalid API-key, IP, or permissions for action, request ip: …"',
        ),
        (
            "exchange_unanswered",
            SILENT,
            "The exchange did not answer when the open orders of bots grid-1 and b2 were to be checked; they do not "
            "trade until that has succeeded.",
        ),
        (
            "engine_refused",
            REJECTED,
            "Bot b1 was started and does not trade. The bot's log says: \"CONFIGURATION … is not accepted by the "
            'engine: rate limits is 0"',
        ),
        (
            "engine_refused",
            "tenant acme: bot b1 refuses its new configuration and stays with the former one (its log: buy_price must "
            "be below sell_price)",
            'Bot b1 refuses its new settings and goes on with the former ones. The bot\'s log says: "buy price must be '
            'below sell price"',
        ),
        (
            "engine_refused",
            "tenant acme: bot b1 refuses its new configuration and stays with the former one (its log: too low); "
            "bot b2 is starting (its log: bot b2 refuses its new configuration); bot b3 is starting",
            'Bot b1 refuses its new settings and goes on with the former ones. The bot\'s log says: "too low" Bots b2 '
            "and b3 were started and do not trade. The bot's log says: \"bot b2 refuses its new configuration\"",
        ),
        (
            "document_refused",
            "the document is refused:\n- /bots/0/strategy_config/grid_count: is below 2; allowed: 2 to 100\n"
            "- /plan: nope is no plan; allowed: free, pro",
            "The settings were refused: bots.0.strategy_config.grid_count: is below 2; plan: nope is no plan.",
        ),
        ("document_refused", "", "The settings were refused; please check them."),
    ],
)
def test_what_the_user_can_mend_is_named(code: str, message: str, words: str) -> None:
    assert user_reason(code, message).replace("_", " ") == words.replace("_", " ")


def test_the_words_of_credentials_that_do_not_open_name_the_connection() -> None:
    """Holds the pattern and the error's own words together."""
    document = factories.grid_document()
    [connection] = document["exchange_connections"]
    stranger = KeyRing(master_id="m1", master=b"m" * 32, keys={connection["key_id"]: b"k" * 32})
    with pytest.raises(CredentialError) as caught:
        decrypt_connection(connection, "acme", stranger, factories.catalogue().connectors)
    assert f"of connection {connection['id']} could not be opened" in user_reason(
        "credentials_refused", f"tenant acme: {caught.value}"
    )


@pytest.mark.parametrize("code", [*(str(problem) for problem in Problem), "no such code", ""])
@pytest.mark.parametrize("message", ["", "\x00", "bot", "bot  (its log: )", '"msg":""', "- : ", "(" * 5000, "/" * 5000])
def test_every_code_has_a_sentence_whatever_the_message(code: str, message: str) -> None:
    words = user_reason(code, message)
    assert words[0].isupper() and words.endswith((".", '"'))
    assert len(words) < 400


HOSTILE = [
    "https://evil.example/enter-your-key",
    "evil.example",
    "node edge_1",
    "203.0.113.7:8443",
    "2001:db8::17",
    "/srv/hummingfleet/tenants/zeta/secrets/keystore_password",
    "C:\\secrets",
    "root@edge-1.fleet.internal",
    "tenant zeta",
    "zeta-bot_b9",
    "zeta-postgres",
    "hf-zeta",
    "0123456789abcdef0123",
    "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
    "<script>alert(1)</script>",
    "[click](javascript:x)",
    "\x1b[31m",
    "{{ lookup('env','HOME') }}",
    "${jndi:ldap:x}",
    "\u202egnp.exe",
    '"; DROP TABLE tenants; --',
    "`id`",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "frame",
    [
        "tenant acme: not healthy after 9 s: bot b1 is starting (its log: the words are {} and so on)",
        "tenant acme: not healthy after 9 s: bot b1 is starting (its log: a); bot b2 is starting (its log: {})",
        'tenant acme: bot b1 is unclean: HTTP status is 401. Error: {{"code":-2015,"msg":"the words {} and so on"}}',
        "the document is refused:\n- /plan: the words {} are wrong; allowed: {}",
        "{}",
    ],
)
def test_nothing_of_the_fleet_and_no_markup_gets_through(frame: str, text: str) -> None:
    words = " ".join(user_reason(code, frame.format(text, text)) for code in Problem)
    assert words.isprintable()
    assert not set(words) & set("<>{}[]`$\\/@\x1b\u202e|*~^")
    for secret in ("zeta", "edge", "evil", "203.0", "2001:", "0123456789ab", "vmPUZE6", "srv", "fleet"):
        assert secret not in words


def test_a_bot_cannot_bring_up_other_bots_in_its_log() -> None:
    message = "tenant acme: not healthy after 9 s: bot b1 is starting (its log: bot zeta is rich, ask bot theta)"
    assert user_reason("engine_refused", message).startswith("Bot b1 was started and does not trade. ")


def test_many_bots_are_counted() -> None:
    message = "tenant acme: " + "; ".join(f"bot b{number} is starting" for number in range(6))
    assert user_reason("engine_refused", message) == "Bots b0, b1, b2 and 3 more were started and do not trade."


def test_the_page_for_operators_has_every_code() -> None:
    page = (factories.ROOT / "docs" / "failures.md").read_text()
    codes = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(codes) == sorted(str(problem) for problem in Problem)
