# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a failed run is tried again, and when: a pure decision by the kind of trouble."""

from __future__ import annotations

from dataclasses import dataclass

BUSY_SECONDS = 2.0
FIRST_SECONDS = 5.0
LONGEST_SECONDS = 300.0

# How many failed runs in a row it takes to give up, where trying again can help at all.
_ATTEMPTS = {
    "unreachable": 30,  # 2 hours
    "exchange_unanswered": 24,  # 1.5 hours
    "node_refused": 7,  # 5 minutes
    "internal": 4,
    "timeout": 3,
    # A bot may come up late; a wrong key or value will not get right by itself.
    "engine_refused": 2,
}
# Somebody else works on the tenant, or the worker was stopped: no attempt of ours.
_UNCOUNTED = {"busy": BUSY_SECONDS, "cancelled": 0.0}


@dataclass(frozen=True, slots=True)
class Decision:
    """``retry_in_seconds`` is None if it is given up; ``counted`` says whether the run counts as an attempt."""

    retry_in_seconds: float | None
    counted: bool = True


def decide(problem: str, attempt: int, *, jitter: float = 0.0) -> Decision:
    """What to do after failed run number ``attempt`` (1: the first) that ended with ``problem``.

    Delays double from 5 s to at most 5 min; ``jitter`` (-1 to 1) moves them by up to a fifth, so that a thousand
    tenants of a node that came back do not return together. An unknown problem counts as our own mistake.
    """
    if problem in _UNCOUNTED:
        return Decision(_UNCOUNTED[problem], counted=False)
    if problem in ("credentials_refused", "document_refused"):
        return Decision(None)
    if attempt >= _ATTEMPTS.get(problem, _ATTEMPTS["internal"]):
        return Decision(None)
    delay = min(FIRST_SECONDS * 2 ** min(attempt - 1, 20), LONGEST_SECONDS)
    return Decision(delay * (1 + jitter / 5))
