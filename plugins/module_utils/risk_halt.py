# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's risk halt: ``risk_halt`` in its document, which holds until its UTC day has ended.

While it stands no bot of the tenant runs (a rule of the document). It leaves the document with the first change after
its day; an operator may lift it before, which leaves it there with ``lifted_at``, so that the day is not forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeGuard


def day_of(seconds: float) -> str:
    """The UTC day of a time in epoch seconds, such as ``2026-11-23``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def ends_at(day: str) -> str:
    """When a UTC day has ended, as ISO 8601; raises ValueError for what is no day."""
    return f"{date.fromisoformat(day) + timedelta(days=1)}T00:00:00Z"


def is_of_today(halt: object, now: float) -> bool:
    """Whether ``halt`` (of a document of any shape) is of the UTC day of ``now`` (epoch seconds) or a later one."""
    return isinstance(halt, Mapping) and isinstance(halt.get("day"), str) and halt["day"] >= day_of(now)


def stands(halt: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether ``halt`` (of a document of any shape) keeps bots from running: it is there and nobody has lifted it."""
    return isinstance(halt, Mapping) and halt.get("lifted_at") is None


def _comes_after(given: object, lifted: object) -> bool:
    """Whether ``given`` is a halt of its own, later than the moment the stored one was ``lifted``."""
    return (
        isinstance(given, Mapping)
        and isinstance(lifted, Mapping)
        and stands(given)
        and not stands(lifted)
        and str(given.get("at")) >= str(lifted["lifted_at"])
    )


def keep(
    data: Mapping[str, Any], stored: Mapping[str, Any] | None, now: float, *, lifted_at: str | None = None
) -> dict[str, Any]:
    """``data`` as it may follow ``stored`` (None: a new tenant): a halt of today stays, one of another day goes.

    Nobody takes a halt away by submitting a document without it; what ``data`` says of a halt counts only where none is
    stored, or one that was lifted before. With ``lifted_at`` (ISO 8601) a halt that stands is lifted.
    """
    halt, given = (stored or {}).get("risk_halt"), data.get("risk_halt")
    if not is_of_today(halt, now) or _comes_after(given, halt):
        halt = given
    kept = {name: value for name, value in data.items() if name != "risk_halt"}
    if halt is None or (isinstance(halt, Mapping) and isinstance(halt.get("day"), str) and not is_of_today(halt, now)):
        return kept
    if lifted_at is not None and isinstance(halt, Mapping) and stands(halt):
        halt = {**halt, "lifted_at": lifted_at}
    return {**kept, "risk_halt": halt}
