# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all events have in common: the envelope, how they meet a document, and how they are refused.

An event never looks at a document's values itself where the document's own rules do: what an event brings is put into
a document, that document is judged, and each fault is led back to the field of the event that caused it.
"""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, Id, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, FaultsError
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import join_key
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import one_of, shown
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

EVENT_RULES: Final[Mapping[str, str]] = {
    "event.json": "an event is JSON: one mapping of bounded size and depth, finite numbers, no control characters",
    "event.type": "the type is one of those listed here",
    "not_yet": "the type is one that is implemented already",
    "timestamp": "the timestamp is RFC 3339 with its offset",
    "missing": "every required field is there",
    "unknown": "there are no fields the event does not have",
    "twice": "a value is given under one name only",
    "changes.empty": "an update changes something",
    "tenant.unknown": "the tenant exists",
    "tenant.exists": "a new tenant's id is not taken",
    "tenant.terminated": "a tenant that is being removed changes no more",
    "bot.unknown": "the bot exists",
    "bot.exists": "a new bot's id is not taken",
    "bot.state": "a new bot is running or stopped",
    "bot.too_early": "a halted bot is resumed no earlier than its limit earliest_resume_s allows",
    "connection.unknown": "the exchange connection exists",
    "connection.exists": "a new connection's id is not taken",
    "connection.exchange": "new credentials are for the same exchange",
    "connection.used": "a connection that bots use stays",
}
"""What events are refused by, besides the rules of the tenant document (rules.RULES)."""

_TIMESTAMP: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})", re.ASCII | re.IGNORECASE
)
_TIMESTAMP_TEXT: Final = "RFC 3339 with its offset, such as 2026-11-23T05:00:00Z"
_LARGEST_SEQUENCE: Final = 2**53 - 1  # what every JSON implementation counts exactly


class EventError(FaultsError):
    """An event was refused; ``faults`` point into its body."""

    subject = "the event is refused"


def refuse(pointer: str, problem: str, allowed: str, rule: str) -> EventError:
    """The refusal of one field."""
    return EventError([Fault(pointer, problem, allowed, rule)])


class Part(BaseModel):
    """A part of an event: frozen, strict, without fields that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class TenantData(Part):
    """What an event about a whole tenant says."""

    tenant: Id = Field(description="the tenant's id")


def _parse_timestamp(value: object) -> datetime:
    if isinstance(value, str) and len(value) <= 40 and _TIMESTAMP.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
            if 1970 <= moment.year < 9999:  # what every clock and database can hold
                return moment
        except (ValueError, OverflowError):
            pass
    problem = f"{shown(value)} is no time"
    raise PydanticCustomError("timestamp", "{problem}", {"problem": problem, "allowed": _TIMESTAMP_TEXT})


Timestamp = Annotated[
    datetime, PlainValidator(_parse_timestamp), WithJsonSchema({"type": "string", "format": "date-time"})
]


class Event(Part):
    """One event of the portal. Subclasses say what it does to a tenant's document.

    ``type`` is its name, ``summary`` says what happened, ``example_data`` is data that is valid.
    """

    type: ClassVar[str]
    summary: ClassVar[str]
    example_data: ClassVar[Mapping[str, Any]]

    timestamp: Timestamp = Field(description=f"when it happened at the portal, {_TIMESTAMP_TEXT}")
    sequence: int | None = Field(
        None,
        ge=0,
        le=_LARGEST_SEQUENCE,
        description="a whole number from 0 that grows with every event of the tenant",
    )
    data: TenantData

    @property
    def tenant(self) -> str:
        """The id of the tenant that the event is about."""
        return self.data.tenant

    @classmethod
    def complete(cls, data: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
        """``data`` with the defaults that depend on the catalogue."""
        return data

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterable[Fault]:
        """What the document's own rules say about ``data``, of any shape, as far as it can be judged alone."""
        return ()

    def apply(self, document: Mapping[str, Any] | None) -> dict[str, Any]:
        """The tenant's next document; ``document`` is its present one, or None where there is no such tenant.

        Pure: the argument is left as it is (the result may share parts of it). Raises EventError. The result is yet to
        be judged by ``parse_document``; ``body_pointer`` leads its faults back to the event.
        """
        if document is None:
            problem = f"there is no tenant {shown(self.tenant)}"
            raise refuse("/data/tenant", problem, "a tenant that tenant.created made", "tenant.unknown")
        if document.get("state") == "terminated":
            raise removing()
        return self._change(document)

    def check_facts(self, document: Mapping[str, Any], seen: Callable[[str], Mapping[str, Any]], now: float) -> None:
        """Judges the event by what was last ``seen`` of a bot (its facts by its id, empty if there are none).

        ``document`` is the tenant's present one, ``now`` in epoch seconds. Raises EventError.
        """

    @abstractmethod
    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The next document of a tenant that is there to stay."""

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Where parts of the document come from: pairs of pointers, into the document and into the body.

        The first pair that fits decides. A body pointer that ends in ``/*`` goes on as the document's does.
        """
        return ()

    def body_pointer(self, document_pointer: str, document: Mapping[str, Any]) -> str:
        """Where in the body the cause of a fault in the resulting ``document`` is; "/data" if nothing is nearer."""
        for origin, place in (*self._origins(document), ("/tenant", "/data/tenant")):
            if document_pointer == origin or document_pointer.startswith(f"{origin}/"):
                goes_on = place.endswith("/*")
                return place.removesuffix("/*") + (document_pointer[len(origin) :] if goes_on else "")
        return "/data"

    def refusal(self, error: FaultsError, document: Mapping[str, Any]) -> EventError:
        """The faults of the resulting ``document`` as faults of this event.

        Where the body has no field of that name, the problem says what it is about: ``bot b1, trading_pair: ...``.
        """
        faults = []
        for fault in error.faults:
            place = self.body_pointer(fault.pointer, document)
            name = _in_words(fault.pointer, document)
            own = not name or place.rpartition("/")[2] == fault.pointer.rpartition("/")[2]
            problem = fault.problem if own else f"{name}: {fault.problem}"
            faults.append(Fault(place, problem, fault.allowed, fault.rule))
        return EventError(dict.fromkeys(faults))

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A body that is valid; in the order of EVENT_TYPES all examples can be sent one after the other."""
        return {"type": cls.type, "timestamp": "2026-11-23T05:00:00Z", "data": copy.deepcopy(dict(cls.example_data))}


def removing() -> EventError:
    """The refusal of whatever comes for a tenant that is being removed."""
    problem = "the tenant was terminated and is being removed"
    return refuse(
        "/data/tenant", problem, "tenant.created with this id once it is removed; another id now", "tenant.terminated"
    )


def document_faults(data: Mapping[str, Any], catalogue: Catalogue) -> tuple[Fault, ...]:
    """What the rules of the tenant document find in ``data``, which may be part of a document only."""
    try:
        parse_document(data, catalogue)
    except DocumentError as error:
        return error.faults
    return ()


def moved(faults: Iterable[Fault], origin: str, place: str, *, without: Iterable[str] = ()) -> Iterator[Fault]:
    """The faults below ``origin``, with pointers below ``place`` instead; those of the rules ``without`` left out."""
    for fault in faults:
        inside = fault.pointer == origin or fault.pointer.startswith(f"{origin}/")
        if inside and fault.rule not in without:
            yield Fault(place + fault.pointer[len(origin) :], fault.problem, fault.allowed, fault.rule)


def unknown_keys(
    data: Mapping[str, Any], known: Iterable[str], where: str, hints: Mapping[str, str]
) -> Iterator[Fault]:
    """A fault for every key that is not ``known``; ``hints`` say what to do instead of certain ones."""
    names = tuple(known)
    for key in data:
        if key not in names:
            allowed = hints.get(key) or one_of(names, key)
            yield Fault(join_key(where, key), f"there is no field {shown(key)} here", allowed, "unknown")


def position(document: Mapping[str, Any], name: str, identifier: str) -> int | None:
    """Where in the list ``document[name]`` the entry with this id is."""
    return next((i for i, entry in enumerate(document.get(name, ())) if entry["id"] == identifier), None)


def _in_words(document_pointer: str, document: Mapping[str, Any]) -> str:
    """``bot b1, trading_pair`` for ``/bots/0/trading_pair``; other places are what they are called."""
    parts = document_pointer.split("/")[1:]
    nouns = {"bots": "bot", "exchange_connections": "exchange connection"}
    if len(parts) >= 2 and parts[0] in nouns and parts[1].isdecimal():
        entries = document.get(parts[0], ())
        index = int(parts[1])
        entry = entries[index] if index < len(entries) else None
        identifier = entry.get("id", index) if isinstance(entry, Mapping) else index
        return ", ".join([f"{nouns[parts[0]]} {identifier}", *(["/".join(parts[2:])] if parts[2:] else [])])
    return "/".join(parts)
