"""What parsing the inventory costs: CPU seconds and memory of a fresh process, for 1,000 and 10,000 tenants.

    python tests/bench/bench_inventory.py [--tenants 1000 10000] [--check]

Each figure is that of one process that does what every Ansible command does first: load the inventory through Ansible's
own InventoryManager and VariableManager and match the pattern ``all``. ``import`` is the same with no tenant. With
``--check`` the exit code is 1 if 10,000 tenants cost more than 4 CPU-seconds or 200 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS_LIMIT = 4.0
MEMORY_MB_LIMIT = 200.0
NODES = 20

FLEET = """\
plugin: hummingfleet.core.tenants
registry: registry.db
address_pool: 10.0.0.0/8
nodes:
"""


def write_fleet(folder: Path, tenants: int) -> Path:
    """A fleet file and a registry with that many tenants, written straight into the tables."""
    from ansible_collections.hummingfleet.core.plugins.module_utils import registry as module

    path = folder / "fleet.tenants.yml"
    nodes = "".join(f"  edge_{n}: {{ansible_host: 192.0.2.{n + 1}, memory_mib: 16384}}\n" for n in range(NODES))
    path.write_text(FLEET + nodes, encoding="utf-8")
    registry = module.Registry(f"sqlite:///{folder / 'registry.db'}")
    # As long as a real one: the inventory must not even read it.
    document = json.dumps({"padding": "x" * 4000})
    rows = [
        {
            "tenant": f"customer-{n:05}",
            "node": f"edge_{n % NODES}",
            "plan": ("basic", "pro", "max")[n % 3],
            "state": "active",
            "release": ("2026.08", "2026.09")[n % 2],
            "ring": ("stable", "early")[n % 10 == 0],
            "memory_mib": 512,
            "revision": 3,
            "applied_revision": 3,
            "document": document,
            "updated_at": "2026-09-01T00:00:00.000Z",
        }
        for n in range(tenants)
    ]
    if rows:
        with registry._transaction(write=True) as connection:
            connection.execute(module._tenants.insert(), rows)
    return path


def parse(path: Path) -> dict[str, float]:
    """The cost of this process after it has parsed the inventory at ``path``."""
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.vars.manager import VariableManager

    init_plugin_loader([])
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(path)])
    VariableManager(loader=loader, inventory=inventory)
    hosts = len(inventory.get_hosts("tenants"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "tenants": hosts,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "max_rss_mb": round(usage.ru_maxrss / 1024, 1),
    }


def measure(tenants: int) -> dict[str, float]:
    """The cost of a fresh process that parses an inventory of that many tenants."""
    with tempfile.TemporaryDirectory() as folder:
        # Another process writes, so that this one stays as small as its child has to start.
        subprocess.run([sys.executable, __file__, "--write", folder, "--tenants", str(tenants)], check=True)
        command = [sys.executable, __file__, "--parse", str(Path(folder) / "fleet.tenants.yml")]
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
        result: dict[str, float] = json.loads(done.stdout)
        if result["tenants"] != tenants:
            raise SystemExit(f"{result['tenants']} hosts instead of {tenants}:\n{done.stderr}")
        return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--parse", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.parse:
        print(json.dumps(parse(arguments.parse)))
        return 0
    if arguments.write:
        write_fleet(arguments.write, arguments.tenants[0])
        return 0
    results = [measure(tenants) for tenants in [0, *arguments.tenants]]
    within = all(
        result["cpu_seconds"] <= CPU_SECONDS_LIMIT and result["max_rss_mb"] <= MEMORY_MB_LIMIT for result in results
    )
    report = {
        "without_tenants": results[0],
        "results": results[1:],
        "limits": {"tenants": 10000, "cpu_seconds": CPU_SECONDS_LIMIT, "max_rss_mb": MEMORY_MB_LIMIT},
        "within_limits": within,
    }
    print(json.dumps(report, indent=2))
    return 1 if arguments.check and not within else 0


if __name__ == "__main__":
    raise SystemExit(main())
