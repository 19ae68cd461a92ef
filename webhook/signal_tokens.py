# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tokens that signals come with: each is for one bot, stored as a hash, and replaced with an overlap."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, UnknownTenantError, iso_time

from .secrets_file import SecretsFile
from .signing import derived_secret
from .tokens import UnknownTokenError

OVERLAP_SECONDS: Final = 24 * 3600
"""How long a bot's tokens stay good when it gets a new one, unless somebody says otherwise."""

_TOKEN = re.compile(r"hfs_([a-f0-9]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_ID = re.compile(r"[a-f0-9]{12}", re.ASCII)
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class SignalToken:
    """A bot's token as operators and portals see it; times are ISO 8601 in UTC. ``generation`` counts the bot's."""

    id: str
    tenant: str
    bot: str
    generation: int
    created_at: str
    expires_at: str | None
    revoked_at: str | None

    def state(self, now: float) -> Literal["valid", "expired", "revoked"]:
        """What it is worth at ``now`` (epoch seconds)."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= iso_time(now) else "valid"

    def plain(self, now: float) -> dict[str, Any]:
        """The token as JSON-plain data, with its state at ``now``."""
        return {**asdict(self), "state": self.state(now)}


@dataclass(frozen=True, slots=True)
class NewSignalToken:
    """A token that was just made; its text cannot be shown again."""

    token: SignalToken
    text: str = field(repr=False)


class SignalTokens:
    """The tokens in the registry. Everything raises RegistryError if that does not answer.

    What is stored is SHA-256 of the whole text: it has 256 random bits, so that no guess ever meets it.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._clock = clock

    def create(self, tenant: str, bot: str, overlap_seconds: float = OVERLAP_SECONDS) -> NewSignalToken:
        """A new token of the bot; its other ones end in ``overlap_seconds`` (0: now), or earlier if they would.

        Raises UnknownTenantError if there is no such bot: a token made while its bot is deleted must not outlive it.
        """
        token_id = secrets.token_hex(6)
        text = f"hfs_{token_id}_{secrets.token_urlsafe(32)}"
        now = self._clock()
        own, c = _of_bot(tenant, bot), tables.signal_tokens.c
        end = iso_time(now + overlap_seconds)
        with self._registry.transaction(write=True) as connection:
            document = connection.execute(
                sa.select(tables.tenants.c.document).where(tables.tenants.c.tenant == tenant)
            ).scalar()
            if bot not in [one["id"] for one in json.loads(document or "{}").get("bots", ())]:
                raise UnknownTenantError(f"tenant {tenant!r} has no bot {bot!r}")
            latest = connection.execute(sa.select(sa.func.max(c.generation)).where(own)).scalar()
            connection.execute(
                tables.signal_tokens.update()
                .where(own, c.revoked_at.is_(None), c.expires_at.is_(None) | (c.expires_at > end))
                .values(expires_at=end)
            )
            made = SignalToken(token_id, tenant, bot, (latest or 0) + 1, iso_time(now), None, None)
            connection.execute(tables.signal_tokens.insert().values(sha256=_hash(text), **asdict(made)))
        return NewSignalToken(made, text)

    def revoke(self, token_id: str) -> SignalToken:
        """Makes the token worthless from now on, also if it already was; raises UnknownTokenError."""
        own = tables.signal_tokens.c.id == token_id.replace("\0", "")
        with self._registry.transaction(write=True) as connection:
            connection.execute(
                tables.signal_tokens.update()
                .where(own, tables.signal_tokens.c.revoked_at.is_(None))
                .values(revoked_at=iso_time(self._clock()))
            )
            row = connection.execute(sa.select(tables.signal_tokens).where(own)).one_or_none()
        if row is None:
            raise UnknownTokenError(
                f"there is no signal token {token_id!r}; 'hummingfleet signal-token list' shows those there are"
            )
        return _record(row)

    def list(self, tenant: str | None = None, bot: str | None = None) -> tuple[SignalToken, ...]:
        """The tokens of a bot, a tenant or all, newest first, also those that are worth nothing any more."""
        c = tables.signal_tokens.c
        query = sa.select(tables.signal_tokens).order_by(c.tenant, c.bot, c.generation.desc())
        if tenant is not None:
            query = query.where(c.tenant == tenant)
        if bot is not None:
            query = query.where(c.bot == bot)
        with self._registry.transaction() as connection:
            return tuple(map(_record, connection.execute(query)))

    def check(self, text: str) -> SignalToken | None:
        """Whose token ``text`` is; None if it is none, has expired or was revoked."""
        found = _TOKEN.fullmatch(text)
        row = None if found is None else self._row(found[1])
        same = hmac.compare_digest(_hash(text), _NO_HASH if row is None else row.sha256)
        return self._valid(row) if same else None

    def find(self, token_id: str) -> SignalToken | None:
        """The token with that id, for a sender who signs and does not show it; None if it is worth nothing."""
        return self._valid(self._row(token_id)) if _ID.fullmatch(token_id) else None

    def _row(self, token_id: str) -> sa.Row[Any] | None:
        query = sa.select(tables.signal_tokens).where(tables.signal_tokens.c.id == token_id)
        with self._registry.transaction() as connection:
            return connection.execute(query).one_or_none()

    def _valid(self, row: sa.Row[Any] | None) -> SignalToken | None:
        if row is None:
            return None
        token = _record(row)
        return token if token.state(self._clock()) == "valid" else None


def signing_secrets(file: SecretsFile, token: SignalToken, now: float) -> list[str]:
    """What the token's owner may sign signals with at ``now`` (epoch seconds), newest last; stored nowhere.

    None where the file has no secret for signals. Raises SecretsError if it cannot be used.
    """
    return [
        derived_secret(secret.secret, f"signal|{token.id}|{token.generation}") for secret in file.active("signals", now)
    ]


def _of_bot(tenant: str, bot: str) -> sa.ColumnElement[bool]:
    return sa.and_(tables.signal_tokens.c.tenant == tenant, tables.signal_tokens.c.bot == bot)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _record(row: sa.Row[Any]) -> SignalToken:
    return SignalToken(row.id, row.tenant, row.bot, row.generation, row.created_at, row.expires_at, row.revoked_at)
