"""The market making template: at least as strict as the engine's own validators, every field written out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.document import bot_context, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, engine_client_config

from tests import factories
from tests.unit.plugins.module_utils.test_fields import check_range

MAKER = TEMPLATES["pure_market_making"]

RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "bid_spread": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "ask_spread": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "order_amount": (["0.000000000001", "1000000000"], ["0", "-1", "1000000000.1"]),
    "order_refresh_time": (["1", "86400"], ["0", "0.9", "86400.1"]),
    "order_levels": ([1, 50], [0, -1, 51]),
    "order_level_spread": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "order_level_amount": (["-1000000000", "1000000000"], ["-1000000000.1", "1000000000.1"]),
    "minimum_spread": (["-100", "100"], ["-100.1", "100.1"]),
    "max_order_age": (["1", "604800"], ["0", "0.9", "604800.1"]),
    "order_refresh_tolerance_pct": (["-10", "10"], ["-10.1", "10.1"]),
    "filled_order_delay": (["1", "86400"], ["0", "0.9", "86400.1"]),
    "price_ceiling": (["-1", "1000000000"], ["-1.1", "1000000000.1"]),
    "price_floor": (["-1", "1000000000"], ["-1.1", "1000000000.1"]),
    "price_type": (
        ["mid_price", "last_price", "last_own_trade_price", "best_bid", "best_ask"],
        ["inventory_cost", "custom", "", "MID_PRICE", 1],
    ),
    "ping_pong_enabled": ([True, False], [0, 1, "true", None]),
    "add_transaction_costs": ([True, False], [0, 1, "true", None]),
    "hanging_orders_enabled": ([True, False], [0, 1, "true", None]),
    "hanging_orders_cancel_pct": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "inventory_skew_enabled": ([True, False], [0, 1, "true", None]),
    "inventory_target_base_pct": (["0", "100"], ["-0.1", "100.1"]),
    "inventory_range_multiplier": (["0.000000000001", "1000000"], ["0", "-1", "1000000.1"]),
    "kill_switch_pct": (["0.000000000001", "100"], ["0", "-5", "100.1"]),
}


def context(**config: Any) -> BotContext:
    bot = factories.market_making_bot()
    bot["strategy_config"] |= config
    document = parse_document(factories.document(bots=[bot]), factories.catalogue())
    return bot_context(document, document.bots[0], factories.catalogue())


@pytest.mark.parametrize("name", RANGES)
def test_every_field_has_its_range(name: str) -> None:
    check_range({**MAKER.fields, **MAKER.limits}[name], *RANGES[name])


def test_every_field_is_in_the_table_of_ranges() -> None:
    assert list(RANGES) == [*MAKER.fields, *MAKER.limits]
    assert not any(field.live for field in MAKER.fields.values())
    assert [name for name, field in {**MAKER.fields, **MAKER.limits}.items() if field.required] == [
        "bid_spread",
        "ask_spread",
        "order_amount",
        "order_refresh_time",
        "kill_switch_pct",
    ]


def test_the_strategy_file_has_every_field_in_the_engines_units() -> None:
    text = MAKER.engine_files(context(bid_spread="0.50", order_levels=3))["strategies/mm1.yml"]
    assert text.startswith(
        'template_version: 24\nstrategy: "pure_market_making"\nexchange: "binance"\nmarket: "ETH-USDT"\n'
        "bid_spread: 0.5\nask_spread: 0.5\norder_amount: 0.05\norder_refresh_time: 30\norder_levels: 3\n"
    )
    loaded = yaml.safe_load(text)
    assert set(MAKER.fields) < set(loaded)
    assert loaded["price_ceiling"] == loaded["price_floor"] == -1
    assert loaded["price_source"] == "current_market"
    assert loaded["order_override"] is None
    assert len(loaded) == 46


def test_equal_configurations_give_equal_bytes() -> None:
    first = context(ping_pong_enabled=True, order_levels=2)
    second = context(order_levels="2", ping_pong_enabled=True)
    assert MAKER.engine_files(first) == MAKER.engine_files(second)
    assert engine_client_config(first) == engine_client_config(second)


def test_the_kill_switch_is_a_loss_limit() -> None:
    """A positive rate would stop the bot at a profit and let losses run."""
    loaded = yaml.safe_load(engine_client_config(context()))
    assert loaded["kill_switch_mode"] == {"kill_switch_rate": -5}


def test_text_that_is_not_ascii_cannot_reach_an_engine_file() -> None:
    with pytest.raises(ValueError, match="ASCII"):
        MAKER.engine_files(dataclasses.replace(context(), trading_pair="BTC-ÜSDT"))
