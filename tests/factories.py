"""Valid data that tests start from; every factory returns plain data of its own, free to be changed."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue, load_catalogue

ROOT = Path(__file__).resolve().parent.parent


@cache
def catalogue() -> Catalogue:
    """The catalogue that ships with the repository, except that plan ``pro`` offers a Gateway (none does so yet)."""
    shipped = load_catalogue(ROOT / "catalogue")
    plans = {**shipped.plans, "pro": dataclasses.replace(shipped.plans["pro"], gateway=True)}
    return dataclasses.replace(shipped, plans=plans)


def encrypted_text(seed: str, length: int = 64) -> str:
    """Base64 that looks like ciphertext with its tag; it decrypts with no key."""
    return base64.b64encode(hashlib.shake_256(seed.encode()).digest(length + 16)).decode()


def nonce_text(seed: str) -> str:
    """Base64 of 12 bytes that depend on ``seed``."""
    return base64.b64encode(hashlib.shake_256(("nonce " + seed).encode()).digest(12)).decode()


def connection(**overrides: Any) -> dict[str, Any]:
    """A Binance connection in the portal's format; credentials depend on the tenant given as ``seed``."""
    seed = overrides.pop("seed", "acme")
    data: dict[str, Any] = {
        "id": "ex1",
        "exchange": "binance",
        "key_id": "k1",
        "encrypted_api_key": encrypted_text(f"{seed} key"),
        "nonce_key": nonce_text(f"{seed} key"),
        "encrypted_api_secret": encrypted_text(f"{seed} secret"),
        "nonce_secret": nonce_text(f"{seed} secret"),
    }
    return data | overrides


def grid_bot(**overrides: Any) -> dict[str, Any]:
    """The grid bot of the portal's example."""
    data: dict[str, Any] = {
        "id": "b1",
        "name": "Test Grid Bot",
        "exchange_connection_id": "ex1",
        "strategy_template": "grid",
        "trading_pair": "BTC-USDT",
        "strategy_config": {"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 100},
        "risk_config": {"max_position_usd": 10000, "max_daily_loss_usd": 500, "max_drawdown_pct": 10},
    }
    return data | overrides


def market_making_bot(**overrides: Any) -> dict[str, Any]:
    """A bot of the engine's own pure market making strategy."""
    data: dict[str, Any] = {
        "id": "mm1",
        "name": "Test market maker",
        "exchange_connection_id": "ex1",
        "strategy_template": "pure_market_making",
        "trading_pair": "ETH-USDT",
        "strategy_config": {"bid_spread": 0.5, "ask_spread": 0.5, "order_amount": 0.05, "order_refresh_time": 30},
        "risk_config": {"kill_switch_pct": 5},
    }
    return data | overrides


def dca_bot(**overrides: Any) -> dict[str, Any]:
    """A bot that buys a ladder of three levels and sells it with one take profit."""
    data: dict[str, Any] = {
        "id": "d1",
        "name": "Test ladder",
        "exchange_connection_id": "ex1",
        "strategy_template": "dca",
        "trading_pair": "BTC-USDT",
        "strategy_config": {
            "mode": "ladder",
            "spreads_pct": [0, 2, 5],
            "amounts_quote": [100, 200, 400],
            "take_profit_pct": 1.5,
        },
        "risk_config": {"max_position": 1000, "max_daily_loss": 200},
    }
    return data | overrides


def dca_interval_bot(**overrides: Any) -> dict[str, Any]:
    """A bot that buys once a day."""
    config = {"mode": "interval", "order_amount": 50, "interval_s": 86400}
    return dca_bot(id="d2", name="Test saver", strategy_config=config) | overrides


def signal_bot(**overrides: Any) -> dict[str, Any]:
    """A bot that trades on signals."""
    data: dict[str, Any] = {
        "id": "s1",
        "name": "Test signal bot",
        "exchange_connection_id": "ex1",
        "strategy_template": "signal_webhook",
        "trading_pair": "BTC-USDT",
        "strategy_config": {"order_amount": 100},
        "risk_config": {"max_position": 1000, "max_daily_loss": 200},
    }
    return data | overrides


def document(**overrides: Any) -> dict[str, Any]:
    """A tenant without bots; ``overrides`` replace top-level fields."""
    tenant = overrides.get("tenant", "acme")
    data: dict[str, Any] = {
        "tenant": tenant,
        "plan": "pro",
        "subdomain": tenant,
        "release": "2026.09",
        "exchange_environment": "sandbox",
        "exchange_connections": [connection(seed=tenant)],
        "bots": [],
    }
    return copy.deepcopy(data | overrides)


def grid_document(**overrides: Any) -> dict[str, Any]:
    """A tenant with one grid bot, as a portal would submit it."""
    return document(**({"bots": [grid_bot()]} | overrides))


def market_making_document(**overrides: Any) -> dict[str, Any]:
    """A tenant with one market making bot."""
    return document(**({"bots": [market_making_bot()]} | overrides))


def dca_document(**overrides: Any) -> dict[str, Any]:
    """A tenant with one averaging bot (a ladder)."""
    return document(**({"bots": [dca_bot()]} | overrides))


def dca_interval_document(**overrides: Any) -> dict[str, Any]:
    """A tenant with one bot that buys at intervals."""
    return document(**({"bots": [dca_interval_bot()]} | overrides))


def signal_document(**overrides: Any) -> dict[str, Any]:
    """A tenant with one signal bot."""
    return document(**({"bots": [signal_bot()]} | overrides))


def stored_document(**overrides: Any) -> dict[str, Any]:
    """A grid tenant with everything the registry allocates."""
    allocated: dict[str, Any] = {
        "placement": {"node": "local", "ring": "stable", "labels": {}},
        "subnet": "10.90.3.0/27",
        "uid": 200003,
        "salt": "c2FsdCBmb3IgdGVzdHMgb25seSE",
        "secret_versions": {"postgres": 1, "redis": 1, "keystore": 1, "gateway": 1, "broker": 1},
    }
    return grid_document(**(allocated | overrides))
