"""The signal template: its ranges, its engine files, and that it alone needs the broker."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import bot_context, parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

from tests import factories
from tests.unit.plugins.module_utils.test_fields import check_range

SIGNAL = TEMPLATES["signal_webhook"]

RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "order_amount": (["0.000000000001", "10000000"], ["0", "-1", "10000000.1"]),
    "max_signal_age_s": ([5, 300], [4, 0, -1, 301]),
    "take_profit_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "stop_loss_pct": (["0.000000000001", "99.999"], ["0", "-1", "100"]),
    "trailing_activation_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "trailing_delta_pct": (["0.000000000001", "1000"], ["0", "-1", "1000.1"]),
    "time_limit_s": ([1, 31_536_000], [0, -1, 31_536_001]),
    "cooldown_s": ([0, 2_678_400], [-1, 2_678_401]),
}


@pytest.mark.parametrize("name", RANGES)
def test_every_field_has_its_range(name: str) -> None:
    check_range(SIGNAL.fields[name], *RANGES[name])


def test_every_field_is_in_the_table_of_ranges() -> None:
    assert list(RANGES) == list(SIGNAL.fields)
    assert all(field.live and not field.required for field in SIGNAL.fields.values())


def test_signals_alone_need_the_broker() -> None:
    assert [name for name, strategy in TEMPLATES.items() if strategy.needs_broker] == ["signal_webhook"]


def test_the_engine_files_are_exactly_these() -> None:
    bot = factories.signal_bot(strategy_config={"order_amount": "100.50", "stop_loss_pct": 3})
    document = parse_document(factories.document(bots=[bot]), factories.catalogue())
    assert SIGNAL.engine_files(bot_context(document, document.bots[0], factories.catalogue())) == {
        "scripts/s1.yml": 'script_file_name: "hummingfleet.py"\ncontrollers_config: ["s1.yml"]\n',
        "controllers/s1.yml": "\n".join(
            [
                'id: "s1"',
                'controller_name: "hummingfleet_signal"',
                'controller_type: "generic"',
                'connector_name: "binance"',
                'trading_pair: "BTC-USDT"',
                "total_amount_quote: 1000",
                "order_amount: 100.5",
                "max_signal_age_s: 30",
                "take_profit_pct: null",
                "stop_loss_pct: 3",
                "trailing_activation_pct: null",
                "trailing_delta_pct: null",
                "time_limit_s: null",
                "cooldown_s: 0",
                "",
            ]
        ),
    }
