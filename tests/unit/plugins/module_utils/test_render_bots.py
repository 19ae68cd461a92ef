"""What a bot is given: the limits that hold, and a new container only for what it cannot follow while it runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.document import parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import parse_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.render import Renderer, render_stack
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

from tests import factories

FLEET = {
    "plugin": "hummingfleet.core.tenants",
    "nodes": {"local": {"memory_mib": 4096}},
    "kdf_iterations": 2,
    "broker_enabled": True,
}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("render")
    fleet = parse_fleet(FLEET, Path("/fleets/fleet.tenants.yml"))
    return Renderer(fleet, factories.catalogue(), generate_keyring(folder / "keyring.yml"), "build")


@pytest.fixture(scope="module")
def connection(renderer: Renderer) -> dict[str, Any]:
    """Credentials that decrypt; the same for every document, because fresh nonces would change the stack."""
    return encrypt_connection(
        {"api_key": "key", "api_secret": "secret"}, connection_id="ex1", exchange="binance", tenant="acme",
        keyring=renderer.keyring, key_id="k1", connectors=renderer.catalogue.connectors,
    )  # fmt: skip


def rendered(renderer: Renderer, connection: dict[str, Any], bot: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """The stack of a tenant with this bot."""
    data = factories.stored_document(bots=[bot], exchange_connections=[connection], **overrides)
    plain = parse_document(data, renderer.catalogue).plain()
    stack, _secrets = render_stack(plain, renderer, revision=1, fence=1)
    return stack


def about(stack: dict[str, Any], bot: str) -> dict[str, Any]:
    """The bot's bot.json."""
    (file,) = [file for file in stack["files"] if file["path"] == f"bots/{bot}/config/bot.json"]
    return dict(json.loads(file["content"]))


def spec(stack: dict[str, Any], bot: str) -> str:
    """What a new container is made for."""
    return str(stack["services"][f"bot_{bot}"]["spec"])


OTHERS: dict[str, Any] = {
    "lower_bound": 29999, "upper_bound": 35001, "grid_count": 9, "order_amount": 99, "take_profit_pct": 6,
    "stop_price": 100, "activation_bounds_pct": 50, "spreads_pct": [0, 3, 6], "amounts_quote": [100, 200, 300],
    "stop_loss_pct": 50, "cooldown_s": 61, "repeat": False, "interval_s": 3600, "max_signal_age_s": 31,
    "time_limit_s": 3600,
}  # fmt: skip
"""Another good value for the fields that can be changed alone."""
BOTS = [factories.grid_bot(), factories.dca_bot(), factories.dca_interval_bot(), factories.signal_bot()]


def single_changes() -> list[Any]:
    """Every field of every template of ours with a bot that has it and another value for it."""
    cases = []
    for bot in BOTS:
        for name, field in TEMPLATES[bot["strategy_template"]].fields.items():
            if name in OTHERS and field.mode in ("", bot["strategy_config"].get("mode")):
                cases.append(pytest.param(bot, field, id=f"{bot['id']}-{name}"))
    return cases


@pytest.mark.parametrize(("bot", "field"), single_changes())
def test_a_live_change_reaches_the_running_bot_and_makes_no_new_container(
    renderer: Renderer, connection: dict[str, Any], bot: dict[str, Any], field: Field
) -> None:
    assert field.live
    changed = copy.deepcopy(bot)
    changed["strategy_config"][field.name] = OTHERS[field.name]
    before, after = rendered(renderer, connection, bot), rendered(renderer, connection, changed)
    assert spec(after, bot["id"]) == spec(before, bot["id"])
    assert after["bots"][0]["live_digest"] != before["bots"][0]["live_digest"]
    assert after["digest"] != before["digest"]


def test_another_mode_makes_a_new_container(renderer: Renderer, connection: dict[str, Any]) -> None:
    ladder, interval = factories.dca_bot(), factories.dca_interval_bot(id="d1", name="Test ladder")
    assert spec(rendered(renderer, connection, ladder), "d1") != spec(rendered(renderer, connection, interval), "d1")


def test_every_field_of_the_engines_own_strategy_makes_a_new_container(
    renderer: Renderer, connection: dict[str, Any]
) -> None:
    bot = factories.market_making_bot()
    changed = copy.deepcopy(bot)
    changed["strategy_config"]["bid_spread"] = 0.6
    assert spec(rendered(renderer, connection, bot), "mm1") != spec(rendered(renderer, connection, changed), "mm1")


def test_a_limit_makes_a_new_container(renderer: Renderer, connection: dict[str, Any]) -> None:
    changed = factories.grid_bot(risk_config={**factories.grid_bot()["risk_config"], "max_open_orders": 11})
    before, after = rendered(renderer, connection, factories.grid_bot()), rendered(renderer, connection, changed)
    assert spec(after, "b1") != spec(before, "b1")


def test_a_bot_is_told_the_limits_that_hold(renderer: Renderer, connection: dict[str, Any]) -> None:
    limits = {"max_position_usd": 9000.5, "price_band_pct": 2, "close_position_on_halt": True, "earliest_resume_s": 60}
    bot = factories.grid_bot(risk_config=limits)
    assert about(rendered(renderer, connection, bot, plan="starter"), "b1")["risk"] == {
        "max_position": "9000.5",
        "max_order": "5000",
        "max_open_orders": 100,
        "max_daily_loss": "2000",
        "price_band_pct": "2",
        "close_position_on_halt": True,
        "earliest_resume_s": 60,
    }


def test_a_plan_that_changes_reaches_what_was_stored_before(renderer: Renderer, connection: dict[str, Any]) -> None:
    """Also under the names of documents that were stored before there were ceilings."""
    data = factories.stored_document(plan="starter", exchange_connections=[connection])
    data["bots"][0]["risk_config"] = {"max_position_usd": 99999, "max_daily_loss_usd": 500, "max_drawdown_pct": 10}
    stack, _secrets = render_stack(data, renderer, revision=1, fence=1)
    risk = about(stack, "b1")["risk"]
    assert (risk["max_position"], risk["max_daily_loss"], risk["max_drawdown_pct"]) == ("10000", "500", "10")


def test_the_engines_own_strategy_is_told_its_kill_switch_by_its_own_file_alone(
    renderer: Renderer, connection: dict[str, Any]
) -> None:
    stack = rendered(renderer, connection, factories.market_making_bot())
    assert about(stack, "mm1")["risk"] == {}
    (client,) = [file for file in stack["files"] if file["path"] == "bots/mm1/config/conf_client.yml"]
    assert "kill_switch_rate: -5" in client["content"]


def test_the_tenants_own_limit_and_its_halt_are_no_part_of_the_stack(
    renderer: Renderer, connection: dict[str, Any]
) -> None:
    bot = factories.grid_bot(state="stopped")
    halt = {
        "limit": "max_daily_loss_usd",
        "day": "2026-11-23",
        "value": 1004.2,
        "threshold": 1000,
        "at": "2026-11-23T14:05:11.020Z",
    }
    before = rendered(renderer, connection, bot)
    for fields in ({"risk": {"max_daily_loss_usd": 1000}}, {"risk_halt": halt}):
        after = rendered(renderer, connection, bot, **fields)
        assert (after["digest"], after["services"]) == (before["digest"], before["services"])
