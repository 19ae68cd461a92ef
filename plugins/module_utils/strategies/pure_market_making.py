# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure market making: the engine's own V1 strategy, with every field it reads written out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    Field,
    Value,
    declare,
    number,
    plain_number,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import ENGINE_LIMITS
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import (
    BotContext,
    Judgement,
    Strategy,
    dump_yaml,
)

_D = Decimal
_OFF = _D(-1)  # what the engine takes for "no price ceiling" and "no price floor"

TEMPLATE_VERSION: Final = 24
"""The engine rewrites strategy files of an older version than its template, so the files carry this one."""

_FIXED: Final[Mapping[str, Any]] = {
    # Features that are not offered. Written out because the engine fills a missing value in from its own defaults,
    # which may change with the release.
    "moving_price_band_enabled": False,
    "price_ceiling_pct": 1,
    "price_floor_pct": -1,
    "price_band_refresh_time": 86400,
    "inventory_price": 1,
    "order_optimization_enabled": False,
    "ask_order_optimization_depth": 0,
    "bid_order_optimization_depth": 0,
    "price_source": "current_market",
    "price_source_exchange": None,
    "price_source_market": None,
    "price_source_custom_api": None,
    "custom_api_update_interval": 5,
    "take_if_crossed": None,
    "order_override": None,
    "split_order_levels_enabled": False,
    "bid_order_level_spreads": None,
    "ask_order_level_spreads": None,
    "bid_order_level_amounts": None,
    "ask_order_level_amounts": None,
    "should_wait_order_cancel_confirmation": True,
}


class PureMarketMaking(Strategy):
    """Quotes both sides of the book around a reference price."""

    name: ClassVar[str] = "pure_market_making"
    title: ClassVar[str] = "Pure market making"
    text: ClassVar[str] = (
        "The engine's `pure_market_making` strategy: bids and asks around a reference price, renewed every "
        "`order_refresh_time` seconds. Its only limit is the engine's kill switch; no change is live. Spot only."
    )
    kind: ClassVar[Literal["v1", "v2"]] = "v1"
    fields: ClassVar[Mapping[str, Field]] = declare(
        Field(
            name="bid_spread",
            type="decimal",
            unit="percent",
            text="Distance of the first bid below the reference price.",
            example=_D("0.5"),
            above=_D(0),
            below=_D(100),
        ),
        Field(
            name="ask_spread",
            type="decimal",
            unit="percent",
            text="Distance of the first ask above the reference price.",
            example=_D("0.5"),
            above=_D(0),
            below=_D(100),
        ),
        Field(
            name="order_amount",
            type="decimal",
            unit="base asset",
            text="Size of the first bid and the first ask.",
            example=_D("0.05"),
            above=_D(0),
            maximum=_D(1_000_000_000),
        ),
        Field(
            name="order_refresh_time",
            type="decimal",
            unit="seconds",
            text="How long orders rest before they are renewed.",
            example=30,
            minimum=_D(1),
            maximum=_D(86400),
        ),
        Field(
            name="order_levels",
            type="integer",
            unit="levels",
            text="Orders on each side.",
            example=1,
            default=1,
            minimum=_D(1),
            maximum=_D(50),
        ),
        Field(
            name="order_level_spread",
            type="decimal",
            unit="percent",
            text="Distance from one level to the next.",
            example=_D(1),
            default=_D(1),
            above=_D(0),
            below=_D(100),
        ),
        Field(
            name="order_level_amount",
            type="decimal",
            unit="base asset",
            text="By how much each further level is larger (or smaller, if negative).",
            example=_D(0),
            default=_D(0),
            minimum=_D(-1_000_000_000),
            maximum=_D(1_000_000_000),
        ),
        Field(
            name="minimum_spread",
            type="decimal",
            unit="percent",
            text="Resting orders nearer to the reference price than this are cancelled; -100 turns it off.",
            example=_D(-100),
            default=_D(-100),
            minimum=_D(-100),
            maximum=_D(100),
        ),
        Field(
            name="max_order_age",
            type="decimal",
            unit="seconds",
            text="Orders older than this are renewed even at the same price.",
            example=1800,
            default=_D(1800),
            minimum=_D(1),
            maximum=_D(604800),
        ),
        Field(
            name="order_refresh_tolerance_pct",
            type="decimal",
            unit="percent",
            text="Orders are kept while the price moved less than this; negative turns it off.",
            example=_D("0.1"),
            default=_D(0),
            minimum=_D(-10),
            maximum=_D(10),
        ),
        Field(
            name="filled_order_delay",
            type="decimal",
            unit="seconds",
            text="Pause after a fill before new orders are placed.",
            example=60,
            default=_D(60),
            minimum=_D(1),
            maximum=_D(86400),
        ),
        Field(
            name="price_ceiling",
            type="decimal",
            unit="quote asset per base asset",
            text="Above this price only asks are placed; without it there is no ceiling.",
            example=4000,
            default=_OFF,
            minimum=_OFF,
            maximum=_D(1_000_000_000),
        ),
        Field(
            name="price_floor",
            type="decimal",
            unit="quote asset per base asset",
            text="Below this price only bids are placed; without it there is no floor.",
            example=1500,
            default=_OFF,
            minimum=_OFF,
            maximum=_D(1_000_000_000),
        ),
        Field(
            name="price_type",
            type="choice",
            unit="",
            text="The reference price.",
            example="mid_price",
            default="mid_price",
            choices=("mid_price", "last_price", "last_own_trade_price", "best_bid", "best_ask"),
        ),
        Field(
            name="ping_pong_enabled",
            type="boolean",
            unit="",
            text="Alternate between bids and asks after fills.",
            example=False,
            default=False,
        ),
        Field(
            name="add_transaction_costs",
            type="boolean",
            unit="",
            text="Add the fees to the order prices.",
            example=False,
            default=False,
        ),
        Field(
            name="hanging_orders_enabled",
            type="boolean",
            unit="",
            text="Keep the other side's order when one side is filled.",
            example=False,
            default=False,
        ),
        Field(
            name="hanging_orders_cancel_pct",
            type="decimal",
            unit="percent",
            text="Hanging orders further from the reference price than this are cancelled.",
            example=_D(10),
            default=_D(10),
            above=_D(0),
            below=_D(100),
        ),
        Field(
            name="inventory_skew_enabled",
            type="boolean",
            unit="",
            text="Size the two sides so that holdings move towards inventory_target_base_pct.",
            example=False,
            default=False,
        ),
        Field(
            name="inventory_target_base_pct",
            type="decimal",
            unit="percent of the pair's value",
            text="The share of the base asset that is aimed at.",
            example=_D(50),
            default=_D(50),
            minimum=_D(0),
            maximum=_D(100),
        ),
        Field(
            name="inventory_range_multiplier",
            type="decimal",
            unit="order sizes",
            text="How far holdings may be from the target, in multiples of the total order size.",
            example=_D(1),
            default=_D(1),
            above=_D(0),
            maximum=_D(1_000_000),
        ),
    )
    limits: ClassVar[Mapping[str, Field]] = ENGINE_LIMITS

    def check(self, judgement: Judgement) -> None:
        """Notes what the fields alone cannot show to be wrong."""
        if judgement.config is None:
            return
        config, where, findings = judgement.config, judgement.config_where, judgement.findings
        ceiling, floor = number(config, "price_ceiling"), number(config, "price_floor")
        for name, price in (("price_ceiling", ceiling), ("price_floor", floor)):
            if price <= 0 and price != _OFF:
                findings.add(
                    "pmm.price", f"{where}/{name}", f"{plain_number(price)} is no price", "a price above 0, or -1"
                )
        if 0 < ceiling <= floor:
            findings.add(
                "pmm.band",
                f"{where}/price_floor",
                f"{plain_number(floor)} is not below price_ceiling",
                f"a price below {plain_number(ceiling)}, or no floor",
            )
        nearest = min(number(config, "bid_spread"), number(config, "ask_spread"))
        if number(config, "minimum_spread") >= nearest:
            findings.add(
                "pmm.minimum_spread",
                f"{where}/minimum_spread",
                "every order would be cancelled as soon as it is placed",
                f"less than {plain_number(nearest)} (percent)",
            )
        self._check_levels(config, judgement, ceiling)

    def _check_levels(self, config: Mapping[str, Value], judgement: Judgement, ceiling: Decimal) -> None:
        where, findings = judgement.config_where, judgement.findings
        further = int(number(config, "order_levels")) - 1
        outermost = number(config, "bid_spread") + further * number(config, "order_level_spread")
        if outermost >= 100:
            findings.add(
                "pmm.levels",
                f"{where}/order_levels",
                f"the outermost bid would be {plain_number(outermost)} percent below the reference price",
                "levels that stay within 100 percent",
            )
        first = number(config, "order_amount")
        smallest = min(first, first + further * number(config, "order_level_amount"))
        rules = judgement.rules
        least = rules.min_amount if rules is not None else _D(0)
        if smallest <= 0 or smallest < least:
            findings.add(
                "pmm.amount",
                f"{where}/{'order_amount' if smallest == first else 'order_level_amount'}",
                f"the smallest order would be {plain_number(smallest)} (base asset)",
                f"orders of at least {plain_number(least)}" if rules is not None else "orders above 0",
            )
        elif rules is not None and ceiling > 0 and smallest * ceiling < rules.min_notional:
            findings.add(
                "pmm.notional",
                f"{where}/order_amount",
                f"even at the price ceiling an order of {plain_number(smallest)} {rules.base} is worth less than the "
                f"minimum of {plain_number(rules.min_notional)} {rules.quote}",
                f"orders worth at least {plain_number(rules.min_notional)} {rules.quote}",
            )

    def engine_files(self, context: BotContext) -> dict[str, str]:
        """``strategies/<bot>.yml``; the engine reads percent as percent (0.5 is half a percent)."""
        head = {
            "template_version": TEMPLATE_VERSION,
            "strategy": self.name,
            "exchange": context.connector,
            "market": context.trading_pair,
        }
        return {f"strategies/{context.bot}.yml": dump_yaml({**head, **context.config, **_FIXED})}
