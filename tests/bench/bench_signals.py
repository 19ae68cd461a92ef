"""Measures how long a signal takes to become an order on the exchange, and a live change to move resting orders.

An installation of its own on this machine: sandbox exchange, broker, web service and worker with the defaults of their
settings (their rate limits apart), and one tenant with three bots on the real engine. Signals are posted as TradingView
does, each over a new connection; the next follows when bot and exchange agree about what came of the last. The clock
starts with the POST; it ends with the answer, and with the time that the exchange itself gave the order. Refusals come
in bursts. A live change is a ``bot.updated`` that ends when exactly the new orders rest on the exchange.

    .venv/bin/python tests/bench/bench_signals.py --json var/bench/signals.json
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import floor_to
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.grid import GridConfig, levels

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.load import Load, request, send_all  # noqa: E402
from tests.bench.report import Bound, finish  # noqa: E402
from tests.factories import dca_bot, document, grid_bot, signal_bot  # noqa: E402
from tests.installation import Installation, docker  # noqa: E402
from tests.kill.plan import event  # noqa: E402
from tests.kill.portal import Connection  # noqa: E402
from tests.kill.stage import Service, answers_http, free_port, make_secrets, wait_until  # noqa: E402
from webhook.signal_tokens import SignalTokens  # noqa: E402

PREFIX = "sigb-"
TENANT = f"{PREFIX}t"
PATH = "/v1/signals"
RISK = {"max_position": 2000, "max_daily_loss": 1000}
ACTIONS = ("buy", "buy", "sell", "close")
SIZE = 100
REFUSALS = 100
# Events and signals meet the rounds of bots and worker at no particular moment.
PAUSE_SECONDS, CHANGE_PAUSE_SECONDS = 1.0, 5.0

Resting = list[tuple[Decimal, Decimal]]


def say(text: str) -> None:
    """Progress, so that nobody wonders."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class LiveBot:
    """A bot whose buys rest, and the two settings it is changed between."""

    id: str
    pair: str
    price: Decimal
    settings: tuple[dict[str, Any], dict[str, Any]]


GRID = LiveBot(
    id="g1",
    pair="ETH-USDT",
    price=Decimal(2500),
    settings=({"lower_bound": 1800, "upper_bound": 2300}, {"lower_bound": 1810, "upper_bound": 2310}),
)
DCA = LiveBot(
    id="d1",
    pair="SOL-USDT",
    price=Decimal(100),
    settings=({"spreads_pct": [1, 2, 5]}, {"spreads_pct": [1.5, 3, 6]}),
)
GRID_FIXED = {"grid_count": 10, "order_amount": 50}
DCA_FIXED = {"mode": "ladder", "amounts_quote": [50, 50, 100], "take_profit_pct": 1.5}
BOTS = [
    signal_bot(id="s1", state="running", strategy_config={}, risk_config=RISK),
    signal_bot(id="s2", state="stopped", strategy_config={}, risk_config=RISK),
    grid_bot(
        id=GRID.id,
        trading_pair=GRID.pair,
        state="running",
        strategy_config={**GRID.settings[0], **GRID_FIXED},
        risk_config=RISK,
    ),
    dca_bot(
        id=DCA.id,
        trading_pair=DCA.pair,
        state="running",
        strategy_config={**DCA.settings[0], **DCA_FIXED},
        risk_config=RISK,
    ),
]


class Place(Installation):
    """The installation with its tenant, its web service and its worker."""

    def __init__(self, folder: Path) -> None:
        (folder / "ansible.cfg").write_text("")  # makes it the root: sockets and folders of runs are below it
        super().__init__(folder, prefix=PREFIX, pool="10.202.32.0/20", images={}, uid_start=420_000)
        self.port, worker_port = free_port(), free_port()
        fleet = yaml.safe_load(self.fleet_path.read_text())
        fleet["webhook"] = {
            "listen": f"127.0.0.1:{self.port}",
            "worker_listen": f"127.0.0.1:{worker_port}",
            "secrets": str(folder / "webhook-secrets.yml"),
            "signals_per_minute": 10_000,
            "signal_burst": 1000,
            "failures_per_minute": 100_000,
        }
        self.fleet_path.write_text(yaml.safe_dump(fleet))
        secret, _callbacks = make_secrets(folder / "webhook-secrets.yml")
        self._portal = Connection(self.port, secret)
        program = [sys.executable, "-m", "webhook", "--fleet", str(self.fleet_path)]
        self._services = [
            Service("web", [*program, "serve"], folder, lambda: answers_http(self.port)),
            Service("worker", [*program, "worker"], folder, lambda: answers_http(worker_port, "/readyz")),
        ]
        self._sent = 0

    def prepare(self) -> None:
        """Exchange, broker, tenant and services; ends when all bots trade."""
        say("sandbox exchange and broker")
        self.exchange = self.start_sandbox()
        run = self.start_broker()
        if run.code != 0:
            raise SystemExit(run.output[-4000:])
        keys = {"api_key": secrets.token_hex(32), "api_secret": secrets.token_hex(32)}
        self.exchange.request("POST", "/accounts", {"name": TENANT, **keys, "balances": {"USDT": "100000"}})
        for bot in (GRID, DCA):
            self.exchange.request("POST", "/price", {"pair": bot.pair, "price": str(bot.price)})
        say("a tenant with three bots")
        connection = self.connection(TENANT, **keys)
        self.submit(document(tenant=TENANT, subdomain=TENANT, exchange_connections=[connection], bots=BOTS))
        run = self.converge()
        if run.code != 0:
            raise SystemExit(run.output[-4000:])
        for service in self._services:
            service.start()
        for service in self._services:
            service.wait_ready()
        tokens = SignalTokens(self.registry)
        self.tokens = {bot: tokens.create(TENANT, bot).text for bot in ("s1", "s2")}
        wait_until(self._listens, "the signal bot listens and trades")
        for bot in (GRID, DCA):
            wait_until(lambda bot=bot: self.resting(bot) == expected(self, bot, 0), f"the orders of {bot.id} rest")

    def close(self) -> None:
        """Ends web service and worker."""
        self._portal.close()
        for service in self._services:
            service.stop()

    # - signals -

    def signal(self, action: str, **fields: Any) -> dict[str, Any]:
        """The body of a new signal for the bot that trades on them."""
        self._sent += 1
        body = {"bot": "s1", "token": self.tokens["s1"], "id": f"{action} {self._sent}", "action": action}
        if action != "close":
            body["size_quote"] = SIZE
        return {**body, "sent_at": time.time(), **fields}

    def connect(self) -> tuple[float, int]:
        """Sends a first signal, with which the web process connects to the broker, as often as that takes too long.

        Returns seconds from the first attempt to the bot's refusal (it has nothing to sell), and how many attempts.
        """
        began, attempts = time.time(), 0
        while True:
            attempts += 1
            status, body = self._post(self.signal("close"))
            if (status, body.get("code")) == (409, "no_position"):
                return time.time() - began, attempts
            if status != 503:
                raise SystemExit(f"the first signal was answered {status}: {body}")
            time.sleep(0.5)

    def trade(self, action: str) -> tuple[float, float]:
        """Sends a signal, which has to be accepted; seconds until the answer, and until the order."""
        before = {order["order_id"] for order in self.signal_orders()}
        began = time.time()
        status, answer = self._post(self.signal(action))
        answered = time.time() - began
        if status != 202:
            raise SystemExit(f"the signal was answered {status}: {answer}")

        def new() -> list[dict[str, Any]]:
            return [order for order in self.signal_orders() if order["order_id"] not in before]

        order = wait_until(new, f"the order of {action} is on the exchange")[0]
        wait_until(lambda: self._agreed(began), "bot and exchange agree about it")
        return answered, order["time"] / 1000 - began

    def _post(self, signal: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of the answer to a signal, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", PATH, json.dumps(signal), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def signal_orders(self) -> list[dict[str, Any]]:
        """All orders ever of the bot that trades on signals."""
        return list(self.exchange.get("/orders", account=TENANT, pair="BTC-USDT", state="all")["orders"])

    def refusals(self, connections: int, status: int, bodies: list[dict[str, Any]]) -> Load:
        """Sends these signals, all of which have to be refused with that status."""
        requests = [
            request(self.port, PATH, {"Content-Type": "application/json"}, json.dumps(body).encode()) for body in bodies
        ]
        load = send_all(self.port, requests, connections)
        if set(load.statuses) != {status}:
            raise SystemExit(f"signals to be refused with {status} were answered {load.statuses}")
        return load

    def _heartbeat(self) -> dict[str, Any]:
        path = self.base_dir / "tenants" / TENANT / "bots" / "s1" / "data" / "heartbeat.json"
        beat: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return beat

    def _listens(self) -> bool:
        beat = self._heartbeat()
        connectors = beat.get("connectors") or {"none": False}
        return all(connectors.values()) and not beat["waiting"] and beat["phase"] == "trading"

    def _agreed(self, since: float) -> bool:
        beat, account = self._heartbeat(), self.exchange.get(f"/account/{TENANT}")
        base = account["balances"].get("BTC", {"free": "0", "locked": "0"})
        held = Decimal(base["free"]) + Decimal(base["locked"])
        return bool(beat["at"] > since and beat["open_orders"] == 0 and Decimal(beat["position"]["base"]) == held)

    # - live changes -

    def change_live(self, bot: LiveBot, number: int) -> tuple[float, bool]:
        """Posts the event; seconds until the new orders rest, and whether it still is the same process."""
        process = engine_process(bot)
        wanted = expected(self, bot, number)
        if self.resting(bot) == wanted:
            raise SystemExit(f"the change of {bot.id} would change nothing")
        self._sent += 1
        changes = {"strategy_config": bot.settings[number]}
        body = json.dumps(event("bot.updated", tenant=TENANT, bot_id=bot.id, changes=changes)).encode()
        began = time.monotonic()
        answer = self._portal.post(f"signals-{self._sent}", body)
        if answer.status != 202:
            raise SystemExit(f"the event was answered {answer.status}: {answer.body}")
        wait_until(lambda: self.resting(bot) == wanted, f"the new orders of {bot.id} rest")
        seconds = time.monotonic() - began
        wait_until(self._applied, "the event is applied")
        return seconds, engine_process(bot) == process

    def resting(self, bot: LiveBot) -> Resting:
        """Price and amount of every order of the bot that rests, lowest price first."""
        found = self.exchange.get("/orders", account=TENANT, pair=bot.pair, state="open")["orders"]
        return sorted((Decimal(order["price"]), Decimal(order["quantity"])) for order in found)

    def _applied(self) -> bool:
        record = self.registry.get(TENANT)
        return record.applied_revision == record.revision and not self.registry.leases(only=[TENANT])


def expected(place: Place, bot: LiveBot, number: int) -> Resting:
    """What has to rest with the bot's settings of that number: its buys, for nothing was bought."""
    rules = place.catalogue.exchanges["binance"].pairs[bot.pair]
    settings = bot.settings[number]
    if bot is GRID:
        config = GridConfig.of({**settings, **GRID_FIXED})
        return sorted((level.buy_price, level.amount) for level in levels(config, rules))
    prices = [bot.price * (100 - Decimal(str(spread))) / 100 for spread in settings["spreads_pct"]]
    amounts = zip(prices, DCA_FIXED["amounts_quote"], strict=True)
    return sorted((price, floor_to(Decimal(amount) / price, rules.lot)) for price, amount in amounts)


def engine_process(bot: LiveBot) -> str:
    """The process id, on this machine, of the bot's engine."""
    lines = docker("top", f"{TENANT}-bot_{bot.id}", "-eo", "pid,args").splitlines()
    [found] = [line.split()[0] for line in lines if "launcher.py run" in line and "docker-init" not in line]
    return found


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """The installation, which leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hf-signals-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Place(folder)
        stack.callback(made.clean)
        stack.callback(made.close)
        made.prepare()
        yield made


def measure_signals(here: Place, count: int, chance: random.Random) -> dict[str, Any]:
    """Seconds until the answer and until the order, over so many signals."""
    answers, orders = [], []
    for number in range(count):
        time.sleep(chance.uniform(0, PAUSE_SECONDS))
        answered, ordered = here.trade(ACTIONS[number % len(ACTIONS)])
        say(f"signal {number + 1} of {count}: answer {answered:.3f} s, order {ordered:.3f} s")
        answers.append(answered)
        orders.append(ordered)
    return {"POST to 202": spread(answers), "POST to order": spread(orders)}


def measure_refusals(here: Place) -> dict[str, Any]:
    """Milliseconds until refusals, by reason; only the bot's own come one after another."""
    say("refusals")
    if any(order["status"] != "FILLED" for order in here.signal_orders()):
        raise SystemExit("an order of the signal bot did not fill")
    long_ago = {"sent_at": time.time() - 3600}
    kinds: list[tuple[str, int, int, dict[str, Any]]] = [
        ("409, the bot is stopped", 10, 409, {"bot": "s2", "token": here.tokens["s2"]}),
        ("422, too old", 10, 422, long_ago),
        ("401, another token", 10, 401, {"token": here.tokens["s1"][:-43] + 43 * "x"}),
        ("409, by the bot: nothing to sell", 1, 409, {}),
    ]
    figures = {}
    for name, connections, status, fields in kinds:
        load = here.refusals(connections, status, [here.signal("close", **fields) for _ in range(REFUSALS)])
        figures[name] = {
            "connections": connections,
            "p50_ms": round(load.percentile_ms(0.5), 1),
            "p95_ms": round(load.percentile_ms(0.95), 1),
            "max_ms": round(load.times[-1] * 1000, 1),
        }
    return figures


def measure_changes(here: Place, rounds: int, chance: random.Random) -> dict[str, Any]:
    """Seconds until resting orders have changed, over so many changes to and fro of each bot."""
    times: dict[str, list[float]] = {"grid": [], "dca": []}
    restarts = 0
    for number in range(rounds):
        for name, bot in (("grid", GRID), ("dca", DCA)):
            time.sleep(chance.uniform(0, CHANGE_PAUSE_SECONDS))
            seconds, same = here.change_live(bot, (number + 1) % 2)
            say(f"{name}, change {number + 1} of {rounds}: {seconds:.2f} s, {'same' if same else 'ANOTHER'} process")
            times[name].append(seconds)
            restarts += not same
    return {**{name: spread(some) for name, some in times.items()}, "other_processes": restarts}


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median, 95 % (the nearest rank) and highest, with the single values in the order they were measured."""
    ordered = sorted(seconds)
    return {
        "p50_seconds": round(ordered[math.ceil(len(ordered) * 0.5) - 1], 3),
        "p95_seconds": round(ordered[math.ceil(len(ordered) * 0.95) - 1], 3),
        "max_seconds": round(ordered[-1], 3),
        "rounds": [round(one, 3) for one in seconds],
    }


def measure(count: int, rounds: int) -> dict[str, Any]:
    """All figures, and how busy the machine was with this and anything else."""
    chance = random.Random(2026)
    with place() as here:
        loads = [os.getloadavg()[0]]
        first, attempts = here.connect()
        signals = measure_signals(here, count, chance)
        loads.append(os.getloadavg()[0])
        refusals = measure_refusals(here)
        changes = measure_changes(here, rounds, chance)
        loads.append(os.getloadavg()[0])
    return {
        "processors": os.cpu_count(),
        "load_before_between_after": [round(one, 2) for one in loads],
        "first_signal": {"seconds": round(first, 3), "attempts": attempts},
        "signals": signals,
        "refusals": refusals,
        "live_changes": changes,
    }


def main() -> int:
    """Measures, prints a table; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=20, help="a multiple of 4: two buys, a sell, a close")
    parser.add_argument("--rounds", type=int, default=5, help="live changes of each bot")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.signals % len(ACTIONS):
        parser.error("--signals has to be a multiple of 4, so that the position is closed at the end")
    figures = measure(options.signals, options.rounds)
    changes = figures["live_changes"]
    first = figures["first_signal"]
    rows = {**figures["signals"], "bot.updated to grid": changes["grid"], "bot.updated to ladder": changes["dca"]}
    print(f"{'':<34} {'p50 ms':>9} {'p95 ms':>9} {'max ms':>9}")
    for name, row in rows.items():
        numbers = (row[f"{which}_seconds"] * 1000 for which in ("p50", "p95", "max"))
        print(f"{name:<34} {' '.join(f'{number:9.0f}' for number in numbers)}")
    for name, row in figures["refusals"].items():
        print(f"{name:<34} {row['p50_ms']:9.1f} {row['p95_ms']:9.1f} {row['max_ms']:9.1f}")
    print(f"first signal, with the connection to the broker: {first['seconds']} s in {first['attempts']} attempt(s)")
    print(f"load before, between, after: {figures['load_before_between_after']} on {figures['processors']} processors")
    bounds = [
        Bound("POST of a signal to its order on the exchange, slowest, s", rows["POST to order"]["max_seconds"], 2),
        Bound("bot.updated to a grid's new orders, slowest, s", changes["grid"]["max_seconds"], 15),
        Bound("bot.updated to a ladder's new orders, slowest, s", changes["dca"]["max_seconds"], 15),
        Bound("live changes after which the process was another", changes["other_processes"], 0),
    ]
    return finish(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
