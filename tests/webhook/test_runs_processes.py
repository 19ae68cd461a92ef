"""Interrupted runs and runs of killed starters leave no process; other runs live on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import holder_is_dead, process_holder

from webhook import ROOT, runs
from webhook.forkserver import ForkServer
from webhook.process_tree import Process, is_alive, marked

STUBBORN = '''#!/usr/bin/python3
import os, signal, sys, time
from ansible.module_utils.basic import AnsibleModule

NOTE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stat = open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {stat[19]}\\\\n")
time.sleep(600)
"""

def main():
    module = AnsibleModule({"pids": {"type": "path", "required": True}})
    command = [sys.executable, "-c", NOTE, module.params["pids"]]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, command, {})  # a daemon that does not even keep the environment
        os._exit(0)
    if os.fork() == 0:
        os.execv(sys.executable, command)
    os.execv(sys.executable, command)

main()
'''
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
"""
STUBBORN_PLAY = PLAY + "    - stubborn: {{pids: {pids}}}\n"
WAITING_PLAY = PLAY + "    - ansible.builtin.wait_for: {{path: {path}, sleep: 1, timeout: 300}}\n"


def await_(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` answers as soon as that is something."""
    deadline = time.monotonic() + 120
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)
    return answer


def noted(path: Path) -> list[Process]:
    """The processes that noted themselves in the file."""
    if not path.exists():
        return []
    lines = [line.split() for line in path.read_text().splitlines()]
    return [Process(int(pid), started) for pid, started in lines]


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PATIENCE_SECONDS", 0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the stubborn module and a playbook that uses it."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "stubborn.yml").write_text(STUBBORN_PLAY.format(pids=tmp_path / "pids"))
    (tmp_path / "waiting.yml").write_text(WAITING_PLAY.format(path=tmp_path / "go"))
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("server") / "run") as server:
        assert server.wait_until_ready()
        yield server


@pytest.fixture(params=["plain", "forked"])
def starter(request: pytest.FixtureRequest) -> ForkServer | None:
    """None, or a fork server: everything here holds for both."""
    return request.getfixturevalue("server") if request.param == "forked" else None


@pytest.fixture
def pool(folder: Path) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool
        (folder / "go").touch()  # also if the test has failed


def start(
    pool: ThreadPoolExecutor, playbook: Path, **arguments: Any
) -> tuple[Future[runs.RunResult], Callable[[], runs.RunProcess]]:
    """A run in another thread, and a function that waits for its process."""
    started: list[runs.RunProcess] = []
    future = pool.submit(
        runs.run_playbook,
        str(playbook.with_suffix("")),
        fleet_path=Path("localhost"),
        run_dir=playbook.parent / "run",
        on_start=started.append,
        **arguments,
    )
    return future, lambda: await_(lambda: started, "the start")[0]


def test_a_cancelled_run_leaves_nothing_and_another_lives_on(
    folder: Path, starter: ForkServer | None, pool: ThreadPoolExecutor
) -> None:
    cancel = threading.Event()
    other, other_process = start(pool, folder / "waiting.yml", server=starter)
    holder = other_process().holder
    run, process = start(pool, folder / "stubborn.yml", server=starter, cancel=cancel)
    leader = process()
    processes = await_(lambda: len(found := noted(folder / "pids")) == 3 and found, "the stubborn module")
    assert all(map(is_alive, processes))
    cancel.set()
    with pytest.raises(runs.RunCancelledError, match="was interrupted"):
        run.result(60)
    assert not any(map(is_alive, processes))
    assert holder_is_dead(leader.holder)
    assert not marked(leader.run)
    assert not holder_is_dead(holder)
    assert not other.done()
    (folder / "go").touch()
    assert other.result(60).ok
    assert list((folder / "run" / "runs").iterdir()) == []


def test_a_run_that_takes_too_long_leaves_nothing(
    folder: Path, starter: ForkServer | None, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()
    monkeypatch.setattr(runs, "_now", lambda: time.monotonic() + (1000 if late.is_set() else 0))
    run, process = start(pool, folder / "stubborn.yml", server=starter, timeout_seconds=900)
    leader = process()
    processes = await_(lambda: len(found := noted(folder / "pids")) == 3 and found, "the stubborn module")
    late.set()
    with pytest.raises(runs.RunTimeoutError, match="did not finish within 900 s"):
        run.result(60)
    assert not any(map(is_alive, processes))
    assert holder_is_dead(leader.holder)
    assert not marked(leader.run)


def test_a_run_that_is_cancelled_before_it_begins_starts_nothing(folder: Path, starter: ForkServer | None) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(runs.RunCancelledError):
        runs.run_playbook(
            str(folder / "stubborn"), fleet_path=Path("localhost"), cancel=cancel, server=starter, run_dir=folder
        )
    assert not (folder / "pids").exists()
    assert not [*(folder / "runs").glob("*")]


def test_several_threads_run_playbooks_at_once(
    folder: Path, starter: ForkServer | None, pool: ThreadPoolExecutor
) -> None:
    started = [start(pool, folder / "waiting.yml", server=starter) for _ in range(3)]
    holders = {process().holder for _run, process in started}
    assert len(holders) == 3
    assert not any(map(holder_is_dead, holders))
    (folder / "go").touch()
    assert all(run.result(60).ok for run, _process in started)


def test_ctrl_c_ends_a_run_of_the_main_thread(folder: Path) -> None:
    def interrupt(_process: runs.RunProcess) -> None:
        await_(lambda: len(noted(folder / "pids")) == 3, "the stubborn module")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(runs.RunCancelledError):
        runs.run_playbook(str(folder / "stubborn"), fleet_path=Path("localhost"), on_start=interrupt)
    assert not any(map(is_alive, noted(folder / "pids")))
    assert signal.getsignal(signal.SIGINT) is before


OWNER = """
import sys
from pathlib import Path
from webhook.forkserver import ForkServer
from webhook.runs import run_playbook

playbook, run_dir, forked = sys.argv[1:]
with ForkServer(Path(run_dir)) as server:
    if forked == "forked":
        assert server.wait_until_ready()
        print(server.pid, flush=True)
    else:
        print(0, flush=True)
    run_playbook(
        playbook, fleet_path=Path("localhost"), run_dir=Path(run_dir), server=server if forked == "forked" else None
    )
"""


@pytest.mark.parametrize("way", ["plain", "forked"])
def test_runs_of_a_killed_starter_are_ended(folder: Path, way: str, pool: ThreadPoolExecutor) -> None:
    run_dir = folder / "run"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder / "stubborn"), str(run_dir), way],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    server_holder = process_holder(server) if server else ""
    try:
        processes = await_(lambda: len(found := noted(folder / "pids")) == 3 and found, "the stubborn module")
        # A run of this very process, whose starter is alive.
        cancel = threading.Event()
        ours, process = start(pool, folder / "waiting.yml", cancel=cancel)
        holder = process().holder
        assert runs.end_orphans(run_dir) == []
        [orphan] = [path.name for path in (run_dir / "runs").iterdir() if path.name != process().run]
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    assert any(map(is_alive, processes))
    # Two workers that start at the same time.
    both = [pool.submit(runs.end_orphans, run_dir) for _ in range(2)]
    assert sorted(run for future in both for run in future.result(60)) == [orphan]
    assert not any(map(is_alive, processes))
    assert not marked(orphan)
    assert not (run_dir / "runs" / orphan).exists()
    assert not holder_is_dead(holder)
    if server:
        await_(lambda: holder_is_dead(server_holder), "the end of the fork server")
    (folder / "go").touch()
    assert ours.result(60).ok


def test_a_process_id_that_is_used_again_is_left_alone(tmp_path: Path) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    gone = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    owner = process_holder(gone.pid)
    gone.communicate()
    folder = tmp_path / "runs" / "0123"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"owner": owner, "playbook": "x"}))
    (folder / "leader").write_text(f"{innocent.pid} 1")
    try:
        assert runs.end_orphans(tmp_path) == ["0123"]
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    assert not folder.exists()


def test_a_folder_from_before_the_machine_started_is_removed(tmp_path: Path) -> None:
    host, pid, rest = process_holder().split(":", 2)
    folder = tmp_path / "runs" / "0123"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"owner": f"{host}:{pid}:another-boot/{rest.partition('/')[2]}"}))
    (folder / "leader").write_text(f"{os.getpid()} {rest.rpartition('/')[2]}")
    assert runs.end_orphans(tmp_path) == ["0123"]
    assert not folder.exists()


def test_a_folder_that_is_just_being_made_or_of_another_machine_is_left_alone(tmp_path: Path) -> None:
    begun, foreign = tmp_path / "runs" / "begun", tmp_path / "runs" / "foreign"
    begun.mkdir(parents=True)
    foreign.mkdir()
    (foreign / "run.json").write_text(json.dumps({"owner": "elsewhere:1:boot/1/1", "playbook": "x"}))
    assert runs.end_orphans(tmp_path) == []
    assert begun.exists() and foreign.exists()
