"""A bot's limits, as pure functions. Amounts in the pair's quote asset, percentages as percent.

Order limits judge one opening order at a time, together with what is held and what rests already; loss limits judge the
bot's result. Position: what the bot itself bought and has not sold, at cost, fees included. Equity: the capital that
was given to the strategy plus realised and unrealised result, fees included. A day is a UTC day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

ZERO = Decimal(0)
# An order this far beyond a limit was not held up by a price that moved meanwhile: its strategy is out of control.
OUT_OF_CONTROL = Decimal("1.1")


@dataclass(frozen=True)
class RiskLimits:
    """What ``bot.json`` sets; None = not set."""

    max_position: Decimal | None = None
    max_order: Decimal | None = None
    max_open_orders: int | None = None
    price_band_pct: Decimal | None = None
    max_daily_loss: Decimal | None = None
    max_drawdown: Decimal | None = None
    max_drawdown_pct: Decimal | None = None
    close_position_on_halt: bool = False
    earliest_resume_s: int = 0

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "RiskLimits":
        """The limits in bot.json's ``risk``. Raises ValueError for names and values that are none."""
        known = {item.name for item in fields(cls)}
        for name in data:
            if name not in known:
                raise ValueError(f"risk.{name} is no limit that this agent knows")
        values: dict[str, Any] = {name: value for name, value in data.items() if value is not None}
        for name, value in values.items():
            if name == "close_position_on_halt":
                if not isinstance(value, bool):
                    raise ValueError(f"risk.{name} must be true or false")
                continue
            try:
                number = Decimal(str(value))
            except ArithmeticError:
                raise ValueError(f"risk.{name} is not a number") from None
            if isinstance(value, bool) or not number.is_finite() or number < 0:
                raise ValueError(f"risk.{name} must be a number of 0 or more")
            if number == 0 and name != "earliest_resume_s":
                raise ValueError(f"risk.{name} must be above 0")
            values[name] = int(number) if name in ("max_open_orders", "earliest_resume_s") else number
        return cls(**values)


@dataclass(frozen=True)
class Breach:
    """A limit that is exceeded, or would be."""

    limit: str
    value: Decimal
    threshold: Decimal

    @property
    def is_gross(self) -> bool:
        """Whether it is too far beyond the limit for a price that moved meanwhile."""
        return self.limit != "price_band_pct" and self.value >= self.threshold * OUT_OF_CONTROL

    @property
    def facts(self) -> str:
        """What the log says of it, after a stable code."""
        return f"limit={self.limit} value={self.value.quantize(Decimal('0.0001')):f} threshold={self.threshold:f}"


# -- orders


@dataclass(frozen=True)
class Exposure:
    """``position`` at cost and ``resting``, what open buys may still spend (quote); ``open_orders``, their number."""

    position: Decimal = ZERO
    resting: Decimal = ZERO
    open_orders: int = 0

    def with_buy(self, value: Decimal) -> "Exposure":
        """The exposure with one more open buy worth ``value``."""
        return replace(self, resting=self.resting + value, open_orders=self.open_orders + 1)


def judge_order(
    limits: RiskLimits, exposure: Exposure, *, value: Decimal, price: Decimal | None, mid: Decimal | None
) -> Breach | None:
    """The first order limit that an opening order worth ``value`` would break, on top of ``exposure``.

    ``price``: the highest price it may execute at (market orders: what the book asks on average; None: more than the
    book has). ``mid``: the present mid price (None: unknown).
    """
    if limits.max_order is not None and value > limits.max_order:
        return Breach("max_order", value, limits.max_order)
    if limits.max_open_orders is not None and exposure.open_orders >= limits.max_open_orders:
        return Breach("max_open_orders", Decimal(exposure.open_orders + 1), Decimal(limits.max_open_orders))
    if limits.max_position is not None:
        total = exposure.position + exposure.resting + value
        if total > limits.max_position:
            return Breach("max_position", total, limits.max_position)
    if limits.price_band_pct is not None:
        if price is None or not mid:
            return Breach("price_band_pct", Decimal(100), limits.price_band_pct)
        above = (price / mid - 1) * 100
        if above > limits.price_band_pct:
            return Breach("price_band_pct", above, limits.price_band_pct)
    return None


# -- losses


@dataclass(frozen=True)
class RiskState:
    """What must be remembered between looks: the result at the day's start, and the highest one so far.

    ``day`` is empty before the first look, and after a halt was lifted: both measures then begin anew.
    """

    day: str = ""
    day_start_pnl: Decimal = ZERO
    peak_pnl: Decimal = ZERO

    def observe(self, pnl: Decimal, now: float) -> "RiskState":
        """The state after the result ``pnl`` was seen at ``now`` (epoch seconds)."""
        day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        if not self.day:
            return RiskState(day, pnl, pnl)
        start = self.day_start_pnl if day == self.day else pnl
        return RiskState(day, start, max(self.peak_pnl, pnl))


def find_breach(limits: RiskLimits, state: RiskState, pnl: Decimal, capital: Decimal) -> Breach | None:
    """The first loss limit that ``pnl`` (realised and unrealised, since the bot's first order) has reached.

    ``state`` must have observed ``pnl`` already. Drawdown: the fall from the highest equity (``capital`` + result).
    """
    loss, drawdown = state.day_start_pnl - pnl, state.peak_pnl - pnl
    if limits.max_daily_loss is not None and loss >= limits.max_daily_loss:
        return Breach("max_daily_loss", loss, limits.max_daily_loss)
    if limits.max_drawdown is not None and drawdown >= limits.max_drawdown:
        return Breach("max_drawdown", drawdown, limits.max_drawdown)
    if limits.max_drawdown_pct is not None:
        peak = capital + state.peak_pnl
        # Without anything left of the highest equity every fall is a whole one.
        percent = drawdown / peak * 100 if peak > 0 else (Decimal(100) if drawdown > 0 else ZERO)
        if percent >= limits.max_drawdown_pct:
            return Breach("max_drawdown_pct", percent, limits.max_drawdown_pct)
    return None
