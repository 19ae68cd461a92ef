"""What every strategy's plan speaks of: market rules, what is held, orders that rest and orders that are wanted.

Pure data over Decimal. No engine, no I/O.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

ZERO = Decimal(0)


@dataclass(frozen=True)
class MarketRules:
    """What the exchange demands of an order: price in steps of ``tick`` (quote), amount in steps of ``lot`` (base)."""

    tick: Decimal
    lot: Decimal
    min_amount: Decimal
    min_notional: Decimal

    def allows(self, price: Decimal, amount: Decimal) -> bool:
        """Whether an order of this size would be accepted."""
        return amount > 0 and amount >= self.min_amount and price * amount >= self.min_notional


@dataclass(frozen=True)
class Cell:
    """What one key of a plan holds: ``held`` base, bought for ``cost`` quote (fees included).

    ``buy_price`` and ``sell_price`` are those of a grid's level; 0 where a strategy has none. ``bought`` and ``sold``:
    base that it ever bought and sold, before fees on purchases.
    """

    buy_price: Decimal
    sell_price: Decimal
    held: Decimal = ZERO
    cost: Decimal = ZERO
    bought: Decimal = ZERO
    sold: Decimal = ZERO


@dataclass(frozen=True)
class RestingOrder:
    """An order of a key that is on its way or on the exchange. ``target``: the plan's amount when it was made."""

    side: str
    price: Decimal
    amount: Decimal
    executed: Decimal
    target: Decimal


@dataclass(frozen=True)
class WantedOrder:
    """An order to be made, the only one of its ``key`` for now.

    ``kind``: "maker" rests or is refused, "limit" may meet the market, "market" takes what the book offers (``price``
    is then the mid price of the decision). ``target``: what the plan is after, kept with the order.
    """

    key: str
    side: str
    price: Decimal
    amount: Decimal
    target: Decimal
    kind: str = "limit"


@dataclass(frozen=True)
class Decision:
    """What to do now: orders to make, most urgent first, and keys whose order is to be cancelled.

    ``held_back``: the limit that keeps an order from being made, once per order, where the plan itself sees to it.
    """

    create: tuple[WantedOrder, ...]
    cancel: frozenset[str]
    held_back: tuple[str, ...] = ()


def text(value: Decimal) -> str:
    """A Decimal in plain digits, without trailing zeros."""
    return f"{value.normalize():f}"


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """``value`` rounded down to a multiple of ``step``."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """``value`` rounded up to a multiple of ``step``."""
    return (value / step).to_integral_value(ROUND_CEILING) * step
