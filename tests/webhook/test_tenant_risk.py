"""The daily loss limit of a tenant, from what a worker sees to what the portal is told and what is refused after."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, process_holder
from ansible_collections.hummingfleet.core.plugins.module_utils.risk_halt import day_of

from tests import factories
from tests.webhook.queue_place import START, Place
from webhook.events import EventError
from webhook.work import Ending, WorkQueue

DAY = day_of(START)
TOMORROW = datetime.fromisoformat(f"{DAY}T00:00:00Z").timestamp() + 86_400


_CEILING = "plan.tenant_max_daily_loss_usd"


class RiskyPlace(Place):
    """A place whose tenant has two running bots and may lose 100 US dollars a day."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        self.tenant()
        self.send("bot.created", bot={**_example_bot(), "id": "b2", "bot_name": "Second"})
        self.send("bot.started", bot_id="b2")
        self.send("tenant.updated", changes={"risk": {"max_daily_loss_usd": 100}})
        self.run()
        self.deliver()

    def worker(self, holder: str | None = None) -> WorkQueue:
        return WorkQueue(
            self.registry,
            holder or process_holder(),
            jitter=lambda: 0.0,
            fleet=self.fleet,
            catalogue=factories.catalogue(),
        )

    def deliver(self) -> None:
        """Whatever the portal is to be told, it was told."""
        while pending := self.callbacks():
            for one in pending:
                self.outbox.record(one.number, True, None, self.clock())

    def look(self, bots: Mapping[str, Any], queue: WorkQueue | None = None) -> bool:
        """What a worker's look at the bots leads to: whether they are near the limit."""
        return (queue or self.queue).see("acme", bots, looked_at=self.clock())

    def told_of(self, type: str) -> list[dict[str, Any]]:
        """The data of the call-backs of that type that wait."""
        return [json.loads(one.body)["data"] for one in self.callbacks() if one.type == type]

    @property
    def document(self) -> dict[str, Any]:
        return self.registry.get("acme").document

    @property
    def states(self) -> dict[str, str]:
        return {bot["id"]: bot["state"] for bot in self.document["bots"]}

    def apply_by_hand(self, change: Callable[[dict[str, Any]], Mapping[str, Any]], *, lift: bool = False) -> None:
        self.registry.change(
            "acme",
            change,
            cause=Cause("command", "by hand", "me", lift),
            fleet=self.fleet,
            catalogue=factories.catalogue(),
        )


def _example_bot() -> dict[str, Any]:
    from webhook.events import EVENT_TYPES

    bot: dict[str, Any] = EVENT_TYPES["bot.created"].example()["data"]["bot"]
    return bot


@pytest.fixture
def place(registry_url: str, tmp_path: Path) -> RiskyPlace:
    return RiskyPlace(tmp_path, registry_url)


def bots(**losses: Any) -> dict[str, dict[str, Any]]:
    """The facts of running bots that lost so much today."""
    return {
        bot: {
            "state": "running",
            "heartbeat_age_seconds": 1.0,
            "halted": None,
            "risk": {"day": DAY, "day_pnl": str(-loss), "pnl": str(-loss), "equity": "1000", "quote": "USDT"},
        }
        for bot, loss in losses.items()
    }


def rules(error: EventError | DocumentError) -> set[tuple[str, str]]:
    return {(fault.pointer, fault.rule) for fault in error.faults}


def test_two_bots_that_lose_the_limit_together_are_both_stopped_and_the_portal_is_told(place: RiskyPlace) -> None:
    before = place.registry.get("acme").revision
    assert place.look(bots(b1=40, b2=59.99))
    assert place.states == {"b1": "running", "b2": "running"}
    place.look(bots(b1=40, b2=60))
    record = place.registry.get("acme")
    assert place.states == {"b1": "stopped", "b2": "stopped"}
    assert record.revision == before + 1
    halt = record.document["risk_halt"]
    assert halt == {"limit": "max_daily_loss_usd", "day": DAY, "value": 100, "threshold": 100, "at": halt["at"]}
    (told,) = place.told_of("tenant.risk_halted")
    until = datetime.fromtimestamp(TOMORROW, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert told == {**halt, "tenant": "acme", "until": until, "revision": record.revision, "bots": ["b1", "b2"]}
    cause = place.registry.history("acme")[-1].cause
    assert (cause.kind, cause.actor) == ("risk_halt", "worker")
    assert "lost 100.00 US dollars" in cause.text
    assert [one.tenant for one in place.queue.waiting()] == ["acme"]
    assert place.journal.tenant_status("acme").risk == {
        "day": DAY,
        "pnl_usd": "-100.00",
        "limit_usd": "100.00",
        "halt": {**halt, "lifted_at": None, "until": until},
    }


def test_more_than_half_of_the_limit_asks_for_another_look_soon(place: RiskyPlace) -> None:
    assert not place.look(bots(b1=25, b2=25))
    assert place.look(bots(b1=25, b2=26))
    assert not place.look(bots(b1=25, b2=75))  # that is a halt, and a run will look


def test_two_workers_that_see_it_at_once_halt_once(place: RiskyPlace) -> None:
    workers = [place.worker(f"other-host:{n}:boot/1/1") for n in range(8)]
    before, ready = place.registry.get("acme").revision, threading.Barrier(8)

    def look(queue: WorkQueue) -> bool:
        ready.wait()
        return place.look(bots(b1=150, b2=0), queue)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, workers))
    assert place.registry.get("acme").revision == before + 1
    assert len(place.told_of("tenant.risk_halted")) == 1


def test_a_run_that_sees_the_loss_halts_too_even_if_it_failed(place: RiskyPlace) -> None:
    place.send("bot.restarted")
    claim = place.claim()
    place.queue.finish(claim, Ending("unreachable", "no answer", "no answer", bots(b1=100, b2=1)))
    assert place.states == {"b1": "stopped", "b2": "stopped"}
    assert [one.tenant for one in place.queue.waiting()] == ["acme"], "stopping must not wait for the retry's time"


def test_a_bot_that_stopped_restarts_or_was_deleted_today_counts_with_its_last_report(place: RiskyPlace) -> None:
    place.look(bots(b1=40, b2=30))
    silent = {"state": "starting", "heartbeat_age_seconds": 3.0, "halted": None, "risk": None}
    place.look({**bots(b1=40), "b2": silent})
    assert place.journal.tenant_status("acme").risk["pnl_usd"] == "-70.00"
    place.send("bot.deleted", bot_id="b2")
    place.run()
    place.deliver()
    place.look(bots(b1=40))
    place.look(bots(b1=40))
    assert place.told() == [("bot.state_changed", ("b2", "starting", "removed"))]
    assert place.journal.tenant_status("acme").risk["pnl_usd"] == "-70.00"
    place.look({**bots(b1=40), "b2": silent})
    assert place.told()[1:] == [("bot.state_changed", ("b2", None, "starting"))]
    place.look(bots(b1=69, b2=0))
    assert place.states == {"b1": "running"}
    place.look(bots(b1=69, b2=1))
    assert place.states == {"b1": "stopped"}


def test_a_deleted_bot_is_forgotten_when_its_day_is_over(place: RiskyPlace) -> None:
    place.look(bots(b1=0, b2=30))
    place.look(bots(b1=0))
    place.clock.seconds = TOMORROW + 1
    place.look(bots(b1=0))
    place.deliver()
    place.look(bots(b1=0, b2=0))
    assert place.told() == [("bot.state_changed", ("b2", None, "running"))]


# --- what is refused, and until when ---------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["bot.started", "bot.restarted", "bot.resumed"])
def test_no_event_starts_a_bot_before_the_day_has_ended(place: RiskyPlace, type: str) -> None:
    place.look(bots(b1=100, b2=0))
    place.clock.seconds = TOMORROW - 1
    with pytest.raises(EventError) as caught:
        place.send(type)
    assert rules(caught.value) == {("/data/bot_id", "tenant.risk_halt")}
    assert "running from" in str(caught.value)
    place.clock.seconds = TOMORROW
    place.send(type)
    assert place.states["b1"] == "running"
    assert "risk_halt" not in place.document


def test_a_new_bot_that_is_to_run_is_refused_and_a_stopped_one_is_not(place: RiskyPlace) -> None:
    place.look(bots(b1=100, b2=0))
    with pytest.raises(EventError) as caught:
        place.send("bot.created", bot={**_example_bot(), "id": "b3", "state": "running"})
    assert rules(caught.value) == {("/data/bot/state", "tenant.risk_halt")}
    place.send("bot.created", bot={**_example_bot(), "id": "b3"})
    assert place.states["b3"] == "stopped"
    assert place.document["risk_halt"]["day"] == DAY


def test_everything_but_starting_is_accepted_and_keeps_the_halt(place: RiskyPlace) -> None:
    place.look(bots(b1=100, b2=0))
    place.send("bot.updated", changes={"priority": 5})
    place.send("bot.stopped")
    place.send("bot.liquidated", bot_id="b2")
    place.send("tenant.updated", changes={"risk": {"max_daily_loss_usd": 5000}})
    place.send("tenant.suspended")
    place.send("tenant.resumed")
    assert place.states == {"b1": "stopped", "b2": "liquidated"}
    assert place.document["risk_halt"]["threshold"] == 100


def test_the_first_change_on_another_day_takes_the_halt_out_of_the_document(place: RiskyPlace) -> None:
    place.look(bots(b1=100, b2=0))
    place.clock.seconds = TOMORROW
    assert place.journal.tenant_status("acme").risk["halt"] is None
    place.send("bot.updated", changes={"priority": 5})
    assert "risk_halt" not in place.document
    assert place.states == {"b1": "stopped", "b2": "stopped"}, "nothing starts by itself"


def test_no_document_that_is_submitted_and_no_rollback_gets_round_the_halt(place: RiskyPlace) -> None:
    before, revision = place.document, place.registry.get("acme").revision
    place.look(bots(b1=100, b2=0))
    options: dict[str, Any] = {"fleet": place.fleet, "catalogue": factories.catalogue()}
    for attempt in (
        lambda: place.registry.submit(before, cause=Cause("apply"), **options),
        lambda: place.registry.submit({**before, "risk_halt": None}, cause=Cause("apply"), **options),
        lambda: place.registry.rollback("acme", revision, cause=Cause("rollback"), **options),
    ):
        with pytest.raises(DocumentError) as caught:
            attempt()
        assert rules(caught.value) == {("/bots/0/state", "tenant.risk_halt"), ("/bots/1/state", "tenant.risk_halt")}
    place.registry.submit(
        {**before, "bots": [{**bot, "state": "stopped"} for bot in before["bots"]]}, cause=Cause("apply"), **options
    )
    assert place.document["risk_halt"]["day"] == DAY


def test_an_operator_lifts_it_which_is_recorded_and_it_comes_back_after_as_much_again(place: RiskyPlace) -> None:
    def start(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "bots": [{**bot, "state": "running"} for bot in document["bots"]]}

    place.look(bots(b1=120, b2=0))
    with pytest.raises(DocumentError):
        place.apply_by_hand(start)
    place.apply_by_hand(start, lift=True)
    assert place.states == {"b1": "running", "b2": "running"}
    assert place.document["risk_halt"]["lifted_at"]
    cause = place.registry.history("acme")[-1].cause
    assert cause.text == f"lifts the tenant's risk halt of {DAY}: by hand"
    place.look(bots(b1=120, b2=99))
    assert place.states == {"b1": "running", "b2": "running"}
    place.look(bots(b1=120, b2=100))
    assert place.states == {"b1": "stopped", "b2": "stopped"}
    assert (place.document["risk_halt"]["value"], place.document["risk_halt"]["threshold"]) == (220, 220)
    assert len(place.told_of("tenant.risk_halted")) == 2


def test_lifting_what_nobody_halted_changes_nothing_and_says_nothing(place: RiskyPlace) -> None:
    revision = place.registry.get("acme").revision
    place.apply_by_hand(lambda document: document, lift=True)
    assert place.registry.get("acme").revision == revision


def test_a_tenant_that_leaves_is_left_alone(place: RiskyPlace) -> None:
    place.send("tenant.terminated")
    place.look(bots(b1=500, b2=0))
    assert "risk_halt" not in place.document


def test_a_document_that_todays_catalogue_refuses_does_not_keep_bots_running(place: RiskyPlace) -> None:
    """A pair that was delisted, say: what was wrong before stays as it is, and the bots stop."""
    with place.registry.transaction(write=True) as connection:
        from ansible_collections.hummingfleet.core.plugins.module_utils import tables

        data = {**place.document, "plan": "gone"}
        connection.execute(tables.tenants.update().values(document=json.dumps(data), plan="gone"))
    place.look(bots(b1=500, b2=0))
    assert place.states == {"b1": "stopped", "b2": "stopped"}


def test_the_status_api_and_refusals_say_what_the_service_declares(
    portal: Any, created: Any, event: Any, finish: Any, web_installation: Any, clock: Any
) -> None:
    portal.accepted(created(risk={"max_daily_loss_usd": 100}))
    portal.accepted(event("bot.started", bot_id="b1"))
    finish("acme")
    fresh = portal.get("/v1/tenants/acme").json["risk"]
    registry = web_installation.registry
    assert (fresh["pnl_usd"], fresh["halt"]) == ("0.00", None)
    queue = WorkQueue(registry, process_holder(), fleet=web_installation.fleet, catalogue=web_installation.catalogue)
    seen = bots(b1=250.5)
    seen["b1"]["risk"]["day"] = day_of(registry.clock())
    queue.see("acme", seen, looked_at=registry.clock())
    status = portal.get("/v1/tenants/acme").json
    assert (status["risk"]["pnl_usd"], status["risk"]["halt"]["value"]) == ("-250.50", 250.5)
    assert status["bots"][0]["facts"]["risk"]["equity"] == "1000"
    refused = portal.send(event("bot.started", bot_id="b1"))
    assert refused.status_code == 422
    (fault,) = refused.get_json(force=True)["faults"]
    assert (fault["rule"], fault["pointer"]) == ("tenant.risk_halt", "/data/bot_id")
    assert fault["allowed"].endswith("T00:00:00Z on")


def test_a_smaller_plan_needs_a_lower_limit_first(place: RiskyPlace) -> None:
    place.send("tenant.updated", changes={"risk": {"max_daily_loss_usd": 5000}})
    with pytest.raises(EventError) as caught:
        place.send("subscription.changed", plan="starter")
    assert ("/data/plan", _CEILING) in rules(caught.value)
    place.send("tenant.updated", changes={"risk": {"max_daily_loss_usd": None}})
    assert "risk" not in place.document
    assert place.journal.tenant_status("acme").risk["limit_usd"] == "50000.00"


def test_a_limit_that_cannot_be_is_refused_where_the_portal_wrote_it(place: RiskyPlace) -> None:
    for changes, pointer, rule in (
        ({"risk": {"max_daily_loss_usd": 50_001}}, "/data/changes/risk/max_daily_loss_usd", _CEILING),
        ({"risk": {"max_daily_loss_usd": -1}}, "/data/changes/risk/max_daily_loss_usd", "range"),
        ({"risk": {"max_weekly_loss": 1}}, "/data/changes/risk/max_weekly_loss", "unknown"),
        ({"risk_halt": None}, "/data/changes/risk_halt", "unknown"),
    ):
        with pytest.raises(EventError) as caught:
            place.send("tenant.updated", changes=changes)
        assert (pointer, rule) in rules(caught.value)


# --- a bot's own halt ------------------------------------------------------------------------------------------------


def halted(at: float, code: str = "RISK_MAX_DAILY_LOSS") -> dict[str, Any]:
    one = bots(b1=0)["b1"]
    return {"b1": {**one, "state": "halted", "halted": {"code": code, "message": "RISK_HALT limit=x", "at": at}}}


def test_the_portal_is_told_once_when_a_bot_halts_and_when_that_is_lifted(place: RiskyPlace) -> None:
    place.look(bots(b1=0))
    place.deliver()
    at = place.clock()
    for _look in range(2):
        place.look(halted(at))
    (told,) = place.told_of("bot.halted")
    iso = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert told == {
        "tenant": "acme",
        "bot": "b1",
        "code": "RISK_MAX_DAILY_LOSS",
        "message": "RISK_HALT limit=x",
        "at": iso,
    }
    place.look({"b1": {"state": "starting", "heartbeat_age_seconds": None, "halted": None}})
    assert not place.told_of("bot.halt_lifted")
    place.look(halted(at + 60))
    assert len(place.told_of("bot.halted")) == 2
    for _look in range(2):
        place.look(bots(b1=0))
    assert place.told_of("bot.halt_lifted") == [{"tenant": "acme", "bot": "b1", "code": "RISK_MAX_DAILY_LOSS"}]


def test_bot_resumed_is_refused_until_earliest_resume_s_is_over(place: RiskyPlace) -> None:
    place.send("bot.updated", changes={"risk_config": {"earliest_resume_s": 3600}})
    place.look(halted(place.clock()))
    place.clock.seconds += 3599
    with pytest.raises(EventError) as caught:
        place.send("bot.resumed")
    assert rules(caught.value) == {("/data/bot_id", "bot.too_early")}
    (fault,) = caught.value.faults
    possible = datetime.fromtimestamp(START + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert fault.allowed == f"{possible} or later"
    place.send("bot.restarted")  # does not lift a halt
    place.clock.seconds += 1
    assert place.send("bot.resumed").event.changed


def test_a_bot_that_is_not_halted_is_resumed_as_ever(place: RiskyPlace) -> None:
    place.send("bot.updated", changes={"risk_config": {"earliest_resume_s": 3600}})
    place.look(bots(b1=0))
    assert place.send("bot.resumed").event.changed
    assert place.send("bot.resumed", bot_id="b2").event.changed, "of a bot that was never seen nothing is known"
