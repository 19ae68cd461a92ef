# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that has Ansible imported and forks a playbook run per request, so that runs start in half the time.

The worker holds a ``ForkServer``, whose process is ``webhook/playbook_server.py``. ``webhook/playbook_client.py``
stands for ``ansible-playbook`` in a run's PATH and asks the server to run the playbook. A run is taken only if it would
see exactly what a plain start sees: the same variables that Ansible reads at import, the same ansible.cfg, the same
code. In every other case, and if there is no server, the client becomes the plain program.
docs/decisions/playbooks-from-a-fork-server.md has the reasons and the figures.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

from . import ROOT
from .playbook_server import by_folder

_LOG = "forkserver.log"
_SUFFIX = ".sock"
_RESTART_SECONDS = 30.0


class ForkServerError(HummingfleetError):
    """The fork server could not be started. Runs go on without it."""


class ForkServer:
    """A fork server below ``run_dir`` (a folder of this user's alone), for as long as the context lasts.

    It is started by ``start`` or with the first run, needs a second or two to be ready (``ready``), is started again
    if it ended or its code is outdated, and ends when this process does. Leave the context only when no run is left.
    Usable from several threads.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.absolute()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = Path()
        self._started = 0.0
        self._was_ready = False
        self._old: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id; None if there is no server now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ready(self) -> bool:
        """Whether the next run will find it ready."""
        return self.address() is not None

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> bool:
        """Starts it if need be and waits; False if it is not ready after that time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def start(self) -> None:
        """Starts it if it does not run, and returns at once; raises ForkServerError."""
        self.address()

    def address(self) -> Path | None:
        """The socket that takes runs, or None while there is none; then a server is being started."""
        with self._lock:
            process = self._process
            if process is not None and process.poll() is None:
                if self._socket.is_socket():
                    self._was_ready = True
                    return self._socket
                if not self._was_ready:
                    return None
                self._old.append(process)  # outdated: it takes no more runs and ends with its last one
                self._process = None
            elif process is not None:
                _close(process)
                if not self._was_ready and time.monotonic() < self._started + _RESTART_SECONDS:
                    return None  # it cannot start, as its log says; not to be tried with each run
            self._reap()
            self._launch()
            return None

    def stop(self) -> None:
        """Ends it."""
        with self._lock:
            for process in [*self._old, *filter(None, [self._process])]:
                _close(process)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._old, self._process = [], None
            self._socket.unlink(missing_ok=True)

    def _reap(self) -> None:
        for process in self._old:
            if process.poll() is not None:
                _close(process)
        self._old = [process for process in self._old if process.returncode is None]

    def _launch(self) -> None:
        from .runs import runner_environment

        private_dir(self.run_dir)
        _remove_dead_sockets(self.run_dir)
        self._socket = self.run_dir / f"forkserver-{secrets.token_hex(4)}{_SUFFIX}"
        self._started, self._was_ready = time.monotonic(), False
        log = os.open(self.run_dir / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # The pipe at its standard input ends with this process, however that ends. (PR_SET_PDEATHSIG would report
            # the end of the thread that happened to start it.)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "webhook.playbook_server", str(self._socket)],
                cwd=ROOT,
                env=runner_environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise ForkServerError(f"the fork server could not be started: {error}") from None
        finally:
            os.close(log)


def private_dir(path: Path) -> Path:
    """``path`` as a folder of this user's alone, made if need be; raises ForkServerError if it is somebody else's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid():
        raise ForkServerError(f"{path} belongs to user {status.st_uid}; run as that user or name another folder")
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _remove_dead_sockets(run_dir: Path) -> None:
    """Removes the sockets of servers that were killed."""
    for path in run_dir.glob(f"forkserver-*{_SUFFIX}"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            try:
                by_folder(path, probe.connect)
            except ConnectionRefusedError:
                path.unlink()
