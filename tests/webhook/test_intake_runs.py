"""From a posted event to the run it costs: the real web process and the real worker, with a playbook that can wait."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

from tests import factories
from tests.kill.plan import event
from tests.kill.playbook import Behaviour, answer_of, play
from tests.kill.portal import Connection
from tests.kill.stage import Stage, stage, wait_until
from webhook.installation import Installation
from webhook.journal import EventRecord, Journal
from webhook.runs import RunResult
from webhook.worker import Worker


class Playbook:
    """Stands for a playbook: does to the registry what it does, but can be made to wait or to fail on the way."""

    def __init__(self, target: Stage) -> None:
        self._behaviour = Behaviour(folder=str(target.folder), registry=target.fleet.registry, work_seconds=(0.0, 0.0))
        self.runs: list[list[str]] = []
        self.problem: str | None = None
        self.at_work = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, playbook: str, *, only: Collection[str] | None = None, **_other: Any) -> RunResult:
        """One run."""
        if playbook != "converge_tenant":
            return RunResult(playbook, 0, 0.0)
        tenants = sorted(only or ())
        self.runs.append(tenants)

        def work(_tenant: str) -> str | None:
            self.at_work.set()
            assert self.may_end.wait(60)
            return self.problem

        return answer_of(playbook, tenants, play(self._behaviour, playbook, tenants, work), 0.0)


class Place:
    """A web process, a worker with that playbook in this process, and a portal."""

    def __init__(self, target: Stage) -> None:
        self.playbook = Playbook(target)
        self.registry = Registry(target.fleet.registry)
        self.journal = Journal(self.registry, target.fleet, load_catalogue(target.fleet.catalogue))
        self.worker = Worker(Installation(target.fleet_path), run=self.playbook)
        self._target = target
        self._sent = 0

    def post(self, kind: str, **data: Any) -> str:
        """Posts an event that has to be accepted; its id."""
        self._sent += 1
        event_id = f"run-{self._sent}"
        with closing(Connection(self._target.port, self._target.secret)) as connection:
            answer = connection.post(event_id, json.dumps(event(kind, **data)).encode())
        assert answer.status == 202, answer.body
        return event_id

    def wait_for(self, event_id: str, state: str) -> EventRecord:
        """Waits until the event is in that state."""
        wait_until(lambda: self.journal.get(event_id).state == state, f"{event_id} is {state}", 60)
        return self.journal.get(event_id)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with stage(tmp_path) as target:
        target.web.start()
        target.web.wait_ready()
        made = Place(target)
        with working(made):
            yield made


@contextlib.contextmanager
def working(place: Place) -> Iterator[None]:
    """The worker works in a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=place.worker.run_forever, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        place.playbook.may_end.set()
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def create(place: Place) -> str:
    """Makes the tenant acme with a bot; the id of the event."""
    return place.post("tenant.created", **factories.market_making_document(bots=[factories.market_making_bot(id="b1")]))


def test_five_updates_during_a_run_cost_one_more_run(place: Place) -> None:
    place.playbook.may_end.clear()
    create(place)
    assert place.playbook.at_work.wait(60)
    updates = [
        place.post("bot.updated", tenant="acme", bot_id="b1", changes={"strategy_config": {"order_amount": amount}})
        for amount in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    assert len(place.playbook.runs) == 1
    place.playbook.may_end.set()
    for update in updates:
        place.wait_for(update, "applied")
    assert place.playbook.runs == [["acme"]] * 2
    record = place.registry.get("acme")
    assert record.revision == record.applied_revision == 6


def test_an_event_that_failed_and_is_tried_again_really_runs_again(place: Place) -> None:
    place.wait_for(create(place), "applied")
    place.playbook.problem = "document_refused"
    failed = place.wait_for(place.post("bot.started", tenant="acme", bot_id="b1"), "failed")
    assert failed.code == "document_refused"
    runs = len(place.playbook.runs)
    place.journal.retry(failed.id, actor="test")
    wait_until(lambda: place.journal.get(failed.id).state == "failed", "it failed again", 60)
    assert len(place.playbook.runs) == runs + 1
    place.playbook.problem = None
    place.journal.retry(failed.id, actor="test")
    place.wait_for(failed.id, "applied")
    assert len(place.playbook.runs) == runs + 2
    record = place.registry.get("acme")
    assert record.revision == record.applied_revision == 2


def test_an_event_that_changes_nothing_costs_a_run_all_the_same(place: Place) -> None:
    place.wait_for(create(place), "applied")
    stopped = place.wait_for(place.post("bot.stopped", tenant="acme", bot_id="b1"), "applied")
    assert not stopped.changed
    assert len(place.playbook.runs) == 2
