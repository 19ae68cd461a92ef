"""What each event makes of a document, and where its refusals point."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError, parse_document

from tests import factories
from webhook.events import EVENT_TYPES, NOT_YET, Event, EventError, parse_event
from webhook.events.tenants import newest_release


def event(type_: str, *, tenant: str = "acme", **data: Any) -> Event:
    return parse_event(body(type_, tenant=tenant, **data), factories.catalogue())


def body(type_: str, *, tenant: str = "acme", **data: Any) -> dict[str, Any]:
    return {"type": type_, "timestamp": "2026-11-23T05:00:00Z", "data": {"tenant": tenant, **data}}


def stored(**overrides: Any) -> dict[str, Any]:
    """A document as the registry keeps it."""
    return parse_document(factories.stored_document(**overrides), factories.catalogue()).plain()


def judged(made: Event, document: dict[str, Any] | None) -> dict[str, Any]:
    """What the event makes of the document, judged as the registry does."""
    result = made.apply(document)
    try:
        return parse_document(result, factories.catalogue()).plain()
    except DocumentError as error:
        raise made.refusal(error, result) from None


def faults(call: Any, *arguments: Any) -> dict[str, tuple[str, str]]:
    """Rule and problem by pointer."""
    with pytest.raises(EventError) as caught:
        call(*arguments)
    return {fault.pointer: (fault.rule, fault.problem) for fault in caught.value.faults}


def parse_faults(data: Any) -> dict[str, tuple[str, str]]:
    return faults(parse_event, data, factories.catalogue())


def rules(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {pointer: rule for pointer, (rule, _problem) in found.items()}


# Envelope -----------------------------------------------------------------------------------------------------------


def test_an_event_has_type_tenant_time_and_sequence() -> None:
    made = parse_event({**body("bot.started", bot_id="b1"), "sequence": 12}, factories.catalogue())
    assert (made.type, made.tenant, made.sequence) == ("bot.started", "acme", 12)
    assert made.timestamp == datetime(2026, 11, 23, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T07:00:00+02:00", datetime(2026, 11, 23, 5, tzinfo=UTC)),
        ("2026-11-23t05:00:00.5z", datetime(2026, 11, 23, 5, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T05:00:00.123456789Z", datetime(2026, 11, 23, 5, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_times_are_brought_to_utc(text: str, expected: datetime) -> None:
    made = parse_event({**body("tenant.suspended"), "timestamp": text}, factories.catalogue())
    assert made.timestamp == expected


@pytest.mark.parametrize(
    "value",
    [
        *("2026-11-23T05:00:00", "2026-11-23", "20261123T050000Z", "2026-W48-1T00:00:00Z", "2026-13-01T00:00:00Z"),
        *(
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59.999999Z",
            "1969-12-31T23:59:59Z",
            "2026-11-23T05:00:60Z",
            "٢٠٢٦-11-23T05:00:00Z",
            "now",
            "x" * 5000,
        ),
        *(1795669200, True, None, [], {}),
    ],
)
def test_other_times_are_refused(value: object) -> None:
    assert rules(parse_faults({**body("tenant.suspended"), "timestamp": value})) == {"/timestamp": "timestamp"}


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", 2**53, []])
def test_a_sequence_is_a_whole_number_from_0(value: object) -> None:
    assert list(parse_faults({**body("tenant.suspended"), "sequence": value})) == ["/sequence"]


def test_every_fault_of_the_envelope_and_the_data_is_named_at_once() -> None:
    found = parse_faults({"type": "bot.started", "data": {"tenant": "A!", "botid": "b1"}, "signature": "x"})
    assert rules(found) == {
        "/timestamp": "missing",
        "/signature": "unknown",
        "/data/tenant": "id",
        "/data/bot_id": "missing",
        "/data/botid": "unknown",
    }


@pytest.mark.parametrize("value", [None, [], "text", 3, {"tenant": 1}, {"tenant": None}, {}])
def test_data_without_a_tenant_is_refused(value: object) -> None:
    assert parse_faults({**body("bot.started"), "data": value})


def test_an_unknown_type_is_answered_with_those_there_are() -> None:
    with pytest.raises(EventError) as caught:
        parse_event(body("bot.begun"), factories.catalogue())
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.rule) == ("/type", "event.type")
    assert set(fault.allowed.split(", ")) == set(EVENT_TYPES)


@pytest.mark.parametrize("type_", NOT_YET)
def test_what_is_not_there_yet_says_so(type_: str) -> None:
    assert parse_faults(body(type_)) == {"/type": ("not_yet", f"{type_} is not available yet")}


@pytest.mark.parametrize("value", [None, [], {}, 1, True, "", "x" * 5000, "{{ lookup('pipe','id') }}"])
def test_a_type_of_any_kind_is_refused(value: object) -> None:
    assert rules(parse_faults({**body("bot.started"), "type": value})) == {"/type": "event.type"}


# Every type ---------------------------------------------------------------------------------------------------------


def test_the_examples_one_after_the_other_are_a_tenants_life() -> None:
    document: dict[str, Any] | None = None
    states = {}
    for type_, kind in EVENT_TYPES.items():
        made = parse_event(kind.example(), factories.catalogue())
        before = copy.deepcopy(document)
        document = judged(made, document)
        assert made.type == type_
        assert document != before, f"{type_} changed nothing" if type_ != "stack.upgraded" else ""
        states[type_] = [bot["state"] for bot in document["bots"]]
        if type_ == "subscription.changed":
            break
    assert states["bot.created"] == ["stopped"]
    assert states["bot.started"] == states["bot.restarted"] == states["bot.resumed"] == ["running"]
    assert states["bot.stopped"] == ["stopped"]
    assert states["bot.liquidated"] == ["liquidated"]
    assert states["bot.deleted"] == []


@pytest.mark.parametrize("type_", [name for name in EVENT_TYPES if name != "tenant.created"])
def test_no_event_makes_a_tenant_but_its_creation(type_: str) -> None:
    made = parse_event(EVENT_TYPES[type_].example(), factories.catalogue())
    assert faults(made.apply, None) == {"/data/tenant": ("tenant.unknown", "there is no tenant 'acme'")}


@pytest.mark.parametrize("type_", [name for name in EVENT_TYPES if name != "tenant.terminated"])
def test_a_tenant_that_is_being_removed_changes_no_more(type_: str) -> None:
    made = parse_event(EVENT_TYPES[type_].example(), factories.catalogue())
    found = faults(made.apply, stored(state="terminated"))
    assert found == {"/data/tenant": ("tenant.terminated", "the tenant was terminated and is being removed")}


def test_a_removal_can_be_asked_for_again() -> None:
    document = stored(state="terminated")
    assert event("tenant.terminated").apply(document) == document


# Tenants ------------------------------------------------------------------------------------------------------------


def test_a_new_tenant_gets_the_newest_release_and_the_documents_defaults() -> None:
    document = judged(event("tenant.created", plan="pro"), None)
    assert document["release"] == newest_release(factories.catalogue())
    assert (document["subdomain"], document["state"], document["exchange_environment"]) == ("acme", "active", "live")


def test_the_newest_release_is_told_by_numbers() -> None:
    class Some:
        releases = dict.fromkeys(("2026.9", "2026.10", "2025.12"))

    assert newest_release(Some()) == "2026.10"  # type: ignore[arg-type]


def test_a_tenant_can_come_with_connections_and_bots() -> None:
    bot = {**factories.grid_bot(), "bot_name": "Test Grid Bot"}
    del bot["name"]
    made = event("tenant.created", plan="pro", exchange_connections=[factories.connection()], bots=[bot])
    (found,) = judged(made, None)["bots"]
    assert (found["name"], found["state"]) == ("Test Grid Bot", "stopped")


def test_all_faults_of_a_new_tenant_are_named_where_the_body_has_them() -> None:
    bots = [
        {**factories.grid_bot(trading_pair="BTC-XYZ"), "state": "liquidated", "restarts": 1},
        {**factories.grid_bot(id="b2", strategy_config={"lower_bound": True}), "bot_name": "\u202e"},
    ]
    del bots[1]["name"]
    data = {
        "plan": "prp",
        "state": "active",
        "placement": {"node": "local"},
        "subdomain": "www",
        "exchange_connections": [factories.connection(exchange="binanse")],
        "bots": bots,
    }
    found = rules(parse_faults(body("tenant.created", **data)))
    assert found == {
        "/data/plan": "plan.unknown",
        "/data/state": "unknown",
        "/data/placement/node": "unknown",
        "/data/subdomain": "subdomain.reserved",
        "/data/exchange_connections/0/exchange": "exchange.unknown",
        "/data/bots/0/state": "bot.state",
        "/data/bots/0/restarts": "unknown",
        "/data/bots/1/bot_name": "name",
        "/data/bots/1/strategy_config/lower_bound": "type.number",
        "/data/bots/1/strategy_config/upper_bound": "missing",
        "/data/bots/1/strategy_config/grid_count": "missing",
        "/data/bots/1/strategy_config/order_amount": "missing",
    }


def test_a_reserved_id_is_refused_as_the_tenants() -> None:
    assert rules(parse_faults(body("tenant.created", tenant="all", plan="pro"))) == {"/data/tenant": "tenant.reserved"}
    assert rules(parse_faults(body("tenant.created", tenant="www", plan="pro"))) == {
        "/data/tenant": "subdomain.reserved"
    }


def test_duplicate_ids_are_refused() -> None:
    bots = [factories.grid_bot(), factories.grid_bot()]
    connections = [factories.connection(), factories.connection(seed="other")]
    found = parse_faults(body("tenant.created", plan="pro", bots=bots, exchange_connections=connections))
    assert rules(found) == {
        "/data/bots/1/id": "bot.duplicate",
        "/data/exchange_connections/1/id": "connection.duplicate",
    }


def test_a_tenant_that_exists_is_not_created() -> None:
    assert rules(faults(event("tenant.created", plan="pro").apply, stored())) == {"/data/tenant": "tenant.exists"}


def test_settings_are_changed_and_the_others_stay() -> None:
    document = stored(placement={"node": "local", "ring": "stable", "labels": {"region": "tokyo"}})
    made = event("tenant.updated", changes={"placement": {"ring": "early"}, "redis": {"enabled": False}})
    result = judged(made, document)
    assert result["placement"] == {"node": "local", "ring": "early", "labels": {"region": "tokyo"}}
    assert result == {**document, "placement": result["placement"], "redis": {"enabled": False}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"/data/changes": "changes.empty"}),
        ([], {"/data/changes": "type.mapping"}),
        ({"plan": "pro"}, {"/data/changes/plan": "unknown"}),
        ({"placement": {"node": "local"}}, {"/data/changes/placement/node": "unknown"}),
        ({"placement": {"ring": "A"}}, {"/data/changes/placement/ring": "ring"}),
        ({"placement": None}, {"/data/changes/placement": "type.mapping"}),
        ({"gateway": {"enabled": 1}}, {"/data/changes/gateway/enabled": "type.boolean"}),
        ({"dashboard": "mine"}, {"/data/changes/dashboard": "choice"}),
        ({"subdomain": "www"}, {"/data/changes/subdomain": "subdomain.reserved"}),
        ({"subdomain": None}, {"/data/changes/subdomain": "type.text"}),
    ],
)
def test_settings_that_cannot_be_are_refused_where_they_stand(changes: Any, expected: dict[str, str]) -> None:
    assert rules(parse_faults(body("tenant.updated", changes=changes))) == expected


def test_a_gateway_needs_a_plan_that_has_one() -> None:
    made = event("tenant.updated", changes={"gateway": {"enabled": True}})
    assert rules(faults(judged, made, stored(plan="starter"))) == {"/data/changes/gateway/enabled": "plan.gateway"}


def test_tenants_are_suspended_and_resumed_as_often_as_wanted() -> None:
    suspended = event("tenant.suspended").apply(stored())
    assert suspended["state"] == "suspended"
    assert event("tenant.suspended").apply(suspended) == suspended
    assert event("tenant.resumed").apply(suspended) == stored()


def test_a_smaller_plan_is_refused_while_more_is_in_use() -> None:
    bots = [factories.grid_bot(id=f"b{number}") for number in range(3)]
    bots[2]["risk_config"] = {**bots[2]["risk_config"], "max_position_usd": 20000}
    document = stored(bots=[*bots, factories.market_making_bot()])
    with pytest.raises(EventError) as caught:
        judged(event("subscription.changed", plan="starter"), document)
    found = caught.value.faults
    assert {fault.pointer for fault in found} == {"/data/plan"}
    assert [(fault.rule, fault.problem) for fault in found] == [
        ("plan.bots", "bots: 4 are more than plan starter allows"),
        ("plan.max_position", "bot b2, risk_config/max_position: 20000 is above the ceiling of plan starter"),
        ("plan.strategy", "bot mm1, strategy_template: plan starter does not include pure_market_making"),
    ]


def test_another_plan_changes_nothing_but_the_plan() -> None:
    assert judged(event("subscription.changed", plan="business"), stored()) == {**stored(), "plan": "business"}


def test_plans_and_releases_are_those_of_the_catalogue() -> None:
    assert rules(parse_faults(body("subscription.changed", plan="gold"))) == {"/data/plan": "plan.unknown"}
    assert rules(parse_faults(body("subscription.changed", plan=["pro"]))) == {"/data/plan": "type.text"}
    assert rules(parse_faults(body("stack.upgraded", release="2000.01"))) == {"/data/release": "release.unknown"}
    assert rules(parse_faults(body("stack.upgraded", release=2026.09))) == {"/data/release": "type.text"}


# Exchanges ----------------------------------------------------------------------------------------------------------


def test_a_connection_is_added() -> None:
    new = factories.connection(id="ex2", seed="second")
    result = judged(event("exchange.connected", connection=new), stored())
    assert [one["id"] for one in result["exchange_connections"]] == ["ex1", "ex2"]


def test_a_connection_that_exists_is_not_connected_again() -> None:
    made = event("exchange.connected", connection=factories.connection(seed="again"))
    assert rules(faults(made.apply, stored())) == {"/data/connection/id": "connection.exists"}


def test_faults_of_a_connection_point_into_it() -> None:
    connection = factories.connection(exchange="binance", nonce_key="AAAA", settings={"x": 1}, extra="y")
    del connection["encrypted_api_secret"]
    assert rules(parse_faults(body("exchange.connected", connection=connection))) == {
        "/data/connection/nonce_key": "credential.nonce",
        "/data/connection/nonce_secret": "credential.nonce_alone",
        "/data/connection/encrypted_api_secret": "credential.missing",
        "/data/connection/settings/x": "setting.unknown",
        "/data/connection/extra": "unknown",
    }


def test_what_the_plan_forbids_points_to_the_exchange() -> None:
    made = event("exchange.connected", connection=factories.connection(id="ex2", exchange="kraken", seed="second"))
    found = rules(faults(judged, made, stored(plan="starter", exchange_environment="live")))
    assert found == {"/data/connection": "plan.connections", "/data/connection/exchange": "plan.exchange"}


def test_new_secrets_replace_the_old_ones() -> None:
    new = factories.connection(seed="rotated", key_id="k2")
    result = judged(event("exchange.rotated", connection=new), stored())
    assert result == {**stored(), "exchange_connections": result["exchange_connections"]}
    assert result["exchange_connections"][0]["encrypted_api_key"] == new["encrypted_api_key"]
    assert result["exchange_connections"][0]["key_id"] == "k2"


def test_secrets_of_a_connection_that_is_not_there_are_refused() -> None:
    made = event("exchange.rotated", connection=factories.connection(id="ex9", seed="new"))
    assert faults(made.apply, stored()) == {
        "/data/connection/id": ("connection.unknown", "there is no exchange connection 'ex9'")
    }


def test_secrets_of_another_exchange_are_refused() -> None:
    made = event("exchange.rotated", connection=factories.connection(exchange="kucoin_perpetual", seed="new") | {
        "encrypted_passphrase": factories.encrypted_text("p"), "nonce_passphrase": factories.nonce_text("p"),
    })  # fmt: skip
    assert rules(faults(made.apply, stored())) == {"/data/connection/exchange": "connection.exchange"}


def test_a_connection_leaves_when_no_bot_uses_it() -> None:
    document = stored()
    disconnect = event("exchange.disconnected", connection_id="ex1")
    found = faults(disconnect.apply, document)
    assert found == {"/data/connection_id": ("connection.used", "bots use the connection 'ex1': b1")}
    without_bot = event("bot.deleted", bot_id="b1").apply(document)
    assert judged(disconnect, without_bot)["exchange_connections"] == []
    unknown = event("exchange.disconnected", connection_id="ex2")
    assert rules(faults(unknown.apply, document)) == {"/data/connection_id": "connection.unknown"}


# Bots ---------------------------------------------------------------------------------------------------------------


def test_the_guides_bot_is_created_stopped() -> None:
    bot = EVENT_TYPES["bot.created"].example()["data"]["bot"]
    result = judged(event("bot.created", bot={**bot, "id": "b2"}), stored())
    assert [(one["id"], one["name"], one["state"]) for one in result["bots"]] == [
        ("b1", "Test Grid Bot", "running"),
        ("b2", "Test Grid Bot", "stopped"),
    ]


def test_a_bot_can_be_created_running() -> None:
    result = judged(event("bot.created", bot=factories.grid_bot(id="b2", state="running", priority=3)), stored())
    assert (result["bots"][1]["state"], result["bots"][1]["priority"]) == ("running", 3)


def test_a_bot_that_exists_is_not_created() -> None:
    made = event("bot.created", bot=factories.grid_bot())
    assert faults(made.apply, stored()) == {"/data/bot/id": ("bot.exists", "bot 'b1' exists")}


def test_hostile_text_in_a_bots_name_is_displayed_text() -> None:
    name = "{{ lookup('pipe','id') }}"
    assert judged(event("bot.created", bot=factories.grid_bot(id="b2", name=name)), stored())["bots"][1]["name"] == name


def test_a_bot_without_an_acceptable_id_or_name_is_refused() -> None:
    bot = {**factories.grid_bot(id="{{ lookup('pipe','id') }}"), "bot_name": "twice"}
    assert rules(parse_faults(body("bot.created", bot=bot))) == {
        "/data/bot/id": "id",
        "/data/bot/bot_name": "twice",
    }
    del bot["id"], bot["name"], bot["bot_name"]
    assert rules(parse_faults(body("bot.created", bot=bot))) == {
        "/data/bot/id": "missing",
        "/data/bot/name": "missing",
    }


def test_limits_that_are_left_out_are_those_of_the_plan() -> None:
    bot = factories.grid_bot(id="b2")
    del bot["risk_config"]
    made = judged(event("bot.created", bot=bot), stored())["bots"][1]
    assert made["risk_config"] == {"close_position_on_halt": False, "earliest_resume_s": 0}


@pytest.mark.parametrize("name", ["max_position", "max_position_usd"])
@pytest.mark.parametrize("before", ["max_position", "max_position_usd"])
def test_a_limit_is_changed_and_removed_under_either_of_its_names(before: str, name: str) -> None:
    document = stored(bots=[factories.grid_bot(risk_config={before: 9000, "max_daily_loss_usd": 500})])
    for value, expected in ((5000, {"max_position": 5000}), (None, {})):
        made = event("bot.updated", bot_id="b1", changes={"risk_config": {name: value}})
        limits = judged(made, document)["bots"][0]["risk_config"]
        assert limits.pop("max_daily_loss") == 500
        assert limits == {**expected, "close_position_on_halt": False, "earliest_resume_s": 0}


def test_a_wrong_limit_is_named_as_the_event_names_it() -> None:
    made = event("bot.updated", bot_id="b1", changes={"risk_config": {"max_position_usd": 200000}})
    document = stored(bots=[factories.grid_bot(risk_config={"max_position": 10000})])
    assert rules(faults(judged, made, document)) == {"/data/changes/risk_config/max_position_usd": "plan.max_position"}


def test_some_limits_are_not_judged_without_the_others() -> None:
    """The event names the template and the pair, but not the position that makes its loss limit right."""
    document = stored(bots=[factories.grid_bot(risk_config={"max_position": 50000})])
    changes = {"strategy_template": "grid", "trading_pair": "BTC-USDT", "risk_config": {"max_daily_loss": 15000}}
    result = judged(event("bot.updated", bot_id="b1", changes=changes), document)
    assert result["bots"][0]["risk_config"]["max_daily_loss"] == 15000


@pytest.mark.parametrize(
    ("bot", "expected"),
    [
        (factories.grid_bot(id="b2", trading_pair="BTC-XYZ"), {"/data/bot/trading_pair": "pair.unknown"}),
        (
            factories.grid_bot(id="b2", exchange_connection_id="ex9"),
            {"/data/bot/exchange_connection_id": "bot.connection"},
        ),
        (
            factories.grid_bot(
                id="b2",
                strategy_config={"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 1},
            ),
            {"/data/bot/strategy_config/order_amount": "grid.notional"},
        ),
    ],
)
def test_what_only_the_document_shows_points_into_the_bot(bot: dict[str, Any], expected: dict[str, str]) -> None:
    assert rules(faults(judged, event("bot.created", bot=bot), stored())) == expected


def test_one_bot_too_many_points_to_the_bot() -> None:
    document = stored(plan="starter", bots=[factories.grid_bot(), factories.grid_bot(id="b2")])
    found = faults(judged, event("bot.created", bot=factories.grid_bot(id="b3")), document)
    assert found == {"/data/bot": ("plan.bots", "bots: 3 are more than plan starter allows")}


def test_what_was_wrong_with_another_bot_does_not_point_into_this_one() -> None:
    document = stored()
    document["bots"][0]["trading_pair"] = "OLD-USDT"
    found = faults(judged, event("bot.created", bot=factories.grid_bot(id="b2")), document)
    assert found == {"/data": ("pair.unknown", "bot b1, trading_pair: binance has no pair OLD-USDT")}


def test_configurations_are_merged_and_the_rest_is_replaced() -> None:
    document = stored()
    changes = {
        "bot_name": "Wider",
        "strategy_config": {"upper_bound": 36000},
        "risk_config": {"max_position_usd": None},
    }
    result = judged(event("bot.updated", bot_id="b1", changes=changes), document)
    before, after = document["bots"][0], result["bots"][0]
    limits = {name: value for name, value in before["risk_config"].items() if name != "max_position"}
    config = {**before["strategy_config"], "upper_bound": 36000}
    assert after == {**before, "name": "Wider", "strategy_config": config, "risk_config": limits}


def test_a_field_that_has_no_default_cannot_be_removed() -> None:
    made = event("bot.updated", bot_id="b1", changes={"strategy_config": {"grid_count": None}})
    assert rules(faults(judged, made, stored())) == {"/data/changes/strategy_config/grid_count": "missing"}


def test_another_template_takes_its_configuration_with_it() -> None:
    new = factories.market_making_bot()
    changes = {name: new[name] for name in ("strategy_template", "trading_pair", "strategy_config", "risk_config")}
    result = judged(event("bot.updated", bot_id="b1", changes=changes), stored())
    assert result["bots"][0]["strategy_config"]["bid_spread"] == 0.5
    assert set(result["bots"][0]["risk_config"]) == {"kill_switch_pct"}


def test_another_template_without_a_configuration_is_refused_field_by_field() -> None:
    made = event("bot.updated", bot_id="b1", changes={"strategy_template": "pure_market_making"})
    found = rules(faults(judged, made, stored()))
    assert found["/data/changes/strategy_config/bid_spread"] == "missing"
    assert found["/data/changes/risk_config/kill_switch_pct"] == "missing"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"/data/changes": "changes.empty"}),
        ("name", {"/data/changes": "type.mapping"}),
        ({"state": "running"}, {"/data/changes/state": "unknown"}),
        ({"restarts": 2}, {"/data/changes/restarts": "unknown"}),
        ({"id": "b2"}, {"/data/changes/id": "unknown"}),
        ({"name": "a", "bot_name": "b"}, {"/data/changes/bot_name": "twice"}),
        ({"name": None}, {"/data/changes/name": "type.text"}),
        ({"bot_name": "x" * 81}, {"/data/changes/bot_name": "name"}),
        ({"priority": True}, {"/data/changes/priority": "type.integer"}),
        ({"strategy_config": None}, {"/data/changes/strategy_config": "type.mapping"}),
        ({"risk_config": [1]}, {"/data/changes/risk_config": "type.mapping"}),
        ({"trading_pair": "btc/usdt"}, {"/data/changes/trading_pair": "pair.format"}),
        ({"strategy_template": "martingale"}, {"/data/changes/strategy_template": "bot.template"}),
    ],
)
def test_changes_that_cannot_be_are_refused_where_they_stand(changes: Any, expected: dict[str, str]) -> None:
    assert rules(parse_faults(body("bot.updated", bot_id="b1", changes=changes))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"strategy_config": {"lower_bound": 40000}}, {"/data/changes/strategy_config/lower_bound": "grid.bounds"}),
        ({"strategy_config": {"gridcount": 3}}, {"/data/changes/strategy_config/gridcount": "unknown"}),
        ({"strategy_config": {"grid_count": True}}, {"/data/changes/strategy_config/grid_count": "type.number"}),
        ({"trading_pair": "ETH-XYZ"}, {"/data/changes/trading_pair": "pair.unknown"}),
        ({"exchange_connection_id": "ex9"}, {"/data/changes/exchange_connection_id": "bot.connection"}),
        ({"risk_config": {"max_position_usd": 100}}, {"/data/changes": "order.max_position"}),
    ],
)
def test_changes_that_do_not_fit_the_bot_are_refused_where_they_stand(changes: Any, expected: dict[str, str]) -> None:
    found = rules(faults(judged, event("bot.updated", bot_id="b1", changes=changes), stored()))
    assert expected.items() <= found.items(), found


@pytest.mark.parametrize("type_", ["started", "stopped", "restarted", "resumed", "liquidated", "deleted", "updated"])
def test_a_bot_that_is_not_there_is_answered_with_those_that_are(type_: str) -> None:
    more = {"changes": {"priority": 1}} if type_ == "updated" else {}
    made = event(f"bot.{type_}", bot_id="b9", **more)
    with pytest.raises(EventError) as caught:
        made.apply(stored())
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.rule, fault.allowed) == ("/data/bot_id", "bot.unknown", "b1")


def test_a_bot_of_a_suspended_tenant_is_started_for_later() -> None:
    result = judged(event("bot.started", bot_id="b1"), stored(state="suspended"))
    assert (result["state"], result["bots"][0]["state"]) == ("suspended", "running")


def test_restarts_and_resumes_count_up_and_start_a_stopped_bot() -> None:
    document = stored(bots=[factories.grid_bot(state="stopped", restarts=4)])
    restarted = judged(event("bot.restarted", bot_id="b1"), document)["bots"][0]
    assert (restarted["state"], restarted["restarts"], restarted["resumes"]) == ("running", 5, 0)
    resumed = judged(event("bot.resumed", bot_id="b1"), document)["bots"][0]
    assert (resumed["state"], resumed["restarts"], resumed["resumes"]) == ("running", 4, 1)


def test_a_counter_at_its_end_is_refused_as_the_bots() -> None:
    document = stored(bots=[factories.grid_bot(restarts=1_000_000)])
    found = faults(judged, event("bot.restarted", bot_id="b1"), document)
    assert rules(found) == {"/data/bot_id": "range"}


def test_only_the_deleted_bot_is_gone() -> None:
    document = stored(bots=[factories.grid_bot(), factories.grid_bot(id="b2")])
    result = judged(event("bot.deleted", bot_id="b1"), document)
    assert result == {**document, "bots": document["bots"][1:]}
