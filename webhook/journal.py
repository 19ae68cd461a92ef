# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The portal's events: accepted once, in an order, together with the revision they make; and what became of them.

An event is stored in the same transaction as the new revision of its tenant's document, which is also the entry in the
queue (``work.py``). So what was answered 202 is on disk and will be worked off, whatever process dies next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import AddressError
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import PlacementError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    Cause,
    Registry,
    UnknownTenantError,
    iso_time,
    keep_counters,
)

from . import tenant_risk, work
from .events import Event, parse_event
from .wake import Waker

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet

EVENT_STATES = ("accepted", "applied", "failed", "discarded")
PAGE_MAX = 500
_CAUSE = "event"
# Statements of every event, made once: making them anew costs more than having them done.
_EVENT = sa.select(tables.events).where(tables.events.c.id == sa.bindparam("key"))
_NEW_EVENT = tables.events.insert()

Item = TypeVar("Item")


class JournalError(HummingfleetError):
    """An event cannot be taken or handled as asked."""


class EventConflictError(JournalError):
    """An event's id is known, with another body."""


class SequenceError(JournalError):
    """An event's sequence number is not above the last one of its tenant."""


class UnknownEventError(JournalError):
    """There is no such event."""


class EventStateError(JournalError):
    """The event is in a state in which this cannot be done."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A stored event. ``number`` is its place in the order of acceptance; times are UTC, ISO 8601.

    ``revision`` is the tenant's after it, ``changed`` whether it made that revision, ``attempts`` the runs that failed
    so far; ``code`` and ``reason`` say why it failed, or why it is being tried again, in words for the portal's users.
    """

    id: str
    number: int
    tenant: str
    type: str
    state: str
    code: str | None
    reason: str | None
    revision: int
    changed: bool
    sequence: int | None
    timestamp: str
    received_at: str
    finished_at: str | None
    attempts: int
    source: str

    def plain(self) -> dict[str, Any]:
        """The record as JSON-plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of a delivery; ``repeated`` means that the event had been accepted before."""

    event: EventRecord
    repeated: bool


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list; ``next`` is where to go on, None at its end."""

    items: tuple[Item, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class BotStatus:
    """A bot: what is wanted, and what was last seen of it (``state`` is "unknown" before that)."""

    bot: str
    name: str
    trading_pair: str
    strategy_template: str
    wanted: str
    state: str
    seen_at: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """A tenant as the status API shows it; nothing in it is secret.

    ``work`` is idle, waiting, running, retrying or failed; ``failure`` says why the last run failed: code, reason,
    message (for operators), revision, at. ``retry_at`` is when it is tried again. ``risk`` is the bots' UTC day: day,
    pnl_usd, limit_usd (null: none), halt (null, or why all of them are stopped).
    """

    tenant: str
    state: str
    plan: str
    release: str
    node: str
    ring: str
    subdomain: str
    revision: int
    applied_revision: int
    updated_at: str
    work: str
    retry_at: str | None
    failure: Mapping[str, Any] | None
    bots: tuple[BotStatus, ...]
    risk: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """The status as JSON-plain data, for operators."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JournalStats:
    """How much there is to do.

    ``oldest_waiting_seconds`` is how long the longest waits that nothing has gone wrong with, 0 if nobody does.
    """

    events: Mapping[str, int]
    tenants: int
    behind: int
    running: int
    retrying: int
    failed: int
    oldest_waiting_seconds: float
    callbacks_pending: int
    workers: int


class Journal:
    """The events in ``registry``; ``waker`` is told when there is something new to do."""

    def __init__(self, registry: Registry, fleet: Fleet, catalogue: Catalogue, *, waker: Waker | None = None) -> None:
        self._registry = registry
        self._fleet = fleet
        self._catalogue = catalogue
        self._waker = waker or Waker(fleet.run_dir)

    # --- the portal ------------------------------------------------------------------------------------------------

    def accept(self, event: Event, *, event_id: str, body: bytes, source: str) -> Acceptance:
        """Stores the event with the revision it makes, durably; ``source`` is the secret that signed it.

        Raises EventConflictError, SequenceError, EventError (what the event asks for cannot be), PlacementError and
        AddressError (no room), RegistryUnavailableError (nothing was stored; it may be sent again).
        """
        digest = hashlib.sha256(body).hexdigest()
        with self._registry.transaction(write=True) as connection:
            known = _find_event(connection, event_id)
            if known is not None:
                if known.body_sha256 != digest:
                    raise EventConflictError(
                        f"event {event_id} was accepted before with another body; a new event needs an id of its own"
                    )
                return Acceptance(_record(known), True)
            now = self._registry.now(connection)
            _check_sequence(connection, event)
            revision, changed = self._apply(connection, event, Cause(_CAUSE, f"{event.type} {event_id}", source), now)
            request = work.request(connection, event.tenant, now, sequence=event.sequence)
            values: dict[str, Any] = {
                "id": event_id,
                "tenant": event.tenant,
                "type": event.type,
                "source": source,
                "sequence": event.sequence,
                "timestamp": iso_time(event.timestamp.timestamp()),
                "received_at": iso_time(now),
                "revision": revision,
                "changed": changed,
                "state": "accepted",
                "attempts": 0,
            }
            rest = {"body": body.decode(), "body_sha256": digest, "request": request}
            key = connection.execute(_NEW_EVENT, {**values, **rest}).inserted_primary_key
            assert key is not None
            number = int(key[0])
            stored = EventRecord(number=number, code=None, reason=None, finished_at=None, **values)
        self._waker.wake()
        return Acceptance(stored, False)

    # --- reading ---------------------------------------------------------------------------------------------------

    def get(self, event_id: str) -> EventRecord:
        """The event; raises UnknownEventError."""
        with self._registry.transaction() as connection:
            return _record(_event(connection, event_id))

    def body(self, event_id: str) -> dict[str, Any]:
        """What the portal sent, ciphertexts included; raises UnknownEventError."""
        with self._registry.transaction() as connection:
            data: dict[str, Any] = json.loads(_event(connection, event_id).body)
        return data

    def list(
        self,
        *,
        tenant: str | None = None,
        state: str | None = None,
        since: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[EventRecord]:
        """Events, newest first: of ``tenant``, in ``state``, received at ``since`` (ISO 8601, UTC) or later.

        ``after`` is the ``next`` of the page before. Raises JournalError for a cursor or a time that is none.
        """
        query = sa.select(tables.events).order_by(tables.events.c.number.desc())
        if tenant is not None:
            query = query.where(tables.events.c.tenant == tenant)
        if state is not None:
            query = query.where(tables.events.c.state == state)
        if since is not None:
            query = query.where(tables.events.c.received_at >= _normal_time(since))
        if after is not None:
            query = query.where(tables.events.c.number < _cursor_number(after))
        limit = max(1, min(limit, PAGE_MAX))
        with self._registry.transaction() as connection:
            rows = connection.execute(query.limit(limit + 1)).all()
        return _page([_record(row) for row in rows], limit, lambda one: str(one.number))

    def follow(self, number: int, *, tenant: str | None = None, limit: int = PAGE_MAX) -> tuple[EventRecord, ...]:
        """The events accepted after the one with ``number``, oldest first."""
        query = sa.select(tables.events).where(tables.events.c.number > number).order_by(tables.events.c.number)
        if tenant is not None:
            query = query.where(tables.events.c.tenant == tenant)
        with self._registry.transaction() as connection:
            return tuple(_record(row) for row in connection.execute(query.limit(limit)))

    def tenant_status(self, tenant: str) -> TenantStatus:
        """What is wanted of the tenant, what is done for it, and what its bots do; raises UnknownTenantError."""
        with self._registry.transaction() as connection:
            found = self._statuses(connection, tables.tenants.c.tenant == tenant, 1)
        if not found:
            raise UnknownTenantError(f"there is no tenant {tenant!r}")
        return found[0]

    def tenants(self, *, after: str | None = None, limit: int = 100) -> Page[TenantStatus]:
        """All tenants by id; ``after`` is the ``next`` of the page before."""
        limit = max(1, min(limit, PAGE_MAX))
        condition = tables.tenants.c.tenant > after if after is not None else sa.true()
        with self._registry.transaction() as connection:
            found = self._statuses(connection, condition, limit + 1)
        return _page(found, limit, lambda one: one.tenant)

    def stats(self) -> JournalStats:
        """How much there is to do."""
        with self._registry.transaction() as connection:
            now = self._registry.now(connection)
            states = connection.execute(
                sa.select(tables.events.c.state, sa.func.count()).group_by(tables.events.c.state)
            ).all()
            oldest = connection.execute(
                sa.select(sa.func.min(tables.work.c.since)).where(tables.is_requested, tables.work.c.attempt == 0)
            ).scalar()
            given_up = tables.work.c.failed_revision.is_not(None)
            rows = connection.execute(_with_work().where(tables.is_behind | tables.is_requested | given_up)).all()
            kinds = [_work_state(row, now) for row in rows]
            alive = sa.select(sa.func.count()).where(
                tables.duties.c.name.startswith(work.ALIVE, autoescape=True), tables.duties.c.expires_at > now
            )
            return JournalStats(
                events={**dict.fromkeys(EVENT_STATES, 0), **{str(state): int(count) for state, count in states}},
                tenants=int(connection.execute(sa.select(sa.func.count()).select_from(tables.tenants)).scalar_one()),
                behind=sum(row.applied_revision < row.revision for row in rows),
                running=kinds.count("running"),
                retrying=kinds.count("retrying"),
                failed=kinds.count("failed"),
                oldest_waiting_seconds=max(0.0, now - oldest) if oldest else 0.0,
                callbacks_pending=int(
                    connection.execute(
                        sa.select(sa.func.count()).select_from(tables.callbacks).where(tables.is_pending)
                    ).scalar_one()
                ),
                workers=int(connection.execute(alive).scalar_one()),
            )

    # --- the operator ------------------------------------------------------------------------------------------------

    def retry(self, event_id: str, *, actor: str) -> EventRecord:
        """Has a failed event tried again, and with it those that failed in the same run; raises EventStateError."""
        with self._registry.transaction(write=True) as connection:
            row = _event(connection, event_id)
            _check_failed(row, "tried again")
            self._check_present(connection, row)
            if row.revision < work.last_rollback(connection, row.tenant):
                raise EventStateError(
                    f"event {event_id} cannot be tried again: tenant {row.tenant} was rolled back since, so its change "
                    "may be gone; discard it, or send a new event"
                )
            self._reopen(connection, row.tenant, tables.events.c.finished_at == row.finished_at)
            stored = _record(_event(connection, event_id))
        self._waker.wake()
        return stored

    def discard(self, event_id: str, *, actor: str) -> EventRecord:
        """Takes a failed event's change out of the tenant's document, and converges to what is left.

        The document becomes what the events since the last applied revision make of that one, without this event. The
        other ones that failed are tried again. Raises EventStateError, also where a change made by hand, or an event
        that builds on this one, stands in the way.
        """
        with self._registry.transaction(write=True) as connection:
            row = _event(connection, event_id)
            _check_failed(row, "discarded")
            tenant = connection.execute(
                sa.select(tables.tenants).where(tables.tenants.c.tenant == row.tenant)
            ).one_or_none()
            if tenant is not None and row.number <= work.past(connection, row.tenant):
                tenant = None  # another one of the same id
            if tenant is not None and tenant.applied_revision < row.revision:
                self._without(connection, tenant, row, actor)
            connection.execute(
                tables.events.update()
                .where(tables.events.c.number == row.number)
                .values(state="discarded", finished_at=iso_time(self._registry.now(connection)))
            )
            if tenant is not None:
                self._reopen(connection, row.tenant, tables.events.c.revision > tenant.applied_revision)
            stored = _record(_event(connection, event_id))
        self._waker.wake()
        return stored

    # --- inside ----------------------------------------------------------------------------------------------------

    def _apply(self, connection: sa.Connection, event: Event, cause: Cause, now: float) -> tuple[int, bool]:
        """Stores what the event makes of its tenant's document; the revision, and whether it is a new one."""
        made: dict[str, Any] = {}

        def seen(bot: str) -> Mapping[str, Any]:
            return work.last_facts(connection, event.tenant, bot)

        def apply(document: dict[str, Any] | None) -> Mapping[str, Any]:
            made.update(event.apply(document))
            if document is not None:
                event.check_facts(document, seen, now)
            return made

        try:
            submission = self._registry.change_within(
                connection, event.tenant, apply, cause, self._fleet, self._catalogue
            )
        except DocumentError as error:
            raise event.refusal(error, made) from None
        return submission.record.revision, submission.changed

    def _without(self, connection: sa.Connection, tenant: sa.Row[Any], discarded: sa.Row[Any], actor: str) -> None:
        """A new revision: the applied one, with every later event but ``discarded``."""
        later = connection.execute(
            sa.select(tables.revisions.c.revision, tables.revisions.c.cause_kind).where(
                tables.revisions.c.tenant == tenant.tenant, tables.revisions.c.revision > tenant.applied_revision
            )
        ).all()
        by_hand = [row.revision for row in later if row.cause_kind != _CAUSE]
        if by_hand:
            raise EventStateError(
                f"event {discarded.id} cannot be taken out: revision {by_hand[0]} of tenant {tenant.tenant} was not "
                f"made by an event; go back with: hummingfleet tenant rollback {tenant.tenant} REVISION"
            )
        events = connection.execute(
            sa.select(tables.events)
            .where(
                tables.events.c.tenant == tenant.tenant,
                tables.events.c.number > work.past(connection, tenant.tenant),
                tables.events.c.revision > tenant.applied_revision,
                tables.events.c.state != "discarded",
                tables.events.c.number != discarded.number,
            )
            .order_by(tables.events.c.number)
        ).all()
        if tenant.applied_revision == 0:
            if discarded.type == "tenant.created" and events:
                raise EventStateError(
                    f"event {discarded.id} cannot be taken out: event {events[0].id} ({events[0].type}) came later "
                    "and builds on it; discard that one first"
                )
            if discarded.type == "tenant.created":
                # Never there, so it leaves: whatever its first runs left on the node is removed.
                self._store(connection, tenant.tenant, lambda found: {**(found or {}), "state": "terminated"}, actor)
                return
            document: dict[str, Any] | None = None
        else:
            document = json.loads(
                connection.execute(
                    sa.select(tables.revisions.c.document).where(
                        tables.revisions.c.tenant == tenant.tenant,
                        tables.revisions.c.revision == tenant.applied_revision,
                    )
                ).scalar_one()
            )
        for row in events:
            body = json.loads(row.body)
            if row.type == "tenant.created":
                # The newest release of today is not the one it was made with.
                body["data"] = {"release": json.loads(tenant.document)["release"], **body["data"]}
            try:
                document = parse_event(body, self._catalogue).apply(document)
            except HummingfleetError:
                raise EventStateError(
                    f"event {discarded.id} cannot be taken out: event {row.id} ({row.type}) came later and builds on "
                    "it; discard that one first"
                ) from None
        kept = keep_counters(document or {"bots": []}, json.loads(tenant.document))
        try:
            self._store(connection, tenant.tenant, lambda _found: kept, actor)
        except (DocumentError, PlacementError, AddressError) as error:
            raise EventStateError(
                f"event {discarded.id} cannot be taken out: what is left cannot be ({error})"
            ) from None

    def _store(
        self,
        connection: sa.Connection,
        tenant: str,
        change: Callable[[dict[str, Any] | None], Mapping[str, Any]],
        actor: str,
    ) -> None:
        # A kind of its own would stand in the way of the next one.
        self._registry.change_within(
            connection, tenant, change, Cause(_CAUSE, "event discarded", actor), self._fleet, self._catalogue
        )

    def _check_present(self, connection: sa.Connection, row: sa.Row[Any]) -> None:
        known = connection.execute(
            sa.select(tables.tenants.c.tenant).where(tables.tenants.c.tenant == row.tenant)
        ).one_or_none()
        if known is None or row.number <= work.past(connection, row.tenant):
            raise EventStateError(
                f"event {row.id} cannot be tried again: the tenant {row.tenant} it was for has been removed since"
            )

    def _reopen(self, connection: sa.Connection, tenant: str, which: sa.ColumnElement[bool]) -> None:
        request = work.request(connection, tenant, self._registry.now(connection), afresh=True)
        own = tables.events.c.number > work.past(connection, tenant)
        connection.execute(
            tables.events.update()
            .where(tables.events.c.tenant == tenant, tables.events.c.state == "failed", own, which)
            .values(state="accepted", request=request, finished_at=None, code=None, reason=None)
        )

    def _statuses(
        self, connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int
    ) -> tuple[TenantStatus, ...]:
        rows = connection.execute(_with_work().where(condition).order_by(tables.tenants.c.tenant).limit(limit)).all()
        seen: dict[str, dict[str, sa.Row[Any]]] = {row.tenant: {} for row in rows}
        for one in connection.execute(sa.select(tables.bots).where(tables.bots.c.tenant.in_(seen))):
            seen[one.tenant][one.bot] = one
        now = self._registry.now(connection)
        return tuple(_status(row, seen[row.tenant], now, self._catalogue) for row in rows)


def _with_work() -> sa.Select[Any]:
    """Tenants with their rows of ``work``; columns of the same name keep the tenant's meaning."""
    own = [column for column in tables.work.c if column.name not in tables.tenants.c]
    return sa.select(tables.tenants, *own).join_from(
        tables.tenants, tables.work, tables.work.c.tenant == tables.tenants.c.tenant, isouter=True
    )


def _work_state(row: sa.Row[Any], now: float) -> str:
    if row.holder and row.claimed_until > now:
        return "running"
    asked = row.requested is not None and row.requested > row.served
    given_up = row.failed_revision is not None and row.failed_revision >= row.revision and not _mended(row)
    if not asked and (row.applied_revision == row.revision or given_up):
        return "failed" if given_up else "idle"
    return "retrying" if row.attempt else "waiting"


def _mended(row: sa.Row[Any]) -> bool:
    """Whether a run that was not the worker's succeeded after it had given up."""
    outcome, failure = json.loads(row.outcome or "{}"), json.loads(row.failure or "{}")
    return bool(
        row.applied_revision == row.revision and outcome.get("applied") and outcome["at"] > failure.get("at", "")
    )


def _status(row: sa.Row[Any], seen: Mapping[str, sa.Row[Any]], now: float, catalogue: Catalogue) -> TenantStatus:
    document = json.loads(row.document)
    facts = [json.loads(one.facts) for one in seen.values()]
    state = _work_state(row, now)
    bots = []
    for bot in document.get("bots", ()):
        last = seen.get(bot["id"])
        if last is not None and last.state == work.REMOVED:  # another one of that id, whose day is still counted
            last = None
        bots.append(
            BotStatus(
                bot=bot["id"],
                name=bot["name"],
                trading_pair=bot["trading_pair"],
                strategy_template=bot["strategy_template"],
                wanted=bot["state"],
                state=last.state if last else "unknown",
                seen_at=last.seen_at if last else None,
                facts=json.loads(last.facts) if last else {},
            )
        )
    return TenantStatus(
        tenant=row.tenant,
        state=row.state,
        plan=row.plan,
        release=row.release,
        node=row.node,
        ring=row.ring,
        subdomain=document["subdomain"],
        revision=row.revision,
        applied_revision=row.applied_revision,
        updated_at=row.updated_at,
        work=state,
        retry_at=iso_time(row.not_before) if state == "retrying" else None,
        failure=json.loads(row.failure) if row.failure and not _mended(row) else None,
        bots=tuple(bots),
        risk=tenant_risk.judge(document, facts, catalogue, now).plain(document, now),
    )


def _find_event(connection: sa.Connection, event_id: str) -> sa.Row[Any] | None:
    return connection.execute(_EVENT, {"key": event_id}).one_or_none()


def _event(connection: sa.Connection, event_id: str) -> sa.Row[Any]:
    # Text that no database column can hold is nobody's id.
    row = _find_event(connection, event_id) if event_id.isascii() and event_id.isprintable() else None
    if row is None:
        raise UnknownEventError(f"there is no event {event_id!r}; 'hummingfleet event list' shows those there are")
    return row


def _check_sequence(connection: sa.Connection, event: Event) -> None:
    if event.sequence is None:
        return
    last = connection.execute(
        sa.select(tables.work.c.sequence).where(tables.work.c.tenant == event.tenant)
    ).scalar_one_or_none()
    if last is not None and event.sequence <= last:
        raise SequenceError(
            f"sequence {event.sequence} of tenant {event.tenant} is not above {last}, the last one accepted; "
            "send the tenant's events in their order, or without 'sequence'"
        )


def _check_failed(row: sa.Row[Any], what: str) -> None:
    if row.state != "failed":
        raise EventStateError(f"event {row.id} is {row.state}; only a failed one can be {what}")


def _record(row: sa.Row[Any]) -> EventRecord:
    return EventRecord(
        id=row.id,
        number=row.number,
        tenant=row.tenant,
        type=row.type,
        state=row.state,
        code=row.code,
        reason=row.reason,
        revision=row.revision,
        changed=bool(row.changed),
        sequence=row.sequence,
        timestamp=row.timestamp,
        received_at=row.received_at,
        finished_at=row.finished_at,
        attempts=row.attempts,
        source=row.source,
    )


def _page(found: Sequence[Item], limit: int, cursor: Callable[[Item], str]) -> Page[Item]:
    items = tuple(found[:limit])
    return Page(items, cursor(items[-1]) if len(found) > limit else None)


def _cursor_number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 16):
        raise JournalError("the cursor is none that a page before has given")
    return int(cursor)


def _normal_time(text: str) -> str:
    """A time in the registry's own form, which sorts as text does; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return iso_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, OSError):
        raise JournalError(f"{text!r} is no time; write 2026-11-23T05:00:00Z") from None
