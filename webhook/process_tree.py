# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending a run with everything it started.

Ansible's workers and modules have sessions and process groups of their own, daemons leave their parents, and a module
may ignore SIGTERM. So the tree is walked by parent ids. The run's first process, its *leader*, is a child subreaper
(see ``become_subreaper``): whatever loses its parent becomes a child of the leader, not of init, and stays findable
for as long as the leader lives. That is why the leader is ended last.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MARK = "HUMMINGFLEET_RUN"
"""Variable that every process started by a run inherits; its value is the run's id."""

_STUBBORN_SECONDS = 10.0
_POLL_SECONDS = 0.03
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine; ``started`` (ticks since boot) tells it from a later one with the same id."""

    pid: int
    started: str


class _Row(NamedTuple):
    parent: int
    started: str
    alive: bool


def become_subreaper() -> None:
    """Makes orphans among this process's descendants its children; kept across exec, not inherited by children."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot become a child subreaper")


def this_process() -> Process:
    """The calling process."""
    return Process(os.getpid(), _read_stat(os.getpid()).started)


def is_alive(process: Process) -> bool:
    """Whether it still runs; a zombie does not."""
    row = _read_stat(process.pid)
    return row.alive and row.started == process.started


def end_run(leader: Process | None, run: str, *, patience_seconds: float = 3.0) -> tuple[int, ...]:
    """Ends the tree below ``leader`` and everything else that carries the mark of ``run``; gives what would not end.

    Each process gets SIGTERM and, if it is still there after ``patience_seconds``, SIGKILL. The leader is halted first,
    so that it starts nothing new, and ended last. Shared SSH connections (ControlPersist) are left alone: another run
    may be using them, and they end by themselves.
    """
    left: set[int] = set()
    if leader is not None:
        _send(leader, signal.SIGSTOP)
        left.update(_end(lambda: descendants(leader), patience_seconds))
        # Halted processes act on SIGINT when they continue: Ansible then tidies up behind itself.
        _send(leader, signal.SIGINT)
        _send(leader, signal.SIGCONT)
        _end(lambda: [*descendants(leader), *filter(is_alive, [leader])], patience_seconds, gently=False, spare=leader)
        left.update(process.pid for process in [leader] if is_alive(process))
    left.update(_end(lambda: marked(run), patience_seconds))
    return tuple(sorted(left))


def descendants(root: Process) -> list[Process]:
    """Every living process below ``root``, children before their parents; none if ``root`` is gone."""
    table = _table()
    if root.pid not in table or table[root.pid].started != root.started:
        return []
    children: dict[int, list[int]] = {}
    for pid, row in table.items():
        children.setdefault(row.parent, []).append(pid)
    found: list[int] = []
    waiting = [root.pid]
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), ()) if not _is_shared_connection(pid)]
        found.extend(below)
        waiting.extend(below)
    return [Process(pid, table[pid].started) for pid in reversed(found) if table[pid].alive]


def marked(run: str) -> list[Process]:
    """Every living process but this one that was started (by exec) with the mark of ``run`` in its environment."""
    mark = f"{MARK}={run}".encode()
    found = []
    for pid, row in _table().items():
        if pid == os.getpid() or not row.alive:
            continue
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and not _is_shared_connection(pid):
                found.append(Process(pid, row.started))
    return found


def _end(
    find: Callable[[], Iterable[Process]],
    patience_seconds: float,
    *,
    gently: bool = True,
    spare: Process | None = None,
) -> Collection[int]:
    """Ends what ``find`` finds until it finds nothing more; ``spare`` has the whole patience before SIGKILL."""
    began = time.monotonic()
    asked: set[Process] = set()
    while True:
        processes = list(find())
        waited = time.monotonic() - began
        if not processes or waited > patience_seconds + _STUBBORN_SECONDS:
            return [process.pid for process in processes]
        for process in processes:
            patient = gently or process == spare
            if waited >= patience_seconds or not patient:
                _send(process, signal.SIGKILL)
            elif process != spare and process not in asked:
                asked.add(process)
                _send(process, signal.SIGTERM)
        time.sleep(_POLL_SECONDS)


def _send(process: Process, number: signal.Signals) -> None:
    """Sends a signal to this very process: a descriptor of it cannot mean a later one with the same id."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if is_alive(process):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _is_shared_connection(pid: int) -> bool:
    """Whether it is a waiting master of an SSH connection, which names itself so."""
    with contextlib.suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ")
        return title.startswith(b"ssh: ") and title.endswith(b"[mux]")
    return False


def _table() -> Mapping[int, _Row]:
    return {pid: _read_stat(pid) for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())}


def _read_stat(pid: int) -> _Row:
    try:
        # The second field is the command in brackets and may hold anything, so count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _Row(0, "", False)
    return _Row(int(fields[1]), fields[19], fields[0] not in ("Z", "X"))
