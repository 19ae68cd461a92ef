"""Which signals a bot takes, what it trades for them, and when it closes the position by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hummingfleet_agent.exits import Exit
from hummingfleet_agent.planning import MarketRules, WantedOrder
from hummingfleet_agent.risk import Exposure, RiskLimits
from hummingfleet_agent.signal_plan import (
    ALIVE_AT_MOST,
    REMEMBERED,
    Memory,
    Signal,
    SignalError,
    SignalSettings,
    Situation,
    Step,
    Verdict,
    due_exit,
    judge,
    order_leaves,
    parse_signal,
    signal_id,
    step,
)
from hypothesis import given, settings
from hypothesis import strategies as st

D = Decimal
NOW = 1_800_000_000.0
RULES = MarketRules(tick=D("0.01"), lot=D("0.00001"), min_amount=D("0.00001"), min_notional=D(5))
FLAT = Situation(now=NOW, mid=D(40000), rules=RULES)
# 0.01 bought at 40000.
LONG = replace(FLAT, held=D("0.01"), cost=D(400), exposure=Exposure(position=D(400)))
PLAIN = SignalSettings()
MESSAGE = {"id": "a1", "action": "buy", "size_quote": "100", "sent_at": NOW - 1, "expires_at": NOW + 20}


def message(**changes: Any) -> dict[str, Any]:
    return {**MESSAGE, **changes}


def signal(**changes: Any) -> Signal:
    return parse_signal(message(**changes))


def asked(
    now: Situation = FLAT, memory: Memory | None = None, config: SignalSettings = PLAIN, **changes: Any
) -> Verdict:
    """The answer to a buy of 100, but for what is changed."""
    return judge(signal(**changes), config, memory or Memory(), now)


def waiting(**changes: Any) -> Memory:
    return Memory(waiting=signal(**changes))


def the_order(taken: Step) -> WantedOrder:
    [order] = taken.decision.create
    assert not taken.decision.cancel and (order.key, order.kind) == ("position", "market")
    return order


# -- messages


def test_a_message_is_read_exactly() -> None:
    assert signal() == Signal("a1", "buy", D(100), NOW - 1, NOW + 20)
    assert signal(action="close", size_quote=None, sent_at=int(NOW)).size_quote is None
    assert signal(size_quote="0.00000001").size_quote == D("0.00000001")


@pytest.mark.parametrize(("changes", "problem"), [
    ({"id": None}, "id"), ({"id": 7}, "id"), ({"id": ""}, "id"), ({"id": "x" * 129}, "id"), ({"id": "a\nb"}, "id"),
    ({"action": "BUY"}, "action"), ({"action": ["buy"]}, "action"), ({"action": None}, "action"),
    ({"size_quote": 100}, "size_quote"), ({"size_quote": "NaN"}, "size_quote"), ({"size_quote": "-1"}, "size_quote"),
    ({"size_quote": "0"}, "size_quote"), ({"size_quote": "1e9"}, "size_quote"), ({"size_quote": "٣"}, "size_quote"),
    ({"size_quote": "9" * 16}, "size_quote"), ({"size_quote": "1\n"}, "size_quote"),
    ({"sent_at": "1800000000"}, "sent_at"), ({"sent_at": True}, "sent_at"), ({"sent_at": float("nan")}, "sent_at"),
    ({"expires_at": float("inf")}, "expires_at"), ({"expires_at": 10**400}, "expires_at"),
    ({"expires_at": NOW + 3600}, "expires_at"),
    ({"leverage": 10}, "unknown fields: leverage"),
])
def test_whatever_is_not_exactly_a_signal_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SignalError, match=problem):
        parse_signal(message(**changes))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(SignalError, match="expires_at"):
        parse_signal({name: value for name, value in MESSAGE.items() if name != "expires_at"})


def test_an_answer_needs_an_id() -> None:
    assert signal_id(message(action="sing")) == "a1"
    assert [signal_id(odd) for odd in (None, [], "a1", {}, {"id": 1}, {"id": "\x00"})] == [None] * 6


ODD = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
NEARLY = st.fixed_dictionaries({
    "id": st.sampled_from(["a1", "b"]) | ODD, "action": st.sampled_from(["buy", "sell", "close"]) | ODD,
    "size_quote": st.sampled_from(["1", "100", "0.000000000000000001", "999999999999999", None]) | ODD,
    "sent_at": st.sampled_from([NOW, NOW - 5, 1, 9e10]) | ODD,
    "expires_at": st.sampled_from([NOW + 9, NOW, 9e10]) | ODD,
})


@settings(max_examples=300)
@given(data=ODD | NEARLY, now=st.sampled_from([FLAT, LONG, replace(FLAT, mid=None), replace(FLAT, rules=None)]))
def test_no_message_is_ever_an_exception(data: Any, now: Situation) -> None:
    try:
        read = parse_signal(data)
    except SignalError as error:
        assert str(error)
        return
    verdict = judge(read, PLAIN, Memory(), now)
    assert verdict.reason
    step(PLAIN, verdict.memory, now)


# -- taking signals


def test_an_accepted_signal_waits_and_is_remembered() -> None:
    verdict = asked()
    assert (verdict.code, verdict.accepted) == ("accepted", True)
    assert verdict.memory.waiting == signal() and verdict.memory.seen == {"a1": NOW + 20}


LIMITS = RiskLimits(max_order=D(150), max_position=D(500), price_band_pct=D(1))


@pytest.mark.parametrize(("code", "now", "config", "changes"), [
    ("expired", FLAT, PLAIN, {"sent_at": NOW - 20, "expires_at": NOW}),
    ("expired", FLAT, SignalSettings(max_signal_age_s=5), {"sent_at": NOW - 6}),
    ("invalid", FLAT, SignalSettings(max_signal_age_s=300), {"sent_at": NOW + 500, "expires_at": NOW + 700}),
    # The sender's clock is ahead of the control node's.
    ("accepted", FLAT, PLAIN, {"sent_at": NOW + 9, "expires_at": NOW + 6}),
    ("halted", replace(FLAT, halted="it is"), PLAIN, {}),
    ("not_connected", replace(FLAT, connected=False), PLAIN, {}),
    ("not_connected", replace(FLAT, mid=None), PLAIN, {}),
    ("not_connected", replace(FLAT, rules=None), PLAIN, {}),
    ("busy", replace(FLAT, under_way=True), PLAIN, {}),
    ("busy", replace(LONG, under_way=True), PLAIN, {"action": "sell"}),
    ("no_size", FLAT, PLAIN, {"size_quote": None}),
    ("no_size", LONG, SignalSettings(order_amount=D(50)), {"action": "sell", "size_quote": None}),
    ("accepted", FLAT, SignalSettings(order_amount=D(50)), {"size_quote": None}),
    ("invalid", FLAT, PLAIN, {"size_quote": "4.99"}),
    ("invalid", LONG, PLAIN, {"action": "sell", "size_quote": "4.99"}),
    ("no_position", FLAT, PLAIN, {"action": "sell"}),
    ("no_position", FLAT, PLAIN, {"action": "close"}),
    ("no_position", replace(FLAT, held=D("0.0001")), PLAIN, {"action": "close"}),
    ("accepted", LONG, PLAIN, {"action": "sell", "size_quote": "1000000"}),
    ("accepted", LONG, PLAIN, {"action": "close", "size_quote": None}),
    ("too_large", replace(FLAT, limits=LIMITS, taker_price=lambda _: D(40000)), PLAIN, {"size_quote": "151"}),
    ("too_large", replace(LONG, limits=LIMITS, taker_price=lambda _: D(40000)), PLAIN, {"size_quote": "101"}),
    ("accepted", replace(LONG, limits=LIMITS, taker_price=lambda _: D(40000)), PLAIN, {"size_quote": "100"}),
    ("too_large", replace(FLAT, limits=LIMITS, taker_price=lambda _: D(40401)), PLAIN, {}),
    ("too_large", replace(FLAT, limits=LIMITS), PLAIN, {}),
    ("too_large", replace(FLAT, funds=D("99.9")), PLAIN, {}),
])
def test_each_refusal(code: str, now: Situation, config: SignalSettings, changes: dict[str, Any]) -> None:
    verdict = asked(now, config=config, **changes)
    assert verdict.code == code, verdict
    if code != "accepted":
        # A refused signal may be sent again under its id.
        assert verdict.memory == Memory()


def test_an_id_is_taken_once() -> None:
    taken = asked()
    assert asked(memory=taken.memory).code == "duplicate"
    # Whatever became of it, and whatever else stands in the way.
    later = replace(FLAT, now=NOW + 100, halted="it is")
    assert judge(signal(), PLAIN, replace(taken.memory, waiting=None), later).code == "duplicate"
    # Refused signals are not remembered.
    assert asked(memory=asked(replace(FLAT, connected=False)).memory).accepted


def test_the_memory_of_ids_is_bounded_by_their_life() -> None:
    old = {f"old{i}": NOW - 1 for i in range(REMEMBERED + 50)}
    alive = {f"new{i}": NOW + 1 for i in range(REMEMBERED)}
    kept = asked(memory=Memory(seen={**alive, **old})).memory.seen
    assert set(alive) < set(kept) and len(kept) == 2 * REMEMBERED + 1 and "old49" not in kept and "old50" in kept
    flood = {f"new{i}": NOW + 1 for i in range(ALIVE_AT_MOST)}
    assert asked(memory=Memory(seen=flood)).code == "busy"


def test_one_signal_waits_and_a_close_takes_its_place() -> None:
    first = asked().memory
    assert asked(memory=first, id="a2").code == "busy"
    assert asked(LONG, memory=first, id="a2", action="sell").code == "busy"
    closing = asked(memory=first, id="a2", action="close")
    assert closing.accepted and closing.memory.waiting is not None and closing.memory.waiting.id == "a2"
    # What was to be bought is forgotten, also where its order is just being made.
    assert order_leaves(closing.memory, "a1", NOW) is None
    # With nothing held the close has done its work.
    ended = step(PLAIN, closing.memory, FLAT)
    assert not ended.decision.create and ended.memory.waiting is None and "SIGNAL_DROPPED a2" in ended.notes[0]
    # Behind an order under way it waits: that may be a buy.
    assert asked(replace(FLAT, under_way=True), action="close").accepted
    # An expired signal blocks nobody.
    assert asked(replace(FLAT, now=NOW + 21), memory=first, id="a2", sent_at=NOW + 20, expires_at=NOW + 40).accepted


def test_a_refused_buy_neither_stops_exits_nor_a_close() -> None:
    config = SignalSettings(stop_loss_pct=D(1))
    no_buys, no_sales = replace(LONG, paused=frozenset({"BUY"})), replace(LONG, paused=frozenset({"SELL"}))
    assert asked(no_buys).code == asked(no_sales, action="sell").code == "busy"
    assert asked(no_sales).accepted and asked(no_buys, action="sell").accepted
    closing = asked(no_buys, action="close")
    assert closing.accepted and the_order(step(PLAIN, closing.memory, no_buys)).side == "SELL"
    assert the_order(step(config, Memory(), replace(no_buys, mid=D(30000)))).side == "SELL"
    assert step(config, waiting(), replace(no_sales, mid=D(30000))).decision.create == ()
    # What waits is traded once the pause is over, or expires.
    taken = step(PLAIN, waiting(), no_buys)
    assert taken.decision.create == () and taken.memory.waiting == signal()


def test_cooldown_lies_between_openings() -> None:
    config = SignalSettings(cooldown_s=60)
    memory = Memory(bought_at=NOW - 59)
    verdict = asked(memory=memory, config=config)
    assert verdict.code == "cooldown" and "1 s" in verdict.reason
    assert asked(LONG, memory=memory, config=config, action="close").accepted
    assert asked(memory=replace(memory, bought_at=NOW - 60), config=config).accepted


# -- trading


def test_a_buy_spends_its_size_at_the_mid_price() -> None:
    taken = step(PLAIN, waiting(size_quote="100.39"), FLAT)
    order = the_order(taken)
    assert (order.side, order.price, order.amount) == ("BUY", D(40000), D("0.00250"))
    assert taken.signal == "a1" and taken.exit is None


@pytest.mark.parametrize(("action", "size", "held", "sold"), [
    ("sell", "100", "0.01", "0.00250"),
    ("sell", "100", "0.002", "0.002"),
    ("sell", "400", "0.01000999", "0.01000"),
    # What would be left is too little to be sold alone.
    ("sell", "396", "0.01", "0.01"),
    ("close", None, "0.01000999", "0.01000"),
    ("close", "100", "0.01", "0.01"),
])
def test_sales_never_exceed_what_is_held(action: str, size: str | None, held: str, sold: str) -> None:
    order = the_order(step(PLAIN, waiting(action=action, size_quote=size), replace(LONG, held=D(held))))
    assert (order.side, order.amount) == ("SELL", D(sold))


def test_nothing_is_decided_while_an_order_is_under_way() -> None:
    config = SignalSettings(stop_loss_pct=D(1))
    crash = replace(LONG, mid=D(30000), under_way=True)
    taken = step(config, waiting(), crash)
    assert not taken.decision.create and taken.memory.waiting == signal()
    assert the_order(step(config, waiting(), replace(crash, under_way=False))).side == "SELL"


def test_an_expired_signal_trades_nothing() -> None:
    for moment, orders in ((NOW + 19.9, 1), (NOW + 20, 0)):
        taken = step(PLAIN, waiting(), replace(FLAT, now=moment))
        assert len(taken.decision.create) == orders
    assert taken.memory.waiting is None and taken.notes == ("SIGNAL_EXPIRED a1 was not traded in time",)


def test_the_last_word_is_spoken_when_the_order_leaves() -> None:
    memory = waiting()
    after = order_leaves(memory, "a1", NOW)
    assert after == Memory(bought_at=NOW, opened_at=NOW)
    assert order_leaves(memory, "a2", NOW) is None
    assert order_leaves(memory, "a1", NOW + 20) is None
    # Once written down it never leaves again.
    assert order_leaves(after, "a1", NOW) is None
    assert order_leaves(replace(memory, opened_at=NOW - 9), "a1", NOW) == Memory(bought_at=NOW, opened_at=NOW - 9)
    assert order_leaves(waiting(action="sell"), "a1", NOW) == Memory()


def test_a_close_goes_on_until_nothing_is_left_or_it_has_expired() -> None:
    memory = order_leaves(waiting(action="close", size_quote=None), "a1", NOW)
    assert memory is not None
    memory = Memory.restore(json.loads(json.dumps(memory.plain())))
    assert step(PLAIN, memory, replace(LONG, under_way=True)).memory.waiting is not None
    # The market took half of it.
    rest = replace(LONG, held=D("0.005"), cost=D(200))
    taken = step(PLAIN, memory, rest)
    assert (the_order(taken).side, the_order(taken).amount, taken.signal) == ("SELL", D("0.005"), "a1")
    assert asked(rest, memory=memory, id="a2").code == "busy"
    again = order_leaves(taken.memory, "a1", NOW + 1)
    assert again is not None
    # Then the rest: it is done, tells nobody, and the next signal need not wait for the next look.
    done = step(PLAIN, again, FLAT)
    assert (done.memory.waiting, done.notes, done.decision.create) == (None, (), ())
    assert asked(memory=again, id="a2").accepted
    # Or not, until it has expired: that is told.
    late = step(PLAIN, again, replace(rest, now=NOW + 20))
    assert (late.memory.waiting, late.decision.create) == (None, ())
    assert late.notes == ("SIGNAL_CLOSE_PART a1: the market did not take all in time; 0.005 is still held",)
    assert order_leaves(again, "a1", NOW + 20) is None


def kind_of(end: Exit | None) -> str | None:
    return None if end is None else end.kind


BOTH_WAYS = SignalSettings(take_profit_pct=D(3), stop_loss_pct=D(2), time_limit_s=3600)
TRAILING = SignalSettings(trailing_activation_pct=D(3), trailing_delta_pct=D(1))


@pytest.mark.parametrize(("config", "memory", "mid", "expected"), [
    (PLAIN, Memory(), "1", None),
    (BOTH_WAYS, Memory(), "41199.99", None),
    (BOTH_WAYS, Memory(), "41200", "TAKE_PROFIT"),
    (BOTH_WAYS, Memory(), "39200.01", None),
    (BOTH_WAYS, Memory(), "39200", "STOP_LOSS"),
    (BOTH_WAYS, Memory(opened_at=NOW - 3599), "40000", None),
    (BOTH_WAYS, Memory(opened_at=NOW - 3600), "40000", "TIME_LIMIT"),
    (TRAILING, Memory(peak=D(41199)), "40000", None),
    (TRAILING, Memory(peak=D(41200)), "40800.01", None),
    (TRAILING, Memory(peak=D(41200)), "40800", "TRAILING_STOP"),
    (TRAILING, Memory(), "41200", None),
])
def test_exits(config: SignalSettings, memory: Memory, mid: str, expected: str | None) -> None:
    now = replace(LONG, mid=D(mid))
    assert kind_of(due_exit(config, memory, now)) == expected
    taken = step(config, memory, now)
    assert kind_of(taken.exit) == expected and taken.signal is None
    assert [(order.side, order.amount) for order in taken.decision.create] == (
        [("SELL", D("0.01"))] if expected else [])


def test_exits_need_a_position() -> None:
    config = replace(BOTH_WAYS, trailing_activation_pct=D(1), trailing_delta_pct=D(1))
    memory = Memory(opened_at=NOW - 9999, peak=D(50000))
    for held in ("0", "0.0001"):
        assert due_exit(config, memory, replace(LONG, held=D(held), cost=D(held) * 90000)) is None


def test_the_highest_price_is_remembered_with_the_position() -> None:
    memory = Memory()
    for mid, under_way, held, peak, opened_at in (
        ("40000", False, "0", None, None),
        ("40000", False, "0.01", "40000", NOW),
        ("41000", False, "0.01", "41000", NOW),
        ("40500", True, "0.01", "41000", NOW),
        # Sold, and not accounted for yet; then gone.
        ("40500", True, "0", "41000", NOW),
        ("40500", False, "0", None, None),
    ):
        now = replace(FLAT, mid=D(mid), held=D(held), cost=D(held) * 40000, under_way=under_way)
        memory = step(TRAILING, memory, now).memory
        assert (memory.peak, memory.opened_at) == (peak and D(peak), opened_at)


def test_buying_more_is_no_fall() -> None:
    """The average price rises with a purchase at the top; the profit it takes away is no trailing stop."""
    memory = Memory(peak=D(42000), opened_at=NOW)
    # 5 percent above the average of one lot, 2.4 percent above that of two.
    now = replace(FLAT, mid=D(41900), held=D("0.02"), cost=D(820))
    assert due_exit(TRAILING, memory, now) is None
    assert due_exit(TRAILING, memory, replace(now, cost=D(800))) is None
    assert kind_of(due_exit(TRAILING, memory, replace(now, cost=D(800), mid=D(41500)))) == "TRAILING_STOP"


def test_a_restart_forgets_nothing() -> None:
    memory = Memory(signal(size_quote="12.5"), {"a1": NOW + 20}, NOW - 5, D("41000.1"), NOW - 5)
    assert Memory.restore(json.loads(json.dumps(memory.plain()))) == memory
    bare = Memory(signal(action="close", size_quote=None))
    assert Memory.restore(json.loads(json.dumps(bare.plain()))) == bare
    going_on = Memory(replace(bare.waiting, traded=True))  # type: ignore[type-var]
    assert Memory.restore(json.loads(json.dumps(going_on.plain()))) == going_on
    # An agent that knows none that goes on finds nothing waiting, and what it knows as it was.
    assert going_on.plain()["waiting"] is None and "traded" not in bare.plain()["waiting"]
    of_before = {name: value for name, value in memory.plain().items() if name != "closing"}
    assert Memory.restore(of_before) == memory
    assert Memory.restore(json.loads(json.dumps(Memory().plain()))) == Memory()
    assert Memory.restore({"cycle": {"start": "1"}}) == Memory()


@pytest.mark.parametrize(("changes", "problem"), [
    ({"order_amount": D(0)}, "order_amount"), ({"take_profit_pct": D("NaN")}, "take_profit_pct"),
    ({"stop_loss_pct": D(100)}, "stop_loss_pct"), ({"time_limit_s": 0}, "time_limit_s"),
    ({"max_signal_age_s": 4}, "max_signal_age_s"), ({"max_signal_age_s": 301}, "max_signal_age_s"),
    ({"cooldown_s": -1}, "cooldown_s"), ({"trailing_delta_pct": D(1)}, "both or neither"),
    ({"trailing_activation_pct": D(1), "trailing_delta_pct": D(2)}, "trailing_delta_pct"),
])
def test_settings_that_cannot_be_used(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SignalSettings(**changes).check()
    PLAIN.check()
    BOTH_WAYS.check()
    TRAILING.check()


class Bot:
    """A bot in small: it dies at any moment, orders fill when they fill, and what was saved is all it knows."""

    def __init__(self) -> None:
        self.now = replace(FLAT, limits=RiskLimits(max_position=D(1000)), taker_price=lambda _: D(40000))
        self.disk: dict[str, Any] = Memory().plain()
        self.memory = Memory()
        self.open: tuple[str, Decimal] | None = None
        self.making: Step | None = None
        self.traded: list[tuple[str, float]] = []
        self.accepted: dict[str, float] = {}
        self.closes: set[str] = set()

    def send(self, **changes: Any) -> None:
        sent = {"sent_at": self.now.now, "expires_at": self.now.now + 10, **changes}
        verdict = judge(signal(**sent), BOTH_WAYS, self.memory, self.view())
        self.memory = verdict.memory
        if verdict.accepted:
            self.disk = self.memory.plain()
            assert sent["id"] not in self.accepted
            self.accepted[sent["id"]] = sent["expires_at"]
            if sent["action"] == "close":
                self.closes.add(sent["id"])

    def view(self) -> Situation:
        busy = self.open is not None or self.making is not None
        return replace(self.now, under_way=busy, exposure=Exposure(position=self.now.cost))

    def decide(self) -> None:
        taken = step(BOTH_WAYS, self.memory, self.view())
        self.memory = taken.memory
        if taken.decision.create:
            self.making = taken

    def order(self) -> None:
        """The order is written down, together with the memory; or it is dropped."""
        making, self.making = self.making, None
        if making is None:
            return
        [order] = making.decision.create
        if making.signal is not None:
            after = order_leaves(self.memory, making.signal, self.now.now)
            if after is None:
                return
            self.memory = after
            self.traded.append((making.signal, self.now.now))
        self.open = (order.side, order.amount)
        self.disk = self.memory.plain()

    def fill(self) -> None:
        if self.open is None:
            return
        (side, amount), self.open = self.open, None
        self.take(side, amount)

    def fill_part(self) -> None:
        """Half of it; the rest expires."""
        if self.open is not None:
            (side, amount), self.open = self.open, None
            self.take(side, amount / 2 // D("0.00001") * D("0.00001"))

    def take(self, side: str, amount: Decimal) -> None:
        if side == "BUY":
            self.now = replace(self.now, held=self.now.held + amount, cost=self.now.cost + amount * D(40000))
        else:
            assert amount <= self.now.held
            cost = self.now.cost * (self.now.held - amount) / self.now.held
            self.now = replace(self.now, held=self.now.held - amount, cost=cost)

    def round(self) -> None:
        self.decide()
        self.order()
        self.fill()

    def die(self) -> None:
        self.making = None
        self.memory = Memory.restore(json.loads(json.dumps(self.disk)))

    def wait(self, seconds: float) -> None:
        self.now = replace(self.now, now=self.now.now + seconds)


STEPS = st.one_of(
    st.builds(lambda number, action, size: lambda bot: bot.send(id=f"s{number}", action=action, size_quote=size),
              st.integers(0, 5), st.sampled_from(["buy", "buy", "sell", "close"]), st.sampled_from(["100", "600"])),
    st.sampled_from([Bot.decide, Bot.order, Bot.fill, Bot.fill_part, Bot.die, Bot.round]),
    st.sampled_from([Bot.decide, Bot.round]),
    st.builds(lambda seconds: lambda bot: bot.wait(seconds), st.sampled_from([0.1, 9.0, 10.0])),
)


@settings(max_examples=150)
@given(moves=st.lists(STEPS, min_size=20, max_size=60))
def test_a_signal_trades_once_and_in_time_whatever_happens(moves: list[Callable[[Bot], None]]) -> None:
    bot = Bot()
    for move in moves:
        move(bot)
        assert bot.now.held >= 0 and bot.now.cost <= 1000
    once = [identity for identity, _ in bot.traded if identity not in bot.closes]
    assert len(set(once)) == len(once)
    assert all(at < bot.accepted[identity] for identity, at in bot.traded)
