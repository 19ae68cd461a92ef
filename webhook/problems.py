# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the web service answers when it cannot do what was asked: RFC 9457 problems, each of a documented kind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from flask import Response

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:hummingfleet:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: ``name`` for programs, ``title`` the same for every occurrence, ``meaning`` for developers."""

    name: str
    status: int
    title: str
    meaning: str

    @property
    def uri(self) -> str:
        """The problem's ``type``."""
        return _TYPE_PREFIX + self.name


MALFORMED = Kind("malformed", 400, "Malformed request", "The request is no HTTP that can be answered.")
QUERY = Kind(
    "query", 400, "Query refused", "A query parameter is unknown or its value is not allowed; `faults` names each."
)
SIGNATURE = Kind(
    "signature",
    401,
    "Signature not accepted",
    "A header is missing, the signature fits no secret, or the timestamp is not of now. The answer never says which.",
)
TOKEN = Kind("token", 401, "Token not accepted", "No bearer token, or one that is unknown, expired or revoked.")
NOT_ALLOWED = Kind("not-allowed", 403, "Not allowed", "Who asks is known and may not do this.")
NOT_FOUND = Kind("not-found", 404, "Not found", "There is no such thing, or not for this token.")
METHOD = Kind("method", 405, "Method not allowed", "The path exists; the header `Allow` has its methods.")
EVENT_CONFLICT = Kind(
    "event-conflict", 409, "Another event has this id", "The id was used before, for an event with another body."
)
SEQUENCE = Kind(
    "sequence", 409, "Out of sequence", "The tenant's last accepted event has this sequence number or a higher one."
)
EVENT_STATE = Kind(
    "event-state", 409, "Not in that state", "Only an event that has failed can be retried or discarded."
)
CALLBACK_STATE = Kind(
    "callback-state", 409, "Not in that state", "The call-back is still waiting for its first attempt."
)
TOO_LARGE = Kind("too-large", 413, "Body too large", "The body is larger than the service accepts.")
MEDIA = Kind("media-type", 415, "Media type not accepted", "The body has to be `application/json`, not compressed.")
REFUSED = Kind(
    "refused", 422, "Event refused", "The event cannot be applied. Nothing was stored; `faults` names each fault."
)
TOO_MANY_EVENTS = Kind(
    "too-many-events", 429, "Too many events", "The tenant has used up its events; `Retry-After` says how long."
)
TOO_MANY_FAILURES = Kind(
    "too-many-failures",
    429,
    "Too many refused requests",
    "This address sent too many wrong signatures or tokens; `Retry-After` says how long it has to wait.",
)
INTERNAL = Kind("internal", 500, "Internal error", "Our fault. The log has the details under the id in `instance`.")
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "Not available now",
    "The registry is busy or cannot be reached. Nothing was stored; send again.",
)

KINDS: tuple[Kind, ...] = (
    MALFORMED,
    QUERY,
    SIGNATURE,
    TOKEN,
    NOT_ALLOWED,
    NOT_FOUND,
    METHOD,
    EVENT_CONFLICT,
    SEQUENCE,
    EVENT_STATE,
    CALLBACK_STATE,
    TOO_LARGE,
    MEDIA,
    REFUSED,
    TOO_MANY_EVENTS,
    TOO_MANY_FAILURES,
    INTERNAL,
    UNAVAILABLE,
)


class Problem(Exception):
    """Ends a request with a problem; ``detail`` is a sentence for its sender, ``instance`` names this occurrence."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        faults: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
        instance: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.instance = instance

    def plain(self) -> dict[str, Any]:
        """The problem as its JSON says it."""
        plain: dict[str, Any] = {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.instance is not None:
            plain["instance"] = self.instance
        if self.faults:
            plain["faults"] = [fault.plain() for fault in self.faults]
        return plain

    def response(self) -> Response:
        """The problem as an answer."""
        return Response(json.dumps(self.plain()), self.kind.status, self.headers, mimetype=MEDIA_TYPE)


def after(kind: Kind, detail: str, seconds: float) -> Problem:
    """A problem that passes; the sender is told to come back after ``seconds``."""
    return Problem(kind, detail, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def refused(faults: Iterable[Fault]) -> Problem:
    """An event that cannot be applied."""
    found = tuple(faults)
    number = "one fault" if len(found) == 1 else f"{len(found)} faults"
    return Problem(REFUSED, f"the event has {number}; nothing was stored", faults=found)
