"""A tenant's daily loss limit with the real engine: two bots lose, the worker's look stops both, and none starts."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError

from sandbox.control import ControlClient
from tests.engine.harness import wait_for
from tests.factories import document, grid_bot
from tests.installation import CAUSE, Installation, docker
from webhook import changes
from webhook.installation import Installation as Here
from webhook.worker import Worker

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TENANT = "hfrisk-acme"
BOTS = ("b1", "b2")
LIMIT = 45


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="hfrisk-", dir="/var/tmp"))
    made = Installation(folder, prefix="hfrisk-", pool="10.187.0.0/20", images={}, uid_start=390_000)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def exchange(installation: Installation) -> ControlClient:
    """The exchange, with both bots trading on it at 33,900."""
    control = installation.start_sandbox()
    key, secret = secrets.token_hex(32), secrets.token_hex(32)
    control.request(
        "POST", "/accounts", {"name": TENANT, "api_key": key, "api_secret": secret, "balances": {"USDT": "20000"}}
    )
    price(control, 33900)
    risk = {"max_position": 1000, "max_daily_loss": 900}
    installation.submit(
        document(
            tenant=TENANT,
            subdomain=TENANT,
            risk={"max_daily_loss_usd": LIMIT},
            exchange_connections=[installation.connection(TENANT, api_key=key, api_secret=secret)],
            bots=[grid_bot(id=bot, risk_config=risk) for bot in BOTS],
        )
    )
    run = installation.converge()
    assert run.code == 0, run.output
    return control


def price(control: ControlClient, value: int) -> None:
    control.request("POST", "/price", {"pair": "BTC-USDT", "price": str(value)})


def orders(control: ControlClient) -> list[Any]:
    found: list[Any] = control.get(f"/orders?account={TENANT}&state=open")["orders"]
    return found


def reports(installation: Installation) -> list[dict[str, Any]]:
    """What the bots' heartbeats say of their day."""
    folder = installation.base_dir / "tenants" / TENANT / "bots"
    return [json.loads((folder / bot / "data" / "heartbeat.json").read_text())["risk"] or {} for bot in BOTS]


def lost(installation: Installation) -> Decimal:
    return -sum((Decimal(one.get("day_pnl", "0")) for one in reports(installation)), Decimal(0))


def running() -> set[str]:
    names = docker("ps", "--format", "{{.Names}}").splitlines()
    return {bot for bot in BOTS if f"{TENANT}-bot_{bot}" in names}


def test_what_both_bots_lose_stops_both_for_the_day(installation: Installation, exchange: ControlClient) -> None:
    here = Here(installation.fleet_path)
    worker = Worker(here)
    wait_for("eight buys of each bot rest", lambda: len(orders(exchange)) == 16)

    price(exchange, 32400)
    wait_for("a little is lost", lambda: 2 < lost(installation) < LIMIT)
    worker._look(None)
    stored = here.registry.get(TENANT)
    assert [bot["state"] for bot in stored.document["bots"]] == ["running", "running"]
    assert "risk_halt" not in stored.document

    price(exchange, 30600)
    wait_for("too much is lost", lambda: lost(installation) > LIMIT)
    assert all(Decimal(one["day_pnl"]) > -LIMIT for one in reports(installation)), "no bot loses the limit alone"
    worker._look(None)
    stored = here.registry.get(TENANT)
    assert [bot["state"] for bot in stored.document["bots"]] == ["stopped", "stopped"]
    halt = stored.document["risk_halt"]
    assert (halt["day"], halt["threshold"]) == (reports(installation)[0]["day"], LIMIT)
    assert LIMIT <= halt["value"] < 2 * LIMIT
    assert here.registry.history(TENANT)[-1].cause.kind == "risk_halt"

    run = installation.converge()
    assert run.code == 0, run.output
    assert running() == set()
    assert orders(exchange) == []
    worker._look(None)
    assert here.registry.get(TENANT).revision == stored.revision, "it is halted once"
    with pytest.raises(DocumentError, match=r"tenant's bots lost .* US dollars on"):
        here.registry.change(
            TENANT,
            changes.set_bot_state("b1", "running"),
            cause=CAUSE,
            fleet=here.fleet,
            catalogue=here.catalogue,
        )

