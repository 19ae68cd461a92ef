"""``hummingfleet up``: both processes as they are, under one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.webhook.service_place import PATIENCE, Place, get, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def children(process: subprocess.Popen[str]) -> dict[str, int]:
    """Pids of the services by the word that started them."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        found.update({word: int(pid) for word in ("serve", "worker") if word in words})
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_up_makes_secrets_runs_both_restarts_one_and_ends_both(place: Place) -> None:
    place.secrets_path.unlink()
    process = place.command("up", "--log-format", "text")
    place.manager.expect("READY=1", of=process)
    assert place.secrets_path.stat().st_mode & 0o777 == 0o600
    wait_for(lambda: get(place.port, "/readyz")[0] == 200)
    # Its first look at the registry comes after it has said that it works.
    wait_for(lambda: get(place.worker_port, "/readyz")[0] == 200)
    first = children(process)
    os.kill(first["serve"], signal.SIGKILL)
    wait_for(lambda: children(process).get("serve", first["serve"]) != first["serve"])
    wait_for(lambda: answers(place.port))
    both = children(process)
    assert both["worker"] == first["worker"]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert all(map(is_gone, both.values()))
    assert str(place.secrets_path) in err and "whsec_" not in err + out
    assert f"http://127.0.0.1:{place.port}/v1/events" in err
    assert "was killed by signal 9; starting it again" in err
    assert any(" web    " in line and "listening" in line for line in err.splitlines())
    assert not any(line.startswith("{") for line in err.splitlines())


def test_both_end_when_up_is_killed(place: Place) -> None:
    process = place.command("up", "--log-format", "json")
    place.manager.expect("READY=1", of=process)
    both = children(process)
    assert set(both) == {"serve", "worker"}
    process.kill()
    wait_for(lambda: all(map(is_gone, both.values())))
    _out, err = process.communicate()
    assert all(json.loads(line)["process"] in ("web", "worker") for line in err.splitlines())


def test_up_ends_with_the_code_of_what_cannot_start_here(place: Place) -> None:
    (place.folder / "keyring.yml").unlink()
    process = place.command("up", "--log-format", "json")
    _out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7
    assert "keyring.yml does not exist" in err
    assert "Traceback" not in err


def answers(port: int) -> bool:
    try:
        return get(port, "/livez")[0] == 200
    except OSError:
        return False
