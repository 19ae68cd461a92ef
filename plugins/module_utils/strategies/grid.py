# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid: buys at fixed prices between two bounds and sells each lot one step higher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    Field,
    Value,
    declare,
    number,
    plain_number,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import Judgement, floor_to
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.controller import (
    ControllerStrategy,
    check_count,
    check_order,
    check_position,
    check_trailing,
)

_D = Decimal


@dataclass(frozen=True, slots=True)
class GridConfig:
    """The grid's parsed configuration: bounds and ``order_amount`` (per level) in the quote asset."""

    lower_bound: Decimal
    upper_bound: Decimal
    grid_count: int
    order_amount: Decimal

    @classmethod
    def of(cls, config: Mapping[str, Value]) -> GridConfig:
        """The typed configuration of parsed fields."""
        return cls(
            lower_bound=number(config, "lower_bound"),
            upper_bound=number(config, "upper_bound"),
            grid_count=int(number(config, "grid_count")),
            order_amount=number(config, "order_amount"),
        )

    @property
    def capital(self) -> Decimal:
        """What all levels together may spend, in the quote asset."""
        return self.grid_count * self.order_amount


@dataclass(frozen=True, slots=True)
class Level:
    """One level: buys ``amount`` base at ``buy_price`` and sells it at ``sell_price``."""

    index: int
    buy_price: Decimal
    sell_price: Decimal
    amount: Decimal


def levels(config: GridConfig, rules: PairRules) -> list[Level]:
    """Exactly ``grid_count`` levels, lowest first, as the bot will place them.

    A grid of n levels has n+1 lines; line i is ``lower + (upper - lower) * i / n`` rounded down to the tick. Level i
    buys at line i and sells at line i+1; its amount is ``order_amount / buy price`` rounded down to the lot. Computed
    in ticks, so that no rounding of a division creeps in. ``config`` must have ordered bounds of at least one tick.
    """
    low = config.lower_bound / rules.tick
    span = (config.upper_bound - config.lower_bound) / rules.tick
    count = config.grid_count
    lines = [floor_to(low + span * i / count, _D(1)) * rules.tick for i in range(count + 1)]
    return [Level(i, lines[i], lines[i + 1], floor_to(config.order_amount / lines[i], rules.lot)) for i in range(count)]


class Grid(ControllerStrategy):
    """A grid with a fixed number of levels."""

    name: ClassVar[str] = "grid"
    title: ClassVar[str] = "Grid"
    text: ClassVar[str] = (
        "Exactly `grid_count` buy orders between `lower_bound` and `upper_bound`; what a level buys it sells one step "
        "higher, the topmost at `upper_bound`. The step is `(upper_bound - lower_bound) / grid_count`. Spot only.\n\n"
        "`take_profit_pct`, `stop_price` and the trailing stop end the grid: everything is sold at market and the bot "
        "stands halted (`GRID_TAKE_PROFIT`, `GRID_STOP_PRICE`, `GRID_TRAILING_STOP`) until it is resumed; then it "
        "begins anew, and profit counts from that moment. Its capital is `grid_count × order_amount`."
    )
    controller: ClassVar[str] = "hummingfleet_grid"
    fields: ClassVar[Mapping[str, Field]] = declare(
        Field(
            name="lower_bound",
            type="decimal",
            unit="quote asset per base asset",
            text="The lowest buy price; a multiple of the pair's tick.",
            example=30000,
            above=_D(0),
            maximum=_D(1_000_000_000),
            live=True,
        ),
        Field(
            name="upper_bound",
            type="decimal",
            unit="quote asset per base asset",
            text="The highest sell price; a multiple of the pair's tick, above lower_bound.",
            example=35000,
            above=_D(0),
            maximum=_D(1_000_000_000),
            live=True,
        ),
        Field(
            name="grid_count",
            type="integer",
            unit="levels",
            text="How many levels, and so how many buy orders at most.",
            example=10,
            minimum=_D(2),
            maximum=_D(200),
            live=True,
        ),
        Field(
            name="order_amount",
            type="decimal",
            unit="quote asset",
            text="What each level spends. All levels together stay within max_position.",
            example=100,
            above=_D(0),
            maximum=_D(10_000_000),
            live=True,
        ),
        Field(
            name="take_profit_pct",
            type="decimal",
            unit="percent of the capital",
            text="A profit of this much since the grid began, fees included, sells everything and ends the grid.",
            example=5,
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="stop_price",
            type="decimal",
            unit="quote asset per base asset",
            text="At this mid price or below everything is sold and the grid ends; below lower_bound.",
            example=29000,
            default=None,
            above=_D(0),
            maximum=_D(1_000_000_000),
            live=True,
        ),
        Field(
            name="activation_bounds_pct",
            type="decimal",
            unit="percent of the mid price",
            text="Buy orders rest only where they are at most this far below the mid price; without it all do.",
            example=10,
            default=None,
            above=_D(0),
            maximum=_D(100),
            live=True,
        ),
        Field(
            name="trailing_activation_pct",
            type="decimal",
            unit="percent of the capital",
            text="The trailing stop begins once the profit has reached this; with trailing_delta_pct or not at all.",
            example=3,
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="trailing_delta_pct",
            type="decimal",
            unit="percentage points",
            text="How far the profit may then fall below its highest value before everything is sold.",
            example=1,
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
    )

    def capital(self, config: Mapping[str, Value], limits: Mapping[str, Value]) -> Decimal:
        """What all levels together may spend."""
        return GridConfig.of(config).capital

    def check_config(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        """Notes what the fields of the parsed configuration alone cannot show to be wrong."""
        grid = GridConfig.of(config)
        limit = judgement.limit("max_position")
        each = floor_to(limit / grid.grid_count, _D("0.01")) if limit is not None else _D(0)
        check_position(
            grid.capital,
            "order_amount",
            f"{grid.grid_count} levels of {plain_number(grid.order_amount)} are",
            f"at most {plain_number(each)} (quote asset) with {grid.grid_count} levels",
            judgement,
        )
        check_order(grid.order_amount, "order_amount", judgement)
        check_count(grid.grid_count, "grid_count", judgement, all_rest="activation_bounds_pct" not in config)
        check_trailing(config, judgement)
        if "stop_price" in config and number(config, "stop_price") >= grid.lower_bound:
            judgement.findings.add(
                "grid.stop",
                f"{judgement.config_where}/stop_price",
                f"{plain_number(number(config, 'stop_price'))} is not below lower_bound",
                f"a price below {plain_number(grid.lower_bound)} (quote asset)",
            )
        if grid.lower_bound >= grid.upper_bound:
            judgement.findings.add(
                "grid.bounds",
                f"{judgement.config_where}/lower_bound",
                f"{plain_number(grid.lower_bound)} is not below upper_bound",
                f"a price below {plain_number(grid.upper_bound)} (quote asset)",
            )
        elif judgement.rules is not None:
            self._check_market(grid, judgement.rules, judgement)

    def _check_market(self, config: GridConfig, rules: PairRules, judgement: Judgement) -> None:
        findings, where = judgement.findings, judgement.config_where
        off_tick = False
        for bound, price in (("lower_bound", config.lower_bound), ("upper_bound", config.upper_bound)):
            if price % rules.tick:
                off_tick = True
                findings.add(
                    "grid.tick",
                    f"{where}/{bound}",
                    f"{plain_number(price)} is not a price of {rules.pair}",
                    f"a multiple of {plain_number(rules.tick)} (quote asset)",
                )
        if off_tick:
            return
        span = config.upper_bound - config.lower_bound
        if span < rules.tick * config.grid_count:
            findings.add(
                "grid.step",
                f"{where}/grid_count",
                f"{config.grid_count} levels lie closer together than {rules.pair}'s tick {plain_number(rules.tick)}",
                f"at most {span // rules.tick} levels between these bounds",
            )
            return
        if judgement.exchange is not None:
            self._check_fees(config, span, judgement.exchange.fee_pct, judgement)
        self._check_amounts(config, rules, judgement)

    def _check_fees(self, config: GridConfig, span: Decimal, fee_pct: Decimal, judgement: Judgement) -> None:
        """A round trip pays the fee twice; the topmost step is the smallest in percent."""
        cost = config.upper_bound * 2 * fee_pct / 100
        if span <= cost * config.grid_count:
            most = int(span / cost) - (span % cost == 0)
            step = plain_number(floor_to(span / config.grid_count, _D("0.000001")))
            judgement.findings.add(
                "grid.fees",
                f"{judgement.config_where}/grid_count",
                f"a step of {step} does not earn two fees of {plain_number(fee_pct)} percent at the upper bound",
                f"at most {most} levels between these bounds" if most >= 2 else "bounds further apart",
            )

    def _check_amounts(self, config: GridConfig, rules: PairRules, judgement: Judgement) -> None:
        """Rounding down to the lot hits every level differently, so each one is judged; the first at fault is named."""
        for level in levels(config, rules):
            where = f"{judgement.config_where}/order_amount"
            at = f"level {level.index} at {plain_number(level.buy_price)} would order {plain_number(level.amount)}"
            if level.amount < rules.min_amount:
                least = (rules.min_amount + rules.lot) * config.upper_bound
                judgement.findings.add(
                    "grid.amount",
                    where,
                    f"{at} {rules.base}, below the minimum of {plain_number(rules.min_amount)}",
                    f"at least {plain_number(least)} (quote asset) suffices for every level",
                )
                return
            if level.amount * level.buy_price < rules.min_notional:
                least = rules.min_notional + rules.lot * config.upper_bound
                judgement.findings.add(
                    "grid.notional",
                    where,
                    f"{at} {rules.base}, below the minimum of {plain_number(rules.min_notional)} {rules.quote}",
                    f"at least {plain_number(least)} (quote asset) suffices for every level",
                )
                return
