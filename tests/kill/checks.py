"""What must hold after a campaign, judged from evidence that is plain data; so each check can be shown to fail."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class JournalEntry:
    """An event as the journal has it in the end."""

    id: str
    number: int
    tenant: str
    state: str
    code: str | None = None


@dataclass(frozen=True)
class Stored:
    """A tenant as the registry has it in the end; the document is without what was allocated."""

    revision: int
    applied_revision: int
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Callback:
    """A call-back in the order of arrival."""

    type: str
    event: str
    tenant: str
    acknowledged: bool = True
    signed: bool = True


@dataclass
class Evidence:
    """Everything a campaign saw.

    ``answers`` is the last status by event id; ``runs`` are the lines of the run journal (``begin``, ``end``,
    ``killed`` and ``overlap``), in the order they were written; ``failed`` are the events that were failed before they
    were retried, ``planted`` the tenants whose failure was planned, ``broken`` those of them that were left failing.
    """

    answers: Mapping[str, int]
    journal: Sequence[JournalEntry]
    expected: Mapping[str, Mapping[str, Any]]
    stored: Mapping[str, Stored]
    runs: Sequence[Mapping[str, Any]]
    callbacks: Sequence[Callback] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    planted: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()


@dataclass
class Verdict:
    """The problems found (none: it held), and the counts for the report."""

    problems: list[str]
    counts: dict[str, int]


def judge(evidence: Evidence) -> Verdict:
    """All checks."""
    counts = {
        "posted": len(evidence.answers),
        "accepted": len(_accepted(evidence)),
        "refused": sum(400 <= status < 500 for status in evidence.answers.values()),
        "tenants": len(evidence.stored),
        "runs": sum(line["what"] == "begin" for line in evidence.runs),
        "interrupted_runs": sum(line["what"] == "killed" for line in evidence.runs),
        "failed_before_retry": len(evidence.failed),
        "callbacks": len(evidence.callbacks),
    }
    checks = {
        "lost": lost_events(evidence),
        "unexpected": unexpected_events(evidence),
        "wrong_documents": wrong_documents(evidence),
        "overlaps": overlaps(evidence.runs),
        "unfinished_events": unfinished_events(evidence),
        "unplanned_failures": unplanned_failures(evidence),
        "callback_faults": callback_faults(evidence),
    }
    counts.update({name: len(problems) for name, problems in checks.items()})
    return Verdict([problem for problems in checks.values() for problem in problems], counts)


def _accepted(evidence: Evidence) -> set[str]:
    return {event for event, status in evidence.answers.items() if status in (200, 202)}


def lost_events(evidence: Evidence) -> list[str]:
    """Accepted events that the journal does not know."""
    known = {entry.id for entry in evidence.journal}
    return [f"event {event} was accepted and is not in the journal" for event in sorted(_accepted(evidence) - known)]


def unexpected_events(evidence: Evidence) -> list[str]:
    """Events in the journal that nobody was told are accepted, or that are there twice."""
    times = Counter(entry.id for entry in evidence.journal)
    problems = [f"event {event} is in the journal {count} times" for event, count in times.items() if count > 1]
    refused = set(times) - _accepted(evidence)
    return problems + [f"event {event} is in the journal but was refused" for event in sorted(refused)]


def wrong_documents(evidence: Evidence) -> list[str]:
    """Tenants whose final document is not what their events make, or that was not applied."""
    problems = []
    for tenant in sorted(evidence.expected.keys() | evidence.stored.keys()):
        expected, stored = evidence.expected.get(tenant), evidence.stored.get(tenant)
        if expected is None or stored is None:
            problems.append(f"tenant {tenant} is {'unexpected' if expected is None else 'missing'} in the registry")
        elif stored.document != expected:
            names = [name for name in expected if stored.document.get(name) != expected[name]]
            problems.append(f"tenant {tenant} has another document than its events make: {', '.join(names) or 'more'}")
        elif stored.applied_revision != stored.revision and tenant not in evidence.broken:
            problems.append(f"tenant {tenant}: revision {stored.applied_revision} of {stored.revision} is applied")
    return problems


def overlaps(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Runs of one tenant that overlap, and fences that do not grow."""
    problems = []
    open_runs: dict[str, Mapping[str, Any]] = {}
    last_fence: dict[str, int] = {}
    for line in lines:
        what = line["what"]
        if what == "killed":
            dead = line["pid"]
            open_runs = {tenant: run for tenant, run in open_runs.items() if run["pid"] != dead}
            continue
        tenant = line["tenant"]
        if what == "overlap":
            problems.append(f"tenant {tenant}: process {line['pid']} found another one at work")
        elif what == "begin":
            if tenant in open_runs:
                problems.append(
                    f"tenant {tenant}: a run with fence {line['fence']} began while fence "
                    f"{open_runs[tenant]['fence']} was at work"
                )
            if line["fence"] <= last_fence.get(tenant, 0):
                problems.append(f"tenant {tenant}: fence {line['fence']} came after {last_fence[tenant]}")
            last_fence[tenant] = max(line["fence"], last_fence.get(tenant, 0))
            open_runs[tenant] = line
        elif what == "end":
            if tenant in open_runs and open_runs[tenant]["fence"] == line["fence"]:
                del open_runs[tenant]
            elif tenant not in open_runs:
                problems.append(f"tenant {tenant}: fence {line['fence']} ended a run that had not begun")
    problems += [f"tenant {tenant}: fence {run['fence']} never ended" for tenant, run in open_runs.items()]
    return problems


def unfinished_events(evidence: Evidence) -> list[str]:
    """Events that did not end applied, except the failed ones of tenants that were left broken."""
    problems = []
    for entry in evidence.journal:
        wanted = "failed" if entry.tenant in evidence.broken and entry.id in evidence.failed else "applied"
        if entry.state != wanted:
            problems.append(f"event {entry.id} of {entry.tenant} ended {entry.state} ({entry.code}), not {wanted}")
    return problems


def unplanned_failures(evidence: Evidence) -> list[str]:
    """Failed events of tenants that were not to fail, or failed with another code, and plans without any failure."""
    tenants = {entry.id: entry.tenant for entry in evidence.journal}
    problems = []
    for event, code in sorted(evidence.failed.items()):
        tenant = tenants.get(event, "")
        if tenant not in evidence.planted:
            problems.append(f"event {event} of {tenant} failed ({code}), which was not planned")
        elif code != evidence.planted[tenant]:
            problems.append(f"event {event} of {tenant} failed with {code} instead of {evidence.planted[tenant]}")
    hit = {tenants.get(event) for event in evidence.failed}
    return problems + [f"tenant {tenant} was to fail and did not" for tenant in sorted(set(evidence.planted) - hit)]


def callback_faults(evidence: Evidence) -> list[str]:
    """Events without their call-back, call-backs out of order within a tenant, and wrong signatures."""
    problems = [f"a call-back {one.type} of {one.tenant} is not signed" for one in evidence.callbacks if not one.signed]
    numbers = {entry.id: entry.number for entry in evidence.journal}
    told: dict[str, set[str]] = defaultdict(set)
    last: dict[str, int] = {}
    for one in evidence.callbacks:
        if one.event not in numbers or not one.acknowledged or one.type not in ("event.applied", "event.failed"):
            continue
        first = one.event not in told[one.type]
        told[one.type].add(one.event)
        # An event that failed is applied later, out of turn: only those that were applied at once have an order.
        if one.type == "event.applied" and first and one.event not in evidence.failed:
            if numbers[one.event] < last.get(one.tenant, -1):
                problems.append(f"the call-back for {one.event} of {one.tenant} came after that of a later event")
            last[one.tenant] = numbers[one.event]
    for entry in evidence.journal:
        if entry.state == "applied" and entry.id not in told["event.applied"]:
            problems.append(f"nobody was told that {entry.id} of {entry.tenant} was applied")
        if entry.id in evidence.failed and entry.id not in told["event.failed"]:
            problems.append(f"nobody was told that {entry.id} of {entry.tenant} failed")
    return problems
