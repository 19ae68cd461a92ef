# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts ``ansible-playbook``, through ansible-runner.

A run is given identifiers only: tenants, switches and paths. ansible-runner records extra variables and environment in
its artifacts, so those live in a private folder that is removed with the run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

from . import ROOT

_MARK = "HUMMINGFLEET_RUN"
_END_SECONDS = 5.0
_MESSAGE_MAX = 1500
_OUTPUT_LINES = 60
# What stands before the reason when our inventory plugin refuses; Ansible's other plugins then complain, too.
_INVENTORY = "plugins.inventory.tenants' plugin: "

Listener = Callable[[str], None]


class RunError(HummingfleetError):
    """A playbook could not be started or was interrupted."""


class RunCancelledError(RunError):
    """A playbook was interrupted by whoever started it."""


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that failed on a host. ``unreachable`` says that the host did not answer."""

    host: str
    task: str
    message: str
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task of interest answered on a host (a module's own result), and when (epoch seconds)."""

    host: str
    action: str
    task: str
    answer: Mapping[str, Any]
    at: float = 0.0


@dataclass(frozen=True)
class RunResult:
    """What became of a run; ``changed`` counts tasks by host, as Ansible's recap does."""

    playbook: str
    rc: int
    seconds: float
    changed: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[TaskFailure, ...] = ()
    results: tuple[TaskResult, ...] = ()
    output: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything the run was asked for succeeded."""
        return self.rc == 0 and not self.failures

    @property
    def changed_count(self) -> int:
        """How many tasks changed something."""
        return sum(self.changed.values())

    def answers(self, action: str) -> tuple[TaskResult, ...]:
        """The results of one module, by its full name."""
        return tuple(result for result in self.results if result.action == action)

    def problem(self) -> str:
        """Why the run failed, in one text for people."""
        if self.failures:
            seen = dict.fromkeys(f"{failure.host}: {failure.message}" for failure in self.failures)
            return "\n".join(seen)
        refused = [line.partition(_INVENTORY)[2] for line in self.output if _INVENTORY in line]
        errors = refused or [line for line in self.output if "[ERROR]" in line] or list(self.output[-3:])
        return "\n".join(errors) or f"ansible-playbook ended with code {self.rc}"


def run_playbook(
    playbook: str,
    *,
    fleet_path: Path,
    only: Collection[str] | None = None,
    limit: str | None = None,
    check: bool = False,
    diff: bool = False,
    variables: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    keep: Collection[str] = (),
    on_task: Listener | None = None,
    on_output: Listener | None = None,
) -> RunResult:
    """Runs ``playbooks/<playbook>.yml`` and waits for it; raises RunError if it cannot start or is interrupted.

    ``only`` are the tenants the inventory reads, so that work on one costs the same in a fleet of ten thousand; without
    ``limit`` the run is limited to them, too. ``variables`` must hold identifiers and switches, never a secret. The
    results of the modules named in ``keep`` are in the answer. ``on_task`` is told what is done now, ``on_output``
    every line that Ansible would print.
    """
    path = ROOT / "playbooks" / f"{playbook}.yml"
    if not path.is_file():
        raise RunError(f"there is no playbook {path.name} in {path.parent}")
    collector = _Collector(frozenset(keep), on_task, on_output)
    token = secrets.token_hex(8)
    extra_environment = {
        **(environment or {}),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "HUMMINGFLEET_FLEET": str(fleet_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        _MARK: token,
        # Colours would end up in messages, which are shown elsewhere.
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    if only is not None:
        extra_environment["HUMMINGFLEET_ONLY"] = ",".join(sorted(only))
        limit = limit or ",".join(f"tenant-{tenant}" for tenant in sorted(only))
    switches = [switch for switch, wanted in (("--check", check), ("--diff", diff)) if wanted]
    started = time.monotonic()
    folder = tempfile.mkdtemp(prefix="hummingfleet-run-")
    try:
        with _interruptible(token) as interrupted:
            runner = _start(
                private_data_dir=folder,
                project_dir=str(ROOT),
                playbook=str(path),
                inventory=str(fleet_path),
                limit=limit,
                extravars=dict(variables or {}),
                envvars=extra_environment,
                cmdline=" ".join(switches) or None,
                quiet=True,
                suppress_env_files=True,
                event_handler=collector.handle,
                cancel_callback=interrupted.is_set,
            )
            if interrupted.is_set():
                raise RunCancelledError(
                    f"the playbook {playbook} was interrupted; what it had begun may be half done, "
                    "run it again to finish"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return RunResult(
        playbook=playbook,
        rc=int(runner.rc if runner.rc is not None else 1),
        seconds=time.monotonic() - started,
        changed=collector.changed,
        failures=tuple(collector.failures),
        results=tuple(collector.results),
        output=tuple(collector.output),
    )


def _start(**arguments: Any) -> Any:
    import ansible_runner  # type: ignore[import-untyped]

    try:
        return ansible_runner.run(**arguments)
    except (ansible_runner.exceptions.AnsibleRunnerException, OSError) as error:
        raise RunError(f"ansible-playbook could not be started: {error}") from None


class _Collector:
    """Listens to a run's events and keeps the few facts that matter."""

    def __init__(self, keep: frozenset[str], on_task: Listener | None, on_output: Listener | None) -> None:
        self.keep = keep
        self.on_task = on_task
        self.on_output = on_output
        self.changed: dict[str, int] = {}
        self.failures: list[TaskFailure] = []
        self.results: list[TaskResult] = []
        self.output: list[str] = []

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Takes one event; True, so that ansible-runner keeps it and its statistics stay available."""
        kind = str(event.get("event", ""))
        data = event.get("event_data") or {}
        text = str(event.get("stdout") or "")
        if text:
            self.output = [*self.output, *text.splitlines()][-_OUTPUT_LINES:]
            if self.on_output is not None:
                self.on_output(text)
        if kind in ("playbook_on_task_start", "playbook_on_handler_task_start") and self.on_task is not None:
            self.on_task(_plain_name(str(data.get("name") or data.get("task") or "")))
        elif kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            self._task(kind, data)
        elif kind == "playbook_on_stats":
            self.changed = {str(host): int(count) for host, count in (data.get("changed") or {}).items()}
        return True

    def _task(self, kind: str, data: Mapping[str, Any]) -> None:
        answer = data.get("res") if isinstance(data.get("res"), Mapping) else {}
        host, task = str(data.get("host", "")), str(data.get("task", ""))
        action = str(data.get("resolved_action") or data.get("task_action") or "")
        if action in self.keep:
            self.results.append(TaskResult(host, action, task, dict(answer or {}), time.time()))
        if kind == "runner_on_ok" or data.get("ignore_errors"):
            return
        unreachable = kind == "runner_on_unreachable"
        self.failures.append(TaskFailure(host, task, _message(answer or {}, task), unreachable))


def _plain_name(name: str) -> str:
    """A task's name without the role that Ansible puts before it."""
    role, separator, task = name.partition(" : ")
    return task if separator and " " not in role else name


def _message(answer: Mapping[str, Any], task: str) -> str:
    """What a failed task says: its message, of a loop the items' messages, of a command what it wrote."""
    parts = [str(answer.get("msg") or "").strip()]
    for item in answer.get("results") or ():
        if isinstance(item, Mapping) and item.get("failed"):
            parts.append(str(item.get("msg") or "").strip())
    for stream in ("stderr", "stdout"):
        if answer.get("cmd") and answer.get(stream):
            parts.append(str(answer[stream]).strip()[-_MESSAGE_MAX:])
            break
    text = "\n".join(dict.fromkeys(part for part in parts if part))
    return text[:_MESSAGE_MAX] or f"the task {task!r} failed without a message"


@contextlib.contextmanager
def _interruptible(token: str) -> Iterator[threading.Event]:
    """An event that Ctrl+C and SIGTERM set; afterwards no process of the run is left."""
    interrupted = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    before = {}
    if main:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda _number, _frame: interrupted.set())
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if interrupted.is_set():
            # Ansible's workers and modules have sessions of their own and outlive a killed ansible-playbook.
            _end_marked(token)


def _end_marked(token: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    pids = _marked(token)
    _signal(pids, signal.SIGTERM)
    while pids and time.monotonic() < deadline:
        time.sleep(0.1)
        pids = _marked(token)
    _signal(pids, signal.SIGKILL)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _marked(token: str) -> list[int]:
    """This run's processes: those that were started with its mark in their environment."""
    mark = f"{_MARK}={token}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found
