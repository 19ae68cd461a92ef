"""The exchange's state as a file: written atomically, so that a restart finds orders and balances again.

The file holds account names, never keys or secrets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sandbox.errors import ConfigError
from sandbox.exchange import (
    Account,
    Balance,
    Exchange,
    Fill,
    Order,
    OrderType,
    Side,
    Status,
    TimeInForce,
    Trade,
)

VERSION = 1
TRADES_SAVED = 2_000
"""Per pair; enough for the last prices and recent candles."""


def dump(exchange: Exchange) -> dict[str, Any]:
    """Everything worth keeping, JSON-plain."""
    return {
        "version": VERSION,
        "next_order_id": exchange.next_order_id,
        "next_trade_id": exchange.next_trade_id,
        "markets": {
            name: {"price": str(market.price), "first_price": str(market.first_price),
                   "trades": [_plain(trade) for trade in list(market.trades)[-TRADES_SAVED:]]}
            for name, market in exchange.markets.items()
        },
        "accounts": {
            name: {
                "maker_fee": str(account.maker_fee), "taker_fee": str(account.taker_fee),
                "update_time": account.update_time,
                "balances": {asset: [str(balance.free), str(balance.locked)]
                             for asset, balance in account.balances.items()},
                "orders": [_plain(order) for order in account.orders.values()],
                "fills": [_plain(fill) for fill in account.fills],
            }
            for name, account in exchange.accounts.items()
        },
        **{name: {asset: str(amount) for asset, amount in getattr(exchange, name).items()}
           for name in ("house", "fees", "deposits")},
    }


def load(exchange: Exchange, data: Mapping[str, Any]) -> None:
    """Bring a fresh exchange to a dumped state. ConfigError when the data is not usable.

    Of a pair that is no longer configured the orders are forgotten with what they locked: that is an error.
    """
    try:
        if data["version"] != VERSION:
            raise ConfigError(f"The saved state has version {data['version']!r}, this server writes {VERSION}; "
                              "remove the state file to start anew.")
        exchange.next_order_id, exchange.next_trade_id = int(data["next_order_id"]), int(data["next_trade_id"])
        for name, saved in data["markets"].items():
            market = exchange.markets.get(name)
            if market is not None:
                market.price, market.first_price = Decimal(saved["price"]), Decimal(saved["first_price"])
                market.trades.extend(_read(Trade, trade) for trade in saved["trades"])
        for name, saved in data["accounts"].items():
            exchange.accounts[name] = _account(exchange, name, saved)
        for name in ("house", "fees", "deposits"):
            getattr(exchange, name).update({asset: Decimal(amount) for asset, amount in data[name].items()})
        exchange.check_books()
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
        raise ConfigError(f"The saved state is damaged or names a pair that is no longer configured ({error!r}); "
                          "configure the pair again or remove the state file to start anew.") from None
    except AssertionError as error:
        raise ConfigError(f"The saved state does not balance ({error}); remove the state file to start anew.") from None


def write_json(path: Path, data: Any) -> None:
    """Replace a file in one step, readable by its owner only."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The file's content, None when there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); remove it to start anew.") from None


def _account(exchange: Exchange, name: str, saved: Mapping[str, Any]) -> Account:
    account = Account(name, Decimal(saved["maker_fee"]), Decimal(saved["taker_fee"]))
    account.update_time = int(saved["update_time"])
    for asset, (free, locked) in saved["balances"].items():
        account.balances[asset] = Balance(Decimal(free), Decimal(locked))
    for item in saved["orders"]:
        order = _read(Order, item)
        account.orders[order.id] = order
        account.by_client_id[order.client_order_id] = order.id
        if order.is_open:
            account.open[order.id] = exchange.markets[order.pair].resting[order.id] = order
        else:
            account.closed.append(order.id)
    account.fills.extend(_read(Fill, item) for item in saved["fills"])
    return account


def _plain(item: Any) -> list[Any]:
    """A dataclass as the list of its values; shorter than names, and the file can be large."""
    return [str(value) if isinstance(value, (Decimal, str)) else value
            for value in (getattr(item, spec.name) for spec in fields(item))]


_READERS: dict[str, Any] = {
    "Decimal": Decimal, "int": int, "str": str, "bool": bool, "Side": Side, "OrderType": OrderType,
    "TimeInForce": TimeInForce, "Status": Status,
}


def _read(kind: Any, values: list[Any]) -> Any:
    specs = fields(kind)
    if len(values) != len(specs):
        raise ValueError(f"{kind.__name__} has {len(specs)} values")
    return kind(**{spec.name: _READERS[str(spec.type)](value) for spec, value in zip(specs, values, strict=True)})
