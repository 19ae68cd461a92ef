# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times on the command line: lengths such as ``90s`` or ``7d``, and moments."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LENGTH = re.compile(r"([0-9]{1,6})([smhd])")


class Length(click.ParamType[float]):
    """A length of time; the value is in seconds."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of ``value``, which is a number and a unit."""
        if isinstance(value, int | float):
            return float(value)
        seconds = _seconds(str(value))
        if seconds is None:
            self.fail("a length of time is a number with s, m, h or d, such as 90s, 24h or 7d", param, ctx)
        return seconds


class Since(click.ParamType[str]):
    """A moment in the past: ``2h`` ago, or a time in ISO 8601; the value is ISO 8601 in UTC."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The moment as the journal writes it."""
        seconds = _seconds(str(value))
        if seconds is not None:
            moment = datetime.fromtimestamp(time.time() - seconds, UTC)
        else:
            try:
                moment = datetime.fromisoformat(str(value))
                moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
            except (ValueError, OverflowError):
                self.fail("say how long ago (30m, 2h, 7d) or a time such as 2026-11-23T05:00:00Z", param, ctx)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(seconds: object) -> str | None:
    """Epoch seconds as people read them, UTC; None for what is no time."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return None


def _seconds(text: str) -> float | None:
    found = _LENGTH.fullmatch(text)
    return float(int(found[1]) * _UNITS[found[2]]) if found else None
