# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which documents are refused, in one table, and the list that collects what they find."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault

MAX_FAULTS: Final = 100
"""More faults than this are not reported one by one: a document that wrong is not being mended field by field."""

RULES: Final[Mapping[str, str]] = {
    # shape: judged without the catalogue
    "missing": "every required field is there",
    "unknown": "there are no fields the document does not have",
    "type.mapping": "a field with fields of its own is a mapping",
    "type.list": "a list is a list",
    "type.text": "text is a string",
    "type.integer": "a whole number is a number without a fraction, never true or false",
    "type.boolean": "a switch is true or false, nothing like it",
    "type.number": "a number is a JSON number or a decimal string, never true or false",
    "number.finite": "numbers are finite",
    "number.digits": "numbers have at most 15 significant digits and 12 decimal places, so that no digit is lost",
    "range": "a number is within its field's range",
    "choice": "a field with fixed values has one of them",
    "length.list": "lists and mappings stay within their limit",
    "field.twice": "a field with two names is given under one of them",
    "field.mode": "a field that belongs to one mode of a template is given in that mode only",
    "id": "ids are 2 to 32 of a-z and 0-9 with single hyphens inside, beginning with a letter",
    "node_id": "node ids are letters, digits and underscores",
    "ring": "a ring's name is letters, digits and underscores",
    "label": "labels are short plain words",
    "subnet": "a tenant's subnet is a private IPv4 network of /24 to /29",
    "salt": "a salt is 16 to 88 characters of base64",
    "key_id": "a key id is a pattern, never a path",
    "day": "a day is YYYY-MM-DD",
    "time": "a stored time is UTC in ISO 8601",
    "pair.format": "a trading pair is BASE-QUOTE in capitals",
    "name": "a bot's name is 1 to 80 characters that can be displayed",
    "credential.text": "ciphertexts and nonces are bounded text",
    # names
    "tenant.reserved": "a tenant's id means nothing to Ansible and is no node's id",
    "bot.reserved": "a bot is not called like another service of the stack",
    "subdomain.reserved": "a subdomain is none that the fleet uses itself",
    "connection.duplicate": "connection ids are unique in a document",
    "bot.duplicate": "bot ids are unique in a document",
    # plan and release
    "plan.unknown": "the plan is in the catalogue",
    "release.unknown": "the release is in the catalogue",
    "plan.bots": "no more bots than the plan allows",
    "plan.connections": "no more exchange connections than the plan allows",
    "plan.exchange": "only exchanges of the plan",
    "plan.strategy": "only strategy templates of the plan",
    "plan.gateway": "a gateway only where the plan has one",
    "plan.quote": "a plan without ceilings for the pair's quote asset has no bots that trade it",
    "plan.max_position": "no position limit above the plan's ceiling",
    "plan.max_order": "no order limit above the plan's ceiling",
    "plan.max_open_orders": "no more open orders than the plan's ceiling",
    "plan.max_daily_loss": "no daily loss limit above the plan's ceiling",
    "plan.max_drawdown": "no drawdown limit above the plan's ceiling",
    "plan.max_drawdown_pct": "no drawdown limit in percent above the plan's ceiling",
    "plan.price_band_pct": "no price band wider than the plan's ceiling",
    "plan.tenant_max_daily_loss_usd": "no daily loss limit of the tenant above the plan's ceiling",
    "tenant.risk_halt": "no bot runs for the rest of a day on which the tenant's daily loss limit was reached",
    # exchange connections
    "exchange.unknown": "the exchange is a connector of the engine",
    "exchange.nested": "the connector's credentials are plain fields",
    "exchange.sandbox": "a sandbox tenant uses exchanges the sandbox can stand in for",
    "credential.missing": "every credential the connector needs is there",
    "credential.unknown": "there are no credentials the connector does not have",
    "credential.twice": "each credential is given under one name only",
    "credential.base64": "ciphertexts and nonces are standard base64 with padding",
    "credential.ciphertext": "a ciphertext is longer than its 16-byte tag",
    "credential.nonce": "a nonce has 12 bytes",
    "credential.nonce_missing": "every ciphertext has its nonce",
    "credential.nonce_alone": "every nonce has its ciphertext",
    "credential.nonce_reused": "no nonce is used twice with one key",
    "setting.unknown": "there are no settings the connector does not have",
    "setting.missing": "every plain setting the connector needs is there",
    "setting.value": "a setting has its field's type and one of its values",
    # bots
    "bot.connection": "a bot's exchange connection is in the document",
    "bot.template": "the strategy template exists",
    "bot.perpetual": "a spot strategy runs on a spot connector",
    "bot.orders": "a bot runs on a connector whose orders can be judged when they are sent, and followed afterwards",
    "pair.unknown": "the trading pair is in the exchange's rules, where the catalogue has them",
    # limits and what every template of our own must agree with
    "quote.usd": "a limit named in US dollars needs a quote asset that is worth one",
    "risk.order": "max_order is not above max_position",
    "risk.loss": "a loss limit is not above max_position",
    "risk.notional": "max_position and max_order allow at least the exchange's smallest order",
    "order.max_order": "no order of the strategy is above max_order",
    "order.max_position": "the strategy's orders together stay within max_position",
    "order.notional": "every order is worth at least the exchange's minimum",
    "order.count": "no more orders at once than max_open_orders and the exchange allow",
    "profit.fees": "the take profit is more than the fees of buying and selling",
    "trailing.pair": "trailing_activation_pct and trailing_delta_pct are given together",
    "trailing.delta": "trailing_delta_pct is not above trailing_activation_pct",
    "trailing.profit": "trailing_activation_pct is below take_profit_pct, so that it can ever begin",
    # grid
    "grid.bounds": "the lower bound is below the upper bound",
    "grid.tick": "bounds are multiples of the pair's tick",
    "grid.step": "the step is at least one tick, so that no two levels coincide",
    "grid.fees": "the step is more than twice the maker fee at the upper bound",
    "grid.amount": "every level's amount is at least the exchange's minimum amount",
    "grid.notional": "every level's order is worth at least the exchange's minimum",
    "grid.stop": "the stop price is below the lower bound",
    # dca
    "dca.lengths": "every spread has its amount",
    "dca.spreads": "each spread is larger than the one before it",
    "dca.stop": "the stop lies below the next level, so that every level can be bought",
    "dca.dip": "dip_pct and dip_multiplier are given together",
    # pure market making
    "pmm.levels": "the outermost bid stays above a price of zero",
    "pmm.amount": "every level's amount is at least the exchange's minimum amount",
    "pmm.notional": "at the price ceiling an order is worth at least the exchange's minimum",
    "pmm.price": "price ceiling and floor are prices, or -1 for none",
    "pmm.band": "the price floor is below the price ceiling",
    "pmm.minimum_spread": "minimum_spread is below bid_spread and ask_spread",
    "pmm.risk": "the engine's strategy enforces no limit but kill_switch_pct",
}


class Findings:
    """Collects faults while a document is judged, in the order they are found."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def add(self, rule: str, pointer: str, problem: str, allowed: str) -> None:
        """Notes that ``rule`` refuses the field at ``pointer``."""
        if rule not in RULES:
            raise KeyError(rule)
        self.faults.append(Fault(pointer, problem, allowed, rule))

    def __bool__(self) -> bool:
        return bool(self.faults)


def shown(value: object, limit: int = 40) -> str:
    """A value as it may be printed: ASCII, one line, bounded; control characters are escaped."""
    if isinstance(value, str):
        text = ascii(value[: limit + 1])
        return text if len(value) <= limit else text[:limit] + "…'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large number"
    if isinstance(value, int | float):
        return str(value)
    return f"a {type(value).__name__}"


def one_of(names: Iterable[str], wanted: object = None, limit: int = 12) -> str:
    """What is known, for a fault's ``allowed``: closest to ``wanted`` first, at most ``limit`` names."""
    known = sorted(name for name in names if name.isascii() and name.isprintable() and len(name) <= 64)
    if isinstance(wanted, str) and len(wanted) <= 64:
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
        known = close + [name for name in known if name not in close]
    if not known:
        return "nothing"
    more = len(known) - limit
    return ", ".join(known[:limit]) + (f" and {more} more" if more > 0 else "")
