"""The base of all controllers between a strategy and the engine, with an engine of which only the names are real."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hummingfleet_agent import ledger as ledger_module
from hummingfleet_agent import runtime as runtime_module
from hummingfleet_agent.exchange import mid_price
from hummingfleet_agent.ledger import Executed, Intent, Ledger
from hummingfleet_agent.order_ids import OrderIdFactory
from hummingfleet_agent.planning import Decision, WantedOrder
from hummingfleet_agent.risk import RiskLimits
from hummingfleet_agent.runtime import Runtime
from hummingfleet_agent.settings import BotSettings, Home
from pydantic import BaseModel

D = Decimal
PAIR = "BTC-USDT"
PriceType = Enum("PriceType", ["BestBid", "BestAsk"])
OrderType = Enum("OrderType", ["LIMIT", "LIMIT_MAKER", "MARKET"])
Kinds = Enum("Kinds", ["LIMIT", "LIMIT_MAKER", "MARKET"])
RunnableStatus = Enum("RunnableStatus", ["RUNNING", "TERMINATED"])
RULE = SimpleNamespace(min_price_increment=D("0.01"), min_base_amount_increment=D("0.00001"),
                       min_order_size=D("0.00001"), min_notional_size=D(5))


class ControllerBase:
    def __init__(self, config: Any, market: Any) -> None:
        self.config, self.market_data_provider = config, market
        self.executors_info: list[Any] = []
        self.actions_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.status = RunnableStatus.RUNNING

    def logger(self) -> Any:
        return SimpleNamespace(error=lambda *a, **k: None, warning=lambda *a, **k: None, info=lambda *a, **k: None)


class ControllerConfigBase(BaseModel):
    id: str = "b1"
    total_amount_quote: Decimal = D(1000)


class OrderExecutorConfig(SimpleNamespace):
    @property
    def id(self) -> str:
        return str(self.level_id)


class Market:
    """The connector and the provider of market data in one."""

    def __init__(self) -> None:
        self.bid, self.ask, self.ready = D(100), D(100), True
        self.network_status: Any = None
        self.trading_rules, self.connectors = {PAIR: RULE}, {"binance": self}

    def get_price_by_type(self, *arguments: Any) -> Decimal:
        return self.bid if arguments[-1] is PriceType.BestBid else self.ask

    def get_available_balance(self, asset: str) -> Decimal:
        return D(100000)

    def supported_order_types(self) -> list[Any]:
        return list(OrderType)

    def time(self) -> float:
        return 0.0


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with the base class, on that engine."""
    names = {
        "core.data_type.common": {"PriceType": PriceType, "OrderType": OrderType, "MarketDict": dict,
                                  "TradeType": SimpleNamespace(BUY="BUY", SELL="SELL")},
        "core.network_iterator": {"NetworkStatus": Enum("NetworkStatus", ["CONNECTED"])},
        "core.utils.async_utils": {"safe_ensure_future": asyncio.ensure_future},
        "strategy_v2.controllers.controller_base": {
            "ControllerBase": ControllerBase, "ControllerConfigBase": ControllerConfigBase},
        "strategy_v2.executors.order_executor.data_types": {
            "ExecutionStrategy": Kinds, "OrderExecutorConfig": OrderExecutorConfig},
        "strategy_v2.models.base": {"RunnableStatus": RunnableStatus},
        "strategy_v2.models.executor_actions": {
            name: type(name, (SimpleNamespace,), {})
            for name in ("CreateExecutorAction", "ExecutorAction", "StopExecutorAction")},
    }
    for name, content in names.items():
        parts = f"hummingbot.{name}".split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
        module = ModuleType(parts[-1])
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, ".".join(parts), module)
    monkeypatch.setattr(ledger_module, "write_file", lambda *args, **kwargs: None)
    yield importlib.import_module("hummingfleet_agent.controller")
    sys.modules.pop("hummingfleet_agent.controller", None)


def make_runtime(monkeypatch: pytest.MonkeyPatch, **risk: Any) -> Runtime:
    settings = BotSettings("acme", "b1", "binance", PAIR, "v2", "b1.yml", "0123abcd", "ex1", RiskLimits.parse(risk))
    state = Runtime(Home(), settings, Ledger(Path("ledger.json")), OrderIdFactory("0123abcd"))
    state.accepting = True
    monkeypatch.setattr(runtime_module, "current", state)
    return state


def hold(ledger: Ledger, amount: Decimal, price: Decimal, cell: str = "a") -> None:
    """Have the bot hold something that it bought."""
    ledger.intent = Intent(cell, price, amount, amount)
    ledger.record_order(f"buy {cell}", "BUY", 1)
    ledger.account(f"buy {cell}", Executed(amount, amount * price, trades=1), final=True)


def load(name: str, base: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A controller's module."""
    spec = importlib.util.spec_from_file_location(
        f"{name}_under_test", Path(base.__file__).parents[1] / f"controllers/generic/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def a_round(controller: Any) -> list[Any]:
    """What one round makes the engine do."""
    asyncio.run(controller.control_task())
    queue = controller.actions_queue
    return [] if queue.empty() else queue.get_nowait()


def test_loss_limits_hold_while_the_strategy_cannot_trade(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, market = make_runtime(monkeypatch, max_daily_loss=50), Market()

    class Refused(base.FleetController):
        def prepare(self, rules: Any) -> bool:
            self.refuse("GRID_REFUSED", "the market allows none of it")
            return False

    hold(state.ledger, D(10), D(100))
    controller = Refused(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)
    a_round(controller)
    assert state.ledger.halt is None and state.notice
    market.bid = market.ask = D(95)
    a_round(controller)
    assert state.ledger.halt and state.ledger.halt.code == "RISK_MAX_DAILY_LOSS"


def test_a_strategy_that_keeps_failing_is_told_and_its_orders_are_cancelled(
        base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, market = make_runtime(monkeypatch, max_daily_loss=50), Market()

    class Broken(base.FleetController):
        broken = True

        def decide(self, view: Any) -> Decision:
            if self.broken:
                raise ZeroDivisionError("nothing to divide")
            return Decision((), frozenset())

    hold(state.ledger, D(10), D(100))
    controller = Broken(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)
    controller.executors_info = [SimpleNamespace(
        id="e1", status=RunnableStatus.RUNNING, config=SimpleNamespace(level_id="a|1"))]
    # Once may be chance: nothing is cancelled.
    for _ in range(base.FAILED_ROUNDS - 1):
        assert a_round(controller) == []
    assert state.notice is None
    for _ in range(2):
        assert [action.executor_id for action in a_round(controller)] == ["e1"]
        assert state.notice and state.notice.code == "STRATEGY_ERROR" and "nothing to divide" in state.notice.message
    since = state.notice.at
    a_round(controller)
    assert state.notice.at == since
    # Its limits hold all the same.
    market.bid = market.ask = D(95)
    a_round(controller)
    assert state.ledger.halt and state.ledger.halt.code == "RISK_MAX_DAILY_LOSS"
    controller.broken, state.ledger.halt, market.bid, market.ask = False, None, D(100), D(100)
    a_round(controller)
    assert state.notice is None


@pytest.mark.parametrize(("bid", "ask", "mid"), [
    ("99", "101", "100"), ("NaN", "101", None), ("99", "NaN", None), ("0", "101", None), ("NaN", "NaN", None)])
def test_one_side_of_a_book_is_no_price(base: Any, bid: str, ask: str, mid: str | None) -> None:
    market = Market()
    market.bid, market.ask = D(bid), D(ask)
    assert mid_price(market, PAIR) == (None if mid is None else D(mid))


def test_a_book_without_bids_neither_halts_nor_buys(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ask of an emptied book would otherwise be its own price band."""
    state, market = make_runtime(monkeypatch, max_daily_loss=50, price_band_pct=1), Market()
    views = []

    class Buyer(base.FleetController):
        def decide(self, view: Any) -> Decision:
            views.append(view.mid)
            return Decision((WantedOrder("b", "BUY", D(150), D(1), D(1), "market"),), frozenset())

    hold(state.ledger, D(10), D(100))
    controller = Buyer(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)
    market.bid, market.ask = D("NaN"), D(150)
    assert a_round(controller) == [] and views == [None]
    assert "RISK_PRICE_BAND_PCT" in state.waiting
    market.bid, market.ask = D(1), D("NaN")
    a_round(controller)
    assert state.ledger.halt is None and "NO_PRICE" in state.waiting
    market.bid = market.ask = D(100)
    a_round(controller)
    assert "NO_PRICE" not in state.waiting


def test_a_configuration_that_the_strategy_refuses_is_not_started_with(
        base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while the bot ran, it is still there at the next start."""
    state, market = make_runtime(monkeypatch), Market()

    class Buyer(base.FleetController):
        fits = False

        def validate(self, config: Any) -> None:
            if not self.fits:
                raise ValueError("buy_price must be below sell_price")

        def decide(self, view: Any) -> Decision:
            return Decision((WantedOrder("b", "BUY", D(100), D(1), D(1)),), frozenset())

    controller = Buyer(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)
    for _ in range(2):
        assert a_round(controller) == [] and state.notice and state.notice.code == "CONFIG_REFUSED"
    controller.fits = True
    controller.apply(base.FleetConfig(connector_name="binance", trading_pair=PAIR))
    assert len(a_round(controller)) == 1 and state.notice is None


def test_refused_buys_do_not_hold_up_sales(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, market = make_runtime(monkeypatch), Market()
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)

    class Trader(base.FleetController):
        def decide(self, view: Any) -> Decision:
            return Decision(tuple(WantedOrder("a", side, D(100), D(1), D(1)) for side in ("BUY", "SELL")), frozenset())

    hold(state.ledger, D(10), D(100))
    controller = Trader(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)

    def sides() -> list[str]:
        return [action.executor_config.side for action in a_round(controller)]

    assert sides() == ["BUY", "SELL"]
    for _ in range(6):
        state.on_order_end("a|1", "BUY", "no")  # type: ignore[misc]
    assert sides() == ["SELL"]
    state.on_order_end("a|1", "SELL", "no")  # type: ignore[misc]
    assert sides() == []
    controller.end_pause("a", "SELL")
    assert sides() == ["SELL"]
    clock += 59
    assert sides() == ["SELL"]
    clock += 1
    assert sides() == ["BUY", "SELL"]
    # Long after, the next refusal is a first one.
    clock += 400
    state.on_order_end("a|1", "BUY", "no")  # type: ignore[misc]
    clock += 2
    assert sides() == ["BUY", "SELL"]


def test_a_halted_bot_waits_for_nothing(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, market = make_runtime(monkeypatch, max_order=50), Market()

    class Buyer(base.FleetController):
        def decide(self, view: Any) -> Decision:
            return Decision((WantedOrder("b", "BUY", D(100), D(1), D(1)),), frozenset())

    controller = Buyer(base.FleetConfig(connector_name="binance", trading_pair=PAIR), market)
    a_round(controller)
    assert "RISK_MAX_ORDER" in state.waiting
    state.halt("RISK_MAX_DRAWDOWN", "RISK_HALT")
    a_round(controller)
    assert state.waiting == {}


def test_a_ladder_knows_the_cost_of_what_it_found(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another template bought is sold at once; a part that sells before the next look takes its cost along."""
    state, market = make_runtime(monkeypatch), Market()
    module = load("hummingfleet_dca", base, monkeypatch)
    hold(state.ledger, D(1), D(100), "purchases")
    controller = module.HummingfleetDca(module.HummingfleetDcaConfig(
        connector_name="binance", trading_pair=PAIR, mode="ladder", spreads_pct=(5,), amounts_quote=(100,),
        take_profit_pct=2), market)
    sale = next(action.executor_config for action in a_round(controller) if action.executor_config.side == "SELL")
    assert (sale.level_id.split("|")[0], sale.amount, sale.price) == ("c1-sale", D(1), D(102))
    state.ledger.intent = Intent("c1-sale", sale.price, sale.amount, sale.amount)
    state.ledger.record_order("sale", "SELL", 2)
    state.ledger.account("sale", Executed(D("0.5"), D(51), trades=1), final=False)
    a_round(controller)
    assert (state.ledger.base, state.ledger.cost) == (D("0.5"), D(50))


def test_a_position_is_watched_although_the_bridge_fails(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state, market = make_runtime(monkeypatch, max_daily_loss=50), Market()
    module = load("hummingfleet_signal", base, monkeypatch)
    controller = module.HummingfleetSignal(
        module.HummingfleetSignalConfig(connector_name="binance", trading_pair=PAIR), market)

    def fail() -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(controller._link, "follow", fail)
    hold(state.ledger, D(10), D(100))
    a_round(controller)
    assert "BROKER_UNREACHABLE" in state.waiting and state.ledger.halt is None
    market.bid = market.ask = D(95)
    a_round(controller)
    assert state.ledger.halt and state.ledger.halt.code == "RISK_MAX_DAILY_LOSS"
