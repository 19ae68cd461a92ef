"""A followed log ends when its reader does, and leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from webhook.cli.bot import stream

FOLLOW = """
import os, sys
from webhook.cli.bot import stream
script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
sys.exit(stream([sys.executable, "-c", script], as_json=False))
"""


def test_lines_are_shown_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    code = stream([sys.executable, "-c", r"print('a\x1b[2Jb'); raise SystemExit(3)"], as_json=False)
    assert (code, capsys.readouterr().out) == (3, "a\\x1b[2Jb\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_that_is_followed(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", FOLLOW], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    followed = int(process.stdout.readline())
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    process.stdout.close()
    assert not Path(f"/proc/{followed}").exists()
