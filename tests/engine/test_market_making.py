"""The engine's own pure market making (V1) under our launcher."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.engine.harness import PAIR, Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket

pytestmark = pytest.mark.engine

CONFIG = {"bid_spread": 0.5, "ask_spread": 0.5, "order_amount": 0.001, "order_refresh_time": 5, "filled_order_delay": 1}


def market_maker(make_bot: Callable[..., Bot], **changes: Any) -> Bot:
    """A market maker with its required limit."""
    settings = {"template": "pure_market_making", "config": dict(CONFIG), "risk": {"kill_switch_pct": 5}}
    return make_bot(**{**settings, **changes})


def test_life_of_a_market_maker(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    bot = market_maker(make_bot)
    bot.start()
    wait_for("bid and ask rest", lambda: len(sandbox.orders(bot.account)) == 2)
    assert {item["side"] for item in sandbox.orders(bot.account)} == {"BUY", "SELL"}

    # Its orders carry its tag, and its fills are accounted.
    tag = bot.read("../config/bot.json")["order_tag"]
    assert all(tag in item["client_order_id"] for item in sandbox.orders(bot.account, "all"))
    sandbox.set_price(34950)
    wait_for("the fill is accounted", lambda: Decimal(bot.heartbeat["position"]["base"]) == Decimal("0.001"))
    assert not bot.has_hbot() or '"running": true' in bot.execute("hbot", "status", "--json")

    assert bot.stop() == 0
    assert sandbox.orders(bot.account) == []
    assert bot.lifecycle["clean"] and bot.lifecycle["verified"] == "exchange"
    position = sandbox.balances(bot.account)["BTC"] - 1
    assert Decimal(bot.lifecycle["position_base"]) == position

    # Killed: what was open is settled before the next start trades.
    bot.restart()
    bot.wait_for_phase("trading")
    wait_for("orders rest", lambda: len(sandbox.orders(bot.account)) == 2)
    bot.kill_python()
    sandbox.set_price(34000)
    code, record, said = bot.run_mode("settle")
    assert code == 0 and record["clean"] and sandbox.orders(bot.account) == [], said
    assert Decimal(record["position_base"]) == sandbox.balances(bot.account)["BTC"] - 1
    bot.start()
    wait_for("bid and ask rest again", lambda: len(sandbox.orders(bot.account)) == 2)
    assert bot.stop() == 0
    before = sandbox.balances(bot.account)["BTC"]
    position = Decimal(bot.lifecycle["position_base"])
    assert position == before - 1 > 0
    code, record, said = bot.run_mode("liquidate")
    assert code == 0 and Decimal(record["position_base"]) == 0, said
    assert sandbox.balances(bot.account)["BTC"] == 1 and sandbox.orders(bot.account) == []
    assert sandbox.bad_signatures(bot.account) == 0


def test_every_market(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    """After each market one bid and one ask rest half a percent from the price, and the books agree."""
    bot = market_maker(make_bot, config={**CONFIG, "order_refresh_tolerance_pct": 0.05})
    bot.start()
    market = ScriptedMarket(sandbox, bot)

    def quotes() -> bool:
        price = sandbox.control.get("/prices")["prices"][PAIR]
        mid = (Decimal(price["bid"]) + Decimal(price["ask"])) / 2
        seen = {item["side"]: Decimal(item["price"]) / mid for item in sandbox.orders(bot.account)}
        wanted = {"BUY": Decimal("0.995"), "SELL": Decimal("1.005")}
        return seen.keys() == wanted.keys() and all(abs(seen[side] - wanted[side]) < Decimal("0.001") for side in seen)

    phases = []
    for phase in market.every_market(low=33900, middle=34400, high=35250):
        wait_for(f"bid and ask rest around the price after: {phase}", quotes)
        phases.append(phase)
    assert len(phases) == 11 and sandbox.fills(bot.account)

    # A stop takes both away, a start makes one of each again, and what is held stays what it is.
    held = market.position()
    assert bot.stop() == 0
    assert sandbox.orders(bot.account) == [] and Decimal(bot.lifecycle["position_base"]) == held
    bot.restart()
    wait_for("bid and ask rest again", quotes)
    assert market.position() == held
    market.check()


def test_the_kill_switch_halts(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    """The engine stops its strategy by itself and stays up: that is a halt, and it outlives a restart."""
    bot = market_maker(make_bot, balances={"USDT": "40", "BTC": "0.002"}, risk={"kill_switch_pct": 1})
    bot.start()
    wait_for("orders rest", lambda: sandbox.orders(bot.account))
    sandbox.set_price(34950)
    wait_for("a bid filled", lambda: bot.heartbeat["fills"] == 1)
    sandbox.set_price(30000)
    bot.wait_for_phase("halted")
    assert bot.heartbeat["halted"]["code"] == "KILL_SWITCH" and not bot.heartbeat["strategy_running"]
    wait_for("no order is open", lambda: sandbox.orders(bot.account) == [])
    assert bot.is_running() and bot.stop() == 0 and bot.lifecycle["clean"]
    bot.restart()
    bot.wait_for_phase("halted")
    assert sandbox.orders(bot.account) == []


def test_values_the_engine_swallows_end_the_start(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    """The engine calls a strategy that it could not build "started successfully"."""
    bot = market_maker(make_bot)
    path = f"strategies/{bot.bot}.yml"
    bot.write_file(path, (bot.folder / "config" / path).read_text().replace("bid_spread: 0.5", 'bid_spread: "abc"'))
    bot.start(wait=False)
    wait_for("it ends", lambda: not bot.is_running())
    assert bot.exit_code() == 2 and "CONFIGURATION the engine could not start the strategy" in bot.log()
    assert "Invalid value abc for config variable bid_spread" in bot.log()
    assert sandbox.orders(bot.account, "all") == []
