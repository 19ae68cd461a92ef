# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared fields of a configuration: one description gives validation, JSON Schema and the reference tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import pointer as join
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings, one_of, shown

Value = Decimal | int | bool | str | tuple[Decimal, ...]

MAX_DIGITS: Final = 15  # what a binary float (JSON, YAML, the engine's files) carries without loss
MAX_PLACES: Final = 12
_DECIMAL_TEXT: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_LARGEST: Final = 10**15


class _Required:
    """Marks a field without a default."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a strategy's or a risk configuration.

    ``unit`` is what the number counts (``percent``, ``quote asset``, ``seconds``); ``minimum`` and ``maximum`` are
    inclusive unless ``above`` / ``below`` are used, which exclude the bound itself; ``live`` says that a running bot
    takes a change without a restart. ``default`` is REQUIRED where the field has to be given, and None where it may be
    left out and then means nothing. Of ``decimals``, a list, the bounds are those of each number, and ``longest`` says
    how many there may be (at least one). ``mode``: the field belongs to that value of the field called ``mode``, which
    is declared before it, and is refused with another. ``alias`` is a second name the field may be given under.
    """

    name: str
    type: Literal["decimal", "integer", "boolean", "choice", "decimals"]
    unit: str
    text: str
    example: Value
    default: Value | _Required | None = REQUIRED
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    above: Decimal | None = None
    below: Decimal | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    longest: int = 0
    mode: str = ""
    alias: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names the field may be given under, its own first."""
        return (self.name, self.alias) if self.alias else (self.name,)

    def name_in(self, data: Mapping[str, Any]) -> str:
        """The name under which ``data`` has the field; its own where it has none."""
        return next((name for name in self.names if name in data), self.name)

    @property
    def required(self) -> bool:
        """Whether the field has to be given."""
        return isinstance(self.default, _Required)

    def allowed(self) -> str:
        """What the field accepts, in words."""
        if self.type == "boolean":
            return "true or false"
        if self.type == "choice":
            return one_of(self.choices)
        unit = f" ({self.unit})" if self.unit else ""
        if self.type == "decimals":
            return f"a list of 1 to {self.longest} numbers{self.range_text()}{unit}"
        return f"a {'whole number' if self.type == 'integer' else 'number'}{self.range_text()}{unit}"

    def range_text(self) -> str:
        """The range in words, with a leading space, or nothing."""
        parts = []
        for bound, word in (
            (self.above, "greater than"),
            (self.minimum, "at least"),
            (self.below, "less than"),
            (self.maximum, "at most"),
        ):
            if bound is not None:
                parts.append(f"{word} {plain_number(bound)}")
        return " " + " and ".join(parts) if parts else ""

    def parse(self, value: object, where: str, findings: Findings) -> Value | None:
        """The value in its type, or None after a fault at ``where``."""
        if self.type == "boolean":
            if isinstance(value, bool):
                return value
            findings.add("type.boolean", where, f"{shown(value)} is not a switch", self.allowed())
            return None
        if self.type == "choice":
            if isinstance(value, str) and value in self.choices:
                return value
            findings.add("choice", where, f"{shown(value)} is not one of the values", self.allowed())
            return None
        if self.type == "decimals":
            return self._parse_list(value, where, findings)
        return self._parse_number(value, where, findings)

    def _parse_list(self, value: object, where: str, findings: Findings) -> tuple[Decimal, ...] | None:
        if not isinstance(value, list | tuple):
            findings.add("type.list", where, f"{shown(value)} is not a list", self.allowed())
            return None
        if not 1 <= len(value) <= self.longest:
            findings.add("length.list", where, f"the list has {len(value)} entries", self.allowed())
            return None
        parsed = [self._parse_number(entry, f"{where}/{index}", findings) for index, entry in enumerate(value)]
        numbers = tuple(Decimal(number) for number in parsed if number is not None)
        return numbers if len(numbers) == len(parsed) else None

    def _parse_number(self, value: object, where: str, findings: Findings) -> Decimal | int | None:
        number = parse_number(value, where, self.allowed(), findings)
        if number is None:
            return None
        if self.type == "integer" and number != number.to_integral_value():
            findings.add("type.integer", where, f"{shown(value)} is not a whole number", self.allowed())
            return None
        if (
            (self.minimum is not None and number < self.minimum)
            or (self.maximum is not None and number > self.maximum)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        ):
            findings.add("range", where, f"{shown(value)} is out of range", self.allowed())
            return None
        return int(number) if self.type == "integer" else number

    def schema(self) -> dict[str, Any]:
        """The field's JSON Schema."""
        result: dict[str, Any] = {"description": self.text + (f" Unit: {self.unit}." if self.unit else "")}
        if self.type == "boolean":
            result["type"] = "boolean"
        elif self.type == "choice":
            result["enum"] = list(self.choices)
        elif self.type == "decimals":
            result |= {"type": "array", "items": self._number_schema(), "minItems": 1, "maxItems": self.longest}
        else:
            result |= self._number_schema()
        if self.default is not None and not isinstance(self.default, _Required):
            result["default"] = plain_value(self.default)
        result["examples"] = [plain_value(self.example)]
        return result

    def _number_schema(self) -> dict[str, Any]:
        result: dict[str, Any] = {"type": ["integer" if self.type == "integer" else "number", "string"]}
        result["pattern"] = r"^[+-]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?$"
        for key, bound in (
            ("minimum", self.minimum),
            ("maximum", self.maximum),
            ("exclusiveMinimum", self.above),
            ("exclusiveMaximum", self.below),
        ):
            if bound is not None:
                result[key] = plain_value(bound)
        return result


def parse_number(value: object, where: str, allowed: str, findings: Findings) -> Decimal | None:
    """A JSON number or decimal string as Decimal, or None after a fault; no NaN, no infinity, no booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        findings.add("type.number", where, f"{shown(value)} is not a number", allowed)
        return None
    if not (value.is_finite() if isinstance(value, Decimal) else isinstance(value, str | int) or math.isfinite(value)):
        findings.add("number.finite", where, f"{value} is not finite", allowed)
        return None
    if isinstance(value, str):
        if not _DECIMAL_TEXT.fullmatch(value):
            findings.add("type.number", where, f"{shown(value)} is not a number", allowed)
            return None
        number = Decimal(value)
    elif isinstance(value, float):
        number = Decimal(repr(value))
    elif isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        findings.add("number.digits", where, f"{shown(value)} has too many digits", allowed)
        return None
    else:
        number = Decimal(value)
    number = number.normalize() if number else Decimal(0)
    _, digits, exponent = number.as_tuple()  # 30000 is 3E+4 here
    if not isinstance(exponent, int) or len(digits) > MAX_DIGITS or exponent < -MAX_PLACES or abs(number) >= _LARGEST:
        problem = f"{shown(value)} has more than {MAX_DIGITS} significant digits or {MAX_PLACES} decimal places"
        findings.add("number.digits", where, problem, allowed)
        return None
    return number.quantize(Decimal(1)) if exponent > 0 else number


def parse_fields(
    fields: Mapping[str, Field], data: Mapping[str, Any], where: str, findings: Findings
) -> dict[str, Value] | None:
    """The values of ``data`` in their types by the fields' own names, in the order of ``fields``.

    Defaults are filled in; a field without one that is not given is not in the result, nor are those of another mode.
    None when a field is missing, unknown or refused; the faults are in ``findings`` and name the field as it was given.
    """
    before = len(findings.faults)
    known = [name for field in fields.values() for name in field.names]
    for name in data:
        if name not in known:
            findings.add("unknown", join_key(where, name), f"there is no field {shown(name)}", one_of(known, name))
    values: dict[str, Value] = {}
    for name, field in fields.items():
        given = [other for other in field.names if other in data]
        mode = values.get("mode")
        if len(given) > 1:
            allowed = f"either {field.name} or {field.alias}"
            findings.add("field.twice", f"{where}/{field.alias}", f"{field.name} is given twice", allowed)
        elif field.mode and mode is not None and mode != field.mode:
            if given:
                findings.add("field.mode", f"{where}/{given[0]}", f"it means nothing with mode {mode}", "no such field")
        elif given:
            value = field.parse(data[given[0]], f"{where}/{given[0]}", findings)
            if value is not None:
                values[name] = value
        elif field.mode and mode is None:
            pass  # the mode itself is at fault
        elif isinstance(field.default, _Required):
            findings.add("missing", f"{where}/{name}", "the field is missing", field.allowed())
        elif field.default is not None:
            values[name] = field.default
    return values if len(findings.faults) == before else None


def number(values: Mapping[str, Value], name: str) -> Decimal:
    """The parsed number called ``name``; KeyError where it is not set."""
    value = values[name]
    if isinstance(value, Decimal | int):
        return Decimal(value)
    raise TypeError(f"{name} is no number")


def numbers(values: Mapping[str, Value], name: str) -> tuple[Decimal, ...]:
    """The parsed list called ``name``; KeyError where it is not set."""
    value = values[name]
    if isinstance(value, tuple):
        return value
    raise TypeError(f"{name} is no list of numbers")


def join_key(where: str, key: object) -> str:
    """The pointer of a key that somebody else chose: bounded and printable."""
    text = str(key)[:64]
    return where + join(text if text.isascii() and text.isprintable() else ascii(text)[1:-1])


def plain_number(value: Decimal) -> str:
    """A number as digits, never with an exponent: ``0.00001``, ``30000``."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def plain_value(value: Value) -> int | float | bool | str | list[int | float]:
    """A value as JSON-plain data; exact, because no number has more than 15 significant digits."""
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return _plain(value) if isinstance(value, Decimal) else value


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def schema_of(fields: Mapping[str, Field], description: str) -> dict[str, Any]:
    """The JSON Schema of a configuration with these fields."""
    properties: dict[str, Any] = {}
    conditions: list[dict[str, Any]] = []
    for name, field in fields.items():
        properties[name] = field.schema()
        if field.alias:
            properties[field.alias] = {**field.schema(), "description": f"Another name of {name}. {field.text}"}
            conditions.append({"not": {"required": [name, field.alias]}})
    for mode in fields["mode"].choices if "mode" in fields else ():
        own = [name for name, field in fields.items() if field.mode == mode and field.required]
        others = {name: False for name, field in fields.items() if field.mode and field.mode != mode}
        condition = {"properties": {"mode": {"const": mode}}, "required": ["mode"]}
        conditions.append({"if": condition, "then": {"required": own, "properties": others}})
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name, field in fields.items() if field.required and not field.mode],
        "additionalProperties": False,
        **({"allOf": conditions} if conditions else {}),
    }


def declare(*fields: Field) -> Mapping[str, Field]:
    """Fields by name, in the order given."""
    return {field.name: field for field in fields}
