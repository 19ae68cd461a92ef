# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web service: a WSGI application that takes the portal's events in and answers for what became of them."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.broker import broker_access
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from . import access, events, logs, openapi, problems, signals, work
from .callbacks import Outbox
from .installation import Installation
from .journal import Journal
from .limits import RateLimiter
from .metrics import WebMetrics
from .problems import Problem
from .secrets_file import SecretsFile, Verifier
from .signal_bus import Bus, SignalBus
from .signal_desk import SignalDesk
from .signal_log import SignalLog
from .signal_tokens import SignalTokens
from .tokens import TokenStore
from .views import ROUTES, Call, NotReadyError, Services, Views

BUSY_SECONDS = 5.0
"""How long a request waits for the registry before it is answered 503."""

_LOG = logging.getLogger("webhook.web")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


SIGNAL_DESK = "hummingfleet.signal_desk"
"""Where the application keeps its SignalDesk (``app.extensions``)."""


def create_app(
    installation: Installation | None = None,
    *,
    journal: Journal | None = None,
    verifier: Verifier | None = None,
    tokens: TokenStore | None = None,
    outbox: Outbox | None = None,
    bus: Bus | None = None,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
) -> Flask:
    """The application of an installation (default: the one the environment names); raises HummingfleetError.

    What is given replaces what the installation would make; ``clock`` gives epoch seconds, ``steady``
    seconds that nobody sets back.
    """
    installation = installation or Installation()
    fleet, settings = installation.fleet, installation.fleet.webhook
    registry = Registry(fleet.registry, keep_connections=settings.threads, busy_seconds=BUSY_SECONDS)
    journal = journal or Journal(registry, fleet, installation.catalogue)
    description = openapi.document(
        ROUTES,
        event_schema=events.event_schema(installation.catalogue),
        examples={
            "EventBody": {name: kind.example() for name, kind in events.EVENT_TYPES.items()},
            "SignalBody": signals.EXAMPLES,
        },
        version=importlib.metadata.version("hummingfleet"),
        max_body_bytes=settings.max_body_bytes,
    )
    metrics = WebMetrics(journal.stats)
    secrets_file = SecretsFile(settings.secrets_path)
    signal_log = SignalLog(registry)
    bus = bus or SignalBus(lambda node: broker_access(fleet, node))
    signal_desk = SignalDesk(
        signal_log,
        bus,
        ack_seconds=settings.signal_ack_seconds,
        # Each takes a thread while it waits for its bot; the others stay free for events.
        waiting=max(1, settings.threads // 2),
        clock=clock,
    )
    bus.listen(signal_desk.late)
    views = Views(
        Services(
            settings=settings,
            catalogue=installation.catalogue,
            journal=journal,
            outbox=outbox or Outbox(registry),
            verifier=verifier or Verifier(settings.secrets_path, clock),
            tokens=tokens or TokenStore(registry, clock),
            metrics=metrics,
            tenant_limit=RateLimiter(settings.tenant_events_per_minute, clock=steady),
            failure_limit=RateLimiter(settings.failures_per_minute, clock=steady),
            secrets_file=secrets_file,
            signal_desk=signal_desk,
            signal_log=signal_log,
            signal_tokens=SignalTokens(registry, clock),
            signal_limit=RateLimiter(settings.signals_per_minute, burst=settings.signal_burst, clock=steady),
            stranger_limit=RateLimiter(settings.failures_per_minute, clock=steady),
            clock=clock,
            checks={
                "registry": lambda: _check_registry(registry),
                "secrets": lambda: _check_secrets(secrets_file, clock),
                "worker": lambda: _check_worker(registry),
            },
            openapi=json.dumps(description).encode(),
        )
    )
    app = Flask("hummingfleet", static_folder=None, template_folder=None)
    app.extensions[SIGNAL_DESK] = signal_desk
    app.url_map.merge_slashes = False  # another path is another thing, not a redirect
    # Whatever a request says about its length, no more than this is read; one more than allowed, so that it shows.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes + 1
    for route in ROUTES:
        app.add_url_rule(
            route.path.replace("{", "<").replace("}", ">"),
            route.view,
            _endpoint(views, route),
            methods=[route.method],
            provide_automatic_options=False,
        )

    @app.before_request
    def begin() -> None:
        started = time.perf_counter()
        logs.bind()
        environ = request.environ
        address = access.client_address(
            environ.get("REMOTE_ADDR") or "-", environ.get("HTTP_X_FORWARDED_FOR"), settings.trusted_proxies
        )
        g.call = Call(started, address)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers.extend(_HEADERS)
        _record(g.call, response.status_code, metrics)
        return response

    @app.errorhandler(Problem)
    def explain(problem: Problem) -> Response:
        g.call.problem = problem.kind.name
        return problem.response()

    @app.errorhandler(HTTPException)
    def explain_http(error: HTTPException) -> Response:
        return explain(_problem_of(error, settings.max_body_bytes))

    @app.errorhandler(Exception)
    def explain_nothing(error: Exception) -> Response:
        name = secrets.token_hex(8)
        _LOG.error("internal error %s", name, exc_info=error, extra=logs.fields(instance=name))
        return explain(
            Problem(
                problems.INTERNAL,
                "something went wrong here; the operator finds the details under the id in 'instance'",
                instance=f"urn:hummingfleet:error:{name}",
            )
        )

    return app


def _endpoint(views: Views, route: openapi.Route) -> Callable[..., Response]:
    def answer(**path: str) -> Response:
        return views.answer(route, g.call, path)

    return answer


def _record(call: Call, status: int, metrics: WebMetrics) -> None:
    """The log's line about a request, and what is counted: never a body, signature or token."""
    seconds = time.perf_counter() - call.started
    method = request.method if request.method in _METHODS else "other"
    metrics.answered(method, call.route, status, seconds, call.problem)
    if _LOG.isEnabledFor(logging.INFO):
        token = call.token or call.signal_token
        line: dict[str, Any] = {
            "method": method,
            "route": call.route,
            "status": status,
            "ms": round(seconds * 1000, 2),
            "client": call.address,
            "token": token.id if token is not None else None,
            "problem": call.problem,
        }
        logs.bind(event=call.event, tenant=call.tenant)
        _LOG.info("request", extra=logs.fields(**line))


def _problem_of(error: HTTPException, max_body_bytes: int) -> Problem:
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return Problem(problems.METHOD, f"this path answers to {allowed}", headers={"Allow": allowed})
    if isinstance(error, NotFound):
        return Problem(problems.NOT_FOUND, "there is no such path; /openapi.json lists those there are")
    if isinstance(error, RequestEntityTooLarge):
        return Problem(problems.TOO_LARGE, f"the body may have {max_body_bytes} bytes at most")
    return Problem(problems.MALFORMED, "the request is incomplete or not well formed")


def _check_registry(registry: Registry) -> None:
    # The write lock is taken and given back; nothing is written.
    with registry.transaction(write=True):
        pass


def _check_secrets(secrets_file: SecretsFile, clock: Callable[[], float]) -> None:
    if not secrets_file.active("inbound", clock()):
        raise NotReadyError("no secret for the portal's events is valid")


def _check_worker(registry: Registry) -> None:
    with registry.transaction() as connection:
        alive = sa.select(sa.func.count()).where(
            tables.duties.c.name.startswith(work.ALIVE, autoescape=True),
            tables.duties.c.expires_at > registry.now(connection),
        )
        if not connection.execute(alive).scalar_one():
            raise NotReadyError("no worker is alive")
