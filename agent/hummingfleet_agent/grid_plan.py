"""Grid planning: which orders a grid wants, as pure functions over Decimal. No engine, no I/O.

A grid of n levels between two bounds has n+1 lines. Level i buys at line i and sells what it bought at line i+1. Every
line is ``lower + (upper - lower) * i / n`` rounded down to the price tick (multiplied before divided, so that exact
lines stay exact); the amount is ``order_amount / buy price`` rounded down to the lot.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

from .planning import Cell, Decision, MarketRules, RestingOrder, WantedOrder, floor_to, text

ZERO = Decimal(0)
# How much further than the activation bound a buy that rests may be, so that it does not come and go at the edge.
ACTIVATION_MARGIN = Decimal("1.1")


class GridError(ValueError):
    """The settings do not make a grid on this market; the message names the level and the limit."""


@dataclass(frozen=True)
class GridSettings:
    """The four live-updatable fields. Bounds and order_amount in quote; order_amount is what one level spends."""

    lower_bound: Decimal
    upper_bound: Decimal
    grid_count: int
    order_amount: Decimal

    @property
    def capital(self) -> Decimal:
        """Quote that the whole grid may hold in base and in resting buys."""
        return self.order_amount * self.grid_count


@dataclass(frozen=True)
class Level:
    """One level: buys ``amount`` base at ``buy_price`` and sells it at ``sell_price``."""

    index: int
    buy_price: Decimal
    sell_price: Decimal
    amount: Decimal

    @property
    def key(self) -> str:
        """The level's identity: it survives any change of settings that keeps both prices."""
        return cell_key(self.buy_price, self.sell_price)


def cell_key(buy_price: Decimal, sell_price: Decimal) -> str:
    """The identity of a level: its two prices."""
    return f"{text(buy_price)}:{text(sell_price)}"


def plan_levels(settings: GridSettings, rules: MarketRules) -> tuple[Level, ...]:
    """Exactly ``grid_count`` levels, lowest first. Raises GridError where the market does not allow one of them."""
    if not all(value.is_finite() for value in (settings.lower_bound, settings.upper_bound, settings.order_amount)):
        raise GridError("lower_bound, upper_bound and order_amount must be finite numbers")
    if not 0 < settings.lower_bound < settings.upper_bound:
        raise GridError("lower_bound must be above 0 and below upper_bound")
    if not 2 <= settings.grid_count <= 200:
        raise GridError("grid_count must be between 2 and 200")
    if settings.order_amount <= 0:
        raise GridError("order_amount must be above 0")
    count = settings.grid_count
    with localcontext() as context:
        context.prec = 50
        width = settings.upper_bound - settings.lower_bound
        lines = [floor_to(settings.lower_bound + width * i / count, rules.tick) for i in range(count + 1)]
        levels = []
        for i in range(count):
            buy_price, sell_price = lines[i], lines[i + 1]
            if buy_price <= 0 or sell_price <= buy_price:
                raise GridError(
                    f"level {i} would buy at {text(buy_price)} and sell at {text(sell_price)}: "
                    f"the levels lie closer together than the price tick {text(rules.tick)}"
                )
            amount = floor_to(settings.order_amount / buy_price, rules.lot)
            if not rules.allows(buy_price, amount):
                raise GridError(
                    f"level {i} at {text(buy_price)} would order {text(amount)}: below the market's minimum "
                    f"(amount {text(rules.min_amount)}, notional {text(rules.min_notional)}); raise order_amount"
                )
            levels.append(Level(i, +buy_price, +sell_price, +amount))
    return tuple(levels)


def find_stranded(levels: Sequence[Level], cells: Mapping[str, Cell], rules: MarketRules) -> dict[str, str]:
    """Cells of former settings that cannot be sold by themselves -> the level that takes over what they hold.

    That is the level with the nearest sale at or above the cell's own, or the topmost one. What another template
    bought has no sale of its own: what it cost on average stands for that.
    """
    keys = {level.key for level in levels}
    stranded = {}
    for key, cell in cells.items():
        if not levels or key in keys or cell.held <= 0:
            continue
        if not cell.sell_price or not rules.allows(cell.sell_price, floor_to(cell.held, rules.lot)):
            price = cell.sell_price or cell.cost / cell.held
            above = [level for level in levels if level.sell_price >= price]
            stranded[key] = min(above, key=lambda level: level.sell_price).key if above else levels[-1].key
    return stranded


def find_active(
    levels: Sequence[Level], orders: Mapping[str, RestingOrder], mid: Decimal | None, bounds_pct: Decimal | None
) -> frozenset[str]:
    """The levels that may buy now: those at most ``bounds_pct`` percent below the mid price (None: all).

    A buy that rests stays until it is a tenth of the bound further away, so that a price at the edge does not make it
    come and go. Without a mid price what rests stays and nothing else comes.
    """
    if bounds_pct is None:
        return frozenset(level.key for level in levels)
    active = set()
    for level in levels:
        resting = orders.get(level.key)
        rests = resting is not None and resting.side == "BUY"
        reach = bounds_pct * ACTIVATION_MARGIN if rests else bounds_pct
        if (mid is None and rests) or (mid is not None and level.buy_price >= mid * (1 - reach / 100)):
            active.add(level.key)
    return frozenset(active)


def decide(
    *,
    levels: Sequence[Level],
    capital: Decimal,
    max_position: Decimal | None,
    cells: Mapping[str, Cell],
    orders: Mapping[str, RestingOrder],
    rules: MarketRules,
    best_bid: Decimal | None,
    best_ask: Decimal | None,
    busy: Collection[str] = (),
    active: Collection[str] | None = None,
) -> Decision:
    """What to make and cancel now, one order per cell.

    A cell that holds a sellable lot sells it at its own price, whether it is still a level or not. A level that holds
    none buys, but only below the market. A lot of a vanished level occupies the room of as many new buys as it cost,
    and everything held plus every resting buy stays within ``max_position`` (quote): a change never doubles exposure.

    ``capital``: what the grid may spend in all. ``orders``: at most one per cell. ``busy``: cells whose order is just
    being made: they are left alone and counted as if it rested. ``best_bid``/``best_ask`` None: unknown, then no buy
    is made. ``active``: the levels that may buy now, None for all.
    """
    create_sells: list[WantedOrder] = []
    cancel: set[str] = set()
    by_key = {level.key: level for level in levels}
    slot = capital / len(levels) if levels else ZERO

    def sellable(cell: Cell) -> Decimal:
        amount = floor_to(cell.held, rules.lot)
        return amount if cell.sell_price and rules.allows(cell.sell_price, amount) else ZERO

    slots_left = capital
    exposure = ZERO
    for key, cell in cells.items():
        held = floor_to(cell.held, rules.lot)
        if held <= 0:
            continue
        exposure += max(cell.cost, ZERO)
        slots_left -= slot if key in by_key else max(cell.cost, ZERO)

    # Orders that no longer fit, and sells.
    for key, order in orders.items():
        level = by_key.get(key)
        lot = cells.get(key)
        if order.side == "SELL":
            continue
        fits = level is not None and order.price == level.buy_price and order.target == level.amount
        if level is None or not fits or (active is not None and key not in active):
            cancel.add(key)
        elif order.executed > 0 and lot and best_bid is not None and best_bid >= level.sell_price and sellable(lot):
            # The rest was left behind by the market: sell what was bought.
            cancel.add(key)
    for key, cell in cells.items():
        if key not in orders and key not in busy and (amount := sellable(cell)):
            create_sells.append(WantedOrder(key, "SELL", cell.sell_price, amount, amount))
    create_sells.sort(key=lambda order: order.price)

    # Buys: nearest below the market first, as far as capital and the position limit reach.
    create_buys: list[WantedOrder] = []
    held_back: list[str] = []
    for level in sorted(levels, key=lambda item: -item.buy_price):
        key = level.key
        cell = cells.get(key, Cell(level.buy_price, level.sell_price))
        resting = orders.get(key)
        if key in cancel or (resting is not None and resting.side == "SELL"):
            continue
        if resting is None:
            if sellable(cell):
                continue
            may_rest = best_ask is not None and level.buy_price < best_ask and (active is None or key in active)
            below_market = key in busy or may_rest
            amount = level.amount - max(floor_to(cell.held, rules.lot), ZERO)
            if not rules.allows(level.buy_price, amount):
                # Holds too little to sell and lacks too little to buy: one whole level is the smallest sure order.
                amount = level.amount
            open_amount = amount
        else:
            below_market = True
            amount = resting.amount
            open_amount = resting.amount - resting.executed
        if not below_market:
            continue
        needs_slot = ZERO if floor_to(cell.held, rules.lot) > 0 else slot
        needs_position = level.buy_price * open_amount
        has_slot = slots_left >= needs_slot
        fits_limit = max_position is None or exposure + needs_position <= max_position
        if has_slot and not fits_limit:
            held_back.append("max_position")
        if not (has_slot and fits_limit):
            if resting is not None:
                cancel.add(key)
            continue
        slots_left -= needs_slot
        exposure += needs_position
        if resting is None and key not in busy:
            create_buys.append(WantedOrder(key, "BUY", level.buy_price, amount, level.amount, "maker"))
    return Decision(tuple(create_sells + create_buys), frozenset(cancel), tuple(held_back))
