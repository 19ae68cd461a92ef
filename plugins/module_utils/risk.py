# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Risk limits: which ones a strategy can enforce, their ranges, and the ceilings a plan sets."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules, Plan
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, Value, declare, plain_number
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings

USD_ASSETS: Final = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "USDP", "DAI", "PYUSD", "USDE", "USD1"})
"""Quote assets in which an amount is taken to be US dollars."""

_D = Decimal

CONTROLLER_LIMITS: Final[Mapping[str, Field]] = declare(
    Field(
        name="max_position_usd",
        type="decimal",
        unit="US dollars",
        text="The most the bot may hold and have on order, at cost. The plan sets a ceiling.",
        example=10000,
        default=_D(10000),
        above=_D(0),
        maximum=_D(10_000_000),
    ),
    Field(
        name="max_daily_loss_usd",
        type="decimal",
        unit="US dollars",
        text="A loss of this much since midnight UTC, realised or not, halts the bot.",
        example=500,
        above=_D(0),
        maximum=_D(10_000_000),
    ),
    Field(
        name="max_drawdown_pct",
        type="decimal",
        unit="percent of the highest equity",
        text="A fall of this much from the highest equity so far (the strategy's capital plus profit) halts the bot.",
        example=10,
        above=_D(0),
        maximum=_D(100),
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


def check_controller_limits(
    limits: Mapping[str, Value],
    *,
    rules: PairRules | None,
    plan: Plan | None,
    where: str,
    pair_where: str,
    findings: Findings,
) -> None:
    """Notes what is wrong with parsed CONTROLLER_LIMITS for the pair and the plan (None: unknown, judged elsewhere)."""
    position = Decimal(limits["max_position_usd"])
    if plan is not None and position > plan.max_position_usd:
        findings.add(
            "plan.position",
            f"{where}/max_position_usd",
            f"{plain_number(position)} is above the ceiling of plan {plan.name}",
            f"at most {plain_number(plan.max_position_usd)} (US dollars)",
        )
    if Decimal(limits["max_daily_loss_usd"]) > position:
        findings.add(
            "risk.daily_loss",
            f"{where}/max_daily_loss_usd",
            "a loss above the whole position would never be reached",
            f"at most max_position_usd, {plain_number(position)} (US dollars)",
        )
    if rules is not None and rules.quote not in USD_ASSETS:
        findings.add(
            "quote.usd",
            pair_where,
            f"the bot's limits are in US dollars and {rules.quote} is not worth one",
            f"a pair quoted in {', '.join(sorted(USD_ASSETS))}",
        )
