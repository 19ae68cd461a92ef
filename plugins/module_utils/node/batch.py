# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All stacks of a node in one go: who is behind, and bringing those up, several at a time."""

from __future__ import annotations

import base64
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.node import bot_log
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import write_file
from ansible_collections.hummingfleet.core.plugins.module_utils.node.observe import (
    bot_facts,
    container_facts,
    deep_check,
    survey_tenant,
    tenants_dir,
    wait_healthy,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, Trouble, gravest
from ansible_collections.hummingfleet.core.plugins.module_utils.node.stack import Stack, StackError

LOG_LINES = 200


def survey(
    engine: DockerEngine,
    base_dir: str,
    digests: dict[str, str],
    *,
    images: list[str],
    agents: list[str],
    deep: bool,
) -> dict[str, Any]:
    """The node's answer to "who is behind?": per tenant the reasons, and what the node lacks for everybody."""
    containers = container_facts(engine)
    now = time.time()

    def check(directory: Path, state: dict[str, Any], found: dict[str, dict[str, Any]]) -> list[str]:
        return deep_check(engine, directory, state, found)

    tenants = {
        tenant: survey_tenant(base_dir, tenant, wanted, containers.get(tenant, {}), now, check if deep else None)
        for tenant, wanted in digests.items()
    }
    return {
        "tenants": tenants,
        "missing_images": [image for image in images if engine.image_id(image) is None],
        "missing_agents": [
            version for version in agents if not (Path(base_dir) / "agent" / version / "VERSION").is_file()
        ],
    }


def install_agents(base_dir: str, agents: dict[str, dict[str, str]], check: bool) -> list[str]:
    """Puts agent versions (relative path → base64 content) on the node; the versions that were new."""
    made = []
    for version, contents in agents.items():
        target = Path(base_dir) / "agent" / version
        if (target / "VERSION").is_file():
            continue
        made.append(version)
        if check:
            continue
        building = target.with_name(f".{version}.new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o755, parents=True)
        for relative, content in sorted(contents.items()):
            path = building / relative
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_file(path, base64.b64decode(content), "0644", 0, 0)
        building.rename(target)
    return made


def apply(
    engine: DockerEngine,
    base_dir: str,
    stacks: list[dict[str, Any]],
    secrets: dict[str, dict[str, str]],
    *,
    agents: dict[str, dict[str, str]],
    parallel: int,
    health_timeout_seconds: float,
    keep_data: bool,
    force: bool,
    deep: bool,
    check: bool,
) -> dict[str, Any]:
    """Brings the given stacks up or down, several at a time; each has a result of its own."""
    ensured = install_agents(base_dir, agents, check)
    containers = container_facts(engine)

    def one(stack: dict[str, Any]) -> dict[str, Any]:
        tenant = stack["tenant"]
        worker = Stack(
            engine, base_dir, stack, secrets.get(tenant, {}), containers.get(tenant, {}), check=check, deep=deep
        )
        try:
            if stack["state"] == "absent":
                return worker.absent(keep_data=keep_data, force=force)
            return worker.present()
        except (StackError, DockerError) as error:
            message, problem = str(error), error.problem
        except OSError as error:
            message, problem = str(error), Problem.NODE_REFUSED
        except Exception as error:  # a surprise with one tenant must not take its neighbours' results along
            message = f"unexpected {type(error).__name__} (a fault of Hummingfleet): {str(error)[:300]}"
            problem = Problem.INTERNAL
        return {
            "changed": bool(worker.changes),
            "changes": worker.changes,
            "diff": worker.diffs,
            "failed": True,
            "problem": str(problem),
            "message": message,
        }

    began = int(time.time())
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        results = {stack["tenant"]: result for stack, result in zip(stacks, pool.map(one, stacks))}  # noqa: B905  nodes run 3.9
    if not check:
        wanted = [stack for stack in stacks if stack["state"] == "present"]
        up = [stack for stack in wanted if not results[stack["tenant"]].get("failed")]
        try:
            _judge_health(engine, base_dir, up, results, health_timeout_seconds, began)
            _add_bots(engine, base_dir, wanted, results)
        except DockerError as error:  # what was done is told all the same
            for stack in up:
                if not results[stack["tenant"]].get("failed"):
                    results[stack["tenant"]].update(failed=True, problem=str(error.problem), message=str(error))
    return {"tenants": results, "installed_agents": ensured}


def _judge_health(
    engine: DockerEngine,
    base_dir: str,
    stacks: list[dict[str, Any]],
    results: dict[str, dict[str, Any]],
    timeout_seconds: float,
    began: int,
) -> None:
    """Waits until the stacks are healthy; those that are not have failed, and their bots' logs say why."""
    unhealthy = wait_healthy(engine, base_dir, stacks, timeout_seconds)
    containers = container_facts(engine) if unhealthy else {}
    for stack in stacks:
        troubles = unhealthy.get(stack["tenant"])
        if troubles:
            found = containers.get(stack["tenant"], {})
            final = all(trouble.final for trouble in troubles)
            words = "; ".join(_explained(engine, trouble, stack, found, began) for trouble in troubles)
            results[stack["tenant"]].update(
                failed=True,
                problem=str(gravest(trouble.problem for trouble in troubles)),
                message=words if final else f"not healthy after {timeout_seconds:.0f} s: {words}",
            )


def _add_bots(
    engine: DockerEngine, base_dir: str, stacks: list[dict[str, Any]], results: dict[str, dict[str, Any]]
) -> None:
    """What each bot does now, also in a stack that failed."""
    containers = container_facts(engine)
    now = time.time()
    for stack in stacks:
        tenant = stack["tenant"]
        results[tenant]["bots"] = {
            bot["id"]: bot_facts(
                tenants_dir(base_dir) / tenant / "bots" / bot["id"],
                containers.get(tenant, {}).get(bot["service"]),
                now,
            )
            for bot in stack["bots"]
        }


def _explained(
    engine: DockerEngine, trouble: Trouble, stack: dict[str, Any], containers: dict[str, dict[str, Any]], since: int
) -> str:
    """The trouble in words, with what the bot's own log says of it."""
    service = next((bot["service"] for bot in stack["bots"] if bot["id"] == trouble.bot), None)
    container = containers.get(service) if service else None
    if container is None or trouble.final:
        return trouble.text
    try:
        lines = engine.log(container["id"], lines=LOG_LINES, since=since)
    except DockerError:
        return trouble.text
    reason = bot_log.reason_in(lines, settling=trouble.problem is Problem.EXCHANGE_UNANSWERED)
    return f"{trouble.text} (its log: {reason})" if reason else trouble.text
