"""Commands as a person or a program sees them: what they print, what they store, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import decrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import load_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from click.testing import Result

from tests import factories
from webhook.cli.base import EXIT_MEANINGS, Exit

Call = Callable[..., Result]


def test_help_imports_nothing_heavy() -> None:
    """Start-up time is imports: the help needs none of the libraries that commands use."""
    code = (
        "import sys; from webhook.cli import cli; cli(['--help'], standalone_mode=False);"
        "print([m for m in ('sqlalchemy','pydantic','ansible_runner','rich','yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_every_command_explains_itself_and_has_json(call: Call) -> None:
    def walk(command: Any, words: tuple[str, ...]) -> None:
        context = __import__("click").Context(command)
        names = command.list_commands(context) if hasattr(command, "list_commands") else []
        for name in names:
            walk(command.get_command(context, name), (*words, name))
        result = call(*words, "--help")
        assert result.exit_code == 0, words
        if not names:
            assert "--json" in result.output, words
            assert command.help, words

    from webhook.cli import cli

    walk(cli, ())


def test_apply_stores_a_revision_and_shows_what_changes(call: Call, registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "acme.yml"
    path.write_text(yaml.safe_dump(factories.grid_document()))
    first = call("tenant", "apply", "-f", str(path), "--reason", "customer asked")
    assert (first.exit_code, "stored revision 1" in first.output) == (0, True)
    again = call("tenant", "apply", "-f", str(path))
    assert (again.exit_code, "still revision 1" in again.output) == (0, True)
    path.write_text(yaml.safe_dump(factories.grid_document(plan="business")))
    second = call("tenant", "apply", "-f", str(path))
    assert "-plan: pro\n+plan: business" in second.output
    assert registry.history("acme")[0].cause.text == "customer asked"


def test_apply_converges_when_asked_to(call: Call, runner: Any, registry: Registry) -> None:
    result = call("tenant", "apply", "-f", "-", "--converge", "--json", stdin=json.dumps(factories.grid_document()))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["converge"]["tenants"][0]["result"] == "changed"
    assert registry.get("acme").applied_revision == 1
    assert runner.calls[0][1]["only"] == ["acme"]


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (lambda: json.dumps(factories.grid_document(plan="nope")), "/plan"),
        (lambda: json.dumps(factories.grid_document(tenant="localhost")), "/tenant"),
    ],
)
def test_a_refused_document_ends_with_3_and_its_faults(
    call: Call, registry: Registry, text: Callable[[], str], pointer: str
) -> None:
    result = call("tenant", "apply", "-f", "-", "--json", stdin=text())
    faults = json.loads(result.stdout)["error"]["faults"]
    assert result.exit_code == Exit.REFUSED
    assert pointer in [fault["pointer"] for fault in faults]
    assert all(fault["problem"] and fault["allowed"] for fault in faults)
    assert registry.list() == ()


@pytest.mark.parametrize(
    "text", ["{unclosed: [", "just text", "- a\n- list", "!!python/object/apply:os.system ['id']", "a: &a [*a]\nb: *c"]
)
def test_text_that_is_no_document_is_refused_in_a_sentence(call: Call, text: str) -> None:
    result = call("tenant", "apply", "-f", "-", stdin=text)
    assert result.exit_code == Exit.REFUSED
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_a_missing_file_is_wrong_usage(call: Call, tmp_path: Path) -> None:
    result = call("tenant", "apply", "-f", str(tmp_path / "nothing.yml"))
    assert (result.exit_code, "cannot be read" in result.stderr) == (Exit.USAGE, True)


def test_get_shortens_ciphertexts_and_document_gives_what_can_be_applied(call: Call, stored: dict[str, Any]) -> None:
    ciphertext = stored["exchange_connections"][0]["encrypted_api_key"]
    assert ciphertext not in call("tenant", "get", "acme").output
    assert ciphertext not in call("tenant", "get", "acme", "--json").output
    whole = call("tenant", "get", "acme", "--document")
    assert ciphertext in whole.output
    assert "still revision 1" in call("tenant", "apply", "-f", "-", stdin=whole.output).output


@pytest.mark.parametrize(
    "words",
    [
        ("tenant", "get", "zz"),
        ("tenant", "history", "zz"),
        ("tenant", "rollback", "zz", "1"),
        ("tenant", "rollback", "acme", "9"),
        ("tenant", "suspend", "zz"),
        ("tenant", "remove", "zz", "--yes"),
        ("bot", "stop", "zz", "b1"),
        ("bot", "stop", "acme", "zz"),
        ("bot", "liquidate", "acme", "zz", "--yes"),
        ("bot", "status", "zz"),
        ("bot", "status", "acme", "zz"),
        ("bot", "logs", "acme", "zz"),
        ("converge", "zz"),
    ],
)
def test_what_is_not_there_ends_with_4_and_starts_no_playbook(
    call: Call, runner: Any, stored: dict[str, Any], words: tuple[str, ...]
) -> None:
    result = call(*words)
    assert (result.exit_code, result.stderr.startswith("error: ")) == (Exit.NOT_FOUND, True)
    assert runner.calls == []


def test_a_wrong_word_is_wrong_usage(call: Call) -> None:
    assert call("tenant", "nonsense").exit_code == Exit.USAGE
    assert call("bot", "logs", "acme", "b1", "-n", "-5").exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("stop", {"state": "stopped"}),
        ("start", {"state": "running"}),
        ("restart", {"state": "running", "restarts": 1}),
        ("resume", {"state": "running", "resumes": 1}),
    ],
)
def test_bot_commands_are_revisions_that_are_applied(
    call: Call, registry: Registry, runner: Any, stored: dict[str, Any], command: str, expected: dict[str, Any]
) -> None:
    result = call("bot", command, "acme", "b1", "--reason", "because")
    record = registry.get("acme")
    assert result.exit_code == 0
    assert expected.items() <= record.document["bots"][0].items()
    assert record.applied_revision == record.revision
    assert runner.calls[0][1]["only"] == ["acme"]
    if record.revision > 1:
        assert registry.history("acme")[-1].cause.text == "because"


def test_no_converge_only_stores(call: Call, runner: Any, stored: dict[str, Any]) -> None:
    result = call("bot", "stop", "acme", "b1", "--no-converge")
    assert "apply it with: hummingfleet converge acme" in result.output
    assert runner.calls == []


def test_liquidate_asks_first(call: Call, registry: Registry, stored: dict[str, Any]) -> None:
    refused = call("bot", "liquidate", "acme", "b1", stdin="n\n")
    assert (refused.exit_code, registry.get("acme").revision) == (Exit.FAILED, 1)
    assert call("bot", "liquidate", "acme", "b1", stdin="y\n").exit_code == 0
    assert registry.get("acme").document["bots"][0]["state"] == "liquidated"


def test_rollback_brings_the_old_content_as_a_new_revision(
    call: Call, registry: Registry, stored: dict[str, Any]
) -> None:
    call("bot", "stop", "acme", "b1")
    assert call("tenant", "rollback", "acme", "1").exit_code == 0
    record = registry.get("acme")
    assert (record.revision, record.document["bots"][0]["state"]) == (3, "running")
    history = call("tenant", "history", "acme", "--diff").output
    assert "-  state: stopped\n+  state: running" in history
    assert "back to revision 1" in history


def test_remove_asks_runs_the_playbook_and_forgets(
    call: Call, registry: Registry, runner: Any, stored: dict[str, Any]
) -> None:
    assert call("tenant", "remove", "acme", stdin="n\n").exit_code == Exit.FAILED
    assert runner.calls == []
    result = call("tenant", "remove", "acme", "--keep-data", stdin="y\n")
    assert result.exit_code == 0, result.output
    assert runner.calls[0][0] == "remove_tenant"
    assert runner.calls[0][1]["variables"]["tenant_stack_keep_data"] is True
    assert registry.list() == ()


def test_what_another_run_has_applied_meanwhile_is_no_trouble(
    call: Call, runner: Any, stored: dict[str, Any]
) -> None:
    runner.overtaken = True
    result = call("bot", "stop", "acme", "b1")
    assert result.exit_code == 0
    assert "unchanged" in result.output and "not applied yet" not in result.output


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        ("engine_refused", Exit.FAILED),
        ("node_refused", Exit.FAILED),
        ("unreachable", Exit.UNREACHABLE),
        ("busy", Exit.BUSY),
    ],
)
def test_a_failed_converge_says_why_and_ends_as_its_code_says(
    call: Call, runner: Any, stored: dict[str, Any], problem: str, code: Exit
) -> None:
    message = "tenant acme: is being worked on and could not be reached"
    runner.failures = {"acme": message}
    runner.problem = problem
    result = call("converge", "acme")
    assert result.exit_code == code
    assert message in result.stderr


def test_converge_passes_its_switches_on(call: Call, runner: Any, stored: dict[str, Any]) -> None:
    call("converge", "--deep", "--check", "--diff", "--limit", "node_local")
    arguments = runner.calls[0][1]
    assert (arguments["check"], arguments["diff"], arguments["limit"], arguments["only"]) == (
        True, True, "node_local", None,
    )  # fmt: skip
    assert arguments["variables"]["tenant_stack_deep"] is True


def test_status_shows_hostile_names_as_they_are(call: Call, runner: Any, registry: Registry) -> None:
    name = "[red]x[/red] {{ 7*7 }}"
    call("tenant", "apply", "-f", "-", stdin=json.dumps(factories.grid_document(bots=[factories.grid_bot(name=name)])))
    runner.bots = {
        "b1": {
            "state": "halted",
            "halted": {"code": "daily_loss", "message": "lost\x1b[2J too much", "at": 1},
            "open_orders": 0,
            "fills": 3,
            "position": {"base": "0.0031", "cost_quote": "1"},
            "heartbeat_age_seconds": 1.2,
            "engine_version": "20260922",
        }
    }
    result = call("bot", "status", "acme")
    assert result.exit_code == 0
    assert name in result.output
    assert "\x1b" not in result.output
    assert "lost\\x1b[2J too much" in result.output
    plain = json.loads(call("bot", "status", "acme", "--json").stdout)
    assert (plain[0]["state"], plain[0]["fills"], plain[0]["name"]) == ("halted", 3, name)


def test_status_shows_the_day_and_since_when_a_bot_is_halted(call: Call, runner: Any, stored: dict[str, Any]) -> None:
    risk = {"day": "2026-11-23", "day_pnl": "-12.5", "pnl": "3", "equity": "987.5", "position": "0", "quote": "USDT"}
    halted = {"code": "RISK_MAX_DAILY_LOSS", "message": "RISK_HALT limit=max_daily_loss", "at": 1795413600}
    runner.bots = {"b1": {"state": "halted", "halted": halted, "risk": risk}}
    shown = " ".join(call("bot", "status", "acme").output.split())
    assert "-12.5 USDT" in shown
    assert "987.5 USDT" in shown
    plain = json.loads(call("bot", "status", "acme", "--json").stdout)
    assert (plain[0]["risk"], plain[0]["halted"]) == (risk, halted)


def see(registry: Registry, **facts: Any) -> None:
    """What a worker remembers of the bot b1."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet

    from webhook.work import WorkQueue

    queue = WorkQueue(registry, "worker:1:x", fleet=load_fleet(), catalogue=factories.catalogue())
    queue.see("acme", {"b1": {"state": "running", "heartbeat_age_seconds": 1, **facts}}, looked_at=registry.clock())


def lose(registry: Registry, day_pnl: str) -> str:
    day = datetime.fromtimestamp(registry.clock(), UTC).strftime("%Y-%m-%d")
    see(registry, risk={"day": day, "day_pnl": day_pnl, "quote": "USDT"})
    return day


def test_a_halted_tenants_bot_is_started_by_hand_only_with_the_override(call: Call, registry: Registry) -> None:
    document = factories.grid_document(risk={"max_daily_loss_usd": 100})
    call("tenant", "apply", "-f", "-", stdin=json.dumps(document))
    day = lose(registry, "-101.5")
    assert registry.get("acme").document["bots"][0]["state"] == "stopped"
    got = yaml.safe_load(call("tenant", "get", "acme").stdout)
    assert (got["risk"]["pnl_usd"], got["risk"]["limit_usd"], got["risk"]["halt"]["day"]) == ("-101.50", "100.00", day)
    assert "the bots lost 101.5 US dollars" in call("bot", "status", "acme").output
    for words in (("bot", "start"), ("bot", "restart"), ("bot", "resume")):
        refused = call(*words, "acme", "b1")
        assert refused.exit_code == Exit.REFUSED
        assert "lost 101.5 US dollars" in refused.stderr
    refused = call("tenant", "apply", "-f", "-", stdin=json.dumps(document))
    assert refused.exit_code == Exit.REFUSED
    assert call("tenant", "rollback", "acme", "1").exit_code == Exit.REFUSED
    assert call("bot", "stop", "acme", "b1").exit_code == 0
    result = call("bot", "start", "acme", "b1", "--lift-risk-halt", "--reason", "hedged elsewhere")
    assert result.exit_code == 0, result.output
    assert registry.history("acme")[-1].cause.text == f"lifts the tenant's risk halt of {day}: hedged elsewhere"
    assert registry.get("acme").document["bots"][0]["state"] == "running"


@pytest.mark.parametrize("words", [("tenant", "apply", "-f", "-"), ("tenant", "rollback", "acme", "1")])
def test_the_override_works_for_whole_documents_too(call: Call, registry: Registry, words: tuple[str, ...]) -> None:
    document = json.dumps(factories.grid_document(risk={"max_daily_loss_usd": 100}))
    call("tenant", "apply", "-f", "-", stdin=document)
    lose(registry, "-100")
    assert call(*words, "--lift-risk-halt", "--no-converge", stdin=document).exit_code == 0
    assert registry.get("acme").document["risk_halt"]["lifted_at"]


def test_a_bot_is_not_resumed_too_early_by_hand(call: Call, registry: Registry) -> None:
    bot = factories.grid_bot()
    bot["risk_config"]["earliest_resume_s"] = 3600
    call("tenant", "apply", "-f", "-", stdin=json.dumps(factories.grid_document(bots=[bot])))
    see(registry, halted={"code": "RISK_MAX_DRAWDOWN", "message": "m", "at": registry.clock() - 3590})
    refused = call("bot", "resume", "acme", "b1")
    assert refused.exit_code == Exit.REFUSED
    assert "earliest_resume_s is 3600" in refused.stderr
    assert registry.get("acme").document["bots"][0]["resumes"] == 0
    see(registry, halted={"code": "RISK_MAX_DRAWDOWN", "message": "m", "at": registry.clock() - 3600})
    assert call("bot", "resume", "acme", "b1").exit_code == 0
    assert registry.get("acme").document["bots"][0]["resumes"] == 1


def test_status_of_a_node_that_does_not_answer_ends_with_5(call: Call, runner: Any, stored: dict[str, Any]) -> None:
    runner.node_problem = "node local could not be reached: timeout"
    result = call("bot", "status")
    assert (result.exit_code, "could not be reached" in result.stderr) == (Exit.UNREACHABLE, True)


def test_an_unexpected_error_shows_no_traceback_and_none_of_its_text(
    call: Call, stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise ValueError("sk-very-secret")

    monkeypatch.setattr(Registry, "get", broken)
    result = call("tenant", "get", "acme")
    assert result.exit_code == Exit.FAILED
    assert "unexpected ValueError" in result.stderr
    assert "sk-very-secret" not in result.output
    assert "Traceback" not in result.output


def test_a_broken_installation_ends_with_7(call: Call, fleet_path: Path) -> None:
    fleet_path.write_text("plugin: something.else\n")
    result = call("tenant", "list")
    assert (result.exit_code, "fleet file" in result.stderr) == (Exit.SETUP, True)


def test_encrypted_credentials_open_again_and_are_never_printed(call: Call, fleet_path: Path) -> None:
    secrets = "api_key: key-in-clear-123456\napi_secret: secret-in-clear-123456\n"
    result = call("credentials", "encrypt", "--tenant", "acme", "--exchange", "binance", "--from", "-", stdin=secrets)
    assert result.exit_code == 0, result.output
    assert "in-clear" not in result.output
    connection = yaml.safe_load(result.stdout)[0]
    ring = load_keyring({"file": str(fleet_path.parent / "keyring.yml")})
    fields = decrypt_connection(connection, "acme", ring, factories.catalogue().connectors)
    assert fields == {"binance_api_key": "key-in-clear-123456", "binance_api_secret": "secret-in-clear-123456"}


@pytest.mark.parametrize("secrets", ["api_key: only-one-is-here\n", "a list of\n- nothing", "api_key: [x]\n", ""])
def test_incomplete_credentials_are_refused_without_repeating_them(call: Call, secrets: str) -> None:
    result = call("credentials", "encrypt", "--tenant", "acme", "--exchange", "binance", "--from", "-", stdin=secrets)
    assert result.exit_code == Exit.USAGE
    assert "only-one-is-here" not in result.output


def test_a_key_ring_is_made_once(call: Call, fleet_path: Path) -> None:
    path = fleet_path.parent / "keyring.yml"
    path.unlink()
    assert call("keyring", "init", "--key-id", "k1", "--key-id", "k2").exit_code == 0
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert call("keyring", "init").exit_code == Exit.FAILED
    assert path.read_bytes() == before


def test_every_exit_code_has_a_meaning_and_the_reference_page_is_in_step() -> None:
    from webhook.cli.reference import write

    assert set(EXIT_MEANINGS) == set(Exit)
    assert (factories.ROOT / "docs" / "cli.md").read_text() == write()
