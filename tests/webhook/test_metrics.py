"""Metrics: what is counted, under few names, and never a tenant's."""

from __future__ import annotations

from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.registry import RegistryUnavailableError
from prometheus_client.parser import text_string_to_metric_families

from webhook.journal import JournalStats
from webhook.metrics import WebMetrics


def samples(portal: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything that /metrics answers, by name and labels."""
    answer = portal.get("/metrics", "read-only")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_events_requests_and_problems_are_counted(portal: Any, created: Any) -> None:
    portal.send(created(), "msg_1")
    portal.send(created(), "msg_1")
    portal.send(created(plan="unknown"), "msg_2")
    portal.client.get("/nowhere")
    found = samples(portal)

    def count(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert count("hummingfleet_events_accepted_total", type="tenant.created") == 1
    assert count("hummingfleet_events_repeated_total") == 1
    for status in ("202", "200", "422"):
        assert count("hummingfleet_http_requests_total", method="POST", route="/v1/events", status=status) == 1
    assert count("hummingfleet_http_requests_total", method="GET", route="-", status="404") == 1
    assert count("hummingfleet_http_problems_total", kind="refused") == 1
    assert count("hummingfleet_http_request_seconds_count", route="/v1/events") == 3


def test_what_waits_and_what_failed_is_asked_of_the_registry(portal: Any, created: Any, finish: Any) -> None:
    portal.accepted(created("acme"))
    portal.accepted(created("other"))
    finish("acme", "document_refused")
    found = {name: value for (name, labels), value in samples(portal).items() if not labels}
    events = {labels: value for (name, labels), value in samples(portal).items() if name == "hummingfleet_events"}
    assert found["hummingfleet_registry_up"] == 1
    assert (found["hummingfleet_tenants"], found["hummingfleet_tenants_failed"]) == (2, 1)
    assert found["hummingfleet_callbacks_pending"] == 1
    assert events[("state", "accepted"),] == events[("state", "failed"),] == 1
    assert events[("state", "applied"),] == 0


def test_metrics_are_answered_without_the_registry() -> None:
    def fail() -> JournalStats:
        raise RegistryUnavailableError("it is gone")

    text = WebMetrics(fail).text().decode()
    assert "hummingfleet_registry_up 0.0" in text
    assert "hummingfleet_http_requests" in text


def test_strangers_cannot_make_series(portal: Any) -> None:
    def ask(first: int, last: int) -> None:
        for number in range(first, last):
            portal.client.get(f"/stranger/{number}")
            portal.client.open(f"/{number}", method=f"BREW{number}")
            portal.client.get(f"/v1/events/{number}")
            portal.client.open("/v1/events", method=f"BREW{number}")

    ask(0, 2)
    samples(portal)
    before = len(samples(portal))
    ask(2, 30)
    assert len(samples(portal)) == before


def test_no_tenant_is_named(portal: Any, created: Any, finish: Any) -> None:
    portal.accepted(created("acme"), "msg_acme")
    finish("acme")
    assert "acme" not in portal.get("/metrics", "operator").text
