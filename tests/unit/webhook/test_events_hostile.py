"""Whatever a body holds, the answer is an event or an EventError; and no event changes what it was given."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import RULES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import factories
from tests.security import hostile
from webhook.events import EVENT_RULES, EVENT_TYPES, Event, EventError, parse_event

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = sorted({"type", "data", "bot", "bots", "changes", "id", "bot_id", "tenant", "plan", "encrypted_x", "nonce_x"})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        [10**400, -(10**18), 2**53, 1e308, "b1", "ex1", "acme", "grid", "running", "{{ x }}", "\0", "\ud800"]
    )
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def parsed(body: Any) -> Event | None:
    """The event, or None where it is refused as it should be."""
    try:
        return parse_event(body, factories.catalogue())
    except EventError as error:
        check(error)
        return None


def check(error: EventError) -> None:
    """A refusal names fields of the body, says what is allowed, is bounded and can be printed anywhere."""
    assert 0 < len(error.faults) <= 100
    for fault in error.faults:
        assert fault.pointer == "" or fault.pointer.startswith("/")
        assert fault.problem and fault.allowed
        assert fault.rule in EVENT_RULES or fault.rule in RULES, fault.rule
        assert len(str(fault)) < 2000
        assert str(fault).isprintable(), ascii(str(fault))
    json.dumps([fault.plain() for fault in error.faults]).encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def put(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The body with ``value`` at the path; what is not there yet is added to a mapping."""
    if not path:
        return value
    result = copy.deepcopy(body)
    inner = result
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return result


@st.composite
def damaged_bodies(draw: Any) -> Any:
    """An example with something else at one or two places, or a field more, or one less."""
    body = draw(st.sampled_from(sorted(EVENT_TYPES.items())))[1].example()
    if body["type"] == "tenant.created":
        body["data"] |= {"exchange_connections": [factories.connection()], "bots": [factories.grid_bot()]}
    for _ in range(draw(st.integers(1, 2))):
        if not isinstance(body, dict):
            break
        path = draw(st.sampled_from(list(places(body))))
        value = body
        for part in path:
            value = value[part]
        if isinstance(value, dict) and draw(st.booleans()):
            path = (*path, draw(st.sampled_from(NAMES) | st.text(max_size=6)))
        body = put(body, path, draw(json_values))
    return body


@QUICK
@given(json_values)
def test_any_value_is_an_event_or_refused(value: Any) -> None:
    parsed(value)


@QUICK
@given(st.sampled_from(sorted(EVENT_TYPES)), json_values)
def test_any_data_is_an_events_or_refused(type_: str, data: Any) -> None:
    parsed({"type": type_, "timestamp": "2026-11-23T05:00:00Z", "data": data})


@settings(QUICK, max_examples=300)
@given(damaged_bodies(), st.sampled_from(["active", "suspended", "terminated", None]))
def test_a_damaged_event_is_refused_or_applied_and_nothing_else(body: Any, state: str | None) -> None:
    made = parsed(body)
    if made is not None:
        apply_twice(made, None if state is None else stored(state=state))


def stored(**overrides: Any) -> dict[str, Any]:
    return parse_document(factories.stored_document(**overrides), factories.catalogue()).plain()


def apply_twice(made: Event, document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The next document as the registry would store it, or None; shows on the way that apply is pure."""
    before = copy.deepcopy(document)
    answers = []
    for _ in range(2):
        try:
            answers.append(made.apply(document))
        except EventError as error:
            check(error)
            answers.append(error.faults)
        assert document == before
    assert answers[0] == answers[1]
    result = answers[0]
    if not isinstance(result, dict):
        return None
    seen = copy.deepcopy(result)
    try:
        return parse_document(result, factories.catalogue()).plain()
    except DocumentError as error:
        for fault in error.faults:
            assert made.body_pointer(fault.pointer, result).startswith("/data")
        check(made.refusal(error, result))
        return None
    finally:
        assert result == seen


ids = st.sampled_from(["b1", "b2", "b3"])
connections = st.sampled_from(["ex1", "ex2"])


def bodies() -> st.SearchStrategy[dict[str, Any]]:
    """Events that are valid by themselves, about few bots and connections, so that they meet."""

    def body(type_: str, **data: Any) -> dict[str, Any]:
        return {"type": type_, "timestamp": "2026-11-23T05:00:00Z", "data": {"tenant": "acme", **data}}

    def connection(id_: str, number: int) -> dict[str, Any]:
        return factories.connection(id=id_, seed=f"acme {id_} {number}")

    about_bots = [
        name for name in EVENT_TYPES if name.startswith("bot.") and name not in ("bot.created", "bot.updated")
    ]
    changes = st.fixed_dictionaries(
        {"priority": st.integers(0, 9)},
        optional={
            "name": st.just("Other"),
            "exchange_connection_id": connections,
            "strategy_config": st.dictionaries(
                st.sampled_from(["upper_bound", "grid_count"]), st.sampled_from([None, 34000, 12, 36000]), max_size=2
            ),
        },
    )
    return st.one_of(
        st.builds(lambda name: body(name), st.sampled_from(["tenant.suspended", "tenant.resumed"])),
        st.builds(lambda plan: body("subscription.changed", plan=plan), st.sampled_from(["starter", "pro"])),
        st.builds(
            lambda name, id_, number: body(name, connection=connection(id_, number)),
            st.sampled_from(["exchange.connected", "exchange.rotated"]), connections, st.integers(0, 3),
        ),
        st.builds(lambda id_: body("exchange.disconnected", connection_id=id_), connections),
        st.builds(
            lambda id_, used: body("bot.created", bot=factories.grid_bot(id=id_, exchange_connection_id=used)),
            ids, connections,
        ),
        st.builds(lambda id_, what: body("bot.updated", bot_id=id_, changes=what), ids, changes),
        st.builds(lambda name, id_: body(name, bot_id=id_), st.sampled_from(about_bots), ids),
        st.builds(lambda ring: body("tenant.updated", changes={"placement": {"ring": ring}}), st.sampled_from("ab")),
    )  # fmt: skip


@settings(QUICK, max_examples=40)
@given(st.lists(bodies(), min_size=5, max_size=25))
def test_whatever_is_accepted_in_whatever_order_leaves_a_valid_document(sequence: list[dict[str, Any]]) -> None:
    created = parse_event(EVENT_TYPES["tenant.created"].example(), factories.catalogue())
    document = apply_twice(created, None)
    assert document is not None
    for body in sequence:
        document = apply_twice(parse_event(body, factories.catalogue()), document) or document
    ended = apply_twice(parse_event(EVENT_TYPES["tenant.terminated"].example(), factories.catalogue()), document)
    assert ended == {**document, "state": "terminated"}


# Values that JSON decoders and Python callers come up with ------------------------------------------------------------


def nested(depth: int, kind: type) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


def shared() -> list[Any]:
    """Few objects that would be 10 ** 11 values when written out."""
    value: list[Any] = ["x"] * 10
    for _ in range(10):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, 10**400, -(10**30), b"bytes", {1: "x"}, {None: 1}, {("a",): 1}, object(), {1, 2},
        (1, 2), "\ud800", "a\0b", "\x1b[2J", "x" * 10_000, {"k" * 200: 1}, {"a\nb": 1}, ["x"] * 20_000, 1 + 2j,
        nested(13, list), nested(2000, dict), nested(100_000, list), nested(100_000, dict), cyclic(), shared(),
        json.JSONDecoder, ...,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("path", [("type",), ("timestamp",), ("sequence",), ("data",), ("data", "bot", "name"), ("x",)])
def test_what_no_event_holds_is_refused_wherever_it_stands(value: Any, path: tuple[str, ...]) -> None:
    body = EVENT_TYPES["bot.created"].example()
    body["data"]["bot"]["name"] = body["data"]["bot"].pop("bot_name")
    inner = body
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    assert parsed(body) is None


def is_word(text: str) -> bool:
    return text.isalnum() and text.isascii() and text.islower()


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**18, "a\0b", "\ud800", nested(9, list), nested(2000, list)])
def test_it_is_refused_where_nothing_else_would_look(value: Any) -> None:
    body = EVENT_TYPES["bot.updated"].example()
    body["data"]["changes"] = {"strategy_config": {"grid_count": value}}
    with pytest.raises(EventError) as caught:
        parse_event(body, factories.catalogue())
    assert {fault.rule for fault in caught.value.faults} == {"event.json"}
    assert caught.value.faults[0].pointer.startswith("/data/changes/strategy_config/grid_count")


@pytest.mark.parametrize("name", [name for name, text in hostile.texts().items() if not is_word(text)])
def test_hostile_text_is_an_id_nowhere(name: str) -> None:
    text = hostile.texts()[name]
    for type_, field in (
        ("bot.started", "bot_id"),
        ("exchange.disconnected", "connection_id"),
        ("bot.created", "tenant"),
    ):
        body = EVENT_TYPES[type_].example()
        body["data"][field] = text
        assert parsed(body) is None, (type_, field)


@pytest.mark.parametrize("name", hostile.texts())
def test_hostile_text_in_a_name_is_kept_as_it_is_or_refused(name: str) -> None:
    text = hostile.texts()[name]
    body = EVENT_TYPES["bot.created"].example()
    body["data"]["bot"] |= {"bot_name": text, "id": "b2"}
    made = parsed(body)
    if made is not None:
        document = apply_twice(made, stored())
        assert document is not None and document["bots"][1]["name"] == text


def test_a_secret_is_not_repeated_in_a_refusal() -> None:
    body = EVENT_TYPES["exchange.connected"].example()
    body["data"]["connection"] |= {"encrypted_api_key": "hunter2 is my password", "nonce_key": "hunter2!"}
    with pytest.raises(EventError) as caught:
        parse_event(body, factories.catalogue())
    assert "hunter2" not in str(caught.value)


def test_the_event_does_not_change_with_the_body_it_came_from() -> None:
    body = EVENT_TYPES["bot.created"].example()
    made = parse_event(body, factories.catalogue())
    body["data"]["bot"]["strategy_config"]["grid_count"] = 99
    document = made.apply(stored(bots=[]))
    assert document["bots"][0]["strategy_config"]["grid_count"] == 10
    document["bots"][0]["strategy_config"]["grid_count"] = 98
    assert made.apply(stored(bots=[]))["bots"][0]["strategy_config"]["grid_count"] == 10


def test_two_documents_of_one_event_share_nothing_of_it() -> None:
    made = parse_event(EVENT_TYPES["exchange.connected"].example(), factories.catalogue())
    made.apply(stored(exchange_connections=[], bots=[]))["exchange_connections"][0]["key_id"] = "other"
    assert made.apply(stored(exchange_connections=[], bots=[]))["exchange_connections"][0]["key_id"] == "k1"


def test_an_event_cannot_be_changed() -> None:
    made = parse_event(EVENT_TYPES["bot.started"].example(), factories.catalogue())
    with pytest.raises(ValueError, match="frozen"):
        made.data.tenant = "other"  # type: ignore[misc]
