# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's small listener: ``/livez``, ``/readyz`` and ``/metrics``, for those who watch over it."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .metrics import CONTENT_TYPE

_log = logging.getLogger("webhook.health")

Status = Mapping[str, Any]

# A worker whose main loop has not turned for this long is stuck.
STUCK_SECONDS = 60.0
_CLIENT_SECONDS = 5.0


class HealthServer:
    """Answers on the listening socket ``listener`` from threads of its own until ``stop``.

    ``status`` is the worker's: ``ready`` (whether it can take work), ``beat_at`` (``time.monotonic()`` of its loop's
    last turn) and whatever else it reports; numbers among that become gauges. Both may be missing.
    """

    def __init__(self, listener: socket.socket, status: Callable[[], Status]) -> None:
        self._status = status
        metrics = CollectorRegistry()
        ProcessCollector(registry=metrics)
        metrics.register(_StatusCollector(status))

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request; a client that is slow or says nothing is hung up on."""

            timeout = _CLIENT_SECONDS
            server_version = "hummingfleet"
            sys_version = ""

            def do_GET(handler) -> None:
                path = handler.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(handler, 200, generate_latest(metrics), CONTENT_TYPE)
                elif path == "/livez":
                    self._judge(handler, "live", self.is_live())
                elif path == "/readyz":
                    self._judge(handler, "ready", self.is_ready())
                else:
                    self._answer(handler, 404, b'{"status": "there is /livez, /readyz and /metrics"}\n')

            def log_message(handler, format: str, *arguments: Any) -> None:
                """Says nothing: probes come every few seconds."""

        self._server = _Server(listener, Handler)
        threading.Thread(target=self._server.serve_forever, name="health", args=(0.5,), daemon=True).start()

    def is_live(self) -> bool:
        """Whether the worker's main loop still turns."""
        beat = self._status().get("beat_at")
        return beat is None or time.monotonic() - float(beat) < STUCK_SECONDS

    def is_ready(self) -> bool:
        """Whether the worker can take work."""
        return self.is_live() and bool(self._status().get("ready", True))

    def stop(self) -> None:
        """Answers nobody any more."""
        self._server.shutdown()
        self._server.server_close()

    def _judge(self, handler: http.server.BaseHTTPRequestHandler, name: str, good: bool) -> None:
        plain = {"status": name if good else f"not {name}", "worker": dict(self._status())}
        self._answer(handler, 200 if good else 503, json.dumps(plain, default=str).encode() + b"\n")

    def _answer(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        code: int,
        body: bytes,
        content_type: str = "application/json",
    ) -> None:
        handler.send_response(code)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Cache-Control", "no-store")
        handler.end_headers()
        handler.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    """On a socket that listens already; what goes wrong with one client is nobody else's business."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a client of the health listener went away", exc_info=True)


class _StatusCollector(Collector):
    """The numbers of the worker's status as gauges."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """One gauge per number, also of nested mappings."""
        for name, value in _numbers("", self._status()):
            yield GaugeMetricFamily(
                f"hummingfleet_worker_{name}", f"The worker's {name.replace('_', ' ')}.", value=value
            )


def _numbers(prefix: str, status: Status) -> Iterator[tuple[str, float]]:
    for key, value in status.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _numbers(f"{name}_", value)
        elif isinstance(value, (bool, int, float)) and name.isidentifier() and name != "beat_at":
            yield name, float(value)
