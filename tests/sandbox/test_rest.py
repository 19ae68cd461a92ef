"""The REST side as a trading client meets it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest

from sandbox.server import Server
from tests.sandbox.client import Client, short, signature


async def test_exchange_info_has_what_the_engine_reads(client: Client) -> None:
    status, data = await client.public("/exchangeInfo")
    assert status == 200
    symbol = data["symbols"][0]
    assert (symbol["symbol"], symbol["status"], symbol["permissionSets"]) == ("BTCUSDT", "TRADING", [["SPOT"]])
    filters = {item["filterType"]: item for item in symbol["filters"]}
    assert short(filters["PRICE_FILTER"]["tickSize"]) == "0.01"
    assert short(filters["LOT_SIZE"]["stepSize"]) == short(filters["LOT_SIZE"]["minQty"]) == "0.00001"
    assert short(filters["NOTIONAL"]["minNotional"]) == "5"


@pytest.mark.parametrize(("path", "parameters", "expected"), [
    ("/ping", {}, {}),
    ("/ticker/price", {"symbol": "BTCUSDT"}, {"symbol": "BTCUSDT", "price": "32000.00000000"}),
    ("/ticker/bookTicker", {"symbol": "BTCUSDT"}, {
        "symbol": "BTCUSDT", "bidPrice": "31996.80000000", "bidQty": "1.56265000",
        "askPrice": "32003.20000000", "askQty": "1.56234000"}),
])
async def test_public_answers(client: Client, path: str, parameters: dict[str, str], expected: Any) -> None:
    assert await client.public(path, **parameters) == (200, expected)


async def test_tickers_without_a_symbol_answer_for_all(client: Client) -> None:
    for path in ("/ticker/price", "/ticker/bookTicker", "/ticker/24hr"):
        _status, data = await client.public(path)
        assert [item["symbol"] for item in data] == ["BTCUSDT", "ETHUSDT"]
    _status, data = await client.public("/ticker/price", symbols='["ETHUSDT"]')
    assert [item["symbol"] for item in data] == ["ETHUSDT"]


async def test_server_time_is_now(client: Client) -> None:
    _status, data = await client.public("/time")
    assert abs(data["serverTime"] - time.time() * 1000) < 60_000


async def test_depth_shows_resting_orders_between_the_synthetic_levels(client: Client) -> None:
    await client.order("BUY", "0.5", "20000")
    await client.order("SELL", "0.1", "32001")
    _status, data = await client.public("/depth", symbol="BTCUSDT", limit=1000)
    assert data["asks"][0] == ["32001.00000000", "0.10000000"]
    assert ["20000.00000000", "0.50000000"] in data["bids"]
    prices = [float(level[0]) for level in data["bids"]]
    assert prices == sorted(prices, reverse=True)


async def test_depth_is_cut_to_its_limit(client: Client) -> None:
    _status, data = await client.public("/depth", symbol="BTCUSDT", limit=5)
    assert len(data["bids"]) == len(data["asks"]) == 5


async def test_klines_follow_the_trades_and_reach_back_before_the_first(client: Client, server: Server) -> None:
    now = [1_800_000_030_000]
    server.exchange.clock = lambda: now[0]
    for price in ("32100", "31900", "32050"):
        server.exchange.move_price("BTC-USDT", Decimal(price))
    now[0] += 120_000
    _status, rows = await client.public("/klines", symbol="BTCUSDT", interval="1m", limit=5)
    assert [row[0] - 1_800_000_000_000 for row in rows] == [-120_000, -60_000, 0, 60_000, 120_000]
    assert [short(value) for value in rows[2][1:5]] == ["32100", "32100", "31900", "32050"]
    assert {short(row[4]) for row in rows[:2]} == {"32000"}
    assert {short(row[4]) for row in rows[3:]} == {"32050"}
    assert (rows[2][8], rows[3][8]) == (3, 0)
    _status, weeks = await client.public("/klines", symbol="BTCUSDT", interval="1w", limit=1)
    assert time.gmtime(weeks[0][0] / 1000).tm_wday == 0


async def test_order_lives_through_query_and_cancel(client: Client) -> None:
    placed = await client.order("BUY", "0.1", "30000", newClientOrderId="x-1")
    assert (placed["status"], placed["clientOrderId"], placed["fills"]) == ("NEW", "x-1", [])
    assert await client.balances() == {"BTC": ("0.5", "0"), "USDT": ("7000", "3000")}
    for query in ({"orderId": placed["orderId"]}, {"origClientOrderId": "x-1"}):
        status, found = await client.signed("GET", "/order", symbol="BTCUSDT", **query)
        assert (status, found["status"], found["origQty"]) == (200, "NEW", "0.10000000")
    assert [item["orderId"] for item in (await client.signed("GET", "/openOrders"))[1]] == [placed["orderId"]]
    status, canceled = await client.signed("DELETE", "/order", symbol="BTCUSDT", origClientOrderId="x-1")
    assert (status, canceled["status"], canceled["origClientOrderId"]) == (200, "CANCELED", "x-1")
    assert (await client.signed("GET", "/openOrders", symbol="BTCUSDT"))[1] == []
    assert await client.signed("DELETE", "/order", symbol="BTCUSDT", origClientOrderId="x-1") == (
        400, {"code": -2011, "msg": "Unknown order sent."})
    assert (await client.signed("GET", "/order", symbol="BTCUSDT", origClientOrderId="x-1"))[1]["status"] == "CANCELED"
    assert await client.signed("GET", "/order", symbol="BTCUSDT", origClientOrderId="x-2") == (
        400, {"code": -2013, "msg": "Order does not exist."})


async def test_market_order_fills_and_shows_in_my_trades(client: Client) -> None:
    placed = await client.order("BUY", "0.01")
    assert (placed["status"], placed["executedQty"]) == ("FILLED", "0.01000000")
    assert placed["fills"][0]["price"] == "32003.20000000"
    _status, trades = await client.signed("GET", "/myTrades", symbol="BTCUSDT", orderId=placed["orderId"])
    assert [(item["id"], item["isBuyer"], item["isMaker"], item["quoteQty"]) for item in trades] == [
        (placed["fills"][0]["tradeId"], True, False, "320.03200000")]


async def test_my_trades_can_be_limited_in_time_and_number(client: Client, server: Server) -> None:
    now = [int(time.time() * 1000)]
    server.exchange.clock = lambda: now[0]
    ids = []
    for _ in range(3):
        ids.append((await client.order("BUY", "0.01", timestamp=now[0]))["fills"][0]["tradeId"])
        now[0] += 100

    async def found(**query: Any) -> list[int]:
        return [item["id"] for item in (await client.signed("GET", "/myTrades", symbol="BTCUSDT", **query))[1]]

    start = now[0] - 200
    assert await found(startTime=start) == ids[1:]
    assert await found(startTime=start, endTime=start) == ids[1:2]
    assert await found(fromId=ids[1]) == ids[1:]
    assert await found(limit=1) == ids[2:]


async def test_all_orders_from_an_id_and_cancel_all_of_a_symbol(client: Client) -> None:
    orders = [(await client.order("BUY", "0.01", price))["orderId"] for price in ("30000", "29000", "28000")]
    _status, found = await client.signed("GET", "/allOrders", symbol="BTCUSDT", orderId=orders[1])
    assert [item["orderId"] for item in found] == orders[1:]
    status, canceled = await client.signed("DELETE", "/openOrders", symbol="BTCUSDT")
    assert (status, [item["orderId"] for item in canceled]) == (200, orders)
    assert (await client.balances())["USDT"] == ("10000", "0")
    assert (await client.signed("DELETE", "/openOrders", symbol="BTCUSDT"))[0] == 400


async def test_accounts_are_separate(client: Client, other: Client) -> None:
    placed = await client.order("BUY", "0.01", "30000")
    assert (await other.signed("GET", "/openOrders"))[1] == []
    assert (await other.signed("GET", "/order", symbol="BTCUSDT", orderId=placed["orderId"]))[1]["code"] == -2013
    assert (await other.signed("DELETE", "/order", symbol="BTCUSDT", orderId=placed["orderId"]))[1]["code"] == -2011


async def test_test_order_is_checked_but_not_placed(client: Client) -> None:
    assert await client.signed("POST", "/order/test", symbol="BTCUSDT", side="BUY", type="MARKET",
                               quantity="0.01") == (200, {})
    status, _data = await client.signed("POST", "/order/test", symbol="BTCUSDT", side="BUY", type="MARKET",
                                        quantity="5")
    assert status == 400
    assert await client.balances() == {"BTC": ("0.5", "0"), "USDT": ("10000", "0")}


@pytest.mark.parametrize(("parameters", "code"), [
    ({"symbol": "NOPEUSDT"}, -1121),
    ({"symbol": ""}, -1105),
    ({"side": "buy"}, -1117),
    ({"type": "STOP_LOSS"}, -1116),
    ({"timeInForce": "GTX"}, -1115),
    ({"quantity": "1e-2"}, -1100),
    ({"quantity": "NaN"}, -1100),
    ({"quantity": "-1"}, -1100),
    ({"price": "Infinity"}, -1100),
    ({"price": "30000.001"}, -1013),
    ({"quantity": "0.00001"}, -1013),
    ({"quantity": "1"}, -2010),
    ({"newClientOrderId": "x" * 37}, -1100),
    ({"newClientOrderId": "{{ 1 }}"}, -1100),
    ({"quoteOrderQty": "100"}, -1106),
    ({"unheardOf": "1"}, -1104),
    ({"newOrderRespType": "SOME"}, -1100),
])
async def test_refused_orders_carry_binance_codes(client: Client, parameters: dict[str, str], code: int) -> None:
    order = {"side": "BUY", "quantity": "0.1", "price": "30000"}
    status, data = await client.try_order(**order | parameters)
    assert (status, data["code"]) == (400, code)
    assert (await client.balances())["USDT"] == ("10000", "0")


async def test_missing_parameters_are_named(client: Client) -> None:
    status, data = await client.signed("POST", "/order", symbol="BTCUSDT", side="BUY", type="LIMIT")
    assert (status, data["code"]) == (400, -1102)
    assert "timeInForce" in data["msg"]


# --- signatures ---


async def test_signature_covers_query_and_body_together(client: Client, server: Server) -> None:
    query = f"symbol=BTCUSDT&side=BUY&type=MARKET&timestamp={int(time.time() * 1000)}"
    body = "quantity=0.01"
    good = signature(client.secret, query + body)
    url = client.url(f"/api/v3/order?{query}")
    headers = {"X-MBX-APIKEY": client.key, "Content-Type": "application/x-www-form-urlencoded"}
    async with client.session.post(url, data=f"{body}&signature={good}", headers=headers) as response:
        assert response.status == 200
    assert server.stats.good.total() == 1


async def test_signature_is_checked_over_the_bytes_as_sent(client: Client) -> None:
    text = f"timestamp={int(time.time() * 1000)}&omitZeroBalances=%74rue"
    assert (await client.raw("GET", "/account", f"{text}&signature={signature(client.secret, text)}"))[0] == 200
    decoded = text.replace("%74", "t")
    status, data = await client.raw("GET", "/account", f"{text}&signature={signature(client.secret, decoded)}")
    assert (status, data["code"]) == (400, -1022)


async def test_upper_case_signature_is_accepted(client: Client) -> None:
    text = f"timestamp={int(time.time() * 1000)}"
    assert (await client.raw("GET", "/account", f"{text}&signature={signature(client.secret, text).upper()}"))[0] == 200


@pytest.mark.parametrize(("spoil", "status", "code"), [
    (lambda client: setattr(client, "secret", "another-secret"), 400, -1022),
    (lambda client: setattr(client, "key", "unknown-key-0001"), 401, -2015),
    (lambda client: setattr(client, "key", "not a key"), 401, -2014),
])
async def test_wrong_credentials(
        client: Client, spoil: Callable[[Client], None], status: int, code: int) -> None:
    spoil(client)
    got, data = await client.signed("GET", "/account")
    assert (got, data["code"]) == (status, code)


@pytest.mark.parametrize(("shift", "window", "accepted"), [
    (-4_000, None, True), (-6_000, None, False), (-6_000, 10_000, True), (2_000, None, False), (500, None, True),
])
async def test_timestamp_must_be_inside_the_window(
        client: Client, server: Server, shift: int, window: int | None, accepted: bool) -> None:
    now = int(time.time() * 1000)
    server.exchange.clock = lambda: now
    more = {} if window is None else {"recvWindow": window}
    status, data = await client.signed("GET", "/account", timestamp=now + shift, **more)
    assert status == (200 if accepted else 400)
    if not accepted:
        assert data["code"] == -1021
        assert data["msg"].startswith("Timestamp for this request")


async def test_signatures_are_counted_per_account_and_path(client: Client, server: Server) -> None:
    await client.signed("GET", "/account")
    await client.signed("GET", "/account")
    good, client.secret = client.secret, "another-secret"
    await client.signed("GET", "/openOrders")
    client.secret, client.key = good, "unknown-key-0001"
    await client.signed("GET", "/openOrders")
    plain = server.stats.plain({})
    assert (plain["signed"], plain["bad_signatures"], plain["unknown_keys"]) == (2, 1, 1)
    assert plain["accounts"]["acme"]["paths"] == {
        "GET /api/v3/account": {"signed": 2, "bad_signatures": 0},
        "GET /api/v3/openOrders": {"signed": 0, "bad_signatures": 1},
    }


async def test_refusals_are_counted_per_account_path_and_words(client: Client, other: Client, server: Server) -> None:
    """What a fault refuses is the script's doing and not counted."""
    await client.try_order("BUY", "0.1", "30000.001")
    await client.try_order("BUY", "0.1", "30000.001")
    await client.signed("DELETE", "/order", symbol="BTCUSDT", orderId=77)
    await other.order("BUY", "0.01", "30000")
    server.faults.add({"kind": "insufficient_balance", "account": "zeta"})
    assert (await other.try_order("BUY", "0.01", "30000"))[0] == 400
    accounts = server.stats.plain({})["accounts"]
    assert accounts["acme"]["refusals"] == {
        "DELETE /api/v3/order": {"-2011: Unknown order sent.": 1},
        "POST /api/v3/order": {"-1013: Filter failure: PRICE_FILTER": 2},
    }
    assert accounts["zeta"]["refusals"] == {}


# --- hostile requests ---


@pytest.mark.parametrize("text", [
    "symbol=BTCUSDT&symbol=ETHUSDT", "&".join(f"p{n}=1" for n in range(100)), "symbol=%FF%FE", "symbol=%00",
    urlencode({"symbol": "{{ lookup('pipe','id') }}"}), "symbol=../../etc/passwd",
    "=", "&&&&", "limit=0&symbol=BTCUSDT",
])
async def test_malformed_parameters_get_a_proper_refusal(client: Client, text: str) -> None:
    status, data = await client.raw("GET", "/depth", text)
    assert status == 400
    assert isinstance(data["code"], int)
    assert "Traceback" not in data["msg"]


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b'{"symbol": "BTCUSDT"}', b"[" * 10_000, b"a" * 60_000])
async def test_malformed_bodies_get_a_proper_refusal(client: Client, body: bytes) -> None:
    async with client.session.post(client.url("/api/v3/order"), data=body,
                                   headers={"X-MBX-APIKEY": client.key}) as response:
        assert response.status == 400
        assert (await response.json())["code"] < 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_body_that_does_not_decode_is_refused(client: Client, encoding: str) -> None:
    async with client.session.post(client.url("/api/v3/order"), data=b"abc", headers={
            "X-MBX-APIKEY": client.key, "Content-Encoding": encoding}) as response:
        assert response.status == 400


async def test_decompression_bomb_is_refused(client: Client) -> None:
    async with client.session.post(client.url("/api/v3/order"), data=gzip.compress(b"a=" + b"b" * 50_000_000), headers={
            "X-MBX-APIKEY": client.key, "Content-Encoding": "gzip"}) as response:
        assert response.status == 413


async def test_huge_body_is_refused(client: Client) -> None:
    async with client.session.post(client.url("/api/v3/order"), data=b"a=" + b"b" * 1_000_000,
                                   headers={"X-MBX-APIKEY": client.key}) as response:
        assert response.status == 413
    assert (await client.public("/ping"))[0] == 200


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/", 404), ("GET", "/api/v3/nothing", 404), ("PUT", "/api/v3/order", 405), ("PATCH", "/api/v3/ping", 405),
])
async def test_unknown_paths_are_refused_and_counted_together(
        client: Client, server: Server, method: str, path: str, status: int) -> None:
    async with client.session.request(method, client.url(path)) as response:
        assert response.status == status
        assert (await response.json())["code"] == -1000
    assert all("nothing" not in name for name in server.stats.requests)


async def test_failure_of_the_server_itself_shows_no_traceback(
        client: Client, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("inner detail")
    monkeypatch.setattr(server.streams, "depth", broken)
    status, data = await client.public("/depth", symbol="BTCUSDT")
    assert (status, data["code"]) == (500, -1000)
    assert "inner detail" not in str(data)
    assert "inner detail" in caplog.text
    caplog.clear()
