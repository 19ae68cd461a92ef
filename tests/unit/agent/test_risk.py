"""Order limits and loss limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hummingfleet_agent.risk import Exposure, RiskLimits, RiskState, find_breach, judge_order

D = Decimal
DAY = 86400.0


def test_daily_loss_counts_from_the_days_start() -> None:
    limits = RiskLimits(max_daily_loss=D(50))
    state = RiskState().observe(D(0), DAY).observe(D(30), DAY + 10)
    assert find_breach(limits, state, D("-49.99"), D(1000)) is None
    breach = find_breach(limits, state, D(-50), D(1000))
    assert breach and breach.facts == "limit=max_daily_loss value=50.0000 threshold=50"
    # The next day begins where the last one ended.
    state = state.observe(D(-40), 2 * DAY)
    assert find_breach(limits, state, D(-80), D(1000)) is None


def test_drawdown_is_a_fall_from_the_highest_equity() -> None:
    state = RiskState().observe(D(0), DAY).observe(D(1000), DAY)
    percent, amount = RiskLimits(max_drawdown_pct=D(10)), RiskLimits(max_drawdown=D(200))
    for limits in (percent, amount):
        assert find_breach(limits, state, D(801), D(1000)) is None
    breaches = [find_breach(limits, state, D(800), D(1000)) for limits in (percent, amount)]
    assert [(breach.limit, breach.value) for breach in breaches if breach] == [
        ("max_drawdown_pct", D(10)), ("max_drawdown", D(200))]


def test_both_measures_begin_anew_after_a_halt_was_lifted() -> None:
    limits = RiskLimits(max_daily_loss=D(50), max_drawdown=D(50))
    state = RiskState().observe(D(-500), DAY)
    assert find_breach(limits, state, D(-549), D(1000)) is None
    assert find_breach(limits, state, D(-550), D(1000))


@pytest.mark.parametrize(
    ("limits", "breach"),
    [
        (RiskLimits(max_order=D(100)), None),
        (RiskLimits(max_order=D("99.99")), "max_order"),
        (RiskLimits(max_open_orders=4), None),
        (RiskLimits(max_open_orders=3), "max_open_orders"),
        (RiskLimits(max_position=D(600)), None),
        (RiskLimits(max_position=D("599.99")), "max_position"),
        (RiskLimits(price_band_pct=D(1)), None),
        (RiskLimits(price_band_pct=D("0.99")), "price_band_pct"),
        (RiskLimits(), None),
    ],
)
def test_an_order_is_judged_together_with_what_is_there(limits: RiskLimits, breach: str | None) -> None:
    exposure = Exposure(position=D(200), resting=D(300), open_orders=3)
    found = judge_order(limits, exposure, value=D(100), price=D(101), mid=D(100))
    assert (found.limit if found else None) == breach


def test_a_price_that_the_book_cannot_tell_breaks_the_band() -> None:
    limits = RiskLimits(price_band_pct=D(5))
    for price, mid in ((None, D(100)), (D(100), None)):
        breach = judge_order(limits, Exposure(), value=D(10), price=price, mid=mid)
        assert breach and breach.limit == "price_band_pct" and not breach.is_gross


@pytest.mark.parametrize("value", [0, -1, "x", "NaN", "Infinity", True])
def test_limits_must_be_positive_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="max_position"):
        RiskLimits.parse({"max_position": value})


def test_limits_are_read_with_their_types() -> None:
    data: dict[str, Any] = {"max_position": "0.01", "max_open_orders": 3, "close_position_on_halt": True,
                            "earliest_resume_s": 0, "max_order": None}
    assert RiskLimits.parse(data) == RiskLimits(max_position=D("0.01"), max_open_orders=3, close_position_on_halt=True)
    with pytest.raises(ValueError, match="max_postion is no limit"):
        RiskLimits.parse({"max_postion": 1})
    with pytest.raises(ValueError, match="close_position_on_halt"):
        RiskLimits.parse({"close_position_on_halt": "yes"})
