"""Signals on the real engine, in every scripted market: an order for each signal, whatever the market makes of it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.engine.broker import Broker
from tests.engine.harness import Bot, Sandbox, wait_for
from tests.engine.markets import ScriptedMarket
from tests.engine.test_signals import LOT, Account, accepted, worth

pytestmark = pytest.mark.engine

D = Decimal
MakeBot = Callable[..., Bot]


def test_signals_in_every_market(sandbox: Sandbox, make_bot: MakeBot, broker: Broker) -> None:
    bot = make_bot(bot="s3", template="signal_webhook", config={"stop_loss_pct": 2, "take_profit_pct": 4},
                   risk={"max_position": 400, "max_order": 200})
    account, market = Account(sandbox, bot), ScriptedMarket(sandbox, bot, max_position=D(400))
    sandbox.set_price(40000)
    broker.start(bot)
    bot.start()

    def buy(size: int = 200) -> Decimal:
        accepted(broker, bot, "buy", size)
        return account.wait_for(None)

    def new_orders() -> list[str]:
        """Side, and what became of it, of the orders since the last look."""
        made = sorted(sandbox.orders(bot.account, "all"), key=lambda item: item["order_id"])[len(looked_at):]
        looked_at.extend(item["order_id"] for item in made)
        return [f"{item['side']} {item['status']}" for item in made]

    looked_at: list[int] = []

    # Flat: without a signal nothing happens.
    market.flat()
    assert new_orders() == []

    # The book has half of it: half is held, nothing rests, and no second order makes up for it.
    sandbox.fault("thin_book", bot.account, count=1)
    held = buy()
    market.flat(beats=1)
    assert (held, new_orders()) == (worth(200, 40000) / 2 // LOT * LOT, ["BUY EXPIRED"])

    # Whipsaw between the exits; then a gap through the stop while it is cut off: sold once.
    market.whipsaw(39500, 40500)
    assert account.held == held and new_orders() == []
    market.gap(38000)
    account.wait_for(D(0))
    assert new_orders() == ["SELL FILLED"]

    # A crash through the stop, and again the book has half: an exit goes on until everything is sold.
    buy()
    sandbox.fault("thin_book", bot.account, count=1)
    market.crash(37000)
    account.wait_for(D(0))
    assert new_orders() == ["BUY FILLED", "SELL EXPIRED", "SELL FILLED"]

    # So does a close; a sale of a size does not: what the book did not take is held.
    buy()
    sandbox.fault("thin_book", bot.account, count=1)
    accepted(broker, bot, "close")
    account.wait_for(D(0))
    assert new_orders() == ["BUY FILLED", "SELL EXPIRED", "SELL FILLED"]
    held = buy()
    sandbox.fault("thin_book", bot.account, count=1)
    accepted(broker, bot, "sell", 100)
    account.wait_for(held - worth(100, 37000) / 2 // LOT * LOT)
    market.flat(beats=1)
    assert new_orders() == ["BUY FILLED", "SELL EXPIRED"]
    accepted(broker, bot, "close")
    account.wait_for(D(0))
    assert new_orders() == ["SELL FILLED"]

    # A trend up to the take profit, the sale refused twice before it is taken.
    buy()
    sandbox.fault("error", bot.account, path="/api/v3/order", method="POST", count=2, status=400, code=-2010,
                  message="This action is disabled on this account.")
    market.trend(38600, start=37000)
    account.wait_for(D(0))
    assert new_orders() == ["BUY FILLED", "SELL FILLED"]

    # The exchange is gone while the price falls through the stop.
    buy()
    market.outage(37600)
    account.wait_for(D(0))
    assert new_orders() == ["BUY FILLED", "SELL FILLED"]

    # Without funds nothing is bought, whatever the bot believes, and nothing later in its place.
    free = D(sandbox.control.get(f"/account/{bot.account}")["balances"]["USDT"]["free"])
    sandbox.fault("insufficient_balance", bot.account)
    sandbox.control.request("POST", f"/account/{bot.account}/deposit", {"balances": {"USDT": f"{free}"},
                                                                        "withdraw": True})
    wait_for("it knows", lambda: broker.send(bot, "buy", 200)["code"] == "too_large")
    sandbox.control.request("POST", f"/account/{bot.account}/deposit", {"balances": {"USDT": f"{free}"}})
    sandbox.heal()
    market.flat(beats=1)
    assert account.held == 0 and new_orders() == []

    # A stop and a start, and a kill, with a position: it is held once, and still watched.
    held = buy()
    assert bot.stop() == 0
    for _ in range(2):
        bot.restart()
        bot.wait_for_phase("trading")
        account.wait_for(held)
        bot.kill_python()
    bot.restart()
    bot.wait_for_phase("trading")
    account.wait_for(held)
    assert new_orders() == ["BUY FILLED"]
    market.crash(36000)
    account.wait_for(D(0))
    assert new_orders() == ["SELL FILLED"]
    market.check()
    assert "CRITICAL" not in bot.log()
    assert bot.stop() == 0
