"""Matching and accounting of the exchange, without any network."""

from __future__ import annotations

from decimal import Decimal as D

import pytest

from sandbox.errors import ControlError, ExchangeError
from sandbox.exchange import Exchange, Order, OrderRequest, OrderType, PairRules, Side, Status, TimeInForce

RULES = PairRules("BTC", "USDT", tick=D("0.01"), lot=D("0.00001"), min_notional=D(5), price=D(32000))


@pytest.fixture
def exchange() -> Exchange:
    made = Exchange([RULES], clock=lambda: 1_800_000_000_000)
    for name in ("acme", "zeta"):
        made.open_account(name, {"USDT": D(10000), "BTC": D("0.5")})
    return made


def limit(exchange: Exchange, side: Side, quantity: str, price: str, *, name: str = "acme",
          kind: OrderType = OrderType.LIMIT, time_in_force: TimeInForce = TimeInForce.GTC,
          client_order_id: str | None = None) -> Order:
    order, _fills = exchange.place(name, OrderRequest("BTC-USDT", side, kind, time_in_force, D(quantity), None,
                                                      D(price), client_order_id))
    exchange.check_books()
    return order


def market(exchange: Exchange, side: Side, quantity: str, *, name: str = "acme") -> Order:
    order, _fills = exchange.place(name, OrderRequest("BTC-USDT", side, OrderType.MARKET, quantity=D(quantity)))
    exchange.check_books()
    return order


def balance(exchange: Exchange, asset: str, name: str = "acme") -> tuple[D, D]:
    found = exchange.accounts[name].balances[asset]
    return found.free, found.locked


def test_resting_buy_locks_its_cost_and_cancelling_frees_it(exchange: Exchange) -> None:
    order = limit(exchange, Side.BUY, "0.1", "30000")
    assert balance(exchange, "USDT") == (D(7000), D(3000))
    exchange.cancel(order)
    assert order.status is Status.CANCELED
    assert balance(exchange, "USDT") == (D(10000), D(0))


def test_resting_sale_locks_the_base_asset(exchange: Exchange) -> None:
    limit(exchange, Side.SELL, "0.2", "33000")
    assert balance(exchange, "BTC") == (D("0.3"), D("0.2"))


@pytest.mark.parametrize(("price", "filled"), [("30000.01", False), ("30000", True), ("29000", True)])
def test_price_fills_a_resting_buy_when_it_reaches_its_limit(exchange: Exchange, price: str, filled: bool) -> None:
    order = limit(exchange, Side.BUY, "0.1", "30000")
    move = exchange.move_price("BTC-USDT", D(price))
    assert (order.status is Status.FILLED) is filled
    assert [(fill.price, fill.is_maker) for fill in move.fills] == ([(D(30000), True)] if filled else [])
    if filled:
        assert balance(exchange, "USDT") == (D(7000), D(0))
        assert balance(exchange, "BTC") == (D("0.6"), D(0))
    exchange.check_books()


@pytest.mark.parametrize(("price", "filled"), [("33999.99", False), ("34000", True), ("36000", True)])
def test_price_fills_a_resting_sale_when_it_reaches_its_limit(exchange: Exchange, price: str, filled: bool) -> None:
    order = limit(exchange, Side.SELL, "0.1", "34000")
    exchange.move_price("BTC-USDT", D(price))
    assert (order.status is Status.FILLED) is filled


def test_price_walks_through_the_levels_nearest_first_at_their_own_prices(exchange: Exchange) -> None:
    for price in ("30000", "31000", "30500"):
        limit(exchange, Side.BUY, "0.01", price)
    move = exchange.move_price("BTC-USDT", D(30250))
    assert [fill.price for fill in move.fills] == [D(31000), D(30500)]


def test_volume_that_runs_out_leaves_the_price_at_the_order_it_could_not_fill(exchange: Exchange) -> None:
    first = limit(exchange, Side.BUY, "0.01", "31000")
    second = limit(exchange, Side.BUY, "0.01", "30500")
    move = exchange.move_price("BTC-USDT", D(30000), volume=D("0.015"))
    assert first.status is Status.FILLED
    assert (second.status, second.executed) == (Status.PARTIALLY_FILLED, D("0.005"))
    assert move.price == D(30500)
    assert balance(exchange, "USDT")[1] == D("152.5")


def test_market_orders_pay_half_the_spread(exchange: Exchange) -> None:
    bought = market(exchange, Side.BUY, "0.1")
    assert bought.status is Status.FILLED
    assert bought.quote_executed == D("0.1") * D("32003.2")
    sold = market(exchange, Side.SELL, "0.1")
    assert sold.quote_executed == D("0.1") * D("31996.8")


def test_limit_beyond_the_market_takes_at_the_better_price_and_frees_the_rest(exchange: Exchange) -> None:
    order = limit(exchange, Side.BUY, "0.1", "40000")
    assert order.status is Status.FILLED
    assert balance(exchange, "USDT") == (D(10000) - D("3200.32"), D(0))


def test_accounts_trade_with_each_other_before_the_synthetic_market(exchange: Exchange) -> None:
    maker = limit(exchange, Side.SELL, "0.1", "32001", name="zeta")
    taker = limit(exchange, Side.BUY, "0.15", "32010")
    assert maker.status is Status.FILLED
    assert taker.quote_executed == D("0.1") * 32001 + D("0.05") * D("32003.2")
    assert balance(exchange, "USDT", "zeta") == (D(10000) + D("3200.1"), D(0))


def test_resting_orders_of_one_price_fill_in_the_order_of_their_arrival(exchange: Exchange) -> None:
    first = limit(exchange, Side.SELL, "0.1", "32001", name="zeta")
    second = limit(exchange, Side.SELL, "0.1", "32001", name="zeta")
    limit(exchange, Side.BUY, "0.12", "32001")
    assert first.status is Status.FILLED
    assert second.executed == D("0.02")


def test_limit_maker_is_refused_when_it_would_take_and_rests_otherwise(exchange: Exchange) -> None:
    with pytest.raises(ExchangeError) as refusal:
        limit(exchange, Side.BUY, "0.01", "32003.2", kind=OrderType.LIMIT_MAKER)
    assert refusal.value.plain() == {"code": -2010, "msg": "Order would immediately match and take."}
    order = limit(exchange, Side.BUY, "0.01", "32003.19", kind=OrderType.LIMIT_MAKER)
    assert order.status is Status.NEW
    with pytest.raises(ExchangeError):
        limit(exchange, Side.SELL, "0.01", "32003.19", kind=OrderType.LIMIT_MAKER, name="zeta")


def test_immediate_or_cancel_keeps_what_it_took_and_expires(exchange: Exchange) -> None:
    limit(exchange, Side.SELL, "0.01", "32001", name="zeta")
    order = limit(exchange, Side.BUY, "0.03", "32002", time_in_force=TimeInForce.IOC)
    assert (order.status, order.executed) == (Status.EXPIRED, D("0.01"))
    assert balance(exchange, "USDT")[1] == 0


def test_fill_or_kill_takes_all_or_nothing(exchange: Exchange) -> None:
    limit(exchange, Side.SELL, "0.01", "32001", name="zeta")
    killed = limit(exchange, Side.BUY, "0.03", "32002", time_in_force=TimeInForce.FOK)
    assert (killed.status, killed.executed) == (Status.EXPIRED, D(0))
    filled = limit(exchange, Side.BUY, "0.03", "32010", time_in_force=TimeInForce.FOK)
    assert filled.status is Status.FILLED


def test_fees_are_taken_from_what_is_received(exchange: Exchange) -> None:
    exchange.open_account("acme", {}, maker_fee=D("0.001"), taker_fee=D("0.002"))
    market(exchange, Side.BUY, "0.1")
    assert balance(exchange, "BTC")[0] == D("0.6") - D("0.0002")
    limit(exchange, Side.SELL, "0.1", "33000")
    exchange.move_price("BTC-USDT", D(33000))
    assert balance(exchange, "USDT")[0] == D(10000) - D("3200.32") + D(3300) - D("3.3")
    fills = exchange.accounts["acme"].fills
    assert [(fill.commission, fill.commission_asset) for fill in fills] == [(D("0.0002"), "BTC"), (D("3.3"), "USDT")]
    exchange.check_books()


def test_part_of_an_order_can_be_filled_by_hand(exchange: Exchange) -> None:
    order = limit(exchange, Side.BUY, "0.1", "30000")
    fill = exchange.fill(order.id, D("0.04"))
    assert (fill.price, order.status, order.executed) == (D(30000), Status.PARTIALLY_FILLED, D("0.04"))
    exchange.fill(order.id)
    assert order.status is Status.FILLED
    with pytest.raises(ControlError, match="not open"):
        exchange.fill(order.id)


def test_quote_order_quantity_buys_what_it_affords(exchange: Exchange) -> None:
    order, _fills = exchange.place("acme", OrderRequest("BTC-USDT", Side.BUY, OrderType.MARKET,
                                                        quote_order_quantity=D(100)))
    assert order.executed == D("0.00312")
    exchange.check_books()


@pytest.mark.parametrize(("quantity", "price", "code", "message"), [
    ("0.1", "30000.001", -1013, "Filter failure: PRICE_FILTER"),
    ("0.1", "2000000", -1013, "Filter failure: PRICE_FILTER"),
    ("0.100001", "30000", -1013, "Filter failure: LOT_SIZE"),
    ("9001", "30000", -1013, "Filter failure: LOT_SIZE"),
    ("0.00016", "31000", -1013, "Filter failure: NOTIONAL"),
    ("0", "30000", -1013, "Invalid quantity."),
    ("0.1", "0", -1013, "Invalid price."),
    ("0.1", "30000.000000001", -1111, "Parameter 'price' has too much precision."),
    ("0.34", "30000", -2010, "Account has insufficient balance for requested action."),
])
def test_order_outside_the_rules_is_refused_and_changes_nothing(
        exchange: Exchange, quantity: str, price: str, code: int, message: str) -> None:
    with pytest.raises(ExchangeError) as refusal:
        limit(exchange, Side.BUY, quantity, price)
    assert refusal.value.plain() == {"code": code, "msg": message}
    assert balance(exchange, "USDT") == (D(10000), D(0))
    assert not exchange.accounts["acme"].orders


@pytest.mark.parametrize(("quantity", "price"), [("0.00017", "31000"), ("0.33333", "30000"), ("0.1", "30000.01")])
def test_order_just_inside_the_rules_is_accepted(exchange: Exchange, quantity: str, price: str) -> None:
    assert limit(exchange, Side.BUY, quantity, price).status is Status.NEW


def test_client_order_id_must_be_unique_among_open_orders(exchange: Exchange) -> None:
    first = limit(exchange, Side.BUY, "0.01", "30000", client_order_id="mine")
    with pytest.raises(ExchangeError, match="Duplicate order sent"):
        limit(exchange, Side.BUY, "0.01", "30000", client_order_id="mine")
    exchange.cancel(first)
    again = limit(exchange, Side.BUY, "0.01", "30000", client_order_id="mine")
    assert exchange.find("acme", client_order_id="mine") is again


def test_open_orders_of_an_account_are_limited() -> None:
    rules = PairRules("BTC", "USDT", tick=D("0.01"), lot=D("0.00001"), min_notional=D(5), price=D(32000),
                      max_open_orders=2)
    exchange = Exchange([rules])
    exchange.open_account("acme", {"USDT": D(10000)})
    limit(exchange, Side.BUY, "0.01", "30000")
    limit(exchange, Side.BUY, "0.01", "30001")
    with pytest.raises(ExchangeError, match="MAX_NUM_ORDERS"):
        limit(exchange, Side.BUY, "0.01", "30002")


def test_account_never_sees_an_order_of_another(exchange: Exchange) -> None:
    order = limit(exchange, Side.BUY, "0.01", "30000")
    assert exchange.find("zeta", order_id=order.id) is None


@pytest.mark.parametrize("price", ["0", "0.01", "-5", "31000.001", "1000000.01"])
def test_price_off_the_tick_or_out_of_range_is_refused(exchange: Exchange, price: str) -> None:
    with pytest.raises(ControlError, match=r"multiple of 0\.01"):
        exchange.move_price("BTC-USDT", D(price))


def test_book_is_never_crossed(exchange: Exchange) -> None:
    limit(exchange, Side.BUY, "0.01", "32003.19")
    limit(exchange, Side.SELL, "0.01", "32100")
    for price in (D("32003.19"), D("32100"), D("31000"), D("0.02")):
        exchange.move_price("BTC-USDT", price)
        bids, asks = exchange.markets["BTC-USDT"].book()
        assert not bids or max(bids) < min(asks)
        assert all(level > 0 for level in (*bids, *asks))


def test_old_closed_orders_are_forgotten_but_open_ones_stay(
        exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.exchange.CLOSED_ORDERS_KEPT", 3)
    stays = limit(exchange, Side.BUY, "0.01", "30000", client_order_id="stays")
    for number in range(6):
        exchange.cancel(limit(exchange, Side.BUY, "0.01", "29000", client_order_id=f"gone-{number}"))
    account = exchange.accounts["acme"]
    assert len(account.orders) == 4
    assert exchange.find("acme", client_order_id="stays") is stays
    assert exchange.find("acme", client_order_id="gone-0") is None
