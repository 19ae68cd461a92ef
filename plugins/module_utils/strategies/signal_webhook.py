# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signal webhook: buys and sells when a signal from outside says so."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, Value, declare, number
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import Judgement
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.controller import (
    ControllerStrategy,
    check_notional,
    check_order,
    check_position,
    check_take_profit,
    check_trailing,
)

_D = Decimal


class SignalWebhook(ControllerStrategy):
    """Trades at market on signals that ``POST /v1/signals`` takes and the node's broker brings."""

    name: ClassVar[str] = "signal_webhook"
    title: ClassVar[str] = "Signal webhook"
    text: ClassVar[str] = (
        "Trades on signals sent to `POST /v1/signals`: `buy` buys `size_quote` (or `order_amount`) at market, `sell` "
        "sells `size_quote` worth of what the bot holds, at most all of it, `close` sells all. Between signals the "
        "position is watched by the take profit, the stop loss, the trailing stop and the time limit, those that are "
        "set. Its capital is `max_position`. Spot only."
    )
    controller: ClassVar[str] = "hummingfleet_signal"
    needs_broker: ClassVar[bool] = True
    fields: ClassVar[Mapping[str, Field]] = declare(
        Field(
            name="order_amount",
            type="decimal",
            unit="quote asset",
            text="What a buy signal without a size spends; without it such a signal is refused.",
            example=100,
            default=None,
            above=_D(0),
            maximum=_D(10_000_000),
            live=True,
        ),
        Field(
            name="max_signal_age_s",
            type="integer",
            unit="seconds",
            text="A signal older than this is refused, and none is traded after that age.",
            example=30,
            default=30,
            minimum=_D(5),
            maximum=_D(300),
            live=True,
        ),
        Field(
            name="take_profit_pct",
            type="decimal",
            unit="percent of the average price",
            text="How far above the average price everything is sold.",
            example=5,
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="stop_loss_pct",
            type="decimal",
            unit="percent of the average price",
            text="How far below the average price everything is sold.",
            example=3,
            default=None,
            above=_D(0),
            below=_D(100),
            live=True,
        ),
        Field(
            name="trailing_activation_pct",
            type="decimal",
            unit="percent of the average price",
            text="The trailing stop begins this far above the average price; with trailing_delta_pct or not at all.",
            example=2,
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="trailing_delta_pct",
            type="decimal",
            unit="percentage points",
            text="How far the gain may then fall below its highest value before everything is sold.",
            example=_D("0.5"),
            default=None,
            above=_D(0),
            maximum=_D(1000),
            live=True,
        ),
        Field(
            name="time_limit_s",
            type="integer",
            unit="seconds",
            text="How long a position is held at most, from its first buy.",
            example=86400,
            default=None,
            minimum=_D(1),
            maximum=_D(31_536_000),
            live=True,
        ),
        Field(
            name="cooldown_s",
            type="integer",
            unit="seconds",
            text="Least time between two opening orders; a buy signal that comes sooner is refused.",
            example=10,
            default=0,
            minimum=_D(0),
            maximum=_D(2_678_400),
            live=True,
        ),
    )

    def capital(self, config: Mapping[str, Value], limits: Mapping[str, Value]) -> Decimal:
        """The position that signals may build."""
        return number(limits, "max_position")

    def check_config(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        """Notes what the fields of the parsed configuration alone cannot show to be wrong."""
        check_take_profit(config, judgement)
        check_trailing(config, judgement)
        if "order_amount" in config:
            amount = number(config, "order_amount")
            check_notional(amount, "order_amount", judgement)
            check_order(amount, "order_amount", judgement)
            check_position(amount, "order_amount", "one order is", "at most {limit}", judgement)
