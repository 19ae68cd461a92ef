"""What services tell the service manager, and what they keep from the processes they start."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from webhook.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(60)
    return receiver


def test_states_arrive_one_per_line_and_status_is_one_line(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.ready("listening\nREADY=0")
    assert manager.recv(1000).decode().split("\n") == ["READY=1", "STATUS=listening READY=0", f"MAINPID={os.getpid()}"]
    notifier.stopping("bye")
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=bye"


def test_abstract_addresses_work_too() -> None:
    name = f"hummingfleet-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(60)
        Notifier(f"@{name}").alive()
        assert receiver.recv(100) == b"WATCHDOG=1"


def test_without_a_manager_and_with_a_dead_one_nothing_happens(tmp_path: Path) -> None:
    Notifier(None).ready("x")
    Notifier(str(tmp_path / "nobody")).ready("x")


def test_the_environment_is_left_without_the_managers_variables() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    assert Notifier.from_environment(environment).watchdog_seconds == 2
    assert environment == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "variables",
    [
        {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_that_is_not_meant_for_us_gets_nothing(variables: dict[str, str]) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/x", **variables}).watchdog_seconds is None


def test_signs_of_life_stop_when_nothing_lives(manager: socket.socket) -> None:
    alive = iter([True, False, True])
    notifier = Notifier(manager.getsockname(), 0.03)
    ended = notifier.watch(lambda: next(alive, False))
    assert [manager.recv(100), manager.recv(100)] == [b"WATCHDOG=1"] * 2
    manager.settimeout(0.2)
    with pytest.raises(TimeoutError):
        manager.recv(100)
    ended.set()
