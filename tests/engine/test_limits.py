"""Every risk limit, broken on purpose on the real engine; what counts is what the exchange saw."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.engine.harness import ROOT, Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket
from tests.engine.test_grid import GUIDE_LEVELS, levels, wait_for_grid

pytestmark = pytest.mark.engine

D = Decimal
MakeBot = Callable[..., Bot]


def most_open_buys(orders: list[dict[str, Any]], fills: list[dict[str, Any]]) -> int:
    """How many buys were open at the same moment, at the most."""
    events = []
    ends = {item["order_id"]: item["time"] for item in fills}
    for item in orders:
        if item["side"] == "BUY":
            events.append((item["time"], 1))
            if item["status"] not in ("NEW", "PARTIALLY_FILLED"):
                events.append((max(item["update_time"], ends.get(item["order_id"], 0)), -1))
    count = most = 0
    # Within a millisecond what ends comes first: it made room for what follows.
    for _, step in sorted(events):
        count += step
        most = max(most, count)
    return most


def test_order_limits_hold_orders_back(sandbox: Sandbox, make_bot: MakeBot) -> None:
    """One bot, one limit after the other; none of them halts, and none was ever exceeded on the exchange."""
    bot = make_bot(risk={"max_position": 450, "max_order": 150, "max_open_orders": 6, "price_band_pct": "0.5"})
    market = ScriptedMarket(sandbox, bot, max_position=D(450))
    bot.start()

    def waits_for(code: str) -> None:
        wait_for(f"{code} is reported", lambda: code in bot.heartbeat["waiting"])

    # max_position: what is held counts together with what rests.
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:], [])
    waits_for("RISK_MAX_POSITION")
    market.crash(33700)
    two = [(D(34500), GUIDE_LEVELS[8][1]), (D(35000), GUIDE_LEVELS[9][1])]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:8], two)
    # After a stop and a start nothing is allowed twice.
    assert bot.stop() == 0
    bot.restart()
    bot.wait_for_phase("trading")
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:8], two)
    market.move(35250)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:], [])

    # max_order: every level spends about 160.
    bot.config.update(grid_count=2, order_amount=160)
    bot.write_config()
    wait_for_grid(sandbox, bot, [], [])
    waits_for("RISK_MAX_ORDER")

    # max_open_orders: ten levels of 40 fit the position, six of them rest.
    bot.config.update(grid_count=10, order_amount=40)
    bot.write_config()
    forty = levels(30000, 35000, 10, 40)
    wait_for_grid(sandbox, bot, forty[4:], [])
    waits_for("RISK_MAX_OPEN_ORDERS")
    assert "RISK_MAX_ORDER" not in bot.heartbeat["waiting"]
    # A sale takes no place of an opening order's.
    market.move(34400)
    wait_for_grid(sandbox, bot, forty[3:9], [(D(35000), forty[9][1])])
    market.move(35250)

    # price_band_pct: with a spread of two percent a level may lie below the best ask and still far above the mid price.
    bot.config.update(lower_bound=34800, upper_bound=35800, grid_count=2, order_amount=100)
    sandbox.set_price(34600, spread_bps="200")
    bot.write_config()
    waits_for("RISK_PRICE_BAND_PCT")
    wait_for_grid(sandbox, bot, [], [])
    # 34800 is at most half a percent above 34700.
    sandbox.set_price(34700)
    wait_for_grid(sandbox, bot, levels(34800, 35800, 2, 100)[:1], [])
    sandbox.set_price(34900, spread_bps="2")
    market.settle()
    assert "RISK_PRICE_BAND_PCT" not in bot.heartbeat["waiting"]

    market.check()
    history = sandbox.orders(bot.account, "all")
    assert max(D(item["price"]) * D(item["quantity"]) for item in history if item["side"] == "BUY") <= 150
    assert most_open_buys(history, sandbox.fills(bot.account)) == 6
    assert "CRITICAL" not in bot.log() and bot.heartbeat["halted"] is None
    assert bot.stop() == 0


@pytest.fixture(scope="module")
def losers(sandbox: Sandbox, crowd: Callable[..., dict[str, Bot]]) -> dict[str, Bot]:
    """A bot per loss limit, all in the same market. At 32000 each has lost 22, at 31500 it is 31."""
    bots = crowd(
        daily={"risk": {"max_daily_loss": 20, "close_position_on_halt": True, "earliest_resume_s": 3600}},
        drawdown={"risk": {"max_drawdown": 30}},
        percent={"risk": {"max_drawdown_pct": 2, "max_daily_loss": 500, "close_position_on_halt": True}})
    sandbox.heal()
    sandbox.set_price(35250, spread_bps="2")
    for bot in bots.values():
        bot.start(wait=False)
    for bot in bots.values():
        bot.wait_for_phase("trading")
        wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    return bots


def check_halt(market: ScriptedMarket, limit: str, threshold: str, *, closed: bool) -> None:
    """The halt as it must be: on the exchange, in the heartbeat, in the log."""
    bot, sandbox = market.bot, market.sandbox
    bot.wait_for_phase("halted")
    halted = bot.heartbeat["halted"]
    assert halted["code"] == f"RISK_{limit.upper()}"
    wait_for("no order is open", lambda: sandbox.orders(bot.account) == [])
    if closed:
        wait_for("the position is closed", lambda: market.position() == 0)
        sales = [item for item in sandbox.orders(bot.account, "all")
                 if item["side"] == "SELL" and item["type"] == "MARKET"]
        bought = sum(D(item["quantity"]) for item in sandbox.fills(bot.account) if item["side"] == "BUY")
        sold = sum(D(item["quantity"]) for item in sandbox.fills(bot.account) if item["side"] == "SELL")
        assert len(sales) == 1 and sold == bought, "it sells exactly what it bought itself, once"
    else:
        assert market.position() > 0
    # Whatever the market does: no opening order has reached the exchange since the engine saw the breach.
    for price in (30100, 33200, 34900):
        sandbox.set_price(price)
    market.acted_at = time.time()
    market.settle()
    assert market.buys_since(halted["at"]) == []
    assert sandbox.orders(bot.account) == []
    critical = [line for line in bot.log().splitlines() if " CRITICAL " in line]
    assert len(critical) == 1 and f"RISK_HALT limit={limit} value=" in critical[0], critical
    assert critical[0].endswith(f"threshold={threshold}"), critical
    market.check()


def test_loss_limits_halt(sandbox: Sandbox, losers: dict[str, Bot]) -> None:
    markets = {name: ScriptedMarket(sandbox, bot, max_position=D(1000)) for name, bot in losers.items()}
    daily, drawdown = losers["daily"], losers["drawdown"]

    # Four levels have bought and lost 9: no limit is reached.
    sandbox.set_price(33000)
    four = [(price + 500, amount) for price, amount in GUIDE_LEVELS[6:]]
    for bot in losers.values():
        wait_for_grid(sandbox, bot, GUIDE_LEVELS[:6], four)
        assert bot.heartbeat["halted"] is None
    # Its orders cannot be cancelled: it is in the middle of its halt when it dies.
    sandbox.fault("error", daily.account, path="/api/v3/order", method="DELETE")
    sandbox.set_price(32000)
    daily.wait_for_phase("halted")
    daily.kill_python()
    assert sandbox.orders(daily.account), "it died too late to show anything"
    assert markets["daily"].position() > 0
    halted_at = daily.read("ledger.json")["halt"]["at"]
    assert daily.log().count("RISK_HALT limit=max_daily_loss value=2") == 1
    sandbox.heal()
    # The other loss limit is not reached yet: a bot that has lost 22 of at most 30 goes on.
    wait_for_grid(sandbox, drawdown, GUIDE_LEVELS[:4], [(price + 500, amount) for price, amount in GUIDE_LEVELS[4:]])
    sandbox.set_price(31490)
    check_halt(markets["drawdown"], "max_drawdown", "30", closed=False)
    check_halt(markets["percent"], "max_drawdown_pct", "2", closed=True)

    # Dead in the middle of its halt, it comes back halted, with nothing on the exchange; resumed too early, it stays.
    daily.resumes = 1
    daily.write_config()
    daily.restart()
    daily.wait_for_phase("halted")
    wait_for("its position is closed", lambda: markets["daily"].position() == 0)
    wait_for("nothing is left to do", lambda: not daily.read("ledger.json")["halt"]["close"])
    assert "RESUME_REFUSED" in daily.log()
    assert sandbox.orders(daily.account) == [] and markets["daily"].buys_since(halted_at) == []
    assert sandbox.balances(daily.account)["BTC"] == D(daily.balances["BTC"])
    assert daily.stop() == 0 and daily.lifecycle["clean"]

    # An hour later (the ledger's clock is set back) a new request is accepted, and the limit counts from there.
    path = daily.folder / "data/ledger.json"
    ledger = json.loads(path.read_text())
    ledger["halt"]["at"] -= 3600
    path.write_text(json.dumps(ledger))
    daily.resumes = 2
    daily.write_config()
    sandbox.set_price(35250)
    daily.restart()
    daily.wait_for_phase("trading")
    wait_for_grid(sandbox, daily, GUIDE_LEVELS, [])
    sandbox.set_price(33000)
    wait_for_grid(sandbox, daily, GUIDE_LEVELS[:6], four)
    assert daily.heartbeat["halted"] is None
    # A start forgets nothing: 9 before it and 13 after it are more than 20.
    assert daily.stop() == 0
    daily.restart()
    daily.wait_for_phase("trading")
    wait_for_grid(sandbox, daily, GUIDE_LEVELS[:6], four)
    sandbox.set_price(32000)
    daily.wait_for_phase("halted")
    again = daily.heartbeat["halted"]
    assert again["code"] == "RISK_MAX_DAILY_LOSS" and again["at"] > halted_at
    wait_for("its position is closed", lambda: markets["daily"].position() == 0)
    assert markets["daily"].buys_since(again["at"]) == []


def rogue_bot(make_bot: MakeBot, tmp_path: Path, **settings: Any) -> tuple[Bot, Callable[..., None]]:
    """A bot that runs tests/engine/rogue.py, and how to have it send orders."""
    agent = tmp_path / "agent"
    shutil.copytree(ROOT / "agent", agent, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/engine/rogue.py", agent / "controllers/generic/rogue.py")
    bot = make_bot(agent=agent, **settings)
    bot.write_file(f"controllers/{bot.bot}.yml", "\n".join([
        f"id: {bot.bot}", "controller_name: rogue", "controller_type: generic", "connector_name: binance",
        "trading_pair: BTC-USDT", "total_amount_quote: 1000", ""]))
    numbers = iter(range(1, 100))

    def send(*orders: tuple[str, ...]) -> None:
        """Side, amount and, of limit orders, price; waits until the controller has sent them all."""
        number, data = next(numbers), bot.folder / "data"
        asked = [dict(zip(("side", "amount", "price"), item, strict=False)) for item in orders]
        temporary = data / "rogue.new"
        temporary.write_text(json.dumps({"id": number, "orders": asked}))
        temporary.chmod(0o644)
        temporary.rename(data / "rogue.json")
        done = data / "rogue.done"
        wait_for("it has sent them", lambda: done.exists() and done.read_text() == str(number))

    return bot, send


def test_the_gate_stops_a_strategy_that_is_out_of_control(
        sandbox: Sandbox, make_bot: MakeBot, tmp_path: Path) -> None:
    """Orders that no plan has seen, sent through the connector: judged at the moment they are sent."""
    bot, send = rogue_bot(make_bot, tmp_path, risk={
        "max_order": 100, "max_position": 250, "max_open_orders": 5, "price_band_pct": 1})
    market = ScriptedMarket(sandbox, bot, max_position=D(250))
    bot.start()

    def stopped() -> int:
        return bot.log().count("ORDER_STOPPED")

    # Within the limits: it reaches the exchange.
    send(("BUY", "0.002", "34000"))
    wait_for("it rests", lambda: sandbox.resting(bot.account, "BUY") == [(D(34000), D("0.002"))])
    # Held back, without a halt: two percent above the market, a little too large, more than is held.
    refused = (("BUY", "0.002", "35955"), ("BUY", "0.003", "34000"), ("SELL", "0.002", "36000"))
    for number, order in enumerate(refused, 1):
        send(order)
        wait_for("it is stopped", lambda number=number: stopped() == number)
    assert len(sandbox.orders(bot.account, "all")) == 1 and bot.heartbeat["halted"] is None
    # A market order that the book would fill two percent above the mid price.
    sandbox.set_price(35250, spread_bps="400")
    market.acted_at = time.time()
    market.settle()
    send(("BUY", "0.002"))
    wait_for("it is stopped", lambda: stopped() == 4)
    sandbox.set_price(35250, spread_bps="2")
    market.acted_at = time.time()
    market.settle()
    assert len(sandbox.orders(bot.account, "all")) == 1
    # Within the band it is bought, and counts as position.
    send(("BUY", "0.002"))
    wait_for("it is held", lambda: market.position() == D("0.002"))
    send(("BUY", "0.0028", "34000"))
    wait_for("the second rests", lambda: len(sandbox.resting(bot.account, "BUY")) == 2)
    market.settle()
    # 68 and 95 rest, 71 is held: no room for another 31.
    send(("BUY", "0.0009", "33900"))
    wait_for("it is stopped", lambda: stopped() == 5)
    assert bot.heartbeat["halted"] is None

    # Far too large, together with small ones: it halts, and nothing that follows leaves either.
    before = len(sandbox.orders(bot.account, "all"))
    send(("BUY", "0.01", "34000"), ("BUY", "0.0003", "34000"), ("BUY", "0.0003"))
    bot.wait_for_phase("halted")
    assert bot.heartbeat["halted"]["code"] == "RISK_MAX_ORDER"
    wait_for("its orders are cancelled", lambda: sandbox.orders(bot.account) == [])
    send(("BUY", "0.0003", "34000"), ("SELL", "0.001"))
    wait_for("all are stopped", lambda: stopped() == 10)
    assert len(sandbox.orders(bot.account, "all")) == before
    assert "RISK_HALT limit=max_order value=340.0000 threshold=100" in bot.log()
    market.check()
    # The position is kept, for the limits do not say otherwise.
    assert market.position() == D("0.002")
    assert bot.stop() == 0


@pytest.mark.parametrize(("limit", "threshold", "value"), [
    ("max_position", 150, "204.0000"), ("max_open_orders", 2, "6.0000")])
def test_a_strategy_far_beyond_a_limit_halts_for_good(
        sandbox: Sandbox, make_bot: MakeBot, tmp_path: Path, limit: str, threshold: int, value: str) -> None:
    """Orders of 68, of which two are within the limit, and a death in the middle of the halt."""
    bot, send = rogue_bot(make_bot, tmp_path, risk={limit: threshold})
    bot.start()
    send(*[("BUY", "0.002", "34000")] * 2)
    wait_for("two are on the exchange", lambda: len(sandbox.orders(bot.account)) == 2)
    sandbox.fault("error", bot.account, path="/api/v3/order", method="DELETE")
    send(*[("BUY", "0.002", "34000")] * 4)
    bot.wait_for_phase("halted")
    bot.kill_python()
    assert len(sandbox.orders(bot.account)) == 2, "it died too late to show anything"
    sandbox.heal()
    # It comes back halted, takes its orders off the exchange, and lets nothing through that the strategy sends.
    bot.restart()
    bot.wait_for_phase("halted")
    wait_for("its orders are cancelled", lambda: sandbox.orders(bot.account) == [])
    wait_for("it is connected", lambda: all(bot.heartbeat["connectors"].values()))
    send(("BUY", "0.0003", "34000"), ("BUY", "0.0003"))
    wait_for("all others are stopped", lambda: bot.log().count("ORDER_STOPPED") == 4 + 2)
    assert len(sandbox.orders(bot.account, "all")) == 2
    assert bot.heartbeat["halted"]["code"] == f"RISK_{limit.upper()}"
    assert f"RISK_HALT limit={limit} value={value} threshold={threshold}" in bot.log()
    assert bot.stop() == 0


def test_orders_that_waited_for_the_rate_limit_do_not_leave_a_halted_bot(
        sandbox: Sandbox, make_bot: MakeBot, tmp_path: Path) -> None:
    """The engine queues what exceeds the exchange's rate limit, for minutes if need be."""
    bot, send = rogue_bot(make_bot, tmp_path, risk={"max_order": 100})
    bot.start()
    # The engine sends a hundred in ten seconds; the others wait.
    send(*[("BUY", "0.0003", "34000")] * 130)
    wait_for("the first ones rest", lambda: len(sandbox.orders(bot.account)) > 20)
    send(("BUY", "0.01", "34000"))
    bot.wait_for_phase("halted")
    # ORDER_STOPPED is one of the lines of which a log has only the first ones when they come in numbers.
    wait_for("each has arrived or was stopped", lambda: (
        len(sandbox.orders(bot.account, "all")) + bot.log().count(" has failed. Order Update") == 131))
    # What was on its way at that moment may have arrived.
    at = bot.heartbeat["halted"]["at"]
    assert [item for item in sandbox.orders(bot.account, "all") if item["time"] > (at + 1) * 1000] == []
    assert bot.log().count("ORDER_STOPPED") > 1, "no order waited"
    wait_for("its orders are cancelled", lambda: sandbox.orders(bot.account) == [])
    assert bot.stop() == 0
