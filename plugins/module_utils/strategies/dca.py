# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dollar-cost averaging: a ladder of buys with one take profit, or a purchase at every interval."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    Field,
    Value,
    declare,
    number,
    numbers,
    plain_number,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import Judgement
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.controller import (
    ControllerStrategy,
    check_both,
    check_count,
    check_notional,
    check_order,
    check_position,
    check_take_profit,
)

_D = Decimal


class Dca(ControllerStrategy):
    """Both kinds of averaging that traders know, told apart by ``mode``."""

    name: ClassVar[str] = "dca"
    title: ClassVar[str] = "Dollar-cost averaging"
    text: ClassVar[str] = (
        "`mode: ladder` buys `amounts_quote[i]` at `spreads_pct[i]` percent below the price its cycle began at, and "
        "sells all of it at `take_profit_pct` above the average price; the sale moves as buys fill. Once it has sold, "
        "the remaining buys are cancelled, and after `cooldown_s` the next cycle begins, if `repeat` says so. Its "
        "capital is the sum of `amounts_quote`.\n\n"
        "`mode: interval` buys `order_amount` at market every `interval_s` seconds, counted from its first start, "
        "`dip_multiplier` times as much while the price is `dip_pct` or more below its last purchase. It sells "
        "nothing. What falls into a time when the bot does not run is not made up. Its capital is `max_position`.\n\n"
        "Fields of the other mode are refused. Spot only."
    )
    controller: ClassVar[str] = "hummingfleet_dca"
    fields: ClassVar[Mapping[str, Field]] = declare(
        Field(
            name="mode",
            type="choice",
            unit="",
            text="A ladder of buys below the price, or a purchase at every interval.",
            example="ladder",
            choices=("ladder", "interval"),
        ),
        Field(
            name="spreads_pct",
            type="decimals",
            unit="percent of the cycle's first price",
            text="How far each buy is below the price its cycle began at, rising; a first 0 buys at market.",
            example=(_D(0), _D(2), _D(5)),
            mode="ladder",
            longest=20,
            minimum=_D(0),
            below=_D(100),
            live=True,
        ),
        Field(
            name="amounts_quote",
            type="decimals",
            unit="quote asset",
            text="What each buy spends, one for every spread. All together stay within max_position.",
            example=(_D(100), _D(200), _D(400)),
            mode="ladder",
            longest=20,
            above=_D(0),
            maximum=_D(10_000_000),
            live=True,
        ),
        Field(
            name="take_profit_pct",
            type="decimal",
            unit="percent of the average price",
            text="How far above the average price everything is sold.",
            example=_D("1.5"),
            mode="ladder",
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="stop_loss_pct",
            type="decimal",
            unit="percent of the average price",
            text="How far below the average price everything is sold at market; without it nothing is.",
            example=15,
            default=None,
            mode="ladder",
            above=_D(0),
            below=_D(100),
            live=True,
        ),
        Field(
            name="cooldown_s",
            type="integer",
            unit="seconds",
            text="Pause between one cycle and the next.",
            example=60,
            default=60,
            mode="ladder",
            minimum=_D(0),
            maximum=_D(2_678_400),
            live=True,
        ),
        Field(
            name="repeat",
            type="boolean",
            unit="",
            text="Whether another cycle follows.",
            example=True,
            default=True,
            mode="ladder",
            live=True,
        ),
        Field(
            name="order_amount",
            type="decimal",
            unit="quote asset",
            text="What each purchase spends.",
            example=50,
            mode="interval",
            above=_D(0),
            maximum=_D(10_000_000),
            live=True,
        ),
        Field(
            name="interval_s",
            type="integer",
            unit="seconds",
            text="From one purchase to the next.",
            example=86400,
            mode="interval",
            minimum=_D(10),
            maximum=_D(2_678_400),
            live=True,
        ),
        Field(
            name="dip_pct",
            type="decimal",
            unit="percent of the last purchase price",
            text="How far below its last purchase the price must be for dip_multiplier; with it or not at all.",
            example=5,
            default=None,
            mode="interval",
            above=_D(0),
            below=_D(100),
            live=True,
        ),
        Field(
            name="dip_multiplier",
            type="decimal",
            unit="times order_amount",
            text="By how much a purchase in a dip is larger.",
            example=2,
            default=None,
            mode="interval",
            above=_D(1),
            maximum=_D(10),
            live=True,
        ),
    )

    def capital(self, config: Mapping[str, Value], limits: Mapping[str, Value]) -> Decimal:
        """What a whole ladder may spend; of purchases at intervals, the position they may build."""
        return sum(numbers(config, "amounts_quote"), _D(0)) if _is_ladder(config) else number(limits, "max_position")

    def check_config(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        """Notes what the fields of the parsed configuration alone cannot show to be wrong."""
        if _is_ladder(config):
            self._check_ladder(config, judgement)
        else:
            self._check_interval(config, judgement)

    def _check_ladder(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        spreads, amounts = numbers(config, "spreads_pct"), numbers(config, "amounts_quote")
        for index, amount in enumerate(amounts):
            check_notional(amount, f"amounts_quote/{index}", judgement)
            check_order(amount, f"amounts_quote/{index}", judgement)
        what = f"{len(amounts)} levels are together"
        check_position(sum(amounts, _D(0)), "amounts_quote", what, "together at most {limit}", judgement)
        check_count(len(amounts), "amounts_quote", judgement)
        check_take_profit(config, judgement)
        rising = True
        for index in range(1, len(spreads)):
            if spreads[index] <= spreads[index - 1]:
                rising = False
                judgement.findings.add(
                    "dca.spreads",
                    f"{judgement.config_where}/spreads_pct/{index}",
                    f"{plain_number(spreads[index])} is not above the spread before it",
                    f"more than {plain_number(spreads[index - 1])} (percent)",
                )
        if len(spreads) != len(amounts):
            judgement.findings.add(
                "dca.lengths",
                f"{judgement.config_where}/amounts_quote",
                f"there are {len(amounts)} amounts for {len(spreads)} spreads",
                f"a list of {len(spreads)} numbers",
            )
        elif rising and "stop_loss_pct" in config:
            self._check_stop(spreads, amounts, number(config, "stop_loss_pct"), judgement)

    def _check_stop(
        self, spreads: tuple[Decimal, ...], amounts: tuple[Decimal, ...], stop: Decimal, judgement: Judgement
    ) -> None:
        """A stop that sells before the next level is reached leaves that level without a meaning."""
        bought = spent = _D(0)
        for index in range(len(spreads) - 1):
            bought += amounts[index] / (100 - spreads[index])
            spent += amounts[index]
            if spent / bought * (100 - stop) / 100 >= 100 - spreads[index + 1]:
                judgement.findings.add(
                    "dca.stop",
                    f"{judgement.config_where}/stop_loss_pct",
                    f"it sells before the level at {plain_number(spreads[index + 1])} percent is bought",
                    "a stop below every level, or levels nearer together",
                )
                return

    def _check_interval(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        amount, field = number(config, "order_amount"), "order_amount"
        check_notional(amount, field, judgement)
        if check_both(config, "dip_pct", "dip_multiplier", "dca.dip", judgement):
            amount, field = amount * number(config, "dip_multiplier"), "dip_multiplier"
        check_order(amount, field, judgement)
        check_position(amount, field, "one purchase is", "purchases of at most {limit}", judgement)


def _is_ladder(config: Mapping[str, Value]) -> bool:
    return config["mode"] == "ladder"
