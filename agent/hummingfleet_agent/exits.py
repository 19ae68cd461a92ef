"""Exits on profit: take profit and trailing stop, as pure functions over Decimal. No engine, no I/O.

Profits are in percent of a base that the strategy chooses (a grid's capital, what a position cost).
"""

from dataclasses import dataclass
from decimal import Decimal

from .planning import text


@dataclass(frozen=True)
class ProfitExits:
    """When profit ends a position; None = not set.

    ``take_profit_pct``: at this profit. ``trailing_activation_pct``/``trailing_delta_pct`` (both or neither): once the
    profit has reached the first, at a fall of the second, in percentage points, below its highest value.
    Raises ValueError for values that make no such rule.
    """

    take_profit_pct: Decimal | None = None
    trailing_activation_pct: Decimal | None = None
    trailing_delta_pct: Decimal | None = None

    def __post_init__(self) -> None:
        for name in ("take_profit_pct", "trailing_activation_pct", "trailing_delta_pct"):
            value = getattr(self, name)
            if value is not None and not (value.is_finite() and value > 0):
                raise ValueError(f"{name} must be above 0")
        if (self.trailing_activation_pct is None) != (self.trailing_delta_pct is None):
            raise ValueError("trailing_activation_pct and trailing_delta_pct belong together: set both or neither")
        if (self.trailing_activation_pct is not None and self.trailing_delta_pct is not None
                and self.trailing_delta_pct > self.trailing_activation_pct):
            raise ValueError("trailing_delta_pct must not be above trailing_activation_pct")


@dataclass(frozen=True)
class Exit:
    """That a position is to be closed. ``kind``: TAKE_PROFIT or TRAILING_STOP."""

    kind: str
    message: str


def follow_peak(exits: ProfitExits, peak_pct: Decimal | None, profit_pct: Decimal) -> Decimal | None:
    """The highest profit since the trailing stop is armed; None while it is not.

    It is armed once the profit has reached ``trailing_activation_pct`` and stays so until the rule is taken away.
    """
    if exits.trailing_activation_pct is None:
        return None
    if peak_pct is None and profit_pct < exits.trailing_activation_pct:
        return None
    return profit_pct if peak_pct is None else max(peak_pct, profit_pct)


def find_exit(exits: ProfitExits, peak_pct: Decimal | None, profit_pct: Decimal) -> Exit | None:
    """The exit that is due, if any. ``peak_pct`` must have followed ``profit_pct`` already."""
    if exits.take_profit_pct is not None and profit_pct >= exits.take_profit_pct:
        return Exit("TAKE_PROFIT", f"profit {profit_pct:.4f} % reached take_profit_pct {text(exits.take_profit_pct)}")
    delta = exits.trailing_delta_pct
    if delta is not None and peak_pct is not None and peak_pct - profit_pct >= delta:
        return Exit("TRAILING_STOP", f"profit {profit_pct:.4f} % fell trailing_delta_pct {text(delta)} below its "
                                     f"highest value {peak_pct:.4f} %")
    return None
