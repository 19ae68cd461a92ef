"""Writes docs/reference/ from the code and the catalogue; ``--check`` only says whether it is up to date.

Usage: python tools/generate_reference.py [--check]
Exit codes: 0 written or up to date, 1 out of date (with --check).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import (  # noqa: E402
    Catalogue,
    Connector,
    load_catalogue,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.document import json_schema  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field, plain_value  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import USD_ASSETS  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import RULES  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import Strategy  # noqa: E402

from webhook.events import EVENT_RULES, EVENT_TYPES, NOT_YET, event_schema  # noqa: E402

NOTICE = "<!-- Written by tools/generate_reference.py; change the code or the catalogue, not this page. -->\n"


def literal(value: object) -> str:
    """A value as it would stand in a document."""
    return f"`{json.dumps(value)}`"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def field_row(field: Field, live: bool) -> tuple[str, ...]:
    """A field's line in the units table."""
    if field.type == "choice":
        accepts = ", ".join(f"`{choice}`" for choice in field.choices)
    elif field.type == "boolean":
        accepts = "`true`, `false`"
    else:
        accepts = ("whole number" if field.type == "integer" else "number") + field.range_text()
    default = "required" if field.required else literal(plain_value(field.default))  # type: ignore[arg-type]
    takes_effect = "live" if live and field.live else "restart"
    example = literal(plain_value(field.example))
    return (f"`{field.name}`", field.unit or "–", accepts, default, takes_effect, example, field.text)


def strategy_section(strategy: Strategy) -> str:
    """A template's text and its one table of units."""
    rows = [field_row(field, True) for field in strategy.fields.values()]
    rows += [(f"risk: {row[0]}", *row[1:]) for row in (field_row(field, False) for field in strategy.limits.values())]
    head = ("field", "unit", "accepts", "default", "a change takes effect", "example", "meaning")
    return f"## {strategy.title} (`{strategy.name}`)\n\n{strategy.text}\n\n{table(head, rows)}"


def strategies_page() -> str:
    """docs/reference/strategies.md"""
    intro = (
        "# Strategy templates\n\n"
        "Fields of `strategy_config`; those marked *risk* belong to `risk_config`. Numbers are JSON numbers or\n"
        "decimal strings with at most 15 significant digits and 12 decimal places. Percent is percent: 0.5 is half a\n"
        "percent.\n"
        f"Limits in US dollars need a pair quoted in {', '.join(sorted(USD_ASSETS))}.\n"
    )
    return "\n".join([NOTICE + intro, *(strategy_section(strategy) for strategy in TEMPLATES.values())])


def connector_row(connector: Connector) -> tuple[str, ...]:
    """What a connection to this exchange needs."""
    secrets = [f"`encrypted_{f.short}`" + ("" if f.required else " (optional)") for f in connector.secrets]
    plain = [f"`{f.short}`" + (" (required)" if f.required else "") for f in connector.settings if f.type != "object"]
    return f"`{connector.name}`", connector.kind, ", ".join(secrets) or "not supported", ", ".join(plain) or "–"


def exchanges_page(catalogue: Catalogue) -> str:
    """docs/reference/exchanges.md"""
    pages = [
        NOTICE + "# Exchanges\n\n"
        "Bots trade the pairs below. Other connectors can hold credentials; they get pairs with a file of their own\n"
        "in `catalogue/exchanges/`.\n"
    ]
    for exchange in catalogue.exchanges.values():
        rows = [
            (f"`{pair.pair}`", f"{pair.tick:f}", f"{pair.lot:f}", f"{pair.min_amount:f}", f"{pair.min_notional:f}")
            for pair in exchange.pairs.values()
        ]
        head = ("pair", "tick (quote)", "lot (base)", "least amount (base)", "least order value (quote)")
        pages.append(
            f"## {exchange.name}\n\nRules as of: {exchange.taken}. Maker fee {exchange.fee_pct} percent; at most "
            f"{exchange.max_orders} open orders per pair.\n\n{table(head, rows)}"
        )
    connectors = [connector_row(connector) for connector in catalogue.connectors.values()]
    pages.append(
        "## Credentials of every connector\n\n"
        "Each `encrypted_<name>` comes with a `nonce_<name>`; the portal's `encrypted_api_key` and\n"
        "`encrypted_api_secret` come with `nonce_key` and `nonce_secret`. `encrypted_api_secret` also stands for a\n"
        "connector's `secret_key`. The engine's full names, such as `encrypted_binance_api_key`, are accepted too.\n\n"
        + table(("connector", "kind", "credentials", "settings"), connectors)
    )
    return "\n".join(pages)


def rules_page() -> str:
    """docs/reference/rules.md"""
    rows = [(f"`{rule}`", text) for rule, text in RULES.items()]
    return (
        NOTICE + "# Rules\n\nA refused document gets one fault per field and problem: `pointer` (a JSON pointer), "
        "`problem`, `allowed`, and the\n`rule` by the names below.\n\n" + table(("rule", "what it demands"), rows)
    )


def accepted(schema: dict[str, Any]) -> str:
    """What a field of an event takes, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(accepted(one) for one in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of {accepted(schema['items'])}"
    words = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`", "object": "mapping"}
    return {"date-time": "time"}.get(schema.get("format", ""), words.get(schema["type"], schema["type"]))


def fields_table(schema: dict[str, Any]) -> str:
    """A table of a mapping's fields."""
    rows = []
    for name, field in schema["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if field.get("default") is not None else ""
        required = "required" if name in schema.get("required", ()) else default or "optional"
        rows.append((f"`{name}`", accepted(field), required, field.get("description", "")))
    for pattern in schema.get("patternProperties", ()):
        name = pattern.strip("^$").replace("[a-z0-9_]+", "<name>")
        rows.append((f"`{name}`", "text", "as the exchange needs", "base64; see [exchanges.md](exchanges.md)"))
    return table(("field", "accepts", "", "meaning"), rows)


def events_page() -> str:
    """docs/reference/events.md"""
    schema = event_schema()
    parts = dict(schema["$defs"])
    text = [
        NOTICE + "# Events, field by field\n\n"
        "What each does, and what to think of: [events.md](../events.md). As JSON Schema:\n"
        "[event.schema.json](event.schema.json). Every event has `type`, `timestamp`, `data` and, if the portal\n"
        "counts them, `sequence`; the tables below are those of `data`.\n"
    ]
    for name, kind in EVENT_TYPES.items():
        event = parts.pop(kind.__name__)
        data = parts[event["properties"]["data"]["$ref"].rpartition("/")[2]]
        example = json.dumps(kind.example(), indent=2)
        text.append(f"## {name}\n\n{kind.summary}\n\n{fields_table(data)}\n```json\n{example}\n```\n")
    text.append("## Parts of events\n")
    for name, part in parts.items():
        if not name.endswith("Data"):
            text.append(f"### {name}\n\n{part['description']}\n\n{fields_table(part)}")
    rows = [(f"`{rule}`", meaning) for rule, meaning in EVENT_RULES.items()]
    text.append(
        "## Rules of events\n\nBesides these, an event is refused by the rules of the tenant document "
        "([rules.md](rules.md)).\nTypes that are `not_yet`: " + ", ".join(f"`{name}`" for name in NOT_YET) + ".\n\n"
        + table(("rule", "what it demands"), rows)
    )  # fmt: skip
    return "\n".join(text)


def pages() -> dict[str, str]:
    """Every generated file's text by its name in docs/reference/."""
    catalogue = load_catalogue(ROOT / "catalogue")
    return {
        "tenant-document.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=True) + "\n",
        "strategies.md": strategies_page(),
        "exchanges.md": exchanges_page(catalogue),
        "rules.md": rules_page(),
        "events.md": events_page(),
        "event.schema.json": json.dumps(event_schema(), indent=2, ensure_ascii=True) + "\n",
    }


def main() -> int:
    """Writes the pages, or with --check names those that differ."""
    parser = argparse.ArgumentParser(description="Writes docs/reference/ from the code and the catalogue.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is out of date")
    check = parser.parse_args().check
    folder = ROOT / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"docs/reference is out of date: {', '.join(stale)}. Run python tools/generate_reference.py")
        return 1
    print("docs/reference is up to date." if not stale else f"Wrote {', '.join(stale)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
