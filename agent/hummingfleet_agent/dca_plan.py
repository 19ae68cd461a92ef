"""Dollar-cost averaging: a ladder of buys with one sale, or a purchase at every interval. Pure functions, no I/O.

A ladder works in cycles. A cycle begins at the mid price of that moment; level i buys ``amounts_quote[i]`` at
``spreads_pct[i]`` percent below it, once. One order sells all that the bot holds at ``take_profit_pct`` above its
average price. When that has sold, or the stop loss has, the cycle is over. Keys: ``c<cycle>-l<index>``,
``c<cycle>-sale``.

At intervals purchase n has the key ``p<n>``; a point of the schedule is served once or not at all.
"""

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal, localcontext
from typing import Any

from .planning import ZERO, Cell, Decision, MarketRules, RestingOrder, WantedOrder, floor_to, text
from .risk import Exposure, RiskLimits, judge_order

HUNDRED = Decimal(100)
MAX_LEVELS = 20
MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 10, 31 * 24 * 3600
# Where purchases at intervals are kept; they are not sold.
PURCHASES = "purchases"
# Averages carry the rounding of the ledger's divisions: that much of a tick is no step up.
NOISE = Decimal("1e-9")


class DcaError(ValueError):
    """The settings cannot be traded on this market; the message names the field or the level."""


# -- settings


@dataclass(frozen=True)
class LadderSettings:
    """The ladder's live fields. Amounts in quote, percents as percent, ``cooldown_s`` in seconds."""

    spreads_pct: tuple[Decimal, ...]
    amounts_quote: tuple[Decimal, ...]
    take_profit_pct: Decimal
    stop_loss_pct: Decimal | None = None
    cooldown_s: int = 60
    repeat: bool = True

    @property
    def capital(self) -> Decimal:
        """Quote that one cycle may spend."""
        return sum(self.amounts_quote, ZERO)

    def check(self) -> None:
        """Raises DcaError naming the field that cannot be used."""
        spreads = self.spreads_pct
        if not 1 <= len(spreads) <= MAX_LEVELS:
            raise DcaError(f"spreads_pct must have 1 to {MAX_LEVELS} entries")
        if len(self.amounts_quote) != len(spreads):
            raise DcaError("amounts_quote must have as many entries as spreads_pct")
        if not all(value.is_finite() and 0 <= value < 100 for value in spreads):
            raise DcaError("spreads_pct must be 0 or more and below 100")
        if any(later <= earlier for earlier, later in itertools.pairwise(spreads)):
            raise DcaError("spreads_pct must rise from level to level")
        if not all(value.is_finite() and value > 0 for value in self.amounts_quote):
            raise DcaError("amounts_quote must be above 0")
        if not (self.take_profit_pct.is_finite() and self.take_profit_pct > 0):
            raise DcaError("take_profit_pct must be above 0")
        if self.stop_loss_pct is not None and not (self.stop_loss_pct.is_finite() and 0 < self.stop_loss_pct < 100):
            raise DcaError("stop_loss_pct must be above 0 and below 100")
        if self.cooldown_s < 0:
            raise DcaError("cooldown_s must not be negative")


@dataclass(frozen=True)
class IntervalSettings:
    """The live fields of purchases at intervals. ``order_amount`` in quote, ``interval_s`` in seconds."""

    order_amount: Decimal
    interval_s: int
    dip_pct: Decimal | None = None
    dip_multiplier: Decimal | None = None

    def check(self, rules: MarketRules | None = None) -> None:
        """Raises DcaError naming the field that cannot be used (on a market with these rules)."""
        if not (self.order_amount.is_finite() and self.order_amount > 0):
            raise DcaError("order_amount must be above 0")
        if not MIN_INTERVAL_SECONDS <= self.interval_s <= MAX_INTERVAL_SECONDS:
            raise DcaError(f"interval_s must be between {MIN_INTERVAL_SECONDS} and {MAX_INTERVAL_SECONDS}")
        if (self.dip_pct is None) != (self.dip_multiplier is None):
            raise DcaError("dip_pct and dip_multiplier belong together: set both or neither")
        if self.dip_pct is not None and not (self.dip_pct.is_finite() and 0 < self.dip_pct < 100):
            raise DcaError("dip_pct must be above 0 and below 100")
        if self.dip_multiplier is not None and not (self.dip_multiplier.is_finite() and 1 < self.dip_multiplier <= 10):
            raise DcaError("dip_multiplier must be above 1 and at most 10")
        if rules is not None and self.order_amount < rules.min_notional:
            raise DcaError(f"order_amount {text(self.order_amount)} is below the market's minimum of "
                           f"{text(rules.min_notional)}; raise it")


# -- ladder


@dataclass(frozen=True)
class Level:
    """One level: buys ``amount`` base at ``price``, or at market for ``quote``."""

    index: int
    key: str
    price: Decimal
    amount: Decimal
    quote: Decimal
    at_market: bool


@dataclass(frozen=True)
class LadderState:
    """What a ladder remembers.

    ``cycle``: number of the present or last cycle; ``start_price`` None: none is open. ``bought``: levels that have
    bought all they were to buy. ``closing``: the stop loss struck and all is being sold. ``ended_at``: when the last
    cycle ended (epoch seconds).
    """

    cycle: int = 0
    start_price: Decimal | None = None
    bought: frozenset[int] = frozenset()
    closing: bool = False
    ended_at: float | None = None

    @property
    def sale_key(self) -> str:
        """The key of the one sale."""
        return f"c{self.cycle}-sale"

    @classmethod
    def parse(cls, memory: Mapping[str, Any]) -> "LadderState":
        """From the ledger's ``strategy``; that of another mode counts as empty."""
        if memory.get("mode") != "ladder":
            return cls()
        start = memory["start_price"]
        return cls(int(memory["cycle"]), None if start is None else Decimal(start), frozenset(memory["bought"]),
                   bool(memory["closing"]), memory["ended_at"])

    @property
    def memory(self) -> dict[str, Any]:
        """For the ledger's ``strategy``."""
        return {"mode": "ladder", "cycle": self.cycle,
                "start_price": None if self.start_price is None else str(self.start_price),
                "bought": sorted(self.bought), "closing": self.closing, "ended_at": self.ended_at}


@dataclass(frozen=True)
class LadderRound:
    """What a ladder wants now.

    ``state``: to be remembered before an order is sent. ``cells``: keys that are in use, with their prices. ``event``:
    what has just happened: "" or "began", "stop_loss", "ended".
    """

    state: LadderState
    decision: Decision
    cells: Mapping[str, Cell] = field(default_factory=dict)
    event: str = ""


def plan_ladder(
    settings: LadderSettings, start_price: Decimal, rules: MarketRules, cycle: int = 1
) -> tuple[Level, ...]:
    """The levels of a cycle that began at ``start_price``, highest first.

    Raises DcaError where the market does not allow one of them.
    """
    settings.check()
    levels: list[Level] = []
    for index, (spread, quote) in enumerate(zip(settings.spreads_pct, settings.amounts_quote, strict=True)):
        price = floor_to(start_price * (HUNDRED - spread) / HUNDRED, rules.tick)
        if price <= 0 or (levels and price >= levels[-1].price):
            raise DcaError(f"level {index}, {text(spread)} % below the first price, has no price of its own: the "
                           f"market's tick is {text(rules.tick)}; widen spreads_pct")
        amount = floor_to(quote / price, rules.lot)
        if not rules.allows(price, amount):
            raise DcaError(f"level {index} of {text(quote)} is below the market's minimum (amount "
                           f"{text(rules.min_amount)}, notional {text(rules.min_notional)}); raise amounts_quote")
        levels.append(Level(index, f"c{cycle}-l{index}", price, amount, quote, at_market=spread == 0))
    return tuple(levels)


def sale_price(settings: LadderSettings, held: Decimal, cost: Decimal, rules: MarketRules) -> Decimal:
    """The average price plus the profit, rounded up to the tick."""
    with localcontext() as context:
        context.prec = 50
        steps = cost * (HUNDRED + settings.take_profit_pct) / (HUNDRED * held) / rules.tick
        return +(steps.quantize(NOISE).to_integral_value(ROUND_CEILING) * rules.tick)


def decide_ladder(
    settings: LadderSettings,
    state: LadderState,
    *,
    cells: Mapping[str, Cell],
    orders: Mapping[str, RestingOrder],
    rules: MarketRules,
    ask: Decimal | None,
    mid: Decimal | None,
    now: float,
    busy: Collection[str] = (),
) -> LadderRound:
    """What to make and cancel now; the same situation gives the same answer.

    ``cells``: all that the bot holds, by key. ``orders``: at most one per key. ``busy``: keys whose order is just being
    made or has just ended. ``ask``/``mid`` None: unknown; nothing is then bought, and no cycle begins.
    Raises DcaError where the settings make no ladder at the cycle's first price.
    """
    event = ""
    if state.start_price is None:
        # A clock that was set back does not prolong the pause.
        pausing = state.ended_at is not None and 0 <= now - state.ended_at < settings.cooldown_s
        if pausing or orders or busy or mid is None:
            return LadderRound(state, Decision((), frozenset(orders)))
        state, event = LadderState(state.cycle + 1, mid), "began"
    assert state.start_price is not None
    levels = plan_ladder(settings, state.start_price, rules, state.cycle)
    under_way = {*orders, *busy}
    state = replace(state, bought=state.bought | {
        level.index for level in levels if level.key not in under_way and _is_bought(level, cells, rules)})

    held = sum((cell.held for cell in cells.values()), ZERO)
    cost = sum((cell.cost for cell in cells.values()), ZERO)
    lots = floor_to(held, rules.lot)
    price = sale_price(settings, held, cost, rules) if held > 0 else ZERO
    if not state.closing and _stop_loss_struck(settings, held, cost, mid) and mid is not None \
            and rules.allows(mid, lots):
        state, event = replace(state, closing=True), "stop_loss"

    known = {level.key: Cell(ZERO if level.at_market else level.price, ZERO) for level in levels}
    known[state.sale_key] = Cell(ZERO, price)
    if state.closing:
        decision = _close(state, orders, under_way, lots, rules, mid)
        over = mid is not None and not rules.allows(mid, lots)
    else:
        sold = any(cell.sold > 0 for key, cell in cells.items() if key.startswith(f"c{state.cycle}-"))
        over = sold and not rules.allows(price, lots) and state.sale_key not in under_way
        decision = Decision((), frozenset(orders)) if over else _trade(
            levels, state, cells, orders, under_way, rules, ask, mid, lots, price)
    if over and not under_way:
        return LadderRound(LadderState(state.cycle, ended_at=now), Decision((), frozenset()), known, "ended")
    return LadderRound(state, decision, known, event)


def _is_bought(level: Level, cells: Mapping[str, Cell], rules: MarketRules) -> bool:
    """Whether a level without an order lacks nothing that could be bought."""
    bought = cells[level.key].bought if level.key in cells else ZERO
    return bought > 0 and (level.at_market or not rules.allows(level.price, level.amount - bought))


def _stop_loss_struck(settings: LadderSettings, held: Decimal, cost: Decimal, mid: Decimal | None) -> bool:
    if settings.stop_loss_pct is None or mid is None or held <= 0:
        return False
    return mid * held * HUNDRED <= cost * (HUNDRED - settings.stop_loss_pct)


def _close(
    state: LadderState, orders: Mapping[str, RestingOrder], under_way: Collection[str], lots: Decimal,
    rules: MarketRules, mid: Decimal | None,
) -> Decision:
    """Cancel everything, sell everything at market. A market sale has the target 0: nobody cancels it."""
    create: tuple[WantedOrder, ...] = ()
    if mid is not None and rules.allows(mid, lots) and state.sale_key not in under_way:
        create = (WantedOrder(state.sale_key, "SELL", mid, lots, ZERO, "market"),)
    return Decision(create, frozenset(
        key for key, order in orders.items() if key != state.sale_key or order.target != 0))


def _trade(
    levels: tuple[Level, ...], state: LadderState, cells: Mapping[str, Cell], orders: Mapping[str, RestingOrder],
    under_way: Collection[str], rules: MarketRules, ask: Decimal | None, mid: Decimal | None,
    lots: Decimal, price: Decimal,
) -> Decision:
    """One sale of all lots at ``price``; one buy for every level that has not bought."""
    create: list[WantedOrder] = []
    by_key = {level.key: level for level in levels}
    cancel = {key for key in orders if key not in by_key and key != state.sale_key}
    if rules.allows(price, lots):
        sale = orders.get(state.sale_key)
        if sale is not None:
            if sale.price != price or sale.amount - sale.executed != lots:
                cancel.add(state.sale_key)
        elif state.sale_key not in under_way:
            create.append(WantedOrder(state.sale_key, "SELL", price, lots, lots, "limit"))
    for level in levels:
        order = orders.get(level.key)
        if order is not None:
            if not level.at_market and (order.price != level.price or order.target != level.amount):
                cancel.add(level.key)
        elif level.key not in under_way and level.index not in state.bought and ask is not None and mid is not None:
            bought = cells[level.key].bought if level.key in cells else ZERO
            wanted = _buy(level, bought, rules, ask, mid)
            if rules.allows(wanted.price, wanted.amount):
                create.append(wanted)
    return Decision(tuple(create), frozenset(cancel))


def _buy(level: Level, bought: Decimal, rules: MarketRules, ask: Decimal, mid: Decimal) -> WantedOrder:
    if level.at_market:
        amount = floor_to(level.quote / ask, rules.lot)
        return WantedOrder(level.key, "BUY", mid, amount, amount, "market")
    # Not post-only: a price that the market has already passed must not wait for it to come back.
    return WantedOrder(level.key, "BUY", level.price, level.amount - bought, level.amount, "limit")


# -- interval


@dataclass(frozen=True)
class IntervalState:
    """What purchases at intervals remember.

    ``number``: of the last purchase. ``next_at``: the schedule's next point (epoch seconds), None before the first
    start; ``interval_s``: the distance it was worked out with. ``last_price``: what the last purchase paid on average.
    """

    number: int = 0
    next_at: float | None = None
    interval_s: int = 0
    last_price: Decimal | None = None

    @property
    def key(self) -> str:
        """The key of the last purchase."""
        return f"p{self.number}"

    @classmethod
    def parse(cls, memory: Mapping[str, Any]) -> "IntervalState":
        """From the ledger's ``strategy``; that of another mode counts as empty."""
        if memory.get("mode") != "interval":
            return cls()
        price = memory["last_price"]
        return cls(int(memory["number"]), float(memory["next_at"]), int(memory["interval_s"]),
                   None if price is None else Decimal(price))

    @property
    def memory(self) -> dict[str, Any]:
        """For the ledger's ``strategy``."""
        return {"mode": "interval", "number": self.number, "next_at": self.next_at, "interval_s": self.interval_s,
                "last_price": None if self.last_price is None else str(self.last_price)}


@dataclass(frozen=True)
class IntervalRound:
    """What is wanted now.

    ``state``: to be remembered before an order is sent. ``skipped``: why the purchase that was due is left out.
    """

    state: IntervalState
    decision: Decision
    skipped: str = ""


def next_point(point: float, interval_s: int, now: float) -> float:
    """The first point after ``now`` of the schedule that has ``point``."""
    return point + interval_s * (math.floor((now - point) / interval_s) + 1)


def decide_interval(
    settings: IntervalSettings,
    state: IntervalState,
    *,
    cells: Mapping[str, Cell],
    under_way: Collection[str],
    rules: MarketRules,
    ask: Decimal | None,
    mid: Decimal | None,
    now: float,
    just_started: bool,
    funds: Decimal,
    limits: RiskLimits,
    exposure: Exposure,
) -> IntervalRound:
    """The purchase that is due, if any. Whatever becomes of it, its point of the schedule is served.

    ``under_way``: keys that have an order or are about to. ``just_started``: points that have passed belong to a time
    when the bot did not run. ``funds``: free quote. While the market's price is unknown a purchase waits, one at the
    most.
    """
    last = cells.get(state.key)
    if state.key not in under_way and last is not None and last.bought > 0 and last.cost > 0:
        state = replace(state, last_price=last.cost / last.bought)
    state = _follow_schedule(settings, state, now, just_started)
    assert state.next_at is not None
    nothing = Decision((), frozenset())
    if now < state.next_at or ask is None or mid is None:
        return IntervalRound(state, nothing)
    due = replace(state, next_at=next_point(state.next_at, settings.interval_s, now))
    quote = settings.order_amount
    if settings.dip_pct is not None and settings.dip_multiplier is not None and state.last_price is not None \
            and mid * HUNDRED <= state.last_price * (HUNDRED - settings.dip_pct):
        quote *= settings.dip_multiplier
    amount = floor_to(quote / ask, rules.lot)
    breach = judge_order(limits, exposure, value=amount * mid, price=mid, mid=mid)
    if state.key in under_way:
        return IntervalRound(due, nothing, "the one before it has not ended")
    if not rules.allows(mid, amount):
        return IntervalRound(due, nothing, f"{text(quote)} is below the market's minimum (amount "
                             f"{text(rules.min_amount)}, notional {text(rules.min_notional)})")
    if breach is not None:
        return IntervalRound(due, nothing, f"RISK_LIMIT {breach.facts}")
    if amount * ask > funds:
        return IntervalRound(due, nothing, f"INSUFFICIENT_FUNDS {text(quote)} wanted, {text(funds)} free")
    due = replace(due, number=state.number + 1)
    return IntervalRound(due, Decision((WantedOrder(due.key, "BUY", mid, amount, amount, "market"),), frozenset()))


def _follow_schedule(settings: IntervalSettings, state: IntervalState, now: float, just_started: bool) -> IntervalState:
    """The state with its next point by the present settings; the first one ever is now."""
    point, interval_s = state.next_at, settings.interval_s
    if point is None:
        return replace(state, next_at=now, interval_s=interval_s)
    changed = interval_s != state.interval_s
    if changed:
        # The new distance counts from the last point.
        point += interval_s - state.interval_s
    # A clock that was set back does not leave a schedule in the far future.
    if (point <= now and (changed or just_started)) or point - now > interval_s:
        point = next_point(point, interval_s, now)
    return replace(state, next_at=point, interval_s=interval_s)
