"""The websocket side: market streams, the WebSocket API with the user data stream, and who listens to what."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from aiohttp import WSMsgType, web

from sandbox import errors, formats
from sandbox.errors import ExchangeError
from sandbox.exchange import Account, Exchange, Fill, Market, Order, Trade
from sandbox.keys import KeyTable, check_timestamp, signature_fits, websocket_signed_bytes
from sandbox.stats import Stats

MAX_MESSAGE_BYTES = 64 * 1024
MAX_CONNECTIONS = 2_000
MAX_CONNECTIONS_PER_ADDRESS = 200
"""So that one client cannot take them all."""
MAX_STREAMS = 1_024
QUEUE_LENGTH = 5_000
"""Messages a slow client may leave waiting before it is disconnected."""
DEPTH_INTERVAL_SECONDS = 0.1
KLINE_INTERVAL_SECONDS = 2.0
STREAM = re.compile(r"([a-z0-9]{1,40})@(trade|aggTrade|bookTicker|depth(?:@100ms|@1000ms)?|kline_[0-9]{1,2}[smhdw])")
SUBSCRIBE_USER_DATA = "userDataStream.subscribe.signature"

log = logging.getLogger(__name__)


class Connection:
    """One websocket client: a bounded queue and the task that empties it."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, kind: str) -> None:
        self.socket = socket
        self.address = request.remote
        self.kind = kind
        """market or user."""
        self._transport = request.transport
        self.accounts: dict[str, int] = {}
        """Account name to subscription id."""
        self.streams: set[str] = set()
        self.combined = False
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_LENGTH)
        self._writer = asyncio.create_task(self._write())

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message; a client that does not read is cut off."""
        try:
            self._queue.put_nowait(json.dumps(message))
        except asyncio.QueueFull:
            self.abort()

    def send_stream(self, stream: str, message: Mapping[str, Any]) -> None:
        """Queue an event of a market stream, wrapped when the client asked for combined streams."""
        self.send({"stream": stream, "data": message} if self.combined else message)

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """End the writer."""
        self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer

    async def _write(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self.socket.send_str(message)
            except (ConnectionError, RuntimeError):
                return


class Streams:
    """Listens to the exchange and tells the connected clients. Also serves their requests."""

    def __init__(self, exchange: Exchange, keys: KeyTable, stats: Stats) -> None:
        self.exchange = exchange
        self.keys = keys
        self.stats = stats
        self.connections: set[Connection] = set()
        self.cancel_ids: dict[int, str] = {}
        """Order id to the client id of the request that cancels it, while it is being cancelled."""
        self._published: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
        self._update_ids: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        for name, market in exchange.markets.items():
            self._published[name] = market.book()
            self._update_ids[name] = exchange.clock()
        exchange.listeners.append(self)

    # --- life ---

    async def start(self) -> None:
        """Start publishing depth and klines."""
        self._tasks = [asyncio.create_task(self._publish_depth()), asyncio.create_task(self._publish_klines())]

    async def stop(self) -> None:
        """End the publishing and every connection."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.disconnect()

    def disconnect(self, *, kind: str | None = None, account: str | None = None) -> int:
        """Cut connections (all, of one kind, of one account); returns how many."""
        chosen = [item for item in self.connections
                  if kind in (None, item.kind) and (account is None or account in item.accounts)]
        for connection in chosen:
            connection.abort()
        return len(chosen)

    def counts(self) -> dict[str, int]:
        """Open connections by kind, and the subscriptions of all of them."""
        kinds = {kind: sum(item.kind == kind for item in self.connections) for kind in ("market", "user")}
        return kinds | {"subscriptions": sum(len(item.streams) + len(item.accounts) for item in self.connections)}

    # --- what the exchange tells ---

    def order_changed(self, order: Order, execution: str, fill: Fill | None) -> None:
        """An executionReport to the order's owner."""
        report = formats.execution_report(
            order, self.exchange.markets[order.pair], execution, fill,
            cancel_id=self.cancel_ids.get(order.id, "exchange"), now=self.exchange.clock())
        self._tell_owner(order.account, report)

    def balances_changed(self, account: Account, assets: Iterable[str]) -> None:
        """An outboundAccountPosition to the owner."""
        self._tell_owner(account.name, formats.account_position(account, assets, self.exchange.clock()))

    def traded(self, market: Market, trade: Trade) -> None:
        """A trade event."""
        symbol = market.rules.symbol.lower()
        event = formats.trade_event(market, trade)
        self._tell_market(f"{symbol}@trade", event)
        self._tell_market(f"{symbol}@aggTrade", event | {"e": "aggTrade", "a": trade.id, "f": trade.id, "l": trade.id})

    def book_changed(self, market: Market) -> None:
        """Noted; depth is published ten times a second."""
        self._dirty.add(market.rules.name)

    def depth(self, market: Market, limit: int) -> dict[str, Any]:
        """A snapshot that fits the depth stream: what has changed is published first."""
        self._publish_book(market.rules.name)
        bids, asks = self._published[market.rules.name]
        return {"lastUpdateId": self._update_ids[market.rules.name],
                "bids": _levels(bids, sorted(bids, reverse=True)[:limit]),
                "asks": _levels(asks, sorted(asks)[:limit])}

    def _tell_owner(self, account: str, event: Mapping[str, Any]) -> None:
        for connection in self.connections:
            subscription = connection.accounts.get(account)
            if subscription is not None:
                connection.send({"subscriptionId": subscription, "event": event})

    def _tell_market(self, stream: str, event: Mapping[str, Any]) -> None:
        for connection in self.connections:
            if stream in connection.streams:
                connection.send_stream(stream, event)

    def _publish_book(self, pair: str) -> None:
        if pair not in self._dirty:
            return
        self._dirty.discard(pair)
        market = self.exchange.markets[pair]
        old, new = self._published[pair], market.book()
        changes = [[[formats.number(price), formats.number(after.get(price, Decimal(0)))]
                    for price in sorted(before.keys() | after.keys()) if before.get(price) != after.get(price)]
                   for before, after in zip(old, new, strict=True)]
        self._published[pair] = new
        count = sum(map(len, changes))
        if not count:
            return
        first = self._update_ids[pair] + 1
        self._update_ids[pair] += count
        now, symbol = self.exchange.clock(), market.rules.symbol
        event = {"e": "depthUpdate", "E": now, "s": symbol, "U": first, "u": self._update_ids[pair],
                 "b": changes[0], "a": changes[1]}
        for speed in ("", "@100ms", "@1000ms"):
            self._tell_market(f"{symbol.lower()}@depth{speed}", event)
        best = formats.book_ticker(market)
        self._tell_market(f"{symbol.lower()}@bookTicker", {
            "u": self._update_ids[pair], "s": symbol, "b": best["bidPrice"], "B": best["bidQty"],
            "a": best["askPrice"], "A": best["askQty"]})

    async def _publish_depth(self) -> None:
        while True:
            await asyncio.sleep(DEPTH_INTERVAL_SECONDS)
            for pair in list(self._dirty):
                self._publish_book(pair)

    async def _publish_klines(self) -> None:
        """Send the running candle regularly, traded or not: clients wait for the first one."""
        while True:
            await asyncio.sleep(KLINE_INTERVAL_SECONDS)
            for stream in {name for item in self.connections for name in item.streams if "@kline_" in name}:
                symbol, interval = stream.split("@kline_")
                market = self.exchange.by_symbol[symbol.upper()]
                self._tell_market(stream, formats.kline_event(market, interval, self.exchange.clock()))

    # --- what clients ask ---

    async def serve_market(self, request: web.Request) -> web.StreamResponse:
        """wss://…:9443/ws, /ws/<stream>/<stream> and /stream?streams=a/b."""
        combined = request.path.startswith("/stream")
        wanted = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
        names = [name for name in wanted.split("/") if name]
        if not all(self._known_stream(name) for name in names) or len(names) > MAX_STREAMS:
            return web.json_response({"code": 2, "msg": "Invalid request: unknown stream"}, status=400)
        connection = await self._open(request, "market")
        connection.combined = combined
        connection.streams.update(names)
        return await self._serve(connection, self._market_request)

    async def serve_api(self, request: web.Request) -> web.StreamResponse:
        """wss://…:443/ws-api/v3."""
        connection = await self._open(request, "user")
        return await self._serve(connection, self._api_request)

    async def _open(self, request: web.Request, kind: str) -> Connection:
        same = sum(item.address == request.remote for item in self.connections)
        if same >= MAX_CONNECTIONS_PER_ADDRESS or len(self.connections) >= MAX_CONNECTIONS:
            raise web.HTTPServiceUnavailable(reason="Too many connections")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=60.0, compress=False)
        await socket.prepare(request)
        connection = Connection(socket, request, kind)
        self.connections.add(connection)
        return connection

    async def _serve(self, connection: Connection, answer: Any) -> web.StreamResponse:
        try:
            async for message in connection.socket:
                if message.type is not WSMsgType.TEXT:
                    break
                try:
                    data = json.loads(message.data)
                except (ValueError, RecursionError):
                    data = None
                connection.send(answer(connection, data))
        finally:
            self.connections.discard(connection)
            await connection.close()
        return connection.socket

    def _market_request(self, connection: Connection, data: Any) -> dict[str, Any]:
        """SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS."""
        if not isinstance(data, dict):
            return {"error": {"code": 3, "msg": "Invalid JSON: expected an object"}}
        request_id = _request_id(data)
        method, names = data.get("method"), data.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": sorted(connection.streams), "id": request_id}
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return {"error": {"code": 2, "msg": "Invalid request: unknown method"}, "id": request_id}
        if not isinstance(names, list) or not all(isinstance(name, str) and self._known_stream(name) for name in names):
            return {"error": {"code": 2, "msg": "Invalid request: unknown stream"}, "id": request_id}
        if method == "UNSUBSCRIBE":
            connection.streams.difference_update(names)
        elif len(connection.streams.union(names)) > MAX_STREAMS:
            return {"error": {"code": 2, "msg": f"Invalid request: at most {MAX_STREAMS} streams"}, "id": request_id}
        else:
            connection.streams.update(names)
        return {"result": None, "id": request_id}

    def _known_stream(self, name: str) -> bool:
        match = STREAM.fullmatch(name)
        if match is None or match[1].upper() not in self.exchange.by_symbol:
            return False
        return not match[2].startswith("kline_") or match[2].removeprefix("kline_") in formats.INTERVALS_MS

    def _api_request(self, connection: Connection, data: Any) -> dict[str, Any]:
        """A WebSocket API request; every answer has id and status."""
        if not isinstance(data, dict):
            error = ExchangeError(-1135, "Invalid JSON Request")
            return {"id": None, "status": 400, "error": error.plain()}
        try:
            result = self._api_result(connection, data)
        except ExchangeError as error:
            return {"id": _request_id(data), "status": error.status, "error": error.plain()}
        return {"id": _request_id(data), "status": 200, "result": result, "rateLimits": []}

    def _api_result(self, connection: Connection, data: dict[str, Any]) -> dict[str, Any]:
        method, params = data.get("method"), data.get("params", {})
        if not isinstance(params, dict) or not all(isinstance(value, (str, int)) for value in params.values()):
            raise ExchangeError(-1130, "Data sent for parameter 'params' is not valid.")
        if method == "ping":
            return {}
        if method == "time":
            return {"serverTime": self.exchange.clock()}
        if method == SUBSCRIBE_USER_DATA:
            return self._subscribe_user(connection, params)
        if method == "userDataStream.unsubscribe":
            wanted = params.get("subscriptionId")
            connection.accounts = {} if wanted is None else {
                name: number for name, number in connection.accounts.items() if number != wanted}
            return {}
        raise ExchangeError(-1000, "Unknown method.", 400)

    def _subscribe_user(self, connection: Connection, params: dict[str, Any]) -> dict[str, Any]:
        for name in ("apiKey", "timestamp", "signature"):
            if name not in params:
                raise errors.missing_parameter(name)
        timestamp, window = params["timestamp"], params.get("recvWindow")
        if not isinstance(timestamp, int) or not isinstance(window, (int, type(None))):
            raise errors.illegal_parameter("timestamp", "^[0-9]{1,20}$")
        try:
            credentials = self.keys.credentials(str(params["apiKey"]))
        except ExchangeError:
            self.stats.unknown_keys += 1
            raise
        good = signature_fits(credentials.api_secret, websocket_signed_bytes(params), str(params["signature"]))
        counter = self.stats.good if good else self.stats.bad
        counter[credentials.account, SUBSCRIBE_USER_DATA] += 1
        if not good:
            raise errors.bad_signature()
        check_timestamp(self.exchange.clock(), timestamp, window)
        number = connection.accounts.setdefault(credentials.account, len(connection.accounts))
        return {"subscriptionId": number}


def _levels(side: Mapping[Decimal, Decimal], prices: Iterable[Decimal]) -> list[list[str]]:
    return [[formats.number(price), formats.number(side[price])] for price in prices]


def _request_id(data: dict[str, Any]) -> str | int | None:
    value = data.get("id")
    return value if isinstance(value, int) or (isinstance(value, str) and len(value) <= 64) else None
