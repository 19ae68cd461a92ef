"""Signals from outside: takes them from the node's broker, trades them at market, and watches the position between."""

import time
from decimal import Decimal
from typing import Any

from hummingbot.core.network_iterator import NetworkStatus
from hummingfleet_agent import controller as base
from hummingfleet_agent.exchange import mid_price, taker_price
from hummingfleet_agent.planning import ZERO, Decision, MarketRules, text
from hummingfleet_agent.signal_plan import (
    KEY,
    Memory,
    SignalError,
    SignalSettings,
    Situation,
    Step,
    judge,
    order_leaves,
    parse_signal,
    signal_id,
    step,
)
from hummingfleet_agent.signals import UNREACHABLE, SignalLink
from pydantic import Field


class HummingfleetSignalConfig(base.FleetConfig):
    """controllers/<bot>.yml. Amounts in quote, percents of the average price, times in seconds."""

    controller_name: str = "hummingfleet_signal"
    order_amount: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    max_signal_age_s: int = Field(30, json_schema_extra=base.LIVE)
    take_profit_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    stop_loss_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    trailing_activation_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    trailing_delta_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    time_limit_s: int | None = Field(None, json_schema_extra=base.LIVE)
    cooldown_s: int = Field(0, json_schema_extra=base.LIVE)

    @property
    def settings(self) -> SignalSettings:
        """The fields that the plan knows."""
        return SignalSettings(**{name: getattr(self, name) for name in SignalSettings.__dataclass_fields__})


class HummingfleetSignal(base.FleetController):
    """Answers signals and trades those it accepted."""

    config: HummingfleetSignalConfig

    def __init__(self, config: HummingfleetSignalConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self._memory = Memory.restore(self.ledger.strategy)
        self._making: Step | None = None
        self._link = SignalLink(self._take)

    def validate(self, config: HummingfleetSignalConfig) -> None:
        """The new fields must fit together."""
        config.settings.check()

    def prepare(self, rules: MarketRules) -> bool:
        """Refuse settings that cannot be used; count everything that the bot holds as one position."""
        try:
            self.config.settings.check()
        except ValueError as error:
            self.refuse("SIGNAL_SETTINGS", str(error))
            return False
        self.ledger.gather(KEY)
        return True

    # -- rounds

    async def control_task(self):
        """Listen, whether the market is connected or not; then a round."""
        try:
            problem = self._link.follow()
        except Exception as error:  # whatever the bridge raises: the position is watched all the same
            problem = f"the bridge to the broker fails ({type(error).__name__}): signals do not arrive"
        if problem is None:
            self.runtime.waiting.pop(UNREACHABLE, None)
        elif UNREACHABLE not in self.runtime.waiting:
            self.runtime.waiting[UNREACHABLE] = problem
            self.logger().warning(f"{UNREACHABLE} {problem}")
        await super().control_task()

    def stop(self):
        """Take no more signals."""
        self._link.close()
        super().stop()

    def decide(self, view: base.MarketView) -> Decision:
        """Close the position where it is time, or trade the signal that waits."""
        taken = step(self.config.settings, self._memory, self._situation())
        self._remember(taken.memory)
        for note in taken.notes:
            self.logger().warning(note)
        if taken.decision.create:
            self._making = taken
        return taken.decision

    def before_order(self, key: str, side: str) -> bool:
        """A signal leaves the memory in the write that puts its order down; too late, and there is no order."""
        making, self._making = self._making, None
        if making is None or making.decision.create[0].side != side:
            return False
        amount = text(making.decision.create[0].amount)
        if making.exit is not None:
            self.logger().info(f"SIGNAL_{making.exit.kind} {making.exit.message}; selling {amount}")
            return True
        memory = order_leaves(self._memory, making.signal or "", time.time())
        if memory is None:
            return False
        self._remember(memory)
        self.logger().info(f"SIGNAL_ORDER {making.signal}: {side.lower()} {amount}")
        return True

    # -- signals

    def _take(self, message: Any) -> None:
        """Judge a message and answer it; an accepted signal is on disk before the answer leaves."""
        identity = signal_id(message)
        if identity is None:
            self.logger().warning("SIGNAL_INVALID a message without an id cannot be answered")
            return
        try:
            signal = parse_signal(message)
        except SignalError as error:
            self._answer(identity, "invalid", str(error))
            return
        before = self._memory
        verdict = judge(signal, self.config.settings, before, self._situation())
        if verdict.accepted:
            self._remember(verdict.memory)
            try:
                self.ledger.save()
            except OSError as error:
                self._remember(before)
                self.logger().error(f"LEDGER_WRITE cannot store signal {identity} ({error.strerror})")
                self._answer(identity, "busy", "the bot cannot store the signal now")
                return
        self._answer(identity, verdict.code, verdict.reason)
        if verdict.accepted:
            if signal.action == "close":
                self.end_pause(KEY, "SELL")
            self.wake()

    def _answer(self, identity: str, code: str, reason: str) -> None:
        self.logger().info(f"SIGNAL {identity}: {code}, {reason}")
        self._link.answer({
            "id": identity, "accepted": code == "accepted", "code": code, "reason": reason, "at": time.time()})

    def _remember(self, memory: Memory) -> None:
        self._memory = memory
        self.ledger.set_strategy(memory.plain())

    def _situation(self) -> Situation:
        pair, connector = self.config.trading_pair, self.connector
        connected = self.market_data_provider.ready and connector.network_status == NetworkStatus.CONNECTED
        cells = self.ledger.cells.values()
        return Situation(
            now=time.time(), halted=self._halted(), connected=connected,
            mid=mid_price(connector, pair) if connected else None, rules=self.rules() if connected else None,
            held=sum((cell.held for cell in cells), ZERO), cost=sum((cell.cost for cell in cells), ZERO),
            under_way=bool(KEY in self._busy() or self.ledger.unsettled()),
            paused=frozenset(side for side in ("BUY", "SELL") if self.is_paused(KEY, side)),
            limits=self.runtime.settings.risk, exposure=self._exposure(),
            funds=self._available("BUY") if connected else None,
            taker_price=lambda amount: taker_price(connector, pair, amount))

    def _halted(self) -> str | None:
        halt = self.ledger.halt or self.runtime.notice
        if halt is not None:
            return f"the bot is halted: {halt.code}"
        return None if self.runtime.accepting else "the bot is stopping"
