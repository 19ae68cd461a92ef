"""Which events a campaign posts: seeded, so that a failure can be repeated."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.factories import connection, grid_bot, market_making_bot


@dataclass(frozen=True)
class PlannedEvent:
    """One event of the portal: its id, its tenant, and the exact bytes that are posted."""

    id: str
    tenant: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The body as data."""
        content: dict[str, Any] = json.loads(self.body)
        return content


def tenant_names(count: int) -> list[str]:
    """The tenants of a campaign."""
    return [f"k{index:03}" for index in range(count)]


def make_plan(seed: int, events: int, tenants: int) -> dict[str, list[PlannedEvent]]:
    """By tenant its events in the order they are posted; together ``events``, the first of each creates it."""
    if events < tenants:
        raise ValueError("there have to be as many events as tenants at least: the first one creates the tenant")
    chance = random.Random(f"plan {seed}")
    names = tenant_names(tenants)
    owners = names + [chance.choice(names) for _ in range(events - tenants)]
    counts = {name: owners.count(name) for name in names}
    plan = {}
    for name in names:
        bodies = _bodies(random.Random(f"{seed} {name}"), name)
        plan[name] = [
            PlannedEvent(f"{name}-{seed}-{index:03}", name, json.dumps(next(bodies)).encode())
            for index in range(counts[name])
        ]
    return plan


def _bodies(chance: random.Random, tenant: str) -> Iterator[dict[str, Any]]:
    """Endless events of one tenant, each of which applies to what the ones before it made."""
    yield event(
        "tenant.created",
        tenant=tenant,
        plan="pro",
        exchange_environment="sandbox",
        exchange_connections=[connection(seed=tenant)],
        bots=[market_making_bot(id="b0")],
    )
    bots = ["b0"]
    made = 1
    rotated = 0
    while True:
        kind = chance.choices(
            ["updated", "started", "stopped", "restarted", "resumed", "created", "deleted", "rotated", "plan", "state"],
            [30, 10, 10, 8, 4, 12, 4, 4, 4, 6],
        )[0]
        bot = chance.choice(bots)
        if kind == "updated":
            amount = round(chance.uniform(0.05, 0.5), 4)
            yield event(
                "bot.updated",
                tenant=tenant,
                bot_id=bot,
                changes={"strategy_config": {"order_amount": amount if bot != "g0" else 100 + round(amount, 2)}},
            )
        elif kind in ("started", "stopped", "restarted", "resumed"):
            yield event(f"bot.{kind}", tenant=tenant, bot_id=bot)
        elif kind == "created" and len(bots) < 6:
            grid = "g0" not in bots and chance.random() < 0.3
            new = grid_bot(id="g0") if grid else market_making_bot(id=f"b{made}")
            made += 1
            bots.append(new["id"])
            yield event("bot.created", tenant=tenant, bot={**new, "state": chance.choice(["running", "stopped"])})
        elif kind == "deleted" and len(bots) > 2:
            bots.remove(bot)
            yield event("bot.deleted", tenant=tenant, bot_id=bot)
        elif kind == "rotated":
            rotated += 1
            yield event("exchange.rotated", tenant=tenant, connection=connection(seed=f"{tenant} {rotated}"))
        elif kind == "plan":
            yield event("subscription.changed", tenant=tenant, plan=chance.choice(["pro", "business"]))
        elif kind == "state":
            yield event(chance.choice(["tenant.suspended", "tenant.resumed"]), tenant=tenant)


def event(kind: str, **data: Any) -> dict[str, Any]:
    """The body of an event that happened now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"type": kind, "timestamp": now, "data": data}
