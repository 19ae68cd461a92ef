# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: releases, plans, connectors and exchange rules, read from one folder of data files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import number, parse_fields
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import CEILINGS
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings
from ansible_collections.hummingfleet.core.plugins.module_utils.scripts import Script, script

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import TenantDocument

ImageMode = Literal["registry", "build"]
_TENANT_LOSS: Final = "tenant_max_daily_loss_usd"


class CatalogueError(HummingfleetError):
    """The catalogue's own files are missing or wrong: the operator has to mend them."""


@dataclass(frozen=True, slots=True)
class ConnectorField:
    """One configuration field of an engine connector.

    ``name`` is the engine's own name (``binance_api_key``), ``short`` that name without the connector's prefix
    (``api_key``). ``encrypted`` fields arrive as ciphertext; the engine keeps ``secure`` ones in its keystore.
    """

    name: str
    short: str
    secure: bool
    encrypted: bool
    required: bool
    type: str
    choices: tuple[str, ...] = ()
    default: str | int | bool | None = None


@dataclass(frozen=True, slots=True)
class Connector:
    """An engine connector: its kind and the fields its configuration file has.

    ``untradable`` says why bots on it are refused although it is a spot connector, in the words of the agent.
    """

    name: str
    kind: Literal["spot", "perpetual"]
    centralised: bool
    example_pair: str
    fields: tuple[ConnectorField, ...]
    untradable: str | None = None

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
    """What a subscription allows; memory in MiB, CPUs in cores.

    ``ceilings`` are the highest risk limits by quote asset and limit; ``USD`` stands for every asset pegged to it.
    ``tenant_max_daily_loss_usd`` is the ceiling, and the default, of what a tenant's bots may lose together in a day.
    """

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
    ceilings: Mapping[str, Mapping[str, Decimal]]
    node_labels: Mapping[str, str] = field(default_factory=dict)
    tenant_max_daily_loss_usd: Decimal | None = None

    def allows_strategy(self, template: str) -> bool:
        """Whether bots of this plan may use the strategy template."""
        return "*" in self.strategies or template in self.strategies

    def allows_exchange(self, connector: str) -> bool:
        """Whether the plan may connect to the exchange."""
        return "*" in self.exchanges or connector in self.exchanges

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
    """A snapshot of one exchange's rules.

    ``fee_pct`` is the maker fee in percent, ``max_orders`` how many may be open per pair, ``sandbox`` whether the
    sandbox exchange can stand in for it, ``rate_oracle`` the engine's price source that needs no other exchange.
    """

    name: str
    taken: str
    fee_pct: Decimal
    max_orders: int
    sandbox: bool
    rate_oracle: str
    pairs: Mapping[str, PairRules]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything a document may refer to by name."""

    releases: Mapping[str, Release]
    plans: Mapping[str, Plan]
    connectors: Mapping[str, Connector]
    exchanges: Mapping[str, Exchange]
    scripts: Mapping[str, Script] = field(default_factory=dict)


def load_catalogue(folder: Path | str) -> Catalogue:
    """The catalogue in ``folder``; raises CatalogueError naming the file and entry at fault. Read it once per run."""
    root = Path(folder)
    connectors_path, plans_path, releases_path = root / "connectors.json", root / "plans.yml", root / "releases.yml"
    with _at(connectors_path):
        connectors = {name: _connector(name, entry) for name, entry in json.loads(_read(connectors_path)).items()}
    with _at(plans_path):
        plans = {name: _plan(name, entry, connectors) for name, entry in _yaml(plans_path).items()}
    with _at(releases_path):
        releases = {str(name): _release(str(name), entry) for name, entry in _yaml(releases_path).items()}
    exchanges = {}
    for path in sorted((root / "exchanges").glob("*.yml")):
        with _at(path):
            if path.stem not in connectors:
                raise ValueError(f"{path.stem} is not a connector in connectors.json")
            exchanges[path.stem] = _exchange(path.stem, _yaml(path))
    scripts = {}
    for folder in sorted((root / "strategies").glob("[!._]*")):
        path = folder / "description.yml"
        with _at(path):
            if not folder.is_dir():
                raise ValueError(f"{folder.name} has to be in a folder of its strategy's name")
            scripts[path.parent.name] = script(path.parent.name, _yaml(path), _read(path.with_name("controller.py")))
    return Catalogue(releases=releases, plans=plans, connectors=connectors, exchanges=exchanges, scripts=scripts)


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """Turns whatever a malformed file causes into one CatalogueError that names the file."""
    try:
        yield
    except OSError as error:
        raise CatalogueError(
            f"the catalogue file {error.filename or path} cannot be read: {error.strerror}; restore it"
        ) from error
    except KeyError as error:
        raise CatalogueError(f"the catalogue file {path} lacks the key {error}; add it") from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, yaml.YAMLError) as error:
        raise CatalogueError(f"the catalogue file {path} is not usable: {error}") from error


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _yaml(path: Path) -> dict[Any, Any]:
    data = yaml.load(_read(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe
    if not isinstance(data, dict) or not data:
        raise ValueError("it must hold a mapping with at least one entry")
    return data


def _positive(entry: Mapping[str, Any], key: str) -> Decimal:
    value = Decimal(str(entry[key]))
    if not value.is_finite() or value <= 0:
        raise ValueError(f"{key} must be greater than 0")
    return value


def _count(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key} must be a whole number, 0 or more")
    return value


def _short_name(connector: str, field_name: str) -> str:
    """The field's name without the connector's prefix, as the engine spells that prefix (bing_x: ``bingx_``)."""
    base = connector.removesuffix("_testnet").removesuffix("_sandbox").removesuffix("_perpetual")
    for prefix in (connector, base, connector.replace("_", "")):
        if field_name.startswith(prefix + "_"):
            return field_name[len(prefix) + 1 :]
    return field_name


def _connector_field(connector: str, entry: Mapping[str, Any]) -> ConnectorField:
    choices = tuple(entry["type"]) if isinstance(entry["type"], list) else ()
    return ConnectorField(
        name=entry["name"],
        short=_short_name(connector, entry["name"]),
        secure=entry.get("secure", False),
        encrypted=entry.get("secure", False) or entry["type"] == "secret",
        required="default" not in entry and not entry.get("optional", False),
        type="str" if choices else entry["type"],
        choices=choices,
        default=entry.get("default"),
    )


def _connector(name: str, entry: Mapping[str, Any]) -> Connector:
    untradable = entry.get("untradable")
    if "untradable" in entry and not (isinstance(untradable, str) and untradable.strip()):
        raise ValueError(f"{name}: untradable must say why, in words")
    return Connector(
        name=name,
        kind="spot" if entry["type"] == "Exchange" else "perpetual",
        centralised=entry["centralised"],
        example_pair=entry["example"],
        fields=tuple(_connector_field(name, f) for f in entry["fields"]),
        untradable=untradable,
    )


def _plan(name: str, entry: Mapping[str, Any], connectors: Mapping[str, Connector]) -> Plan:
    exchanges = tuple(entry["exchanges"])
    unknown = [e for e in exchanges if e != "*" and e not in connectors]
    if unknown:
        raise ValueError(f"plan {name} names exchanges that connectors.json does not have: {', '.join(unknown)}")
    return Plan(
        name=name,
        bots=_count(entry, "bots"),
        exchange_connections=_count(entry, "exchange_connections"),
        bot_memory_mib=_count(entry, "bot_memory_mib"),
        bot_cpus=_positive(entry, "bot_cpus"),
        bot_pids=_count(entry, "bot_pids"),
        postgres_memory_mib=_count(entry, "postgres_memory_mib"),
        redis_memory_mib=_count(entry, "redis_memory_mib"),
        gateway_memory_mib=_count(entry, "gateway_memory_mib"),
        strategies=tuple(entry["strategies"]),
        exchanges=exchanges,
        gateway=bool(entry["gateway"]),
        ceilings={str(quote): _ceilings(name, str(quote), limits) for quote, limits in entry["ceilings"].items()},
        node_labels=dict(entry.get("node_labels") or {}),
        tenant_max_daily_loss_usd=_positive(entry, _TENANT_LOSS) if _TENANT_LOSS in entry else None,
    )


def _ceilings(plan: str, quote: str, limits: Mapping[str, Any]) -> Mapping[str, Decimal]:
    findings = Findings()
    parsed = parse_fields(CEILINGS, limits, f"{plan}/ceilings/{quote}", findings)
    for fault in findings.faults:
        raise ValueError(f"{fault.pointer}: {fault.problem}; allowed: {fault.allowed}")
    return {limit: number(parsed, limit) for limit in parsed} if parsed else {}


def _release(name: str, entry: Mapping[str, Any]) -> Release:
    services = {
        service: Service(image=spec.get("image", ""), local=spec.get("local", ""), build=dict(spec.get("build", {})))
        for service, spec in entry.items()
        if service != "agent"
    }
    if not isinstance(entry["agent"], str):
        raise ValueError(f"release {name}: agent must be a version in quotes")
    return Release(name=name, agent=entry["agent"], services=services)


def _exchange(name: str, data: Mapping[str, Any]) -> Exchange:
    pairs = {}
    for pair, rules in data["pairs"].items():
        base, separator, quote = pair.partition("-")
        if not (base and separator and quote):
            raise ValueError(f"pair {pair!r} is not BASE-QUOTE")
        pairs[pair] = PairRules(
            pair=pair,
            base=base,
            quote=quote,
            tick=_positive(rules, "tick"),
            lot=_positive(rules, "lot"),
            min_amount=_positive(rules, "min_amount"),
            min_notional=_positive(rules, "min_notional"),
        )
    return Exchange(
        name=name,
        taken=str(data["taken"]),
        fee_pct=Decimal(str(data["fee_pct"])),
        max_orders=_count(data, "max_orders"),
        sandbox=bool(data.get("sandbox", False)),
        rate_oracle=str(data.get("rate_oracle", "binance")),
        pairs=pairs,
    )
