"""The grid template: its levels, its ranges, its engine files."""

from __future__ import annotations

import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules
from ansible_collections.hummingfleet.core.plugins.module_utils.document import bot_context, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, engine_client_config
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.grid import GridConfig, levels
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import factories

BTC = factories.catalogue().exchanges["binance"].pairs["BTC-USDT"]


def config(lower: Any, upper: Any, count: int, amount: Any) -> GridConfig:
    return GridConfig(Decimal(lower), Decimal(upper), count, Decimal(amount))


def context(**overrides: Any) -> BotContext:
    document = parse_document(factories.grid_document(**overrides), factories.catalogue())
    return bot_context(document, document.bots[0], factories.catalogue())


def test_the_portals_example_has_ten_levels_that_end_at_the_upper_bound() -> None:
    result = levels(config(30000, 35000, 10, 100), BTC)
    assert [level.buy_price for level in result] == [30000 + 500 * i for i in range(10)]
    assert [level.sell_price for level in result] == [30500 + 500 * i for i in range(10)]
    assert [str(level.amount) for level in result[:2]] == ["0.00333", "0.00327"]
    assert [level.index for level in result] == list(range(10))


def test_lines_between_ticks_are_rounded_down_and_the_last_is_the_bound() -> None:
    result = levels(config(10, 20, 3, 100), BTC)
    assert [level.buy_price for level in result] == [10, Decimal("13.33"), Decimal("16.66")]
    assert [level.sell_price for level in result] == [Decimal("13.33"), Decimal("16.66"), 20]


@settings(max_examples=200, deadline=None)
@given(
    lower=st.integers(1, 10**9),
    span=st.integers(200, 10**9),
    count=st.integers(2, 200),
    amount=st.integers(1, 10**6),
    tick=st.sampled_from(["0.01", "0.00001", "1", "0.5"]),
    lot=st.sampled_from(["0.00001", "1", "0.1"]),
)
def test_levels_are_exact_and_join_up(lower: int, span: int, count: int, amount: int, tick: str, lot: str) -> None:
    """Against exact fractions: the line's place rounded down to the tick, the amount rounded down to the lot."""
    step = Decimal(tick)
    rules = PairRules("A-B", "A", "B", step, Decimal(lot), Decimal(lot), Decimal(1))
    grid = config(lower * step, (lower + span) * step, count, amount)
    result = levels(grid, rules)
    assert len(result) == count
    assert result[0].buy_price == grid.lower_bound
    assert result[-1].sell_price == grid.upper_bound
    for i, level in enumerate(result):
        exact = Fraction(lower) + Fraction(span * i, count)
        assert Fraction(level.buy_price) == (exact // 1) * Fraction(step)
        assert level.buy_price < level.sell_price
        assert Fraction(level.amount) == Fraction(amount) / Fraction(level.buy_price) // Fraction(lot) * Fraction(lot)
        assert i == 0 or level.buy_price == result[i - 1].sell_price


@settings(max_examples=100, deadline=None)
@given(lower=st.integers(1000, 10**7), span=st.integers(200, 10**7), count=st.integers(2, 200))
def test_the_agent_in_the_bot_computes_the_same_levels(lower: int, span: int, count: int) -> None:
    sys.path.insert(0, str(factories.ROOT / "agent"))
    try:
        from hummingfleet_agent import grid_plan  # no package of the control node
    finally:
        sys.path.pop(0)
    grid = config(Decimal(lower) / 100, Decimal(lower + span) / 100, count, 1_000_000)
    theirs = grid_plan.plan_levels(
        grid_plan.GridSettings(grid.lower_bound, grid.upper_bound, count, grid.order_amount),
        grid_plan.MarketRules(BTC.tick, BTC.lot, BTC.min_amount, BTC.min_notional),
    )
    ours = levels(grid, BTC)
    assert [(x.index, x.buy_price, x.sell_price, x.amount) for x in theirs] == [
        (x.index, x.buy_price, x.sell_price, x.amount) for x in ours
    ]


RANGES = {
    "lower_bound": (["0.000000000001", "1000000000"], ["0", "-1", "1000000000.1"]),
    "upper_bound": (["0.000000000001", "1000000000"], ["0", "-1", "1000000000.1"]),
    "grid_count": ([2, 200], [1, 201, 0, -2]),
    "order_amount": (["0.000000000001", "10000000"], ["0", "-1", "10000000.1"]),
    "take_profit_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "stop_price": (["0.000000000001", "1000000000"], ["0", "-1", "1000000000.1"]),
    "activation_bounds_pct": (["0.000000000001", "100"], ["0", "-1", "100.1"]),
    "trailing_activation_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "trailing_delta_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
}


@pytest.mark.parametrize("name", RANGES)
def test_every_field_has_its_range(name: str) -> None:
    from tests.unit.plugins.module_utils.test_fields import check_range

    check_range(TEMPLATES["grid"].fields[name], *RANGES[name])


def test_every_field_is_in_the_table_of_ranges() -> None:
    grid = TEMPLATES["grid"]
    assert list(RANGES) == [*grid.fields]
    assert {name for name, field in grid.fields.items() if field.live} == set(grid.fields)
    assert [name for name, field in grid.fields.items() if field.required] == list(RANGES)[:4]
    assert {field.default for field in grid.fields.values() if not field.required} == {None}


def test_the_engine_files_are_exactly_these() -> None:
    assert TEMPLATES["grid"].engine_files(context()) == {
        "scripts/b1.yml": 'script_file_name: "hummingfleet.py"\ncontrollers_config: ["b1.yml"]\n',
        "controllers/b1.yml": "\n".join(
            [
                'id: "b1"',
                'controller_name: "hummingfleet_grid"',
                'controller_type: "generic"',
                'connector_name: "binance"',
                'trading_pair: "BTC-USDT"',
                "total_amount_quote: 1000",
                "lower_bound: 30000",
                "upper_bound: 35000",
                "grid_count: 10",
                "order_amount: 100",
                "take_profit_pct: null",
                "stop_price: null",
                "activation_bounds_pct: null",
                "trailing_activation_pct: null",
                "trailing_delta_pct: null",
                "",
            ]
        ),
    }


def test_the_fields_that_end_a_grid_reach_its_controller() -> None:
    ends = {"take_profit_pct": 5, "stop_price": "29000.5", "trailing_activation_pct": 3, "trailing_delta_pct": 1}
    bot = factories.grid_bot()
    bot["strategy_config"] |= ends
    loaded = yaml.safe_load(TEMPLATES["grid"].engine_files(context(bots=[bot]))["controllers/b1.yml"])
    assert {name: loaded[name] for name in ends} == ends | {"stop_price": 29000.5}
    assert loaded["activation_bounds_pct"] is None


def test_numbers_reach_the_engine_without_an_exponent_or_a_lost_digit() -> None:
    bot = factories.grid_bot(
        trading_pair="DOGE-USDT",
        strategy_config={"lower_bound": 1e-05, "upper_bound": "0.00100", "grid_count": 9, "order_amount": "1.23"},
    )
    text = TEMPLATES["grid"].engine_files(context(bots=[bot]))["controllers/b1.yml"]
    assert "lower_bound: 0.00001\nupper_bound: 0.001\n" in text
    assert "total_amount_quote: 11.07\n" in text
    loaded = yaml.safe_load(text)
    assert (loaded["lower_bound"], loaded["grid_count"], loaded["order_amount"]) == (0.00001, 9, 1.23)


def test_a_grid_uses_no_kill_switch_of_the_engine() -> None:
    loaded = yaml.safe_load(engine_client_config(context()))
    assert loaded == {
        "instance_id": "acme.b1",
        "log_level": "INFO",
        "kill_switch_mode": {},
        "send_error_logs": False,
        "anonymized_metrics_mode": {},
        "rate_oracle_source": {"name": "binance"},
        "rate_limits_share_pct": 100,
        "paper_trade": {"paper_trade_exchanges": []},
        "mqtt_bridge": {"mqtt_autostart": False},
    }


@pytest.mark.parametrize(("bots", "share"), [(1, 100), (2, 50), (3, 33.33), (7, 14.28)])
def test_bots_share_the_rate_limits(bots: int, share: float) -> None:
    entries = [factories.grid_bot(id=f"b{i}") for i in range(bots)]
    loaded = yaml.safe_load(engine_client_config(context(bots=entries)))
    assert loaded["rate_limits_share_pct"] == share
