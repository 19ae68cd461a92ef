# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' own controllers in the catalogue: a description and a Python file per version of each.

``catalogue/strategies/<name>_v<version>/`` holds ``description.yml`` and ``controller.py``. The folder's name is the
name of the strategy template, so that a bot stays with its version until its document names another.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, Value
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import Findings

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,40}_v[1-9][0-9]{0,3}", re.ASCII)
_KEYS: Final = {"title", "text", "capital", "fields"}
_BOUNDS: Final = ("minimum", "maximum", "above", "below")
_TYPES: Final = ("decimal", "integer", "boolean", "choice", "decimals")
_FIELD_KEYS: Final = {field.name: field for field in fields(Field) if field.name not in ("mode", "alias")}
_MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """One version of an operator's controller.

    ``capital`` names the field that says how much of the quote asset the bot works with; where it is empty, that is
    the bot's ``max_position``. ``code`` is the text of ``controller.py``.
    """

    name: str
    title: str
    text: str
    capital: str
    fields: Mapping[str, Field]
    code: str

    @property
    def digest(self) -> str:
        """Changes with the code and with the description."""
        return hashlib.sha256(repr((self.name, self.capital, dict(self.fields), self.code)).encode()).hexdigest()


def script(name: str, data: Mapping[str, Any], code: str) -> Script:
    """The script ``name`` with the description ``data``; raises ValueError saying what is wrong with it."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"the folder {name!r} must be named <name>_v<version>, such as twap_v1")
    unknown = sorted(set(data) - _KEYS)
    if unknown or not _KEYS - {"capital"} <= set(data):
        raise ValueError(f"a description has the keys title, text, fields and perhaps capital, not {', '.join(data)}")
    declared = {field.name: field for field in _fields(data["fields"])}
    capital = str(data.get("capital") or "")
    if capital and (capital not in declared or declared[capital].type != "decimal" or not declared[capital].required):
        raise ValueError(f"capital: {capital!r} must be a field of type decimal that has no default")
    if len(code.encode()) > _MAX_BYTES:
        raise ValueError(f"controller.py is larger than {_MAX_BYTES // 1024} KiB")
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise ValueError(f"controller.py, line {error.lineno}: {error.msg}") from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if len(classes) < 2:
        raise ValueError("controller.py must define a configuration class and a controller class")
    return Script(name, str(data["title"]), " ".join(str(data["text"]).split()), capital, declared, code)


def _fields(data: Any) -> Iterator[Field]:
    if not isinstance(data, list) or not all(isinstance(entry, Mapping) for entry in data):
        raise ValueError("fields must be a list of mappings")
    seen = set()
    for entry in data:
        name = str(entry.get("name"))
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name, re.ASCII) or name in seen:
            raise ValueError(f"fields: {name!r} must be a name of its own of a-z, 0-9 and _")
        if name in ("id", "controller_name", "controller_type", "connector_name", "trading_pair", "total_amount_quote"):
            raise ValueError(f"fields: {name} is taken by the engine")
        seen.add(name)
        yield _field(name, entry)


def _field(name: str, entry: Mapping[str, Any]) -> Field:
    needed = [key for key, field in _FIELD_KEYS.items() if field.default is MISSING]
    unknown, missing = sorted(set(entry) - set(_FIELD_KEYS)), [key for key in needed if key not in entry]
    if unknown or missing:
        raise ValueError(f"field {name}: " + (f"no {unknown[0]} is known" if unknown else f"{missing[0]} is missing"))
    if entry["type"] not in _TYPES:
        raise ValueError(f"field {name}: type must be one of {', '.join(_TYPES)}")
    values: dict[str, Any] = dict(entry)
    for key in _BOUNDS:
        if values.get(key) is not None:
            values[key] = Decimal(str(values[key]))
    values["choices"] = tuple(values.get("choices", ()))
    field = Field(**values)
    for key in ("example", "default"):
        if entry.get(key) is not None:
            values[key] = _checked(field, key, entry[key])
    return Field(**values)


def _checked(field: Field, key: str, value: object) -> Value:
    """The value in the field's own type; raises ValueError where the field would refuse it."""
    findings = Findings()
    parsed = field.parse(value, "", findings)
    if parsed is None:
        raise ValueError(f"field {field.name}: {key} must be {field.allowed()}")
    return parsed
