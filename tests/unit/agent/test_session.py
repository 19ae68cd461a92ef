"""Selling a bot's position, without an engine."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hummingfleet_agent.ledger import Ledger
from hummingfleet_agent.planning import MarketRules
from hummingfleet_agent.session import Session
from hummingfleet_agent.settlement import Settlement

D = Decimal


@pytest.mark.parametrize(("price", "gone"), [("0", False), ("NaN", False), ("100", True)])
async def test_a_position_is_no_dust_because_there_is_no_price(tmp_path: Path, price: str, gone: bool) -> None:
    """What counts as sold is forgotten by a liquidation."""
    session = Session("liquidate")
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.base = D(1)

    class Exchange:
        async def rules(self) -> MarketRules:
            return MarketRules(D("0.01"), D("0.001"), D("0.001"), D(5))

        async def last_price(self) -> Decimal:
            return D(price)

        async def sell_at_market(self, client_id: str, amount: Decimal) -> None:
            ledger.base -= amount

    async def settle(*, deadline: float, search_unknown: bool) -> Settlement:
        return Settlement(True, 0)

    session.state = SimpleNamespace(ledger=ledger)
    session.settings = SimpleNamespace(base_asset="BTC")
    session.exchange = Exchange()
    session._settle = settle
    session._liquidation_id = lambda amount: "id"
    _, sold = await session._sell_position(time.monotonic() + 5)
    assert (sold, ledger.base) == (gone, D(0) if gone else D(1))
