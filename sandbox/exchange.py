"""The exchange itself: accounts, orders, matching. No input or output; amounts are Decimal, times milliseconds.

The market of a pair is a scripted price with a synthetic spread around it, at which any quantity can be taken.
A resting order fills, as maker and at its own price, when the scripted price moves to it or through it, or when
another order takes it. Everything an account gains or loses is booked against another account, against `house`
(the synthetic market) or as a fee, so the sum of all of them stays what was deposited.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Any, Protocol

from sandbox import errors
from sandbox.errors import ControlError

ZERO = Decimal(0)
ASSET_STEP = Decimal("0.00000001")
"""The smallest amount of any asset: fees are cut to it."""
MAX_AMOUNT = Decimal(10) ** 15
"""The largest balance; keeps every product within Decimal's 28 digits."""
CLOSED_ORDERS_KEPT = 2_000
FILLS_KEPT = 5_000
"""Per account, as the closed orders."""
TRADES_KEPT = 20_000
"""Per pair."""
CLIENT_ORDER_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


class Side(StrEnum):
    """Whether an order buys or sells the base asset."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """The order types the sandbox knows."""

    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"


class TimeInForce(StrEnum):
    """How long a limit order may rest."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class Status(StrEnum):
    """The states of an order."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


OPEN_STATUSES = frozenset({Status.NEW, Status.PARTIALLY_FILLED})


@dataclass(frozen=True)
class PairRules:
    """The trading rules of a pair, as exchangeInfo publishes them, and the shape of its synthetic market."""

    base: str
    quote: str
    tick: Decimal
    lot: Decimal
    min_notional: Decimal
    price: Decimal
    """Price in quote per base when the exchange starts without saved state."""
    spread_bps: Decimal = Decimal(2)
    """Distance from best bid to best ask in hundredths of a percent of the price."""
    depth_levels: int = 50
    depth_quote: Decimal = Decimal(50_000)
    """Amount in quote that each synthetic level shows."""
    max_quantity: Decimal = Decimal(9_000)
    max_price: Decimal = Decimal(1_000_000)
    max_open_orders: int = 200
    """Open orders an account may have in this pair."""

    @property
    def name(self) -> str:
        """The pair as the fleet writes it: BTC-USDT."""
        return f"{self.base}-{self.quote}"

    @property
    def symbol(self) -> str:
        """The pair as Binance writes it: BTCUSDT."""
        return f"{self.base}{self.quote}"


@dataclass(frozen=True)
class Trade:
    """One public trade."""

    id: int
    price: Decimal
    quantity: Decimal
    time: int
    buyer_is_maker: bool


@dataclass(frozen=True)
class Fill:
    """One account's side of a trade."""

    trade_id: int
    order_id: int
    client_order_id: str
    account: str
    pair: str
    side: Side
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    is_maker: bool
    time: int

    @property
    def quote_quantity(self) -> Decimal:
        """What the fill cost or brought, in quote."""
        return self.price * self.quantity


@dataclass
class Order:
    """An order and what has become of it."""

    id: int
    account: str
    pair: str
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: Decimal
    """The limit; for a MARKET order zero."""
    quantity: Decimal
    lock_price: Decimal
    """Quote locked per unit still to buy."""
    time: int
    update_time: int
    quote_order_quantity: Decimal = ZERO
    status: Status = Status.NEW
    executed: Decimal = ZERO
    quote_executed: Decimal = ZERO

    @property
    def is_open(self) -> bool:
        """Whether it can still fill."""
        return self.status in OPEN_STATUSES

    @property
    def remaining(self) -> Decimal:
        """Quantity not yet filled."""
        return self.quantity - self.executed

    @property
    def locked(self) -> Decimal:
        """What it locks, in quote for a buy and in base for a sale."""
        if not self.is_open:
            return ZERO
        return self.remaining * self.lock_price if self.side is Side.BUY else self.remaining


@dataclass(frozen=True)
class OrderRequest:
    """What a client asks for; checked by `Exchange.place`."""

    pair: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce = TimeInForce.GTC
    quantity: Decimal | None = None
    quote_order_quantity: Decimal | None = None
    price: Decimal | None = None
    client_order_id: str | None = None


@dataclass
class Balance:
    """An account's amount of one asset."""

    free: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """Free and locked."""
        return self.free + self.locked


@dataclass
class Account:
    """Balances, orders and fills of one account. Its key and secret live elsewhere (keys.py)."""

    name: str
    maker_fee: Decimal = ZERO
    taker_fee: Decimal = ZERO
    balances: dict[str, Balance] = field(default_factory=lambda: defaultdict(Balance))
    orders: dict[int, Order] = field(default_factory=dict)
    """By id, oldest first."""
    open: dict[int, Order] = field(default_factory=dict)
    by_client_id: dict[str, int] = field(default_factory=dict)
    """The newest order of each client order id."""
    fills: deque[Fill] = field(default_factory=lambda: deque(maxlen=FILLS_KEPT))
    closed: deque[int] = field(default_factory=deque)
    update_time: int = 0


@dataclass
class Market:
    """A pair's rules, scripted price, resting orders and trades."""

    rules: PairRules
    price: Decimal
    first_price: Decimal
    spread_bps: Decimal | None = None
    """The spread that was scripted; None: the pair's own."""
    resting: dict[int, Order] = field(default_factory=dict)
    trades: deque[Trade] = field(default_factory=lambda: deque(maxlen=TRADES_KEPT))

    @property
    def bid(self) -> Decimal:
        """The synthetic market buys any quantity at this price."""
        rules = self.rules
        return floor_to(min(self.price - self._half_spread, self.price - rules.tick), rules.tick)

    @property
    def ask(self) -> Decimal:
        """The synthetic market sells any quantity at this price."""
        rules = self.rules
        return ceil_to(max(self.price + self._half_spread, self.price + rules.tick), rules.tick)

    @property
    def _half_spread(self) -> Decimal:
        return self.price * self._spread_bps / 20_000

    @property
    def _spread_bps(self) -> Decimal:
        return self.rules.spread_bps if self.spread_bps is None else self.spread_bps

    def book(self) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        """Bids and asks: quantity per price, the synthetic levels and the resting orders together."""
        rules = self.rules
        step = ceil_to(max(rules.tick, self.price * self._spread_bps / 10_000), rules.tick)
        bids: dict[Decimal, Decimal] = defaultdict(lambda: ZERO)
        asks: dict[Decimal, Decimal] = defaultdict(lambda: ZERO)
        for level in range(rules.depth_levels):
            for side, price in ((bids, self.bid - level * step), (asks, self.ask + level * step)):
                if price > 0:
                    side[price] += max(rules.lot, floor_to(rules.depth_quote / price, rules.lot))
        for order in self.resting.values():
            (bids if order.side is Side.BUY else asks)[order.price] += order.remaining
        return dict(bids), dict(asks)


@dataclass(frozen=True)
class PriceMove:
    """What moving a price did. `price` differs from the one asked for when the given volume ran out before."""

    pair: str
    price: Decimal
    fills: tuple[Fill, ...]


class Listener(Protocol):
    """Who wants to know what happens. Called while the exchange works: note what is needed and return."""

    def order_changed(self, order: Order, execution: str, fill: Fill | None) -> None:
        """`execution` is Binance's execution type: NEW, TRADE, CANCELED, EXPIRED."""

    def balances_changed(self, account: Account, assets: Iterable[str]) -> None:
        """The balances of these assets are different now."""

    def traded(self, market: Market, trade: Trade) -> None:
        """A public trade took place."""

    def book_changed(self, market: Market) -> None:
        """Levels of the book are different now."""


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The greatest multiple of `step` that is not above `value`."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is not below `value`."""
    return (value / step).to_integral_value(ROUND_CEILING) * step


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Exchange:
    """All accounts and markets. Every public method leaves them consistent, or raises and changes nothing."""

    def __init__(self, pairs: Iterable[PairRules], *, clock: Callable[[], int] = wall_clock) -> None:
        self.clock = clock
        self.accounts: dict[str, Account] = {}
        self.markets: dict[str, Market] = {
            rules.name: Market(rules, rules.price, rules.price) for rules in pairs
        }
        self.by_symbol = {market.rules.symbol: market for market in self.markets.values()}
        self.house: dict[str, Decimal] = defaultdict(lambda: ZERO)
        self.fees: dict[str, Decimal] = defaultdict(lambda: ZERO)
        self.deposits: dict[str, Decimal] = defaultdict(lambda: ZERO)
        self.listeners: list[Listener] = []
        self.next_order_id = 1
        self.next_trade_id = 1

    # --- accounts ---

    def open_account(self, name: str, balances: Mapping[str, Decimal], *, maker_fee: Decimal = ZERO,
                     taker_fee: Decimal = ZERO) -> Account:
        """A new account with these deposits; of an account that exists only the fees are set."""
        account = self.accounts.get(name)
        if account is None:
            account = self.accounts[name] = Account(name)
            for asset, amount in balances.items():
                self.deposit(name, asset, amount)
        account.maker_fee = maker_fee
        account.taker_fee = taker_fee
        return account

    def close_account(self, name: str) -> None:
        """Cancel the account's orders, pay its balances out and forget it."""
        account = self.account(name)
        for order in list(account.open.values()):
            self.cancel(order)
        for asset, balance in account.balances.items():
            self.deposits[asset] -= balance.total
        del self.accounts[name]

    def account(self, name: str) -> Account:
        """The account of this name; ControlError 404 when there is none."""
        try:
            return self.accounts[name]
        except KeyError:
            raise ControlError(f"There is no account {name!r}; GET /accounts lists them.", 404) from None

    def market(self, pair: str) -> Market:
        """The market of a pair (BTC-USDT or BTCUSDT); ControlError 404 when it is not traded."""
        market = self.markets.get(pair) or self.by_symbol.get(pair)
        if market is None:
            raise ControlError(f"The pair {pair!r} is not traded here; traded are {', '.join(self.markets)}.", 404)
        return market

    def deposit(self, name: str, asset: str, amount: Decimal) -> None:
        """Add to (or with a negative amount take from) an account's free balance."""
        account = self.account(name)
        free = account.balances[asset].free + amount
        if free < 0:
            raise ControlError(f"Account {name!r} has only {account.balances[asset].free:f} {asset} free.", 409)
        if free > MAX_AMOUNT:
            raise ControlError(f"A balance may be at most {MAX_AMOUNT:f}.")
        account.balances[asset].free = free
        self.deposits[asset] += amount
        self._balances_changed(account, (asset,))

    # --- orders ---

    def place(self, name: str, request: OrderRequest, *, test: bool = False,
              thin_book: bool = False) -> tuple[Order, list[Fill]]:
        """Check, accept and match a new order; returns it with its fills.

        With `test` it is only checked; with `thin_book` an order at market finds half of what it asks for."""
        account, market = self.accounts[name], self.markets[request.pair]
        order = self._checked(account, market, request)
        spent = market.rules.quote if order.side is Side.BUY else market.rules.base
        if account.balances[spent].free < order.locked:
            raise errors.insufficient_balance()
        if test:
            return order, []
        self.next_order_id += 1
        account.balances[spent].free -= order.locked
        account.balances[spent].locked += order.locked
        account.orders[order.id] = account.open[order.id] = order
        account.by_client_id[order.client_order_id] = order.id
        self._order_changed(order, "NEW", None)
        fills: list[Fill] = []
        if order.time_in_force is not TimeInForce.FOK or self._can_fill_at_once(market, order):
            halved = thin_book and order.type is OrderType.MARKET
            fills = self._take(market, order, floor_to(order.quantity / 2, market.rules.lot) if halved else None)
        if order.is_open:
            if order.type is OrderType.MARKET or order.time_in_force is not TimeInForce.GTC:
                self._close(order, Status.EXPIRED)
            else:
                market.resting[order.id] = order
                self._book_changed(market)
        self._balances_changed(account, (market.rules.base, market.rules.quote))
        return order, fills

    def cancel(self, order: Order, *, status: Status = Status.CANCELED) -> None:
        """Take an open order off the book and free what it locked."""
        market = self.markets[order.pair]
        self._close(order, status)
        self._balances_changed(self.accounts[order.account], (market.rules.base, market.rules.quote))
        self._book_changed(market)

    def find(self, name: str, *, order_id: int | None = None, client_order_id: str | None = None) -> Order | None:
        """An account's order by either id."""
        account = self.accounts[name]
        if order_id is None and client_order_id is not None:
            order_id = account.by_client_id.get(client_order_id)
        order = account.orders.get(order_id) if order_id is not None else None
        if order is not None and client_order_id is not None and order.client_order_id != client_order_id:
            return None
        return order

    def order(self, order_id: int) -> Order:
        """Any account's order; ControlError 404 when there is none."""
        for account in self.accounts.values():
            if order_id in account.orders:
                return account.orders[order_id]
        raise ControlError(f"There is no order {order_id}; GET /orders?state=all lists them.", 404)

    # --- the scripted market ---

    def move_price(self, pair: str, price: Decimal, *, volume: Decimal | None = None,
                   spread_bps: Decimal | None = None) -> PriceMove:
        """Move the market to `price` and fill the resting orders it meets on the way, nearest first.

        `volume` (base) limits what may fill: when it is used up the price stays at the order it could not fill.
        `spread_bps` is the spread from now on; None leaves it as it is.
        """
        market = self.market(pair)
        rules = market.rules
        if not 2 * rules.tick <= price <= rules.max_price or price % rules.tick:
            raise ControlError(f"The price of {rules.name} must be a multiple of {rules.tick:f} between "
                               f"{2 * rules.tick:f} and {rules.max_price:f}.")
        if volume is not None and (volume <= 0 or volume % rules.lot):
            raise ControlError(f"The volume of {rules.name} must be a positive multiple of {rules.lot:f}.")
        if spread_bps is not None and not 0 <= spread_bps < 10_000:
            raise ControlError("The spread must be at least 0 and below 10000 hundredths of a percent.")
        market.spread_bps = market.spread_bps if spread_bps is None else spread_bps
        start = market.price
        met = sorted((order for order in market.resting.values()
                      if (order.price >= price if order.side is Side.BUY else order.price <= price)),
                     key=lambda order: (abs(order.price - start), order.id))
        fills: list[Fill] = []
        for order in met:
            quantity = order.remaining if volume is None else min(order.remaining, volume)
            if quantity > 0:
                fills.append(self._fill_resting(market, order, quantity))
            if volume is not None:
                volume -= quantity
            if order.is_open:
                price = order.price
                break
        market.price = price
        self._trade(market, price, rules.lot, buyer_is_maker=price < start)
        self._book_changed(market)
        return PriceMove(rules.name, price, tuple(fills))

    def fill(self, order_id: int, quantity: Decimal | None = None) -> Fill:
        """Let the synthetic market take an open order, wholly or in part, at the order's price."""
        order = self.order(order_id)
        market = self.markets[order.pair]
        if not order.is_open:
            raise ControlError(f"Order {order_id} is not open, it is {order.status}.", 409)
        quantity = order.remaining if quantity is None else quantity
        if not 0 < quantity <= order.remaining or quantity % market.rules.lot:
            raise ControlError(f"The quantity must be a multiple of {market.rules.lot:f} and at most "
                               f"{order.remaining:f}, which is what remains of order {order_id}.")
        fill = self._fill_resting(market, order, quantity)
        self._book_changed(market)
        return fill

    # --- bookkeeping ---

    def check_books(self) -> None:
        """Raise AssertionError when the books do not balance: used by tests and after loading a saved state."""
        totals: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for account in self.accounts.values():
            locked: dict[str, Decimal] = defaultdict(lambda: ZERO)
            for order in account.open.values():
                rules = self.markets[order.pair].rules
                locked[rules.quote if order.side is Side.BUY else rules.base] += order.locked
            for asset, balance in account.balances.items():
                assert balance.free >= 0, f"{account.name}: free {asset} is {balance.free}"
                assert balance.locked == locked[asset], f"{account.name}: locked {asset} is {balance.locked}"
                totals[asset] += balance.total
        for asset in {*totals, *self.house, *self.fees, *self.deposits}:
            held = totals[asset] + self.house[asset] + self.fees[asset]
            assert held == self.deposits[asset], f"{asset}: {held} held, {self.deposits[asset]} deposited"

    # --- inside ---

    def _checked(self, account: Account, market: Market, request: OrderRequest) -> Order:
        """The order that the request describes, if the pair's rules allow it."""
        rules = market.rules
        limit = request.price
        is_market = request.type is OrderType.MARKET
        if not is_market:
            if limit is None:
                raise errors.missing_parameter("price")
            _check_steps("price", limit, rules.tick, rules.max_price, "PRICE_FILTER")
        worst = limit if limit is not None else market.ask if request.side is Side.BUY else market.bid
        quantity = request.quantity
        if quantity is None:
            if request.quote_order_quantity is None or not is_market:
                raise errors.missing_parameter("quantity")
            quantity = floor_to(request.quote_order_quantity / worst, rules.lot)
            if quantity <= 0:
                raise errors.filter_failure("NOTIONAL")
        _check_steps("quantity", quantity, rules.lot, rules.max_quantity, "LOT_SIZE")
        if quantity * worst < rules.min_notional:
            raise errors.filter_failure("NOTIONAL")
        if sum(order.pair == rules.name for order in account.open.values()) >= rules.max_open_orders:
            raise errors.filter_failure("MAX_NUM_ORDERS")
        client_order_id = request.client_order_id or f"sandbox-{self.next_order_id}"
        known = account.by_client_id.get(client_order_id)
        if known is not None and known in account.open:
            raise errors.duplicate_order()
        now = self.clock()
        order = Order(
            id=self.next_order_id, account=account.name, pair=rules.name, client_order_id=client_order_id,
            side=request.side, type=request.type, time_in_force=request.time_in_force,
            price=limit if limit is not None else ZERO, quantity=quantity,
            lock_price=worst if request.side is Side.BUY else ZERO, time=now, update_time=now,
            quote_order_quantity=request.quote_order_quantity or ZERO,
        )
        if order.type is OrderType.LIMIT_MAKER and next(self._offers(market, order), None) is not None:
            raise errors.would_take()
        return order

    def _offers(self, market: Market, order: Order) -> Iterator[tuple[Decimal, Order | None]]:
        """What `order` could take, best first: a price with the resting order behind it, None for the synthetic
        market, which comes last because it takes everything that is left."""
        buys = order.side is Side.BUY
        edge = market.ask if buys else market.bid
        limit = order.price if order.type is not OrderType.MARKET else edge
        sign = 1 if buys else -1
        bound = min(sign * edge, sign * limit)
        resting = sorted((other for other in market.resting.values() if other.side is not order.side),
                         key=lambda other: (sign * other.price, other.id))
        for other in resting:
            if sign * other.price > bound:
                break
            yield other.price, other
        if sign * edge <= sign * limit:
            yield edge, None

    def _can_fill_at_once(self, market: Market, order: Order) -> bool:
        offered = ZERO
        for _price, other in self._offers(market, order):
            if other is None:
                return True
            offered += other.remaining
        return offered >= order.quantity

    def _take(self, market: Market, order: Order, most: Decimal | None) -> list[Fill]:
        """Match with what is there; `most`: what may be filled, None for all of it."""
        fills: list[Fill] = []
        for price, other in list(self._offers(market, order)):
            wanted = order.remaining if most is None else min(order.remaining, most - order.executed)
            quantity = wanted if other is None else min(wanted, other.remaining)
            if not quantity:
                break
            trade = self._trade(market, price, quantity, buyer_is_maker=order.side is Side.SELL)
            if other is None:
                self._book_house(market, order.side, price, quantity)
            else:
                self._book_fill(market, other, trade, is_maker=True)
                self._balances_changed(self.accounts[other.account], (market.rules.base, market.rules.quote))
                self._book_changed(market)
            fills.append(self._book_fill(market, order, trade, is_maker=False))
            if not order.is_open:
                break
        return fills

    def _fill_resting(self, market: Market, order: Order, quantity: Decimal) -> Fill:
        """The synthetic market takes `quantity` of a resting order."""
        trade = self._trade(market, order.price, quantity, buyer_is_maker=order.side is Side.BUY)
        self._book_house(market, order.side, order.price, quantity)
        fill = self._book_fill(market, order, trade, is_maker=True)
        self._balances_changed(self.accounts[order.account], (market.rules.base, market.rules.quote))
        return fill

    def _book_house(self, market: Market, side: Side, price: Decimal, quantity: Decimal) -> None:
        """The synthetic market is the other side of an order of `side`."""
        sign = 1 if side is Side.BUY else -1
        self.house[market.rules.base] -= sign * quantity
        self.house[market.rules.quote] += sign * price * quantity

    def _book_fill(self, market: Market, order: Order, trade: Trade, *, is_maker: bool) -> Fill:
        """Book one account's side of a trade: locked out, received less commission in."""
        account, rules = self.accounts[order.account], market.rules
        base, quote = account.balances[rules.base], account.balances[rules.quote]
        rate = account.maker_fee if is_maker else account.taker_fee
        value = trade.price * trade.quantity
        if order.side is Side.BUY:
            reserved = order.lock_price * trade.quantity
            quote.locked -= reserved
            quote.free += reserved - value
            commission, asset = floor_to(trade.quantity * rate, ASSET_STEP), rules.base
            base.free += trade.quantity - commission
        else:
            base.locked -= trade.quantity
            commission, asset = floor_to(value * rate, ASSET_STEP), rules.quote
            quote.free += value - commission
        self.fees[asset] += commission
        order.executed += trade.quantity
        order.quote_executed += value
        order.update_time = trade.time
        order.status = Status.PARTIALLY_FILLED if order.remaining else Status.FILLED
        fill = Fill(trade.id, order.id, order.client_order_id, account.name, rules.name, order.side, trade.price,
                    trade.quantity, commission, asset, is_maker, trade.time)
        account.fills.append(fill)
        if not order.is_open:
            self._retire(order)
        self._order_changed(order, "TRADE", fill)
        return fill

    def _close(self, order: Order, status: Status) -> None:
        """End an open order unfilled or partly filled."""
        rules = self.markets[order.pair].rules
        balance = self.accounts[order.account].balances[rules.quote if order.side is Side.BUY else rules.base]
        locked = order.locked
        balance.locked -= locked
        balance.free += locked
        order.status = status
        order.update_time = self.clock()
        self._retire(order)
        self._order_changed(order, status.value, None)

    def _retire(self, order: Order) -> None:
        """Move an order that is no longer open to the history, and forget what is too old."""
        account = self.accounts[order.account]
        del account.open[order.id]
        self.markets[order.pair].resting.pop(order.id, None)
        account.closed.append(order.id)
        while len(account.closed) > CLOSED_ORDERS_KEPT:
            old = account.orders.pop(account.closed.popleft())
            if account.by_client_id.get(old.client_order_id) == old.id:
                del account.by_client_id[old.client_order_id]

    def _trade(self, market: Market, price: Decimal, quantity: Decimal, *, buyer_is_maker: bool) -> Trade:
        trade = Trade(self.next_trade_id, price, quantity, self.clock(), buyer_is_maker)
        self.next_trade_id += 1
        market.trades.append(trade)
        for listener in self.listeners:
            listener.traded(market, trade)
        return trade

    def _order_changed(self, order: Order, execution: str, fill: Fill | None) -> None:
        for listener in self.listeners:
            listener.order_changed(order, execution, fill)

    def _balances_changed(self, account: Account, assets: Iterable[str]) -> None:
        account.update_time = self.clock()
        for listener in self.listeners:
            listener.balances_changed(account, assets)

    def _book_changed(self, market: Market) -> None:
        for listener in self.listeners:
            listener.book_changed(market)

    def all_orders(self) -> Iterator[Order]:
        """Every order known, account by account, oldest first."""
        return itertools.chain.from_iterable(account.orders.values() for account in self.accounts.values())


def _check_steps(name: str, value: Decimal, step: Decimal, most: Decimal, filter_name: str) -> None:
    if value <= 0:
        raise errors.ExchangeError(-1013, f"Invalid {name}.")
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -8:
        raise errors.bad_precision(name)
    if not step <= value <= most or value % step:
        raise errors.filter_failure(filter_name)


def plain_order(order: Order) -> dict[str, Any]:
    """An order as the control endpoint shows it."""
    return {
        "order_id": order.id, "account": order.account, "pair": order.pair,
        "client_order_id": order.client_order_id, "side": order.side.value, "type": order.type.value,
        "time_in_force": order.time_in_force.value, "price": f"{order.price:f}", "quantity": f"{order.quantity:f}",
        "executed": f"{order.executed:f}", "quote_executed": f"{order.quote_executed:f}",
        "status": order.status.value, "time": order.time, "update_time": order.update_time,
    }


def plain_fill(fill: Fill) -> dict[str, Any]:
    """A fill as the control endpoint shows it."""
    return {
        "trade_id": fill.trade_id, "order_id": fill.order_id, "client_order_id": fill.client_order_id,
        "account": fill.account, "pair": fill.pair, "side": fill.side.value, "price": f"{fill.price:f}",
        "quantity": f"{fill.quantity:f}", "quote_quantity": f"{fill.quote_quantity:f}",
        "commission": f"{fill.commission:f}", "commission_asset": fill.commission_asset,
        "is_maker": fill.is_maker, "time": fill.time,
    }
