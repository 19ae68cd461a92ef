"""The worker's loop with a stand-in for the playbook: what runs when, what is recorded, and how it ends."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    RegistryUnavailableError,
    TenantRecord,
    process_holder,
)

from tests import factories
from webhook import operations
from webhook import worker as worker_module
from webhook.callbacks import Outbox
from webhook.events import EVENT_TYPES, EventError, parse_event
from webhook.installation import Installation
from webhook.journal import EventRecord, Journal
from webhook.runs import RunCancelledError, RunResult, TaskFailure, TaskResult
from webhook.wake import Waker
from webhook.work import Claim, Waiting
from webhook.worker import Worker, judge, plan

WAIT_SECONDS = 30.0


class Playbook:
    """Does with the registry what a playbook does. ``hold`` keeps runs going; ``problems`` has them fail, by tenant."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        self.runs: list[tuple[str, tuple[str, ...] | None]] = []
        self.options: dict[str, Any] = {}
        self.begun = threading.Semaphore(0)
        self.hold: threading.Event | None = None
        self.problems: dict[str, str] = {}
        self.error: Exception | None = None
        self.bots: dict[str, Mapping[str, Any]] = {}
        self.records = True

    def __call__(self, playbook: str, *, only: Any = None, cancel: threading.Event, **options: Any) -> RunResult:
        if playbook == "show_tenants":
            return self.look(only)
        names = tuple(only)
        documents = {name: self.here.registry.get(name) for name in names}
        self.runs.append((playbook, names))
        self.options = options
        self.begun.release()
        while self.hold is not None and not self.hold.wait(0.01):
            if cancel.is_set():
                raise RunCancelledError("the playbook was interrupted")
        if self.error is not None:
            raise self.error
        for name in names:
            if name not in self.problems and self.records:
                self.apply(name, playbook, documents[name])
        failures = tuple(TaskFailure(f"tenant-{name}", "Judge", f"{name} failed") for name in self.problems)
        answers = tuple(
            TaskResult(
                f"tenant-{name}",
                operations.OUTCOME,
                "Judge",
                {"changed": True, "changes": [], "bots": {}}
                | ({"failed": True, "problem": self.problems[name], "msg": "no"} if name in self.problems else {}),
            )
            for name in names
        )
        return RunResult(playbook, 2 if failures else 0, 0.1, failures=failures, results=answers)

    def apply(self, name: str, playbook: str, record: TenantRecord) -> None:
        registry = self.here.registry
        lease = registry.acquire_leases([name], holder=process_holder(), ttl_seconds=60)[name]
        assert lease is not None
        outcome = {"bots": {bot["id"]: {"state": bot["state"]} for bot in record.document["bots"]}}
        registry.record_outcome(name, revision=record.revision, fence=lease.fence, applied=True, outcome=outcome)
        # Who looks sees it, too, unless the test says otherwise.
        self.bots.setdefault(name, outcome["bots"])
        if playbook == "remove_tenant":
            registry.forget(name, fence=lease.fence)
        else:
            registry.release_leases({name: lease.fence})

    def look(self, only: Any) -> RunResult:
        wanted = {row.tenant for row in self.here.registry.list(only=only)}
        answer = {"tenants": {name: {"reasons": [], "bots": self.bots.get(name, {})} for name in wanted}}
        return RunResult("show_tenants", 0, 0.1, results=(TaskResult("tenant-x", operations.STACKS, "Survey", answer),))


class House:
    """An installation with its journal, and a worker in a thread."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        fleet = {
            "plugin": "hummingfleet.core.tenants",
            "registry": str(folder / "registry.db"),
            "nodes": {"local": {"ansible_connection": "local", "memory_mib": 1_000_000}},
            "webhook": {"grace_seconds": 0, "observe_seconds": 1, **settings},
        }
        path = folder / "fleet.tenants.yml"
        path.write_text(yaml.safe_dump(fleet))
        (folder / "catalogue").symlink_to(factories.ROOT / "catalogue")
        self.here = Installation(path)
        self.journal = Journal(self.here.registry, self.here.fleet, self.here.catalogue)
        self.playbook = Playbook(self.here)
        self.worker = Worker(self.here, run=self.playbook)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.worker.run_forever, args=(self.stop,))
        self._count = 0

    def send(self, type: str, tenant: str = "acme", **data: Any) -> str:
        example = EVENT_TYPES[type].example()
        body = {**example, "data": {**example["data"], "tenant": tenant, **data}}
        self._count += 1
        event_id = f"msg_{self._count}"
        event = parse_event(body, self.here.catalogue)
        self.journal.accept(event, event_id=event_id, body=json.dumps(body).encode(), source="in_test")
        return event_id

    def event(self, event_id: str) -> EventRecord:
        return self.journal.get(event_id)

    def ends(self, event_id: str) -> EventRecord:
        """The event, once it is not waiting any more."""
        await_true(lambda: self.event(event_id).state != "accepted")
        return self.event(event_id)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        self.thread.start()
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        self.stop.set()
        Waker(self.here.fleet.run_dir).wake()
        self.thread.join(WAIT_SECONDS)
        assert not self.thread.is_alive()


def await_true(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_an_event_is_worked_off(house: House) -> None:
    with house.working():
        assert house.ends(house.send("tenant.created")).state == "applied"
    assert house.playbook.runs == [("converge_tenant", ("acme",))]
    assert house.playbook.options["fleet_path"] == house.here.fleet.path
    assert house.playbook.options["timeout_seconds"] == 900.0


def test_what_came_while_no_worker_ran_is_worked_off_later(house: House) -> None:
    events = [house.send("tenant.created"), house.send("exchange.connected"), house.send("bot.created")]
    with house.working():
        assert {house.ends(event).state for event in events} == {"applied"}
    assert len(house.playbook.runs) == 1


def test_five_updates_during_a_run_cost_one_more_run(house: House) -> None:
    for type in ("tenant.created", "exchange.connected", "bot.created"):
        house.send(type)
    with house.working():
        house.ends("msg_3")
        house.playbook.hold = threading.Event()
        house.send("bot.started")
        assert house.playbook.begun.acquire(timeout=WAIT_SECONDS)
        assert house.playbook.begun.acquire(timeout=WAIT_SECONDS)
        events = [house.send("bot.updated", changes={"priority": n}) for n in range(1, 6)]
        house.playbook.hold.set()
        assert {house.ends(event).state for event in events} == {"applied"}
    assert len(house.playbook.runs) == 3


def test_a_tenant_that_leaves_is_removed_and_forgotten(house: House) -> None:
    with house.working():
        house.ends(house.send("tenant.created"))
        assert house.ends(house.send("tenant.terminated")).state == "applied"
        assert house.here.registry.list() == ()
        assert house.ends(house.send("tenant.created")).state == "applied"
    assert [playbook for playbook, _names in house.playbook.runs] == [
        "converge_tenant", "remove_tenant", "converge_tenant",
    ]  # fmt: skip


def test_one_tenants_failure_is_its_own(house: House) -> None:
    house.playbook.problems = {"bad": "credentials_refused"}
    events = {name: house.send("tenant.created", name) for name in ("good", "bad", "fine")}
    with house.working():
        assert {name: house.ends(event).state for name, event in events.items()} == {
            "good": "applied", "bad": "failed", "fine": "applied",
        }  # fmt: skip
    failed = house.event(events["bad"])
    assert failed.code == "credentials_refused"
    assert failed.reason
    assert house.worker.status()["runs_failed"] == 1


def test_a_failed_event_that_is_retried_runs_again(house: House) -> None:
    house.playbook.problems = {"acme": "document_refused"}
    event = house.send("tenant.created")
    with house.working():
        assert house.ends(event).state == "failed"
        house.playbook.problems = {}
        house.journal.retry(event, actor="me")
        assert house.ends(event).state == "applied"
    assert len(house.playbook.runs) == 2


def test_a_run_that_says_it_succeeded_and_recorded_nothing_is_not_believed(house: House) -> None:
    house.playbook.records = False
    event = house.send("tenant.created")
    with house.working():
        await_true(lambda: house.event(event).attempts == 1)
    assert (house.event(event).state, house.event(event).code) == ("accepted", "internal")


@pytest.mark.parametrize("error", [RuntimeError("secret of acme"), OSError(28, "no space"), ValueError()])
def test_an_unexpected_error_in_a_run_is_one_attempt_and_shows_nothing(house: House, error: Exception) -> None:
    house.playbook.error = error
    event = house.send("tenant.created")
    with house.working():
        await_true(lambda: house.event(event).attempts == 1)
    stored = house.journal.tenant_status("acme").plain()
    assert house.event(event).code == "internal"
    assert "secret" not in json.dumps(stored)


def test_stopping_lets_runs_finish_within_the_grace(tmp_path: Path) -> None:
    house = House(tmp_path, grace_seconds=60)
    house.playbook.hold = threading.Event()
    event = house.send("tenant.created")
    with house.working():
        assert house.playbook.begun.acquire(timeout=WAIT_SECONDS)
        house.stop.set()
        later = house.send("tenant.created", "blue")
        house.playbook.hold.set()
        house.thread.join(WAIT_SECONDS)
    assert house.event(event).state == "applied"
    assert house.event(later).state == "accepted"
    assert len(house.playbook.runs) == 1


def test_after_the_grace_runs_are_cancelled_and_handed_back(house: House) -> None:
    house.playbook.hold = threading.Event()
    event = house.send("tenant.created")
    with house.working():
        assert house.playbook.begun.acquire(timeout=WAIT_SECONDS)
    assert (house.event(event).state, house.event(event).attempts) == ("accepted", 0)
    status = house.journal.tenant_status("acme")
    assert status.work == "waiting"
    assert house.journal.stats().workers == 0
    successor = Worker(house.here, run=Playbook(house.here))
    house.stop = threading.Event()
    house.thread = threading.Thread(target=successor.run_forever, args=(house.stop,))
    with house.working():
        assert house.ends(event).state == "applied"


def test_aborting_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    house = House(tmp_path, grace_seconds=3600)
    house.playbook.hold = threading.Event()
    event = house.send("tenant.created")
    with house.working():
        assert house.playbook.begun.acquire(timeout=WAIT_SECONDS)
        house.stop.set()
        house.worker.abort()
    assert house.event(event).state == "accepted"


def test_a_database_that_fails_for_a_while_stops_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = house.worker._queue
    waiting, failures = queue.waiting, iter([RegistryUnavailableError("gone"), RuntimeError("a mistake of ours")])

    def failing() -> tuple[Waiting, ...]:
        for error in failures:
            raise error
        return waiting()

    monkeypatch.setattr(queue, "waiting", failing)
    with house.working():
        assert house.ends(house.send("tenant.created")).state == "applied"
        await_true(lambda: house.worker.status()["ready"])


def test_an_outcome_that_cannot_be_recorded_at_once_is_recorded_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = house.worker._queue
    finish, failures = queue.finish, iter([RegistryUnavailableError("gone"), RegistryUnavailableError("gone")])

    def failing(*arguments: Any) -> bool:
        for error in failures:
            raise error
        return finish(*arguments)

    monkeypatch.setattr(queue, "finish", failing)
    with house.working():
        assert house.ends(house.send("tenant.created")).state == "applied"
    assert len(house.playbook.runs) == 1


def test_what_bots_do_is_seen_and_told(tmp_path: Path) -> None:
    house = House(tmp_path, portal_url="http://127.0.0.1:9/nobody-listens-here")
    for type in ("tenant.created", "exchange.connected", "bot.created", "bot.started"):
        house.send(type)
    with house.working():
        house.ends("msg_4")
        assert house.journal.tenant_status("acme").bots[0].state == "running"
        house.playbook.bots = {"acme": {"b1": {"state": "halted", "open_orders": 3}}}
        await_true(lambda: house.journal.tenant_status("acme").bots[0].state == "halted")
    assert house.journal.tenant_status("acme").bots[0].facts == {"open_orders": 3}
    told = [json.loads(one.body)["data"] for one in Outbox(house.here.registry).list() if one.type[:3] == "bot"]
    assert [(data["from"], data["to"]) for data in told] == [("running", "halted"), (None, "running")]


class LosingHouse(House):
    """A house on a clock of its own, with a tenant whose two bots may lose 100 US dollars a day."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, portal_url="http://127.0.0.1:9/nobody-listens-here", **settings)
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
        self.here.registry._clock = lambda: self.now
        self.send("tenant.created", risk={"max_daily_loss_usd": 100})
        self.send("exchange.connected")
        for bot in ("b1", "b2"):
            self.send("bot.created", bot={**EVENT_TYPES["bot.created"].example()["data"]["bot"], "id": bot})
            self.send("bot.started", bot_id=bot)

    def lose(self, **losses: float) -> None:
        """From now on the bots report these losses of the 23rd."""
        self.playbook.bots = {
            "acme": {
                bot: {"state": "running", "risk": {"day": "2026-11-23", "day_pnl": str(-loss), "quote": "USDT"}}
                for bot, loss in losses.items()
            }
        }

    @property
    def states(self) -> list[str]:
        return [bot["state"] for bot in self.here.registry.get("acme").document["bots"]]

    def is_idle(self) -> bool:
        return self.journal.tenant_status("acme").work == "idle"


def test_bots_that_lose_too_much_together_are_stopped_until_the_next_day(tmp_path: Path) -> None:
    house = LosingHouse(tmp_path)
    with house.working():
        house.ends("msg_6")
        house.lose(b1=60, b2=40)
        await_true(lambda: house.states == ["stopped", "stopped"])
        await_true(house.is_idle)
        assert house.here.registry.get("acme").applied_revision == house.here.registry.get("acme").revision
        seen = house.worker.status()["observations"]
        await_true(lambda: house.worker.status()["observations"] > seen + 1)
        halts = [one for one in Outbox(house.here.registry).list() if one.type == "tenant.risk_halted"]
        assert len(halts) == 1
        assert json.loads(halts[0].body)["data"]["bots"] == ["b1", "b2"]
        with pytest.raises(EventError, match="lost 100 US dollars on 2026-11-23"):
            house.send("bot.started", bot_id="b1")
        house.now = datetime(2026, 11, 24, 0, 0, 1, tzinfo=UTC).timestamp()
        assert house.ends(house.send("bot.started", bot_id="b1")).state == "applied"
        assert house.states == ["running", "stopped"]


def test_bots_that_have_lost_much_are_looked_at_more_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "NEAR_SECONDS", 0.0)
    monkeypatch.setattr(worker_module, "SOON_SECONDS", (0.0,))
    house = LosingHouse(tmp_path, observe_seconds=3600)
    house.lose(b1=30, b2=21)
    with house.working():
        house.ends("msg_6")
        seen = house.worker.status()["observations"]
        await_true(lambda: house.worker.status()["observations"] >= seen + 3)
        house.lose(b1=30, b2=71)
        await_true(lambda: house.states == ["stopped", "stopped"])


def test_a_living_worker_is_counted(house: House) -> None:
    with house.working():
        await_true(lambda: house.journal.stats().workers == 1)
        await_true(lambda: house.worker.status()["ready"])
    assert house.journal.stats().workers == 0
    assert not house.worker.status()["ready"]


# --- what runs together ----------------------------------------------------------------------------------------------


def waiting(name: str, *, node: str | None = "n1", attempt: int = 0, terminated: bool = False) -> Waiting:
    waiting.count = getattr(waiting, "count", 0) + 1  # type: ignore[attr-defined]
    return Waiting(name, node, attempt, terminated, float(waiting.count))  # type: ignore[attr-defined]


def groups(found: list[Waiting], free: int, batch: int = 8) -> list[list[str]]:
    return [[one.tenant for one in group] for group in plan(found, free, batch)]


def test_one_tenant_is_one_run() -> None:
    assert groups([waiting("a")], 4) == [["a"]]


def test_nothing_runs_without_a_free_run() -> None:
    assert groups([waiting("a")], 0) == []


def test_a_few_tenants_have_a_run_each() -> None:
    assert groups([waiting("a"), waiting("b"), waiting("c")], 4) == [["a"], ["b"], ["c"]]


def test_many_tenants_share_runs_with_those_of_their_node() -> None:
    found = [waiting(f"{n}{node}", node=f"node{node}") for n in range(4) for node in (1, 2)]
    assert groups(found, 2) == [["01", "11", "21", "31"], ["02", "12", "22", "32"]]


def test_a_run_has_no_more_tenants_than_the_batch_and_the_oldest_go_first() -> None:
    found = [waiting(f"t{n:02}") for n in range(20)]
    assert groups(found, 2, batch=3) == [["t00", "t01", "t02"], ["t03", "t04", "t05"]]


def test_who_failed_before_runs_alone_and_leaves_a_run_for_the_others() -> None:
    failed = [waiting(f"f{n}", attempt=1) for n in range(5)]
    assert groups([*failed, waiting("a"), waiting("b")], 3) == [["f0"], ["f1"], ["a", "b"]]
    assert groups([*failed, waiting("a")], 1) == [["f0"]]
    assert groups(failed, 3) == [["f0"], ["f1"]]
    assert groups([waiting("a"), waiting("f", attempt=1)], 1) == [["a"]]


def test_one_run_is_kept_for_the_others_also_while_the_failing_ones_are_at_work() -> None:
    failed = [waiting(f"f{n}", attempt=1) for n in range(5)]
    found = plan([*failed, waiting("a")], 1, 8, troubled=3, parallel=4)
    assert [[one.tenant for one in group] for group in found] == [["a"]]
    assert plan(failed, 1, 8, troubled=3, parallel=4) == []
    assert len(plan(failed, 2, 8, troubled=2, parallel=4)) == 1


def test_tenants_of_a_node_that_does_not_answer_share_a_run() -> None:
    silent = [replace(waiting(f"s{n}", node="gone", attempt=2), problem="unreachable") for n in range(30)]
    other = replace(waiting("o", node="other", attempt=2), problem="unreachable")
    failed = replace(waiting("f", node="gone", attempt=2), problem="internal")
    found = groups([*silent, other, failed], 5, batch=2)
    assert [len(group) for group in found] == [20, 10, 1, 1]


def test_planning_for_thousands_is_no_work() -> None:
    many = [waiting(f"t{n}", attempt=n % 2) for n in range(20_000)]
    assert len(plan(many, 4, 8)) == 4


def test_who_leaves_runs_alone() -> None:
    assert groups([waiting("a", terminated=True), waiting("b"), waiting("c", node=None)], 4) == [["a"], ["c"], ["b"]]


# --- judging ---------------------------------------------------------------------------------------------------------


def test_a_tenant_that_its_node_found_as_it_should_be_has_nothing_to_do_with_anothers_failure() -> None:
    claims = [Claim("good", 1, 1, 3, False), Claim("bad", 1, 1, 3, False)]
    failed = operations.TenantReport("bad", problem=operations.Problem.CREDENTIALS_REFUSED, message="bad's own words")
    report = operations.ConvergeReport((failed,), asked=2, changed=0, seconds=1.0)
    records = {name: TenantRecord(name, 3, 3, {"state": "active"}, None, "") for name in ("good", "bad")}
    endings = judge(claims, report, records)
    assert endings["good"].problem is None
    assert endings["bad"].problem == "credentials_refused"


def test_a_run_that_ended_before_anybodys_turn_failed_for_all() -> None:
    claims = [Claim("one", 1, 1, 3, False), Claim("two", 1, 1, 3, False)]
    report = operations.ConvergeReport(
        (), asked=0, changed=0, seconds=1.0, message="no", message_problem=operations.Problem.UNREACHABLE
    )
    records = {name: TenantRecord(name, 3, 3, {"state": "active"}, None, "") for name in ("one", "two")}
    assert {ending.problem for ending in judge(claims, report, records).values()} == {"unreachable"}


def record(outcome: dict[str, Any] | None) -> TenantRecord:
    return TenantRecord("acme", 3, 3, {"state": "active"}, outcome, "")


@pytest.mark.parametrize(
    ("problem", "outcome", "bots"),
    [
        (None, {"at": "2027-01-02", "bots": {"b1": {"state": "running"}}}, {"b1": {"state": "running"}}),
        (None, {"at": "2027-01-02", "bots": {}}, {}),
        ("engine_refused", {"at": "2027-01-02", "bots": {"b1": {"state": "dead"}}}, {"b1": {"state": "dead"}}),
        ("credentials_refused", {"at": "2027-01-02", "bots": {}}, None),  # it never came to look
        ("unreachable", {"at": "2026-12-31", "bots": {"b1": {"state": "running"}}}, None),  # an earlier run's
        ("unreachable", None, None),
    ],
)
def test_bots_are_as_this_run_has_seen_them(problem: str | None, outcome: Any, bots: Any) -> None:
    claim = Claim("acme", 1, 1, 3, False, "2027-01-01")
    one = operations.TenantReport("acme", problem=operations.Problem(problem) if problem else None)
    report = operations.ConvergeReport((one,), asked=1, changed=0, seconds=1.0)
    assert judge([claim], report, {"acme": record(outcome)})["acme"].bots == bots


def test_a_tenant_made_anew_since_it_was_claimed_is_not_removed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    with house.working():
        house.ends(house.send("tenant.created"))
    stale = Claim("acme", 99, 99, 5, True, "")
    house.worker._work((stale,), threading.Event())
    assert [playbook for playbook, _names in house.playbook.runs] == ["converge_tenant"]
    assert house.here.registry.get("acme").document["state"] == "active"


def test_an_error_around_a_run_gives_the_claim_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, failures = house.here.registry, iter([RuntimeError("a mistake of ours")])
    records = registry.records

    def failing(tenants: Any) -> Any:
        for error in failures:
            raise error
        return records(tenants)

    monkeypatch.setattr(registry, "records", failing)
    with house.working():
        event = house.ends(house.send("tenant.created"))
    assert (event.state, event.attempts) == ("applied", 0)


def test_without_a_portal_nothing_is_kept_for_it(house: House) -> None:
    with house.working():
        house.ends(house.send("tenant.created"))
    assert Outbox(house.here.registry).list() == ()
