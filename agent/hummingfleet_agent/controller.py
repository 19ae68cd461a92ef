"""The base of every controller: turns a strategy's decisions into orders, within the bot's limits.

A strategy says what it wants (``decide``); one order per key is under way at a time, holdings and orders are the
ledger's, and what ends up on the exchange survives any death of the process. Controllers import this module, not its
classes: the engine takes the alphabetically first controller and configuration class that it finds in a module.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from hummingbot.core.data_type.common import MarketDict, OrderType, PriceType, TradeType
from hummingbot.core.utils.async_utils import safe_ensure_future
from hummingbot.strategy_v2.controllers.controller_base import ControllerBase, ControllerConfigBase
from hummingbot.strategy_v2.executors.order_executor.data_types import ExecutionStrategy, OrderExecutorConfig
from hummingbot.strategy_v2.models.base import RunnableStatus
from hummingbot.strategy_v2.models.executor_actions import CreateExecutorAction, ExecutorAction, StopExecutorAction
from pydantic import ConfigDict

from . import runtime as shared
from .exchange import rules_of
from .ledger import Halt
from .planning import Cell, Decision, MarketRules, RestingOrder, WantedOrder, text
from .risk import Exposure, RiskLimits, judge_order

CREATIONS_PER_SECOND = 6
BALANCE_LAG_SECONDS = 3.0
PENDING_SECONDS = 10.0
SHORTAGE_SECONDS = 5.0
BACKOFF_SECONDS = 60.0
# A refusal so long after the pause of the one before begins to count anew.
FORGIVEN_SECONDS = 300.0
# So many rounds in a row that a strategy could not finish leave its orders without anybody who looks after them.
FAILED_ROUNDS = 5
LIVE = {"is_updatable": True}
"""``json_schema_extra`` of a field whose change takes effect while the bot runs."""

_KINDS = {"maker": ExecutionStrategy.LIMIT_MAKER, "limit": ExecutionStrategy.LIMIT, "market": ExecutionStrategy.MARKET}


class FleetConfig(ControllerConfigBase):
    """What every ``controllers/<bot>.yml`` holds; a strategy adds its own fields."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    controller_type: str = "generic"
    connector_name: str
    trading_pair: str

    def update_markets(self, markets: MarketDict) -> MarketDict:
        """The one market of the bot."""
        return markets.add_or_update(self.connector_name, self.trading_pair)

    @classmethod
    def live_fields(cls) -> set[str]:
        """The fields whose change takes effect while the bot runs."""
        return {name for name, field in cls.model_fields.items()
                if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("is_updatable")}


@dataclass(frozen=True)
class MarketView:
    """What a decision is made from.

    Prices in quote per base, None where the book's side is empty; ``now`` in epoch seconds. ``busy``: keys whose order
    is just being made or has just ended; they must be left alone and counted as if their order rested. ``orders`` are
    this bot's own, by key; ``cells`` what each key holds. ``profit``: realised and unrealised result in quote.
    """

    bid: Decimal | None
    ask: Decimal | None
    mid: Decimal | None
    now: float
    rules: MarketRules
    busy: frozenset[str]
    orders: Mapping[str, RestingOrder]
    cells: Mapping[str, Cell]
    profit: Decimal | None
    limits: RiskLimits


class FleetController(ControllerBase):
    """A strategy's controller; subclasses implement the hooks."""

    def __init__(self, config: FleetConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.config = config
        self.runtime = shared.get()
        self.runtime.before_order = self.before_order
        self.runtime.on_order_end = self._order_ended
        self._pending: dict[str, tuple[WantedOrder, float]] = {}
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        self._validated: FleetConfig | None = None
        self._short_since: dict[str, float] = {}
        self._warned: dict[str, float] = {}
        self._failed_rounds = 0

    # -- hooks

    def prepare(self, rules: MarketRules) -> bool:
        """Make ready for these rules, before every decision. False (after ``refuse``): nothing can be traded."""
        return True

    def decide(self, view: MarketView) -> Decision:
        """Which orders to make and to cancel now."""
        raise NotImplementedError

    def validate(self, config: FleetConfig) -> None:
        """Raise ValueError where ``config`` cannot be used; asked at the start and before a live change."""

    def before_order(self, key: str, side: str) -> bool:
        """The last word on an order, just before it is written down; False: it is not made.

        What it changes in ``ledger.strategy`` reaches the disk in the same write as the order.
        """
        return True

    def order_ended(self, key: str, failure: str | None) -> None:
        """The order of ``key`` has ended: filled or cancelled (None), or refused (why)."""

    @property
    def capital(self) -> Decimal:
        """Quote that is given to the strategy; the base of its equity."""
        return self.config.total_amount_quote

    # -- offered to strategies

    @property
    def ledger(self):
        """The bot's ledger."""
        return self.runtime.ledger

    @property
    def connector(self):
        """The exchange connector."""
        return self.market_data_provider.connectors[self.config.connector_name]

    def rules(self) -> MarketRules | None:
        """The exchange's rules for the pair; None while they are not known."""
        known = self.config.trading_pair in self.connector.trading_rules
        return rules_of(self.connector, self.config.trading_pair) if known else None

    def wake(self) -> None:
        """Decide now instead of at the next second."""
        if self.status == RunnableStatus.RUNNING:
            safe_ensure_future(self.control_task())

    def refuse(self, code: str, message: str) -> None:
        """Say why nothing can be traded with this configuration; it lasts until ``prepare`` succeeds."""
        if self.runtime.notice is None or self.runtime.notice.message != message:
            self.runtime.notice = Halt(code, message, time.time())
            self.logger().error(f"{code} {message}")

    def finish(self, code: str, message: str) -> None:
        """The strategy is done by its own rules: sell everything and rest until someone resumes the bot."""
        self.runtime.halt(code, f"STRATEGY_DONE {code} {message}", close=True, level=logging.WARNING)

    # -- live changes

    def check(self, config: FleetConfig) -> None:
        """Raise ValueError where ``config`` cannot replace the present one while the bot runs."""
        live = config.live_fields()
        for name in type(config).model_fields:
            if name not in live and getattr(config, name) != getattr(self.config, name):
                raise ValueError(f"{name} cannot change while the bot runs; restart the bot")
        self.validate(config)

    def apply(self, config: FleetConfig) -> None:
        """Take over the live fields; the next round plans anew."""
        self.config = config

    # -- rounds

    async def control_task(self):
        """One round, every second, while the market is connected."""
        if self.market_data_provider.ready:
            actions = self._round()
            if actions:
                await self.actions_queue.put(actions)

    def _round(self) -> list[ExecutorAction]:
        """What to create and stop now, whatever happens inside the strategy.

        An error is told and the orders stay as they are; if the next rounds fail as well they are cancelled.
        """
        notice = self.runtime.notice
        try:
            actions = self.determine_executor_actions()
        except Exception as error:
            self._failed_rounds += 1
            told = f"the strategy cannot decide ({type(error).__name__}: {str(error)[:200]})"
            if self._failed_rounds == 1:
                self.logger().error(f"STRATEGY_ERROR {told}", exc_info=True)
            if self._failed_rounds < FAILED_ROUNDS:
                return []
            self.runtime.notice = notice
            self.refuse("STRATEGY_ERROR", f"{told}; its orders are cancelled")
            return self._stop_everything()
        self._failed_rounds = 0
        return actions

    def determine_executor_actions(self) -> list[ExecutorAction]:
        """What to create and stop now. Raises whatever the strategy raises."""
        bid, ask = self._price(PriceType.BestBid), self._price(PriceType.BestAsk)
        mid = None if bid is None or ask is None else (bid + ask) / 2
        if mid is None:
            self.runtime.waiting["NO_PRICE"] = "a side of the order book is empty: nothing is bought, no loss is judged"
        else:
            self.runtime.waiting.pop("NO_PRICE", None)
        self.runtime.capital = self.capital
        # The loss limits hold for what the bot has, also where the strategy cannot go on.
        self.runtime.check_risk(mid)
        rules = rules_of(self.connector, self.config.trading_pair)
        if not self.prepare(rules) or not self._is_valid():
            return self._stop_everything()
        self.runtime.notice = None
        if not self.runtime.may_trade:
            return self._stop_everything()
        decision = self.decide(MarketView(
            bid=bid, ask=ask, mid=mid, now=time.time(), rules=rules, busy=self._busy(),
            orders=self.ledger.resting_orders(), cells=self.ledger.grid_cells(),
            profit=None if mid is None else self.ledger.profit(mid), limits=self.runtime.settings.risk))
        if not self.runtime.may_trade:
            return self._stop_everything()
        return self._actions(decision, mid)

    def _is_valid(self) -> bool:
        """Whether the strategy takes its configuration. A live change was asked about; what it starts with was not."""
        if self._validated is not self.config:
            try:
                self.validate(self.config)
            except ValueError as error:
                self.refuse("CONFIG_REFUSED", str(error))
                return False
            self._validated = self.config
        return True

    def _busy(self) -> frozenset[str]:
        """Keys whose executor has not written its order down yet, or has not ended although its order is final."""
        now = time.monotonic()
        alive = {key_of(info.config.level_id) for info in self.executors_info
                 if info.status != RunnableStatus.TERMINATED}
        known = {info.id for info in self.executors_info}
        self._pending = {
            executor_id: (order, since) for executor_id, (order, since) in self._pending.items()
            if executor_id not in known and now - since < PENDING_SECONDS
        }
        begun = alive | {order.key for order, _ in self._pending.values()}
        return frozenset(begun - {entry.cell for entry in self.ledger.unsettled()})

    def _exposure(self) -> Exposure:
        """The ledger's exposure with the buys that are about to be written down."""
        exposure = self.ledger.exposure()
        written = {entry.cell for entry in self.ledger.unsettled()}
        for order, _ in self._pending.values():
            if order.side == "BUY" and order.key not in written:
                exposure = exposure.with_buy(order.amount * order.price)
        return exposure

    def _actions(self, decision: Decision, mid: Decimal | None) -> list[ExecutorAction]:
        actions: list[ExecutorAction] = [
            self._stop(info) for info in self.executors_info
            if info.status == RunnableStatus.RUNNING and key_of(info.config.level_id) in decision.cancel
        ]
        now = time.monotonic()
        funds = {"BUY": self._available("BUY"), "SELL": self._available("SELL")}
        short = {"BUY": 0, "SELL": 0}
        held_back = Counter(decision.held_back)
        exposure = self._exposure()
        created = 0
        for order in decision.create:
            if created >= CREATIONS_PER_SECOND:
                break
            if self.is_paused(order.key, order.side):
                continue
            value = order.amount * order.price
            if order.side == "BUY":
                # What a market order pays beyond the mid price is judged when it is sent.
                breach = judge_order(self.runtime.settings.risk, exposure, value=value, price=order.price, mid=mid)
                if breach is not None:
                    held_back[breach.limit] += 1
                    continue
            needed = value if order.side == "BUY" else order.amount
            if funds[order.side] < needed:
                short[order.side] += 1
                continue
            funds[order.side] -= needed
            if order.side == "BUY":
                exposure = exposure.with_buy(value)
            actions.append(self._create(order, now))
            created += 1
        self._report_held_back(held_back)
        self._report_shortage(short)
        return actions

    def _create(self, order: WantedOrder, now: float) -> CreateExecutorAction:
        kind = order.kind
        if kind == "maker" and OrderType.LIMIT_MAKER not in self.connector.supported_order_types():
            kind = "limit"
        config = OrderExecutorConfig(
            timestamp=self.market_data_provider.time(), connector_name=self.config.connector_name,
            trading_pair=self.config.trading_pair, side=TradeType.BUY if order.side == "BUY" else TradeType.SELL,
            amount=order.amount, price=order.price, level_id=f"{order.key}|{text(order.target)}",
            execution_strategy=_KINDS[kind],
        )
        self._pending[config.id] = (order, now)
        return CreateExecutorAction(controller_id=self.config.id, executor_config=config)

    def _stop(self, info) -> StopExecutorAction:
        return StopExecutorAction(controller_id=self.config.id, executor_id=info.id, keep_position=True)

    def _stop_everything(self) -> list[ExecutorAction]:
        # No order waits for room or funds any more.
        self._report_held_back({})
        self._report_shortage({"BUY": 0, "SELL": 0})
        return [self._stop(info) for info in self.executors_info if info.status == RunnableStatus.RUNNING]

    # -- market and funds

    def _price(self, kind: PriceType) -> Decimal | None:
        price = self.market_data_provider.get_price_by_type(self.config.connector_name, self.config.trading_pair, kind)
        return price if price is not None and price.is_finite() and price > 0 else None

    def _available(self, side: str) -> Decimal:
        base, quote = self.config.trading_pair.split("-")
        amount = Decimal(self.connector.get_available_balance(quote if side == "BUY" else base))
        # The balance follows an order with a delay: what was just ordered is no longer there.
        for entry in self.ledger.unsettled():
            if time.time() - entry.created >= BALANCE_LAG_SECONDS:
                continue
            if entry.side == side and entry.amount and entry.price:
                amount -= entry.amount * entry.price if side == "BUY" else entry.amount
        return amount

    def _report_held_back(self, counts: Mapping[str, int]) -> None:
        for limit in ("max_position", "max_order", "max_open_orders", "price_band_pct"):
            self._report(f"RISK_{limit.upper()}", "RISK_LIMIT", counts.get(limit, 0), "buy orders are held back by "
                         f"{limit} {getattr(self.runtime.settings.risk, limit)}")

    def _report_shortage(self, short: Mapping[str, int]) -> None:
        for side, count in short.items():
            code = f"INSUFFICIENT_FUNDS_{side}"
            if not count:
                self._short_since.pop(code, None)
            # Right after a fill the balance lags behind: that is no shortage.
            elif time.monotonic() - self._short_since.setdefault(code, time.monotonic()) < SHORTAGE_SECONDS:
                continue
            self._report(code, "INSUFFICIENT_FUNDS", count, f"{side.lower()} orders wait for funds")

    def _report(self, code: str, log_code: str, count: int, what: str) -> None:
        """Say in the heartbeat, and now and then in the log, what orders wait for; a count of 0 ends it."""
        if not count:
            self.runtime.waiting.pop(code, None)
            return
        message = f"{count} {what}"
        self.runtime.waiting[code] = message
        if time.monotonic() - self._warned.get(code, -1e9) > 600:
            self._warned[code] = time.monotonic()
            self.logger().warning(f"{log_code} {message}")

    def _order_ended(self, level_id: str, side: str, failure: str | None) -> None:
        key, now = key_of(level_id), time.monotonic()
        self.order_ended(key, failure)
        if failure is None:
            self._failures.pop((key, side), None)
            return
        count, until = self._failures.get((key, side), (0, now))
        count = count + 1 if now - until < FORGIVEN_SECONDS else 1
        pause = min(2.0 ** count, BACKOFF_SECONDS)
        self._failures[key, side] = (count, now + pause)
        if count in (1, 4) or count % 30 == 0:
            self.logger().warning(
                f"ORDER_REFUSED {key}, {side.lower()}, attempt {count}, next in {pause:.0f} s: {failure}")

    def is_paused(self, key: str, side: str) -> bool:
        """Whether the last orders of that key and side were refused, so that the next has to wait for some seconds."""
        return self._failures.get((key, side), (0, 0.0))[1] > time.monotonic()

    def end_pause(self, key: str, side: str) -> None:
        """Try again at once."""
        count, _ = self._failures.get((key, side), (0, 0.0))
        if count:
            self._failures[key, side] = (count, time.monotonic())

    def to_format_status(self) -> list[str]:
        """Lines for `hbot status`."""
        halt = self.ledger.halt or self.runtime.notice
        head = f"  halted: {halt.code} {halt.message}" if halt else f"  {self.runtime.phase}"
        return [head, *self.ledger.describe()]


def key_of(level_id: str | None) -> str:
    """The plan's key in an executor's ``level_id``."""
    return (level_id or "").split("|")[0]
