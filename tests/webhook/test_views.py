"""The endpoints: what is accepted, what is refused and how, who sees what."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import PlacementError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    Registry,
    RegistryUnavailableError,
    process_holder,
)
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import factories
from webhook import views, work
from webhook.app import create_app
from webhook.installation import Installation
from webhook.journal import Journal
from webhook.openapi import Auth
from webhook.problems import Problem
from webhook.secrets_file import SecretsFile, Signer
from webhook.signing import sign
from webhook.tokens import SCOPES
from webhook.views import ROUTES

Make = Callable[..., dict[str, Any]]


def problem_of(answer: Any) -> str:
    """The kind of problem that an answer is."""
    return str(answer.get_json(force=True)["type"]).removeprefix("urn:hummingfleet:problem:")


def rows(registry: Registry, table: sa.Table) -> list[Any]:
    """Everything in a table."""
    with registry.transaction() as connection:
        return list(connection.execute(sa.select(table)))


# --- events in -------------------------------------------------------------------------------------------------------


def test_an_accepted_event_is_stored_with_its_revision_and_says_where_it_is(
    portal: Any, created: Make, web_registry: Registry
) -> None:
    answer = portal.send(created(), "msg_1")
    assert answer.status_code == 202
    assert answer.headers["Location"] == answer.json["status_url"] == "/v1/events/msg_1"
    assert answer.json["event"]["state"] == "accepted"
    assert answer.json["event"]["revision"] == web_registry.get("acme").revision == 1
    assert portal.get("/v1/events/msg_1").json == answer.json["event"]


def test_the_same_event_again_is_answered_with_what_became_of_the_first(
    portal: Any, created: Make, finish: Any, web_registry: Registry
) -> None:
    first = portal.accepted(created(), "msg_1")
    finish("acme")
    again = portal.send(created(), "msg_1")
    assert again.status_code == 200
    assert again.headers["Location"] == "/v1/events/msg_1"
    assert again.json["event"]["number"] == first["number"]
    assert again.json["event"]["state"] == "applied"
    assert len(rows(web_registry, tables.events)) == 1


def test_an_id_cannot_be_used_for_another_body(portal: Any, created: Make, web_registry: Registry) -> None:
    portal.accepted(created(), "msg_1")
    answer = portal.send(created(subdomain="other"), "msg_1")
    assert (answer.status_code, problem_of(answer)) == (409, "event-conflict")
    assert web_registry.get("acme").document["subdomain"] == "acme"


def test_a_repeated_event_still_needs_a_good_signature(portal: Any, created: Make) -> None:
    portal.accepted(created(), "msg_1")
    forged = {"webhook-signature": "v1," + "A" * 43 + "="}
    assert portal.send(created(), "msg_1", headers=forged).status_code == 401


def test_a_sequence_number_has_to_grow(portal: Any, created: Make, event: Make) -> None:
    portal.accepted({**created(), "sequence": 5})
    answer = portal.send({**event("tenant.suspended"), "sequence": 5})
    assert (answer.status_code, problem_of(answer)) == (409, "sequence")
    assert portal.send({**event("tenant.suspended"), "sequence": 6}).status_code == 202


def test_every_example_is_accepted_in_the_order_of_a_tenants_life(portal: Any, examples: dict[str, Any]) -> None:
    for name, body in examples.items():
        answer = portal.send(body)
        assert answer.status_code == 202, (name, answer.text)


def test_every_fault_of_an_event_is_named_with_its_place(portal: Any, created: Make, web_registry: Registry) -> None:
    body = created(plan="no-such-plan")
    body["data"]["bots"][0]["trading_pair"] = "nonsense"
    answer = portal.send(body)
    assert (answer.status_code, problem_of(answer)) == (422, "refused")
    places = {fault["pointer"] for fault in answer.json["faults"]}
    assert {"/data/plan", "/data/bots/0/trading_pair"} <= places
    assert rows(web_registry, tables.tenants) == rows(web_registry, tables.events) == []


def test_what_only_the_tenants_document_shows_is_refused_as_well(portal: Any, created: Make, event: Make) -> None:
    portal.accepted(created())
    answer = portal.send(event("bot.started", bot_id="nobody"))
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json["faults"]] == ["/data/bot_id"]


def test_want_of_room_is_a_refusal_that_says_nothing_of_nodes(
    portal: Any, created: Make, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any, **_options: Any) -> None:
        raise PlacementError("node secret-name has 3 MiB free")

    monkeypatch.setattr(Journal, "accept", full)
    answer = portal.send(created())
    assert answer.status_code == 422
    assert answer.json["faults"][0]["rule"] == "capacity"
    assert "secret-name" not in answer.text


NOT_STRICT = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "NaN": b'{"type": NaN}',
    "Infinity": b'{"type": -Infinity}',
    "a number beyond all": b'{"type": 1e999}',
    "a number of 5000 digits": b'{"type": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"type": "bot.started", "type": "bot.stopped"}',
    "a key twice deep inside": b'{"data": [{"a": {"b": 1, "b": 2}}]}',
    "very deep lists": b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "very deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "half a character": b'{"type": "\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"type": "bot.started"}',
    "something after it": b'{"type": "bot.started"} x',
    "UTF-16": '{"type": "x"}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", NOT_STRICT)
def test_json_is_read_strictly(name: str, portal: Any, web_registry: Registry) -> None:
    body = NOT_STRICT[name]
    if name == "UTF-16":
        # Nobody can sign this: a signature is over text.
        answer = portal.client.post("/v1/events", data=body, content_type="application/json")
        assert answer.status_code == 401
        return
    answer = portal.send(body)
    assert (answer.status_code, problem_of(answer)) == (422, "refused")
    assert answer.json["faults"][0]["rule"] == "event.json"
    assert rows(web_registry, tables.events) == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0d8 1eE.-nulNaI', max_size=60).map(str.encode))
def test_reading_json_ends_with_a_mapping_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(views.parse_json(body), dict)
    except Problem as problem:
        assert problem.kind.status == 422


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1", "application/jsonx"],
)
def test_other_media_types_are_refused(media_type: str, portal: Any, created: Make) -> None:
    answer = portal.send(created(), headers={"Content-Type": media_type})
    assert (answer.status_code, problem_of(answer)) == (415, "media-type")


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_in_utf8_may_be_declared_in_its_spellings(media_type: str, portal: Any, created: Make) -> None:
    assert portal.send(created(), headers={"Content-Type": media_type}).status_code == 202


def test_a_compressed_body_is_refused(portal: Any, created: Make) -> None:
    answer = portal.send(created(), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("web_settings", [{"max_body_bytes": 1024}])
class TestSize:
    """A small limit."""

    def test_a_declared_size_above_the_limit_is_refused_unread(self, portal: Any) -> None:
        class Unread(io.BytesIO):
            def read(self, _size: int | None = -1) -> bytes:
                raise AssertionError("the body was read")

        answer = portal.client.post(
            "/v1/events",
            content_type="application/json",
            environ_overrides={"wsgi.input": Unread(), "CONTENT_LENGTH": "1025"},
        )
        assert (answer.status_code, problem_of(answer)) == (413, "too-large")

    @pytest.mark.parametrize(("length", "status"), [(1024, 401), (1025, 413), (50_000, 413)])
    def test_a_body_without_a_size_is_read_up_to_the_limit(self, length: int, status: int, portal: Any) -> None:
        answer = portal.client.post(
            "/v1/events",
            data=b"x" * length,
            content_type="application/json",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
        )
        assert answer.status_code == status

    def test_a_body_at_the_limit_is_read(self, portal: Any) -> None:
        answer = portal.send(b"x" * 1024)
        assert answer.status_code == 422

    def test_a_truncated_body_is_refused(self, portal: Any, web_registry: Registry) -> None:
        answer = portal.client.post(
            "/v1/events", data=b"{}", content_type="application/json", environ_overrides={"CONTENT_LENGTH": "500"}
        )
        assert answer.status_code in (400, 401)
        assert rows(web_registry, tables.events) == []


def test_every_bad_signature_has_the_same_answer(portal: Any, created: Make, clock: Any) -> None:
    body = json.dumps(created()).encode()
    good = portal.signer.sign("msg_1", body)
    other = "whsec_" + "A" * 43 + "="
    variants = [
        {},
        {**good, "webhook-signature": "v1,AAAA"},
        {**good, "webhook-id": "msg_2"},
        {**good, "webhook-id": "../etc"},
        {**good, "webhook-timestamp": "1"},
        {**good, "webhook-timestamp": "x"},
        sign([other], "msg_1", clock.now, body),
        sign([other], "msg_1", clock.now - 9999, body),
        {**good, "webhook-signature": "v1," + "\xff" * 44},
    ]
    answers = {
        (answer.status_code, answer.data, tuple(sorted(answer.headers.items())))
        for headers in variants
        for answer in [
            portal.client.post("/v1/events", data=body, headers={"Content-Type": "application/json", **headers})
        ]
    }
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


def test_a_stale_signature_is_refused(portal: Any, created: Make, clock: Any) -> None:
    signed = portal.signer.sign("msg_1", json.dumps(created()).encode())
    clock.now += 301
    assert portal.send(created(), "msg_1", headers=signed).status_code == 401


def test_without_usable_secrets_nothing_is_accepted(portal: Any, created: Make, web_installation: Installation) -> None:
    path = web_installation.fleet.webhook.secrets_path
    signed = portal.signer.sign("msg_1", json.dumps(created()).encode())
    path.chmod(0o644)
    answer = portal.client.post(
        "/v1/events", data=json.dumps(created()), headers={"Content-Type": "application/json", **signed}
    )
    assert (answer.status_code, problem_of(answer)) == (503, "unavailable")
    assert answer.headers["Retry-After"]
    assert str(path) not in answer.text


@pytest.mark.parametrize("web_settings", [{"tenant_events_per_minute": 3}])
def test_a_tenant_has_so_many_events_a_minute(portal: Any, created: Make, event: Make, clock: Any) -> None:
    portal.accepted(created())
    portal.accepted(event("tenant.suspended"))
    portal.accepted(event("tenant.resumed"))
    answer = portal.send(event("tenant.suspended"))
    assert (answer.status_code, problem_of(answer)) == (429, "too-many-events")
    portal.accepted(created("other"))
    clock.now += int(answer.headers["Retry-After"])
    portal.accepted(event("tenant.suspended"))


@pytest.mark.parametrize("web_settings", [{"failures_per_minute": 3}])
def test_an_address_has_so_many_failures_a_minute_and_pays_for_them_with_good_requests(
    portal: Any, created: Make, clock: Any
) -> None:
    for _ in range(2):
        assert portal.client.post("/v1/events", data=b"{}", content_type="application/json").status_code == 401
    assert portal.client.get("/v1/tenants", headers={"Authorization": "Bearer x"}).status_code == 401
    answer = portal.send(created())
    assert (answer.status_code, problem_of(answer)) == (429, "too-many-failures")
    assert portal.get("/v1/tenants").status_code == 429
    elsewhere = portal.send(created(), environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert elsewhere.status_code == 202
    clock.now += int(answer.headers["Retry-After"])
    assert portal.get("/v1/tenants").status_code == 200


@pytest.mark.parametrize("web_settings", [{"failures_per_minute": 1, "trusted_proxies": ["127.0.0.1"]}])
def test_behind_a_trusted_proxy_the_clients_address_counts(portal: Any, created: Make) -> None:
    def post(forwarded: str) -> int:
        status: int = portal.client.post(
            "/v1/events", data=b"{}", content_type="application/json", headers={"X-Forwarded-For": forwarded}
        ).status_code
        return status

    assert post("192.0.2.1") == 401
    assert post("198.51.100.1, 192.0.2.1") == 429
    assert post("192.0.2.2") == 401


def test_an_unavailable_registry_is_a_503_with_retry_after(
    portal: Any, created: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RegistryUnavailableError("the registry postgresql://db.internal is busy")

    monkeypatch.setattr(Journal, "accept", fail)
    answer = portal.send(created())
    assert (answer.status_code, problem_of(answer)) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "db.internal" not in answer.text


def test_a_registry_that_somebody_keeps_locked_is_a_503(
    web_installation: Installation,
    created: Make,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
    web_registry: Registry,
) -> None:
    monkeypatch.setattr("webhook.app.BUSY_SECONDS", 0.1)
    client = create_app(web_installation, clock=clock).test_client()
    raw = json.dumps(created()).encode()
    signed = Signer(web_installation.fleet.webhook.secrets_path, clock, direction="inbound").sign("msg_1", raw)
    with web_registry.transaction(write=True):
        answer = client.post("/v1/events", data=raw, headers={"Content-Type": "application/json", **signed})
    assert (answer.status_code, problem_of(answer)) == (503, "unavailable")
    assert rows(web_registry, tables.events) == []


def test_an_unexpected_error_says_nothing_but_an_id_that_the_log_has(
    portal: Any, created: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("the innermost secret")

    monkeypatch.setattr(Journal, "accept", fail)
    with caplog.at_level(logging.ERROR, logger="webhook.web"):
        answer = portal.send(created())
    assert (answer.status_code, problem_of(answer)) == (500, "internal")
    assert "innermost" not in answer.text
    name = answer.json["instance"].rpartition(":")[2]
    assert any(name in record.getMessage() and record.exc_info for record in caplog.records)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_events_are_listed_newest_first_by_tenant_state_and_time_page_by_page(
    portal: Any, created: Make, event: Make, finish: Any
) -> None:
    portal.accepted(created(), "a1")
    portal.accepted(created("other"), "o1")
    finish("acme")
    last = portal.accepted(event("tenant.suspended"), "a2")

    def ids(query: str) -> list[str]:
        return [one["id"] for one in portal.get(f"/v1/events{query}").json["items"]]

    assert ids("") == ["a2", "o1", "a1"]
    assert ids("?tenant=acme") == ["a2", "a1"]
    assert ids("?state=applied") == ["a1"]
    assert ids("?tenant=other&state=applied") == []
    assert ids("?since=2999-01-01T00:00:00Z") == []
    assert ids(f"?since={last['received_at']}")[0] == "a2"
    assert ids("?since=2026-01-01T00:00:00%2B02:00") == ["a2", "o1", "a1"]
    assert ids("?tenant=nobody") == []
    page = portal.get("/v1/events?limit=2").json
    assert [one["id"] for one in page["items"]] == ["a2", "o1"]
    rest = portal.get(f"/v1/events?limit=2&cursor={page['next']}").json
    assert ([one["id"] for one in rest["items"]], rest["next"]) == (["a1"], None)


@pytest.mark.parametrize(
    "query",
    [
        "?limit=0",
        "?limit=501",
        "?limit=x",
        "?limit=-1",
        "?limit=99999999999999999999999999",
        "?limit=1&limit=2",
        "?state=unknown",
        "?since=yesterday",
        "?since=2026-13-01T00:00:00Z",
        "?since=9999-12-31T23:59:59-23:59",
        "?since=0001-01-01T00:00:00%2B23:59",
        "?since=1969-12-31T23:59:59Z",
        "?since=2026-11-23",
        "?cursor=../x",
        "?cursor=%00",
        "?tenant=UPPER",
        "?tenant=%27%3B--",
        "?tenants=acme",
        "?%1b%5b31m=1",
    ],
)
def test_a_query_that_cannot_be_is_refused_with_its_fault(query: str, portal: Any) -> None:
    answer = portal.get(f"/v1/events{query}")
    assert (answer.status_code, problem_of(answer)) == (400, "query")
    assert len(answer.json["faults"]) == 1


def test_a_tenant_shows_what_is_wanted_and_what_was_seen(portal: Any, created: Make, finish: Any) -> None:
    portal.accepted(created())
    answer = portal.get("/v1/tenants/acme")
    assert answer.status_code == 200
    assert (answer.json["revision"], answer.json["applied_revision"], answer.json["work"]) == (1, 0, "waiting")
    assert answer.json["bots"][0]["state"] == "unknown"
    finish("acme", bots={"b1": {"state": "running", "open_orders": 10, "fills": 2}})
    after = portal.get("/v1/tenants/acme").json
    assert (after["applied_revision"], after["work"]) == (1, "idle")
    assert after["bots"][0]["state"] == "running"
    assert after["bots"][0]["facts"] == {"open_orders": 10, "fills": 2}
    assert portal.get("/v1/tenants").json["items"] == [after]


def test_a_failure_tells_operators_more_than_others(portal: Any, created: Make, finish: Any) -> None:
    portal.accepted(created(), "msg_1")
    finish("acme", "document_refused", "the bot's key is refused")
    seen = portal.get("/v1/tenants/acme", "operator").json["failure"]
    assert seen["message"] == "for operators"
    for scope in ("portal", "read-only"):
        failure = portal.get("/v1/tenants/acme", scope).json["failure"]
        assert (failure["code"], failure["reason"]) == ("document_refused", "the bot's key is refused")
        assert "message" not in failure
        assert "message" not in portal.get("/v1/tenants", scope).json["items"][0]["failure"]
    event = portal.get("/v1/events/msg_1").json
    assert (event["state"], event["code"], event["reason"]) == (
        "failed",
        "document_refused",
        "the bot's key is refused",
    )


def test_tenants_are_listed_page_by_page(portal: Any, created: Make) -> None:
    for tenant in ("aa", "bb", "cc"):
        portal.accepted(created(tenant))
    page = portal.get("/v1/tenants?limit=2").json
    assert [one["tenant"] for one in page["items"]] == ["aa", "bb"]
    rest = portal.get(f"/v1/tenants?cursor={page['next']}").json
    assert ([one["tenant"] for one in rest["items"]], rest["next"]) == (["cc"], None)


def test_call_backs_are_listed_and_sent_again(portal: Any, created: Make, finish: Any, web_registry: Registry) -> None:
    portal.accepted(created(), "msg_1")
    finish("acme", bots={"b1": {"state": "running"}})
    page = portal.get("/v1/callbacks?tenant=acme&limit=1").json
    assert len(page["items"]) == 1
    rest = portal.get(f"/v1/callbacks?tenant=acme&cursor={page['next']}").json
    types = {one["type"] for one in (*page["items"], *rest["items"])}
    assert types == {"event.applied", "bot.state_changed"}
    number = page["items"][0]["number"]
    early = portal.post(f"/v1/callbacks/{number}/resend")
    assert (early.status_code, problem_of(early)) == (409, "callback-state")
    with web_registry.transaction(write=True) as connection:
        connection.execute(tables.callbacks.update().values(state="given_up", attempts=3))
    assert {one["state"] for one in portal.get("/v1/callbacks?state=given_up").json["items"]} == {"given_up"}
    again = portal.post(f"/v1/callbacks/{number}/resend", "portal")
    assert (again.status_code, again.json["state"]) == (202, "pending")
    for path in ("999999", "0", "99999999999999999999", "x"):
        assert portal.post(f"/v1/callbacks/{path}/resend").status_code == 404


# --- the operator's --------------------------------------------------------------------------------------------------


def test_a_failed_event_is_tried_again(portal: Any, created: Make, finish: Any) -> None:
    portal.accepted(created(), "msg_1")
    finish("acme", "document_refused")
    answer = portal.post("/v1/events/msg_1/retry")
    assert (answer.status_code, answer.json["state"]) == (202, "accepted")
    early = portal.post("/v1/events/msg_1/retry")
    assert (early.status_code, problem_of(early)) == (409, "event-state")
    finish("acme")
    assert portal.get("/v1/events/msg_1").json["state"] == "applied"


def test_a_failed_event_is_discarded(portal: Any, created: Make, event: Make, finish: Any) -> None:
    portal.accepted(created(), "msg_1")
    finish("acme")
    portal.accepted(event("tenant.updated", changes={"subdomain": "other"}), "msg_2")
    finish("acme", "document_refused")
    answer = portal.post("/v1/events/msg_2/discard")
    assert (answer.status_code, answer.json["state"]) == (200, "discarded")
    assert portal.get("/v1/tenants/acme").json["subdomain"] == "acme"
    assert portal.post("/v1/events/msg_2/discard").status_code == 409
    assert portal.post("/v1/events/unknown/discard").status_code == 404


# --- who may do what -------------------------------------------------------------------------------------------------


def filled(path: str) -> str:
    """A path with values that exist nowhere."""
    return path.format(event_id="nothing", tenant="nobody", number="12345", bot="none")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.auth is Auth.TOKEN], ids=lambda route: route.view)
class TestTokens:
    """Each endpoint that needs one."""

    def test_without_a_token_nothing_is_answered(self, route: Any, client: Any) -> None:
        answer = client.open(filled(route.path), method=route.method)
        assert (answer.status_code, problem_of(answer)) == (401, "token")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    @pytest.mark.parametrize(
        "header", ["Bearer", "Bearer ", "Basic eDp5", "Bearer hft_000000000000_" + "A" * 43, "Bearer \xff", "hft_1"]
    )
    def test_what_is_no_token_is_refused(self, route: Any, header: str, client: Any) -> None:
        answer = client.open(filled(route.path), method=route.method, headers={"Authorization": header})
        assert (answer.status_code, problem_of(answer)) == (401, "token")

    def test_revoked_and_expired_tokens_are_refused(self, route: Any, client: Any, portal: Any, clock: Any) -> None:
        token_id, revoked = portal.tokens.create("operator")
        portal.tokens.revoke(token_id)
        _, expired = portal.tokens.create("operator", expires_at=clock.now + 10)
        clock.now += 11
        for token in (revoked, expired):
            answer = client.open(filled(route.path), method=route.method, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401

    @pytest.mark.parametrize("scope", SCOPES)
    def test_a_scope_does_what_it_is_for_and_nothing_else(
        self, route: Any, scope: Any, client: Any, portal: Any
    ) -> None:
        answer = client.open(filled(route.path), method=route.method, headers=portal.bearer(scope))
        if scope in route.scopes:
            assert answer.status_code in (200, 404)
        else:
            assert (answer.status_code, problem_of(answer)) == (403, "not-allowed")


def test_scopes_are_what_the_documentation_says() -> None:
    allowed = {route.view: set(route.scopes) for route in ROUTES if route.auth is Auth.TOKEN}
    everybody = {"portal", "operator", "read-only"}
    assert allowed == {
        "list_events": everybody,
        "get_event": everybody,
        "retry_event": {"operator"},
        "discard_event": {"operator"},
        "list_tenants": everybody,
        "get_tenant": everybody,
        "list_callbacks": {"operator", "portal"},
        "resend_callback": {"operator", "portal"},
        "create_signal_token": {"operator", "portal"},
        "list_signal_tokens": everybody,
        "show_metrics": {"operator", "read-only"},
    }


def test_a_token_of_one_tenant_sees_that_one_only(
    portal: Any, created: Make, finish: Any, web_registry: Registry
) -> None:
    portal.accepted(created("acme"), "a1")
    portal.accepted(created("other"), "o1")
    for tenant in ("acme", "other"):
        finish(tenant, "document_refused")
    with web_registry.transaction(write=True) as connection:
        connection.execute(tables.callbacks.update().values(attempts=1))
    callbacks = {one["tenant"]: one["number"] for one in portal.get("/v1/callbacks").json["items"]}
    for scope in SCOPES:
        assert [one["id"] for one in portal.get("/v1/events", scope, "acme").json["items"]] == ["a1"]
        assert [one["tenant"] for one in portal.get("/v1/tenants", scope, "acme").json["items"]] == ["acme"]
        assert portal.get("/v1/events/a1", scope, "acme").status_code == 200
        assert portal.get("/v1/tenants/acme", scope, "acme").status_code == 200
        unknown = portal.get("/v1/events/nothing", scope, "acme")
        for path in ("/v1/events/o1", "/v1/tenants/other", "/v1/events?tenant=other", "/v1/tenants/nobody"):
            answer = portal.get(path, scope, "acme")
            # Nothing tells what exists from what does not.
            assert (answer.status_code, answer.data) == (404, unknown.data), path
    assert {one["tenant"] for one in portal.get("/v1/callbacks", tenant="acme").json["items"]} == {"acme"}
    assert portal.get("/v1/callbacks?tenant=other", tenant="acme").status_code == 404
    assert portal.post(f"/v1/callbacks/{callbacks['other']}/resend", "portal", "acme").status_code == 404
    assert portal.post(f"/v1/callbacks/{callbacks['acme']}/resend", "portal", "acme").status_code == 202
    for action in ("retry", "discard"):
        assert portal.post(f"/v1/events/o1/{action}", "operator", "acme").status_code == 404
    assert portal.get("/v1/events/o1").json["state"] == "failed"
    assert portal.post("/v1/events/a1/retry", "operator", "acme").status_code == 202


def test_a_token_of_a_tenant_that_is_not_there_sees_nothing(portal: Any, created: Make) -> None:
    portal.accepted(created())
    assert portal.get("/v1/tenants", tenant="nobody").json == {"items": [], "next": None}
    assert portal.get("/v1/events", tenant="nobody").json == {"items": [], "next": None}
    assert portal.get("/v1/tenants/nobody", tenant="nobody").status_code == 404


def test_no_answer_holds_a_ciphertext_nonce_or_salt(
    portal: Any, created: Make, finish: Any, web_registry: Registry
) -> None:
    body = created()
    answers = [portal.send(body, "msg_1"), portal.send(body, "msg_1"), portal.send(body, "msg_2")]
    finish("acme", "document_refused")
    paths = ("/v1/events", "/v1/events/msg_1", "/v1/tenants", "/v1/tenants/acme", "/v1/callbacks", "/metrics")
    answers += [portal.get(path, "operator") for path in paths]
    stored = web_registry.get("acme").document
    hidden = [stored["salt"], *(v for k, v in factories.connection().items() if k.startswith(("encrypted", "nonce")))]
    assert len(hidden) == 5
    for answer in answers:
        assert not [value for value in hidden if value in answer.text]


# --- the service itself ----------------------------------------------------------------------------------------------


def test_a_process_that_answers_is_live(client: Any) -> None:
    assert client.get("/livez").json == {"status": "ok"}


def test_ready_means_registry_secrets_and_a_worker(client: Any, web_registry: Registry) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["checks"] == {"registry": "ok", "secrets": "ok", "worker": "no worker is alive"}
    work.WorkQueue(web_registry, process_holder()).take_duty(work.ALIVE + process_holder(), 60)
    deadline = time.monotonic() + 20
    while (answer := client.get("/readyz")).status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer.json["ready"] is True


def test_readiness_names_what_is_missing_without_saying_where(
    client: Any, web_installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RegistryUnavailableError("the registry postgresql://db.internal cannot be used")

    web_installation.fleet.webhook.secrets_path.unlink()
    monkeypatch.setattr(Registry, "transaction", fail)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["checks"] == {"registry": "failed", "secrets": "failed", "worker": "failed"}


def test_a_retired_secret_is_none(client: Any, web_installation: Installation, clock: Any) -> None:
    SecretsFile(web_installation.fleet.webhook.secrets_path).rotate("inbound", 0, clock.now)
    assert client.get("/readyz").json["checks"]["secrets"] == "ok"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/events/", "/v1//events", "/v1/events/../tenants", "/static/x", "/é"])
def test_unknown_paths_are_problems(path: str, client: Any) -> None:
    answer = client.get(path)
    assert (answer.status_code, problem_of(answer)) == (404, "not-found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_problems_that_name_those_there_are(method: str, client: Any) -> None:
    answer = client.open("/v1/events", method=method)
    assert (answer.status_code, problem_of(answer)) == (405, "method")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


def test_head_is_get_without_its_body(portal: Any, client: Any) -> None:
    assert client.head("/livez").status_code == 200
    assert client.head("/v1/tenants").status_code == 401
    assert client.head("/v1/tenants", headers=portal.bearer("portal")).status_code == 200
    assert client.head("/v1/events/x/retry").status_code == 405


def test_the_web_service_needs_no_key_ring(web_installation: Installation, portal: Any, created: Make) -> None:
    assert not os.path.exists(str(web_installation.fleet.keyring["file"]))
    portal.accepted(created())


def test_a_token_of_one_tenant_sees_no_numbers_of_the_fleet(portal: Any, created: Make) -> None:
    portal.accepted(created())
    assert portal.get("/metrics", "read-only").status_code == 200
    assert portal.get("/metrics", "read-only", "acme").status_code == 403
    assert portal.get("/metrics", "operator", "acme").status_code == 403
