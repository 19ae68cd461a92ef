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
import getpass
import json
import os
import shutil
import socket
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
sys.path.insert(0, str(ROOT / "tests"))

import webhook  # noqa: F401, E402
import yaml  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, Registry  # noqa: E402
from factories import document, market_making_bot  # noqa: E402

STANDIN = "hummingfleet/standin:1"
CAUSE = Cause("bench", "measured", getpass.getuser())


def say(text: str) -> None:
    """Progress, so that nobody wonders."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Bench:
    """An installation of its own in a temporary folder: registry, key ring, catalogue, SSH server, node folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base_dir = folder / "node"
        self.base_dir.mkdir()
        for name in ("tenants", "agent", "sandbox"):
            (self.base_dir / name).mkdir()
        shutil.copytree(ROOT / "catalogue", folder / "catalogue")
        releases = yaml.safe_load((folder / "catalogue" / "releases.yml").read_text())
        for service in ("engine", "postgres", "redis"):
            releases["2026.09"][service]["local"] = STANDIN
        (folder / "catalogue" / "releases.yml").write_text(yaml.safe_dump(releases))
        plans = yaml.safe_load((folder / "catalogue" / "plans.yml").read_text())
        for plan in plans.values():
            plan.update(bot_memory_mib=64, postgres_memory_mib=64, redis_memory_mib=16)
        (folder / "catalogue" / "plans.yml").write_text(yaml.safe_dump(plans))
        self.ssh = SshServer(folder)
        node = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.ssh.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(folder / "client_key"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=yes",
            "memory_mib": 1_000_000,
            "labels": {},
        }
        fleet = {
            "plugin": "hummingfleet.core.tenants",
            "registry": str(folder / "registry.db"),
            "keyring": {"file": str(folder / "keyring.yml")},
            "catalogue": str(folder / "catalogue"),
            "images": "build",
            "base_dir": str(self.base_dir),
            "address_pool": "10.200.0.0/16",
            "uid_pool": [310000, 319999],
            "kdf_iterations": 1,
            "nodes": {"bench": node},
        }
        self.fleet_path = folder / "fleet.tenants.yml"
        self.fleet_path.write_text(yaml.safe_dump(fleet))
        self.keyring = generate_keyring(folder / "keyring.yml")
        self.fleet = load_fleet(self.fleet_path)
        self.catalogue = load_catalogue(self.fleet.catalogue)
        self.registry = Registry(self.fleet.registry)
        self.tenants: list[str] = []

    def add_tenants(self, count: int) -> list[str]:
        """Stores that many new tenants: Postgres, Redis and two bots each."""
        new = [f"bench-{len(self.tenants) + index}" for index in range(count)]
        for tenant in new:
            connection = encrypt_connection(
                {"api_key": f"key of {tenant}", "api_secret": f"secret of {tenant}"},
                connection_id="ex1",
                exchange="binance",
                tenant=tenant,
                keyring=self.keyring,
                key_id="k1",
                connectors=self.catalogue.connectors,
            )
            data = document(
                tenant=tenant,
                subdomain=tenant,
                exchange_connections=[connection],
                bots=[market_making_bot(id="b1"), market_making_bot(id="b2")],
            )
            self.registry.submit(data, cause=CAUSE, fleet=self.fleet, catalogue=self.catalogue)
        self.tenants += new
        return new

    def change_one(self, tenant: str, amount: float) -> None:
        """A new revision of one tenant that replaces one of its containers."""

        def change(data: dict[str, Any]) -> dict[str, Any]:
            data["bots"][0]["strategy_config"]["order_amount"] = amount
            return data

        self.registry.change(tenant, change, cause=CAUSE, fleet=self.fleet, catalogue=self.catalogue)

    def environment(self) -> dict[str, str]:
        """What ansible-playbook is run with."""
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HUMMINGFLEET_FLEET": str(self.fleet_path),
            "ANSIBLE_FORKS": "20",
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        }

    def playbook(self, path: Path, inventory: Path, *arguments: str) -> str:
        """Runs ansible-playbook; returns its output, raises with it on failure."""
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(path), "-i", str(inventory), *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
        return done.stdout

    def converge(self, *arguments: str) -> str:
        """Our converge of the whole fleet."""
        return self.playbook(ROOT / "playbooks" / "converge_tenant.yml", self.fleet_path, *arguments)

    def over_ssh(self, script: str) -> str:
        """A shell script on the node."""
        command = ["ssh", "-i", str(self.folder / "client_key"), "-p", str(self.ssh.port)]
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

    def by_tasks(self, tenants: list[str]) -> str:
        """The same stacks by a role of the usual kind."""
        inventory = self.folder / "by_tasks.yml"
        if not inventory.exists() or len(yaml.safe_load(inventory.read_text())["all"]["hosts"]) != len(tenants):
            node = dict(self.fleet.nodes["bench"].variables)
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
        return self.playbook(playbook, inventory)

    def clean(self) -> None:
        """Removes every container and network made here."""
        script = [
            "docker ps -aq --filter label=com.docker.compose.project --format '{{.ID}} {{.Names}}' "
            "| awk '$2 ~ /^(bench-|tasks-)/ {print $1}' | xargs -r -n 50 docker rm -f >/dev/null",
            "docker network ls --format '{{.Name}}' | grep -E '^(hf-bench-|tasks-bench-)' | xargs -r docker network rm >/dev/null",
        ]
        for line in script:
            subprocess.run(["bash", "-c", line], check=False, env={**os.environ, "PATH": f"/usr/bin:{os.environ['PATH']}"})


class SshServer:
    """An sshd of our own on loopback, with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        host_key = (folder / "host_key.pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key[0]} {host_key[1]}\n")
        config = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "MaxSessions 64",
            "MaxStartups 64:30:128",
            f"PidFile {folder}/sshd.pid",
        ]
        (folder / "sshd_config").write_text("\n".join(config) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config")])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit("the SSH server for the benchmark did not start")

    def stop(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def installation() -> Iterator[Bench]:
    """A Bench that leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hf-bench-", dir="/var/tmp"))  # a short path: SSH sockets have a limit
    bench = Bench(folder)
    try:
        yield bench
    finally:
        say("cleaning up")
        bench.clean()
        bench.ssh.stop()
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
    figures["first_10_ours"] = timed(bench.converge)
    saved = bench.folder / "saved"
    say("first deployment of 10, docker compose with the same files")
    bench.clean()
    shutil.copytree(bench.base_dir / "tenants", saved, symlinks=True)
    figures["first_10_compose"] = timed(lambda: bench.compose(first, networks=True))
    say("first deployment of 10, once more ours, from nothing")
    bench.clean()
    shutil.rmtree(bench.base_dir / "tenants")
    (bench.base_dir / "tenants").mkdir()
    again = timed(bench.converge)
    figures["first_10_ours"] = min(figures["first_10_ours"], again)
    say("first deployment of 10, task by task")
    figures["first_10_tasks"] = timed(lambda: bench.by_tasks(first))
    say("no-op of 10")
    figures["noop_10_ours"] = median(bench.converge, repeat)
    figures["noop_10_compose"] = median(lambda: bench.compose(first), repeat)
    figures["noop_10_tasks"] = timed(lambda: bench.by_tasks(first))
    say("an Ansible run that does nothing")
    nothing = bench.folder / "nothing.yml"
    nothing.write_text("- hosts: nodes\n  gather_facts: false\n  tasks: [{ansible.builtin.ping: }]\n")
    figures["ansible_start"] = median(lambda: bench.playbook(nothing, bench.fleet_path), repeat)
    say("one changed tenant of 10")
    amounts = iter(range(1, 100))
    changes = []
    for _ in range(repeat):
        bench.change_one(first[3], next(amounts) / 100)
        changes.append(timed(lambda: bench.converge("--limit", f"tenant-{first[3]}")))
    figures["one_change_of_10_ours"] = statistics.median(changes)
    say("50 tenants")
    bench.add_tenants(40)
    figures["up_to_50_ours"] = timed(bench.converge)
    figures["noop_50_ours"] = median(bench.converge, repeat)
    figures["noop_50_compose"] = median(lambda: bench.compose(bench.tenants), repeat)
    if large > 50:
        say(f"{large} tenants (deploying takes minutes)")
        bench.add_tenants(large - 50)
        figures[f"up_to_{large}_ours"] = timed(lambda: bench.converge("-e", "tenant_stack_health_timeout_seconds=600"))
        figures[f"noop_{large}_ours"] = median(bench.converge, repeat)
        figures["ansible_start_large"] = median(lambda: bench.playbook(nothing, bench.fleet_path), repeat)
        changes = []
        for _ in range(repeat):
            bench.change_one(first[3], next(amounts) / 100)
            changes.append(timed(lambda: bench.converge("--limit", f"tenant-{first[3]}")))
        figures[f"one_change_of_{large}_ours"] = statistics.median(changes)
    output = bench.converge()
    figures["last_converge_changed_nothing"] = "changed=1" not in output and "skipping: no hosts matched" in output
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
    return [{"what": what, "measured": round(value, 2), "bound": bound, "holds": value <= bound} for what, value, bound in rows]


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
        print(f"{row['what']:<52} {row['measured']:8.2f}  bound {row['bound']:5.1f}  {'holds' if row['holds'] else 'BROKEN'}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seconds": figures, "bounds": bounds}, indent=1) + "\n")
    return 0 if all(row["holds"] for row in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
