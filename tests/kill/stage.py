"""A fleet of stand-ins to let things happen to: its folder, its settings, its web and worker processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring

from webhook.secrets_file import SecretsFile

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 120.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What ``condition`` answers once it is true; raises AssertionError that names ``what``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} seconds still not: {what}")
        time.sleep(0.02)


class Service:
    """A process that is started, killed and started again; its output goes to a file of its own."""

    def __init__(self, name: str, command: list[str], folder: Path, ready: Callable[[], bool]) -> None:
        self.name = name
        self.kills = 0
        self._command = command
        self._log = folder / f"{name}.log"
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time that the running process has used, without its children's."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Starts it, without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/collections"},
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Waits until it serves; raises AssertionError with the end of its output if it ended instead."""
        wait_until(lambda: self._ready() or self._ended(), f"{self.name} is ready")
        if self._ended():
            raise AssertionError(f"{self.name} ended by itself:\n{self.output()[-3000:]}")

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        assert self._process is not None
        if self._ended():
            raise AssertionError(f"{self.name} was to be killed and had ended by itself:\n{self.output()[-3000:]}")
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def stop(self) -> None:
        """Ends it orderly, or by force after half a minute."""
        if self._process is None or self._ended():
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def output(self) -> str:
        """Everything it printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def answers_http(port: int, path: str = "/livez") -> bool:
    """Whether a server on that loopback port answers ``path`` with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Stage:
    """The folder of one campaign with everything that web and worker need; ``web`` is its one web process."""

    def __init__(self, folder: Path, registry_url: str | None = None, **webhook: Any) -> None:
        self.folder = folder
        self.registry_url = registry_url or f"sqlite:///{folder}/registry.db"
        self.port = free_port()
        self.workers: list[Service] = []
        generate_keyring(folder / "keyring.yml")
        (folder / "ansible.cfg").write_text("")  # makes the folder the root that relative paths start from
        self.fleet_path = folder / "fleet.tenants.yml"
        self._webhook = {
            "listen": f"127.0.0.1:{self.port}",
            "secrets": str(folder / "webhook-secrets.yml"),
            "tenant_events_per_minute": 100_000,
            "failures_per_minute": 100_000,
            "observe_seconds": 3600,
            **webhook,
        }
        self._write_fleet(self.fleet_path, self._webhook)
        self.fleet = load_fleet(self.fleet_path)
        self.secret, self.callback_secret = make_secrets(self.fleet.webhook.secrets_path)
        self.web = Service("web", self.web_command(), folder, lambda: answers_http(self.port))

    def web_command(self) -> list[str]:
        """How the web process is started."""
        return [sys.executable, "-m", "webhook", "--fleet", str(self.fleet_path), "serve"]

    def worker_program(self) -> list[str]:
        """How a worker process is started, before its fleet file and its behaviour."""
        return [sys.executable, str(ROOT / "tests" / "kill" / "worker_process.py")]

    def add_worker(self, behaviour: Any) -> Service:
        """A worker process of its own, with a stand-in for the playbook; not started yet."""
        from dataclasses import asdict

        number = len(self.workers)
        port = free_port()
        fleet_path = self.folder / f"worker{number}.tenants.yml"
        self._write_fleet(fleet_path, {**self._webhook, "worker_listen": f"127.0.0.1:{port}"})
        settings = self.folder / f"worker{number}.json"
        settings.write_text(json.dumps(asdict(behaviour)))
        command = [*self.worker_program(), str(fleet_path), str(settings)]
        worker = Service(f"worker{number}", command, self.folder, lambda: answers_http(port))
        self.workers.append(worker)
        return worker

    def _write_fleet(self, path: Path, webhook: dict[str, Any]) -> None:
        data = {
            "plugin": "hummingfleet.core.tenants",
            "registry": self.registry_url,
            "keyring": {"file": str(self.folder / "keyring.yml")},
            "catalogue": str(ROOT / "catalogue"),
            "images": "build",
            "base_dir": str(self.folder / "node"),
            "address_pool": "10.128.0.0/12",
            "nodes": {"lab": {"ansible_connection": "local", "memory_mib": 100_000_000, "labels": {}}},
            "webhook": webhook,
        }
        path.write_text(yaml.safe_dump(data))

    def close(self) -> None:
        """Ends all processes."""
        for service in (self.web, *self.workers):
            with contextlib.suppress(OSError):
                service.stop()


@contextlib.contextmanager
def stage(folder: Path, registry_url: str | None = None, **webhook: Any) -> Iterator[Stage]:
    """A Stage that leaves no process behind."""
    made = Stage(folder, registry_url, **webhook)
    try:
        yield made
    finally:
        made.close()


def make_secrets(path: Path) -> tuple[str, str]:
    """Writes the web service's secrets file; the secret for events and that for call-backs."""
    file = SecretsFile(path)
    file.ensure(time.time())
    return file.current("inbound").secret, file.current("outbound").secret
