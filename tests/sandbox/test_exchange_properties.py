"""Whatever happens in whatever order: nothing is created or lost, nothing is locked without an order."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal as D

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandbox import state
from sandbox.errors import ControlError, ExchangeError
from sandbox.exchange import Exchange, OrderRequest, OrderType, PairRules, Side, TimeInForce

PAIRS = [
    PairRules("BTC", "USDT", tick=D("0.01"), lot=D("0.00001"), min_notional=D(5), price=D(100)),
    PairRules("ETH", "BTC", tick=D("0.00001"), lot=D("0.0001"), min_notional=D("0.0001"), price=D("0.1")),
]
NAMES = ("acme", "zeta")
quantities = st.integers(1, 500_000).map(lambda n: n * D("0.0001"))
steps = st.integers(-20, 20)


class Trading(RuleBasedStateMachine):
    """Two accounts, two pairs that share an asset, fees that do not come out even."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange(PAIRS)
        self.exchange.open_account("acme", {"USDT": D(3000), "BTC": D(20)}, maker_fee=D("0.00075"),
                                   taker_fee=D("0.001"))
        self.exchange.open_account("zeta", {"USDT": D(3000), "ETH": D(100), "BTC": D(5)})

    @rule(name=st.sampled_from(NAMES), pair=st.sampled_from(PAIRS), side=st.sampled_from(Side),
          kind=st.sampled_from(OrderType), time_in_force=st.sampled_from(TimeInForce), quantity=quantities, step=steps)
    def place(self, name: str, pair: PairRules, side: Side, kind: OrderType, time_in_force: TimeInForce,
              quantity: D, step: int) -> None:
        market = self.exchange.markets[pair.name]
        price = None if kind is OrderType.MARKET else market.price + step * pair.tick
        with suppress(ExchangeError):
            self.exchange.place(name, OrderRequest(pair.name, side, kind, time_in_force, quantity, None, price))

    @rule(pair=st.sampled_from(PAIRS), step=steps, volume=st.none() | quantities)
    def move(self, pair: PairRules, step: int, volume: D | None) -> None:
        price = self.exchange.markets[pair.name].price + step * pair.tick
        with suppress(ControlError):
            self.exchange.move_price(pair.name, price, volume=volume)

    @rule(choice=st.integers(0), quantity=st.none() | quantities)
    def fill(self, choice: int, quantity: D | None) -> None:
        found = [order for order in self.exchange.all_orders() if order.is_open]
        if found:
            with suppress(ControlError):
                self.exchange.fill(found[choice % len(found)].id, quantity)

    @rule(choice=st.integers(0))
    def cancel(self, choice: int) -> None:
        found = [order for order in self.exchange.all_orders() if order.is_open]
        if found:
            self.exchange.cancel(found[choice % len(found)])

    @rule(name=st.sampled_from(NAMES), amount=st.integers(-100, 100))
    def deposit(self, name: str, amount: int) -> None:
        with suppress(ControlError):
            self.exchange.deposit(name, "USDT", D(amount))

    @rule()
    def restart(self) -> None:
        fresh = Exchange(PAIRS)
        state.load(fresh, state.dump(self.exchange))
        assert state.dump(fresh) == state.dump(self.exchange)
        self.exchange = fresh

    @invariant()
    def books_balance(self) -> None:
        self.exchange.check_books()

    @invariant()
    def orders_are_consistent(self) -> None:
        for account in self.exchange.accounts.values():
            for order in account.orders.values():
                assert (order.id in account.open) is order.is_open
                assert (order.id in self.exchange.markets[order.pair].resting) is order.is_open
                assert 0 <= order.executed <= order.quantity
                assert sum(fill.quantity for fill in account.fills if fill.order_id == order.id) == order.executed

    @invariant()
    def books_are_not_crossed(self) -> None:
        for market in self.exchange.markets.values():
            resting = market.resting.values()
            bids = [order.price for order in resting if order.side is Side.BUY]
            asks = [order.price for order in resting if order.side is Side.SELL]
            assert max([*bids, market.bid]) < min([*asks, market.ask])


TestTrading = Trading.TestCase
TestTrading.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
