"""The demonstration's decisions: what it makes once, what it skips, what it refuses. `make demo` is the real one."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

from webhook import demo as demo_module
from webhook.demo import BALANCES, GRID, Demo, DemoError, write_private
from webhook.events import parse_event
from webhook.installation import Installation
from webhook.journal import Journal
from webhook.prepared import differences
from webhook.progress import Progress
from webhook.runs import RunResult, TaskFailure
from webhook.work import Ending, WorkQueue


class FakeExchange:
    """The control endpoint of a sandbox exchange whose one bot fills when the price moves through a level."""

    def __init__(self) -> None:
        self.accounts: list[dict[str, Any]] = []
        self.prices: list[str] = []

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if (method, path) == ("GET", "/accounts"):
            return {"accounts": self.accounts}
        if (method, path) == ("POST", "/accounts"):
            assert body is not None
            self.accounts.append(body)
            return body
        if (method, path) == ("POST", "/price"):
            assert body is not None
            self.prices.append(body["price"])
            return {}
        if path == "/stats":
            return {"signed": 46, "bad_signatures": 0}
        return {"orders": [], "fills": []}


class FakeService:
    """Web service and worker in one: events are accepted by the real journal, and worked off when asked about."""

    def __init__(self, here: Installation, runner: Any) -> None:
        self.journal = Journal(here.registry, here.fleet, here.catalogue)
        self.queue = WorkQueue(here.registry, process_holder())
        self.here = here
        self.runner = runner
        self.note = "pretended"
        self.problem: str | None = None

    def __enter__(self) -> FakeService:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def send(self, event_id: str, body: dict[str, Any]) -> int:
        event = parse_event(body, self.here.catalogue)
        accepted = self.journal.accept(event, event_id=event_id, body=json.dumps(body).encode(), source="test")
        return 200 if accepted.repeated else 202

    def get(self, path: str) -> dict[str, Any]:
        *_rest, kind, name = path.split("/")
        for claim in self.queue.claim(["demo"]):
            self.runner("converge_tenant", only=["demo"], fleet_path=self.here.fleet.path)
            bots = {"b1": {"state": "running", "open_orders": GRID["grid_count"]}}
            self.queue.finish(claim, Ending(self.problem, reason="because", bots=bots))
        found = self.journal.get(name) if kind == "events" else self.journal.tenant_status(name)
        plain: dict[str, Any] = found.plain()
        return plain


@pytest.fixture
def exchange() -> FakeExchange:
    return FakeExchange()


@pytest.fixture
def make(fleet_path: Path, runner: Any, exchange: FakeExchange, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Demo]:
    """Makes a demonstration whose machine, exchange and bot are pretended."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(demo_module, "take_picture", lambda *_arguments: {"code": "1", "docker": {}})

    def no_differences(before: Any, _now: Any) -> list[str]:
        return [] if before else ["new"]

    monkeypatch.setattr(demo_module, "differences", no_differences)

    def build() -> Demo:
        demo = Demo(Installation(fleet_path), runner, Progress(io.StringIO(), quiet=True))
        monkeypatch.setattr(demo, "_control", lambda: exchange)

        def look(_node: Any) -> None:
            demo.facts.state, demo.facts.engine_version = "running", "dev-2.18.0"
            demo.facts.open_orders = int(GRID["grid_count"])
            demo.facts.fills = max(0, len(exchange.prices) - 1)

        monkeypatch.setattr(demo, "_look", look)
        monkeypatch.setattr(demo_module, "DemoService", lambda here, _folder: FakeService(here, runner))
        return demo

    return build


def _playbooks(runner: Any) -> list[str]:
    return [playbook for playbook, _arguments in runner.calls]


def test_a_first_run_does_everything_and_trades_one_round(
    make: Callable[[], Demo], runner: Any, exchange: FakeExchange
) -> None:
    demo = make()
    report = demo.up()
    assert _playbooks(runner) == ["prepare_nodes", "prepare_sandbox", "converge_tenant"]
    assert exchange.prices == ["35500", "34400", "35500"]
    assert (report["state"], report["open_orders"], report["fills"]) == ("running", 10, 2)
    assert [(event["type"], event["answer"], event["state"]) for event in report["events"]] == [
        ("tenant.created", 202, "applied"),
        ("exchange.connected", 202, "applied"),
        ("bot.created", 202, "applied"),
        ("bot.started", 202, "applied"),
    ]
    assert yaml.safe_load(demo.report_path.read_text()) == report
    assert demo.report_path.stat().st_mode & 0o777 == 0o600


def test_a_second_run_prepares_nothing_and_moves_no_price(
    make: Callable[[], Demo], runner: Any, exchange: FakeExchange
) -> None:
    make().up()
    before = (make().events_path.read_bytes(), list(exchange.accounts), list(exchange.prices))
    runner.calls.clear()
    report = make().up()
    assert [event["answer"] for event in report["events"]] == [200] * 4
    assert _playbooks(runner) == ["converge_tenant"]
    assert (make().events_path.read_bytes(), exchange.accounts, exchange.prices) == before


def test_all_steps_can_be_asked_for(make: Callable[[], Demo], runner: Any) -> None:
    make().up()
    runner.calls.clear()
    make().up(all_steps=True)
    assert _playbooks(runner) == ["prepare_nodes", "prepare_sandbox", "converge_tenant"]


def test_credentials_exist_encrypted_only(make: Callable[[], Demo], exchange: FakeExchange, fleet_path: Path) -> None:
    demo = make()
    demo.up()
    account = exchange.accounts[0]
    assert account["balances"] == BALANCES
    for path in fleet_path.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert account["api_key"].encode() not in content, path
            assert account["api_secret"].encode() not in content, path


def test_events_for_another_key_ring_are_made_anew(make: Callable[[], Demo], fleet_path: Path) -> None:
    demo = make()
    demo._ensure_events()
    before = demo.events_path.read_bytes()
    (fleet_path.parent / "keyring.yml").unlink()
    other = make()
    other._ensure_keyring()
    other._ensure_events()
    assert other.events_path.read_bytes() != before
    assert other._credentials() is not None


def test_a_stored_tenant_whose_events_are_lost_is_refused(make: Callable[[], Demo]) -> None:
    demo = make()
    demo.up()
    demo.events_path.unlink()
    with pytest.raises(DemoError, match="hummingfleet demo down"):
        make().up()


def test_a_failing_playbook_ends_the_demonstration_with_its_reason(make: Callable[[], Demo]) -> None:
    demo = make()
    failure = TaskFailure("local", "Install the engine", "no package docker.io")
    demo._run = lambda playbook, **_arguments: RunResult(playbook, 2, 1.0, failures=(failure,))
    with pytest.raises(DemoError, match=r"no package docker\.io"):
        demo.up()


def test_an_event_that_fails_ends_the_demonstration_with_its_reason(
    make: Callable[[], Demo], runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = make()
    service = FakeService(demo.here, runner)
    service.problem = "credentials_refused"
    monkeypatch.setattr(demo_module, "DemoService", lambda *_arguments: service)
    with pytest.raises(DemoError, match=r"event \S+ is failed: because"):
        demo.up()


def test_a_bot_that_was_stopped_by_hand_is_left_alone(
    make: Callable[[], Demo], call: Callable[..., Any], exchange: FakeExchange
) -> None:
    make().up()
    call("bot", "stop", "demo", "b1")
    prices = list(exchange.prices)
    report = make().up()
    assert "somebody has stopped it" in [s["note"] for s in report["steps"]][-1]
    assert exchange.prices == prices


def test_a_user_who_is_not_root_is_told_so(make: Callable[[], Demo], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DemoError, match="needs root"):
        make().up()


def test_a_fleet_of_other_machines_is_refused(make: Callable[[], Demo], fleet_path: Path) -> None:
    fleet_path.write_text(fleet_path.read_text().replace("ansible_connection: local", "ansible_host: 192.0.2.1"))
    with pytest.raises(DemoError, match="ansible_connection: local"):
        make().up()


def test_down_removes_tenant_exchange_and_files(
    make: Callable[[], Demo], runner: Any, registry: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_module, "_docker_answers", lambda: True)
    monkeypatch.setattr(demo_module, "_FIREWALL", tmp_path / "no-firewall")
    demo = make()
    demo.up()
    (tmp_path / "node" / "agent").mkdir(parents=True)
    runner.calls.clear()
    make().down()
    assert _playbooks(runner) == ["remove_tenant", "remove_sandbox", "remove_broker"]
    assert registry.list() == ()
    assert not demo.folder.exists()
    assert not (tmp_path / "node").exists()
    make().down()  # a second time there is nothing to do


def test_private_files_are_private_from_the_start_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["file"]


PICTURE = {
    "code": "c",
    "files": {"/etc/x": ["d", 33188, 0, 0]},
    "folders": {"/srv/x": [16832, 0, 0]},
    "docker": {"images": {"i:1": "sha256:1"}},
    "compose": "2.26",
    "firewall": True,
}


def test_equal_pictures_of_a_healthy_machine_need_nothing() -> None:
    assert differences(PICTURE, dict(PICTURE)) == []


@pytest.mark.parametrize(
    "change", [{"code": "d"}, {"files": {}}, {"folders": {}}, {"docker": None}, {"compose": None}, {"firewall": False}]
)
def test_every_difference_is_a_reason_to_prepare(change: dict[str, Any]) -> None:
    assert differences(PICTURE, {**PICTURE, **change})


@pytest.mark.parametrize("broken", [{"docker": None}, {"compose": None}, {"firewall": False}])
def test_two_equal_pictures_of_something_broken_are_a_reason_to_prepare(broken: dict[str, Any]) -> None:
    assert differences({**PICTURE, **broken}, {**PICTURE, **broken})


def test_no_picture_is_a_reason_to_prepare() -> None:
    assert differences(None, PICTURE)
