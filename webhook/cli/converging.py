# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applying revisions from a command: progress while it runs, what came of it, and the exit code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..operations import ConvergeReport, Problem, converge
from .base import Exit, OperationError, State

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Submission

_EXITS = {Problem.UNREACHABLE: Exit.UNREACHABLE, Problem.BUSY: Exit.BUSY, Problem.CANCELLED: Exit.INTERRUPTED}
_MANY = 5


class ConvergeError(OperationError):
    """A converge did not bring every tenant to its desired state."""


def store_change(state: State, submission: Submission, *, converge: bool) -> None:
    """Says what was stored, and applies it if asked to; a revision that is not applied yet is applied again."""
    record = submission.record
    plain: dict[str, Any] = {
        "tenant": record.tenant,
        "revision": record.revision,
        "changed": submission.changed,
    }
    state.output.say(
        f"tenant {record.tenant}: stored revision {record.revision}"
        if submission.changed
        else f"tenant {record.tenant}: nothing new, still revision {record.revision}"
    )
    if converge:
        plain["converge"] = apply_now(state, [record.tenant], plain)
    elif record.applied_revision < record.revision:
        state.output.say(f"apply it with: hummingfleet converge {record.tenant}")
    state.output.result(plain)


def apply_now(
    state: State,
    tenants: Collection[str] | None,
    stored: Mapping[str, Any] | None = None,
    *,
    verb: str = "Converge",
    **options: Any,
) -> dict[str, Any]:
    """Converges, shows the report, and raises ConvergeError if a tenant did not get there."""
    if tenants is None or len(tenants) > _MANY:
        title = f"{verb} the fleet" if tenants is None else f"{verb} {len(tenants)} tenants"
    else:
        title = f"{verb} " + ", ".join(sorted(tenants))
    with state.progress().step(title) as step:
        report = converge(state.run, tenants, on_task=step.say, **options)
        step.note = summary(report)
    show(state, report)
    if report.problem is not None:
        detail = "; the revision is stored, converge again when this is mended" if stored else ""
        raise ConvergeError(report.problems() + detail, _EXITS.get(report.problem, Exit.FAILED))
    return report.plain()


def summary(report: ConvergeReport) -> str:
    """The report in one line."""
    bad = sum(one.problem is not None for one in report.tenants)
    changed = sum(one.changed for one in report.tenants)
    asked = max(report.asked, len(report.tenants))
    parts = [f"{asked} asked", f"{len(report.tenants)} behind", f"{changed} changed"]
    return ", ".join([*parts, f"{bad} failed"] if bad else parts)


def show(state: State, report: ConvergeReport) -> None:
    """The report as a table, followed by predicted or made changes of files if there are any."""
    if report.tenants:
        state.output.table(
            ("tenant", "result", "bots", "what"),
            [
                (
                    one.tenant,
                    one.result,
                    ", ".join(f"{bot} {what}" for bot, what in sorted(one.bots.items())),
                    # What was behind when somebody looked, and had been applied by another run since, is no trouble.
                    _what(one.changes or (one.reasons if one.changed or one.problem is not None else ())),
                )
                for one in report.tenants
            ],
            wrap=("bots", "what"),
        )
    for one in report.tenants:
        for diff in one.diff:
            state.output.say(_unified(one.tenant, diff))


def _what(parts: Collection[str]) -> str:
    listed = list(parts)[:_MANY]
    more = len(parts) - len(listed)
    return "; ".join(listed) + (f"; and {more} more" if more else "")


def _unified(tenant: str, diff: Mapping[str, Any]) -> str:
    import difflib

    if "prepared" in diff:
        return str(diff["prepared"])
    lines = difflib.unified_diff(
        str(diff.get("before", "")).splitlines(),
        str(diff.get("after", "")).splitlines(),
        f"{tenant}: {diff.get('before_header', 'before')}",
        f"{tenant}: {diff.get('after_header', 'after')}",
        lineterm="",
    )
    return "\n".join(lines)
