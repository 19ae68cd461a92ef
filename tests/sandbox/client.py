"""A trading client for tests: signs as Binance asks, over plain HTTP to a server on this machine."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp

from sandbox.server import Server

KEY, SECRET = "key-of-acme-0001", "secret-of-acme-0001"
OTHER_KEY, OTHER_SECRET = "key-of-zeta-0001", "secret-of-zeta-0001"


def signature(secret: str, message: str) -> str:
    """HMAC-SHA256 in hexadecimal."""
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


@dataclass
class Client:
    """One account's view of a running server."""

    server: Server
    session: aiohttp.ClientSession
    key: str = KEY
    secret: str = SECRET
    sockets: list[aiohttp.ClientWebSocketResponse] = field(default_factory=list)

    def url(self, path: str, *, market: bool = False) -> str:
        """The address of a path on one of the public ports."""
        host, port = self.server.addresses()[1 if market else 0]
        return f"http://{host}:{port}{path}"

    async def public(self, path: str, **parameters: Any) -> tuple[int, Any]:
        """An unsigned GET."""
        async with self.session.get(self.url(f"/api/v3{path}"), params=parameters) as response:
            return response.status, await response.json()

    async def signed(self, method: str, path: str, **parameters: Any) -> tuple[int, Any]:
        """A signed request: a POST in its body, others in the query."""
        parameters.setdefault("timestamp", int(time.time() * 1000))
        text = urlencode(parameters)
        return await self.raw(method, path, f"{text}&signature={signature(self.secret, text)}")

    async def raw(self, method: str, path: str, text: str) -> tuple[int, Any]:
        """A request with exactly these parameters."""
        from yarl import URL

        url, body = self.url(f"/api/v3{path}"), None
        headers = {"X-MBX-APIKEY": self.key}
        if method == "POST":
            body = text
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            url = f"{url}?{text}"
        async with self.session.request(method, URL(url, encoded=True), data=body, headers=headers) as response:
            return response.status, await response.json()

    async def order(self, side: str, quantity: str, price: str | None = None, **more: Any) -> Any:
        """Place an order (LIMIT GTC, or MARKET without a price) that must be accepted; returns the answer."""
        status, data = await self.try_order(side, quantity, price, **more)
        assert status == 200, data
        return data

    async def try_order(self, side: str, quantity: str, price: str | None = None, **more: Any) -> tuple[int, Any]:
        """The same, whatever the answer."""
        parameters: dict[str, Any] = {"symbol": "BTCUSDT", "side": side, "quantity": quantity}
        if price is None:
            parameters["type"] = "MARKET"
        else:
            parameters |= {"type": "LIMIT", "price": price}
        parameters |= more
        if parameters["type"] == "LIMIT":
            parameters.setdefault("timeInForce", "GTC")
        return await self.signed("POST", "/order", **parameters)

    async def balances(self) -> dict[str, tuple[str, str]]:
        """Free and locked of every asset, without trailing zeros."""
        _status, data = await self.signed("GET", "/account")
        return {item["asset"]: (short(item["free"]), short(item["locked"])) for item in data["balances"]}

    async def market_socket(self, *streams: str) -> aiohttp.ClientWebSocketResponse:
        """A connection to the market streams, subscribed."""
        socket = await self.session.ws_connect(self.url("/ws", market=True))
        self.sockets.append(socket)
        await socket.send_json({"method": "SUBSCRIBE", "params": list(streams), "id": 1})
        assert await socket.receive_json() == {"result": None, "id": 1}
        return socket

    async def user_socket(self) -> aiohttp.ClientWebSocketResponse:
        """A connection to the WebSocket API, subscribed to the account's events."""
        socket = await self.session.ws_connect(self.url("/ws-api/v3"))
        self.sockets.append(socket)
        answer = await self.subscribe(socket)
        assert answer["status"] == 200, answer
        return socket

    async def subscribe(self, socket: aiohttp.ClientWebSocketResponse, **changes: Any) -> Any:
        """Ask for the account's events; `changes` spoil the request."""
        parameters: dict[str, Any] = {"apiKey": self.key, "timestamp": int(time.time() * 1000)} | changes
        message = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))
        parameters.setdefault("signature", signature(self.secret, message))
        await socket.send_str(json.dumps({
            "id": "s1", "method": "userDataStream.subscribe.signature", "params": parameters}))
        return await socket.receive_json()


def short(number: str) -> str:
    """A number without trailing zeros."""
    return number.rstrip("0").rstrip(".") if "." in number else number
