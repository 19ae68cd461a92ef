"""Declared fields: numbers are exact or refused, and one description serves parser, schema and reference."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import (
    Field,
    declare,
    parse_fields,
    parse_number,
    plain_number,
    plain_value,
    schema_of,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import RULES, Findings, one_of, shown
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from hypothesis import given
from hypothesis import strategies as st


def check_range(field: Field, good: Iterable[Any], bad: Iterable[Any]) -> None:
    """``field`` takes every good value and refuses every bad one; so does its JSON Schema for JSON's own types."""
    for value in good:
        findings = Findings()
        assert field.parse(value, "/x", findings) is not None, (field.name, value, findings.faults)
        jsonschema.validate(as_json(value), field.schema())
    for value in bad:
        findings = Findings()
        assert field.parse(value, "/x", findings) is None, (field.name, value)
        (fault,) = findings.faults
        assert fault.pointer == "/x"
        assert fault.rule in ("range", "choice", "type.boolean")
        assert field.range_text() in fault.allowed
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(as_json(value), field.schema())


def as_json(value: Any) -> Any:
    """Decimal text as the JSON number it stands for."""
    return float(value) if isinstance(value, str) and value.strip("-0123456789.") == "" and value else value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, "1"),
        (0.1, "0.1"),
        ("0.10", "0.1"),
        ("1e3", "1000"),
        (1e-7, "0.0000001"),
        ("-0", "0"),
        (-0.0, "0"),
        ("+5", "5"),
        (999999999999999, "999999999999999"),
        (Decimal("1.50"), "1.5"),
    ],
)
def test_numbers_are_taken_exactly(value: Any, expected: str) -> None:
    findings = Findings()
    number = parse_number(value, "/x", "a number", findings)
    assert number is not None and plain_number(number) == expected
    assert Decimal(expected) < Decimal("0.000001") or str(number) == expected
    assert not findings


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (True, "type.number"),
        (None, "type.number"),
        ([], "type.number"),
        (b"1", "type.number"),
        ("", "type.number"),
        (" 1", "type.number"),
        ("1\n", "type.number"),
        ("1,5", "type.number"),
        ("0x10", "type.number"),
        ("1_000", "type.number"),
        ("inf", "type.number"),
        ("-Infinity", "type.number"),
        ("sNaN", "type.number"),
        ("٣", "type.number"),
        (float("nan"), "number.finite"),
        (float("-inf"), "number.finite"),
        (Decimal("NaN"), "number.finite"),
        (Decimal("sNaN"), "number.finite"),
        pytest.param(10**5000, "number.digits", id="huge"),
        (10**15, "number.digits"),
        (0.1 + 0.2, "number.digits"),
        ("1e99", "number.digits"),
        ("1e-99", "number.digits"),
        ("0.0000000000001", "number.digits"),
    ],
)
def test_what_is_no_exact_number_is_refused(value: Any, rule: str) -> None:
    findings = Findings()
    assert parse_number(value, "/x", "a number", findings) is None
    assert [fault.rule for fault in findings.faults] == [rule]


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15))
def test_an_accepted_number_survives_json_and_text(value: Decimal) -> None:
    number = parse_number(value, "/x", "a number", Findings())
    if number is not None:
        assert number == value
        assert Decimal(repr(plain_value(number))) == number
        assert Decimal(plain_number(number)) == number


def test_fields_are_filled_in_in_their_own_order() -> None:
    fields = declare(
        Field("a", "integer", "", "", 1),
        Field("b", "decimal", "percent", "", 1, default=Decimal(2)),
        Field("c", "boolean", "", "", True, default=False),
    )
    findings = Findings()
    assert parse_fields(fields, {"c": True, "a": 5}, "/x", findings) == {"a": 5, "b": Decimal(2), "c": True}
    assert parse_fields(fields, {"b": "x", "z~/": 1}, "/x", findings) is None
    assert [(fault.pointer, fault.rule) for fault in findings.faults] == [
        ("/x/z~0~1", "unknown"),
        ("/x/a", "missing"),
        ("/x/b", "type.number"),
    ]


PRICES = Field("prices", "decimals", "percent", "Some.", (Decimal(1),), longest=3, minimum=Decimal(0), below=Decimal(9))


@pytest.mark.parametrize("value", [[0], ["1.50", 2, 8.9], (1, 2)])
def test_a_list_of_numbers_is_taken_exactly(value: Any) -> None:
    findings = Findings()
    parsed = PRICES.parse(value, "/x", findings)
    assert parsed == tuple(Decimal(str(entry)) for entry in value)
    assert plain_value(parsed) == [float(entry) for entry in value]
    jsonschema.validate(plain_value(parsed), PRICES.schema())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], {"/x": "length.list"}),
        ([1, 2, 3, 4], {"/x": "length.list"}),
        (1, {"/x": "type.list"}),
        ("1", {"/x": "type.list"}),
        (None, {"/x": "type.list"}),
        ({"0": 1}, {"/x": "type.list"}),
        ([1, True, 9], {"/x/1": "type.number", "/x/2": "range"}),
        ([-1, "x"], {"/x/0": "range", "/x/1": "type.number"}),
        ([[1]], {"/x/0": "type.number"}),
    ],
)
def test_each_number_of_a_list_is_judged(value: Any, expected: dict[str, str]) -> None:
    findings = Findings()
    assert PRICES.parse(value, "/x", findings) is None
    assert {fault.pointer: fault.rule for fault in findings.faults} == expected
    assert all(
        fault.allowed == "a list of 1 to 3 numbers at least 0 and less than 9 (percent)"
        for fault in findings.faults
        if fault.pointer == "/x"
    )
    if value != [-1, "x"]:  # a schema does not know which text is a number
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, PRICES.schema())


def test_a_field_without_a_default_may_be_left_out_and_is_then_not_there() -> None:
    fields = declare(Field("a", "decimal", "", "", 1, default=None), Field("b", "integer", "", "", 1, default=7))
    assert parse_fields(fields, {}, "/x", Findings()) == {"b": 7}
    assert parse_fields(fields, {"a": 2}, "/x", Findings()) == {"a": 2, "b": 7}
    assert "default" not in fields["a"].schema()
    findings = Findings()
    assert parse_fields(fields, {"a": None}, "/x", findings) is None
    assert [fault.rule for fault in findings.faults] == ["type.number"]


MODES = declare(
    Field("mode", "choice", "", "", "up", choices=("up", "down")),
    Field("steps", "integer", "", "", 1, mode="up"),
    Field("pause", "integer", "", "", 1, default=60, mode="up"),
    Field("weight", "integer", "", "", 1, mode="down"),
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"mode": "up", "steps": 2}, {"mode": "up", "steps": 2, "pause": 60}),
        ({"mode": "down", "weight": 2}, {"mode": "down", "weight": 2}),
        ({"mode": "up"}, {"/x/steps": "missing"}),
        ({"mode": "down", "weight": 2, "pause": 60}, {"/x/pause": "field.mode"}),
        ({"mode": "down", "steps": 2}, {"/x/steps": "field.mode", "/x/weight": "missing"}),
        ({"mode": "sideways", "steps": True}, {"/x/mode": "choice", "/x/steps": "type.number"}),
        ({}, {"/x/mode": "missing"}),
    ],
)
def test_a_field_of_one_mode_is_refused_in_the_other(data: dict[str, Any], expected: dict[str, Any]) -> None:
    findings = Findings()
    parsed = parse_fields(MODES, data, "/x", findings)
    if parsed is None:
        assert {fault.pointer: fault.rule for fault in findings.faults} == expected
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, schema_of(MODES, "x"))
    else:
        assert (parsed, findings.faults) == (expected, [])
        jsonschema.validate(data, schema_of(MODES, "x"))


def test_a_second_name_stands_for_the_first_and_is_named_in_faults() -> None:
    fields = declare(Field("cost", "decimal", "", "", 1, alias="cost_usd", above=Decimal(0)))
    assert parse_fields(fields, {"cost_usd": 3}, "/x", Findings()) == {"cost": 3}
    for data, expected in (
        ({"cost_usd": 0}, ("/x/cost_usd", "range")),
        ({"cost": 3, "cost_usd": 3}, ("/x/cost_usd", "field.twice")),
        ({}, ("/x/cost", "missing")),
    ):
        findings = Findings()
        assert parse_fields(fields, data, "/x", findings) is None
        assert [(fault.pointer, fault.rule) for fault in findings.faults] == [expected]
    assert fields["cost"].name_in({"cost_usd": 1}) == "cost_usd"
    assert fields["cost"].name_in({}) == "cost"
    optional = declare(Field("cost", "decimal", "", "", 1, default=None, alias="cost_usd"))
    jsonschema.validate({"cost_usd": 3}, schema_of(optional, "x"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"cost_usd": 3, "cost": 3}, schema_of(optional, "x"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_description_is_complete_and_agrees_with_itself(name: str) -> None:
    strategy = TEMPLATES[name]
    for fields in (strategy.fields, strategy.limits):
        for field in fields.values():
            assert field.text.endswith(".")
            assert field.unit or field.type in ("boolean", "choice"), field.name
            findings = Findings()
            assert field.parse(field.example, "/x", findings) is not None
            if not field.required and field.default is not None:
                assert field.parse(field.default, "/x", findings) is not None
            assert not findings
        schema = schema_of(fields, "x")
        jsonschema.Draft202012Validator.check_schema(schema)
        for mode in fields["mode"].choices if "mode" in fields else ("",):
            own = {n: plain_value(f.example) for n, f in fields.items() if f.mode in ("", mode)}
            data = own | ({"mode": mode} if mode else {})
            jsonschema.validate(data, schema)
            assert parse_fields(fields, data, "/x", Findings()) is not None


def test_what_is_shown_is_bounded_and_printable() -> None:
    assert shown("a\x1b[2J\u202e") == r"'a\x1b[2J\u202e'"
    assert len(shown("x" * 1000)) < 50
    assert (shown(None), shown(True), shown(1.5), shown([1])) == ("null", "true", "1.5", "a list")
    assert shown(10**5000) == "a very large number"


def test_the_closest_match_is_named_first_and_the_list_is_bounded() -> None:
    assert one_of(["alpha", "beta", "gamma"], "gama") == "gamma, alpha, beta"
    assert one_of([f"n{i:02}" for i in range(40)]).endswith("n11 and 28 more")
    assert one_of([]) == "nothing"


def test_every_rule_is_explained_in_a_sentence() -> None:
    with pytest.raises(KeyError):
        Findings().add("no.such.rule", "/x", "x", "y")
    assert all(text and text[0].islower() and not text.endswith(".") for text in RULES.values())
