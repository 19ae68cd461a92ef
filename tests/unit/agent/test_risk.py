"""Loss limits."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hummingfleet_agent.risk import RiskLimits, RiskState, find_breach

D = Decimal
DAY = 86400.0


def test_daily_loss_counts_from_the_days_start() -> None:
    limits = RiskLimits(max_daily_loss_usd=D(50))
    state = RiskState().observe(D(0), DAY).observe(D(30), DAY + 10)
    assert find_breach(limits, state, D("-49.99"), D(1000)) is None
    breach = find_breach(limits, state, D(-50), D(1000))
    assert breach and breach.message == "RISK_HALT limit=max_daily_loss_usd value=50.0000 threshold=50"
    # The next day begins where the last one ended.
    state = state.observe(D(-40), 2 * DAY)
    assert find_breach(limits, state, D(-80), D(1000)) is None


def test_drawdown_is_a_share_of_the_highest_equity() -> None:
    limits = RiskLimits(max_drawdown_pct=D(10))
    state = RiskState().observe(D(0), DAY).observe(D(1000), DAY)
    assert find_breach(limits, state, D(801), D(1000)) is None
    breach = find_breach(limits, state, D(800), D(1000))
    assert breach and (breach.limit, breach.value) == ("max_drawdown_pct", D(10))


@pytest.mark.parametrize("value", [0, -1, "x", "NaN", "Infinity"])
def test_limits_must_be_positive_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="max_position_usd"):
        RiskLimits.parse({"max_position_usd": value})
    assert RiskLimits.parse({"max_position_usd": "0.01", "other": 1}) == RiskLimits(max_position_usd=D("0.01"))
