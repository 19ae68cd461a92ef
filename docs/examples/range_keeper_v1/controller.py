"""Buys at one price, sells at another, and begins again."""

from decimal import Decimal

from hummingfleet_agent import controller as base
from hummingfleet_agent.planning import Decision, MarketRules, WantedOrder, floor_to
from pydantic import Field

KEY = "range"


class RangeKeeperConfig(base.FleetConfig):
    """The fields of description.yml."""

    controller_name: str = "range_keeper_v1"
    buy_price: Decimal = Field(..., json_schema_extra=base.LIVE)
    sell_price: Decimal = Field(..., json_schema_extra=base.LIVE)
    order_amount: Decimal = Field(..., json_schema_extra=base.LIVE)


class RangeKeeper(base.FleetController):
    """One key: it holds something and sells it, or holds nothing and buys."""

    def validate(self, config: RangeKeeperConfig) -> None:
        """What the description alone cannot say."""
        if config.buy_price >= config.sell_price:
            raise ValueError("buy_price must be below sell_price")

    def prepare(self, rules: MarketRules) -> bool:
        """Refuse what the market does not allow."""
        try:
            self.validate(self.config)
        except ValueError as error:
            self.refuse("RANGE_REFUSED", str(error))
            return False
        if not rules.allows(self.config.buy_price, self._amount(rules)):
            self.refuse("RANGE_REFUSED", "order_amount is below the market's minimum; raise it")
            return False
        return True

    def decide(self, view: base.MarketView) -> Decision:
        """The one order that should rest now."""
        if KEY in view.busy:
            return Decision((), frozenset())
        cell, resting = view.cells.get(KEY), view.orders.get(KEY)
        held = floor_to(cell.held, view.rules.lot) if cell is not None else Decimal(0)
        if view.rules.allows(self.config.sell_price, held):
            wanted = WantedOrder(KEY, "SELL", floor_to(self.config.sell_price, view.rules.tick), held, held)
        else:
            price, amount = floor_to(self.config.buy_price, view.rules.tick), self._amount(view.rules)
            wanted = WantedOrder(KEY, "BUY", price, amount, amount, "maker")
        if resting is None:
            below = view.ask is not None and wanted.price < view.ask
            return Decision((wanted,) if wanted.side == "SELL" or below else (), frozenset())
        # An order that has begun to fill is let alone.
        same = (resting.side, resting.price, resting.target) == (wanted.side, wanted.price, wanted.target)
        return Decision((), frozenset() if same or resting.executed else frozenset({KEY}))

    def _amount(self, rules: MarketRules) -> Decimal:
        return floor_to(self.config.order_amount / self.config.buy_price, rules.lot)
