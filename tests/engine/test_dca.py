"""Dollar-cost averaging on the real engine: a ladder through its cycles, purchases by the schedule."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest

from tests.engine.harness import Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket

pytestmark = pytest.mark.engine

MakeBot = Callable[..., Bot]
D = Decimal
TICK = D("0.01")
LADDER = {
    "mode": "ladder", "spreads_pct": (D(0), D(2), D(5)), "amounts_quote": (D(100), D(200), D(400)),
    "take_profit_pct": D(2), "stop_loss_pct": D(20), "cooldown_s": 3, "repeat": True,
}
INTERVAL = {"mode": "interval", "order_amount": D(100), "interval_s": 10, "dip_pct": D(10), "dip_multiplier": D(2)}
# 100 at 35000, 200 at 2 % below, 400 at 5 % below, in lots of 0.00001.
FIRST, SECOND, THIRD = D("0.00285"), (D(34300), D("0.00583")), (D(33250), D("0.01203"))


def fills_of(sandbox: Sandbox, bot: Bot, since: int = 0) -> list[dict[str, Any]]:
    """The bot's fills but for the first ``since``."""
    return sandbox.fills(bot.account)[since:]


def sale_of(fills: list[dict[str, Any]], take_profit_pct: int) -> tuple[Decimal, Decimal]:
    """Price and amount of the one sale that belongs to these purchases."""
    amount = sum(D(fill["quantity"]) for fill in fills)
    cost = sum(D(fill["quote_quantity"]) for fill in fills)
    price = cost / amount * (100 + take_profit_pct) / 100
    return (price / TICK).to_integral_value(ROUND_CEILING) * TICK, D(amount)


def wait_for_ladder(
    sandbox: Sandbox, bot: Bot, buys: list[tuple[Decimal, Decimal]], take_profit_pct: int | None, since: int = 0
) -> None:
    """Wait until exactly these buys rest, and one sale of everything at the average price plus the profit."""
    def wanted() -> list[tuple[Decimal, Decimal]]:
        fills = fills_of(sandbox, bot, since)
        return [] if take_profit_pct is None or not fills else [sale_of(fills, take_profit_pct)]

    def rests() -> bool:
        sells = sandbox.resting(bot.account, "SELL")
        assert len(sells) <= 1, f"more than one sale: {sells}"
        return sandbox.resting(bot.account, "BUY") == sorted(buys) and sells == wanted() and (
            take_profit_pct is None or bool(sells))

    try:
        wait_for("exactly the wanted orders rest", rests)
    except AssertionError as error:
        seen = sandbox.resting(bot.account, "BUY"), sandbox.resting(bot.account, "SELL")
        raise AssertionError(
            f"{error}\nwanted {buys} {wanted()}\nseen {seen}\n{bot.heartbeat}\n{bot.log()[-4000:]}") from None


def strategy_of(bot: Bot) -> dict[str, Any]:
    """What the strategy remembers, as it is on disk."""
    return dict(bot.read("ledger.json").get("strategy") or {})


def change(bot: Bot, **fields: Any) -> None:
    """A live change."""
    bot.config.update(fields)
    bot.write_config()


def wait_until_in_force(bot: Bot) -> None:
    """Wait until the bot trades by its present file."""
    content = (bot.folder / f"config/controllers/{bot.bot}.yml").read_bytes()
    wait_for("the change is in force", lambda: bot.heartbeat["config_digest"] == hashlib.sha256(content).hexdigest())


def test_life_of_a_ladder(sandbox: Sandbox, make_bot: MakeBot) -> None:
    """Cycles from first buy to last sale, with everything that may come in between."""
    sandbox.set_price(35000)
    bot = make_bot(template="dca", config=dict(LADDER))
    sandbox.set_price(35000)
    bot.start()
    market = ScriptedMarket(sandbox, bot, max_position=D(701))

    # The first level buys at market and is for sale at once; the others rest at their spreads.
    wait_for_ladder(sandbox, bot, [THIRD, SECOND], 2)
    [first] = fills_of(sandbox, bot)
    assert (D(first["quantity"]), D(first["price"])) == (FIRST, D("35003.5"))
    assert {item["type"] for item in sandbox.orders(bot.account) if item["side"] == "BUY"} == {"LIMIT"}
    market.flat()

    # A level fills in part, then wholly: the one sale follows, never two of them.
    partly = next(item for item in sandbox.orders(bot.account) if D(item["price"]) == SECOND[0])
    sandbox.control.request("POST", "/fill", {"order_id": partly["order_id"], "quantity": "0.00200"})
    wait_for_ladder(sandbox, bot, [THIRD, SECOND], 2)
    assert sandbox.resting(bot.account, "SELL")[0][1] == FIRST + D("0.00200")

    # Stopped in the middle, it keeps the position and cancels the rest; the next start goes on where it was.
    held = sandbox.balances(bot.account)
    assert bot.stop() == 0 and sandbox.orders(bot.account) == []
    bot.restart()
    wait_for_ladder(sandbox, bot, [THIRD, (SECOND[0], D("0.00383"))], 2)
    assert sandbox.balances(bot.account) == held and strategy_of(bot)["cycle"] == 1
    sandbox.set_price(34250)
    wait_for_ladder(sandbox, bot, [THIRD], 2)
    assert sandbox.resting(bot.account, "SELL")[0][1] == FIRST + SECOND[1]
    assert bot.stop() == 0
    bot.restart()
    wait_for_ladder(sandbox, bot, [THIRD], 2)

    # Live: the sale moves with the profit, what has not been bought with spreads and amounts, in the same process.
    pid, changed_at = bot.pid(), time.monotonic()
    change(bot, take_profit_pct=D(3), spreads_pct=(D(1), D(2), D(6)), amounts_quote=(D(100), D(200), D(300)))
    wait_for_ladder(sandbox, bot, [(D(32900), D("0.00911"))], 3)
    print(f"live change took {time.monotonic() - changed_at:.1f} s")
    change(bot, spreads_pct=LADDER["spreads_pct"], amounts_quote=LADDER["amounts_quote"])
    wait_for_ladder(sandbox, bot, [THIRD], 3)
    change(bot, mode="interval", order_amount=D(100), interval_s=60)
    wait_for("the refusal is logged", lambda: "CONFIG_REJECTED" in bot.log())
    del bot.config["order_amount"], bot.config["interval_s"]
    change(bot, mode="ladder")
    assert bot.pid() == pid

    # The last level fills while the exchange is gone, and the exchange refuses the new sale twice.
    sandbox.fault("error", bot.account, path="/api/v3/order", method="POST", count=2, status=400, code=-2010,
                  message="This action is disabled on this account.")
    sandbox.fault("outage")
    wait_for("the bot notices", lambda: not all(bot.heartbeat["connectors"].values()))
    sandbox.set_price(33200)
    for fault in sandbox.control.get("/faults")["faults"]:
        if fault["kind"] == "outage":
            sandbox.control.request("DELETE", f"/faults/{fault['id']}")
    wait_for_ladder(sandbox, bot, [], 3)
    sandbox.heal()
    assert sandbox.resting(bot.account, "SELL")[0][1] == FIRST + SECOND[1] + THIRD[1]
    assert "ORDER_REFUSED c1-sale" in bot.log()

    # The recovery sells all; after the pause the next cycle begins at the price of that moment.
    count = len(fills_of(sandbox, bot))
    sandbox.set_price(36000)
    wait_for_ladder(sandbox, bot, [(D(35280), D("0.00566")), (D(34200), D("0.01169"))], 3, since=count + 1)
    sold, bought = fills_of(sandbox, bot, count)
    assert (sold["side"], D(sold["quantity"])) == ("SELL", FIRST + SECOND[1] + THIRD[1])
    assert bought["time"] - sold["time"] >= 3000, "the cooldown was not kept"
    assert strategy_of(bot)["cycle"] == 2

    # A level is passed while the bot is cut off from what the exchange tells.
    market.gap(34900)
    wait_for_ladder(sandbox, bot, [(D(34200), D("0.01169"))], 3, since=count + 1)

    # A gap below the stop loss sells all at market; without repeat that was it.
    change(bot, repeat=False)
    wait_until_in_force(bot)
    market.check()
    sandbox.set_price(25000)
    bot.wait_for_phase("halted")
    wait_for("all is sold", lambda: market.position() == 0 and sandbox.orders(bot.account) == [])
    sale = fills_of(sandbox, bot)[-1]
    assert sale["side"] == "SELL" and D(sale["price"]) == D("24997.5")
    assert D(sale["quantity"]) == sum(D(fill["quantity"]) for fill in fills_of(sandbox, bot, count + 1)[:-1])
    assert bot.heartbeat["halted"]["code"] == "DCA_FINISHED" and "DCA_STOP_LOSS cycle 2" in bot.log()
    assert "RISK_HALT" not in bot.log()
    market.check()

    # Resumed, it begins anew.
    assert bot.stop() == 0
    count = len(fills_of(sandbox, bot))
    bot.resumes = 1
    bot.write_config()
    bot.restart()
    wait_for_ladder(sandbox, bot, [(D(24500), D("0.00816")), (D(23750), D("0.01684"))], 3, since=count)
    assert strategy_of(bot)["cycle"] == 3


def test_purchases_at_intervals(sandbox: Sandbox, make_bot: MakeBot) -> None:
    """The schedule is kept: no point twice, none that was missed, none for want of money again and again."""
    bot = make_bot(template="dca", config=dict(INTERVAL), balances={"USDT": "20000"})
    sandbox.set_price(35000)
    bot.start()
    market = ScriptedMarket(sandbox, bot)

    def purchases() -> list[dict[str, Any]]:
        return sandbox.orders(bot.account, "all")

    def wait_for_purchases(count: int) -> dict[str, Any]:
        wait_for(f"{count} purchases", lambda: len(fills_of(sandbox, bot)) >= count)
        return purchases()[count - 1]

    def is_point(moment: float) -> bool:
        return abs((moment - anchor) / 10 - round((moment - anchor) / 10)) < 1e-3

    def spent(count: int) -> Decimal:
        return D(fills_of(sandbox, bot)[count - 1]["quote_quantity"])

    # The first purchase is at the start, each further one at a point of the schedule.
    first = wait_for_purchases(1)
    assert (first["type"], D(first["quantity"])) == ("MARKET", D("0.00285"))
    anchor = wait_for("the schedule is written down", lambda: strategy_of(bot).get("next_at"))
    assert first["time"] / 1000 >= anchor - 10
    wait_for_purchases(2)
    for number, order in enumerate(purchases()):
        assert order["time"] / 1000 >= anchor + (number - 1) * 10, "a purchase came before its time"
    wait_for("the position is known", lambda: D(bot.heartbeat["position"]["base"]) == market.position())

    # In a dip it buys twice as much; a live change of the amount is for the next purchase, in the same process.
    pid, before = bot.pid(), len(purchases())
    sandbox.set_price(30000)
    wait_for_purchases(before + 1)
    assert 199 < spent(before + 1) <= 200
    change(bot, order_amount=D(150))
    wait_until_in_force(bot)
    before = len(purchases())
    wait_for_purchases(before + 1)
    assert 149 < spent(before + 1) <= 150, "it is no dip below the last purchase"
    assert bot.pid() == pid

    # Stopped for longer than an interval: nothing is made up, and it goes on at a point of the schedule.
    assert bot.stop() == 0
    before, stopped = len(purchases()), strategy_of(bot)["next_at"]
    wait_for("more than an interval passes", lambda: time.time() > stopped + 12)
    bot.restart()
    bot.wait_for_phase("trading")
    order = wait_for_purchases(before + 1)
    assert order["time"] / 1000 >= bot.started_at
    next_at = wait_for("the schedule moves on", lambda: strategy_of(bot)["next_at"] > stopped and
                       strategy_of(bot)["next_at"])
    assert is_point(next_at)
    passed = (order["time"] / 1000 - anchor) // 10 - (bot.started_at - anchor) // 10
    assert passed >= 1, "a point that had passed was made up"

    # Without funds a purchase is left out, with a line; the exchange is not asked again and again.
    free = D(sandbox.control.get(f"/account/{bot.account}")["balances"]["USDT"]["free"])
    sandbox.control.request("POST", f"/account/{bot.account}/deposit",
                            {"balances": {"USDT": f"{free - 5:f}"}, "withdraw": True})
    wait_for("a purchase is left out", lambda: "PURCHASE_SKIPPED" in bot.log())
    assert "PURCHASE_SKIPPED INSUFFICIENT_FUNDS 150 wanted, 5 free" in bot.log()
    assert sandbox.refusals(bot.account) == {}
    before = len(purchases())
    sandbox.control.request("POST", f"/account/{bot.account}/deposit", {"balances": {"USDT": "1000"}})
    wait_for_purchases(before + 1)

    # One that the exchange refuses is not tried again either.
    before = len(fills_of(sandbox, bot))
    sandbox.fault("error", bot.account, path="/api/v3/order", method="POST", count=1, status=400, code=-2010,
                  message="This action is disabled on this account.")
    wait_for("the refusal is told", lambda: "was refused" in bot.log())
    refused_at = strategy_of(bot)["next_at"]
    order = wait_for_purchases(before + 1)
    assert order["time"] / 1000 >= refused_at

    # A live change of the interval counts from the last point.
    change(bot, interval_s=3600)
    wait_for("the next one is far", lambda: strategy_of(bot)["interval_s"] == 3600)
    point = strategy_of(bot)["next_at"]
    assert is_point(point) and point > time.time() + 3500
    assert bot.stop() == 0 and sandbox.orders(bot.account) == []
    assert D(bot.lifecycle["position_base"]) == market.position() > 0
    market.check()
