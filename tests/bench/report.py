"""How benchmarks end: their bounds, each with what was measured, the JSON file, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bound:
    """A promise: ``measured`` is at most ``bound``, or at least if ``least``."""

    what: str
    measured: float
    bound: float
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is kept."""
        return self.measured >= self.bound if self.least else self.measured <= self.bound


def finish(figures: dict[str, Any], bounds: Sequence[Bound], path: Path | None) -> int:
    """Prints the bounds and writes everything to ``path``; 1 if one does not hold."""
    rows = []
    for bound in bounds:
        word = "at least" if bound.least else "at most"
        verdict = "holds" if bound.holds else "BROKEN"
        print(f"{bound.what:<66} {bound.measured:9.2f}  {word} {bound.bound:g}  {verdict}")
        rows.append({"what": bound.what, "measured": round(bound.measured, 3), "bound": bound.bound,
                     "least": bound.least, "holds": bound.holds})  # fmt: skip
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"figures": figures, "bounds": rows}, indent=1) + "\n")
    return 0 if all(bound.holds for bound in bounds) else 1
