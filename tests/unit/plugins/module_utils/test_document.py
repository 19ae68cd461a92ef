"""The tenant document: what comes out of a good one, all faults of a bad one at once, and hostile text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import derive
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    SECRET_PURPOSES,
    DocumentError,
    SecretVersions,
    TenantDocument,
    bot_context,
    json_schema,
    parse_document,
    read_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import CONTROLLER_LIMITS
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import MAX_FAULTS
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests import factories

SCHEMA = json_schema()


def parse(data: Any) -> TenantDocument:
    return parse_document(data, factories.catalogue())


def refusal(data: Any) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parse(data)
    return caught.value


def test_a_submitted_document_gets_its_defaults() -> None:
    data = factories.grid_document()
    del data["subdomain"]
    data["bots"][0]["risk_config"] = {"max_position_usd": 9000}
    document = parse(data)
    assert document.subdomain == "acme"
    assert document.state == "active"
    assert document.placement.node is None
    assert document.redis.enabled
    assert not document.gateway.enabled
    bot = document.bot("b1")
    assert (bot.state, bot.restarts, bot.resumes, bot.priority) == ("running", 0, 0, 0)
    assert bot.risk_config == {"max_position": 9000, "close_position_on_halt": False, "earliest_resume_s": 0}
    assert bot.strategy_config == {
        "lower_bound": Decimal(30000),
        "upper_bound": Decimal(35000),
        "grid_count": 10,
        "order_amount": Decimal(100),
    }
    assert document.secret_version("postgres") == 1


def test_numbers_may_be_json_numbers_or_decimal_strings() -> None:
    as_text = factories.grid_document()
    as_text["bots"][0]["strategy_config"] = {
        "lower_bound": "30000.0",
        "upper_bound": "3.5e4",
        "grid_count": "10",
        "order_amount": 100.0,
    }
    assert parse(as_text) == parse(factories.grid_document())
    assert parse(as_text).plain() == parse(factories.grid_document()).plain()


def test_plain_is_deterministic_and_parses_back() -> None:
    data = factories.stored_document()
    document = parse(data)
    plain = document.plain()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert parse(plain) == document
    assert read_document(plain) == document
    shuffled = {key: data[key] for key in reversed(data)}
    shuffled["bots"][0] = dict(reversed(shuffled["bots"][0].items()))
    assert json.dumps(parse(shuffled).plain()) == json.dumps(plain)


def test_the_document_cannot_be_changed() -> None:
    document = parse(factories.grid_document())
    with pytest.raises(ValidationError):
        document.plan = "starter"
    with pytest.raises(ValidationError):
        document.bots[0].state = "stopped"


def test_parsing_leaves_the_submitted_data_alone() -> None:
    data = factories.stored_document()
    before = copy.deepcopy(data)
    parse(data)
    assert data == before


def test_a_stored_document_is_read_although_the_catalogue_moved_on() -> None:
    """A plan that shrank or a pair that was delisted must not keep a tenant from being stopped."""
    plain = parse(factories.stored_document()).plain()
    plain["plan"], plain["release"], plain["bots"][0]["trading_pair"] = "gone", "gone", "OLD-USDT"
    refusal(plain)
    assert read_document(plain).plain() == plain


def test_a_stored_document_of_the_wrong_shape_is_refused() -> None:
    plain = parse(factories.stored_document()).plain()
    plain["bots"][0]["strategy_config"]["grid_count"] = "many"
    with pytest.raises(DocumentError, match="/bots/0/strategy_config/grid_count"):
        read_document(plain)


def test_all_faults_are_named_at_once() -> None:
    data = factories.grid_document(tenant="all", plan="prp", release="1", typo=1)
    data["gateway"] = 3
    data["exchange_connections"][0]["nonce_key"] = "AAAA"
    bot = data["bots"][0]
    bot["id"], bot["trading_pair"] = "B1", "BTC-XXX"
    bot["strategy_config"] = {"lower_bound": -1, "grid_count": True, "order_amount": 10, "extra": 1}
    bot["risk_config"] = {"max_daily_loss_usd": 0, "kill_switch_pct": 5}
    found = {fault.pointer for fault in refusal(data).faults}
    assert found == {
        "/tenant",
        "/plan",
        "/release",
        "/typo",
        "/gateway",
        "/exchange_connections/0/nonce_key",
        "/bots/0/id",
        "/bots/0/trading_pair",
        "/bots/0/strategy_config/lower_bound",
        "/bots/0/strategy_config/upper_bound",
        "/bots/0/strategy_config/grid_count",
        "/bots/0/strategy_config/extra",
        "/bots/0/risk_config/max_daily_loss_usd",
        "/bots/0/risk_config/kill_switch_pct",
    }


def test_the_message_has_a_line_for_every_fault() -> None:
    error = refusal(factories.grid_document(plan="prp", dashboard="x"))
    assert str(error).splitlines() == [
        "the tenant document is refused:",
        "- /dashboard: 'x' is not one of the values; allowed: builtin or none",
        "- /plan: there is no plan 'prp'; allowed: pro, business, starter",
    ]
    assert error.faults[1].plain() == {
        "pointer": "/plan",
        "problem": "there is no plan 'prp'",
        "allowed": "pro, business, starter",
        "rule": "plan.unknown",
    }


@pytest.mark.parametrize("data", [None, [], "text", 7, {}, {"bots": [[]]}, {1: 2}, {"tenant": {"a": {}}}])
def test_data_of_any_shape_is_refused_in_words(data: Any) -> None:
    assert refusal(data).faults


def test_a_flood_of_faults_is_cut_short() -> None:
    assert len(refusal(factories.document(**{f"x{i}": 1 for i in range(500)})).faults) == MAX_FAULTS


def test_credentials_are_never_repeated_in_a_refusal() -> None:
    secret = "c2VjcmV0LXZhbHVl"
    data = factories.grid_document(salt=secret[:8])
    data["exchange_connections"][0] |= {
        "encrypted_api_key": secret,
        "nonce_key": secret * 2,
        "encrypted_memo": secret,
        "encrypted_api_secret": [secret],
        "nonce_secret": secret + "!",
    }
    message = str(refusal(data))
    assert "/encrypted_memo" in message
    assert secret[:8] not in message


# Credentials ------------------------------------------------------------------------------------------------------


def test_the_portals_short_names_become_the_engines_fields() -> None:
    connection = parse(factories.grid_document()).connection("ex1")
    secrets = connection.secrets(factories.catalogue().connectors["binance"])
    assert [(secret.name, secret.field) for secret in secrets] == [
        ("api_key", "binance_api_key"),
        ("api_secret", "binance_api_secret"),
    ]
    assert [(len(secret.ciphertext), len(secret.nonce)) for secret in secrets] == [(80, 12), (80, 12)]


@pytest.mark.parametrize("secret", ["api_secret", "secret_key", "kucoin_secret_key"])
def test_other_connectors_take_short_full_and_portal_names(secret: str) -> None:
    connection = factories.connection(exchange="kucoin")
    ciphertext, nonce = connection.pop("encrypted_api_secret"), connection.pop("nonce_secret")
    connection |= {f"encrypted_{secret}": ciphertext, f"nonce_{secret}": nonce}
    connection |= {"encrypted_passphrase": factories.encrypted_text("p"), "nonce_passphrase": factories.nonce_text("p")}
    live = {"plan": "business", "exchange_environment": "live"}
    document = parse(factories.document(**live, exchange_connections=[connection]))
    secrets = document.connection("ex1").secrets(factories.catalogue().connectors["kucoin"])
    assert [s.field for s in secrets] == ["kucoin_api_key", "kucoin_secret_key", "kucoin_passphrase"]
    assert document.plain()["exchange_connections"][0][f"encrypted_{secret}"] == ciphertext
    assert parse(document.plain()) == document


def test_plain_settings_have_the_connectors_names_and_defaults() -> None:
    connectors = factories.catalogue().connectors
    connection = factories.connection(exchange="okx", settings={"registration_sub_domain": "my"})
    connection |= {"encrypted_passphrase": factories.encrypted_text("p"), "nonce_passphrase": factories.nonce_text("p")}
    document = parse(factories.document(exchange_environment="live", exchange_connections=[connection]))
    assert document.connection("ex1").plain_settings(connectors["okx"]) == {"okx_registration_sub_domain": "my"}
    live = {"plan": "business", "exchange_environment": "live"}
    kraken = parse(factories.document(**live, exchange_connections=[factories.connection(exchange="kraken")]))
    assert kraken.connection("ex1").plain_settings(connectors["kraken"]) == {"kraken_api_tier": "Starter"}


def test_every_connector_with_plain_credentials_can_be_connected() -> None:
    for name, connector in factories.catalogue().connectors.items():
        if not connector.secrets:
            continue
        connection: dict[str, Any] = {"id": "ex1", "exchange": name, "key_id": "k1", "settings": {}}
        for field in connector.secrets:
            connection[f"encrypted_{field.short}"] = factories.encrypted_text(field.name)
            nonce = {"api_key": "key", "api_secret": "secret"}.get(field.short, field.short)
            connection[f"nonce_{nonce}"] = factories.nonce_text(field.name)
        for field in connector.settings:
            if field.required:
                connection["settings"][field.short] = 1 if field.type == "int" else "0xabc"
        data = factories.document(plan="business", exchange_environment="live", exchange_connections=[connection])
        secrets = parse(data).connection("ex1").secrets(connector)
        assert [s.field for s in secrets] == [f.name for f in connector.secrets]


def test_secret_versions_are_those_of_the_derived_passwords() -> None:
    assert SECRET_PURPOSES == derive.PURPOSES == tuple(SecretVersions.model_fields)


def test_bots_of_one_exchange_share_its_rate_limits() -> None:
    connections = [factories.connection(), factories.connection(id="ex2", seed="other")]
    bots = [factories.grid_bot(id="b1"), factories.grid_bot(id="b2", exchange_connection_id="ex2")]
    document = parse(factories.document(exchange_connections=connections, bots=bots))
    context = bot_context(document, document.bots[0], factories.catalogue())
    assert (context.rate_limit_bots, context.rate_oracle, context.connector) == (2, "binance", "binance")


def test_a_plan_reserves_memory_for_every_container() -> None:
    plan = factories.catalogue().plans["pro"]
    assert plan.memory_mib(parse(factories.grid_document())) == 256 + 64 + 512
    bare = parse(factories.document(redis={"enabled": False}, gateway={"enabled": True}))
    assert plan.memory_mib(bare) == 256 + 512


# Hostile text -----------------------------------------------------------------------------------------------------

HOSTILE = [
    "{{ lookup('pipe','id') }}",
    "{% for x in range(9) %}{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "{# comment #}",
    "!unsafe x",
    "!!python/object/apply:os.system ['id']",
    "&anchor *anchor",
    "key: value",
    "- item",
    "# comment",
    "| literal",
    "> folded",
    "'; DROP TABLE tenants; --",
    '" or ""="',
    "$(id)",
    "`id`",
    "${HOME}",
    "$HOME",
    "a; rm -rf /",
    "a && id",
    "a | id",
    "a > /etc/passwd",
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "~root",
    "C:\\windows",
    "%s%s%n",
    "%(password)s",
    "{0.__class__}",
    "{tenant.salt}",
    "--help",
    "-rf",
    "*",
    "true",
    "null",
    "~",
    "0x10",
    "1e3",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "a/b+c#d",
    "hbot/+/#",
    "аcme",  # a Cyrillic letter
    "ａｃｍｅ",  # full width
    "acme\u0301",
    "İd",
    "@all",
    "tenant-a,tenant-b:!c",
]
UNSHOWABLE = [
    "a\x00b",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "a\x1b[31mb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\u2029b",
    "a\u202eb",
    "a\u2066b",
    "a\u200bb",
    "a\u200db",
    "a\ufeffb",
    "a\U000e0041b",
    "a\ud800b",
]
ID_FIELDS = ["tenant", "subdomain", "bots.id", "exchange_connections.id", "exchange_connections.key_id"]
NAME_FIELDS = [
    *ID_FIELDS,
    "plan",
    "release",
    "state",
    "dashboard",
    "placement.node",
    "placement.ring",
    "placement.labels.zone",
    "subnet",
    "salt",
    "exchange_connections.exchange",
    "exchange_connections.encrypted_api_key",
    "exchange_connections.nonce_key",
    "bots.strategy_template",
    "bots.trading_pair",
    "bots.exchange_connection_id",
    "bots.strategy_config.order_amount",
    "bots.risk_config.max_drawdown_pct",
    "bots.state",
]


def put(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``data`` with ``value`` at the dotted path; lists stand for their first entry."""
    *parents, last = path.split(".")
    place: Any = data
    for part in parents:
        place = place.setdefault(part, {})
        if isinstance(place, list):
            place = place[0]
    place[last] = value
    return data


@pytest.mark.parametrize("field", NAME_FIELDS)
def test_hostile_text_is_refused_where_text_means_something(field: str) -> None:
    """Words that are harmless as text (``true`` as an id) are quoted wherever they are written."""
    for text in HOSTILE + UNSHOWABLE:
        data = put(factories.grid_document(), field, text)
        try:
            document = parse(data)
        except DocumentError as error:
            message = str(error)
            assert all(character == "\n" or character.isprintable() for character in message), (text, message)
        else:
            assert text.isascii() and text.replace("_", "").isalnum(), (field, text)
            assert read_document(document.plain()) == document


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("true", "null")])
def test_hostile_ids_are_refused(text: str) -> None:
    for field in ID_FIELDS:
        faults = refusal(put(factories.grid_document(), field, text)).faults
        assert {fault.rule for fault in faults} & {"id", "key_id"}, (field, faults)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_what_they_are(text: str) -> None:
    document = parse(put(factories.grid_document(), "bots.name", text))
    assert document.bots[0].name == text
    assert json.loads(json.dumps(document.plain()))["bots"][0]["name"] == text


@pytest.mark.parametrize("text", UNSHOWABLE)
def test_names_that_cannot_be_displayed_are_refused(text: str) -> None:
    assert [fault.rule for fault in refusal(put(factories.grid_document(), "bots.name", text)).faults] == ["name"]


@pytest.mark.parametrize("text", HOSTILE + UNSHOWABLE)
def test_hostile_keys_are_refused_and_printed_harmlessly(text: str) -> None:
    for path in (
        "",
        "bots.strategy_config.",
        "bots.risk_config.",
        "exchange_connections.encrypted_",
        "placement.labels.",
    ):
        key = path.split(".")[-1] + text
        data = factories.grid_document()
        place: Any = data
        for part in path.split(".")[:-1]:
            place = place.setdefault(part, {})
            place = place[0] if isinstance(place, list) else place
        place[key] = "AAAA"
        if path == "placement.labels." and text in ("true", "null"):
            parse(data)
            continue
        message = str(refusal(data))
        assert all(character == "\n" or character.isprintable() for character in message)
        assert message.isascii()


@pytest.mark.parametrize("tenant", ["all", "nodes", "tenants", "localhost", "ungrouped", "behind", "leads", "edge-1"])
def test_names_that_mean_something_to_ansible_or_the_fleet_are_refused(tenant: str) -> None:
    with pytest.raises(DocumentError, match="means something else here"):
        parse_document(factories.grid_document(tenant=tenant), factories.catalogue(), reserved=["edge_1"])


# Any valid document, any data at all -------------------------------------------------------------------------------

ids = st.from_regex(r"[a-z][a-z0-9]{1,7}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
shown_text = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp"], max_codepoint=0x1FFFF), min_size=1, max_size=80
).filter(str.strip)


@st.composite
def grid_bots(draw: st.DrawFn, bot_id: str) -> dict[str, Any]:
    lower = draw(st.integers(100_000, 5_000_000))
    count = draw(st.integers(2, 40))
    span = draw(st.integers(lower, 5 * lower))
    amount = draw(st.integers(200, 1000))
    number = draw(st.sampled_from([float, str, lambda v: v]))
    return factories.grid_bot(
        id=bot_id,
        name=draw(shown_text),
        strategy_config={
            "lower_bound": number(lower / 100),
            "upper_bound": str(Decimal(lower + span) / 100),
            "grid_count": count,
            "order_amount": number(amount),
        },
        risk_config={
            "max_position_usd": count * amount + draw(st.integers(0, 1000)),
            "max_daily_loss_usd": draw(st.decimals("0.01", "400", places=2)),
            "max_drawdown_pct": draw(st.floats(0.001, 100).map(lambda value: round(value, 4))),
        },
        state=draw(st.sampled_from(["running", "stopped", "liquidated"])),
        restarts=draw(st.integers(0, 1_000_000)),
    )


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(ids.map(lambda value: "x" + value[:31]), unique=True, max_size=5))
    return factories.document(
        tenant="t" + draw(ids)[:31].rstrip("-"),
        bots=[draw(grid_bots(name.rstrip("-"))) for name in names],
        state=draw(st.sampled_from(["active", "suspended", "terminated"])),
        placement={"labels": draw(st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), ids, max_size=4))},
    )


@settings(max_examples=100, deadline=None)
@given(documents())
def test_any_valid_document_survives_a_round_trip(data: dict[str, Any]) -> None:
    document = parse(data)
    plain = json.loads(json.dumps(document.plain(), allow_nan=False))
    assert parse(plain) == document
    assert parse(plain).plain() == plain
    jsonschema.validate(plain, SCHEMA)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
PATHS = [*NAME_FIELDS, "bots", "exchange_connections", "placement", "bots.strategy_config", "bots.risk_config", "uid"]
PATHS += ["exchange_connections.settings", "gateway", "bots.name", "bots.restarts", "secret_versions"]


DOCUMENTS = (
    factories.grid_document,
    factories.dca_document,
    factories.dca_interval_document,
    factories.signal_document,
    factories.market_making_document,
)
PATHS += [f"bots.strategy_config.{name}" for strategy in TEMPLATES.values() for name in strategy.fields]
PATHS += [f"bots.risk_config.{name}" for field in CONTROLLER_LIMITS.values() for name in field.names]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.lists(st.tuples(st.sampled_from(PATHS), anything), min_size=1, max_size=3))
def test_any_data_is_accepted_or_refused_in_words(
    base: Callable[[], dict[str, Any]], changes: list[tuple[str, Any]]
) -> None:
    data = base()
    for path, value in changes:
        try:
            put(data, path, value)
        except (TypeError, IndexError, AttributeError):
            continue
    try:
        document = parse(data)
    except DocumentError as error:
        assert error.faults
        assert all(fault.problem and fault.allowed and fault.rule for fault in error.faults)
        assert all(character == "\n" or character.isprintable() for character in str(error))
    else:
        assert parse(document.plain()) == document


# Schema -----------------------------------------------------------------------------------------------------------


def test_the_schema_accepts_what_the_parser_accepts() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for data in (
        factories.grid_document(),
        factories.stored_document(),
        parse(factories.stored_document()).plain(),
        *(base() for base in DOCUMENTS),
        *(parse(base()).plain() for base in DOCUMENTS),
    ):
        jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tenant", "Acme"),
        ("typo", 1),
        ("bots.strategy_config.grid_count", 1),
        ("bots.strategy_config.typo", 1),
        ("bots.risk_config.kill_switch_pct", 1),
        ("bots.risk_config.max_position", 5000),  # beside max_position_usd
        ("bots.risk_config.earliest_resume_s", -1),
        ("bots.strategy_template", "gird"),
        ("exchange_connections.api_key", "x"),
        ("exchange_connections.encrypted_api_key", 7),
        ("secret_versions", {"wallet": 1}),
        ("uid", 1),
    ],
)
def test_the_schema_refuses_wrong_shapes(path: str, value: Any) -> None:
    data = put(factories.stored_document(), path, value)
    refusal(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("bots.strategy_config.mode", "both"),
        ("bots.strategy_config.mode", "interval"),
        ("bots.strategy_config.interval_s", 60),
        ("bots.strategy_config.spreads_pct", []),
        ("bots.strategy_config.spreads_pct", [0, 100]),
        ("bots.strategy_config.amounts_quote", 100),
    ],
)
def test_the_schema_refuses_what_is_wrong_with_lists_and_modes(path: str, value: Any) -> None:
    data = put(factories.dca_document(), path, value)
    refusal(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)
