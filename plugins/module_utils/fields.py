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

Value = Decimal | int | bool | str

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
    takes a change without a restart; ``default`` is REQUIRED where the field has to be given.
    """

    name: str
    type: Literal["decimal", "integer", "boolean", "choice"]
    unit: str
    text: str
    example: Value
    default: Value | _Required = REQUIRED
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    above: Decimal | None = None
    below: Decimal | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

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
        else:
            result["type"] = ["integer" if self.type == "integer" else "number", "string"]
            result["pattern"] = r"^[+-]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?$"
            for key, bound in (
                ("minimum", self.minimum),
                ("maximum", self.maximum),
                ("exclusiveMinimum", self.above),
                ("exclusiveMaximum", self.below),
            ):
                if bound is not None:
                    result[key] = plain_value(bound)
        if not isinstance(self.default, _Required):
            result["default"] = plain_value(self.default)
        result["examples"] = [plain_value(self.example)]
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
    """The values of ``data`` in their types with defaults filled in, in the order of ``fields``.

    None when a field is missing, unknown or refused; the faults are in ``findings``.
    """
    before = len(findings.faults)
    for name in data:
        if name not in fields:
            findings.add("unknown", join_key(where, name), f"there is no field {shown(name)}", one_of(fields, name))
    values: dict[str, Value] = {}
    for name, field in fields.items():
        if name in data:
            value = field.parse(data[name], f"{where}/{name}", findings)
            if value is not None:
                values[name] = value
        elif isinstance(field.default, _Required):
            findings.add("missing", f"{where}/{name}", "the field is missing", field.allowed())
        else:
            values[name] = field.default
    return values if len(findings.faults) == before else None


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


def plain_value(value: Value) -> int | float | bool | str:
    """A value as JSON-plain data; exact, because no number has more than 15 significant digits."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def schema_of(fields: Mapping[str, Field], description: str) -> dict[str, Any]:
    """The JSON Schema of a configuration with these fields."""
    return {
        "type": "object",
        "description": description,
        "properties": {name: field.schema() for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def declare(*fields: Field) -> Mapping[str, Field]:
    """Fields by name, in the order given."""
    return {field.name: field for field in fields}
