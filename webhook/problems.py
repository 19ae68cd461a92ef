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
TOKEN = Kind("token", 401, "Token not accepted", "No token, or one that is unknown, expired or revoked.")
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
SIGNAL_CONFLICT = Kind(
    "signal-conflict",
    409,
    "Another signal has this id",
    "The id was used before, for a signal that said something else.",
)
SIGNAL_REFUSED = Kind(
    "signal-refused",
    409,
    "Signal refused",
    "The bot cannot or will not trade it now; `code` says why. Nothing is traded.",
)
TOO_LARGE = Kind("too-large", 413, "Body too large", "The body is larger than the service accepts.")
MEDIA = Kind(
    "media-type",
    415,
    "Media type not accepted",
    "The body has to be `application/json` (a signal's also `text/plain`), in UTF-8 and not compressed.",
)
REFUSED = Kind(
    "refused", 422, "Event refused", "The event cannot be applied. Nothing was stored; `faults` names each fault."
)
SIGNAL_INVALID = Kind(
    "signal-invalid", 422, "Signal not valid", "The body is no signal for the token's bot; `faults` names each fault."
)
SIGNAL_STALE = Kind(
    "signal-stale",
    422,
    "Signal too old or in the future",
    "It was sent longer ago than the bot allows, or in the future. Nothing is traded.",
)
TOO_MANY_EVENTS = Kind(
    "too-many-events", 429, "Too many events", "The tenant has used up its events; `Retry-After` says how long."
)
TOO_MANY_SIGNALS = Kind(
    "too-many-signals", 429, "Too many signals", "The bot has used up its signals; `Retry-After` says how long."
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
SIGNALS_UNAVAILABLE = Kind(
    "signals-unavailable",
    503,
    "Signals cannot be passed on now",
    "Nothing was passed on; send it again while it is fresh. `code`: `no_broker` (the operator has set none up for the "
    "bot's node), `broker_unreachable`, `busy` (too many signals wait).",
)
NO_ANSWER = Kind(
    "signal-unanswered",
    504,
    "No answer from the bot",
    "The bot may have taken the signal. It cannot trade it after the time in `detail`; the same id again tells the "
    "outcome.",
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
    SIGNAL_CONFLICT,
    SIGNAL_REFUSED,
    TOO_LARGE,
    MEDIA,
    REFUSED,
    SIGNAL_INVALID,
    SIGNAL_STALE,
    TOO_MANY_EVENTS,
    TOO_MANY_SIGNALS,
    TOO_MANY_FAILURES,
    INTERNAL,
    UNAVAILABLE,
    SIGNALS_UNAVAILABLE,
    NO_ANSWER,
)


class Problem(Exception):
    """Ends a request with a problem; ``detail`` is a sentence for its sender, ``instance`` names this occurrence.

    ``code`` says which of several reasons it is, for programs.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        faults: Iterable[Fault] = (),
        headers: Mapping[str, str] | None = None,
        instance: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.instance = instance
        self.code = code

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
        if self.code is not None:
            plain["code"] = self.code
        if self.faults:
            plain["faults"] = [fault.plain() for fault in self.faults]
        return plain

    def response(self) -> Response:
        """The problem as an answer."""
        return Response(json.dumps(self.plain()), self.kind.status, self.headers, mimetype=MEDIA_TYPE)


def after(kind: Kind, detail: str, seconds: float, *, code: str | None = None) -> Problem:
    """A problem that passes; the sender is told to come back after ``seconds``."""
    return Problem(kind, detail, headers={"Retry-After": str(max(1, math.ceil(seconds)))}, code=code)


def refused(faults: Iterable[Fault]) -> Problem:
    """An event that cannot be applied."""
    found = tuple(faults)
    number = "one fault" if len(found) == 1 else f"{len(found)} faults"
    return Problem(REFUSED, f"the event has {number}; nothing was stored", faults=found)
