"""The campaign's checks find what they are there to find: each is shown evidence in which one thing is wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.kill.checks import Callback, Evidence, JournalEntry, Stored, judge, overlaps
from tests.kill.plan import make_plan


def evidence(**changes: Any) -> Evidence:
    """Two tenants, three events, everything as it should be."""
    sound = Evidence(
        answers={"a1": 202, "a2": 200, "b1": 202},
        journal=[JournalEntry("a1", 1, "a", "applied"), JournalEntry("b1", 2, "b", "applied"),
                 JournalEntry("a2", 3, "a", "applied")],
        expected={"a": {"plan": "pro"}, "b": {"plan": "starter"}},
        stored={"a": Stored(2, 2, {"plan": "pro"}), "b": Stored(1, 1, {"plan": "starter"})},
        runs=[*run("a", 1), *run("b", 1), *run("a", 2)],
        callbacks=[applied("a1", "a"), applied("b1", "b"), applied("a2", "a")],
    )  # fmt: skip
    return dataclasses.replace(sound, **changes)


def run(tenant: str, fence: int, pid: int = 7) -> list[dict[str, Any]]:
    """The two lines of a run."""
    line = {"tenant": tenant, "fence": fence, "pid": pid, "revision": 1}
    return [{"what": "begin", **line}, {"what": "end", **line}]


def applied(event: str, tenant: str, **changes: Any) -> Callback:
    """A call-back that was delivered."""
    return Callback("event.applied", event, tenant, **changes)


def kinds(found: Evidence) -> set[str]:
    """The checks that found something."""
    verdict = judge(found)
    names = ("lost", "unexpected", "wrong_documents", "overlaps", "unfinished_events", "unplanned_failures",
             "callback_faults")  # fmt: skip
    assert bool(verdict.problems) == any(verdict.counts[name] for name in names)
    return {name for name in names if verdict.counts[name]}


def test_sound_evidence_passes() -> None:
    assert judge(evidence()).problems == []


def test_an_accepted_event_that_the_journal_does_not_have_is_lost() -> None:
    assert kinds(evidence(answers={"a1": 202, "a2": 200, "b1": 202, "b2": 202})) == {"lost"}


def test_an_event_that_was_refused_must_not_be_in_the_journal() -> None:
    assert kinds(evidence(answers={"a1": 202, "a2": 422, "b1": 202})) == {"unexpected"}


def test_an_event_may_be_in_the_journal_once() -> None:
    twice = [*evidence().journal, JournalEntry("a1", 4, "a", "applied")]
    assert "unexpected" in kinds(evidence(journal=twice))


def test_another_document_than_the_events_make_is_found() -> None:
    stored = {**evidence().stored, "a": Stored(2, 2, {"plan": "starter"})}
    assert kinds(evidence(stored=stored)) == {"wrong_documents"}


def test_a_document_that_was_not_applied_is_found() -> None:
    stored = {**evidence().stored, "a": Stored(2, 1, {"plan": "pro"})}
    assert kinds(evidence(stored=stored)) == {"wrong_documents"}


@pytest.mark.parametrize("tenants", [{}, {"c": Stored(1, 1, {})}])
def test_a_tenant_too_many_or_too_few_is_found(tenants: dict[str, Stored]) -> None:
    stored = {**evidence().stored, **tenants} if tenants else {"a": evidence().stored["a"]}
    assert kinds(evidence(stored=stored)) == {"wrong_documents"}


def test_a_run_that_begins_while_another_is_at_work_is_an_overlap() -> None:
    first, second = run("a", 1), run("a", 2, pid=8)
    lines = [first[0], second[0], first[1], second[1]]
    assert any("began while" in problem for problem in overlaps(lines))


def test_runs_of_different_tenants_may_overlap() -> None:
    first, second = run("a", 1), run("b", 1, pid=8)
    assert overlaps([first[0], second[0], first[1], second[1]]) == []


def test_a_process_that_found_another_at_work_is_an_overlap() -> None:
    assert overlaps([{"what": "overlap", "tenant": "a", "pid": 9}])


@pytest.mark.parametrize("fences", [(2, 1), (1, 1)])
def test_fences_have_to_grow(fences: tuple[int, int]) -> None:
    assert any("came after" in problem for problem in overlaps([*run("a", fences[0]), *run("a", fences[1])]))


def test_the_run_of_a_killed_process_is_over() -> None:
    lines = [run("a", 1)[0], {"what": "killed", "tenant": "", "pid": 7}, *run("a", 2, pid=8)]
    assert overlaps(lines) == []


def test_a_run_that_nobody_killed_has_to_end() -> None:
    assert any("never ended" in problem for problem in overlaps([run("a", 1)[0]]))


def test_an_event_that_is_still_waiting_is_found() -> None:
    journal = [dataclasses.replace(entry, state="accepted") if entry.id == "a2" else entry
               for entry in evidence().journal]  # fmt: skip
    assert kinds(evidence(journal=journal)) == {"unfinished_events"}


def test_a_failure_that_was_not_planned_is_found() -> None:
    told = [*evidence().callbacks, Callback("event.failed", "a1", "a")]
    assert kinds(evidence(failed={"a1": "internal"}, callbacks=told)) == {"unplanned_failures"}


def test_a_planned_failure_that_did_not_happen_is_found() -> None:
    assert kinds(evidence(planted={"b": "engine_refused"})) == {"unplanned_failures"}


def test_a_planned_failure_that_was_retried_passes() -> None:
    told = [Callback("event.failed", "b1", "b"), *evidence().callbacks]
    found = evidence(planted={"b": "engine_refused"}, failed={"b1": "engine_refused"}, callbacks=told)
    assert judge(found).problems == []
    wrong = dataclasses.replace(found, failed={"b1": "internal"})
    assert kinds(wrong) == {"unplanned_failures"}


def test_a_tenant_that_was_left_broken_keeps_its_failed_event() -> None:
    journal = [dataclasses.replace(entry, state="failed") if entry.id == "b1" else entry
               for entry in evidence().journal]  # fmt: skip
    told = [applied("a1", "a"), applied("a2", "a"), Callback("event.failed", "b1", "b")]
    stored = {**evidence().stored, "b": Stored(1, 0, {"plan": "starter"})}
    plan = {"planted": {"b": "engine_refused"}, "failed": {"b1": "engine_refused"}}
    assert judge(evidence(journal=journal, callbacks=told, stored=stored, broken=frozenset("b"), **plan)).problems == []
    assert "unfinished_events" in kinds(evidence(journal=journal, callbacks=told, stored=stored, **plan))


@pytest.mark.parametrize(
    "callbacks",
    [
        [applied("a1", "a"), applied("b1", "b")],
        [applied("a2", "a"), applied("a1", "a"), applied("b1", "b")],
        [applied("a1", "a"), applied("a2", "a"), applied("b1", "b", acknowledged=False)],
        [applied("a1", "a"), applied("a2", "a"), applied("b1", "b", signed=False)],
    ],
    ids=["missing", "out of order", "never acknowledged", "unsigned"],
)
def test_faulty_call_backs_are_found(callbacks: list[Callback]) -> None:
    assert kinds(evidence(callbacks=callbacks)) == {"callback_faults"}


def test_a_call_back_may_come_again() -> None:
    told = [applied("a1", "a"), applied("b1", "b"), applied("a2", "a"), applied("a1", "a")]
    assert judge(evidence(callbacks=told)).problems == []


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    def bodies(seed: int) -> list[tuple[str, dict[str, Any]]]:
        plan = make_plan(seed, 60, 6)
        return [(event.id, {**event.content, "timestamp": ""}) for events in plan.values() for event in events]

    assert len(bodies(1)) == 60
    assert bodies(1) == bodies(1)
    assert bodies(1) != bodies(2)
