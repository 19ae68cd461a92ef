"""When a grid is done, and what it remembers."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hummingfleet_agent.exits import ProfitExits
from hummingfleet_agent.grid_exit import GridExits, GridMemory, judge

D = Decimal
NONE = ProfitExits()


def follow(exits: GridExits, looks: list[tuple[str, str]], memory: dict[str, object] | None = None) \
        -> tuple[str | None, dict[str, object]]:
    """Result and mid price, one look after the other, through the file each time: the exit found and the memory."""
    plain = memory or {}
    for result, mid in looks:
        state = GridMemory.parse(json.loads(json.dumps(plain)), D(result))
        state, due = judge(exits, state, result=D(result), mid=D(mid), capital=D(1000))
        plain = state.plain()
        if due is not None:
            return due.kind, plain
    return None, plain


@pytest.mark.parametrize(("exits", "looks", "kind"), [
    (GridExits(ProfitExits(D(2))), [("0", "1"), ("19.99", "1")], None),
    (GridExits(ProfitExits(D(2))), [("0", "1"), ("20", "1")], "TAKE_PROFIT"),
    (GridExits(ProfitExits(None, D(2), D(1))), [("0", "1"), ("20", "1"), ("30", "1"), ("20.1", "1")], None),
    (GridExits(ProfitExits(None, D(2), D(1))), [("0", "1"), ("20", "1"), ("30", "1"), ("20", "1")], "TRAILING_STOP"),
    (GridExits(NONE, D(29000)), [("0", "35000"), ("-100", "29000.01")], None),
    (GridExits(NONE, D(29000)), [("0", "35000"), ("-100", "29000")], "STOP_PRICE"),
    # A bot whose grid is older than its memory begins at what it has earned so far.
    (GridExits(ProfitExits(D(2))), [("500", "1"), ("519", "1")], None),
    (GridExits(ProfitExits(D(2))), [("-500", "1"), ("-480", "1")], "TAKE_PROFIT"),
])
def test_exits(exits: GridExits, looks: list[tuple[str, str]], kind: str | None) -> None:
    assert follow(exits, looks)[0] == kind


def test_a_finished_grid_begins_anew_from_the_profit_of_that_moment() -> None:
    exits = GridExits(ProfitExits(D(2)))
    kind, memory = follow(exits, [("0", "1"), ("25", "1")])
    assert kind == "TAKE_PROFIT" and memory["finished"]
    kind, memory = follow(exits, [("24", "1"), ("43.9", "1")], memory)
    assert kind is None and not memory["finished"]
    assert follow(exits, [("44", "1")], memory)[0] == "TAKE_PROFIT"


def test_a_restart_forgets_neither_baseline_nor_peak() -> None:
    exits = GridExits(ProfitExits(None, D(2), D(1)))
    _, memory = follow(exits, [("5", "1"), ("45", "1")])
    assert (memory["baseline"], D(str(memory["peak_pct"]))) == ("5", 4)
    assert follow(exits, [("36", "1")], memory)[0] is None
    assert follow(exits, [("35", "1")], memory)[0] == "TRAILING_STOP"
    # Taken away and set again: it must be earned anew.
    _, memory = follow(GridExits(NONE), [("36", "1")], memory)
    assert follow(exits, [("20", "1"), ("24", "1"), ("1", "1")], memory)[0] is None
