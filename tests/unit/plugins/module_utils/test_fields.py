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


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_description_is_complete_and_agrees_with_itself(name: str) -> None:
    strategy = TEMPLATES[name]
    for fields in (strategy.fields, strategy.limits):
        for field in fields.values():
            assert field.text.endswith(".")
            assert field.unit or field.type in ("boolean", "choice"), field.name
            findings = Findings()
            assert field.parse(field.example, "/x", findings) is not None
            if not field.required:
                assert field.parse(field.default, "/x", findings) is not None
            assert not findings
        schema = schema_of(fields, "x")
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate({n: plain_value(f.example) for n, f in fields.items()}, schema)


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
