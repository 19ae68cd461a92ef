# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: releases, plans, connectors and exchange rules, read from one folder of data files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import TenantDocument

ImageMode = Literal["registry", "build"]


class CatalogueError(HummingfleetError):
    """The catalogue's own files are missing or wrong: the operator has to mend them."""


@dataclass(frozen=True, slots=True)
class ConnectorField:
    """One configuration field of an engine connector.

    ``name`` is the engine's own name (``binance_api_key``), ``short`` the name without the connector's prefix
    (``api_key``). ``encrypted`` fields arrive as ciphertext; of those, the engine keeps ``secure`` ones in its keystore.
    """

    name: str
    short: str
    secure: bool
    encrypted: bool
    required: bool
    type: str
    default: str | None


@dataclass(frozen=True, slots=True)
class Connector:
    """An engine connector: its kind and the fields its configuration file has."""

    name: str
    kind: Literal["spot", "perpetual"]
    centralised: bool
    fields: tuple[ConnectorField, ...]

    @property
    def secrets(self) -> tuple[ConnectorField, ...]:
        """The fields that arrive encrypted, in the engine's order."""
        return tuple(f for f in self.fields if f.encrypted)

    @property
    def settings(self) -> tuple[ConnectorField, ...]:
        """The plain fields."""
        return tuple(f for f in self.fields if not f.encrypted)

    def find_field(self, name: str) -> ConnectorField | None:
        """The field called ``name``: the engine's name, the short one, or the portal's ``api_secret``."""
        for candidate in self.fields:
            if name in (candidate.name, candidate.short):
                return candidate
        if name == "api_secret":
            return self.find_field("secret_key")
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription allows; memory in MiB, CPUs in cores, money in US dollars."""

    name: str
    bots: int
    exchange_connections: int
    bot_memory_mib: int
    bot_cpus: Decimal
    bot_pids: int
    postgres_memory_mib: int
    redis_memory_mib: int
    gateway_memory_mib: int
    strategies: tuple[str, ...]
    exchanges: tuple[str, ...]
    gateway: bool
    max_position_usd: Decimal
    node_labels: Mapping[str, str] = field(default_factory=dict)

    def memory_mib(self, document: TenantDocument) -> int:
        """Memory a node reserves for this tenant's containers, in MiB; every bot counts, running or not."""
        total = self.postgres_memory_mib + len(document.bots) * self.bot_memory_mib
        if document.redis.enabled:
            total += self.redis_memory_mib
        if document.gateway.enabled:
            total += self.gateway_memory_mib
        return total


@dataclass(frozen=True, slots=True)
class Service:
    """The images of one service in a release: in a registry, and as built on a node without one."""

    image: str
    local: str
    build: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Release:
    """What a release name stands for: the agent's version and an image per service."""

    name: str
    agent: str
    services: Mapping[str, Service]

    def image(self, service: str, mode: ImageMode) -> str:
        """The image reference nodes use for ``service``; ``mode`` says where images come from."""
        found = self.services.get(service)
        if found is None:
            raise CatalogueError(
                f"release {self.name} has no service {service!r} in releases.yml; it has: {', '.join(self.services)}"
            )
        reference = found.image if mode == "registry" else found.local
        if not reference:
            raise CatalogueError(f"release {self.name} has no {mode} image for {service} in releases.yml; add one")
        return reference


@dataclass(frozen=True, slots=True)
class PairRules:
    """An exchange's rules for one trading pair: prices move by ``tick``, amounts (base) by ``lot``."""

    pair: str
    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    min_amount: Decimal
    min_notional: Decimal


@dataclass(frozen=True, slots=True)
class Exchange:
    """A snapshot of one exchange's rules; ``fee_pct`` is the maker fee in percent, ``max_orders`` open per pair."""

    name: str
    taken: str
    fee_pct: Decimal
    max_orders: int
    pairs: Mapping[str, PairRules]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything a document may refer to by name."""

    releases: Mapping[str, Release]
    plans: Mapping[str, Plan]
    connectors: Mapping[str, Connector]
    exchanges: Mapping[str, Exchange]


def load_catalogue(folder: Path | str) -> Catalogue:
    """The catalogue in ``folder``; raises CatalogueError naming the file at fault."""
    raise NotImplementedError
