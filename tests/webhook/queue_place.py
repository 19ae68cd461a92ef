"""A registry with its journal and queue, on SQLite and on PostgreSQL, and events for it; no process is started."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import parse_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, Registry, process_holder

from tests import factories
from webhook.callbacks import Callback, Outbox
from webhook.events import EVENT_TYPES, parse_event
from webhook.journal import Acceptance, Journal
from webhook.work import Claim, Ending, WorkQueue

# The registry's own clock: far from anybody's now, so that nothing agrees by accident.
START = 1_800_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds


class Place:
    """See the module's text; ``url`` is the registry's."""

    def __init__(self, folder: Path, url: str, *, memory_mib: int = 1_000_000) -> None:
        self.clock = Clock()
        nodes = {"local": {"ansible_connection": "local", "memory_mib": memory_mib}}
        self.fleet = parse_fleet({"plugin": "hummingfleet.core.tenants", "nodes": nodes}, folder / "fleet.tenants.yml")
        self.url = url
        self.registry = Registry(url, clock=self.clock)
        self.journal = Journal(self.registry, self.fleet, factories.catalogue())
        self.queue = self.worker()
        self.outbox = Outbox(self.registry)
        self._ids = itertools.count(1)

    def worker(self, holder: str | None = None) -> WorkQueue:
        """The queue as another worker sees it."""
        return WorkQueue(self.registry, holder or process_holder(), jitter=lambda: 0.0)

    # - the portal -

    def send(self, type: str, event_id: str | None = None, *, sequence: int | None = None, **data: Any) -> Acceptance:
        """Accepts an event; data that is not given is the type's example."""
        example = EVENT_TYPES[type].example()
        body: dict[str, Any] = {**example, "data": {**example["data"], **data}}
        if sequence is not None:
            body["sequence"] = sequence
        return self.send_body(body, event_id or f"msg_{next(self._ids)}")

    def send_body(self, body: Mapping[str, Any], event_id: str) -> Acceptance:
        """Accepts the event."""
        event = parse_event(body, factories.catalogue())
        return self.journal.accept(event, event_id=event_id, body=json.dumps(body).encode(), source="in_test")

    def tenant(self, tenant: str = "acme") -> None:
        """A tenant with a bot that runs, all of it applied, and nothing to tell the portal."""
        self.send("tenant.created", tenant=tenant)
        self.send("exchange.connected", tenant=tenant, connection=factories.connection(seed=tenant))
        self.send("bot.created", tenant=tenant)
        self.send("bot.started", tenant=tenant)
        self.run(tenant)
        for callback in self.callbacks():
            self.outbox.record(callback.number, True, None, self.clock())

    # - the worker -

    def claim(self, tenant: str = "acme", queue: WorkQueue | None = None) -> Claim:
        """The one claim on the tenant."""
        (claim,) = (queue or self.queue).claim([tenant])
        return claim

    def apply(
        self, tenant: str = "acme", bots: Mapping[str, Any] | None = None, *, revision: int | None = None
    ) -> None:
        """What a playbook does with the registry when it succeeds with a revision (default: the latest)."""
        record = self.registry.get(tenant)
        lease = self.registry.acquire_leases([tenant], holder=process_holder(), ttl_seconds=60)[tenant]
        assert lease is not None
        outcome = {"bots": dict(bots or {})}
        assert self.registry.record_outcome(
            tenant, revision=revision or record.revision, fence=lease.fence, applied=True, outcome=outcome
        )
        self.registry.release_leases({tenant: lease.fence})

    def run(self, tenant: str = "acme", ending: Ending | None = None) -> Claim:
        """A whole run: claimed, applied unless ``ending`` is a failure, finished."""
        claim = self.claim(tenant)
        if ending is None or ending.problem is None:
            self.apply(tenant)
        assert self.queue.finish(claim, ending or Ending())
        return claim

    def by_hand(self, tenant: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """A revision that no event made."""
        self.registry.change(
            tenant, change, cause=Cause("command", "by hand", "me"), fleet=self.fleet, catalogue=factories.catalogue()
        )

    def callbacks(self) -> tuple[Callback, ...]:
        """Call-backs that wait for delivery, oldest first."""
        return tuple(reversed(self.outbox.list(state="pending", limit=500)))

    def told(self) -> list[tuple[str, Any]]:
        """What the portal is about to be told: type, and event id or bot's new state."""
        return [
            (one.type, data.get("event_id") or (data["bot"], data["from"], data["to"]))
            for one in self.callbacks()
            for data in [json.loads(one.body)["data"]]
        ]
