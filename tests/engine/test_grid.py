"""The grid on the real engine: its orders, its stop and restart, and what it does when things go wrong."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from tests.engine.harness import GUIDE_GRID, Bot, Sandbox, docker, wait_for

pytestmark = pytest.mark.engine

MakeBot = Callable[..., Bot]
D = Decimal


def levels(low: int, high: int, count: int, quote: int) -> list[tuple[Decimal, Decimal]]:
    """The buys of a grid whose lines are whole numbers, worked out by hand: price and amount, lot 0.00001."""
    step = (high - low) // count
    return [(D(low + i * step), D(int(D(quote) / (low + i * step) * 100000)) / 100000) for i in range(count)]


GUIDE_LEVELS = levels(30000, 35000, 10, 100)


def wait_for_grid(
    sandbox: Sandbox, bot: Bot, buys: list[tuple[Decimal, Decimal]], sells: list[tuple[Decimal, Decimal]]
) -> None:
    """Wait until exactly these orders rest."""
    def rests() -> bool:
        return sandbox.resting(bot.account, "BUY") == buys and sandbox.resting(bot.account, "SELL") == sells

    try:
        wait_for("exactly the wanted orders rest", rests)
    except AssertionError:
        seen = sandbox.resting(bot.account, "BUY"), sandbox.resting(bot.account, "SELL")
        raise AssertionError(f"wanted {buys} {sells}\nseen {seen}\n{bot.heartbeat}\n{bot.log()[-4000:]}") from None


def exposure(sandbox: Sandbox, bot: Bot) -> Decimal:
    """Quote in resting buys plus base above the deposit, at cost 33000 or so: only good for comparing."""
    buys = sum(price * amount for price, amount in sandbox.resting(bot.account, "BUY"))
    return buys + (sandbox.balances(bot.account)["BTC"] - D(bot.balances["BTC"])) * 34000


def test_life_of_a_grid(sandbox: Sandbox, make_bot: MakeBot) -> None:
    """Levels, round trips, live changes, stop, restart: one bot, one process after the other."""
    bot = make_bot()
    bot.start()

    # Exactly the ten levels, in the asked-for amounts.
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    assert bot.lifecycle["state"] == "running" and not bot.lifecycle["clean"]

    # The ledger knows the exchange's numbers of them.
    numbers = {order["client_order_id"]: str(order["order_id"]) for order in sandbox.orders(bot.account)}

    def written() -> dict[str, str | None]:
        orders = bot.read("ledger.json").get("orders", {})
        return {client_id: order["exchange_id"] for client_id, order in orders.items() if client_id in numbers}

    wait_for("they are numbered", lambda: written() == numbers)

    # What a level buys it sells one step higher, and then it buys again.
    sandbox.set_price(33900)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:8], [(D(34500), GUIDE_LEVELS[8][1]), (D(35000), GUIDE_LEVELS[9][1])])
    sandbox.set_price(34600)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), GUIDE_LEVELS[9][1])])
    held = GUIDE_LEVELS[9][1]
    wait_for("the heartbeat tells the position", lambda: bot.heartbeat["position"]["base"] == f"{held:f}")
    assert bot.heartbeat["fills"] == 3

    # A live change of the amount re-plans resting buys in the same process; the held lot keeps its order.
    pid, lot = bot.pid(), sandbox.orders(bot.account)
    kept = {item["order_id"] for item in lot if item["side"] == "SELL"}
    bot.config["order_amount"] = 120
    changed_at = time.monotonic()
    bot.write_config()
    wait_for_grid(sandbox, bot, levels(30000, 35000, 10, 120)[:9], [(D(35000), held)])
    print(f"live change of order_amount took {time.monotonic() - changed_at:.1f} s")
    assert bot.pid() == pid and kept <= {item["order_id"] for item in sandbox.orders(bot.account)}

    # New bounds and count: orders of vanished levels go, the lot of a vanished level is sold at its own price.
    bot.config.update(lower_bound=31000, upper_bound=34000, grid_count=6, order_amount=100)
    changed_at = time.monotonic()
    bot.write_config()
    # Six levels may spend 600 in all; the lot of the vanished level cost 99.7 of it: the farthest level must wait.
    wait_for_grid(sandbox, bot, levels(31000, 34000, 6, 100)[1:], [(D(35000), held)])
    print(f"live change of the bounds took {time.monotonic() - changed_at:.1f} s")
    assert bot.pid() == pid

    # Nonsense is refused as a whole; the grid stays as it was.
    path = f"controllers/{bot.bot}.yml"
    good = (bot.folder / "config" / path).read_text()
    digest = hashlib.sha256(good.encode()).hexdigest()
    wait_for("the heartbeat tells what is in force", lambda: bot.heartbeat["config_digest"] == digest)
    bot.write_file(path, good.replace("upper_bound: 34000", "upper_bound: 30999"))
    wait_for("the refusal is logged", lambda: "CONFIG_REJECTED" in bot.log())
    bot.write_file(path, good)
    assert bot.heartbeat["config_digest"] == digest
    wait_for_grid(sandbox, bot, levels(31000, 34000, 6, 100)[1:], [(D(35000), held)])

    # A stop cancels everything, keeps the position, and proves it.
    bot.config.update(GUIDE_GRID)
    bot.write_config()
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), held)])
    before, balances = exposure(sandbox, bot), sandbox.balances(bot.account)
    assert bot.stop() == 0
    assert sandbox.orders(bot.account) == [] and sandbox.balances(bot.account) == balances
    record = bot.lifecycle
    assert (record["state"], record["clean"], record["open_orders"]) == ("stopped", True, 0)
    assert record["verified"] == "exchange"
    assert D(record["position_base"]) == held

    # The next start adopts the position: the same exposure, not a second grid.
    bot.restart()
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), held)])
    assert exposure(sandbox, bot) == before
    assert sandbox.bad_signatures(bot.account) == 0


@pytest.fixture(scope="module")
def running(sandbox: Sandbox, crowd: Callable[..., dict[str, Bot]]) -> dict[str, Bot]:
    """Bots for tests that need no restart. At 35250 each has sold what it held, so every test can begin there."""
    bots = crowd(
        plain={}, poor={"balances": {"USDT": "350"}}, capped={"risk": {"max_position": 450}},
        charged={"fee": "0.001", "balances": {"USDT": "20000"}}, unlucky={})
    sandbox.heal()
    sandbox.set_price(35250)
    # The exchange takes an order and the answer never comes; it fails; it takes one and does not know.
    for kind in ("lost_response", "error", "outcome_unknown"):
        sandbox.fault(kind, bots["unlucky"].account, path="/api/v3/order", method="POST", count=2)
    for bot in bots.values():
        bot.start(wait=False)
    for bot in bots.values():
        bot.wait_for_phase("trading")
    return bots


@pytest.fixture
def begin(sandbox: Sandbox) -> None:
    """The market above all grids."""
    sandbox.heal()
    sandbox.set_price(35250)


@pytest.mark.usefixtures("begin")
def test_insufficient_funds_wait(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    """Stands first: the market has not moved yet."""
    bot = running["poor"]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[7:], [])
    wait_for("it is reported", lambda: "INSUFFICIENT_FUNDS_BUY" in bot.heartbeat["waiting"])
    sandbox.control.request("POST", f"/account/{bot.account}/deposit", {"balances": {"USDT": "1000"}})
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    assert bot.log().count("INSUFFICIENT_FUNDS") == 1


@pytest.mark.usefixtures("begin")
def test_only_levels_below_the_market_buy(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    bot = running["plain"]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    assert all(item["type"] == "LIMIT_MAKER" for item in sandbox.orders(bot.account))
    # New bounds around the market: what lies above it waits.
    bot.config.update(lower_bound=33000, upper_bound=38000)
    bot.write_config()
    moved = levels(33000, 38000, 10, 100)
    wait_for_grid(sandbox, bot, moved[:5], [])
    # A level comes in as soon as the market has passed it, at its own price.
    sandbox.set_price(35600)
    wait_for_grid(sandbox, bot, moved[:6], [])
    bot.config.update(GUIDE_GRID)
    bot.write_config()
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])


@pytest.mark.usefixtures("begin")
def test_inside_the_container(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    """The engine's own commands work, and the password is nowhere."""
    bot = running["plain"]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])

    if bot.has_hbot():
        status = json.loads(bot.execute("hbot", "status", "--json"))
        assert status["running"] and status["name"] == bot.bot and status["pid"] == bot.pid()
        assert "34500" in status["format_status"]
        assert "GRID_PLANNED" in bot.execute("hbot", "logs", "-n", "200")
    assert "GRID_PLANNED" in bot.log()
    assert "GRID_PLANNED" in (bot.folder / f"logs/logs_{bot.bot}.log").read_text()

    seen = bot.log() + docker("inspect", bot.name).stdout + (bot.folder / f"logs/logs_{bot.bot}.log").read_text()
    for number in bot.execute("sh", "-c", "echo /proc/[0-9]*").split():
        for name in ("environ", "cmdline"):
            seen += bot.execute("sh", "-c", f"cat {number}/{name} 2>/dev/null || true")
    for file in (bot.folder / "data").rglob("*"):
        seen += file.read_bytes().decode("latin-1") if file.is_file() else ""
    assert "hummingbot.cli.engine" in seen
    for secret in (bot.password, bot.secret):
        assert secret not in seen and secret.encode().hex() not in seen

    # A second copy on the same data is refused.
    code, _, said = bot.run_mode("settle")
    assert code == 2 and "another process" in said
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])


def test_a_killed_bot_settles_before_it_trades(sandbox: Sandbox, make_bot: MakeBot) -> None:
    bot = make_bot()
    bot.start()
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    bot.kill_python()
    assert bot.exit_code() == 137 and bot.lifecycle["state"] == "running"
    assert len(sandbox.orders(bot.account)) == 10

    # While it is dead one order fills wholly, one in part, and the exchange becomes unreachable.
    sandbox.set_price(34400)
    partly = next(item for item in sandbox.orders(bot.account) if D(item["price"]) == 34000)
    sandbox.control.request("POST", "/fill", {"order_id": partly["order_id"], "quantity": "0.00100"})
    sandbox.fault("outage")
    bot.restart()
    bot.wait_for_phase("settling")
    wait_for("the trouble is logged", lambda: "SETTLE_RETRY" in bot.log())
    assert len(sandbox.orders(bot.account)) == 9

    sandbox.heal()
    bot.wait_for_phase("trading")
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:8], [(D(34500), D("0.00100")), (D(35000), GUIDE_LEVELS[9][1])])
    assert D(bot.heartbeat["position"]["base"]) == D("0.00100") + GUIDE_LEVELS[9][1]

    # Killed again, and this time stopped: settle alone leaves nothing open and accounts for what happened.
    bot.kill_python()
    sandbox.set_price(33700)
    code, record, said = bot.run_mode("settle")
    assert code == 0, said
    assert sandbox.orders(bot.account) == []
    position = D("0.00100") + GUIDE_LEVELS[9][1]
    assert (record["state"], record["clean"], D(record["position_base"])) == ("stopped", True, position)
    assert sandbox.balances(bot.account)["BTC"] == 1 + position

    # Liquidation sells exactly the bot's own position; the account's own coin stays.
    code, record, said = bot.run_mode("liquidate")
    assert code == 0, said
    assert (record["clean"], D(record["position_base"]), D(record["dust_base"])) == (True, 0, 0)
    assert sandbox.balances(bot.account)["BTC"] == 1 and sandbox.orders(bot.account) == []
    assert sandbox.bad_signatures(bot.account) == 0


@pytest.mark.usefixtures("begin")
def test_orders_whose_answer_is_lost_are_not_made_twice(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    """The exchange takes an order and the answer never comes, or comes as "unknown"."""
    bot = running["unlucky"]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    # Fills while the private stream is cut are found all the same.
    sandbox.control.request("POST", "/disconnect", {"kind": "user", "account": bot.account})
    sandbox.set_price(34400)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:9], [(D(35000), GUIDE_LEVELS[9][1])])
    assert bot.stop() == 0
    assert sandbox.orders(bot.account) == []
    assert sandbox.balances(bot.account)["BTC"] == 1 + D(bot.lifecycle["position_base"]) == 1 + GUIDE_LEVELS[9][1]


@pytest.mark.usefixtures("begin")
def test_the_position_limit_holds_buys_back(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    bot = running["capped"]
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:], [])
    sandbox.set_price(34200)
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[6:9], [(D(35000), GUIDE_LEVELS[9][1])])


@pytest.mark.usefixtures("begin")
def test_fees_taken_in_coin(sandbox: Sandbox, running: dict[str, Bot]) -> None:
    """An account without spare coin sells what is left after the fee; liquidation reports the dust."""
    bot = running["charged"]
    wait_for("every level buys", lambda: len(sandbox.resting(bot.account, "BUY")) == 10)
    sandbox.set_price(34400)
    wait_for("the lot is for sale", lambda: sandbox.resting(bot.account, "SELL"))
    [(price, amount)] = sandbox.resting(bot.account, "SELL")
    held = sandbox.balances(bot.account)["BTC"]
    # One lot at the most is left over per level.
    assert price == 35000 and held - 10 * D("0.00001") < amount <= held and held % D("0.00001")
    assert bot.stop() == 0
    assert D(bot.lifecycle["position_base"]) == held
    code, record, said = bot.run_mode("liquidate")
    assert code == 0, said
    dust = sandbox.balances(bot.account)["BTC"]
    assert D(record["position_base"]) == 0 and D(record["dust_base"]) == dust < D("0.00001")


def test_a_loss_limit_halts_until_someone_resumes(sandbox: Sandbox, make_bot: MakeBot) -> None:
    bot = make_bot(risk={"max_position": 10000, "max_daily_loss": 20, "max_drawdown_pct": 50})
    bot.start()
    wait_for_grid(sandbox, bot, GUIDE_LEVELS, [])
    sandbox.set_price(33000)
    # Four levels have bought, and each sells one step higher.
    wait_for_grid(sandbox, bot, GUIDE_LEVELS[:6], [(price + 500, amount) for price, amount in GUIDE_LEVELS[6:]])
    sandbox.set_price(30100)
    bot.wait_for_phase("halted")
    wait_for("no order is open", lambda: sandbox.orders(bot.account) == [])
    assert "RISK_HALT limit=max_daily_loss value=" in bot.log() and bot.log().count("CRITICAL") == 1
    assert bot.heartbeat["halted"]["code"] == "RISK_MAX_DAILY_LOSS"

    # It survives a restart, keeps the position, and ends when the operator says so.
    held = sandbox.balances(bot.account)["BTC"]
    assert bot.stop() == 0
    bot.restart()
    bot.wait_for_phase("halted")
    wait_for("the engine runs", lambda: bot.heartbeat["strategy_running"] and all(bot.heartbeat["connectors"].values()))
    sandbox.set_price(34900)
    assert sandbox.orders(bot.account) == [] and sandbox.balances(bot.account)["BTC"] == held
    assert bot.stop() == 0
    bot.resumes = 1
    bot.write_config()
    bot.restart()
    bot.wait_for_phase("trading")
    wait_for("it trades again", lambda: sandbox.orders(bot.account))


def test_refused_starts_say_why(sandbox: Sandbox, make_bot: MakeBot) -> None:
    """One line and its own exit code each; the exchange never hears of them."""
    bot = make_bot()

    def refusal() -> tuple[int, list[str]]:
        bot.start(wait=False)
        wait_for("it ends", lambda: not bot.is_running())
        return bot.exit_code(), bot.log().strip().splitlines()

    bot.write_password("not the password")
    code, lines = refusal()
    assert code == 4 and len(lines) == 1 and "KEYSTORE the keystore password does not open" in lines[0], lines
    bot.write_password(bot.password)

    bot.write_file("bot.json", json.dumps({"tenant": "acme"}))
    code, lines = refusal()
    assert code == 2 and len(lines) == 1 and "bot.json: bot must match" in lines[0], lines
    bot.write_config()

    verification = bot.folder / "config/password_verification"
    kept = verification.read_text()
    verification.unlink()
    code, lines = refusal()
    assert code == 4 and len(lines) == 1 and "password_verification is missing" in lines[0], lines
    bot.write_file("password_verification", kept)

    # The exchange does not answer: settle gives up after its time, and says that it knows nothing.
    sandbox.fault("outage")
    code, record, said = bot.run_mode("settle", "--timeout", "5")
    assert code == 3 and (record["clean"], record["open_orders"]) == (False, -1), said
    # Asked to stop while it waits to settle, it ends, unverified.
    bot.start(wait=False)
    bot.wait_for_phase("settling")
    sandbox.heal()
    assert bot.stop() == 0
    assert sandbox.orders(bot.account, "all") == []
    stats: dict[str, Any] = sandbox.control.get("/stats")
    assert stats["accounts"][bot.account]["bad_signatures"] == 0


def test_stop_signals_at_any_moment(sandbox: Sandbox, make_bot: MakeBot) -> None:
    bot, lonely = make_bot(bot="b1"), make_bot(bot="b2")
    for item in (bot, lonely):
        item.start(wait=False)
    for item in (bot, lonely):
        item.wait_for_phase("trading")
        wait_for("orders rest", lambda account=item.account: sandbox.orders(account))

    # The exchange is gone in the middle of trading: the stop ends in time and tells the truth.
    lonely.cut_off()
    with ThreadPoolExecutor() as elsewhere:
        unverified = elsewhere.submit(lonely.stop)

        # Twice while orders are being made.
        docker("kill", "--signal", "TERM", bot.name)
        docker("kill", "--signal", "TERM", bot.name, check=False)
        wait_for("it ends", lambda: not bot.is_running())
        assert bot.exit_code() == 0 and bot.lifecycle["clean"] and sandbox.orders(bot.account) == []
        # While the engine is being imported.
        bot.restart()
        bot.wait_for_phase("starting")
        assert bot.stop() == 0 and bot.lifecycle["clean"]
        # Before anything is imported, but not before the container's init has made the process it passes signals on to.
        bot.restart()
        wait_for("init and the process", lambda: len(docker("top", bot.name, check=False).stdout.splitlines()) > 2)
        assert bot.stop() in (0, 143) and bot.lifecycle["clean"]

        assert unverified.result() == 3
    assert not lonely.lifecycle["clean"] and len(sandbox.orders(lonely.account)) > 0
    code, record, said = lonely.run_mode("settle")
    assert code == 0 and record["clean"] and sandbox.orders(lonely.account) == [], said
