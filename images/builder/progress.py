"""Progress on standard error: what is being done, since when, and how long it took."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_HEARTBEAT_SECONDS = 20.0


class Progress:
    """Writes one line when a step starts, one while it lasts, and one when it is done.

    Lines go to standard error so that standard output stays free for ``--json``.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()

    def say(self, subject: str, text: str) -> None:
        """Write one line about an image."""
        with self._lock:
            print(f"{subject:<14} {text}", file=self._stream, flush=True)

    @contextmanager
    def step(self, subject: str, what: str, *, usually: str = "", log: Path | None = None) -> Iterator[None]:
        """Report a step; every 20 seconds a line says that it still runs and what its log last said."""
        self.say(subject, f"{what}{f' (usually {usually})' if usually else ''} ...")
        started = time.monotonic()
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_HEARTBEAT_SECONDS):
                last = _last_line(log) if log else ""
                self.say(subject, f"  {time.monotonic() - started:.0f} s{f': {last}' if last else ''}")

        watcher = threading.Thread(target=beat, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        self.say(subject, f"  done in {time.monotonic() - started:.0f} s")


def _last_line(log: Path) -> str:
    """Give the last non-empty line of a log, cut to 100 characters."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 4096))
            lines = handle.read().decode("utf-8", "replace").replace("\r", "\n").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if line.strip():
            return line.strip()[:100]
    return ""
