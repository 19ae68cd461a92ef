# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signals that were passed on to bots, and what became of each; a row is there before its signal leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    Registry,
    UnknownTenantError,
    iso_time,
)

from .signal_bus import Ack
from .signals import Receiver, Signal, receiver

WAITING: Final = "waiting"
"""The outcome of a signal whose bot has not answered and may still do so in time."""

UNKNOWN: Final = "unknown"
"""The outcome of a signal whose bot has not answered in time: it may have traded it before it expired."""

_OPEN = tables.signals.c.code.is_(None) | (tables.signals.c.code == UNKNOWN)


class SignalConflictError(HummingfleetError):
    """A signal's id is known, of a signal that says something else."""


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal that was passed on; times are ISO 8601 in UTC.

    ``outcome`` is the bot's code, ``waiting`` or ``unknown``; ``accepted`` is None where nothing was heard.
    """

    number: int
    tenant: str
    bot: str
    id: str
    action: str
    received_at: str
    expires_at: str
    outcome: str
    accepted: bool | None
    reason: str


class SignalLog:
    """The signals in the registry. Everything raises RegistryError if that does not answer."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def look(self, tenant: str, signal: Signal, now: float) -> tuple[SignalRecord | None, Receiver]:
        """The signal as it was passed on before, if it was, and the bot it is for.

        Raises SignalConflictError and UnknownTenantError. ``now`` is in epoch seconds.
        """
        with self._registry.transaction() as connection:
            known = _known(connection, tenant, signal, now)
            return known, _receiver(connection, tenant, signal.bot)

    def receiver(self, tenant: str, bot: str) -> Receiver:
        """The bot as a receiver of signals; raises UnknownTenantError."""
        with self._registry.transaction() as connection:
            return _receiver(connection, tenant, bot)

    def nodes(self) -> dict[str, int]:
        """How many bots with a strategy that takes signals each node has."""
        found: dict[str, int] = {}
        with self._registry.transaction() as connection:
            query = sa.select(tables.tenants.c.node, tables.tenants.c.document).where(
                tables.tenants.c.state != "terminated"
            )
            for row in connection.execute(query):
                document = json.loads(row.document)
                bots = [receiver(row.node, document, str(bot.get("id"))) for bot in document.get("bots", ())]
                number = sum(bot.takes_signals for bot in bots)
                if number:
                    found[row.node] = found.get(row.node, 0) + number
        return found

    def begin(
        self, tenant: str, signal: Signal, *, token: str, now: float, expires_at: float
    ) -> tuple[SignalRecord, bool]:
        """Writes the signal down as one that is being passed on, durably; the record, and whether it is new.

        One that is known is never passed on again, whoever asks at the same time. Raises SignalConflictError.
        """
        with self._registry.transaction(write=True) as connection:
            known = _known(connection, tenant, signal, now)
            if known is not None:
                return known, False
            values: dict[str, Any] = {
                "tenant": tenant,
                "bot": signal.bot,
                "id": signal.id,
                "action": signal.action,
                "received_at": iso_time(now),
                "expires_at": iso_time(expires_at),
            }
            key = connection.execute(
                tables.signals.insert().values(body_sha256=signal.digest, token=token, **values)
            ).inserted_primary_key
            assert key is not None
        return SignalRecord(int(key[0]), outcome=WAITING, accepted=None, reason="", **values), True

    def finish(self, tenant: str, bot: str, signal_id: str, ack: Ack | None, now: float) -> None:
        """Notes what the bot answered, also if that comes late; None: nothing in time. The first answer stays."""
        c = tables.signals.c
        with self._registry.transaction(write=True) as connection:
            connection.execute(
                tables.signals.update()
                .where(c.tenant == tenant, c.bot == bot, c.id == signal_id, _OPEN)
                .values(
                    code=UNKNOWN if ack is None else ack.code,
                    accepted=None if ack is None else ack.accepted,
                    reason=None if ack is None else ack.reason,
                    finished_at=iso_time(now),
                )
            )

    def withdraw(self, record: SignalRecord) -> None:
        """Forgets a signal that did not leave after all: it may be sent again."""
        with self._registry.transaction(write=True) as connection:
            connection.execute(tables.signals.delete().where(tables.signals.c.number == record.number, _OPEN))


def _known(connection: sa.Connection, tenant: str, signal: Signal, now: float) -> SignalRecord | None:
    c = tables.signals.c
    query = sa.select(tables.signals).where(c.tenant == tenant, c.bot == signal.bot, c.id == signal.id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_sha256 != signal.digest:
        raise SignalConflictError("this id belongs to a signal that says something else; a new signal needs a new id")
    return _record(row, now)


def _receiver(connection: sa.Connection, tenant: str, bot: str) -> Receiver:
    c = tables.tenants.c
    row = connection.execute(sa.select(c.node, c.document).where(c.tenant == tenant)).one_or_none()
    if row is None:
        raise UnknownTenantError(f"there is no tenant {tenant!r}")
    return receiver(row.node, json.loads(row.document), bot)


def _record(row: sa.Row[Any], now: float) -> SignalRecord:
    silent = UNKNOWN if row.expires_at <= iso_time(now) else WAITING
    return SignalRecord(
        number=row.number,
        tenant=row.tenant,
        bot=row.bot,
        id=row.id,
        action=row.action,
        received_at=row.received_at,
        expires_at=row.expires_at,
        outcome=row.code or silent,
        accepted=row.accepted,
        reason=row.reason or "",
    )
