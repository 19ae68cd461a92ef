# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of what takes long, on standard error: what is done now, how long it takes, and what each step took.

On a terminal the present step is one live line; elsewhere (a log, a pipe) every step is a plain line when it starts,
when it ends, and now and then in between.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from .text import duration, shown

HEARTBEAT_SECONDS = 20.0
_REFRESH_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step: its title, what it took, and what it said at its end."""

    title: str
    seconds: float
    note: str


class Step:
    """The step that is being done; ``say`` tells what it does now, ``note`` is what stays when it is done."""

    def __init__(self, title: str, usually: str) -> None:
        self.title = title
        self.usually = usually
        self.detail = ""
        self.note = ""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    def say(self, detail: str) -> None:
        """What the step does now; one line."""
        self.detail = shown(detail.strip())

    def line(self) -> str:
        """The step in one line."""
        usually = f", usually {self.usually}" if self.usually else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.title} ({duration(self.seconds)}{usually}){detail}"


class Progress:
    """Reports steps one after another and remembers what each took. ``quiet`` reports nothing."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self.records: list[StepRecord] = []

    @contextlib.contextmanager
    def step(self, title: str, *, usually: str = "") -> Iterator[Step]:
        """Reports the step while the body works on it."""
        step = Step(title, usually)
        ended = threading.Event()
        live = not self._quiet and self._stream.isatty()
        watcher = threading.Thread(
            target=self._watch_live if live else self._watch_plain, args=(step, ended), daemon=True
        )
        if not live:
            self._print(f"- {title}{f' (usually {usually})' if usually else ''} ...")
        watcher.start()
        failed = True
        try:
            yield step
            failed = False
        finally:
            ended.set()
            watcher.join()
            self.records.append(StepRecord(title, step.seconds, step.note))
            note = f": {shown(step.note)}" if step.note else ""
            word = "failed" if failed else "done"
            if live:
                mark = "✗" if failed else "✓"
                self._print(f"\r\x1b[2K{mark} {title} ({duration(step.seconds)}){note}")
            else:
                self._print(f"  {word} in {duration(step.seconds)}{note}")

    def say(self, text: str) -> None:
        """One line between steps."""
        self._print(shown(text))

    def _print(self, text: str) -> None:
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def _watch_live(self, step: Step, ended: threading.Event) -> None:
        import shutil

        signs = "|/-\\"
        count = 0
        while not ended.wait(_REFRESH_SECONDS):
            width = shutil.get_terminal_size().columns
            count += 1
            print(f"\r\x1b[2K{signs[count % 4]} {step.line()}"[: width + 4], end="", file=self._stream, flush=True)

    def _watch_plain(self, step: Step, ended: threading.Event) -> None:
        before = ""
        while not ended.wait(HEARTBEAT_SECONDS):
            detail = step.detail if step.detail != before else ""
            before = step.detail
            self._print(f"    {duration(step.seconds)}{f': {detail[:160]}' if detail else ''}")
