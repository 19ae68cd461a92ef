# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The events' JSON Schema, for the portal's developers and for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import json_schema

from .bots import BotChanges
from .parsing import EVENT_TYPES
from .tenants import TenantChanges, TenantCreatedData

Schema = dict[str, Any]


def event_schema(catalogue: Catalogue | None = None) -> Schema:
    """The JSON Schema (2020-12) of any event: its shape, with an example of every type.

    Names of the catalogue and what depends on the tenant's document are judged when an event is sent; of the
    ``catalogue`` only the operators' strategy templates are described.
    """
    document = json_schema(catalogue)
    definitions: Schema = {
        name: part for name, part in document["$defs"].items() if name not in ("Bot", "SecretVersions", "RiskHalt")
    }
    definitions["NewBot"] = new_bot = _new_bot(document["$defs"]["Bot"])
    connection = definitions["ExchangeConnection"]
    connection["description"] = (
        "Credentials for one exchange account: pairs of encrypted_<name> and nonce_<name> in base64."
    )
    del definitions["Placement"]["properties"]["node"]
    events: dict[str, Schema] = {}
    for name, kind in EVENT_TYPES.items():
        schema = kind.model_json_schema()
        definitions |= schema.pop("$defs")
        schema["properties"] = {"type": {"const": name}, **schema["properties"]}
        schema["required"] = ["type", *schema["required"]]
        schema["examples"] = [kind.example()]
        events[kind.__name__] = {**schema, "title": name, "description": kind.summary}
    # What is judged by the document's rules is described by the document's schema.
    fields = document["properties"]
    created = definitions["TenantCreatedData"]
    _describe(created, fields, TenantCreatedData.model_fields, required=("tenant", "plan"))
    created["properties"]["bots"]["items"] = {"$ref": "#/$defs/NewBot"}
    created["properties"]["release"]["description"] += "; the newest where it is not given"
    _describe(definitions["TenantChanges"], fields, TenantChanges.model_fields)
    _describe(definitions["BotChanges"], new_bot["properties"], BotChanges.model_fields)
    for name in ("TenantChanges", "BotChanges"):
        definitions[name]["minProperties"] = 1
    _refer(definitions["ConnectionData"], "connection", "ExchangeConnection")
    _refer(definitions["BotCreatedData"], "bot", "NewBot")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Event",
        "description": "What the portal says happened. Every event is about one tenant.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in events],
        "$defs": {name: _without_titles(part) for name, part in (events | definitions).items()},
    }


def _new_bot(bot: Schema) -> Schema:
    properties = {name: part for name, part in bot["properties"].items() if name not in ("restarts", "resumes")}
    name = properties["name"]
    properties["bot_name"] = {**name, "description": "another name of the field name"}
    properties["state"] = {"enum": ["running", "stopped"], "default": "stopped", "description": "running or stopped"}
    return {
        **bot,
        "title": "New bot",
        "description": "A bot; its configurations have the fields of its strategy template.",
        "properties": properties,
        "required": [field for field in bot["required"] if field != "name"],
        "oneOf": [{"required": ["name"]}, {"required": ["bot_name"]}],
    }


def _describe(target: Schema, source: Schema, names: Iterable[str], *, required: tuple[str, ...] = ()) -> None:
    """Gives the fields ``names`` of ``target`` the schema they have in ``source``, without defaults for changes."""
    for name in names:
        if name in source:
            own = target["properties"][name].get("description")
            part = {**source[name], **({"description": own} if own else {})}
            if not required:
                part.pop("default", None)
            target["properties"][name] = part
    target["required"] = list(required)


def _refer(target: Schema, field: str, name: str) -> None:
    target["properties"][field] = {
        "$ref": f"#/$defs/{name}",
        "description": target["properties"][field]["description"],
    }


def _without_titles(part: Any) -> Any:
    """Pydantic calls every field by its own name in capitals; that says nothing."""
    if isinstance(part, Mapping):
        fields = {
            name: {key: value for key, value in field.items() if key != "title"}
            for name, field in part.get("properties", {}).items()
        }
        return {**part, "properties": fields} if fields else part
    return part
