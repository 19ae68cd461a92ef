# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a body to an event. The body is hostile text: whatever it is, the answer is an event or an EventError."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import join_key
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import MAX_FAULTS, one_of, shown
from pydantic import BaseModel, ValidationError

from . import bots, exchanges, tenants
from .base import Event, EventError, refuse

EVENT_TYPES: Final[Mapping[str, type[Event]]] = {
    event.type: event
    for event in (
        tenants.TenantCreated,
        tenants.TenantUpdated,
        exchanges.ExchangeConnected,
        exchanges.ExchangeRotated,
        bots.BotCreated,
        bots.BotUpdated,
        bots.BotStarted,
        bots.BotRestarted,
        bots.BotResumed,
        bots.BotStopped,
        bots.BotLiquidated,
        bots.BotDeleted,
        exchanges.ExchangeDisconnected,
        tenants.SubscriptionChanged,
        tenants.StackUpgraded,
        tenants.TenantSuspended,
        tenants.TenantResumed,
        tenants.TenantTerminated,
    )
}
"""Every event by its type, in the order of a tenant's life."""

NOT_YET: Final = ("backup.requested", "restore.requested", "tenant.moved")
"""Types that are known and not implemented yet."""

_MAX_DEPTH: Final = 12
_MAX_VALUES: Final = 10_000
_MAX_TEXT: Final = 8192  # as long as a ciphertext may be
_MAX_KEY: Final = 128
_LARGEST_INTEGER: Final = 10**18
_UNWANTED: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PROBLEMS: Final[Mapping[str, tuple[str, str]]] = {
    "string_type": ("type.text", "is not text"),
    "int_type": ("type.integer", "is not a whole number"),
    "int_from_float": ("type.integer", "is not a whole number"),
    "dict_type": ("type.mapping", "is not a mapping"),
    "model_type": ("type.mapping", "is not a mapping"),
    "greater_than_equal": ("range", "is out of range"),
    "less_than_equal": ("range", "is out of range"),
}


def parse_event(body: Mapping[str, Any], catalogue: Catalogue) -> Event:
    """The event that ``body`` is, judged as far as it can be without the tenant's document.

    Raises EventError with every fault found; its pointers lead into the body.
    """
    if not isinstance(body, Mapping):
        raise refuse("", f"{shown(body)} is no event", "a mapping with type, timestamp and data", "event.json")
    faults = list(_json_faults(dict(body)))
    if faults:
        raise EventError(faults)
    own = copy.deepcopy(dict(body))
    kind = _find_type(own)
    data = own.get("data")
    if isinstance(data, dict):
        own["data"] = data = kind.complete(data, catalogue)
        faults += kind.judge(data, catalogue)
    event = None
    try:
        event = kind.model_validate({name: value for name, value in own.items() if name != "type"})
    except ValidationError as error:
        faults += [_shape_fault(dict(entry), kind) for entry in error.errors(include_url=False)]
    if faults or event is None:
        once = {(fault.pointer, fault.rule): fault for fault in reversed(faults)}
        raise EventError(tuple(reversed(once.values()))[:MAX_FAULTS])
    return event


def _find_type(body: Mapping[str, Any]) -> type[Event]:
    name = body.get("type")
    if isinstance(name, str) and name in NOT_YET:
        raise refuse("/type", f"{name} is not available yet", one_of(EVENT_TYPES, limit=len(EVENT_TYPES)), "not_yet")
    kind = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        known = one_of(EVENT_TYPES, name, limit=len(EVENT_TYPES))
        problem = f"there is no event {shown(name)}" if "type" in body else "the field is missing"
        raise refuse("/type", problem, known, "event.type" if "type" in body else "missing")
    return kind


def _json_faults(body: Any) -> Iterator[Fault]:
    """What no event has, wherever it stands. Looks at few values after the limits are passed, and never recurses."""
    waiting: list[tuple[str, Any, int]] = [("", body, 0)]
    seen = found = 0
    while waiting:
        where, value, depth = waiting.pop()
        seen += 1
        problem = _value_problem(value)
        if problem is None and depth > _MAX_DEPTH:
            problem = (f"it is nested more than {_MAX_DEPTH} deep", f"at most {_MAX_DEPTH} levels")
        if problem is None and seen + len(waiting) > _MAX_VALUES:
            yield Fault("", "it has too many values", f"at most {_MAX_VALUES} values", "event.json")
            return
        if problem is not None:
            yield Fault(where, *problem, "event.json")
            found += 1
            if found >= MAX_FAULTS:
                return
        elif isinstance(value, list):
            waiting += [(f"{where}/{index}", one, depth + 1) for index, one in enumerate(value[: _MAX_VALUES + 1])]
        elif isinstance(value, dict):
            waiting += [(join_key(where, key), one, depth + 1) for key, one in value.items()]


def _value_problem(value: Any) -> tuple[str, str] | None:
    """What is wrong with one value (of a mapping: with its keys), and what is accepted; None if nothing is."""
    if type(value) is dict:
        for key in value:
            if type(key) is not str or len(key) > _MAX_KEY or _UNWANTED.search(key):
                return f"{shown(key)} is no field's name", f"names of at most {_MAX_KEY} displayable characters"
        return None
    if type(value) is str:
        if len(value) > _MAX_TEXT:
            return "the text is too long", f"at most {_MAX_TEXT} characters"
        if _UNWANTED.search(value):
            return "the text has control characters or is not Unicode", "text that can be displayed"
        return None
    if type(value) is float:
        return None if math.isfinite(value) else (f"{value} is no JSON number", "a finite number")
    if type(value) is int:
        return (
            None if abs(value) < _LARGEST_INTEGER else (f"{shown(value)} is too large", "a number of at most 18 digits")
        )
    return None if value is None or type(value) in (bool, list) else (f"{shown(value)} is not JSON", "JSON")


def _shape_fault(entry: Mapping[str, Any], kind: type[BaseModel]) -> Fault:
    """One of pydantic's errors in our words."""
    where, description = "", ""
    known: tuple[str, ...] = ()
    model: type[BaseModel] | None = kind
    for part in entry["loc"]:
        where = join_key(where, part)
        field = model.model_fields.get(part) if model is not None else None
        known = tuple(model.model_fields) if model is not None else ()
        description = (field.description or "") if field is not None else ""
        inner = field.annotation if field is not None else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    error, context = entry["type"], entry.get("ctx", {})
    allowed = description or (f"a mapping with {', '.join(model.model_fields)}" if model else "what the reference says")
    if "allowed" in context:
        return Fault(where, context["problem"], context["allowed"], error)
    if error == "missing":
        return Fault(where, "the field is missing", allowed, "missing")
    if error == "extra_forbidden":
        name = entry["loc"][-1]
        return Fault(where, f"there is no field {shown(name)} here", one_of(known, name), "unknown")
    rule, problem = _PROBLEMS.get(error, ("event.json", "is not accepted"))
    return Fault(where, f"{shown(entry['input'])} {problem}", allowed, rule)
