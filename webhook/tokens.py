# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bearer tokens of the status API: made and revoked by operators, stored as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, iso_time

Scope = Literal["portal", "operator", "read-only"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_TOKEN = re.compile(r"hft_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
_NOTE_CHARACTERS = 200
_NO_HASH = "0" * 64


class UnknownTokenError(HummingfleetError):
    """There is no token with that id."""


@dataclass(frozen=True, slots=True)
class Token:
    """Who asks: what the bearer may do, and for which tenant alone (None: for all)."""

    id: str
    scope: Scope
    tenant: str | None


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as operators see it; times are ISO 8601 in UTC."""

    id: str
    scope: Scope
    tenant: str | None
    note: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None

    def state(self, now: float) -> Literal["valid", "expired", "revoked"]:
        """What it is worth at ``now`` (epoch seconds)."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= iso_time(now) else "valid"

    def plain(self) -> dict[str, Any]:
        """The record as JSON-plain data."""
        return asdict(self)


class TokenStore:
    """The tokens in the registry. Everything raises RegistryError if that does not answer.

    What is stored is SHA-256 of the whole token. Slow hashes make guesses of people's passwords expensive; a token has
    256 random bits, no guess ever meets it, and it is looked at in every request.
    """

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._clock = clock

    def create(
        self, scope: Scope, tenant: str | None = None, note: str = "", expires_at: float | None = None
    ) -> tuple[str, str]:
        """The id and the text of a new token, which nobody can be shown again; ``expires_at`` is in epoch seconds."""
        token_id = secrets.token_hex(6)
        text = f"hft_{token_id}_{secrets.token_urlsafe(32)}"
        with self._registry.transaction(write=True) as connection:
            connection.execute(
                tables.tokens.insert().values(
                    id=token_id,
                    sha256=_hash(text),
                    scope=scope,
                    tenant=tenant,
                    note=note[:_NOTE_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode(),
                    created_at=iso_time(self._clock()),
                    expires_at=None if expires_at is None else iso_time(expires_at),
                )
            )
        return token_id, text

    def revoke(self, token_id: str) -> TokenRecord:
        """Makes the token worthless from now on, also if it already was; raises UnknownTokenError."""
        own = tables.tokens.c.id == token_id.replace("\0", "")
        with self._registry.transaction(write=True) as connection:
            connection.execute(
                tables.tokens.update()
                .where(own, tables.tokens.c.revoked_at.is_(None))
                .values(revoked_at=iso_time(self._clock()))
            )
            row = connection.execute(sa.select(tables.tokens).where(own)).one_or_none()
        if row is None:
            raise UnknownTokenError(f"there is no token {token_id!r}; 'hummingfleet token list' shows those there are")
        return _record(row)

    def list(self) -> tuple[TokenRecord, ...]:
        """All tokens, the newest first, also those that are worth nothing any more."""
        query = sa.select(tables.tokens).order_by(tables.tokens.c.created_at.desc(), tables.tokens.c.id)
        with self._registry.transaction() as connection:
            return tuple(map(_record, connection.execute(query)))

    def check(self, text: str) -> Token | None:
        """Whose token ``text`` is; None if it is none, has expired or was revoked."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            return None
        with self._registry.transaction() as connection:
            row = connection.execute(sa.select(tables.tokens).where(tables.tokens.c.id == found[1])).one_or_none()
        same = hmac.compare_digest(_hash(text), _NO_HASH if row is None else row.sha256)
        if row is None or not same or _record(row).state(self._clock()) != "valid":
            return None
        return Token(row.id, cast(Scope, row.scope), row.tenant)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _record(row: sa.Row[Any]) -> TokenRecord:
    return TokenRecord(
        row.id, cast(Scope, row.scope), row.tenant, row.note, row.created_at, row.expires_at, row.revoked_at
    )
