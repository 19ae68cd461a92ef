# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling the workers of this machine that there is something to do, so that they need not wait for their next look.

A datagram to each worker's socket. It holds nothing, may be lost, and may come from anybody who can write to the
folder: a worker that is woken looks at the registry and does what it finds there, which is often nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_PREFIX, _SUFFIX = "wake-", ".sock"


class Waker:
    """Wakes the workers whose sockets are in the folder ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def wake(self) -> None:
        """Wakes them all; never fails and never waits."""
        with contextlib.suppress(OSError), _reachable(self._run_dir) as folder:
            names = [path.name for path in self._run_dir.glob(f"{_PREFIX}*{_SUFFIX}")]
            if not names:
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                for name in names:
                    try:
                        sender.sendto(b"", f"{folder}/{name}")
                    except ConnectionRefusedError:
                        # Its worker is gone.
                        with contextlib.suppress(OSError):
                            (self._run_dir / name).unlink()
                    except OSError:
                        continue  # a full queue is a worker that is being woken already


class WakeListener:
    """A worker's end: ``wait`` returns when somebody wakes it or time is up. A context manager."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = run_dir / f"{_PREFIX}{os.getpid()}{_SUFFIX}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            self._path.unlink()
        with _reachable(run_dir) as folder:
            self._socket.bind(f"{folder}/{self._path.name}")
        # Whoever may write into the folder may wake: the web process is another user of the same group.
        self._path.chmod(0o660)

    def wait(self, seconds: float) -> bool:
        """Waits for at most ``seconds``; True if somebody woke it. Several wake-ups at once count as one."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            self._socket.recv(1)
            self._socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(1)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Removes the socket."""
        self._socket.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def __enter__(self) -> WakeListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """A short name of the folder: the path of a unix socket may have 107 characters."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
