"""The engine's own Binance connector, unmodified, trades on the sandbox exchange over an internal network."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.engine.harness import PATIENCE_SECONDS, Sandbox, docker, engine_image, wait_for

pytestmark = pytest.mark.engine
PROBE = Path(__file__).with_name("connector_probe.py")
Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox exchange in a container."""
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
    sandbox.start()
    yield sandbox
    sandbox.remove()


@pytest.fixture
def connector(sandbox: Sandbox) -> Iterator[Ask]:
    """`connector(command)`: what the probe answers; see connector_probe.py."""
    key, secret = sandbox.add_account("probe", {"USDT": "10000"}, fee="0.001")
    sandbox.set_price("35250")
    name = f"{sandbox.name}-probe"
    process = subprocess.Popen(
        ["docker", "run", "--rm", "--interactive", "--name", name, "--network", sandbox.network,
         "--volume", f"{sandbox.ca_path}:/ca.pem:ro", "--env", "SSL_CERT_FILE=/ca.pem",
         "--volume", f"{PROBE}:/probe.py:ro", "--workdir", "/tmp", "--entrypoint", "", engine_image(),
         "python", "/probe.py"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    watchdog = threading.Timer(PATIENCE_SECONDS, lambda: docker("kill", name, check=False))
    watchdog.start()

    def ask(command: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "".join(log[-40:])
        return dict(json.loads(line))

    try:
        answer = ask(json.dumps([key, secret]))
        assert Decimal(answer["balances"]["USDT"]) == 10000
        yield ask
    finally:
        watchdog.cancel()
        docker("rm", "--force", name, check=False)
        process.communicate()
        reader.join(5)


def test_connector_places_fills_and_cancels(sandbox: Sandbox, connector: Ask) -> None:
    resting = connector("buy 0.01 30000")["order"]
    connector(f"wait BuyOrderCreated {resting}")
    assert sandbox.resting("probe", "BUY") == [(Decimal(30000), Decimal("0.01"))]

    taken = connector("market 0.001")["order"]
    fill = connector(f"wait OrderFilled {taken}")
    assert (Decimal(fill["price"]), Decimal(fill["amount"])) == (Decimal("35253.53"), Decimal("0.001"))

    crossed = connector("buy 0.01 34000")["order"]
    connector(f"wait BuyOrderCreated {crossed}")
    sandbox.set_price("33900")
    fill = connector(f"wait OrderFilled {crossed}")
    assert Decimal(fill["price"]) == 34000

    connector(f"cancel {resting}")
    connector(f"wait OrderCancelled {resting}")
    assert sandbox.orders("probe") == []

    # A fill that happens while the user stream is cut is found by the connector's own query.
    missed = connector("buy 0.01 33000")["order"]
    connector(f"wait BuyOrderCreated {missed}")
    sandbox.control.request("POST", "/disconnect", {"kind": "user", "account": "probe"})
    sandbox.control.request("POST", "/fill", {"order_id": sandbox.orders("probe")[0]["order_id"]})
    connector(f"wait BuyOrderCompleted {missed}")

    balances = connector(f"wait BuyOrderCompleted {missed}")["balances"]
    assert sandbox.balances("probe")["BTC"] == Decimal("0.021") * Decimal("0.999")
    assert set(balances) == {"BTC", "USDT"}
    stats = wait_for("statistics of the account", lambda: sandbox.control.get("/stats")["accounts"].get("probe"))
    assert stats["bad_signatures"] == 0
    assert stats["signed"] >= 6
