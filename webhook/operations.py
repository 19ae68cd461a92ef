# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations on tenants as functions: run a playbook, and say per tenant what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, gravest

from .reasons import user_reason
from .runs import RunResult, TaskFailure

__all__ = [
    "BotStatus",
    "ConvergeReport",
    "FleetStatus",
    "Problem",
    "TenantReport",
    "converge",
    "problem_of",
    "read_converge",
    "survey",
    "user_reason",
]

STACKS = "hummingfleet.core.tenant_stacks"
OUTCOME = "hummingfleet.core.tenant_outcome"
RECORD = "hummingfleet.core.tenant_record"
IMAGES = "hummingfleet.core.node_images"
_HOST_PREFIX = "tenant-"
# By class name, so that none of their modules has to be imported; the nearest class of the error's family decides.
_PROBLEMS = {
    "RunCancelledError": Problem.CANCELLED,
    "RunTimeoutError": Problem.TIMEOUT,
    "LeaseError": Problem.BUSY,
    "CredentialError": Problem.CREDENTIALS_REFUSED,
    "FaultsError": Problem.DOCUMENT_REFUSED,
}

Run = Callable[..., RunResult]


def problem_of(error: BaseException) -> Problem:
    """The code for an error that ended a run, or kept it from starting."""
    return next(
        (_PROBLEMS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _PROBLEMS), Problem.INTERNAL
    )


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
    """What a converge did: the tenants that were behind, how many were asked, and what else failed.

    ``message`` and ``message_problem`` tell of trouble that is no single tenant's.
    """

    tenants: tuple[TenantReport, ...]
    asked: int
    changed: int
    seconds: float
    message: str = ""
    message_problem: Problem | None = None

    @property
    def problem(self) -> Problem | None:
        """The gravest trouble of all, None where there was none."""
        kinds = {report.problem for report in self.tenants} | {self.message_problem}
        found = [kind for kind in kinds if kind is not None]
        return gravest(found) if found else None

    def problems(self) -> str:
        """What went wrong, one line per tenant."""
        lines = [f"{r.message or r.tenant}" for r in self.tenants if r.problem is not None]
        return "\n".join(lines or ([self.message] if self.message else []))

    def plain(self) -> dict[str, Any]:
        """The report as JSON-plain data."""
        return {
            "tenants": [
                {**asdict(one), "problem": str(one.problem) if one.problem else None, "result": one.result}
                for one in self.tenants
            ],
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
        keep=(STACKS, OUTCOME, RECORD, IMAGES),
        on_task=on_task,
    )
    return read_converge(result, tenants)


def read_converge(result: RunResult, asked: Collection[str] | None = None) -> ConvergeReport:
    """The report of a run of a playbook that converges.

    ``asked`` are the tenants it was limited to (None: unknown). Each of them has a report of its own in a run that
    failed, unless its node found it as it should be.
    """
    surveys = [answer.answer for answer in result.answers(STACKS) if "behind" in answer.answer]
    reports = {_tenant(one.host): _report(one.answer, one.host, result) for one in result.answers(OUTCOME)}
    fine = {str(tenant) for survey in surveys for tenant in survey.get("surveyed", ())}
    fine -= {str(tenant) for survey in surveys for tenant in survey["behind"]}
    general: list[TaskFailure] = []
    for failure in result.failures:
        tenant = _tenant(failure.host)
        if not failure.host.startswith(_HOST_PREFIX) or tenant not in {*reports, *(asked or ())}:
            general.append(failure)
        elif tenant not in reports or reports[tenant].problem is None:
            reports[tenant] = TenantReport(tenant, problem=_judge(failure, result), message=failure.message)
    message, problem = "", None
    if general:
        message = "\n".join(dict.fromkeys(failure.message for failure in general))
        problem = gravest(_judge(failure, result) for failure in general)
    elif not result.ok and not any(report.problem for report in reports.values()):
        message, problem = result.problem(), Problem.INTERNAL
    missing = {*asked} - {*reports} - fine if asked is not None and not result.ok else set()
    if missing:
        kind, cause = _common_cause(result)
        reports.update({tenant: TenantReport(tenant, problem=kind, message=cause) for tenant in missing})
        message, problem = "", None
    return ConvergeReport(
        tenants=tuple(reports[tenant] for tenant in sorted(reports)),
        asked=sum(int(survey.get("asked", 0)) for survey in surveys),
        changed=result.changed_count,
        seconds=result.seconds,
        message=message,
        message_problem=problem,
    )


def _common_cause(result: RunResult) -> tuple[Problem, str]:
    """Why tenants got no result at all: what failed once for all of a node; never what failed for another tenant."""
    own = {(one.host, one.task) for one in result.results if one.action in (OUTCOME, RECORD)}
    failures = [failure for failure in result.failures if (failure.host, failure.task) not in own]
    if failures:
        words = "\n".join(dict.fromkeys(failure.message for failure in failures))
        return gravest(_judge(failure, result) for failure in failures), words
    return Problem.INTERNAL, "the run ended without a result" if result.failures else result.problem()


def _report(answer: Mapping[str, Any], host: str, result: RunResult) -> TenantReport:
    """A tenant's own judgement; where its node's batch did not run, with the reason that its lead gave."""
    problem, message = None, ""
    if answer.get("failed"):
        problem, message = Problem.read(answer.get("problem")), str(answer.get("msg", ""))
        cause = next((one for one in result.failures if one.host == answer.get("lead")), None)
        if cause is not None:
            problem, message = _judge(cause, result), f"tenant {_tenant(host)}: {cause.message}"
    return TenantReport(
        tenant=_tenant(host),
        changed=bool(answer.get("changed")),
        changes=tuple(str(change) for change in answer.get("changes") or ()),
        reasons=tuple(str(reason) for reason in answer.get("reasons") or ()),
        bots={str(bot): str(state) for bot, state in (answer.get("bots") or {}).items()},
        problem=problem,
        message=message,
        diff=tuple(_diffs(answer.get("diff"))),
    )


def _judge(failure: TaskFailure, result: RunResult) -> Problem:
    """The code of a failed task: what it says itself, else what it was about."""
    if failure.unreachable:
        return Problem.UNREACHABLE
    answers = [one for one in result.results if (one.host, one.task) == (failure.host, failure.task)]
    codes = [one.answer["problem"] for one in answers if one.answer.get("problem")]
    if codes:
        return Problem.read(codes[-1])
    return Problem.NODE_REFUSED if any(one.action == IMAGES for one in answers) else Problem.INTERNAL


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


def _diffs(diff: object) -> Iterable[Mapping[str, Any]]:
    if isinstance(diff, Mapping):
        yield diff
    elif isinstance(diff, list):
        yield from (one for one in diff if isinstance(one, Mapping))
