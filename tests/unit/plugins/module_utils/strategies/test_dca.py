"""The averaging template: its ranges, its modes, its engine files."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.document import bot_context, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext

from tests import factories
from tests.unit.plugins.module_utils.test_fields import check_range

DCA = TEMPLATES["dca"]

NUMBERS: dict[str, tuple[list[Any], list[Any]]] = {
    "take_profit_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "stop_loss_pct": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "cooldown_s": ([0, 2_678_400], [-1, 2_678_401]),
    "order_amount": (["0.000000000001", "10000000"], ["0", "-1", "10000000.1"]),
    "interval_s": ([10, 2_678_400], [9, 0, -1, 2_678_401]),
    "dip_pct": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "dip_multiplier": (["1.000000000001", "10"], ["1", "0", "10.1"]),
    "mode": (["ladder", "interval"], ["", "Ladder", 1, None]),
    "repeat": ([True, False], [0, "true", None]),
}


def context(bot: dict[str, Any], **overrides: Any) -> BotContext:
    document = parse_document(factories.document(bots=[bot], **overrides), factories.catalogue())
    return bot_context(document, document.bots[0], factories.catalogue())


@pytest.mark.parametrize("name", NUMBERS)
def test_every_field_has_its_range(name: str) -> None:
    check_range(DCA.fields[name], *NUMBERS[name])


def test_every_field_is_in_the_table_of_ranges() -> None:
    assert {*NUMBERS, "spreads_pct", "amounts_quote"} == set(DCA.fields)
    assert [name for name, field in DCA.fields.items() if not field.live] == ["mode"]
    assert (DCA.fields["spreads_pct"].longest, DCA.fields["amounts_quote"].longest) == (20, 20)


def test_the_ladders_engine_files_are_exactly_these() -> None:
    bot = factories.dca_bot()
    bot["strategy_config"] |= {"spreads_pct": ["0", "2.50", 5], "stop_loss_pct": 15, "repeat": False}
    assert DCA.engine_files(context(bot)) == {
        "scripts/d1.yml": 'script_file_name: "hummingfleet.py"\ncontrollers_config: ["d1.yml"]\n',
        "controllers/d1.yml": "\n".join(
            [
                'id: "d1"',
                'controller_name: "hummingfleet_dca"',
                'controller_type: "generic"',
                'connector_name: "binance"',
                'trading_pair: "BTC-USDT"',
                "total_amount_quote: 700",
                'mode: "ladder"',
                "spreads_pct: [0, 2.5, 5]",
                "amounts_quote: [100, 200, 400]",
                "take_profit_pct: 1.5",
                "stop_loss_pct: 15",
                "cooldown_s: 60",
                "repeat: false",
                "order_amount: null",
                "interval_s: null",
                "dip_pct: null",
                "dip_multiplier: null",
                "",
            ]
        ),
    }


def test_purchases_at_intervals_leave_the_ladders_fields_at_what_they_mean_unset() -> None:
    bot = factories.dca_interval_bot()
    loaded = yaml.safe_load(DCA.engine_files(context(bot))["controllers/d2.yml"])
    assert loaded["total_amount_quote"] == 1000  # max_position
    assert (loaded["mode"], loaded["order_amount"], loaded["interval_s"]) == ("interval", 50, 86400)
    assert loaded["spreads_pct"] is loaded["amounts_quote"] is loaded["dip_pct"] is None
    assert (loaded["cooldown_s"], loaded["repeat"]) == (60, True)


def test_the_capital_of_purchases_at_intervals_is_the_position_that_holds() -> None:
    bot = factories.dca_interval_bot(risk_config={})
    small = context(bot, plan="starter")
    assert yaml.safe_load(DCA.engine_files(small)["controllers/d2.yml"])["total_amount_quote"] == 10000


def test_a_stored_document_says_nothing_about_the_other_mode() -> None:
    document = parse_document(factories.dca_interval_document(), factories.catalogue())
    assert document.plain()["bots"][0]["strategy_config"] == {
        "mode": "interval",
        "order_amount": 50,
        "interval_s": 86400,
    }
