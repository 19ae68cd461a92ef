"""A ladder on scripted markets: whatever they do, one sale of everything held, and no more spent than was to be."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.engine.harness import Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket

pytestmark = pytest.mark.engine

D = Decimal
LADDER = {
    "mode": "ladder", "spreads_pct": (D(0), D(2), D(5)), "amounts_quote": (D(100), D(200), D(400)),
    "take_profit_pct": D(1), "stop_loss_pct": None, "cooldown_s": 3, "repeat": True,
}


def test_a_ladder_in_every_market(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    """Whatever the market does: one sale of everything held, and no more spent than the amounts say."""
    bot = make_bot(template="dca", config=dict(LADDER))
    sandbox.set_price(35000)
    bot.start()
    # The first level's market order pays what the market asks when it arrives, at the most 35000 instead of 33000.
    market = ScriptedMarket(sandbox, bot, max_position=D(707))

    def all_is_for_sale() -> bool:
        return [amount for _, amount in sandbox.resting(bot.account, "SELL")] == (
            [market.position()] if market.position() else [])

    for phase in market.every_market(low=33000, middle=34000, high=35000):
        wait_for(f"all is for sale after {phase}", all_is_for_sale)
    assert bot.read("ledger.json")["strategy"]["cycle"] > 1
