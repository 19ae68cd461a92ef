"""Bots that one container forks from an imported engine, one after another: each costs seconds."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engine.harness import BOT_UID, ROOT, Sandbox, docker, engine_image

PROBE = Path(__file__).with_name("fork_probe.py")


@dataclass
class ForkedBots:
    """A container with the engine imported; ``folder`` holds a folder for each bot."""

    sandbox: Sandbox
    folder: Path
    name: str = field(default_factory=lambda: f"hf-test-forked-{secrets.token_hex(4)}")
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the container and wait until the engine is imported."""
        agent, uid = ROOT / "agent", f"uid={BOT_UID},gid={BOT_UID}"
        volumes = {
            f"{agent}": "/opt/hummingfleet/agent:ro", f"{agent}/scripts": "/home/hummingbot/scripts:ro",
            f"{agent}/controllers": "/home/hummingbot/controllers:ro", f"{PROBE}": "/probe.py:ro",
            f"{self.folder}": "/bots", f"{self.sandbox.ca_path}": "/opt/hummingfleet/ca.pem:ro",
        }
        command = [
            "docker", "run", "--rm", "--interactive", "--init", "--name", self.name, "--network", self.sandbox.network,
            "--user", f"{BOT_UID}:{BOT_UID}", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--memory", "768m", "--workdir", "/home/hummingbot", "--tmpfs", "/tmp",
            *(item for name in ("conf", "data", "logs")
              for item in ("--tmpfs", f"/home/hummingbot/{name}:{uid},mode=0700")),
            "--env", "HOME=/tmp", "--env", "PYTHONDONTWRITEBYTECODE=1",
            "--env", "SSL_CERT_FILE=/opt/hummingfleet/ca.pem",
            *(item for source, target in volumes.items() for item in ("--volume", f"{source}:{target}")),
            engine_image(), "python", "/probe.py",
        ]
        os.chown(self.folder, BOT_UID, BOT_UID)
        with (self.folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert self._answer() == {"ready": True}

    def run(self, name: str, **details: Any) -> None:
        """Start the bot whose files are in the folder ``name``; the one before it is killed."""
        self._ask({"start": f"/bots/{name}", **details})

    def end(self) -> None:
        """Kill the running bot."""
        self._ask({"stop": True})

    def log(self, name: str) -> str:
        """What a bot printed."""
        return (self.folder / name / "log").read_text(errors="replace")

    def remove(self) -> None:
        """Take the container away."""
        docker("rm", "--force", self.name, check=False)
        if self._process is not None:
            self._process.wait()

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.folder / "errors").read_text()[-3000:]
        return dict(json.loads(line))
