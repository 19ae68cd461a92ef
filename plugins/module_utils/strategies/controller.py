# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates that run on controllers of our own: their common limits, checks and engine files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import ClassVar, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    REQUIRED,
    Field,
    Value,
    number,
    plain_number,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import (
    CONTROLLER_LIMITS,
    check_limits,
    check_names,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import (
    BotContext,
    Judgement,
    Strategy,
    dump_yaml,
)


class ControllerStrategy(Strategy):
    """A template whose controller is ``agent/controllers/generic/<controller>.py``."""

    kind: ClassVar[Literal["v1", "v2"]] = "v2"
    limits: ClassVar[Mapping[str, Field]] = CONTROLLER_LIMITS
    controller: ClassVar[str]

    @abstractmethod
    def capital(self, config: Mapping[str, Value], limits: Mapping[str, Value]) -> Decimal:
        """What the bot works with, in the quote asset; from its parsed configuration and the limits that hold."""

    @abstractmethod
    def check_config(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        """Notes what the fields of the parsed configuration alone cannot show to be wrong."""

    def check(self, judgement: Judgement) -> None:
        """Notes what is wrong with the limits and with the configuration."""
        if judgement.quote is not None:
            check_names(judgement.given_limits, judgement.quote, judgement.limits_where, judgement.findings)
        if judgement.quote is not None and judgement.limits is not None:
            check_limits(
                judgement.limits,
                judgement.given_limits,
                quote=judgement.quote,
                rules=judgement.rules,
                plan=judgement.plan,
                where=judgement.limits_where,
                pair_where=judgement.pair_where,
                findings=judgement.findings,
            )
        if judgement.config is not None:
            self.check_config(judgement.config, judgement)

    def engine_files(self, context: BotContext) -> dict[str, str]:
        """``scripts/<bot>.yml`` and ``controllers/<bot>.yml``; only the latter changes while the bot runs.

        A field that is not set is null there, and has its default in a mode that it does not belong to.
        """
        file = f"{context.bot}.yml"
        head = {
            "id": context.bot,
            "controller_name": self.controller,
            "controller_type": "generic",
            "connector_name": context.connector,
            "trading_pair": context.trading_pair,
            "total_amount_quote": self.capital(context.config, context.limits),
        }
        fields = {
            name: context.config.get(name, None if field.default is REQUIRED else field.default)
            for name, field in self.fields.items()
        }
        return {
            f"scripts/{file}": dump_yaml({"script_file_name": "hummingfleet.py", "controllers_config": [file]}),
            f"controllers/{file}": dump_yaml({**head, **fields}),
        }


def check_order(amount: Decimal, field: str, judgement: Judgement) -> None:
    """Notes an opening order of ``amount`` (quote asset), as ``field`` asks for, above max_order."""
    limit = judgement.limit("max_order")
    if limit is not None and amount > limit:
        judgement.findings.add(
            "order.max_order",
            f"{judgement.config_where}/{field}",
            f"an order of {plain_number(amount)} is above {judgement.limit_name('max_order')} {plain_number(limit)}",
            f"orders of at most {plain_number(limit)} ({judgement.quote})",
        )


def check_notional(amount: Decimal, field: str, judgement: Judgement) -> None:
    """Notes an order of ``amount`` (quote asset), as ``field`` asks for, that the exchange would not take."""
    rules = judgement.rules
    if rules is not None and amount < rules.min_notional:
        judgement.findings.add(
            "order.notional",
            f"{judgement.config_where}/{field}",
            f"an order of {plain_number(amount)} is below the minimum of {plain_number(rules.min_notional)} "
            f"{rules.quote}",
            f"at least {plain_number(rules.min_notional)} ({rules.quote})",
        )


def check_position(total: Decimal, field: str, what: str, allowed: str, judgement: Judgement) -> None:
    """Notes that orders of ``total`` (quote asset), described by ``what``, exceed max_position.

    ``allowed`` says what would do; ``{limit}`` in it is the limit.
    """
    limit = judgement.limit("max_position")
    if limit is not None and total > limit:
        name = judgement.limit_name("max_position")
        judgement.findings.add(
            "order.max_position",
            f"{judgement.config_where}/{field}",
            f"{what} {plain_number(total)}, above {name} {plain_number(limit)}",
            allowed.format(limit=plain_number(limit)),
        )


def check_count(count: int, field: str, judgement: Judgement, *, all_rest: bool = True) -> None:
    """Notes more orders than may rest at once; ``all_rest``: the strategy means to have all of them rest."""
    limits = []
    if judgement.exchange is not None:
        limits.append((judgement.exchange.max_orders, f"{judgement.exchange.name} allows"))
    most = judgement.limit("max_open_orders")
    if all_rest and most is not None:
        limits.append((int(most), "max_open_orders allows"))
    for limit, who in limits:
        if count > limit:
            judgement.findings.add(
                "order.count",
                f"{judgement.config_where}/{field}",
                f"{who} {limit} open orders of a pair, and this asks for {count}",
                f"at most {limit}",
            )
            return


def check_take_profit(config: Mapping[str, Value], judgement: Judgement) -> None:
    """Notes a take profit, in percent of the average price, that the fees of buying and selling eat up."""
    exchange = judgement.exchange
    if exchange is None or "take_profit_pct" not in config:
        return
    fee = exchange.fee_pct
    cost = 2 * fee / (1 - fee / 100)
    profit = number(config, "take_profit_pct")
    if profit <= cost:
        judgement.findings.add(
            "profit.fees",
            f"{judgement.config_where}/take_profit_pct",
            f"{plain_number(profit)} does not earn two fees of {plain_number(fee)} percent",
            f"more than {plain_number(cost.quantize(Decimal('0.0001'), ROUND_CEILING))} (percent)",
        )


def check_trailing(config: Mapping[str, Value], judgement: Judgement) -> None:
    """Notes trailing fields that do not agree."""
    where, findings = judgement.config_where, judgement.findings
    if not check_both(config, "trailing_activation_pct", "trailing_delta_pct", "trailing.pair", judgement):
        return
    activation, delta = number(config, "trailing_activation_pct"), number(config, "trailing_delta_pct")
    if delta > activation:
        findings.add(
            "trailing.delta",
            f"{where}/trailing_delta_pct",
            f"{plain_number(delta)} is above trailing_activation_pct, so that it would sell at a loss",
            f"at most {plain_number(activation)} (percent)",
        )
    if "take_profit_pct" in config and activation >= number(config, "take_profit_pct"):
        findings.add(
            "trailing.profit",
            f"{where}/trailing_activation_pct",
            "take_profit_pct sells before the trailing begins",
            f"less than {plain_number(number(config, 'take_profit_pct'))} (percent)",
        )


def check_both(config: Mapping[str, Value], first: str, second: str, rule: str, judgement: Judgement) -> bool:
    """Whether both fields are given; notes by ``rule`` that one is and the other is not."""
    given = [name for name in (first, second) if name in config]
    if len(given) == 1:
        missing = second if given == [first] else first
        judgement.findings.add(
            rule,
            f"{judgement.config_where}/{missing}",
            f"the field is missing, and {given[0]} means nothing without it",
            f"both {first} and {second}, or neither",
        )
    return len(given) == 2
