"""Writes docs/reference/ from the code and the catalogue; ``--check`` only says whether it is up to date.

Usage: python tools/generate_reference.py [--check]
Exit codes: 0 written or up to date, 1 out of date (with --check).
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
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
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (  # noqa: E402
    Field,
    plain_number,
    plain_value,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import (  # noqa: E402
    CEILINGS,
    CONTROLLER_LIMITS,
    DEFAULT_POSITION,
    ENGINE_LIMITS,
    USD_ASSETS,
)
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


def accepts(field: Field) -> str:
    """What a field takes, in a few words."""
    if field.type == "choice":
        return ", ".join(f"`{choice}`" for choice in field.choices)
    if field.type == "boolean":
        return "`true`, `false`"
    if field.type == "decimals":
        return f"list of 1 to {field.longest} numbers, each" + field.range_text()
    return ("whole number" if field.type == "integer" else "number") + field.range_text()


def default_text(field: Field) -> str:
    """Whether a field has to be given, and what it is otherwise."""
    text = "required" if field.required else "not set" if field.default is None else literal(plain_value(field.default))  # type: ignore[arg-type]
    return f"{text} (mode `{field.mode}`)" if field.mode else text


def field_row(field: Field) -> tuple[str, ...]:
    """A field's line in a template's table."""
    takes_effect = "live" if field.live else "restart"
    example = literal(plain_value(field.example))
    name = f"`{field.name}`"
    return name, field.unit or "–", accepts(field), default_text(field), takes_effect, example, field.text


def examples(strategy: Strategy) -> Iterator[dict[str, Any]]:
    """A whole configuration for each mode of the template, made of its fields' examples."""
    for mode in strategy.fields["mode"].choices if "mode" in strategy.fields else ("",):
        config = {n: plain_value(f.example) for n, f in strategy.fields.items() if f.mode in ("", mode)}
        yield {**config, "mode": mode} if mode else config


def block(config: dict[str, Any]) -> str:
    """A configuration as JSON, a field a line."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in config.items())
    return f"```json\n{{\n{lines}\n}}\n```\n"


def strategy_section(strategy: Strategy) -> str:
    """A template's text, its table of fields, and an example of all of them."""
    head = ("field", "unit", "accepts", "default", "a change takes effect", "example", "meaning")
    limits = "Its only limit is `kill_switch_pct`" if strategy.kind == "v1" else "It has all the limits"
    blocks = [block(config) for config in examples(strategy)]
    rows = table(head, (field_row(field) for field in strategy.fields.values()))
    name = f"## {strategy.title} (`{strategy.name}`)"
    return "\n".join([f"{name}\n\n{strategy.text}\n\n{limits} ([risk-limits.md](risk-limits.md)).\n", rows, *blocks])


def strategies_page() -> str:
    """docs/reference/strategies.md"""
    intro = (
        "# Strategy templates\n\n"
        "Fields of a bot's `strategy_config`. Numbers are JSON numbers or decimal strings with at most 15\n"
        "significant digits and 12 decimal places. Percent is percent: 0.5 is half a percent. A *live* change is\n"
        "taken over by the running bot in seconds; any other replaces that bot's container.\n\n"
        "What is said of an exchange's rules (tick, lot, least amount and value of an order, fees, open orders) is\n"
        "judged on arrival where the catalogue has them ([exchanges.md](exchanges.md)), and in any case by the bot,\n"
        "which reads them from the exchange when it starts.\n"
    )
    return "\n".join([NOTICE + intro, *(strategy_section(strategy) for strategy in TEMPLATES.values())])


ORDER_LIMITS = ("max_position", "max_order", "max_open_orders", "price_band_pct")
LOSS_LIMITS = ("max_daily_loss", "max_drawdown", "max_drawdown_pct")
LIMITS_TEXT = f"""# Risk limits

A bot's `risk_config`. The bot itself enforces them, in its own process, at the moment an order is sent: they hold while
the control node is away and through restarts. Amounts are in the pair's quote asset. `max_position_usd`,
`max_order_usd`, `max_daily_loss_usd` and `max_drawdown_usd` are other names of the same limits for pairs quoted in an
asset that is pegged to the US dollar ({", ".join(sorted(USD_ASSETS))}); with another quote
asset they are refused, and so are both names at once.

- **Position**: what the bot itself bought and has not sold, at cost, fees included. What else is in the account does
  not count. `max_position` bounds it together with what resting buy orders may still buy.
- **Equity**: the capital given to the strategy plus its realised and unrealised result, the position valued at the
  middle of bid and ask, fees included. The capital: of a grid `grid_count × order_amount`, of a ladder the sum of
  `amounts_quote`, else `max_position`.
- **The day** is the UTC day. **Drawdown** is the fall from the highest equity since the bot's first order. After a halt
  was lifted both begin anew, from the result of that moment.
- **Opening orders** are those that make the position larger: buys. Sales are never held back.

**Order limits** ({", ".join(f"`{name}`" for name in ORDER_LIMITS)}) hold an opening order
back, and the bot says so in what it is waiting for; they do not halt. An order that reaches the last gate before the
exchange far beyond one of them means that the strategy is out of control, and that does halt the bot.

**Loss limits** ({", ".join(f"`{name}`" for name in LOSS_LIMITS)}) halt the bot: no order leaves it any
more, its open orders are cancelled, with `close_position_on_halt` what it holds is sold at market (never more than
that), and it stays halted through restarts until it is resumed, at the earliest `earliest_resume_s` after the halt. The
log has one line at CRITICAL, `RISK_HALT limit=<name> value=<v> threshold=<t>`, and the bot's code is
`RISK_<NAME OF THE LIMIT>`.

A change of a limit restarts the bot. What a halt looks like, how it is lifted, and the daily loss limit of all bots of
a tenant together: [risk.md](../risk.md).
"""


def limit_row(field: Field) -> tuple[str, ...]:
    """A limit's line in the table of limits."""
    kind = "order" if field.name in ORDER_LIMITS else "loss" if field.name in LOSS_LIMITS else "halt"
    name = ", ".join(f"`{name}`" for name in field.names)
    default = "the plan's ceiling" if field.name in CEILINGS else default_text(field)
    if field.name == "max_position":
        default = f"`{DEFAULT_POSITION}` with USD, else required"
    return name, kind, field.unit or "–", accepts(field), default, literal(plain_value(field.example)), field.text


def limits_page(catalogue: Catalogue) -> str:
    """docs/reference/risk-limits.md"""
    head = ("limit", "kind", "unit", "accepts", "default", "example", "meaning")
    own = ", ".join(f"`{name}`" for name, strategy in TEMPLATES.items() if strategy.kind == "v2")
    pages = [NOTICE + LIMITS_TEXT, f"## Limits of {own}\n\n" + table(head, map(limit_row, CONTROLLER_LIMITS.values()))]
    switch = [
        (f"`{f.name}`", f.unit, accepts(f), default_text(f), literal(plain_value(f.example)), f.text)
        for f in ENGINE_LIMITS.values()
    ]
    pages.append(
        "## The limit of `pure_market_making`\n\n"
        "It runs on the engine's own code, which knows no other limit; every other one is refused.\n\n"
        + table(("limit", "unit", "accepts", "default", "example", "meaning"), switch)
    )
    rows = []
    for plan in catalogue.plans.values():
        for quote, ceilings in plan.ceilings.items():
            values = (plain_number(ceilings[name]) if name in ceilings else "–" for name in columns(catalogue))
            rows.append((f"`{plan.name}`", quote, *values))
    pages.append(
        "## Ceilings\n\n"
        "A plan sets ceilings by quote asset (`catalogue/plans.yml`; `USD` stands for all that are pegged to it).\n"
        "A limit above its ceiling is refused, one that is not given has the ceiling, and a pair whose quote asset\n"
        "has none is refused. A ceiling that is lowered holds for bots that exist from the next converge on.\n\n"
        + table(("plan", "quote asset", *(f"`{name}`" for name in columns(catalogue))), rows)
    )
    return "\n".join(pages)


def columns(catalogue: Catalogue) -> list[str]:
    """The limits that any plan has a ceiling for."""
    used = {name for plan in catalogue.plans.values() for limits in plan.ceilings.values() for name in limits}
    return [name for name in CONTROLLER_LIMITS if name in used]


UNFOLLOWED = "orders cannot be followed"


def unfollowed(catalogue: Catalogue) -> str:
    """The connectors whose orders cannot be followed, in a list by reason."""
    names: dict[str, list[str]] = {}
    for connector in catalogue.connectors.values():
        if connector.untradable is not None and connector_use(connector, catalogue) == UNFOLLOWED:
            names.setdefault(connector.untradable, []).append(f"`{connector.name}`")
    return "".join(
        textwrap.fill(
            f"{reason} ({len(those)}): {', '.join(those)}", 110, initial_indent="  - ", subsequent_indent="    "
        )
        + "\n"
        for reason, those in names.items()
    )


def connector_use(connector: Connector, catalogue: Catalogue) -> str:
    """What a connection through this connector is good for."""
    exchange = catalogue.exchanges.get(connector.name)
    if not connector.secrets:
        return "refused"
    if connector.kind != "spot":
        return "stores credentials"
    if connector.untradable is not None:
        return UNFOLLOWED
    return "**traded in tests**" if exchange is not None and exchange.sandbox else "loads"


def connector_row(connector: Connector, catalogue: Catalogue) -> tuple[str, ...]:
    """What a connection to this exchange needs, and what it is good for."""
    secrets = [f"`encrypted_{f.short}`" + ("" if f.required else " (optional)") for f in connector.secrets]
    plain = [f"`{f.short}`" + (" (required)" if f.required else "") for f in connector.settings if f.type != "object"]
    use = connector_use(connector, catalogue)
    return f"`{connector.name}`", connector.kind, use, ", ".join(secrets) or "–", ", ".join(plain) or "–"


def connectors_page(catalogue: Catalogue) -> str:
    """docs/reference/connectors.md"""
    rows = [connector_row(connector, catalogue) for connector in catalogue.connectors.values()]
    counts = {use: sum(row[2] == use for row in rows) for use in ("loads", "stores credentials", UNFOLLOWED)}
    intro = (
        f"# Connectors\n\nThe {len(rows)} connectors of the engine, and what a connection through each is good for:\n\n"
        "- **traded in tests**: the tests trade there with every template, on the sandbox exchange, which speaks the\n"
        "  exchange's API.\n"
        f"- loads ({counts['loads']}): the tests show that the engine reads its credentials, and bots may be\n"
        "  configured on it; no test has traded there. The catalogue does not have its rules, so a document is\n"
        "  judged without them. The bot reads them from the exchange when it starts, and says so if its plan does\n"
        "  not fit them. Begin with little money.\n"
        f"- stores credentials ({counts['stores credentials']}): a perpetual exchange; all templates are for spot,\n"
        "  so bots on it are refused.\n"
        f"- {UNFOLLOWED} ({counts[UNFOLLOWED]}): stores credentials, and bots on it are refused. A bot's limits are\n"
        "  judged where the engine sends an order, and after a crash the bot asks what each of its orders has\n"
        "  executed; the engine's code for these exchanges keeps one or the other from working:\n"
        f"{unfollowed(catalogue)}"
        "- refused: its credentials are no plain fields.\n\n"
        "Each `encrypted_<name>` comes with a `nonce_<name>`; the portal's `encrypted_api_key` and\n"
        "`encrypted_api_secret` come with `nonce_key` and `nonce_secret`. `encrypted_api_secret` also stands for a\n"
        "connector's `secret_key`. The engine's full names, such as `encrypted_binance_api_key`, are accepted too.\n\n"
    )
    return NOTICE + intro + table(("connector", "kind", "use", "credentials", "settings"), rows)


def exchanges_page(catalogue: Catalogue) -> str:
    """docs/reference/exchanges.md"""
    pages = [
        NOTICE + "# Exchange rules\n\n"
        "The exchanges whose rules the catalogue has (`catalogue/exchanges/`). Documents are judged by them, and bots\n"
        "trade the pairs below and no others there. On other exchanges ([connectors.md](connectors.md)) a document is\n"
        "judged without rules and any pair is taken; there the bot itself is the first to find out what fits.\n"
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
    if "number" in schema["type"]:
        return "number"  # or a decimal string
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
        rows.append((f"`{name}`", "text", "as the exchange needs", "base64; see [connectors.md](connectors.md)"))
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
        "risk-limits.md": limits_page(catalogue),
        "exchanges.md": exchanges_page(catalogue),
        "connectors.md": connectors_page(catalogue),
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
