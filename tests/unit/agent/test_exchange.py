"""What exchanges answer about an order, and what is made of it."""

from __future__ import annotations

import sys
from decimal import Decimal
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hummingfleet_agent import exchange as module
from hummingfleet_agent.exchange import BinanceExchange, TrackedExchange
from hummingfleet_agent.ledger import Executed, OrderEntry

D = Decimal
ORDER = {"clientOrderId": "a", "orderId": 1, "side": "BUY", "price": "100", "origQty": "2", "executedQty": "2",
         "cummulativeQuoteQty": "200", "status": "FILLED"}
TRADE = {"qty": "1", "commission": "0.001", "commissionAsset": "BTC"}


class Connector:
    """Answers with these trades of ``ORDER``."""

    def __init__(self, trades: int) -> None:
        self.trades = trades

    async def exchange_symbol_associated_to_pair(self, trading_pair: str) -> str:
        return "BTCUSDT"

    async def _api_get(self, path_url: str, params: dict[str, Any], **more: Any) -> Any:
        return [TRADE] * self.trades if path_url == "/myTrades" else ORDER


@pytest.mark.parametrize(("trades", "is_open"), [(0, True), (1, True), (2, False)])
async def test_an_order_is_done_once_all_its_trades_are_known(trades: int, is_open: bool) -> None:
    """Their fees decide what is left to sell."""
    exchange = BinanceExchange(Connector(trades), "BTC-USDT", lambda client_id: True)
    order = await exchange.order(OrderEntry("a", "BUY", "", D(100), D(2), D(2), 0.0, 1))
    assert order and order.is_open == is_open
    assert order.executed == Executed(D(2), D(200), D("0.001") * trades, D(0), trades)


OrderState = Enum("OrderState", ["OPEN", "PARTIALLY_FILLED", "FILLED", "CANCELED", "FAILED"])


class Tracking:
    """A connector that knows one order: its state, and the fills that its exchange lists by now."""

    def __init__(self) -> None:
        self.state, self.fills = OrderState.OPEN, [D(0)]
        self.number: str | None = "1"

    async def _request_order_status(self, order: Any) -> Any:
        return SimpleNamespace(exchange_order_id=self.number, new_state=self.state)

    async def _all_trade_updates_for_order(self, order: Any) -> list[Any]:
        fee = SimpleNamespace(flat_fees=[])
        return [SimpleNamespace(fill_base_amount=base, fill_quote_amount=base * 100, fee=fee) for base in self.fills]


class TestOrdersThatOnlyTheEngineCanAskFor:
    @pytest.fixture
    def tracked(self, monkeypatch: pytest.MonkeyPatch) -> TrackedExchange:
        engine = ModuleType("hummingbot.core.data_type.in_flight_order")
        engine.OrderState = OrderState  # type: ignore[attr-defined]
        for name in ("hummingbot", "hummingbot.core", "hummingbot.core.data_type"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, engine.__name__, engine)
        self.clock = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.clock)
        made = TrackedExchange(Tracking(), "BTC-USDT", lambda client_id: True)
        monkeypatch.setattr(made, "_tracked", lambda entry: SimpleNamespace(exchange_order_id=entry.exchange_id))
        return made

    async def look(
            self, tracked: TrackedExchange, state: Any, *fills: int | str, booked: int = 0, after: float = 0) -> bool:
        """Whether the order, for 4, may execute more."""
        tracked.connector.state, tracked.connector.fills = state, [D(fill) for fill in fills]
        self.clock += after
        entry = OrderEntry("a", "BUY", "", D(100), D(4), D(4), 0.0, 1, executed=Executed(D(booked)))
        order = await tracked.order(entry)
        assert order
        self.executed = order.executed.base
        if state in (OrderState.FILLED, OrderState.CANCELED):
            assert await tracked.open_orders([entry]) == []
        return order.is_open

    async def test_a_filled_one_waits_for_all_of_its_fills(self, tracked: TrackedExchange) -> None:
        assert await self.look(tracked, OrderState.OPEN)
        assert await self.look(tracked, OrderState.FILLED)
        assert await self.look(tracked, OrderState.FILLED, 1, after=50)
        assert await self.look(tracked, OrderState.FILLED, 1, 2, after=50)
        assert not await self.look(tracked, OrderState.FILLED, 1, 2, 1)

    @pytest.mark.parametrize(("fill", "seconds"), [("3.8", 3), ("3.7", 60), ("0", 60)])
    async def test_one_for_an_amount_of_quote_may_have_filled_less(
            self, tracked: TrackedExchange, fill: str, seconds: int) -> None:
        assert await self.look(tracked, OrderState.FILLED, fill)
        assert await self.look(tracked, OrderState.FILLED, fill, after=seconds - 1)
        assert not await self.look(tracked, OrderState.FILLED, fill, after=1)
        assert self.executed == D(fill)

    async def test_a_cancelled_one_waits_until_its_fills_stay_the_same(self, tracked: TrackedExchange) -> None:
        assert await self.look(tracked, OrderState.CANCELED)
        assert await self.look(tracked, OrderState.CANCELED, 1, after=5)
        assert await self.look(tracked, OrderState.CANCELED, 1, after=2)
        assert not await self.look(tracked, OrderState.CANCELED, 1, after=1)

    async def test_what_is_booked_is_never_taken_back(self, tracked: TrackedExchange) -> None:
        """Some list an old order's fills in part. It would be bought again; and the bot must not wait for ever."""
        assert await self.look(tracked, OrderState.CANCELED, 1, booked=2)
        assert await self.look(tracked, OrderState.CANCELED, 1, booked=2, after=59)
        assert not await self.look(tracked, OrderState.CANCELED, 1, booked=2, after=1)
        assert self.executed == 2

    async def test_one_that_is_open_again_waits_anew(self, tracked: TrackedExchange) -> None:
        assert await self.look(tracked, OrderState.CANCELED, 1)
        assert await self.look(tracked, OrderState.OPEN, 1, after=9)
        assert await self.look(tracked, OrderState.CANCELED, 1)

    async def test_fills_are_not_asked_for_without_the_exchanges_number(self, tracked: TrackedExchange) -> None:
        """Such a question is answered with none, as if nothing had been executed."""
        tracked.connector.state, tracked.connector.number = OrderState.FILLED, None
        entry = OrderEntry("a", "BUY", "", D(100), D(4), D(4), 0.0, 1)
        with pytest.raises(OSError, match="number of order a is not known"):
            await tracked.order(entry)
        entry.exchange_id, tracked.connector.fills = "17", [D(4)]
        order = await tracked.order(entry)
        assert order and not order.is_open

    async def test_what_has_ended_is_not_asked_for_again_to_see_whether_it_is_open(
            self, tracked: TrackedExchange, monkeypatch: pytest.MonkeyPatch) -> None:
        assert await self.look(tracked, OrderState.CANCELED)
        monkeypatch.setattr(tracked, "_look", None)
        assert await tracked.open_orders([OrderEntry("a", "BUY", "", D(100), D(4), D(4), 0.0, 1)]) == []
