"""A playbook started by hand and one of the worker's never work on a tenant at the same time: one waits or is refused.

Real Ansible on stand-in containers. The run that comes first is stopped (SIGSTOP) in the middle of its work, with the
tenant's lease in its hands, so that the other one certainly comes while it is at work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Lease

from tests.bench.bench_latency import ByEvent
from tests.installation import ROOT, SYSTEM_PATH, docker
from tests.kill.stage import wait_until
from webhook.journal import Journal

pytestmark = pytest.mark.lab


class Place(ByEvent):
    """A tenant with web service and worker, and an operator."""

    @property
    def journal(self) -> Journal:
        """The events."""
        return Journal(self.registry, self.fleet, load_catalogue(self.fleet.catalogue))

    def event_state(self, event_id: str) -> str:
        """What became of the event so far."""
        return self.journal.get(event_id).state

    def last_event(self) -> str:
        """The id of the latest event."""
        return self.journal.list(limit=1).items[0].id

    def lease(self) -> Lease | None:
        """Who works on the tenant now."""
        return self.registry.leases(only=[self.tenant]).get(self.tenant)

    @contextmanager
    def stopped_at_work(self) -> Iterator[Lease]:
        """Waits until somebody has the lease, and holds that process up while the block runs."""
        lease = wait_until(self.lease, "somebody has the lease", 60)
        pid = int(lease.holder.split(":")[1])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield lease
        finally:
            os.kill(pid, signal.SIGCONT)

    def by_hand(self, *arguments: str) -> subprocess.Popen[str]:
        """ansible-playbook as an operator starts it."""
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(ROOT / "playbooks" / "converge_tenant.yml")]
        command += ["-i", str(self.fleet_path), "--limit", f"tenant-{self.tenant}", *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HUMMINGFLEET_FLEET": str(self.fleet_path),
            "PATH": f"{ROOT}/.venv/bin:{SYSTEM_PATH}",
            "PYTHONUNBUFFERED": "1",
        }
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def worker_turns(self, times: int) -> None:
        """Waits until the worker's loop has turned so often: long enough to start whatever it would start."""
        seen: set[Any] = set()

        def turned() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.worker_port}/livez", timeout=10) as answer:
                seen.add(json.load(answer)["worker"]["beat_at"])
            return len(seen) > times

        wait_until(turned, "the worker looks for work", 60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hand") / "place"
    made = Place(folder, prefix="hfhand-", pool="10.204.0.0/20", uid_start=400_000)
    try:
        made.start_services()
        yield made
    finally:
        made.close()
        made.clean()


def test_a_playbook_by_hand_is_refused_or_waits_while_the_worker_is_at_work(place: Place) -> None:
    place.post("bot.started")
    event = place.last_event()
    with place.stopped_at_work() as lease:
        refused = place.by_hand("-e", "tenant_stack_lease_wait_seconds=0")
        output, _errors = refused.communicate(timeout=120)
        assert refused.returncode != 0
        assert "is being worked on by process" in output
        waiting = place.by_hand()
        lines: list[str] = []
        assert waiting.stdout is not None
        for line in waiting.stdout:
            lines.append(line)
            if "waiting: tenant" in line:
                break
        assert "waiting: tenant" in "".join(lines), "".join(lines)
        held = place.lease()
        assert held is not None
        assert (held.fence, held.holder) == (lease.fence, lease.holder)
        assert place.event_state(event) == "accepted"
    output, _errors = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, output
    wait_until(lambda: place.event_state(event) == "applied", "the event is applied", 60)
    assert place.registry.get(place.tenant).outcome["bots"]["b1"]["state"] == "running"
    assert _highest_fence(place) == lease.fence + 1


def test_the_worker_waits_while_a_playbook_by_hand_is_at_work(place: Place) -> None:
    place.stop_bot()
    docker("rm", "-f", f"{place.tenant}-redis")
    by_hand = place.by_hand()
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.extend(by_hand.stdout or ()))
    reader.start()
    with place.stopped_at_work() as lease:
        place.post("bot.started")
        event = place.last_event()
        place.worker_turns(4)
        assert place.event_state(event) == "accepted"
        held = place.lease()
        assert held is not None
        assert (held.fence, held.holder) == (lease.fence, lease.holder)
    reader.join(120)
    assert by_hand.wait(10) == 0, "".join(output)
    wait_until(lambda: place.event_state(event) == "applied", "the event is applied", 60)
    record = place.registry.get(place.tenant)
    assert record.revision == record.applied_revision
    assert record.outcome["bots"]["b1"]["state"] == "running"
    assert _highest_fence(place) == lease.fence + 1


def _highest_fence(place: Place) -> int:
    """The highest fence that the node has seen of the tenant."""
    return int(json.loads(Path(place.base_dir, "fences", f"{place.tenant}.json").read_text())["fence"])
