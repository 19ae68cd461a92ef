"""Real HTTP on loopback: a portal that answers call-backs as a test says, and the service that takes events."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask
from waitress.server import create_server

Answer = Callable[["Request", http.server.BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    """What arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The message's data."""
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answers with that status."""

    def answer(_request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def raw(data: bytes) -> Answer:
    """Writes these bytes and hangs up."""

    def answer(_request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


class Portal:
    """Keeps what arrived in ``requests``; ``answer`` answers all that follow, ``answers`` those of one tenant."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.answer: Answer = status(204)
        self.answers: dict[str, Answer] = {}
        self.lock = threading.Lock()

    def numbers(self, tenant: str) -> list[int]:
        """The field ``n`` of the tenant's messages in the order of their arrival."""
        return [request.data["n"] for request in self.requests if request.data["tenant"] == tenant]


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[Portal]:
    """A portal while the block runs; with ``context`` it speaks TLS."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, body)
            with portal.lock:
                portal.requests.append(request)
            tenant = json.loads(body)["data"]["tenant"]
            with contextlib.suppress(OSError):
                portal.answers.get(tenant, portal.answer)(request, self)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    portal = Portal(f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}/hooks?fleet=1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield portal
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serves the application as in production while the block runs; where it takes events."""
    server = create_server(app, host="127.0.0.1", port=0, threads=2)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}/v1/events"
    finally:
        # The server's thread may be awake just now: then it has closed before it is woken.
        with contextlib.suppress(OSError):
            server.trigger.pull_trigger(server.close)
        thread.join()
        server.task_dispatcher.shutdown()
