"""Settling: nothing open, everything booked, and no claim that was not proved."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hummingfleet_agent import settlement
from hummingfleet_agent.exchange import ExchangeOrder
from hummingfleet_agent.ledger import Executed, Ledger, OrderEntry
from hummingfleet_agent.order_ids import OrderIdFactory
from hummingfleet_agent.planning import MarketRules
from hummingfleet_agent.settlement import settle

D = Decimal
TAG = "bb9284c0"


class FakeExchange:
    """An exchange that fails as often as it is told and fills orders at the last moment."""

    verified = "exchange"

    def __init__(self) -> None:
        self.book: dict[str, ExchangeOrder] = {}
        self.failures = 0
        self.fill_on_cancel: set[str] = set()
        self.refuse_to_cancel: set[str] = set()
        self.cancelled: list[str] = []

    def put(self, client_id: str, side: str = "BUY", executed: str = "0", *, is_open: bool = True) -> str:
        done = Executed(D(executed), D(executed) * 34500, trades=1 if D(executed) else 0)
        self.book[client_id] = ExchangeOrder(client_id, side, D(34500), D("0.00289"), is_open, done)
        return client_id

    def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no route")

    async def open_orders(self, known: Iterable[OrderEntry]) -> list[ExchangeOrder]:
        self._answer()
        return [order for order in self.book.values() if order.is_open]

    async def order(self, entry: OrderEntry) -> ExchangeOrder | None:
        self._answer()
        return self.book.get(entry.client_id)

    async def orders_since(self, since_seconds: float) -> list[ExchangeOrder]:
        self._answer()
        return list(self.book.values())

    async def cancel(self, client_id: str) -> None:
        self._answer()
        self.cancelled.append(client_id)
        if client_id in self.refuse_to_cancel:
            return
        if client_id in self.fill_on_cancel:
            self.put(client_id, executed="0.00289")
        self.book[client_id] = replace(self.book[client_id], is_open=False)

    async def rules(self) -> MarketRules:
        raise NotImplementedError

    async def last_price(self) -> Decimal:
        raise NotImplementedError

    async def sell_at_market(self, client_id: str, amount: Decimal) -> None:
        raise NotImplementedError


@pytest.fixture
def exchange() -> FakeExchange:
    return FakeExchange()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.json")


@pytest.fixture
def ids() -> OrderIdFactory:
    return OrderIdFactory(TAG)


def make(ids: OrderIdFactory, ledger: Ledger | None = None, side: str = "BUY") -> str:
    client_id = ids.new(is_buy=side == "BUY", prefix="x-", max_length=None)
    assert client_id
    if ledger is not None:
        parsed = ids.parse(client_id)
        assert parsed
        ledger.record_order(client_id, side, parsed.nonce_us)
    return client_id


async def run(exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory, *, seconds: float = 5,
              search: bool = False) -> settlement.Settlement:
    return await settle(exchange, ledger, ids, deadline=time.monotonic() + seconds, search_unknown=search)


async def test_own_orders_are_cancelled_and_late_fills_booked(
    exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory
) -> None:
    plain, filled = exchange.put(make(ids, ledger)), exchange.put(make(ids, ledger))
    stray = exchange.put(make(ids))
    foreign = exchange.put("x-Bffffffff0000000000000")
    exchange.fill_on_cancel.add(filled)
    result = await run(exchange, ledger, ids)
    assert result.clean and result.open_orders == 0
    assert set(exchange.cancelled) == {plain, filled, stray} and exchange.book[foreign].is_open
    assert ledger.base == D("0.00289") and not ledger.unsettled()
    assert Ledger.load(ledger.path).base == D("0.00289")


async def test_what_filled_while_nobody_looked_is_booked(
    exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory
) -> None:
    exchange.put(make(ids, ledger), executed="0.00289", is_open=False)
    assert (await run(exchange, ledger, ids)).clean
    assert ledger.base == D("0.00289")


async def test_unknown_orders_are_found_once(exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory) -> None:
    exchange.put(make(ids), executed="0.00289", is_open=False)
    assert (await run(exchange, ledger, ids)).clean and ledger.base == 0
    assert (await run(exchange, ledger, ids, search=True)).clean and ledger.base == D("0.00289")
    assert (await run(exchange, ledger, ids, search=True)).clean and ledger.base == D("0.00289")
    # Orders older than the ledger's memory were booked long ago.
    ledger.close_books()
    assert (await run(exchange, ledger, ids, search=True)).clean and ledger.base == D("0.00289")


async def test_an_order_may_still_be_on_its_way(
    exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = make(ids, ledger)
    result = await run(exchange, ledger, ids, seconds=0.2)
    assert not result.clean and "not accounted for" in result.problem
    # It arrives late.
    exchange.put(sent)
    assert (await run(exchange, ledger, ids)).clean and exchange.cancelled == [sent]
    # Another never arrives.
    make(ids, ledger)
    monkeypatch.setattr(settlement, "ARRIVAL_SECONDS", 0.3)
    assert (await run(exchange, ledger, ids)).clean


async def test_it_claims_nothing_it_could_not_ask(exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory) -> None:
    exchange.put(make(ids, ledger))
    exchange.failures = 1000
    result = await run(exchange, ledger, ids, seconds=0.2)
    assert (result.clean, result.open_orders) == (False, -1) and "no route" in result.problem
    exchange.failures = 2
    assert (await run(exchange, ledger, ids, seconds=10)).clean


async def test_orders_that_will_not_go_are_counted(exchange: FakeExchange, ledger: Ledger, ids: OrderIdFactory) -> None:
    exchange.refuse_to_cancel.add(exchange.put(make(ids, ledger)))
    result = await run(exchange, ledger, ids, seconds=0.2)
    assert (result.clean, result.open_orders) == (False, 1)
