"""The control endpoint: JSON over HTTP on a unix socket. It is part of no public application."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sandbox import __version__
from sandbox.config import decimal, parse_balances
from sandbox.errors import ConfigError, ControlError
from sandbox.exchange import Account, Market, plain_fill, plain_order
from sandbox.rest import MAX_BODY_BYTES

if TYPE_CHECKING:
    from sandbox.server import Server

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ControlApi:
    """Scripts and watches the exchange. Errors are {"error": sentence} with a fitting HTTP status."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.exchange = server.exchange

    def application(self) -> web.Application:
        """The application of the control socket."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self.guard])
        app.add_routes([
            web.get("/health", self.health), web.get("/prices", self.prices), web.post("/price", self.price),
            web.get("/orders", self.orders), web.post("/fill", self.fill), web.post("/cancel", self.cancel),
            web.get("/fills", self.fills), web.get("/accounts", self.accounts),
            web.post("/accounts", self.add_account), web.post("/accounts/reload", self.reload_accounts),
            web.get("/account/{name}", self.account), web.delete("/account/{name}", self.close_account),
            web.post("/account/{name}/deposit", self.deposit),
            web.get("/stats", self.stats), web.delete("/stats", self.reset_stats), web.get("/faults", self.faults),
            web.post("/faults", self.add_fault), web.delete("/faults", self.remove_faults),
            web.delete(r"/faults/{id:\d{1,9}}", self.remove_faults), web.post("/disconnect", self.disconnect),
        ])
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Errors as sentences."""
        try:
            return await handler(request)
        except ControlError as error:
            return web.json_response({"error": str(error)}, status=error.status)
        except ConfigError as error:
            return web.json_response({"error": str(error)}, status=400)
        except web.HTTPException as error:
            return web.json_response({"error": f"{request.method} {request.path}: {error.reason}."},
                                     status=error.status)
        except Exception:
            log.exception("control request %s %s failed", request.method, request.path)
            return web.json_response({"error": "The sandbox failed; its log says why."}, status=500)

    async def health(self, request: web.Request) -> web.Response:
        """GET /health."""
        return web.json_response({
            "status": "ok", "version": __version__, "pairs": list(self.exchange.markets),
            "accounts": len(self.exchange.accounts), "outage": self.server.faults.outage()})

    # --- market ---

    async def prices(self, request: web.Request) -> web.Response:
        """GET /prices."""
        return web.json_response({"prices": {
            name: _plain_market(market) for name, market in self.exchange.markets.items()}})

    async def price(self, request: web.Request) -> web.Response:
        """POST /price {pair, price, volume?, spread_bps?}: answers the price reached and what filled."""
        data = await _body(request, {"pair", "price"}, {"volume", "spread_bps"})
        volume = None if data.get("volume") is None else decimal(data["volume"], "volume")
        spread = None if data.get("spread_bps") is None else decimal(data["spread_bps"], "spread_bps")
        move = self.exchange.move_price(_text(data, "pair"), decimal(data["price"], "price"), volume=volume,
                                        spread_bps=spread)
        return web.json_response({"pair": move.pair, "price": f"{move.price:f}",
                                  "fills": [plain_fill(fill) for fill in move.fills]})

    # --- orders ---

    async def orders(self, request: web.Request) -> web.Response:
        """GET /orders?account=&pair=&state=open|closed|all; open ones unless told."""
        query = _query(request, {"account", "pair", "state"})
        wanted = query.get("state", "open")
        if wanted not in ("open", "closed", "all"):
            raise ControlError("state: open, closed or all.")
        orders = self._account(query).orders.values() if "account" in query else self.exchange.all_orders()
        pair = self.exchange.market(query["pair"]).rules.name if "pair" in query else None
        return web.json_response({"orders": [
            plain_order(order) for order in orders
            if pair in (None, order.pair) and (wanted == "all" or order.is_open == (wanted == "open"))]})

    async def fill(self, request: web.Request) -> web.Response:
        """POST /fill {order_id, quantity?}: fill an open order wholly or in part at its own price."""
        data = await _body(request, {"order_id"}, {"quantity"})
        quantity = None if data.get("quantity") is None else decimal(data["quantity"], "quantity")
        return web.json_response({"fill": plain_fill(self.exchange.fill(_integer(data, "order_id"), quantity))})

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /cancel {order_id}: the exchange cancels an order of its own accord."""
        data = await _body(request, {"order_id"}, set())
        order = self.exchange.order(_integer(data, "order_id"))
        if not order.is_open:
            raise ControlError(f"Order {order.id} is not open, it is {order.status}.", 409)
        self.exchange.cancel(order)
        return web.json_response({"order": plain_order(order)})

    async def fills(self, request: web.Request) -> web.Response:
        """GET /fills?account=&pair=, oldest first."""
        query = _query(request, {"account", "pair"})
        accounts = [self._account(query)] if "account" in query else list(self.exchange.accounts.values())
        pair = self.exchange.market(query["pair"]).rules.name if "pair" in query else None
        found = [fill for account in accounts for fill in account.fills if pair in (None, fill.pair)]
        found.sort(key=lambda fill: (fill.trade_id, fill.is_maker))
        return web.json_response({"fills": [plain_fill(fill) for fill in found]})

    # --- accounts ---

    async def accounts(self, request: web.Request) -> web.Response:
        """GET /accounts."""
        return web.json_response({"accounts": [self._plain(item) for item in self.exchange.accounts.values()]})

    async def account(self, request: web.Request) -> web.Response:
        """GET /account/<name>."""
        return web.json_response(self._plain(self.exchange.account(request.match_info["name"])))

    async def add_account(self, request: web.Request) -> web.Response:
        """POST /accounts {name, api_key, api_secret, balances, maker_fee?, taker_fee?}."""
        data = await _body(request, {"name", "api_key", "api_secret"}, {"balances", "maker_fee", "taker_fee"})
        return web.json_response(self._plain(self.server.add_account(data)), status=201)

    async def close_account(self, request: web.Request) -> web.Response:
        """DELETE /account/<name>: cancel its orders and forget it; not one that the accounts file lists."""
        self.server.close_account(request.match_info["name"])
        return web.json_response({"closed": request.match_info["name"]})

    async def reload_accounts(self, request: web.Request) -> web.Response:
        """POST /accounts/reload: read the accounts file again, and the certificate."""
        self.server.reload_certificate()
        return web.json_response(self.server.reload_accounts())

    async def deposit(self, request: web.Request) -> web.Response:
        """POST /account/<name>/deposit {balances: {asset: amount}}; `withdraw: true` takes away instead."""
        data = await _body(request, {"balances"}, {"withdraw"})
        name = request.match_info["name"]
        account = self.exchange.account(name)
        sign = -1 if data.get("withdraw") is True else 1
        for asset, amount in parse_balances(data["balances"], where="balances").items():
            self.exchange.deposit(name, asset, sign * amount)
        return web.json_response(self._plain(account))

    # --- stats, faults, connections ---

    async def stats(self, request: web.Request) -> web.Response:
        """GET /stats."""
        return web.json_response(self.server.stats.plain(self.server.streams.counts()))

    async def reset_stats(self, request: web.Request) -> web.Response:
        """DELETE /stats: count from zero."""
        self.server.stats.reset()
        return web.json_response({})

    async def faults(self, request: web.Request) -> web.Response:
        """GET /faults."""
        return web.json_response({"faults": [fault.plain() for fault in self.server.faults.faults]})

    async def add_fault(self, request: web.Request) -> web.Response:
        """POST /faults {kind, …}."""
        data = await _body(request, {"kind"}, None)
        if data.get("account") is not None:
            self.exchange.account(_text(data, "account"))
        fault = self.server.faults.add(data)
        await self.server.apply_outage()
        log.info("fault %d: %s on %s", fault.id, fault.kind.value, fault.path)
        return web.json_response(fault.plain(), status=201)

    async def remove_faults(self, request: web.Request) -> web.Response:
        """DELETE /faults or /faults/<id>."""
        number = request.match_info.get("id")
        gone = self.server.faults.remove(None if number is None else int(number))
        await self.server.apply_outage()
        return web.json_response({"removed": [fault.plain() for fault in gone]})

    async def disconnect(self, request: web.Request) -> web.Response:
        """POST /disconnect {kind?: market|user, account?}: cut websockets."""
        data = await _body(request, set(), {"kind", "account"})
        kind, account = data.get("kind"), data.get("account")
        if kind not in (None, "market", "user"):
            raise ControlError("kind: market or user.")
        if account is not None:
            self.exchange.account(_text(data, "account"))
        return web.json_response({"disconnected": self.server.streams.disconnect(kind=kind, account=account)})

    def _account(self, query: dict[str, str]) -> Account:
        return self.exchange.account(query["account"])

    @staticmethod
    def _plain(account: Account) -> dict[str, Any]:
        return {
            "name": account.name, "maker_fee": f"{account.maker_fee:f}", "taker_fee": f"{account.taker_fee:f}",
            "balances": {asset: {"free": f"{balance.free:f}", "locked": f"{balance.locked:f}",
                                 "total": f"{balance.total:f}"}
                         for asset, balance in sorted(account.balances.items())},
            "open_orders": len(account.open), "orders": len(account.orders), "fills": len(account.fills),
        }


def _plain_market(market: Market) -> dict[str, str | int]:
    values: dict[str, Decimal] = {"price": market.price, "bid": market.bid, "ask": market.ask,
                                  "tick": market.rules.tick, "lot": market.rules.lot}
    return {name: f"{value:f}" for name, value in values.items()} | {"resting_orders": len(market.resting)}


async def _body(request: web.Request, needed: set[str], optional: set[str] | None) -> dict[str, Any]:
    """The JSON object of a request; `optional` None means that the caller checks the other fields."""
    raw = await request.read()
    try:
        data = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise ControlError("The body is not valid JSON.") from None
    if not isinstance(data, dict):
        raise ControlError("The body must be a JSON object.")
    missing = sorted(needed - data.keys())
    if missing:
        raise ControlError(f"Missing: {', '.join(missing)}.")
    unknown = sorted(data.keys() - needed - optional) if optional is not None else []
    if unknown:
        known = sorted(needed | (optional or set()))
        raise ControlError(f"Unknown: {', '.join(unknown[:5])}; known are {', '.join(known)}.")
    return data


def _query(request: web.Request, known: set[str]) -> dict[str, str]:
    unknown = sorted(set(request.query) - known)
    if unknown:
        raise ControlError(f"Unknown parameter {unknown[0]!r}; known are {', '.join(sorted(known))}.")
    return {name: value for name, value in request.query.items() if value}


def _text(data: dict[str, Any], name: str) -> str:
    value = data[name]
    if not isinstance(value, str):
        raise ControlError(f"{name}: must be a text.")
    return value


def _integer(data: dict[str, Any], name: str) -> int:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ControlError(f"{name}: must be an integer.")
    return value
