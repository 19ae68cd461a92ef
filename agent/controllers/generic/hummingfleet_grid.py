"""A grid over the engine's order executor: one order per level, holdings kept over restarts, every field live.

The stock grid_strike has no grid count, copies its configuration once and cannot keep its position on a stop.
"""

import time
from decimal import Decimal

from hummingbot.core.data_type.common import MarketDict, OrderType, PriceType, TradeType
from hummingbot.strategy_v2.controllers.controller_base import ControllerBase, ControllerConfigBase
from hummingbot.strategy_v2.executors.order_executor.data_types import ExecutionStrategy, OrderExecutorConfig
from hummingbot.strategy_v2.models.base import RunnableStatus
from hummingbot.strategy_v2.models.executor_actions import CreateExecutorAction, ExecutorAction, StopExecutorAction
from hummingfleet_agent import runtime as shared
from hummingfleet_agent.exchange import rules_of
from hummingfleet_agent.grid_plan import (
    Decision,
    GridError,
    GridSettings,
    Level,
    WantedOrder,
    decide,
    find_stranded,
    plan_levels,
    text,
)
from hummingfleet_agent.ledger import Halt
from pydantic import ConfigDict, Field

LIVE_FIELDS = ("lower_bound", "upper_bound", "grid_count", "order_amount", "total_amount_quote")
CREATIONS_PER_SECOND = 6
BALANCE_LAG_SECONDS = 3.0
PENDING_SECONDS = 10.0
SHORTAGE_SECONDS = 5.0
BACKOFF_SECONDS = 60.0


class HummingfleetGridConfig(ControllerConfigBase):
    """controllers/<bot>.yml. Bounds in quote per base; order_amount in quote per level."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    controller_type: str = "generic"
    controller_name: str = "hummingfleet_grid"
    connector_name: str
    trading_pair: str
    lower_bound: Decimal = Field(..., json_schema_extra={"is_updatable": True})
    upper_bound: Decimal = Field(..., json_schema_extra={"is_updatable": True})
    grid_count: int = Field(..., json_schema_extra={"is_updatable": True})
    order_amount: Decimal = Field(..., json_schema_extra={"is_updatable": True})

    def update_markets(self, markets: MarketDict) -> MarketDict:
        """The one market of the grid."""
        return markets.add_or_update(self.connector_name, self.trading_pair)

    @property
    def grid(self) -> GridSettings:
        """The four fields that make the grid."""
        return GridSettings(self.lower_bound, self.upper_bound, self.grid_count, self.order_amount)


class HummingfleetGrid(ControllerBase):
    """Turns the grid's decisions into executor actions."""

    def __init__(self, config: HummingfleetGridConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.config: HummingfleetGridConfig = config
        self.runtime = shared.get()
        self.runtime.on_order_end = self._order_ended
        self.levels: tuple[Level, ...] = ()
        self._planned: GridSettings | None = None
        self._pending: dict[str, tuple[str, float]] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        self._short_since: dict[str, float] = {}
        self._warned: dict[str, float] = {}

    @property
    def connector(self):
        """The exchange connector."""
        return self.market_data_provider.connectors[self.config.connector_name]

    # -- live changes

    def check(self, config: HummingfleetGridConfig) -> None:
        """Raise ValueError where ``config`` cannot replace the present one while the bot runs."""
        for name in type(config).model_fields:
            if name not in LIVE_FIELDS and getattr(config, name) != getattr(self.config, name):
                raise ValueError(f"{name} cannot change while the bot runs; restart the bot")
        if self.config.trading_pair in self.connector.trading_rules:
            plan_levels(config.grid, rules_of(self.connector, self.config.trading_pair))

    def apply(self, config: HummingfleetGridConfig) -> None:
        """Take over the live fields; the next round re-plans."""
        self.config = config

    # -- rounds

    async def control_task(self):
        """One round, every second, while the market is connected."""
        if self.market_data_provider.ready:
            actions = self.determine_executor_actions()
            if actions:
                await self.actions_queue.put(actions)

    def determine_executor_actions(self) -> list[ExecutorAction]:
        """What to create and stop now."""
        ledger = self.runtime.ledger
        rules = rules_of(self.connector, self.config.trading_pair)
        if not self._plan(rules):
            return self._stop_everything()
        bid, ask = self._price(PriceType.BestBid), self._price(PriceType.BestAsk)
        self.runtime.check_risk(self._mid(bid, ask))
        if not self.runtime.may_trade:
            return self._stop_everything()
        ledger.merge_cells(find_stranded(self.levels, ledger.grid_cells(), rules))
        busy = self._busy()
        decision = decide(
            levels=self.levels, capital=self.config.grid.capital,
            max_position=self.runtime.settings.risk.max_position_usd, cells=ledger.grid_cells(),
            orders=ledger.resting_orders(), rules=rules, best_bid=bid, best_ask=ask, busy=busy,
        )
        return self._actions(decision)

    def _plan(self, rules) -> bool:
        grid = self.config.grid
        if grid == self._planned:
            return bool(self.levels)
        self._planned = grid
        try:
            self.levels = plan_levels(grid, rules)
        except GridError as error:
            self.levels = ()
            self.runtime.notice = Halt("GRID_REFUSED", str(error), time.time())
            self.logger().error(f"GRID_REFUSED {error}")
            return False
        self.runtime.notice = None
        self.runtime.capital = grid.capital
        self.runtime.ledger.set_plan(self.levels, (grid.upper_bound - grid.lower_bound) / grid.grid_count)
        self.runtime.ledger.save_if_changed()
        self.logger().info(
            f"GRID_PLANNED {len(self.levels)} levels from {text(self.levels[0].buy_price)} "
            f"to {text(self.levels[-1].sell_price)}, {text(grid.order_amount)} each")
        return True

    def _busy(self) -> set[str]:
        """Cells whose executor has not written its order down yet, or has not ended although its order is final."""
        now = time.monotonic()
        alive = {info.id: _cell(info.config.level_id) for info in self.executors_info
                 if info.status != RunnableStatus.TERMINATED}
        self._pending = {
            executor_id: (cell, since) for executor_id, (cell, since) in self._pending.items()
            if executor_id not in alive and now - since < PENDING_SECONDS
            and not any(info.id == executor_id for info in self.executors_info)
        }
        return set(alive.values()) | {cell for cell, _ in self._pending.values()}

    def _actions(self, decision: Decision) -> list[ExecutorAction]:
        actions: list[ExecutorAction] = [
            self._stop(info) for info in self.executors_info
            if info.status == RunnableStatus.RUNNING and _cell(info.config.level_id) in decision.cancel
        ]
        now = time.monotonic()
        funds = {"BUY": self._available("BUY"), "SELL": self._available("SELL")}
        short = {"BUY": 0, "SELL": 0}
        created = 0
        for order in decision.create:
            if created >= CREATIONS_PER_SECOND:
                break
            if self._failures.get(order.key, (0, 0.0))[1] > now:
                continue
            needed = order.amount * order.price if order.side == "BUY" else order.amount
            if funds[order.side] < needed:
                short[order.side] += 1
                continue
            funds[order.side] -= needed
            actions.append(self._create(order, now))
            created += 1
        self._report_shortage(short)
        return actions

    def _create(self, order: WantedOrder, now: float) -> CreateExecutorAction:
        buys = order.side == "BUY"
        # A buy must rest. A sell may meet a market that has already risen beyond its price: it then sells for more.
        maker = buys and OrderType.LIMIT_MAKER in self.connector.supported_order_types()
        config = OrderExecutorConfig(
            timestamp=self.market_data_provider.time(), connector_name=self.config.connector_name,
            trading_pair=self.config.trading_pair, side=TradeType.BUY if buys else TradeType.SELL,
            amount=order.amount, price=order.price, level_id=f"{order.key}|{text(order.target)}",
            execution_strategy=ExecutionStrategy.LIMIT_MAKER if maker else ExecutionStrategy.LIMIT,
        )
        self._pending[config.id] = (order.key, now)
        return CreateExecutorAction(controller_id=self.config.id, executor_config=config)

    def _stop(self, info) -> StopExecutorAction:
        return StopExecutorAction(controller_id=self.config.id, executor_id=info.id, keep_position=True)

    def _stop_everything(self) -> list[ExecutorAction]:
        return [self._stop(info) for info in self.executors_info if info.status == RunnableStatus.RUNNING]

    # -- market and funds

    def _price(self, kind: PriceType) -> Decimal | None:
        price = self.market_data_provider.get_price_by_type(self.config.connector_name, self.config.trading_pair, kind)
        return price if price is not None and price.is_finite() and price > 0 else None

    @staticmethod
    def _mid(bid: Decimal | None, ask: Decimal | None) -> Decimal | None:
        return (bid + ask) / 2 if bid is not None and ask is not None else bid or ask

    def _available(self, side: str) -> Decimal:
        base, quote = self.config.trading_pair.split("-")
        amount = Decimal(self.connector.get_available_balance(quote if side == "BUY" else base))
        # The balance follows an order with a delay: what was just ordered is no longer there.
        for entry in self.runtime.ledger.unsettled():
            if time.time() - entry.created >= BALANCE_LAG_SECONDS:
                continue
            if entry.side == side and entry.amount and entry.price:
                amount -= entry.amount * entry.price if side == "BUY" else entry.amount
        return amount

    def _report_shortage(self, short: dict[str, int]) -> None:
        for side, count in short.items():
            code = f"INSUFFICIENT_FUNDS_{side}"
            now = time.monotonic()
            if not count:
                self.runtime.waiting.pop(code, None)
                self._short_since.pop(code, None)
                continue
            # Right after a fill the balance lags behind: that is no shortage.
            if now - self._short_since.setdefault(code, now) < SHORTAGE_SECONDS:
                continue
            message = f"{count} {side.lower()} orders wait for funds"
            self.runtime.waiting[code] = message
            if now - self._warned.get(code, -1e9) > 600:
                self._warned[code] = now
                self.logger().warning(f"INSUFFICIENT_FUNDS {message}")

    def _order_ended(self, level_id: str, failure: str | None) -> None:
        cell = _cell(level_id)
        if failure is None:
            self._failures.pop(cell, None)
            return
        count = self._failures.get(cell, (0, 0.0))[0] + 1
        pause = min(2.0 ** count, BACKOFF_SECONDS)
        self._failures[cell] = (count, time.monotonic() + pause)
        if count in (1, 4) or count % 30 == 0:
            self.logger().warning(f"ORDER_REFUSED level {cell}, attempt {count}, next in {pause:.0f} s: {failure}")

    def to_format_status(self) -> list[str]:
        """Lines for `hbot status`."""
        halt = self.runtime.ledger.halt or self.runtime.notice
        head = f"  halted: {halt.code} {halt.message}" if halt else f"  {self.runtime.phase}"
        return [head, *self.runtime.ledger.describe()]


def _cell(level_id: str | None) -> str:
    return (level_id or "").split("|")[0]
