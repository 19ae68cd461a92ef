"""Signals from outside: which are taken, what they trade, and when a position is closed again. Pure functions.

A bot holds one position, in one key. At most one signal waits and one order is under way. A buy or sell makes one order
at the most, ever: it leaves the memory in the same write that puts its order down. A close sells until nothing is left.
None makes an order after it has expired.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any

from .exits import Exit, ProfitExits, find_exit, follow_peak
from .planning import ZERO, Decision, MarketRules, WantedOrder, floor_to, text
from .risk import Exposure, RiskLimits, judge_order

KEY = "position"
SIDES = {"buy": "BUY", "sell": "SELL", "close": "SELL"}
ACTIONS = tuple(SIDES)
FIELDS = frozenset({"id", "action", "size_quote", "sent_at", "expires_at"})
ID_LENGTH = 128
SIZE_PATTERN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,18})?", re.ASCII)
# No signal may live longer; ids are remembered at least as long as their signal lives, and the last ones beyond that.
LIFE_SECONDS = 600.0
REMEMBERED = 200
ALIVE_AT_MOST = 1000


class SignalError(ValueError):
    """A message that is no signal; the text says what is wrong with it."""


@dataclass(frozen=True)
class Signal:
    """What someone wants traded: ``size_quote`` in quote, times as seconds since the epoch.

    ``traded``: a close that had an order and waits for what becomes of it.
    """

    id: str
    action: str
    size_quote: Decimal | None
    sent_at: float
    expires_at: float
    traded: bool = False


@dataclass(frozen=True)
class SignalSettings:
    """The template's fields. Amounts in quote, percents of the position's average price, times in seconds."""

    order_amount: Decimal | None = None
    max_signal_age_s: int = 30
    take_profit_pct: Decimal | None = None
    stop_loss_pct: Decimal | None = None
    trailing_activation_pct: Decimal | None = None
    trailing_delta_pct: Decimal | None = None
    time_limit_s: int | None = None
    cooldown_s: int = 0

    @property
    def profit_exits(self) -> ProfitExits:
        """Those of the exits that depend on profit. Raises ValueError."""
        return ProfitExits(self.take_profit_pct, self.trailing_activation_pct, self.trailing_delta_pct)

    def check(self) -> None:
        """Raises ValueError naming the field that cannot be used."""
        _ = self.profit_exits
        for name in ("order_amount", "stop_loss_pct", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and not (Decimal(value).is_finite() and value > 0):
                raise ValueError(f"{name} must be above 0")
        if self.stop_loss_pct is not None and self.stop_loss_pct >= 100:
            raise ValueError("stop_loss_pct must be below 100")
        if not 5 <= self.max_signal_age_s <= 300:
            raise ValueError("max_signal_age_s must be between 5 and 300")
        if self.cooldown_s < 0:
            raise ValueError("cooldown_s must not be negative")


@dataclass(frozen=True)
class Memory:
    """What survives a restart.

    ``waiting``: the accepted signal whose order is not written down yet, or a close that goes on. ``seen``: id ->
    expires_at of accepted signals, oldest first. ``opened_at``: of the position's first buy. ``peak``: highest mid
    price since then. ``bought_at``: of the last buy.
    """

    waiting: Signal | None = None
    seen: Mapping[str, float] = field(default_factory=dict)
    opened_at: float | None = None
    peak: Decimal | None = None
    bought_at: float | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON-plain data."""
        waiting = closing = None
        if self.waiting is not None:
            signal = {**asdict(self.waiting), "size_quote": _digits(self.waiting.size_quote)}
            # Apart: an agent of before, after a rollback, knows none that goes on.
            waiting, closing = (None, signal) if signal.pop("traded") else (signal, None)
        return {"strategy": "signals", "waiting": waiting, "closing": closing, "seen": dict(self.seen),
                "opened_at": self.opened_at, "peak": _digits(self.peak), "bought_at": self.bought_at}

    @classmethod
    def restore(cls, data: Mapping[str, Any]) -> "Memory":
        """From ``plain``; an empty memory where the data is another strategy's."""
        if data.get("strategy") != "signals":
            return cls()
        closing, peak = data.get("closing"), data["peak"]
        waiting = closing or data["waiting"]
        return cls(
            waiting=None if waiting is None else Signal(**{
                **waiting, "size_quote": None if waiting["size_quote"] is None else Decimal(waiting["size_quote"]),
                "traded": closing is not None}),
            seen=dict(data["seen"]), opened_at=data["opened_at"], peak=None if peak is None else Decimal(peak),
            bought_at=data["bought_at"])

    def waits(self, now: float) -> bool:
        """Whether a signal waits that may still be traded."""
        return self.waiting is not None and now < self.waiting.expires_at

    def is_done(self, now: "Situation") -> bool:
        """Whether the signal that waits is a close of which nothing is left to do."""
        return self.waiting is not None and self.waiting.traded and not (now.under_way or now.sellable)


@dataclass(frozen=True)
class Situation:
    """The bot at one moment.

    ``halted``: why it may not trade. ``held`` base cost ``cost`` quote, fees included. ``under_way``: an order is being
    made or is not accounted for yet. ``paused``: sides whose last order was refused a moment ago.
    ``funds``: quote the account has left. ``taker_price``: what a market buy of so much base would pay on average,
    None: more than the book has.
    """

    now: float
    halted: str | None = None
    connected: bool = True
    mid: Decimal | None = None
    rules: MarketRules | None = None
    held: Decimal = ZERO
    cost: Decimal = ZERO
    under_way: bool = False
    paused: frozenset[str] = frozenset()
    limits: RiskLimits = field(default_factory=RiskLimits)
    exposure: Exposure = field(default_factory=Exposure)
    funds: Decimal | None = None
    taker_price: Callable[[Decimal], Decimal | None] = lambda amount: None

    @property
    def sellable(self) -> Decimal:
        """The part of the position that an order can carry; 0 where it is too little or the market is unknown."""
        if self.rules is None or self.mid is None:
            return ZERO
        amount = floor_to(self.held, self.rules.lot)
        return amount if self.rules.allows(self.mid, amount) else ZERO


@dataclass(frozen=True)
class Verdict:
    """The answer to a signal, and the memory it leaves behind."""

    code: str
    reason: str
    memory: Memory

    @property
    def accepted(self) -> bool:
        """Whether it will be traded."""
        return self.code == "accepted"


@dataclass(frozen=True)
class Step:
    """What to do now. ``signal`` or ``exit``: what the order is for. ``notes``: lines for the log."""

    decision: Decision
    memory: Memory
    signal: str | None = None
    exit: Exit | None = None
    notes: tuple[str, ...] = ()


# -- taking signals


def signal_id(data: object) -> str | None:
    """The id in a message, also where the rest is no signal; None where there is none to answer to."""
    value = data.get("id") if isinstance(data, dict) else None
    usable = isinstance(value, str) and 1 <= len(value) <= ID_LENGTH and value.isprintable()
    return value if usable else None


def parse_signal(data: object) -> Signal:
    """The signal in a message as JSON decoded it. Raises SignalError for whatever is not exactly one."""
    if not isinstance(data, dict):
        raise SignalError("a signal is a JSON object")
    if set(data) != FIELDS:
        odd = sorted(str(name)[:40] for name in set(data) ^ FIELDS)
        raise SignalError(f"missing or unknown fields: {', '.join(odd[:5])}")
    identity = signal_id(data)
    if identity is None:
        raise SignalError(f"id must be a text of 1 to {ID_LENGTH} printable characters")
    if not isinstance(data["action"], str) or data["action"] not in ACTIONS:
        raise SignalError(f"action must be one of {', '.join(ACTIONS)}")
    size = data["size_quote"]
    if size is not None and not (isinstance(size, str) and SIZE_PATTERN.fullmatch(size) and Decimal(size) > 0):
        raise SignalError("size_quote must be a number above 0 as text, or null")
    for name in ("sent_at", "expires_at"):
        value = data[name]
        # A whole number may be too large for a float.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11 \
                or not math.isfinite(value):
            raise SignalError(f"{name} must be a time in seconds since 1970")
    sent_at, expires_at = float(data["sent_at"]), float(data["expires_at"])
    # A sender's clock may be ahead: sent_at may lie after expires_at, which is the control node's.
    if expires_at > sent_at + LIFE_SECONDS:
        raise SignalError(f"expires_at must not be more than {LIFE_SECONDS:.0f} s after sent_at")
    return Signal(identity, data["action"], None if size is None else Decimal(size), sent_at, expires_at)


def judge(signal: Signal, settings: SignalSettings, memory: Memory, now: Situation) -> Verdict:
    """Whether the bot takes the signal.

    An order under way or a waiting signal make it ``busy`` for buy and sell. A close never is: it takes the place of
    what waits, and is traded when the order under way has ended.
    """
    signal = replace(signal, expires_at=min(signal.expires_at, signal.sent_at + settings.max_signal_age_s))
    memory = replace(memory, seen=_pruned(memory.seen, now.now))

    def refused(code: str, reason: str) -> Verdict:
        return Verdict(code, reason, memory)

    if signal.id in memory.seen:
        return refused("duplicate", "the bot has taken a signal with this id")
    if now.now >= signal.expires_at:
        return refused("expired", f"it expired {now.now - signal.expires_at:.1f} s ago by the bot's clock")
    if signal.expires_at > now.now + LIFE_SECONDS:
        return refused("invalid", "it lies in the future by the bot's clock; check the clocks")
    if now.halted is not None:
        return refused("halted", now.halted)
    if not now.connected or now.mid is None or now.rules is None:
        return refused("not_connected", "the bot is not connected to the exchange")
    waits = memory.waits(now.now) and not memory.is_done(now)
    # Only ever reached by a flood: each of them has made an order.
    if len(memory.seen) >= ALIVE_AT_MOST or (signal.action != "close" and (waits or now.under_way)):
        return refused("busy", "another signal's order is under way")
    if signal.action != "close" and SIDES[signal.action] in now.paused:
        return refused("busy", "the last order was refused a moment ago; the bot waits before the next")
    size = signal.size_quote or (settings.order_amount if signal.action == "buy" else None) or ZERO
    if signal.action != "close":
        if not size:
            return refused("no_size", "the signal has no size_quote" + (
                " and the bot no order_amount" if signal.action == "buy" else ""))
        signal = replace(signal, size_quote=size)
    if signal.action == "buy":
        if memory.bought_at is not None and (left := memory.bought_at + settings.cooldown_s - now.now) > 0:
            return refused("cooldown", f"the bot buys again in {left:.0f} s at the earliest")
        if (problem := _buy_problem(size, now)) is not None:
            return refused(*problem)
    elif not now.sellable and not (signal.action == "close" and (waits or now.under_way)):
        return refused("no_position", "the bot holds nothing that could be sold")
    elif signal.action == "sell" and not _sale(size, now):
        return refused("invalid", f"size_quote {text(size)} is below the market's minimum")
    memory = replace(memory, waiting=signal, seen={**memory.seen, signal.id: signal.expires_at})
    return Verdict("accepted", "the bot trades it now", memory)


def _buy_problem(size: Decimal, now: Situation) -> tuple[str, str] | None:
    """Why a buy of ``size`` quote cannot be made now: code and reason."""
    assert now.mid is not None and now.rules is not None
    amount = floor_to(size / now.mid, now.rules.lot)
    if not now.rules.allows(now.mid, amount):
        return "invalid", f"size_quote {text(size)} is below the market's minimum"
    if now.funds is not None and size > now.funds:
        return "too_large", f"the account has {text(now.funds)} left for a size_quote of {text(size)}"
    breach = judge_order(now.limits, now.exposure, value=amount * now.mid, price=now.taker_price(amount), mid=now.mid)
    return None if breach is None else ("too_large", f"it is beyond a limit: {breach.facts}")


def _sale(size: Decimal, now: Situation) -> Decimal:
    """How much to sell for ``size`` quote: never more than is held, and everything where the rest could not be sold."""
    assert now.mid is not None and now.rules is not None
    amount = floor_to(size / now.mid, now.rules.lot)
    if not now.rules.allows(now.mid, amount):
        return ZERO
    rest = floor_to(now.held - amount, now.rules.lot)
    return amount if now.rules.allows(now.mid, rest) else now.sellable


def _pruned(seen: Mapping[str, float], now: float) -> dict[str, float]:
    """Without ids that have expired and are not among the last ones."""
    last = set(list(seen)[-REMEMBERED:])
    return {identity: until for identity, until in seen.items() if until > now or identity in last}


# -- trading


def step(settings: SignalSettings, memory: Memory, now: Situation) -> Step:
    """What to trade now. The exits stand before the waiting signal; nothing is decided while an order is under way."""
    nothing = Decision((), frozenset())
    notes: tuple[str, ...] = ()
    if memory.waiting is not None and not memory.waiting.traded and not memory.waits(now.now):
        notes = (f"SIGNAL_EXPIRED {memory.waiting.id} was not traded in time",)
        memory = replace(memory, waiting=None)
    memory = _watch(memory, now)
    if now.under_way or now.mid is None or now.rules is None:
        return Step(nothing, memory, notes=notes)
    end = due_exit(settings, memory, now)
    if end is not None and "SELL" in now.paused:
        return Step(nothing, memory, notes=notes)
    if end is not None:
        return Step(_market("SELL", now.sellable, now), memory, exit=end, notes=notes)
    signal = memory.waiting
    if signal is None:
        return Step(nothing, memory, notes=notes)
    if signal.traded and not (now.sellable and memory.waits(now.now)):
        if now.sellable:
            notes = (*notes, f"SIGNAL_CLOSE_PART {signal.id}: the market did not take all in time; "
                             f"{text(now.sellable)} is still held")
        return Step(nothing, replace(memory, waiting=None), notes=notes)
    if SIDES[signal.action] in now.paused:
        return Step(nothing, memory, notes=notes)
    if signal.action == "close" or signal.size_quote is None:
        amount = now.sellable
    elif signal.action == "sell":
        amount = _sale(signal.size_quote, now)
    else:
        amount = floor_to(signal.size_quote / now.mid, now.rules.lot)
    if not now.rules.allows(now.mid, amount):
        # There was enough when the signal was taken, and no longer is.
        notes = (*notes, f"SIGNAL_DROPPED {signal.id}: too little is left to {signal.action}")
        return Step(nothing, replace(memory, waiting=None), notes=notes)
    return Step(_market(SIDES[signal.action], amount, now), memory, signal.id, notes=notes)


def due_exit(settings: SignalSettings, memory: Memory, now: Situation) -> Exit | None:
    """Why the position is to be sold now; None where it is not. Measured at the mid price, from the average price."""
    if not now.sellable or now.mid is None or now.cost <= 0:
        return None
    average = now.cost / now.held
    gain = (now.mid / average - 1) * 100
    if settings.stop_loss_pct is not None and gain <= -settings.stop_loss_pct:
        return Exit("STOP_LOSS", f"loss {-gain:.4f} % reached stop_loss_pct {text(settings.stop_loss_pct)}")
    # The highest price is what is remembered: a purchase changes the average, and with it every profit.
    highest = (max(memory.peak or now.mid, now.mid) / average - 1) * 100
    end = find_exit(settings.profit_exits, follow_peak(settings.profit_exits, None, highest), gain)
    if end is not None:
        return end
    if settings.time_limit_s is not None and memory.opened_at is not None \
            and now.now >= memory.opened_at + settings.time_limit_s:
        return Exit("TIME_LIMIT", f"held for {now.now - memory.opened_at:.0f} s, time_limit_s {settings.time_limit_s}")
    return None


def order_leaves(memory: Memory, identity: str, now: float) -> Memory | None:
    """The memory to be written together with the order of signal ``identity``; None where it must not leave.

    Asked at the last moment: the signal may have expired, or given its place to another, since the decision.
    """
    signal = memory.waiting
    if signal is None or signal.id != identity or now >= signal.expires_at:
        return None
    if signal.action == "close":
        return replace(memory, waiting=replace(signal, traded=True))
    memory = replace(memory, waiting=None)
    if signal.action != "buy":
        return memory
    return replace(memory, bought_at=now, opened_at=now if memory.opened_at is None else memory.opened_at)


def _watch(memory: Memory, now: Situation) -> Memory:
    """Keep the position's beginning and its highest price; forget both with the position."""
    if now.mid is None or now.rules is None:
        return memory
    if now.sellable:
        return replace(memory, peak=max(memory.peak or now.mid, now.mid),
                       opened_at=now.now if memory.opened_at is None else memory.opened_at)
    return memory if now.under_way else replace(memory, peak=None, opened_at=None)


def _market(side: str, amount: Decimal, now: Situation) -> Decision:
    assert now.mid is not None
    return Decision((WantedOrder(KEY, side, now.mid, amount, amount, "market"),), frozenset())


def _digits(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
