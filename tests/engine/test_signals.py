"""Signals on the real engine: from the broker to the order, and what becomes of them when things go wrong."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tests.engine.broker import Broker
from tests.engine.harness import ROOT, Bot, Sandbox, docker, wait_for

pytestmark = pytest.mark.engine

D = Decimal
MakeBot = Callable[..., Bot]
LOT = D("0.00001")


def worth(quote: int, price: int) -> Decimal:
    """So much quote at this price, in whole lots."""
    return D(int(D(quote) / price / LOT)) * LOT


class Account:
    """What the exchange knows of a bot: its position above the deposit, and every order."""

    def __init__(self, sandbox: Sandbox, bot: Bot) -> None:
        self.sandbox, self.bot = sandbox, bot

    @property
    def held(self) -> Decimal:
        """Base beyond the deposit."""
        return self.sandbox.balances(self.bot.account)["BTC"] - D(self.bot.balances["BTC"])

    def orders(self) -> list[tuple[str, Decimal]]:
        """Side and amount of every order ever, oldest first."""
        made = sorted(self.sandbox.orders(self.bot.account, "all"), key=lambda item: item["order_id"])
        assert all(item["type"] == "MARKET" for item in made)
        return [(item["side"], D(item["quantity"])) for item in made]

    def wait_for(self, held: Decimal | None) -> Decimal:
        """Wait until exchange and bot agree that it holds this (None: anything) and no order is under way."""
        def settled() -> bool:
            heart, has = self.bot.heartbeat, self.held
            wanted = has > 0 if held is None else has == held
            return wanted and has == D(heart["position"]["base"]) and heart["open_orders"] == 0

        try:
            wait_for(f"a position of {held or 'anything'}", settled)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.held}\n{self.bot.heartbeat}\n{self.bot.log()[-6000:]}") from None
        return self.held


def test_life_of_signals(sandbox: Sandbox, make_bot: MakeBot, broker: Broker) -> None:
    bot = make_bot(bot="s1", template="signal_webhook", config={"order_amount": 150},
                   risk={"max_position": 1000, "max_order": 500, "max_daily_loss": 200})
    account = Account(sandbox, bot)
    sandbox.set_price(40000)

    # Without a broker it runs and says so, and finds it when it is there.
    bot.start()
    wait_for("it says that signals do not arrive", lambda: "BROKER_UNREACHABLE" in bot.heartbeat["waiting"])
    broker.start(bot)
    wait_for("it has found the broker", lambda: "BROKER_UNREACHABLE" not in bot.heartbeat["waiting"])

    # An accepted signal is an order at once.
    wait_for("it trades", lambda: all(bot.heartbeat["connectors"].values()))
    answer = broker.send(bot, "buy", 200, id="first")
    assert (answer["accepted"], answer["code"]) == (True, "accepted")
    bought = worth(200, 40000)
    account.wait_for(bought)
    [order] = sandbox.orders(bot.account, "all")
    assert (order["side"], D(order["quantity"])) == ("BUY", bought)
    print(f"signal -> answer {answer['at'] - answer['sent_at']:.3f} s, "
          f"signal -> order on the exchange {order['time'] / 1000 - answer['sent_at']:.3f} s")

    # Refusals, each with its code and none with an order.
    now = time.time()
    for code, action, size, fields in (
        ("duplicate", "buy", 200, {"id": "first"}),
        ("expired", "buy", 200, {"sent_at": now - 9, "expires_at": now - 1}),
        ("expired", "buy", 200, {"sent_at": now - 31, "expires_at": now + 60}),
        ("too_large", "buy", 501, {}),
        ("invalid", "sing", 200, {}),
        ("invalid", "buy", None, {"size_quote": 200}),
        ("invalid", "buy", 1, {}),
        ("no_size", "sell", None, {}),
    ):
        answer = broker.send(bot, action, size, **fields)
        assert (answer["accepted"], answer["code"]) == (False, code), answer
    for nonsense in ("buy", ["buy"], {"action": "buy"}, {"id": 7}, None):
        broker.hand_over(bot, nonsense)
    assert account.orders() == [("BUY", bought)]

    # A part is sold, then all of it; then there is nothing left to sell. The bot's own coin is never touched.
    assert broker.send(bot, "sell", 100)["accepted"]
    account.wait_for(bought - worth(100, 40000))
    assert broker.send(bot, "close")["accepted"]
    account.wait_for(D(0))
    assert [broker.send(bot, action, 100 if action == "sell" else None)["code"] for action in ("sell", "close")] == [
        "no_position"] * 2
    assert account.orders()[1:] == [("SELL", worth(100, 40000)), ("SELL", bought - worth(100, 40000))]

    # The broker is restarted; what the bot's own order_amount says is bought.
    broker.restart()
    assert broker.send(bot, "buy")["accepted"]
    held = account.wait_for(worth(150, 40000))

    # Exits, switched on while it runs: take profit, stop loss, trailing stop, time limit.
    for exits, prices, kind in (
        ({"take_profit_pct": 2}, (40700, 40900), "TAKE_PROFIT"),
        ({"stop_loss_pct": 2}, (39300, 39100), "STOP_LOSS"),
        ({"trailing_activation_pct": 3, "trailing_delta_pct": 1}, (41400, 40900), "TRAILING_STOP"),
        ({"time_limit_s": 2}, (), "TIME_LIMIT"),
    ):
        if not account.held:
            sandbox.set_price(40000)
            accepted(broker, bot, "buy")
            # The bot may have seen the former price still: it then buys a little less.
            held = account.wait_for(None)
        bot.config = {"order_amount": 150, **exits}
        apply_config(bot)
        for price in prices[:-1]:
            # Not yet: it has seen this price for a whole round of its own.
            sandbox.set_price(price)
            wait_for_round_at(bot, D(price))
            assert account.held == held, kind
        if prices:
            sandbox.set_price(prices[-1])
        account.wait_for(D(0))
        assert f"SIGNAL_{kind} " in bot.log()
    bot.config = {"order_amount": 150}
    apply_config(bot)
    sandbox.set_price(40000)

    # Cut off from the exchange it says so; afterwards it trades again.
    accepted(broker, bot, "buy")
    account.wait_for(None)
    made = account.orders()
    sandbox.fault("outage", bot.account)
    outage_at, codes = time.monotonic(), []

    def refused() -> bool:
        codes.append(broker.send(bot, "close")["code"])
        return bool(codes[-1] == "not_connected")

    wait_for("it knows that the exchange is gone", refused)
    print(f"outage known after {time.monotonic() - outage_at:.1f} s; answers until then: {codes}")
    assert account.orders() == made
    sandbox.heal()
    wait_for("it is connected again", lambda: broker.send(bot, "close")["code"] != "not_connected")
    account.wait_for(D(0))

    # Refused by the exchange, a signal is spent. Taken with the answer lost, its order counts, once.
    count = len(account.orders())
    sandbox.fault("error", bot.account, path="/api/v3/order", method="POST", count=1)
    accepted(broker, bot, "buy")
    wait_for("the exchange has refused", lambda: "failed" in bot.log())
    sandbox.fault("lost_response", bot.account, path="/api/v3/order", method="POST", count=1)
    accepted(broker, bot, "buy")
    account.wait_for(None)
    assert [side for side, _ in account.orders()[count:]] == ["BUY"]
    accepted(broker, bot, "close")
    account.wait_for(D(0))

    # A loss limit halts it: no signal is taken any more.
    accepted(broker, bot, "buy", 450)
    held = account.wait_for(None)
    sandbox.set_price(20000)
    bot.wait_for_phase("halted")
    for action in ("buy", "close"):
        answer = broker.send(bot, action)
        assert (answer["code"], answer["accepted"]) == ("halted", False) and "RISK_MAX_DAILY_LOSS" in answer["reason"]
    assert account.held == held

    # The password is nowhere but in its file and in the engine's private one.
    assert bot.execute("stat", "-c", "%a", "/home/hummingbot/conf/conf_client.yml").strip() == "600"
    seen = bot.log() + docker("inspect", bot.name).stdout
    for file in [*(bot.folder / "data").rglob("*"), *(bot.folder / "logs").rglob("*"),
                 *(bot.folder / "config").rglob("*")]:
        seen += file.read_bytes().decode("latin-1") if file.is_file() else ""
    assert "SIGNAL_ORDER" in seen and bot.broker_password not in seen
    assert bot.stop() == 0


def accepted(broker: Broker, bot: Bot, action: str, size: int | None = None, **fields: float) -> None:
    """Send it as often as the bot is busy or not quite connected; it must then be accepted."""
    def answered() -> bool:
        return broker.send(bot, action, size, **fields)["code"] not in ("busy", "not_connected")

    wait_for("the bot is ready for a signal", answered)
    assert broker.answers[-1]["accepted"], broker.answers[-1]


def apply_config(bot: Bot) -> None:
    """Write the live file and wait until the bot has taken it over."""
    before = bot.heartbeat["config_digest"]
    bot.write_config()
    wait_for("the new configuration is in force", lambda: bot.heartbeat["config_digest"] != before)


def wait_for_round_at(bot: Bot, price: Decimal) -> None:
    """Wait until the bot has valued its position at this price, in two heartbeats."""
    beats: set[float] = set()

    def seen() -> bool:
        heart = bot.heartbeat
        held, risk = D(heart["position"]["base"]), heart["risk"]
        if abs(D(risk["position"]) - held * price) < D("0.5"):
            beats.add(heart["at"])
        return len(beats) >= 2

    wait_for(f"the bot has seen {price}", seen)


def faulty_agent(folder: Path) -> Path:
    """The agent with two faults: no order is made while ``held_up`` exists; ``die`` kills it before one is sent."""
    shutil.copytree(ROOT / "agent", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, path, place, fault in (
        ("held_up", "controllers/generic/hummingfleet_signal.py",
         "        making, self._making = self._making, None\n", "return False"),
        ("die", "hummingfleet_agent/runtime.py",
         "        if client_id in self.closing:\n            return\n", "os.kill(os.getpid(), 9)"),
    ):
        text = (folder / path).read_text()
        assert text.count(place) == 1
        code = f"        import os\n        if os.path.exists('/home/hummingbot/data/{name}'):\n            {fault}\n"
        (folder / path).write_text(text.replace(place, code + place))
    return folder


def test_a_killed_bot_trades_no_signal_twice_or_late(
    sandbox: Sandbox, make_bot: MakeBot, broker: Broker, tmp_path: Path
) -> None:
    bot = make_bot(bot="s2", template="signal_webhook", config={"max_signal_age_s": 300},
                   risk={"max_position": 1000}, agent=faulty_agent(tmp_path / "agent"))
    account = Account(sandbox, bot)
    sandbox.set_price(40000)
    broker.start(bot)
    bot.start()
    accepted(broker, bot, "buy", 100)
    account.wait_for(worth(100, 40000))

    held_up, die = bot.folder / "data/held_up", bot.folder / "data/die"

    # Killed between the answer and the order, with time left: traded once, on top of what was held.
    held_up.touch()
    accepted(broker, bot, "buy", 200, expires_at=time.time() + 290)
    bot.kill_python()
    held_up.unlink()
    assert account.orders() == [("BUY", worth(100, 40000))]
    bot.restart()
    bot.wait_for_phase("trading")
    held = worth(100, 40000) + worth(200, 40000)
    account.wait_for(held)

    # The same, and it comes back too late.
    late = time.time() + 8
    held_up.touch()
    accepted(broker, bot, "buy", 300, expires_at=late)
    bot.kill_python()
    held_up.unlink()
    wait_for("the signal has expired", lambda: time.time() > late)
    bot.restart()
    bot.wait_for_phase("trading")
    wait_for("it says so", lambda: "SIGNAL_EXPIRED" in bot.log())

    # The order is written down and never sent: it may have been, so it counts as made.
    die.touch()
    now = time.time()
    broker.hand_over(bot, {"id": "once", "action": "buy", "size_quote": "400", "sent_at": now, "expires_at": now + 290})
    wait_for("it has died", lambda: not bot.is_running())
    die.unlink()
    bot.restart()
    bot.wait_for_phase("trading")
    assert broker.send(bot, "buy", 400, id="once")["code"] == "duplicate"
    assert broker.send(bot, "close")["accepted"]
    account.wait_for(D(0))
    assert account.orders() == [("BUY", worth(100, 40000)), ("BUY", worth(200, 40000)), ("SELL", held)]
    assert sandbox.bad_signatures(bot.account) == 0
