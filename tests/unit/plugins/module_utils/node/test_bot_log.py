"""Why a bot does not trade, read from lines as the agent and the engine write them."""

from __future__ import annotations

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node.bot_log import excerpt, reason_in

AT = "2026-11-23T05:00:00.123Z"
SETTLE = (
    f"{AT} WARNING hummingfleet.settlement - SETTLE_RETRY the exchange cannot be asked (OSError: 401); trying again"
)
ENGINE = f"{AT} ERROR hummingbot.core.data_type.user_stream - Unexpected error while listening"
OURS = f"{AT} ERROR hummingfleet.launcher - CONFIGURATION bot.json: the engine has no connector x"
UNCLEAN = f"{AT} WARNING hummingfleet.session - UNCLEAN_START the last run did not end cleanly"
INFO = f"{AT} INFO hummingfleet.session - SETTLED own orders: 0"


@pytest.mark.parametrize(
    ("lines", "settling", "expected"),
    [
        ([], False, None),
        ([INFO], False, None),
        (["", INFO, ENGINE], False, "Unexpected error while listening"),
        ([OURS, ENGINE], False, "CONFIGURATION bot.json: the engine has no connector x"),
        ([OURS, OURS.replace("x", "y")], False, "CONFIGURATION bot.json: the engine has no connector y"),
        ([UNCLEAN, INFO], False, "UNCLEAN_START the last run did not end cleanly"),
        ([SETTLE, ENGINE, OURS], True, "SETTLE_RETRY the exchange cannot be asked (OSError: 401); trying again"),
        ([SETTLE, ENGINE], False, "Unexpected error while listening"),
        (
            ["Traceback (most recent call last):", "ModuleNotFoundError: No module named 'hummingbot'"],
            False,
            "ModuleNotFoundError: No module named 'hummingbot'",
        ),
    ],
)
def test_the_line_that_explains_most_is_told(lines: list[str], settling: bool, expected: str | None) -> None:
    assert reason_in(lines, settling=settling) == expected


def test_a_quotation_is_one_short_printable_line_without_keys() -> None:
    key = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
    told = excerpt(f"\x1b[31mrefused\r\nkey={key}&signature=ab \u202e" + "word " * 200)
    assert told.isprintable() and len(told) <= 300
    assert key not in told and key[:20] not in told
    assert told.startswith("[31mrefused")
