"""What survives a restart, and what happens to a state that cannot be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.server import Server
from tests.sandbox.client import KEY, SECRET, Client
from tests.sandbox.conftest import PAIRS


async def test_restart_keeps_orders_balances_fills_and_prices(
        settings: Settings, session: aiohttp.ClientSession) -> None:
    first = Server(settings)
    await first.start()
    client = Client(first, session)
    await client.order("BUY", "0.1", "31000", newClientOrderId="stays")
    await client.order("BUY", "0.01", newClientOrderId="filled")
    before = await client.balances()
    await first.stop()

    second = Server(settings)
    await second.start()
    client = Client(second, session)
    assert await client.balances() == before
    assert [item["clientOrderId"] for item in (await client.signed("GET", "/openOrders"))[1]] == ["stays"]
    assert len((await client.signed("GET", "/myTrades", symbol="BTCUSDT"))[1]) == 1
    assert (await client.order("BUY", "0.01", "30000"))["orderId"] == 3
    await second.stop()
    second.exchange.check_books()


async def test_saved_state_names_neither_key_nor_secret(settings: Settings, session: aiohttp.ClientSession) -> None:
    server = Server(settings)
    await server.start()
    await Client(server, session).order("BUY", "0.1", "31000")
    await server.stop()
    assert settings.state_dir is not None
    text = "".join(path.read_text() for path in settings.state_dir.iterdir())
    assert "acme" in text
    assert KEY not in text
    assert SECRET not in text


def _damage_amount(data: dict[str, Any]) -> None:
    data["accounts"]["acme"]["balances"]["USDT"][0] = "1"


def _damage_order(data: dict[str, Any]) -> None:
    data["accounts"]["acme"]["orders"] = [[1, 2]]


@pytest.mark.parametrize("damage", [
    lambda data: data.update(version=99), lambda data: data.pop("accounts"), _damage_amount, _damage_order,
    lambda data: data.update(markets=[]),
])
async def test_damaged_state_is_refused_in_words(settings: Settings, damage: Any) -> None:
    server = Server(settings)
    server._changed = True
    server.save()
    assert settings.state_dir is not None
    path = settings.state_dir / "state.json"
    data = json.loads(path.read_text())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="remove the state file"):
        Server(settings)


def test_process_saves_on_sigterm_reloads_on_sighup_and_logs_no_secret(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "sandbox.json"
    config.write_text(json.dumps({
        "host": "127.0.0.1", "https_port": 0, "stream_port": 0, "control_socket": str(settings.control_socket),
        "accounts_file": str(settings.accounts_file), "state_dir": str(settings.state_dir), "pairs": PAIRS}))
    process = subprocess.Popen([sys.executable, "-m", "sandbox", "--config", str(config)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               cwd=Path(__file__).parents[2], env=dict(os.environ))
    lines = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "sandbox ready" in line:
                process.send_signal(signal.SIGHUP)
            if "accounts:" in line and any("sandbox ready" in earlier for earlier in lines):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert sum("accounts: 2 active" in line for line in lines) == 2
    assert "stopped" in lines[-1]
    text = "".join(lines)
    assert KEY not in text
    assert SECRET not in text
    assert settings.state_dir is not None
    assert (settings.state_dir / "state.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"odd": 1}', '{"accounts_file": "/nonexistent/file"}'])
def test_unusable_configuration_ends_with_code_2_and_a_sentence(tmp_path: Path, content: str) -> None:
    config = tmp_path / "sandbox.json"
    config.write_text(content)
    done = subprocess.run([sys.executable, "-m", "sandbox", "--config", str(config), "--check"], text=True,
                          capture_output=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert "ERROR" in done.stdout
