"""``hummingfleet signal-token`` as a person or a program uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests import factories
from webhook.cli import cli
from webhook.cli.base import Exit, State
from webhook.installation import Installation
from webhook.signal_tokens import SignalTokens
from webhook.signing import is_secret

Call = Callable[..., Result]


@pytest.fixture
def call(web_installation: Installation) -> Call:
    """Calls ``hummingfleet`` with the given words."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, list(words), obj=State(web_installation.fleet.path))

    return invoke


@pytest.fixture(autouse=True)
def acme(portal: Any) -> None:
    """Tenant acme with a bot that takes signals and one that does not."""
    data = factories.document(
        exchange_connections=[factories.connection()],
        bots=[factories.signal_bot(state="running"), factories.grid_bot(id="g1", name="grid")],
    )
    portal.accepted({"type": "tenant.created", "timestamp": "2026-11-23T05:00:00Z", "data": data})


@pytest.fixture
def tokens(web_installation: Installation) -> SignalTokens:
    return SignalTokens(web_installation.registry)


def test_a_token_is_shown_once_with_its_signing_secret(call: Call, tokens: SignalTokens) -> None:
    result = call("signal-token", "new", "acme", "s1")
    assert result.exit_code == 0, result.output
    lines = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    found = tokens.check(lines["token"])
    assert found is not None
    assert (found.tenant, found.bot) == ("acme", "s1")
    assert is_secret(lines["signing secret"])
    assert f"token {found.id}; keep it now" in result.stderr
    for listed in (call("signal-token", "list").output, call("signal-token", "list", "--json").output):
        assert found.id in listed
        assert lines["token"] not in listed
        assert lines["signing secret"] not in listed


def test_the_tokens_of_a_deleted_bot_are_worth_nothing_to_the_next_of_its_id(
    call: Call, tokens: SignalTokens, portal: Any
) -> None:
    old = json.loads(call("signal-token", "new", "acme", "s1", "--json").stdout)
    bot = factories.signal_bot(state="running")
    for event, data, good in (
        ("bot.updated", {"bot_id": "s1", "changes": {"name": "other"}}, True),
        ("bot.deleted", {"bot_id": "s1"}, False),
        ("bot.created", {"bot": bot}, False),
    ):
        body = {"type": event, "timestamp": "2026-11-23T05:00:01Z", "data": {"tenant": "acme", **data}}
        portal.accepted(body)
        assert (tokens.check(old["token"]) is not None) is good, event
    new = json.loads(call("signal-token", "new", "acme", "s1", "--json").stdout)
    assert tokens.check(new["token"]) is not None
    assert [token.state(time.time()) for token in tokens.list("acme", "s1")] == ["valid", "revoked"]


def test_a_program_gets_the_same_and_rotates_with_an_overlap(call: Call, tokens: SignalTokens) -> None:
    first = json.loads(call("signal-token", "new", "acme", "s1", "--json").stdout)
    second = json.loads(call("signal-token", "new", "acme", "s1", "--overlap", "1h", "--json").stdout)
    assert (first["generation"], second["generation"]) == (1, 2)
    assert first["signing_secret"] != second["signing_secret"]
    assert tokens.check(first["token"]) is not None
    third = call("signal-token", "new", "acme", "s1", "--overlap", "0s")
    assert "end" not in third.stderr
    assert tokens.check(first["token"]) is tokens.check(second["token"]) is None
    listed = json.loads(call("signal-token", "list", "acme", "s1", "--json").stdout)
    assert [(one["generation"], one["state"]) for one in listed] == [(3, "valid"), (2, "expired"), (1, "expired")]


def test_a_person_hears_that_older_tokens_end(call: Call) -> None:
    call("signal-token", "new", "acme", "s1")
    assert "1 other(s) of the bot end within 24 h" in call("signal-token", "new", "acme", "s1").stderr


def test_a_revoked_token_is_worth_nothing(call: Call, tokens: SignalTokens) -> None:
    made = json.loads(call("signal-token", "new", "acme", "s1", "--json").stdout)
    assert call("signal-token", "revoke", made["id"]).exit_code == 0
    assert tokens.check(made["token"]) is None
    assert json.loads(call("signal-token", "list", "acme", "--json").stdout)[0]["state"] == "revoked"


def test_what_cannot_have_a_token_gets_none(call: Call) -> None:
    assert call("signal-token", "new", "nobody", "s1").exit_code == Exit.NOT_FOUND
    assert call("signal-token", "new", "acme", "nothing").exit_code == Exit.NOT_FOUND
    assert call("signal-token", "new", "acme", "g1").exit_code == Exit.REFUSED
    assert call("signal-token", "revoke", "nothing").exit_code == Exit.NOT_FOUND
    assert "no signal tokens" in call("signal-token", "list").output


def test_without_webhook_secrets_there_is_a_token_all_the_same(call: Call, web_installation: Installation) -> None:
    web_installation.fleet.webhook.secrets_path.unlink()
    result = call("signal-token", "new", "acme", "s1")
    assert result.exit_code == 0
    assert "no signing secret" in result.stderr
    assert "signing secret" not in result.stdout


def test_signing_keys_are_rotated_like_the_other_secrets(call: Call) -> None:
    rotated = call("webhook", "secret", "rotate", "--direction", "signals")
    assert rotated.exit_code == 0, rotated.output
    assert "hummingfleet signal-token new" in rotated.output
    listed = json.loads(call("webhook", "secret", "list", "--direction", "signals", "--json").stdout)
    assert [one["id"][:4] for one in listed] == ["sig_", "sig_"]
    # Nobody needs it: what senders get is derived from it.
    assert call("webhook", "secret", "show", "--direction", "signals", "--yes").exit_code == Exit.USAGE
