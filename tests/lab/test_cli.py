"""The command line on a node over SSH, with stand-in images: every command really runs its playbook."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.factories import document, market_making_bot
from tests.installation import ROOT, SYSTEM_PATH, Installation

pytestmark = pytest.mark.lab

ACME = "hfcli-acme"


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="hfcli-", dir="/var/tmp"))
    made = Installation(folder, prefix="hfcli-", pool="10.199.16.0/20", over_ssh=True, uid_start=340_000)
    try:
        yield made
    finally:
        made.clean()
        shutil.rmtree(folder)


def _environment(installation: Installation) -> dict[str, str]:
    return {**os.environ, "HUMMINGFLEET_FLEET": str(installation.fleet_path), "PATH": SYSTEM_PATH}


def run(installation: Installation, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Calls the console script as a person would."""
    return subprocess.run(
        [f"{ROOT}/.venv/bin/hummingfleet", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=_environment(installation),
        cwd="/",
    )


def plain(installation: Installation, *words: str) -> Any:
    done = run(installation, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def acme(installation: Installation) -> str:
    data = document(
        tenant=ACME,
        subdomain=ACME,
        exchange_environment="live",
        exchange_connections=[installation.connection(ACME)],
        bots=[market_making_bot(id="b1"), market_making_bot(id="b2")],
    )
    done = run(installation, "tenant", "apply", "--converge", "-f", "-", stdin=yaml.safe_dump(data))
    assert done.returncode == 0, done.stdout + done.stderr
    return ACME


def test_apply_with_converge_brings_the_stack_up(installation: Installation, acme: str) -> None:
    assert set(installation.containers()) == {f"{acme}-{name}" for name in ("postgres", "redis", "bot_b1", "bot_b2")}
    record = plain(installation, "tenant", "get", acme)
    assert record["applied_revision"] == record["revision"] == 1


def test_a_second_converge_changes_nothing_and_a_check_predicts_that(installation: Installation, acme: str) -> None:
    for switches in ([], ["--check", "--diff"], ["--deep"]):
        report = plain(installation, "converge", acme, *switches)
        assert (report["asked"], report["changed"], report["tenants"]) == (1, 0, [])


def test_status_asks_the_node(installation: Installation, acme: str) -> None:
    found = plain(installation, "bot", "status", acme)
    assert [(one["bot"], one["wanted"], one["state"]) for one in found] == [
        ("b1", "running", "running"),
        ("b2", "running", "running"),
    ]
    assert len(plain(installation, "bot", "status", acme, "b2")) == 1


def test_stop_and_start_change_that_bot_only(installation: Installation, acme: str) -> None:
    before = installation.containers()
    assert run(installation, "bot", "stop", acme, "b1").returncode == 0
    states = {one["bot"]: one["state"] for one in plain(installation, "bot", "status", acme)}
    assert states == {"b1": "stopped", "b2": "running"}
    assert run(installation, "bot", "start", acme, "b1").returncode == 0
    after = installation.containers()
    assert {name for name in before if before[name] != after[name]} <= {f"{acme}-bot_b1"}


def test_logs_come_over_ssh(installation: Installation, acme: str) -> None:
    done = run(installation, "bot", "logs", acme, "b1", "-n", "5")
    # The user's known_hosts does not have the lab's server: this shows that the fleet file's settings are used.
    assert done.returncode == 0, done.stderr


def test_doctor_finds_the_node_healthy_enough(installation: Installation, acme: str) -> None:
    done = run(installation, "doctor", "--json")
    levels = {check["subject"]: check["level"] for check in json.loads(done.stdout)}
    assert levels["node lab"] == levels["docker on lab"] == levels["compose on lab"] == "ok"
    assert (done.returncode, "fail" in levels.values()) in ((0, False), (1, True))


def test_an_interrupted_converge_leaves_no_process_and_can_be_repeated(installation: Installation, acme: str) -> None:
    run(installation, "bot", "restart", acme, "b2", "--no-converge")
    process = subprocess.Popen(
        [f"{ROOT}/.venv/bin/hummingfleet", "converge", acme],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(installation),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not _playbooks_of(installation):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert _playbooks_of(installation) == []
    assert run(installation, "converge", acme).returncode == 0
    assert {one["state"] for one in plain(installation, "bot", "status", acme)} == {"running"}


def test_a_node_that_does_not_answer_ends_with_5_and_nothing_is_lost(installation: Installation, acme: str) -> None:
    assert installation.ssh is not None
    text = installation.fleet_path.read_text()
    installation.fleet_path.write_text(text.replace(str(installation.ssh.port), "1"))  # nobody listens there
    try:
        done = run(installation, "bot", "stop", acme, "b1")
        assert (done.returncode, "could not be reached" in done.stderr) == (5, True), done.stderr
        assert run(installation, "bot", "logs", acme, "b1").returncode == 5
    finally:
        installation.fleet_path.write_text(text)
    done = run(installation, "converge", acme)
    assert done.returncode == 0, done.stderr
    assert plain(installation, "bot", "status", acme, "b1")[0]["state"] == "stopped"


def test_remove_takes_everything_away(installation: Installation, acme: str) -> None:
    done = run(installation, "tenant", "remove", acme, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installation.containers() == {}
    assert plain(installation, "tenant", "list") == []
    assert not (installation.base_dir / "tenants" / acme).exists()
    assert run(installation, "tenant", "get", acme).returncode == 4


def _playbooks_of(installation: Installation) -> list[int]:
    """The processes of runs on this installation."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
            if b"ansible-playbook" in command and str(installation.fleet_path).encode() in command:
                found.append(int(folder.name))
    return found
