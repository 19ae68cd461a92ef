"""The limits that the grid enforces while it trades, as pure functions. Amounts in quote (a USD-like asset)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

ZERO = Decimal(0)


@dataclass(frozen=True)
class RiskLimits:
    """What the document sets; None = not set. max_drawdown_pct in percent of the grid's equity peak."""

    max_position_usd: Decimal | None = None
    max_daily_loss_usd: Decimal | None = None
    max_drawdown_pct: Decimal | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "RiskLimits":
        """The limits in bot.json's ``risk``. Raises ValueError for anything that is not a positive number."""
        values = {}
        for name in ("max_position_usd", "max_daily_loss_usd", "max_drawdown_pct"):
            if data.get(name) is None:
                continue
            try:
                value = Decimal(str(data[name]))
            except ArithmeticError:
                raise ValueError(f"risk.{name} is not a number") from None
            if not value.is_finite() or value <= 0:
                raise ValueError(f"risk.{name} must be above 0")
            values[name] = value
        return cls(**values)


@dataclass(frozen=True)
class RiskState:
    """What must be remembered between looks: profit and loss at the day's start, and its highest value ever."""

    day: str = ""
    day_start_pnl: Decimal = ZERO
    peak_pnl: Decimal = ZERO

    def observe(self, pnl: Decimal, now: float) -> "RiskState":
        """The state after profit and loss ``pnl`` was seen at ``now`` (epoch seconds); days are UTC days."""
        day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        start = self.day_start_pnl if day == self.day else pnl
        return RiskState(day, start, max(self.peak_pnl, pnl))


@dataclass(frozen=True)
class Breach:
    """A limit that is exceeded."""

    limit: str
    value: Decimal
    threshold: Decimal

    @property
    def message(self) -> str:
        """The one line that is logged."""
        return f"RISK_HALT limit={self.limit} value={self.value:.4f} threshold={self.threshold:f}"


def find_breach(limits: RiskLimits, state: RiskState, pnl: Decimal, capital: Decimal) -> Breach | None:
    """The first loss limit that ``pnl`` (realised and unrealised, since the bot's first order) exceeds.

    ``state`` must have observed ``pnl`` already. Drawdown: the fall from the highest equity (capital + profit) so far.
    """
    if limits.max_daily_loss_usd is not None:
        loss = state.day_start_pnl - pnl
        if loss >= limits.max_daily_loss_usd:
            return Breach("max_daily_loss_usd", loss, limits.max_daily_loss_usd)
    if limits.max_drawdown_pct is not None:
        peak = capital + state.peak_pnl
        if peak > 0:
            drawdown = (state.peak_pnl - pnl) / peak * 100
            if drawdown >= limits.max_drawdown_pct:
                return Breach("max_drawdown_pct", drawdown, limits.max_drawdown_pct)
    return None
