"""The grid on scripted markets: one bot through all of them, then through a stop, a death and a start."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.engine.harness import Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket
from tests.engine.test_grid import GUIDE_LEVELS, wait_for_grid

pytestmark = pytest.mark.engine

D = Decimal
Orders = tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]

ALL: Orders = (GUIDE_LEVELS, [])
ONE_HELD: Orders = (GUIDE_LEVELS[:9], [(D(35000), GUIDE_LEVELS[9][1])])
TWO_HELD: Orders = (GUIDE_LEVELS[:8], [(D(34500), GUIDE_LEVELS[8][1]), (D(35000), GUIDE_LEVELS[9][1])])


def test_every_market(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    """Ten levels of 100 between 30000 and 35000: never more than 1000 held and resting, whatever happens."""
    bot = make_bot()
    bot.start()
    market = ScriptedMarket(sandbox, bot, max_position=D(1000))
    wait_for_grid(sandbox, bot, *ALL)
    wanted = {
        "flat": ALL, "partial fill": ALL, "crash": TWO_HELD, "trend up": ALL, "whipsaw": ALL, "gap down": TWO_HELD,
        "gap up": ALL, "outage": ONE_HELD, "refusals": ALL, "shortage": ONE_HELD, "end": ALL,
    }
    for phase in market.every_market(low=33900, middle=34400, high=35250):
        wait_for_grid(sandbox, bot, *wanted.pop(phase))
    assert not wanted, f"phases that did not take place: {wanted}"
    # All is sold again, each round trip for more than it cost.
    assert market.position() == 0
    assert sandbox.balances(bot.account)["USDT"] > D(bot.balances["USDT"])
    assert "ORDER_REFUSED" in bot.log()
    assert market.highest_exposure() == sum(price * amount for price, amount in GUIDE_LEVELS)

    # Holding two lots: a stop, a start, a death and a start again leave the same orders, and no exposure is doubled.
    market.crash(33900)
    wait_for_grid(sandbox, bot, *TWO_HELD)
    held = market.position()
    assert bot.stop() == 0
    assert sandbox.orders(bot.account) == [] and market.position() == held
    bot.restart()
    wait_for_grid(sandbox, bot, *TWO_HELD)
    bot.kill_python()
    bot.restart()
    bot.wait_for_phase("trading")
    wait_for("the orders are new", lambda: bot.heartbeat["open_orders"] == 10)
    wait_for_grid(sandbox, bot, *TWO_HELD)
    assert market.position() == held
    market.check()
