"""A tenant's day: which of its bots' reports count, what they come to, and the document that stops them."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils import risk_halt
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document
from hypothesis import given
from hypothesis import strategies as st

from tests import factories
from webhook.changes import TooEarlyError, check_resume
from webhook.tenant_risk import halt_of, judge, limit_of, pnl_of, remember

DAY, TOMORROW = "2026-11-23", "2026-11-24"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


def report(day_pnl: Any, day: str = DAY, quote: str = "USDT", **more: Any) -> dict[str, Any]:
    """Facts of a bot, as a node hands them over."""
    risk = {"day": day, "day_pnl": day_pnl, "pnl": "1", "equity": "999", "position": "10", "quote": quote, **more}
    return {"state": "running", "heartbeat_age_seconds": 1.0, "halted": None, "risk": risk}


def document(limit: Any = 100, **fields: Any) -> dict[str, Any]:
    return factories.stored_document(**({} if limit is None else {"risk": {"max_daily_loss_usd": limit}}), **fields)


def halt(value: float = 120, day: str = DAY, **more: Any) -> dict[str, Any]:
    at = f"{day}T11:00:00.000Z"
    return {"limit": "max_daily_loss_usd", "day": day, "value": value, "threshold": 100, "at": at, **more}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (report("-12.5"), "-12.5"),
        (report("7", quote="USDC"), "7"),
        (report("-12.5", quote="BTC"), "0"),
        (report("-12.5", quote="EUR"), "0"),
        (report("-12.5", day="2026-11-22"), "0"),
        (report("-12.5", day="2026-11-24"), "0"),
        (report("-1", counted_pnl="-2.5"), "-2.5"),
        ({"state": "stopped", "risk": report("-3")["risk"]}, "-3"),
        (report("NaN"), "0"),
        (report("-1e999"), "0"),
        (report("99999999999999"), "0"),
        (report(None), "0"),
        (report("lots"), "0"),
        (report("-2", counted_pnl="NaN"), "0"),
        ({"state": "starting", "risk": None}, "0"),
        ({"risk": [1]}, "0"),
        ({}, "0"),
    ],
)
def test_a_report_counts_on_its_day_if_its_quote_is_worth_a_dollar(facts: dict[str, Any], expected: str) -> None:
    assert pnl_of(facts, DAY) == Decimal(expected)


@given(st.lists(st.decimals(min_value=-(10**6), max_value=10**6, places=8), max_size=20))
def test_the_tenants_day_is_the_sum_of_its_bots_whatever_their_order(results: list[Decimal]) -> None:
    facts = [report(str(one)) for one in results]
    noise = [report("-999999", quote="ETH"), report("-999999", day="2026-11-22"), {}]
    day = judge(document(), [*facts, *noise], factories.catalogue(), NOON)
    again = judge(document(), [*reversed(facts)], factories.catalogue(), NOON)
    assert day == again
    assert day.pnl_usd == sum(results, Decimal(0))
    assert day.reached == (-day.pnl_usd >= 100)
    assert not (day.reached and day.near)


@pytest.mark.parametrize(
    ("losses", "reached", "near"),
    [
        ((), False, False),
        (("-50",), False, False),
        (("-50.01",), False, True),
        (("-99.99",), False, True),
        (("-60", "-40"), True, False),
        (("-160", "60"), True, False),
        (("-160", "61"), False, True),
        (("500",), False, False),
    ],
)
def test_more_than_half_of_the_limit_is_near_and_all_of_it_is_reached(
    losses: tuple[str, ...], reached: bool, near: bool
) -> None:
    day = judge(document(), map(report, losses), factories.catalogue(), NOON)
    assert (day.reached, day.near) == (reached, near)


@pytest.mark.parametrize(
    ("fields", "reached"),
    [
        ({"risk_halt": halt()}, False),
        ({"risk_halt": halt(day="2026-11-22")}, True),
        ({"risk_halt": halt(value=80, lifted_at=f"{DAY}T11:30:00.000Z")}, False),
        ({"risk_halt": halt(value=20, lifted_at=f"{DAY}T11:30:00.000Z")}, True),
        ({"state": "suspended"}, True),
        ({"state": "terminated"}, False),
    ],
)
def test_a_tenant_is_halted_once_a_day_and_after_a_lift_when_it_loses_as_much_again(
    fields: dict[str, Any], reached: bool
) -> None:
    assert judge(document(**fields), [report("-120")], factories.catalogue(), NOON).reached == reached


def test_what_was_lost_yesterday_is_forgotten_at_midnight() -> None:
    facts = [report("-120")]
    assert judge(document(), facts, factories.catalogue(), MIDNIGHT - 0.001).reached
    assert judge(document(), facts, factories.catalogue(), MIDNIGHT).pnl_usd == 0


def test_the_tenants_own_limit_goes_before_its_plans() -> None:
    catalogue = factories.catalogue()
    capped = dataclasses.replace(catalogue.plans["pro"], tenant_max_daily_loss_usd=Decimal(700))
    uncapped = dataclasses.replace(capped, tenant_max_daily_loss_usd=None)
    with_ceiling, without = (
        dataclasses.replace(catalogue, plans={**catalogue.plans, "pro": plan}) for plan in (capped, uncapped)
    )
    assert limit_of(document(), with_ceiling) == 100
    assert limit_of(document(None), with_ceiling) == 700
    assert limit_of(document(None), without) is None
    assert not judge(document(None), [report("-999999")], without, NOON).reached
    assert judge(document(None), [report("-700")], with_ceiling, NOON).reached


def test_the_halt_stops_what_runs_and_makes_a_document_that_can_be_stored() -> None:
    bots = [
        factories.grid_bot(),
        factories.grid_bot(id="b2", state="stopped"),
        factories.grid_bot(id="b3", state="liquidated"),
    ]
    before = document(bots=bots)
    day = judge(before, [report("-70"), report("-50.129")], factories.catalogue(), NOON)
    made = halt_of(day, f"{DAY}T12:00:00.000Z")
    after = made.change()(before)
    assert [bot["state"] for bot in after["bots"]] == ["stopped", "stopped", "liquidated"]
    assert after["risk_halt"] == {**halt(120.13), "at": f"{DAY}T12:00:00.000Z"}
    assert parse_document(after, factories.catalogue()).plain()["risk_halt"] == after["risk_halt"]
    assert made.sentence() == (
        "the bots lost 120.13 US dollars on 2026-11-23 and 100.00 are allowed: "
        "all are stopped until 2026-11-24T00:00:00Z"
    )


def test_no_document_has_a_halt_that_stands_and_a_bot_that_runs() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(document(risk_halt=halt()), factories.catalogue())
    (fault,) = caught.value.faults
    assert (fault.rule, fault.pointer) == ("tenant.risk_halt", "/bots/0/state")
    assert fault.allowed == "stopped; running from 2026-11-24T00:00:00Z on"
    lifted = document(risk_halt=halt(lifted_at=f"{DAY}T11:30:00.000Z"))
    assert parse_document(lifted, factories.catalogue()).risk_halt is not None


@pytest.mark.parametrize(
    ("fields", "pointer", "rule"),
    [
        ({"risk": {"max_daily_loss_usd": 0}}, "/risk/max_daily_loss_usd", "range"),
        ({"risk": {"max_daily_loss_usd": True}}, "/risk/max_daily_loss_usd", "type.number"),
        ({"risk": {"max_daily_loss_usd": "1e400"}}, "/risk/max_daily_loss_usd", "type.number"),
        ({"risk": {"max_weekly_loss": 1}}, "/risk/max_weekly_loss", "unknown"),
        ({"risk": 5}, "/risk", "type.mapping"),
        ({"risk_halt": halt(day="2026-13-01")}, "/risk_halt/day", "day"),
        ({"risk_halt": halt(day="9999-12-31")}, "/risk_halt/day", "day"),
        ({"risk_halt": {**halt(), "at": "now"}}, "/risk_halt/at", "time"),
        ({"risk_halt": {**halt(), "limit": "mood"}}, "/risk_halt/limit", "choice"),
        ({"risk_halt": {"day": DAY}}, "/risk_halt/value", "missing"),
    ],
)
def test_a_wrong_limit_or_halt_is_refused_where_it_is_wrong(fields: dict[str, Any], pointer: str, rule: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_document(document(None, bots=[], **fields), factories.catalogue())
    assert (pointer, rule) in {(fault.pointer, fault.rule) for fault in caught.value.faults}


def test_the_tenants_limit_may_reach_the_plans_ceiling_and_not_exceed_it() -> None:
    catalogue = factories.catalogue()
    plan = dataclasses.replace(catalogue.plans["pro"], tenant_max_daily_loss_usd=Decimal(700))
    catalogue = dataclasses.replace(catalogue, plans={**catalogue.plans, "pro": plan})
    assert parse_document(document(700), catalogue).risk.max_daily_loss_usd == 700
    with pytest.raises(DocumentError) as caught:
        parse_document(document("700.01"), catalogue)
    (fault,) = caught.value.faults
    assert (fault.rule, fault.pointer) == ("plan.tenant_max_daily_loss_usd", "/risk/max_daily_loss_usd")


def test_the_guides_examples_are_parts_of_documents() -> None:
    guide = (factories.ROOT / "docs" / "risk.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)]
    assert [list(block) for block in blocks] == [["risk"], ["risk_halt"]]
    bots = [factories.grid_bot(state="stopped")]
    for block in blocks:
        data = factories.stored_document(bots=bots, **block)
        assert block.items() <= parse_document(data, factories.catalogue()).plain().items()


# --- what a bot does not say -----------------------------------------------------------------------------------------


def on(pnl: Any, day_pnl: Any, day: str = DAY, **more: Any) -> dict[str, Any]:
    return report(day_pnl, day, pnl=pnl, **more)


def results(*reports: dict[str, Any], anew: int = -1) -> list[Decimal]:
    """What each of a bot's reports leaves it with for its day; from the one numbered ``anew`` it is another bot."""
    known: dict[str, Any] | None = None
    found = []
    for number, one in enumerate(reports):
        known = remember(known, one, one["risk"]["day"], anew=number == anew)
        found.append(pnl_of(known, known["risk"]["day"]))
    return found


def test_a_bot_that_is_resumed_counts_its_day_anew_and_the_tenant_does_not() -> None:
    """It had won 30 before the day, lost 40, was resumed, and lost another 10."""
    assert results(on("30", "0"), on("-10", "-40"), on("-10", "0"), on("-20", "-10")) == [0, -40, -40, -50]


def test_a_new_day_begins_with_what_the_bot_says_of_it() -> None:
    assert results(on("-10", "-40"), on("-12", "-2", TOMORROW), on("-15", "-5", TOMORROW)) == [-40, -2, -5]


@given(st.lists(st.tuples(st.integers(-1000, 1000), st.booleans()), min_size=1, max_size=30))
def test_whatever_is_resumed_or_silent_the_day_is_what_was_won_and_lost(moves: list[tuple[int, bool]]) -> None:
    known: dict[str, Any] | None = remember(None, on("7", "0"), DAY)
    total = own = 0
    for change, resumed in moves:
        total += change
        own = 0 if resumed else own + change
        known = remember(known, {"state": "starting", "risk": None}, DAY)
        known = remember(known, on(str(7 + total), str(own)), DAY)
        assert pnl_of(known, DAY) == total


def test_a_bot_that_restarts_keeps_its_day_until_it_reports_again() -> None:
    silent = {"state": "starting", "heartbeat_age_seconds": 2.0, "risk": None}
    assert remember(report("-40"), silent, DAY)["risk"]["day_pnl"] == "-40"
    assert remember(report("-40"), {**silent, "risk": {"day": DAY, "day_pnl": None}}, DAY)["risk"]["day_pnl"] == "-40"
    assert remember(on("0", "-40"), on("-1", "-41"), DAY)["risk"]["counted_pnl"] == "-41"
    assert remember(report("-40"), report("0", day=TOMORROW), TOMORROW)["risk"]["day"] == TOMORROW
    assert remember(report("-40"), report("5", day="2026-11-22"), DAY)["risk"]["day_pnl"] == "-40"
    assert remember(None, silent, DAY)["risk"] is None


def test_a_bot_whose_clock_is_ahead_cannot_hide_what_it_loses() -> None:
    ahead = report("-1", day="9999-12-31")
    assert pnl_of(remember(report("-40"), ahead, DAY), DAY) == -40
    assert pnl_of(remember(remember(None, ahead, DAY), report("-40"), DAY), DAY) == -40


def test_a_new_bot_under_a_deleted_ones_id_does_not_make_its_loss_undone() -> None:
    silent = {"state": "starting", "risk": None}
    new = remember(report("-40"), silent, DAY, anew=True)
    assert (pnl_of(new, DAY), "equity" in new["risk"]) == (Decimal(-40), False)
    for day_pnl, total in (("-1", -41), ("-2.5", "-42.5")):
        new = remember(new, on(day_pnl, day_pnl), DAY)
        assert pnl_of(new, DAY) == Decimal(total)
    assert results(on("-40", "-40"), on("-1", "-1"), on("-2.5", "-2.5"), anew=1) == [-40, -41, Decimal("-42.5")]
    third = remember(new, on("-1", "-1"), DAY, anew=True)
    assert pnl_of(third, DAY) == Decimal("-43.5")
    assert pnl_of(remember(third, on("-3", "-3", TOMORROW), TOMORROW), TOMORROW) == -3


def test_a_bot_that_goes_to_another_market_leaves_its_loss_behind_in_none() -> None:
    """The bot itself counts from nothing there."""
    lost = [on("-30", "0", market="BTC"), on("-70", "-40", market="BTC")]
    other = [on("0", "0", market="ETH"), on("-5", "-5", market="ETH"), on("-6", "0", market="ETH")]
    assert results(*lost, *other) == [0, -40, -40, -45, -46]
    euro = [on("0", "0", market="EUR", quote="EUR"), on("-9", "-9", market="EUR", quote="EUR")]
    assert results(*lost, *euro, *other) == [0, -40, -40, -40, -40, -45, -46]
    assert results(*euro, *lost) == [0, 0, 0, -40]
    assert results(on("-40", "-40"), on("0", "0", quote="EUR"), on("-3", "-3")) == [-40, -40, -43]
    assert results(on("-40", "-40"), on("-1", "-1", quote="EUR"), anew=1) == [-40, -40]
    assert results(*lost, on("-2", "-2", TOMORROW, market="ETH")) == [0, -40, -2]
    assert results(on("-40", "-40"), on("-41", "-41", market="BTC")) == [-40, -41], "it only says now where it trades"


def test_a_halt_is_only_forgotten_when_the_bot_itself_says_so() -> None:
    halted = {**report("-40"), "halted": {"code": "RISK_MAX_DAILY_LOSS", "at": NOON}}
    assert remember(halted, {"state": "absent", "heartbeat_age_seconds": None, "halted": None}, DAY)["halted"]
    assert not remember(halted, report("-40"), DAY)["halted"]


# --- the halt in documents that follow one another -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "given_halt", "expected"),
    [
        (halt(), None, halt()),
        (halt(), halt(value=1), halt()),
        (halt(lifted_at=f"{DAY}T11:30:00.000Z"), None, halt(lifted_at=f"{DAY}T11:30:00.000Z")),
        (halt(lifted_at=f"{DAY}T11:30:00.000Z"), halt(), halt(lifted_at=f"{DAY}T11:30:00.000Z")),
        (
            halt(lifted_at=f"{DAY}T11:30:00.000Z"),
            {**halt(220), "at": f"{DAY}T11:40:00.000Z"},
            {**halt(220), "at": f"{DAY}T11:40:00.000Z"},
        ),
        (halt(day="2026-11-22"), None, None),
        (halt(day="2026-11-22"), halt(day="2026-11-22"), None),
        (None, halt(), halt()),
        (None, halt(day="2026-11-22"), None),
        (None, "nonsense", "nonsense"),
    ],
)
def test_a_halt_stays_for_its_day_whatever_is_submitted(stored: Any, given_halt: Any, expected: Any) -> None:
    data = {"tenant": "acme", **({"risk_halt": given_halt} if given_halt is not None else {})}
    before = {"tenant": "acme", **({"risk_halt": stored} if stored is not None else {})}
    assert risk_halt.keep(data, before, NOON).get("risk_halt") == expected


def test_a_lifted_halt_stays_as_a_lifted_one() -> None:
    kept = risk_halt.keep({}, {"risk_halt": halt()}, NOON, lifted_at="2026-11-23T12:00:00.000Z")
    assert kept["risk_halt"] == halt(lifted_at="2026-11-23T12:00:00.000Z")
    again = risk_halt.keep({}, {"risk_halt": kept["risk_halt"]}, NOON + 60, lifted_at="2026-11-23T12:01:00.000Z")
    assert again == kept
    assert risk_halt.keep({}, {}, NOON, lifted_at="2026-11-23T12:00:00.000Z") == {}


# --- a bot's own halt ------------------------------------------------------------------------------------------------


def halted_bot(code: Any = "RISK_MAX_DAILY_LOSS", at: Any = NOON) -> dict[str, Any]:
    return {"halted": {"code": code, "message": "RISK_HALT ...", "at": at}}


def waiting(seconds: Any) -> dict[str, Any]:
    return {"tenant": "acme", "bots": [{"id": "b1", "risk_config": {"earliest_resume_s": seconds}}]}


def test_a_bot_is_not_resumed_before_its_time_and_is_told_when_that_is() -> None:
    with pytest.raises(TooEarlyError) as caught:
        check_resume(waiting(3600), "b1", halted_bot(), NOON + 3599)
    assert caught.value.possible_at == "2026-11-23T13:00:00.000Z"
    assert "RISK_MAX_DAILY_LOSS" in str(caught.value)
    check_resume(waiting(3600), "b1", halted_bot(), NOON + 3600)


@pytest.mark.parametrize(
    ("seconds", "facts"),
    [
        (3600, {}),
        (3600, {"halted": None}),
        (3600, halted_bot(code="CONFIG_REFUSED")),
        (3600, halted_bot(at=None)),
        (3600, halted_bot(at="soon")),
        (3600, halted_bot(at=float("inf"))),
        (0, halted_bot()),
        (None, halted_bot()),
    ],
)
def test_a_bot_that_is_not_halted_by_a_limit_or_has_no_such_limit_is_resumed(seconds: Any, facts: Any) -> None:
    check_resume(waiting(seconds), "b1", facts, NOON + 1)
