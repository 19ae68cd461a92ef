# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenant document: what a customer's stack should look like, typed and validated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue, Connector
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import FaultsError
from pydantic import BaseModel, ConfigDict


class DocumentError(FaultsError):
    """A tenant document was refused; ``faults`` has one entry per field and problem."""

    subject = "the tenant document is refused"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Placement(_Part):
    """Where the tenant runs; ``node`` is allocated and sticky."""

    node: str | None = None
    ring: str = "stable"
    labels: dict[str, str] = {}


class Gateway(_Part):
    enabled: bool = False


class Redis(_Part):
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class EncryptedSecret:
    """One credential as the portal sent it.

    ``name`` is what stands after ``encrypted_`` in the document (the additional data of ``aad: v2`` uses it),
    ``field`` the engine's own field name. ``ciphertext`` ends with the 16-byte tag; ``nonce`` has 12 bytes.
    """

    name: str
    field: str
    ciphertext: bytes
    nonce: bytes


class ExchangeConnection(_Part):
    """Credentials for one exchange account; ``encrypted`` and ``nonces`` hold base64 by name (``api_key``)."""

    id: str
    exchange: str
    key_id: str
    aad: Literal["v1", "v2"] = "v1"
    settings: dict[str, str | int | bool] = {}
    encrypted: dict[str, str]
    nonces: dict[str, str]

    def secrets(self, connector: Connector) -> tuple[EncryptedSecret, ...]:
        """The credentials in the connector's field order."""
        raise NotImplementedError


class Bot(_Part):
    id: str
    name: str
    exchange_connection_id: str
    strategy_template: str
    trading_pair: str
    strategy_config: dict[str, Any]  # normalised by the template: Decimal, int, bool, str; defaults filled in
    risk_config: dict[str, Any]  # the same
    state: Literal["running", "stopped", "liquidated"] = "running"
    restarts: int = 0
    resumes: int = 0
    priority: int = 0


class TenantDocument(_Part):
    tenant: str
    state: Literal["active", "suspended", "terminated"] = "active"
    plan: str
    placement: Placement = Placement()
    subnet: str | None = None
    uid: int | None = None
    salt: str | None = None
    secret_versions: dict[str, int] = {}
    subdomain: str
    release: str
    exchange_environment: Literal["live", "sandbox"] = "live"
    gateway: Gateway = Gateway()
    redis: Redis = Redis()
    dashboard: Literal["builtin", "none"] = "builtin"
    exchange_connections: tuple[ExchangeConnection, ...] = ()
    bots: tuple[Bot, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The document as JSON-plain data, deterministic; ``parse_document`` of it gives an equal document."""
        raise NotImplementedError

    def connection(self, connection_id: str) -> ExchangeConnection:
        """The connection with that id (KeyError if there is none)."""
        return next(c for c in self.exchange_connections if c.id == connection_id)


def parse_document(data: Mapping[str, Any], catalogue: Catalogue, *, reserved: Collection[str] = ()) -> TenantDocument:
    """The validated document; raises DocumentError with every fault found.

    ``reserved`` adds names that no tenant may have, such as the fleet's node ids.
    """
    raise NotImplementedError


def read_document(data: Mapping[str, Any]) -> TenantDocument:
    """A document that was validated when it was stored, without judging it against today's catalogue again."""
    raise NotImplementedError
