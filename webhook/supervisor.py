# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several services of this machine under one process: started, watched, restarted when they die, ended together."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LINE_MAX = 64 * 1024
_READS_MAX = 64
# A service that dies is started again after this long, twice as long each time, ...
FIRST_PAUSE_SECONDS = 0.5
# ... and when it has died so often within this time, everything is given up: something is wrong that does not pass.
DEATHS = 5
WINDOW_SECONDS = 60.0
# Services that ignore the request to end are killed after this long beyond what they may take.
KILL_AFTER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """A service: its name, its command line, and the exit codes that mean it can never start here."""

    name: str
    command: Sequence[str]
    hopeless: frozenset[int] = frozenset()


@dataclass(eq=False)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    was_ready: bool = False
    start_at: float = 0.0
    deaths: list[float] = field(default_factory=list)
    rest: bytes = b""


def pause_seconds(deaths: int) -> float:
    """How long to wait before the next start after so many deaths (1 or more) in a short time."""
    return float(FIRST_PAUSE_SECONDS * 2 ** (deaths - 1))


class Supervisor:
    """Runs ``programs`` until a signal or until one cannot be kept alive.

    ``show`` is told every line that one of them writes, with its name; ``on_ready`` is called once, when all have said
    that they are (by sd_notify's protocol); ``say`` is told what the supervisor itself has to report. Programs get
    ``grace_seconds`` to end.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        grace_seconds: float,
        show: Callable[[str, str], None],
        say: Callable[[str], None],
        on_ready: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = [_Child(program) for program in programs]
        self._grace_seconds = grace_seconds
        self._show = show
        self._say = say
        self._on_ready = on_ready
        self._environment = dict(os.environ if environment is None else environment)
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._told_ready = False
        self._ending_since: float | None = None
        self._code = 0

    def run(self) -> int:
        """Runs until the end and answers the exit code: 0 after a signal, else what a service ended with."""
        folder = tempfile.mkdtemp(prefix="hummingfleet-up-")  # short: a socket's path may have 107 characters
        try:
            with _datagrams(Path(folder) / "notify") as notify, _signals() as wakeups:
                self._environment["NOTIFY_SOCKET"] = str(Path(folder) / "notify")
                self._selector.register(notify, selectors.EVENT_READ, lambda: self._notified(notify))
                self._selector.register(wakeups, selectors.EVENT_READ, lambda: self._signalled(wakeups))
                try:
                    self._loop()
                finally:
                    self._kill()
        finally:
            self._selector.close()
            shutil.rmtree(folder, ignore_errors=True)
        return self._code

    def _loop(self) -> None:
        while True:
            self._collect()
            if self._ending_since is None:
                self._start_due()
            elif not any(child.process for child in self._children):
                return
            elif self._clock() - self._ending_since > self._grace_seconds + KILL_AFTER_SECONDS:
                self._say("some did not end in time and are killed")
                return
            for key, _events in self._selector.select(self._pause()):
                key.data()

    def _pause(self) -> float:
        """How long nothing has to be done, at most a second."""
        starts = [child.start_at - self._clock() for child in self._children if child.process is None]
        return min([1.0, *(max(0.0, start) for start in starts)]) if self._ending_since is None else 0.2

    # --- children ----------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for child in self._children:
            if child.process is None and self._clock() >= child.start_at:
                self._start(child)

    def _start(self, child: _Child) -> None:
        child.process = subprocess.Popen(
            child.program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            # Ctrl+C is for this process, which passes it on in its own way.
            start_new_session=True,
        )
        child.ready = False
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, lambda: self._read(child))

    def _collect(self) -> None:
        """Takes note of those that have ended."""
        for child in self._children:
            code = child.process.poll() if child.process is not None else None
            if child.process is None or code is None:
                continue
            self._drain(child)
            child.process = None
            if self._ending_since is None:
                self._died(child, code)

    def _died(self, child: _Child, code: int) -> None:
        now = self._clock()
        name = child.program.name
        what = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        if not child.was_ready and code in child.program.hopeless:
            self._say(f"{name} cannot start here; everything ends")
            self._end(code)
            return
        child.deaths = [*(at for at in child.deaths if now - at < WINDOW_SECONDS), now]
        if len(child.deaths) >= DEATHS:
            self._say(f"{name} {what}, for the {DEATHS}th time within {WINDOW_SECONDS:.0f} s; giving up")
            self._end(1)
            return
        pause = pause_seconds(len(child.deaths))
        child.start_at = now + pause
        self._say(f"{name} {what}; starting it again in {pause:g} s")

    def _end(self, code: int) -> None:
        """Asks all to end; asked again, they end at once."""
        self._code = self._code or code
        if self._ending_since is None:
            self._ending_since = self._clock()
        for child in self._children:
            if child.process is not None:
                child.process.terminate()

    def _kill(self) -> None:
        for child in self._children:
            if child.process is not None:
                with contextlib.suppress(OSError):
                    os.killpg(child.process.pid, signal.SIGKILL)  # a session of its own is a group of its own
                child.process.wait()
                self._drain(child)

    # --- what comes in -----------------------------------------------------------------------------------------------

    def _read(self, child: _Child) -> bool:
        """Shows what there is to read; whether there may be more."""
        assert child.process is not None and child.process.stdout is not None
        try:
            data = os.read(child.process.stdout.fileno(), _LINE_MAX)
        except BlockingIOError:
            return False
        *lines, child.rest = (child.rest + data).split(b"\n")
        if len(child.rest) > _LINE_MAX or not data:
            lines, child.rest = [*lines, child.rest], b""
        for line in lines:
            if line.strip():
                self._show(child.program.name, line.decode("utf-8", "replace"))
        if not data:
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.process.stdout)
        return bool(data)

    def _drain(self, child: _Child) -> None:
        """Shows what is left of one that has ended. What it left running may keep the pipe open: nobody reads on."""
        assert child.process is not None and child.process.stdout is not None
        for _ in range(_READS_MAX):
            if not self._read(child):
                break
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        if child.rest.strip():
            self._show(child.program.name, child.rest.decode("utf-8", "replace"))
        child.rest = b""

    def _notified(self, notify: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                states = notify.recv(4096).decode("utf-8", "replace").split("\n")
                pid = next((state.removeprefix("MAINPID=") for state in states if state.startswith("MAINPID=")), "")
                if "READY=1" in states:
                    for child in self._children:
                        if child.process is not None and str(child.process.pid) == pid:
                            child.ready = child.was_ready = True
                if not self._told_ready and all(child.ready for child in self._children):
                    self._told_ready = True
                    self._on_ready()

    def _signalled(self, wakeups: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in wakeups.recv(64):
                if number in _SIGNALS:
                    self._end(0)


@contextlib.contextmanager
def _datagrams(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.setblocking(False)
        yield receiver


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets a byte for every signal: those that end us, and SIGCHLD, which only wakes."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    handled = (*_SIGNALS, signal.SIGCHLD)
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in handled}
    try:
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        writer.close()
        reader.close()
