"""The REST side of the public ports: Binance's paths, parameters, signatures, errors."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sandbox import errors, formats
from sandbox.errors import ExchangeError
from sandbox.exchange import (
    CLIENT_ORDER_ID,
    Account,
    Exchange,
    Market,
    Order,
    OrderRequest,
    OrderType,
    Side,
    TimeInForce,
)
from sandbox.faults import REFUSING, FaultKind, FaultPlan
from sandbox.keys import KeyTable, check_timestamp, signature_fits, signed_bytes
from sandbox.stats import Stats
from sandbox.streams import Streams

MAX_BODY_BYTES = 64 * 1024
MAX_PARAMETERS = 40
THIN_BOOK = web.RequestKey("thin_book", bool)
DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
INTEGER = re.compile(r"[0-9]{1,19}")

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Choice = TypeVar("Choice", Side, OrderType, TimeInForce)


class LostConnection(Exception):
    """The client shall get no answer."""


class Parameters:
    """The parameters of a request, each checked as it is read; `finish` refuses those nobody read."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._read: set[str] = set()

    def text(self, name: str) -> str | None:
        """The value, None when it was not sent."""
        self._read.add(name)
        value = self._values.get(name)
        if value == "":
            raise errors.empty_parameter(name)
        return value

    def required(self, name: str) -> str:
        """The value; an error when it was not sent."""
        value = self.text(name)
        if value is None:
            raise errors.missing_parameter(name)
        return value

    def decimal(self, name: str) -> Decimal | None:
        """A plain decimal number, None when it was not sent."""
        value = self.text(name)
        if value is not None and not DECIMAL.fullmatch(value):
            raise errors.illegal_parameter(name, r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
        return None if value is None else Decimal(value)

    def integer(self, name: str) -> int | None:
        """A plain integer, None when it was not sent."""
        value = self.text(name)
        if value is not None and not INTEGER.fullmatch(value):
            raise errors.illegal_parameter(name, "^[0-9]{1,20}$")
        return None if value is None else int(value)

    def limit(self, default: int, most: int) -> int:
        """`limit`: at least 1; more than `most` is cut, as Binance does."""
        value = self.integer("limit")
        if value == 0:
            raise ExchangeError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value or default, most)

    def flag(self, name: str) -> bool:
        """true or false; false when it was not sent."""
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise errors.illegal_parameter(name, "true, false")
        return value == "true"

    def client_order_id(self, name: str) -> str | None:
        """A client order id, None when it was not sent."""
        value = self.text(name)
        if value is not None and not CLIENT_ORDER_ID.fullmatch(value):
            raise errors.illegal_parameter(name, r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
        return value

    def choice(self, name: str, kind: type[Choice], code: int, message: str) -> Choice:
        """One of the values of `kind`; an error when it is missing or another."""
        value = self.required(name)
        try:
            return kind(value)
        except ValueError:
            raise ExchangeError(code, message) from None

    def sent(self, name: str) -> bool:
        """Whether the client sent it."""
        return name in self._values

    def finish(self) -> None:
        """Refuse parameters that the call does not know."""
        unread = self._values.keys() - self._read
        if unread:
            raise errors.unread_parameters(len(self._values) - len(unread), len(self._values))


@dataclass
class Call:
    """A request on its way through a handler."""

    parameters: Parameters
    account: Account | None
    thin_book: bool = False

    @property
    def owner(self) -> Account:
        """The account of a signed call."""
        assert self.account is not None
        return self.account


class Rest:
    """The handlers of /api/v3."""

    def __init__(self, exchange: Exchange, keys: KeyTable, faults: FaultPlan, stats: Stats,
                 streams: Streams) -> None:
        self.exchange = exchange
        self.keys = keys
        self.faults = faults
        self.stats = stats
        self.streams = streams
        self._cancellations = 0

    def application(self) -> web.Application:
        """The application of the main public port."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self.guard])
        public: dict[str, Callable[[Call], Any]] = {
            "/ping": self.ping, "/time": self.time, "/exchangeInfo": self.exchange_info, "/depth": self.depth,
            "/trades": self.trades, "/klines": self.klines, "/ticker/bookTicker": self.book_ticker,
            "/ticker/price": self.price_ticker, "/ticker/24hr": self.day_ticker, "/avgPrice": self.average_price,
        }
        for path, handler in public.items():
            app.router.add_get(f"/api/v3{path}", self._call(handler, signed=False))
        signed: list[tuple[str, str, Callable[[Call], Any]]] = [
            ("GET", "/account", self.account), ("GET", "/myTrades", self.my_trades), ("GET", "/order", self.get_order),
            ("POST", "/order", self.new_order), ("POST", "/order/test", self.test_order),
            ("DELETE", "/order", self.cancel_order), ("GET", "/openOrders", self.open_orders),
            ("DELETE", "/openOrders", self.cancel_open_orders), ("GET", "/allOrders", self.all_orders),
        ]
        for method, path, handler in signed:
            app.router.add_route(method, f"/api/v3{path}", self._call(handler, signed=True))
        app.router.add_get("/ws-api/v3", self.streams.serve_api)
        return app

    def market_application(self) -> web.Application:
        """The application of the market stream port."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self.guard])
        for path in ("/ws", r"/ws/{streams:.+}", "/stream"):
            app.router.add_get(path, self.streams.serve_market)
        return app

    # --- around every request ---

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outage, faults, counting; whatever fails becomes a proper answer, never a traceback."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "unknown"
        try:
            response = await self._faulty(request, handler, path)
        except LostConnection:
            self._count(request, path, "lost")
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        except ExchangeError as error:
            response = web.json_response(error.plain(), status=error.status)
        except web.HTTPRequestEntityTooLarge:
            response = web.json_response({"code": -1000, "msg": "The request is too large."}, status=413)
        except web.HTTPException as error:
            response = web.json_response({"code": -1000, "msg": error.reason}, status=error.status)
        except (HttpProcessingError, web.RequestPayloadError):
            response = web.json_response({"code": -1000, "msg": "The request's body is not valid."}, status=400)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            log.exception("a request to %s failed", path)
            failure = errors.unknown_error()
            response = web.json_response(failure.plain(), status=failure.status)
        self._count(request, path, str(response.status))
        return response

    def _count(self, request: web.Request, path: str, status: str) -> None:
        method = request.method if request.method in ("GET", "POST", "DELETE") else "OTHER"
        self.stats.requests[f"{method} {path}"] += 1
        self.stats.statuses[status] += 1

    async def _faulty(self, request: web.Request, handler: Handler, path: str) -> web.StreamResponse:
        outage = self.faults.outage()
        if outage == "refuse":
            raise LostConnection
        if outage is not None:
            raise errors.service_unavailable()
        account = self.keys.owner(request.headers.get("X-MBX-APIKEY"))
        fault = self.faults.strike(request.method, path, account)
        if fault is None:
            return await handler(request)
        if fault.kind in REFUSING:
            raise fault.error()
        if fault.kind is FaultKind.LOST_REQUEST:
            raise LostConnection
        if fault.kind is FaultKind.THIN_BOOK:
            request[THIN_BOOK] = True
            return await handler(request)
        if fault.kind is FaultKind.SLOW:
            response = await handler(request)
            await asyncio.sleep(fault.seconds)
            return response
        with suppress(ExchangeError):
            await handler(request)
        if fault.kind is FaultKind.OUTCOME_UNKNOWN:
            raise fault.error()
        await asyncio.sleep(fault.seconds)
        raise LostConnection

    def _call(self, handler: Callable[[Call], Any], *, signed: bool) -> Handler:
        async def respond(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            query = _raw_query(request)
            parameters = Parameters(_parse(query, body))
            account = self._authenticate(request, parameters, query, body) if signed else None
            try:
                return web.json_response(handler(Call(parameters, account, request.get(THIN_BOOK, False))))
            except ExchangeError as error:
                if account is not None:
                    self.stats.refused[account.name, _route(request), str(error)] += 1
                raise
        return respond

    def _authenticate(self, request: web.Request, parameters: Parameters, query: bytes, body: bytes) -> Account:
        """The account that signed the request; checks key, signature, time, in Binance's order."""
        path = _route(request)
        try:
            credentials = self.keys.credentials(request.headers.get("X-MBX-APIKEY"))
        except ExchangeError:
            self.stats.unknown_keys += 1
            raise
        signature = parameters.required("signature")
        good = signature_fits(credentials.api_secret, signed_bytes(query, body), signature)
        (self.stats.good if good else self.stats.bad)[credentials.account, path] += 1
        if not good:
            log.warning("bad signature: account %s, %s", credentials.account, path)
            raise errors.bad_signature()
        timestamp = parameters.integer("timestamp")
        if timestamp is None:
            raise errors.missing_parameter("timestamp")
        check_timestamp(self.exchange.clock(), timestamp, parameters.integer("recvWindow"))
        return self.exchange.accounts[credentials.account]

    def _market(self, parameters: Parameters) -> Market:
        market = self.exchange.by_symbol.get(parameters.required("symbol"))
        if market is None:
            raise errors.bad_symbol()
        return market

    def _markets(self, parameters: Parameters) -> tuple[list[Market], bool]:
        """The markets asked for with symbol, symbols or neither; and whether it was one by `symbol`."""
        if parameters.sent("symbol") and parameters.sent("symbols"):
            raise ExchangeError(-1128, "Combination of optional parameters invalid.")
        if parameters.sent("symbol"):
            return [self._market(parameters)], True
        wanted = parameters.text("symbols")
        if wanted is None:
            return list(self.exchange.markets.values()), False
        if not re.fullmatch(r'\["[A-Z0-9]{1,40}"(,"[A-Z0-9]{1,40}")*\]', wanted):
            raise errors.illegal_parameter("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$')
        markets = [self.exchange.by_symbol.get(symbol) for symbol in wanted[2:-2].split('","')]
        found = [market for market in markets if market is not None]
        if len(found) != len(markets):
            raise errors.bad_symbol()
        return found, False

    # --- public ---

    def ping(self, call: Call) -> dict[str, Any]:
        """GET /ping."""
        call.parameters.finish()
        return {}

    def time(self, call: Call) -> dict[str, Any]:
        """GET /time."""
        call.parameters.finish()
        return {"serverTime": self.exchange.clock()}

    def exchange_info(self, call: Call) -> dict[str, Any]:
        """GET /exchangeInfo."""
        markets, _ = self._markets(call.parameters)
        for name in ("permissions", "showPermissionSets", "symbolStatus"):
            call.parameters.text(name)
        call.parameters.finish()
        return formats.exchange_info(self.exchange, markets)

    def depth(self, call: Call) -> dict[str, Any]:
        """GET /depth."""
        market, limit = self._market(call.parameters), call.parameters.limit(100, 5000)
        call.parameters.finish()
        return self.streams.depth(market, limit)

    def trades(self, call: Call) -> list[dict[str, Any]]:
        """GET /trades."""
        market, limit = self._market(call.parameters), call.parameters.limit(500, 1000)
        call.parameters.finish()
        return [formats.trade_info(trade) for trade in list(market.trades)[-limit:]]

    def klines(self, call: Call) -> list[list[Any]]:
        """GET /klines."""
        parameters = call.parameters
        market = self._market(parameters)
        interval = parameters.required("interval")
        if interval not in formats.INTERVALS_MS:
            raise ExchangeError(-1120, "Invalid interval.")
        start, end = parameters.integer("startTime"), parameters.integer("endTime")
        limit = parameters.limit(500, 1000)
        parameters.finish()
        return formats.candles(market, interval, self.exchange.clock(), start=start, end=end, limit=limit)

    def book_ticker(self, call: Call) -> Any:
        """GET /ticker/bookTicker."""
        return self._ticker(call, formats.book_ticker)

    def price_ticker(self, call: Call) -> Any:
        """GET /ticker/price."""
        return self._ticker(call, lambda market: {"symbol": market.rules.symbol, "price": formats.number(market.price)})

    def day_ticker(self, call: Call) -> Any:
        """GET /ticker/24hr."""
        now = self.exchange.clock()
        if call.parameters.text("type") not in (None, "FULL", "MINI"):
            raise errors.illegal_parameter("type", "FULL, MINI")
        return self._ticker(call, lambda market: formats.day_ticker(market, now))

    def average_price(self, call: Call) -> dict[str, Any]:
        """GET /avgPrice."""
        market = self._market(call.parameters)
        call.parameters.finish()
        return {"mins": 5, "price": formats.number(market.price), "closeTime": self.exchange.clock()}

    def _ticker(self, call: Call, ticker: Callable[[Market], dict[str, Any]]) -> Any:
        markets, single = self._markets(call.parameters)
        call.parameters.finish()
        return ticker(markets[0]) if single else [ticker(market) for market in markets]

    # --- signed ---

    def account(self, call: Call) -> dict[str, Any]:
        """GET /account."""
        omit_zero = call.parameters.flag("omitZeroBalances")
        call.parameters.finish()
        return formats.account_info(call.owner, omit_zero=omit_zero)

    def my_trades(self, call: Call) -> list[dict[str, Any]]:
        """GET /myTrades."""
        parameters = call.parameters
        market = self._market(parameters)
        order_id, from_id = parameters.integer("orderId"), parameters.integer("fromId")
        start, end = parameters.integer("startTime"), parameters.integer("endTime")
        limit = parameters.limit(500, 1000)
        parameters.finish()
        found = [fill for fill in call.owner.fills
                 if fill.pair == market.rules.name and order_id in (None, fill.order_id)
                 and (from_id is None or fill.trade_id >= from_id)
                 and (start is None or fill.time >= start) and (end is None or fill.time <= end)]
        page = found[:limit] if from_id is not None or start is not None else found[-limit:]
        return [formats.fill_info(fill, market) for fill in page]

    def new_order(self, call: Call) -> dict[str, Any]:
        """POST /order."""
        return self._place(call, test=False)

    def test_order(self, call: Call) -> dict[str, Any]:
        """POST /order/test: checked, not placed."""
        call.parameters.flag("computeCommissionRates")
        return self._place(call, test=True)

    def _place(self, call: Call, *, test: bool) -> dict[str, Any]:
        parameters = call.parameters
        market = self._market(parameters)
        side = parameters.choice("side", Side, -1117, "Invalid side.")
        kind = parameters.choice("type", OrderType, -1116, "Invalid orderType.")
        price, quantity = parameters.decimal("price"), parameters.decimal("quantity")
        quote_quantity = parameters.decimal("quoteOrderQty")
        client_order_id = parameters.client_order_id("newClientOrderId")
        time_in_force = TimeInForce.GTC
        if kind is OrderType.LIMIT:
            time_in_force = parameters.choice("timeInForce", TimeInForce, -1115, "Invalid timeInForce.")
        elif parameters.sent("timeInForce"):
            raise errors.needless_parameter("timeInForce")
        if kind is OrderType.MARKET and price is not None:
            raise errors.needless_parameter("price")
        if quote_quantity is not None and (kind is not OrderType.MARKET or quantity is not None):
            raise errors.needless_parameter("quoteOrderQty")
        response_type = parameters.text("newOrderRespType") or "FULL"
        if response_type not in ("ACK", "RESULT", "FULL"):
            raise errors.illegal_parameter("newOrderRespType", "ACK, RESULT, FULL")
        if parameters.text("selfTradePreventionMode") not in (None, "NONE"):
            raise ExchangeError(-1013, "This symbol does not allow the specified self-trade prevention mode.")
        for name in ("strategyId", "strategyType"):
            parameters.integer(name)
        parameters.finish()
        request = OrderRequest(market.rules.name, side, kind, time_in_force, quantity, quote_quantity, price,
                               client_order_id)
        order, fills = self.exchange.place(call.owner.name, request, test=test, thin_book=call.thin_book)
        if test:
            return {}
        log.info("order %d: account %s %s %s %s %s at %s: %s", order.id, order.account, order.type.value,
                 order.side.value, order.quantity, order.pair, order.price, order.status.value)
        return formats.placed_order(order, market, fills, response_type)

    def get_order(self, call: Call) -> dict[str, Any]:
        """GET /order."""
        market = self._market(call.parameters)
        order = self._find(call, market)
        call.parameters.finish()
        if order is None:
            raise errors.no_such_order()
        return formats.order_info(order, market)

    def cancel_order(self, call: Call) -> dict[str, Any]:
        """DELETE /order."""
        parameters = call.parameters
        market = self._market(parameters)
        order = self._find(call, market)
        cancel_id = parameters.client_order_id("newClientOrderId")
        restriction = parameters.text("cancelRestrictions")
        if restriction not in (None, "ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
            raise errors.illegal_parameter("cancelRestrictions", "ONLY_NEW, ONLY_PARTIALLY_FILLED")
        parameters.finish()
        if order is None or not order.is_open:
            raise errors.cancel_rejected()
        if restriction is not None and order.status.value != restriction.removeprefix("ONLY_"):
            raise ExchangeError(-2011, "Order was not canceled due to cancel restrictions.")
        return self._cancel(order, market, cancel_id)

    def open_orders(self, call: Call) -> list[dict[str, Any]]:
        """GET /openOrders: of one symbol or of all."""
        market = self._market(call.parameters) if call.parameters.sent("symbol") else None
        call.parameters.finish()
        return [formats.order_info(order, self.exchange.markets[order.pair]) for order in call.owner.open.values()
                if market is None or order.pair == market.rules.name]

    def cancel_open_orders(self, call: Call) -> list[dict[str, Any]]:
        """DELETE /openOrders: all of one symbol."""
        market = self._market(call.parameters)
        call.parameters.finish()
        orders = [order for order in call.owner.open.values() if order.pair == market.rules.name]
        if not orders:
            raise errors.cancel_rejected()
        return [self._cancel(order, market, None) for order in orders]

    def all_orders(self, call: Call) -> list[dict[str, Any]]:
        """GET /allOrders."""
        parameters = call.parameters
        market = self._market(parameters)
        from_id = parameters.integer("orderId")
        start, end = parameters.integer("startTime"), parameters.integer("endTime")
        limit = parameters.limit(500, 1000)
        parameters.finish()
        found = [order for order in call.owner.orders.values()
                 if order.pair == market.rules.name and (from_id is None or order.id >= from_id)
                 and (start is None or order.time >= start) and (end is None or order.time <= end)]
        page = found[:limit] if from_id is not None or start is not None else found[-limit:]
        return [formats.order_info(order, market) for order in page]

    def _find(self, call: Call, market: Market) -> Order | None:
        order_id = call.parameters.integer("orderId")
        client_order_id = call.parameters.client_order_id("origClientOrderId")
        if order_id is None and client_order_id is None:
            raise ExchangeError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        order = self.exchange.find(call.owner.name, order_id=order_id, client_order_id=client_order_id)
        return order if order is not None and order.pair == market.rules.name else None

    def _cancel(self, order: Order, market: Market, cancel_id: str | None) -> dict[str, Any]:
        self._cancellations += 1
        cancel_id = cancel_id or f"sandbox-cancel-{self._cancellations}"
        self.streams.cancel_ids[order.id] = cancel_id
        try:
            self.exchange.cancel(order)
        finally:
            del self.streams.cancel_ids[order.id]
        log.info("order %d: account %s canceled", order.id, order.account)
        return formats.canceled_order(order, market, cancel_id)


def _route(request: web.Request) -> str:
    """Method and route name, such as POST /api/v3/order."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical if resource is not None else ''}"


def _raw_query(request: web.Request) -> bytes:
    """The query string exactly as it was sent."""
    return request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape")


def _parse(query: bytes, body: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for source in (query, body):
        for name, value in _pairs(source):
            if name in values:
                raise errors.too_many_parameters()
            values[name] = value
    return values


def _pairs(source: bytes) -> Iterable[tuple[str, str]]:
    try:
        return parse_qsl(source.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise ExchangeError(-1100, "Illegal characters found in a parameter.") from None
    except ValueError:
        raise errors.too_many_parameters() from None
