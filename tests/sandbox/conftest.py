"""A running sandbox exchange without TLS on free ports of this machine, and clients of two accounts."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox.config import Settings, parse_settings
from sandbox.server import Server
from tests.sandbox.client import KEY, OTHER_KEY, OTHER_SECRET, SECRET, Client

PAIRS = {
    "BTC-USDT": {"price": "32000", "tick": "0.01", "lot": "0.00001", "min_notional": "5", "spread_bps": "2"},
    "ETH-USDT": {"price": "2500", "tick": "0.01", "lot": "0.0001", "min_notional": "5"},
}
ACCOUNTS = [
    {"name": "acme", "api_key": KEY, "api_secret": SECRET, "balances": {"USDT": "10000", "BTC": "0.5"}},
    {"name": "zeta", "api_key": OTHER_KEY, "api_secret": OTHER_SECRET, "balances": {"USDT": "10000", "BTC": "0.5"}},
]


def write_accounts(path: Path, accounts: list[dict[str, Any]]) -> None:
    """An accounts file as the server wants it."""
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({"accounts": accounts}), encoding="utf-8")
    path.chmod(0o400)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Free ports, state and accounts in a temporary folder."""
    write_accounts(tmp_path / "accounts.json", ACCOUNTS)
    (tmp_path / "state").mkdir()
    return parse_settings({
        "host": "127.0.0.1", "https_port": 0, "stream_port": 0, "control_socket": str(tmp_path / "control.sock"),
        "accounts_file": str(tmp_path / "accounts.json"), "state_dir": str(tmp_path / "state"), "pairs": PAIRS,
    })


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    """A started server; its books must balance in the end."""
    server = Server(settings)
    await server.start()
    yield server
    await server.stop()
    server.exchange.check_books()


@pytest.fixture(autouse=True)
def no_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A client's mistakes must not look like the server's; a test that breaks the server clears the log."""
    yield
    assert [record for record in caplog.records if record.exc_info and record.levelno >= logging.WARNING] == []


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def client(server: Server, session: aiohttp.ClientSession) -> Client:
    """The account acme."""
    return Client(server, session)


@pytest.fixture
def other(server: Server, session: aiohttp.ClientSession) -> Client:
    """The account zeta."""
    return Client(server, session, OTHER_KEY, OTHER_SECRET)


@pytest.fixture
async def control(settings: Settings, server: Server) -> AsyncIterator[Callable[..., Any]]:
    """`await control(method, path, body)`: status and answer of the control endpoint."""
    connector = aiohttp.UnixConnector(str(settings.control_socket))
    async with aiohttp.ClientSession(connector=connector) as session:
        async def request(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            async with session.request(method, f"http://sandbox{path}", json=body) as response:
                return response.status, await response.json()
        yield request
