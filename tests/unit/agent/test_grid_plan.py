"""Which orders a grid wants: levels, round trips, live changes, limits."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hummingfleet_agent.grid_plan import (
    GridError,
    GridSettings,
    Level,
    cell_key,
    decide,
    find_active,
    find_stranded,
    plan_levels,
)
from hummingfleet_agent.planning import Cell, Decision, MarketRules, RestingOrder
from hypothesis import given
from hypothesis import strategies as st

D = Decimal
RULES = MarketRules(tick=D("0.01"), lot=D("0.00001"), min_amount=D("0.00001"), min_notional=D(5))
GUIDE = GridSettings(D(30000), D(35000), 10, D(100))
LEVELS = plan_levels(GUIDE, RULES)


def choose(levels: tuple[Level, ...] = LEVELS, **given_: Any) -> Decision:
    """A decision in a market at 35250 with nothing held, but for what is given."""
    situation: dict[str, Any] = {
        "capital": D(1000), "max_position": None, "cells": {}, "orders": {}, "rules": RULES,
        "best_bid": D(35249), "best_ask": D(35251),
    }
    return decide(levels=levels, **{**situation, **given_})


def resting(level: Level, executed: str = "0") -> RestingOrder:
    return RestingOrder("BUY", level.buy_price, level.amount, D(executed), level.amount)


def holding(level: Level, held: str | None = None) -> Cell:
    amount = level.amount if held is None else D(held)
    return Cell(level.buy_price, level.sell_price, amount, amount * level.buy_price)


def test_the_guides_grid() -> None:
    assert [level.buy_price for level in LEVELS] == [D(30000 + 500 * i) for i in range(10)]
    assert [level.sell_price for level in LEVELS] == [D(30500 + 500 * i) for i in range(10)]
    assert [level.amount for level in LEVELS[:2]] == [D("0.00333"), D("0.00327")]


@given(
    low=st.integers(1, 10**7), width=st.integers(1, 10**7), count=st.integers(2, 200), amount=st.integers(1, 10**6),
    tick=st.sampled_from(["0.01", "0.5", "1", "0.001"]), lot=st.sampled_from(["0.00001", "0.1", "1"]))
def test_a_plan_is_exact_or_refused(low: int, width: int, count: int, amount: int, tick: str, lot: str) -> None:
    rules = replace(RULES, tick=D(tick), lot=D(lot))
    settings = GridSettings(D(low) / 100, D(low + width) / 100, count, D(amount))
    try:
        levels = plan_levels(settings, rules)
    except GridError:
        return
    assert len(levels) == count
    for index, level in enumerate(levels):
        # In whole numbers: floor((low*n + width*i) / (100*n*tick)).
        step = int(rules.tick * 1000)
        line = (low * count + width * index) * 10 // (count * step)
        assert level.buy_price == D(line) * rules.tick
        assert level.sell_price == (
            levels[index + 1].buy_price if index + 1 < count
            else D(int(settings.upper_bound / rules.tick)) * rules.tick)
        assert level.amount % rules.lot == 0 and level.amount * level.buy_price <= settings.order_amount
        assert (level.amount + rules.lot) * level.buy_price > settings.order_amount
        assert rules.allows(level.buy_price, level.amount)


def test_equal_thirds_stay_exact() -> None:
    levels = plan_levels(GridSettings(D(10000), D(20000), 3, D(100)), RULES)
    assert [level.buy_price for level in levels] == [D(10000), D("13333.33"), D("16666.66")]
    assert levels[-1].sell_price == D(20000)


@pytest.mark.parametrize(("settings", "reason"), [
    (replace(GUIDE, lower_bound=D(35000)), "below upper_bound"),
    (replace(GUIDE, lower_bound=D(0)), "above 0"),
    (replace(GUIDE, upper_bound=D("NaN")), "finite"),
    (replace(GUIDE, grid_count=1), "grid_count"),
    (replace(GUIDE, grid_count=201), "grid_count"),
    (replace(GUIDE, order_amount=D(-1)), "order_amount"),
    (replace(GUIDE, order_amount=D("5.1")), "level 1 at 30500 would order 0.00016"),
    (replace(GUIDE, upper_bound=D("30000.09")), "closer together"),
])
def test_refused_grids(settings: GridSettings, reason: str) -> None:
    with pytest.raises(GridError, match=reason):
        plan_levels(settings, RULES)


def test_neighbours_of_refused_grids() -> None:
    assert len(plan_levels(replace(GUIDE, grid_count=2), RULES)) == 2
    assert len(plan_levels(replace(GUIDE, grid_count=200), RULES)) == 200
    assert len(plan_levels(replace(GUIDE, order_amount=D("5.4")), RULES)) == 10
    assert len(plan_levels(replace(GUIDE, upper_bound=D("30000.1")), RULES)) == 10


def test_all_levels_buy_when_the_market_is_above() -> None:
    decision = choose()
    assert [order.price for order in decision.create] == [D(34500 - 500 * i) for i in range(10)]
    assert all(order.side == "BUY" for order in decision.create) and not decision.cancel


@pytest.mark.parametrize(("ask", "buys"), [(D(32500), 5), (D("32500.01"), 6), (D(30000), 0), (None, 0)])
def test_buys_rest_below_the_market_only(ask: Decimal | None, buys: int) -> None:
    assert len(choose(best_ask=ask).create) == buys


def test_a_lot_is_sold_one_step_higher_and_its_level_does_not_buy() -> None:
    top = LEVELS[9]
    decision = choose(cells={top.key: holding(top)})
    assert decision.create[0].side == "SELL" and decision.create[0].price == D(35000)
    assert decision.create[0].amount == top.amount
    assert len(decision.create) == 10 and top.buy_price not in [order.price for order in decision.create[1:]]


def test_one_order_per_cell() -> None:
    orders = {level.key: resting(level) for level in LEVELS}
    assert choose(orders=orders) == Decision((), frozenset())
    assert choose(orders={}, busy={level.key for level in LEVELS}) == Decision((), frozenset())
    top = LEVELS[9]
    selling = {top.key: RestingOrder("SELL", top.sell_price, top.amount, D(0), top.amount)}
    assert len(choose(orders=selling, cells={top.key: holding(top)}).create) == 9


def test_the_rest_of_a_partial_buy_is_given_up_when_the_market_reached_its_sale() -> None:
    top = LEVELS[9]
    cells = {top.key: holding(top, "0.00100")}
    orders = {level.key: resting(level) for level in LEVELS[:9]} | {top.key: resting(top, "0.00100")}
    assert choose(cells=cells, orders=orders, best_bid=D(34999)).cancel == frozenset()
    assert choose(cells=cells, orders=orders, best_bid=D(35000)).cancel == {top.key}
    # Cancelled: what was bought is sold, and only then is a whole lot bought again.
    del orders[top.key]
    created = choose(cells=cells, orders=orders).create
    assert [(order.side, order.amount) for order in created] == [("SELL", D("0.00100"))]


def test_what_is_too_small_to_sell_is_topped_up() -> None:
    top = LEVELS[9]
    created = choose(levels=(top,), capital=D(100), cells={top.key: holding(top, "0.00010")}).create
    assert [(order.side, order.amount) for order in created] == [("BUY", top.amount - D("0.00010"))]
    # Dust below the lot does not count.
    created = choose(levels=(top,), capital=D(100), cells={top.key: holding(top, "0.000003")}).create
    assert created[0].amount == top.amount


def test_a_changed_amount_replaces_resting_buys() -> None:
    bigger = plan_levels(replace(GUIDE, order_amount=D(120)), RULES)
    orders = {level.key: resting(level) for level in LEVELS}
    decision = choose(levels=bigger, capital=D(1200), orders=orders)
    assert decision.cancel == set(orders) and not decision.create


def test_lots_of_vanished_levels_keep_selling_and_take_up_room() -> None:
    top = LEVELS[9]
    moved = plan_levels(GridSettings(D(31000), D(34000), 6, D(100)), RULES)
    decision = choose(levels=moved, capital=D(600), cells={top.key: holding(top)},
                      orders={level.key: resting(level) for level in LEVELS[:9]})
    # The lot's room is taken from the level farthest below the market.
    assert decision.cancel == {level.key for level in LEVELS[:9]} - {level.key for level in moved[1:]}
    later = choose(levels=moved, capital=D(600), cells={top.key: holding(top)})
    assert (later.create[0].side, later.create[0].price) == ("SELL", D(35000))
    assert [order.price for order in later.create[1:]] == [D(33500 - 500 * i) for i in range(5)]


def test_what_vanished_levels_cannot_sell_goes_to_a_level() -> None:
    moved = plan_levels(GridSettings(D(31000), D(34000), 6, D(100)), RULES)
    cells = {level.key: holding(level, "0.00010") for level in (LEVELS[0], LEVELS[9])} | {
        LEVELS[8].key: holding(LEVELS[8])}
    stranded = find_stranded(moved, cells, RULES)
    # 30000:30500 goes to the nearest sale above, 34500:35000 has none above; the whole lot sells by itself.
    assert stranded == {"30000:30500": "31000:31500", "34500:35000": "33500:34000"}
    assert find_stranded((), cells, RULES) == {}


def test_what_another_template_bought_is_not_sold_below_its_cost() -> None:
    """Purchases at intervals and signals' positions have no sale of their own."""
    for cost, key in (("33200", "33000:33500"), ("36000", "34500:35000")):
        cells = {"purchases": Cell(D(0), D(0), D("0.1"), D("0.1") * D(cost))}
        assert find_stranded(LEVELS, cells, RULES) == {"purchases": key}
        free = replace(RULES, min_notional=D(0))
        assert find_stranded(LEVELS, cells, free) == {"purchases": key}
        assert not [order for order in choose(cells=cells, rules=free).create if order.side == "SELL"]


def test_the_position_limit_counts_what_is_held_and_what_rests() -> None:
    assert [order.price for order in choose(max_position=D(250)).create] == [D(34500), D(34000)]
    cells = {LEVELS[9].key: holding(LEVELS[9])}
    sides = [order.side for order in choose(max_position=D(250), cells=cells).create]
    assert sides == ["SELL", "BUY"]
    orders = {level.key: resting(level) for level in LEVELS}
    assert len(choose(max_position=D(250), orders=orders).cancel) == 8


@given(st.data())
def test_exposure_never_exceeds_the_grids_capital(data: st.DataObject) -> None:
    """Whatever a former grid left behind: new buys stay within what the present one may spend."""
    former = plan_levels(
        GridSettings(D(data.draw(st.integers(20000, 34000))), D(36000), data.draw(st.integers(2, 20)), D(100)), RULES)
    now = plan_levels(
        GridSettings(D(data.draw(st.integers(20000, 34000))), D(36000), data.draw(st.integers(2, 20)),
                     D(data.draw(st.integers(50, 200)))), RULES)
    cells = {level.key: holding(level) for level in former if data.draw(st.booleans())}
    orders: dict[str, RestingOrder] = {}
    capital = sum((level.amount * level.buy_price for level in now), D(0)) + len(now)
    for _ in range(3):
        decision = choose(levels=now, capital=capital, cells=cells, orders=orders, best_ask=D(40000))
        orders = {key: order for key, order in orders.items() if key not in decision.cancel}
        orders |= {order.key: RestingOrder(order.side, order.price, order.amount, D(0), order.target)
                   for order in decision.create}
    keys = {level.key for level in now}
    bought = sum((order.price * order.amount for order in orders.values() if order.side == "BUY"), D(0))
    vanished = sum((cell.cost for key, cell in cells.items() if key not in keys), D(0))
    own = len([key for key in cells if key in keys]) * capital / len(now)
    assert bought == 0 or bought + vanished + own <= capital
    assert all(key in orders and orders[key].side == "SELL" for key in cells)


def test_cell_keys_are_plain() -> None:
    assert cell_key(D("3.00E+4"), D("30500.00")) == "30000:30500"


def rest_within(bounds: str | None, mid: str | None, resting_keys: tuple[int, ...] = ()) -> list[int]:
    """Indices of the levels that may buy."""
    orders = {LEVELS[i].key: resting(LEVELS[i]) for i in resting_keys}
    keys = find_active(LEVELS, orders, None if mid is None else D(mid), None if bounds is None else D(bounds))
    return [level.index for level in LEVELS if level.key in keys]


@pytest.mark.parametrize(("bounds", "mid", "rests", "active"), [
    (None, "35000", (), list(range(10))),
    (None, None, (), list(range(10))),
    ("100", "35000", (), list(range(10))),
    # 5 percent below 35000 is 33250; what rests already may be 5.5 percent below: 33075.
    ("5", "35000", (), [7, 8, 9]),
    ("5", "35263.15", (), [7, 8, 9]),
    ("5", "35263.16", (), [8, 9]),
    ("5", "35263.16", (7, 8, 9), [7, 8, 9]),
    ("5", "35449.73", (7, 8, 9), [7, 8, 9]),
    ("5", "35449.74", (7, 8, 9), [8, 9]),
    # Above the market, too: whether they may rest there is another question.
    ("5", "30000", (), list(range(10))),
    ("5", None, (3,), [3]),
])
def test_activation_bounds(bounds: str | None, mid: str | None, rests: tuple[int, ...], active: list[int]) -> None:
    assert rest_within(bounds, mid, rests) == active


def test_only_active_levels_buy_and_every_lot_is_sold() -> None:
    top, bottom = LEVELS[9], LEVELS[0]
    active = {top.key, LEVELS[8].key}
    decision = choose(cells={bottom.key: holding(bottom)}, orders={LEVELS[5].key: resting(LEVELS[5])}, active=active)
    assert decision.cancel == {LEVELS[5].key}
    assert [(order.side, order.price) for order in decision.create] == [
        ("SELL", D(30500)), ("BUY", D(34500)), ("BUY", D(34000))]


@given(bounds=st.integers(1, 100), mid=st.integers(29000, 40000), steps=st.lists(st.integers(-50, 50), max_size=8))
def test_a_price_that_trembles_cancels_no_order(bounds: int, mid: int, steps: list[int]) -> None:
    """Back and forth by at most a twentieth of the bound: what rested at the beginning rests."""
    first = keys = find_active(LEVELS, {}, D(mid), D(bounds))
    for step in steps:
        orders = {level.key: resting(level) for level in LEVELS if level.key in keys}
        keys = find_active(LEVELS, orders, D(mid) * (1 + D(bounds) * step / 100000), D(bounds))
        assert first <= keys


def test_what_the_position_limit_holds_back_is_told() -> None:
    decision = choose(max_position=D(250))
    assert len(decision.create) == 2 and decision.held_back == ("max_position",) * 8
    # Levels that would not buy anyway are not held back.
    assert choose(max_position=D(250), active={LEVELS[9].key}).held_back == ()
    assert choose(max_position=D(250), best_ask=D(30000)).held_back == ()
