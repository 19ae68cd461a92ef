"""What starting a playbook costs: plain, and from the fork server, in turns so that a busy machine slows both alike."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from webhook.forkserver import ForkServer  # noqa: E402
from webhook.runs import run_playbook  # noqa: E402

PLAYBOOK = """
- hosts: all
  connection: local
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.debug: {msg: hello}
"""


def measure(playbook: Path, server: ForkServer | None) -> tuple[float, float]:
    """Seconds until the first task, and until the run is over."""
    first: list[float] = []
    began = time.perf_counter()
    result = run_playbook(
        str(playbook.with_suffix("")),
        fleet_path=Path("localhost"),
        server=server,
        run_dir=playbook.parent,
        on_task=lambda _name: first.append(time.perf_counter() - began),
    )
    seconds = time.perf_counter() - began
    assert result.ok, result.problem()
    return first[0], seconds


def memory_mib(pid: int) -> float:
    """What the process has for itself and its share of what it has in common with others (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    """Measures and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder, "hello.yml")
        playbook.write_text(PLAYBOOK)
        with ForkServer(Path(folder)) as server:
            began = time.perf_counter()
            assert server.wait_until_ready() and server.pid is not None
            ready = time.perf_counter() - began
            ways = {"plain": None, "fork server": server}
            for way in ways.values():
                measure(playbook, way)
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(options.repetitions):
                for name, way in ways.items():
                    seen[name].append(measure(playbook, way))
            figures = {
                name: {
                    "first_task": round(statistics.median(first for first, _all in values), 3),
                    "total": round(statistics.median(total for _first, total in values), 3),
                }
                for name, values in seen.items()
            }
            server_figures = {"ready_seconds": round(ready, 2), "pss_mib": round(memory_mib(server.pid), 1)}
    for name, value in figures.items():
        print(f"{name:12} first task {value['first_task']:.3f} s, total {value['total']:.3f} s")
    print(f"the server was ready after {server_figures['ready_seconds']} s and has {server_figures['pss_mib']} MiB")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**figures, "server": server_figures}, indent=2))


if __name__ == "__main__":
    main()
