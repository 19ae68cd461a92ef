"""A controller that is out of control: it sends whatever the test asks for through the connector, past all planning.

Mounted into a bot's container as ``controllers/generic/rogue.py``. Every new content of ``data/rogue.json``,
``{"id": 1, "orders": [{"side": "BUY", "amount": "0.01", "price": "34000"}]}``, is sent once, all at the same moment; an
order without a price is one at market. ``data/rogue.done`` then holds the id.
"""

import json
from decimal import Decimal

from hummingbot.core.data_type.common import OrderType
from hummingfleet_agent import controller as base
from hummingfleet_agent.planning import Decision


class RogueConfig(base.FleetConfig):
    """No fields of its own."""

    controller_name: str = "rogue"


class Rogue(base.FleetController):
    """Decides nothing, sends everything."""

    sent = 0

    @property
    def capital(self) -> Decimal:
        """As much as it takes."""
        return Decimal(1000)

    def decide(self, view: base.MarketView) -> Decision:
        """Nothing by itself."""
        return Decision((), frozenset())

    async def control_task(self):
        """Send what is asked for, halted or not."""
        await super().control_task()
        data_dir = self.runtime.home.data_dir
        try:
            asked = json.loads((data_dir / "rogue.json").read_text())
        except FileNotFoundError:
            return
        if asked["id"] == self.sent:
            return
        self.sent = asked["id"]
        for order in asked["orders"]:
            send = self.connector.buy if order["side"] == "BUY" else self.connector.sell
            price = Decimal(order["price"]) if "price" in order else Decimal("NaN")
            kind = OrderType.LIMIT if "price" in order else OrderType.MARKET
            send(self.config.trading_pair, Decimal(order["amount"]), kind, price)
        (data_dir / "rogue.done").write_text(str(self.sent))
