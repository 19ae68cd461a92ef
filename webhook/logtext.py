# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' log lines as people read them on a terminal; programs get the JSON lines themselves."""

from __future__ import annotations

import json
import logging

from .logs import JsonFormatter
from .text import shown

_KNOWN = ("time", "level", "process", "logger", "message", "traceback")
_COLOURS = {"warning": "33", "error": "31", "critical": "31"}
_PROCESS_COLOURS = {"web": "36", "worker": "35"}


def readable(line: str, *, process: str = "", colours: bool = False) -> str:
    """One JSON line of ``logs`` as text; anything else is given back after the name of its ``process``."""
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    if not isinstance(data, dict) or "message" not in data:
        return f"{_painted(f'{process:<6}', _PROCESS_COLOURS.get(process), colours)} {shown(line)}"
    process = str(data.get("process") or process)
    level = str(data.get("level", ""))
    at = str(data.get("time", ""))[11:19]
    text = shown(data["message"])
    extras = " ".join(f"{shown(key)}={shown(value)}" for key, value in data.items() if key not in _KNOWN)
    parts = [
        at,
        _painted(f"{shown(process):<6}", _PROCESS_COLOURS.get(process), colours),
        _painted(text if level in ("", "info", "debug") else f"{level}: {text}", _COLOURS.get(level), colours),
        _painted(extras, "2", colours),
    ]
    lines = [" ".join(part for part in parts if part)]
    trace = data.get("traceback")
    lines += [f"    {shown(entry)}" for entry in trace] if isinstance(trace, list) else []
    return "\n".join(lines)


class TextFormatter(logging.Formatter):
    """A record as text: what ``readable`` makes of its JSON line, so both say the same."""

    def __init__(self, process: str, *, colours: bool) -> None:
        super().__init__()
        self._json = JsonFormatter(process)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The text, without its end."""
        return readable(self._json.format(record), colours=self._colours)


def _painted(text: str, colour: str | None, colours: bool) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colours and colour and text else text
