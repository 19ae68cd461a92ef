"""Scripted markets for any template: takes a bot through them and checks what must hold whatever the template.

    market = ScriptedMarket(sandbox, bot, max_position=Decimal(1000))
    for phase in market.every_market(low=33900, middle=34600, high=35250):
        ...                                   # the phase is over and the bot is quiet: compare orders with the template

Each phase is also a method of its own (``flat``, ``trend``, ``crash``, ``whipsaw``, ``gap``, ``outage``,
``refusals``, ``shortage``, ``partial_fill``). ``settle`` waits until the bot has digested what happened: its heartbeat
is younger than the last action, knows the position that the exchange knows, and no order came or went for another beat.
``check`` compares the exchange's own history with the rules: tick, lot and notional of every order, nothing that the
exchange itself had to refuse, and what was held plus what rested never above ``max_position`` at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from tests.engine.harness import PAIR, PAIR_RULES, Bot, Sandbox, wait_for

D = Decimal
ZERO = Decimal(0)
BASE, QUOTE = PAIR.split("-")
TICK, LOT, MIN_NOTIONAL = (D(PAIR_RULES[name]) for name in ("tick", "lot", "min_notional"))
HARMLESS_REFUSALS = ("-2010: Order would immediately match and take.",)
"""A maker order may always meet a market that has just moved."""


@dataclass
class ScriptedMarket:
    """One bot's market. ``max_position`` in quote: the limit that its exposure is held against; None: not checked."""

    sandbox: Sandbox
    bot: Bot
    max_position: Decimal | None = None
    acted_at: float = field(default_factory=time.time)

    @property
    def account(self) -> str:
        """The bot's account on the exchange."""
        return self.bot.account

    # -- what a bot goes through

    def every_market(self, *, low: int, middle: int, high: int) -> Iterator[str]:
        """All markets in a row; yields each one's name when it is over and the bot is quiet.

        Begins and ends at ``high``; ``low``, ``middle`` and ``high`` lie so far apart that the template trades on the
        way.
        """
        phases: dict[str, Callable[[], None]] = {
            "flat": self.flat,
            "partial fill": self.partial_fill,
            "crash": lambda: self.crash(low),
            "trend up": lambda: self.trend(high, start=low),
            "whipsaw": lambda: self.whipsaw(middle, high),
            "gap down": lambda: self.gap(low),
            "gap up": lambda: self.gap(high),
            "outage": lambda: self.outage(middle),
            "refusals": lambda: self.refusals(high),
            "shortage": lambda: self.shortage(middle),
            "end": lambda: self.move(high),
        }
        for name, phase in phases.items():
            phase()
            self.check()
            yield name

    def move(self, *prices: int | str) -> None:
        """The price goes from one to the next; the bot digests each."""
        for price in prices:
            self._act(lambda price=price: self.sandbox.set_price(price))
            self.settle()

    def flat(self, beats: int = 3) -> None:
        """Nothing happens, and the bot does nothing: the same orders rest afterwards."""
        self.settle()
        before = self._open_ids()
        first = self.bot.heartbeat["at"]
        wait_for("time passes", lambda: self.bot.heartbeat["at"] > first + 2 * beats)
        assert self._open_ids() == before, "orders came or went although the price stood still"

    def trend(self, to: int, *, start: int, steps: int = 3) -> None:
        """The price goes there in equal steps."""
        self.move(*(start + (to - start) * step // steps for step in range(1, steps + 1)))

    def crash(self, to: int) -> None:
        """The price falls through everything at once."""
        self.move(to)

    def whipsaw(self, low: int, high: int, times: int = 2) -> None:
        """The price swings faster than the bot can look, then stands at ``high``."""
        for _ in range(times):
            self.sandbox.set_price(low)
            self._act(lambda: self.sandbox.set_price(high))
        self.settle()

    def gap(self, to: int) -> None:
        """The price is elsewhere when the bot, cut off from all streams, looks again."""
        before = self._streams()
        self.sandbox.control.request("POST", "/disconnect", {})
        self.sandbox.set_price(to)
        self._trade_on(to, before)

    def outage(self, to: int | None = None) -> None:
        """The exchange is gone until the bot has noticed; the price moves meanwhile."""
        before, complaints = self._streams(), self._complaints()
        self.sandbox.fault("outage")
        try:
            wait_for("the bot notices", lambda: self._complaints() > complaints + 1)
            if to is not None:
                self.sandbox.set_price(to)
        finally:
            self.sandbox.heal()
        self._trade_on(to, before)

    def refusals(self, to: int, count: int = 2) -> None:
        """The exchange refuses the next orders, for no reason that the bot could know."""
        self.sandbox.fault("error", self.account, path="/api/v3/order", method="POST", count=count, status=400,
                           code=-2010, message="This action is disabled on this account.")
        self.move(to)
        self._act(self.sandbox.heal)
        self.settle()

    def shortage(self, to: int) -> None:
        """All free quote is taken out of the account; the next orders find no funds, whatever the bot believes."""
        free = D(self.sandbox.control.get(f"/account/{self.account}")["balances"][QUOTE]["free"]).quantize(
            D("0.00000001"), ROUND_FLOOR)
        if free > 0:
            self._deposit(free, withdraw=True)
        self.sandbox.fault("insufficient_balance", self.account, count=3)
        self.move(to)
        if free > 0:
            self._deposit(free)
        self._act(self.sandbox.heal)
        self.settle()

    def partial_fill(self, side: str = "BUY") -> None:
        """The price moves to the nearest order and stays there: a third of it fills, later another third."""
        self.settle()
        orders = [item for item in self.sandbox.orders(self.account) if item["side"] == side]
        if not orders:
            return
        best = max(orders, key=lambda item: D(item["price"]) * (1 if side == "BUY" else -1))
        part = D(best["quantity"]) / 3 // LOT * LOT
        for _ in range(2):
            self._act(lambda: self.sandbox.set_price(best["price"], volume=f"{part:f}"))
            self.settle()

    def _streams(self) -> tuple[int, int, int]:
        """Websockets that have ended so far, those that are open, and their subscriptions."""
        stats = self.sandbox.control.get("/stats")
        ended = sum(stats["paths"].get(path, 0) for path in ("GET /ws", "GET /ws-api/v3"))
        connections = stats["connections"]
        return ended, connections["market"] + connections["user"], connections["subscriptions"]

    def _complaints(self) -> int:
        return sum(" WARNING " in line or " ERROR " in line for line in self.bot.log().splitlines())

    def _trade_on(self, price: int | str | None, before: tuple[int, int, int]) -> None:
        """Once the streams are back the price moves by a tick: an engine that missed a move learns of it from the next.

        Depth is published ten times a second: what moves there and back faster is never seen.
        """
        ended, were_open, subscriptions = before

        def back() -> bool:
            now = self._streams()
            return now[0] >= ended + were_open and now[2] >= subscriptions

        wait_for("the streams have ended and are back", back)
        last = D(self.sandbox.control.get("/prices")["prices"][PAIR]["price"] if price is None else price)
        self._act(lambda: self.sandbox.set_price(f"{last + TICK:f}"))
        self.settle()

    def _act(self, action: Callable[[], Any]) -> None:
        action()
        self.acted_at = time.time()

    def _deposit(self, amount: Decimal, *, withdraw: bool = False) -> None:
        self.sandbox.control.request("POST", f"/account/{self.account}/deposit",
                                     {"balances": {QUOTE: f"{amount:f}"}, "withdraw": withdraw})

    # -- waiting

    def settle(self) -> None:
        """Wait until the bot has digested what happened."""
        seen: list[tuple[float, frozenset[int]]] = []

        def quiet() -> bool:
            heartbeat, ids = self.bot.heartbeat, self._open_ids()
            if not heartbeat or heartbeat["at"] <= max(self.acted_at + 1, self.bot.started_at):
                return False
            known = (D(heartbeat["position"]["base"]) == self.position() and heartbeat["open_orders"] == len(ids)
                     and all(heartbeat["connectors"].values()))
            if not known or not seen or seen[-1][1] != ids:
                seen[:] = [(heartbeat["at"], ids)] if known else []
                return False
            return bool(heartbeat["at"] > seen[0][0])

        try:
            wait_for(f"{self.bot.name} is quiet", quiet)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{self.bot.heartbeat}\non the exchange: position {self.position()}, "
                f"{self.sandbox.orders(self.account)}\n{self.bot.log()[-4000:]}") from None

    def position(self) -> Decimal:
        """Base that the bot's own orders left in the account."""
        return self.sandbox.balances(self.account).get(BASE, ZERO) - D(self.bot.balances.get(BASE, "0"))

    def _open_ids(self) -> frozenset[int]:
        return frozenset(item["order_id"] for item in self.sandbox.orders(self.account))

    # -- what must hold

    def check(self) -> None:
        """What holds for every template, from the exchange's history since the account was made."""
        orders = self.sandbox.orders(self.account, "all")
        for order in orders:
            price, quantity = D(order["price"]), D(order["quantity"])
            assert quantity > 0 and quantity % LOT == 0, order
            if order["type"] != "MARKET":
                assert price > 0 and price % TICK == 0 and price * quantity >= MIN_NOTIONAL, order
        refused = {words: count for words, count in self.sandbox.refusals(self.account).items()
                   if words not in HARMLESS_REFUSALS}
        assert refused == {}, f"the exchange had to refuse {refused}"
        assert self.sandbox.bad_signatures(self.account) == 0
        open_orders = [(item["side"], item["price"]) for item in self.sandbox.orders(self.account)]
        assert len(open_orders) == len(set(open_orders)), f"doubled orders: {open_orders}"
        if self.max_position is not None:
            peak = self.highest_exposure()
            assert peak <= self.max_position, f"held and resting were {peak}, above {self.max_position}"

    def highest_exposure(self) -> Decimal:
        """The most that was ever held (at cost) plus what resting buys could still buy, in quote."""
        return max((total for _, total in exposures(
            self.sandbox.orders(self.account, "all"), self.sandbox.fills(self.account))), default=ZERO)

    def buys_since(self, moment: float) -> list[dict[str, Any]]:
        """Opening orders that reached the exchange after ``moment`` (epoch seconds)."""
        return [item for item in self.sandbox.orders(self.account, "all")
                if item["side"] == "BUY" and item["time"] > moment * 1000]


def exposures(orders: list[dict[str, Any]], fills: list[dict[str, Any]]) -> list[tuple[int, Decimal]]:
    """Time (ms) and exposure in quote after every event of an account's history, as the exchange tells it.

    Exposure: the cost of what is held plus, for every buy that rests, its price times what is left of it. A sale takes
    away the lots with exactly its quantity where there are such, otherwise the oldest ones.
    """
    events: list[tuple[int, int, Callable[[], None]]] = []
    by_id = {item["order_id"]: item for item in orders}
    resting: dict[int, Decimal] = {}
    lots: dict[int, tuple[Decimal, Decimal]] = {}
    taking: dict[int, int] = {}

    def open_buy(order: dict[str, Any]) -> None:
        resting[order["order_id"]] = D(order["quantity"])

    def close(order: dict[str, Any]) -> None:
        resting.pop(order["order_id"], None)

    def buy(fill: dict[str, Any]) -> None:
        number, quantity = fill["order_id"], D(fill["quantity"])
        if number in resting:
            resting[number] -= quantity
        held, cost = lots.get(number, (ZERO, ZERO))
        fee = D(fill["commission"])
        lots[number] = (held + quantity - (fee if fill["commission_asset"] == BASE else ZERO),
                        cost + D(fill["quote_quantity"]) + (fee if fill["commission_asset"] == QUOTE else ZERO))

    def sell(fill: dict[str, Any]) -> None:
        left, wanted = D(fill["quantity"]), D(by_id[fill["order_id"]]["quantity"])
        fitting = next((number for number, (held, _) in lots.items() if held // LOT * LOT == wanted), None)
        first = taking.setdefault(fill["order_id"], fitting) if fitting is not None else taking.get(fill["order_id"])
        for number in sorted(lots, key=lambda item: (item != first, item)):
            held, cost = lots[number]
            part = min(held, left)
            if part <= 0:
                continue
            left -= part
            lots[number] = (held - part, cost * (held - part) / held)
            if held - part < LOT:
                del lots[number]

    for order in orders:
        if order["side"] == "BUY" and order["type"] != "MARKET":
            events.append((order["time"], 1, lambda order=order: open_buy(order)))
            if order["status"] not in ("NEW", "PARTIALLY_FILLED"):
                events.append((order["update_time"], 3, lambda order=order: close(order)))
    for fill in fills:
        action = buy if fill["side"] == "BUY" else sell
        events.append((fill["time"], 2, lambda fill=fill, action=action: action(fill)))
    history = []
    # Within a millisecond the order is unknown: an order comes before its fills and its end.
    for moment, _, event in sorted(events, key=lambda item: item[:2]):
        event()
        total = sum((cost for _, cost in lots.values()), ZERO) + sum(
            (D(by_id[number]["price"]) * left for number, left in resting.items()), ZERO)
        history.append((moment, total))
    return history
