# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations on tenants as functions: run a playbook, and say per tenant what came of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .runs import RunResult, TaskFailure

STACKS = "hummingfleet.core.tenant_stacks"
OUTCOME = "hummingfleet.core.tenant_outcome"
_HOST_PREFIX = "tenant-"
# Words of Lease.describe() and of the module tenant_stacks; tests hold them together.
_BUSY_WORDS = "is being worked on"
_UNREACHABLE_WORDS = ("could not be reached", "does not answer", "Failed to connect")

Run = Callable[..., RunResult]


class Problem(enum.StrEnum):
    """What kind of trouble kept a tenant from its desired state."""

    FAILED = "failed"
    UNREACHABLE = "unreachable"
    BUSY = "busy"


@dataclass(frozen=True)
class TenantReport:
    """What a converge did for one tenant; ``problem`` is None where it succeeded."""

    tenant: str
    changed: bool = False
    changes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    bots: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None
    message: str = ""
    diff: tuple[Mapping[str, Any], ...] = ()

    @property
    def result(self) -> str:
        """One word for people."""
        if self.problem is not None:
            return str(self.problem)
        return "changed" if self.changed else "unchanged"


@dataclass(frozen=True)
class ConvergeReport:
    """What a converge did: the tenants that were behind, how many were asked, and what else failed."""

    tenants: tuple[TenantReport, ...]
    asked: int
    changed: int
    seconds: float
    message: str = ""

    @property
    def problem(self) -> Problem | None:
        """The gravest trouble of all: a failure, then an unreachable node, then a tenant somebody else works on."""
        kinds = {report.problem for report in self.tenants}
        if self.message and not kinds - {None}:
            return _kind(self.message)
        return next((kind for kind in Problem if kind in kinds), None)

    def problems(self) -> str:
        """What went wrong, one line per tenant."""
        lines = [f"{r.message or r.tenant}" for r in self.tenants if r.problem is not None]
        return "\n".join(lines or ([self.message] if self.message else []))

    def plain(self) -> dict[str, Any]:
        """The report as JSON-plain data."""
        return {
            "tenants": [{**asdict(report), "result": report.result} for report in self.tenants],
            "asked": self.asked,
            "changed": self.changed,
            "seconds": round(self.seconds, 1),
            "problem": str(self.problem) if self.problem else None,
            "message": self.message,
        }


def converge(
    run: Run,
    tenants: Collection[str] | None = None,
    *,
    deep: bool = False,
    check: bool = False,
    diff: bool = False,
    limit: str | None = None,
    playbook: str = "converge_tenant",
    variables: Mapping[str, Any] | None = None,
    on_task: Callable[[str], None] | None = None,
) -> ConvergeReport:
    """Brings ``tenants`` (None: all, or those of ``limit``) to their latest revision; ``run`` starts the playbook."""
    result = run(
        playbook,
        only=sorted(tenants) if tenants is not None else None,
        limit=limit,
        check=check,
        diff=diff,
        variables={**({"tenant_stack_deep": True} if deep else {}), **(variables or {})},
        keep=(STACKS, OUTCOME),
        on_task=on_task,
    )
    return read_converge(result)


def read_converge(result: RunResult) -> ConvergeReport:
    """The report of a run of a playbook that converges."""
    surveys = [answer.answer for answer in result.answers(STACKS) if "behind" in answer.answer]
    reports: dict[str, TenantReport] = {}
    for outcome in result.answers(OUTCOME):
        tenant = _tenant(outcome.host)
        answer = outcome.answer
        failed = bool(answer.get("failed"))
        message = str(answer.get("msg", "")) if failed else ""
        reports[tenant] = TenantReport(
            tenant=tenant,
            changed=bool(answer.get("changed")),
            changes=tuple(str(change) for change in answer.get("changes") or ()),
            reasons=tuple(str(reason) for reason in answer.get("reasons") or ()),
            bots={str(bot): str(state) for bot, state in (answer.get("bots") or {}).items()},
            problem=_kind(message) if failed else None,
            message=message,
            diff=tuple(_diffs(answer.get("diff"))),
        )
    others = []
    for failure in result.failures:
        tenant = _tenant(failure.host)
        if tenant in reports and reports[tenant].problem is not None:
            continue
        if failure.host.startswith(_HOST_PREFIX) and tenant in reports:
            reports[tenant] = TenantReport(tenant, problem=_failure_kind(failure), message=failure.message)
        else:
            others.append(failure)
    message = ""
    if others:
        message = "\n".join(dict.fromkeys(failure.message for failure in others))
    elif result.rc != 0 and not any(report.problem for report in reports.values()):
        message = result.problem()
    return ConvergeReport(
        tenants=tuple(reports[tenant] for tenant in sorted(reports)),
        asked=sum(int(survey.get("asked", 0)) for survey in surveys),
        changed=result.changed_count,
        seconds=result.seconds,
        message=message,
    )


@dataclass(frozen=True)
class BotStatus:
    """What a bot does now, as its node sees it. Everything but ``state`` may be unknown (None)."""

    tenant: str
    bot: str
    state: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class FleetStatus:
    """What the nodes answered: bots, why tenants are behind, and the nodes that did not answer."""

    bots: tuple[BotStatus, ...]
    reasons: Mapping[str, tuple[str, ...]]
    node_problems: tuple[str, ...]
    message: str = ""


def survey(
    run: Run, tenants: Collection[str] | None = None, *, on_task: Callable[[str], None] | None = None
) -> FleetStatus:
    """Asks the nodes what ``tenants`` (None: all) do now, through the playbook show_tenants."""
    result = run(
        "show_tenants",
        only=sorted(tenants) if tenants is not None else None,
        keep=(STACKS,),
        on_task=on_task,
    )
    bots: list[BotStatus] = []
    reasons: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for answer in result.answers(STACKS):
        if answer.answer.get("node_problem"):
            problems.append(str(answer.answer["node_problem"]))
        for tenant, one in (answer.answer.get("tenants") or {}).items():
            reasons[tenant] = tuple(str(reason) for reason in one.get("reasons") or ())
            for bot, facts in (one.get("bots") or {}).items():
                bots.append(BotStatus(tenant, bot, str(facts.get("state", "unknown")), dict(facts)))
    message = result.problem() if not result.ok else ""
    return FleetStatus(tuple(sorted(bots, key=lambda b: (b.tenant, b.bot))), reasons, tuple(problems), message)


def _tenant(host: str) -> str:
    return host.removeprefix(_HOST_PREFIX)


def _kind(message: str) -> Problem:
    if _BUSY_WORDS in message:
        return Problem.BUSY
    if any(words in message for words in _UNREACHABLE_WORDS):
        return Problem.UNREACHABLE
    return Problem.FAILED


def _failure_kind(failure: TaskFailure) -> Problem:
    return Problem.UNREACHABLE if failure.unreachable else _kind(failure.message)


def _diffs(diff: object) -> Iterable[Mapping[str, Any]]:
    if isinstance(diff, Mapping):
        yield diff
    elif isinstance(diff, list):
        yield from (one for one in diff if isinstance(one, Mapping))
