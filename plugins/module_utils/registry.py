# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry: one document per tenant, every revision of it with its cause, and who is working on a tenant now.

SQLite by default, PostgreSQL by URL. **One writer at a time**: a writing transaction begins with the database's write
lock (SQLite: ``BEGIN IMMEDIATE``; PostgreSQL: one advisory lock), reads what it needs, and writes; it takes
milliseconds. So concurrent writers lose nothing and two tenants never get one subnet; UNIQUE constraints stand behind
that. Connections are opened per operation and never shared with a forked process.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import addresses, placement, risk_halt
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, HummingfleetError, pointer
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import (
    MIGRATIONS,
    SCHEMA_VERSION,
    metadata,
    schema_version,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import allocations as _allocations
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import bots as _bots
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import ciphertexts as _ciphertexts
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import events as _events
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import is_behind as _behind
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import leases as _leases
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import revisions as _revisions
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import signal_tokens as _signal_tokens
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import signals as _signals
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import tenants as _tenants
from ansible_collections.hummingfleet.core.plugins.module_utils.tables import work as _work

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import TenantDocument
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet

BUSY_SECONDS = 30
VANISHED_SECONDS = 60
LEASE_POLL_SECONDS = 0.5
# What the registry gives a tenant when it first stores it. Nobody changes these by submitting a document.
ALLOCATED = ("subnet", "uid", "salt", "secret_versions")
RAISABLE = ("broker",)
"""Secrets of which a document may ask for a newer version: a converge replaces them wherever they are."""
_COUNTERS = ("restarts", "resumes")
SERVICE_CONTAINERS = 4  # postgres, redis, gateway, dashboard: each may be switched on any time
_ADVISORY_LOCK = 0x68756D6D  # "humm"
# Statements of every change, made once: making them anew costs more than having them done.
_TENANT = sa.select(_tenants).where(_tenants.c.tenant == sa.bindparam("key"))
_CHANGE_TENANT = _tenants.update().where(_tenants.c.tenant == sa.bindparam("key"))
_NEW_TENANT, _NEW_REVISION = _tenants.insert(), _revisions.insert()
_ID = re.compile(r"[a-z0-9-]{1,32}")  # anything else is no tenant's id, and not every database can be asked for it
_CAUSE_CHARACTERS = 1000
_CHUNK = 500  # bound parameters per statement


class RegistryError(HummingfleetError):
    """The registry cannot be used or refuses what was asked."""


class RegistryUnavailableError(RegistryError):
    """The database does not answer, is busy or damaged; what was asked was not done."""


class UnknownTenantError(RegistryError):
    """The registry knows no such tenant, or no such revision of it."""


class RevisionConflictError(RegistryError):
    """Somebody else changed the tenant since the caller read it."""


class LeaseError(RegistryError):
    """Somebody else is working on a tenant."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a revision exists: its kind (``apply``, ``rollback``, ``event`` ...), a sentence, and who asked for it.

    With ``lift_risk_halt`` the tenant's risk halt is lifted with it, which the stored sentence says.
    """

    kind: str
    text: str = ""
    actor: str = ""
    lift_risk_halt: bool = False


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant with its whole document. ``outcome`` is what the last converge said; times are UTC, ISO 8601."""

    tenant: str
    revision: int
    applied_revision: int
    document: dict[str, Any]
    outcome: dict[str, Any] | None
    updated_at: str


class TenantSummary(NamedTuple):
    """The few columns that listings and the inventory need."""

    tenant: str
    node: str
    plan: str
    state: str
    release: str
    ring: str
    revision: int
    applied_revision: int


@dataclass(frozen=True, slots=True)
class Revision:
    """One entry of a tenant's history."""

    tenant: str
    revision: int
    at: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submitted document; ``changed`` is False if it said what was already stored."""

    record: TenantRecord
    changed: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one tenant until ``expires_at`` (epoch seconds).

    ``fence`` grows with every new holder, also after releases: a write with an older one is refused.
    """

    tenant: str
    fence: int
    holder: str
    acquired_at: float
    expires_at: float

    def describe(self) -> str:
        """A sentence that names the holder and since when."""
        host, pid, _start = _split_holder(self.holder)
        who = f"process {pid} on {host}" if pid else self.holder
        return (
            f"tenant {self.tenant} is being worked on by {who} since {iso_time(self.acquired_at)} "
            f"(its lease ends at {iso_time(self.expires_at)} unless renewed)"
        )


def registry_exists(url: str) -> bool:
    """Whether there is a registry to read; a SQLite file that is not there is a fleet that has not begun."""
    parsed = sa.make_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(parsed.database or "").exists()


class Registry:
    """The registry at ``url``, created or brought to this version's schema if need be; raises RegistryError.

    ``clock`` gives epoch seconds. By default it is this machine's for SQLite and the database's for PostgreSQL, so
    that leases do not depend on how well several control nodes agree about the time. A process that serves many
    requests and never forks may have up to ``keep_connections`` kept open; others open one per operation.
    ``busy_seconds`` is how long an operation waits for another writer.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] | None = None,
        keep_connections: int = 0,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self._busy_seconds = busy_seconds
        # Writers of one process take turns here: a database has them poll, and some would wait far longer than others.
        self._turn = threading.Lock() if keep_connections else None
        pool: dict[str, Any] = {"poolclass": sa.NullPool}
        if keep_connections:
            pool = {"poolclass": sa.QueuePool, "pool_size": keep_connections, "pool_timeout": busy_seconds}
        try:
            self._url = sa.make_url(url)
            self._sqlite = self._url.get_backend_name() == "sqlite"
            make_engine = _sqlite_engine if self._sqlite else _postgresql_engine
            self._engine = make_engine(self._url, busy_seconds, pool)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError):
            raise RegistryError("the registry's URL is none; the fleet file's 'registry' sets it") from None
        except ModuleNotFoundError as error:
            raise RegistryError(
                f"the Python package {error.name} is missing; install hummingfleet[postgresql] for this registry"
            ) from None
        self._clock = clock
        self._prepare()

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, tenant: str) -> TenantRecord:
        """The tenant with its document; raises UnknownTenantError."""
        with self.transaction() as connection:
            return _record(self._row(connection, tenant))

    def list(self, *, only: Iterable[str] | None = None) -> tuple[TenantSummary, ...]:
        """All tenants, or those of ``only`` that exist, by id; no document is read."""
        return self._summaries(None, only)

    def behind(self, *, only: Iterable[str] | None = None) -> tuple[TenantSummary, ...]:
        """The tenants whose latest revision has not been applied, by id."""
        return self._summaries(_behind, only)

    def records(self, tenants: Iterable[str]) -> dict[str, TenantRecord]:
        """The records of those of ``tenants`` that exist, by id."""
        found: dict[str, TenantRecord] = {}
        with self.transaction() as connection:
            for chunk in _chunks(filter(_ID.fullmatch, tenants)):
                for row in connection.execute(sa.select(_tenants).where(_tenants.c.tenant.in_(chunk))):
                    found[row.tenant] = _record(row)
        return dict(sorted(found.items()))

    def history(self, tenant: str) -> tuple[Revision, ...]:
        """Every revision of the tenant with its time and cause, oldest first; raises UnknownTenantError."""
        columns = [c for c in _revisions.c if c.name != "document"]
        with self.transaction() as connection:
            self._row(connection, tenant)
            rows = connection.execute(
                sa.select(*columns).where(_revisions.c.tenant == tenant).order_by(_revisions.c.revision)
            ).all()
        return tuple(
            Revision(r.tenant, r.revision, r.at, Cause(r.cause_kind, r.cause_text, r.cause_actor)) for r in rows
        )

    def document_at(self, tenant: str, revision: int) -> dict[str, Any]:
        """The tenant's document as it was in ``revision``; raises UnknownTenantError."""
        with self.transaction() as connection:
            return self._document_at(connection, tenant, revision)

    def diff(self, tenant: str, a: int, b: int) -> str:
        """What changed from revision ``a`` (0: nothing was there) to ``b``: a unified diff of YAML.

        Ciphertexts, nonces and the salt appear as short fingerprints.
        """
        before = _readable(self.document_at(tenant, a)) if a else ""
        after = _readable(self.document_at(tenant, b))
        return "".join(
            difflib.unified_diff(
                before.splitlines(keepends=True),
                after.splitlines(keepends=True),
                f"{tenant} revision {a}",
                f"{tenant} revision {b}",
            )
        )

    def reserved_memory(self) -> dict[str, int]:
        """What tenants reserve on each node, in MiB; a tenant whose removal was applied reserves nothing."""
        with self.transaction() as connection:
            return self._reserved(connection, except_tenant=None)

    # --- writing documents -------------------------------------------------------------------------------------------

    def submit(
        self,
        data: Mapping[str, Any],
        *,
        cause: Cause,
        fleet: Fleet,
        catalogue: Catalogue,
        expected_revision: int | None = None,
    ) -> Submission:
        """Stores ``data`` as the tenant's document: revision 1 of a new tenant, or the next if anything is new.

        A new tenant gets node, subnet, user id and salt here. With ``expected_revision`` (0: must be new) somebody
        else's change in between is refused. Raises DocumentError, PlacementError, AddressError, RevisionConflictError.
        """
        tenant = data.get("tenant") if isinstance(data, Mapping) else None
        with self.transaction(write=True) as connection:
            row = self._find_row(connection, tenant) if isinstance(tenant, str) else None
            revision = row.revision if row is not None else 0
            if expected_revision is not None and expected_revision != revision:
                raise RevisionConflictError(
                    f"tenant {tenant} is at revision {revision}, not {expected_revision}: "
                    "somebody else changed it; read it again and repeat the change"
                )
            return self._store(connection, row, data, cause, fleet, catalogue)

    def change(
        self,
        tenant: str,
        function: Callable[[dict[str, Any]], Mapping[str, Any]],
        *,
        cause: Cause,
        fleet: Fleet,
        catalogue: Catalogue,
    ) -> Submission:
        """Stores ``function(document)`` as the next revision; nobody can change the tenant in between.

        ``function`` gets a copy of its own, may change and return it, and has to be quick and free of side effects:
        it runs under the registry's write lock. Raises what ``submit`` raises, and UnknownTenantError.
        """
        with self.transaction(write=True) as connection:
            self._row(connection, tenant)
            return self.change_within(connection, tenant, lambda found: function(found or {}), cause, fleet, catalogue)

    def change_within(
        self,
        connection: sa.Connection,
        tenant: str,
        function: Callable[[dict[str, Any] | None], Mapping[str, Any]],
        cause: Cause,
        fleet: Fleet,
        catalogue: Catalogue,
    ) -> Submission:
        """What ``change`` does, as a part of the caller's writing transaction; a tenant that does not exist is None."""
        row = self._find_row(connection, tenant)
        return self._store(
            connection, row, function(json.loads(row.document) if row else None), cause, fleet, catalogue
        )

    def rollback(self, tenant: str, revision: int, *, cause: Cause, fleet: Fleet, catalogue: Catalogue) -> Submission:
        """Stores the content of an old ``revision`` as a new one; what was allocated stays as it is now.

        So do the bots' counters: only raising one asks for something, and bots remember the value they saw last.
        """
        with self.transaction(write=True) as connection:
            row = self._row(connection, tenant)
            data = _without_allocation(self._document_at(connection, tenant, revision))
            data = keep_counters(data, json.loads(row.document))
            return self._store(connection, row, data, cause, fleet, catalogue)

    def forget(self, tenant: str, *, fence: int | None = None) -> None:
        """Deletes a terminated tenant whose removal was applied, with its history; frees its subnet and subdomain.

        Its user id is never given to anybody else, and its ciphertexts stay its own. Refused while somebody else than
        the holder of ``fence`` works on the tenant. Raises RegistryError.
        """
        with self.transaction(write=True) as connection:
            row = self._row(connection, tenant)
            if row.state != "terminated" or row.applied_revision != row.revision:
                raise RegistryError(
                    f"tenant {tenant} cannot be forgotten: it is {row.state} and revision {row.applied_revision} of "
                    f"{row.revision} is applied; set its state to terminated and converge first"
                )
            lease = self._lease(connection, tenant)
            if lease is not None and lease.fence != fence and self._is_held(lease, self.now(connection)):
                raise LeaseError(f"tenant {tenant} cannot be forgotten now: {lease.describe()}")
            connection.execute(_tenants.delete().where(_tenants.c.tenant == tenant))
            connection.execute(
                _allocations.delete().where(_allocations.c.tenant == tenant, _allocations.c.kind != "uid")
            )
            connection.execute(_leases.update().where(_leases.c.tenant == tenant).values(holder=None))
            for table in (_signal_tokens, _signals):
                connection.execute(table.delete().where(table.c.tenant == tenant))
            # What was asked for is still to be answered; everything else begins anew for whoever has the id next.
            last_event = sa.select(sa.func.coalesce(sa.func.max(_events.c.number), 0)).where(_events.c.tenant == tenant)
            connection.execute(
                _work.update()
                .where(_work.c.tenant == tenant)
                .values(
                    attempt=0,
                    not_before=0,
                    failed_revision=None,
                    failure=None,
                    sequence=None,
                    past=last_event.scalar_subquery(),
                )
            )

    # --- leases and outcomes -----------------------------------------------------------------------------------------

    def acquire_leases(
        self,
        tenants: Iterable[str],
        *,
        holder: str,
        ttl_seconds: float,
        wait_seconds: float = 0,
        on_wait: Callable[[Lease], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, Lease | None]:
        """The lease of each of ``tenants``, None where somebody else holds it after ``wait_seconds``.

        ``on_wait`` is told once per tenant whose lease is waited for. A lease of a process of this host that is dead
        may be taken at once, others when they run out. Acquiring again what ``holder`` still has renews it. Raises
        UnknownTenantError.
        """
        wanted = sorted(set(tenants))
        leases: dict[str, Lease | None] = {}
        waited, told = 0.0, set[str]()
        while True:
            # While waiting, leases are taken in one order and none behind the first that is missing: two runs that
            # want the same tenants cannot wait for each other.
            patient = waited < wait_seconds
            leases, blocker = self._try_leases(wanted, holder, ttl_seconds, in_order=patient)
            if blocker is None or not patient:
                return leases
            if on_wait is not None and blocker.tenant not in told:
                told.add(blocker.tenant)
                on_wait(blocker)
            pause = min(LEASE_POLL_SECONDS, wait_seconds - waited)
            sleep(pause)
            waited += pause

    def renew_leases(self, fences: Mapping[str, int], *, ttl_seconds: float) -> dict[str, Lease | None]:
        """The leases with those fences (by tenant), prolonged; None where the lease was lost or released."""
        renewed: dict[str, Lease | None] = dict.fromkeys(fences)
        with self.transaction(write=True) as connection:
            now = self.now(connection)
            for lease in self._leases(connection, fences):
                if lease.holder and lease.fence == fences[lease.tenant]:
                    renewed[lease.tenant] = Lease(
                        lease.tenant, lease.fence, lease.holder, lease.acquired_at, now + ttl_seconds
                    )
            self._write_leases(connection, [lease for lease in renewed.values() if lease is not None])
        return renewed

    def release_leases(self, fences: Mapping[str, int]) -> None:
        """Gives the leases with those fences (by tenant) back; one that was lost meanwhile is left alone."""
        with self.transaction(write=True) as connection:
            for tenant, fence in sorted(fences.items()):
                connection.execute(
                    _leases.update().where(_leases.c.tenant == tenant, _leases.c.fence == fence).values(holder=None)
                )

    def leases(self, *, only: Iterable[str] | None = None) -> dict[str, Lease]:
        """The leases that somebody holds now, by tenant: all, or those of ``only``."""
        with self.transaction() as connection:
            now = self.now(connection)
            return {lease.tenant: lease for lease in self._leases(connection, only) if self._is_held(lease, now)}

    def record_outcome(
        self, tenant: str, *, revision: int, fence: int, applied: bool, outcome: Mapping[str, Any]
    ) -> bool:
        """Writes what a converge of ``revision`` came to; ``applied`` says that the stack now matches it.

        ``outcome`` is JSON-plain (state per bot, health, reason of a failure); ``revision``, ``applied`` and ``at`` are
        added. Returns False, and writes nothing, if the lease with ``fence`` was lost or released.
        """
        with self.transaction(write=True) as connection:
            lease = self._lease(connection, tenant)
            if lease is None or not lease.holder or lease.fence != fence:
                return False
            row = self._row(connection, tenant)
            if not 0 < revision <= row.revision:
                raise RegistryError(f"tenant {tenant} has no revision {revision}; its latest is {row.revision}")
            at = iso_time(self.now(connection))
            values: dict[str, Any] = {
                "outcome": json.dumps({**outcome, "revision": revision, "applied": applied, "at": at})
            }
            if applied:
                values["applied_revision"] = revision
            connection.execute(_tenants.update().where(_tenants.c.tenant == tenant).values(**values))
            return True

    # --- inside ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """One transaction; with ``write`` nobody else writes until it ends. Raises RegistryUnavailableError."""
        try:
            with self._taking_turns(write), self._engine.connect() as connection:
                connection = connection.execution_options(hummingfleet_write=write)
                with connection.begin():
                    if write and not self._sqlite:
                        # As patient as SQLite; and a writer that vanished from the network frees the lock in the end.
                        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(self._busy_seconds * 1000)}")
                        connection.exec_driver_sql(
                            f"SET LOCAL idle_in_transaction_session_timeout = {VANISHED_SECONDS * 1000}"
                        )
                        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                    yield connection
        except sa.exc.DBAPIError as error:
            raise self._failure(error) from None

    @contextlib.contextmanager
    def _taking_turns(self, write: bool) -> Iterator[None]:
        if not write or self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=self._busy_seconds):
            raise RegistryUnavailableError(
                f"the registry is busy: other requests kept it for {self._busy_seconds:g} seconds"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _failure(self, error: sa.exc.DBAPIError) -> RegistryUnavailableError:
        where = f"the registry {self._url.render_as_string(hide_password=True)}"
        reason = " ".join(str(error.orig).split())
        if "locked" in reason or "lock timeout" in reason:
            return RegistryUnavailableError(
                f"{where} is busy: another process kept it locked for {self._busy_seconds:g} seconds"
            )
        if "malformed" in reason or "not a database" in reason or "no such table" in reason:
            return RegistryUnavailableError(f"{where} is damaged or no registry ({reason}); restore it from a backup")
        return RegistryUnavailableError(f"{where} cannot be used: {reason}")

    def _prepare(self) -> None:
        if self._sqlite:
            self._prepare_sqlite_file(Path(self._url.database or ""))
        with self.transaction() as connection:
            if self._stored_version(connection) == SCHEMA_VERSION:
                return
        with self.transaction(write=True) as connection:
            version = self._stored_version(connection)
            if version > SCHEMA_VERSION:
                raise RegistryError(
                    f"the registry {self._url.render_as_string(hide_password=True)} was written by a newer "
                    f"Hummingfleet (schema {version}, this one knows {SCHEMA_VERSION}); update this installation"
                )
            if version == 0:
                metadata.create_all(connection, checkfirst=False)
                connection.execute(schema_version.insert().values(id=1, version=SCHEMA_VERSION))
                return
            for step in range(version, SCHEMA_VERSION):
                MIGRATIONS[step](connection)
            connection.execute(schema_version.update().values(version=SCHEMA_VERSION))

    def _stored_version(self, connection: sa.Connection) -> int:
        if not sa.inspect(connection).has_table(schema_version.name):
            return 0
        return int(connection.execute(sa.select(schema_version.c.version)).scalar_one())

    def _prepare_sqlite_file(self, path: Path) -> None:
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                # Documents hold ciphertexts: nobody else's business. Only a file that is new may be opened and closed
                # here, since closing drops the locks that SQLite holds on it in this process.
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except OSError as error:
            raise RegistryError(f"the registry {path} cannot be created: {error.strerror}") from None
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                with self._engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None
                    # The mode stays in the file. Changing it needs the file alone, and does not wait for that.
                    if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                        driver.execute("PRAGMA journal_mode = WAL")
                    return
            except sa.exc.DBAPIError as error:
                raise self._failure(error) from None
            except Exception as error:  # sqlite3's own errors, from the driver's connection
                if "locked" in str(error) and time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                raise self._failure(sa.exc.DBAPIError("PRAGMA journal_mode", None, error)) from None

    def clock(self) -> float:
        """Epoch seconds by the clock that leases go by."""
        if self._sqlite or self._clock is not None:
            return self._clock() if self._clock is not None else time.time()
        with self.transaction() as connection:
            return self.now(connection)

    def now(self, connection: sa.Connection) -> float:
        """Epoch seconds by the clock that leases go by."""
        if self._clock is not None:
            return self._clock()
        if self._sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _find_row(self, connection: sa.Connection, tenant: str) -> sa.Row[Any] | None:
        if not _ID.fullmatch(tenant):
            return None
        return connection.execute(_TENANT, {"key": tenant}).one_or_none()

    def _row(self, connection: sa.Connection, tenant: str) -> sa.Row[Any]:
        row = self._find_row(connection, tenant)
        if row is None:
            raise _unknown(tenant)
        return row

    def _summaries(
        self, condition: sa.ColumnElement[bool] | None, only: Iterable[str] | None
    ) -> tuple[TenantSummary, ...]:
        query = sa.select(*(_tenants.c[name] for name in TenantSummary._fields)).order_by(_tenants.c.tenant)
        if condition is not None:
            query = query.where(condition)
        with self.transaction() as connection:
            if only is None:
                return tuple(TenantSummary._make(row) for row in connection.execute(query))
            found = [
                TenantSummary._make(row)
                for chunk in _chunks(filter(_ID.fullmatch, only))
                for row in connection.execute(query.where(_tenants.c.tenant.in_(chunk)))
            ]
        return tuple(sorted(found))

    def _document_at(self, connection: sa.Connection, tenant: str, revision: int) -> dict[str, Any]:
        latest = self._row(connection, tenant).revision
        if not 1 <= revision <= latest:
            raise UnknownTenantError(f"tenant {tenant} has no revision {revision}; it has 1 to {latest}")
        text = connection.execute(
            sa.select(_revisions.c.document).where(_revisions.c.tenant == tenant, _revisions.c.revision == revision)
        ).scalar_one()
        document: dict[str, Any] = json.loads(text)
        return document

    def _reserved(self, connection: sa.Connection, *, except_tenant: str | None) -> dict[str, int]:
        gone = (_tenants.c.state == "terminated") & (_tenants.c.applied_revision == _tenants.c.revision)
        query = sa.select(_tenants.c.node, sa.func.sum(_tenants.c.memory_mib)).where(~gone).group_by(_tenants.c.node)
        if except_tenant is not None:
            query = query.where(_tenants.c.tenant != except_tenant)
        return {node: int(memory) for node, memory in connection.execute(query)}

    def _store(
        self,
        connection: sa.Connection,
        row: sa.Row[Any] | None,
        data: Mapping[str, Any],
        cause: Cause,
        fleet: Fleet,
        catalogue: Catalogue,
    ) -> Submission:
        """Validates, allocates and writes, inside a writing transaction; ``row`` is the tenant's present one."""
        # Imported here: reading the registry, as every Ansible run does, needs no pydantic.
        from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document

        stored: dict[str, Any] | None = json.loads(row.document) if row is not None else None
        seconds = self.now(connection)
        if isinstance(data, Mapping):
            data, cause = _keep_risk_halt(data, stored, seconds, cause)
        if stored is None:
            document = parse_document(data, catalogue, reserved=fleet.nodes)
            document = parse_document(
                self._allocate(connection, document, fleet, catalogue), catalogue, reserved=fleet.nodes
            )
        else:
            merged, faults = _keep_allocation(data, stored)
            try:
                document = _parse_change(merged, stored, catalogue, fleet)
            except DocumentError as error:
                raise DocumentError((*faults, *error.faults)) from None
            if faults:
                raise DocumentError(faults)
        plain = document.plain()
        if row is not None and stored is not None:
            if plain["tenant"] != row.tenant:
                allowed = f"{row.tenant}; a new tenant is submitted as one"
                raise DocumentError([Fault("/tenant", "cannot change", allowed, "tenant_changed")])
            if plain == stored:
                return Submission(_record(row), False)
        addresses.check_containers(len(document.bots) + SERVICE_CONTAINERS)
        plan = catalogue.plans.get(document.plan)
        # A plan that left the catalogue can be kept, not chosen: what it reserves stays as it is.
        memory = (
            row.memory_mib if plan is None and row is not None else catalogue.plans[document.plan].memory_mib(document)
        )
        if row is not None:
            self._check_growth(connection, row, document, memory, fleet, catalogue)
        if stored is None or plain["subdomain"] != stored["subdomain"]:
            self._claim_subdomain(connection, document)
        if stored is None or plain["exchange_connections"] != stored["exchange_connections"]:
            self._claim_ciphertexts(connection, plain)
        now = iso_time(seconds)
        text = json.dumps(plain)
        revision = row.revision + 1 if row is not None else 1
        values: dict[str, Any] = {
            "node": document.placement.node,
            "plan": document.plan,
            "state": document.state,
            "release": document.release,
            "ring": document.placement.ring,
            "memory_mib": memory,
            "revision": revision,
            "document": text,
            "updated_at": now,
        }
        if row is None:
            for table in (_bots, _signal_tokens, _signals):  # what a tenant forgotten since may have left
                connection.execute(table.delete().where(table.c.tenant == document.tenant))
            connection.execute(_NEW_TENANT, {"tenant": document.tenant, "applied_revision": 0, **values})
        else:
            connection.execute(_CHANGE_TENANT, {"key": row.tenant, **values})
            self._revoke_signal_tokens(connection, document, stored, now)
        connection.execute(
            _NEW_REVISION,
            {
                "tenant": document.tenant,
                "revision": revision,
                "at": now,
                "cause_kind": _storable(cause.kind),
                "cause_text": _storable(cause.text),
                "cause_actor": _storable(cause.actor),
                "document": text,
            },
        )
        record = TenantRecord(
            tenant=document.tenant,
            revision=revision,
            applied_revision=row.applied_revision if row is not None else 0,
            document=plain,
            outcome=json.loads(row.outcome) if row is not None and row.outcome else None,
            updated_at=now,
        )
        return Submission(record, True)

    @staticmethod
    def _revoke_signal_tokens(
        connection: sa.Connection, document: TenantDocument, stored: Mapping[str, Any] | None, now: str
    ) -> None:
        """Those of bots that are gone: a bot that gets the same id later is another one."""
        gone = {bot["id"] for bot in (stored or {}).get("bots", ())} - {bot.id for bot in document.bots}
        if gone:
            c = _signal_tokens.c
            own = (c.tenant == document.tenant) & c.bot.in_(gone) & c.revoked_at.is_(None)
            connection.execute(_signal_tokens.update().where(own).values(revoked_at=now))

    def _allocate(
        self, connection: sa.Connection, document: TenantDocument, fleet: Fleet, catalogue: Catalogue
    ) -> dict[str, Any]:
        """The document of a new tenant with its node, subnet, user id, salt and secret versions.

        Values that the document brings along (a tenant restored from elsewhere) are kept if they are free.
        """
        from ansible_collections.hummingfleet.core.plugins.module_utils.document import SecretVersions

        plain = document.plain()
        memory = catalogue.plans[document.plan].memory_mib(document)
        labels = _labels(document, catalogue)
        reserved = self._reserved(connection, except_tenant=None)
        node = document.placement.node
        if node is None:
            node = placement.choose_node(memory, labels, fleet.nodes, reserved)
        else:
            placement.check_node(node, memory, labels, fleet.nodes, reserved)
        subnet, uid = document.subnet, document.uid
        subnets = self._allocated(connection, "subnet")
        if subnet is None:
            subnet = addresses.next_subnet(fleet.address_pool, subnets)
        else:
            addresses.check_subnet(subnet, fleet.address_pool)
            if subnet in subnets:
                raise _taken("/subnet", "leave it out, and a free one is chosen")
        uids = self._allocated(connection, "uid")
        if uid is None:
            # A removed tenant comes back under its own user id: files of it may still be there.
            own = [int(value) for value, owner in uids.items() if owner == document.tenant]
            uid = own[0] if own else _next_uid(fleet.uid_pool, uids)
        elif uids.get(str(uid), document.tenant) != document.tenant:
            raise _taken("/uid", "leave it out, and a free one is chosen")
        elif not fleet.uid_pool[0] <= uid <= fleet.uid_pool[1]:
            raise _refused("/uid", f"is {uid}", f"{fleet.uid_pool[0]} to {fleet.uid_pool[1]}", "uid_pool")
        connection.execute(_allocations.insert().values(kind="subnet", value=subnet, tenant=document.tenant))
        if str(uid) not in uids:
            connection.execute(_allocations.insert().values(kind="uid", value=str(uid), tenant=document.tenant))
        plain["placement"] = {**plain["placement"], "node": node}
        plain["subnet"] = subnet
        plain["uid"] = uid
        plain["salt"] = document.salt or secrets.token_hex(16)
        plain["secret_versions"] = (document.secret_versions or SecretVersions()).model_dump()
        return plain

    def _allocated(self, connection: sa.Connection, kind: str) -> dict[str, str]:
        query = sa.select(_allocations.c.value, _allocations.c.tenant).where(_allocations.c.kind == kind)
        return {row.value: row.tenant for row in connection.execute(query)}

    def _check_growth(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        document: TenantDocument,
        memory: int,
        fleet: Fleet,
        catalogue: Catalogue,
    ) -> None:
        """A placed tenant stays where it is; it may not reserve more than its node has."""
        removed = row.state == "terminated" and row.applied_revision == row.revision
        if document.state == "terminated" or memory <= (0 if removed else row.memory_mib):
            return
        others = self._reserved(connection, except_tenant=row.tenant)
        placement.check_node(row.node, memory, {}, fleet.nodes, others)

    def _claim_subdomain(self, connection: sa.Connection, document: TenantDocument) -> None:
        own = (_allocations.c.kind == "subdomain") & (_allocations.c.tenant == document.tenant)
        owner = connection.execute(
            sa.select(_allocations.c.tenant).where(
                _allocations.c.kind == "subdomain", _allocations.c.value == document.subdomain
            )
        ).scalar_one_or_none()
        if owner == document.tenant:
            return
        if owner is not None:
            raise _taken("/subdomain", "a subdomain that no other tenant has")
        connection.execute(_allocations.delete().where(own))
        connection.execute(
            _allocations.insert().values(kind="subdomain", value=document.subdomain, tenant=document.tenant)
        )

    def _claim_ciphertexts(self, connection: sa.Connection, plain: Mapping[str, Any]) -> None:
        """Remembers the tenant's ciphertexts and nonces; refuses those that were seen under another tenant."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError

        places = {(kind, digest): where for where, kind, digest in _ciphertext_digests(plain)}
        owners: dict[tuple[str, str], str] = {}
        for chunk in _chunks(digest for _kind, digest in places):
            for row in connection.execute(sa.select(_ciphertexts).where(_ciphertexts.c.sha256.in_(chunk))):
                owners[row.kind, row.sha256] = row.tenant
        faults = [
            Fault(
                places[key],
                f"this {key[0]} was seen under another tenant",
                "credentials encrypted anew for this tenant",
                "foreign_ciphertext",
            )
            for key in places
            if owners.get(key, plain["tenant"]) != plain["tenant"]
        ]
        if faults:
            raise DocumentError(faults)
        new = [
            {"kind": kind, "sha256": digest, "tenant": plain["tenant"]}
            for kind, digest in places
            if (kind, digest) not in owners
        ]
        if new:
            connection.execute(_ciphertexts.insert(), new)

    def _lease(self, connection: sa.Connection, tenant: str) -> Lease | None:
        return next(self._leases(connection, [tenant]), None)

    def _leases(self, connection: sa.Connection, only: Iterable[str] | None) -> Iterator[Lease]:
        """The rows of the table as leases, released ones (with an empty holder) and expired ones included."""
        queries = (
            [sa.select(_leases)]
            if only is None
            else [
                sa.select(_leases).where(_leases.c.tenant.in_(chunk)) for chunk in _chunks(filter(_ID.fullmatch, only))
            ]
        )
        for query in queries:
            for row in connection.execute(query):
                yield Lease(row.tenant, row.fence, row.holder or "", row.acquired_at, row.expires_at)

    def _is_held(self, lease: Lease, now: float) -> bool:
        return bool(lease.holder) and lease.expires_at > now and not holder_is_dead(lease.holder)

    def _write_leases(self, connection: sa.Connection, leases: Sequence[Lease]) -> None:
        if leases:
            connection.execute(
                _leases.update()
                .where(_leases.c.tenant == sa.bindparam("key"))
                .values(
                    {name: sa.bindparam(f"new_{name}") for name in ("fence", "holder", "acquired_at", "expires_at")}
                ),
                [
                    {
                        "key": lease.tenant,
                        "new_fence": lease.fence,
                        "new_holder": lease.holder,
                        "new_acquired_at": lease.acquired_at,
                        "new_expires_at": lease.expires_at,
                    }
                    for lease in leases
                ],
            )

    def _try_leases(
        self, tenants: Sequence[str], holder: str, ttl_seconds: float, *, in_order: bool
    ) -> tuple[dict[str, Lease | None], Lease | None]:
        """Takes what can be taken now; answers also the first lease that is in the way."""
        taken: dict[str, Lease | None] = dict.fromkeys(tenants)
        blocker: Lease | None = None
        with self.transaction(write=True) as connection:
            known = {
                tenant
                for chunk in _chunks(filter(_ID.fullmatch, tenants))
                for (tenant,) in connection.execute(sa.select(_tenants.c.tenant).where(_tenants.c.tenant.in_(chunk)))
            }
            missing = [tenant for tenant in tenants if tenant not in known]
            if missing:
                raise _unknown(*missing)
            now = self.now(connection)
            present = {lease.tenant: lease for lease in self._leases(connection, tenants)}
            dead: dict[str, bool] = {}
            new: list[dict[str, Any]] = []
            updated: list[Lease] = []
            for tenant in tenants:
                old = present.get(tenant)
                if old is None:
                    lease = Lease(tenant, 1, holder, now, now + ttl_seconds)
                    new.append(
                        {
                            "tenant": tenant,
                            "fence": 1,
                            "holder": holder,
                            "acquired_at": now,
                            "expires_at": now + ttl_seconds,
                        }
                    )
                elif old.holder == holder and old.expires_at > now:
                    lease = Lease(tenant, old.fence, holder, old.acquired_at, now + ttl_seconds)
                    updated.append(lease)
                elif not old.holder or old.expires_at <= now or _remember(dead, old.holder, holder_is_dead):
                    lease = Lease(tenant, old.fence + 1, holder, now, now + ttl_seconds)
                    updated.append(lease)
                else:
                    blocker = blocker or old
                    if in_order:
                        break
                    continue
                taken[tenant] = lease
            if new:
                connection.execute(_leases.insert(), new)
            self._write_leases(connection, updated)
        return taken, blocker


def process_holder(pid: int | None = None) -> str:
    """What identifies a process (default: this one) as a holder of leases: ``host:pid:boot/pid-namespace/start``.

    Two processes never share it, also not after a reboot or when a process id is used again.
    """
    pid = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}:{pid}:{_boot()}/{_start_time(pid)}"


def holder_is_dead(holder: str) -> bool:
    """Whether ``holder`` is a process that certainly no longer runs.

    Only processes of the same host, boot and process id namespace can be judged; of all others the answer is False,
    and their lease has to run out.
    """
    host, pid, start = _split_holder(holder)
    boot, _separator, started = start.rpartition("/")
    if not pid or not started or host != socket.gethostname() or boot != _boot():
        return False
    return _start_time(int(pid)) != started


def _boot() -> str:
    """The running kernel and process id namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _start_time(pid: int) -> str:
    """When the process started, in ticks since boot; empty if there is no such process, or it is a zombie."""
    try:
        # The second field is the command in brackets and may hold anything, so count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]


def _split_holder(holder: str) -> tuple[str, str, str]:
    """Host, process id, rest; the process id is empty if the holder has another form."""
    parts = holder.split(":", 2)
    if len(parts) == 3 and parts[1].isdecimal():
        return parts[0], parts[1], parts[2]
    return holder, "", ""


def _remember(known: dict[str, bool], key: str, function: Callable[[str], bool]) -> bool:
    if key not in known:
        known[key] = function(key)
    return known[key]


def _sqlite_engine(url: sa.URL, busy_seconds: float, pool: Mapping[str, Any]) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": busy_seconds, "check_same_thread": False}, **pool)

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver thinks
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # what was answered is on disk

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("hummingfleet_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgresql_engine(url: sa.URL, busy_seconds: float, pool: Mapping[str, Any]) -> sa.Engine:
    if url.get_backend_name() != "postgresql":
        raise RegistryError(f"a registry can be SQLite or PostgreSQL, not {url.get_backend_name()}")
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": url.query.get("connect_timeout", str(max(2, min(10, int(busy_seconds)))))},
        pool_pre_ping=pool["poolclass"] is not sa.NullPool,
        **pool,
    )


def _record(row: sa.Row[Any]) -> TenantRecord:
    return TenantRecord(
        tenant=row.tenant,
        revision=row.revision,
        applied_revision=row.applied_revision,
        document=json.loads(row.document),
        outcome=json.loads(row.outcome) if row.outcome else None,
        updated_at=row.updated_at,
    )


def _unknown(*tenants: str) -> UnknownTenantError:
    names = ", ".join(repr(tenant) for tenant in tenants[:5]) + (" ..." if len(tenants) > 5 else "")
    return UnknownTenantError(f"the registry has no tenant {names}; 'hummingfleet tenant list' shows those it has")


def _refused(where: str, problem: str, allowed: str, rule: str) -> HummingfleetError:
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError

    return DocumentError([Fault(where, problem, allowed, rule)])


def _taken(where: str, allowed: str) -> HummingfleetError:
    return _refused(where, "is taken", allowed, "taken")


def _labels(document: TenantDocument, catalogue: Catalogue) -> dict[str, str]:
    return {**catalogue.plans[document.plan].node_labels, **document.placement.labels}


def _next_uid(pool: tuple[int, int], used: Collection[str]) -> int:
    for uid in range(pool[0], pool[1] + 1):
        if str(uid) not in used:
            return uid
    raise RegistryError(
        f"the user ids {pool[0]} to {pool[1]} are all used up (none is used twice); enlarge uid_pool in the fleet file"
    )


def _keep_allocation(data: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """``data`` with what is allocated to the tenant, and a fault for each value that differs from it."""
    merged = dict(data)
    faults = []
    for name in ALLOCATED:
        given, kept = merged.get(name), stored[name]
        if isinstance(given, Mapping) and isinstance(kept, Mapping):
            kept = {**kept, **_raised(given, kept)}
            same = given.items() <= kept.items()
        else:
            same = given is None or given == kept
        if not same:
            faults.append(_allocated_fault(f"/{name}", kept if name != "salt" else "the stored one"))
        merged[name] = kept
    wish = merged.get("placement")
    if wish is None or isinstance(wish, Mapping):
        node = stored["placement"]["node"]
        if wish and wish.get("node") not in (None, node):
            faults.append(_allocated_fault("/placement/node", node))
        merged["placement"] = {**(wish or {}), "node": node}
    return merged, faults


def _raised(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, int]:
    """The versions in ``given`` that may be newer than the ``stored`` ones, and are."""
    versions = {name: given.get(name) for name in RAISABLE}
    return {n: v for n, v in versions.items() if isinstance(v, int) and v is not True and v > stored.get(n, 1)}


def _keep_risk_halt(
    data: Mapping[str, Any], stored: Mapping[str, Any] | None, now: float, cause: Cause
) -> tuple[dict[str, Any], Cause]:
    """``data`` with the tenant's risk halt as it follows ``stored``, and the cause, which says if it lifts one."""
    kept = risk_halt.keep(data, stored, now, lifted_at=iso_time(now) if cause.lift_risk_halt else None)
    halt, before = kept.get("risk_halt"), (stored or {}).get("risk_halt")
    if cause.lift_risk_halt and isinstance(halt, Mapping) and risk_halt.stands(before) and not risk_halt.stands(halt):
        cause = replace(cause, text=f"lifts the tenant's risk halt of {halt.get('day')}: {cause.text}")
    return kept, cause


def _parse_change(
    data: Mapping[str, Any], stored: Mapping[str, Any], catalogue: Catalogue, fleet: Fleet
) -> TenantDocument:
    """The document in ``data``; raises DocumentError for what is wrong with it and was not so in ``stored`` already.

    A pair that was delisted or a plan that shrank since must not keep anybody from stopping a bot.
    """
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
        DocumentError,
        parse_document,
        read_document,
    )

    try:
        return parse_document(data, catalogue, reserved=fleet.nodes)
    except DocumentError as error:
        present = error.faults
    try:
        parse_document(stored, catalogue, reserved=fleet.nodes)
        known = set()
    except DocumentError as error:
        known = {_by_id(fault, stored) for fault in error.faults}
    new = [fault for fault in present if _by_id(fault, data) not in known]
    if new:
        raise DocumentError(new)
    return read_document(data, catalogue)


def _by_id(fault: Fault, document: Mapping[str, Any]) -> tuple[str, str, str]:
    """A fault with the id of its bot or connection instead of the place in the list, which changes with the others."""
    parts = fault.pointer.split("/")
    if len(parts) > 2 and parts[1] in ("bots", "exchange_connections") and parts[2].isdecimal():
        entries, index = document.get(parts[1]), int(parts[2])
        if isinstance(entries, list) and index < len(entries) and isinstance(entries[index], Mapping):
            parts[2] = str(entries[index].get("id"))
    return "/".join(parts), fault.problem, fault.rule


def _allocated_fault(where: str, stored: object) -> Fault:
    return Fault(where, "was allocated and cannot be changed", f"{stored}, or leave it out", "allocated")


def keep_counters(document: dict[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """``document`` with no bot's counter below that of ``present``: only raising one asks a bot for something."""
    now = {bot["id"]: bot for bot in present.get("bots", ())}
    bots = [
        {**bot, **{name: max(bot.get(name, 0), now.get(bot["id"], bot).get(name, 0)) for name in _COUNTERS}}
        for bot in document["bots"]
    ]
    return {**document, "bots": bots}


def _without_allocation(document: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in document.items() if name not in ALLOCATED}
    data["placement"] = {name: value for name, value in document["placement"].items() if name != "node"}
    return data


def _ciphertext_digests(plain: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Pointer, kind and SHA-256 of every ciphertext and nonce in the document."""
    for index, connection in enumerate(plain.get("exchange_connections", ())):
        for name, value in connection.items():
            kind = {"encrypted": "ciphertext", "nonce": "nonce"}.get(name.partition("_")[0])
            if kind and isinstance(value, str) and "_" in name:
                yield pointer("exchange_connections", index, name), kind, hashlib.sha256(_decoded(value)).hexdigest()


def _decoded(value: str) -> bytes:
    """The bytes behind base64: one ciphertext can be written in several ways."""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def _readable(document: Mapping[str, Any]) -> str:
    import yaml

    readable = {**document, "salt": _fingerprint(document["salt"])}
    readable["exchange_connections"] = [
        {
            name: _fingerprint(value) if name.startswith(("encrypted_", "nonce_")) else value
            for name, value in connection.items()
        }
        for connection in document["exchange_connections"]
    ]
    return yaml.safe_dump(readable, sort_keys=False, allow_unicode=True, width=120)


def _fingerprint(value: str) -> str:
    return "sha256:" + hashlib.sha256(_decoded(value)).hexdigest()[:12]


def _storable(text: str) -> str:
    """The text as every database takes it: no NUL, nothing that is not Unicode, not endless."""
    return text[:_CAUSE_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode()


def _chunks(items: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(set(items))
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def iso_time(seconds: float) -> str:
    """UTC in ISO 8601 with milliseconds, e.g. ``2026-11-23T01:02:03.456Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
