"""Dollar-cost averaging: cycles of a ladder, purchases by a schedule, and what a restart makes of both."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hummingfleet_agent.dca_plan import (
    PURCHASES,
    DcaError,
    IntervalRound,
    IntervalSettings,
    IntervalState,
    LadderRound,
    LadderSettings,
    LadderState,
    decide_interval,
    decide_ladder,
    next_point,
    plan_ladder,
    sale_price,
)
from hummingfleet_agent.ledger import Executed, Intent, Ledger
from hummingfleet_agent.planning import Cell, Decision, MarketRules, RestingOrder, WantedOrder
from hummingfleet_agent.risk import Exposure, RiskLimits
from hypothesis import given, settings
from hypothesis import strategies as st

D = Decimal
RULES = MarketRules(tick=D("0.01"), lot=D("0.00001"), min_amount=D("0.00001"), min_notional=D(5))
LADDER = LadderSettings((D(0), D(2), D(5)), (D(100), D(200), D(400)), D(2), stop_loss_pct=D(20), cooldown_s=60)
START = D(35000)
ZERO, ONE = D(0), D(1)
L0, L1, L2, SALE = "c1-l0", "c1-l1", "c1-l2", "c1-sale"
OPEN = LadderState(1, START)
NOTHING = Decision((), frozenset())


def climb(state: LadderState = OPEN, ladder: LadderSettings = LADDER, **given_: Any) -> LadderRound:
    """A round in a market at 35000 with nothing held, but for what is given."""
    situation: dict[str, Any] = {
        "cells": {}, "orders": {}, "rules": RULES, "ask": D(35001), "mid": D(35000), "now": 1e9}
    return decide_ladder(ladder, state, **{**situation, **given_})


def brief(orders: Collection[WantedOrder]) -> list[tuple[str, str, Decimal, Decimal, str]]:
    return [(order.key, order.side, order.price, order.amount, order.kind) for order in orders]


def bought(amount: str, price: str, held: str | None = None) -> Cell:
    """A cell that bought ``amount``, and holds it unless it was gathered."""
    keeps = D(amount) if held is None else D(held)
    return Cell(D(price), D(0), keeps, keeps * D(price), bought=D(amount))


FIRST_BUYS = [
    (L0, "BUY", D(35000), D("0.00285"), "market"),  # 100 / 35001
    (L1, "BUY", D(34300), D("0.00583"), "limit"),
    (L2, "BUY", D(33250), D("0.01203"), "limit"),
]
RESTING = {
    L1: RestingOrder("BUY", D(34300), D("0.00583"), D(0), D("0.00583")),
    L2: RestingOrder("BUY", D(33250), D("0.01203"), D(0), D("0.01203")),
}


# -- ladder: settings


@pytest.mark.parametrize(("change", "reason"), [
    ({"spreads_pct": ()}, "1 to 20"),
    ({"spreads_pct": tuple(D(i) for i in range(21)), "amounts_quote": (D(10),) * 21}, "1 to 20"),
    ({"amounts_quote": (D(100),)}, "as many"),
    ({"spreads_pct": (D(0), D(5), D(5))}, "must rise"),
    ({"spreads_pct": (D(-1), D(2), D(5))}, "0 or more"),
    ({"spreads_pct": (D(0), D(2), D(100))}, "below 100"),
    ({"spreads_pct": (D(0), D(2), D("NaN"))}, "spreads_pct"),
    ({"amounts_quote": (D(100), D(0), D(1))}, "above 0"),
    ({"amounts_quote": (D(100), D("Infinity"), D(1))}, "above 0"),
    ({"take_profit_pct": D(0)}, "take_profit_pct"),
    ({"stop_loss_pct": D(0)}, "stop_loss_pct"),
    ({"stop_loss_pct": D(100)}, "stop_loss_pct"),
    ({"cooldown_s": -1}, "cooldown_s"),
    ({"amounts_quote": (D(100), D("4.99"), D(400))}, "level 1 of 4.99 is below the market's minimum"),
    ({"spreads_pct": (D("0.000001"), D("0.000002"), D(5))}, "level 1, 0.000002 % .* has no price of its own"),
])
def test_refused_ladders(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DcaError, match=reason):
        plan_ladder(replace(LADDER, **change), START, RULES)


def test_a_ladder_that_reaches_zero_is_refused() -> None:
    with pytest.raises(DcaError, match="no price of its own"):
        plan_ladder(replace(LADDER, spreads_pct=(D(1), D(2), D("99.9"))), D("0.5"), replace(RULES, min_notional=D(0)))


def test_a_ladder_spends_at_most_its_amounts() -> None:
    levels = plan_ladder(LADDER, D("34999.99"), RULES, cycle=7)
    assert [(level.key, level.price) for level in levels] == [
        ("c7-l0", D("34999.99")), ("c7-l1", D("34299.99")), ("c7-l2", D("33249.99"))]
    for level in levels:
        assert level.price * level.amount <= level.quote < level.price * (level.amount + RULES.lot)


@pytest.mark.parametrize(("held", "cost", "price"), [
    ("0.00285", "99.75", "35700"),  # 35000 * 1.02 exactly: not a tick more
    ("0.00285", "99.7500001", "35700.01"),
    ("0.00285", "99.750000000000000000001", "35700"),  # the rounding of a division is no step up
    ("3", "100", "34"),
])
def test_the_sale_price_is_rounded_up(held: str, cost: str, price: str) -> None:
    assert sale_price(LADDER, D(held), D(cost), RULES) == D(price)


# -- ladder: one round


def test_a_cycle_begins_at_the_mid_price() -> None:
    begun = climb(LadderState(), mid=D(35000))
    assert (begun.event, begun.state) == ("began", OPEN)
    assert brief(begun.decision.create) == FIRST_BUYS and not begun.decision.cancel
    # Looking again changes nothing, before the orders are written down and after.
    assert climb(begun.state).decision == begun.decision
    assert climb(begun.state, busy={L0, L1, L2}).decision == NOTHING
    assert climb(begun.state, busy={L0}, orders=RESTING).decision == NOTHING


def test_without_a_price_no_cycle_begins_and_nothing_is_bought() -> None:
    assert climb(LadderState(), mid=None, ask=None) == LadderRound(LadderState(), NOTHING)
    held = climb(mid=None, ask=None, cells={L0: bought("0.00285", "35000")})
    assert brief(held.decision.create) == [(SALE, "SELL", D(35700), D("0.00285"), "limit")]


def test_everything_held_is_sold_in_one_order_at_the_average_plus_profit() -> None:
    cells = {L0: bought("0.00285", "35000", "0"), L1: bought("0.00200", "34300"),
             SALE: Cell(D(0), D(0), D("0.00285"), D("99.75"))}
    orders = {**RESTING, L1: replace(RESTING[L1], executed=D("0.00200"))}
    price = D("35405.57")  # (99.75 + 68.6) / 0.00485 * 1.02 = 35405.567...
    now = climb(OPEN, cells=cells, orders=orders)
    assert brief(now.decision.create) == [(SALE, "SELL", price, D("0.00485"), "limit")] and not now.decision.cancel
    assert now.state.bought == {0} and now.cells[SALE].sell_price == price
    almost = climb(OPEN, cells={**cells, L1: bought("0.00582", "34300")}, orders=orders, busy={SALE})
    assert almost.state.bought == {0}, "an order that is under way may still be changed"
    # The sale of the first level alone gives way to it; while it is being cancelled there is no other.
    old = RestingOrder("SELL", D(35700), D("0.00285"), D(0), D("0.00285"))
    assert climb(OPEN, cells=cells, orders={**orders, SALE: old}).decision == Decision((), frozenset({SALE}))
    assert climb(OPEN, cells=cells, orders=orders, busy={SALE}).decision == NOTHING
    # What the sale itself executes is no reason to replace it.
    part = {**cells, SALE: Cell(D(0), D(0), D("0.00185"), D("64.75"), sold=D("0.00100"))}
    average = (part[SALE].cost + part[L1].cost) / (part[SALE].held + part[L1].held)
    moved = sale_price(LADDER, D("0.00385"), average * D("0.00385"), RULES)
    selling = RestingOrder("SELL", moved, D("0.00485"), D("0.00100"), D("0.00485"))
    assert climb(OPEN, cells=part, orders={**orders, SALE: selling}).decision == NOTHING


@pytest.mark.parametrize(("cell", "wanted"), [
    (None, D("0.00583")),
    (bought("0.00283", "34300", "0"), D("0.00300")),  # stopped in the middle: the rest is bought
    (bought("0.00570", "34300", "0"), None),  # the rest is worth less than the market's minimum
    (bought("0.00583", "34300", "0"), None),
])
def test_a_level_buys_its_amount_once(cell: Cell | None, wanted: Decimal | None) -> None:
    cells = {SALE: Cell(D(0), D(0), D("0.01"), D(345)), L0: bought("0.00285", "35000", "0")}
    cells |= {} if cell is None else {L1: cell}
    now = climb(cells=cells, orders={L2: RESTING[L2]}, busy={SALE})
    assert [order.amount for order in now.decision.create] == ([] if wanted is None else [wanted])
    assert (1 in now.state.bought) == (wanted is None)
    # Bought once it stays bought, even when nothing of it is left.
    later = climb(now.state, cells={SALE: Cell(D(0), D(0), D("0.001"), D(34))}, orders={L2: RESTING[L2]}, busy={SALE})
    assert (L1 in [order.key for order in later.decision.create]) == (wanted is not None)


def test_a_level_that_the_market_has_passed_is_not_refused() -> None:
    """A limit order buys at the market then, a post-only one would never come to be."""
    now = climb(mid=D(34000), ask=D(34001), cells={L0: bought("0.00285", "35000")}, busy={SALE})
    assert brief(now.decision.create) == [
        (L1, "BUY", D(34300), D("0.00583"), "limit"), (L2, "BUY", D(33250), D("0.01203"), "limit")]


def test_a_first_level_at_market_never_spends_more_than_its_amount() -> None:
    order = climb(mid=D(40000), ask=D(40001)).decision.create[0]
    assert (order.kind, order.amount) == ("market", D("0.00249")) and order.amount * 40001 <= 100


def test_live_changes_replan_what_has_not_been_bought() -> None:
    state = replace(OPEN, bought=frozenset({0}))
    cells = {L0: bought("0.00285", "35000", "0"), SALE: Cell(D(0), D(0), D("0.00285"), D("99.75"))}
    sale = RestingOrder("SELL", D(35700), D("0.00285"), D(0), D("0.00285"))
    orders = {**RESTING, SALE: sale}
    assert climb(state, cells=cells, orders=orders).decision == NOTHING
    wider = replace(LADDER, spreads_pct=(D(0), D(3), D(5)))
    assert climb(state, wider, cells=cells, orders=orders).decision.cancel == {L1}
    assert climb(state, replace(LADDER, amounts_quote=(D(500), D(200), D(300))), cells=cells,
                 orders=orders).decision.cancel == {L2}
    assert climb(state, replace(LADDER, take_profit_pct=D(3)), cells=cells, orders=orders).decision.cancel == {SALE}
    shorter = replace(LADDER, spreads_pct=(D(0), D(2)), amounts_quote=(D(100), D(200)))
    assert climb(state, shorter, cells=cells, orders=orders).decision.cancel == {L2}
    # Cancelled, they come back at the new prices, from the cycle's own start.
    later = climb(state, wider, cells=cells, mid=D(36000), ask=D(36001), orders={L2: RESTING[L2], SALE: sale})
    assert brief(later.decision.create) == [(L1, "BUY", D(33950), D("0.00589"), "limit")]
    # The bought first level is not bought again for a larger amount.
    assert L0 not in [order.key for order in climb(
        state, replace(LADDER, spreads_pct=(D(1), D(2), D(5)), amounts_quote=(D(500), D(200), D(400))), cells=cells,
        orders=orders).decision.create]


SOLD = {L0: bought("0.00285", "35000", "0"), SALE: Cell(D(0), D(0), sold=D("0.00285"))}


def test_a_sold_position_ends_the_cycle_after_its_buys_are_gone() -> None:
    state = replace(OPEN, bought=frozenset({0}))
    assert climb(state, cells=SOLD, orders=RESTING).decision == Decision((), frozenset({L1, L2}))
    assert climb(state, cells=SOLD, busy={L2}).decision == NOTHING
    ended = climb(state, cells=SOLD, now=1000.0)
    assert (ended.event, ended.state, ended.decision) == ("ended", LadderState(1, ended_at=1000.0), NOTHING)


def test_a_buy_that_fills_while_it_is_cancelled_is_sold_in_the_same_cycle() -> None:
    cells = {**SOLD, L1: bought("0.00583", "34300")}
    now = climb(replace(OPEN, bought=frozenset({0})), cells=cells, orders={L2: RESTING[L2]})
    assert brief(now.decision.create) == [(SALE, "SELL", D(34986), D("0.00583"), "limit")]
    assert (now.event, now.decision.cancel) == ("", frozenset())


def test_what_is_too_small_to_sell_stays_for_the_next_cycle() -> None:
    # A little was bought and nothing sold: the cycle goes on.
    cells = {L1: bought("0.00010", "34300")}
    assert climb(cells=cells, orders=RESTING, busy={L0}).decision == NOTHING
    # Sold but for a rest: the cycle is over.
    cells = {**SOLD, SALE: replace(SOLD[SALE], held=D("0.00010"), cost=D("3.5"))}
    ended = climb(cells=cells, now=1000.0)
    assert ended.event == "ended"
    # In the next cycle the rest is sold along.
    state = climb(ended.state, cells={SALE: cells[SALE]}, now=1060.0).state
    assert state == LadderState(2, START)
    now = climb(state, cells={SALE: cells[SALE], "c2-l0": bought("0.00285", "35000")}, busy={"c2-l1", "c2-l2"})
    assert [(order.key, order.amount) for order in now.decision.create] == [("c2-sale", D("0.00295"))]


@pytest.mark.parametrize(("now", "begins"), [(1000.0, False), (1059.9, False), (1060.0, True), (500.0, True)])
def test_the_next_cycle_waits_for_the_cooldown(now: float, begins: bool) -> None:
    """A clock that was set back does not prolong it."""
    later = climb(LadderState(4, ended_at=1000.0), now=now)
    assert (later.event == "began") == begins and later.state.cycle == 4 + begins
    assert [order.key for order in later.decision.create] == (["c5-l0", "c5-l1", "c5-l2"] if begins else [])


def test_no_cycle_begins_while_an_order_is_open() -> None:
    order = {"c4-l1": RESTING[L1]}
    assert climb(LadderState(4, ended_at=0.0), orders=order).decision == Decision((), frozenset(order))
    assert climb(LadderState(4, ended_at=0.0), busy={"c4-l1"}).decision == NOTHING


@pytest.mark.parametrize(("mid", "strikes"), [("28000.01", False), ("28000", True), ("20000", True)])
def test_the_stop_loss_sells_all_at_market(mid: str, strikes: bool) -> None:
    cells = {L0: bought("0.00285", "35000", "0"), SALE: Cell(D(0), D(0), D("0.00285"), D("99.75"))}
    sale = {SALE: RestingOrder("SELL", D(35700), D("0.00285"), D(0), D("0.00285"))}
    now = climb(cells=cells, orders={**RESTING, **sale}, mid=D(mid), ask=D(mid) + 1)
    assert (now.event, now.state.closing) == (("stop_loss", True) if strikes else ("", False))
    if not strikes:
        assert now.decision == NOTHING
        return
    assert now.decision == Decision((), frozenset({L1, L2, SALE}))
    # It goes through although the price recovers, and buys nothing more.
    assert brief(climb(now.state, cells=cells, orders={L1: RESTING[L1]}).decision.create) == [
        (SALE, "SELL", D(35000), D("0.00285"), "market")]
    assert climb(now.state, cells=cells, busy={SALE}, mid=D(mid), ask=D(mid)).decision == NOTHING
    assert climb(now.state, cells=cells, busy={SALE}, mid=D(mid), ask=D(mid)).event == "", "it is told once"
    selling = {SALE: RestingOrder("SELL", D(mid), D("0.00285"), D(0), D(0))}
    assert climb(now.state, cells=cells, orders=selling).decision == NOTHING
    # It is over when all is sold and nothing is under way.
    assert climb(now.state, cells=SOLD, orders={L1: RESTING[L1]}).decision == Decision((), frozenset({L1}))
    ended = climb(now.state, cells=SOLD, now=1000.0)
    assert (ended.event, ended.state) == ("ended", LadderState(1, ended_at=1000.0))


def test_a_stop_loss_does_not_strike_what_cannot_be_sold() -> None:
    now = climb(cells={L1: bought("0.00010", "34300")}, orders=RESTING, busy={L0}, mid=D(20000), ask=D(20001))
    assert (now.event, now.decision) == ("", NOTHING)


def test_states_survive_the_ledger() -> None:
    busy = LadderState(3, D("0.1"), frozenset({2, 0}), True)
    for state in (LadderState(), OPEN, busy, LadderState(3, ended_at=12.5)):
        assert LadderState.parse(json.loads(json.dumps(state.memory))) == state
    for state in (IntervalState(4, 12.5, 60, D("0.1")), IntervalState(4, 12.5, 60)):
        assert IntervalState.parse(json.loads(json.dumps(state.memory))) == state
    assert LadderState.parse({}) == LadderState.parse(IntervalState(4, 12.5, 60).memory) == LadderState()
    assert IntervalState.parse({}) == IntervalState.parse(OPEN.memory) == IntervalState()


# -- ladder: whole lives


@dataclass
class Market:
    """A market and a bot on it: the real ledger and plan, and an exchange that fills as it is told."""

    ladder: LadderSettings
    price: Decimal = START
    fee: Decimal = ZERO
    now: float = 1e9
    book: Ledger = field(default_factory=lambda: Ledger(Path("/nowhere")))
    events: list[str] = field(default_factory=list)
    spent: dict[int, Decimal] = field(default_factory=dict)
    names: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.book.save = lambda: None  # type: ignore[method-assign]

    @property
    def state(self) -> LadderState:
        return LadderState.parse(json.loads(json.dumps(self.book.strategy)))

    def look(self, how: str = "prompt") -> Decision:
        """One round, as the controller makes it. The exchange is prompt, refuses orders, or is slow to cancel."""
        self.now += 1
        if self.state.cycle:
            self.book.gather(self.state.sale_key)
        now = decide_ladder(
            self.ladder, self.state, cells=self.book.cells, orders=self.book.resting_orders(), rules=RULES,
            ask=self.price + RULES.tick, mid=self.price, now=self.now)
        self.book.set_strategy(now.state.memory)
        if now.cells:
            self.book.set_cells(now.cells)
        self.events += [now.event] if now.event else []
        for entry in self.book.unsettled():
            if entry.cell in now.decision.cancel and how != "slow":
                self.book.account(entry.client_id, entry.executed, final=True)
        for order in now.decision.create:
            self.send(order, how == "refusing")
        self.check()
        return now.decision

    def send(self, order: WantedOrder, refused: bool) -> None:
        assert order.key not in self.book.resting_orders() and order.price % RULES.tick == 0
        assert order.amount % RULES.lot == 0 and RULES.allows(order.price, order.amount)
        assert order.side == "BUY" or order.amount <= self.book.sellable_base()
        name = f"o{next(self.names)}"
        self.book.intent = Intent(order.key, order.price, order.amount, order.target)
        self.book.record_order(name, order.side, int(self.now * 1e6))
        if refused:
            self.book.account(name, Executed(), final=True)
        elif order.kind == "market":
            self.fill(name, order.amount, self.price + (RULES.tick if order.side == "BUY" else -RULES.tick))
        elif order.kind == "limit":
            self.trade()

    def trade(self, share: Decimal = ONE) -> None:
        """What the price has reached fills, in this share of what is left."""
        for entry in self.book.unsettled():
            assert entry.price and entry.amount
            if entry.price >= self.price if entry.side == "BUY" else entry.price <= self.price:
                left = entry.amount - entry.executed.base
                part = max((left * share) // RULES.lot * RULES.lot, RULES.lot)
                self.fill(entry.client_id, part, entry.price)

    def fill(self, name: str, amount: Decimal, price: Decimal) -> None:
        entry = self.book.orders[name]
        before = entry.executed
        fee = amount * self.fee
        fees = (before.fee_base + fee, before.fee_quote) if entry.side == "BUY" else (
            before.fee_base, before.fee_quote + fee * price)
        total = Executed(before.base + amount, before.quote + amount * price, *fees, before.trades + 1)
        if entry.side == "BUY":
            self.spent[self.state.cycle] = self.spent.get(self.state.cycle, D(0)) + amount * price
        assert entry.amount
        self.book.account(name, total, final=total.base == entry.amount)

    def restart(self) -> None:
        """A stop cancels everything; the next start has what the ledger has."""
        for entry in self.book.unsettled():
            self.book.account(entry.client_id, entry.executed, final=True)
        self.book.close_books()

    def check(self) -> None:
        """What holds at every moment."""
        sales = [entry for entry in self.book.unsettled() if entry.side == "SELL"]
        assert len(sales) <= 1
        resting = sum((order.price * (order.amount - order.executed)
                       for order in self.book.resting_orders().values() if order.side == "BUY"), D(0))
        cycle = self.state.cycle
        assert self.spent.get(cycle, D(0)) + resting <= self.ladder.capital
        held = sum(cell.held for cell in self.book.cells.values())
        assert self.book.base >= 0 and abs(held - self.book.base) < D("1e-20")


def test_the_life_of_a_cycle() -> None:
    market = Market(LADDER)
    market.look()
    market.look()
    assert [(order.side, order.price) for order in market.book.resting_orders().values()] == [
        ("BUY", D(34300)), ("BUY", D(33250)), ("SELL", D("35700.02"))]
    market.price = D(34000)
    market.trade()
    assert market.look().cancel == {SALE}
    market.look()
    sale = market.book.resting_orders()[SALE]
    average = (D("0.00285") * D("35000.01") + D("0.00583") * D(34300)) / D("0.00868")
    assert sale.amount == D("0.00868") and 0 <= sale.price - average * D("1.02") < RULES.tick
    market.price = D(36000)
    market.trade()
    assert market.look().cancel == {L2}
    market.look()
    assert market.events == ["began", "ended"] and market.book.base == 0 and not market.book.unsettled()
    profit = market.book.profit(market.price)
    assert D("0.02") * market.spent[1] <= profit < D("0.0201") * market.spent[1]
    market.now += 60
    market.look()
    assert market.state.start_price == D(36000) and set(market.book.cells) >= {"c2-l0", "c2-l1", "c2-l2", "c2-sale"}
    assert not [key for key in market.book.cells if key.startswith("c1-")]


STEPS = st.lists(st.one_of(
    st.tuples(st.just("price"), st.integers(24000, 40000)),
    st.tuples(st.just("trade"), st.sampled_from(["0.1", "0.5", "0.99", "1"])),
    st.tuples(st.just("look"), st.sampled_from(["prompt", "refusing", "slow"])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 100)),
), max_size=60)
LADDERS = st.builds(
    lambda steps, amounts, first, profit, stop: LadderSettings(
        tuple(D(first) + D(sum(steps[:i])) / 10 for i in range(len(steps))),
        tuple(D(amount) for amount in amounts[:len(steps)]), D(profit) / 10, None if stop is None else D(stop)),
    st.lists(st.integers(1, 40), min_size=1, max_size=6), st.lists(st.integers(6, 500), min_size=6, max_size=6),
    st.sampled_from([0, 1]), st.integers(1, 50), st.one_of(st.none(), st.integers(1, 40)))


@settings(max_examples=300, deadline=None)
@given(ladder=LADDERS, steps=STEPS, fee=st.sampled_from(["0", "0.001"]))
def test_whatever_happens_no_cycle_spends_more_than_its_amounts(
    ladder: LadderSettings, steps: list[tuple[str, Any]], fee: str
) -> None:
    market = Market(ladder, fee=D(fee))
    for what, value in [*steps, ("look", "prompt"), ("look", "prompt")]:
        before = market.state
        if what == "price":
            market.price = D(value)
        elif what == "trade":
            market.trade(D(value))
        elif what == "look":
            market.look(value)
        elif what == "restart":
            market.restart()
            assert market.state == before
        else:
            market.now += value
        market.check()
    # When nothing more happens, the bot comes to rest.
    for _ in range(6):
        market.look()
        market.trade()
    assert market.look() == NOTHING and market.look() == NOTHING


@settings(max_examples=200, deadline=None)
@given(ladder=LADDERS, steps=STEPS)
def test_a_restart_in_any_state_continues_the_same_cycle(ladder: LadderSettings, steps: list[tuple[str, Any]]) -> None:
    """The same orders rest after a stop and a start as before; but for what is too small to be ordered again."""
    market = Market(ladder)
    for what, value in steps:
        if what == "price":
            market.price = D(value)
        elif what == "trade":
            market.trade(D(value))
        elif what == "look":
            market.look(value)
    for _ in range(6):
        market.look()
        market.trade()

    def rest() -> dict[str, tuple[str, Decimal, Decimal]]:
        return {key: (order.side, order.price, order.amount - order.executed)
                for key, order in market.book.resting_orders().items()
                if RULES.allows(order.price, order.amount - order.executed)}

    before, base, cycle = rest(), market.book.base, market.state.cycle
    market.restart()
    for _ in range(3):
        market.look()
    if market.state.start_price is not None and market.state.cycle == cycle:
        assert rest() == before
    assert market.book.base == base


# -- interval


EVERY = IntervalSettings(D(100), 60, dip_pct=D(10), dip_multiplier=D(2))


def buy(
    state: IntervalState, now: float, cells: Mapping[str, Cell] | None = None, interval: IntervalSettings = EVERY,
    **given_: Any,
) -> IntervalRound:
    """A round in a market at 35000 with plenty of quote, but for what is given."""
    situation: dict[str, Any] = {
        "rules": RULES, "ask": D(35001), "mid": D(35000), "just_started": False, "funds": D(10000), "under_way": (),
        "limits": RiskLimits(), "exposure": Exposure()}
    return decide_interval(interval, state, cells=cells or {}, now=now, **{**situation, **given_})


@pytest.mark.parametrize(("change", "reason"), [
    ({"order_amount": D(0)}, "order_amount"),
    ({"order_amount": D("NaN")}, "order_amount"),
    ({"order_amount": D("4.99")}, "below the market's minimum"),
    ({"interval_s": 9}, "interval_s"),
    ({"interval_s": 31 * 86400 + 1}, "interval_s"),
    ({"dip_pct": None}, "both or neither"),
    ({"dip_multiplier": None}, "both or neither"),
    ({"dip_pct": D(0)}, "dip_pct"),
    ({"dip_pct": D(100)}, "dip_pct"),
    ({"dip_multiplier": D(1)}, "dip_multiplier"),
    ({"dip_multiplier": D("10.1")}, "dip_multiplier"),
])
def test_refused_intervals(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(DcaError, match=reason):
        replace(EVERY, **change).check(RULES)
    EVERY.check(RULES)


def test_the_first_purchase_is_at_the_first_start_and_anchors_the_schedule() -> None:
    first = buy(IntervalState(), 1000.5, just_started=True)
    assert brief(first.decision.create) == [("p1", "BUY", D(35000), D("0.00285"), "market")]
    assert first.state == IntervalState(1, 1060.5, 60)
    for now in (1000.5, 1001.0, 1060.4):
        assert buy(first.state, now) == IntervalRound(first.state, NOTHING)
    second = buy(first.state, 1061.2)
    assert [order.key for order in second.decision.create] == ["p2"] and second.state.next_at == 1120.5


@pytest.mark.parametrize(("now", "next_at"), [
    (1060.4, 1060.5), (1060.5, 1120.5), (1119.0, 1120.5), (1000.5 + 60 * 1000 + 1, 1000.5 + 60 * 1001)])
def test_what_was_missed_while_stopped_is_not_made_up(now: float, next_at: float) -> None:
    missed = buy(IntervalState(1, 1060.5, 60), now, just_started=True)
    assert missed == IntervalRound(IntervalState(1, next_at, 60), NOTHING)


def test_a_purchase_waits_for_a_price_and_is_then_made_once() -> None:
    state = IntervalState(1, 1060.5, 60)
    assert buy(state, 1300.0, ask=None, mid=None) == IntervalRound(state, NOTHING)
    late = buy(state, 1300.0)
    assert len(late.decision.create) == 1 and late.state.next_at == 1300.5


@pytest.mark.parametrize(("situation", "reason"), [
    ({"funds": D(99)}, "INSUFFICIENT_FUNDS 100 wanted, 99 free"),
    ({"under_way": {"p1"}}, "the one before it has not ended"),
    ({"limits": RiskLimits(max_position=D(150)), "exposure": Exposure(D(60))}, "RISK_LIMIT limit=max_position"),
    ({"limits": RiskLimits(max_order=D(50))}, "RISK_LIMIT limit=max_order"),
    ({"mid": D(10**8), "ask": D(10**8)}, "below the market's minimum"),
])
def test_a_purchase_that_cannot_be_made_is_left_out(situation: dict[str, Any], reason: str) -> None:
    left_out = buy(IntervalState(1, 1060.5, 60), 1061.0, **situation)
    assert left_out.decision == NOTHING and reason in left_out.skipped
    assert left_out.state == IntervalState(1, 1120.5, 60)
    assert buy(left_out.state, 1062.0) == IntervalRound(left_out.state, NOTHING)


@pytest.mark.parametrize(("mid", "amount"), [
    ("31500.01", "0.00317"), ("31500", "0.00634"), ("20000", "0.01"), ("40000", "0.0025")])
def test_a_dip_below_the_last_purchase_price_multiplies(mid: str, amount: str) -> None:
    cells = {"p1": Cell(D(0), D(0), D("0.002"), D(70), bought=D("0.002")), PURCHASES: Cell(D(0), D(0), D(1), D(90000))}
    now = buy(IntervalState(1, 1060.5, 60, D(99999)), 1061.0, cells, mid=D(mid), ask=D(mid))
    assert [order.amount for order in now.decision.create] == [D(amount)] and now.state.last_price == D(35000)


def test_only_a_whole_purchase_has_a_last_price() -> None:
    partly = {"p2": Cell(D(0), D(0), D("0.001"), D(20), bought=D("0.001"))}
    assert buy(IntervalState(2, 1060.5, 60, D(35000)), 1050.0, partly, under_way={"p2"}).state.last_price == D(35000)


def test_a_refused_purchase_is_no_last_price() -> None:
    assert buy(IntervalState(2, 1060.5, 60, D(35000)), 1061.0, {}).state.last_price == D(35000)
    gathered = {"p2": Cell(D(0), D(0), bought=D("0.002"))}
    assert buy(IntervalState(2, 1060.5, 60, D(35000)), 1061.0, gathered).state.last_price == D(35000)


@pytest.mark.parametrize(("interval_s", "now", "next_at"), [
    (120, 1030.0, 1120.5),  # twice as far from the last point
    (20, 1010.0, 1020.5),
    (20, 1050.0, 1060.5),  # points of the new schedule that have passed are not made up
    (20, 1040.5, 1060.5),
])
def test_a_changed_interval_counts_from_the_last_point(interval_s: int, now: float, next_at: float) -> None:
    changed = buy(IntervalState(1, 1060.5, 60), now, interval=replace(EVERY, interval_s=interval_s))
    assert changed == IntervalRound(IntervalState(1, next_at, interval_s), NOTHING)


def test_a_clock_that_was_set_back_does_not_stop_the_purchases() -> None:
    back = buy(IntervalState(1, 100060.5, 60), 1000.0)
    assert (back.decision, back.state.next_at) == (NOTHING, 1000.5)


@given(st.floats(0, 2e9), st.integers(10, 2678400), st.floats(0, 2e9))
def test_the_next_point_is_the_first_one_after_now(point: float, interval_s: int, now: float) -> None:
    found = next_point(point, interval_s, now)
    assert now - 1e-3 < found <= now + interval_s + 1e-3
    assert abs((found - point) / interval_s - round((found - point) / interval_s)) < 1e-6


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["look", "restart"]), st.floats(0.1, 200)), max_size=60))
def test_no_point_of_the_schedule_is_served_twice(steps: list[tuple[str, float]]) -> None:
    """And none that has passed while the bot was stopped."""
    memory: dict[str, Any] = {}
    now, just_started, stopped = 1000.0, True, 1000.0
    served: list[int] = []
    for what, seconds in [("look", 0.0), *steps]:
        now += seconds
        if what == "restart":
            just_started, stopped = True, now
            continue
        made = buy(IntervalState.parse(memory), now, just_started=just_started)
        point = int((now - 1000) // 60)
        if made.decision.create:
            assert made.state.number == len(served) + 1 and point not in served
            assert not served or not just_started
            # Only a point that has passed since the last start is served.
            assert 1000 + point * 60 >= stopped - 1e-6 or not just_started
            served.append(point)
        memory, just_started = json.loads(json.dumps(made.state.memory)), False
        assert buy(IntervalState.parse(memory), now).decision == NOTHING
