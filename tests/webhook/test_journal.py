"""The journal: events are accepted once, in order, with the revision they make; what became of them can be changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import PlacementError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    RegistryUnavailableError,
    UnknownTenantError,
)

from tests import factories
from tests.webhook.queue_place import Place
from webhook.events import EVENT_TYPES, EventError
from webhook.journal import EventConflictError, EventStateError, JournalError, SequenceError, UnknownEventError
from webhook.wake import WakeListener
from webhook.work import Ending

REFUSED = Ending("credentials_refused", "connection ex1 of acme does not open", "Please enter the credentials again.")


@pytest.fixture
def place(registry_url: str, tmp_path: Path) -> Place:
    return Place(tmp_path, registry_url)


def test_an_event_is_stored_with_the_revision_it_makes(place: Place) -> None:
    accepted = place.send("tenant.created", "msg_a")
    assert not accepted.repeated
    assert (accepted.event.state, accepted.event.revision, accepted.event.changed) == ("accepted", 1, True)
    assert place.registry.get("acme").revision == 1
    (revision,) = place.registry.history("acme")
    assert (revision.cause.kind, revision.cause.text) == ("event", "tenant.created msg_a")
    assert place.journal.get("msg_a") == accepted.event
    assert place.journal.body("msg_a")["type"] == "tenant.created"


def test_the_same_event_again_is_answered_with_the_first_result_and_changes_nothing(place: Place) -> None:
    first = place.send("tenant.created", "msg_a")
    again = place.send("tenant.created", "msg_a")
    assert again.repeated
    assert again.event == first.event
    assert place.registry.get("acme").revision == 1


def test_the_same_id_with_another_body_is_refused_and_changes_nothing(place: Place) -> None:
    place.tenant()
    first = place.send("bot.stopped", "msg_a")
    with pytest.raises(EventConflictError, match="accepted before with another body"):
        place.send("bot.deleted", "msg_a")
    assert place.registry.get("acme").revision == first.event.revision


def test_sixteen_deliveries_of_one_event_at_once_make_one_revision(place: Place) -> None:
    place.tenant()
    before = place.registry.get("acme").revision
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _n: place.send("bot.restarted", "msg_same"), range(16)))
    assert [answer.repeated for answer in answers].count(False) == 1
    assert {answer.event.number for answer in answers} == {answers[0].event.number}
    assert place.registry.get("acme").revision == before + 1


def test_a_refused_event_stores_nothing_and_its_id_stays_free(place: Place) -> None:
    place.tenant()
    revision = place.registry.get("acme").revision
    with pytest.raises(EventError) as caught:
        place.send("bot.updated", "msg_a", changes={"strategy_config": {"lower_bound": 40000}})
    assert any(fault.pointer.startswith("/data/changes/strategy_config") for fault in caught.value.faults)
    assert place.registry.get("acme").revision == revision
    with pytest.raises(UnknownEventError):
        place.journal.get("msg_a")
    assert not place.send("bot.updated", "msg_a", changes={"name": "fine"}).repeated


def test_an_event_for_a_tenant_that_is_not_there_is_refused(place: Place) -> None:
    with pytest.raises(EventError, match="there is no tenant"):
        place.send("bot.started")


def test_no_room_on_any_node_is_no_fault_of_the_event(place: Place, tmp_path: Path) -> None:
    small = Place(tmp_path, place.url, memory_mib=1)
    with pytest.raises(PlacementError):
        small.send("tenant.created")
    assert place.journal.list().items == ()


def test_an_event_that_changes_nothing_still_asks_for_a_run(place: Place) -> None:
    place.tenant()
    accepted = place.send("bot.started")
    assert (accepted.event.changed, accepted.event.state) == (False, "accepted")
    assert [one.tenant for one in place.queue.waiting()] == ["acme"]


def test_sequence_numbers_of_a_tenant_only_grow(place: Place) -> None:
    place.tenant()
    place.tenant("blue")
    place.send("bot.restarted", sequence=7)
    place.send("bot.restarted")
    place.send("bot.restarted", sequence=9)
    for stale in (9, 8, 0):
        with pytest.raises(SequenceError, match="is not above 9"):
            place.send("bot.restarted", "msg_stale", sequence=stale)
    place.send("bot.restarted", tenant="blue", sequence=1)
    with pytest.raises(UnknownEventError):
        place.journal.get("msg_stale")


def test_a_repeated_event_is_known_by_its_id_before_its_sequence_is_looked_at(place: Place) -> None:
    place.tenant()
    place.send("bot.restarted", "msg_a", sequence=7)
    assert place.send("bot.restarted", "msg_a", sequence=7).repeated


def test_accepting_an_event_wakes_the_workers(place: Place) -> None:
    with WakeListener(place.fleet.run_dir) as listener:
        assert not listener.wait(0.01)
        place.send("tenant.created")
        assert listener.wait(5)
        assert not listener.wait(0.01)


def test_lists_are_paged_newest_first_and_filtered(place: Place) -> None:
    place.tenant()
    place.tenant("blue")
    ids = []
    for _round in range(5):
        place.clock.seconds += 60
        ids.append(place.send("bot.restarted").event.id)
    first = place.journal.list(limit=3, state="accepted")
    assert [one.id for one in first.items] == ids[:1:-1]
    second = place.journal.list(limit=3, state="accepted", after=first.next)
    assert ([one.id for one in second.items], second.next) == (ids[1::-1], None)
    assert {one.tenant for one in place.journal.list(tenant="blue").items} == {"blue"}
    since = place.journal.get(ids[3]).received_at
    assert [one.id for one in place.journal.list(since=since).items] == [ids[4], ids[3]]
    assert [one.id for one in place.journal.list(since=since.replace(".000Z", "Z")).items] == [ids[4], ids[3]]
    for bad in ({"after": "x"}, {"after": "9" * 30}, {"since": "yesterday"}):
        with pytest.raises(JournalError):
            place.journal.list(**bad)  # type: ignore[arg-type]


def test_events_can_be_followed_in_their_order(place: Place) -> None:
    place.tenant()
    last = place.journal.list(limit=1).items[0].number
    ids = [place.send("bot.restarted").event.id for _n in range(3)]
    assert [one.id for one in place.journal.follow(last)] == ids


@pytest.mark.parametrize("text", ["nobody", "", "a\x00b", "ä", "x" * 500])
def test_an_unknown_event_is_said_to_be_unknown(place: Place, text: str) -> None:
    with pytest.raises(UnknownEventError):
        place.journal.get(text)


def test_a_tenants_status_has_what_is_wanted_and_what_was_seen(place: Place) -> None:
    place.tenant()
    status = place.journal.tenant_status("acme")
    assert (status.work, status.revision, status.applied_revision) == ("idle", 4, 4)
    assert [(bot.bot, bot.wanted, bot.state, bot.seen_at) for bot in status.bots] == [
        ("b1", "running", "unknown", None)
    ]
    place.send("bot.stopped")
    assert place.journal.tenant_status("acme").work == "waiting"
    claim = place.claim()
    assert place.journal.tenant_status("acme").work == "running"
    place.apply(bots={})
    place.queue.finish(claim, Ending(bots={"b1": {"state": "stopped", "open_orders": 0}}))
    status = place.journal.tenant_status("acme")
    assert status.work == "idle"
    assert (status.bots[0].wanted, status.bots[0].state, status.bots[0].facts) == (
        "stopped", "stopped", {"open_orders": 0},
    )  # fmt: skip
    with pytest.raises(UnknownTenantError):
        place.journal.tenant_status("nobody")


def test_a_status_holds_no_credentials_and_no_salt(place: Place) -> None:
    place.tenant()
    document = place.registry.get("acme").document
    text = str(place.journal.tenant_status("acme").plain())
    assert document["salt"] not in text
    for name, value in document["exchange_connections"][0].items():
        if name.startswith(("encrypted", "nonce")):
            assert value not in text


def test_tenants_are_paged_by_id(place: Place) -> None:
    for name in ("cc", "aa", "bb"):
        place.send("tenant.created", tenant=name)
    page = place.journal.tenants(limit=2)
    assert [one.tenant for one in page.items] == ["aa", "bb"]
    page = place.journal.tenants(limit=2, after=page.next)
    assert ([one.tenant for one in page.items], page.next) == (["cc"], None)


def test_the_numbers_say_how_much_there_is_to_do(place: Place) -> None:
    place.tenant()
    place.tenant("blue")
    place.send("bot.stopped")
    place.send("bot.stopped", tenant="blue")
    place.clock.seconds += 100
    place.run("blue", REFUSED)
    stats = place.journal.stats()
    assert (stats.tenants, stats.behind, stats.failed, stats.running) == (2, 2, 1, 0)
    assert stats.events == {"accepted": 1, "applied": 8, "failed": 1, "discarded": 0}
    assert stats.oldest_waiting_seconds == pytest.approx(100)
    assert stats.workers == 0
    place.queue.take_duty("worker x", 30)
    assert place.journal.stats().workers == 1


def test_a_run_given_up_for_a_revision_that_is_applied_counts_as_failed(place: Place) -> None:
    place.tenant()
    place.send("bot.started")  # changes nothing
    place.run(ending=REFUSED)
    stats = place.journal.stats()
    assert (stats.behind, stats.failed) == (0, 1)


# --- the operator ----------------------------------------------------------------------------------------------------


def test_a_failed_event_is_tried_again_with_those_that_failed_with_it(place: Place) -> None:
    place.tenant()
    first, second = place.send("bot.stopped").event.id, place.send("bot.restarted").event.id
    place.run(ending=REFUSED)
    assert place.queue.waiting() == ()
    again = place.journal.retry(first, actor="me")
    assert (again.state, again.code, again.finished_at) == ("accepted", None, None)
    assert place.journal.get(second).state == "accepted"
    place.run()
    assert [place.journal.get(one).state for one in (first, second)] == ["applied", "applied"]
    assert place.journal.tenant_status("acme").work == "idle"


def test_only_a_failed_event_is_retried_or_discarded(place: Place) -> None:
    place.tenant()
    waiting = place.send("bot.stopped").event.id
    for action in (place.journal.retry, place.journal.discard):
        with pytest.raises(EventStateError, match="is accepted; only a failed one"):
            action(waiting, actor="me")
        with pytest.raises(UnknownEventError):
            action("nobody", actor="me")


def test_a_discarded_event_leaves_the_document_as_the_others_make_it(place: Place) -> None:
    place.tenant()
    place.send("bot.updated", changes={"name": "before"})
    bad = place.send("exchange.rotated", connection={**factories.connection(seed="acme new")}).event.id
    later = place.send("bot.stopped").event.id
    rotated = place.registry.get("acme").document["exchange_connections"]
    place.run(ending=REFUSED)
    assert place.journal.discard(bad, actor="me").state == "discarded"
    document = place.registry.get("acme").document
    assert document["exchange_connections"] != rotated
    assert document["exchange_connections"] == [{**factories.connection(seed="acme"), "aad": "v1"}]
    assert (document["bots"][0]["name"], document["bots"][0]["state"]) == ("before", "stopped")
    place.run()
    assert place.journal.get(later).state == "applied"
    assert place.journal.get(bad).state == "discarded"


def test_two_failed_events_are_discarded_one_after_the_other(place: Place) -> None:
    place.tenant()
    first = place.send("bot.updated", changes={"name": "one"}).event.id
    place.run(ending=REFUSED)
    second = place.send("bot.updated", changes={"priority": 3}).event.id
    place.run(ending=REFUSED)
    place.journal.discard(first, actor="me")
    assert place.registry.get("acme").document["bots"][0]["priority"] == 3
    place.run(ending=REFUSED)
    place.journal.discard(second, actor="me")
    place.run()
    bot = place.registry.get("acme").document["bots"][0]
    assert (bot["name"], bot["priority"]) == ("Test Grid Bot", 0)


def test_an_event_that_others_build_on_is_not_discarded(place: Place) -> None:
    place.tenant()
    made = place.send("bot.created", bot={**EVENT_TYPES["bot.created"].example()["data"]["bot"], "id": "b2"}).event.id
    started = place.send("bot.started", bot_id="b2").event.id
    place.run(ending=REFUSED)
    with pytest.raises(EventStateError, match=f"event {started} .* builds on it"):
        place.journal.discard(made, actor="me")
    place.journal.discard(started, actor="me")
    place.run(ending=REFUSED)
    place.journal.discard(made, actor="me")
    assert [bot["id"] for bot in place.registry.get("acme").document["bots"]] == ["b1"]


def test_a_change_by_hand_is_not_lost_to_a_discarded_event(place: Place) -> None:
    place.tenant()
    bad = place.send("bot.stopped").event.id
    place.run(ending=REFUSED)

    def rename(document: dict[str, Any]) -> dict[str, Any]:
        document["bots"][0]["name"] = "by hand"
        return document

    place.by_hand("acme", rename)
    with pytest.raises(EventStateError, match="tenant rollback acme"):
        place.journal.discard(bad, actor="me")


def test_discarding_what_was_never_applied_removes_the_tenant(place: Place) -> None:
    made = place.send("tenant.created").event.id
    place.run(ending=REFUSED)
    place.journal.discard(made, actor="me")
    assert place.registry.get("acme").document["state"] == "terminated"
    assert [(one.tenant, one.terminated) for one in place.queue.waiting()] == [("acme", True)]


def test_an_event_that_changed_nothing_because_of_the_discarded_one_counts_now(place: Place) -> None:
    place.tenant()
    place.send("bot.stopped")
    place.run()
    first = place.send("bot.started").event.id
    place.run(ending=REFUSED)
    again = place.send("bot.started").event
    assert not again.changed
    place.run(ending=REFUSED)
    place.journal.discard(first, actor="me")
    assert place.registry.get("acme").document["bots"][0]["state"] == "running"


def test_discarding_lowers_no_counter(place: Place) -> None:
    place.tenant()
    bad = place.send("bot.resumed").event.id
    place.run(ending=REFUSED)
    place.journal.discard(bad, actor="me")
    assert place.registry.get("acme").document["bots"][0]["resumes"] == 1


def test_a_failure_that_was_mended_by_hand_is_not_shown_any_more(place: Place) -> None:
    place.tenant()
    place.send("bot.stopped")
    place.run(ending=REFUSED)
    status = place.journal.tenant_status("acme")
    assert (status.work, dict(status.failure or {})["code"]) == ("failed", "credentials_refused")
    place.clock.seconds += 10
    place.apply()
    assert (place.journal.tenant_status("acme").work, place.journal.tenant_status("acme").failure) == ("idle", None)


def test_a_database_that_is_busy_is_said_to_be_and_nothing_is_stored(tmp_path: Path) -> None:
    place = Place(tmp_path, f"sqlite:///{tmp_path}/registry.db")
    place.tenant()
    place.registry._busy_seconds = 0.05
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

    place.journal._registry = Registry(place.url, clock=place.clock, busy_seconds=0.05)
    with place.registry.transaction(write=True), pytest.raises(RegistryUnavailableError, match="is busy"):
        place.send("bot.stopped", "msg_late")
    with pytest.raises(UnknownEventError):
        place.journal.get("msg_late")
