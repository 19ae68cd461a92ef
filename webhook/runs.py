# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts ``ansible-playbook``, through ansible-runner.

A run is given identifiers only: tenants, switches and paths. ansible-runner records extra variables and environment in
its artifacts, so those live in a private folder that is removed with the run. The folder also says who started the run
and which process leads it, so that a run whose starter was killed can be ended by another process (``end_orphans``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

from . import ROOT
from .process_tree import MARK, Process, end_run

if TYPE_CHECKING:
    from .forkserver import ForkServer

CLIENT = Path(__file__).with_name("playbook_client.py")
_WATCH_SECONDS = 0.1
_ANNOUNCE_SECONDS = 0.02
_LEADER_SECONDS = 5.0
_PATIENCE_SECONDS = 3.0
_UNFINISHED_SECONDS = 600
_MESSAGE_MAX = 1500
_OUTPUT_LINES = 60
# What stands before the reason when our inventory plugin refuses; Ansible's other plugins then complain, too.
_INVENTORY = "plugins.inventory.tenants' plugin: "

Listener = Callable[[str], None]


class RunError(HummingfleetError):
    """A playbook could not be started or was interrupted."""


class RunCancelledError(RunError):
    """A playbook was interrupted by whoever started it."""


class RunTimeoutError(RunError):
    """A playbook took longer than it may."""


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A run that has started: its id, its playbook, and its leading process as a holder (see the registry)."""

    run: str
    playbook: str
    holder: str


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
    timeout_seconds: float | None = None,
    cancel: threading.Event | None = None,
    run_dir: Path | None = None,
    server: ForkServer | None = None,
    on_start: Callable[[RunProcess], None] | None = None,
) -> RunResult:
    """Runs ``playbooks/<playbook>.yml`` and waits for it; raises RunError if it cannot start or is interrupted.

    ``only`` are the tenants the inventory reads, so that work on one costs the same in a fleet of ten thousand; without
    ``limit`` the run is limited to them, too. ``variables`` must hold identifiers and switches, never a secret. The
    results of the modules named in ``keep`` are in the answer. ``on_task`` is told what is done now, ``on_output``
    every line that Ansible would print.

    After ``timeout_seconds`` RunTimeoutError is raised, and RunCancelledError soon after ``cancel`` is set (in the main
    thread also after Ctrl+C and SIGTERM); either way no process of the run is left then. The run's folder is made below
    ``run_dir`` (default: a temporary folder, which ``end_orphans`` will not find). ``server`` may start the playbook
    faster. ``on_start`` is called from another thread once the leading process is known. Several threads may run
    playbooks at the same time.
    """
    path = ROOT / "playbooks" / f"{playbook}.yml"
    if not path.is_file():
        raise RunError(f"there is no playbook {path.name} in {path.parent}")
    collector = _Collector(frozenset(keep), on_task, on_output)
    started = time.monotonic()
    with _run_folder(run_dir, playbook) as folder:
        variables_of_run = {
            **(environment or {}),
            **_base_environment(),
            "HUMMINGFLEET_FLEET": str(fleet_path),
            **_stand_in(folder, server),
        }
        if only is not None:
            variables_of_run["HUMMINGFLEET_ONLY"] = ",".join(sorted(only))
            limit = limit or ",".join(f"tenant-{tenant}" for tenant in sorted(only))
        switches = [switch for switch, wanted in (("--check", check), ("--diff", diff)) if wanted]
        with _Watch(folder, playbook, timeout_seconds, cancel, on_start) as watch:
            runner = _start(
                private_data_dir=str(folder),
                project_dir=str(ROOT),
                playbook=str(path),
                inventory=str(fleet_path),
                limit=limit,
                extravars=dict(variables or {}),
                envvars=variables_of_run,
                cmdline=" ".join(switches) or None,
                quiet=True,
                suppress_env_files=True,
                event_handler=collector.handle,
                cancel_callback=watch.ended.is_set,
            )
            watch.finish(runner.rc)
    return RunResult(
        playbook=playbook,
        rc=int(runner.rc if runner.rc is not None else 1),
        seconds=time.monotonic() - started,
        changed=collector.changed,
        failures=tuple(collector.failures),
        results=tuple(collector.results),
        output=tuple(collector.output),
    )


def runner_environment() -> dict[str, str]:
    """The environment that ansible-runner gives a run, but for what belongs to that one run."""
    from ansible_runner.config.runner import RunnerConfig  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory(prefix="hummingfleet-run-") as folder:
        config = RunnerConfig(
            private_data_dir=folder,
            project_dir=str(ROOT),
            playbook="none.yml",
            inventory="none",
            envvars=_base_environment(),
            quiet=True,
            suppress_env_files=True,
        )
        config.prepare()
        return {name: str(value) for name, value in config.env.items()}


def end_orphans(run_dir: Path) -> list[str]:
    """Ends the runs below ``run_dir`` whose starter was killed, with all their processes; gives their ids.

    Runs of living starters are left alone, also of other workers; several processes may call this at once.
    """
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import holder_is_dead

    ended = []
    for folder in sorted((run_dir / _RUNS).glob("*")):
        with contextlib.suppress(FileNotFoundError), _locked(folder):
            try:
                owner = str(json.loads((folder / _RECORD).read_text(encoding="utf-8"))["owner"])
            except (OSError, ValueError, KeyError, TypeError):
                # About to begin, or its starter was killed at just that moment and started nothing.
                if time.time() - folder.stat().st_mtime > _UNFINISHED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            here = not _is_of_earlier_boot(owner)
            if here and not holder_is_dead(owner):
                continue
            if here:
                end_run(_leader(folder), folder.name, patience_seconds=_PATIENCE_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)
            ended.append(folder.name)
    return ended


_RUNS = "runs"
_RECORD = "run.json"
_LEADER = "leader"


def _base_environment() -> dict[str, str]:
    """What every run gets, whatever it does; a fork server gets the same."""
    return {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # ansible-runner would switch it off.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Colours would end up in messages, which are shown elsewhere.
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


def _stand_in(folder: Path, server: ForkServer | None) -> dict[str, str]:
    """Puts our client where ansible-runner looks for ``ansible-playbook``; the variables that it needs."""
    from . import forkserver, playbook_client, playbook_server

    stand_in = folder / "bin" / "ansible-playbook"
    stand_in.parent.mkdir()
    command = shlex.join([sys.executable, "-IS", str(CLIENT)])
    stand_in.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    stand_in.chmod(0o700)
    address = None
    with contextlib.suppress(forkserver.ForkServerError):
        address = server.address() if server is not None else None
    return {
        MARK: folder.name,
        "PATH": os.pathsep.join([str(stand_in.parent), _base_environment()["PATH"]]),
        playbook_client.PLAIN: str(playbook_server.PLAIN),
        playbook_client.LEADER: str(folder / _LEADER),
        **({playbook_client.SERVER: str(address)} if address else {}),
    }


@contextlib.contextmanager
def _run_folder(run_dir: Path | None, playbook: str) -> Iterator[Path]:
    """A new run's folder, for its time; its name is the run's id, and it says who started the run."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

    from .forkserver import private_dir

    with contextlib.ExitStack() as stack:
        try:
            if run_dir is None:
                run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hummingfleet-run-")))
            folder = private_dir(run_dir.absolute() / _RUNS) / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            record = {"owner": process_holder(), "playbook": playbook}
            (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        except OSError as error:
            raise RunError(f"the folder of a run cannot be made: {error}") from None
        yield folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Has the folder to ourselves; raises FileNotFoundError if somebody removed it before."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder.stat()
        yield
    finally:
        os.close(descriptor)


def _leader(folder: Path) -> Process | None:
    """The run's leading process, once that has said so."""
    try:
        pid, started = (folder / _LEADER).read_text(encoding="ascii").split()
    except OSError:
        return None
    return Process(int(pid), started)


def _is_of_earlier_boot(holder: str) -> bool:
    """Whether it ran on this machine before its last start, so that nothing it started is left."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

    host, _pid, rest = holder.split(":", 2)
    here, _pid, ours = process_holder().split(":", 2)
    return host == here and rest.partition("/")[0] != ours.partition("/")[0]


def _now() -> float:
    return time.monotonic()


class _Watch:
    """Looks after a run from a thread of its own: tells that it started, and ends it when it has to."""

    def __init__(
        self,
        folder: Path,
        playbook: str,
        timeout_seconds: float | None,
        cancel: threading.Event | None,
        on_start: Callable[[RunProcess], None] | None,
    ) -> None:
        self.folder = folder
        self.playbook = playbook
        self.timeout_seconds = timeout_seconds
        self.cancel = cancel
        self.on_start = on_start
        self.interrupted = threading.Event()
        self.finished = threading.Event()
        self.ended = threading.Event()
        self.problem: RunError | None = None
        self.left: tuple[int, ...] = ()
        self.thread = threading.Thread(target=self._watch, name=f"watch {folder.name}", daemon=True)
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> _Watch:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, lambda _number, _frame: self.interrupted.set())
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        self.finished.set()
        self.thread.join()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if kind is not None and not self.ended.is_set():
            self._end()  # ansible-runner gave up on it, not we
        if self.problem is not None:
            if self.left:
                pids = ", ".join(map(str, self.left))
                raise type(self.problem)(f"{self.problem}; processes {pids} could not be ended") from None
            raise self.problem

    def finish(self, rc: int | None) -> None:
        """The playbook has ended with this code; None if a signal ended it, which may have left something behind."""
        if rc is None and not self.ended.is_set():
            self._end()

    def _watch(self) -> None:
        deadline = _now() + self.timeout_seconds if self.timeout_seconds is not None else float("inf")
        announced = self.on_start is None
        while not self.finished.wait(_WATCH_SECONDS if announced else _ANNOUNCE_SECONDS):
            if not announced:
                announced = self._announce()
            if self.interrupted.is_set() or (self.cancel is not None and self.cancel.is_set()):
                self.problem = RunCancelledError(
                    f"the playbook {self.playbook} was interrupted; what it had begun may be half done, "
                    "run it again to finish"
                )
            elif _now() >= deadline:
                self.problem = RunTimeoutError(
                    f"the playbook {self.playbook} did not finish within {self.timeout_seconds:g} s and was ended; "
                    "what it had begun may be half done, run it again to finish"
                )
            if self.problem is not None:
                self._end()
                return
        if not announced:
            self._announce()

    def _announce(self) -> bool:
        leader = _leader(self.folder)
        if leader is None or self.on_start is None:
            return False
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder

        self.on_start(RunProcess(self.folder.name, self.playbook, process_holder(leader.pid)))
        return True

    def _end(self) -> None:
        """Ends the run's processes; one that is just being started is waited for, since it cannot be found yet."""
        deadline = time.monotonic() + _LEADER_SECONDS
        while (leader := _leader(self.folder)) is None and time.monotonic() < deadline:
            if self.finished.wait(_ANNOUNCE_SECONDS):
                break
        self.left = end_run(leader, self.folder.name, patience_seconds=_PATIENCE_SECONDS)
        self.ended.set()


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
