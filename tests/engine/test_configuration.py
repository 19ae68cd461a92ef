"""The real engine takes the client configuration and the market making strategy that are rendered for it."""

from __future__ import annotations

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    DocumentError,
    bot_context,
    parse_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import engine_client_config

from tests import factories
from tests.engine.harness import PATIENCE_SECONDS, engine_image

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("configuration_probe.py")
MAKER = TEMPLATES["pure_market_making"]
CONFIG = {
    "bid_spread": "0.25",
    "ask_spread": 0.75,
    "order_amount": "0.000123",
    "order_refresh_time": "12.5",
    "order_levels": 3,
    "order_level_spread": "0.4",
    "order_level_amount": "-0.00001",
    "price_ceiling": 250000,
    "price_floor": 10000,
    "price_type": "best_bid",
    "ping_pong_enabled": True,
    "inventory_skew_enabled": True,
    "hanging_orders_enabled": True,
}


NUMBERS = [
    "", "abc", "nan", "inf", "-inf", "-1000", "-100.1", "-100", "-10.1", "-2", "-1", "-0.5", "-0.000000000001", "0",
    "0.000000000001", "0.5", "1", "1.5", "9.99", "10", "10.1", "50", "99.999", "100", "100.1", "1e3", "1000000",
]  # fmt: skip
WORDS = ["", "abc", "0", "1", "2", "true", "false", "yes", "no", "y", "True", "mid_price", "custom", "inventory_cost"]
CONNECTORS = [*factories.catalogue().connectors, "ftx", "", "binance_paper_trade"]
CANDIDATES = {
    name: NUMBERS if field.type in ("decimal", "integer") else WORDS for name, field in MAKER.fields.items()
} | {"exchange": CONNECTORS}


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    bots = [factories.grid_bot(), factories.market_making_bot(trading_pair="BTC-USDT", strategy_config=CONFIG)]
    document = parse_document(factories.document(bots=bots), factories.catalogue())
    contexts = [bot_context(document, bot, factories.catalogue()) for bot in document.bots]
    request = {
        "clients": [engine_client_config(context) for context in contexts],
        "strategy": MAKER.engine_files(contexts[1])["strategies/mm1.yml"],
        "candidates": CANDIDATES,
    }
    command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--cap-drop=ALL"]
    command += ["--volume", f"{PROBE}:/probe.py:ro", "--workdir=/tmp", "--env=HOME=/tmp", "--entrypoint=sh"]
    command += [engine_image(), "-c", "PATH=/opt/hummingbot/bin:$PATH exec python /probe.py"]
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_client_configuration_has_only_keys_the_engine_knows(answer: dict[str, Any]) -> None:
    assert [client["instance_id"] for client in answer["clients"]] == ["acme.b1", "acme.mm1"]
    for client in answer["clients"]:
        assert client["metrics"] == "AnonymizedMetricsDisabledMode"
        assert (client["rate_oracle"], client["share"], client["send_error_logs"]) == ("binance", "50", False)
        assert client["paper_trade_exchanges"] == []


def test_the_kill_switch_is_on_where_it_is_asked_for_and_off_elsewhere(answer: dict[str, Any]) -> None:
    switches = [(client["kill_switch"], client["kill_switch_rate"]) for client in answer["clients"]]
    assert switches == [("KillSwitchDisabledMode", ""), ("KillSwitchEnabledMode", "-5")]


def test_the_engine_takes_every_value_of_the_strategy_unchanged(answer: dict[str, Any]) -> None:
    taken = answer["strategy"]["values"]
    parsed = bot_values()
    for name, value in parsed.items():
        if isinstance(value, Decimal):
            assert Decimal(taken[name]) == value, name
        else:
            assert taken[name] == str(value), name
    assert (taken["exchange"], taken["market"], taken["price_source"]) == ("binance", "BTC-USDT", "current_market")


def test_the_engine_has_no_complaint_and_rewrites_nothing(answer: dict[str, Any]) -> None:
    strategy = answer["strategy"]
    assert strategy["complaints"] == []
    assert strategy["verdicts"] == {}
    assert not strategy["rewritten"]


def test_the_strategy_file_names_every_variable_of_the_engine(answer: dict[str, Any]) -> None:
    """A field that a new engine adds must be decided about, not left to its default."""
    document = parse_document(factories.market_making_document(), factories.catalogue())
    text = MAKER.engine_files(bot_context(document, document.bots[0], factories.catalogue()))["strategies/mm1.yml"]
    written = {line.partition(":")[0] for line in text.splitlines()} - {"template_version"}
    assert written == set(answer["strategy"]["values"])


@pytest.mark.parametrize("name", MAKER.fields)
def test_what_the_engine_refuses_for_a_field_is_refused_by_us(answer: dict[str, Any], name: str) -> None:
    """The engine itself would go on with a value it refused and say that it started successfully."""
    refused = answer["refused"][name]
    assert refused, "no candidate shows what the engine refuses"
    for text in refused:
        for value in (text, as_number(text)):
            assert f"/bots/0/strategy_config/{name}" in faults(name, value), (name, value)


def test_a_connector_the_engine_refuses_for_the_strategy_is_refused_by_us(answer: dict[str, Any]) -> None:
    connectors = factories.catalogue().connectors
    taken = set(CONNECTORS) - set(answer["refused"]["exchange"])
    assert {name for name, connector in connectors.items() if connector.kind == "spot"} <= taken
    assert "ftx" not in taken


def as_number(text: str) -> Any:
    """The JSON number or switch that the text stands for; the text itself where there is none."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def faults(name: str, value: Any) -> set[str]:
    """The pointers of what we refuse about a market maker with this value."""
    bot = factories.market_making_bot()
    bot["strategy_config"][name] = value
    try:
        parse_document(factories.document(bots=[bot]), factories.catalogue())
    except DocumentError as error:
        return {fault.pointer for fault in error.faults}
    return set()


def bot_values() -> dict[str, Any]:
    """The strategy's parsed values, defaults included."""
    bot = factories.market_making_bot(trading_pair="BTC-USDT", strategy_config=CONFIG)
    return dict(parse_document(factories.document(bots=[bot]), factories.catalogue()).bots[0].strategy_config)
