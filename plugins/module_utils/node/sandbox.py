# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox exchange's container on a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node import shared
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine

CONFIG_MOUNT = "/etc/sandbox"
TLS_MOUNT = "/etc/sandbox-tls"
STATE_MOUNT = "/var/lib/sandbox"
RUN_MOUNT = "/run/sandbox"
PIDS = 64
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class SandboxSpec:
    """What the container shall be. ``folder`` on the node holds config, tls, state and run."""

    name: str
    image: str
    network: str
    subnet: str
    folder: str
    uid: int
    memory_mib: int


def present(engine: DockerEngine, spec: SandboxSpec, *, check: bool) -> shared.Outcome:
    """Network and container as described, running. Raises SharedContainerError or DockerError."""
    return shared.present(engine, _shared(spec), check=check)


def _shared(spec: SandboxSpec) -> shared.Shared:
    binds = [
        f"{spec.folder}/config:{CONFIG_MOUNT}:ro",
        f"{spec.folder}/tls:{TLS_MOUNT}:ro",
        f"{spec.folder}/state:{STATE_MOUNT}:rw",
        f"{spec.folder}/run:{RUN_MOUNT}:rw",
    ]
    # Port 443 is opened without a capability.
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "0"}
    body: dict[str, Any] = {
        "User": f"{spec.uid}:{spec.uid}",
        "Healthcheck": {
            "Test": ["CMD", "python", "-m", "sandbox.control", "health"],
            "Interval": 30 * SECOND_NS,
            "Timeout": 10 * SECOND_NS,
            "StartPeriod": 20 * SECOND_NS,
            "Retries": 3,
        },
        "HostConfig": {
            **shared.hardened(memory_mib=spec.memory_mib, pids=PIDS, sysctls=sysctls),
            "Binds": binds,
            "Init": True,
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=16m"},  # noqa: S108 - inside the container
        },
    }
    return shared.Shared(
        service="sandbox",
        role="sandbox_exchange",
        name=spec.name,
        image=spec.image,
        network=spec.network,
        subnet=spec.subnet,
        internal=True,
        body=body,
        network_options={},
        # It saves its state on SIGTERM.
        grace_seconds=20,
    )
