# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue: the registry itself. A tenant is work if its revision is not applied, or if somebody asked for a run.

A worker *claims* a tenant so that two of them do not start the same run; that saves work and is no guarantee. What
guarantees that no two runs of a tenant overlap is the lease that the playbook takes itself, hand-run ones included.

Requests are counted: ``requested`` is raised by everybody who wants a run, a claim remembers it, and the run that
ends well has served everything up to there, and what came later and is in the revision it applied. So what came during
a run costs one more at most, however much it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    Cause,
    Registry,
    RegistryUnavailableError,
    holder_is_dead,
    iso_time,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk_halt import day_of

from . import callbacks, tenant_risk
from .retries import decide

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet

_log = logging.getLogger("webhook.work")

CLAIM_SECONDS = 60.0
REMOVED = "removed"
"""The state of a bot that is gone. Its row stays for the rest of a day on which it won or lost something."""
ALIVE = "worker "
"""Begins the name of the duty that says a worker is alive; its holder follows."""
_PIECE = 1000
# Statements of every event, made once: making them anew costs more than having them done.
_WORK = sa.select(tables.work).where(tables.work.c.tenant == sa.bindparam("key"))
_CHANGE_WORK = tables.work.update().where(tables.work.c.tenant == sa.bindparam("key"))
_NEW_WORK = tables.work.insert()
_NOTHING = dict.fromkeys(
    ("requested", "served", "attempt", "not_before", "claim", "claimed_until", "ended_at", "past"), 0
)
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tenant that could be worked on now; ``node`` is None once it is gone.

    ``attempt`` counts the failed runs, of which the last ended with ``problem``.
    """

    tenant: str
    node: str | None
    attempt: int
    terminated: bool
    since: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to start a run for a tenant: it covers ``revision`` and all requests up to ``request``.

    ``at`` is when it was taken (ISO 8601, the registry's clock): what was recorded before is not this run's.
    """

    tenant: str
    number: int
    request: int
    revision: int
    terminated: bool
    at: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended for one tenant: ``problem`` is a failure's code or None; ``reason`` is for the portal's users.

    ``bots`` has the facts of all its bots, None if the run did not look at them.
    """

    problem: str | None = None
    message: str = ""
    reason: str = ""
    bots: Mapping[str, Mapping[str, Any]] | None = None


def request(
    connection: sa.Connection, tenant: str, now: float, *, sequence: int | None = None, afresh: bool = False
) -> int:
    """Asks for a run of the tenant at once, in the caller's transaction; its number. ``afresh`` forgets failures."""
    row = connection.execute(_WORK, {"key": tenant}).one_or_none()
    if row is None:
        connection.execute(
            _NEW_WORK, {**_NOTHING, "tenant": tenant, "requested": 1, "since": now, "sequence": sequence}
        )
        return 1
    values = {
        "requested": row.requested + 1,
        "attempt": 0 if afresh else row.attempt,
        "not_before": 0,
        "since": now if row.requested == row.served else row.since,
        "sequence": sequence if sequence is not None else row.sequence,
    }
    connection.execute(_CHANGE_WORK, {"key": tenant, **values})
    return int(row.requested) + 1


def past(connection: sa.Connection, tenant: str) -> int:
    """Events up to this number were for a tenant of that id which was forgotten since."""
    row = connection.execute(_WORK, {"key": tenant}).one_or_none()
    return row.past if row is not None else 0


def last_facts(connection: sa.Connection, tenant: str, bot: str) -> dict[str, Any]:
    """What was last seen of a bot; empty if it was never seen, or is another one of that id."""
    row = connection.execute(
        sa.select(tables.bots).where(tables.bots.c.tenant == tenant, tables.bots.c.bot == bot)
    ).one_or_none()
    facts: dict[str, Any] = json.loads(row.facts) if row is not None and row.state != REMOVED else {}
    return facts


def last_rollback(connection: sa.Connection, tenant: str) -> int:
    """The last revision that went back to an older one by hand: what came before it may not be in the document."""
    query = sa.select(sa.func.max(tables.revisions.c.revision)).where(
        tables.revisions.c.tenant == tenant, tables.revisions.c.cause_kind == "rollback"
    )
    return int(connection.execute(query).scalar() or 0)


class WorkQueue:
    """The queue in ``registry`` as the worker ``holder`` (a process, see ``registry.process_holder``) sees it.

    Without ``telling`` no call-backs are written: there is no portal to fetch them. Tenants' daily loss limits need the
    ``fleet`` and the ``catalogue``; without them they are not looked after.
    """

    def __init__(
        self,
        registry: Registry,
        holder: str,
        *,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311
        telling: bool = True,
        fleet: Fleet | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._catalogue = catalogue
        self._telling = telling
        self._holder = holder
        self._jitter = jitter

    # --- runs ------------------------------------------------------------------------------------------------------

    def waiting(self) -> tuple[Waiting, ...]:
        """The tenants that could be worked on now, the longest waiting first."""
        with self._registry.transaction() as connection:
            return self._waiting(connection)

    def claim(self, tenants: Iterable[str]) -> tuple[Claim, ...]:
        """Claims those of ``tenants`` that still wait."""
        wanted = set(tenants)
        claims = []
        with self._registry.transaction(write=True) as connection:
            now = self._registry.now(connection)
            for one in self._waiting(connection):
                if one.tenant not in wanted:
                    continue
                row = self._row(connection, one.tenant)
                if row is None:
                    connection.execute(_NEW_WORK, {**_NOTHING, "tenant": one.tenant, "since": now})
                    row = self._row(connection, one.tenant)
                    assert row is not None
                revision = connection.execute(
                    sa.select(tables.tenants.c.revision).where(tables.tenants.c.tenant == one.tenant)
                ).scalar_one_or_none()
                connection.execute(
                    tables.work.update()
                    .where(tables.work.c.tenant == one.tenant)
                    .values(holder=self._holder, claimed_until=now + CLAIM_SECONDS, claim=row.claim + 1)
                )
                claims.append(
                    Claim(one.tenant, row.claim + 1, row.requested, revision or 0, one.terminated, iso_time(now))
                )
        return tuple(claims)

    def renew(self, claims: Iterable[Claim]) -> None:
        """Keeps the claims; one that was lost meanwhile is left alone."""
        with self._registry.transaction(write=True) as connection:
            until = self._registry.now(connection) + CLAIM_SECONDS
            for claim in claims:
                connection.execute(
                    tables.work.update().where(_is(claim), tables.work.c.holder == self._holder)
                    .values(claimed_until=until)
                )  # fmt: skip

    def finish(self, claim: Claim, ending: Ending) -> bool:
        """Records how the run of ``claim`` ended: its events are applied, failed, or tried again later.

        False, and nothing is written, if the claim was lost: whoever has it now will answer for it.
        """
        with self._registry.transaction(write=True) as connection:
            row = self._row(connection, claim.tenant)
            if row is None or row.claim != claim.number or row.holder != self._holder:
                return False
            now = self._registry.now(connection)
            tenant = connection.execute(
                sa.select(tables.tenants).where(tables.tenants.c.tenant == claim.tenant)
            ).one_or_none()
            if ending.bots is not None:
                self._see(connection, claim.tenant, ending.bots, now)
            values: dict[str, Any] = {"holder": None, "claimed_until": 0, "ended_at": now}
            if ending.problem is None:
                applied = tenant.applied_revision if tenant is not None else claim.revision
                served = self._served(connection, claim, applied) if tenant is not None else claim.request
                values |= {"served": served, "attempt": 0, "not_before": 0, "failure": None}
                values |= {"failed_revision": None, "since": now}
                events = self._open_events(connection, claim.tenant, served)
                self._close(connection, events, "applied", now, revision=applied)
                if tenant is not None:
                    self._close(connection, self._mended_events(connection, row, applied), "applied", now)
                else:
                    self._forget_bots(connection, claim.tenant, now)
            else:
                attempt = row.attempt + 1
                decision = decide(ending.problem, attempt, jitter=self._jitter())
                failure = {
                    "code": ending.problem,
                    "reason": ending.reason[:_MESSAGE_CHARACTERS],
                    "message": ending.message[:_MESSAGE_CHARACTERS],
                    "revision": claim.revision,
                    "at": iso_time(now),
                }
                if decision.counted:
                    values |= {"attempt": attempt, "failure": json.dumps(failure)}
                if decision.retry_in_seconds is not None:
                    # A request that came meanwhile wants its run at once, but never more often than a failing one may.
                    values["not_before"] = now + decision.retry_in_seconds
                    if decision.counted:
                        self._note(connection, claim, ending)
                else:
                    values |= {"served": claim.request, "attempt": 0, "not_before": 0, "since": now}
                    values["failed_revision"] = claim.revision
                    events = self._open_events(connection, claim.tenant, claim.request)
                    self._close(connection, events, "failed", now, code=ending.problem, reason=ending.reason)
            connection.execute(tables.work.update().where(tables.work.c.tenant == claim.tenant).values(**values))
            if ending.bots is not None:
                self._enforce(connection, claim.tenant, now)
            return True

    # --- what bots do ----------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Epoch seconds by the registry's clock, for ``see``."""
        return self._registry.clock()

    def see(self, tenant: str, bots: Mapping[str, Mapping[str, Any]], *, looked_at: float) -> bool:
        """Remembers what all of the tenant's bots do; the portal is told of every state that is a new one.

        ``looked_at`` is when looking began (``now``): if a run has been at it since then, that has seen more. Bots that
        have lost together what the tenant may lose in a day are stopped; True if they are near it: look again soon.
        """
        with self._registry.transaction(write=True) as connection:
            now = self._registry.now(connection)
            row = self._row(connection, tenant)
            if row is not None and ((row.holder and row.claimed_until > now) or row.ended_at > looked_at):
                return False
            known = connection.execute(
                sa.select(tables.tenants.c.tenant).where(tables.tenants.c.tenant == tenant)
            ).one_or_none()
            if known is None:
                return False
            self._see(connection, tenant, bots, now)
            return self._enforce(connection, tenant, now)

    # --- duties ----------------------------------------------------------------------------------------------------

    def take_duty(self, name: str, seconds: float) -> bool:
        """Whether this worker has the duty ``name`` for the next ``seconds``: one worker at a time does."""
        with self._registry.transaction() as connection:
            now = self._registry.now(connection)
            row = _duty(connection, name)
            if self._is_anothers(row, now):
                return False
            if row is not None and row.holder == self._holder and row.expires_at - now > seconds / 2:
                return True
        with self._registry.transaction(write=True) as connection:
            now = self._registry.now(connection)
            row = _duty(connection, name)
            if row is None:
                connection.execute(
                    tables.duties.insert().values(name=name, holder=self._holder, expires_at=now + seconds)
                )
                return True
            if self._is_anothers(row, now):
                return False
            connection.execute(
                tables.duties.update()
                .where(tables.duties.c.name == name)
                .values(holder=self._holder, expires_at=now + seconds)
            )
            return True

    def _is_anothers(self, duty: sa.Row[Any] | None, now: float) -> bool:
        if duty is None or duty.holder == self._holder:
            return False
        return bool(duty.expires_at > now and not holder_is_dead(duty.holder))

    def leave(self) -> None:
        """Gives up every duty and claim: this worker ends."""
        with self._registry.transaction(write=True) as connection:
            connection.execute(tables.duties.delete().where(tables.duties.c.holder == self._holder))
            connection.execute(
                tables.work.update().where(tables.work.c.holder == self._holder).values(holder=None, claimed_until=0)
            )

    def prune(self, keep_seconds: float) -> int:
        """Deletes what was finished longer ago: events, call-backs, signals and their tokens, signs of dead workers.

        A failed event stays as long as its tenant: it can still be tried again or discarded.
        """
        with self._registry.transaction(write=True) as connection:
            limit = self._registry.now(connection) - keep_seconds
            connection.execute(tables.duties.delete().where(tables.duties.c.expires_at < limit))
            token = tables.signal_tokens.c
            ended = (token.expires_at < iso_time(limit)) | (token.revoked_at < iso_time(limit))
            connection.execute(tables.signal_tokens.delete().where(ended))
        past = sa.select(tables.work.c.past).where(tables.work.c.tenant == tables.events.c.tenant).scalar_subquery()
        settled = tables.events.c.state.in_(("applied", "discarded")) | (
            (tables.events.c.state == "failed") & (tables.events.c.number <= past)
        )
        return (
            self._delete(tables.events, settled & (tables.events.c.finished_at < iso_time(limit)))
            # Call-backs of any state: also those that nobody fetches any more.
            + self._delete(tables.callbacks, tables.callbacks.c.created_at < iso_time(limit))
            # One that comes again after so long is stale, so nobody needs to remember its id.
            + self._delete(tables.signals, tables.signals.c.received_at < iso_time(limit))
        )

    def _delete(self, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
        """Deletes piece by piece, so that nobody waits long for the registry."""
        total = 0
        while True:
            with self._registry.transaction(write=True) as connection:
                some = sa.select(table.c.number).where(which).limit(_PIECE).scalar_subquery()
                deleted = connection.execute(table.delete().where(table.c.number.in_(some))).rowcount
            total += deleted
            if deleted < _PIECE:
                return total

    # --- inside ----------------------------------------------------------------------------------------------------

    def _waiting(self, connection: sa.Connection) -> tuple[Waiting, ...]:
        now = self._registry.now(connection)
        both = tables.work.c.tenant == tables.tenants.c.tenant
        columns = [
            tables.tenants.c.tenant.label("known"),
            tables.tenants.c.node,
            tables.tenants.c.state,
            tables.work.c.tenant,
            tables.work.c.attempt,
            tables.work.c.not_before,
            tables.work.c.since,
            tables.work.c.holder,
            tables.work.c.claimed_until,
            tables.work.c.failure,
        ]
        given_up = tables.work.c.failed_revision.is_not(None) & (
            tables.work.c.failed_revision >= tables.tenants.c.revision
        )
        due = tables.work.c.tenant.is_(None) | (tables.work.c.not_before <= now)
        free = (
            tables.work.c.tenant.is_(None)
            | tables.work.c.holder.is_(None)
            | (tables.work.c.claimed_until <= now)
            | (tables.work.c.holder != self._holder)
        )
        # Two queries, each with an index of its own: revisions not applied, and requests not served.
        behind = (
            sa.select(*columns)
            .join_from(tables.tenants, tables.work, both, isouter=True)
            .where(tables.is_behind, ~sa.func.coalesce(given_up, False), due, free)
        )
        requested = (
            sa.select(*columns)
            .join_from(tables.work, tables.tenants, both, isouter=True)
            .where(tables.is_requested, due, free)
        )
        found: dict[str, sa.Row[Any]] = {}
        for query in (behind, requested):
            for row in connection.execute(query):
                found.setdefault(row.tenant or row.known, row)
        leased = self._leased(connection, found, now)
        dead: dict[str, bool] = {}
        waiting = []
        for tenant, row in found.items():
            # A run that a dead worker left behind, or one by hand: it will tell by itself what it did.
            if tenant in leased:
                continue
            if row.holder and row.claimed_until > now:
                if row.holder not in dead:
                    dead[row.holder] = holder_is_dead(row.holder)
                if not dead[row.holder]:
                    continue
            problem = json.loads(row.failure)["code"] if row.attempt and row.failure else None
            waiting.append(
                Waiting(tenant, row.node, row.attempt or 0, row.state == "terminated", row.since or 0.0, problem)
            )
        return tuple(sorted(waiting, key=lambda one: (one.since, one.tenant)))

    def _leased(self, connection: sa.Connection, tenants: Iterable[str], now: float) -> set[str]:
        """Those whose lease a living process has."""
        names = sorted(tenants)
        held = set()
        for start in range(0, len(names), 500):
            for row in connection.execute(
                sa.select(tables.leases).where(
                    tables.leases.c.tenant.in_(names[start : start + 500]),
                    tables.leases.c.holder.is_not(None),
                    tables.leases.c.expires_at > now,
                )
            ):
                if row.holder and not holder_is_dead(row.holder):
                    held.add(row.tenant)
        return held

    def _row(self, connection: sa.Connection, tenant: str) -> sa.Row[Any] | None:
        return connection.execute(_WORK, {"key": tenant}).one_or_none()

    def _open_events(self, connection: sa.Connection, tenant: str, request: int) -> Sequence[sa.Row[Any]]:
        """The tenant's events up to that request that are not finished, in their order."""
        return connection.execute(
            sa.select(tables.events)
            .where(tables.is_open, tables.events.c.tenant == tenant, tables.events.c.request <= request)
            .order_by(tables.events.c.number)
        ).all()

    def _served(self, connection: sa.Connection, claim: Claim, applied: int) -> int:
        """Up to which request the run has served: its claim's, and later ones whose revisions it has applied, too.

        An event that made no revision asks to look once more, which the run may have done before it came.
        """
        served = claim.request
        later = connection.execute(
            sa.select(tables.events.c.request, tables.events.c.changed, tables.events.c.revision)
            .where(tables.is_open, tables.events.c.tenant == claim.tenant, tables.events.c.request > claim.request)
            .order_by(tables.events.c.request)
        ).all()
        for event in later:
            if event.request > served + 1 or not event.changed or event.revision > applied:
                return int(min(served, event.request - 1))
            served = event.request
        return int(served)

    def _mended_events(self, connection: sa.Connection, row: sa.Row[Any], applied: int) -> Sequence[sa.Row[Any]]:
        """Events that had failed and whose changes a later run has applied with others."""
        return connection.execute(
            sa.select(tables.events)
            .where(
                tables.events.c.tenant == row.tenant,
                tables.events.c.state == "failed",
                tables.events.c.number > row.past,
                tables.events.c.revision <= applied,
                tables.events.c.revision > last_rollback(connection, row.tenant),
            )
            .order_by(tables.events.c.number)
        ).all()

    def _note(self, connection: sa.Connection, claim: Claim, ending: Ending) -> None:
        """The events of a run that is tried again say so."""
        for event in self._open_events(connection, claim.tenant, claim.request):
            connection.execute(
                tables.events.update()
                .where(tables.events.c.number == event.number)
                .values(attempts=event.attempts + 1, code=ending.problem, reason=ending.reason[:_MESSAGE_CHARACTERS])
            )

    def _close(
        self,
        connection: sa.Connection,
        events: Sequence[sa.Row[Any]],
        state: str,
        now: float,
        *,
        code: str | None = None,
        reason: str | None = None,
        revision: int | None = None,
    ) -> None:
        """The events of a finished run get their last state, and the portal is told."""
        for event in events:
            connection.execute(
                tables.events.update()
                .where(tables.events.c.number == event.number)
                .values(
                    state=state,
                    code=code,
                    reason=(reason or "")[:_MESSAGE_CHARACTERS] or None,
                    finished_at=iso_time(now),
                    attempts=event.attempts + (1 if state == "failed" else 0),
                )
            )
            data: dict[str, Any] = {"event_id": event.id, "event_type": event.type, "tenant": event.tenant}
            if state == "failed":
                data |= {"revision": event.revision, "code": code, "reason": reason or ""}
            else:
                data["revision"] = event.revision if revision is None else max(event.revision, revision)
            self._tell(connection, event.tenant, f"event.{state}", data, now)

    def _see(self, connection: sa.Connection, tenant: str, bots: Mapping[str, Mapping[str, Any]], now: float) -> None:
        """Stores the facts of the tenant's bots; those that are not mentioned are gone."""
        before = {
            row.bot: row for row in connection.execute(sa.select(tables.bots).where(tables.bots.c.tenant == tenant))
        }
        for bot, all_facts in sorted(bots.items()):
            known = before.get(bot)
            last = json.loads(known.facts) if known is not None else None
            anew = known is not None and known.state == REMOVED
            facts = tenant_risk.remember(last, all_facts, day_of(now), anew=anew)
            facts.pop("state", None)
            values = {
                "state": str(all_facts.get("state", "unknown")),
                "facts": json.dumps(facts, default=str),
                "seen_at": iso_time(now),
            }
            if known is None:
                connection.execute(tables.bots.insert().values(tenant=tenant, bot=bot, **values))
            else:
                connection.execute(
                    tables.bots.update()
                    .where(tables.bots.c.tenant == tenant, tables.bots.c.bot == bot)
                    .values(**values)
                )
            self._tell_state(connection, tenant, bot, known.state if known and not anew else None, values["state"], now)
            self._tell_halt(connection, tenant, bot, None if anew else last, facts, now)
        for bot in sorted(set(before) - set(bots)):
            # What it lost today counts until the day is over.
            lost = tenant_risk.pnl_of(json.loads(before[bot].facts), day_of(now)) != 0
            its = (tables.bots.c.tenant == tenant) & (tables.bots.c.bot == bot)
            connection.execute(
                tables.bots.update().where(its).values(state=REMOVED) if lost else tables.bots.delete().where(its)
            )
            if before[bot].state != REMOVED:
                self._tell_state(connection, tenant, bot, before[bot].state, REMOVED, now)

    def _forget_bots(self, connection: sa.Connection, tenant: str, now: float) -> None:
        """The tenant is gone, and so are its bots."""
        self._see(connection, tenant, {}, now)
        connection.execute(tables.bots.delete().where(tables.bots.c.tenant == tenant))

    def _enforce(self, connection: sa.Connection, tenant: str, now: float) -> bool:
        """Stops the tenant's bots if they lost what they may lose in a day; True if they are near it."""
        if self._fleet is None or self._catalogue is None:
            return False
        stored = connection.execute(sa.select(tables.bots.c.facts).where(tables.bots.c.tenant == tenant)).scalars()
        facts = [json.loads(one) for one in stored]
        if not any(tenant_risk.pnl_of(one, day_of(now)) < 0 for one in facts):
            return False
        row = connection.execute(
            sa.select(tables.tenants.c.document).where(tables.tenants.c.tenant == tenant)
        ).one_or_none()
        if row is None:
            return False
        risk = tenant_risk.judge(json.loads(row.document), facts, self._catalogue, now)
        if not risk.reached:
            return risk.near
        halt = tenant_risk.halt_of(risk, iso_time(now))
        stopped: list[str] = []

        def stop(document: dict[str, Any] | None) -> Mapping[str, Any]:
            stopped.extend(bot["id"] for bot in (document or {})["bots"] if bot["state"] == "running")
            return halt.change()(document or {})

        try:
            submission = self._registry.change_within(
                connection, tenant, stop, Cause("risk_halt", halt.sentence(), "worker"), self._fleet, self._catalogue
            )
        except RegistryUnavailableError:
            raise
        except HummingfleetError as error:
            # Nothing was written yet, and the other tenants have to be looked after.
            _log.critical("the bots of tenant %s cannot be stopped although %s: %s", tenant, halt.sentence(), error)
            return False
        request(connection, tenant, now, afresh=True)
        _log.warning("tenant %s: %s", tenant, halt.sentence())
        data = {**asdict(halt), "until": halt.until, "revision": submission.record.revision, "bots": stopped}
        self._tell(connection, tenant, "tenant.risk_halted", data, now)
        return False

    def _tell_state(
        self, connection: sa.Connection, tenant: str, bot: str, before: str | None, state: str, now: float
    ) -> None:
        if state != before:
            data = {"tenant": tenant, "bot": bot, "from": before, "to": state}
            self._tell(connection, tenant, "bot.state_changed", data, now)

    def _tell_halt(
        self,
        connection: sa.Connection,
        tenant: str,
        bot: str,
        before: Mapping[str, Any] | None,
        facts: Mapping[str, Any],
        now: float,
    ) -> None:
        old, new = (before or {}).get("halted"), facts.get("halted")
        if new and (not old or new.get("at") != old.get("at")):
            data = {"bot": bot, "code": new.get("code"), "message": new.get("message"), "at": _iso(new.get("at"), now)}
            self._tell(connection, tenant, "bot.halted", data, now)
        elif old and not new:
            self._tell(connection, tenant, "bot.halt_lifted", {"bot": bot, "code": old.get("code")}, now)

    def _tell(self, connection: sa.Connection, tenant: str, type: Any, data: Mapping[str, Any], now: float) -> None:
        if self._telling:
            callbacks.enqueue(connection, tenant, type, data, now)


def _iso(seconds: object, now: float) -> str:
    """A bot's own time as ISO 8601; ``now`` if it is none."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            return iso_time(seconds)
    return iso_time(now)


def _duty(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(tables.duties).where(tables.duties.c.name == name)).one_or_none()


def _is(claim: Claim) -> sa.ColumnElement[bool]:
    return (tables.work.c.tenant == claim.tenant) & (tables.work.c.claim == claim.number)
