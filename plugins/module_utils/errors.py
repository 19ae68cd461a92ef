# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors every part raises: a sentence that says what is wrong, where, and what to do; never a secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class HummingfleetError(Exception):
    """Something a person can act on; its text is shown as it is."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with one field of a document.

    ``pointer`` is a JSON pointer (RFC 6901) to the field, ``problem`` says what is wrong with its value, ``allowed``
    what would be accepted, and ``rule`` is the stable name of the rule that refused it (for programs and tests).
    """

    pointer: str
    problem: str
    allowed: str
    rule: str = ""

    def __str__(self) -> str:
        where = self.pointer or "the document"
        return f"{where}: {self.problem}; allowed: {self.allowed}"

    def plain(self) -> dict[str, str]:
        """The fault as JSON-plain data, for API answers and ``--json``."""
        return {"pointer": self.pointer, "problem": self.problem, "allowed": self.allowed, "rule": self.rule}


class FaultsError(HummingfleetError):
    """Data was refused; ``faults`` names every field that is at fault."""

    subject = "the data is refused"

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__(self.subject + ":\n" + "\n".join(f"- {fault}" for fault in self.faults))


def pointer(*parts: str | int) -> str:
    """The JSON pointer of the given path, e.g. ``pointer("bots", 0, "id") == "/bots/0/id"``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
