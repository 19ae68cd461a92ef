"""The last look at an order before it is sent: what is held and what rests stays within the limits, come what may."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hummingfleet_agent import ledger as ledger_module
from hummingfleet_agent import runtime as runtime_module
from hummingfleet_agent.errors import OrderRefusedError
from hummingfleet_agent.ledger import Executed, Halt, Intent, Ledger
from hummingfleet_agent.order_ids import OrderIdFactory
from hummingfleet_agent.risk import RiskLimits, RiskState
from hummingfleet_agent.runtime import Runtime
from hummingfleet_agent.settings import BotSettings, Home
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

D = Decimal
LOT = D("0.001")
PAIR = "BTC-USDT"


def make_runtime(**risk: Any) -> Runtime:
    """A runtime that trades, whose ledger is never written."""
    settings = BotSettings("acme", "b1", "binance", PAIR, "v2", "b1.yml", "0123abcd", "ex1", RiskLimits.parse(risk))
    state = Runtime(Home(), settings, Ledger(Path("ledger.json")), OrderIdFactory("0123abcd"))
    state.accepting = True
    state.capital = D(1000)
    return state


class Gate:
    """Sends orders to a runtime's gate, in a market with this mid price and ask."""

    def __init__(self, patch: pytest.MonkeyPatch, **risk: Any) -> None:
        self.mid: Decimal | None = D(100)
        self.ask: Decimal | None = D(100)
        patch.setattr(ledger_module, "write_file", lambda *args, **kwargs: None)
        patch.setattr(runtime_module, "mid_price", lambda connector, pair: self.mid)
        patch.setattr(runtime_module, "taker_price", lambda connector, pair, amount: self.ask)
        self.state = make_runtime(**risk)

    def send(self, side: str, amount: Decimal, price: Decimal, *, is_market: bool = False, planned: bool = True) \
            -> str | None:
        """The client id of an order that left; None where it was stopped. ``planned``: the ledger was told before."""
        client_id = self.state.ids.new(is_buy=side == "BUY", prefix="", max_length=None)
        assert client_id is not None
        self.state.ledger.intent = Intent("cell", price, amount, amount) if planned else None
        self.state.record_order(client_id, side)
        try:
            self.state.admit(None, client_id=client_id, side=side, amount=amount, price=price, is_market=is_market)
        except OrderRefusedError:
            assert self.state.ledger.orders[client_id].final, "a stopped order must not be waited for"
            return None
        return client_id

    def execute(self, client_id: str, amount: Decimal, price: Decimal, *, final: bool = False) -> None:
        """The order has executed ``amount`` in all."""
        self.state.ledger.account(client_id, Executed(amount, amount * price, trades=1), final=final)


@pytest.fixture
def patch() -> Any:
    with pytest.MonkeyPatch.context() as context:
        yield context


def test_an_order_far_beyond_a_limit_halts(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, max_order=50)
    assert gate.send("BUY", D("0.5"), D(100))
    # A little above: a price that moved meanwhile. Held back, no more.
    assert gate.send("BUY", D("0.51"), D(100)) is None
    assert gate.state.ledger.halt is None
    assert gate.send("BUY", D(1), D(100)) is None
    halt = gate.state.ledger.halt
    assert halt and halt.code == "RISK_MAX_ORDER"
    assert halt.message == "RISK_HALT limit=max_order value=100.0000 threshold=50"
    # And nothing leaves any more.
    assert gate.send("BUY", D("0.1"), D(100)) is None


@pytest.mark.parametrize("risk", [{"max_daily_loss": 40}, {"max_drawdown": 40}, {"max_drawdown_pct": 4}])
def test_the_price_at_the_moment_of_sending_can_halt(patch: pytest.MonkeyPatch, risk: dict[str, Any]) -> None:
    """The limit is judged when the order is sent, not when the strategy last looked."""
    gate = Gate(patch, **risk)
    first = gate.send("BUY", D(4), D(100))
    assert first
    gate.execute(first, D(4), D(100), final=True)
    gate.mid = D("90.01")
    assert gate.send("BUY", D("0.1"), D(80))
    gate.mid = D(90)
    assert gate.send("BUY", D("0.1"), D(80)) is None
    [limit] = risk
    assert gate.state.ledger.halt and gate.state.ledger.halt.code == f"RISK_{limit.upper()}"
    # A sale of what is held is stopped as well: the halt itself cancels and closes.
    assert gate.send("SELL", D(1), D(100)) is None


@pytest.mark.parametrize(("risk", "mid", "ask", "price", "is_market", "leaves"), [
    ({"price_band_pct": 1}, "100", "101", "101", False, True),
    ({"price_band_pct": 1}, "100", "101", "101.01", False, False),
    ({"price_band_pct": 1}, "100", "101", "100", True, True),
    ({"price_band_pct": 1}, "100", "101.01", "100", True, False),
    ({"price_band_pct": 1}, "100", None, "100", True, False),
    ({"price_band_pct": 1}, None, "100", "100", False, False),
    ({}, None, "100", "100", False, False),
])
def test_the_price_band(patch: pytest.MonkeyPatch, risk: dict[str, Any], mid: str | None, ask: str | None, price: str,
                        is_market: bool, leaves: bool) -> None:
    gate = Gate(patch, **risk)
    gate.mid, gate.ask = None if mid is None else D(mid), None if ask is None else D(ask)
    assert (gate.send("BUY", D(1), D(price), is_market=is_market) is not None) == leaves
    # However far beyond: held back, never a halt.
    assert gate.state.ledger.halt is None


@pytest.mark.parametrize(("ask", "leaves"), [("109.9", True), ("110", False), (None, False)])
@pytest.mark.parametrize("risk", [{"max_order": 100}, {"max_position": 100}])
def test_a_market_order_costs_what_a_thin_book_asks(
        patch: pytest.MonkeyPatch, risk: dict[str, Any], ask: str | None, leaves: bool) -> None:
    """Without a price band, too. A tenth is the room for the spread."""
    gate = Gate(patch, **risk)
    gate.ask = None if ask is None else D(ask)
    assert (gate.send("BUY", D(1), D(100), is_market=True) is not None) == leaves
    # The market is to blame, not the strategy.
    assert gate.state.ledger.halt is None


def test_an_order_that_no_plan_announced_counts_all_the_same(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, max_position=250)
    for is_market in (False, True):
        assert gate.send("BUY", D(1), D(100), is_market=is_market, planned=False)
    assert gate.state.ledger.exposure().resting == 200
    assert gate.send("BUY", D("0.6"), D(100), planned=False) is None
    assert gate.send("BUY", D("0.5"), D(100), planned=False)


def test_an_order_that_was_not_written_down_does_not_leave(patch: pytest.MonkeyPatch) -> None:
    """No limit could count it. Some connectors name their orders without asking."""
    gate = Gate(patch, max_position=1000)
    for side in ("SELL", "BUY"):
        with pytest.raises(OrderRefusedError, match="NOT_WRITTEN_DOWN"):
            gate.state.admit(None, client_id="17", side=side, amount=D(1), price=D(100), is_market=False)
    assert gate.state.ledger.halt and gate.state.ledger.halt.code == "ORDER_NOT_WRITTEN_DOWN"


def test_nothing_leaves_a_halted_or_stopping_bot(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch)
    gate.state.ledger.halt = Halt("RISK_MAX_DRAWDOWN", "", 0.0)
    assert gate.send("BUY", D(1), D(100)) is None
    gate.state.ledger.halt = None
    gate.state.accepting = False
    assert gate.send("BUY", D(1), D(100)) is None


def test_a_market_order_that_waited_is_not_sent(patch: pytest.MonkeyPatch) -> None:
    """The engine queues orders for the exchange's rate limit; the gate looks again when one leaves that queue."""
    gate = Gate(patch)
    clock = 1_000_000.0
    patch.setattr("time.time", lambda: clock)
    orders = {is_market: gate.send("BUY", D(1), D(100), is_market=is_market) for is_market in (False, True)}

    def leaves(is_market: bool) -> bool:
        client_id = orders[is_market]
        assert client_id
        try:
            gate.state.admit(None, client_id=client_id, side="BUY", amount=D(1), price=D(100), is_market=is_market,
                             waited=True)
        except OrderRefusedError as error:
            assert "TOO_LATE" in str(error) and gate.state.ledger.orders[client_id].final
            return False
        return True

    clock += 5
    assert leaves(True) and leaves(False)
    clock += 0.1
    assert not leaves(True) and leaves(False)


def test_what_filled_while_an_order_waited_stops_it_without_a_halt(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, max_position=D(200))
    client_id = gate.send("BUY", D(1), D(100))
    bought = gate.send("BUY", D(1), D(100))
    assert client_id and bought
    gate.execute(bought, D(1), D(101))
    with pytest.raises(OrderRefusedError, match="max_position"):
        gate.state.admit(None, client_id=client_id, side="BUY", amount=D(1), price=D(100), is_market=False, waited=True)
    assert gate.state.ledger.halt is None


def test_sales_are_no_opening_orders(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, max_open_orders=2)
    bought = gate.send("BUY", D(1), D(100))
    assert bought
    gate.execute(bought, D("0.9"), D(100))
    # Neither does a sale take a place, nor is one held back where every place is taken.
    assert gate.send("SELL", D("0.4"), D(110))
    assert gate.send("BUY", D(1), D(99))
    assert gate.send("SELL", D("0.4"), D(120))
    assert gate.send("BUY", D(1), D(98)) is None


def test_an_order_that_was_given_up_while_it_waited_does_not_leave(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch)
    client_id = gate.send("BUY", D(1), D(100))
    assert client_id
    gate.state.ledger.account(client_id, Executed(), final=True)
    with pytest.raises(OrderRefusedError, match="GIVEN_UP"):
        gate.state.admit(None, client_id=client_id, side="BUY", amount=D(1), price=D(100), is_market=False, waited=True)


def test_a_halt_that_cannot_be_written_holds_and_is_written_later(
        patch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(patch)
    written: list[str] = []
    full = True

    def write(path: Path, text: str, *, durable: bool = False) -> None:
        if full:
            raise OSError(28, "No space left on device")
        written.append(text)

    patch.setattr(ledger_module, "write_file", write)
    gate.state.halt("RISK_MAX_DRAWDOWN", "RISK_HALT limit=max_drawdown")
    assert gate.state.phase == "halted" and not gate.state.may_trade
    assert "RISK_HALT limit=max_drawdown" in caplog.text and "LEDGER_WRITE" in caplog.text
    full = False
    gate.state.ledger.save_if_changed()
    assert "RISK_MAX_DRAWDOWN" in written[0]


def resumed(gate: Gate, resumes: int) -> bool:
    """Whether a start with this counter in bot.json lifts the halt."""
    gate.state.settings = replace(gate.state.settings, resumes=resumes)
    gate.state.lift_halt_if_resumed()
    return gate.state.ledger.halt is None


def test_a_request_that_comes_too_early_is_used_up(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, max_daily_loss=10, earliest_resume_s=600)
    ledger = gate.state.ledger
    clock = 1_000_000.0
    patch.setattr(runtime_module.time, "time", lambda: clock)
    ledger.risk = RiskState("1970-01-12", D(50), D(50))
    gate.state.halt("RISK_MAX_DAILY_LOSS", "RISK_HALT limit=max_daily_loss value=10 threshold=10")
    clock += 599
    assert not resumed(gate, 0) and not resumed(gate, 1)
    clock += 1
    assert not resumed(gate, 1), "the same request must not lift it later"
    assert resumed(gate, 2)
    # Day and drawdown count from there.
    assert ledger.risk == RiskState()


def test_a_strategy_that_is_done_is_resumed_at_any_time(patch: pytest.MonkeyPatch) -> None:
    gate = Gate(patch, earliest_resume_s=600)
    gate.state.halt("GRID_TAKE_PROFIT", "done", close=True)
    assert gate.state.ledger.halt and gate.state.ledger.halt.close
    assert not resumed(gate, 0) and resumed(gate, 1)


class Trading(RuleBasedStateMachine):
    """Any sequence of orders, fills, cancellations and prices."""

    def __init__(self) -> None:
        super().__init__()
        self.context = pytest.MonkeyPatch.context()
        self.gate: Gate | None = None
        self.open: dict[str, tuple[str, Decimal, Decimal]] = {}

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)

    @initialize(most=st.integers(100, 1000), order=st.integers(50, 500), count=st.integers(1, 6))
    def begin(self, most: int, order: int, count: int) -> None:
        self.gate = Gate(self.context.__enter__(), max_position=most, max_order=order, max_open_orders=count)

    @property
    def ledger(self) -> Ledger:
        assert self.gate is not None
        return self.gate.state.ledger

    @rule(share=st.integers(1, 125), price=st.integers(50, 150), is_market=st.booleans(), planned=st.booleans())
    def buy(self, share: int, price: int, is_market: bool, planned: bool) -> None:
        """Worth this share of max_order, in percent."""
        assert self.gate is not None
        # The other side of a market order is the book at the mid price.
        asked = self.gate.mid if is_market and self.gate.mid else D(price)
        amount = (self.gate.state.settings.risk.max_order or 0) * share / (100 * asked) // LOT * LOT
        if amount <= 0:
            return
        sent = self.gate.send("BUY", amount, asked, is_market=is_market, planned=planned)
        if sent and is_market:
            self.gate.execute(sent, amount, asked, final=True)
        elif sent:
            self.open[sent] = ("BUY", amount, asked)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.integers(0, 100), ends=st.booleans())
    def fill(self, data: st.DataObject, share: int, ends: bool) -> None:
        assert self.gate is not None
        client_id = data.draw(st.sampled_from(sorted(self.open)))
        _, amount, price = self.open[client_id]
        done = max(self.ledger.orders[client_id].executed.base, amount * share // (100 * LOT) * LOT)
        self.gate.execute(client_id, done, price, final=ends or done == amount)
        if ends or done == amount:
            del self.open[client_id]

    @rule(share=st.integers(1, 120), price=st.integers(50, 150), planned=st.booleans())
    def sell(self, share: int, price: int, planned: bool) -> None:
        assert self.gate is not None
        offered = sum((amount - self.ledger.orders[client_id].executed.base
                       for client_id, (side, amount, _) in self.open.items() if side == "SELL"), D(0))
        amount = self.ledger.base * share // (100 * LOT) * LOT
        if amount <= 0:
            return
        sent = self.gate.send("SELL", amount, D(price), planned=planned)
        assert sent is None or amount + offered <= self.ledger.base, "offers more than the bot holds"
        if sent:
            self.open[sent] = ("SELL", amount, D(price))

    @rule(price=st.integers(50, 150))
    def move(self, price: int) -> None:
        assert self.gate is not None
        self.gate.mid = self.gate.ask = D(price)

    @rule()
    def resume(self) -> None:
        """Somebody lifts a halt again and again: the limits hold all the same."""
        self.ledger.halt = None

    @invariant()
    def within_the_limits(self) -> None:
        if self.gate is None:
            return
        limits, exposure = self.gate.state.settings.risk, self.ledger.exposure()
        assert limits.max_position is not None and limits.max_open_orders is not None
        assert exposure.position + exposure.resting <= limits.max_position
        assert sum(side == "BUY" for side, _, _ in self.open.values()) <= limits.max_open_orders
        assert all(amount * price <= (limits.max_order or 0) for side, amount, price in self.open.values()
                   if side == "BUY")
        assert self.ledger.base >= 0


TestTrading = Trading.TestCase
TestTrading.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_report_of_the_result_says_of_which_market_it_is(patch: pytest.MonkeyPatch) -> None:
    """Elsewhere it begins from nothing, and whoever adds days up has to know."""
    state = Gate(patch).state
    for market in ("binance BTC-USDT (connection ex1)", "binance ETH-USDT (connection ex1)"):
        state.ledger.claim_market(market)
        state.check_risk(D(100))
        assert (state.risk_facts["market"], state.risk_facts["quote"]) == (market, "USDT")
