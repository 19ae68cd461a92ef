"""The ledger of a bot's own orders and of what they bought and sold, in one file.

Every order is written down (and has reached the disk) before it is sent, and what it executed is accounted as a total
per order, so that looking twice never counts twice. After any death, asking the exchange about the orders that are not
final yet restores the truth exactly. Cells, orders and totals share the file: they can never contradict each other.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .grid_plan import Level, cell_key
from .planning import Cell, RestingOrder, text
from .records import read_json, write_file
from .risk import Exposure, RiskState

ZERO = Decimal(0)
# Final orders are forgotten after this time; their sums live on in cells and totals.
MEMORY_SECONDS = 900.0
RISK_SAVE_SECONDS = 10.0
# The pseudo cell of base that belongs to no level (market making; fills that fit no level).
LOOSE = ""


@dataclass(frozen=True)
class Executed:
    """What an order has executed so far: base and quote gross, fees paid in each, number of trades."""

    base: Decimal = ZERO
    quote: Decimal = ZERO
    fee_base: Decimal = ZERO
    fee_quote: Decimal = ZERO
    trades: int = 0


@dataclass
class OrderEntry:
    """One own order.

    ``final``: it can execute no more and everything it executed is accounted. ``exchange_id``: the exchange's own
    number, once it has told that.
    """

    client_id: str
    side: str
    cell: str
    price: Decimal | None
    amount: Decimal | None
    target: Decimal | None
    created: float
    nonce_us: int
    executed: Executed = field(default_factory=Executed)
    final: bool = False
    exchange_id: str | None = None


@dataclass(frozen=True)
class Halt:
    """Why the bot may not trade until someone lifts it. ``resumes``: the counter's value when it happened.

    ``close``: the position is still to be sold.
    """

    code: str
    message: str
    at: float
    resumes: int = 0
    close: bool = False


@dataclass(frozen=True)
class Intent:
    """What the next order is for: set just before the engine is told to place it."""

    cell: str
    price: Decimal | None
    amount: Decimal
    target: Decimal


class Ledger:
    """The ledger in memory; ``save`` puts it on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, Cell] = {}
        self.orders: dict[str, OrderEntry] = {}
        self.base = ZERO
        self.quote = ZERO
        self.fills = 0
        self.watermark_us = 0
        self.step: Decimal | None = None
        self.market: str | None = None
        self.risk = RiskState()
        self.halt: Halt | None = None
        # What a strategy itself must remember, JSON-plain.
        self.strategy: dict[str, Any] = {}
        self.intent: Intent | None = None
        self.is_new = True
        self._dirty = False
        self._risk_saved, self._risk_saved_at = self.risk, 0.0

    # -- on disk

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """The ledger on disk, or an empty one where there is none. Raises ConfigurationError where it is damaged."""
        ledger = cls(path)
        try:
            data = read_json(path)
            if data is not None:
                ledger._restore(data)
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise ConfigurationError(
                f"the ledger {path.name} in the bot's data folder cannot be read ({type(error).__name__}); "
                f"restore it from a backup: without it the bot's position is not known"
            ) from None
        return ledger

    def _restore(self, data: dict[str, Any]) -> None:
        self.is_new = False
        self.base, self.quote = Decimal(data["base"]), Decimal(data["quote"])
        self.fills, self.watermark_us = int(data["fills"]), int(data["watermark_us"])
        self.step = None if data["step"] is None else Decimal(data["step"])
        self.market = data.get("market")
        for key, item in data["cells"].items():
            # Former versions did not write down what was ever bought and sold.
            self.cells[key] = Cell(*(Decimal(item[name]) for name in ("buy", "sell", "held", "cost")),
                                   *(Decimal(item.get(name, "0")) for name in ("bought", "sold")))
        for client_id, item in data["orders"].items():
            self.orders[client_id] = OrderEntry(
                client_id=client_id, side=item["side"], cell=item["cell"],
                price=_optional(item["price"]), amount=_optional(item["amount"]), target=_optional(item["target"]),
                created=float(item["created"]), nonce_us=int(item["nonce_us"]), final=bool(item["final"]),
                executed=Executed(Decimal(item["base"]), Decimal(item["quote"]), Decimal(item["fee_base"]),
                                  Decimal(item["fee_quote"]), int(item["trades"])),
                exchange_id=item.get("exchange_id"),
            )
        risk = data["risk"]
        self.risk = RiskState(risk["day"], Decimal(risk["day_start_pnl"]), Decimal(risk["peak_pnl"]))
        self._risk_saved = self.risk
        self.halt = None if data["halt"] is None else Halt(**data["halt"])
        self.strategy = dict(data.get("strategy") or {})

    def save(self) -> None:
        """Put the ledger on disk, durably."""
        data = {
            "version": 1,
            "base": str(self.base), "quote": str(self.quote), "fills": self.fills, "watermark_us": self.watermark_us,
            "step": None if self.step is None else str(self.step), "market": self.market,
            "cells": {
                key: {"buy": str(cell.buy_price), "sell": str(cell.sell_price),
                      "held": str(cell.held), "cost": str(cell.cost),
                      "bought": str(cell.bought), "sold": str(cell.sold)}
                for key, cell in self.cells.items()
            },
            "orders": {
                entry.client_id: {
                    "side": entry.side, "cell": entry.cell,
                    "price": _plain(entry.price), "amount": _plain(entry.amount),
                    "target": _plain(entry.target), "created": entry.created, "nonce_us": entry.nonce_us,
                    "final": entry.final, "base": str(entry.executed.base), "quote": str(entry.executed.quote),
                    "fee_base": str(entry.executed.fee_base), "fee_quote": str(entry.executed.fee_quote),
                    "trades": entry.executed.trades, "exchange_id": entry.exchange_id,
                }
                for entry in self.orders.values()
            },
            "risk": {"day": self.risk.day, "day_start_pnl": str(self.risk.day_start_pnl),
                     "peak_pnl": str(self.risk.peak_pnl)},
            "halt": None if self.halt is None else asdict(self.halt),
            "strategy": self.strategy,
        }
        write_file(self.path, json.dumps(data, separators=(",", ":")), durable=True)
        self.is_new = False
        self._dirty = False
        self._risk_saved = self.risk

    def save_if_changed(self) -> None:
        """Put the ledger on disk where it changed since the last time."""
        if self._dirty:
            self.save()

    def claim_market(self, market: str) -> None:
        """Say where the bot trades now. Raises ConfigurationError where the ledger still is about another market.

        What was bought of one asset must never be sold as another, and orders are only found where they were sent.
        """
        if self.market == market:
            return
        if self.market is not None:
            if self.base or self.unsettled():
                raise ConfigurationError(
                    f"the bot holds {text(self.base)} and has {len(self.unsettled())} orders not accounted for on "
                    f"{self.market}, and is now set to {market}; set it back and liquidate it first, or give the new "
                    "market to a bot with another id")
            self.watermark_us = self.newest_nonce_us()
            self.orders, self.cells, self.step = {}, {}, None
            self.quote, self.risk, self.strategy = ZERO, RiskState(), {}
        self.market = market
        self._dirty = True

    # -- orders

    def record_order(self, client_id: str, side: str, nonce_us: int) -> None:
        """Write an order down, durably, before it is sent. Takes the pending intent, if any."""
        intent, self.intent = self.intent, None
        self.orders[client_id] = OrderEntry(
            client_id=client_id, side=side, cell=intent.cell if intent else LOOSE,
            price=intent.price if intent else None, amount=intent.amount if intent else None,
            target=intent.target if intent else None, created=time.time(), nonce_us=nonce_us,
        )
        self.save()

    def adopt_order(self, client_id: str, side: str, price: Decimal, amount: Decimal, nonce_us: int) -> OrderEntry:
        """Take in an own order that the exchange knows and the ledger does not; price and side tell its cell."""
        entry = OrderEntry(client_id, side, self._cell_of(side, price), price, amount, None, time.time(), nonce_us)
        self.orders[client_id] = entry
        self._dirty = True
        return entry

    def account(self, client_id: str, executed: Executed, *, final: bool) -> None:
        """Set what an order has executed in total. Only the difference to what was known is booked."""
        entry = self.orders[client_id]
        before = entry.executed
        if not final:
            # Provisional numbers (the engine's tracking) only ever lag behind.
            executed = executed if executed.base > before.base else before
        if executed == before and final == entry.final:
            return
        self._book(
            entry, executed.base - before.base, executed.quote - before.quote,
            executed.fee_base - before.fee_base, executed.fee_quote - before.fee_quote,
        )
        self.fills += executed.trades - before.trades
        entry.executed = executed
        entry.final = final
        self._dirty = True

    def number_order(self, client_id: str, exchange_id: str) -> None:
        """Keep the exchange's number of an order: many exchanges tell its fills by that alone."""
        entry = self.orders.get(client_id)
        if entry is not None and entry.exchange_id != exchange_id:
            entry.exchange_id = exchange_id
            self._dirty = True

    def unsettled(self) -> list[OrderEntry]:
        """Orders that may still execute or have executed more than is accounted."""
        return [entry for entry in self.orders.values() if not entry.final]

    def forget_old_orders(self, now: float | None = None) -> None:
        """Drop final orders older than the memory and move the watermark: no order up to it is accounted again."""
        limit = (time.time() if now is None else now) - MEMORY_SECONDS
        oldest_open = min((entry.nonce_us for entry in self.unsettled()), default=None)
        for entry in sorted(self.orders.values(), key=lambda item: item.nonce_us):
            if not entry.final or entry.created > limit:
                break
            if oldest_open is not None and entry.nonce_us >= oldest_open:
                break
            del self.orders[entry.client_id]
            self.watermark_us = max(self.watermark_us, entry.nonce_us)
            self._dirty = True

    def close_books(self) -> None:
        """After a proven stop: everything is final and booked, so the orders themselves can be forgotten."""
        if self.unsettled():
            return
        self.watermark_us = max(self.newest_nonce_us(), int(time.time() * 1e6))
        self.orders.clear()
        self.save()

    def newest_nonce_us(self) -> int:
        """The highest nonce ever used, as far as is known."""
        return max([self.watermark_us, *(entry.nonce_us for entry in self.orders.values())])

    # -- cells

    def set_plan(self, levels: Iterable[Level], step: Decimal) -> None:
        """Make the levels known as cells; forget empty cells of former plans."""
        self.step = step
        self.set_cells({level.key: Cell(level.buy_price, level.sell_price) for level in levels})
        self._dirty = True

    def set_cells(self, wanted: Mapping[str, Cell]) -> None:
        """Make these cells known, with their prices; forget others that hold nothing and have no order under way."""
        busy = {entry.cell for entry in self.unsettled()}
        for key in [key for key, cell in self.cells.items() if key not in wanted and key not in busy and not cell.held]:
            del self.cells[key]
            self._dirty = True
        for key, cell in wanted.items():
            known = self.cells.get(key)
            if known is None or (known.buy_price, known.sell_price) != (cell.buy_price, cell.sell_price):
                self.cells[key] = replace(known or cell, buy_price=cell.buy_price, sell_price=cell.sell_price)
                self._dirty = True

    def gather(self, target: str) -> None:
        """Give what all other cells hold to ``target``: sold from there it has one average price.

        Orders may be under way: what they buy is booked in their own cells, and gathered the next time.
        """
        for key, cell in list(self.cells.items()):
            if key == target or not (cell.held or cell.cost):
                continue
            kept = self.cells.get(target) or Cell(ZERO, ZERO)
            self.cells[target] = replace(kept, held=kept.held + cell.held, cost=kept.cost + cell.cost)
            self.cells[key] = replace(cell, held=ZERO, cost=ZERO)
            self._dirty = True

    def merge_cells(self, moves: dict[str, str]) -> None:
        """Give what cells hold to other cells (from -> to); cells with an order under way are left alone."""
        busy = {entry.cell for entry in self.unsettled()}
        for source, target in moves.items():
            if source in busy or target in busy:
                continue
            gone, kept = self.cells.pop(source), self.cells[target]
            self.cells[target] = replace(kept, held=kept.held + gone.held, cost=kept.cost + gone.cost)
            self._dirty = True

    def grid_cells(self) -> dict[str, Cell]:
        """All cells but the loose one."""
        return {key: cell for key, cell in self.cells.items() if key != LOOSE}

    def exposure(self, *, without: str = "") -> Exposure:
        """Position and open buys as the order limits count them; ``without``: the client id of an order not meant."""
        buys = [entry for entry in self.unsettled() if entry.side == "BUY" and entry.client_id != without]
        resting = sum(((entry.amount - entry.executed.base) * entry.price for entry in buys
                       if entry.amount and entry.price), ZERO)
        return Exposure(self.cost, resting, len(buys))

    def sellable_base(self, *, without: str = "") -> Decimal:
        """Base that the bot holds beyond what its open sales may still sell."""
        return self.base - sum((entry.amount - entry.executed.base for entry in self.unsettled()
                                if entry.side == "SELL" and entry.amount and entry.client_id != without), ZERO)

    def resting_orders(self) -> dict[str, RestingOrder]:
        """Per cell the order that is not final yet; an amount of 0 stands for an order nobody planned."""
        return {
            entry.cell: RestingOrder(entry.side, entry.price or ZERO, entry.amount or ZERO, entry.executed.base,
                                     entry.target or ZERO)
            for entry in self.unsettled() if entry.cell != LOOSE
        }

    @property
    def cost(self) -> Decimal:
        """Quote paid for what is held."""
        return sum((max(cell.cost, ZERO) for cell in self.cells.values()), ZERO)

    def profit(self, price: Decimal | None) -> Decimal:
        """Realised and unrealised profit in quote with the position valued at ``price`` (None: at cost)."""
        value = self.cost if price is None else self.base * price
        return self.quote + value

    def clear_position(self) -> Decimal:
        """Write off what is left and return how much base that was."""
        dust = self.base
        self.base = ZERO
        self.cells = {key: replace(cell, held=ZERO, cost=ZERO, sold=cell.sold + cell.held)
                      for key, cell in self.cells.items() if key != LOOSE}
        self._dirty = True
        return dust

    def set_halt(self, halt: Halt | None) -> None:
        """Remember (or lift) a halt, durably. Raises OSError where that fails; ``save_if_changed`` tries again."""
        self.halt = halt
        self._dirty = True
        self.save()

    def set_strategy(self, memory: dict[str, Any]) -> None:
        """Set what the strategy itself must remember; on disk with the next order, within a second otherwise."""
        if memory != self.strategy:
            self.strategy = memory
            self._dirty = True

    def set_risk(self, state: RiskState) -> None:
        """Remember the risk state; on disk within seconds, at once when the day changes."""
        now, saved = time.monotonic(), self._risk_saved
        if state != saved and (state.day != saved.day or now - self._risk_saved_at > RISK_SAVE_SECONDS):
            self._risk_saved_at = now
            self._dirty = True
        self.risk = state

    def _cell_of(self, side: str, price: Decimal) -> str:
        cells = self.grid_cells()
        if side == "SELL":
            matching = [key for key, cell in cells.items() if cell.sell_price == price]
            return max(matching, key=lambda key: cells[key].held, default=LOOSE)
        matching = [key for key, cell in cells.items() if cell.buy_price == price]
        if matching:
            return min(matching, key=lambda key: cells[key].held)
        if self.step is None:
            return LOOSE
        key = cell_key(price, price + self.step)
        self.cells[key] = Cell(price, price + self.step)
        return key

    def _book(self, entry: OrderEntry, base: Decimal, quote: Decimal, fee_base: Decimal, fee_quote: Decimal) -> None:
        if entry.side == "BUY":
            net = base - fee_base
            self.base += net
            self.quote -= quote + fee_quote
            cell = self.cells.get(entry.cell) or Cell(ZERO, ZERO)
            self.cells[entry.cell] = replace(cell, held=cell.held + net, cost=cell.cost + quote + fee_quote,
                                             bought=cell.bought + base)
            return
        net = base + fee_base
        self.base -= net
        self.quote += quote - fee_quote
        if entry.cell in self.cells and entry.cell != LOOSE:
            self._take(entry.cell, net)
            return
        # A sale that belongs to no level (market making, liquidation) empties the loose cell first, then the others.
        for key in sorted(self.cells, key=lambda item: (item != LOOSE, self.cells[item].sell_price)):
            part = min(net, max(self.cells[key].held, ZERO))
            if part > 0:
                self._take(key, part)
                net -= part
        if net:
            cell = self.cells.get(LOOSE) or Cell(ZERO, ZERO)
            self.cells[LOOSE] = replace(cell, held=cell.held - net)

    def _take(self, key: str, base: Decimal) -> None:
        cell = self.cells[key]
        held = cell.held - base
        cost = cell.cost * held / cell.held if cell.held > 0 and held > 0 else ZERO
        self.cells[key] = replace(cell, held=held, cost=cost, sold=cell.sold + base)

    def describe(self) -> list[str]:
        """Lines for a person: what each cell holds and does."""
        orders = self.resting_orders()
        lines = []
        for key, cell in sorted(self.grid_cells().items(), key=lambda item: item[1].buy_price, reverse=True):
            order = orders.get(key)
            doing = f"{order.side.lower()} {text(order.amount)} at {text(order.price)}" if order else "waiting"
            prices = f"{text(cell.buy_price):>14} -> {text(cell.sell_price):<14}"
            lines.append(f"  {prices} holds {text(cell.held):<14} {doing}")
        return lines


def _optional(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else str(value)
