"""A grid: one order per level, holdings kept over restarts, every field live.

The stock grid_strike has no grid count, copies its configuration once and cannot keep its position on a stop.
"""

from decimal import Decimal

from hummingfleet_agent import controller as base
from hummingfleet_agent.exits import ProfitExits
from hummingfleet_agent.grid_exit import GridExits, GridMemory, judge
from hummingfleet_agent.grid_plan import GridSettings, Level, decide, find_active, find_stranded, plan_levels
from hummingfleet_agent.planning import Decision, MarketRules, text
from pydantic import Field


class HummingfleetGridConfig(base.FleetConfig):
    """controllers/<bot>.yml. Bounds and stop price in quote per base; order_amount in quote per level."""

    controller_name: str = "hummingfleet_grid"
    lower_bound: Decimal = Field(..., json_schema_extra=base.LIVE)
    upper_bound: Decimal = Field(..., json_schema_extra=base.LIVE)
    grid_count: int = Field(..., json_schema_extra=base.LIVE)
    order_amount: Decimal = Field(..., json_schema_extra=base.LIVE)
    activation_bounds_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    take_profit_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    trailing_activation_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    trailing_delta_pct: Decimal | None = Field(None, json_schema_extra=base.LIVE)
    stop_price: Decimal | None = Field(None, json_schema_extra=base.LIVE)

    @property
    def grid(self) -> GridSettings:
        """The four fields that make the grid."""
        return GridSettings(self.lower_bound, self.upper_bound, self.grid_count, self.order_amount)

    @property
    def exits(self) -> GridExits:
        """When the grid is done. Raises ValueError for fields that make no sense."""
        return GridExits(
            ProfitExits(self.take_profit_pct, self.trailing_activation_pct, self.trailing_delta_pct), self.stop_price)

    def check_extras(self) -> None:
        """Raise ValueError where the optional fields make no sense."""
        stop, bounds = self.exits.stop_price, self.activation_bounds_pct
        if stop is not None and not (stop.is_finite() and 0 < stop < self.lower_bound):
            raise ValueError("stop_price must be above 0 and below lower_bound")
        if bounds is not None and not (bounds.is_finite() and 0 < bounds <= 100):
            raise ValueError("activation_bounds_pct must be above 0 and at most 100")


class HummingfleetGrid(base.FleetController):
    """Keeps the grid's orders on the exchange."""

    config: HummingfleetGridConfig

    def __init__(self, config: HummingfleetGridConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.levels: tuple[Level, ...] = ()
        self._planned: HummingfleetGridConfig | None = None

    @property
    def capital(self) -> Decimal:
        """What all levels together may spend."""
        return self.config.grid.capital

    def validate(self, config: HummingfleetGridConfig) -> None:
        """The new grid must be one on this market."""
        config.check_extras()
        rules = self.rules()
        if rules is not None:
            plan_levels(config.grid, rules)

    def prepare(self, rules: MarketRules) -> bool:
        """Plan the levels whenever the configuration has changed."""
        if self.config is self._planned:
            return bool(self.levels)
        self._planned, grid = self.config, self.config.grid
        try:
            self.config.check_extras()
            self.levels = plan_levels(grid, rules)
        except ValueError as error:
            self.levels = ()
            self.refuse("GRID_REFUSED", str(error))
            return False
        self.ledger.set_plan(self.levels, (grid.upper_bound - grid.lower_bound) / grid.grid_count)
        self.ledger.save_if_changed()
        self.logger().info(
            f"GRID_PLANNED {len(self.levels)} levels from {text(self.levels[0].buy_price)} "
            f"to {text(self.levels[-1].sell_price)}, {text(grid.order_amount)} each")
        return True

    def decide(self, view: base.MarketView) -> Decision:
        """Sell what levels hold, buy below the market; where the grid is done, nothing more."""
        if self._is_done(view):
            return Decision((), frozenset())
        self.ledger.merge_cells(find_stranded(self.levels, view.cells, view.rules))
        active = find_active(self.levels, view.orders, view.mid, self.config.activation_bounds_pct)
        return decide(
            levels=self.levels, capital=self.capital, max_position=view.limits.max_position,
            cells=self.ledger.grid_cells(), orders=view.orders, rules=view.rules, best_bid=view.bid, best_ask=view.ask,
            busy=view.busy, active=active)

    def _is_done(self, view: base.MarketView) -> bool:
        """Whether an exit is due now: then everything is sold, and the bot rests until someone resumes it."""
        if view.mid is None or view.profit is None:
            return False
        memory = GridMemory.parse(self.ledger.strategy, view.profit)
        memory, due = judge(
            self.config.exits, memory, result=view.profit, mid=view.mid, capital=self.capital)
        self.ledger.set_strategy(memory.plain())
        if due is not None:
            self.finish(f"GRID_{due.kind}", due.message)
        return due is not None
