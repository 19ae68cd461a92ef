"""What a bot asks an exchange about its own orders, with signed queries that the exchange really offers.

The queries go through the engine's connector (its authentication, its clock offset, its throttling).
``BinanceExchange`` can list open orders and so prove that none is left (``verified: exchange``). ``TrackedExchange``
serves every other connector with the engine's own per-order queries: it can settle each order that the ledger knows,
but cannot list what it does not know, and says ``verified: engine``.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

from .ledger import Executed, OrderEntry
from .planning import MarketRules, floor_to

ZERO = Decimal(0)
DAY_MS = 24 * 3600 * 1000
TRADES_AT_MOST = 1000
FILLS_LAG_SECONDS = 3.0
FILLS_MISSING_SECONDS = 60.0
FILLED_NEARLY = Decimal("0.95")
PARALLEL_LOOKS = 5
LOGGER = logging.getLogger("hummingfleet.exchange")


@dataclass(frozen=True)
class ExchangeOrder:
    """An order as the exchange tells it."""

    client_id: str
    side: str
    price: Decimal
    amount: Decimal
    is_open: bool
    executed: Executed


class Exchange(Protocol):
    """The few questions and orders that stopping, settling and liquidating need."""

    verified: str

    async def open_orders(self, known: Iterable[OrderEntry]) -> list[ExchangeOrder]:
        """Open orders of the account on the pair (all of them, or those of ``known``)."""
        ...

    async def order(self, entry: OrderEntry) -> ExchangeOrder | None:
        """One order with everything it executed; None where the exchange does not know it."""
        ...

    async def orders_since(self, since_seconds: float) -> list[ExchangeOrder]:
        """Orders of the account on the pair created since then; empty where the exchange cannot be asked that."""
        ...

    async def cancel(self, client_id: str) -> None:
        """Ask for the cancellation of one order; one that is no longer open is no error."""
        ...

    async def rules(self) -> MarketRules:
        """The pair's trading rules."""
        ...

    async def last_price(self) -> Decimal:
        """The pair's last traded price."""
        ...

    async def sell_at_market(self, client_id: str, amount: Decimal) -> None:
        """Send a market order that sells ``amount`` base."""
        ...


def exchange_for(connector: Any, trading_pair: str, recognise: Callable[[str], bool]) -> Exchange:
    """The richest way to ask this connector's exchange. ``recognise`` tells own client order ids."""
    kinds: dict[str, type[TrackedExchange]] = {"binance": BinanceExchange}
    return kinds.get(connector.name, TrackedExchange)(connector, trading_pair, recognise)


class TrackedExchange:
    """Any connector of the engine, through the per-order queries that each of them implements."""

    verified = "engine"

    def __init__(self, connector: Any, trading_pair: str, recognise: Callable[[str], bool]) -> None:
        self.connector = connector
        self.trading_pair = trading_pair
        self.recognise = recognise
        self.base_asset, self.quote_asset = trading_pair.split("-")
        self._known: dict[str, OrderEntry] = {}
        self._states: dict[str, str] = {}
        self._ended: dict[str, tuple[Executed, float]] = {}

    async def open_orders(self, known: Iterable[OrderEntry]) -> list[ExchangeOrder]:
        """Those of ``known`` that the exchange reports as open; what has ended is not asked for again."""
        asked = [entry for entry in known if entry.client_id not in self._ended]
        found: list[ExchangeOrder | None] = []
        for start in range(0, len(asked), PARALLEL_LOOKS):
            found += await asyncio.gather(*(self._look(entry) for entry in asked[start:start + PARALLEL_LOOKS]))
        return [order for order in found if order is not None and order.is_open]

    async def order(self, entry: OrderEntry) -> ExchangeOrder | None:
        """The order's state and fills, asked with the connector's own requests.

        Fills follow their order with a delay on many exchanges. One that was filled is not done with before they add
        up to what was ordered; where they come close (a market order may be for an amount of quote) or it ended
        otherwise, before they stay the same for some seconds; else for a minute. What is booked is not taken back:
        a bot that believes to hold less than it does would buy again.
        """
        order = await self._look(entry)
        if order is None or order.is_open:
            self._forget(entry.client_id, gone=order is None)
            return order
        executed, now = order.executed, time.monotonic()
        before, since = self._ended.setdefault(entry.client_id, (executed, now))
        if before != executed:
            self._ended[entry.client_id] = (executed, now)
        unchanged = now - since if before == executed else 0.0
        ordered, is_filled = entry.amount or ZERO, self._states[entry.client_id] == "FILLED"
        is_less = executed.base < entry.executed.base
        if is_less or (is_filled and executed.base < ordered * FILLED_NEARLY):
            complete = unchanged >= FILLS_MISSING_SECONDS
        else:
            complete = (is_filled and executed.base >= ordered) or unchanged >= FILLS_LAG_SECONDS
        if not complete:
            return replace(order, is_open=True)
        self._forget(entry.client_id, gone=True)
        if is_less:
            LOGGER.warning("ORDER_DISAGREES the exchange lists %s of order %s as executed, %s are booked; that stays",
                           executed.base, entry.client_id, entry.executed.base)
            return replace(order, executed=entry.executed)
        return order

    def _forget(self, client_id: str, *, gone: bool) -> None:
        self._ended.pop(client_id, None)
        if gone:
            self._states.pop(client_id, None)
            self._known.pop(client_id, None)

    async def _look(self, entry: OrderEntry) -> ExchangeOrder | None:
        from hummingbot.core.data_type.in_flight_order import OrderState

        self._known[entry.client_id] = entry
        tracked = self._tracked(entry)
        try:
            update = await self.connector._request_order_status(tracked)
        except Exception as error:
            if self.connector._is_order_not_found_during_status_update_error(error):
                return None
            raise
        if update.exchange_order_id:
            tracked.exchange_order_id = update.exchange_order_id
        if not tracked.exchange_order_id:
            raise OSError(f"the exchange's number of order {entry.client_id} is not known, so that its fills cannot be "
                          "asked for; look for it on the exchange")
        executed = executed_of(await self.connector._all_trade_updates_for_order(tracked), self.base_asset,
                               self.quote_asset)
        is_open = update.new_state not in (OrderState.FILLED, OrderState.CANCELED, OrderState.FAILED)
        self._states[entry.client_id] = update.new_state.name
        return ExchangeOrder(entry.client_id, entry.side, entry.price or ZERO, entry.amount or ZERO, is_open, executed)

    async def orders_since(self, since_seconds: float) -> list[ExchangeOrder]:
        """Not offered uniformly: none."""
        return []

    async def cancel(self, client_id: str) -> None:
        """Cancel through the connector."""
        entry = self._known.get(client_id)
        tracked = self.connector.in_flight_orders.get(client_id) or (self._tracked(entry) if entry else None)
        if tracked is None:
            return
        try:
            await self.connector._place_cancel(client_id, tracked)
        except Exception as error:
            if not self.connector._is_order_not_found_during_cancelation_error(error):
                raise

    async def rules(self) -> MarketRules:
        """The pair's rules; asks the exchange where the connector does not know them yet."""
        if self.trading_pair not in self.connector.trading_rules:
            await self.connector._update_trading_rules()
        return rules_of(self.connector, self.trading_pair)

    async def last_price(self) -> Decimal:
        """Asked through the connector."""
        return Decimal(str(await self.connector._get_last_traded_price(self.trading_pair)))

    async def sell_at_market(self, client_id: str, amount: Decimal) -> None:
        """A market order through the connector."""
        from hummingbot.core.data_type.common import OrderType, TradeType

        price = await self.last_price()
        await self.connector._place_order(
            order_id=client_id, trading_pair=self.trading_pair, amount=amount, trade_type=TradeType.SELL,
            order_type=OrderType.MARKET, price=price,
        )

    def _tracked(self, entry: OrderEntry) -> Any:
        from hummingbot.core.data_type.common import OrderType, TradeType
        from hummingbot.core.data_type.in_flight_order import InFlightOrder

        return self.connector._order_tracker.fetch_order(client_order_id=entry.client_id) or InFlightOrder(
            client_order_id=entry.client_id, trading_pair=self.trading_pair, order_type=OrderType.LIMIT,
            trade_type=TradeType[entry.side], amount=entry.amount or ZERO, price=entry.price,
            creation_timestamp=entry.created, exchange_order_id=entry.exchange_id,
        )


class BinanceExchange(TrackedExchange):
    """Binance spot: signed queries for open orders, orders by time, one order and its trades."""

    verified = "exchange"

    async def open_orders(self, known: Iterable[OrderEntry]) -> list[ExchangeOrder]:
        """All open orders of the account on the pair."""
        answer = await self._get("/openOrders", {})
        return [self._order(item) for item in answer]

    async def order(self, entry: OrderEntry) -> ExchangeOrder | None:
        """The order by its client id, with fees from its trades."""
        try:
            answer = await self._get("/order", {"origClientOrderId": entry.client_id})
        except OSError as error:
            if "-2013" in str(error):
                return None
            raise
        order = self._order(answer)
        return order if order.executed.base == 0 else await self._with_fees(order, answer["orderId"])

    async def orders_since(self, since_seconds: float) -> list[ExchangeOrder]:
        """All orders since then, page by page; the exchange answers for at most 24 hours at a time."""
        orders: dict[int, Any] = {}
        start, end = int(since_seconds * 1000), int((time.time() + 60) * 1000)
        while start < end:
            window = {"startTime": start, "endTime": min(start + DAY_MS, end), "limit": 1000}
            page = await self._get("/allOrders", window)
            orders.update({item["orderId"]: item for item in page})
            if len(page) < 1000:
                start += DAY_MS
            else:
                start = max(max(item["time"] for item in page), start + 1)
        found = []
        for item in orders.values():
            order = self._order(item)
            if order.executed.base and self.recognise(order.client_id):
                order = await self._with_fees(order, item["orderId"])
            found.append(order)
        return found

    async def cancel(self, client_id: str) -> None:
        """Cancel by client id."""
        try:
            params = {**await self._symbol(), "origClientOrderId": client_id}
            await self.connector._api_delete(path_url="/order", params=params, is_auth_required=True)
        except OSError as error:
            # -2011: the order is not open (filled, cancelled, never arrived); the next query tells which.
            if "-2011" not in str(error):
                raise

    async def sell_at_market(self, client_id: str, amount: Decimal) -> None:
        """A market order that sells ``amount``."""
        await self.connector._api_post(
            path_url="/order", is_auth_required=True,
            data={**await self._symbol(), "side": "SELL", "type": "MARKET", "quantity": f"{amount:f}",
                  "newClientOrderId": client_id})

    async def _with_fees(self, order: ExchangeOrder, order_id: int) -> ExchangeOrder:
        trades = await self._get("/myTrades", {"orderId": order_id, "limit": TRADES_AT_MOST})
        fees = {self.base_asset: ZERO, self.quote_asset: ZERO}
        for trade in trades:
            if trade["commissionAsset"] in fees:
                fees[trade["commissionAsset"]] += Decimal(trade["commission"])
        executed = Executed(order.executed.base, order.executed.quote, fees[self.base_asset], fees[self.quote_asset],
                            len(trades))
        # Trades follow their order with a delay. Until then its fees are not known: it is not done with.
        known = sum((Decimal(trade["qty"]) for trade in trades), ZERO)
        is_open = order.is_open or (known < order.executed.base and len(trades) < TRADES_AT_MOST)
        return ExchangeOrder(order.client_id, order.side, order.price, order.amount, is_open, executed)

    def _order(self, item: dict[str, Any]) -> ExchangeOrder:
        base, quote = Decimal(item["executedQty"]), Decimal(item["cummulativeQuoteQty"])
        return ExchangeOrder(
            client_id=item["clientOrderId"], side=item["side"], price=Decimal(item["price"]),
            amount=Decimal(item["origQty"]), is_open=item["status"] in ("NEW", "PARTIALLY_FILLED", "PENDING_NEW"),
            executed=Executed(base, quote, trades=1 if base else 0),
        )

    async def _symbol(self) -> dict[str, Any]:
        symbol = await self.connector.exchange_symbol_associated_to_pair(trading_pair=self.trading_pair)
        return {"symbol": symbol}

    async def _get(self, path: str, params: dict[str, Any]) -> Any:
        # The connector has a throttling rule for /order; the others cost at most what its rule for /myTrades reserves.
        limit_id = path if path in ("/order", "/myTrades") else "/myTrades"
        return await self.connector._api_get(
            path_url=path, params={**await self._symbol(), **params}, is_auth_required=True, limit_id=limit_id)


def executed_of(fills: Iterable[Any], base_asset: str, quote_asset: str) -> Executed:
    """What the engine's trade updates add up to."""
    base = quote = fee_base = fee_quote = ZERO
    count = 0
    for fill in fills:
        count += 1
        base += fill.fill_base_amount
        quote += fill.fill_quote_amount
        for fee in fill.fee.flat_fees:
            if fee.token == base_asset:
                fee_base += fee.amount
            elif fee.token == quote_asset:
                fee_quote += fee.amount
    return Executed(base, quote, fee_base, fee_quote, count)


def rules_of(connector: Any, trading_pair: str) -> MarketRules:
    """The engine's trading rule as ours."""
    rule = connector.trading_rules[trading_pair]
    return MarketRules(rule.min_price_increment, rule.min_base_amount_increment, rule.min_order_size,
                       rule.min_notional_size)


def mid_price(connector: Any, trading_pair: str) -> Decimal | None:
    """The present mid price; None where a side of the book is empty: its other side alone may be any price."""
    from hummingbot.core.data_type.common import PriceType

    prices = [connector.get_price_by_type(trading_pair, kind) for kind in (PriceType.BestBid, PriceType.BestAsk)]
    known = [price for price in prices if price is not None and price.is_finite() and price > 0]
    return sum(known, ZERO) / 2 if len(known) == 2 else None


def taker_price(connector: Any, trading_pair: str, amount: Decimal) -> Decimal | None:
    """What a market order buying ``amount`` base would pay on average; None where the book has not that much."""
    book = connector.order_books.get(trading_pair)
    left, paid = amount, ZERO
    for row in book.ask_entries() if book is not None else ():
        part = min(left, Decimal(str(row.amount)))
        left -= part
        paid += part * Decimal(str(row.price))
        if left <= 0:
            return paid / amount
    return None


def sellable(amount: Decimal, rules: MarketRules, price: Decimal) -> Decimal:
    """The largest part of ``amount`` that a market order at about ``price`` may carry; 0 where it is dust."""
    floored = floor_to(amount, rules.lot)
    return floored if rules.allows(price, floored) else ZERO
