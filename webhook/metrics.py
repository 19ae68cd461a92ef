# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services count, in Prometheus' format; nothing here names a tenant, so that there are few series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from .journal import JournalStats

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

SIGNAL_OUTCOMES = frozenset(
    # accepted before; nothing was passed on; the bot is not to have it
    {"duplicate", "stale", "busy", "no_broker", "broker_unreachable", "not_listening", "unknown"}
    | {"tenant_suspended", "tenant_terminated", "no_bot", "no_signals", "risk_halt", "bot_stopped", "bot_liquidated"}
    # what bots answer
    | {"accepted", "expired", "halted", "not_connected", "too_large", "no_position", "no_size", "cooldown", "invalid"}
)


class JournalCollector(Collector):
    """What waits and what failed, asked of the registry at the time of the question."""

    def __init__(self, stats: Callable[[], JournalStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The gauges; only ``hummingfleet_registry_up`` if the registry does not answer."""
        try:
            stats = self._stats()
        except HummingfleetError:
            yield _gauge("hummingfleet_registry_up", "Whether the registry answers.", 0)
            return
        yield _gauge("hummingfleet_registry_up", "Whether the registry answers.", 1)
        events = GaugeMetricFamily("hummingfleet_events", "Events that are kept, by state.", labels=["state"])
        for state, number in sorted(stats.events.items()):
            events.add_metric([state], number)
        yield events
        for name, value, text in (
            ("tenants", stats.tenants, "Tenants in the registry."),
            ("tenants_behind", stats.behind, "Tenants that are to be worked on, those below included."),
            ("tenants_running", stats.running, "Tenants that a run is working on."),
            ("tenants_retrying", stats.retrying, "Tenants whose last run failed and will be repeated."),
            ("tenants_failed", stats.failed, "Tenants whose runs were given up."),
            ("oldest_waiting_seconds", stats.oldest_waiting_seconds, "Age of the oldest event that is not applied."),
            ("callbacks_pending", stats.callbacks_pending, "Call-backs that are not delivered yet."),
            ("workers", stats.workers, "Workers that are alive."),
        ):
            yield _gauge(f"hummingfleet_{name}", text, value)


class WebMetrics:
    """The counters of one web process. ``stats`` answers for the registry."""

    def __init__(self, stats: Callable[[], JournalStats]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "hummingfleet_http_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hummingfleet_http_request_seconds",
            "How long answers took.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._problems = Counter(
            "hummingfleet_http_problems",
            "Requests that were answered with a problem.",
            ["kind"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "hummingfleet_events_accepted", "Events that were stored.", ["type"], registry=self.registry
        )
        self.repeated = Counter(
            "hummingfleet_events_repeated", "Deliveries of events that were stored before.", registry=self.registry
        )
        self._signals = Counter(
            "hummingfleet_signals",
            "Signals with a good token, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(JournalCollector(stats))

    def answered(self, method: str, route: str, status: int, seconds: float, problem: str | None) -> None:
        """Counts an answer; ``route`` is the declared path and ``problem`` the kind's name."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)
        if problem is not None:
            self._problems.labels(problem).inc()

    def signal(self, outcome: str) -> None:
        """Counts a signal; what bots say that no bot of ours would is counted as one."""
        self._signals.labels(outcome if outcome in SIGNAL_OUTCOMES else "other").inc()

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, description, value=value)
