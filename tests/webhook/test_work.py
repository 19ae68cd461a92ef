"""The queue: who is worked on, by whom, and what a run's end means for events, retries and the portal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, process_holder

from tests import factories
from tests.webhook.queue_place import Place
from webhook.journal import EventStateError
from webhook.retries import decide
from webhook.work import CLAIM_SECONDS, Ending

REFUSED = Ending("credentials_refused", "detail for operators", "Please enter the credentials again.")
UNREACHABLE = Ending("unreachable", "node edge_1 does not answer", "The machine does not answer; it is tried again.")
# A process on another machine: nothing can be known about it.
ELSEWHERE = "other-host:1:boot/1/1"


@pytest.fixture
def place(registry_url: str, tmp_path: Path) -> Place:
    return Place(tmp_path, registry_url)


def dead_holder() -> str:
    """The holder of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = process_holder(process.pid)
    process.communicate()
    return holder


def names(place: Place) -> list[str]:
    return [one.tenant for one in place.queue.waiting()]


def test_an_applied_tenant_is_no_work(place: Place) -> None:
    place.tenant()
    assert names(place) == []
    assert place.queue.claim(["acme"]) == ()


def test_a_revision_made_by_hand_is_work_without_any_event(place: Place) -> None:
    place.tenant()
    place.by_hand("acme", lambda document: {**document, "state": "suspended"})
    assert names(place) == ["acme"]
    place.run()
    assert names(place) == []


def test_a_claimed_tenant_is_nobody_elses(place: Place) -> None:
    place.send("tenant.created")
    other = place.worker(ELSEWHERE)
    place.claim()
    assert other.waiting() == ()
    assert other.claim(["acme"]) == ()
    assert place.queue.claim(["acme"]) == ()


def test_the_longest_waiting_comes_first(place: Place) -> None:
    for name in ("bb", "aa", "cc"):
        place.clock.seconds += 1
        place.send("tenant.created", tenant=name)
    place.clock.seconds += 1
    place.send("tenant.suspended", tenant="bb")
    assert names(place) == ["bb", "aa", "cc"]


def test_the_claim_of_a_dead_worker_of_this_machine_is_free_at_once(place: Place) -> None:
    place.send("tenant.created")
    place.claim(queue=place.worker(dead_holder()))
    assert names(place) == ["acme"]
    place.run()
    assert place.journal.get("msg_1").state == "applied"


def test_the_claim_of_a_worker_elsewhere_runs_out(place: Place) -> None:
    place.send("tenant.created")
    gone = place.worker(ELSEWHERE)
    claim = place.claim(queue=gone)
    place.clock.seconds += CLAIM_SECONDS - 1
    assert names(place) == []
    gone.renew([claim])
    place.clock.seconds += CLAIM_SECONDS - 1
    assert names(place) == []
    place.clock.seconds += 2
    assert names(place) == ["acme"]


def test_a_worker_that_lost_its_claim_records_nothing(place: Place) -> None:
    place.send("tenant.created")
    slow = place.worker(ELSEWHERE)
    lost = place.claim(queue=slow)
    place.clock.seconds += CLAIM_SECONDS + 1
    present = place.claim()
    assert not slow.finish(lost, REFUSED)
    assert place.journal.get("msg_1").state == "accepted"
    slow.renew([lost])
    place.apply()
    assert place.queue.finish(present, Ending())
    assert place.journal.get("msg_1").state == "applied"


def test_a_tenant_whose_lease_somebody_alive_has_waits_without_costing_an_attempt(place: Place) -> None:
    place.send("tenant.created")
    lease = place.registry.acquire_leases(["acme"], holder=process_holder(), ttl_seconds=60)["acme"]
    assert lease is not None
    assert names(place) == []
    place.registry.release_leases({"acme": lease.fence})
    assert names(place) == ["acme"]
    place.registry.acquire_leases(["acme"], holder=dead_holder(), ttl_seconds=60)
    assert names(place) == ["acme"]


def test_events_that_wait_together_cost_one_run(place: Place) -> None:
    place.tenant()
    ids = [place.send("bot.restarted").event.id for _n in range(5)]
    place.run()
    assert {place.journal.get(one).state for one in ids} == {"applied"}
    assert names(place) == []


def test_events_that_come_during_a_run_cost_one_more(place: Place) -> None:
    place.tenant()
    early = place.send("bot.restarted").event
    claim = place.claim()
    late = [place.send("bot.updated", changes={"priority": n}).event.id for n in range(1, 6)]
    place.apply(revision=early.revision)
    place.queue.finish(claim, Ending())
    assert place.journal.get(early.id).state == "applied"
    assert {place.journal.get(one).state for one in late} == {"accepted"}
    place.run()
    assert {place.journal.get(one).state for one in late} == {"applied"}
    assert names(place) == []


def test_events_that_a_run_applied_although_they_came_later_cost_none(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted")
    claim = place.claim()
    early, middle, late = [place.send("bot.updated", changes={"priority": n}).event for n in (1, 2, 3)]
    place.apply(revision=middle.revision)
    place.queue.finish(claim, Ending())
    states = [place.journal.get(one.id).state for one in (early, middle, late)]
    assert states == ["applied", "applied", "accepted"]
    assert names(place) == ["acme"]
    place.run()
    assert place.journal.get(late.id).state == "applied"
    assert names(place) == []


def test_an_event_that_asks_to_look_again_is_not_served_by_a_run_before_it(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted")
    claim = place.claim()
    before = place.send("bot.updated", changes={"priority": 1}).event.id
    look = place.send("bot.started").event.id  # changes nothing: is the bot really there?
    after = place.send("bot.updated", changes={"priority": 2}).event.id
    place.apply()
    place.queue.finish(claim, Ending())
    assert [place.journal.get(one).state for one in (before, look, after)] == ["applied", "accepted", "accepted"]
    place.run()
    assert [place.journal.get(one).state for one in (look, after)] == ["applied", "applied"]


def test_events_tried_again_during_a_run_are_served_together_or_not_at_all(place: Place) -> None:
    place.tenant()
    first, second = place.send("bot.stopped").event, place.send("bot.started").event
    place.run(ending=REFUSED)
    look = place.send("bot.started").event.id
    claim = place.claim()
    place.journal.retry(first.id, actor="me")
    place.apply(revision=first.revision)
    place.queue.finish(claim, Ending())
    assert place.journal.get(look).state == "applied"
    assert place.journal.get(second.id).state == "accepted"
    assert names(place) == ["acme"]
    place.run()
    assert {place.journal.get(one.id).state for one in (first, second)} == {"applied"}


def test_the_portal_is_told_of_every_event_in_their_order(place: Place) -> None:
    place.tenant()
    ids = [place.send("bot.restarted").event.id for _n in range(3)]
    place.run()
    assert place.told() == [("event.applied", one) for one in ids]
    place.send("bot.stopped", "msg_bad")
    place.run(ending=REFUSED)
    assert place.told()[-1] == ("event.failed", "msg_bad")
    data = place.outbox.get(place.callbacks()[-1].number).plain()["body"]["data"]
    assert (data["code"], data["reason"]) == ("credentials_refused", "Please enter the credentials again.")
    assert "operators" not in str(data)


def test_what_trying_again_cannot_mend_fails_at_once_and_marks_the_tenant(place: Place) -> None:
    place.tenant()
    place.send("exchange.rotated", "msg_bad")
    place.run(ending=REFUSED)
    event = place.journal.get("msg_bad")
    assert (event.state, event.code, event.attempts) == ("failed", "credentials_refused", 1)
    assert names(place) == []
    place.clock.seconds += 100_000
    assert names(place) == []
    status = place.journal.tenant_status("acme")
    assert (status.work, dict(status.failure or {})["message"]) == ("failed", "detail for operators")


def test_a_newer_event_moves_a_failed_tenant_on(place: Place) -> None:
    place.tenant()
    place.send("exchange.rotated", "msg_bad")
    place.run(ending=REFUSED)
    place.send("bot.started", "msg_good")  # changes nothing in the document
    assert names(place) == ["acme"]
    place.run()
    assert place.journal.get("msg_good").state == "applied"
    assert place.journal.get("msg_bad").state == "applied"  # its change was in the document
    assert place.told()[-2:] == [("event.applied", "msg_good"), ("event.applied", "msg_bad")]
    assert place.journal.tenant_status("acme").work == "idle"


def test_what_was_rolled_back_by_hand_is_not_said_to_be_applied(place: Place) -> None:
    place.tenant()
    place.send("bot.stopped", "msg_bad")
    place.run(ending=REFUSED)
    place.registry.rollback(
        "acme", 4, cause=Cause("rollback", "", "me"), fleet=place.fleet, catalogue=factories.catalogue()
    )
    place.run()
    assert place.registry.get("acme").document["bots"][0]["state"] == "running"
    assert place.journal.get("msg_bad").state == "failed"
    with pytest.raises(EventStateError, match="rolled back"):
        place.journal.retry("msg_bad", actor="me")


def test_events_that_keep_coming_do_not_keep_a_failing_tenant_from_being_given_up(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_first")
    runs = 0
    while place.journal.get("msg_first").state == "accepted":
        place.run(ending=UNREACHABLE)
        place.send("bot.restarted")
        runs += 1
    assert runs == 30


def test_whoever_comes_back_under_an_id_begins_anew(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_old", sequence=900)
    place.run(ending=REFUSED)
    place.queue.see("acme", {"b1": {"state": "halted"}}, looked_at=place.clock.seconds + 1)
    place.send("tenant.terminated")
    claim = place.claim()
    place.apply()
    place.registry.forget("acme")
    place.queue.finish(claim, Ending())
    assert place.journal.get("msg_old").state == "failed"
    place.clock.seconds += 1
    place.send("tenant.created", sequence=1)
    assert names(place) == ["acme"]
    status = place.journal.tenant_status("acme")
    assert (status.failure, status.bots) == (None, ())
    with pytest.raises(EventStateError, match="has been removed since"):
        place.journal.retry("msg_old", actor="me")
    place.run()
    assert place.journal.discard("msg_old", actor="me").state == "discarded"
    assert place.registry.get("acme").document["state"] == "active"


def test_a_tenant_made_anew_by_hand_is_work(place: Place) -> None:
    place.tenant()
    place.send("tenant.terminated")
    place.run(ending=REFUSED)
    place.apply()
    place.registry.forget("acme")
    document = factories.grid_document(tenant="acme", exchange_connections=[factories.connection(seed="acme")])
    place.registry.submit(document, cause=Cause("apply"), fleet=place.fleet, catalogue=factories.catalogue())
    assert names(place) == ["acme"]


def test_many_that_somebody_else_works_on_hide_nobody(place: Place) -> None:
    with place.registry.transaction(write=True) as connection:
        for number in range(1200):
            connection.execute(
                tables.work.insert().values(
                    tenant=f"t{number}", requested=1, served=0, since=1.0, attempt=0, not_before=0, claim=1,
                    holder=ELSEWHERE, claimed_until=place.clock.seconds + 1000, ended_at=0, past=0,
                )
            )  # fmt: skip
    place.send("tenant.created")
    assert names(place) == ["acme"]


def test_a_look_that_began_before_a_tenant_was_removed_is_forgotten(place: Place) -> None:
    place.tenant()
    looked_at = place.queue.now()
    place.clock.seconds += 5
    place.send("tenant.terminated")
    claim = place.claim()
    place.apply()
    place.registry.forget("acme")
    place.queue.finish(claim, Ending())
    place.queue.see("acme", {"b1": {"state": "running"}}, looked_at=looked_at)
    place.queue.see("acme", {"b1": {"state": "running"}}, looked_at=place.queue.now() + 1)
    assert [told for kind, told in place.told() if kind == "bot.state_changed"] == []


def test_what_may_get_better_is_tried_again_later_and_later(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_a")
    pauses = []
    for _attempt in range(4):
        place.run(ending=UNREACHABLE)
        assert place.journal.get("msg_a").state == "accepted"
        status = place.journal.tenant_status("acme")
        assert status.work == "retrying"
        before = place.clock.seconds
        while not names(place):
            place.clock.seconds += 1
        pauses.append(place.clock.seconds - before)
    assert pauses == [5, 10, 20, 40]
    assert place.journal.get("msg_a").attempts == 4
    assert place.journal.get("msg_a").reason == UNREACHABLE.reason
    place.run()
    event = place.journal.get("msg_a")
    assert (event.state, event.code, event.reason) == ("applied", None, None)
    assert place.told() == [("event.applied", "msg_a")]


def test_it_is_given_up_in_the_end(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_a")
    runs = 0
    while place.journal.get("msg_a").state == "accepted":
        place.clock.seconds += 400
        place.run(ending=UNREACHABLE)
        runs += 1
    assert (runs, place.journal.get("msg_a").state) == (30, "failed")
    assert place.told() == [("event.failed", "msg_a")]


def test_an_event_during_the_wait_for_another_attempt_tries_at_once(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted")
    place.run(ending=UNREACHABLE)
    assert names(place) == []
    place.send("bot.restarted")
    assert names(place) == ["acme"]


def test_an_event_during_a_run_that_fails_for_good_is_not_failed_with_it(place: Place) -> None:
    place.tenant()
    place.send("exchange.rotated", "msg_bad")
    claim = place.claim()
    place.send("bot.restarted", "msg_later")
    place.queue.finish(claim, REFUSED)
    assert (place.journal.get("msg_bad").state, place.journal.get("msg_later").state) == ("failed", "accepted")
    assert names(place) == ["acme"]


@pytest.mark.parametrize(("problem", "pause"), [("busy", 2.0), ("cancelled", 0.0)])
def test_somebody_elses_work_is_no_attempt(place: Place, problem: str, pause: float) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_a")
    for _often in range(50):
        place.run(ending=Ending(problem, "another run has it", ""))
        place.clock.seconds += pause
        assert names(place) == ["acme"]
    assert place.journal.get("msg_a").attempts == 0
    assert place.journal.tenant_status("acme").work == "waiting"


def test_a_removed_tenants_events_are_applied_and_its_bots_are_gone(place: Place) -> None:
    place.tenant()
    place.clock.seconds += 1
    place.queue.see("acme", {"b1": {"state": "running"}}, looked_at=place.clock.seconds)
    place.send("tenant.terminated", "msg_end")
    claim = place.claim()
    assert claim.terminated
    place.apply()
    place.registry.forget("acme")
    assert place.queue.finish(claim, Ending())
    assert place.journal.get("msg_end").state == "applied"
    assert place.told() == [
        ("bot.state_changed", ("b1", None, "running")),
        ("event.applied", "msg_end"),
        ("bot.state_changed", ("b1", "running", "removed")),
    ]
    assert names(place) == []


def test_a_tenant_that_went_before_its_worker_could_say_so_is_finished(place: Place) -> None:
    place.tenant()
    place.send("tenant.terminated", "msg_end")
    place.claim(queue=place.worker(dead_holder()))
    place.apply()
    place.registry.forget("acme")
    (waiting,) = place.queue.waiting()
    assert (waiting.tenant, waiting.node) == ("acme", None)
    assert place.queue.finish(place.claim(), Ending())
    assert place.journal.get("msg_end").state == "applied"
    place.send("tenant.created", "msg_again")
    place.run()
    assert place.journal.get("msg_again").state == "applied"


def test_the_portal_is_told_when_a_bots_state_is_a_new_one(place: Place) -> None:
    place.tenant()
    for state in ("starting", "running", "running", "halted"):
        place.clock.seconds += 10
        place.queue.see("acme", {"b1": {"state": state}}, looked_at=place.clock.seconds)
    assert [told for _type, told in place.told()] == [
        ("b1", None, "starting"), ("b1", "starting", "running"), ("b1", "running", "halted"),
    ]  # fmt: skip


def test_what_was_seen_before_or_during_a_run_does_not_replace_what_the_run_saw(place: Place) -> None:
    place.tenant()
    looked_at = place.clock.seconds
    place.send("bot.stopped")
    claim = place.claim()
    place.queue.see("acme", {"b1": {"state": "running"}}, looked_at=place.clock.seconds)
    place.apply()
    place.clock.seconds += 5
    place.queue.finish(claim, Ending(bots={"b1": {"state": "stopped"}}))
    place.queue.see("acme", {"b1": {"state": "running"}}, looked_at=looked_at)
    assert place.journal.tenant_status("acme").bots[0].state == "stopped"


def test_a_duty_is_one_workers_until_it_ends_or_dies(place: Place) -> None:
    other = place.worker(ELSEWHERE)
    assert place.queue.take_duty("observe", 60)
    assert not other.take_duty("observe", 60)
    place.clock.seconds += 50
    assert place.queue.take_duty("observe", 60)
    place.clock.seconds += 50
    assert not other.take_duty("observe", 60)
    place.clock.seconds += 11
    assert other.take_duty("observe", 60)
    assert not place.queue.take_duty("observe", 60)
    other.leave()
    assert place.worker(dead_holder()).take_duty("observe", 60)
    assert place.queue.take_duty("observe", 60)


def test_a_worker_that_leaves_hands_its_claims_back(place: Place) -> None:
    place.send("tenant.created")
    other = place.worker(ELSEWHERE)
    place.claim(queue=other)
    assert names(place) == []
    other.leave()
    assert names(place) == ["acme"]


def test_finished_events_are_forgotten_in_the_end_and_those_that_matter_never(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_waiting")
    place.run(ending=REFUSED)
    place.send("bot.restarted", "msg_new")
    place.clock.seconds += 1000
    assert place.queue.prune(2000) == 0
    assert place.queue.prune(500) > 0
    assert [one.id for one in place.journal.list().items] == ["msg_new", "msg_waiting"]


@pytest.mark.parametrize(
    ("problem", "attempts"),
    [("credentials_refused", 1), ("document_refused", 1), ("engine_refused", 2), ("timeout", 3), ("internal", 4),
     ("something new", 4), ("node_refused", 7), ("exchange_unanswered", 24), ("unreachable", 30)],
)  # fmt: skip
def test_how_often_is_tried_depends_on_whether_it_can_help(problem: str, attempts: int) -> None:
    tried = 1
    while decide(problem, tried).retry_in_seconds is not None:
        tried += 1
    assert tried == attempts


def test_pauses_are_bounded_and_moved_apart() -> None:
    assert decide("unreachable", 20).retry_in_seconds == 300
    assert decide("unreachable", 1, jitter=1.0).retry_in_seconds == 6
    assert decide("unreachable", 1, jitter=-1.0).retry_in_seconds == 4
