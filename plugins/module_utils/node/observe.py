# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a node: containers, bots, what was applied, and who is behind. Changes nothing.

What was applied to a tenant is kept beside its stack in ``state.json``, so that the everyday question, "who is
behind?", reads one small file per tenant and one list of containers. The deep question compares every file and every
container with what was applied.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node import bot_log
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine
from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import (
    digest,
    directory_is,
    file_facts,
    read_json,
    read_report,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, Trouble

LABEL_TENANT = "hummingfleet.tenant"
LABEL_SERVICE = "hummingfleet.service"
LABEL_SPEC = "hummingfleet.spec"
STATE_FILE = "state.json"
STATE_MAX_BYTES = 4_194_304
HEARTBEAT_MAX_AGE_SECONDS = 15
CONNECT_SECONDS = 1.0
TEXT_MAX_CHARACTERS = 300
CONNECTORS_MAX = 8


def tenants_dir(base_dir: str) -> Path:
    """Where the stacks of a node are kept."""
    return Path(base_dir) / "tenants"


def read_state(directory: Path) -> dict[str, Any] | None:
    """What was applied to the stack in ``directory``, or None."""
    return read_json(directory / STATE_FILE, limit=STATE_MAX_BYTES)


# -- what is there ---------------------------------------------------------------------------------------------------


def container_facts(engine: DockerEngine, label: str = LABEL_TENANT) -> dict[str, dict[str, dict[str, Any]]]:
    """Containers by tenant and service: name, state, status, spec, image id; one request, whatever the number."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for container in engine.containers([label]):
        labels = container.get("Labels") or {}
        if is_one_off(container):
            continue
        found.setdefault(labels.get(LABEL_TENANT, ""), {})[labels.get(LABEL_SERVICE, "")] = {
            "id": container["Id"],
            "name": container["Names"][0].lstrip("/"),
            "state": container["State"],
            "status": container["Status"],
            "spec": labels.get(LABEL_SPEC, ""),
            "image_id": container["ImageID"],
            "created": container["Created"],
            "address": next(
                (n["IPAddress"] for n in container["NetworkSettings"]["Networks"].values() if n.get("IPAddress")), None
            ),
        }
    return found


def is_one_off(container: dict[str, Any]) -> bool:
    """Whether a listed container was made for one command, such as settling a dead bot, and is none of the stack's."""
    return str((container.get("Labels") or {}).get("com.docker.compose.oneoff", "")).lower() == "true"


def inspect_digest(facts: dict[str, Any]) -> str:
    """What an edit by hand would change in a container: its configuration, not its state."""
    kept = {key: facts.get(key) for key in ("Config", "HostConfig", "Image", "Mounts", "Name", "Path", "Args")}
    kept["Mounts"] = sorted(kept["Mounts"] or [], key=lambda mount: mount.get("Destination", ""))
    kept["Networks"] = {name: sorted(set(net.get("Aliases") or [])) for name, net in networks_of(facts).items()}
    short_id = facts.get("Id", "")[:12]
    return digest(json.dumps(kept, sort_keys=True).replace(short_id, "").encode())


def networks_of(container: dict[str, Any]) -> dict[str, Any]:
    """The networks that an inspected container is in, by name, whether it runs or not."""
    return (container.get("NetworkSettings") or {}).get("Networks") or {}


def read_lifecycle(bot_dir: Path) -> dict[str, Any] | None:
    """What a bot's record says of its orders; None where it never had one. One that cannot be read is no clean one."""
    path = bot_dir / "data" / "lifecycle.json"
    found = read_report(path)
    return {"state": "unreadable", "clean": False} if found is None and os.path.lexists(path) else found


def bot_facts(bot_dir: Path, container: dict[str, Any] | None, now: float) -> dict[str, Any]:
    """What a bot says of itself and what its container does: the live state people and programs are shown."""
    heartbeat = read_report(bot_dir / "data" / "heartbeat.json") or {}
    lifecycle = read_lifecycle(bot_dir) or {}
    at = heartbeat.get("at")
    age = now - at if isinstance(at, (int, float)) and not isinstance(at, bool) else None
    running = bool(container and container["state"] == "running")
    fresh = running and age is not None and age <= HEARTBEAT_MAX_AGE_SECONDS
    if running:
        state = _running_state(heartbeat) if fresh else "starting"
    elif container is None and not lifecycle:
        state = "absent"
    elif lifecycle.get("state") == "stopped" and lifecycle.get("clean") is True:
        state = "stopped"
    elif lifecycle:
        state = "unclean"
    else:
        state = "stopped"
    counted = heartbeat if running or not lifecycle else lifecycle
    connectors = heartbeat.get("connectors")
    # Of known kinds and sizes only: these facts go into the registry and on to programs.
    return {
        "state": state,
        "container": container["status"] if container else None,
        "heartbeat_age_seconds": round(age, 1) if age is not None else None,
        "verified": _text(lifecycle.get("verified")),
        "open_orders": _count(counted.get("open_orders")),
        "fills": _count(heartbeat.get("fills")),
        "position": _entries(heartbeat.get("position"), ("base", "cost_quote")),
        "halted": _entries(heartbeat.get("halted"), ("code", "message", "at")),
        "risk": _entries(heartbeat.get("risk"), ("day", "day_pnl", "pnl", "equity", "position", "quote", "market")),
        "connectors": {str(_text(name)): ready is True for name, ready in connectors.items()}
        if isinstance(connectors, dict) and len(connectors) <= CONNECTORS_MAX
        else None,
        "pid": _count(heartbeat.get("pid")),
        "engine_version": _text(heartbeat.get("engine_version")),
        "agent_version": _text(heartbeat.get("agent_version")),
        "config_digest": _text(heartbeat.get("config_digest")),
        "config_rejected": _entries(heartbeat.get("config_rejected"), ("digest", "reason")),
    }


def _text(value: Any) -> str | None:
    return value[:TEXT_MAX_CHARACTERS] if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """A number of things; -1, which a bot writes for "unknown", is None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _entries(value: Any, names: tuple[str, ...]) -> dict[str, str | float | None] | None:
    """Those entries of an object, as text or number."""
    if not isinstance(value, dict):
        return None
    return {
        name: value.get(name) if isinstance(value.get(name), (int, float)) else _text(value.get(name)) for name in names
    }


def _running_state(heartbeat: dict[str, Any]) -> str:
    phase = heartbeat.get("phase")
    if heartbeat.get("halted"):
        return "halted"
    if phase == "trading":
        connectors = heartbeat.get("connectors")
        ready = isinstance(connectors, dict) and bool(connectors) and all(v is True for v in connectors.values())
        return "running" if heartbeat.get("strategy_running") is True and ready else "starting"
    return phase if phase in ("starting", "settling", "stopping", "halted") else "starting"


# -- who is behind ---------------------------------------------------------------------------------------------------


def survey_tenant(
    base_dir: str,
    tenant: str,
    wanted_digest: str,
    containers: dict[str, dict[str, Any]],
    now: float,
    deep: Callable[[Path, dict[str, Any], dict[str, dict[str, Any]]], list[str]] | None = None,
) -> dict[str, Any]:
    """Whether one tenant is behind ``wanted_digest``, why, and what its bots do."""
    directory = tenants_dir(base_dir) / tenant
    state = read_state(directory)
    reasons: list[str] = []
    if state is None:
        reasons.append("not deployed here yet")
        state = {}
    elif state.get("digest") != wanted_digest:
        reasons.append("the desired state has changed")
    services: dict[str, dict[str, Any]] = state.get("services", {})
    for name, service in services.items():
        container = containers.get(name)
        if service["running"]:
            if container is None:
                reasons.append(f"container {service['container']} is missing")
            elif container["state"] != "running":
                reasons.append(f"container {container['name']} is {container['state']}")
            elif container["spec"] != service["spec"]:
                reasons.append(f"container {container['name']} runs another specification")
        elif container is not None and container["state"] in ("running", "restarting", "paused"):
            reasons.append(f"container {container['name']} should be stopped and is {container['state']}")
    reasons += [f"container {c['name']} is not expected" for name, c in containers.items() if name not in services]
    bots = {}
    for bot in state.get("bots", []):
        facts = bot_facts(directory / "bots" / bot["id"], containers.get(bot["service"]), now)
        bots[bot["id"]] = facts
        if bot["state"] != "running" and facts["state"] == "unclean":
            reasons.append(f"bot {bot['id']} died and its orders are not checked yet")
    if deep is not None and state:
        reasons += deep(directory, state, containers)
    return {"behind": bool(reasons), "reasons": reasons, "bots": bots, "revision": state.get("revision")}


def deep_check(
    engine: DockerEngine, directory: Path, state: dict[str, Any], containers: dict[str, dict[str, Any]]
) -> list[str]:
    """What differs from what was applied: files, modes, owners, moved image tags, containers edited by hand."""
    reasons = []
    uid = state.get("uid", 0)
    if not directory_is(directory, "0750", 0, uid):
        reasons.append("the stack's folder has another mode or owner")
    for relative, wanted in state.get("directories", {}).items():
        if not directory_is(directory / relative, wanted["mode"], wanted["uid"], wanted["gid"]):
            reasons.append(f"folder {relative} is missing or has another mode or owner")
    for relative, wanted in state.get("files", {}).items():
        facts = file_facts(directory / relative)
        if facts is None:
            reasons.append(f"file {relative} is missing")
        elif facts["sha256"] != wanted["sha256"]:
            reasons.append(f"file {relative} was edited")
        elif facts != wanted:
            reasons.append(f"file {relative} has another mode or owner")
    reasons += [f"container {c['name']} was altered" for c in altered_containers(engine, state, containers)]
    network = state.get("network") or {}
    for guest in network.get("attach", []):
        if network["name"] not in networks_of(engine.inspect(guest["container"]) or {}):
            reasons.append(f"container {guest['container']} is not in the tenant's network")
    return reasons


def altered_containers(
    engine: DockerEngine, state: dict[str, Any], containers: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The containers whose configuration, or whose tag's image, is not what was applied."""
    found = []
    for name, service in state.get("services", {}).items():
        container = containers.get(name)
        if container is None or not service["running"] or container["state"] != "running":
            continue
        facts = engine.inspect(container["id"])
        moved = engine.image_id(service["image"]) != container["image_id"]
        if facts is None or moved or inspect_digest(facts) != service.get("inspect"):
            found.append(container)
    return found


# -- health ----------------------------------------------------------------------------------------------------------


def unhealthy(stack: dict[str, Any], base_dir: str, containers: dict[str, dict[str, Any]], now: float) -> list[Trouble]:
    """What is not yet as desired; empty when the stack is healthy."""
    troubles = []
    for name, service in stack["services"].items():
        container = containers.get(name)
        bot = next((bot["id"] for bot in stack["bots"] if bot["service"] == name), None)
        if not service["running"]:
            continue
        if container is None:
            troubles.append(Trouble(f"container {service['container']} is missing", Problem.NODE_REFUSED, bot))
        elif container["state"] != "running":
            kind = Problem.ENGINE_REFUSED if bot else Problem.NODE_REFUSED
            words = f"container {service['container']} is {container['state']} ({container['status']})"
            troubles.append(Trouble(f"bot {bot} does not stay up: {words}" if bot else words, kind, bot))
        elif service["port"] and not answers(container["address"], service["port"]):
            words = f"container {service['container']} does not answer on port {service['port']} yet"
            troubles.append(Trouble(words, Problem.NODE_REFUSED))
    for bot in stack["bots"]:
        container = containers.get(bot["service"])
        if not stack["services"][bot["service"]]["running"] or container is None or container["state"] != "running":
            continue
        facts = bot_facts(tenants_dir(base_dir) / stack["tenant"] / "bots" / bot["id"], container, now)
        age = facts["heartbeat_age_seconds"]
        kind, final = Problem.ENGINE_REFUSED, False
        if age is not None and now - age < container["created"]:
            words = "has not reported since its container was made"
        elif facts["state"] not in ("running", "halted"):
            words = f"is {facts['state']}"
            if facts["state"] == "settling":
                words += ": its orders could not be checked on the exchange yet"
                kind = Problem.EXCHANGE_UNANSWERED
        elif bot["live_digest"] and facts["config_digest"] != bot["live_digest"] and facts["state"] != "halted":
            rejected = facts["config_rejected"] or {}
            final = rejected.get("digest") == bot["live_digest"]
            words = "has not taken over its new configuration yet"
            if final:
                reason = bot_log.excerpt(str(rejected["reason"]))
                words = f"refuses its new configuration and stays with the former one (its log: {reason})"
        else:
            continue
        troubles.append(Trouble(f"bot {bot['id']} {words}", kind, bot["id"], final))
    return troubles


def answers(address: str | None, port: int) -> bool:
    """Whether somebody takes a TCP connection there; a container that runs may still be starting up."""
    try:
        with socket.create_connection((address or "", port), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def wait_healthy(
    engine: DockerEngine,
    base_dir: str,
    stacks: list[dict[str, Any]],
    timeout_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, list[Trouble]]:
    """Waits for all stacks at once; by tenant, what is still wrong when the time is over.

    A stack is waited for as long as it has a trouble that time may mend.
    """
    deadline = clock() + timeout_seconds
    waiting = {stack["tenant"]: stack for stack in stacks}
    problems: dict[str, list[Trouble]] = {}
    delay = 0.05
    while waiting:
        containers = container_facts(engine)
        now = time.time()
        for tenant, stack in waiting.items():
            problems[tenant] = unhealthy(stack, base_dir, containers.get(tenant, {}), now)
        waiting = {
            tenant: stack for tenant, stack in waiting.items() if not all(trouble.final for trouble in problems[tenant])
        }
        if not waiting or clock() >= deadline:
            break
        pause(delay)
        delay = min(delay * 1.5, 0.5)
    return {tenant: found for tenant, found in problems.items() if found}
