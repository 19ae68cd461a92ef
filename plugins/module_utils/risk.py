# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Risk limits: what they mean, their ranges, how they must agree, and the ceilings a plan sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    REQUIRED,
    Field,
    Value,
    declare,
    number,
    plain_number,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings, one_of

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules, Plan

USD_ASSETS: Final = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "USDP", "DAI", "PYUSD", "USDE", "USD1"})
"""Quote assets in which an amount is taken to be US dollars."""

DEFAULT_POSITION: Final = Decimal(10000)
"""``max_position`` where it is not given, for quote assets in USD_ASSETS."""

_D = Decimal
_LARGEST: Final = _D(1_000_000_000)

CONTROLLER_LIMITS: Final[Mapping[str, Field]] = declare(
    Field(
        name="max_position",
        alias="max_position_usd",
        type="decimal",
        unit="quote asset",
        text=(
            "The most the bot may hold, at cost with fees, together with what its resting buy orders may still buy. "
            "Where it is not given it is 10000 for quote assets pegged to the US dollar, or the plan's ceiling if that "
            "is lower; for other quote assets it has to be given."
        ),
        example=10000,
        default=None,
        above=_D(0),
        maximum=_LARGEST,
    ),
    Field(
        name="max_order",
        alias="max_order_usd",
        type="decimal",
        unit="quote asset",
        text="The largest opening order.",
        example=1000,
        default=None,
        above=_D(0),
        maximum=_LARGEST,
    ),
    Field(
        name="max_open_orders",
        type="integer",
        unit="orders",
        text="How many opening orders may rest at once.",
        example=50,
        default=None,
        minimum=_D(1),
        maximum=_D(1000),
    ),
    Field(
        name="max_daily_loss",
        alias="max_daily_loss_usd",
        type="decimal",
        unit="quote asset",
        text="A loss of this much since midnight UTC, realised or not, fees included, halts the bot.",
        example=500,
        default=None,
        above=_D(0),
        maximum=_LARGEST,
    ),
    Field(
        name="max_drawdown",
        alias="max_drawdown_usd",
        type="decimal",
        unit="quote asset",
        text="A fall of this much from the highest equity so far halts the bot.",
        example=1000,
        default=None,
        above=_D(0),
        maximum=_LARGEST,
    ),
    Field(
        name="max_drawdown_pct",
        type="decimal",
        unit="percent of the highest equity",
        text="A fall of this much from the highest equity so far halts the bot.",
        example=10,
        default=None,
        above=_D(0),
        maximum=_D(100),
    ),
    Field(
        name="price_band_pct",
        type="decimal",
        unit="percent of the mid price",
        text=(
            "An opening order is held back while its price (of a market order: the price the order book would give) is "
            "more than this above the mid price."
        ),
        example=2,
        default=None,
        above=_D(0),
        maximum=_D(100),
    ),
    Field(
        name="close_position_on_halt",
        type="boolean",
        unit="",
        text="Whether a halt also sells what the bot holds, at market.",
        example=True,
        default=False,
    ),
    Field(
        name="earliest_resume_s",
        type="integer",
        unit="seconds",
        text="How long after a halt a resume is refused.",
        example=3600,
        default=0,
        minimum=_D(0),
        maximum=_D(2_592_000),
    ),
)
"""The limits of strategies that run on controllers of our own."""

ENGINE_LIMITS: Final[Mapping[str, Field]] = declare(
    Field(
        name="kill_switch_pct",
        type="decimal",
        unit="percent of the account",
        text="The engine's kill switch: a mean loss of this much over all assets of the account stops the bot.",
        example=5,
        above=_D(0),
        maximum=_D(100),
    ),
)
"""The one limit the engine's own (V1) strategies have."""

CEILINGS: Final[Mapping[str, Field]] = {
    name: dataclasses.replace(field, alias="", default=REQUIRED if name == "max_position" else None)
    for name, field in CONTROLLER_LIMITS.items()
    if name not in ("close_position_on_halt", "earliest_resume_s")
}
"""The limits a plan may set a ceiling for, per quote asset; the one of max_position it must set."""


def ceilings_for(plan: Plan, quote: str) -> Mapping[str, Decimal] | None:
    """The plan's ceilings for pairs quoted in ``quote``; None where it has none, and so no such pairs."""
    return plan.ceilings.get(quote, plan.ceilings.get("USD") if quote in USD_ASSETS else None)


def effective_limits(limits: Mapping[str, Value], plan: Plan | None, quote: str) -> dict[str, Value]:
    """The limits that hold for a bot whose pair is quoted in ``quote``.

    ``limits`` are parsed CONTROLLER_LIMITS. One that is not given has the plan's ceiling, and none is above it, even
    where the plan was changed after the document had been stored; ``max_position`` has its default besides.
    """
    ceilings = (ceilings_for(plan, quote) if plan is not None else None) or {}
    result: dict[str, Value] = dict(limits)
    if quote in USD_ASSETS:
        result.setdefault("max_position", DEFAULT_POSITION)
    for name, ceiling in ceilings.items():
        if name not in result or number(result, name) > ceiling:
            result[name] = int(ceiling) if CONTROLLER_LIMITS[name].type == "integer" else ceiling
    return {name: result[name] for name in CONTROLLER_LIMITS if name in result}


def merge_limits(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``stored`` limits with ``changes``, none of them parsed; a change replaces a limit under either of its names."""
    replaced = {name for field in CONTROLLER_LIMITS.values() if {*field.names} & {*changes} for name in field.names}
    return {**{name: value for name, value in stored.items() if name not in replaced}, **changes}


def check_names(data: Mapping[str, Any], quote: str, where: str, findings: Findings) -> None:
    """Notes limits that are named in US dollars though ``quote`` is not pegged to it."""
    for field in CONTROLLER_LIMITS.values():
        if quote not in USD_ASSETS and field.alias and field.alias in data:
            findings.add(
                "quote.usd",
                f"{where}/{field.alias}",
                f"the limit is in US dollars and {quote} is not worth one",
                f"{field.name}, in {quote}",
            )


def check_limits(
    limits: Mapping[str, Value],
    data: Mapping[str, Any],
    *,
    quote: str,
    rules: PairRules | None,
    plan: Plan | None,
    where: str,
    pair_where: str,
    findings: Findings,
) -> None:
    """Notes what is wrong with parsed CONTROLLER_LIMITS for the pair and the plan.

    ``data`` are the limits as they were given, ``rules`` and ``plan`` None where they are unknown.
    """

    def at(name: str) -> str:
        return f"{where}/{CONTROLLER_LIMITS[name].name_in(data)}"

    if plan is not None:
        _check_ceilings(limits, plan, quote, at, pair_where, findings)
    if "max_position" not in limits and quote not in USD_ASSETS:
        findings.add("missing", at("max_position"), f"there is no default in {quote}", "a number greater than 0")
        return
    position = number(effective_limits(limits, plan, quote), "max_position")
    most = f"at most max_position, {plain_number(position)} ({quote})"
    if "max_order" in limits and number(limits, "max_order") > position:
        findings.add("risk.order", at("max_order"), "an order above the whole position would never be placed", most)
    for name in ("max_daily_loss", "max_drawdown"):
        if name in limits and number(limits, name) > position:
            findings.add("risk.loss", at(name), "a loss above the whole position would never be reached", most)
    for name in ("max_position", "max_order"):
        if rules is not None and name in limits and number(limits, name) < rules.min_notional:
            findings.add(
                "risk.notional",
                at(name),
                f"{plain_number(number(limits, name))} is below the exchange's smallest order, so that none is placed",
                f"at least {plain_number(rules.min_notional)} ({quote})",
            )


def _check_ceilings(
    limits: Mapping[str, Value],
    plan: Plan,
    quote: str,
    at: Callable[[str], str],
    pair_where: str,
    findings: Findings,
) -> None:
    ceilings = ceilings_for(plan, quote)
    if ceilings is None:
        findings.add(
            "plan.quote",
            pair_where,
            f"plan {plan.name} has no bots that trade against {quote}",
            f"a pair quoted in {one_of(plan.ceilings)}" + (", or pegged to USD" if "USD" in plan.ceilings else ""),
        )
        return
    for name, ceiling in ceilings.items():
        if name in limits and number(limits, name) > ceiling:
            findings.add(
                f"plan.{name}",
                at(name),
                f"{plain_number(number(limits, name))} is above the ceiling of plan {plan.name}",
                f"at most {plain_number(ceiling)} ({CONTROLLER_LIMITS[name].unit.replace('quote asset', quote)})",
            )
