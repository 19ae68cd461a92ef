# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events about a tenant as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import shown
from pydantic import Field

from .. import changes
from .base import Event, Part, TenantData, document_faults, moved, refuse, removing, unknown_keys
from .bots import document_bot, new_bot_faults

_ELSEWHERE: Final = {
    "state": "no state: a new tenant is active; tenant.suspended and tenant.terminated change that",
    "subnet": "no subnet: it is allocated",
    "uid": "no uid: it is allocated",
    "salt": "no salt: it is allocated",
    "secret_versions": "no secret_versions: they are allocated",
}
_NODE_HINT: Final = {"node": "ring and labels: the node is chosen by placement"}


class TenantCreatedData(TenantData):
    """A tenant document, without what is allocated. Its fields are judged by the document's own rules."""

    plan: Any = None
    subdomain: Any = None
    release: Any = None
    exchange_environment: Any = None
    placement: Any = None
    gateway: Any = None
    redis: Any = None
    dashboard: Any = None
    risk: Any = None
    exchange_connections: Any = None
    bots: Any = None


class TenantCreated(Event):
    """A customer has a subscription and gets a stack."""

    type: ClassVar[str] = "tenant.created"
    summary: ClassVar[str] = "A customer subscribed and gets a stack of their own."
    example_data: ClassVar[Mapping[str, Any]] = {
        "tenant": "acme",
        "plan": "pro",
        "exchange_environment": "sandbox",
        "placement": {"ring": "stable", "labels": {}},
    }

    data: TenantCreatedData

    @classmethod
    def complete(cls, data: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
        return {"release": newest_release(catalogue), **data}

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        yield from unknown_keys(data, TenantCreatedData.model_fields, "/data", _ELSEWHERE)
        placement = data.get("placement")
        if isinstance(placement, dict):
            yield from unknown_keys(placement, ("ring", "labels"), "/data/placement", _NODE_HINT)
        bots = data.get("bots")
        for index, bot in enumerate(bots if isinstance(bots, list) else ()):
            yield from new_bot_faults(bot, f"/data/bots/{index}")
        known = {name: value for name, value in data.items() if name in TenantCreatedData.model_fields}
        for fault in document_faults(_new_document(known), catalogue):
            yield Fault(_place(fault.pointer, known), fault.problem, fault.allowed, fault.rule)

    def apply(self, document: Mapping[str, Any] | None) -> dict[str, Any]:
        if document is None:
            return _new_document(self.data.model_dump(exclude_unset=True))
        if document.get("state") == "terminated":
            raise removing()
        problem = f"tenant {shown(self.tenant)} exists"
        raise refuse("/data/tenant", problem, "another id; tenant.updated changes a tenant", "tenant.exists")

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError  # a tenant that exists is not created

    def body_pointer(self, document_pointer: str, document: Mapping[str, Any]) -> str:
        return _place(document_pointer, self.data.model_dump(exclude_unset=True))


class TenantChanges(Part):
    """What can be changed about a tenant. The values are judged by the document's own rules."""

    subdomain: Any = None
    placement: Any = None
    gateway: Any = None
    redis: Any = None
    dashboard: Any = None
    risk: Any = None


class TenantUpdatedData(TenantData):
    """Some of a tenant's settings; the others stay."""

    changes: TenantChanges = Field(description="what changes; at least one field")


class TenantUpdated(Event):
    """Settings of a tenant changed. Within placement, gateway, redis and risk, what is not given stays."""

    type: ClassVar[str] = "tenant.updated"
    summary: ClassVar[str] = "Settings of the tenant changed."
    example_data: ClassVar[Mapping[str, Any]] = {
        "tenant": "acme",
        "changes": {"subdomain": "acme-trading", "placement": {"ring": "early"}},
    }

    data: TenantUpdatedData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        given = data.get("changes")
        if not isinstance(given, dict):
            return
        if not given:
            yield Fault("/data/changes", "nothing is changed", _list_of(TenantChanges), "changes.empty")
        if isinstance(given.get("placement"), dict):
            yield from unknown_keys(given["placement"], ("ring", "labels"), "/data/changes/placement", _NODE_HINT)
        known = {name: given[name] for name in TenantChanges.model_fields if name in given}
        faults = document_faults(known, catalogue)
        for name in known:
            yield from moved(faults, f"/{name}", f"/data/changes/{name}")

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(document)
        for name, value in self.data.changes.model_dump(exclude_unset=True).items():
            result[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
        return result

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return [(f"/{name}", f"/data/changes/{name}/*") for name in self.data.changes.model_fields_set]


class _TenantStateEvent(Event):
    """The tenant's state changes."""

    state: ClassVar[changes.TenantState]
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme"}

    data: TenantData

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.set_tenant_state(self.state)(document)


class TenantSuspended(_TenantStateEvent):
    """The whole stack stops; everything is kept."""

    type: ClassVar[str] = "tenant.suspended"
    summary: ClassVar[str] = "The tenant's whole stack is to stop; positions, data and settings are kept."
    state: ClassVar[changes.TenantState] = "suspended"


class TenantResumed(_TenantStateEvent):
    """A suspended stack starts again."""

    type: ClassVar[str] = "tenant.resumed"
    summary: ClassVar[str] = "The suspended tenant's stack is to run again."
    state: ClassVar[changes.TenantState] = "active"


class TenantTerminated(_TenantStateEvent):
    """The tenant leaves. It can be said again, since a removal can fail and then has to be asked for again."""

    type: ClassVar[str] = "tenant.terminated"
    summary: ClassVar[str] = "The tenant leaves: its stack and its data are to be removed."
    state: ClassVar[changes.TenantState] = "terminated"

    def apply(self, document: Mapping[str, Any] | None) -> dict[str, Any]:
        if document is not None and document.get("state") == "terminated":
            return dict(document)
        return super().apply(document)


class SubscriptionChangedData(TenantData):
    """A tenant's new plan."""

    plan: str = Field(description="the name of a plan in the catalogue")


class SubscriptionChanged(Event):
    """The tenant has another plan. What the new plan does not include has to be gone before."""

    type: ClassVar[str] = "subscription.changed"
    summary: ClassVar[str] = "The customer's subscription changed: the tenant has another plan."
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "plan": "business"}

    data: SubscriptionChangedData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        return moved(document_faults({"plan": data.get("plan")}, catalogue), "/plan", "/data/plan")

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**document, "plan": self.data.plan}

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return [(name, "/data/plan") for name in ("/plan", "/bots", "/exchange_connections", "/gateway", "/risk")]


class StackUpgradedData(TenantData):
    """A tenant's new release."""

    release: str = Field(description="the name of a release in the catalogue")


class StackUpgraded(Event):
    """The stack is to run another release."""

    type: ClassVar[str] = "stack.upgraded"
    summary: ClassVar[str] = "The tenant's stack is to run another release."
    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "release": "2026.09"}

    data: StackUpgradedData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        return moved(document_faults({"release": data.get("release")}, catalogue), "/release", "/data/release")

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return {**document, "release": self.data.release}

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return [("/release", "/data/release")]


def newest_release(catalogue: Catalogue) -> str:
    """The release that new tenants get: the one with the highest numbers in its name."""
    return max(catalogue.releases, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name))


def _new_document(data: Mapping[str, Any]) -> dict[str, Any]:
    """A new tenant's document from the event's fields."""
    bots = data.get("bots")
    given = dict(data)
    if isinstance(bots, list):
        given["bots"] = [document_bot(bot) for bot in bots]
    return given


def _place(document_pointer: str, data: Mapping[str, Any]) -> str:
    """Where in the body of tenant.created a part of its document came from."""
    if document_pointer == "/subdomain" and "subdomain" not in data:
        return "/data/tenant"
    parts = document_pointer.split("/")
    if len(parts) == 4 and parts[1] == "bots" and parts[3] == "name":
        bot = data["bots"][int(parts[2])]
        if isinstance(bot, Mapping) and "bot_name" in bot:
            parts[3] = "bot_name"
    return "/data" + "/".join(parts)


def _list_of(model: type[Part]) -> str:
    return "at least one of " + ", ".join(model.model_fields)
