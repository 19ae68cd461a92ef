"""Exits on profit: take profit and trailing stop."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hummingfleet_agent.exits import ProfitExits, find_exit, follow_peak
from hypothesis import given
from hypothesis import strategies as st

D = Decimal


def pct(value: str | None) -> Decimal | None:
    return None if value is None else D(value)


def run(exits: ProfitExits, profits: list[str]) -> list[str | None]:
    """The exit due after each profit in a row."""
    peak, found = None, []
    for profit in profits:
        peak = follow_peak(exits, peak, D(profit))
        due = find_exit(exits, peak, D(profit))
        found.append(due.kind if due else None)
    return found


@pytest.mark.parametrize(("exits", "profits", "due"), [
    (ProfitExits(), ["-50", "0", "1000"], [None, None, None]),
    (ProfitExits(take_profit_pct=D(2)), ["0", "1.99", "2"], [None, None, "TAKE_PROFIT"]),
    # Not armed below the activation, however deep the fall.
    (ProfitExits(None, D(3), D(1)), ["2.9", "-5"], [None, None]),
    (ProfitExits(None, D(3), D(1)), ["3", "2.01", "2"], [None, None, "TRAILING_STOP"]),
    # The peak is carried along, and only upwards.
    (ProfitExits(None, D(3), D(1)), ["3", "10", "9.5", "9.01", "9"], [None, None, None, None, "TRAILING_STOP"]),
    # The fall counts in percentage points, and arming lasts below the activation.
    (ProfitExits(None, D(3), D(3)), ["3", "0.5", "0"], [None, None, "TRAILING_STOP"]),
    (ProfitExits(D(5), D(3), D(1)), ["4", "5"], [None, "TAKE_PROFIT"]),
])
def test_exits(exits: ProfitExits, profits: list[str], due: list[str | None]) -> None:
    assert run(exits, profits) == due


def test_a_rule_that_is_taken_away_forgets_its_peak() -> None:
    peak = follow_peak(ProfitExits(None, D(3), D(1)), None, D(10))
    assert peak == 10
    assert follow_peak(ProfitExits(), peak, D(5)) is None
    assert find_exit(ProfitExits(take_profit_pct=D(20)), peak, D(1)) is None


@given(profits=st.lists(st.decimals(-50, 50, places=2), min_size=1, max_size=30), activation=st.integers(1, 10),
       share=st.integers(1, 100))
def test_a_trailing_stop_is_due_exactly_when_profit_fell_enough(
        profits: list[Decimal], activation: int, share: int) -> None:
    exits = ProfitExits(None, D(activation), D(activation) * share / 100)
    found = run(exits, [str(item) for item in profits])
    for index, due in enumerate(found):
        peak = max(profits[: index + 1])
        assert exits.trailing_delta_pct is not None
        fell = peak >= activation and peak - profits[index] >= exits.trailing_delta_pct
        assert (due == "TRAILING_STOP") == fell


@pytest.mark.parametrize(("take", "activation", "delta", "reason"), [
    ("0", None, None, "take_profit_pct must be above 0"), ("NaN", None, None, "take_profit_pct must be above 0"),
    (None, "2", None, "both or neither"), (None, None, "2", "both or neither"),
    (None, "2", "2.1", "trailing_delta_pct must not be above"), (None, "2", "0", "trailing_delta_pct must be above 0"),
    (None, "Infinity", "1", "trailing_activation_pct must be above 0"),
])
def test_rules_that_make_no_sense_are_refused(
        take: str | None, activation: str | None, delta: str | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ProfitExits(pct(take), pct(activation), pct(delta))
