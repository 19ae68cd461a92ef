"""What portal developers read about events is what the code does."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from tests import factories
from webhook.events import EVENT_TYPES, NOT_YET, EventError, event_schema, parse_event

GUIDE = (factories.ROOT / "docs" / "events.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(event_schema(), format_checker=jsonschema.FormatChecker())


def test_the_guide_has_a_row_for_every_type_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", GUIDE, re.MULTILINE)
    assert sorted(rows) == sorted(EVENT_TYPES)
    assert all(f"`{name}`" in GUIDE for name in NOT_YET)


def test_the_guides_example_is_an_event() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert parse_event(json.loads(text), factories.catalogue()).sequence == 12
    VALIDATOR.validate(json.loads(text))


def test_the_guide_shows_a_refusal_as_it_is() -> None:
    bots = [factories.grid_bot(), factories.grid_bot(id="b2"), factories.market_making_bot()]
    document = factories.stored_document(plan="starter", bots=bots)
    body = {**EVENT_TYPES["subscription.changed"].example(), "data": {"tenant": "acme", "plan": "starter"}}
    event = parse_event(body, factories.catalogue())
    from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document

    with pytest.raises(DocumentError) as caught:
        parse_document(event.apply(document), factories.catalogue())
    assert str(event.refusal(caught.value, document)) in GUIDE


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(event_schema())


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_every_example_fits_the_schema(type_: str) -> None:
    VALIDATOR.validate(EVENT_TYPES[type_].example())


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_the_schema_refuses_unknown_and_missing_fields_as_the_code_does(type_: str) -> None:
    example = EVENT_TYPES[type_].example()
    bodies = [{**example, "extra": 1}, {**example, "data": {**example["data"], "extra": 1}}]
    bodies += [{name: value for name, value in example.items() if name != gone} for gone in example]
    required = {"tenant", "plan"} if type_ == "tenant.created" else set(example["data"])
    for gone in required:
        bodies.append({**example, "data": {name: value for name, value in example["data"].items() if name != gone}})
    for body in bodies:
        assert not VALIDATOR.is_valid(body), body
        with pytest.raises(EventError):
            parse_event(body, factories.catalogue())


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("bot.updated", {"bot_id": "b1", "changes": {}}),
        ("bot.updated", {"bot_id": "b1", "changes": {"state": "running"}}),
        ("tenant.updated", {"changes": {"placement": {"node": "local"}}}),
        ("bot.created", {"bot": factories.grid_bot(state="liquidated")}),
        ("bot.created", {"bot": factories.grid_bot(bot_name="twice")}),
        ("bot.created", {"bot": factories.grid_bot(restarts=1)}),
        ("bot.created", {"bot": factories.grid_bot(strategy_config={"grid_count": 1})}),
        ("exchange.connected", {"connection": {"id": "ex1"}}),
    ],
)
def test_the_schema_knows_what_is_refused(type_: str, data: dict[str, object]) -> None:
    body = {**EVENT_TYPES[type_].example(), "data": {"tenant": "acme", **data}}
    assert not VALIDATOR.is_valid(body)
    with pytest.raises(EventError):
        parse_event(body, factories.catalogue())
