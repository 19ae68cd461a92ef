"""Counts of what clients did: per path, and signatures and refusals per account and path."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sandbox.exchange import wall_clock


class Stats:
    """Counters since the start or the last reset. Paths are route names, so a hostile client cannot grow them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again at zero."""
        self.since = wall_clock()
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.good: Counter[tuple[str, str]] = Counter()
        self.bad: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str, str]] = Counter()
        """By account, path, and Binance's code and words. What a fault on order refuses is not counted."""
        self.unknown_keys = 0

    def plain(self, connections: dict[str, int]) -> dict[str, Any]:
        """For the control endpoint; `connections` counts the websockets and their subscriptions."""
        accounts: dict[str, dict[str, Any]] = {}
        for counter, name in ((self.good, "signed"), (self.bad, "bad_signatures")):
            for (account, path), count in sorted(counter.items()):
                entry = accounts.setdefault(account, {"signed": 0, "bad_signatures": 0, "paths": {}, "refusals": {}})
                entry[name] += count
                entry["paths"].setdefault(path, {"signed": 0, "bad_signatures": 0})[name] += count
        for (account, path, words), count in sorted(self.refused.items()):
            accounts[account]["refusals"].setdefault(path, {})[words] = count
        return {
            "since": self.since, "requests": self.requests.total(), "signed": self.good.total(),
            "bad_signatures": self.bad.total(), "unknown_keys": self.unknown_keys,
            "paths": dict(sorted(self.requests.items())), "statuses": dict(sorted(self.statuses.items())),
            "accounts": accounts, "connections": connections,
        }
