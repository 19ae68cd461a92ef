# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid: buys at fixed prices between two bounds and sells each lot one step higher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, Value, declare, plain_number
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import CONTROLLER_LIMITS, check_controller_limits
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import (
    BotContext,
    Judgement,
    Strategy,
    dump_yaml,
    floor_to,
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
            lower_bound=Decimal(config["lower_bound"]),
            upper_bound=Decimal(config["upper_bound"]),
            grid_count=int(config["grid_count"]),
            order_amount=Decimal(config["order_amount"]),
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


class Grid(Strategy):
    """Runs on a controller of our own over the engine's executors."""

    name: ClassVar[str] = "grid"
    title: ClassVar[str] = "Grid"
    text: ClassVar[str] = (
        "Exactly `grid_count` buy orders between `lower_bound` and `upper_bound`; what a level buys it sells one step "
        "higher, the topmost at `upper_bound`. The step is `(upper_bound - lower_bound) / grid_count`. Spot only."
    )
    kind: ClassVar[Literal["v1", "v2"]] = "v2"
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
            text="What each level spends. All levels together stay within max_position_usd.",
            example=100,
            above=_D(0),
            maximum=_D(10_000_000),
            live=True,
        ),
    )
    limits: ClassVar[Mapping[str, Field]] = CONTROLLER_LIMITS

    def check(self, judgement: Judgement) -> None:
        """Notes what the fields alone cannot show to be wrong."""
        if judgement.limits is not None:
            check_controller_limits(
                judgement.limits,
                rules=judgement.rules,
                plan=judgement.plan,
                where=judgement.limits_where,
                pair_where=judgement.pair_where,
                findings=judgement.findings,
            )
        if judgement.config is None:
            return
        config = GridConfig.of(judgement.config)
        if judgement.limits is not None:
            self._check_position(config, Decimal(judgement.limits["max_position_usd"]), judgement)
        if config.lower_bound >= config.upper_bound:
            judgement.findings.add(
                "grid.bounds",
                f"{judgement.config_where}/lower_bound",
                f"{plain_number(config.lower_bound)} is not below upper_bound",
                f"a price below {plain_number(config.upper_bound)} (quote asset)",
            )
        elif judgement.rules is not None:
            self._check_market(config, judgement.rules, judgement)

    def _check_position(self, config: GridConfig, max_position: Decimal, judgement: Judgement) -> None:
        if config.capital > max_position:
            each = floor_to(max_position / config.grid_count, _D("0.01"))
            judgement.findings.add(
                "grid.position",
                f"{judgement.config_where}/order_amount",
                f"{config.grid_count} levels of {plain_number(config.order_amount)} are "
                f"{plain_number(config.capital)}, above max_position_usd {plain_number(max_position)}",
                f"at most {plain_number(each)} (quote asset) with {config.grid_count} levels",
            )

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
        exchange = judgement.exchange
        if exchange is not None:
            if config.grid_count > exchange.max_orders:
                findings.add(
                    "grid.orders",
                    f"{where}/grid_count",
                    f"{exchange.name} allows {exchange.max_orders} open orders of a pair",
                    f"at most {exchange.max_orders}",
                )
            self._check_fees(config, span, exchange.fee_pct, judgement)
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

    def engine_files(self, context: BotContext) -> dict[str, str]:
        """``scripts/<bot>.yml`` and ``controllers/<bot>.yml``; only the latter changes while the bot runs."""
        config = GridConfig.of(context.config)
        file = f"{context.bot}.yml"
        return {
            f"scripts/{file}": dump_yaml({"script_file_name": "hummingfleet.py", "controllers_config": [file]}),
            f"controllers/{file}": dump_yaml(
                {
                    "id": context.bot,
                    "controller_name": "hummingfleet_grid",
                    "controller_type": "generic",
                    "connector_name": context.connector,
                    "trading_pair": context.trading_pair,
                    "total_amount_quote": config.capital,
                    "lower_bound": config.lower_bound,
                    "upper_bound": config.upper_bound,
                    "grid_count": config.grid_count,
                    "order_amount": config.order_amount,
                }
            ),
        }
