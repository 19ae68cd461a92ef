"""Limits: their ranges, what holds for a bot under its plan, and names that mean the same."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Plan
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    bot_context,
    parse_document,
    read_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import parse_fields
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import (
    CEILINGS,
    CONTROLLER_LIMITS,
    ENGINE_LIMITS,
    USD_ASSETS,
    effective_limits,
    merge_limits,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings
from hypothesis import given
from hypothesis import strategies as st

from tests import factories
from tests.unit.plugins.module_utils.test_fields import check_range

AMOUNT: tuple[list[Any], list[Any]] = (["0.000000000001", "1000000000"], ["0", "-1", "1000000000.1"])
RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "max_position": AMOUNT,
    "max_order": AMOUNT,
    "max_open_orders": ([1, 1000], [0, -1, 1001]),
    "max_daily_loss": AMOUNT,
    "max_drawdown": AMOUNT,
    "max_drawdown_pct": (["0.000000000001", "100"], ["0", "-1", "100.1"]),
    "price_band_pct": (["0.000000000001", "100"], ["0", "-1", "100.1"]),
    "close_position_on_halt": ([True, False], [0, 1, "true", None]),
    "earliest_resume_s": ([0, 2_592_000], [-1, 2_592_001]),
    "kill_switch_pct": (["0.000000000001", "100"], ["0", "-5", "100.1"]),
}


def plan(name: str = "starter", **ceilings: dict[str, Any]) -> Plan:
    """A plan with these ceilings by quote asset, or the catalogue's."""
    found = factories.catalogue().plans[name]
    given = {quote: {n: Decimal(str(v)) for n, v in limits.items()} for quote, limits in ceilings.items()}
    return dataclasses.replace(found, ceilings=given) if given else found


@pytest.mark.parametrize("name", RANGES)
def test_every_limit_has_its_range(name: str) -> None:
    check_range({**CONTROLLER_LIMITS, **ENGINE_LIMITS}[name], *RANGES[name])


def test_every_limit_is_in_the_table_of_ranges() -> None:
    assert list(RANGES) == [*CONTROLLER_LIMITS, *ENGINE_LIMITS]
    assert {field.alias for field in CONTROLLER_LIMITS.values() if field.alias} == {
        "max_position_usd", "max_order_usd", "max_daily_loss_usd", "max_drawdown_usd",
    }  # fmt: skip
    assert not any(field.alias for field in CEILINGS.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_position": 10000, "max_order": 5000, "max_open_orders": 100, "max_daily_loss": 2000}),
        (
            {"max_position": 500, "max_order": 50, "max_open_orders": 3, "max_daily_loss": 5, "max_drawdown_pct": 10},
            {"max_position": 500, "max_order": 50, "max_open_orders": 3, "max_daily_loss": 5, "max_drawdown_pct": 10},
        ),
        (
            {"max_position": 20000, "max_open_orders": 150},  # stored before the plan had such ceilings
            {"max_position": 10000, "max_order": 5000, "max_open_orders": 100, "max_daily_loss": 2000},
        ),
    ],
)
def test_what_is_not_given_has_the_plans_ceiling_and_nothing_is_above_it(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = effective_limits(given, plan(), "USDT")
    assert found == expected
    assert list(found) == [name for name in CONTROLLER_LIMITS if name in found]
    assert isinstance(found["max_open_orders"], int)


def test_the_default_position_is_ten_thousand_dollars_or_less() -> None:
    assert effective_limits({}, plan("pro"), "USDC")["max_position"] == 10000
    assert effective_limits({}, plan(USD={"max_position": 300}), "USDC")["max_position"] == 300
    assert effective_limits({}, None, "USDT") == {"max_position": 10000}
    assert effective_limits({}, None, "BTC") == {}


def test_a_quote_assets_own_ceilings_go_before_those_of_all_dollars() -> None:
    several = plan(USD={"max_position": 1000}, USDC={"max_position": 700}, BTC={"max_position": "0.1"})
    assert effective_limits({}, several, "USDT") == {"max_position": 1000}
    assert effective_limits({}, several, "USDC") == {"max_position": 700}
    assert effective_limits({"max_position": 5}, several, "BTC") == {"max_position": Decimal("0.1")}
    assert effective_limits({"max_position": 5}, several, "EUR") == {"max_position": 5}  # stored before; judged anew


amounts = st.integers(1, 10**6).map(Decimal)


@given(
    st.dictionaries(st.sampled_from(list(CEILINGS)), amounts),
    st.dictionaries(st.sampled_from(list(CEILINGS)), amounts),
    st.sampled_from([*sorted(USD_ASSETS), "BTC"]),
)
def test_limits_are_never_above_their_ceiling_and_never_looser_than_given(
    limits: dict[str, Any], ceilings: dict[str, Any], quote: str
) -> None:
    both = plan(USD={"max_position": 10**7, **ceilings}, BTC={"max_position": 10**7, **ceilings})
    found = effective_limits(limits, both, quote)
    for name in {*limits, *ceilings}:
        bounds = [values[name] for values in (limits, ceilings) if name in values]
        assert found[name] == min(bounds) or (name == "max_position" and found[name] <= min(bounds))
    assert effective_limits(found, both, quote) == found


def test_the_limits_that_hold_are_what_an_engine_file_depends_on() -> None:
    document = parse_document(factories.signal_document(plan="pro"), factories.catalogue())
    context = bot_context(document, document.bots[0], factories.catalogue())
    assert context.limits["max_order"] == 50000
    assert "max_order" not in document.bots[0].risk_config
    maker = parse_document(factories.market_making_document(), factories.catalogue())
    assert bot_context(maker, maker.bots[0], factories.catalogue()).limits == {"kill_switch_pct": 5}


def test_documents_stored_under_the_dollar_names_are_read_under_the_plain_ones() -> None:
    stored = factories.stored_document()
    old = {"max_position_usd": 9000, "max_daily_loss_usd": "500", "max_drawdown_pct": 10}
    stored["bots"][0]["risk_config"] = old
    document = read_document(stored)
    expected = {"max_position": 9000, "max_daily_loss": 500, "max_drawdown_pct": 10}
    assert document.bots[0].risk_config.items() >= expected.items()
    assert not {"max_position_usd", "max_daily_loss_usd"} & set(document.plain()["bots"][0]["risk_config"])
    assert read_document(document.plain()) == document


@pytest.mark.parametrize("stored", ["max_order", "max_order_usd"])
@pytest.mark.parametrize("changed", ["max_order", "max_order_usd"])
def test_a_change_replaces_a_limit_under_either_of_its_names(stored: str, changed: str) -> None:
    assert merge_limits({stored: 1, "max_drawdown_pct": 5}, {changed: 2}) == {"max_drawdown_pct": 5, changed: 2}
    assert merge_limits({stored: 1}, {"max_position": 2}) == {stored: 1, "max_position": 2}


def test_a_ceiling_for_the_position_cannot_be_left_out() -> None:
    findings = Findings()
    assert parse_fields(CEILINGS, {"max_order": 5}, "/x", findings) is None
    assert [(fault.pointer, fault.rule) for fault in findings.faults] == [("/x/max_position", "missing")]
