"""Compares ways to get accepted events worked off, in one campaign of kills: our registry as the queue, and DBOS.

Each way gets the same web application, the same events, the same stand-in for the playbook, and the same kills with -9:
1,000 events for 40 tenants, 20 kills of the worker and 5 of the web process. DBOS is a dispatcher beside the registry
then: a second durable store. Every event changes its tenant's document, so every revision has to be applied once.

    .venv/bin/python tests/bench/engines/bench_engines.py --json var/bench/engines.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry  # noqa: E402

from tests import postgresql  # noqa: E402
from tests.bench.bench_idle import Group  # noqa: E402
from tests.bench.bench_intake import created, say, updated  # noqa: E402
from tests.bench.environments import environment_with  # noqa: E402
from tests.kill.campaign import Killer, Poster, Scale, read_events  # noqa: E402
from tests.kill.checks import overlaps  # noqa: E402
from tests.kill.plan import PlannedEvent  # noqa: E402
from tests.kill.playbook import Behaviour, read_lines  # noqa: E402
from tests.kill.portal import Connection  # noqa: E402
from tests.kill.stage import Stage, wait_until  # noqa: E402
from webhook.journal import Journal  # noqa: E402

DBOS = ("dbos==3.4.0",)
WAYS = ("registry on SQLite", "registry on PostgreSQL", "DBOS on SQLite", "DBOS on PostgreSQL")
HERE = Path(__file__).resolve().parent
IDLE_STARTS = 20
IDLE_SECONDS = 10.0
SETTLE_SECONDS = 120.0


class DbosStage(Stage):
    """A stage whose web and worker processes use DBOS as the dispatcher."""

    def __init__(self, folder: Path, registry_url: str | None = None) -> None:
        self._python = str(dbos_environment() / "bin" / "python")
        if registry_url is None:
            path = folder / "dbos.db"
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            self.dbos_url = f"sqlite:///{path}"
        else:
            self.dbos_url = registry_url
        migrate = "import sys, dbos; dbos.run_dbos_database_migrations(sys.argv[1])"
        subprocess.run([self._python, "-c", migrate, self.dbos_url], check=True, stdout=subprocess.DEVNULL)
        super().__init__(folder, registry_url)

    def web_command(self) -> list[str]:
        """The web process that also enqueues."""
        return [self._python, str(HERE / "dbos_web.py"), str(self.fleet_path), self.dbos_url]

    def worker_program(self) -> list[str]:
        """DBOS' worker."""
        return [self._python, str(HERE / "dbos_worker.py"), self.dbos_url]


def dbos_environment() -> Path:
    """An environment of its own with DBOS, which also sees everything that .venv has."""
    folder = environment_with("dbos", DBOS)
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours, theirs = (
        subprocess.run([str(python), "-c", place], check=True, capture_output=True, text=True).stdout.strip()
        for python in (sys.executable, folder / "bin" / "python")
    )
    Path(theirs, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return folder


@contextlib.contextmanager
def stage_of(way: str, folder: Path) -> Iterator[Stage]:
    """The stage for one way."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgresql.server())() if way.endswith("PostgreSQL") else None
        target = DbosStage(folder, url) if way.startswith("DBOS") else Stage(folder, url)
        stack.callback(target.close)
        yield target


def plan(events: int, tenants: int) -> dict[str, list[PlannedEvent]]:
    """By tenant its events; each makes a new revision."""
    made: dict[str, list[PlannedEvent]] = {}
    for number in range(events):
        tenant = f"t{number % tenants}"
        body = created(tenant) if number < tenants else updated(tenant, number)
        made.setdefault(tenant, []).append(PlannedEvent(f"engine-{number}", tenant, json.dumps(body).encode()))
    return made


def run(way: str, scale: Scale, seed: int, folder: Path) -> dict[str, Any]:
    """The row of one way."""
    with stage_of(way, folder) as target:
        behaviour = Behaviour(folder=str(folder), registry=target.fleet.registry, seed=seed)
        worker = target.add_worker(behaviour)
        for service in (target.web, worker):
            service.start()
        for service in (target.web, worker):
            service.wait_ready()
        registry = Registry(target.fleet.registry)
        poster = Poster(target, plan(scale.events, scale.tenants), seed, scale.connections)
        killer = Killer(target, poster, scale, seed)
        poster.start()
        killer.work()
        poster.join()
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not registry.behind(), "every tenant is applied", SETTLE_SECONDS)
        time.sleep(1)
        row = judge(target, registry, poster, read_lines(behaviour.lines_path))
        row["worker kills"], row["web kills"] = worker.kills, target.web.kills
        row.update(idle(target, behaviour))
    return row


def judge(target: Stage, registry: Registry, poster: Poster, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the campaign came to."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue

    journal = Journal(registry, target.fleet, load_catalogue(target.fleet.catalogue))
    known = {event.id: event for event in read_events(journal)}
    applied = {one.tenant: one.applied_revision for one in registry.list()}
    accepted = [event for event, status in poster.answers.items() if status in (200, 202)]
    lost = [e for e in accepted if e not in known or known[e].revision > applied.get(known[e].tenant, 0)]
    twice = out_of_order = 0
    last: dict[str, int] = {}
    for line in lines:
        if line["what"] == "end" and not line["failed"]:
            before = last.get(line["tenant"], 0)
            twice += line["revision"] == before
            out_of_order += line["revision"] < before
            last[line["tenant"]] = max(before, line["revision"])
    lines = [{**line, "pid": line.get("victim", line["pid"])} for line in lines]
    times = sorted(poster.seconds)
    return {
        "accepted": len(accepted),
        "lost": len(lost),
        "runs": sum(line["what"] == "begin" for line in lines),
        "finished twice": twice,
        "out of order": out_of_order,
        "overlap": len(overlaps(lines)),
        "waited for a lease": sum(line["what"] == "waits" for line in lines),
        "POST p50 ms": round(statistics.median(times) * 1000, 1),
        "POST p95 ms": round(times[int(len(times) * 0.95)] * 1000, 1),
    }


def idle(target: Stage, behaviour: Behaviour) -> dict[str, Any]:
    """How soon an event's run begins when there is nothing else to do, and what having nothing to do costs."""
    connection = Connection(target.port, target.secret)
    delays = []
    for number in range(IDLE_STARTS):
        time.sleep(0.5)
        seen = len(read_lines(behaviour.lines_path))
        sent = time.monotonic_ns()
        connection.post(f"idle-{number}", json.dumps(updated("t0", 5000 + number)).encode())

        def begun(seen: int = seen) -> int | None:
            return next((e["at"] for e in read_lines(behaviour.lines_path)[seen:] if e["what"] == "begin"), None)

        delays.append((wait_until(begun, "the run begins") - sent) / 1e6)
    connection.close()
    time.sleep(2)
    group = Group(f"hf-engines-{os.getpid()}")
    try:
        for service in (target.web, *target.workers):
            group.add(service.pid)
        used, began = group.cpu_seconds(), time.monotonic()
        time.sleep(IDLE_SECONDS)
        share = (group.cpu_seconds() - used) / (time.monotonic() - began)
    finally:
        group.close()
    return {"idle start p50 ms": round(statistics.median(delays), 1), "idle CPU %": round(share * 100, 1)}


def main() -> int:
    """Runs all ways, prints the table; exit code 1 if our own lost, doubled or mixed up anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=40)
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--web-kills", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scale = Scale(
        options.events,
        options.tenants,
        options.worker_kills,
        options.web_kills,
        failing=0,
        broken=0,
        fail_probability=0,
    )
    rows: dict[str, dict[str, Any]] = {}
    for way in options.way or WAYS:
        say(way)
        folder = Path(tempfile.mkdtemp(prefix="hf-engine-", dir="/var/tmp"))
        try:
            rows[way] = run(way, scale, options.seed, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    names = list(next(iter(rows.values())))
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for way, row in rows.items():
        print(f"| {way} | {' | '.join(str(row[name]) for name in names)} |")
    print(f"seed {options.seed}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n")
    ours = [row for way, row in rows.items() if way.startswith("registry")]
    return 1 if any(row["lost"] or row["overlap"] or row["out of order"] for row in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
