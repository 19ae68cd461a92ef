"""A stand-in for the playbook converge_tenant: does to the registry what the playbook does, and nothing to any node.

As ansible-playbook does, it runs in a process of its own that outlives a killed worker. It takes the tenants' leases,
works, records outcomes under its fences and gives the leases back. Every piece of work has a line where it begins and
one where it ends in the run journal, on disk before it goes on; and a file lock per tenant, which notices a second
process at work there and then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, process_holder

from webhook.operations import OUTCOME, STACKS
from webhook.runs import RunResult, TaskFailure, TaskResult

MODULE = "tests.kill.playbook"


@dataclass(frozen=True)
class Behaviour:
    """How the stand-in plays: where it writes, how long it takes, and how often it fails.

    ``failing`` holds the tenants that fail with a code until a file ``healed/<tenant>`` is in the folder.
    ``fail_probability`` is the chance that one tenant's work fails with one of ``fail_codes``, which pass by
    themselves. ``worker`` names whose playbooks they are. ``foreign`` plays on another machine: nobody here can tell
    whether its processes are alive.
    """

    folder: str
    registry: str
    worker: str = "worker0"
    seed: int = 0
    work_seconds: tuple[float, float] = (0.005, 0.150)
    fail_probability: float = 0.0
    fail_codes: tuple[str, ...] = ("unreachable",)
    failing: Mapping[str, str] | None = None
    lease_seconds: float = 30.0
    lease_wait_seconds: float = 2.0
    claim_seconds: float = 60.0
    foreign: bool = False
    with_leases: bool = True

    @property
    def lines_path(self) -> Path:
        """The run journal."""
        return Path(self.folder, "runs.jsonl")


class StandIn:
    """Takes the place of ``webhook.runs.run_playbook``: the same arguments, the same answer.

    Make it in the process's main thread before any other thread starts.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([MODULE, "sqlalchemy.dialects.sqlite", "psycopg", "webhook.runs"])

    def __call__(self, playbook: str, *, only: Collection[str] | None = None, **_other: Any) -> RunResult:
        """Plays for the tenants of ``only``, in a process of its own; any playbook but the two finds nothing."""
        started = time.monotonic()
        if playbook not in ("converge_tenant", "remove_tenant"):
            return RunResult(playbook, 0, 0.0)
        names = sorted(only or ())
        here, there = self._processes.Pipe(duplex=False)
        arguments = (asdict(self._behaviour), playbook, names, there)
        process = self._processes.Process(target=play_and_tell, args=arguments)
        process.start()
        there.close()
        try:
            answers = here.recv()
        except EOFError:
            process.join()
            return RunResult(playbook, 1, time.monotonic() - started, output=("the playbook died",))
        process.join()
        return answer_of(playbook, names, answers, time.monotonic() - started)


def answer_of(playbook: str, tenants: list[str], answers: Mapping[str, Mapping[str, Any]], seconds: float) -> RunResult:
    """What the run of a playbook comes to, given what its last task answered by tenant."""
    survey = {"behind": tenants, "surveyed": tenants, "asked": len(tenants)}
    results = [TaskResult("lead", STACKS, "survey", survey)]
    failures = []
    for tenant, answer in answers.items():
        results.append(TaskResult(f"tenant-{tenant}", OUTCOME, "judge", answer, time.time()))
        if answer.get("failed"):
            failures.append(TaskFailure(f"tenant-{tenant}", "judge", answer["msg"]))
    return RunResult(playbook, 2 if failures else 0, seconds, failures=tuple(failures), results=tuple(results))


def play_and_tell(behaviour: Mapping[str, Any], playbook: str, tenants: list[str], pipe: Any) -> None:
    """The process: plays, and tells the worker if there still is one."""
    os.setsid()
    answers = play(Behaviour(**behaviour), playbook, tenants)
    with contextlib.suppress(OSError):
        pipe.send(answers)


def play(
    behaviour: Behaviour, playbook: str, tenants: list[str], work: Callable[[str], str | None] | None = None
) -> dict[str, dict[str, Any]]:
    """By tenant what the playbook's last task would answer.

    ``work`` is what is done for a tenant, and answers the code it failed with, or None; by default it is what
    ``behaviour`` says.
    """
    registry = Registry(behaviour.registry)
    if behaviour.foreign:
        be_elsewhere()
    holder = process_holder()
    tenants = [summary.tenant for summary in registry.list(only=tenants)]
    fences: dict[str, int] = {}
    if behaviour.with_leases:
        leases = registry.acquire_leases(
            tenants,
            holder=holder,
            ttl_seconds=behaviour.lease_seconds,
            wait_seconds=behaviour.lease_wait_seconds,
            on_wait=lambda lease: write_line(behaviour.lines_path, what="waits", tenant=lease.tenant),
        )
        fences = {tenant: lease.fence for tenant, lease in leases.items() if lease is not None}
    else:
        fences = {tenant: time.monotonic_ns() for tenant in tenants}
    chance = random.Random(f"{behaviour.seed} {os.getpid()} {time.monotonic_ns()}")

    def pretend(tenant: str) -> str | None:
        time.sleep(chance.uniform(*behaviour.work_seconds))
        return planned_failure(behaviour, chance, tenant)

    answers = {tenant: failure(tenant, "busy", f"tenant {tenant} is being worked on") for tenant in tenants}
    for tenant, fence in fences.items():
        answers[tenant] = _converge(behaviour, registry, work or pretend, tenant, fence)
        if playbook == "remove_tenant" and not answers[tenant].get("failed"):
            registry.forget(tenant)
    return answers


def be_elsewhere() -> None:
    """From now on this process runs on another machine, as far as claims and leases can tell."""
    socket.gethostname = lambda: "elsewhere"


def _converge(
    behaviour: Behaviour, registry: Registry, work: Callable[[str], str | None], tenant: str, fence: int
) -> dict[str, Any]:
    with tenant_lock(behaviour, tenant):
        record = registry.get(tenant)
        line = {"tenant": tenant, "fence": fence, "revision": record.revision, "worker": behaviour.worker}
        write_line(behaviour.lines_path, what="begin", **line)
        code = work(tenant)
        write_line(behaviour.lines_path, what="end", failed=code, **line)
        message = f"tenant {tenant}: a planned failure ({code})" if code else None
        outcome = {"bots": {}, "message": message, "problem": code, "changes": []}
        if behaviour.with_leases:
            kept = registry.record_outcome(
                tenant, revision=record.revision, fence=fence, applied=code is None, outcome=outcome
            )
            registry.release_leases({tenant: fence})
            if not kept:
                return failure(tenant, "busy", "the lease was lost before the result was recorded")
    if code is not None:
        return failure(tenant, code, str(message))
    return {"changed": True, "changes": ["a stand-in"], "reasons": [], "revision": record.revision, "bots": {}}


def planned_failure(behaviour: Behaviour, chance: random.Random, tenant: str) -> str | None:
    """The code this tenant's work fails with now, if it is to fail."""
    code = (behaviour.failing or {}).get(tenant)
    if code is not None and not Path(behaviour.folder, "healed", tenant).exists():
        return code
    return chance.choice(behaviour.fail_codes) if chance.random() < behaviour.fail_probability else None


def failure(tenant: str, code: str, message: str) -> dict[str, Any]:
    """What the task answers for a tenant that failed."""
    return {"failed": True, "changed": False, "changes": [], "reasons": [], "msg": message, "problem": code}


@contextlib.contextmanager
def tenant_lock(behaviour: Behaviour, tenant: str) -> Any:
    """Writes an ``overlap`` line if another process works on the tenant now; the kernel frees the lock of the dead."""
    folder = Path(behaviour.folder, "locks")
    folder.mkdir(exist_ok=True)
    with (folder / tenant).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            write_line(behaviour.lines_path, what="overlap", tenant=tenant)
        yield


def write_line(path: Path, **content: Any) -> None:
    """Appends one line to the run journal, on disk when this returns."""
    line = json.dumps({"at": time.monotonic_ns(), "pid": os.getpid(), **content}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of the run journal."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
