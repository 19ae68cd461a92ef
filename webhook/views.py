# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web service's endpoints: who may ask, what is read from a request, what is answered.

``ROUTES`` declares each endpoint once; the function that answers is the method of ``Views`` with the name in ``view``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import AddressError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, FaultsError, HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import PlacementError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    RegistryError,
    UnknownTenantError,
    iso_time,
)
from flask import Request, Response, request

from . import access, logs, metrics, problems
from .access import EVERYBODY, OPERATORS, PORTALS, WATCHERS
from .callbacks import CallbackStateError, UnknownCallbackError
from .events import parse_event
from .journal import EventConflictError, EventStateError, SequenceError, UnknownEventError
from .openapi import CALLBACK_STATES, EVENT_STATES, Answer, Auth, Parameter, Route, read_query
from .problems import Problem
from .secrets_file import SecretsError
from .signal_bus import BusError
from .signal_desk import BusyError, NoAnswerError
from .signal_log import SignalConflictError
from .signal_tokens import OVERLAP_SECONDS, signing_secrets
from .signals import MAX_BODY_BYTES, SignalError, SignalRefusedError, StaleSignalError, parse_signal
from .signing import ID_HEADER, SIGNATURE_HEADER, SignatureError, verify

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import WebhookSettings

    from .callbacks import Outbox
    from .journal import Journal, TenantStatus
    from .limits import RateLimiter
    from .metrics import WebMetrics
    from .secrets_file import SecretsFile, Verifier
    from .signal_desk import Delivery, SignalDesk
    from .signal_log import SignalLog
    from .signal_tokens import SignalToken, SignalTokens
    from .tokens import Token, TokenStore

_LOG = logging.getLogger("webhook.web")
_JSON = "application/json"
_RETRY_SECONDS = 2
_PAGE_DEFAULT, _PAGE_MAX = 100, 500

# --- what is declared ------------------------------------------------------------------------------------------------

_EVENT_ID = Parameter(
    "event_id",
    "The event's id: the header `webhook-id` it was sent with.",
    {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    "path",
)
_TENANT_ID = {
    "type": "string",
    "pattern": "^[a-z0-9-]{1,32}$",
    "title": "a tenant's id: up to 32 of a-z, 0-9 and -",
}
_TENANT = Parameter("tenant", "Only what belongs to this tenant.", _TENANT_ID)
_TENANT_PATH = Parameter("tenant", "The tenant's id.", _TENANT_ID, "path")
_LIMIT = Parameter(
    "limit",
    "How many items to answer at most.",
    {"type": "integer", "minimum": 1, "maximum": _PAGE_MAX, "default": _PAGE_DEFAULT},
)
_NUMBER_CURSOR = Parameter("cursor", "`next` of the page before.", {"type": "integer", "minimum": 1, "maximum": 10**15})
_TENANT_CURSOR = Parameter("cursor", "`next` of the page before.", _TENANT_ID)
_EVENT_STATE = Parameter("state", "Only events in this state.", {"type": "string", "enum": list(EVENT_STATES)})
_SINCE = Parameter("since", "Only events received at this time or later.", {"type": "string", "format": "date-time"})
_CALLBACK_STATE = Parameter(
    "state", "Only call-backs in this state.", {"type": "string", "enum": list(CALLBACK_STATES)}
)
_CALLBACK_NUMBER = Parameter(
    "number", "The call-back's number.", {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "path"
)
_BOT_PATH = Parameter(
    "bot", "The bot's id.", {**_TENANT_ID, "title": _TENANT_ID["title"].replace("tenant", "bot")}, "path"
)
_OVERLAP = Parameter(
    "overlap_seconds",
    "How long the bot's tokens before stay good; 0 if they have leaked.",
    {"type": "integer", "minimum": 0, "maximum": 30 * 86_400, "default": OVERLAP_SECONDS},
)
_KEY_HEADER = "signal-token-id"
_SIGNED = "Only where the request is signed: "

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/events",
        "post_event",
        "Send an event",
        {
            202: Answer(
                "The event is stored and will be applied.",
                "Accepted",
                headers={"Location": "Where its state can be read."},
            ),
            200: Answer(
                "The event was stored before; this is what became of it.",
                "Accepted",
                headers={"Location": "Where its state can be read."},
            ),
        },
        (
            problems.SIGNATURE,
            problems.EVENT_CONFLICT,
            problems.SEQUENCE,
            problems.TOO_LARGE,
            problems.MEDIA,
            problems.REFUSED,
            problems.TOO_MANY_EVENTS,
            problems.TOO_MANY_FAILURES,
            problems.UNAVAILABLE,
        ),
        auth=Auth.SIGNATURE,
        parameters=(
            Parameter(
                "webhook-id",
                "Names the event; the same one in every attempt to deliver it.",
                {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
                "header",
            ),
            Parameter(
                "webhook-timestamp",
                "Seconds since 1970 of this attempt.",
                {"type": "string", "pattern": "^[0-9]+$"},
                "header",
            ),
        ),
        body="EventBody",
        description="What was answered 202 is on disk. Sending the same event again is always safe.",
    ),
    Route(
        "GET",
        "/v1/events",
        "list_events",
        "List events, newest first",
        {200: Answer("A page of events.", "Events")},
        (problems.NOT_FOUND,),
        scopes=EVERYBODY,
        parameters=(_TENANT, _EVENT_STATE, _SINCE, _LIMIT, _NUMBER_CURSOR),
    ),
    Route(
        "GET",
        "/v1/events/{event_id}",
        "get_event",
        "What became of an event",
        {200: Answer("The event.", "Event")},
        (problems.NOT_FOUND,),
        scopes=EVERYBODY,
        parameters=(_EVENT_ID,),
    ),
    Route(
        "POST",
        "/v1/events/{event_id}/retry",
        "retry_event",
        "Try a failed event again",
        {202: Answer("It is being tried again.", "Event")},
        (problems.NOT_FOUND, problems.EVENT_STATE),
        scopes=OPERATORS,
        parameters=(_EVENT_ID,),
    ),
    Route(
        "POST",
        "/v1/events/{event_id}/discard",
        "discard_event",
        "Give a failed event up",
        {200: Answer("The event.", "Event")},
        (problems.NOT_FOUND, problems.EVENT_STATE),
        scopes=OPERATORS,
        parameters=(_EVENT_ID,),
    ),
    Route(
        "GET",
        "/v1/tenants",
        "list_tenants",
        "List tenants",
        {200: Answer("A page of tenants, by id.", "Tenants")},
        scopes=EVERYBODY,
        parameters=(_LIMIT, _TENANT_CURSOR),
    ),
    Route(
        "GET",
        "/v1/tenants/{tenant}",
        "get_tenant",
        "A tenant: desired and applied revision, and what its bots do",
        {200: Answer("The tenant.", "Tenant")},
        (problems.NOT_FOUND,),
        scopes=EVERYBODY,
        parameters=(_TENANT_PATH,),
    ),
    Route(
        "GET",
        "/v1/callbacks",
        "list_callbacks",
        "List call-backs to the portal, newest first",
        {200: Answer("A page of call-backs.", "Callbacks")},
        (problems.NOT_FOUND,),
        scopes=PORTALS,
        parameters=(_TENANT, _CALLBACK_STATE, _LIMIT, _NUMBER_CURSOR),
    ),
    Route(
        "POST",
        "/v1/callbacks/{number}/resend",
        "resend_callback",
        "Send a call-back again",
        {202: Answer("It will be sent as soon as possible.", "Callback")},
        (problems.NOT_FOUND, problems.CALLBACK_STATE),
        scopes=PORTALS,
        parameters=(_CALLBACK_NUMBER,),
    ),
    Route(
        "POST",
        "/v1/signals",
        "post_signal",
        "Send a signal to a bot",
        {
            202: Answer("The bot has it and trades it.", "Signal"),
            200: Answer("It was passed on before, and is not again; this is what became of it.", "Signal"),
        },
        (
            problems.SIGNATURE,
            problems.TOKEN,
            problems.SIGNAL_CONFLICT,
            problems.SIGNAL_REFUSED,
            problems.TOO_LARGE,
            problems.MEDIA,
            problems.SIGNAL_INVALID,
            problems.SIGNAL_STALE,
            problems.TOO_MANY_SIGNALS,
            problems.TOO_MANY_FAILURES,
            problems.UNAVAILABLE,
            problems.SIGNALS_UNAVAILABLE,
            problems.NO_ANSWER,
        ),
        auth=Auth.SIGNAL,
        parameters=(
            Parameter(
                _KEY_HEADER,
                _SIGNED + "the id of the token whose signing secret it is signed with.",
                {"type": "string", "pattern": "^[a-f0-9]{12}$"},
                "header",
                optional=True,
            ),
            Parameter(
                ID_HEADER,
                _SIGNED + "the signal's id.",
                {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
                "header",
                optional=True,
            ),
            Parameter(
                "webhook-timestamp",
                _SIGNED + "seconds since 1970 of this attempt.",
                {"type": "string", "pattern": "^[0-9]+$"},
                "header",
                optional=True,
            ),
        ),
        body="SignalBody",
        description="The token in the body, or the signature of a token's secret, says which bot it is for. An id is "
        "passed on once, whatever is sent again.",
        max_body_bytes=MAX_BODY_BYTES,
        media_types=("application/json", "text/plain"),
    ),
    Route(
        "POST",
        "/v1/tenants/{tenant}/bots/{bot}/signal-token",
        "create_signal_token",
        "Make a bot's new signal token",
        {201: Answer("The token, which is shown only now.", "NewSignalToken")},
        (problems.NOT_FOUND, problems.SIGNAL_REFUSED),
        scopes=PORTALS,
        parameters=(_TENANT_PATH, _BOT_PATH, _OVERLAP),
    ),
    Route(
        "GET",
        "/v1/tenants/{tenant}/bots/{bot}/signal-token",
        "list_signal_tokens",
        "List a bot's signal tokens, without their texts",
        {200: Answer("All of them; there are no further pages.", "SignalTokens")},
        (problems.NOT_FOUND,),
        scopes=EVERYBODY,
        parameters=(_TENANT_PATH, _BOT_PATH),
    ),
    Route(
        "GET",
        "/livez",
        "live",
        "Whether the process answers",
        {200: Answer("It does.", "Live")},
        auth=Auth.NOBODY,
    ),
    Route(
        "GET",
        "/readyz",
        "ready",
        "Whether events can be accepted and will be worked on",
        {200: Answer("They can.", "Ready"), 503: Answer("Not now; `checks` says why.", "Ready")},
        auth=Auth.NOBODY,
    ),
    Route(
        "GET",
        "/metrics",
        "show_metrics",
        "What the service counts",
        {200: Answer("Prometheus text format.", "Metrics", metrics.CONTENT_TYPE)},
        scopes=WATCHERS,
    ),
    Route(
        "GET",
        "/openapi.json",
        "show_openapi",
        "This description",
        {200: Answer("OpenAPI 3.1.", "OpenAPI")},
        auth=Auth.NOBODY,
    ),
)

# --- what answers ----------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """What is known about the request being answered; the log's line about it is made from this."""

    started: float
    address: str
    route: str = "-"
    token: Token | None = None
    signal_token: SignalToken | None = None
    event: str | None = None
    tenant: str | None = None
    problem: str | None = None
    path: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Services:
    """What the endpoints work with. ``checks`` are readiness's: each raises HummingfleetError if all is not well.

    ``stranger_limit`` is for senders of signals whom nobody knows: many customers can share the address of the platform
    that sends theirs, so those who are known are never refused for what others did.
    """

    settings: WebhookSettings
    catalogue: Catalogue
    journal: Journal
    outbox: Outbox
    verifier: Verifier
    tokens: TokenStore
    metrics: WebMetrics
    tenant_limit: RateLimiter
    failure_limit: RateLimiter
    secrets_file: SecretsFile
    signal_desk: SignalDesk
    signal_log: SignalLog
    signal_tokens: SignalTokens
    signal_limit: RateLimiter
    stranger_limit: RateLimiter
    clock: Callable[[], float]
    checks: Mapping[str, Callable[[], None]]
    openapi: bytes


class Views:
    """The endpoints, one method each, by the names in ``ROUTES``."""

    def __init__(self, services: Services) -> None:
        self._s = services
        self._readiness = Readiness(services.checks)

    def answer(self, route: Route, call: Call, path: Mapping[str, str]) -> Response:
        """The answer of an endpoint; raises Problem."""
        call.route = route.path
        with _as_problems():
            if route.auth is Auth.TOKEN:
                call.token = self._identify(call)
                if call.token.scope not in route.scopes:
                    raise Problem(
                        problems.NOT_ALLOWED,
                        f"a token of scope {call.token.scope} may not do this; "
                        f"{' and '.join(sorted(route.scopes))} may",
                    )
                call.path = _read_path(route, path)
                call.query = read_query(route, request.args.to_dict(flat=False))
            answer: Response = getattr(self, route.view)(call)
            return answer

    # - events -

    def post_event(self, call: Call) -> Response:
        """Takes an event in: nothing is parsed before its signature is known to be good."""
        _check_media_type(request, (_JSON,))
        _check_length(self._s.settings.max_body_bytes)
        self._check_failures(call)
        body = _read_body(self._s.settings.max_body_bytes)
        try:
            event_id, source = self._s.verifier.verify(request.headers, body)
        except SignatureError:
            self._s.failure_limit.take(access.limited_as(call.address))
            # One text for every reason: it must not help anybody to find out what a good signature looks like.
            raise Problem(
                problems.SIGNATURE,
                "the request is not signed as Standard Webhooks asks, with a secret of this fleet and a present time",
                headers={"WWW-Authenticate": "StandardWebhooks"},
            ) from None
        call.event = event_id
        event = parse_event(parse_json(body), self._s.catalogue)
        call.tenant = event.tenant
        logs.bind(event=event_id, tenant=event.tenant)
        wait = self._s.tenant_limit.take(event.tenant)
        if wait:
            raise problems.after(
                problems.TOO_MANY_EVENTS,
                f"tenant {event.tenant} may have {self._s.settings.tenant_events_per_minute} events per minute",
                wait,
            )
        acceptance = self._s.journal.accept(event, event_id=event_id, body=body, source=source)
        if acceptance.repeated:
            self._s.metrics.repeated.inc()
        else:
            self._s.metrics.accepted.labels(event.type).inc()
        url = f"/v1/events/{event_id}"
        return _json(
            {"event": acceptance.event.plain(), "status_url": url},
            200 if acceptance.repeated else 202,
            {"Location": url},
        )

    def list_events(self, call: Call) -> Response:
        """Events, newest first."""
        since, cursor = call.query.get("since"), call.query.get("cursor")
        page = self._s.journal.list(
            tenant=self._tenant_asked_for(call),
            state=call.query.get("state"),
            since=iso_time(since.timestamp()) if since is not None else None,
            after=str(cursor) if cursor is not None else None,
            limit=call.query.get("limit", _PAGE_DEFAULT),
        )
        return _page([event.plain() for event in page.items], page.next)

    def get_event(self, call: Call) -> Response:
        """One event."""
        event_id = call.path["event_id"]
        call.event = event_id
        event = self._s.journal.get(event_id)
        if not access.sees(_token(call), event.tenant):
            raise _not_found()
        call.tenant = event.tenant
        return _json(event.plain())

    def retry_event(self, call: Call) -> Response:
        """A failed event is tried again."""
        event_id = self._own_event(call)
        return _json(self._s.journal.retry(event_id, actor=_actor(call)).plain(), 202)

    def discard_event(self, call: Call) -> Response:
        """A failed event is given up for good."""
        event_id = self._own_event(call)
        return _json(self._s.journal.discard(event_id, actor=_actor(call)).plain())

    # - tenants -

    def list_tenants(self, call: Call) -> Response:
        """Tenants by id; for a token of one tenant just that."""
        own = _token(call).tenant
        if own is None:
            page = self._s.journal.tenants(after=call.query.get("cursor"), limit=call.query.get("limit", _PAGE_DEFAULT))
            return _page([_tenant_plain(tenant, call) for tenant in page.items], page.next)
        call.tenant = own
        try:
            return _page([_tenant_plain(self._s.journal.tenant_status(own), call)], None)
        except UnknownTenantError:
            return _page([], None)

    def get_tenant(self, call: Call) -> Response:
        """One tenant."""
        tenant = self._visible(call, call.path["tenant"])
        return _json(_tenant_plain(self._s.journal.tenant_status(tenant), call))

    # - call-backs -

    def list_callbacks(self, call: Call) -> Response:
        """Call-backs, newest first."""
        limit = call.query.get("limit", _PAGE_DEFAULT)
        found = self._s.outbox.list(
            self._tenant_asked_for(call), call.query.get("state"), call.query.get("cursor"), limit + 1
        )
        shown = found[:limit]
        return _page([one.plain() for one in shown], str(shown[-1].number) if len(found) > limit else None)

    def resend_callback(self, call: Call) -> Response:
        """A call-back is sent again."""
        number = call.path["number"]
        call.tenant = self._s.outbox.get(number).tenant
        if not access.sees(_token(call), call.tenant):
            raise _not_found()
        return _json(self._s.outbox.resend(number).plain(), 202)

    # - signals -

    def post_signal(self, call: Call) -> Response:
        """Passes a signal on to the bot whose token came with it, and answers what the bot said."""
        _check_media_type(request, (_JSON, "text/plain"))
        _check_length(MAX_BODY_BYTES)
        body = _read_body(MAX_BODY_BYTES)
        if request.headers.get(SIGNATURE_HEADER) is not None:
            sender, signed_id = self._signer(call, body)
            data = self._signal_json(body)
            if "token" in data:
                faults = [Fault("/token", "is there although the request is signed", "nothing", "signal.token")]
                raise _invalid(SignalError(faults))
        else:
            data, sender, signed_id = *self._bearer_of_signal(call, body), None
        call.signal_token, call.tenant = sender, sender.tenant
        logs.bind(tenant=sender.tenant)
        wait = self._s.signal_limit.take(f"{sender.tenant}/{sender.bot}")
        if wait:
            often = f"the bot may have {self._s.settings.signals_per_minute} signals per minute"
            raise problems.after(problems.TOO_MANY_SIGNALS, often, wait)
        try:
            signal = parse_signal(data, sender.bot, signed_id)
        except SignalError as error:
            raise _invalid(error) from None
        with _signal_problems(self._s.metrics):
            delivery = self._s.signal_desk.pass_on(sender, signal)
        self._s.metrics.signal("duplicate" if delivery.duplicate else delivery.record.outcome)
        return _json(_delivery_plain(delivery), 200 if delivery.duplicate else 202)

    def create_signal_token(self, call: Call) -> Response:
        """A new token; the bot's other ones end."""
        tenant, bot = self._bot(call)
        if request.content_length:
            # Somebody whose token has leaked must not believe that a body has ended it.
            raise Problem(problems.QUERY, "this request has no body: overlap_seconds belongs into the address")
        if not self._s.signal_log.receiver(tenant, bot).takes_signals:
            raise Problem(problems.SIGNAL_REFUSED, "the bot's strategy takes no signals", code="no_signals")
        self._s.secrets_file.secrets("signals")  # fails now rather than with a token that nobody was shown
        made = self._s.signal_tokens.create(tenant, bot, call.query.get("overlap_seconds", OVERLAP_SECONDS))
        now = self._s.clock()
        signing = signing_secrets(self._s.secrets_file, made.token, now)
        plain = {**made.token.plain(now), "token": made.text, "signing_secret": signing[-1] if signing else None}
        return _json(plain, 201)

    def list_signal_tokens(self, call: Call) -> Response:
        """A bot's tokens."""
        tenant, bot = self._bot(call)
        now = self._s.clock()
        return _page([token.plain(now) for token in self._s.signal_tokens.list(tenant, bot)], None)

    # - the service itself -

    def live(self, call: Call) -> Response:
        """The process answers."""
        return _json({"status": "ok"})

    def ready(self, call: Call) -> Response:
        """Whether events can be accepted and will be worked on."""
        found = self._readiness.look()
        ready = all(text == "ok" for text in found.values())
        headers = {} if ready else {"Retry-After": str(_RETRY_SECONDS)}
        return _json({"ready": ready, "checks": found}, 200 if ready else 503, headers)

    def show_metrics(self, call: Call) -> Response:
        """Counters and gauges, of the whole fleet."""
        if _token(call).tenant is not None:
            raise Problem(problems.NOT_ALLOWED, "a token of one tenant may not see numbers of the fleet")
        return Response(self._s.metrics.text(), content_type=metrics.CONTENT_TYPE)

    def show_openapi(self, call: Call) -> Response:
        """The service's description."""
        return Response(self._s.openapi, content_type=_JSON)

    # - inside -

    def _identify(self, call: Call) -> Token:
        self._check_failures(call)
        text = access.bearer(request.headers.get("Authorization"))
        token = self._s.tokens.check(text) if text is not None else None
        if token is not None:
            return token
        self._s.failure_limit.take(access.limited_as(call.address))
        known = 'Bearer realm="hummingfleet"'
        if request.headers.get("Authorization") is None:
            raise Problem(problems.TOKEN, "this needs a bearer token", headers={"WWW-Authenticate": known})
        raise Problem(
            problems.TOKEN,
            "the token is unknown, has expired or was revoked",
            headers={"WWW-Authenticate": f'{known}, error="invalid_token"'},
        )

    def _check_failures(self, call: Call) -> None:
        wait = self._s.failure_limit.wait(access.limited_as(call.address))
        if wait:
            raise problems.after(
                problems.TOO_MANY_FAILURES,
                f"an address may send {self._s.settings.failures_per_minute} refused signatures and tokens per minute",
                wait,
            )

    def _signer(self, call: Call, body: bytes) -> tuple[SignalToken, str]:
        """Whose token's secret the request is signed with, and the id that was signed."""
        sender = self._s.signal_tokens.find(request.headers.get(_KEY_HEADER, ""))
        now = self._s.clock()
        try:
            if sender is None:
                raise SignatureError("there is no such token")
            return sender, verify(signing_secrets(self._s.secrets_file, sender, now), request.headers, body, now)
        except SignatureError:
            text = "the signal is not signed as Standard Webhooks asks, with a signal token's secret and a present time"
            known = {"WWW-Authenticate": "StandardWebhooks"}
            raise self._stranger(call, Problem(problems.SIGNATURE, text, headers=known)) from None

    def _bearer_of_signal(self, call: Call, body: bytes) -> tuple[Mapping[str, Any], SignalToken]:
        """What the body says, and whose token is in it."""
        try:
            data = self._signal_json(body)
        except Problem as problem:
            raise self._stranger(call, problem) from None
        text = data.get("token")
        sender = self._s.signal_tokens.check(text) if isinstance(text, str) else None
        if sender is None:
            text = "the signal's token is missing, unknown, was replaced or revoked"
            raise self._stranger(call, Problem(problems.TOKEN, text))
        return data, sender

    def _stranger(self, call: Call, problem: Problem) -> Problem:
        """What somebody is told who has not shown to be anybody: the problem, unless there were too many of them."""
        wait = self._s.stranger_limit.take(access.limited_as(call.address))
        if not wait:
            return problem
        often = f"an address may send {self._s.settings.failures_per_minute} signals without a good token per minute"
        return problems.after(problems.TOO_MANY_FAILURES, often, wait)

    def _signal_json(self, body: bytes) -> Mapping[str, Any]:
        try:
            return decode_json(body)
        except StrictJsonError as error:
            faults = [Fault("", str(error), "one JSON object in UTF-8 (RFC 8259)", "signal.json")]
            raise _invalid(SignalError(faults)) from None

    def _bot(self, call: Call) -> tuple[str, str]:
        """The tenant and the bot in the path, if there is such a bot and the token may know of it."""
        tenant, bot = self._visible(call, call.path["tenant"]), call.path["bot"]
        if not any(one.bot == bot for one in self._s.journal.tenant_status(tenant).bots):
            raise _not_found()
        return tenant, bot

    def _visible(self, call: Call, tenant: str) -> str:
        """``tenant``, if the token may know of it."""
        if not access.sees(_token(call), tenant):
            raise _not_found()
        call.tenant = tenant
        return tenant

    def _tenant_asked_for(self, call: Call) -> str | None:
        """The tenant whose things to list; None: of all, which a token of one tenant cannot ask for."""
        asked: str | None = call.query.get("tenant", _token(call).tenant)
        return None if asked is None else self._visible(call, asked)

    def _own_event(self, call: Call) -> str:
        """The id of the event in the path, if the token may know of it."""
        event_id: str = call.path["event_id"]
        call.event = event_id
        tenant = self._s.journal.get(event_id).tenant
        if not access.sees(_token(call), tenant):
            raise _not_found()
        call.tenant = tenant
        return event_id


class Readiness:
    """Looks at the checks, at most every ``seconds``: anybody may ask, and looking costs the registry something."""

    def __init__(self, checks: Mapping[str, Callable[[], None]], seconds: float = 1.0) -> None:
        self._checks = checks
        self._seconds = seconds
        self._found: dict[str, str] = {}
        self._at = -math.inf
        self._lock = threading.Lock()

    def look(self) -> dict[str, str]:
        """By name ``ok``, or in a few words what is wrong."""
        with self._lock:
            if time.monotonic() - self._at >= self._seconds:
                self._found = {name: self._check(check) for name, check in self._checks.items()}
                self._at = time.monotonic()
            return dict(self._found)

    def _check(self, check: Callable[[], None]) -> str:
        try:
            check()
        except NotReadyError as error:
            return str(error)
        except HummingfleetError as error:
            # The error's own text names paths and hosts; whoever may read the log finds it there.
            _LOG.warning("not ready: %s", error)
            return "failed"
        return "ok"


class NotReadyError(HummingfleetError):
    """Something is missing; the text may be shown to anybody."""


def parse_json(body: bytes) -> Mapping[str, Any]:
    """The JSON object in ``body``; raises Problem (422). Its values, number and depth are judged with the event."""
    try:
        return decode_json(body)
    except StrictJsonError as error:
        raise _not_json(str(error)) from None


def decode_json(body: bytes) -> Mapping[str, Any]:
    """The JSON object in ``body``; raises StrictJsonError.

    UTF-8 and no key twice, so that nobody reads it differently.
    """
    try:
        value = _DECODER.decode(body.decode())
    except StrictJsonError:
        raise
    except UnicodeError:
        raise StrictJsonError("the text is not UTF-8") from None
    except RecursionError:
        raise StrictJsonError("there are far too many levels") from None
    except json.JSONDecodeError as error:
        raise StrictJsonError(f"{error.msg} at character {error.pos}") from None
    except ValueError:  # a whole number of thousands of digits
        raise StrictJsonError("there is a number that is too long") from None
    if not isinstance(value, dict):
        raise StrictJsonError("the body is no JSON object")
    return value


class StrictJsonError(ValueError):
    """What was sent is no JSON, or JSON that different programs read differently."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise StrictJsonError("a key is there twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs)


def _not_json(problem: str) -> Problem:
    return problems.refused([Fault("", problem, "one JSON object in UTF-8 (RFC 8259)", "event.json")])


def _check_media_type(asked: Request, allowed: tuple[str, ...]) -> None:
    """Nothing if the body says that it is of an allowed type in UTF-8, as it is."""
    given = asked.environ.get("CONTENT_TYPE", "")
    plain = given in allowed or (
        asked.mimetype in allowed
        and all(k == "charset" and v.lower() == "utf-8" for k, v in asked.mimetype_params.items())
    )
    if not plain or "HTTP_CONTENT_ENCODING" in asked.environ:
        raise Problem(problems.MEDIA, f"the body has to be {' or '.join(allowed)}, in UTF-8 and not compressed")


def _check_length(largest: int) -> None:
    """Nothing if the body says that it has at most so many bytes, or says nothing."""
    if (request.content_length or 0) > largest:
        raise _too_large(largest)


def _read_body(largest: int) -> bytes:
    """The body; raises Problem if it has more bytes than that."""
    body = request.get_data(cache=False)
    if len(body) > largest:  # one whose length nobody declared
        raise _too_large(largest)
    return body


def _too_large(largest: int) -> Problem:
    return Problem(problems.TOO_LARGE, f"the body may have {largest} bytes at most")


def _read_path(route: Route, given: Mapping[str, str]) -> dict[str, Any]:
    """The values in the path by name; what cannot be one is not found."""
    try:
        return {
            parameter.name: parameter.read(given[parameter.name])
            for parameter in route.parameters
            if parameter.place == "path"
        }
    except ValueError:
        raise _not_found() from None


def _token(call: Call) -> Token:
    assert call.token is not None  # routes with Auth.TOKEN only
    return call.token


def _actor(call: Call) -> str:
    return f"token {_token(call).id}"


def _tenant_plain(status: TenantStatus, call: Call) -> dict[str, Any]:
    """The tenant as the caller may see it: what a failure says to operators is theirs."""
    plain = status.plain()
    if plain["failure"] is not None and _token(call).scope != "operator":
        plain["failure"] = {name: value for name, value in plain["failure"].items() if name != "message"}
    return plain


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, content_type=_JSON)


def _page(items: list[dict[str, Any]], following: str | None) -> Response:
    return _json({"items": items, "next": following})


def _not_found() -> Problem:
    return Problem(problems.NOT_FOUND, "there is no such thing, or not for this token")


@contextlib.contextmanager
def _as_problems() -> Iterator[None]:
    """What the parts below raise, as what the caller is told."""
    try:
        yield
    except FaultsError as error:
        raise problems.refused(error.faults) from None
    except (PlacementError, AddressError) as error:
        # What each node lacks is the operator's business.
        _LOG.error("an event was refused for want of room: %s", error)
        fault = Fault("/data", "the fleet has no room for this", "it again when the operator has made room", "capacity")
        raise problems.refused([fault]) from None
    except EventConflictError:
        raise Problem(
            problems.EVENT_CONFLICT, "this id belongs to an event with another body; a new event needs a new id"
        ) from None
    except SequenceError as error:
        raise Problem(problems.SEQUENCE, str(error)) from None
    except EventStateError as error:
        raise Problem(problems.EVENT_STATE, str(error)) from None
    except CallbackStateError as error:
        raise Problem(problems.CALLBACK_STATE, str(error)) from None
    except (UnknownEventError, UnknownTenantError, UnknownCallbackError):
        raise _not_found() from None
    except (RegistryError, SecretsError) as error:
        _LOG.error("not available: %s", error)
        raise problems.after(
            problems.UNAVAILABLE, "the service cannot do this now; nothing was stored", _RETRY_SECONDS
        ) from None


@contextlib.contextmanager
def _signal_problems(counted: WebMetrics) -> Iterator[None]:
    """What becomes of signals that are not accepted, as what the sender is told, and counted."""
    try:
        yield
    except SignalConflictError as error:
        raise Problem(problems.SIGNAL_CONFLICT, str(error)) from None
    except SignalRefusedError as error:
        counted.signal(error.code)
        raise Problem(problems.SIGNAL_REFUSED, str(error), code=error.code) from None
    except StaleSignalError as error:
        counted.signal("stale")
        raise Problem(problems.SIGNAL_STALE, str(error)) from None
    except NoAnswerError as error:
        counted.signal("unknown")
        raise Problem(problems.NO_ANSWER, str(error)) from None
    except BusyError as error:
        counted.signal("busy")
        raise problems.after(problems.SIGNALS_UNAVAILABLE, str(error), 1, code="busy") from None
    except BusError as error:
        counted.signal(error.code)
        _LOG.error("a signal could not be passed on: %s", error)
        # Where the broker is, and what it said, is the operator's business.
        text = {
            "no_broker": "the operator has set up no broker for the bot's node, so signals cannot be passed on",
            "broker_unreachable": "the broker of the bot's node is not reached now; nothing was passed on",
        }[error.code]
        raise problems.after(problems.SIGNALS_UNAVAILABLE, text, _RETRY_SECONDS, code=error.code) from None


def _invalid(error: SignalError) -> Problem:
    number = "one fault" if len(error.faults) == 1 else f"{len(error.faults)} faults"
    return Problem(problems.SIGNAL_INVALID, f"the signal has {number}", faults=error.faults)


def _delivery_plain(delivery: Delivery) -> dict[str, Any]:
    record = delivery.record
    return {
        "tenant": record.tenant,
        "bot": record.bot,
        "id": record.id,
        "action": record.action,
        "outcome": record.outcome,
        "accepted": record.accepted,
        "reason": record.reason,
        "duplicate": delivery.duplicate,
        "received_at": record.received_at,
        "expires_at": record.expires_at,
    }
