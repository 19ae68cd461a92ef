"""docs/signals.md: its examples work as they stand there, and its codes are those there are."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import factories
from webhook import signals
from webhook.app import create_app
from webhook.installation import Installation
from webhook.metrics import SIGNAL_OUTCOMES
from webhook.signal_bus import Ack

TEXT = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()


class _Bus:
    def listen(self, late: Any) -> None:
        pass

    def check(self, node: str) -> None:
        pass

    def send(self, node: str, instance: str, message: Any, seconds: float) -> Ack:
        return Ack(True, "accepted", "")


@pytest.fixture
def app(web_installation: Installation) -> Any:
    """The service with bots that take everything."""
    return create_app(web_installation, bus=_Bus())


@pytest.fixture
def token(portal: Any) -> dict[str, Any]:
    """A token of bot ``s1``."""
    bots = [factories.signal_bot(state="running")]
    data = factories.document(exchange_connections=[factories.connection()], bots=bots)
    portal.accepted({"type": "tenant.created", "timestamp": "2026-11-23T05:00:00Z", "data": data})
    made: dict[str, Any] = portal.post("/v1/tenants/acme/bots/s1/signal-token", "portal").json
    return made


def test_the_alert_is_accepted_as_tradingview_fills_it_in(portal: Any, token: dict[str, Any]) -> None:
    (message,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    values = {
        "ticker": "BTCUSDT",
        "interval": "5",
        "timenow": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "strategy.order.id": "Long entry №1",
        "strategy.order.action": "buy",
    }
    filled = re.sub(r"\{\{(.*?)\}\}", lambda found: values[found[1]], message).replace("hfs_…", token["token"])
    answer = portal.client.post("/v1/signals", data=filled.encode(), content_type="text/plain; charset=utf-8")
    assert answer.status_code == 202, answer.text


def test_the_signing_example_is_accepted(portal: Any, token: dict[str, Any]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "signals.md", "exec"), names)
    signal = {"bot": "s1", "action": "sell", "size_quote": 50, "sent_at": time.time()}
    headers, body = names["signal_request"](token["id"], token["signing_secret"], "msg_1", signal)
    answer = portal.client.post("/v1/signals", data=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert token["token"].split("_")[1] == token["id"]


def test_every_field_and_every_code_is_listed() -> None:
    fields = re.findall(r"^\| `(\w+)` \| ", TEXT.partition("## The fields")[2].partition("\n## ")[0], re.MULTILINE)
    assert fields == list(signals.BODY_SCHEMA["properties"])
    listed = TEXT.partition("Why a bot does not trade")[2].partition("\n## ")[0]
    codes = {
        code
        for line in listed.splitlines()
        for code in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    no_refusals = {"duplicate", "stale", "accepted", "unknown", "no_broker", "broker_unreachable"}
    assert codes == SIGNAL_OUTCOMES - no_refusals
    answers = TEXT.partition("## What the answers mean")[2]
    for code in ("no_broker", "broker_unreachable", "busy"):
        assert f"`{code}`" in answers
