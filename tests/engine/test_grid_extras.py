"""What a grid may do besides its levels: activation bounds, take profit, stop price, trailing stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.engine.harness import GUIDE_GRID, Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket
from tests.engine.test_grid import GUIDE_LEVELS, wait_for_grid

pytestmark = pytest.mark.engine

D = Decimal
LOT_34500, LOT_34000 = GUIDE_LEVELS[9][1], GUIDE_LEVELS[8][1]


def change(bot: Bot, **fields: Any) -> float:
    """Write a grid with these extras, and only these; when that was (monotonic)."""
    bot.config = {**GUIDE_GRID, **fields}
    bot.write_config()
    return time.monotonic()


def wait_until_done(market: ScriptedMarket, code: str) -> None:
    """The bot has sold what it held and nothing of the account's own coin, has no order left, and rests."""
    bot = market.bot
    bot.wait_for_phase("halted")
    wait_for("nothing is held", lambda: market.position() == 0)
    wait_for("the heartbeat knows", lambda: D(bot.heartbeat["position"]["base"]) == 0)
    assert bot.heartbeat["halted"]["code"] == code
    assert market.sandbox.orders(bot.account) == []
    assert market.buys_since(bot.heartbeat["halted"]["at"]) == []


def resume(bot: Bot, **fields: Any) -> None:
    """What bot.resumed does: a stop, and a start with the counter raised."""
    assert bot.stop() == 0
    bot.resumes += 1
    change(bot, **fields)
    bot.restart()
    bot.wait_for_phase("trading")


def test_extras(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    bot = make_bot(config={**GUIDE_GRID, "activation_bounds_pct": 3})
    market = ScriptedMarket(sandbox, bot, max_position=D(1000))
    bot.start()

    # Buys rest at most three percent below 35250, that is above 34192.5; five percent: above 33487.5.
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[9:], [])
    pid, changed_at = bot.pid(), change(bot, activation_bounds_pct=5)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[7:], [])
    print(f"live change of activation_bounds_pct took {time.monotonic() - changed_at:.1f} s")

    # A price at the edge moves nothing; one that is beyond it by a tenth of the bound does.
    kept = {item["order_id"] for item in sandbox.orders(bot.account)}
    market.move(35400, 35250, 35400)
    assert {item["order_id"] for item in sandbox.orders(bot.account)} == kept
    market.move(35500)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[8:], [])
    market.move(35300)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[8:], [])
    # Further down further levels come in, and they stay a little longer; a lot is sold wherever its level lies.
    market.move(34400, 34900)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:9], [(D(35000), LOT_34500)])
    market.move(35250)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[7:], [])
    changed_at = change(bot)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    print(f"taking activation_bounds_pct away took {time.monotonic() - changed_at:.1f} s")

    # Nonsense is refused as a whole, and what is in force stays.
    path = f"controllers/{bot.bot}.yml"
    good = (bot.folder / "config" / path).read_text()
    bot.write_file(path, good.replace("stop_price: null", "stop_price: 30000"))
    wait_for("the refusal is logged", lambda: "stop_price must be above 0 and below lower_bound" in bot.log())
    bot.write_file(path, good)

    # Take profit: one round trip has earned 1.45, another 1.47; the lot of 34500 gains 1.16 at 34900. Capital is 1000.
    market.move(33900, 34600, 34900)
    earned = LOT_34500 * 500 + LOT_34000 * 500 + LOT_34500 * 400
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), LOT_34500)])
    assert D("0.4") < earned / 10 < D("0.41")
    change(bot, take_profit_pct=0.45)
    market.flat()
    changed_at = change(bot, take_profit_pct=0.4)
    wait_until_done(market, "GRID_TAKE_PROFIT")
    print(f"live change of take_profit_pct took {time.monotonic() - changed_at:.1f} s")
    assert bot.pid() == pid
    assert sandbox.balances(bot.account)["USDT"] > D(bot.balances["USDT"]) + 4

    # Resumed, it begins anew: the profit so far is not taken again.
    market.move(35250)
    resume(bot, take_profit_pct=0.4)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    market.flat()

    # Stop price: far below the grid everything has been bought, and is sold at a loss.
    pid = bot.pid()
    market.move(29950)
    wait_for("everything is for sale", lambda: len(sandbox.resting(bot.account, "SELL")) == 10)
    change(bot, stop_price=29940)
    market.flat()
    changed_at = change(bot, stop_price=29960)
    wait_until_done(market, "GRID_STOP_PRICE")
    print(f"live change of stop_price took {time.monotonic() - changed_at:.1f} s")
    assert bot.pid() == pid

    # Trailing stop: armed at 0.25 percent above the loss so far, at 34900; sold a tenth of a percent below the highest.
    market.move(35250)
    resume(bot)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    market.move(33900, 34600, 34900)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), LOT_34500)])
    pid, changed_at = bot.pid(), change(bot, trailing_activation_pct=0.25, trailing_delta_pct=0.1)
    wait_for("it is armed", lambda: bot.read("ledger.json")["strategy"]["peak_pct"])
    print(f"live change of the trailing stop took {time.monotonic() - changed_at:.1f} s")
    assert bot.pid() == pid
    # A fall of 200 costs 0.058 percent: it stays.
    market.move(34700)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), LOT_34500)])
    # Death does not forget the highest profit.
    bot.kill_python()
    sandbox.set_price(34540)
    bot.restart()
    wait_until_done(market, "GRID_TRAILING_STOP")
    market.check()
    assert bot.stop() == 0 and bot.lifecycle["clean"]
