"""Binance's words for what the exchange knows: JSON-plain answers and events."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sandbox.exchange import (
    Account,
    Exchange,
    Fill,
    Market,
    Order,
    OrderType,
    PairRules,
    Side,
    Trade,
)

DAY_MS = 86_400_000
MINUTE_MS = 60_000
INTERVALS_MS = {
    "1s": 1_000, "1m": MINUTE_MS, "3m": 3 * MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS, "1h": 60 * MINUTE_MS, "2h": 120 * MINUTE_MS, "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS, "8h": 480 * MINUTE_MS, "12h": 720 * MINUTE_MS, "1d": DAY_MS, "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
}
"""Candle lengths. Months are not offered: they have no fixed length."""


def number(value: Decimal) -> str:
    """An amount or price as Binance writes it: eight decimals."""
    return f"{value:.8f}"


def symbol_info(rules: PairRules) -> dict[str, Any]:
    """A pair's entry in exchangeInfo."""
    return {
        "symbol": rules.symbol, "status": "TRADING", "baseAsset": rules.base, "baseAssetPrecision": 8,
        "quoteAsset": rules.quote, "quotePrecision": 8, "quoteAssetPrecision": 8, "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8, "orderTypes": [kind.value for kind in OrderType], "icebergAllowed": False,
        "ocoAllowed": False, "otoAllowed": False, "quoteOrderQtyMarketAllowed": True, "allowTrailingStop": False,
        "cancelReplaceAllowed": False, "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": number(rules.tick), "maxPrice": number(rules.max_price),
             "tickSize": number(rules.tick)},
            {"filterType": "LOT_SIZE", "minQty": number(rules.lot), "maxQty": number(rules.max_quantity),
             "stepSize": number(rules.lot)},
            {"filterType": "NOTIONAL", "minNotional": number(rules.min_notional), "applyMinToMarket": True,
             "maxNotional": number(rules.max_quantity * rules.max_price), "applyMaxToMarket": False,
             "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": rules.max_open_orders},
        ],
        "permissions": [], "permissionSets": [["SPOT"]], "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
    }


def order_info(order: Order, market: Market) -> dict[str, Any]:
    """An order as GET /api/v3/order shows it."""
    return {
        "symbol": market.rules.symbol, "orderId": order.id, "orderListId": -1,
        "clientOrderId": order.client_order_id, "price": number(order.price), "origQty": number(order.quantity),
        "executedQty": number(order.executed), "origQuoteOrderQty": number(order.quote_order_quantity),
        "cummulativeQuoteQty": number(order.quote_executed), "status": order.status.value,
        "timeInForce": order.time_in_force.value, "type": order.type.value, "side": order.side.value,
        "stopPrice": number(Decimal(0)), "icebergQty": number(Decimal(0)), "time": order.time,
        "updateTime": order.update_time, "isWorking": True, "workingTime": order.time,
        "selfTradePreventionMode": "NONE",
    }


def placed_order(order: Order, market: Market, fills: Iterable[Fill], response_type: str) -> dict[str, Any]:
    """The answer to a new order: ACK, RESULT or FULL."""
    ack = {"symbol": market.rules.symbol, "orderId": order.id, "orderListId": -1,
           "clientOrderId": order.client_order_id, "transactTime": order.update_time}
    if response_type == "ACK":
        return ack
    result = ack | {
        "price": number(order.price), "origQty": number(order.quantity), "executedQty": number(order.executed),
        "origQuoteOrderQty": number(order.quote_order_quantity), "cummulativeQuoteQty": number(order.quote_executed),
        "status": order.status.value, "timeInForce": order.time_in_force.value, "type": order.type.value,
        "side": order.side.value, "workingTime": order.time, "selfTradePreventionMode": "NONE",
    }
    if response_type == "RESULT":
        return result
    return result | {"fills": [
        {"price": number(fill.price), "qty": number(fill.quantity), "commission": number(fill.commission),
         "commissionAsset": fill.commission_asset, "tradeId": fill.trade_id} for fill in fills
    ]}


def canceled_order(order: Order, market: Market, cancel_id: str) -> dict[str, Any]:
    """The answer to a cancellation: the order under its old id, the cancellation under a new one."""
    return {
        "symbol": market.rules.symbol, "origClientOrderId": order.client_order_id, "orderId": order.id,
        "orderListId": -1, "clientOrderId": cancel_id, "transactTime": order.update_time,
        "price": number(order.price), "origQty": number(order.quantity), "executedQty": number(order.executed),
        "origQuoteOrderQty": number(order.quote_order_quantity), "cummulativeQuoteQty": number(order.quote_executed),
        "status": order.status.value, "timeInForce": order.time_in_force.value, "type": order.type.value,
        "side": order.side.value, "selfTradePreventionMode": "NONE",
    }


def fill_info(fill: Fill, market: Market) -> dict[str, Any]:
    """A fill as GET /api/v3/myTrades shows it."""
    return {
        "symbol": market.rules.symbol, "id": fill.trade_id, "orderId": fill.order_id, "orderListId": -1,
        "price": number(fill.price), "qty": number(fill.quantity), "quoteQty": number(fill.quote_quantity),
        "commission": number(fill.commission), "commissionAsset": fill.commission_asset, "time": fill.time,
        "isBuyer": fill.side is Side.BUY, "isMaker": fill.is_maker, "isBestMatch": True,
    }


def account_info(account: Account, *, omit_zero: bool) -> dict[str, Any]:
    """GET /api/v3/account."""
    maker, taker = number(account.maker_fee), number(account.taker_fee)
    zero = number(Decimal(0))
    return {
        "makerCommission": int(account.maker_fee * 10_000), "takerCommission": int(account.taker_fee * 10_000),
        "buyerCommission": 0, "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": zero, "seller": zero},
        "canTrade": True, "canWithdraw": False, "canDeposit": False, "brokered": False,
        "requireSelfTradePrevention": False, "preventSor": False, "updateTime": account.update_time,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": number(balance.free), "locked": number(balance.locked)}
            for asset, balance in sorted(account.balances.items()) if balance.total or not omit_zero
        ],
        "permissions": ["SPOT"], "uid": 0,
    }


def trade_info(trade: Trade) -> dict[str, Any]:
    """A trade as GET /api/v3/trades shows it."""
    return {"id": trade.id, "price": number(trade.price), "qty": number(trade.quantity),
            "quoteQty": number(trade.price * trade.quantity), "time": trade.time,
            "isBuyerMaker": trade.buyer_is_maker, "isBestMatch": True}


def book_ticker(market: Market) -> dict[str, Any]:
    """Best bid and ask of a pair."""
    bids, asks = market.book()
    bid, ask = max(bids), min(asks)
    return {"symbol": market.rules.symbol, "bidPrice": number(bid), "bidQty": number(bids[bid]),
            "askPrice": number(ask), "askQty": number(asks[ask])}


def day_ticker(market: Market, now: int) -> dict[str, Any]:
    """Statistics of the last 24 hours of a pair."""
    trades = [trade for trade in market.trades if trade.time > now - DAY_MS]
    first = trades[0].price if trades else market.price
    prices = [trade.price for trade in trades] or [market.price]
    volume = sum((trade.quantity for trade in trades), Decimal(0))
    value = sum((trade.quantity * trade.price for trade in trades), Decimal(0))
    best = book_ticker(market)
    return {
        "symbol": market.rules.symbol, "priceChange": number(market.price - first),
        "priceChangePercent": f"{(market.price - first) / first * 100:.3f}",
        "weightedAvgPrice": number(value / volume if volume else market.price), "prevClosePrice": number(first),
        "lastPrice": number(prices[-1]), "lastQty": number(trades[-1].quantity if trades else Decimal(0)),
        "bidPrice": best["bidPrice"], "bidQty": best["bidQty"], "askPrice": best["askPrice"],
        "askQty": best["askQty"], "openPrice": number(first), "highPrice": number(max(prices)),
        "lowPrice": number(min(prices)), "volume": number(volume), "quoteVolume": number(value),
        "openTime": now - DAY_MS, "closeTime": now, "firstId": trades[0].id if trades else -1,
        "lastId": trades[-1].id if trades else -1, "count": len(trades),
    }


def candles(market: Market, interval: str, now: int, *, start: int | None = None, end: int | None = None,
            limit: int = 500) -> list[list[Any]]:
    """Klines from the trades known: a span without trades stands at the last price before it, one before the
    first trade at the price the market began with."""
    length = INTERVALS_MS[interval]
    last = min(end if end is not None else now, now)
    newest = _opened(last, length)
    if start is not None:
        oldest = _opened(start + length - 1, length)
        newest = min(newest, oldest + (limit - 1) * length)
    else:
        oldest = newest - (limit - 1) * length
    close = market.first_price
    spans: dict[int, list[Trade]] = {}
    for trade in market.trades:
        opened = _opened(trade.time, length)
        if opened < oldest:
            close = trade.price
        elif opened <= newest:
            spans.setdefault(opened, []).append(trade)
    rows = []
    for opened in range(oldest, newest + 1, length):
        trades = spans.get(opened, [])
        rows.append(_candle(opened, length, close, trades))
        if trades:
            close = trades[-1].price
    return rows


def _opened(moment: int, length: int) -> int:
    """When the candle that holds this moment opened. Weeks begin on a Monday; 1970 began on a Thursday."""
    offset = 4 * DAY_MS if length == 7 * DAY_MS else 0
    return moment - (moment - offset) % length


def _candle(opened: int, length: int, before: Decimal, trades: list[Trade]) -> list[Any]:
    prices = [trade.price for trade in trades] or [before]
    bought = [trade for trade in trades if not trade.buyer_is_maker]
    return [
        opened, number(prices[0]), number(max(prices)), number(min(prices)), number(prices[-1]),
        number(_volume(trades)), opened + length - 1, number(_value(trades)), len(trades),
        number(_volume(bought)), number(_value(bought)), "0",
    ]


def _volume(trades: Iterable[Trade]) -> Decimal:
    return sum((trade.quantity for trade in trades), Decimal(0))


def _value(trades: Iterable[Trade]) -> Decimal:
    return sum((trade.quantity * trade.price for trade in trades), Decimal(0))


def kline_event(market: Market, interval: str, now: int) -> dict[str, Any]:
    """The candle of now, as the kline stream sends it."""
    row = candles(market, interval, now, limit=1)[0]
    return {"e": "kline", "E": now, "s": market.rules.symbol, "k": {
        "t": row[0], "T": row[6], "s": market.rules.symbol, "i": interval, "f": -1, "L": -1, "o": row[1],
        "c": row[4], "h": row[2], "l": row[3], "v": row[5], "n": row[8], "x": False, "q": row[7], "V": row[9],
        "Q": row[10], "B": "0",
    }}


def trade_event(market: Market, trade: Trade) -> dict[str, Any]:
    """A trade, as the trade stream sends it."""
    return {"e": "trade", "E": trade.time, "s": market.rules.symbol, "t": trade.id, "p": number(trade.price),
            "q": number(trade.quantity), "T": trade.time, "m": trade.buyer_is_maker, "M": True}


def execution_report(order: Order, market: Market, execution: str, fill: Fill | None, *, cancel_id: str,
                     now: int) -> dict[str, Any]:
    """An order's change, as the user stream sends it. Of a canceled order `C` is its own id, `c` the request's."""
    canceled = execution == "CANCELED"
    zero = number(Decimal(0))
    return {
        "e": "executionReport", "E": now, "s": market.rules.symbol,
        "c": cancel_id if canceled else order.client_order_id, "S": order.side.value, "o": order.type.value,
        "f": order.time_in_force.value, "q": number(order.quantity), "p": number(order.price), "P": zero, "F": zero,
        "g": -1, "C": order.client_order_id if canceled else "", "x": execution, "X": order.status.value,
        "r": "NONE", "i": order.id, "l": number(fill.quantity) if fill else zero, "z": number(order.executed),
        "L": number(fill.price) if fill else zero, "n": number(fill.commission) if fill else "0",
        "N": fill.commission_asset if fill else None, "T": order.update_time, "t": fill.trade_id if fill else -1,
        "I": order.id, "w": order.is_open, "m": fill.is_maker if fill else False, "M": fill is not None,
        "O": order.time, "Z": number(order.quote_executed), "Y": number(fill.quote_quantity) if fill else zero,
        "Q": number(order.quote_order_quantity), "W": order.time, "V": "NONE",
    }


def account_position(account: Account, assets: Iterable[str], now: int) -> dict[str, Any]:
    """Changed balances, as the user stream sends them."""
    return {"e": "outboundAccountPosition", "E": now, "u": account.update_time, "B": [
        {"a": asset, "f": number(account.balances[asset].free), "l": number(account.balances[asset].locked)}
        for asset in assets
    ]}


def exchange_info(exchange: Exchange, markets: Iterable[Market]) -> dict[str, Any]:
    """GET /api/v3/exchangeInfo."""
    return {
        "timezone": "UTC", "serverTime": exchange.clock(), "exchangeFilters": [],
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
            {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
        ],
        "symbols": [symbol_info(market.rules) for market in markets],
    }
