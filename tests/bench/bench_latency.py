"""Measures how long a bot's start takes from the portal's event, against a cold ``ansible-playbook`` doing the same.

Two installations of their own on this machine's Docker engine, each with one tenant whose containers come from a tiny
image that only stays up. In one, ``bot.started`` is posted to the web service and a running worker converges the
tenant; in the other, the same revision is stored by hand and ``ansible-playbook playbooks/converge_tenant.yml --limit``
is started. Measured are the times to the run's first task and to the start of the bot's container, alternating; the
clock starts with the POST and with the process. The worker's looks at its bots after a run are put off meanwhile: they
would meet the next measurement, of either way.

    .venv/bin/python tests/bench/bench_latency.py --json var/bench/latency.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.report import Bound, finish  # noqa: E402
from tests.factories import document, market_making_bot  # noqa: E402
from tests.installation import SYSTEM_PATH, Installation  # noqa: E402
from tests.kill.plan import event  # noqa: E402
from tests.kill.portal import Connection  # noqa: E402
from tests.kill.stage import Service, answers_http, free_port, make_secrets, wait_until  # noqa: E402

PATIENCE_SECONDS = 120


def say(text: str) -> None:
    """Progress, so that nobody wonders."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


class Starts:
    """When containers started, as Docker tells."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["docker", "events", "--filter", "event=start", "--filter", "type=container", "--format", "{{json .}}"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": SYSTEM_PATH},
        )  # fmt: skip
        self._seen: list[tuple[str, float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, container: str, since: float) -> float:
        """Epoch seconds of the first start of ``container`` after ``since``."""

        def find() -> float | None:
            return next((at for name, at in list(self._seen) if name == container and at > since), None)

        return float(wait_until(find, f"{container} started", PATIENCE_SECONDS))

    def close(self) -> None:
        """Listens no more."""
        self._process.terminate()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            one = json.loads(line)
            self._seen.append((one["Actor"]["Attributes"].get("name", ""), one["timeNano"] / 1e9))


class Place(Installation):
    """An installation with one tenant of one bot, and a section for the webhook in its fleet file."""

    def __init__(self, folder: Path, prefix: str, pool: str, uid_start: int) -> None:
        folder.mkdir()
        (folder / "ansible.cfg").write_text("")  # makes it the root: sockets and folders of runs are below it
        super().__init__(folder, prefix=prefix, pool=pool, uid_start=uid_start)
        self.port = free_port()
        self.worker_port = free_port()
        fleet = yaml.safe_load(self.fleet_path.read_text())
        fleet["webhook"] = {
            "listen": f"127.0.0.1:{self.port}",
            "worker_listen": f"127.0.0.1:{self.worker_port}",
            "secrets": str(folder / "webhook-secrets.yml"),
            "observe_seconds": 3600,
        }
        self.fleet_path.write_text(yaml.safe_dump(fleet))
        self.tenant = f"{prefix}t"
        self.container = f"{self.tenant}-bot_b1"
        self.submit(
            document(
                tenant=self.tenant,
                subdomain=self.tenant,
                exchange_environment="live",
                exchange_connections=[self.connection(self.tenant)],
                bots=[market_making_bot(id="b1", state="stopped")],
            )
        )
        run = self.converge()
        if run.code != 0:
            raise SystemExit(run.output[-4000:])


class ByHand(Place):
    """Starts and stops the bot by a revision and a cold playbook."""

    def start_bot(self, starts: Starts) -> tuple[float, float]:
        """Seconds to the first task, and to the bot's container."""
        self.change(self.tenant, lambda data: data["bots"][0].update(state="running"))
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(ROOT / "playbooks" / "converge_tenant.yml")]
        command += ["-i", str(self.fleet_path), "--limit", f"tenant-{self.tenant}"]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HUMMINGFLEET_FLEET": str(self.fleet_path),
            "PATH": f"{ROOT}/.venv/bin:{SYSTEM_PATH}",
            "PYTHONUNBUFFERED": "1",
        }
        began = time.time()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        first, output = 0.0, []
        for line in process.stdout:
            output.append(line)
            if not first and line.startswith("TASK ["):
                first = time.time() - began
        if process.wait() != 0:
            raise SystemExit("".join(output)[-4000:])
        return first, starts.wait(self.container, began) - began

    def stop_bot(self) -> None:
        """Back to where it was."""
        self.change(self.tenant, lambda data: data["bots"][0].update(state="stopped"))
        run = self.converge("--limit", f"tenant-{self.tenant}")
        if run.code != 0:
            raise SystemExit(run.output[-4000:])


class ByEvent(Place):
    """Starts and stops the bot by events."""

    def __init__(self, folder: Path, prefix: str, pool: str, uid_start: int) -> None:
        super().__init__(folder, prefix, pool, uid_start)
        self.secret, _callbacks = make_secrets(folder / "webhook-secrets.yml")
        self._tasks = folder / "tasks.jsonl"
        command = [sys.executable, "-m", "webhook", "--fleet", str(self.fleet_path), "serve"]
        self.web = Service("web", command, folder, lambda: answers_http(self.port))
        command = [sys.executable, str(ROOT / "tests" / "bench" / "latency_worker.py")]
        command += [str(self.fleet_path), str(self._tasks)]
        self.worker = Service("worker", command, folder, lambda: answers_http(self.worker_port, "/readyz"))
        self._portal = Connection(self.port, self.secret)
        self._sent = 0

    def start_services(self) -> None:
        """Starts web service and worker."""
        for service in (self.web, self.worker):
            service.start()
        for service in (self.web, self.worker):
            service.wait_ready()

    def start_bot(self, starts: Starts) -> tuple[float, float]:
        """Seconds to the first task, and to the bot's container."""
        began = self.post("bot.started")
        container = starts.wait(self.container, began) - began
        self._wait_applied()
        first = min(line["at"] for line in self._lines() if line["at"] > began) - began
        return first, container

    def stop_bot(self) -> None:
        """Back to where it was."""
        self.post("bot.stopped")
        self._wait_applied()

    def close(self) -> None:
        """Ends web service and worker."""
        self._portal.close()
        self.worker.stop()
        self.web.stop()

    def _lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._tasks.read_text().splitlines()]
        return [line for line in lines if line["playbook"] == "converge_tenant"]

    def post(self, kind: str) -> float:
        """Posts the event for the bot, which has to be accepted; when it was sent."""
        self._sent += 1
        body = json.dumps(event(kind, tenant=self.tenant, bot_id="b1")).encode()
        began = time.time()
        answer = self._portal.post(f"latency-{self._sent}", body)
        if answer.status != 202:
            raise SystemExit(f"the event was answered {answer.status}: {answer.body}")
        return began

    def _wait_applied(self) -> None:
        def applied() -> bool:
            record = self.registry.get(self.tenant)
            return record.applied_revision == record.revision and not self.registry.leases(only=[self.tenant])

        wait_until(applied, "the event is applied", PATIENCE_SECONDS)


@contextlib.contextmanager
def places() -> Iterator[tuple[ByEvent, ByHand]]:
    """Both installations, which leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hf-latency-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        by_event = ByEvent(folder / "event", "lata-", "10.202.0.0/20", 370_000)
        stack.callback(by_event.clean)
        stack.callback(by_event.close)
        by_hand = ByHand(folder / "hand", "latb-", "10.202.16.0/20", 380_000)
        stack.callback(by_hand.clean)
        yield by_event, by_hand


def measure(rounds: int) -> dict[str, Any]:
    """Seconds, by way and by what was waited for; the first round of each is not counted."""
    times: dict[str, list[float]] = {
        f"{way} {what}": [] for way in ("event", "cold") for what in ("first task", "container")
    }
    with places() as (by_event, by_hand), contextlib.closing(Starts()) as starts:
        by_event.start_services()
        for number in range(rounds + 1):
            say(f"round {number} of {rounds}")
            for way, place in (("event", by_event), ("cold", by_hand)):
                first, container = place.start_bot(starts)
                place.stop_bot()
                if number:
                    times[f"{way} first task"].append(first)
                    times[f"{way} container"].append(container)
    return {
        name: {"median_seconds": round(statistics.median(some), 3), "rounds": [round(one, 3) for one in some]}
        for name, some in times.items()
    }


def main() -> int:
    """Measures, prints a table; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.rounds)
    medians = {name: row["median_seconds"] for name, row in figures.items()}
    for name, seconds in medians.items():
        print(f"{name:<20} {seconds:7.3f} s")
    bounds = [
        Bound("bot.started to first task / cold", medians["event first task"] / medians["cold first task"], 0.5),
        Bound("bot.started to container / cold", medians["event container"] / medians["cold container"], 0.75),
    ]
    return finish(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
