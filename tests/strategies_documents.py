"""Random bots of every template: valid ones by construction from the declared fields, and mutations of them.

``valid_bot(template)`` gives plain data as a portal would send it, spelled in any of the ways that are accepted;
``mutated`` changes one thing about such a bot. ``sample`` draws a fixed number of different ones, the
same at every run.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import PairRules
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Field
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import USD_ASSETS, ceilings_for
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import factories

D = Decimal
Draw = Callable[[Any], Any]
PLANS: Final = ("pro", "business")
FEE_PCT: Final = factories.catalogue().exchanges["binance"].fee_pct


def sample(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """``count`` different examples of a strategy, the same ones at every run."""
    found: dict[str, Any] = {}

    @settings(
        max_examples=count + count // 5, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example: Any) -> None:
        found.setdefault(json.dumps(example, default=repr, sort_keys=True), example)

    collect()
    assert len(found) >= count, f"only {len(found)} different examples"
    return list(found.values())[:count]


# Numbers ----------------------------------------------------------------------------------------------------------


def multiples(low: Decimal, high: Decimal, step: Decimal) -> st.SearchStrategy[Decimal]:
    """Multiples of ``step`` from ``low`` to ``high``."""
    first, last = (low / step).to_integral_value(ROUND_CEILING), (high / step).to_integral_value(ROUND_FLOOR)
    return st.integers(int(first), int(last)).map(lambda count: count * step)


@st.composite
def numbers(draw: Draw, low: Decimal, high: Decimal, places: int = 8) -> Decimal:
    """Numbers from ``low`` to ``high`` of any size between, with few digits or many, at most ``places`` decimals."""
    finest = max(-places, high.adjusted() - 14)
    magnitude = draw(st.integers(max(low.adjusted() if low > 0 else finest, finest), high.adjusted()))
    top = min(high, D(10).scaleb(magnitude))
    steps = [D(1).scaleb(e) for e in range(finest, magnitude + 1)]
    step = draw(st.sampled_from([step for step in steps if top // step * step >= low] or steps[:1]))
    return D(draw(multiples(max(low, step if low >= 0 else low), max(top, low), step)))


def bounds(field: Field) -> tuple[Decimal, Decimal]:
    """The lowest and the highest number of a field, or numbers next to bounds that it excludes."""
    nearly = D(1) if field.type == "integer" else D("0.0001")
    low = field.minimum if field.minimum is not None else (field.above or D(0)) + nearly
    high = field.maximum if field.maximum is not None else (field.below or D(1000)) - nearly
    return low, high


@st.composite
def values(draw: Draw, field: Field) -> Any:
    """Values a field accepts when nothing else is looked at."""
    if field.type == "boolean":
        return draw(st.booleans())
    if field.type == "choice":
        return draw(st.sampled_from(field.choices))
    low, high = bounds(field)
    if field.type == "integer":
        return draw(st.integers(int(low), int(high)) | st.integers(int(low), min(int(high), int(low) + 20)))
    if field.type == "decimals":
        return draw(st.lists(numbers(low, high, 4), min_size=1, max_size=field.longest))
    return draw(numbers(low, high))


@st.composite
def spelled(draw: Draw, value: Any) -> Any:
    """A value in one of the ways in which JSON can have it."""
    if isinstance(value, list | tuple):
        return [draw(spelled(item)) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value
    number = D(value)
    ways: list[Any] = [f"{number:f}", f"{number.normalize():f}", str(number.normalize())]
    if number == number.to_integral_value():
        ways.append(int(number))
    if D(repr(float(number))) == number:
        ways.append(float(number))
    return draw(st.sampled_from(ways))


# Bots -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Market:
    """Where a bot trades: the pair's rules, and what the plan allows there (quote asset)."""

    plan: str
    rules: PairRules
    position: Decimal
    order: Decimal
    orders: int

    @property
    def step(self) -> Decimal:
        """The smallest step of amounts in the quote asset that are worth writing."""
        return D("0.01") if self.rules.quote in USD_ASSETS else D("0.000001")


@st.composite
def markets(draw: Draw) -> Market:
    """Any pair of the catalogue, in any plan that has a ceiling for it."""
    plan = factories.catalogue().plans[draw(st.sampled_from(PLANS))]
    pairs = factories.catalogue().exchanges["binance"].pairs
    rules = pairs[draw(st.sampled_from(sorted(pairs)))]
    ceilings = ceilings_for(plan, rules.quote)
    assert ceilings is not None
    return Market(plan.name, rules, ceilings["max_position"], ceilings["max_order"], int(ceilings["max_open_orders"]))


@st.composite
def valid_bot(draw: Draw, template: str) -> dict[str, Any]:
    """``{"plan": …, "bot": …}``: a bot that is accepted, and the plan of its tenant."""
    market = draw(markets())
    config, risk = draw(_TEMPLATES[template](market))
    optional = [name for name, field in TEMPLATES[template].fields.items() if name not in config and _is_free(field)]
    for name in draw(st.lists(st.sampled_from(optional), unique=True)) if optional else ():
        config[name] = draw(values(TEMPLATES[template].fields[name]))
    bot = {
        "id": "b1",
        "name": draw(st.sampled_from(["Bot", "Große Kurse", "b" * 80, "=1+1"])),
        "exchange_connection_id": "ex1",
        "strategy_template": template,
        "trading_pair": market.rules.pair,
        "strategy_config": {name: draw(spelled(config[name])) for name in draw(st.permutations(list(config)))},
        "risk_config": {name: draw(spelled(value)) for name, value in risk.items()},
    }
    return {"plan": market.plan, "bot": bot}


def _is_free(field: Field) -> bool:
    """Whether a field that a template's own function left out may have any value of its range."""
    return field.name in ("ping_pong_enabled", "add_transaction_costs", "hanging_orders_enabled",
                          "hanging_orders_cancel_pct", "inventory_skew_enabled", "inventory_target_base_pct",
                          "inventory_range_multiplier", "price_type", "max_order_age", "filled_order_delay",
                          "order_refresh_tolerance_pct", "max_signal_age_s", "time_limit_s")  # fmt: skip


@st.composite
def grids(draw: Draw, market: Market) -> Any:
    """Bounds on the tick, steps that earn their fees, amounts that every level can order."""
    rules, position = market.rules, market.position
    count = draw(st.integers(2, 200) | st.integers(2, 12))
    lower = draw(multiples(rules.tick * 10**4, rules.tick * 10**6, rules.tick))
    # A step must earn two fees at the upper bound: span / count > 2 fee (lower + span).
    cost = 2 * FEE_PCT / 100 * count
    ratio = cost / (1 - cost) * D("1.01") + draw(numbers(D("0.001"), D(2), 3))
    upper = ((lower * (1 + ratio)) / rules.tick).to_integral_value(ROUND_CEILING) * rules.tick
    least = max(rules.min_notional, rules.min_amount * upper) + rules.lot * upper
    least = (least / market.step).to_integral_value(ROUND_CEILING) * market.step
    count = max(2, min(count, int(position / least), market.orders))
    amount = draw(multiples(least, max(least, min(least * draw(st.integers(1, 50)), position / count, market.order)),
                            market.step))  # fmt: skip
    config = {"lower_bound": lower, "upper_bound": upper, "grid_count": count, "order_amount": amount}
    if draw(st.booleans()):
        config["stop_price"] = draw(numbers(rules.tick, lower - rules.tick))
    if draw(st.booleans()):
        config["activation_bounds_pct"] = draw(numbers(D("0.1"), D(100), 2))
    draw(_exits(config, D("0.01")))
    least_orders = 1 if "activation_bounds_pct" in config else count
    risk = draw(_limits(market, total=count * amount, order=amount, orders=least_orders))
    return config, risk


@st.composite
def ladders(draw: Draw, market: Market) -> Any:
    """A dca bot of either mode."""
    if draw(st.booleans()):
        return draw(_intervals(market))
    least = _least_order(market)
    spreads = sorted(draw(st.lists(multiples(D(0), D("99.5"), D("0.01")), min_size=1, max_size=20, unique=True)))
    most = min(market.order, market.position / len(spreads), least * 200)
    amounts = [draw(multiples(least, max(most, least), market.step)) for _ in spreads]
    config: dict[str, Any] = {"mode": "ladder", "spreads_pct": spreads, "amounts_quote": amounts}
    config["take_profit_pct"] = draw(numbers(D("0.21"), D(1000), 4))
    if draw(st.booleans()):
        config["cooldown_s"] = draw(st.integers(0, 2_678_400))
    if draw(st.booleans()):
        config["repeat"] = draw(st.booleans())
    # A stop must lie below every level, measured from the average price before it.
    bought = spent = least_stop = D(0)
    for index in range(len(spreads) - 1):
        spent, bought = spent + amounts[index], bought + amounts[index] / (100 - spreads[index])
        least_stop = max(least_stop, 100 * (1 - (100 - spreads[index + 1]) / (spent / bought)))
    if least_stop < D("99.8") and draw(st.booleans()):
        config["stop_loss_pct"] = draw(multiples(least_stop + D("0.01"), D("99.99"), D("0.01")))
    risk = draw(_limits(market, total=sum(amounts, D(0)), order=max(amounts), orders=len(spreads)))
    return config, risk


@st.composite
def _intervals(draw: Draw, market: Market) -> Any:
    least = _least_order(market)
    largest = amount = draw(multiples(least, min(market.order, least * 1000) / 10, market.step))
    config: dict[str, Any] = {"mode": "interval", "order_amount": amount}
    config["interval_s"] = draw(st.integers(10, 2_678_400) | st.integers(10, 60))
    if draw(st.booleans()):
        config["dip_pct"] = draw(numbers(D("0.01"), D("99.99"), 2))
        config["dip_multiplier"] = draw(multiples(D("1.1"), D(10), D("0.1")))
        largest = amount * config["dip_multiplier"]
    return config, draw(_limits(market, total=largest, order=largest, orders=1))


@st.composite
def signals(draw: Draw, market: Market) -> Any:
    """A signal_webhook bot."""
    least = _least_order(market)
    config: dict[str, Any] = {}
    amount = least
    if draw(st.integers(0, 3)):
        amount = config["order_amount"] = draw(multiples(least, min(market.order, least * 1000), market.step))
    if draw(st.booleans()):
        config["stop_loss_pct"] = draw(numbers(D("0.01"), D("99.99"), 4))
    if draw(st.booleans()):
        config["cooldown_s"] = draw(st.integers(0, 2_678_400))
    draw(_exits(config, D("0.21")))
    return config, draw(_limits(market, total=amount, order=amount, orders=1))


@st.composite
def makers(draw: Draw, market: Market) -> Any:
    """A pure_market_making bot."""
    rules = market.rules
    config: dict[str, Any] = {"order_refresh_time": draw(numbers(D(1), D(86400), 2))}
    config["bid_spread"] = bid = draw(numbers(D("0.001"), D("99.9"), 4))
    config["ask_spread"] = ask = draw(numbers(D("0.001"), D("99.9"), 4))
    levels = 1
    if draw(st.booleans()):
        apart = draw(numbers(D("0.001"), max(D("0.002"), (D("99.99") - bid) / 2), 4))
        levels = draw(st.integers(1, min(50, 1 + int((D("99.999") - bid) / apart))))
        config |= {"order_levels": levels, "order_level_spread": apart}
    config["order_amount"] = amount = draw(multiples(rules.min_amount, rules.min_amount * 10**6, rules.lot))
    if draw(st.booleans()):
        shrink = (amount - rules.min_amount) / max(1, levels - 1)
        config["order_level_amount"] = draw(multiples(-min(shrink, amount), amount, rules.lot))
    if draw(st.booleans()):
        config["minimum_spread"] = draw(multiples(D(-100), min(bid, ask) - D("0.0005"), D("0.0005")))
    smallest = min(amount, amount + (levels - 1) * config.get("order_level_amount", D(0)))
    least = (rules.min_notional / smallest / rules.tick).to_integral_value(ROUND_CEILING) * rules.tick
    ceiling = draw(st.none() | st.just(D(-1)) | multiples(least, least * 1000, rules.tick))
    if ceiling is not None and ceiling < 10**9:
        config["price_ceiling"] = ceiling
    floor = draw(st.none() | st.just(D(-1)) | multiples(rules.tick, least, rules.tick))
    if floor is not None and (floor < 0 or floor < config.get("price_ceiling", D(-1))):
        config["price_floor"] = floor
    risk = {"kill_switch_pct": draw(numbers(D("0.01"), D(100), 2))}
    return config, risk


_TEMPLATES: Final[Mapping[str, Callable[[Market], st.SearchStrategy[Any]]]] = {
    "grid": grids, "dca": ladders, "signal_webhook": signals, "pure_market_making": makers,
}  # fmt: skip


def _least_order(market: Market) -> Decimal:
    """An order that the exchange takes, with some room."""
    return (market.rules.min_notional / market.step).to_integral_value(ROUND_CEILING) * market.step


@st.composite
def _exits(draw: Draw, config: dict[str, Any], least_profit: Decimal) -> None:
    """A take profit, and a trailing stop that begins before it."""
    if draw(st.booleans()):
        config["take_profit_pct"] = draw(numbers(least_profit, D(1000), 4))
    activation_below = config.get("take_profit_pct", D(1000))
    if activation_below > D("0.02") and draw(st.booleans()):
        config["trailing_activation_pct"] = activation = draw(
            multiples(D("0.01"), activation_below - D("0.0001"), D("0.01"))
        )
        config["trailing_delta_pct"] = draw(multiples(D("0.01"), activation, D("0.01")))


@st.composite
def _limits(draw: Draw, market: Market, *, total: Decimal, order: Decimal, orders: int) -> dict[str, Any]:
    """Limits of a controller's bot that leave room for ``total`` in orders of ``order``, ``orders`` of them resting."""
    pegged = market.rules.quote in USD_ASSETS
    risk: dict[str, Any] = {}
    position = min(D(10_000), market.position)
    if not pegged or total > position or draw(st.booleans()):
        position = risk["max_position"] = draw(multiples(total, max(total, market.position), market.step))
    for name, low, high in (
        ("max_order", order, min(position, market.order)),
        ("max_daily_loss", market.step, min(position, market.position / 5)),
        ("max_drawdown", market.step, position),
    ):
        if low <= high and draw(st.booleans()):
            risk[name] = draw(multiples(low, high, market.step))
    if draw(st.booleans()):
        risk["max_open_orders"] = draw(st.integers(orders, market.orders))
    if draw(st.booleans()):
        risk["max_drawdown_pct"] = draw(numbers(D("0.01"), D(100), 2))
    if draw(st.booleans()):
        risk["price_band_pct"] = draw(numbers(D("0.01"), D(100), 2))
    if draw(st.booleans()):
        risk["close_position_on_halt"] = draw(st.booleans())
    if draw(st.booleans()):
        risk["earliest_resume_s"] = draw(st.integers(0, 2_592_000))
    if pegged and draw(st.booleans()):
        names = {name: f"{name}_usd" for name in ("max_position", "max_order", "max_daily_loss", "max_drawdown")}
        return {names.get(name, name): value for name, value in risk.items()}
    return risk


# Mutations --------------------------------------------------------------------------------------------------------

JUNK: Final[tuple[Any, ...]] = (
    None, [], {}, "", " ", "abc", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "１０", "1e999", "true", "yes",
    True, False, 0, -1, -0.0, 1e-13, 10**20, 1e300, 0.1 + 0.2, "1" * 400, [1], [[1]], {"a": 1}, "1; rm", "1\n2",
    "${x}", "é", 1, 2, 100, 1000, 0.5, "5", 99.99, 3.5, 10_000_000,
)  # fmt: skip


@st.composite
def mutated(draw: Draw, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One of ``cases`` (as ``valid_bot`` gives them) with one field changed; it may happen to be valid still.

    ``part`` says of which configuration, ``names`` which fields, ``kind`` how.
    """
    case = copy.deepcopy(dict(draw(st.sampled_from(cases))))
    template = case["bot"]["strategy_template"]
    part = draw(st.sampled_from(["strategy_config"] * 3 + ["risk_config"]))
    fields = TEMPLATES[template].fields if part == "strategy_config" else TEMPLATES[template].limits
    data = case["bot"][part]
    kind = draw(st.sampled_from(["junk", "junk", "drop", "unknown", "edge", "swap"]))
    field = fields[draw(st.sampled_from(sorted(fields)))]
    names = [field.name_in(data)]
    if kind == "drop" and data:
        names = [draw(st.sampled_from(sorted(data)))]
        del data[names[0]]
    elif kind == "unknown":
        names = [draw(st.sampled_from(["order_amout", "Mode", "a" * 100, "leverage", "../x", "stop", "max_position "]))]
        data[names[0]] = 1
    elif kind == "edge" and field.type not in ("boolean", "choice"):
        data[names[0]] = draw(_beyond(field))
    elif kind == "swap" and len(data) > 1:
        names.append(draw(st.sampled_from(sorted(data))))
        data.update({name: data[other] for name, other in zip(names, reversed(names), strict=True) if other in data})
    else:
        kind, data[names[0]] = "junk", draw(st.sampled_from(JUNK))
    return {**case, "part": part, "names": names, "kind": kind}


@st.composite
def _beyond(draw: Draw, field: Field) -> Any:
    """A number at, or just beyond, one of a field's bounds."""
    low = field.minimum if field.minimum is not None else field.above or D(0)
    high = field.maximum if field.maximum is not None else field.below or D(0)
    nearby = [D(0), D(1), D(-1), D("0.000000000001"), D("-0.000000000001")]
    number = draw(st.sampled_from([low, high])) + draw(st.sampled_from(nearby))
    spelling = draw(spelled(number))
    return [spelling] if field.type == "decimals" else spelling
