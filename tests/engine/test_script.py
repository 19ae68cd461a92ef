"""An operator's own controller, the worked example of the documentation, on the real engine."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.scripts import script
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.script import script_strategy

from tests.engine.harness import ROOT, Bot, Sandbox, wait_for

pytestmark = pytest.mark.engine
D = Decimal
EXAMPLE = ROOT / "docs/examples/range_keeper_v1"
CONFIG = {"buy_price": 35000, "sell_price": 35500, "order_amount": 700}


def test_the_documented_example_trades_and_keeps_its_limits(sandbox: Sandbox, make_bot: Callable[..., Bot]) -> None:
    description = yaml.safe_load((EXAMPLE / "description.yml").read_text())
    strategy = script_strategy(script(EXAMPLE.name, description, (EXAMPLE / "controller.py").read_text()))
    bot = make_bot(strategy=strategy, config=dict(CONFIG), risk={"max_position": 1000, "max_daily_loss": 50})
    bot.start()
    amount = D("0.02")
    wait_for("it buys", lambda: sandbox.resting(bot.account, "BUY") == [(D(35000), amount)])
    pid = bot.pid()

    sandbox.set_price(34990)
    wait_for("it sells what it bought", lambda: sandbox.resting(bot.account, "SELL") == [(D(35500), amount)])
    assert bot.stop() == 0 and sandbox.orders(bot.account) == [] and bot.lifecycle["position_base"] == "0.02"
    bot.restart()
    wait_for("it adopts its position", lambda: sandbox.resting(bot.account, "SELL") == [(D(35500), amount)])
    sandbox.set_price(35510)
    wait_for("it begins again", lambda: sandbox.resting(bot.account, "BUY") == [(D(35000), amount)])

    bot.config["buy_price"] = 34900
    pid = bot.pid()
    bot.write_config()
    wait_for("a live change moves the order", lambda: [price for price, _ in sandbox.resting(bot.account, "BUY")] == [
        D(34900)])
    assert bot.pid() == pid

    # More than it may hold: held back by the limit that the strategy knows nothing of.
    bot.config["order_amount"] = 1100
    bot.write_config()
    wait_for("the order is held back", lambda: "RISK_MAX_POSITION" in bot.heartbeat["waiting"])
    wait_for("nothing rests", lambda: sandbox.orders(bot.account) == [])
    bot.config["order_amount"] = 700
    bot.write_config()
    wait_for("it buys again", lambda: sandbox.resting(bot.account, "BUY"))

    sandbox.set_price(34890)
    wait_for("it holds", lambda: sandbox.resting(bot.account, "SELL"))
    sandbox.set_price(31000)
    bot.wait_for_phase("halted")
    assert bot.heartbeat["halted"]["code"] == "RISK_MAX_DAILY_LOSS"
    wait_for("nothing rests", lambda: sandbox.orders(bot.account) == [])
