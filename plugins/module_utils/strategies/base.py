# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every strategy template offers, and the engine files that all of them share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any, ClassVar, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Exchange, PairRules, Plan
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, Value, number, plain_number
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import CONTROLLER_LIMITS, effective_limits
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings


@dataclass(frozen=True, slots=True)
class BotContext:
    """Everything an engine file of one bot depends on.

    ``config`` is the parsed ``strategy_config``, ``limits`` are those that hold, the plan's ceilings included;
    ``rate_limit_bots`` counts the tenant's bots that share one exchange from one address, this one included.
    """

    tenant: str
    bot: str
    connector: str
    trading_pair: str
    config: Mapping[str, Value]
    limits: Mapping[str, Value]
    rate_oracle: str = "binance"
    rate_limit_bots: int = 1
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A parsed configuration on its way through the semantic checks.

    ``config`` or ``limits`` is None when its own fields are at fault, ``quote``/``rules``/``exchange``/``plan`` when
    the document names none that is known; checks that need them are then left out. ``given_limits`` is the
    ``risk_config`` as it was sent. The pointers say where faults are noted.
    """

    config: Mapping[str, Value] | None
    limits: Mapping[str, Value] | None
    given_limits: Mapping[str, Any]
    quote: str | None
    rules: PairRules | None
    exchange: Exchange | None
    plan: Plan | None
    config_where: str
    limits_where: str
    pair_where: str
    findings: Findings

    def limit(self, name: str) -> Decimal | None:
        """The limit of CONTROLLER_LIMITS that holds for the bot, or None where there is none or it is not known."""
        if self.limits is None or self.quote is None:
            return None
        effective = effective_limits(self.limits, self.plan, self.quote)
        return number(effective, name) if name in effective else None

    def limit_name(self, name: str) -> str:
        """What the sender calls the limit."""
        return CONTROLLER_LIMITS[name].name_in(self.given_limits)


class Strategy(ABC):
    """A strategy template: its fields, its checks and the engine files it turns into.

    A template with ``needs_broker`` gets orders from outside, by the node's message broker.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    text: ClassVar[str]
    kind: ClassVar[Literal["v1", "v2"]]
    fields: ClassVar[Mapping[str, Field]]
    limits: ClassVar[Mapping[str, Field]]
    needs_broker: ClassVar[bool] = False

    @abstractmethod
    def check(self, judgement: Judgement) -> None:
        """Notes what the fields alone cannot show to be wrong."""

    @abstractmethod
    def engine_files(self, context: BotContext) -> dict[str, str]:
        """The bot's strategy files by path below its ``config`` folder; equal contexts give equal text."""


def kill_switch_pct(limits: Mapping[str, Value]) -> Decimal | None:
    """The engine's own kill switch, in percent of loss, where the strategy uses it."""
    return number(limits, "kill_switch_pct") if "kill_switch_pct" in limits else None


def engine_client_config(context: BotContext) -> str:
    """The text of ``conf_client.yml``: only what differs from the engine's defaults, only keys it knows.

    The engine posts trade volumes and asks other exchanges for prices unless it is told not to; a negative
    ``kill_switch_rate`` is a loss limit in percent (a positive one would be a profit target).
    """
    switch = kill_switch_pct(context.limits)
    return dump_yaml(
        {
            "instance_id": f"{context.tenant}.{context.bot}",
            "log_level": context.log_level,
            "kill_switch_mode": {} if switch is None else {"kill_switch_rate": -switch},
            "send_error_logs": False,
            "anonymized_metrics_mode": {},
            "rate_oracle_source": {"name": context.rate_oracle},
            "rate_limits_share_pct": rate_limits_share_pct(context.rate_limit_bots),
            "paper_trade": {"paper_trade_exchanges": []},
            "mqtt_bridge": {"mqtt_autostart": False},
        }
    )


def rate_limits_share_pct(bots: int) -> Decimal:
    """Each bot's share of an exchange's rate limits in percent, rounded down so that the shares never exceed 100."""
    return floor_to(Decimal(100) / max(bots, 1), Decimal("0.01"))


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """``value`` rounded down to a multiple of ``step``."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def dump_yaml(data: Mapping[str, Any]) -> str:
    """YAML in the order given: numbers as plain digits, text always quoted, the same bytes every time."""
    return "\n".join(_lines(data, "")) + "\n"


def _lines(data: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{key}:")
            lines.extend(_lines(value, indent + "  "))
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return plain_number(value)
    if isinstance(value, str):
        if not value.isascii():
            raise ValueError("engine files hold ASCII text only")
        return json.dumps(value)  # a JSON string is a YAML string
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} cannot be written")
