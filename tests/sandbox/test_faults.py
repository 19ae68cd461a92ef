"""Faults on order, as a trading client meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from sandbox.server import Server
from tests.sandbox.client import Client
from tests.sandbox.test_streams import receive

Control = Callable[..., Awaitable[tuple[int, Any]]]


async def put(control: Control, **fault: Any) -> int:
    """A fault; returns its id."""
    status, data = await control("POST", "/faults", fault)
    assert status == 201, data
    return int(data["id"])


async def test_next_requests_of_a_path_fail_and_then_no_more(client: Client, control: Control) -> None:
    await put(control, kind="error", path="/api/v3/order", method="POST", count=2)
    for _ in range(2):
        assert await client.try_order("BUY", "0.1", "30000") == (500, {
            "code": -1000, "msg": "An unknown error occurred while processing the request."})
        assert (await client.signed("GET", "/openOrders")) == (200, [])
    assert (await client.try_order("BUY", "0.1", "30000"))[0] == 200


async def test_share_of_requests_fails_the_same_way_every_time(client: Client, control: Control) -> None:
    async def pattern() -> list[int]:
        number = await put(control, kind="error", path="/api/v3/ping", percent=50, seed=7)
        found = [(await client.public("/ping"))[0] for _ in range(20)]
        await control("DELETE", f"/faults/{number}")
        return found

    first = await pattern()
    assert set(first) == {200, 500}
    assert await pattern() == first


@pytest.mark.parametrize(("fault", "status", "code"), [
    ({"kind": "unauthorized"}, 401, -2015),
    ({"kind": "insufficient_balance"}, 400, -2010),
    ({"kind": "error", "status": 429}, 429, -1003),
    ({"kind": "error", "status": 400, "code": -1021, "message": "Timestamp for this request is late"}, 400, -1021),
])
async def test_refusing_faults_do_not_carry_the_order_out(
        client: Client, control: Control, fault: dict[str, Any], status: int, code: int) -> None:
    await put(control, **fault)
    got, data = await client.try_order("BUY", "0.1", "30000")
    assert (got, data["code"]) == (status, code)
    await control("DELETE", "/faults")
    assert await client.signed("GET", "/openOrders") == (200, [])


async def test_half_of_a_market_order_expires_in_a_thin_book(client: Client, control: Control) -> None:
    await put(control, kind="thin_book", count=3)
    before = await client.balances()
    order = await client.order("BUY", "0.00033", type="MARKET")
    assert (order["status"], order["executedQty"]) == ("EXPIRED", "0.00016000")
    order = await client.order("SELL", "0.1", type="MARKET")
    assert (order["status"], order["executedQty"]) == ("EXPIRED", "0.05000000")
    # An order with a price is none of its business, and nothing stays locked.
    resting = await client.order("BUY", "0.1", "30000")
    assert resting["status"] == "NEW"
    await client.signed("DELETE", "/openOrders", symbol="BTCUSDT")
    after = await client.balances()
    assert after["BTC"][1] == after["USDT"][1] == before["USDT"][1]
    assert (await client.order("BUY", "0.1", type="MARKET"))["status"] == "FILLED"


async def test_fault_of_one_account_leaves_the_other_alone(client: Client, other: Client, control: Control) -> None:
    await put(control, kind="unauthorized", account="acme")
    assert (await client.signed("GET", "/account"))[0] == 401
    assert (await other.signed("GET", "/account"))[0] == 200


async def test_lost_response_leaves_the_order_on_the_exchange(client: Client, control: Control) -> None:
    await put(control, kind="lost_response", path="/api/v3/order", method="POST", count=1)
    with pytest.raises(aiohttp.ClientError):
        await client.try_order("BUY", "0.1", "30000", newClientOrderId="lost-1")
    _status, orders = await client.signed("GET", "/openOrders")
    assert [item["clientOrderId"] for item in orders] == ["lost-1"]
    status, data = await client.try_order("BUY", "0.1", "30000", newClientOrderId="lost-1")
    assert (status, data["msg"]) == (400, "Duplicate order sent.")


async def test_lost_response_also_hides_a_refusal(client: Client, control: Control) -> None:
    await put(control, kind="lost_response", count=1)
    with pytest.raises(aiohttp.ClientError):
        await client.try_order("BUY", "100", "30000")


async def test_lost_request_leaves_nothing_on_the_exchange(client: Client, control: Control) -> None:
    await put(control, kind="lost_request", path="/api/v3/order", method="POST", count=1)
    with pytest.raises(aiohttp.ClientError):
        await client.try_order("BUY", "0.1", "30000")
    assert await client.signed("GET", "/openOrders") == (200, [])


async def test_outcome_unknown_is_worded_as_the_engine_expects(client: Client, control: Control) -> None:
    await put(control, kind="outcome_unknown", path="/api/v3/order", count=1)
    status, data = await client.try_order("BUY", "0.1", "30000")
    assert status == 503
    assert data["msg"] == "Unknown error, please check your request or try again later."
    assert len((await client.signed("GET", "/openOrders"))[1]) == 1


async def test_slow_answer_comes_after_the_order_is_accepted(client: Client, control: Control, server: Server) -> None:
    await put(control, kind="slow", path="/api/v3/order", seconds=300, count=1)
    pending = asyncio.create_task(client.try_order("BUY", "0.1", "30000"))
    async with asyncio.timeout(20):
        while not server.exchange.accounts["acme"].open:
            await asyncio.sleep(0.01)
    assert not pending.done()
    pending.cancel()


@pytest.mark.parametrize("kind", ["user", "market", None])
async def test_disconnect_cuts_the_websockets_asked_for(client: Client, control: Control, kind: str | None) -> None:
    user, market = await client.user_socket(), await client.market_socket("btcusdt@trade")
    _status, data = await control("POST", "/disconnect", {"kind": kind})
    assert data == {"disconnected": 2 if kind is None else 1}
    for socket, name in ((user, "user"), (market, "market")):
        if kind in (None, name):
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    again = await client.user_socket()
    await client.order("BUY", "0.1", "30000")
    assert (await receive(again, "executionReport"))["X"] == "NEW"


async def test_outage_refuses_connections_until_it_is_lifted(client: Client, control: Control) -> None:
    await client.order("BUY", "0.1", "30000")
    addresses = client.server.addresses()
    # Port 0 would come back as another port; keep the ones bound first.
    client.server.settings = _with_ports(client.server, addresses)
    socket = await client.user_socket()
    url = client.url("/api/v3/ping")
    number = await put(control, kind="outage")
    assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await client.session.get(url)
    status, health = await control("GET", "/health")
    assert (status, health["outage"]) == (200, "refuse")
    await control("DELETE", f"/faults/{number}")
    assert (await client.session.get(url)).status == 200
    assert len((await client.signed("GET", "/openOrders"))[1]) == 1


def _with_ports(server: Server, addresses: list[tuple[str, int]]) -> Any:
    return replace(server.settings, https_port=addresses[0][1], stream_port=addresses[1][1])


async def test_outage_can_answer_503(client: Client, control: Control) -> None:
    socket = await client.market_socket("btcusdt@trade")
    await put(control, kind="outage", mode="503")
    assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert (await client.public("/ping"))[0] == 503
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await client.session.ws_connect(client.url("/ws-api/v3"))
    await control("DELETE", "/faults")
    assert (await client.public("/ping"))[0] == 200


@pytest.mark.parametrize(("fault", "field"), [
    ({"kind": "nonsense"}, "kind"), ({"kind": "error", "count": 0}, "count"),
    ({"kind": "error", "count": True}, "count"),
    ({"kind": "error", "percent": 101}, "percent"), ({"kind": "error", "status": 200}, "status"),
    ({"kind": "slow", "seconds": 1e9}, "seconds"), ({"kind": "error", "path": 5}, "path"),
    ({"kind": "outage", "mode": "odd"}, "mode"), ({"kind": "error", "other": 1}, "other"),
])
async def test_wrong_fault_is_refused_by_field(control: Control, fault: dict[str, Any], field: str) -> None:
    status, data = await control("POST", "/faults", fault)
    assert status == 400
    assert data["error"].startswith(f"{field}:")
    assert (await control("GET", "/faults"))[1] == {"faults": []}


async def test_fault_of_an_unknown_account_is_refused(control: Control) -> None:
    assert (await control("POST", "/faults", {"kind": "unauthorized", "account": "nobody"}))[0] == 404
