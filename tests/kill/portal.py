"""A portal in few lines, independent of the product's own code: signs events, posts them, takes call-backs.

Signatures are computed from the Standard Webhooks specification, not with the library that the product uses.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/v1/events"


def signature(secret: str, event_id: str, timestamp: int | str, body: bytes) -> str:
    """The value of the header ``webhook-signature``; ``secret`` is ``whsec_…``."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(secret: str, event_id: str, body: bytes, *, timestamp: int | None = None) -> dict[str, str]:
    """All headers of a signed event; ``timestamp`` is in epoch seconds (default: now)."""
    when = int(time.time()) if timestamp is None else timestamp
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(when),
        "webhook-signature": signature(secret, event_id, when, body),
    }


@dataclass(frozen=True)
class Answer:
    """What the webhook answered, and how long the successful attempt and all before it took."""

    status: int
    body: Any
    seconds: float
    attempts: int = 1


class Connection:
    """One keep-alive connection of the portal; use it from one thread."""

    def __init__(self, port: int, secret: str, *, timeout: float = 30) -> None:
        self._port = port
        self._secret = secret
        self._timeout = timeout
        self._http: http.client.HTTPConnection | None = None

    def post(self, event_id: str, body: bytes) -> Answer:
        """One attempt, signed now; raises OSError or http.client.HTTPException if no answer came."""
        started = time.monotonic()
        if self._http is None:
            self._http = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
            self._http.connect()
            self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._http.request("POST", PATH, body, headers(self._secret, event_id, body))
            answer = self._http.getresponse()
            content = answer.read()
            if answer.will_close:
                self.close()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Answer(answer.status, parsed(content), time.monotonic() - started)

    def deliver(self, event_id: str, body: bytes, *, patience_seconds: float, pause: Callable[[], float]) -> Answer:
        """Posts until an answer other than 429 and 5xx comes, as a portal has to; raises TimeoutError."""
        started = time.monotonic()
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = self.post(event_id, body)
                if answer.status != 429 and answer.status < 500:
                    return Answer(answer.status, answer.body, answer.seconds, attempts)
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() - started > patience_seconds:
                raise TimeoutError(f"the event {event_id} found no answer in {patience_seconds:.0f} seconds")
            time.sleep(pause())

    def close(self) -> None:
        """Closes the connection; the next post opens another."""
        if self._http is not None:
            self._http.close()
            self._http = None


def parsed(content: bytes) -> Any:
    """JSON if it is JSON."""
    try:
        return json.loads(content)
    except ValueError:
        return None


@dataclass(frozen=True)
class Delivery:
    """One call-back as it arrived. ``acknowledged`` says that it was answered with success."""

    id: str
    signed: bool
    acknowledged: bool
    body: Mapping[str, Any]


@dataclass
class CallbackServer:
    """Takes call-backs on a loopback port; refuses some of them, by chance of ``seed``."""

    seed: int = 0
    refuse_probability: float = 0.0
    secret: str = ""
    deliveries: list[Delivery] = field(default_factory=list)

    def __post_init__(self) -> None:
        sink = self
        chance = random.Random(self.seed)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    refused = chance.random() < sink.refuse_probability
                    name = self.headers.get("webhook-id", "")
                    expected = (
                        signature(sink.secret, name, self.headers.get("webhook-timestamp", ""), body)
                        if sink.secret
                        else ""
                    )
                    signed = expected in self.headers.get("webhook-signature", "").split()
                    sink.deliveries.append(Delivery(name, signed, not refused, parsed(body) or {}))
                self.send_response(503 if refused else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Nothing: this is a test."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where call-backs go to."""
        return f"http://127.0.0.1:{self.port}/callbacks"

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()
