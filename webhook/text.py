# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that strangers wrote, made safe to show: what a portal, an exchange or a container says is only displayed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# Cc: escape sequences of terminals. Cf: invisible and direction-changing characters. Cs, Co, Cn: no character at all.
# Zl, Zp: line breaks that a terminal shows as none.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORTENED = 8
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def shown(value: object) -> str:
    """``value`` on one line, without anything that could steer a terminal: such characters appear as ``\\x1b``."""
    return "".join(
        character
        if (character.isascii() and character.isprintable()) or unicodedata.category(character) not in _UNSHOWN
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in str(value)
    )


def shown_lines(text: str) -> str:
    """``text`` as ``shown``, with its line breaks and tabs kept."""
    return "\n".join(shown(line).replace("\\t", "    ") for line in text.split("\n"))


def shortened(document: Mapping[str, Any]) -> dict[str, Any]:
    """A tenant document for people: ciphertexts, nonces and the salt as their first characters."""
    plain = dict(document)
    if isinstance(plain.get("salt"), str):
        plain["salt"] = _shorten(plain["salt"])
    plain["exchange_connections"] = [
        {
            name: _shorten(value) if name.startswith(("encrypted_", "nonce_")) and isinstance(value, str) else value
            for name, value in connection.items()
        }
        for connection in document.get("exchange_connections", ())
    ]
    return plain


def _shorten(text: str) -> str:
    return text if len(text) <= _SHORTENED else f"{text[:_SHORTENED]}... ({len(text)} characters)"


def duration(seconds: float) -> str:
    """A length of time as people say it: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``24 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"


def read_time(text: str) -> datetime:
    """The moment that ``text`` (ISO 8601 with zone) says, in UTC; raises ValueError with what is allowed."""
    allowed = "a time such as 2026-11-23T05:00:00Z"
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(allowed)
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(allowed) from None
    if not 1970 <= moment.year < 9999:  # what every clock and database can hold
        raise ValueError(allowed)
    return moment
