# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events about a tenant's exchange connections."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import Id
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import one_of, shown
from pydantic import Field

from .base import Event, EventError, TenantData, document_faults, moved, position, refuse


class ConnectionData(TenantData):
    """A whole exchange connection, with its encrypted credentials. It is judged by the document's own rules."""

    connection: dict[str, Any] = Field(description="an exchange connection with its encrypted credentials")


def _example_connection(version: int) -> dict[str, Any]:
    """A connection in the portal's format; what looks like ciphertext decrypts with no key."""

    def text(content: str) -> str:
        return base64.b64encode(content.encode("ascii")).decode("ascii")

    return {
        "id": "ex1",
        "exchange": "binance",
        "key_id": "k1",
        "encrypted_api_key": text(f"example {version}: AES-256-GCM of the key, then its tag"),
        "nonce_key": text(f"key nonce {version:02d}"),
        "encrypted_api_secret": text(f"example {version}: AES-256-GCM of the secret, then its tag"),
        "nonce_secret": text(f"sec nonce {version:02d}"),
    }


class _ConnectionEvent(Event):
    """An event that brings a connection."""

    data: ConnectionData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        faults = document_faults({"exchange_connections": [data.get("connection")]}, catalogue)
        return moved(faults, "/exchange_connections/0", "/data/connection")

    @property
    def _connection(self) -> dict[str, Any]:
        return copy.deepcopy(self.data.connection)

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        index = position(document, "exchange_connections", self.data.connection["id"])
        return [
            (f"/exchange_connections/{index}", "/data/connection/*"),
            ("/exchange_connections", "/data/connection"),
        ]


class ExchangeConnected(_ConnectionEvent):
    """The tenant gave credentials for an exchange account."""

    type: ClassVar[str] = "exchange.connected"
    summary: ClassVar[str] = "The customer connected an exchange account."
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "connection": _example_connection(1)}

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        present = document.get("exchange_connections", [])
        identifier = self.data.connection["id"]
        if position(document, "exchange_connections", identifier) is not None:
            problem = f"the exchange connection {shown(identifier)} exists"
            allowed = "an id of its own; exchange.rotated replaces credentials"
            raise refuse("/data/connection/id", problem, allowed, "connection.exists")
        return {**document, "exchange_connections": [*present, self._connection]}


class ExchangeRotated(_ConnectionEvent):
    """The credentials of a connection were replaced; its bots restart with the new ones."""

    type: ClassVar[str] = "exchange.rotated"
    summary: ClassVar[str] = "The credentials of an exchange account were replaced."
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "connection": _example_connection(2)}

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        given = self._connection
        index = position(document, "exchange_connections", given["id"])
        if index is None:
            raise _unknown_connection("/data/connection/id", given["id"], document)
        present = list(document["exchange_connections"])
        exchange = present[index]["exchange"]
        if given["exchange"] != exchange:
            problem = f"connection {shown(given['id'])} is to {exchange}, whose credentials these are not"
            allowed = f"{exchange}; exchange.connected makes a connection to another exchange"
            raise refuse("/data/connection/exchange", problem, allowed, "connection.exchange")
        present[index] = given
        return {**document, "exchange_connections": present}


class DisconnectedData(TenantData):
    """A connection's id."""

    connection_id: Id = Field(description="the id of an exchange connection that no bot uses")


class ExchangeDisconnected(Event):
    """A connection is given up."""

    type: ClassVar[str] = "exchange.disconnected"
    summary: ClassVar[str] = "The customer gave an exchange account up."
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "connection_id": "ex1"}

    data: DisconnectedData

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        identifier = self.data.connection_id
        index = position(document, "exchange_connections", identifier)
        if index is None:
            raise _unknown_connection("/data/connection_id", identifier, document)
        users = [bot["id"] for bot in document.get("bots", ()) if bot["exchange_connection_id"] == identifier]
        if users:
            problem = f"bots use the connection {shown(identifier)}: {', '.join(users)}"
            allowed = "a connection that no bot uses; delete those bots or give them another connection first"
            raise refuse("/data/connection_id", problem, allowed, "connection.used")
        present = document["exchange_connections"]
        return {**document, "exchange_connections": [*present[:index], *present[index + 1 :]]}


def _unknown_connection(where: str, identifier: str, document: Mapping[str, Any]) -> EventError:
    known = one_of([entry["id"] for entry in document.get("exchange_connections", ())], identifier)
    return refuse(where, f"there is no exchange connection {shown(identifier)}", known, "connection.unknown")
