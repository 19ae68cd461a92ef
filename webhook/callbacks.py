# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call-backs to the portal: an outbox in the registry, and who empties it.

A call-back is written in the transaction that makes it true, so none is lost and none is sent for what did not happen.
Those of one tenant are delivered in the order of their numbers: the oldest pending one, until it was accepted or given
up. A worker that dies between an answer and its record lets the next one deliver again: same id, same body, so the
portal can tell.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import importlib.metadata
import json
import random
import secrets
import socket
import ssl
import string
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, iso_time

from .secrets_file import Signer
from .text import shown

CallbackState = Literal["pending", "delivered", "given_up"]
STATES: tuple[CallbackState, ...] = get_args(CallbackState)
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 7200.0
GIVE_UP_SECONDS = 86400.0
TIMEOUT_SECONDS = 10.0

_ERROR_CHARACTERS = 300
_ANSWER_BYTES = 4096
_QUOTED_CHARACTERS = 120
_LATE = "the portal did not answer in time"


class UnknownCallbackError(HummingfleetError):
    """There is no call-back with that number."""


class CallbackStateError(HummingfleetError):
    """The call-back waits for its first attempt; there is nothing to send again."""


@dataclass(frozen=True, slots=True)
class Callback:
    """One message to the portal; ``not_before`` is in epoch seconds, the other times are ISO 8601 in UTC."""

    number: int
    id: str
    tenant: str
    type: str
    body: str
    state: CallbackState
    attempts: int
    not_before: float
    created_at: str
    delivered_at: str | None
    last_error: str | None

    def plain(self) -> dict[str, Any]:
        """The call-back as JSON-plain data."""
        return {
            "number": self.number,
            "id": self.id,
            "tenant": self.tenant,
            "type": self.type,
            "state": self.state,
            "attempts": self.attempts,
            "next_attempt_at": iso_time(self.not_before) if self.state == "pending" else None,
            "created_at": self.created_at,
            "delivered_at": self.delivered_at,
            "last_error": self.last_error,
            "body": json.loads(self.body),
        }


def pause_seconds(attempts: int, jitter: float) -> float:
    """How long to wait after so many failed ``attempts`` (1 or more): 5 s, three times that each time, at most 2 h.

    ``jitter`` (0 to 1) takes up to a quarter off, so that many tenants' call-backs do not come back all at once.
    """
    steps = min(attempts - 1, 20)  # beyond that the longest pause is reached anyway
    return min(FIRST_PAUSE_SECONDS * 3.0**steps, LONGEST_PAUSE_SECONDS) * (1 - jitter / 4)


def enqueue(connection: sa.Connection, tenant: str, type: str, data: Mapping[str, Any], now: float) -> str:
    """Writes a call-back inside the caller's writing transaction, and answers its id; ``now`` is in epoch seconds.

    docs/portal.md has the types there are, and what their ``data`` hold.
    """
    callback_id = f"cb_{secrets.token_hex(12)}"
    body = {"type": type, "timestamp": iso_time(now), "data": {"tenant": tenant, **data}}
    connection.execute(
        tables.callbacks.insert().values(
            id=callback_id,
            tenant=tenant,
            type=type,
            body=json.dumps(body),  # ASCII: every database and every signature takes whatever text is in there
            state="pending",
            attempts=0,
            not_before=now,
            created_at=iso_time(now),
            created_epoch=now,
        )
    )
    return callback_id


class Outbox:
    """The call-backs in the registry; everything raises RegistryError if that does not answer.

    ``clock`` gives epoch seconds (default: the registry's), ``jitter`` random numbers from 0 to 1.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._registry = registry
        self._clock = clock or registry.clock
        self._jitter = jitter

    def list(
        self,
        tenant: str | None = None,
        state: CallbackState | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> tuple[Callback, ...]:
        """Up to ``limit`` call-backs, the newest first; ``after`` is the number of the last one seen."""
        table = tables.callbacks
        query = sa.select(table).order_by(table.c.number.desc()).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant.replace("\0", ""))
        if state is not None:
            query = query.where(table.c.state == state)
        if after is not None:
            query = query.where(table.c.number < after)
        with self._registry.transaction() as connection:
            return tuple(map(_callback, connection.execute(query)))

    def get(self, number: int) -> Callback:
        """The call-back; raises UnknownCallbackError."""
        with self._registry.transaction() as connection:
            return _callback(self._row(connection, number))

    def resend(self, number: int) -> Callback:
        """Has the call-back delivered as soon as possible, under its id, also if it was delivered or given up.

        It goes before its tenant's newer ones and has another day. Raises UnknownCallbackError, and CallbackStateError
        if it was never tried yet.
        """
        now = self._clock()
        with self._registry.transaction(write=True) as connection:
            row = self._row(connection, number)
            if row.state == "pending" and row.attempts == 0:
                raise CallbackStateError(f"call-back {number} is still waiting for its first attempt")
            self._update(
                connection,
                number,
                state="pending",
                attempts=0,
                not_before=now,
                created_epoch=now,
                delivered_at=None,
                last_error=None,
            )
            return _callback(self._row(connection, number))

    def due(self, now: float, limit: int) -> tuple[Callback, ...]:
        """The oldest pending call-back of each tenant, if its time has come at ``now``; the longest waiting first."""
        table = tables.callbacks
        heads = (
            sa.select(sa.func.min(table.c.number))
            .where(table.c.state == sa.literal_column("'pending'"))  # as in the index
            .group_by(table.c.tenant)
        )
        query = (
            sa.select(table)
            .where(table.c.number.in_(heads), table.c.not_before <= now)
            .order_by(table.c.not_before, table.c.number)
            .limit(limit)
        )
        with self._registry.transaction() as connection:
            return tuple(map(_callback, connection.execute(query)))

    def record(self, number: int, ok: bool, error: str | None, now: float) -> None:
        """Writes what came of one attempt at ``now``; of one that is not pending any more nothing is written."""
        with self._registry.transaction(write=True) as connection:
            row = self._row(connection, number)
            if row.state != "pending":
                return
            attempts, deadline = row.attempts + 1, row.created_epoch + GIVE_UP_SECONDS
            if ok:
                self._update(
                    connection,
                    number,
                    state="delivered",
                    attempts=attempts,
                    delivered_at=iso_time(now),
                    last_error=None,
                )
                return
            pause = pause_seconds(attempts, self._jitter())
            self._update(
                connection,
                number,
                state="pending" if now < deadline else "given_up",
                attempts=attempts,
                not_before=min(now + pause, max(deadline, now)),  # the last attempt is made when the day is over
                last_error=shown(error or "")[:_ERROR_CHARACTERS],
            )

    def _row(self, connection: sa.Connection, number: int) -> sa.Row[Any]:
        table = tables.callbacks
        row = None
        if 0 < number < 2**31:  # what the column holds
            row = connection.execute(sa.select(table).where(table.c.number == number)).one_or_none()
        if row is None:
            raise UnknownCallbackError(
                f"there is no call-back {number}; 'hummingfleet callback list' shows those there are"
            )
        return row

    def _update(self, connection: sa.Connection, number: int, **values: Any) -> None:
        connection.execute(tables.callbacks.update().where(tables.callbacks.c.number == number).values(**values))


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one call of the deliverer did; ``problems`` are sentences, one per call-back that was not accepted."""

    delivered: int
    problems: tuple[str, ...]


class Deliverer:
    """Sends what is due to ``url``, the fleet file's ``portal_url``, which was checked when that was read.

    Nothing is kept between two calls, so that any worker can go on where another one ended.
    """

    def __init__(
        self,
        outbox: Outbox,
        signer: Signer,
        url: str,
        clock: Callable[[], float] = time.time,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        parallel: int = 4,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._outbox = outbox
        self._signer = signer
        self._target = _Target(url, timeout_seconds, context)
        self._clock = clock
        self._parallel = parallel

    def deliver_due(
        self, stop: Callable[[], bool] = lambda: False, *, budget_seconds: float = TIMEOUT_SECONDS
    ) -> Delivery:
        """Delivers until nothing is due, ``stop()`` says so, or ``budget_seconds`` are over; of a tenant one at a time.

        An attempt that has begun ends within its own time-out. Raises SecretsError and RegistryError; then nothing
        that was not recorded counts as an attempt.
        """
        delivered, problems = 0, list[str]()
        end = time.monotonic() + budget_seconds
        with concurrent.futures.ThreadPoolExecutor(self._parallel, thread_name_prefix="callback") as pool:
            while not stop() and time.monotonic() < end:
                due = self._outbox.due(self._clock(), self._parallel)
                if not due:
                    break
                for callback, problem in zip(due, self._attempt(pool, due), strict=True):
                    self._outbox.record(callback.number, problem is None, problem, self._clock())
                    if problem is None:
                        delivered += 1
                    else:
                        problems.append(f"call-back {callback.number} ({callback.type}, {callback.tenant}): {problem}")
        return Delivery(delivered, tuple(problems))

    def _attempt(self, pool: concurrent.futures.Executor, due: Sequence[Callback]) -> list[str | None]:
        """Sends all of them at once; for each what went wrong, or None."""
        signed = [(self._signer.sign(callback.id, callback.body.encode()), callback.body.encode()) for callback in due]
        return list(pool.map(lambda message: self._target.post(*message), signed))


class _Target:
    """Where messages go: one POST, no redirect, no proxy, bounded in time and in what is read."""

    def __init__(self, url: str, timeout_seconds: float, context: ssl.SSLContext | None) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._path = urllib.parse.quote(target, safe=string.punctuation)
        self._timeout = timeout_seconds
        self._context = None if parts.scheme == "http" else context or ssl.create_default_context()
        self._agent = f"hummingfleet/{importlib.metadata.version('hummingfleet')}"

    def post(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """None if the portal accepted the message, else what went wrong in words that are safe to keep."""
        connection = self._connection()
        late = threading.Event()
        try:
            connection.connect()
            with _hang_up(connection.sock, self._timeout, late):
                connection.request(
                    "POST",
                    self._path,
                    body,
                    {"Content-Type": "application/json", "User-Agent": self._agent, **headers},
                )
                answer = connection.getresponse()
                problem = None
                if not 200 <= answer.status < 300:
                    problem = _refusal(answer.status, answer.read(_ANSWER_BYTES))
                return _LATE if late.is_set() else problem  # a head that was cut off looks like a whole one
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _LATE if late.is_set() or isinstance(error, TimeoutError) else _network_problem(error)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)


@contextlib.contextmanager
def _hang_up(sock: socket.socket, seconds: float, late: threading.Event) -> Iterator[None]:
    """Ends the connection, and says so in ``late``, if the block takes longer than ``seconds``.

    A socket's own time-out is for each read; a server that sends a byte now and then would pass that for ever.
    """

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _refusal(status: int, body: bytes) -> str:
    if 300 <= status < 400:
        return f"the portal answered {status}; redirects are not followed"
    text = shown(body.decode("utf-8", "replace").strip())[:_QUOTED_CHARACTERS]
    return f"the portal answered {status}" + (f": {text}" if text else "")


def _network_problem(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the portal's certificate is not trusted ({error.verify_message})"
    if isinstance(error, http.client.HTTPException | ValueError):
        return f"the portal's answer is not HTTP ({type(error).__name__})"
    reason = getattr(error, "strerror", None)
    return f"the portal cannot be reached ({reason or type(error).__name__})"


def _callback(row: sa.Row[Any]) -> Callback:
    return Callback(
        number=row.number,
        id=row.id,
        tenant=row.tenant,
        type=row.type,
        body=row.body,
        state=cast(CallbackState, row.state),
        attempts=row.attempts,
        not_before=row.not_before,
        created_at=row.created_at,
        delivered_at=row.delivered_at,
        last_error=row.last_error,
    )
