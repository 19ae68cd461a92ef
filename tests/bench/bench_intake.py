"""Measures how fast events are accepted, each durably stored, against the webhook source of ansible-rulebook.

All are real processes on this machine, in one run, under the same load generator: ten keep-alive connections that send
ready-made requests. Ours is ``hummingfleet serve`` with its settings' defaults and SQLite: an answer means that
signature and document were judged and the new revision is on disk. ansible-rulebook verifies no signature here and
stores nothing. It is measured with a rule whose action is ``none``, and with one that runs an empty playbook, whose
back-pressure holds its intake up; our runs are the worker's business and hold nobody up.

    .venv/bin/python tests/bench/bench_intake.py --json var/bench/intake.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.environments import environment_with  # noqa: E402
from tests.bench.load import Load, request, send_all  # noqa: E402
from tests.bench.report import Bound, finish  # noqa: E402
from tests.factories import connection, market_making_bot  # noqa: E402
from tests.kill.plan import event  # noqa: E402
from tests.kill.portal import PATH, headers  # noqa: E402
from tests.kill.stage import Service, Stage, free_port, stage  # noqa: E402

RULEBOOK = ("ansible-rulebook==1.3.2", "ansible-core==2.19.14")
OURS = "Hummingfleet"
IDLE_RULE = "ansible-rulebook, a rule that does nothing"
WORKING_RULE = "ansible-rulebook, a rule that runs a playbook"
CONNECTIONS = 10
TENANTS = 50


def say(text: str) -> None:
    """Progress, so that nobody wonders."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def created(tenant: str) -> dict[str, Any]:
    """The event that makes a tenant."""
    return event(
        "tenant.created",
        tenant=tenant,
        plan="pro",
        exchange_environment="sandbox",
        exchange_connections=[connection(seed=tenant)],
        bots=[market_making_bot(id="b1")],
    )


def updated(tenant: str, number: int) -> dict[str, Any]:
    """An event that gives the tenant a new revision."""
    amount = round(0.05 + number / 10_000, 4)
    return event("bot.updated", tenant=tenant, bot_id="b1", changes={"strategy_config": {"order_amount": amount}})


class Ours:
    """Our web process, and the requests it gets."""

    def __init__(self, target: Stage) -> None:
        self._target = target
        self._sent = 0
        self.port = target.port

    def prepare(self) -> None:
        """Makes the tenants."""
        self._send([created(f"t{index}") for index in range(TENANTS)])

    def load(self, count: int) -> Load:
        """So many events that each make a new revision of some tenant."""
        start = self._sent
        return self._send([updated(f"t{n % TENANTS}", n) for n in range(start, start + count)])

    def _send(self, bodies: list[dict[str, Any]]) -> Load:
        requests = []
        for body in bodies:
            self._sent += 1
            raw = json.dumps(body).encode()
            requests.append(request(self.port, PATH, headers(self._target.secret, f"bench-{self._sent}", raw), raw))
        load = send_all(self.port, requests, CONNECTIONS)
        if set(load.statuses) != {202}:
            raise SystemExit(f"the webhook did not accept every event: {load.statuses}")
        return load


class Rulebook:
    """ansible-rulebook with its webhook source."""

    def __init__(self, port: int, service: Service) -> None:
        self.port = port
        self.service = service

    def load(self, count: int) -> Load:
        """So many events of the same kind and size."""
        requests = []
        for number in range(count):
            raw = json.dumps(updated(f"t{number % TENANTS}", number)).encode()
            requests.append(request(self.port, "/events", {"Content-Type": "application/json"}, raw))
        load = send_all(self.port, requests, CONNECTIONS)
        if set(load.statuses) != {200}:
            raise SystemExit(f"ansible-rulebook did not accept every event: {load.statuses}")
        return load


@contextlib.contextmanager
def rulebook(folder: Path, action: dict[str, Any]) -> Iterator[Rulebook]:
    """ansible-rulebook as a process, from an environment of its own, with one rule that every event meets."""
    environment = environment_with("rulebook", RULEBOOK)
    folder.mkdir()
    port = free_port()
    rules = [
        {
            "name": "Portal",
            "hosts": "all",
            "sources": [{"name": "events", "eda.builtin.webhook": {"host": "127.0.0.1", "port": port}}],
            "rules": [{"name": "Any event", "condition": "event.payload.type is defined", "action": action}],
        }
    ]
    (folder / "rulebook.yml").write_text(json.dumps(rules))
    hosts = {"localhost": {"ansible_connection": "local"}}
    (folder / "inventory.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    command = ["env", f"PATH={environment}/bin:/usr/bin:/bin", str(environment / "bin" / "ansible-rulebook")]
    command += ["-r", str(folder / "rulebook.yml"), "-i", str(folder / "inventory.yml")]

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    service = Service("rulebook", command, folder, listens)
    service.start()
    try:
        service.wait_ready()
        yield Rulebook(port, service)
    finally:
        with contextlib.suppress(OSError):
            os.killpg(service.pid, signal.SIGKILL)  # its playbooks, too
        service.stop()


def measure(count: int, rounds: int) -> dict[str, Any]:
    """Ours and the rule that does nothing in alternating rounds, medians; then some events to one that works."""
    folder = Path(tempfile.mkdtemp(prefix="hf-intake-", dir="/var/tmp"))
    loads: dict[str, list[Load]] = {OURS: [], IDLE_RULE: [], WORKING_RULE: []}
    cpu: dict[str, float] = {}
    try:
        with stage(folder) as target:
            target.web.start()
            target.web.wait_ready()
            ours = Ours(target)
            ours.prepare()
            ours.load(100)
            with rulebook(folder / "idle", {"none": None}) as theirs:
                theirs.load(500)  # warm, as a Java machine wants to be
                services = {OURS: target.web, IDLE_RULE: theirs.service}
                used = {name: service.cpu_seconds() for name, service in services.items()}
                for number in range(rounds):
                    say(f"round {number + 1} of {rounds}")
                    loads[OURS].append(ours.load(count))
                    loads[IDLE_RULE].append(theirs.load(count))
                for name, service in services.items():
                    cpu[name] = (service.cpu_seconds() - used[name]) / (rounds * count)
        say("a rule that runs an empty playbook")
        playbook = folder / "empty.yml"
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": []}]))
        with rulebook(folder / "working", {"run_playbook": {"name": str(playbook)}}) as theirs:
            loads[WORKING_RULE].append(theirs.load(CONNECTIONS * 2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        name: {
            "events_per_second": round(statistics.median(load.per_second for load in some), 1),
            "p50_ms": round(statistics.median(load.percentile_ms(0.5) for load in some), 1),
            "p95_ms": round(statistics.median(load.percentile_ms(0.95) for load in some), 1),
            "cpu_ms_per_event": round(cpu.get(name, 0) * 1000, 2),
            "load_generator_cpu": round(statistics.median(load.own_cpu_seconds / load.seconds for load in some), 2),
            "rounds": [round(load.per_second, 1) for load in some],
        }
        for name, some in loads.items()
    }


def main() -> int:
    """Measures, prints a table; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1000, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.events, options.rounds)
    print(f"{'':<46} {'events/s':>9} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms/event':>13}")
    for name, row in figures.items():
        print(
            f"{name:<46} {row['events_per_second']:9.1f} {row['p50_ms']:8.1f} {row['p95_ms']:8.1f} "
            f"{row['cpu_ms_per_event']:13.2f}"
        )
    rates = {name: row["events_per_second"] for name, row in figures.items()}
    bounds = [
        Bound(f"events/s, times {IDLE_RULE}", rates[OURS] / rates[IDLE_RULE], 3, least=True),
        Bound(f"events/s, times {WORKING_RULE}", rates[OURS] / rates[WORKING_RULE], 3, least=True),
        Bound("p95 at 10 connections, ms", figures[OURS]["p95_ms"], 50),
    ]
    return finish(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
