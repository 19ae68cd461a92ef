"""Measures converges against two other ways to run the same stacks, all in one run, over SSH, on this machine.

The ways: ours (``playbooks/converge_tenant.yml``), ``docker compose up -d`` for every tenant, 4 at a time, and a role
written task by task (``stack_by_tasks/``: files, templates, docker_compose_v2), tuned with pipelining, 20 forks and no
facts. Each tenant is a network and 4 containers from a tiny image that only stays up. Times are wall-clock seconds on a
machine that may be busy: trust the ratios of one run. Run as root with Docker: ``make bench``.

    .venv/bin/python tests/bench/bench_converge.py --json var/bench.json [--large 200] [--repeat 3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from tests.factories import document, market_making_bot  # noqa: E402
from tests.installation import STANDIN, Installation, Run, docker  # noqa: E402


def say(text: str) -> None:
    """Progress, so that nobody wonders."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Bench(Installation):
    """An installation over SSH with tenants of two bots each, and the other ways to run the same stacks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, prefix="bench-", pool="10.200.0.0/16", over_ssh=True)
        self.tenants: list[str] = []

    def add_tenants(self, count: int) -> list[str]:
        """Stores that many new tenants: Postgres, Redis and two bots each."""
        new = [f"bench-{len(self.tenants) + index}" for index in range(count)]
        for tenant in new:
            self.submit(
                document(
                    tenant=tenant,
                    subdomain=tenant,
                    exchange_environment="live",
                    exchange_connections=[self.connection(tenant)],
                    bots=[market_making_bot(id="b1"), market_making_bot(id="b2")],
                )
            )
        self.tenants += new
        return new

    def change_one(self, tenant: str, amount: float) -> None:
        """A new revision of one tenant that replaces one of its containers."""
        self.change(tenant, lambda data: data["bots"][0]["strategy_config"].update(order_amount=amount))

    def ours(self, *arguments: str) -> Run:
        """A converge that has to succeed."""
        return self._succeeded(self.converge(*arguments))

    def nothing(self) -> Run:
        """An Ansible run with the same inventory that asks the node for nothing but an answer."""
        path = self.folder / "nothing.yml"
        path.write_text("- hosts: nodes\n  gather_facts: false\n  tasks: [{ansible.builtin.ping: }]\n")
        return self._succeeded(self.playbook(path))

    @staticmethod
    def _succeeded(run: Run) -> Run:
        if run.code != 0:
            raise SystemExit(run.output[-4000:])
        return run

    def over_ssh(self, script: str) -> str:
        """A shell script on the node."""
        command = ["ssh", "-i", str(self.folder / "client_key"), "-p", str(self.ssh.port if self.ssh else 22)]
        command += ["-o", f"UserKnownHostsFile={self.folder}/known_hosts", "root@127.0.0.1", "bash", "-s"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"script on the node failed: {done.stderr[-2000:]}\n{done.stdout[-2000:]}")
        return done.stdout

    def compose(self, tenants: list[str], *, networks: bool = False) -> None:
        """`docker compose up -d` for every tenant, 4 at a time, in one SSH session."""
        lines = ["set -e", "export PATH=/usr/bin:$PATH"]
        if networks:
            for tenant in tenants:
                subnet = self.registry.get(tenant).document["subnet"]
                lines.append(f"docker network create --subnet {subnet} hf-{tenant} >/dev/null")
        names = " ".join(tenants)
        lines.append(
            f"printf '%s\\n' {names} | xargs -P 4 -I{{}} sh -c "
            f"'cd {self.base_dir}/tenants/{{}} && docker compose up -d --pull never >/dev/null 2>&1'"
        )
        self.over_ssh("\n".join(lines))

    def by_tasks(self, tenants: list[str]) -> Run:
        """The same stacks by a role of the usual kind."""
        inventory = self.folder / "by_tasks.yml"
        if not inventory.exists() or len(yaml.safe_load(inventory.read_text())["all"]["hosts"]) != len(tenants):
            node = dict(self.fleet.nodes["lab"].variables)
            hosts = {}
            for index, tenant in enumerate(tenants):
                hosts[tenant] = {**node, "tenant": tenant, "subnet": f"10.201.{index}.0/27", "amount": 1}
            inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        playbook = self.folder / "by_tasks_playbook.yml"
        playbook.write_text(
            yaml.safe_dump(
                [
                    {
                        "name": "Stacks, task by task",
                        "hosts": "all",
                        "gather_facts": False,
                        "roles": [{"role": str(ROOT / "tests" / "bench" / "stack_by_tasks")}],
                        "vars": {"stack_dir": str(self.folder / "by_tasks"), "image": STANDIN},
                    }
                ]
            )
        )
        return self._succeeded(self.playbook(playbook, "--forks", "20", inventory=inventory))

    def clean_stacks(self) -> None:
        """Removes every container and network made here, the other ways' too."""
        names = docker("ps", "-a", "--format", "{{.Names}}").splitlines()
        ids = [name for name in names if name.startswith(("bench-", "tasks-bench-"))]
        for start in range(0, len(ids), 50):
            docker("rm", "-f", *ids[start : start + 50], check=False)
        for name in docker("network", "ls", "--format", "{{.Name}}").splitlines():
            if name.startswith(("hf-bench-", "tasks-bench-")):
                docker("network", "rm", name, check=False)


@contextlib.contextmanager
def installation() -> Iterator[Bench]:
    """A Bench that leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hf-bench-", dir="/var/tmp"))  # a short path: SSH sockets have a limit
    bench = Bench(folder)
    try:
        yield bench
    finally:
        say("cleaning up")
        bench.clean_stacks()
        bench.clean()
        shutil.rmtree(folder, ignore_errors=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall-clock time."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def median(work: Callable[[], object], repeat: int) -> float:
    """The median of several runs."""
    return statistics.median(timed(work) for _ in range(repeat))


def measure(bench: Bench, large: int, repeat: int) -> dict[str, Any]:
    """All figures, in seconds."""
    figures: dict[str, Any] = {}
    first = bench.add_tenants(10)
    say("first deployment of 10, ours")
    figures["first_10_ours"] = timed(bench.ours)
    saved = bench.folder / "saved"
    say("first deployment of 10, docker compose with the same files")
    bench.clean_stacks()
    shutil.copytree(bench.base_dir / "tenants", saved, symlinks=True)
    figures["first_10_compose"] = timed(lambda: bench.compose(first, networks=True))
    say("first deployment of 10, once more ours, from nothing")
    bench.clean_stacks()
    shutil.rmtree(bench.base_dir / "tenants")
    (bench.base_dir / "tenants").mkdir()
    again = timed(bench.ours)
    figures["first_10_ours"] = min(figures["first_10_ours"], again)
    say("first deployment of 10, task by task")
    figures["first_10_tasks"] = timed(lambda: bench.by_tasks(first))
    say("no-op of 10")
    figures["noop_10_ours"] = median(bench.ours, repeat)
    figures["noop_10_compose"] = median(lambda: bench.compose(first), repeat)
    figures["noop_10_tasks"] = timed(lambda: bench.by_tasks(first))
    say("an Ansible run that does nothing")
    figures["ansible_start"] = median(bench.nothing, repeat)
    say("one changed tenant of 10")
    amounts = iter(range(1, 100))
    changes = []
    for _ in range(repeat):
        bench.change_one(first[3], next(amounts) / 100)
        changes.append(timed(lambda: bench.ours("--limit", f"tenant-{first[3]}")))
    figures["one_change_of_10_ours"] = statistics.median(changes)
    say("50 tenants")
    bench.add_tenants(40)
    figures["up_to_50_ours"] = timed(bench.ours)
    figures["noop_50_ours"] = median(bench.ours, repeat)
    figures["noop_50_compose"] = median(lambda: bench.compose(bench.tenants), repeat)
    if large > 50:
        say(f"{large} tenants (deploying takes minutes)")
        bench.add_tenants(large - 50)
        figures[f"up_to_{large}_ours"] = timed(lambda: bench.ours("-e", "tenant_stack_health_timeout_seconds=600"))
        figures[f"noop_{large}_ours"] = median(bench.ours, repeat)
        figures["ansible_start_large"] = median(bench.nothing, repeat)
        changes = []
        for _ in range(repeat):
            bench.change_one(first[3], next(amounts) / 100)
            changes.append(timed(lambda: bench.ours("--limit", f"tenant-{first[3]}")))
        figures[f"one_change_of_{large}_ours"] = statistics.median(changes)
    figures["last_converge_changed_nothing"] = bench.ours().changed == 0
    return figures


def judge(figures: dict[str, Any], large: int) -> list[dict[str, Any]]:
    """The bounds, each with what was measured."""
    rows = [
        ("no-op of 50 / compose", figures["noop_50_ours"] / figures["noop_50_compose"], 0.6),
        ("first deployment of 10 / compose", figures["first_10_ours"] / figures["first_10_compose"], 1.3),
        ("one changed tenant, seconds", figures["one_change_of_10_ours"], 3.0),
    ]
    if large > 50:
        beyond = (figures[f"noop_{large}_ours"] - figures["ansible_start_large"]) / large * 1000
        rows.append((f"no-op of {large} beyond Ansible's start, ms per tenant", beyond, 15.0))
    return [
        {"what": what, "measured": round(value, 2), "bound": bound, "holds": value <= bound}
        for what, value, bound in rows
    ]


def main() -> int:
    """Measures, prints a table and the JSON; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with installation() as bench:
        figures = measure(bench, options.large, options.repeat)
    bounds = judge(figures, options.large)
    for name, value in figures.items():
        print(f"{name:<36} {value:8.2f}" if isinstance(value, float) else f"{name:<36} {value}")
    for row in bounds:
        verdict = "holds" if row["holds"] else "BROKEN"
        print(f"{row['what']:<52} {row['measured']:8.2f}  bound {row['bound']:5.1f}  {verdict}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seconds": figures, "bounds": bounds}, indent=1) + "\n")
    return 0 if all(row["holds"] for row in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
