"""Market streams and the WebSocket API."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from sandbox.server import Server
from tests.sandbox.client import Client, short


async def receive(socket: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    """The next event of a kind, whatever comes before it."""
    async with asyncio.timeout(20):
        while True:
            data = await socket.receive_json()
            event = data.get("event", data.get("data", data))
            if event.get("e") == kind:
                return event


async def test_trades_are_streamed(client: Client) -> None:
    socket = await client.market_socket("btcusdt@trade")
    await client.order("BUY", "0.01")
    event = await receive(socket, "trade")
    assert (event["s"], short(event["p"]), short(event["q"]), event["m"]) == ("BTCUSDT", "32003.2", "0.01", False)


async def test_depth_stream_continues_the_snapshot(client: Client) -> None:
    socket = await client.market_socket("btcusdt@depth@100ms")
    _status, snapshot = await client.public("/depth", symbol="BTCUSDT", limit=5000)
    book = {side: dict(snapshot[side]) for side in ("bids", "asks")}
    last = snapshot["lastUpdateId"]
    placed = await client.order("BUY", "0.01", "31000")
    await client.order("BUY", "0.01", "31000.5")
    await client.signed("DELETE", "/order", symbol="BTCUSDT", orderId=placed["orderId"])
    while "31000.50000000" not in book["bids"]:
        event = await receive(socket, "depthUpdate")
        assert event["U"] == last + 1
        last = event["u"]
        for side, key in (("bids", "b"), ("asks", "a")):
            for price, quantity in event[key]:
                book[side].pop(price, None)
                if Decimal(quantity):
                    book[side][price] = quantity
    _status, now = await client.public("/depth", symbol="BTCUSDT", limit=5000)
    assert now["lastUpdateId"] == last
    assert {side: dict(now[side]) for side in book} == book


async def test_book_ticker_and_kline_streams(client: Client, server: Server) -> None:
    socket = await client.market_socket("btcusdt@bookTicker", "btcusdt@kline_1m")
    assert server.streams.counts() == {"market": 1, "user": 0, "subscriptions": 2}
    server.exchange.move_price("BTC-USDT", Decimal(31000))
    async with asyncio.timeout(20):
        while True:
            data = await socket.receive_json()
            if "A" in data and "e" not in data:
                assert short(data["b"]) == "30996.9"
                break
    candle = await receive(socket, "kline")
    assert (candle["k"]["i"], short(candle["k"]["c"])) == ("1m", "31000")


async def test_combined_streams_name_their_stream(client: Client) -> None:
    socket = await client.session.ws_connect(client.url("/stream?streams=btcusdt@trade/ethusdt@trade", market=True))
    await client.order("BUY", "0.01")
    async with asyncio.timeout(20):
        data = await socket.receive_json()
    assert data["stream"] == "btcusdt@trade"
    assert data["data"]["e"] == "trade"
    await socket.close()


async def test_unsubscribed_streams_are_silent(client: Client) -> None:
    socket = await client.market_socket("btcusdt@trade")
    await socket.send_json({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 2})
    assert await socket.receive_json() == {"result": None, "id": 2}
    await client.order("BUY", "0.01")
    await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 3})
    assert await socket.receive_json() == {"result": [], "id": 3}


async def test_user_stream_tells_the_life_of_an_order(client: Client, server: Server) -> None:
    socket = await client.user_socket()
    placed = await client.order("BUY", "0.1", "31000", newClientOrderId="x-1")
    event = await receive(socket, "executionReport")
    assert [event[name] for name in "xXcCi"] == ["NEW", "NEW", "x-1", "", placed["orderId"]]
    position = await receive(socket, "outboundAccountPosition")
    assert {item["a"]: (short(item["f"]), short(item["l"])) for item in position["B"]}["USDT"] == ("6900", "3100")

    server.exchange.fill(placed["orderId"], Decimal("0.04"))
    event = await receive(socket, "executionReport")
    assert [event[name] for name in "xXcm"] == ["TRADE", "PARTIALLY_FILLED", "x-1", True]
    assert [short(event[name]) for name in "lzLY"] == ["0.04", "0.04", "31000", "1240"]

    await client.signed("DELETE", "/order", symbol="BTCUSDT", origClientOrderId="x-1", newClientOrderId="cancel-1")
    event = await receive(socket, "executionReport")
    assert [event[name] for name in "xXcC"] == ["CANCELED", "CANCELED", "cancel-1", "x-1"]


async def test_user_stream_shows_only_the_own_account(client: Client, other: Client) -> None:
    socket = await other.user_socket()
    await client.order("BUY", "0.1", "31000")
    await other.order("BUY", "0.1", "30000", newClientOrderId="mine")
    assert (await receive(socket, "executionReport"))["c"] == "mine"


async def test_answers_of_the_websocket_api_name_the_request(client: Client) -> None:
    socket = await client.session.ws_connect(client.url("/ws-api/v3"))
    answer = await client.subscribe(socket)
    assert (answer["id"], answer["status"], answer["result"]) == ("s1", 200, {"subscriptionId": 0})
    await socket.send_json({"id": 7, "method": "time"})
    answer = await socket.receive_json()
    assert (answer["id"], answer["status"]) == (7, 200)
    await socket.close()


@pytest.mark.parametrize(("changes", "status", "code"), [
    ({"signature": "00"}, 400, -1022),
    ({"apiKey": "unknown-key-0001"}, 401, -2015),
    ({"timestamp": 1_700_000_000_000}, 400, -1021),
    ({"timestamp": "now"}, 400, -1100),
    ({"apiKey": ["x"]}, 400, -1130),
])
async def test_wrong_subscription_is_refused_and_counted(
        client: Client, server: Server, changes: dict[str, Any], status: int, code: int) -> None:
    socket = await client.session.ws_connect(client.url("/ws-api/v3"))
    answer = await client.subscribe(socket, **changes)
    assert (answer["status"], answer["error"]["code"]) == (status, code)
    assert server.stats.bad.total() == (1 if code == -1022 else 0)
    await socket.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 5_000, '{"method": 5}', '{"method": "SUBSCRIBE"}x',
                                  '{"method": "SUBSCRIBE", "params": [1]}', '{"method": "SUBSCRIBE", "params": "x"}',
                                  '{"method": "SUBSCRIBE", "params": ["nope@trade"]}',
                                  '{"method": "SUBSCRIBE", "params": ["btcusdt@kline_7m"]}'])
@pytest.mark.parametrize("market", [True, False])
async def test_malformed_messages_get_an_error_and_keep_the_connection(client: Client, text: str, market: bool) -> None:
    path = "/ws" if market else "/ws-api/v3"
    socket = await client.session.ws_connect(client.url(path, market=market))
    await socket.send_str(text)
    answer = await socket.receive_json()
    assert "error" in answer
    await socket.send_str(text)
    assert "error" in await socket.receive_json()
    await socket.close()


async def test_huge_message_ends_the_connection_only(client: Client) -> None:
    socket = await client.session.ws_connect(client.url("/ws", market=True))
    await socket.send_str("x" * 1_000_000)
    assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert (await client.public("/ping"))[0] == 200


async def test_one_address_cannot_take_all_connections(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.streams.MAX_CONNECTIONS_PER_ADDRESS", 2)
    sockets = [await client.session.ws_connect(client.url("/ws", market=True)) for _ in range(2)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await client.session.ws_connect(client.url("/ws", market=True))
    assert refusal.value.status == 503
    for socket in sockets:
        await socket.close()
