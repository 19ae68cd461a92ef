"""When a grid is done: take profit, trailing stop, stop price. Pure functions over Decimal. No engine, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from .exits import Exit, ProfitExits, find_exit, follow_peak
from .planning import text


@dataclass(frozen=True)
class GridExits:
    """``profit``: in percent of the grid's capital. ``stop_price``: quote per base, below the grid; None = not set."""

    profit: ProfitExits
    stop_price: Decimal | None = None


@dataclass(frozen=True)
class GridMemory:
    """What a grid remembers over restarts.

    ``baseline``: the bot's result (quote) from which this grid's profit counts. ``peak_pct``: its highest profit since
    the trailing stop was armed. ``finished``: that it is done, so that the next one begins anew.
    """

    baseline: Decimal
    peak_pct: Decimal | None = None
    finished: bool = False

    @classmethod
    def parse(cls, data: Mapping[str, Any], result: Decimal) -> "GridMemory":
        """What ``plain`` gave; where that is nothing, or of a finished grid, a new one that begins at ``result``."""
        if "baseline" not in data or data.get("finished"):
            return cls(result)
        peak = data.get("peak_pct")
        return cls(Decimal(data["baseline"]), None if peak is None else Decimal(peak))

    def plain(self) -> dict[str, Any]:
        """The memory as JSON-plain data."""
        return {"baseline": str(self.baseline), "peak_pct": None if self.peak_pct is None else str(self.peak_pct),
                "finished": self.finished}


def judge(exits: GridExits, memory: GridMemory, *, result: Decimal, mid: Decimal, capital: Decimal) \
        -> tuple[GridMemory, Exit | None]:
    """What to remember now, and the exit that is due, if any.

    ``result``: realised and unrealised result of the bot since its first order. ``mid``: the mid price.
    """
    profit_pct = (result - memory.baseline) / capital * 100
    memory = replace(memory, peak_pct=follow_peak(exits.profit, memory.peak_pct, profit_pct))
    due = find_exit(exits.profit, memory.peak_pct, profit_pct)
    if exits.stop_price is not None and mid <= exits.stop_price:
        due = Exit("STOP_PRICE", f"the price {text(mid)} reached stop_price {text(exits.stop_price)}")
    return (memory, None) if due is None else (replace(memory, finished=True), due)
