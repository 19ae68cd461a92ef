"""Dollar-cost averaging: a ladder of buys with one sale, or a purchase at every interval. Every field but mode is live.

The stock dman_v3 needs a signal, sells its position on a stop, and copies its configuration once.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from hummingfleet_agent import controller as base
from hummingfleet_agent.dca_plan import (
    PURCHASES,
    DcaError,
    IntervalSettings,
    IntervalState,
    LadderRound,
    LadderSettings,
    LadderState,
    decide_interval,
    decide_ladder,
    plan_ladder,
)
from hummingfleet_agent.exchange import mid_price
from hummingfleet_agent.planning import ZERO, Cell, Decision, MarketRules, text
from pydantic import Field


class HummingfleetDcaConfig(base.FleetConfig):
    """controllers/<bot>.yml. Amounts in quote, percents as percent, times in seconds; null in the other mode."""

    controller_name: str = "hummingfleet_dca"
    mode: Literal["ladder", "interval"]
    spreads_pct: tuple[Decimal, ...] | None = Field(None, json_schema_extra=base.LIVE)
    amounts_quote: tuple[Decimal, ...] | None = Field(None, json_schema_extra=base.LIVE)
    take_profit_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    stop_loss_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    cooldown_s: int = Field(60, json_schema_extra=base.LIVE)
    repeat: bool = Field(True, json_schema_extra=base.LIVE)
    order_amount: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    interval_s: int | None = Field(None, json_schema_extra=base.LIVE)
    dip_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    dip_multiplier: Decimal | None = Field(None, json_schema_extra=base.LIVE)

    @property
    def ladder(self) -> LadderSettings:
        """The ladder's fields. Raises DcaError where one is missing."""
        if self.spreads_pct is None or self.amounts_quote is None or self.take_profit_pct is None:
            raise DcaError("a ladder needs spreads_pct, amounts_quote and take_profit_pct")
        return LadderSettings(self.spreads_pct, self.amounts_quote, self.take_profit_pct, self.stop_loss_pct,
                              self.cooldown_s, self.repeat)

    @property
    def interval(self) -> IntervalSettings:
        """The fields of purchases at intervals. Raises DcaError where one is missing."""
        if self.order_amount is None or self.interval_s is None:
            raise DcaError("purchases at intervals need order_amount and interval_s")
        return IntervalSettings(self.order_amount, self.interval_s, self.dip_pct, self.dip_multiplier)


class HummingfleetDca(base.FleetController):
    """Keeps the ladder's orders on the exchange, or buys when the schedule says so."""

    config: HummingfleetDcaConfig

    def __init__(self, config: HummingfleetDcaConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self._just_started = True

    @property
    def capital(self) -> Decimal:
        """What a whole ladder may spend; of purchases at intervals, the position that they may build."""
        if self.config.mode == "ladder" and self.config.amounts_quote:
            return sum(self.config.amounts_quote, ZERO)
        return self.runtime.settings.risk.max_position or self.config.total_amount_quote

    def validate(self, config: HummingfleetDcaConfig) -> None:
        """The new settings must be tradable on this market, a ladder's in the cycle that is open."""
        rules = self.rules()
        if rules is not None:
            self._check(config, rules)

    def prepare(self, rules: MarketRules) -> bool:
        """Refuse settings that this market does not allow."""
        try:
            self._check(self.config, rules)
        except DcaError as error:
            self.refuse("DCA_REFUSED", str(error))
            return False
        return True

    def _check(self, config: HummingfleetDcaConfig, rules: MarketRules) -> None:
        if config.mode == "interval":
            config.interval.check(rules)
            return
        config.ladder.check()
        price = LadderState.parse(self.ledger.strategy).start_price or mid_price(self.connector, config.trading_pair)
        if price is not None:
            plan_ladder(config.ladder, price, rules)

    def decide(self, view: base.MarketView) -> Decision:
        """What the mode wants now."""
        return self._decide_ladder(view) if self.config.mode == "ladder" else self._decide_interval(view)

    def _decide_ladder(self, view: base.MarketView) -> Decision:
        state = LadderState.parse(self.ledger.strategy)
        now = decide_ladder(
            self.config.ladder, state, cells=self.ledger.cells, orders=view.orders, rules=view.rules, ask=view.ask,
            mid=view.mid, now=view.now, busy=view.busy)
        self.ledger.set_strategy(now.state.memory)
        if now.cells:
            self.ledger.set_cells(now.cells)
        if now.state.cycle:
            # What the next sale sells is in its cell before it is made: also what came from elsewhere.
            self.ledger.gather(now.state.sale_key)
        self._tell(now, view.mid)
        return now.decision

    def _tell(self, now: LadderRound, mid: Decimal | None) -> None:
        cycle, price = now.state.cycle, "an unknown price" if mid is None else text(mid)
        if now.event == "began":
            self.logger().info(f"DCA_CYCLE {cycle} begins at {price}")
        elif now.event == "stop_loss":
            self.logger().warning(f"DCA_STOP_LOSS cycle {cycle}: {price} is stop_loss_pct below the average price; "
                                  "selling all at market")
        elif now.event == "ended":
            self.logger().info(f"DCA_CYCLE {cycle} has ended at {price}")
            if not self.config.repeat:
                self.finish("DCA_FINISHED", f"cycle {cycle} has ended and repeat is false")

    def _decide_interval(self, view: base.MarketView) -> Decision:
        state = IntervalState.parse(self.ledger.strategy)
        under_way = {*view.orders, *view.busy}
        now = decide_interval(
            self.config.interval, state, cells=self.ledger.cells, under_way=under_way, rules=view.rules, ask=view.ask,
            mid=view.mid, now=view.now, just_started=self._just_started, funds=self._available("BUY"),
            limits=view.limits, exposure=self._exposure())
        self._just_started = False
        self.ledger.set_strategy(now.state.memory)
        if state.key not in under_way:
            self.ledger.gather(PURCHASES)
        self.ledger.set_cells({PURCHASES: Cell(ZERO, ZERO)})
        for order in now.decision.create:
            self.logger().info(f"DCA_PURCHASE {now.state.number}: {text(order.amount)} at about {text(order.price)}, "
                               f"the next one {_at(now.state)}")
        if now.skipped:
            self.logger().warning(f"PURCHASE_SKIPPED {now.skipped}; the next one {_at(now.state)}")
        return now.decision

    def order_ended(self, key: str, failure: str | None) -> None:
        """A refused purchase is not tried again."""
        if failure is not None and self.config.mode == "interval":
            state = IntervalState.parse(self.ledger.strategy)
            self.logger().warning(f"PURCHASE_SKIPPED {key} was refused: {failure}; the next one {_at(state)}")

    def to_format_status(self) -> list[str]:
        """Lines for `hbot status`."""
        head = super().to_format_status()[0]
        position = f"  holds {text(self.ledger.base)}, which cost {text(self.ledger.cost)}"
        if self.config.mode == "interval":
            state = IntervalState.parse(self.ledger.strategy)
            return [head, position, f"  {state.number} purchases so far; the next one {_at(state)}"]
        ladder = LadderState.parse(self.ledger.strategy)
        if ladder.start_price is None:
            return [head, position, f"  cycle {ladder.cycle} has ended; {self.config.cooldown_s} s until the next one"]
        orders = [f"  {key}: {order.side.lower()} {text(order.amount)} at {text(order.price)}"
                  for key, order in sorted(self.ledger.resting_orders().items())]
        return [head, position, f"  cycle {ladder.cycle} began at {text(ladder.start_price)}", *orders]


def _at(state: IntervalState) -> str:
    if state.next_at is None:
        return "at the start"
    return f"at {datetime.fromtimestamp(state.next_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
