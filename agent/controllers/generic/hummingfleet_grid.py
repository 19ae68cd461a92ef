"""A grid: one order per level, holdings kept over restarts, every field live.

The stock grid_strike has no grid count, copies its configuration once and cannot keep its position on a stop.
"""

from decimal import Decimal

from hummingfleet_agent import controller as base
from hummingfleet_agent.grid_plan import GridError, GridSettings, Level, decide, find_stranded, plan_levels
from hummingfleet_agent.planning import Decision, MarketRules, text
from pydantic import Field


class HummingfleetGridConfig(base.FleetConfig):
    """controllers/<bot>.yml. Bounds in quote per base; order_amount in quote per level."""

    controller_name: str = "hummingfleet_grid"
    lower_bound: Decimal = Field(..., json_schema_extra=base.LIVE)
    upper_bound: Decimal = Field(..., json_schema_extra=base.LIVE)
    grid_count: int = Field(..., json_schema_extra=base.LIVE)
    order_amount: Decimal = Field(..., json_schema_extra=base.LIVE)

    @property
    def grid(self) -> GridSettings:
        """The four fields that make the grid."""
        return GridSettings(self.lower_bound, self.upper_bound, self.grid_count, self.order_amount)


class HummingfleetGrid(base.FleetController):
    """Keeps the grid's orders on the exchange."""

    config: HummingfleetGridConfig

    def __init__(self, config: HummingfleetGridConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.levels: tuple[Level, ...] = ()
        self._planned: GridSettings | None = None

    @property
    def capital(self) -> Decimal:
        """What all levels together may spend."""
        return self.config.grid.capital

    def validate(self, config: HummingfleetGridConfig) -> None:
        """The new grid must be one on this market."""
        rules = self.rules()
        if rules is not None:
            plan_levels(config.grid, rules)

    def prepare(self, rules: MarketRules) -> bool:
        """Plan the levels whenever the grid has changed."""
        grid = self.config.grid
        if grid == self._planned:
            return bool(self.levels)
        self._planned = grid
        try:
            self.levels = plan_levels(grid, rules)
        except GridError as error:
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
        """Sell what levels hold, buy below the market."""
        self.ledger.merge_cells(find_stranded(self.levels, view.cells, view.rules))
        return decide(
            levels=self.levels, capital=self.capital, max_position=view.limits.max_position,
            cells=self.ledger.grid_cells(), orders=view.orders, rules=view.rules, best_bid=view.bid, best_ask=view.ask,
            busy=view.busy)
