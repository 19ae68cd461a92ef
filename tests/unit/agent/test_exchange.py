"""What Binance answers about an order, and what is made of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hummingfleet_agent.exchange import BinanceExchange
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
