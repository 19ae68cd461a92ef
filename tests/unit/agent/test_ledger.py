"""The ledger: what was bought and sold is booked once, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import time
from decimal import Decimal
from pathlib import Path

import pytest
from hummingfleet_agent import ledger as module
from hummingfleet_agent.errors import ConfigurationError
from hummingfleet_agent.grid_plan import GridSettings, plan_levels
from hummingfleet_agent.ledger import Executed, Halt, Intent, Ledger
from hummingfleet_agent.order_ids import OrderIdFactory
from hummingfleet_agent.planning import Cell, MarketRules
from hummingfleet_agent.risk import RiskState
from hypothesis import given
from hypothesis import strategies as st

D = Decimal
LEVELS = plan_levels(
    GridSettings(D(30000), D(35000), 10, D(100)), MarketRules(D("0.01"), D("0.00001"), D("0.00001"), D(5)))
TOP = LEVELS[9]


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.set_plan(LEVELS, D(500))
    return ledger


def order(ledger: Ledger, client_id: str, side: str = "BUY", cell: str = TOP.key) -> None:
    ledger.intent = Intent(cell, TOP.buy_price, TOP.amount, TOP.amount)
    ledger.record_order(client_id, side, int(time.time() * 1e6))


def test_totals_are_booked_once(book: Ledger) -> None:
    order(book, "a")
    bought = Executed(D("0.001"), D("34.5"), trades=1)
    book.account("a", bought, final=False)
    book.account("a", bought, final=False)
    book.account("a", Executed(D("0.0005"), D("17.25"), trades=1), final=False)  # late news of less
    assert (book.base, book.quote, book.fills) == (D("0.001"), D("-34.5"), 1)
    book.account("a", Executed(D("0.00289"), D("99.705"), fee_base=D("0.00000289"), trades=2), final=True)
    assert book.base == D("0.00288711") == book.cells[TOP.key].held
    assert book.cells[TOP.key].cost == D("99.705") and book.fills == 2
    assert not book.unsettled()


def test_it_is_on_disk_before_the_order_is_sent(book: Ledger) -> None:
    order(book, "a")
    again = Ledger.load(book.path)
    assert [entry.client_id for entry in again.unsettled()] == ["a"]
    assert again.resting_orders()[TOP.key].price == TOP.buy_price
    assert again.intent is None


def test_everything_survives_the_disk(book: Ledger) -> None:
    order(book, "a")
    book.account("a", Executed(D("0.001"), D("34.5"), D("0.000001"), D("0.1"), 1), final=False)
    book.set_risk(RiskState("2026-11-23", D(1), D(2)))
    book.set_halt(Halt("RISK", "why", 12.5, 3))
    again = Ledger.load(book.path)
    assert (again.cells, again.orders, again.base, again.quote) == (book.cells, book.orders, book.base, book.quote)
    assert (again.risk, again.halt, again.fills, again.step) == (book.risk, book.halt, 1, D(500))


def test_the_exchanges_number_of_an_order_survives_and_older_books_have_none(book: Ledger) -> None:
    book.record_order("a", "BUY", 1)
    book.number_order("a", "17")
    book.number_order("stranger", "18")
    book.save_if_changed()
    assert Ledger.load(book.path).orders["a"].exchange_id == "17"
    data = json.loads(book.path.read_text())
    del data["orders"]["a"]["exchange_id"]
    book.path.write_text(json.dumps(data))
    assert Ledger.load(book.path).orders["a"].exchange_id is None


def test_the_highest_result_reaches_the_disk_although_the_market_turns(
        book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    for seconds, peak in ((0, 1), (5, 2), (20, 2)):
        clock = 1000.0 + seconds
        book.set_risk(RiskState("2026-11-23", D(0), D(peak)))
        book.save_if_changed()
    assert Ledger.load(book.path).risk.peak_pnl == 2


def test_a_damaged_file_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    assert Ledger.load(path).is_new
    for text in ("", "[]", "{}", '{"version": 1'):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="restore it from a backup"):
            Ledger.load(path)


def test_strangers_find_their_cell_by_price_and_side(book: Ledger) -> None:
    assert book.adopt_order("a", "BUY", D("34500.00"), D(1), 1).cell == TOP.key
    assert book.adopt_order("b", "SELL", D(35000), D(1), 2).cell == TOP.key
    # A price of no level: a cell of its own, that sells a step higher.
    assert book.adopt_order("c", "BUY", D(34700), D(1), 3).cell == "34700:35200"
    assert book.adopt_order("d", "SELL", D(1), D(1), 4).cell == ""


def test_a_sale_of_no_level_empties_the_cells(book: Ledger) -> None:
    for name, level in (("a", LEVELS[8]), ("b", TOP)):
        order(book, name, cell=level.key)
        book.account(name, Executed(level.amount, level.amount * level.buy_price, trades=1), final=True)
    order(book, "c", "SELL", cell="")
    book.account("c", Executed(book.base, D(200), trades=1), final=True)
    assert book.base == 0 == book.cost
    assert all(cell.held == 0 for cell in book.cells.values())


def test_a_market_maker_may_be_short(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.json")
    book.record_order("a", "SELL", 1)
    book.account("a", Executed(D("0.01"), D(350), trades=1), final=True)
    assert (book.base, book.cost, book.profit(D(34000))) == (D("-0.01"), 0, D(10))
    book.record_order("b", "BUY", 2)
    book.account("b", Executed(D("0.03"), D(1020), trades=1), final=True)
    assert book.base == D("0.02") and book.profit(D(34000)) == D(10)


def test_old_orders_are_forgotten_but_not_their_sums(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    order(book, "a")
    book.account("a", Executed(D("0.001"), D("34.5"), trades=1), final=True)
    order(book, "b")
    order(book, "c")
    book.account("c", Executed(), final=True)
    nonce = book.orders["a"].nonce_us
    book.forget_old_orders(now=time.time() + module.MEMORY_SECONDS + 1)
    # c is younger than the open b: its place in time must stay known.
    assert set(book.orders) == {"b", "c"} and book.watermark_us == nonce and book.base == D("0.001")


def test_plans_keep_cells_that_hold_something(book: Ledger) -> None:
    order(book, "a")
    book.account("a", Executed(D("0.001"), D("34.5"), trades=1), final=True)
    order(book, "b", cell=LEVELS[8].key)
    moved = plan_levels(
        GridSettings(D(31000), D(34000), 6, D(100)), MarketRules(D("0.01"), D("0.00001"), D("0.00001"), D(5)))
    book.set_plan(moved, D(500))
    assert set(book.cells) == {level.key for level in moved} | {TOP.key, LEVELS[8].key}


def test_merged_cells_lose_nothing(book: Ledger) -> None:
    for name, level in (("a", LEVELS[0]), ("b", TOP)):
        order(book, name, cell=level.key)
        book.account(name, Executed(D("0.0001"), D(3), trades=1), final=name == "a")
    book.merge_cells({LEVELS[0].key: LEVELS[1].key, TOP.key: LEVELS[2].key})
    assert LEVELS[0].key not in book.cells and book.cells[LEVELS[1].key].held == D("0.0001")
    assert book.cells[TOP.key].held == D("0.0001"), "its order is still under way"
    assert sum(cell.held for cell in book.cells.values()) == book.base and book.cost == 6


def test_a_proven_stop_closes_the_books(book: Ledger) -> None:
    order(book, "a")
    book.close_books()
    assert book.orders
    book.account("a", Executed(), final=True)
    book.close_books()
    assert not book.orders and book.watermark_us >= int((time.time() - 5) * 1e6)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 300), st.integers(0, 3)), max_size=30))
def test_cells_always_add_up_to_the_position(moves: list[tuple[bool, int, int, int]]) -> None:
    book = Ledger(Path("/nowhere"))
    book.save = lambda: None  # type: ignore[method-assign]
    book.set_plan(LEVELS, D(500))
    names = itertools.count()
    for buys, index, lots, fee in moves:
        level, name = LEVELS[index], f"o{next(names)}"
        amount = D(lots) / 100000
        if not buys:
            amount = min(amount, book.cells[level.key].held)
        order(book, name, "BUY" if buys else "SELL", level.key)
        book.account(name, Executed(amount / 2, amount * 15000, trades=1), final=False)
        paid = amount * fee / 1000 if buys else D(0)
        book.account(name, Executed(amount, amount * 30000, paid, trades=2), final=True)
    assert abs(sum(cell.held for cell in book.cells.values()) - book.base) < D("1e-20")
    assert all(cell.cost >= 0 for cell in book.cells.values())


def test_ids_are_recognised_by_tag_and_side() -> None:
    ids = OrderIdFactory("bb9284c0")
    made = [ids.new(is_buy=True, prefix="x-MG43PCSN", max_length=32) for _ in range(200)]
    assert len(set(made)) == 200 and made == sorted(made) and all(name and len(name) == 32 for name in made)
    parsed = ids.parse(made[0] or "")
    assert parsed and parsed.side == "BUY" and abs(parsed.nonce_us / 1e6 - time.time()) < 60
    sold = ids.new(is_buy=False, prefix="", max_length=None)
    assert sold and (ids.parse(sold) or parsed).side == "SELL"
    assert OrderIdFactory("bb9284c1").parse(made[0] or "") is None
    assert ids.parse("x-MG43PCSNBBCUT60e82880e3da1f3b2c7a4") is None and ids.parse("") is None


@pytest.mark.parametrize(("length", "fits"), [(32, True), (29, True), (28, False)])
def test_ids_stay_unique_when_cut(length: int, fits: bool) -> None:
    ids = OrderIdFactory("bb9284c0")
    made = [ids.new(is_buy=True, prefix="x-MG43PCSN", max_length=length) for _ in range(50)]
    assert (None not in made) == fits
    if fits:
        assert len(set(made)) == 50 and {len(name or "") for name in made} == {length}


def test_ids_rise_although_the_clock_was_set_back() -> None:
    future = int((time.time() + 3600) * 1e6)
    ids = OrderIdFactory("bb9284c0", future)
    parsed = ids.parse(ids.new(is_buy=True, prefix="", max_length=None) or "")
    assert parsed and parsed.nonce_us > future


def test_what_was_bought_on_one_market_is_never_sold_on_another(book: Ledger, tmp_path: Path) -> None:
    book.claim_market("binance BTC-USDT")
    order(book, "a")
    with pytest.raises(ConfigurationError, match="1 orders not accounted for on binance BTC-USDT"):
        book.claim_market("binance ETH-USDT")
    book.account("a", Executed(D("0.001"), D("34.5"), trades=1), final=True)
    book.save()
    with pytest.raises(ConfigurationError, match=r"holds 0\.001 .* on binance BTC-USDT"):
        Ledger.load(tmp_path / "ledger.json").claim_market("binance ETH-USDT")
    book.claim_market("binance BTC-USDT")
    assert book.base == D("0.001")


def test_a_bot_that_holds_nothing_may_change_its_market(book: Ledger) -> None:
    book.claim_market("binance BTC-USDT")
    order(book, "a")
    newest = book.newest_nonce_us()
    book.account("a", Executed(), final=True)
    book.claim_market("binance ETH-USDT")
    assert (book.market, book.cells, book.orders, book.step) == ("binance ETH-USDT", {}, {}, None)
    assert book.newest_nonce_us() == newest


def test_a_gathered_position_has_one_average(book: Ledger, tmp_path: Path) -> None:
    """What is sold in parts leaves the average price as it was, and cells remember what they bought and sold."""
    for name, level in (("a", LEVELS[8]), ("b", TOP)):
        order(book, name, cell=level.key)
        book.account(name, Executed(D("0.001"), level.buy_price / 1000, trades=1), final=name == "a")
    book.gather("sale")
    assert {key: (cell.held, cell.cost) for key, cell in book.cells.items() if cell.held} == {
        "sale": (D("0.002"), D("68.5"))}
    # The order that was under way buys on, into its own cell.
    book.account("b", Executed(D("0.003"), D("103.5"), fee_base=D("0.000003"), trades=2), final=True)
    assert (book.cells[TOP.key].bought, book.cells[TOP.key].held) == (D("0.003"), D("0.001997"))
    book.gather("sale")
    average = book.cells["sale"].cost / book.cells["sale"].held
    order(book, "c", "SELL", cell="sale")
    book.account("c", Executed(D("0.001"), D(36), trades=1), final=True)
    sale = book.cells["sale"]
    assert (sale.sold, sale.held) == (D("0.001"), book.base) and abs(sale.cost / sale.held - average) < D("1e-18")
    book.save()
    assert Ledger.load(tmp_path / "ledger.json").cells == book.cells


def test_cells_that_are_not_wanted_any_more_are_forgotten_once_they_are_empty(book: Ledger) -> None:
    order(book, "a", cell="old")
    book.account("a", Executed(D("0.001"), D(34), trades=1), final=False)
    for wanted in ({"new": Cell(D(1), D(2))}, {"new": Cell(D(1), D(3))}):
        book.set_cells(wanted)
        assert set(book.cells) == {"old", "new"} and book.cells["new"] == wanted["new"]
    book.gather("new")
    book.set_cells({"new": Cell(D(1), D(3))})
    assert "old" in book.cells, "its order is under way"
    book.account("a", Executed(D("0.001"), D(34), trades=1), final=True)
    book.set_cells({"new": Cell(D(1), D(3))})
    assert book.cells == {"new": Cell(D(1), D(3), D("0.001"), D(34))}


def test_looking_at_unchanged_cells_writes_nothing(book: Ledger) -> None:
    book.save()
    saved = book.path.stat().st_mtime_ns
    book.set_cells(dict(book.cells))
    book.gather(TOP.key)
    book.save_if_changed()
    assert book.path.stat().st_mtime_ns == saved


def test_a_ledger_of_the_former_version_is_read(book: Ledger, tmp_path: Path) -> None:
    order(book, "a")
    book.account("a", Executed(D("0.001"), D(34), trades=1), final=True)
    book.save()
    data = json.loads(book.path.read_text())
    for cell in data["cells"].values():
        del cell["bought"], cell["sold"]
    book.path.write_text(json.dumps(data))
    cell = Ledger.load(book.path).cells[TOP.key]
    assert (cell.held, cell.bought) == (D("0.001"), 0)
    del data["cells"][TOP.key]["held"]
    book.path.write_text(json.dumps(data))
    with pytest.raises(ConfigurationError):
        Ledger.load(book.path)
