"""The service's description of itself: every endpoint is in it, and it says nothing that is not so."""

from __future__ import annotations

import dataclasses
from typing import Any

import jsonschema
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from webhook import callbacks, journal, openapi, problems, signal_log, signal_tokens, signals
from webhook.events import EVENT_TYPES
from webhook.openapi import SCHEMAS, Auth, Parameter, Route
from webhook.views import ROUTES, Views


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_description_is_openapi_3_1(contract: Any) -> None:
    assert contract.document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(contract.document).iter_errors()) == []


def test_every_endpoint_is_described_and_every_description_answers(app: Flask, contract: Any) -> None:
    routed = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert routed == set(operations(contract.document))


def test_every_answer_function_has_a_route() -> None:
    functions = {name for name in vars(Views) if not name.startswith("_") and name != "answer"}
    assert functions == {route.view for route in ROUTES}
    assert len({route.view for route in ROUTES}) == len(ROUTES)


def test_every_schema_is_used_and_every_reference_leads_somewhere(contract: Any) -> None:
    schemas = contract.document["components"]["schemas"]

    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            found = {part["$ref"].rpartition("/")[2]} if isinstance(part.get("$ref"), str) else set()
            return found.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    used = references(contract.document)
    assert used <= schemas.keys()
    assert set(SCHEMAS) <= used


def test_every_kind_of_problem_is_documented_where_it_can_happen(contract: Any) -> None:
    texts = " ".join(
        response["description"]
        for operation in operations(contract.document).values()
        for response in operation["responses"].values()
    )
    # These two have no endpoint: they are about paths and methods that there are not.
    assert {kind.name for kind in problems.KINDS if f"`{kind.uri}`" not in texts} == {"method"}


def test_operations_that_need_a_token_say_so(contract: Any) -> None:
    for route in ROUTES:
        operation = operations(contract.document)[route.method, route.path]
        expected = {
            Auth.NOBODY: [{}],
            Auth.SIGNATURE: [{"signature": []}],
            Auth.TOKEN: [{"token": []}],
            Auth.SIGNAL: [{}, {"signature": []}],
        }
        assert operation["security"] == expected[route.auth]
        assert ("401" in operation["responses"]) == (route.auth is not Auth.NOBODY)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_example_of_an_event_fits_its_schema(name: str, contract: Any) -> None:
    content = operations(contract.document)["POST", "/v1/events"]["requestBody"]["content"]["application/json"]
    example = content["examples"][name]["value"]
    schema = {**content["schema"], "components": contract.document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(example)
    assert not validator.is_valid({**example, "type": "no.such_event"})
    assert not validator.is_valid({**example, "surprise": 1})
    assert not validator.is_valid({key: value for key, value in example.items() if key != "timestamp"})


@pytest.mark.parametrize("name", signals.EXAMPLES)
def test_the_example_of_a_signal_fits_its_schema_and_is_one(name: str, contract: Any) -> None:
    content = operations(contract.document)["POST", "/v1/signals"]["requestBody"]["content"]
    assert set(content) == {"application/json", "text/plain"}
    example = content["application/json"]["examples"][name]["value"]
    schema = {**content["application/json"]["schema"], "components": contract.document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(example)
    assert not validator.is_valid({**example, "surprise": 1})
    assert signals.parse_signal(example, "b1").action == name


@pytest.mark.parametrize(
    ("schema", "kind", "others"),
    [
        ("Event", journal.EventRecord, set()),
        ("Tenant", journal.TenantStatus, set()),
        ("Bot", journal.BotStatus, set()),
        ("SignalToken", signal_tokens.SignalToken, {"state"}),
        ("Signal", signal_log.SignalRecord, {"duplicate", "number"}),
    ],
)
def test_schemas_name_the_fields_there_are(schema: str, kind: Any, others: set[str]) -> None:
    """``others`` are in one of the two only."""
    assert set(SCHEMAS[schema]["properties"]) ^ {field.name for field in dataclasses.fields(kind)} == others


def test_states_are_those_of_the_journal_and_the_outbox() -> None:
    assert openapi.EVENT_STATES == journal.EVENT_STATES
    assert openapi.CALLBACK_STATES == callbacks.STATES


ROUTE = Route(
    "GET",
    "/x",
    "x",
    "x",
    {},
    parameters=(
        Parameter("number", "", {"type": "integer", "minimum": 1, "maximum": 9}),
        Parameter("word", "", {"type": "string", "pattern": "^[a-z]+$"}),
        Parameter("choice", "", {"type": "string", "enum": ["a", "b"]}),
        Parameter("time", "", {"type": "string", "format": "date-time"}),
    ),
)


def test_a_query_is_read_by_its_schemas() -> None:
    read = openapi.read_query(
        ROUTE, {"number": ["9"], "word": ["abc"], "choice": ["b"], "time": ["2026-11-23t05:00:00.5z"]}
    )
    assert (read["number"], read["word"], read["choice"]) == (9, "abc", "b")
    assert read["time"].isoformat() == "2026-11-23T05:00:00.500000+00:00"
    assert openapi.read_query(ROUTE, {}) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "0"),
        ("number", "10"),
        ("number", "1.0"),
        ("number", " 1"),
        ("number", "１"),
        ("number", ""),
        ("number", "9" * 5000),
        ("word", "abc\n"),
        ("word", "ABC"),
        ("word", ""),
        ("choice", "c"),
        ("time", "2026-02-30T00:00:00Z"),
        ("time", "2026-11-23T05:00:00"),
        ("time", "2026-11-23T25:00:00Z"),
        ("time", "2026-11-23T05:00:00Z\n"),
    ],
)
def test_what_a_schema_does_not_allow_is_refused(name: str, text: str) -> None:
    with pytest.raises(problems.Problem) as caught:
        openapi.read_query(ROUTE, {name: [text]})
    (fault,) = caught.value.faults
    assert fault.pointer == f"/{name}"
    assert fault.allowed


def test_all_faults_of_a_query_are_named_at_once() -> None:
    with pytest.raises(problems.Problem) as caught:
        openapi.read_query(ROUTE, {"number": ["x"], "choice": ["x"], "stranger": ["1"], "word": ["a", "b"]})
    assert {fault.pointer: fault.rule for fault in caught.value.faults} == {
        "/number": "query.value",
        "/choice": "query.value",
        "/stranger": "query.unknown",
        "/word": "query.repeated",
    }
