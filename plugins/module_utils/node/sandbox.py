# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox exchange's container on a node.

Converging a tenant connects this container to the tenant's network. Whatever happens to the container here, those
connections stay: they are part of no desired state of its own, and a container that must be made anew gets them back.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import quote

from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError

LABEL_SERVICE = "hummingfleet.service"
LABEL_DIGEST = "hummingfleet.digest"
CONFIG_MOUNT = "/etc/sandbox"
TLS_MOUNT = "/etc/sandbox-tls"
STATE_MOUNT = "/var/lib/sandbox"
RUN_MOUNT = "/run/sandbox"
PIDS = 64
SECOND_NS = 1_000_000_000


class SandboxContainerError(Exception):
    """The container cannot be brought to its state; the sentence says why and what to do."""


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


@dataclass(frozen=True)
class Outcome:
    """What was (or in check mode would be) done, and whether the container is a new one."""

    actions: list[str]
    created: bool = False


def present(engine: DockerEngine, spec: SandboxSpec, *, check: bool) -> Outcome:
    """Network and container as described, running. Raises SandboxContainerError or DockerError."""
    image_id = engine.image_id(spec.image)
    if image_id is None and not check:
        raise SandboxContainerError(f"the image {spec.image} is not on this node; run the playbook prepare_nodes first")
    actions = _network(engine, spec, check=check)
    body = _body(spec, image_id or "")
    container = engine.inspect(spec.name)
    if container is not None:
        reasons = _differences(container, body)
        if not reasons:
            if not container["State"]["Running"]:
                actions.append(f"started {spec.name}")
                if not check:
                    _start(engine, spec.name)
            return Outcome(actions)
        actions.append(f"made {spec.name} anew: {', '.join(reasons)} differ")
    else:
        actions.append(f"made {spec.name}")
    if not check:
        _make(engine, spec, body, container)
    return Outcome(actions, created=True)


def absent(engine: DockerEngine, name: str, network: str, *, check: bool) -> Outcome:
    """Neither container nor network of its own."""
    actions = []
    if engine.inspect(name) is not None:
        actions.append(f"removed {name}")
        if not check:
            engine.remove(name)
    if engine.network(network) is not None:
        actions.append(f"removed network {network}")
        if not check:
            engine.remove_network(network)
    return Outcome(actions)


def _network(engine: DockerEngine, spec: SandboxSpec, *, check: bool) -> list[str]:
    found = engine.network(spec.network)
    if found is None:
        if not check:
            gateway = str(next(IPv4Network(spec.subnet).hosts()))
            engine.create_network(spec.network, spec.subnet, gateway, True, {LABEL_SERVICE: "sandbox"})
        return [f"made network {spec.network}"]
    subnets = [item.get("Subnet") for item in (found.get("IPAM") or {}).get("Config") or []]
    if subnets != [spec.subnet] or not found.get("Internal"):
        raise SandboxContainerError(
            f"the network {spec.network} exists with subnet {subnets} (internal: {found.get('Internal')}) and "
            f"not as internal {spec.subnet}; set sandbox_exchange_subnet to its subnet, or remove the sandbox first "
            "(sandbox_exchange_state: absent)"
        )
    return []


def _body(spec: SandboxSpec, image_id: str) -> dict[str, Any]:
    """The request that creates the container (Docker Engine API, v1.41)."""
    binds = [
        f"{spec.folder}/config:{CONFIG_MOUNT}:ro",
        f"{spec.folder}/tls:{TLS_MOUNT}:ro",
        f"{spec.folder}/state:{STATE_MOUNT}:rw",
        f"{spec.folder}/run:{RUN_MOUNT}:rw",
    ]
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": f"{spec.uid}:{spec.uid}",
        "Labels": {LABEL_SERVICE: "sandbox"},
        "Healthcheck": {
            "Test": ["CMD", "python", "-m", "sandbox.control", "health"],
            "Interval": 30 * SECOND_NS,
            "Timeout": 10 * SECOND_NS,
            "StartPeriod": 20 * SECOND_NS,
            "Retries": 3,
        },
        "HostConfig": {
            "NetworkMode": spec.network,
            "Binds": binds,
            "Init": True,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=16m"},  # noqa: S108 - inside the container
            # It is connected to the networks of many tenants: it must never pass a packet from one to another. Port
            # 443 is opened without a capability.
            "Sysctls": {"net.ipv4.ip_forward": "0", "net.ipv4.ip_unprivileged_port_start": "0"},
            "Memory": spec.memory_mib * 1024 * 1024,
            "MemorySwap": spec.memory_mib * 1024 * 1024,
            "PidsLimit": PIDS,
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }
    text = json.dumps([body, image_id], sort_keys=True)
    body["Labels"][LABEL_DIGEST] = hashlib.sha256(text.encode()).hexdigest()
    return body


def _differences(container: dict[str, Any], body: dict[str, Any]) -> list[str]:
    """In which respects the container is not what the request would create."""
    if (container["Config"].get("Labels") or {}).get(LABEL_DIGEST) != body["Labels"][LABEL_DIGEST]:
        return ["image or settings"]
    # The label shows what was asked for at creation; settings can be changed afterwards (docker update).
    wanted, found = body["HostConfig"], container["HostConfig"]
    return [key for key in ("Memory", "MemorySwap", "PidsLimit", "RestartPolicy") if found.get(key) != wanted[key]]


def _make(engine: DockerEngine, spec: SandboxSpec, body: dict[str, Any], former: dict[str, Any] | None) -> None:
    """Creates and starts the container, connected to every network that its predecessor was connected to."""
    connections = _connections(former, spec.network) if former is not None else {}
    if former is not None:
        # It saves its state on SIGTERM.
        engine.stop(spec.name, 20)
        engine.remove(spec.name)
    engine.request("POST", "/containers/create", {"name": spec.name}, body)
    for network, endpoint in connections.items():
        try:
            engine.request(
                "POST", f"/networks/{quote(network)}/connect", body={"Container": spec.name, "EndpointConfig": endpoint}
            )
        except DockerError as error:
            # 404: the tenant was removed meanwhile. 403: a converge of the tenant connected it meanwhile.
            if error.status not in (403, 404):
                raise
    _start(engine, spec.name)


def _connections(container: dict[str, Any], own: str) -> dict[str, dict[str, Any]]:
    """Its connections to other networks than its own, as requests to make them again."""
    short_id = container["Id"][:12]
    return {
        name: {
            "Aliases": [alias for alias in endpoint.get("Aliases") or [] if alias != short_id],
            "IPAMConfig": endpoint.get("IPAMConfig") or {},
        }
        for name, endpoint in ((container.get("NetworkSettings") or {}).get("Networks") or {}).items()
        if name != own
    }


def _start(engine: DockerEngine, name: str) -> None:
    engine.request("POST", f"/containers/{quote(name)}/start")
