"""An installation with ports of its own, and the processes that tests start for it."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring

from tests import factories
from webhook.secrets_file import SecretsFile

PATIENCE = 120.0  # how long a test waits for what takes a moment before it calls it missing


class Manager:
    """Stands for the service manager: the other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    def expect(self, state: str, seconds: float = PATIENCE, *, of: subprocess.Popen[str] | None = None) -> list[str]:
        """Waits for a message with this state and gives it; fails at once if the process has ended."""
        deadline = time.monotonic() + seconds
        while True:
            self._socket.settimeout(min(0.5, max(0.01, deadline - time.monotonic())))
            with contextlib.suppress(TimeoutError):
                states = self._socket.recv(4096).decode().split("\n")
                if state in states:
                    return states
                continue
            assert of is None or of.poll() is None, of.communicate()
            if time.monotonic() > deadline:
                raise TimeoutError(state)

    def close(self) -> None:
        self._socket.close()


class Place:
    """An installation in ``folder`` with ports of its own, and the processes that were started for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.worker_port = free_ports(2)
        self.fleet_path = folder / "fleet.tenants.yml"
        self.secrets_path = folder / "webhook-secrets.yml"
        self.write(listen=f"127.0.0.1:{self.port}", worker_listen=f"127.0.0.1:{self.worker_port}", grace_seconds=5)
        generate_keyring(folder / "keyring.yml")
        SecretsFile(self.secrets_path).ensure(time.time())
        self.manager = Manager(folder)
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, **webhook: Any) -> None:
        """Writes the fleet file."""
        data = {
            "plugin": "hummingfleet.core.tenants",
            "registry": str(self.folder / "registry.db"),
            "keyring": {"file": str(self.folder / "keyring.yml")},
            "catalogue": str(factories.ROOT / "catalogue"),
            "base_dir": str(self.folder / "node"),
            "nodes": {"local": {"ansible_connection": "local", "memory_mib": 12288, "labels": {}}},
            "webhook": {"secrets": str(self.secrets_path), **webhook},
        }
        self.fleet_path.write_text(yaml.safe_dump(data))

    def start(self, code: str, **options: Any) -> subprocess.Popen[str]:
        """Runs Python code that has ``installation``, ``notifier`` and this place's ``folder``."""
        head = f"""
            import os, sys, threading, time
            from pathlib import Path
            from webhook import logs
            from webhook.installation import Installation
            from webhook.notify import Notifier
            from webhook.service import serve, work
            folder = Path({str(self.folder)!r})
            installation = Installation(Path({str(self.fleet_path)!r}))
            notifier = Notifier.from_environment()
            logs.configure("test")
        """
        return self.spawn([sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)], **options)

    def command(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Runs ``hummingfleet`` as it is."""
        return self.spawn([sys.executable, "-m", "webhook", "--fleet", str(self.fleet_path), *words], **options)

    def spawn(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "NOTIFY_SOCKET": self.manager.path, **options.pop("environment", {})}
        process = subprocess.Popen(
            command, cwd=factories.ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **options,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.manager.close()


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def get(port: int, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "this did not happen"
        time.sleep(0.02)
