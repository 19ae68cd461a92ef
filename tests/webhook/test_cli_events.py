"""``hummingfleet event|callback|token|webhook`` as a person or a program uses them, against the real service."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from click.testing import CliRunner, Result
from flask import Flask

from tests.webhook import portal as portals
from webhook import callbacks
from webhook.callbacks import Outbox
from webhook.cli import cli, event
from webhook.cli.base import Exit, State
from webhook.installation import Installation
from webhook.journal import Journal
from webhook.secrets_file import SecretsFile
from webhook.tokens import TokenStore

Call = Callable[..., Result]
Finish = Callable[..., None]
Bodies = Callable[..., dict[str, Any]]


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """Where the real service takes events."""
    with portals.serving(app) as url:
        yield url


@pytest.fixture
def call(web_installation: Installation) -> Call:
    """Calls ``hummingfleet`` with the given words."""

    def invoke(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(words), input=stdin, obj=State(web_installation.fleet.path))

    return invoke


@pytest.fixture
def journal(web_installation: Installation) -> Journal:
    return Journal(web_installation.registry, web_installation.fleet, web_installation.catalogue)


@pytest.fixture
def acme(call: Call, url: str, created: Bodies, finish: Finish) -> None:
    """Tenant acme with a stopped bot, created by event ``e0`` and applied."""
    result = send(call, url, created(), "e0")
    assert result.exit_code == 0, result.output
    finish("acme")


def send(call: Call, url: str, body: dict[str, Any], event_id: str, *words: str) -> Result:
    data = json.dumps(body["data"])
    return call("event", "send", body["type"], "--data", "-", "--id", event_id, "--url", url, *words, stdin=data)


def start(call: Call, url: str, event_id: str, *words: str) -> Result:
    more = ("--tenant", "acme", "--data", '{"bot_id": "b1"}', "--id", event_id, "--url", url, *words)
    return call("event", "send", "bot.started", *more)


def run_when_asked(journal: Journal, event_id: str, run: Callable[[], None]) -> threading.Thread:
    """A worker that begins when the event is there."""

    def work() -> None:
        while not [one for one in journal.list(tenant="acme").items if one.id == event_id]:
            threading.Event().wait(0.02)
        run()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


# --- event send -----------------------------------------------------------------------------------------------------


def test_send_signs_posts_and_names_the_status_url(call: Call, url: str, acme: None, journal: Journal) -> None:
    result = start(call, url, "e1", "--sequence", "7")
    assert result.exit_code == 0, result.output
    assert f"event e1 was accepted: {url}/e1" in result.output
    stored = journal.get("e1")
    assert (stored.type, stored.tenant, stored.sequence, stored.state) == ("bot.started", "acme", 7, "accepted")


def test_sending_again_is_not_accepted_twice(call: Call, url: str, acme: None, tmp_path: Path) -> None:
    body = tmp_path / "event.json"
    body.write_text('{"bot_id": "b1"}')
    words = ("--tenant", "acme", "--data", f"@{body}", "--url", url, "--json")
    first = json.loads(call("event", "send", "bot.started", *words, "--id", "e1").stdout)
    assert (first["repeated"], first["event"]["id"], first["status_url"]) == (False, "e1", f"{url}/e1")
    again = call("event", "send", "bot.stopped", *words, "--id", "e1")  # the timestamp in it makes it another body
    assert again.exit_code == Exit.REFUSED
    assert "another body" in json.loads(again.stdout)["error"]["message"]
    random = json.loads(call("event", "send", "bot.stopped", *words).stdout)
    assert random["event"]["id"].startswith("evt_")


def test_a_refused_event_names_every_fault(call: Call, url: str, acme: None) -> None:
    result = call("event", "send", "bot.started", "--tenant", "acme", "--data", '{"bot_id": "nobody"}', "--url", url)
    assert result.exit_code == Exit.REFUSED
    assert "(422)" in result.output and "- /data/bot_id:" in result.output


def test_wait_reports_what_became_of_it(
    call: Call, url: str, acme: None, journal: Journal, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event, "_POLL_SECONDS", 0.02)
    worker = run_when_asked(journal, "e1", lambda: finish("acme"))
    result = start(call, url, "e1", "--wait")
    worker.join()
    assert result.exit_code == 0 and "event e1 is applied, revision 2" in result.output
    worker = run_when_asked(journal, "e2", lambda: finish("acme", "document_refused", "cannot be"))
    result = start(call, url, "e2", "--wait", "--timeout", "60s")
    worker.join()
    assert result.exit_code == Exit.FAILED and "event e2 is failed (document_refused): cannot be" in result.output


def test_wait_through_the_status_api_needs_a_token(
    call: Call, url: str, acme: None, journal: Journal, finish: Finish, tmp_path: Path, web_registry: Registry
) -> None:
    token = tmp_path / "token"
    token.write_text(TokenStore(web_registry).create("portal")[1] + "\n")
    worker = run_when_asked(journal, "e1", lambda: finish("acme"))
    result = start(call, url, "e1", "--wait", "--token-file", str(token), "--json")
    worker.join()
    assert result.exit_code == 0 and json.loads(result.stdout)["event"]["state"] == "applied"
    token.write_text("hft_nothing")
    refused = start(call, url, "e2", "--wait", "--token-file", str(token))
    assert refused.exit_code == Exit.FAILED and "the status API answered 401" in refused.output


def test_waiting_ends(call: Call, url: str, acme: None) -> None:
    result = start(call, url, "e1", "--wait", "--timeout", "0s")
    assert result.exit_code == Exit.BUSY and "still waiting" in result.output


def test_a_portals_developer_needs_only_the_secret(call: Call, url: str, acme: None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    path = tmp_path / "webhook-secrets.yml"
    secret.write_text(SecretsFile(path).current("inbound").secret + "\n")
    path.unlink()
    # The service has no secrets now, either: it says so, and nothing is accepted.
    result = start(call, url, "e1", "--secret-file", str(secret))
    assert result.exit_code == Exit.BUSY and "(503)" in result.output
    assert start(call, url, "e1").exit_code == Exit.SETUP


def test_a_wrong_secret_is_refused(call: Call, url: str, acme: None, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 43 + "=")
    result = start(call, url, "e1", "--secret-file", str(secret))
    assert result.exit_code == Exit.REFUSED and "(401)" in result.output
    secret.write_text("hunter2")
    result = start(call, url, "e1", "--secret-file", str(secret))
    assert result.exit_code == Exit.USAGE and "hunter2" not in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "{"),
        ("--data", "[1]"),
        ("--data", "@/does/not/exist"),
        ("--data", "[" * 100_000),
        ("--id", "a b"),
        ("--url", "ftp://x"),
        ("--url", "http://[x"),
        ("--timeout", "soon"),
    ],
)
def test_wrong_usage_is_a_sentence(call: Call, words: tuple[str, str]) -> None:
    result = call("event", "send", "bot.started", "--tenant", "acme", *words)
    assert result.exit_code == Exit.USAGE and "unexpected" not in result.output


def test_a_service_that_is_not_there_is_said_to_be_so(call: Call) -> None:
    result = call("event", "send", "bot.started", "--tenant", "acme", "--url", "http://127.0.0.1:1/v1/events")
    assert result.exit_code == Exit.UNREACHABLE and "hummingfleet serve" in result.output


def test_the_token_goes_only_to_the_machine_that_was_asked() -> None:
    for status_url in ("http://evil.example/v1/events/e1", "//evil.example/v1/events/e1", "/v1/events/e1"):
        assert (
            event._absolute("https://fleet.example:8/v1/events", status_url) == "https://fleet.example:8/v1/events/e1"
        )


# --- event list, show, retry, discard, tail, example -----------------------------------------------------------------


def test_list_and_show(call: Call, url: str, acme: None, finish: Finish) -> None:
    start(call, url, "e1")
    finish("acme", "document_refused", "the \x1b[31mnode said no")
    listed = json.loads(call("event", "list", "--state", "failed", "--json").stdout)
    assert [(one["id"], one["code"]) for one in listed["events"]] == [("e1", "document_refused")]
    assert json.loads(call("event", "list", "--tenant", "blue", "--json").stdout)["events"] == []
    assert len(json.loads(call("event", "list", "--since", "1h", "--json").stdout)["events"]) == 2
    assert json.loads(call("event", "list", "--since", "2999-01-01", "--json").stdout)["events"] == []
    page = call("event", "list", "--limit", "1")
    cursor = re.search(r"--after (\S+)", page.output)
    assert cursor is not None
    assert "e0" in call("event", "list", "--after", cursor[1]).stdout
    shown = call("event", "show", "e1")
    assert "state: failed" in shown.output and "\x1b" not in shown.output
    assert "message: for operators" in shown.output
    assert json.loads(call("event", "show", "e0", "--json").stdout)["message"] is None
    assert json.loads(call("event", "show", "e1", "--body", "--json").stdout)["body"]["data"]["bot_id"] == "b1"
    assert call("event", "list", "--since", "yesterday").exit_code == Exit.USAGE
    assert call("event", "show", "none").exit_code == Exit.NOT_FOUND


def test_retry_runs_again_and_discard_takes_it_out(call: Call, url: str, acme: None, finish: Finish) -> None:
    start(call, url, "e1")
    assert call("event", "retry", "e1").exit_code == Exit.REFUSED
    finish("acme", "document_refused")
    assert json.loads(call("event", "retry", "e1", "--json").stdout)["state"] == "accepted"
    finish("acme", "document_refused")
    assert call("event", "discard", "e1").exit_code == Exit.FAILED  # nobody said yes
    result = call("event", "discard", "e1", "--yes")
    assert result.exit_code == 0, result.output
    assert json.loads(call("event", "show", "e1", "--json").stdout)["state"] == "discarded"


def test_tail_shows_what_there_is(call: Call, url: str, acme: None) -> None:
    start(call, url, "e1")
    lines = call("event", "tail", "--no-follow").stdout.splitlines()
    assert ["e0" in lines[0], "applied" in lines[0], "e1" in lines[1], "accepted" in lines[1]] == [True] * 4
    last = call("event", "tail", "--no-follow", "--lines", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in last] == ["e1"]
    assert call("event", "tail", "--no-follow", "--lines", "0").stdout == ""


def test_tail_follows_new_events_and_changes(
    call: Call, url: str, acme: None, journal: Journal, finish: Finish
) -> None:
    steps = iter([lambda: start(call, url, "e1"), lambda: None, lambda: finish("acme"), lambda: start(call, url, "e2")])

    class Enough(Exception):
        pass

    def pause() -> None:
        step = next(steps, None)
        if step is None:
            raise Enough
        step()

    seen = []
    with pytest.raises(Enough):
        for record in event.follow_events(journal, None, 5, pause):
            seen.append((record.id, record.state))
    assert seen == [("e0", "applied"), ("e1", "accepted"), ("e1", "applied"), ("e2", "accepted")]


def test_every_example_can_be_printed(call: Call) -> None:
    names = json.loads(call("event", "example", "--json").stdout)
    assert "bot.started" in names
    for name in names:
        assert json.loads(call("event", "example", name).stdout)["type"] == name
    assert call("event", "example", "bot.vanished").exit_code == Exit.USAGE


# --- callback ------------------------------------------------------------------------------------------------------


def test_callbacks_can_be_looked_at_and_sent_again(call: Call, acme: None, web_registry: Registry) -> None:
    (plain,) = json.loads(call("callback", "list", "--json").stdout)
    assert (plain["type"], plain["state"], plain["body"]["data"]["event_id"]) == ("event.applied", "pending", "e0")
    number = str(plain["number"])
    assert call("callback", "resend", number).exit_code == Exit.REFUSED
    Outbox(web_registry).record(plain["number"], True, None, 0.0)
    assert "delivered" in call("callback", "list", "--state", "delivered", "--tenant", "acme").output
    assert call("callback", "list", "--state", "pending").output == "no call-backs\n"
    assert json.loads(call("callback", "resend", number, "--json").stdout)["state"] == "pending"
    assert '"event_id": "e0"' in call("callback", "show", number).output
    assert call("callback", "show", "99").exit_code == Exit.NOT_FOUND


def test_hostile_text_in_a_callback_steers_no_terminal(call: Call, web_registry: Registry) -> None:
    with web_registry.transaction(write=True) as connection:
        callbacks.enqueue(connection, "acme", "event.failed", {"reason": "\x1b[2J"}, 0.0)
    for words in (("callback", "list"), ("callback", "show", "1"), ("callback", "list", "--json")):
        result = call(*words)
        assert result.exit_code == 0 and "\x1b" not in result.output


# --- token ---------------------------------------------------------------------------------------------------------


def test_a_token_is_made_listed_and_revoked(call: Call, acme: None, web_registry: Registry) -> None:
    made = call(
        "token", "create", "--scope", "read-only", "--tenant", "acme", "--note", "for a test", "--expires", "1d"
    )
    assert made.exit_code == 0
    text = made.stdout.strip()
    store = TokenStore(web_registry)
    token = store.check(text)
    assert token is not None and (token.scope, token.tenant) == ("read-only", "acme")
    listed = call("token", "list").stdout
    assert "for a test" in listed and text not in listed
    (plain,) = json.loads(call("token", "list", "--json").stdout)
    assert (plain["id"], plain["state"]) == (token.id, "valid") and plain["expires_at"] is not None
    assert call("token", "revoke", token.id).exit_code == 0
    assert store.check(text) is None
    assert json.loads(call("token", "list", "--json").stdout)[0]["state"] == "revoked"


def test_a_token_as_json_can_be_used(call: Call, web_registry: Registry) -> None:
    made = json.loads(call("token", "create", "--scope", "operator", "--json").stdout)
    token = TokenStore(web_registry).check(made["token"])
    assert token is not None and (token.id, token.tenant) == (made["id"], None)


def test_token_mistakes_are_sentences(call: Call) -> None:
    assert call("token", "revoke", "nothing").exit_code == Exit.NOT_FOUND
    assert call("token", "create", "--scope", "portal", "--tenant", "nobody").exit_code == Exit.NOT_FOUND
    assert call("token", "create", "--scope", "root").exit_code == Exit.USAGE
    assert call("token", "create", "--scope", "portal", "--expires", "soon").exit_code == Exit.USAGE


# --- webhook secret ------------------------------------------------------------------------------------------------


def test_a_running_service_takes_a_rotated_secret_at_once(call: Call, url: str, acme: None, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text(json.loads(call("webhook", "secret", "show", "--yes", "--json").stdout)["secret"])
    rotated = call("webhook", "secret", "rotate", "--overlap", "1h")
    assert rotated.exit_code == 0 and "another 60 min" in rotated.output and "whsec_" not in rotated.output
    assert start(call, url, "e1").exit_code == 0
    assert start(call, url, "e2", "--secret-file", str(old)).exit_code == 0
    call("webhook", "secret", "rotate", "--overlap", "0s")
    assert start(call, url, "e3", "--secret-file", str(old)).exit_code == Exit.REFUSED
    assert start(call, url, "e3").exit_code == 0


def test_secrets_are_listed_without_themselves(call: Call) -> None:
    call("webhook", "secret", "rotate", "--direction", "outbound")
    result = call("webhook", "secret", "list")
    assert result.exit_code == 0 and "whsec_" not in result.output
    rows = json.loads(call("webhook", "secret", "list", "--json").stdout)
    assert [row["direction"] for row in rows] == ["inbound", "outbound", "outbound", "signals"]
    assert [row["retire_at"] is None for row in rows] == [True, False, True, True]
    assert len(json.loads(call("webhook", "secret", "list", "--direction", "inbound", "--json").stdout)) == 1


def test_a_secret_is_shown_to_a_terminal_only(call: Call, web_installation: Installation) -> None:
    secret = SecretsFile(web_installation.fleet.webhook.secrets_path).current("outbound").secret
    for words in ((), ("--json",)):
        refused = call("webhook", "secret", "show", "--direction", "outbound", *words)
        assert refused.exit_code == Exit.USAGE and "whsec_" not in refused.output
    assert call("webhook", "secret", "show", "--direction", "outbound", "--yes").stdout == secret + "\n"


def test_the_first_rotation_makes_both_secrets(call: Call, web_installation: Installation) -> None:
    path = web_installation.fleet.webhook.secrets_path
    path.unlink()
    assert call("webhook", "secret", "list").exit_code == Exit.SETUP
    result = call("webhook", "secret", "rotate")
    assert result.exit_code == 0 and "accepted for another" not in result.output
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(SecretsFile(path).secrets("outbound")) == 1


# --- all together ----------------------------------------------------------------------------------------------------


def test_an_event_comes_back_as_a_callback(
    call: Call, url: str, acme: None, web_installation: Installation, finish: Finish
) -> None:
    start(call, url, "e1")
    finish("acme")
    with portals.running() as portal:
        signer = callbacks.Signer(web_installation.fleet.webhook.secrets_path)
        deliverer = callbacks.Deliverer(Outbox(web_installation.registry), signer, portal.url)
        assert deliverer.deliver_due().delivered == 2
        assert [request.data["event_id"] for request in portal.requests] == ["e0", "e1"]
