# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a bot does not trade, out of what it writes itself. A bot may have been taken over: its words are only quoted."""

from __future__ import annotations

import re
from collections.abc import Sequence

EXCERPT_MAX_CHARACTERS = 300

# As the agent writes: time, level, logger, text (agent/hummingfleet_agent/logs.py).
_LINE = re.compile(r"\S+Z (?P<level>[A-Z]+) (?P<logger>\S+) - (?P<text>.+)")
_OURS = "hummingfleet."
_SETTLEMENT = "hummingfleet.settlement"
# Nothing that is told about a bot needs words this long; keys and signatures are.
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_-]{32,}")


def excerpt(text: str) -> str:
    """A bot's words, fit to be quoted: one short line without control characters and without anything like a key."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return _LONG_WORD.sub("…", " ".join(printable.split()))[:EXCERPT_MAX_CHARACTERS]


def reason_in(lines: Sequence[str], *, settling: bool = False) -> str | None:
    """The line that says best why the bot does not trade, or None.

    An error of the agent, which names cause and remedy, before one of the engine, before a warning of the agent; the
    last of its kind. Of a bot that is ``settling``, first what it says of that. Without any, the last line there is.
    """
    best: tuple[int, str] | None = None
    last = None
    for line in lines:
        if not line.strip():
            continue
        last = line
        found = _LINE.match(line)
        if found is None:
            continue
        weight = _weight(found["level"], found["logger"], settling)
        if weight and (best is None or weight >= best[0]):
            best = (weight, found["text"])
    if best is not None:
        return excerpt(best[1])
    if last is None or _LINE.match(last):
        return None  # nothing of note was said
    return excerpt(last)


def _weight(level: str, logger: str, settling: bool) -> int:
    if settling and logger == _SETTLEMENT and level in ("WARNING", "ERROR", "CRITICAL"):
        return 4
    ours = logger.startswith(_OURS)
    if level in ("ERROR", "CRITICAL"):
        return 3 if ours else 2
    return 1 if ours and level == "WARNING" else 0
