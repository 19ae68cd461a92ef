# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kind of trouble kept a tenant from its desired state: codes that never change, for programs to decide by."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Problem(str, enum.Enum):  # noqa: UP042  nodes run Python 3.9
    """The codes, the gravest first. ``str(code)`` is what travels in results."""

    INTERNAL = "internal"  # a fault of the installation or of this software
    DOCUMENT_REFUSED = "document_refused"
    CREDENTIALS_REFUSED = "credentials_refused"  # they do not decrypt
    NODE_REFUSED = "node_refused"  # Docker, images, files or space on the node
    ENGINE_REFUSED = "engine_refused"  # a bot's container came up, and the bot does not trade
    EXCHANGE_UNANSWERED = "exchange_unanswered"  # a bot's orders could not be checked
    UNREACHABLE = "unreachable"  # the node or its Docker engine does not answer
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    BUSY = "busy"  # another run holds the tenant

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def read(cls, value: object) -> Problem:
        """The code in a result; what is no code counts as ``INTERNAL``."""
        try:
            return cls(value)
        except ValueError:
            return cls.INTERNAL


def gravest(problems: Iterable[Problem]) -> Problem:
    """The gravest of ``problems``; of none, ``INTERNAL``."""
    found = set(problems)
    return next((problem for problem in Problem if problem in found), Problem.INTERNAL)


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong with a stack, in words and as a code.

    ``bot`` is the id of the bot that it is about; ``final`` says that waiting does not help.
    """

    text: str
    problem: Problem
    bot: str | None = None
    final: bool = False
