"""The control endpoint, its command line, and that bots cannot reach it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox import control as command_line
from sandbox.config import Settings
from sandbox.server import Server
from tests.sandbox.client import KEY, SECRET, Client
from tests.sandbox.conftest import ACCOUNTS, write_accounts

Control = Callable[..., Awaitable[tuple[int, Any]]]
NEW_KEY, NEW_SECRET = "key-of-nova-0001", "secret-of-nova-0001"
NEW: dict[str, Any] = {"name": "nova", "api_key": NEW_KEY, "api_secret": NEW_SECRET, "balances": {"USDT": "100"}}


async def test_price_moves_and_reports_what_filled(client: Client, control: Control) -> None:
    placed = await client.order("BUY", "0.1", "31000")
    status, data = await control("POST", "/price", {"pair": "BTC-USDT", "price": "30900"})
    assert (status, data["price"]) == (200, "30900")
    assert [(item["order_id"], item["price"]) for item in data["fills"]] == [(placed["orderId"], "31000")]
    _status, prices = await control("GET", "/prices")
    assert prices["prices"]["BTC-USDT"]["price"] == "30900"


async def test_spread_is_scripted_with_the_price(control: Control) -> None:
    async def prices() -> tuple[str, str]:
        _status, data = await control("GET", "/prices")
        return data["prices"]["BTC-USDT"]["bid"], data["prices"]["BTC-USDT"]["ask"]

    assert (await control("POST", "/price", {"pair": "BTC-USDT", "price": "30000", "spread_bps": "200"}))[0] == 200
    assert await prices() == ("29700", "30300")
    # It stays until it is told otherwise.
    await control("POST", "/price", {"pair": "BTC-USDT", "price": "20000"})
    assert await prices() == ("19800", "20200")
    for spread in ("-1", "10000"):
        assert (await control("POST", "/price", {"pair": "BTC-USDT", "price": "30000", "spread_bps": spread}))[0] == 400
    assert await prices() == ("19800", "20200")


async def test_orders_and_fills_can_be_read_by_account_pair_and_state(
        client: Client, other: Client, control: Control) -> None:
    resting = await client.order("BUY", "0.1", "31000", newClientOrderId="mine")
    filled = await client.order("BUY", "0.01")
    await other.order("BUY", "0.1", "30000")

    async def found(query: str) -> list[int]:
        return [item["order_id"] for item in (await control("GET", f"/orders{query}"))[1]["orders"]]

    assert await found("?account=acme") == [resting["orderId"]]
    assert await found("?account=acme&state=all") == [resting["orderId"], filled["orderId"]]
    assert await found("?account=acme&state=closed&pair=BTC-USDT") == [filled["orderId"]]
    assert await found("?pair=ETH-USDT&state=all") == []
    assert len(await found("")) == 2
    _status, fills = await control("GET", "/fills?account=acme")
    assert [(item["order_id"], item["is_maker"]) for item in fills["fills"]] == [(filled["orderId"], False)]


async def test_account_shows_balances_and_neither_key_nor_secret(client: Client, control: Control) -> None:
    await client.order("BUY", "0.1", "31000")
    status, data = await control("GET", "/account/acme")
    assert status == 200
    assert data["balances"]["USDT"] == {"free": "6900.0", "locked": "3100.0", "total": "10000.0"}
    assert data["open_orders"] == 1
    everything = [data] + [(await control("GET", path))[1] for path in ("/accounts", "/stats", "/orders", "/health")]
    assert KEY not in json.dumps(everything)
    assert SECRET not in json.dumps(everything)


async def test_order_can_be_filled_in_part_and_cancelled_by_the_exchange(client: Client, control: Control) -> None:
    number = (await client.order("BUY", "0.1", "31000"))["orderId"]
    _status, data = await control("POST", "/fill", {"order_id": number, "quantity": "0.03"})
    assert data["fill"]["quantity"] == "0.03"
    _status, data = await control("POST", "/cancel", {"order_id": number})
    assert (data["order"]["status"], data["order"]["executed"]) == ("CANCELED", "0.03")
    assert (await control("POST", "/cancel", {"order_id": number}))[0] == 409


async def test_added_account_can_trade_and_survives_a_restart(
        client: Client, control: Control, settings: Settings, server: Server) -> None:
    assert (await control("POST", "/accounts", NEW))[0] == 201
    client.key, client.secret = NEW_KEY, NEW_SECRET
    assert (await client.balances())["USDT"] == ("100", "0")
    assert (await control("POST", "/accounts", NEW))[0] == 409
    assert (await control("POST", "/accounts", NEW | {"name": "nova-2"}))[0] == 409
    server.save()
    again = Server(settings)
    assert NEW_KEY in again.keys
    state_dir = settings.state_dir
    assert state_dir is not None
    assert NEW_SECRET not in (state_dir / "state.json").read_text()
    for path in state_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_closed_account_is_forgotten_and_can_be_made_again(
        client: Client, control: Control, server: Server, settings: Settings) -> None:
    await control("POST", "/accounts", NEW)
    client.key, client.secret = NEW_KEY, NEW_SECRET
    await client.order("BUY", "0.001", "31000")
    await client.order("BUY", "0.001")
    assert await control("DELETE", "/account/nova") == (200, {"closed": "nova"})
    assert (await client.signed("GET", "/account"))[0] == 401
    assert (await control("GET", "/account/nova"))[0] == 404
    assert not server.exchange.markets["BTC-USDT"].resting
    server.exchange.check_books()
    assert (await control("POST", "/accounts", NEW))[0] == 201
    assert await client.balances() == {"USDT": ("100", "0")}
    status, data = await control("DELETE", "/account/acme")
    assert (status, "accounts file" in data["error"]) == (409, True)


async def test_reload_takes_new_accounts_in_and_closes_those_that_left(
        client: Client, other: Client, control: Control, settings: Settings) -> None:
    await client.order("BUY", "0.1", "31000")
    assert settings.accounts_file is not None
    write_accounts(settings.accounts_file, [ACCOUNTS[1], NEW])
    assert await control("POST", "/accounts/reload") == (200, {"active": ["nova", "zeta"], "closed": ["acme"]})
    assert (await client.signed("GET", "/account"))[0] == 401
    assert (await other.signed("GET", "/account"))[0] == 200
    assert (await control("GET", "/account/acme"))[1]["open_orders"] == 1
    client.key, client.secret = NEW_KEY, NEW_SECRET
    assert (await client.signed("GET", "/account"))[0] == 200


async def test_damaged_accounts_file_changes_nothing(client: Client, control: Control, settings: Settings) -> None:
    assert settings.accounts_file is not None
    write_accounts(settings.accounts_file, [{**ACCOUNTS[0], "api_secret": "short"}])
    status, data = await control("POST", "/accounts/reload")
    assert status == 400
    assert "api_secret" in data["error"]
    assert "short" not in data["error"].replace("api_secret", "")
    assert (await client.signed("GET", "/account"))[0] == 200


async def test_changed_secret_ends_the_old_one_and_its_stream(
        client: Client, control: Control, settings: Settings) -> None:
    socket = await client.user_socket()
    assert settings.accounts_file is not None
    write_accounts(settings.accounts_file, [{**ACCOUNTS[0], "api_secret": "secret-of-acme-0002"}, ACCOUNTS[1]])
    await control("POST", "/accounts/reload")
    assert (await socket.receive()).data is None
    assert (await client.signed("GET", "/account"))[1]["code"] == -1022
    client.secret = "secret-of-acme-0002"
    assert (await client.balances())["USDT"] == ("10000", "0")


async def test_deposit_and_withdrawal(control: Control) -> None:
    await control("POST", "/account/acme/deposit", {"balances": {"USDT": "500", "ETH": "2"}})
    status, data = await control("POST", "/account/acme/deposit", {"balances": {"USDT": "10000"}, "withdraw": True})
    assert (status, data["balances"]["USDT"]["free"], data["balances"]["ETH"]["free"]) == (200, "500", "2")
    assert (await control("POST", "/account/acme/deposit", {"balances": {"USDT": "501"}, "withdraw": True}))[0] == 409


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("GET", "/nothing", None, 404), ("GET", "/account/nobody", None, 404), ("GET", "/orders?account=nobody", None, 404),
    ("GET", "/orders?state=odd", None, 400), ("GET", "/orders?what=1", None, 400), ("POST", "/price", {}, 400),
    ("POST", "/price", {"pair": "BTC-USDT", "price": 0.1}, 400), ("POST", "/price", {"pair": "X", "price": "1"}, 404),
    ("POST", "/price", {"pair": ["BTC-USDT"], "price": "1"}, 400), ("POST", "/price", [], 400),
    ("POST", "/price", {"pair": "BTC-USDT", "price": "NaN"}, 400),
    ("POST", "/price", {"pair": "BTC-USDT", "price": "1e9999"}, 400),
    ("POST", "/price", {"pair": "BTC-USDT", "price": "31000", "more": 1}, 400),
    ("POST", "/fill", {"order_id": "1"}, 400), ("POST", "/fill", {"order_id": 99}, 404),
    ("POST", "/accounts", {"name": "x"}, 400), ("POST", "/accounts", NEW | {"name": "../x"}, 400),
    ("POST", "/accounts", NEW | {"balances": {"USDT": "-1"}}, 400), ("DELETE", "/faults/9", None, 404),
    ("POST", "/disconnect", {"kind": "odd"}, 400),
])
async def test_wrong_control_requests_get_a_sentence(
        control: Control, method: str, path: str, body: Any, status: int) -> None:
    got, data = await control(method, path, body)
    assert got == status, data
    assert data["error"]
    assert "Traceback" not in data["error"]


# --- isolation ---

CONTROL_PATHS = ("/health", "/prices", "/price", "/orders", "/fill", "/cancel", "/fills", "/accounts",
                 "/accounts/reload", "/account/acme", "/account/acme/deposit", "/stats", "/faults", "/faults/1",
                 "/disconnect")


@pytest.mark.parametrize("market", [False, True])
async def test_control_paths_do_not_exist_on_the_public_ports(client: Client, server: Server, market: bool) -> None:
    for path in CONTROL_PATHS:
        for method in ("GET", "POST", "DELETE"):
            async with client.session.request(method, client.url(path, market=market), json={
                    "pair": "BTC-USDT", "price": "1", "kind": "outage"}) as response:
                assert response.status in (404, 405), (method, path)
    assert str(server.exchange.markets["BTC-USDT"].price) == "32000"
    assert not server.faults.faults


async def test_control_socket_belongs_to_its_owner_alone(server: Server, settings: Settings) -> None:
    mode = settings.control_socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


# --- command line ---


async def run(settings: Settings, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line in a thread, for the server runs in this one."""
    code = await asyncio.to_thread(command_line.main, ["--socket", str(settings.control_socket), *arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


async def test_every_command_prints_a_table_and_json(
        client: Client, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    account = tmp_path / "nova.json"
    account.write_text(json.dumps(NEW))
    first = (await client.order("BUY", "0.1", "31000", newClientOrderId="mine"))["orderId"]
    for arguments, shown in (
        (["health"], "1.0.0"), (["prices"], "31996.8"), (["orders", "--account", "acme"], "mine"),
        (["fill", str(first), "0.01"], "maker"), (["fills"], "0.01"), (["cancel", str(first)], "CANCELED"),
        (["orders"], "no orders"), (["price", "BTC-USDT", "30000"], "BTC-USDT is at 30000"),
        (["add-account", str(account)], "nova"), (["deposit", "nova", "BTC", "1"], "BTC"),
        (["withdraw", "nova", "BTC", "1"], "BTC"), (["accounts"], "zeta"), (["account", "nova"], "nova"),
        (["reload"], "nova"), (["close-account", "nova"], "nova"),
        (["fault", "error", "--count", "3", "--path", "/api/v3/ping"], "/api/v3/ping"),
        (["faults"], "error"), (["clear"], "error"), (["faults"], "no faults"), (["disconnect"], "disconnected"),
        (["price", "BTC-USDT", "30000", "--spread-bps", "3"], "BTC-USDT is at 30000"),
        (["stats", "--reset"], "POST /api/v3/order"), (["stats"], "0 requests"),
    ):
        code, out, error = await run(settings, capsys, *arguments)
        assert (code, error) == (0, ""), arguments
        assert shown in out, (arguments, out)
    for arguments in (["health"], ["prices"], ["orders"], ["fills"], ["accounts"], ["stats"], ["faults"]):
        code, out, _error = await run(settings, capsys, *arguments, "--json")
        assert code == 0
        assert isinstance(json.loads(out), dict)


async def test_refusal_is_a_sentence_and_exit_code_1(
        settings: Settings, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, _out, error = await run(settings, capsys, "price", "BTC-EUR", "1")
    assert code == 1
    assert error == "The pair 'BTC-EUR' is not traded here; traded are BTC-USDT, ETH-USDT.\n"


async def test_unreachable_exchange_is_exit_code_3(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, _out, error = await run(settings, capsys, "health")
    assert code == 3
    assert str(settings.control_socket) in error
