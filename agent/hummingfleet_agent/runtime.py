"""What launcher, script, controller and executor of one process share: the bot's state while the engine runs.

Imports nothing of the engine: the connector is whatever the launcher hands over.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from . import AGENT_VERSION
from .errors import OrderRefusedError
from .exchange import Exchange, executed_of, mid_price, taker_price
from .ledger import Halt, Ledger, OrderEntry
from .order_ids import OrderIdFactory
from .planning import text
from .records import write_file
from .risk import ZERO, Breach, RiskState, find_breach, judge_order
from .settings import BotSettings, Home
from .settlement import conclude

LOGGER = logging.getLogger("hummingfleet.runtime")

# The engine drops an order that it gave up on from its tracking at once; younger orders may not be tracked yet.
TRACKING_GRACE_SECONDS = 2.0
SWEEP_SECONDS = 15.0
SWEEP_GRACE_SECONDS = 10.0
# A market order that waited longer than this for the exchange's rate limit was decided in another market.
MARKET_ORDER_SECONDS = 5.0


@dataclass
class Runtime:
    """The bot's state in this process."""

    home: Home
    settings: BotSettings
    ledger: Ledger
    ids: OrderIdFactory
    engine_version: str = ""
    phase: str = "starting"
    strategy_running: bool = False
    connector: Any = None
    exchange: Exchange | None = None
    config_digest: str = ""
    # The live file that was not taken over, while it is there: digest and reason.
    config_rejected: dict[str, str] | None = None
    capital: Decimal = Decimal(0)
    # Orders may be made only while this is set.
    accepting: bool = False
    # Why it does not trade although nothing forbids it.
    notice: Halt | None = None
    waiting: dict[str, str] = field(default_factory=dict)
    before_order: Callable[[str, str], bool] = lambda key, side: True
    on_order_end: Callable[[str, str, str | None], None] | None = None
    # Client ids of the orders that close the position of a halted bot.
    closing: set[str] = field(default_factory=set)
    risk_facts: dict[str, str] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    _swept_at: float = 0.0
    _trouble_until: float = 0.0
    _trouble_pause: float = 1.0

    # -- heartbeat

    def heartbeat(self) -> None:
        """Write the heartbeat file."""
        halt = self.ledger.halt or self.notice
        connectors = {} if self.connector is None else {self.settings.connector: bool(self.connector.ready)}
        record = {
            "at": time.time(),
            "pid": os.getpid(),
            "phase": self.phase,
            "strategy_running": self.strategy_running,
            "connectors": connectors,
            "halted": None if halt is None else {"code": halt.code, "message": halt.message, "at": halt.at},
            "position": {"base": text(self.ledger.base), "cost_quote": text(self.ledger.cost)},
            "open_orders": len(self.ledger.unsettled()),
            "fills": self.ledger.fills,
            "waiting": self.waiting,
            "risk": self.risk_facts or None,
            "engine_version": self.engine_version,
            "agent_version": AGENT_VERSION,
            "config_digest": self.config_digest,
            "config_rejected": self.config_rejected,
        }
        write_file(self.home.heartbeat_path, json.dumps(record) + "\n")

    # -- halting

    @property
    def may_trade(self) -> bool:
        """Whether a new order may be made now."""
        return self.accepting and self.ledger.halt is None

    def halt(self, code: str, message: str, *, close: bool | None = None, level: int = logging.CRITICAL) -> None:
        """Stop trading until someone lifts the halt by raising ``resumes``; survives restarts.

        ``close``: sell the position (None: where the limits say so).
        """
        if self.ledger.halt is not None:
            return
        close = self.settings.risk.close_position_on_halt if close is None else close
        try:
            self.ledger.set_halt(Halt(code, message, time.time(), self.settings.resumes, close))
        except OSError as error:
            # It holds all the same; the books are written again every second.
            LOGGER.error("LEDGER_WRITE cannot write the halt down (%s)", error.strerror)
        self.phase = "halted"
        LOGGER.log(level, "%s", message)

    def lift_halt_if_resumed(self) -> None:
        """Forget a halt that someone lifted since (``resumes`` in bot.json was raised), unless that came too early."""
        halt = self.ledger.halt
        if halt is None or self.settings.resumes <= halt.resumes:
            return
        wait = halt.at + self.settings.risk.earliest_resume_s - time.time()
        if halt.code.startswith("RISK_") and wait > 0:
            LOGGER.warning("RESUME_REFUSED the halt of %s may be lifted in %.0f s at the earliest", halt.code, wait)
            # This request is used up: it must not lift the halt at some later restart.
            self.ledger.set_halt(replace(halt, resumes=self.settings.resumes))
            return
        LOGGER.info("RISK_RESUMED the halt of %s was lifted", halt.code)
        # Whoever resumes has accepted the loss so far: day and drawdown are measured from here.
        self.ledger.risk = RiskState()
        self.ledger.set_halt(None)

    # -- risk

    def check_risk(self, price: Decimal | None) -> Breach | None:
        """Judge the loss limits with the position valued at ``price``; halts on a breach."""
        if price is None:
            return None
        ledger = self.ledger
        profit, now = ledger.profit(price), time.time()
        if ledger.halt is None:
            ledger.set_risk(ledger.risk.observe(profit, now))
        self.risk_facts = {
            "day": ledger.risk.day, "day_pnl": text(profit - ledger.risk.day_start_pnl), "pnl": text(profit),
            "equity": text(self.capital + profit), "position": text(ledger.base * price),
            "quote": self.settings.quote_asset, "market": ledger.market,
        }
        if ledger.halt is not None:
            return None
        breach = find_breach(self.settings.risk, ledger.risk, profit, self.capital)
        if breach is not None:
            self.halt(f"RISK_{breach.limit.upper()}", f"RISK_HALT {breach.facts}")
        return breach

    def admit(self, connector: Any, *, client_id: str, side: str, amount: Decimal, price: Decimal, is_market: bool,
              waited: bool = False) -> None:
        """The last look at an order, at the moment it is sent. Raises OrderRefusedError where it may not leave.

        ``waited``: it has passed before, and then waited for the exchange's rate limit. What is beyond a limit now was
        not when its strategy sent it: it is stopped, and never a reason to halt.
        """
        if client_id in self.closing:
            return
        entry = self.ledger.orders.get(client_id)
        if entry is None:
            problem: str | None = "NOT_WRITTEN_DOWN the engine named it in a way of its own; it could not be followed"
            if not waited:
                self.halt("ORDER_NOT_WRITTEN_DOWN", f"ORDER_NOT_WRITTEN_DOWN the engine's connector "
                          f"{self.settings.connector} names its orders in a way of its own: nothing is traded there")
        else:
            problem = self._objection(connector, client_id, side, amount, price, is_market, waited)
        if problem is None and waited and is_market and side == "BUY" and entry is not None \
                and time.time() - entry.created > MARKET_ORDER_SECONDS:
            problem = f"TOO_LATE it waited more than {MARKET_ORDER_SECONDS:.0f} s for the exchange's rate limit"
        if problem is None and waited and entry is not None and entry.final:
            # Cancelled meanwhile: the exchange did not know it, and the books are closed.
            problem = "GIVEN_UP it was cancelled while it waited for the exchange's rate limit"
        if problem is None:
            if entry is not None and entry.amount is None:
                # No plan has announced it: from here on it counts like any other.
                entry.amount = amount
                entry.price = mid_price(connector, self.settings.trading_pair) if is_market else price
            return
        if entry is not None:
            # It never left: nothing of it can be executed.
            self.ledger.account(client_id, entry.executed, final=True)
        LOGGER.warning("ORDER_STOPPED %s %s %s: %s", side.lower(), text(amount), self.settings.trading_pair, problem)
        raise OrderRefusedError(problem)

    def _objection(self, connector: Any, client_id: str, side: str, amount: Decimal, price: Decimal, is_market: bool,
                   waited: bool) -> str | None:
        if not self.accepting:
            return "NOT_TRADING the bot is stopping or has not begun"
        if self.settings.kind == "v2":
            pair = self.settings.trading_pair
            mid = mid_price(connector, pair)
            self.check_risk(mid)
            if self.ledger.halt is None and side == "BUY":
                limits, exposure = self.settings.risk, self.ledger.exposure(without=client_id)
                worst: Decimal | None = price
                if is_market:
                    worst = taker_price(connector, pair, amount)
                    price = mid or ZERO
                breach = judge_order(limits, exposure, value=amount * price, price=worst, mid=mid)
                if breach is not None and breach.is_gross and not waited:
                    self.halt(f"RISK_{breach.limit.upper()}", f"RISK_HALT {breach.facts}")
                if breach is not None:
                    return f"RISK_LIMIT {breach.facts}"
                if mid is None:
                    return "NO_PRICE the market's price is not known"
                if worst is None:
                    return "NO_PRICE the order book offers less than this order"
                # A market order costs what the book asks: the usual spread is no breach, a thin book is one.
                costly = judge_order(limits, exposure, value=amount * worst, price=worst, mid=mid)
                if costly is not None and costly.is_gross:
                    return f"RISK_LIMIT {costly.facts}"
            if side == "SELL" and amount > self.ledger.sellable_base(without=client_id):
                return "NOT_HELD the bot holds less than this sale"
        if self.ledger.halt is not None:
            return f"HALTED {self.ledger.halt.code}"
        return None

    # -- bookkeeping

    async def keep_books(self) -> None:
        """Follow own orders: book what executed, and ask the exchange about every order that ended."""
        if self.connector is None or self.exchange is None:
            return
        now = time.time()
        tracked = self.connector.in_flight_orders
        ended = []
        for entry in self.ledger.unsettled():
            order = tracked.get(entry.client_id)
            if order is not None:
                executed = executed_of(order.order_fills.values(), self.settings.base_asset, self.settings.quote_asset)
                self.ledger.account(entry.client_id, executed, final=False)
                if order.exchange_order_id not in (None, "", "UNKNOWN"):
                    self.ledger.number_order(entry.client_id, str(order.exchange_order_id))
            elif now - entry.created > TRACKING_GRACE_SECONDS:
                ended.append(entry)
        if time.monotonic() >= self._trouble_until:
            try:
                await asyncio.gather(*(conclude(self.exchange, self.ledger, entry) for entry in ended[:10]))
                if now - self._swept_at > SWEEP_SECONDS and self.exchange.verified == "exchange":
                    self._swept_at = now
                    await self._sweep()
                self._trouble_pause = 1.0
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever the connector raises; the orders stay unsettled and are asked again
                self._trouble_pause = min(self._trouble_pause * 2, 60.0)
                self._trouble_until = time.monotonic() + self._trouble_pause
                LOGGER.warning("EXCHANGE_QUERY own orders cannot be checked now (%s: %s); again in %.0f s",
                               type(error).__name__, str(error)[:200], self._trouble_pause)
        self.ledger.forget_old_orders()
        try:
            self.ledger.save_if_changed()
        except OSError as error:
            # No order can be sent meanwhile: each must be written down first.
            LOGGER.error("LEDGER_WRITE cannot write the ledger (%s); no order is made until it can", error.strerror)

    async def _sweep(self) -> None:
        """Compare the exchange's open orders with the engine's tracking, both ways."""
        assert self.exchange is not None
        listed = {order.client_id: order for order in await self.exchange.open_orders(self.ledger.unsettled())}
        now = time.time()
        for client_id, order in listed.items():
            parsed = self.ids.parse(client_id)
            known = self.ledger.orders.get(client_id)
            age = now - (parsed.nonce_us / 1e6 if parsed else known.created if known else now)
            if (parsed or known) and client_id not in self.connector.in_flight_orders and age > SWEEP_GRACE_SECONDS:
                LOGGER.warning("ORDER_STRAY own order %s is open but not followed by the engine; cancelling", client_id)
                if known is None:
                    self.ledger.adopt_order(client_id, order.side, order.price, order.amount,
                                            parsed.nonce_us if parsed else 0)
                else:
                    known.final = False
                await self.exchange.cancel(client_id)
        # Orders that the engine believes open and the exchange does not list, twice in a row: an event was lost.
        missing = {
            entry.client_id for entry in self.ledger.unsettled()
            if entry.client_id not in listed and now - entry.created > SWEEP_GRACE_SECONDS
            and entry.client_id in self.connector.in_flight_orders
        }
        for client_id in missing & self._missing:
            await self._refresh(self.connector.in_flight_orders.get(client_id))
        self._missing = missing

    async def _refresh(self, order: Any) -> None:
        """Have the engine ask for an order's fills and state now instead of at its next poll."""
        if order is None:
            return
        try:
            if order.exchange_order_id not in (None, "UNKNOWN"):
                for update in await self.connector._all_trade_updates_for_order(order):
                    self.connector._order_tracker.process_trade_update(update)
            self.connector._order_tracker.process_order_update(await self.connector._request_order_status(order))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self.connector._handle_update_error_for_active_order(order, error)

    # -- orders

    def record_order(self, client_id: str, side: str) -> None:
        """Write an order down before it is sent."""
        parsed = self.ids.parse(client_id)
        self.ledger.record_order(client_id, side, parsed.nonce_us if parsed else int(time.time() * 1e6))

    def unsettled_of(self, cell: str) -> list[OrderEntry]:
        """Orders of a cell that are not final."""
        return [entry for entry in self.ledger.unsettled() if entry.cell == cell]



# The one runtime of this process; script, controller and executor find it here.
current: Runtime | None = None


def get() -> Runtime:
    """The runtime of this process. Raises RuntimeError outside the launcher."""
    if current is None:
        raise RuntimeError("the Hummingfleet script only runs under its launcher")
    return current
