# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two long-running processes: ``serve`` answers the portal, ``work`` brings tenants to their latest revision.

They share nothing but the registry, the webhook's secrets and the run folder. The web process needs no key ring, and
its user should not be able to read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]

from . import logs
from .health import HealthServer
from .installation import Installation, InstallationError
from .notify import Notifier
from .wake import Waker

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import WebhookSettings

_log = logging.getLogger("webhook.service")

# An idle connection is closed after this long: longer than a proxy keeps its own, short enough for slow senders.
CHANNEL_SECONDS = 75
# Requests that are being answered when the service is told to stop get this long.
DRAIN_SECONDS = 10.0
CONNECTIONS = 500
HEADER_BYTES = 32 * 1024
_MEMORY_BYTES = 64 * 1024
_LOOP_SECONDS = 1.0
# The main loop turns at least once a second; one that has not for this long is stuck.
_STUCK_SECONDS = 20.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


class ServiceError(InstallationError):
    """A service cannot start here."""


class Signals:
    """What SIGTERM and SIGINT ask for: the first sets ``stop``, every further one sets ``now``, too.

    ``on_stop`` and ``on_now`` are called afterwards, once each, from a thread of its own: a signal handler runs in the
    middle of whatever the main thread does and may take no lock.
    """

    def __init__(self, on_stop: Callable[[], None], on_now: Callable[[], None] = lambda: None) -> None:
        self.stop = threading.Event()
        self.now = threading.Event()
        self._on_stop = on_stop
        self._on_now = on_now

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the block; only in the main thread, as signals arrive nowhere else."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda _number, _frame: None) for number in _SIGNALS}
        listener = threading.Thread(target=self._listen, args=(reader,), name="signals", daemon=True)
        listener.start()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            writer.close()
            listener.join()
            reader.close()

    def _listen(self, reader: socket.socket) -> None:
        while received := reader.recv(1):
            if received[0] not in _SIGNALS or self.now.is_set():
                continue
            if not self.stop.is_set():
                self.stop.set()
                self._on_stop()
            else:
                self.now.set()
                self._on_now()


def follow_parent(pid: int) -> None:
    """Has this process receive SIGTERM when its parent ``pid`` ends in whatever way; raises ServiceError if it has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != pid:
        raise ServiceError("the process that started this one has ended already")


def listening_socket(address: tuple[str, int], setting: str) -> socket.socket:
    """A listening TCP socket; raises ServiceError. ``setting`` is where the fleet file says the address."""
    host, port = address
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        # Only a second listener is refused, so this is where a port in use shows.
        made.listen(128)
    except OSError as error:
        made.close()
        where = url_of(address).removeprefix("http://")
        reason = {
            errno.EADDRINUSE: "another process listens there; end it",
            errno.EACCES: "ports below 1024 need root",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, str(error.strerror))
        raise ServiceError(f"cannot listen on {where}: {reason}, or choose another address ({setting})") from None
    return made


def url_of(address: tuple[str, int]) -> str:
    """The URL of a host and port."""
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# --- the web process -------------------------------------------------------------------------------------------------


def serve(
    installation: Installation, notifier: Notifier, *, make_app: Callable[[Installation], Any] | None = None
) -> None:
    """Answers requests until SIGTERM or SIGINT; requests in flight are finished first.

    Raises HummingfleetError if this installation cannot serve: its address is taken, its secrets cannot be read, its
    registry is of a newer version.
    """
    settings = installation.fleet.webhook
    listener = listening_socket(settings.listen, f"webhook.listen in {installation.fleet.path}")
    with contextlib.closing(listener):
        _check_secrets(settings)
        server = WebServer((make_app or _create_app)(installation), listener, settings)
        signals = Signals(server.wake)
        with signals.listening():
            _log.info("listening", extra=logs.fields(url=url_of(settings.listen)))
            notifier.ready(f"listening on {url_of(settings.listen)}")
            watching = notifier.watch(server.is_alive)
            server.run(signals.stop)
            notifier.stopping("finishing requests")
            _log.info("stopping: finishing the requests in flight")
            left = server.finish(DRAIN_SECONDS, signals.now)
            watching.set()
            if left:
                _log.warning("%d request(s) were cut off", left)
            _log.info("stopped")


def _create_app(installation: Installation) -> Any:
    from .app import SIGNAL_DESK, create_app

    app = create_app(installation)
    threading.Thread(target=app.extensions[SIGNAL_DESK].connect, name="connect-brokers", daemon=True).start()
    return app


def _check_secrets(settings: WebhookSettings) -> None:
    from .secrets_file import SecretsError, SecretsFile

    try:
        SecretsFile(settings.secrets_path).current("inbound")
    except SecretsError as error:
        raise ServiceError(str(error)) from None


class WebServer:
    """waitress on a listening socket, run step by step so that it can end without dropping what it has begun."""

    def __init__(self, app: Any, listener: socket.socket, settings: WebhookSettings) -> None:
        self._map: dict[int, Any] = {}
        self._beat = time.monotonic()
        self._server: Any = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=settings.threads,
            connection_limit=CONNECTIONS,
            backlog=128,
            channel_timeout=CHANNEL_SECONDS,
            cleanup_interval=5,
            max_request_header_size=HEADER_BYTES,
            # The app refuses what is above its own limit with a problem that says so; this is for what is out of all
            # proportion, which is not even received.
            max_request_body_size=4 * settings.max_body_bytes,
            # Larger bodies wait on disk for their end, so that many slow senders cannot fill the memory.
            inbuf_overflow=_MEMORY_BYTES,
            # The app judges X-Forwarded-For itself: it is believed from the proxies that the fleet file names.
            clear_untrusted_proxy_headers=False,
            asyncore_use_poll=True,
            expose_tracebacks=False,
            log_socket_errors=False,
            ident=None,
        )

    def wake(self) -> None:
        """Has the loop turn now; may be called from a signal handler."""
        self._server.pull_trigger()

    def is_alive(self) -> bool:
        """Whether the main loop still turns."""
        return time.monotonic() - self._beat < _STUCK_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Serves until ``stop`` is set."""
        while not stop.is_set():
            self._turn()

    def finish(self, seconds: float, now: threading.Event) -> int:
        """Accepts nothing new, finishes what was begun for at most ``seconds`` or until ``now``, and closes.

        The answer is the number of requests that were not finished.
        """
        # Not the server's own close(): that also closes what wakes the loop when a request is done.
        wasyncore.dispatcher.close(self._server)
        deadline = time.monotonic() + seconds
        busy: list[Any] = []
        while True:
            channels = list(self._server.active_channels.values())
            busy = [channel for channel in channels if _is_busy(channel)]
            for channel in channels:
                if channel not in busy:
                    channel.will_close = True
            if not channels or now.is_set() or time.monotonic() >= deadline:
                break
            self._turn()
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=0 if busy else 1)
        self._server.trigger.close()
        wasyncore.close_all(self._map, ignore_all=True)
        return len(busy)

    def _turn(self) -> None:
        self._beat = time.monotonic()
        wasyncore.loop(timeout=_LOOP_SECONDS, use_poll=True, map=self._map, count=1)


def _is_busy(channel: Any) -> bool:
    """Whether a request is being received, answered or sent on this connection."""
    return bool(channel.requests or channel.request is not None or channel.total_outbufs_len)


# --- the worker ------------------------------------------------------------------------------------------------------


def work(
    installation: Installation,
    notifier: Notifier,
    *,
    make_worker: Callable[[Installation, Any], Any] | None = None,
    make_server: Callable[[Installation], Any] | None = None,
) -> None:
    """Brings tenants to their latest revision until SIGTERM or SIGINT.

    Then it claims nothing new and lets its runs finish for the fleet file's ``grace_seconds``; those that are not
    done by then, or by a second signal, are cancelled and handed back. Raises HummingfleetError if this installation
    cannot work.
    """
    settings = installation.fleet.webhook
    listener = listening_socket(settings.worker_listen, f"webhook.worker_listen in {installation.fleet.path}")
    with contextlib.closing(listener), contextlib.ExitStack() as stack:
        _check_keyring(installation)
        server = (make_server or _fork_server)(installation)
        if server is not None:
            stack.callback(server.stop)
        worker = (make_worker or _worker)(installation, server)
        health = HealthServer(listener, worker.status)
        stack.callback(health.stop)

        def stopping() -> None:
            notifier.stopping("waiting for the runs to finish")
            _log.info("stopping: nothing new is begun", extra=logs.fields(grace_seconds=settings.grace_seconds))
            Waker(installation.fleet.run_dir).wake()

        def aborting() -> None:
            _log.warning("stopping now: the runs are cancelled and handed back")
            worker.abort()

        signals = Signals(stopping, aborting)
        with signals.listening():
            stack.callback(notifier.watch(health.is_live).set)
            _log.info("working", extra=logs.fields(url=url_of(settings.worker_listen)))
            notifier.ready("working")
            worker.run_forever(signals.stop)
        _log.info("stopped")


def _check_keyring(installation: Installation) -> None:
    """Raises KeyRingError now rather than in the middle of a run; nothing of the key ring is kept."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import load_keyring

    load_keyring(installation.fleet.keyring, root=installation.fleet.root)


def _fork_server(installation: Installation) -> Any:
    """The fork server, being started; a run that finds none starts Ansible itself."""
    from .forkserver import ForkServer, ForkServerError

    # A folder of its own: the run folder may be open to the web process's user, who wakes the worker there.
    run_dir = installation.fleet.run_dir
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = ForkServer(run_dir / "forkserver")
    try:
        server.start()
    except ForkServerError as error:
        _log.warning("%s", error)
    return server


def _worker(installation: Installation, server: Any) -> Any:
    from .worker import Worker

    return Worker(installation, server=server)
