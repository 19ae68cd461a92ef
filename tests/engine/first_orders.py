"""What a bot's first orders have to be, worked out from its document alone; nothing here knows the agent's code.

``market_price`` says where the market should stand so that the first order is due; ``expected`` gives the orders, or
None where there is none to expect at that price (too small for the exchange there, say).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules

D = Decimal
ZERO = D(0)
HALF_SPREAD = D("0.0001")
"""Of the sandbox exchange's markets, as a fraction of the price."""
ENGINE_FEE = D("0.001")
"""What the engine takes for the exchange's fee, as a fraction."""
WEALTH = D(10_000_000)
"""What an account has of either asset, in the quote asset."""


@dataclass(frozen=True)
class Expected:
    """One order; ``price`` None: at market. ``slack``: by how much the amount may differ, in base."""

    side: str
    price: Decimal | None
    amount: Decimal
    slack: Decimal = ZERO

    def fits(self, order: Mapping[str, Any]) -> bool:
        """Whether an order of the exchange is this one."""
        at_market = order["type"] == "MARKET"
        return (
            order["side"] == self.side
            and (at_market if self.price is None else not at_market and D(order["price"]) == self.price)
            and abs(D(order["quantity"]) - self.amount) <= self.slack
        )


@dataclass(frozen=True)
class Market:
    """A market at ``price`` (quote per base, a multiple of the tick)."""

    price: Decimal
    rules: PairRules

    @property
    def half_spread(self) -> Decimal:
        return max(self.price * HALF_SPREAD, self.rules.tick)

    @property
    def bid(self) -> Decimal:
        return floor(self.price - self.half_spread, self.rules.tick)

    @property
    def ask(self) -> Decimal:
        return ceil(self.price + self.half_spread, self.rules.tick)

    @property
    def mid(self) -> Decimal:
        return (self.bid + self.ask) / 2

    def takes(self, price: Decimal, amount: Decimal) -> bool:
        """Whether the exchange takes such an order, with a little room."""
        return amount >= self.rules.min_amount and amount * price >= self.rules.min_notional * D("1.01")


def floor(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def ceil(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(ROUND_CEILING) * step


def market_price(template: str, config: Mapping[str, Any], rules: PairRules) -> Decimal:
    """A grid's market stands between two lines in its middle; others' where lots are small beside orders."""
    if template == "grid":
        below, above = (grid_line(config, rules, config["grid_count"] // 2 + i) for i in (0, 1))
        return floor((below + above) / 2, rules.tick)
    price = rules.tick * 20_000
    if template == "pure_market_making":
        # Orders of this market's size must be worth enough, and there may be a floor and a ceiling to stay between.
        price = max(price, ceil(rules.min_notional * 2 / smallest_maker_order(config), rules.tick))
        if config["price_ceiling"] > 0:
            price = min(price, floor(config["price_ceiling"] * D("0.9"), rules.tick))
        if config["price_floor"] > 0:
            price = max(price, ceil(config["price_floor"] * D("1.05"), rules.tick))
    return D(price)


def expected(
    template: str, config: Mapping[str, Any], limits: Mapping[str, Any], market: Market
) -> list[Expected] | None:
    """The first orders: all that come at once, the first of them first."""
    if template == "signal_webhook":
        size = signal_size(config, market.rules)
        if size > min(limits["max_position"], limits.get("max_order", size)):
            return None
    workings = {"grid": grid, "dca": dca, "signal_webhook": signal, "pure_market_making": market_making}
    found = workings[template](config, market)
    at_market = found is not None and any(order.price is None for order in found)
    if at_market and limits.get("price_band_pct", D(100)) < D("0.2"):
        return None  # the spread alone holds it back
    return found


# Templates --------------------------------------------------------------------------------------------------------


def grid_line(config: Mapping[str, Any], rules: PairRules, index: int) -> Decimal:
    """Line ``index`` of the grid, 0 the lowest."""
    width = config["upper_bound"] - config["lower_bound"]
    return floor(config["lower_bound"] + width * index / config["grid_count"], rules.tick)


def grid(config: Mapping[str, Any], market: Market) -> list[Expected] | None:
    """The highest level below the market buys first, where it is near enough."""
    price = grid_line(config, market.rules, config["grid_count"] // 2)
    bounds = config.get("activation_bounds_pct")
    if price >= market.bid or (bounds is not None and price < market.mid * (100 - bounds) / 100):
        return None
    return [Expected("BUY", price, floor(config["order_amount"] / price, market.rules.lot))]


def dca(config: Mapping[str, Any], market: Market) -> list[Expected] | None:
    """A ladder's first level, unless the market is too coarse for one of its levels; the first purchase otherwise."""
    rules = market.rules
    if config["mode"] == "interval":
        amount = floor(config["order_amount"] / market.ask, rules.lot)
        return [Expected("BUY", None, amount)] if market.takes(market.bid, amount) else None
    prices = [floor(market.mid * (100 - spread) / 100, rules.tick) for spread in config["spreads_pct"]]
    amounts = [
        floor(quote / price, rules.lot) if price > 0 else D(0)
        for quote, price in zip(config["amounts_quote"], prices, strict=True)
    ]
    sizes_fit = all(market.takes(price, amount) for price, amount in zip(prices, amounts, strict=True))
    if not sizes_fit or len(set(prices)) < len(prices):
        return None
    if config["spreads_pct"][0] == 0:
        return [Expected("BUY", None, floor(config["amounts_quote"][0] / market.ask, rules.lot))]
    return [Expected("BUY", prices[0], amounts[0])]


def signal(config: Mapping[str, Any], market: Market) -> list[Expected] | None:
    """What a buy signal without a size of its own buys; with ``signal_size`` where the document has no size."""
    amount = floor(signal_size(config, market.rules) / market.mid, market.rules.lot)
    return [Expected("BUY", None, amount)] if market.takes(market.bid, amount) else None


def signal_size(config: Mapping[str, Any], rules: PairRules) -> Decimal:
    """Quote that the signal buys for: the document's, or the smallest order's where it has none."""
    return D(config.get("order_amount", rules.min_notional * D("1.2")))


def smallest_maker_order(config: Mapping[str, Any]) -> Decimal:
    further = (config["order_levels"] - 1) * config["order_level_amount"]
    return D(min(config["order_amount"], config["order_amount"] + further))


def market_making(config: Mapping[str, Any], market: Market) -> list[Expected] | None:
    """Both sides of the book around the reference price; the engine places all of them in one tick."""
    rules = market.rules
    reference = {"best_bid": market.bid, "best_ask": market.ask}.get(config["price_type"], market.mid)
    found = []
    for level in range(config["order_levels"]):
        amount = floor(config["order_amount"] + level * config["order_level_amount"], rules.lot)
        for side, sign in (("BUY", -1), ("SELL", 1)):
            spread = config["bid_spread" if side == "BUY" else "ask_spread"] + level * config["order_level_spread"]
            price = floor(reference * (1 + sign * spread / 100), rules.tick)
            if config["add_transaction_costs"]:
                price = floor(price * (1 + sign * ENGINE_FEE), rules.tick)
            if price <= 0:
                return None
            found.append(Expected(side, price, amount))
    if 0 < config["price_ceiling"] <= reference:
        found = [order for order in found if order.side == "SELL"]
    if config["price_floor"] >= reference:
        found = [order for order in found if order.side == "BUY"]
    if config["inventory_skew_enabled"]:
        found = [skewed(order, config, market, reference) for order in found]
    found = [o for o in found if o.amount > 0 and (o.price < market.ask if o.side == "BUY" else o.price > market.bid)]
    for side in ("BUY", "SELL"):
        worth = sum((order.amount * market.price for order in found if order.side == side), D(0))
        if worth > WEALTH / 4:
            return None  # more than the account has
    if not found or not all(market.takes(order.price, order.amount) for order in found):
        return None
    return found


def skewed(order: Expected, config: Mapping[str, Any], market: Market, reference: Decimal) -> Expected:
    """The order with its size moved towards the target share of the base asset, of which the account has half.

    Below the target bids grow up to twice their size as the range's lower end is reached, asks shrink to nothing;
    above it the other way round.
    """
    levels = config["order_levels"]
    total = (config["order_amount"] * levels + config["order_level_amount"] * levels * (levels - 1) / 2) * 2
    base_worth = WEALTH / market.price * reference
    everything = base_worth + WEALTH
    reach = min(total * config["inventory_range_multiplier"] * reference, everything / 2)
    target = everything * config["inventory_target_base_pct"] / 100
    room = reach if base_worth >= target else target - max(target - reach, D(0))
    away = max(D(-1), min(D(1), (base_worth - target) / room)) if room else D(0)
    share = 1 - away if order.side == "BUY" else 1 + away
    # The engine works it out in binary floating point: a lot more or less.
    return Expected(order.side, order.price, floor(order.amount * share, market.rules.lot), market.rules.lot)
