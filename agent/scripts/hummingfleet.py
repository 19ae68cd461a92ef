"""The strategy script of every Hummingfleet V2 bot: runs its controller, follows its live file, keeps its position.

Differs from the engine's own V2 script where money is at stake: a stop cancels orders and sells nothing; an executor
sends exactly one order; a changed controller file is applied within seconds, or refused as a whole.
"""

import asyncio
import hashlib
from pathlib import Path

import yaml
from hummingbot.strategy.strategy_v2_base import StrategyV2Base, StrategyV2ConfigBase
from hummingbot.strategy_v2.executors.order_executor.data_types import ExecutionStrategy
from hummingbot.strategy_v2.executors.order_executor.order_executor import OrderExecutor
from hummingbot.strategy_v2.models.base import RunnableStatus
from hummingbot.strategy_v2.models.executors import CloseType
from hummingfleet_agent import runtime as shared
from hummingfleet_agent.ledger import Intent

CANCEL_SECONDS = 8.0


class SingleOrderExecutor(OrderExecutor):
    """The engine's order executor, reduced to one order.

    The engine's own sends the order again, up to ten times, after a failure or a cancellation, a second later and
    without asking the controller. Here the controller decides, after the exchange has told what became of the first
    order. The price is the configured one: the engine's would move a maker order to the best price of the market.
    """

    def get_order_price(self):
        """The configured price, never another; a market order has none."""
        market = self.config.execution_strategy == ExecutionStrategy.MARKET
        return super().get_order_price() if market else self.config.price

    async def validate_sufficient_balance(self):
        """The engine's check; a shortage counts as a failure, so that the controller waits before it tries again.

        So does a check that cannot be made: older engines would leave the executor running for ever, with its level.
        """
        try:
            await super().validate_sufficient_balance()
        except Exception as error:
            self._finish(CloseType.FAILED)
            self._report(f"the engine cannot check the balance ({type(error).__name__}: {_short(error)})")
        if self.close_type == CloseType.INSUFFICIENT_BALANCE:
            self._report("the engine finds too little balance")

    def early_stop(self, keep_position: bool = True):
        """Stop, unless it has just ended by itself: the engine would leave it shutting down for ever."""
        if self.status != RunnableStatus.TERMINATED:
            super().early_stop(keep_position)

    def place_open_order(self):
        """Send the order, unless the bot may not trade or the level has one already."""
        runtime = shared.get()
        cell, _, target = (self.config.level_id or "").partition("|")
        if (self.status != RunnableStatus.RUNNING or not runtime.may_trade or runtime.unsettled_of(cell)
                or not runtime.before_order(cell, self.config.side.name)):
            self._finish(CloseType.EARLY_STOP)
            return
        runtime.ledger.intent = Intent(cell, self.config.price, self.config.amount, type(self.config.amount)(target))
        try:
            super().place_open_order()
        finally:
            runtime.ledger.intent = None

    def process_order_canceled_event(self, _, market, event):
        """A cancelled order ends the executor."""
        mine = self._order is not None and event.order_id == self._order.order_id
        super().process_order_canceled_event(_, market, event)
        if mine:
            self._finish(CloseType.EARLY_STOP)
            self._report(None)

    def process_order_failed_event(self, _, market, event):
        """A failed order ends the executor; the controller decides about another."""
        if self._order is None or event.order_id != self._order.order_id:
            return
        if self._order.executed_amount_base > 0:
            self._partial_filled_orders.append(self._order)
        self._order = None
        self._finish(CloseType.FAILED)
        self._report(str(event.error_message or event.error_type or "refused")[:200])

    def process_order_completed_event(self, _, market, event):
        """A filled order ends the executor."""
        mine = self._order is not None and event.order_id == self._order.order_id
        super().process_order_completed_event(_, market, event)
        if mine:
            self._report(None)

    def _finish(self, close_type):
        if self.status == RunnableStatus.TERMINATED:
            return
        self._held_position_orders.extend(
            order.order.to_json() for order in self._partial_filled_orders if order.order is not None)
        self.close_type = CloseType.POSITION_HOLD if self._held_position_orders else close_type
        self.stop()

    def _report(self, failure: str | None):
        report = shared.get().on_order_end
        if report is not None:
            report(self.config.level_id, self.config.side.name, failure)


class HummingfleetConfig(StrategyV2ConfigBase):
    """scripts/<bot>.yml: names this script and one controller file."""

    script_file_name: str = Path(__file__).name


class Hummingfleet(StrategyV2Base):
    """Runs one controller."""

    max_executors_close_attempts = 3

    def __init__(self, connectors, config):
        self.runtime = shared.get()
        super().__init__(connectors, config)
        orchestrator = self.executor_orchestrator
        orchestrator._executor_mapping = {**orchestrator._executor_mapping, "order_executor": SingleOrderExecutor}
        self._seen_digest = self.runtime.config_digest
        self._stopped = False

    # -- every second

    def tick(self, timestamp: float):
        """Follow the live file, whether the market is connected or not; then the engine's tick."""
        self._follow_live_file()
        super().tick(timestamp)

    def update_controllers_configs(self):
        """Nothing: the live file is followed in ``tick``; the engine would apply half a change."""

    def create_actions_proposal(self):
        """Nothing: the controller acts by itself."""
        return []

    def stop_actions_proposal(self):
        """Nothing: the controller acts by itself."""
        return []

    def _follow_live_file(self) -> None:
        path = self.runtime.home.config_dir / self.runtime.settings.live_file
        try:
            content = path.read_bytes()
        except OSError:
            return
        digest = hashlib.sha256(content).hexdigest()
        if digest == self._seen_digest:
            return
        self._seen_digest = digest
        controller = next(iter(self.controllers.values()), None)
        if controller is None:
            return
        try:
            data = yaml.safe_load(content)
            if not isinstance(data, dict):
                raise ValueError("the file holds no mapping")
            config = type(controller.config)(**data)
            controller.check(config)
        except Exception as error:  # pydantic, YAML and grid errors alike: the old configuration stays
            self.runtime.config_rejected = {"digest": digest, "reason": _short(error)}
            self.logger().error(f"CONFIG_REJECTED {path.name}: {_short(error)}; the former one stays in force")
            return
        controller.apply(config)
        self.runtime.config_digest, self.runtime.config_rejected = digest, None
        (self.runtime.home.conf_dir / self.runtime.settings.live_file).write_bytes(content)
        self.logger().info(f"CONFIG_APPLIED {path.name} {digest[:12]}")

    # -- stopping

    async def on_stop(self):
        """Stop without selling: executors end, orders are cancelled, holdings stay in the ledger."""
        self.runtime.accepting = False
        self._is_stop_triggered = True
        if self._stopped:
            return
        self._stopped = True
        for controller in self.controllers.values():
            controller.stop()
        if self.listen_to_executor_actions_task:
            self.listen_to_executor_actions_task.cancel()
        missing = [connector for connector in self.connectors.values() if connector not in set(self.active_markets)]
        if missing:
            self.add_markets(missing)
        for executors in self.executor_orchestrator.active_executors.values():
            for executor in executors:
                if executor.status == RunnableStatus.RUNNING:
                    executor.early_stop(keep_position=True)
        await asyncio.gather(*(connector.cancel_all(CANCEL_SECONDS) for connector in self.connectors.values()))
        try:
            await self.executor_orchestrator.stop(self.max_executors_close_attempts)
            self.executor_orchestrator.store_all_executors()
        except Exception as error:  # bookkeeping of the engine's database; ours does not depend on it
            self.logger().warning(f"STOP_RECORDS the engine could not store its executors: {_short(error)}")
        self.market_data_provider.stop()


def _short(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if callable(errors):
        return "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in errors())[:500]
    return str(error).replace("\n", " ")[:500]
