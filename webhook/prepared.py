# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this machine still is as the demonstration's last run prepared it, asked directly and in a second.

The playbooks ask the same, one task at a time, which takes half a minute. So a run that succeeded leaves a picture: of
the code and settings it was made with, of the files it wrote, of the images and the exchange. The next run takes the
same picture again and asks Docker, compose, the firewall and the exchange; whatever differs has the playbooks run, and
so has a picture that is a day old.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError

from . import ROOT

_CODE = ("playbooks", "roles/node_base", "roles/node_images", "roles/node_broker", "roles/sandbox_exchange", "plugins",
         "images", "sandbox", "catalogue")  # fmt: skip
_FIREWALL = "/usr/local/sbin/hummingfleet-firewall"
_FILES = ("/etc/docker/daemon.json", "/etc/ssh/sshd_config.d/10-hummingfleet.conf", _FIREWALL,
          "/etc/systemd/system/hummingfleet-firewall.service")  # fmt: skip
_FOLDERS = ("", "tenants", "agent", "sandbox", "sandbox/config", "sandbox/tls", "sandbox/state", "sandbox/run",
            "broker", "broker/config", "broker/tls", "broker/users")  # fmt: skip
# Of files and folders of files. The broker's users are not among them: they change with the tenants.
_SERVICE_FILES = ("sandbox/ca.pem", "sandbox/config", "sandbox/tls", "broker/control_users", "broker/config",
                  "broker/tls")  # fmt: skip
SANDBOX = "hf-sandbox"
MAX_AGE_SECONDS = 24 * 3600.0


def take_picture(fleet_path: Path, base_dir: str, images: Iterable[str], broker: str | None) -> dict[str, Any]:
    """The state that preparing brought about, as JSON-plain data; equal pictures mean an equal state.

    ``broker`` is the name of the MQTT broker's container, None in a fleet without brokers.
    """
    base = Path(base_dir)
    service_files = [
        path
        for name in _SERVICE_FILES
        for path in (sorted((base / name).glob("*")) if (base / name).is_dir() else [base / name])
    ]
    return {
        "code": _digest_of_code([fleet_path, *(ROOT / name for name in _CODE)]),
        "files": {str(path): _file(path) for path in (*map(Path, _FILES), *service_files)},
        "folders": {str(base / name): _owner(base / name) for name in _FOLDERS},
        "docker": _ask_docker(sorted(images), [SANDBOX, *([broker] if broker else [])]),
        "compose": _says(["docker", "compose", "version", "--short"]),
        "firewall": _says([_FIREWALL, "check"]) is not None,
    }


def differences(before: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words; empty if nothing has to be prepared."""
    if before is None:
        return ["there is no picture of it from the last day"]
    words = {
        "code": "Hummingfleet or its settings changed",
        "files": "files were changed",
        "folders": "folders were changed",
        "docker": "Docker, an image, the sandbox exchange or the broker is not as it was",
        "compose": "docker compose is not as it was",
        "firewall": "the firewall's rules are not as they were",
    }
    found = [text for key, text in words.items() if before.get(key) != now[key]]
    # Two equal pictures of something broken are no reason to leave it so.
    if not found and (now["docker"] is None or now["compose"] is None or not now["firewall"]):
        found.append("something does not answer")
    return found


def read_picture(path: Path) -> dict[str, Any] | None:
    """The picture kept in ``path``, or None if there is none or it is too old."""
    try:
        if time.time() - path.stat().st_mtime > MAX_AGE_SECONDS:
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _digest_of_code(places: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _file(path: Path) -> list[Any] | None:
    try:
        return [hashlib.sha256(path.read_bytes()).hexdigest(), *(_owner(path) or [])]
    except OSError:
        return None


def _owner(path: Path) -> list[int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_mode, facts.st_uid, facts.st_gid]


def _ask_docker(images: Iterable[str], names: Iterable[str]) -> dict[str, Any] | None:
    engine = DockerEngine(timeout_seconds=10)
    try:
        found = {image: engine.image_id(image) for image in images}
        containers = {name: engine.inspect(name) for name in names}
    except DockerError:
        return None
    services = {}
    for name, facts in containers.items():
        if facts is None or not facts["State"]["Running"]:
            return None
        services[name] = [facts["Id"], facts["Image"], facts["HostConfig"]["Binds"]]
    return None if None in found.values() else {"images": found, "services": services}


def _says(command: list[str], run: Callable[..., Any] = subprocess.run) -> str | None:
    """What a command says, None if it fails."""
    try:
        done = run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return str(done.stdout).strip() if done.returncode == 0 else None
