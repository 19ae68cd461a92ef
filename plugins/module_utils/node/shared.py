# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container on a node that several tenants use: the sandbox exchange, the MQTT broker.

Converging a tenant connects such a container to the tenant's network. Whatever happens to the container here, those
connections stay: they are part of no desired state of its own, and a container that must be made anew gets them back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import quote

from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError

LABEL_SERVICE = "hummingfleet.service"
LABEL_DIGEST = "hummingfleet.digest"


class SharedContainerError(Exception):
    """The container cannot be brought to its state; the sentence says why and what to do."""


@dataclass(frozen=True)
class Shared:
    """What the container shall be.

    ``body`` is the request that creates it (Docker Engine API, v1.41), without image, labels and network. ``role`` is
    the role whose variables ``<role>_subnet`` and ``<role>_state`` an operator sets. ``grace_seconds`` is how long it
    may take to end.
    """

    service: str
    role: str
    name: str
    image: str
    network: str
    subnet: str
    internal: bool
    body: Mapping[str, Any]
    network_options: Mapping[str, str]
    grace_seconds: int = 20


@dataclass(frozen=True)
class Outcome:
    """What was (or in check mode would be) done, and whether the container is a new one."""

    actions: list[str]
    created: bool = False


def present(engine: DockerEngine, spec: Shared, *, check: bool) -> Outcome:
    """Network and container as described, running. Raises SharedContainerError or DockerError."""
    image_id = engine.image_id(spec.image)
    if image_id is None and not check:
        raise SharedContainerError(f"the image {spec.image} is not on this node; run the playbook prepare_nodes first")
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


def hardened(*, memory_mib: int, pids: int, sysctls: Mapping[str, str]) -> dict[str, Any]:
    """The part of ``HostConfig`` that every shared container has: limits, no rights, no way to change itself."""
    return {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        # It is connected to the networks of many tenants: it must never pass a packet from one to another.
        "Sysctls": {"net.ipv4.ip_forward": "0", **sysctls},
        "Memory": memory_mib * 1024 * 1024,
        "MemorySwap": memory_mib * 1024 * 1024,
        "PidsLimit": pids,
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }


def _network(engine: DockerEngine, spec: Shared, *, check: bool) -> list[str]:
    found = engine.network(spec.network)
    if found is None:
        if not check:
            gateway = str(next(IPv4Network(spec.subnet).hosts()))
            labels = {LABEL_SERVICE: spec.service}
            engine.create_network(spec.network, spec.subnet, gateway, spec.internal, labels, dict(spec.network_options))
        return [f"made network {spec.network}"]
    subnets = [item.get("Subnet") for item in (found.get("IPAM") or {}).get("Config") or []]
    if subnets != [spec.subnet] or bool(found.get("Internal")) != spec.internal:
        kind = "internal" if spec.internal else "not internal"
        raise SharedContainerError(
            f"the network {spec.network} exists with subnet {subnets} (internal: {found.get('Internal')}), and wanted "
            f"is {spec.subnet}, {kind}; set {spec.role}_subnet to its subnet, or remove it first "
            f"({spec.role}_state: absent)"
        )
    return []


def _body(spec: Shared, image_id: str) -> dict[str, Any]:
    """The request that creates the container."""
    body = {**spec.body, "Image": spec.image, "Labels": {LABEL_SERVICE: spec.service}}
    body["HostConfig"] = {**body["HostConfig"], "NetworkMode": spec.network}
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


def _make(engine: DockerEngine, spec: Shared, body: dict[str, Any], former: dict[str, Any] | None) -> None:
    """Creates and starts the container, connected to every network that its predecessor was connected to."""
    connections = _connections(former, spec.network) if former is not None else {}
    if former is not None:
        engine.stop(spec.name, spec.grace_seconds)
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
