# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MQTT broker's container on a node, and the users that it knows.

Every stack whose bots need the broker has a file of its own with their users (hashes only). The broker's password file
is the control node's user and all of those, put together again whenever a stack's file may have changed. The broker
reads it on SIGHUP, without a restart: it then ends the sessions of users that are gone or have another password, and no
other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node import shared
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import write_file
from ansible_collections.hummingfleet.core.plugins.module_utils.node.observe import read_state, tenants_dir

USERS_FILE = "broker_users"
"""In a stack's folder: the users of its bots."""

CONTROL_FILE = "control_users"
"""In the broker's folder: the control node's user."""

PREPARE = "run the playbook prepare_nodes for this node"
MOUNTS = {"config": "/mosquitto/config", "tls": "/mosquitto/tls", "users": "/mosquitto/users"}
TLS_PORT = 8883
PIDS = 32
# It is no way out of a tenant's network: what it sends anywhere but to its neighbours finds no way back.
NETWORK_OPTIONS = {"com.docker.network.bridge.enable_ip_masquerade": "false"}


class BrokerUnavailableError(Exception):
    """The node has no broker that runs; the sentence says what to do."""


@dataclass(frozen=True)
class BrokerSpec:
    """What the container shall be. ``base_dir`` is the fleet's folder; ``address`` and ``port`` are the node's."""

    name: str
    image: str
    network: str
    subnet: str
    base_dir: str
    uid: int
    memory_mib: int
    address: str
    port: int


def broker_dir(base_dir: str) -> Path:
    """Everything of the broker on a node."""
    return Path(base_dir) / "broker"


def listen_address(subnet: str) -> str:
    """The broker's address in its own network, the second after the network's: only there it speaks TLS."""
    return str(IPv4Network(subnet).network_address + 2)


# -- users -----------------------------------------------------------------------------------------------------------


def hand_over_users(
    engine: DockerEngine,
    base_dir: str,
    container: str,
    *,
    check: bool = False,
    instead: dict[str, str | None] | None = None,
) -> bool:
    """Gives the broker the users of all stacks as their files have them; whether it did (or in check mode would).

    ``instead`` are contents of stacks' files, by tenant, that a run in check mode predicts (None: no file).
    Raises BrokerUnavailableError when something changed and no broker runs that could take it over; it reads the users
    when it starts.
    """
    folder = broker_dir(base_dir)
    if not (folder / "users").is_dir():
        raise BrokerUnavailableError(f"this node has no MQTT broker ({container}); {PREPARE}")
    if check:
        text = _all_users(base_dir, instead or {})
        return text != _read(folder / "users" / "passwords") or (folder / "reload").exists()
    with _locked(folder):
        if not _write_users(base_dir):
            return False
        try:
            engine.signal(container, "HUP")
        except DockerError as error:
            if error.status not in (404, 409):
                raise
            raise BrokerUnavailableError(
                f"the MQTT broker ({container}) of this node does not run; {PREPARE}"
            ) from None
        (folder / "reload").unlink()
    return True


def _write_users(base_dir: str) -> bool:
    """Whether the broker has something to take over. The file ``reload`` says so until somebody made it do that."""
    folder = broker_dir(base_dir)
    path, due = folder / "users" / "passwords", folder / "reload"
    text = _all_users(base_dir, {})
    if text == _read(path):
        return due.exists()
    write_file(due, b"", "0600", 0, 0)
    owner = path.parent.stat()
    write_file(path, text.encode(), "0400", owner.st_uid, owner.st_gid)
    return True


def _all_users(base_dir: str, instead: dict[str, str | None]) -> str:
    parts = [_read(broker_dir(base_dir) / CONTROL_FILE) or ""]
    tenants = {path.parent.name for path in tenants_dir(base_dir).glob(f"*/{USERS_FILE}")}
    for tenant in sorted(tenants | set(instead)):
        own = instead[tenant] if tenant in instead else _read(tenants_dir(base_dir) / tenant / USERS_FILE)
        parts.append(own or "")
    return "".join(parts)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time: tenants are brought up side by side."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# -- container -------------------------------------------------------------------------------------------------------


def present(engine: DockerEngine, spec: BrokerSpec, *, check: bool) -> shared.Outcome:
    """Network and container as described, running, in the networks of the tenants that need it, with their users.

    Raises SharedContainerError, BrokerUnavailableError, DockerError or OSError.
    """
    if not check:
        with _locked(broker_dir(spec.base_dir)):
            # Before the container: it cannot start without its password file.
            _write_users(spec.base_dir)
    outcome = shared.present(engine, _shared(spec), check=check)
    actions = list(outcome.actions)
    for network, guest in _needed_connections(engine, spec):
        actions.append(f"attached {spec.name} to {network}")
        if not check:
            engine.connect(network, spec.name, guest["aliases"], guest["address"])
    fresh = outcome.created or f"started {spec.name}" in actions
    if check:
        if not fresh and hand_over_users(engine, spec.base_dir, spec.name, check=True):
            actions.append("handed the users over")
    elif fresh:
        (broker_dir(spec.base_dir) / "reload").unlink(missing_ok=True)
    elif hand_over_users(engine, spec.base_dir, spec.name):
        actions.append("handed the users over")
    return shared.Outcome(actions, created=outcome.created)


def _needed_connections(engine: DockerEngine, spec: BrokerSpec) -> list[tuple[str, dict[str, Any]]]:
    """The networks that stacks of this node want the broker in and where it is not: a removed one had left them."""
    missing = []
    container = engine.inspect(spec.name) or {}
    joined = (container.get("NetworkSettings") or {}).get("Networks") or {}
    for path in sorted(tenants_dir(spec.base_dir).glob(f"*/{USERS_FILE}")):
        network = (read_state(path.parent) or {}).get("network") or {}
        for guest in network.get("attach", []):
            known = guest["container"] == spec.name and network["name"] not in joined
            if known and engine.network(network["name"]) is not None:
                missing.append((network["name"], guest))
    return missing


def _shared(spec: BrokerSpec) -> shared.Shared:
    folder = broker_dir(spec.base_dir)
    body: dict[str, Any] = {
        "User": f"{spec.uid}:{spec.uid}",
        "Cmd": ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"],
        "ExposedPorts": {f"{TLS_PORT}/tcp": {}},
        "HostConfig": {
            **shared.hardened(memory_mib=spec.memory_mib, pids=PIDS, sysctls={}),
            "Binds": [f"{folder}/{name}:{target}:ro" for name, target in MOUNTS.items()],
            "PortBindings": {f"{TLS_PORT}/tcp": [{"HostIp": spec.address, "HostPort": str(spec.port)}]},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {spec.network: {"IPAMConfig": {"IPv4Address": listen_address(spec.subnet)}}}
        },
    }
    return shared.Shared(
        service="broker",
        role="node_broker",
        name=spec.name,
        image=spec.image,
        network=spec.network,
        subnet=spec.subnet,
        internal=False,
        body=body,
        network_options=NETWORK_OPTIONS,
    )
