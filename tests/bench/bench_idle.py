"""Measures what web service and worker cost while nothing happens: processor time and memory of both together.

Real processes with their settings' defaults, so the worker also looks at the tenants now and then, which starts a
playbook; its processes and what they start on this machine are counted for whole
periods (Docker itself is not). Memory is what is
resident (PSS: what several processes share is counted once), sampled every second; its median and highest value.

    .venv/bin/python tests/bench/bench_idle.py --json var/bench/idle.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.report import Bound, finish  # noqa: E402
from tests.factories import document, market_making_bot  # noqa: E402
from tests.installation import Installation  # noqa: E402
from tests.kill.stage import Service, answers_http, free_port, make_secrets, wait_until  # noqa: E402

# Bots of that many tenants and more would be another benchmark: that of the nodes.
TENANTS = (0, 10)
LOOKS = 1
SETTLE_SECONDS = 45  # after a run the worker looks at its tenants three times within half a minute


class Group:
    """A control group that counts the processor time of everything started in it."""

    def __init__(self, name: str) -> None:
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        self._folder = Path("/sys/fs/cgroup" if unified else "/sys/fs/cgroup/cpuacct", name)
        self._usage = self._folder / ("cpu.stat" if unified else "cpuacct.usage")
        self._folder.mkdir()

    def add(self, pid: int) -> None:
        """Puts a process into it; what it starts from now on is in it, too."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def cpu_seconds(self) -> float:
        """Processor time of all its processes, ended ones included."""
        text = self._usage.read_text()
        if self._usage.name == "cpu.stat":
            return int(text.split("usage_usec")[1].split()[0]) / 1e6
        return int(text) / 1e9

    def memory_mib(self) -> tuple[float, float]:
        """PSS and RSS of its processes."""
        pss = rss = 0
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _colon, rest = line.partition(":")
                    if name in ("Pss", "Rss"):
                        pss, rss = (
                            pss + int(rest.split()[0]) * (name == "Pss"),
                            rss + int(rest.split()[0]) * (name == "Rss"),
                        )
        return pss / 1024, rss / 1024

    def close(self) -> None:
        """Removes it; its processes have ended or go on outside."""
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (self._folder.parent / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


class Watched(Installation):
    """An installation whose worker can be asked what it does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.worker_port = free_port()

    def looks(self) -> int:
        """How often the worker has looked at the tenants."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.worker_port}/livez", timeout=10) as answer:
            return int(json.load(answer)["worker"]["observations"])


@contextlib.contextmanager
def installation(folder: Path, tenants: int) -> Iterator[tuple[Watched, list[Service]]]:
    """An installation with that many converged tenants, and its two services, not started yet."""
    (folder / "ansible.cfg").write_text("")
    here = Watched(folder, prefix="idle-", pool="10.203.0.0/20", uid_start=390_000)
    port, worker_port = free_port(), here.worker_port
    fleet = yaml.safe_load(here.fleet_path.read_text())
    fleet["webhook"] = {
        "listen": f"127.0.0.1:{port}",
        "worker_listen": f"127.0.0.1:{worker_port}",
        "secrets": str(folder / "webhook-secrets.yml"),
    }
    here.fleet_path.write_text(yaml.safe_dump(fleet))
    make_secrets(folder / "webhook-secrets.yml")
    try:
        for index in range(tenants):
            name = f"idle-{index}"
            here.submit(
                document(
                    tenant=name,
                    subdomain=name,
                    exchange_environment="live",
                    exchange_connections=[here.connection(name)],
                    bots=[market_making_bot(id="b1")],
                )
            )
        if tenants:
            run = here.converge()
            if run.code != 0:
                raise SystemExit(run.output[-4000:])
        program = [sys.executable, "-m", "webhook", "--fleet", str(here.fleet_path)]
        yield (
            here,
            [
                Service("web", [*program, "serve"], folder, lambda: answers_http(port)),
                Service("worker", [*program, "worker"], folder, lambda: answers_http(worker_port, "/readyz")),
            ],
        )
    finally:
        here.clean()


def measure(tenants: int, seconds: float, settle: float) -> dict[str, Any]:
    """The figures with that many tenants."""
    folder = Path(tempfile.mkdtemp(prefix="hf-idle-", dir="/var/tmp"))
    group = Group(f"hf-idle-{os.getpid()}")
    try:
        with installation(folder, tenants) as (here, services):
            try:
                for service in services:
                    service.start()
                    group.add(service.pid)
                for service in services:
                    service.wait_ready()
                time.sleep(settle)
                # Whole periods: from the end of one look at the tenants to the end of another.
                looks = here.looks()
                wait_until(lambda: not tenants or here.looks() > looks, "the worker looked at the tenants", 900)
                used, began, looks = group.cpu_seconds(), time.monotonic(), here.looks()
                memory = []
                while time.monotonic() - began < seconds or (tenants and here.looks() < looks + LOOKS):
                    for _ in range(5):  # asking costs the worker something
                        memory.append(group.memory_mib())
                        time.sleep(1)
                looks = here.looks() - looks
                share = (group.cpu_seconds() - used) / (time.monotonic() - began)
            finally:
                for service in services:
                    service.stop()
    finally:
        group.close()
        shutil.rmtree(folder, ignore_errors=True)
    pss, rss = zip(*memory, strict=True)
    return {
        "seconds": round(len(memory)),
        "looks_at_tenants": looks,
        "cpu_percent_of_a_core": round(share * 100, 2),
        "pss_mib": round(statistics.median(pss)),
        "pss_mib_highest": round(max(pss)),
        "rss_mib": round(statistics.median(rss)),
        "rss_mib_highest": round(max(rss)),
    }


def main() -> int:
    """Measures, prints a table; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {f"{count} tenants": measure(count, options.seconds, options.settle) for count in TENANTS}
    print(f"{'':<12} {'CPU %':>7} {'PSS MiB':>14} {'RSS MiB':>14}   (median, highest)")
    bounds = []
    for name, row in figures.items():
        print(
            f"{name:<12} {row['cpu_percent_of_a_core']:7.2f} {row['pss_mib']:7} {row['pss_mib_highest']:6} "
            f"{row['rss_mib']:7} {row['rss_mib_highest']:6}"
        )
        bounds.append(Bound(f"{name}: CPU, % of a core", row["cpu_percent_of_a_core"], 10))
        bounds.append(Bound(f"{name}: memory (PSS, median), MiB", row["pss_mib"], 400))
    return finish(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
