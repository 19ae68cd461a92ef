"""Services under one supervisor: started, shown, restarted, given up, ended together."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from webhook import supervisor
from webhook.logtext import readable
from webhook.supervisor import Program, Supervisor, pause_seconds

NOTIFY = """
import os, socket, sys, time
def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(f"READY=1\\nMAINPID={os.getpid()}".encode(), os.environ["NOTIFY_SOCKET"])
"""


class Watched:
    """A supervisor over small programs; what it showed and said is kept, and it ends when ``ends`` says so."""

    def __init__(self, **codes: str) -> None:
        self.shown: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.ready = 0
        self.on_line: Any = lambda name, line: None
        self.on_ready: Any = lambda: None
        self.supervisor = Supervisor(
            [Program(name, [sys.executable, "-c", NOTIFY + code], frozenset({7})) for name, code in codes.items()],
            grace_seconds=5,
            show=self._show,
            say=self.said.append,
            on_ready=self._ready,
        )

    def _show(self, name: str, line: str) -> None:
        self.shown.append((name, line))
        self.on_line(name, line)

    def _ready(self) -> None:
        self.ready += 1
        self.on_ready()

    def run(self) -> int:
        return self.supervisor.run()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)


FOREVER = "print('works', flush=True); ready(); time.sleep(3600)"


def test_both_are_started_shown_and_ended_by_a_signal() -> None:
    watched = Watched(web=FOREVER, worker=FOREVER)
    watched.on_ready = interrupt
    assert watched.run() == 0
    assert watched.ready == 1
    assert sorted(watched.shown) == [("web", "works"), ("worker", "works")]


def test_a_service_that_dies_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    once = f"""
if os.path.exists({str(mark)!r}):
    ready(); print("again", flush=True); time.sleep(3600)
open({str(mark)!r}, "w").close(); ready(); os.kill(os.getpid(), 9)
"""
    watched = Watched(web=once, worker=FOREVER)
    watched.on_line = lambda name, line: interrupt() if line == "again" else None
    assert watched.run() == 0
    assert watched.said == ["web was killed by signal 9; starting it again in 0.01 s"]


def test_one_that_keeps_dying_ends_both_with_1() -> None:
    watched = Watched(web=FOREVER, worker="print('no', flush=True); sys.exit(3)")
    assert watched.run() == 1
    assert watched.shown.count(("worker", "no")) == supervisor.DEATHS
    assert "giving up" in watched.said[-1]


def test_one_that_can_never_start_here_ends_both_with_its_code() -> None:
    watched = Watched(web="print('error: no', file=sys.stderr); sys.exit(7)", worker=FOREVER)
    assert watched.run() == 7
    assert ("web", "error: no") in watched.shown


def test_one_that_ignores_the_request_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "KILL_AFTER_SECONDS", -4.9)  # with the 5 s of grace: 0.1 s
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOREVER
    watched = Watched(web=stubborn)
    watched.on_ready = interrupt
    assert watched.run() == 0
    assert watched.said == ["some did not end in time and are killed"]


def test_lines_without_end_and_without_text_are_shown_too() -> None:
    code = (
        "ready(); sys.stdout.buffer.write(b'x' * 200_000 + b'\\n\\n\\xff\\nlast'); sys.stdout.flush(); time.sleep(3600)"
    )
    watched = Watched(web=code)
    done = threading.Event()

    def look(name: str, line: str) -> None:
        if line.startswith("\N{REPLACEMENT CHARACTER}"):
            done.set()
            interrupt()

    watched.on_line = look
    assert watched.run() == 0
    assert sum(len(line) for _name, line in watched.shown if line.startswith("x")) == 200_000
    assert watched.shown[-1] == ("web", "last")


def test_pauses_double() -> None:
    assert [pause_seconds(deaths) / pause_seconds(1) for deaths in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_nothing_is_left_when_it_ends(tmp_path: Path) -> None:
    watched = Watched(web="print(os.getpid(), flush=True); " + FOREVER)
    watched.on_ready = interrupt
    watched.run()
    pid = int(watched.shown[0][1])
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            '{"time": "2026-11-23T05:00:01.123Z", "level": "info", "process": "web", "message": "request", '
            '"event": "evt_1", "status": 202}',
            "05:00:01 web    request event=evt_1 status=202",
        ),
        (
            '{"time": "2026-11-23T05:00:01.123Z", "level": "error", "process": "worker", "message": "no", '
            '"traceback": ["a", "b"]}',
            "05:00:01 worker error: no\n    a\n    b",
        ),
        ("not \x1b[31mJSON", "web    not \\x1b[31mJSON"),
        ('["a"]', 'web    ["a"]'),
    ],
)
def test_lines_for_people(line: str, text: str) -> None:
    assert readable(line, process="web") == text
