# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an endpoint is, declared once: the service routes and reads requests by it, and describes itself with it."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, pointer

from . import callbacks, problems, signals
from .problems import Kind
from .text import read_time, shown
from .tokens import Scope

_PROBLEM = "Problem"
_SHOWN_MAX = 80

Schema = Mapping[str, Any]


class Auth(enum.Enum):
    """How a caller of an endpoint shows who it is."""

    NOBODY = "nobody"
    SIGNATURE = "signature"
    TOKEN = "token"  # noqa: S105  the name of a way, not a token
    SIGNAL = "signal"  # a token in the body, or a signature


@dataclass(frozen=True)
class Parameter:
    """A value in the path or the query, with a schema of one of the forms that ``read`` understands."""

    name: str
    description: str
    schema: Schema
    place: str = "query"
    optional: bool = False

    def read(self, text: str) -> Any:
        """The value that ``text`` stands for; raises ValueError with what is allowed."""
        schema = self.schema
        if schema["type"] == "integer":
            low, high = schema["minimum"], schema["maximum"]
            if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
                raise ValueError(f"a whole number from {low} to {high}")
            return int(text)
        if "enum" in schema:
            if text not in schema["enum"]:
                raise ValueError(", ".join(schema["enum"]))
        elif schema.get("format") == "date-time":
            return read_time(text)
        elif not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), text, re.ASCII):
            raise ValueError(schema.get("title", f"text that matches {schema['pattern']}"))
        return text


@dataclass(frozen=True)
class Answer:
    """An answer that is not a problem: what it means, and the schema of its body by name."""

    meaning: str
    schema: str
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """An endpoint. ``path`` is written as OpenAPI writes it; ``view`` is the function's name in ``views.Views``."""

    method: str
    path: str
    view: str
    summary: str
    answers: Mapping[int, Answer]
    kinds: tuple[Kind, ...] = ()
    auth: Auth = Auth.TOKEN
    scopes: frozenset[Scope] = frozenset()
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    description: str = ""
    max_body_bytes: int | None = None  # default: the setting
    media_types: tuple[str, ...] = ("application/json",)

    @property
    def query(self) -> dict[str, Parameter]:
        """The parameters of the query by name."""
        return {parameter.name: parameter for parameter in self.parameters if parameter.place == "query"}

    @property
    def problem_kinds(self) -> tuple[Kind, ...]:
        """Every kind of problem that the endpoint can answer with."""
        always = [problems.MALFORMED, problems.INTERNAL]
        if self.auth is Auth.TOKEN:
            always += [
                problems.TOKEN,
                problems.NOT_ALLOWED,
                problems.TOO_MANY_FAILURES,
                problems.QUERY,
                problems.UNAVAILABLE,
            ]
        return tuple(kind for kind in problems.KINDS if kind in always or kind in self.kinds)


def read_query(route: Route, given: Mapping[str, list[str]]) -> dict[str, Any]:
    """The query's values by name, read as the route declares them; raises Problem with every fault."""
    if not given:
        return {}
    declared = route.query
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, texts in given.items():
        where = pointer(shown(name[:_SHOWN_MAX]))
        parameter = declared.get(name)
        if parameter is None:
            faults.append(Fault(where, "is no parameter", ", ".join(declared) or "none", "query.unknown"))
        elif len(texts) > 1:
            faults.append(Fault(where, "is there more than once", "one value", "query.repeated"))
        else:
            try:
                values[name] = parameter.read(texts[0])
            except ValueError as error:
                faults.append(Fault(where, f"{shown(texts[0][:_SHOWN_MAX])!r} is refused", str(error), "query.value"))
    if faults:
        raise problems.Problem(problems.QUERY, "the query is refused", faults=faults)
    return values


def document(
    routes: Iterable[Route],
    *,
    event_schema: Schema,
    examples: Mapping[str, Mapping[str, Schema]],
    version: str,
    max_body_bytes: int,
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``routes``; ``event_schema`` is the schema of an event's body (JSON Schema).

    ``examples`` are those of bodies, by the name of their schema.
    """
    schemas: dict[str, Any] = {name: dict(schema) for name, schema in SCHEMAS.items()}
    schemas |= _components("EventBody", event_schema)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route)
        if route.body is not None:
            content = {
                "schema": _reference(route.body),
                "examples": {name: {"value": dict(example)} for name, example in examples[route.body].items()},
            }
            operation["requestBody"] = {
                "required": True,
                "description": f"At most {route.max_body_bytes or max_body_bytes} bytes.",
                "content": {
                    media_type: content if media_type == "application/json" else _text_of(route.body)
                    for media_type in route.media_types
                },
            }
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hummingfleet",
            "version": version,
            "description": (
                "Takes a portal's signed events, answers for what became of them, and says what tenants' bots do. "
                "Errors are problems after RFC 9457."
            ),
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that the operator made; its scope is portal, operator or read-only.",
                },
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": "Standard Webhooks: HMAC-SHA256 over id, timestamp and the raw body.",
                },
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.view, "summary": route.summary}
    scopes = sorted(route.scopes)
    description = [route.description] if route.description else []
    if route.auth is Auth.TOKEN:
        description.append(f"Scopes: {', '.join(scopes)}.")
    if description:
        operation["description"] = " ".join(description)
    operation["security"] = {
        Auth.NOBODY: [{}],
        Auth.SIGNATURE: [{"signature": []}],
        Auth.TOKEN: [{"token": []}],
        Auth.SIGNAL: [{}, {"signature": []}],
    }[route.auth]
    parameters = [
        {
            "name": parameter.name,
            "in": parameter.place,
            "required": parameter.place != "query" and not parameter.optional,
            "description": parameter.description,
            "schema": dict(parameter.schema),
        }
        for parameter in route.parameters
    ]
    if parameters:
        operation["parameters"] = parameters
    responses: dict[str, Any] = {}
    for status, answer in route.answers.items():
        responses[str(status)] = {
            "description": answer.meaning,
            "content": {answer.media_type: {"schema": _reference(answer.schema)}},
        }
        if answer.headers:
            responses[str(status)]["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
            }
    by_status: dict[int, list[Kind]] = {}
    for kind in route.problem_kinds:
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        meaning = " ".join(f"`{kind.uri}`: {kind.meaning}" for kind in kinds)
        content = {problems.MEDIA_TYPE: {"schema": _reference(_PROBLEM)}}
        if str(status) in responses:  # readiness: the same status, said in two ways
            responses[str(status)]["content"] |= content
            responses[str(status)]["description"] += f" {meaning}"
        else:
            responses[str(status)] = {"description": meaning, "content": content}
        if status in (429, 503):
            responses[str(status)].setdefault("headers", {})["Retry-After"] = {
                "description": "After how many seconds it is worth trying again.",
                "schema": {"type": "integer", "minimum": 1},
            }
    operation["responses"] = responses
    return operation


def _components(name: str, schema: Schema) -> dict[str, Any]:
    """``schema`` as components: its own definitions stand beside it, and its references point there."""

    def moved(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: target(value) if key == "$ref" else moved(value) for key, value in part.items()}
        return [moved(one) for one in part] if isinstance(part, (list, tuple)) else part

    def target(reference: str) -> str:
        return reference.replace("#/$defs/", "#/components/schemas/", 1)

    definitions = {key: moved(value) for key, value in schema.get("$defs", {}).items()}
    clashes = definitions.keys() & (SCHEMAS.keys() | {name})
    if clashes:
        raise ValueError(f"the schema of events defines {', '.join(sorted(clashes))}, which the service has already")
    return {name: moved({key: value for key, value in schema.items() if key not in ("$defs", "$schema")})} | definitions


def _text_of(name: str) -> dict[str, Any]:
    """The same JSON, sent as text."""
    return {"schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": _reference(name)}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# --- schemas of answers ----------------------------------------------------------------------------------------------


def _object(properties: Mapping[str, Schema], *, optional: Iterable[str] = (), description: str = "") -> Schema:
    made: dict[str, Any] = {"type": "object"}
    if description:
        made["description"] = description
    made["properties"] = {name: dict(schema) for name, schema in properties.items()}
    made["required"] = [name for name in properties if name not in set(optional)]
    made["additionalProperties"] = False
    return made


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _page(item: str, description: str) -> Schema:
    return _object(
        {
            "items": {"type": "array", "items": _reference(item)},
            "next": {"type": ["string", "null"], "description": "The parameter `cursor` of the next page; null: none."},
        },
        description=description,
    )


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer", "minimum": 0}
_TIME: Schema = {"type": "string", "format": "date-time"}
_DATE: Schema = {"type": "string", "format": "date"}
EVENT_STATES = ("accepted", "applied", "failed", "discarded")
TENANT_WORK = ("idle", "waiting", "running", "retrying", "failed")
CALLBACK_STATES = callbacks.STATES
_SIGNAL_TOKEN: Mapping[str, Schema] = {
    "id": {**_TEXT, "description": "Public: a sender who signs names it."},
    "tenant": _TEXT,
    "bot": _TEXT,
    "generation": {**_NUMBER, "description": "Counts the bot's tokens."},
    "created_at": _TIME,
    "expires_at": {**_or_null(_TIME), "description": "When it ends, since there is a newer one; null: it does not."},
    "revoked_at": _or_null(_TIME),
    "state": {"type": "string", "enum": ["valid", "expired", "revoked"]},
}

SCHEMAS: Mapping[str, Schema] = {
    _PROBLEM: _object(
        {
            "type": {"type": "string", "enum": [kind.uri for kind in problems.KINDS]},
            "title": _TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {**_TEXT, "description": "What is wrong this time, for people."},
            "instance": {**_TEXT, "description": "Names this occurrence; tell the operator."},
            "code": {**_TEXT, "description": "Which of the kind's reasons it is, for programs."},
            "faults": {"type": "array", "minItems": 1, "items": _reference("Fault")},
        },
        optional=("instance", "code", "faults"),
        description="Why a request was not answered as asked (RFC 9457).",
    ),
    "Fault": _object(
        {
            "pointer": {
                **_TEXT,
                "description": "JSON pointer (RFC 6901) to what is at fault, in the body or the query.",
            },
            "problem": {**_TEXT, "description": "What is wrong with it."},
            "allowed": {**_TEXT, "description": "What would be accepted."},
            "rule": {**_TEXT, "description": "The stable name of the rule that refused it, for programs."},
        },
        description="One thing that is wrong.",
    ),
    "Event": _object(
        {
            "id": {**_TEXT, "description": "The header `webhook-id` it came with."},
            "number": {**_NUMBER, "description": "Grows with every accepted event."},
            "tenant": _TEXT,
            "type": _TEXT,
            "state": {
                "type": "string",
                "enum": list(EVENT_STATES),
                "description": "accepted: stored, being applied; applied: the tenant's stack matches; failed: given up "
                "until it is retried or a newer event is applied; discarded: given up for good.",
            },
            "code": {**_or_null(_TEXT), "description": "Of a failure, for programs."},
            "reason": {**_or_null(_TEXT), "description": "Of a failure, for people; a tenant's user may read it."},
            "revision": {**_NUMBER, "description": "The revision of the tenant's document that holds the event."},
            "changed": {"type": "boolean", "description": "Whether the document became another one."},
            "sequence": _or_null(_NUMBER),
            "timestamp": {**_TIME, "description": "When it happened, after its sender."},
            "received_at": _TIME,
            "finished_at": _or_null(_TIME),
            "attempts": {**_NUMBER, "description": "Runs that tried to apply it."},
            "source": {**_TEXT, "description": "Who signed it."},
        },
        description="An event and what became of it.",
    ),
    "Accepted": _object(
        {"event": _reference("Event"), "status_url": {**_TEXT, "description": "Where its state can be read."}},
        description="An event that is stored.",
    ),
    "Events": _page("Event", "Events, newest first."),
    "Bot": _object(
        {
            "bot": {**_TEXT, "description": "The bot's id."},
            "name": _TEXT,
            "trading_pair": _TEXT,
            "strategy_template": _TEXT,
            "wanted": {**_TEXT, "description": "The state that was asked for."},
            "state": {**_TEXT, "description": "The state it was last seen in; unknown before that."},
            "seen_at": _or_null(_TIME),
            "facts": {
                "type": "object",
                "description": "What its last heartbeat said: open orders, fills, position ...",
                "properties": {
                    "halted": {
                        "type": ["object", "null"],
                        "description": "Why it stopped trading by itself: code, message, at (epoch seconds).",
                    },
                    "risk": {
                        "type": ["object", "null"],
                        "description": "Its money in the asset `quote`, as decimal text: `day_pnl` (result of the UTC "
                        "day `day`), `pnl` (all of it), `equity` (capital and result), `position` (what it holds is "
                        "worth). `counted_pnl` counts for the tenant's day: its result since the day's first report, "
                        "also where it was resumed since; `earlier_usd` too: what it lost or won earlier that day "
                        "in other markets than `market`.",
                    },
                },
            },
        },
        description="A bot: what is wanted, and what it does.",
    ),
    "Failure": _object(
        {
            "code": _TEXT,
            "reason": {**_TEXT, "description": "For people; a tenant's user may read it."},
            "message": {**_TEXT, "description": "For operators, and shown to no other scope."},
            "revision": _NUMBER,
            "at": _TIME,
        },
        optional=("message",),
        description="Why the tenant's stack could not be brought to its desired state.",
    ),
    "RiskHalt": _object(
        {
            "limit": {**_TEXT, "description": "The limit that was reached."},
            "day": {**_DATE, "description": "The UTC day whose losses reached it."},
            "value": {"type": "number", "description": "The day's loss at that moment, in US dollars."},
            "threshold": {"type": "number", "description": "The loss that was allowed, in US dollars."},
            "at": _TIME,
            "lifted_at": {**_or_null(_TIME), "description": "When an operator lifted it; null: nobody has."},
            "until": {**_TIME, "description": "From then on bots can be started again."},
        },
        description="All bots of the tenant are stopped until the day has ended.",
    ),
    "TenantRiskStatus": _object(
        {
            "day": {**_DATE, "description": "The UTC day of now."},
            "pnl_usd": {**_TEXT, "description": "What all bots won (negative: lost) on that day, in US dollars."},
            "limit_usd": {**_or_null(_TEXT), "description": "What they may lose in a day; null: there is no limit."},
            "halt": {"anyOf": [_reference("RiskHalt"), {"type": "null"}]},
        },
        description="The UTC day of all the tenant's bots together, as they were last seen.",
    ),
    "Tenant": _object(
        {
            "tenant": _TEXT,
            "state": {"type": "string", "enum": ["active", "suspended", "terminated"]},
            "plan": _TEXT,
            "release": _TEXT,
            "node": _TEXT,
            "ring": _TEXT,
            "subdomain": _TEXT,
            "revision": {**_NUMBER, "description": "The latest revision of its document: what is desired."},
            "applied_revision": {**_NUMBER, "description": "The revision that its stack was last brought to."},
            "updated_at": _TIME,
            "work": {"type": "string", "enum": list(TENANT_WORK)},
            "retry_at": _or_null(_TIME),
            "failure": {"anyOf": [_reference("Failure"), {"type": "null"}]},
            "bots": {"type": "array", "items": _reference("Bot")},
            "risk": _reference("TenantRiskStatus"),
        },
        description="A tenant: desired and applied revision, and what its bots do.",
    ),
    "Tenants": _page("Tenant", "Tenants by id."),
    "Callback": _object(
        {
            "number": _NUMBER,
            "id": {**_TEXT, "description": "The header `webhook-id` it is sent with, every time the same."},
            "tenant": _TEXT,
            "type": _TEXT,
            "state": {
                "type": "string",
                "enum": list(CALLBACK_STATES),
                "description": "given_up: not accepted for a day; it can be sent again.",
            },
            "attempts": _NUMBER,
            "next_attempt_at": _or_null(_TIME),
            "created_at": _TIME,
            "delivered_at": _or_null(_TIME),
            "last_error": {**_or_null(_TEXT), "description": "Why the last attempt failed."},
            "body": {"type": "object", "description": "What is sent."},
        },
        description="A message to the portal.",
    ),
    "Callbacks": _page("Callback", "Call-backs, newest first."),
    "SignalBody": signals.BODY_SCHEMA,
    "Signal": _object(
        {
            "tenant": _TEXT,
            "bot": _TEXT,
            "id": _TEXT,
            "action": {"type": "string", "enum": list(signals.ACTIONS)},
            "outcome": {
                **_TEXT,
                "description": "`accepted`; why the bot refused it; `waiting`: it has not answered yet; `unknown`: it "
                "has not answered before the signal expired, and may have traded it.",
            },
            "accepted": {"type": ["boolean", "null"], "description": "Whether the bot has taken it; null: not known."},
            "reason": {**_TEXT, "description": "The outcome in words."},
            "duplicate": {"type": "boolean", "description": "It was passed on before, and not again."},
            "received_at": _TIME,
            "expires_at": {**_TIME, "description": "The bot does not trade it later."},
        },
        description="A signal and what became of it.",
    ),
    "SignalToken": _object(_SIGNAL_TOKEN, description="A token that signals for one bot come with; never its text."),
    "SignalTokens": _page("SignalToken", "A bot's signal tokens, newest first, also those that have ended."),
    "NewSignalToken": _object(
        {
            **_SIGNAL_TOKEN,
            "token": {**_TEXT, "description": "Its text, which nobody can be shown again."},
            "signing_secret": {
                **_or_null(_TEXT),
                "description": "What a sender signs with who does not show the token; null if this fleet has none.",
            },
        },
        description="A new signal token.",
    ),
    "Live": _object({"status": {"const": "ok"}}, description="The process answers."),
    "Ready": _object(
        {
            "ready": {"type": "boolean"},
            "checks": {
                "type": "object",
                "description": "By name what was looked at; `ok` or what is wrong.",
                "additionalProperties": {"type": "string"},
            },
        },
        description="Whether events can be accepted and will be worked on.",
    ),
    "Metrics": {"type": "string", "description": "Prometheus text format."},
    "OpenAPI": {"type": "object", "description": "This document."},
}
