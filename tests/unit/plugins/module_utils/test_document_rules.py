"""Every rule: a document it refuses, with the field and the reason, and the neighbour that is accepted."""

from __future__ import annotations

import ast
import copy
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import document as document_module
from ansible_collections.hummingfleet.core.plugins.module_utils import fields, risk, rules
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import RULES, Findings
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import (
    controller,
    dca,
    grid,
    pure_market_making,
    signal_webhook,
)

from tests import factories

GONE = object()
MODULES = (document_module, fields, risk, controller, grid, dca, signal_webhook, pure_market_making)
"""Everything that notes faults."""


@dataclass(frozen=True)
class Case:
    """``refused`` and ``accepted`` are changes to the same base document: path (dots) to value."""

    rule: str
    refused: dict[str, Any]
    pointer: str
    says: str
    accepted: dict[str, Any] = field(default_factory=dict)
    base: Callable[..., dict[str, Any]] = factories.grid_document
    allowed: str = ""

    @property
    def id(self) -> str:
        return f"{self.rule}:{self.pointer}"


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the value at each dotted path replaced (GONE removes it)."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = base
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = int(last) if isinstance(place, list) else last
        if value is GONE:
            del place[key]
        else:
            place[key] = copy.deepcopy(value)
    return base


def business(**overrides: Any) -> dict[str, Any]:
    """A grid tenant on live exchanges with the plan that has everything."""
    return factories.grid_document(plan="business", exchange_environment="live", **overrides)


def okx_connection(**overrides: Any) -> dict[str, Any]:
    passphrase = {
        "encrypted_passphrase": factories.encrypted_text("p"),
        "nonce_passphrase": factories.nonce_text("okx p"),
    }
    return factories.connection(id="ok", exchange="okx", seed="okx") | passphrase | overrides


def with_okx() -> dict[str, Any]:
    return business(exchange_connections=[factories.connection(), okx_connection()])


def with_kraken(**overrides: Any) -> dict[str, Any]:
    """A connection through a connector whose orders cannot be followed, which no bot uses."""
    kraken = factories.connection(id="kr", exchange="kraken", seed="kr")
    return business(**({"exchange_connections": [factories.connection(), kraken]} | overrides))


def with_settings() -> dict[str, Any]:
    """A lighter connection: encrypted fields, a text, two whole numbers."""
    lighter = {
        "id": "li",
        "exchange": "lighter",
        "key_id": "k1",
        "settings": {"l1_address": "0xabc", "lighter_api_key_index": 3},
    }
    for name in ("api_private_key", "account_limit"):
        lighter[f"encrypted_{name}"] = factories.encrypted_text(name)
        lighter[f"nonce_{name}"] = factories.nonce_text(name)
    okx = okx_connection(settings={"registration_sub_domain": "my"})
    coinbase = factories.connection(
        id="cb", exchange="coinbase_advanced_trade", seed="cb", settings={"use_auth_for_public_endpoints": True}
    )
    return business(exchange_connections=[factories.connection(), lighter, okx, coinbase])


def with_perpetual() -> dict[str, Any]:
    perpetual = factories.connection(id="pe", exchange="binance_perpetual", seed="pe")
    return business(exchange_connections=[factories.connection(), perpetual])


def eth_btc() -> dict[str, Any]:
    """A signal bot whose limits are in BTC."""
    bot = factories.signal_bot(trading_pair="ETH-BTC", strategy_config={}, risk_config={"max_position": "0.5"})
    return factories.document(bots=[bot])


MM = factories.market_making_document
HALT = {
    "limit": "max_daily_loss_usd", "day": "2026-11-23", "value": 3100, "threshold": 3000,
    "at": "2026-11-23T05:00:00.000Z",
}  # fmt: skip
DCA, INTERVAL, SIGNAL = factories.dca_document, factories.dca_interval_document, factories.signal_document
BOT, CONFIG, RISK, EX = "bots.0.", "bots.0.strategy_config.", "bots.0.risk_config.", "exchange_connections.0."
P_BOT, P_CONFIG, P_RISK = "/bots/0/", "/bots/0/strategy_config/", "/bots/0/risk_config/"
P_EX = "/exchange_connections/0/"
SHORT = "AAAAAAAAAAAAAAAA"  # 12 bytes

CASES = [
    # shape
    Case("missing", {"plan": GONE}, "/plan", "missing"),
    Case("missing", {"tenant": GONE, "subdomain": "acme"}, "/tenant", "missing", {"subdomain": "acme"}),
    Case("missing", {"subdomain": GONE, "tenant": GONE}, "/tenant", "missing", {"subdomain": GONE}),
    Case("missing", {BOT + "id": GONE}, P_BOT + "id", "missing"),
    Case("missing", {EX + "key_id": GONE}, P_EX + "key_id", "missing"),
    Case("missing", {CONFIG + "order_amount": GONE}, P_CONFIG + "order_amount", "missing"),
    Case("missing", {RISK + "max_position": GONE}, P_RISK + "max_position", "no default in BTC", base=eth_btc),
    Case("missing", {CONFIG + "mode": GONE}, P_CONFIG + "mode", "missing", base=DCA),
    Case("missing", {CONFIG + "take_profit_pct": GONE}, P_CONFIG + "take_profit_pct", "missing", base=DCA),
    Case("missing", {CONFIG + "interval_s": GONE}, P_CONFIG + "interval_s", "missing", base=INTERVAL),
    Case("missing", {RISK + "kill_switch_pct": GONE}, P_RISK + "kill_switch_pct", "missing", base=MM),
    Case("missing", {CONFIG + "bid_spread": GONE}, P_CONFIG + "bid_spread", "missing", base=MM),
    Case("unknown", {"nmae": "x"}, "/nmae", "no field 'nmae'"),
    Case("unknown", {"encrypted": {}}, "/encrypted", "no field"),
    Case("unknown", {EX + "encrypted": {}}, P_EX + "encrypted", "no field"),
    Case("unknown", {EX + "api_key": "x"}, P_EX + "api_key", "no field"),
    Case("unknown", {"placement": {"nodes": 1}}, "/placement/nodes", "no field", {"placement": {}}),
    Case("unknown", {"gateway": {"on": True}}, "/gateway/on", "no field", {"gateway": {"enabled": True}}),
    Case("unknown", {"secret_versions": {"wallet": 1}}, "/secret_versions/wallet", "no field",
         {"secret_versions": {"postgres": 2}}),
    Case("unknown", {CONFIG + "grid_cuont": 1}, P_CONFIG + "grid_cuont", "no field", allowed="grid_count"),
    Case("unknown", {RISK + "kill_switch_pct": 5}, P_RISK + "kill_switch_pct", "no field"),
    Case("type.mapping", {"gateway": True}, "/gateway", "not a mapping", {"gateway": {}}),
    Case("type.mapping", {"bots.0": "b1"}, "/bots/0", "not a mapping"),
    Case("type.mapping", {BOT + "strategy_config": []}, P_BOT + "strategy_config", "not a mapping"),
    Case("type.mapping", {BOT + "risk_config": None}, P_BOT + "risk_config", "null is not a mapping"),
    Case("type.list", {"bots": {}}, "/bots", "not a list", {"bots": []}),
    Case("type.list", {CONFIG + "spreads_pct": 1}, P_CONFIG + "spreads_pct", "1 is not a list", base=DCA,
         allowed="a list of 1 to 20 numbers"),
    Case("type.text", {"subdomain": 7}, "/subdomain", "7 is not text", {"subdomain": "seven"}),
    Case("type.text", {EX + "encrypted_api_key": 7}, P_EX + "encrypted_api_key", "the value is not text"),
    Case("type.integer", {"uid": "2000"}, "/uid", "not a whole number", {"uid": 2000}),
    Case("type.integer", {BOT + "restarts": True}, P_BOT + "restarts", "true is not a whole", {BOT + "restarts": 1}),
    Case("type.integer", {BOT + "restarts": 1.5}, P_BOT + "restarts", "not a whole number", {BOT + "restarts": 2}),
    Case("type.integer", {CONFIG + "grid_count": 10.5}, P_CONFIG + "grid_count", "10.5 is not a whole",
         {CONFIG + "grid_count": "11"}),
    Case("type.boolean", {"redis": {"enabled": "no"}}, "/redis/enabled", "'no' is not true or false",
         {"redis": {"enabled": False}}),
    Case("type.boolean", {"redis": {"enabled": 0}}, "/redis/enabled", "0 is not true or false"),
    Case("type.boolean", {CONFIG + "ping_pong_enabled": 1}, P_CONFIG + "ping_pong_enabled", "1 is not a switch",
         {CONFIG + "ping_pong_enabled": True}, base=MM),
    Case("type.number", {CONFIG + "order_amount": True}, P_CONFIG + "order_amount", "true is not a number"),
    Case("type.number", {CONFIG + "order_amount": None}, P_CONFIG + "order_amount", "null is not a number"),
    Case("type.number", {CONFIG + "order_amount": "NaN"}, P_CONFIG + "order_amount", "'NaN' is not a number",
         {CONFIG + "order_amount": "100.50"}),
    Case("type.number", {CONFIG + "order_amount": "1_000"}, P_CONFIG + "order_amount", "not a number"),
    Case("type.number", {CONFIG + "order_amount": "१००"}, P_CONFIG + "order_amount", "not a number",
         {CONFIG + "order_amount": "1e2"}),
    Case("type.number", {RISK + "max_drawdown_pct": "10%"}, P_RISK + "max_drawdown_pct", "not a number"),
    Case("number.finite", {CONFIG + "order_amount": float("inf")}, P_CONFIG + "order_amount", "not finite"),
    Case("number.finite", {RISK + "max_drawdown_pct": float("nan")}, P_RISK + "max_drawdown_pct", "not finite"),
    Case("number.digits", {CONFIG + "order_amount": 10**40}, P_CONFIG + "order_amount", "too many digits"),
    Case("number.digits", {CONFIG + "order_amount": "100.12345678901234"}, P_CONFIG + "order_amount", "15 significant",
         {CONFIG + "order_amount": "100.123456789012"}),
    Case("number.digits", {RISK + "kill_switch_pct": "1e-13"}, P_RISK + "kill_switch_pct", "decimal places",
         {RISK + "kill_switch_pct": "1e-12"}, base=MM),
    Case("range", {CONFIG + "grid_count": 1}, P_CONFIG + "grid_count", "1 is out of range", {CONFIG + "grid_count": 2},
         allowed="at least 2 and at most 200"),
    Case("range", {"uid": 0}, "/uid", "0 is out of range", {"uid": 1000}, allowed="at least 1000"),
    Case("range", {BOT + "priority": 1001}, P_BOT + "priority", "out of range", {BOT + "priority": 1000},
         allowed="at most 1000"),
    Case("range", {"uid": 2_000_000_001}, "/uid", "out of range", {"uid": 2_000_000_000}),
    *(
        Case("range", {BOT + name: value}, P_BOT + name, "out of range", {BOT + name: neighbour})
        for name, value, neighbour in (
            ("restarts", -1, 0),
            ("restarts", 1_000_001, 1_000_000),
            ("resumes", -1, 0),
            ("resumes", 1_000_001, 1_000_000),
            ("priority", -1, 0),
        )
    ),
    *(
        Case("range", {"secret_versions": {purpose: value}}, f"/secret_versions/{purpose}", "out of range",
             {"secret_versions": {purpose: neighbour}})
        for purpose in document_module.SECRET_PURPOSES
        for value, neighbour in ((0, 1), (1_000_001, 1_000_000))
    ),
    Case("choice", {"state": "deleted"}, "/state", "'deleted' is not one", {"state": "suspended"},
         allowed="terminated"),
    Case("choice", {BOT + "state": "paused"}, P_BOT + "state", "'paused'", {BOT + "state": "liquidated"}),
    Case("choice", {"exchange_environment": "test"}, "/exchange_environment", "'test'",
         {"exchange_environment": "live"}),
    Case("choice", {"dashboard": "streamlit"}, "/dashboard", "not one of", {"dashboard": "none"}),
    Case("choice", {EX + "aad": "v3"}, P_EX + "aad", "not one of", {EX + "aad": "v2"}),
    Case("choice", {CONFIG + "price_type": "custom"}, P_CONFIG + "price_type", "not one of",
         {CONFIG + "price_type": "best_bid"}, base=MM),
    Case("length.list", {"placement": {"labels": {f"l{i}": "x" for i in range(17)}}}, "/placement/labels", "too many",
         {"placement": {"labels": {f"l{i}": "x" for i in range(16)}}}),
    Case("length.list", {CONFIG + "spreads_pct": [*range(21)], CONFIG + "amounts_quote": [10] * 20},
         P_CONFIG + "spreads_pct", "21 entries",
         {CONFIG + "spreads_pct": [*range(20)], CONFIG + "amounts_quote": [10] * 20}, base=DCA),
    Case("field.twice", {RISK + "max_position": 10000}, P_RISK + "max_position_usd", "given twice",
         {RISK + "max_position": 10000, RISK + "max_position_usd": GONE}),
    Case("field.mode", {CONFIG + "interval_s": 60}, P_CONFIG + "interval_s", "nothing with mode ladder", base=DCA),
    Case("field.mode", {CONFIG + "cooldown_s": 60}, P_CONFIG + "cooldown_s", "nothing with mode interval",
         base=INTERVAL),
    Case("id", {"tenant": "a", "subdomain": "acme"}, "/tenant", "'a' is not accepted", {"tenant": "ab"}),
    Case("id", {"tenant": "Acme", "subdomain": GONE}, "/tenant", "'Acme' is not accepted", {"subdomain": GONE}),
    Case("id", {"tenant": "a" * 33, "subdomain": "acme"}, "/tenant", "not accepted", {"tenant": "a" * 32}),
    Case("id", {"tenant": "acme--x", "subdomain": "acme"}, "/tenant", "not accepted", {"tenant": "acme-x"}),
    Case("id", {"tenant": "acme\n", "subdomain": "acme"}, "/tenant", r"'acme\n'"),
    Case("id", {"subdomain": "xn--80ak6aa92e"}, "/subdomain", "not accepted", {"subdomain": "a" * 63}),
    Case("id", {BOT + "id": "B1"}, P_BOT + "id", "'B1'", {BOT + "id": "b-1"}),
    Case("id", {EX + "id": "../x", BOT + "exchange_connection_id": "../x"}, P_EX + "id", "'../x'"),
    Case("node_id", {"placement": {"node": "edge-1"}}, "/placement/node", "'edge-1'",
         {"placement": {"node": "edge_1"}}),
    Case("ring", {"placement": {"ring": "Stable"}}, "/placement/ring", "'Stable'", {"placement": {"ring": "canary"}}),
    Case("label", {"placement": {"labels": {"a b": "x"}}}, "/placement/labels/a b", "'a b'",
         {"placement": {"labels": {"a.b": "x"}}}),
    Case("label", {"placement": {"labels": {"zone": "{{x}}"}}}, "/placement/labels/zone", "'{{x}}'",
         {"placement": {"labels": {"zone": "eu-1"}}}),
    Case("subnet", {"subnet": "8.8.8.0/27"}, "/subnet", "no such network", {"subnet": "10.90.3.0/27"}),
    Case("subnet", {"subnet": "10.90.3.1/27"}, "/subnet", "no such network", {"subnet": "10.90.3.32/27"}),
    Case("subnet", {"subnet": "10.0.0.0/8"}, "/subnet", "no such network", {"subnet": "10.0.0.0/24"}),
    Case("salt", {"salt": "short"}, "/salt", "the text is not accepted", {"salt": "c2FsdHNhbHRzYWx0"}),
    Case("key_id", {EX + "key_id": "../keys/k1"}, P_EX + "key_id", "'../keys/k1'", {EX + "key_id": "k_1-a"}),
    Case("pair.format", {BOT + "trading_pair": "BTC/USDT"}, P_BOT + "trading_pair", "'BTC/USDT'"),
    Case("name", {BOT + "name": ""}, P_BOT + "name", "blank or too long", {BOT + "name": "x"}),
    Case("name", {BOT + "name": "x" * 81}, P_BOT + "name", "blank or too long", {BOT + "name": "x" * 80}),
    Case("name", {BOT + "name": "a\u202eb"}, P_BOT + "name", "control", {BOT + "name": "日本 – ünïcode 🤖"}),
    Case("credential.text", {EX + "encrypted_api_key": "A" * 8193}, P_EX + "encrypted_api_key", "text is not accepted",
         {EX + "encrypted_api_key": "A" * 8192}),
    Case("credential.text", {EX + "nonce_key": "A" * 8193}, P_EX + "nonce_key", "text is not accepted"),
    Case("type.text", {EX + "nonce_key": None}, P_EX + "nonce_key", "the value is not text"),
    # names
    Case("tenant.reserved", {"tenant": "nodes", "subdomain": "n1"}, "/tenant", "'nodes'", {"tenant": "nodes1"}),
    Case("tenant.reserved", {"tenant": "edge-7", "subdomain": "n1"}, "/tenant", "'edge-7'", {"tenant": "edge-8"}),
    Case("bot.reserved", {BOT + "id": "postgres"}, P_BOT + "id", "'postgres'", {BOT + "id": "postgres1"}),
    Case("subdomain.reserved", {"subdomain": "www"}, "/subdomain", "'www'", {"subdomain": "www1"}),
    Case(
        "connection.duplicate",
        {"exchange_connections": [factories.connection(), factories.connection(seed="b")]},
        "/exchange_connections/1/id",
        "'ex1' is taken",
        {"exchange_connections": [factories.connection(), factories.connection(seed="b", id="ex2")]},
    ),
    Case("bot.duplicate", {"bots": [factories.grid_bot(), factories.grid_bot()]}, "/bots/1/id", "'b1' is taken",
         {"bots": [factories.grid_bot(), factories.grid_bot(id="b2")]}),
    # plan and release
    Case("plan.unknown", {"plan": "prp"}, "/plan", "no plan 'prp'", allowed="pro, "),
    Case("release.unknown", {"release": "2026.9"}, "/release", "no release '2026.9'", allowed="2026.09"),
    Case("plan.bots", {"bots": [factories.grid_bot(id=f"b{i}") for i in range(11)]}, "/bots",
         "11 are more than plan pro",
         {"bots": [factories.grid_bot(id=f"b{i}") for i in range(10)]}, allowed="at most 10"),
    Case(
        "plan.connections",
        {"exchange_connections": [factories.connection(id=f"ex{i}", seed=f"{i}") for i in range(1, 7)]},
        "/exchange_connections",
        "6 are more",
        {"exchange_connections": [factories.connection(id=f"ex{i}", seed=f"{i}") for i in range(1, 6)]},
    ),
    Case("plan.exchange", {"plan": "starter"}, "/exchange_connections/0/exchange", "does not include mexc",
         {"plan": "pro"},
         base=lambda: factories.document(
             exchange_environment="live", exchange_connections=[factories.connection(exchange="mexc")])),
    Case("plan.strategy", {"plan": "starter"}, P_BOT + "strategy_template", "does not include pure_market_making",
         base=MM, allowed="grid"),
    Case("plan.gateway", {"plan": "starter"}, "/gateway/enabled", "plan starter has no gateway",
         base=lambda: factories.grid_document(gateway={"enabled": True})),
    Case("plan.max_position", {RISK + "max_position_usd": 100001}, P_RISK + "max_position_usd", "ceiling of plan pro",
         {RISK + "max_position_usd": 100000}, allowed="at most 100000 (USDT)"),
    *(
        Case(f"plan.{name}", {"plan": "strict", RISK + name: value}, P_RISK + name,
             f"{value} is above the ceiling of plan strict", {"plan": "strict", RISK + name: neighbour},
             allowed=f"at most {neighbour} ")
        for name, value, neighbour in (
            ("max_order", 501, 500), ("max_open_orders", 21, 20), ("max_drawdown", 101, 100),
            ("max_drawdown_pct", 21, 20), ("price_band_pct", "2.5", 2),
        )
    ),
    Case("plan.max_daily_loss", {"plan": "strict", RISK + "max_daily_loss_usd": 501}, P_RISK + "max_daily_loss_usd",
         "ceiling of plan strict", {"plan": "strict", RISK + "max_daily_loss_usd": 500}, allowed="at most 500 (USDT)"),
    Case("plan.tenant_max_daily_loss_usd", {"risk": {"max_daily_loss_usd": 50001}}, "/risk/max_daily_loss_usd",
         "50001 is above the ceiling of plan pro", {"risk": {"max_daily_loss_usd": 50000}}, allowed="at most 50000 "),
    Case("tenant.risk_halt", {"risk_halt": HALT}, P_BOT + "state", "lost 3100 US dollars on 2026-11-23",
         {"risk_halt": HALT, BOT + "state": "stopped"}, allowed="running from 2026-11-24"),
    Case("day", {"risk_halt": {**HALT, "day": "2026-02-30"}, BOT + "state": "stopped"}, "/risk_halt/day", "is no day",
         {"risk_halt": {**HALT, "day": "2026-02-28"}, BOT + "state": "stopped"}),
    Case("time", {"risk_halt": {**HALT, "at": "noon"}, BOT + "state": "stopped"}, "/risk_halt/at", "'noon'",
         {"risk_halt": HALT, BOT + "state": "stopped"}),
    Case("plan.quote", {"plan": "strict"}, P_BOT + "trading_pair", "plan strict has no bots that trade against BTC",
         base=eth_btc, allowed="quoted in USD, or pegged"),
    # exchange connections
    Case("exchange.unknown", {"exchange_connections.1.exchange": "kukoin"}, "/exchange_connections/1/exchange",
         "no connector 'kukoin'", allowed="kucoin", base=with_okx),
    Case(
        "exchange.nested",
        {"exchange_connections": [factories.connection(), {"id": "in", "exchange": "injective_v2", "key_id": "k1"}]},
        "/exchange_connections/1/exchange",
        "not plain fields",
        base=business,
    ),
    Case("exchange.sandbox", {"exchange_environment": "sandbox"}, "/exchange_connections/1/exchange",
         "cannot stand in for okx", base=with_okx, allowed="binance"),
    Case("credential.missing", {EX + "encrypted_api_secret": GONE, EX + "nonce_secret": GONE},
         P_EX + "encrypted_api_secret", "binance needs it"),
    Case("credential.missing",
         {"exchange_connections.1.encrypted_passphrase": GONE, "exchange_connections.1.nonce_passphrase": GONE},
         "/exchange_connections/1/encrypted_passphrase", "okx needs it", base=with_okx),
    Case("credential.unknown", {EX + "encrypted_passphrase": factories.encrypted_text("p"),
                                EX + "nonce_passphrase": factories.nonce_text("p")},
         P_EX + "encrypted_passphrase", "no such credential", allowed="encrypted_api_key, encrypted_api_secret"),
    Case("credential.unknown", {"exchange_connections.1.encrypted_l1_address": factories.encrypted_text("p"),
                                "exchange_connections.1.nonce_l1_address": factories.nonce_text("p")},
         "/exchange_connections/1/encrypted_l1_address", "no such credential", base=with_settings),
    Case("credential.twice", {EX + "encrypted_binance_api_key": factories.encrypted_text("p"),
                              EX + "nonce_binance_api_key": factories.nonce_text("p")},
         P_EX + "encrypted_binance_api_key", "given twice"),
    Case("credential.twice", {EX + "nonce_api_key": factories.nonce_text("p")}, P_EX + "nonce_api_key", "given twice",
         {EX + "nonce_api_key": factories.nonce_text("p"), EX + "nonce_key": GONE}),
    Case("credential.base64", {EX + "encrypted_api_key": "not base64!"}, P_EX + "encrypted_api_key", "not base64"),
    Case("credential.base64", {EX + "encrypted_api_key": "A" * 63}, P_EX + "encrypted_api_key", "not base64",
         {EX + "encrypted_api_key": "A" * 64}),
    Case("credential.base64", {EX + "nonce_key": "____" * 4}, P_EX + "nonce_key", "not base64",
         {EX + "nonce_key": "////" * 4}),
    Case("credential.ciphertext", {EX + "encrypted_api_key": "A" * 22 + "=="}, P_EX + "encrypted_api_key", "16 bytes",
         {EX + "encrypted_api_key": "A" * 23 + "="}, allowed="at least 17 bytes"),
    Case("credential.nonce", {EX + "nonce_key": "A" * 12}, P_EX + "nonce_key", "9 bytes are no nonce",
         {EX + "nonce_key": "A" * 16}, allowed="12 bytes"),
    Case("credential.nonce", {EX + "nonce_secret": ""}, P_EX + "nonce_secret", "0 bytes are no nonce"),
    Case("credential.nonce_missing", {EX + "nonce_key": GONE}, P_EX + "nonce_key", "nonce is missing"),
    Case("credential.nonce_alone", {EX + "nonce_memo": SHORT}, P_EX + "nonce_memo", "no ciphertext"),
    Case("credential.nonce_reused", {EX + "nonce_key": SHORT, EX + "nonce_secret": SHORT}, P_EX + "nonce_secret",
         "used twice", {EX + "nonce_key": SHORT}),
    Case(
        "credential.nonce_reused",
        {"exchange_connections": [factories.connection(), factories.connection(
            id="ex2", seed="b", nonce_key=factories.connection()["nonce_key"])]},
        "/exchange_connections/1/nonce_key",
        "used twice",
        {"exchange_connections": [factories.connection(), factories.connection(
            id="ex2", seed="b", nonce_key=factories.connection()["nonce_key"], key_id="k2")]},
    ),
    Case("setting.unknown", {EX + "settings": {"api_tier": "Pro"}}, P_EX + "settings/api_tier", "no such setting",
         {EX + "settings": {}}),
    Case("setting.missing", {"exchange_connections.1.settings": {"l1_address": "0xabc"}},
         "/exchange_connections/1/settings/lighter_api_key_index", "lighter needs it", base=with_settings),
    Case("setting.value", {"exchange_connections.2.settings.registration_sub_domain": "ww"},
         "/exchange_connections/2/settings/registration_sub_domain", "'ww'", base=with_settings,
         allowed="app, my, www"),
    Case("setting.value", {"exchange_connections.1.settings.lighter_api_key_index": True},
         "/exchange_connections/1/settings/lighter_api_key_index", "true", base=with_settings),
    Case("setting.value", {"exchange_connections.1.settings.l1_address": "a b"},
         "/exchange_connections/1/settings/l1_address", "'a b'", base=with_settings),
    Case("setting.value", {"exchange_connections.3.settings.use_auth_for_public_endpoints": "yes"},
         "/exchange_connections/3/settings/use_auth_for_public_endpoints", "'yes'", base=with_settings),
    # bots
    Case("bot.connection", {BOT + "exchange_connection_id": "ex9"}, P_BOT + "exchange_connection_id",
         "no exchange connection 'ex9'", allowed="ex1"),
    Case("bot.template", {BOT + "strategy_template": "gird"}, P_BOT + "strategy_template",
         "no strategy template 'gird'",
         allowed="grid, "),
    Case("bot.perpetual", {"bots": [factories.grid_bot(exchange_connection_id="pe")]}, P_BOT + "exchange_connection_id",
         "trades perpetuals", base=with_perpetual),
    Case("bot.orders", {BOT + "exchange_connection_id": "kr"}, P_BOT + "exchange_connection_id",
         "kraken cannot be traded safely: it names its orders in a way of its own", base=with_kraken,
         allowed="docs/reference/connectors.md"),
    Case("pair.unknown", {BOT + "trading_pair": "BTC-UDST"}, P_BOT + "trading_pair", "binance has no pair BTC-UDST",
         allowed="BTC-USDT"),
    Case("quote.usd", {RISK + "max_daily_loss_usd": "0.01"}, P_RISK + "max_daily_loss_usd", "BTC is not worth one",
         {RISK + "max_daily_loss": "0.01"}, base=eth_btc, allowed="max_daily_loss, in BTC"),
    # limits and what every template of our own must agree with
    Case("risk.order", {RISK + "max_order_usd": 10001}, P_RISK + "max_order_usd", "above the whole position",
         {RISK + "max_order_usd": 10000}, allowed="at most max_position, 10000 (USDT)"),
    Case("risk.order", {RISK + "max_position_usd": GONE, RISK + "max_order": 10001}, P_RISK + "max_order",
         "above the whole position", {RISK + "max_position_usd": GONE, RISK + "max_order": 10000}),
    Case("risk.loss", {RISK + "max_daily_loss_usd": 10001}, P_RISK + "max_daily_loss_usd", "above the whole",
         {RISK + "max_daily_loss_usd": 10000}),
    Case("risk.loss", {RISK + "max_drawdown": 10001}, P_RISK + "max_drawdown", "above the whole",
         {RISK + "max_drawdown": 10000}),
    Case("risk.notional", {CONFIG + "order_amount": GONE, RISK + "max_order": 4}, P_RISK + "max_order",
         "4 is below the exchange's smallest order", {CONFIG + "order_amount": GONE, RISK + "max_order": 5},
         base=SIGNAL, allowed="at least 5 (USDT)"),
    Case("order.max_order", {RISK + "max_order_usd": 99}, P_CONFIG + "order_amount", "100 is above max_order_usd 99",
         {RISK + "max_order_usd": 100}, allowed="at most 99 (USDT)"),
    Case("order.max_order", {RISK + "max_order": 399}, P_CONFIG + "amounts_quote/2", "400 is above max_order 399",
         {RISK + "max_order": 400}, base=DCA),
    Case("order.max_order", {CONFIG + "dip_pct": 5, CONFIG + "dip_multiplier": 3, RISK + "max_order": 100},
         P_CONFIG + "dip_multiplier", "150 is above max_order 100",
         {CONFIG + "dip_pct": 5, CONFIG + "dip_multiplier": 2, RISK + "max_order": 100}, base=INTERVAL),
    Case("order.max_order", {"plan": "strict", CONFIG + "order_amount": 501}, P_CONFIG + "order_amount",
         "501 is above max_order 500", {"plan": "strict", CONFIG + "order_amount": 500}, base=SIGNAL),
    Case("order.max_position", {RISK + "max_position_usd": 999}, P_CONFIG + "order_amount",
         "10 levels of 100 are 1000, above max_position_usd 999", {RISK + "max_position_usd": 1000},
         allowed="at most 99.9 "),
    Case("order.max_position", {RISK + "max_position": 699}, P_CONFIG + "amounts_quote", "3 levels are together 700",
         {RISK + "max_position": 700}, base=DCA, allowed="together at most 699"),
    Case("order.max_position", {CONFIG + "order_amount": 1001}, P_CONFIG + "order_amount", "one purchase is 1001",
         {CONFIG + "order_amount": 1000}, base=INTERVAL),
    Case("order.max_position", {CONFIG + "order_amount": 1001}, P_CONFIG + "order_amount", "one order is 1001",
         {CONFIG + "order_amount": 1000}, base=SIGNAL),
    Case("order.notional", {CONFIG + "amounts_quote": [100, "4.99", 400]}, P_CONFIG + "amounts_quote/1",
         "4.99 is below the minimum of 5 USDT", {CONFIG + "amounts_quote": [100, 5, 400]}, base=DCA),
    Case("order.notional", {CONFIG + "order_amount": 4}, P_CONFIG + "order_amount", "4 is below the minimum",
         {CONFIG + "order_amount": 5}, base=INTERVAL),
    Case("order.notional", {CONFIG + "order_amount": 4}, P_CONFIG + "order_amount", "4 is below the minimum",
         {CONFIG + "order_amount": 5}, base=SIGNAL),
    Case("order.count", {RISK + "max_open_orders": 9}, P_CONFIG + "grid_count", "max_open_orders allows 9",
         {RISK + "max_open_orders": 10}, allowed="at most 9"),
    Case("order.count", {RISK + "max_open_orders": 2}, P_CONFIG + "amounts_quote", "max_open_orders allows 2",
         {RISK + "max_open_orders": 3}, base=DCA),
    Case("profit.fees", {CONFIG + "take_profit_pct": "0.2002"}, P_CONFIG + "take_profit_pct", "does not earn two fees",
         {CONFIG + "take_profit_pct": "0.2003"}, base=DCA, allowed="more than 0.2003"),
    Case("profit.fees", {CONFIG + "take_profit_pct": "0.2"}, P_CONFIG + "take_profit_pct", "does not earn two fees",
         {CONFIG + "take_profit_pct": "0.3"}, base=SIGNAL),
    *(
        case
        for base in (factories.grid_document, SIGNAL)
        for case in (
            Case("trailing.pair", {CONFIG + "trailing_delta_pct": 1}, P_CONFIG + "trailing_activation_pct", "missing",
                 {CONFIG + "trailing_delta_pct": 1, CONFIG + "trailing_activation_pct": 2}, base=base,
                 allowed="or neither"),
            Case("trailing.pair", {CONFIG + "trailing_activation_pct": 1}, P_CONFIG + "trailing_delta_pct", "missing",
                 base=base),
            Case("trailing.delta", {CONFIG + "trailing_delta_pct": 2, CONFIG + "trailing_activation_pct": "1.9"},
                 P_CONFIG + "trailing_delta_pct", "2 is above trailing_activation_pct",
                 {CONFIG + "trailing_delta_pct": 2, CONFIG + "trailing_activation_pct": 2}, base=base),
            Case("trailing.profit", {CONFIG + "trailing_delta_pct": 1, CONFIG + "trailing_activation_pct": 5,
                                     CONFIG + "take_profit_pct": 5},
                 P_CONFIG + "trailing_activation_pct", "take_profit_pct sells before",
                 {CONFIG + "trailing_delta_pct": 1, CONFIG + "trailing_activation_pct": "4.9",
                  CONFIG + "take_profit_pct": 5}, base=base),
        )
    ),
    # grid
    Case("grid.bounds", {CONFIG + "lower_bound": 35000}, P_CONFIG + "lower_bound", "35000 is not below upper_bound"),
    Case("grid.bounds", {CONFIG + "lower_bound": 35001}, P_CONFIG + "lower_bound", "not below upper_bound",
         {CONFIG + "lower_bound": 34000}),
    Case("grid.tick", {CONFIG + "lower_bound": "30000.001"}, P_CONFIG + "lower_bound", "30000.001 is not a price",
         {CONFIG + "lower_bound": "30000.01"}, allowed="a multiple of 0.01"),
    Case("grid.tick", {CONFIG + "upper_bound": "35000.005"}, P_CONFIG + "upper_bound", "not a price"),
    Case("grid.step", {CONFIG + "lower_bound": "34999.99"}, P_CONFIG + "grid_count", "closer together than BTC-USDT",
         allowed="at most 1 levels"),
    Case("grid.fees", {CONFIG + "grid_count": 72, CONFIG + "order_amount": 50}, P_CONFIG + "grid_count",
         "does not earn two fees", {CONFIG + "grid_count": 71, CONFIG + "order_amount": 50},
         allowed="at most 71 levels"),
    Case("grid.amount", {"bots": [factories.grid_bot(trading_pair="DOGE-USDT", strategy_config={
            "lower_bound": 1, "upper_bound": 2, "grid_count": 4, "order_amount": "1.7"})]},
         P_CONFIG + "order_amount", "level 3 at 1.75 would order 0 DOGE, below the minimum of 1",
         {"bots": [factories.grid_bot(trading_pair="DOGE-USDT", strategy_config={
             "lower_bound": 1, "upper_bound": 2, "grid_count": 4, "order_amount": "1.75"})]}),
    Case("grid.notional", {CONFIG + "order_amount": 5}, P_CONFIG + "order_amount",
         "level 0 at 30000 would order 0.00016",
         {CONFIG + "order_amount": "5.35"}, allowed="at least 5.35"),
    Case("grid.stop", {CONFIG + "stop_price": 30000}, P_CONFIG + "stop_price", "30000 is not below lower_bound",
         {CONFIG + "stop_price": "29999.999"}, allowed="below 30000"),
    # dca
    Case("dca.lengths", {CONFIG + "amounts_quote": [100, 200]}, P_CONFIG + "amounts_quote", "2 amounts for 3 spreads",
         {CONFIG + "amounts_quote": [100, 200], CONFIG + "spreads_pct": [0, 2]}, base=DCA),
    Case("dca.spreads", {CONFIG + "spreads_pct": [0, 2, 2]}, P_CONFIG + "spreads_pct/2", "2 is not above",
         {CONFIG + "spreads_pct": [1, 2, "2.1"]}, base=DCA),
    Case("dca.stop", {CONFIG + "stop_loss_pct": 2}, P_CONFIG + "stop_loss_pct", "before the level at 2 percent",
         {CONFIG + "stop_loss_pct": 4}, base=DCA),
    Case("dca.stop", {CONFIG + "stop_loss_pct": "3.6"}, P_CONFIG + "stop_loss_pct", "before the level at 5 percent",
         {CONFIG + "stop_loss_pct": "3.8"}, base=DCA),
    Case("dca.dip", {CONFIG + "dip_pct": 5}, P_CONFIG + "dip_multiplier", "means nothing without it",
         {CONFIG + "dip_pct": 5, CONFIG + "dip_multiplier": 2}, base=INTERVAL),
    Case("dca.dip", {CONFIG + "dip_multiplier": 2}, P_CONFIG + "dip_pct", "means nothing without it", base=INTERVAL),
    # pure market making
    Case("pmm.levels", {CONFIG + "order_levels": 3, CONFIG + "order_level_spread": "49.75"}, P_CONFIG + "order_levels",
         "100 percent below", {CONFIG + "order_levels": 3, CONFIG + "order_level_spread": "49.74"}, base=MM),
    Case("pmm.amount", {CONFIG + "order_amount": "0.00009"}, P_CONFIG + "order_amount", "would be 0.00009",
         {CONFIG + "order_amount": "0.0001"}, base=MM, allowed="at least 0.0001"),
    Case("pmm.amount", {CONFIG + "order_levels": 3, CONFIG + "order_level_amount": "-0.025"},
         P_CONFIG + "order_level_amount", "would be 0 ",
         {CONFIG + "order_levels": 3, CONFIG + "order_level_amount": "-0.02"}, base=MM),
    Case("pmm.notional", {CONFIG + "price_ceiling": 99}, P_CONFIG + "order_amount", "even at the price ceiling",
         {CONFIG + "price_ceiling": 100}, base=MM),
    Case("pmm.price", {CONFIG + "price_ceiling": 0}, P_CONFIG + "price_ceiling", "0 is no price",
         {CONFIG + "price_ceiling": -1}, base=MM),
    Case("pmm.price", {CONFIG + "price_floor": "-0.5"}, P_CONFIG + "price_floor", "no price", base=MM),
    Case("pmm.band", {CONFIG + "price_ceiling": 2000, CONFIG + "price_floor": 2000}, P_CONFIG + "price_floor",
         "2000 is not below", {CONFIG + "price_ceiling": 2000, CONFIG + "price_floor": 1999}, base=MM),
    Case("pmm.minimum_spread", {CONFIG + "minimum_spread": "0.5"}, P_CONFIG + "minimum_spread", "would be cancelled",
         {CONFIG + "minimum_spread": "0.49"}, base=MM),
    Case("pmm.risk", {RISK + "max_position_usd": 10000}, P_RISK + "max_position_usd", "knows no such limit", base=MM,
         allowed="kill_switch_pct"),
    Case("pmm.risk", {RISK + "max_drawdown_pct": 10}, P_RISK + "max_drawdown_pct", "knows no such limit", base=MM),
]  # fmt: skip


def catalogue() -> Catalogue:
    """The usual one with a plan that has a low ceiling for everything."""
    usual = factories.catalogue()
    low = {"max_position": 10000, "max_order": 500, "max_open_orders": 20, "max_daily_loss": 500}
    low |= {"max_drawdown": 100, "max_drawdown_pct": 20, "price_band_pct": 2}
    ceilings = {"USD": {name: Decimal(value) for name, value in low.items()}}
    strict = dataclasses.replace(usual.plans["pro"], name="strict", ceilings=ceilings)
    return dataclasses.replace(usual, plans={**usual.plans, "strict": strict})


def parse(data: dict[str, Any]) -> Any:
    return parse_document(data, catalogue(), reserved={"edge_7"})


def refuse(case: Case) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        parse(changed(case.base(), case.refused))
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_exactly_the_rule_refuses_and_names_field_and_reason(case: Case) -> None:
    faults = refuse(case).faults
    assert [(fault.rule, fault.pointer) for fault in faults] == [(case.rule, case.pointer)]
    assert case.says in faults[0].problem
    assert faults[0].allowed
    assert case.allowed in faults[0].allowed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_neighbour_is_accepted(case: Case) -> None:
    document = parse(changed(case.base(), case.accepted))
    assert parse(document.plain()) == document


@pytest.mark.parametrize(
    ("changes", "pointer", "limit"),
    [
        ({"bots": [factories.grid_bot()] * 101}, "/bots", 100),
        ({"exchange_connections": [factories.connection()] * 51}, "/exchange_connections", 50),
        ({CONFIG + f"x{i}": 1 for i in range(61)}, P_BOT + "strategy_config", 64),
        ({RISK + f"x{i}": 1 for i in range(14)}, P_BOT + "risk_config", 16),
        ({EX + "settings": {f"x{i}": 1 for i in range(17)}}, P_EX + "settings", 16),
        ({EX + f"encrypted_x{i}": "AAAA" for i in range(15)}, P_EX + "encrypted_*", 16),
        ({EX + f"nonce_x{i}": "AAAA" for i in range(15)}, P_EX + "nonce_*", 16),
    ],
)
def test_lists_and_mappings_are_bounded_whatever_the_plan_allows(
    changes: dict[str, Any], pointer: str, limit: int
) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(changed(factories.grid_document(), changes))
    found = [fault for fault in caught.value.faults if fault.rule == "length.list"]
    assert [(fault.pointer, fault.allowed) for fault in found] == [(pointer, f"at most {limit} entries")]


@pytest.mark.parametrize("name", ["all", "ungrouped", "localhost", "nodes", "tenants", "behind", "leads", "local"])
def test_reserved_tenants(name: str) -> None:
    assert refuse(Case("", {"tenant": name, "subdomain": "x1"}, "", "")).faults[0].rule == "tenant.reserved"


@pytest.mark.parametrize("name", ["postgres", "redis", "gateway", "dashboard", "edge", "broker", "sandbox"])
def test_reserved_bots(name: str) -> None:
    assert refuse(Case("", {BOT + "id": name}, "", "")).faults[0].rule == "bot.reserved"


def test_too_many_levels_for_the_exchange_are_refused() -> None:
    """No exchange of the catalogue allows fewer orders than a grid may have, so one is made up."""
    usual = factories.catalogue()
    small = dataclasses.replace(usual.exchanges["binance"], max_orders=9)
    few = dataclasses.replace(usual, exchanges={"binance": small})
    for more in ({}, {CONFIG + "activation_bounds_pct": 5}):
        with pytest.raises(DocumentError) as caught:
            parse_document(changed(factories.grid_document(), more), few)
        (fault,) = caught.value.faults
        assert (fault.rule, fault.pointer) == ("order.count", P_CONFIG + "grid_count")
        assert "binance allows 9 open orders" in fault.problem
        parse_document(changed(factories.grid_document(), {**more, CONFIG + "grid_count": 9}), few)


def test_a_grid_that_rests_only_what_is_near_may_have_more_levels_than_open_orders() -> None:
    parse(changed(factories.grid_document(), {RISK + "max_open_orders": 3, CONFIG + "activation_bounds_pct": 5}))


def test_a_bot_trades_on_an_exchange_whose_rules_the_catalogue_does_not_have() -> None:
    """What needs the rules is left out, and what does not is judged all the same."""
    there = {BOT + "exchange_connection_id": "ok", BOT + "trading_pair": "XYZ-USDT", CONFIG + "order_amount": 1}
    assert parse(changed(with_okx(), there)).bots[0].trading_pair == "XYZ-USDT"
    for changes, rule in (
        ({RISK + "max_position_usd": 9}, "order.max_position"),
        ({RISK + "max_position_usd": 2_000_000}, "plan.max_position"),
        ({BOT + "trading_pair": "XYZ-ABC"}, "quote.usd"),
        ({CONFIG + "lower_bound": 36000}, "grid.bounds"),
    ):
        with pytest.raises(DocumentError) as caught:
            parse(changed(with_okx(), there | changes))
        assert rule in {fault.rule for fault in caught.value.faults}


UNTRADABLE = {
    name: connector.untradable
    for name, connector in factories.catalogue().connectors.items()
    if connector.untradable and connector.secrets
}
BOTS = (factories.grid_bot, factories.dca_bot, factories.dca_interval_bot, factories.signal_bot,
        factories.market_making_bot)  # fmt: skip


@pytest.mark.parametrize("make", BOTS)
def test_no_template_runs_where_orders_cannot_be_followed(make: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(with_kraken(bots=[make(exchange_connection_id="kr")]))
    (fault,) = caught.value.faults
    assert (fault.rule, fault.pointer) == ("bot.orders", "/bots/0/exchange_connection_id")
    parse(with_kraken(bots=[make(exchange_connection_id="ex1")]))


@pytest.mark.parametrize("name", UNTRADABLE)
def test_a_connector_that_cannot_be_traded_is_connected_and_refuses_bots(name: str) -> None:
    connector = factories.catalogue().connectors[name]
    connection: dict[str, Any] = {"id": "ex1", "exchange": name, "key_id": "k1", "settings": {}}
    for field_ in connector.secrets:
        connection[f"encrypted_{field_.name}"] = factories.encrypted_text(field_.name)
        connection[f"nonce_{field_.name}"] = factories.nonce_text(field_.name)
    for field_ in connector.settings:
        if field_.required:
            connection["settings"][field_.name] = 1 if field_.type == "int" else "0xabc"
    parse(business(exchange_connections=[connection], bots=[]))
    with pytest.raises(DocumentError) as caught:
        parse(business(exchange_connections=[connection]))
    (fault,) = caught.value.faults
    assert fault.rule == "bot.orders"
    assert fault.problem == f"{name} cannot be traded safely: {UNTRADABLE[name]}"
    assert fault.allowed == "a connection to another exchange; docs/reference/connectors.md lists them"


def test_a_bot_where_orders_cannot_be_followed_hears_about_its_other_faults_too() -> None:
    there = {BOT + "exchange_connection_id": "kr", BOT + "trading_pair": "XYZ-ABC", CONFIG + "lower_bound": 36000}
    with pytest.raises(DocumentError) as caught:
        parse(changed(with_kraken(), there))
    assert {"bot.orders", "quote.usd", "grid.bounds"} <= {fault.rule for fault in caught.value.faults}


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == {case.rule for case in CASES}


# Deleting a rule --------------------------------------------------------------------------------------------------


def findings_calls() -> list[tuple[str, int, int, str]]:
    """Every place in the source that notes a fault by name: file, first and last line, rule."""
    calls = []
    for module in MODULES:
        path = str(module.__file__)
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
                first = node.args[0]
                if isinstance(first, ast.Constant) and first.value in RULES:
                    calls.append((path, node.lineno, node.end_lineno or node.lineno, str(first.value)))
    return calls


@pytest.mark.parametrize("call", findings_calls(), ids=lambda call: f"{Path(call[0]).stem}:{call[3]}")
def test_deleting_a_check_lets_a_refused_document_through(
    call: tuple[str, int, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place that notes a fault is needed: without it some case's document gets away."""
    path, first, last, rule = call
    original = Findings.add

    def add(self: Findings, name: str, *details: str) -> None:
        frame = sys._getframe(1)
        if not (frame.f_code.co_filename == path and first <= frame.f_lineno <= last):
            original(self, name, *details)

    monkeypatch.setattr(Findings, "add", add)
    escaped = []
    for case in CASES:
        if case.rule == rule:
            try:
                parse(changed(case.base(), case.refused))
                escaped.append(case)
            except DocumentError as error:
                if rule not in {fault.rule for fault in error.faults}:
                    escaped.append(case)
            except (TypeError, KeyError):
                escaped.append(case)  # the faulty value went on into the later checks
    assert escaped, f"no case notices that {Path(path).name}:{first} is gone"


def test_rules_module_has_no_rule_that_is_never_used() -> None:
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in MODULES)
    ceilings = {f"plan.{name}" for name in risk.CEILINGS}
    assert [rule for rule in RULES if f'"{rule}"' not in source and rule not in ceilings] == []
    assert rules.MAX_FAULTS == 100
