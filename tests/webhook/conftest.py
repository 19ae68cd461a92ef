"""A web service of its own in a temporary folder, and a portal that talks to it; every answer is held to OpenAPI."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, process_holder
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests import factories
from webhook import work
from webhook.app import create_app
from webhook.events import EVENT_TYPES
from webhook.installation import Installation
from webhook.secrets_file import SecretsFile, Signer
from webhook.tokens import Scope, TokenStore


class Clock:
    """Epoch seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Contract:
    """The service's own OpenAPI document, and what each answer has to look like by it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str, int]] = set()
        self._patterns = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in document["paths"]}

    def check(self, method: str, path: str, answer: TestResponse) -> None:
        """Nothing, if the answer is one that the document describes; every answer is JSON, a problem, or metrics."""
        template = next((t for t, p in sorted(self._patterns.items(), key=len) if p.fullmatch(path)), None)
        operation = self.document["paths"].get(template, {}).get(method.lower())
        if method == "HEAD":
            assert answer.data == b""
            return
        if operation is None:
            assert answer.status_code in (404, 405), (method, path, answer.status_code)
            self._validate({"$ref": "#/components/schemas/Problem"}, answer)
            assert answer.mimetype == "application/problem+json"
            return
        assert str(answer.status_code) in operation["responses"], (method, path, answer.status_code, answer.text)
        content = operation["responses"][str(answer.status_code)]["content"]
        declared = {media.partition(";")[0]: body["schema"] for media, body in content.items()}
        assert answer.mimetype in declared, (method, path, answer.status_code, answer.mimetype)
        self._validate(declared[answer.mimetype], answer)
        self.seen.add((method, template or "", answer.status_code))

    def _validate(self, schema: Mapping[str, Any], answer: TestResponse) -> None:
        value = answer.text if answer.mimetype == "text/plain" else answer.get_json(force=True)
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)
        if answer.mimetype == "application/problem+json":
            assert value["status"] == answer.status_code


class CheckedClient(FlaskClient):
    """A client that holds every answer to the contract."""

    contract: Contract

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """The answer."""
        answer = super().open(*args, **kwargs)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert not {"Set-Cookie", "Server", "Access-Control-Allow-Origin"} & set(answer.headers.keys())
        self.contract.check(answer.request.method, answer.request.path, answer)
        return answer


class Portal:
    """Signs and sends events as the portal does, and reads with tokens."""

    def __init__(self, client: CheckedClient, signer: Signer, tokens: TokenStore) -> None:
        self.client = client
        self.signer = signer
        self.tokens = tokens

    def send(
        self,
        body: Mapping[str, Any] | bytes,
        event_id: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> TestResponse:
        """The answer to a signed event; ``headers`` replace those it would have."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = self.signer.sign(event_id or f"msg_{secrets.token_hex(8)}", raw)
        return self.client.post(
            "/v1/events",
            data=raw,
            headers={"Content-Type": "application/json", **signed, **(headers or {})},
            **options,
        )

    def accepted(self, body: Mapping[str, Any], event_id: str | None = None) -> dict[str, Any]:
        """The event as it was stored."""
        answer = self.send(body, event_id)
        assert answer.status_code == 202, answer.text
        event: dict[str, Any] = answer.json["event"]
        return event

    def bearer(self, scope: Scope, tenant: str | None = None) -> dict[str, str]:
        """The header with a new token."""
        return {"Authorization": f"Bearer {self.tokens.create(scope, tenant)[1]}"}

    def get(self, path: str, scope: Scope = "portal", tenant: str | None = None) -> TestResponse:
        """The answer to a question."""
        return self.client.get(path, headers=self.bearer(scope, tenant))

    def post(self, path: str, scope: Scope = "operator", tenant: str | None = None) -> TestResponse:
        """The answer to a request to do something."""
        return self.client.post(path, headers=self.bearer(scope, tenant))


def event_body(name: str, **data: Any) -> dict[str, Any]:
    """An event of type ``name`` with that data."""
    return {"type": name, "timestamp": "2026-11-23T05:00:00Z", "data": {"tenant": "acme", **data}}


def created_body(tenant: str = "acme", **fields: Any) -> dict[str, Any]:
    """``tenant.created`` with a connection and a stopped grid bot."""
    document = factories.grid_document(tenant=tenant, exchange_connections=[factories.connection(seed=tenant)])
    return {"type": "tenant.created", "timestamp": "2026-11-23T05:00:00Z", "data": {**document, **fields}}


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """Bodies of events by type and data."""
    return event_body


@pytest.fixture
def created() -> Callable[..., dict[str, Any]]:
    """Bodies of ``tenant.created``."""
    return created_body


@pytest.fixture
def examples() -> dict[str, dict[str, Any]]:
    """The example of every event."""
    return {name: kind.example() for name, kind in EVENT_TYPES.items()}


@pytest.fixture
def clock() -> Clock:
    """The service's clock."""
    return Clock()


@pytest.fixture
def web_settings() -> dict[str, Any]:
    """The section ``webhook`` of the fleet file; override it for other settings."""
    return {}


@pytest.fixture
def web_registry_url(tmp_path: Path) -> str:
    """Where its registry is; override it for another."""
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
def web_installation(tmp_path: Path, web_settings: dict[str, Any], web_registry_url: str, clock: Clock) -> Installation:
    """A fleet file, a registry, a catalogue and secrets; no key ring, which the web process must not need."""
    path = tmp_path / "fleet.tenants.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "plugin": "hummingfleet.core.tenants",
                "registry": web_registry_url,
                "keyring": {"file": str(tmp_path / "no-keyring.yml")},
                "catalogue": str(factories.ROOT / "catalogue"),
                "base_dir": str(tmp_path / "node"),
                "nodes": {"local": {"ansible_connection": "local", "memory_mib": 1_000_000, "labels": {}}},
                "webhook": {"secrets": str(tmp_path / "webhook-secrets.yml"), **web_settings},
            }
        )
    )
    SecretsFile(load_fleet(path).webhook.secrets_path).ensure(clock.now)
    return Installation(path)


@pytest.fixture
def web_registry(web_installation: Installation) -> Registry:
    """Its registry."""
    return web_installation.registry


@pytest.fixture
def app(web_installation: Installation, clock: Clock) -> Flask:
    """The service."""
    return create_app(web_installation, clock=clock, steady=clock)


@pytest.fixture
def contract(app: Flask) -> Contract:
    """What it says of itself."""
    answer = app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    return Contract(answer.get_json())


@pytest.fixture
def client(app: Flask, contract: Contract) -> CheckedClient:
    """A client of it."""
    app.test_client_class = CheckedClient
    client = app.test_client()
    assert isinstance(client, CheckedClient)
    client.contract = contract
    return client


@pytest.fixture
def portal(client: CheckedClient, web_installation: Installation, web_registry: Registry, clock: Clock) -> Portal:
    """The portal."""
    signer = Signer(web_installation.fleet.webhook.secrets_path, clock, direction="inbound")
    return Portal(client, signer, TokenStore(web_registry, clock))


@pytest.fixture
def finish(web_registry: Registry) -> Callable[..., None]:
    """Ends a run of a tenant as a worker would: well, or with a problem; ``bots`` are the facts it saw."""

    def end(
        tenant: str,
        problem: str | None = None,
        reason: str = "the node said no",
        bots: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        queue = work.WorkQueue(web_registry, process_holder())
        claims = queue.claim([tenant])
        assert claims, "there was nothing to do"
        if problem is None:
            holder = process_holder()
            lease = web_registry.acquire_leases([tenant], holder=holder, ttl_seconds=60)[tenant]
            assert lease is not None
            web_registry.record_outcome(
                tenant, revision=claims[0].revision, fence=lease.fence, applied=True, outcome={}
            )
            web_registry.release_leases({tenant: lease.fence})
        ending = work.Ending(problem=problem, message="for operators", reason=reason, bots=bots or {})
        assert queue.finish(claims[0], ending)

    return end
