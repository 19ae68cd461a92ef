# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of an installation and its nodes: each says ok, warn or fail, and what to do."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

from .installation import Installation
from .runs import RunResult

CHECK_NODES = "check_nodes"
COMMAND = "ansible.builtin.command"
MIN_DOCKER = (20, 10)
MIN_COMPOSE = (2, 20)
CLOCK_WARN_SECONDS = 2.0  # exchanges refuse requests that are a few seconds off
CLOCK_FAIL_SECONDS = 5.0
DISK_WARN_MIB = 5 * 1024
_LONG_SECONDS = 900.0
PREPARE = "run: ansible-playbook playbooks/prepare_nodes.yml --limit {node}"


class Level(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report; ``action`` says what to do where something is wrong."""

    subject: str
    level: Level
    finding: str
    action: str = ""


def examine(here: Installation, run: Callable[..., RunResult], *, nodes: bool = True) -> Iterator[Check]:
    """All checks, one after another; what depends on a failed one is left out. ``run`` starts playbooks."""
    try:
        fleet = here.fleet
    except HummingfleetError as error:
        yield Check("fleet file", Level.FAIL, str(error), "mend the file; inventories/local is one that works")
        return
    yield Check("fleet file", Level.OK, f"{fleet.path}: {len(fleet.nodes)} node(s)")
    yield from _one(
        "catalogue",
        lambda: (
            f"{len(here.catalogue.releases)} release(s), {len(here.catalogue.plans)} plan(s), "
            f"{len(here.catalogue.exchanges)} exchange(s) with rules, "
            f"{len(here.catalogue.scripts)} strategy(s) of your own"
        ),
        "correct the file, or restore it",
    )
    yield from _plans(here)
    yield from _one("key ring", lambda: _keyring(here), "make one with: hummingfleet keyring init")
    yield from _registry(here)
    yield from _webhook(here)
    yield from _signals(here)
    if nodes:
        yield from _nodes(here, run)


def _one(subject: str, look: Callable[[], str], action: str) -> Iterator[Check]:
    try:
        yield Check(subject, Level.OK, look())
    except HummingfleetError as error:
        yield Check(subject, Level.FAIL, str(error), action)


def _plans(here: Installation) -> Iterator[Check]:
    """Strategies that plans name and nobody has: mistyped, or withdrawn."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

    try:
        plans, scripts = here.catalogue.plans, here.catalogue.scripts
    except HummingfleetError:
        return  # the check of the catalogue says so
    for plan in plans.values():
        unknown = sorted({*plan.strategies} - {"*", *TEMPLATES, *scripts})
        if unknown:
            yield Check(f"plan {plan.name}", Level.WARN, f"it names strategies that do not exist: {', '.join(unknown)}",
                        f"correct the plan; there are: {', '.join([*TEMPLATES, *scripts])}")  # fmt: skip


def _keyring(here: Installation) -> str:
    ring = here.keyring
    # Loading it refuses a file that others may read, so its mode needs no second look.
    return f"keys {', '.join(ring.ids)}; readable by its owner only"


def _registry(here: Installation) -> Iterator[Check]:
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import registry_exists

    if not registry_exists(here.fleet.registry):
        yield Check("registry", Level.WARN, "there is none yet", "store a tenant: hummingfleet tenant apply -f FILE")
        return
    try:
        tenants = here.registry.list()
        behind = here.registry.behind()
        leases = here.registry.leases()
        reserved = here.registry.reserved_memory()
    except HummingfleetError as error:
        yield Check("registry", Level.FAIL, str(error), "mend the registry or restore it from a backup")
        return
    yield Check("registry", Level.OK, f"{len(tenants)} tenant(s)")
    strays = sorted({row.node for row in tenants} - set(here.fleet.nodes))
    if strays:
        yield Check("placement", Level.FAIL, f"tenants are on nodes that the fleet file lacks: {', '.join(strays)}",
                    "put these nodes back into the fleet file")  # fmt: skip
    for node in here.fleet.nodes.values():
        used = reserved.get(node.id, 0)
        if used > node.memory_mib:
            yield Check(f"memory of {node.id}", Level.WARN, f"{used} of {node.memory_mib} MiB are reserved",
                        "give the node more memory_mib, or move tenants away")  # fmt: skip
    if behind:
        names = ", ".join(row.tenant for row in behind[:5]) + (" ..." if len(behind) > 5 else "")
        yield Check("behind", Level.WARN, f"{len(behind)} tenant(s) are not at their latest revision: {names}",
                    "run: hummingfleet converge")  # fmt: skip
    else:
        yield Check("behind", Level.OK, "every tenant's latest revision is applied")
    now = time.time()
    for lease in leases.values():
        old = now - lease.acquired_at > 3600
        yield Check("lease", Level.WARN if old else Level.OK, lease.describe(),
                    "it is more than an hour old: see whether that process still works" if old else "")  # fmt: skip


def _webhook(here: Installation) -> Iterator[Check]:
    """What the portal depends on; a fleet without secrets has no portal yet, and nothing is wrong with that."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import registry_exists

    from .journal import Journal
    from .secrets_file import SecretsFile

    settings = here.fleet.webhook
    if not settings.secrets_path.exists():
        yield Check("webhook", Level.OK, "not set up: there are no signing secrets; 'hummingfleet up' makes them")
        return
    yield from _one(
        "webhook secrets",
        lambda: f"the portal signs with {SecretsFile(settings.secrets_path).current('inbound').id}",
        "make the file its owner's only (chmod 600), or restore it from a backup",
    )
    if not registry_exists(here.fleet.registry):
        return
    try:
        stats = Journal(here.registry, here.fleet, here.catalogue).stats()
    except HummingfleetError as error:
        yield Check("events", Level.FAIL, str(error), "mend the registry or restore it from a backup")
        return
    if not stats.workers:
        waiting = stats.events["accepted"] or stats.behind
        yield Check("worker", Level.WARN if waiting else Level.OK, "none runs on this registry",
                    "start one: hummingfleet worker" if waiting else "")  # fmt: skip
    else:
        yield Check("worker", Level.OK, f"{stats.workers} run(s)")
    if stats.failed:
        yield Check("events", Level.WARN, f"{stats.failed} tenant(s) have failed and wait for somebody",
                    "see why: hummingfleet event list --state failed; then event retry or discard")  # fmt: skip
    elif stats.oldest_waiting_seconds > _LONG_SECONDS:
        yield Check("events", Level.WARN, f"the oldest waits for {stats.oldest_waiting_seconds / 60:.0f} minutes",
                    "see why: hummingfleet event list --state accepted")  # fmt: skip
    else:
        yield Check("events", Level.OK, f"{stats.events['accepted']} waiting, none failed that still matters")
    if stats.callbacks_pending and settings.portal_url is not None:
        yield Check("call-backs", Level.OK, f"{stats.callbacks_pending} to be delivered")
    if settings.portal_url is None:
        yield Check("call-backs", Level.OK, "the portal is told nothing: the fleet file has no webhook.portal_url")


def _signals(here: Installation) -> Iterator[Check]:
    """Whether signals reach the nodes that have bots for them; a fleet without such bots needs no broker."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.broker import broker_access
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import registry_exists

    from .signal_bus import NoBrokerError, SignalBus
    from .signal_log import SignalLog

    if not registry_exists(here.fleet.registry):
        return
    try:
        bots = SignalLog(here.registry).nodes()
    except HummingfleetError:
        return  # said above
    bus = SignalBus(lambda node: broker_access(here.fleet, node))
    try:
        for node, number in sorted(bots.items()):
            subject, trouble = f"broker of {node}", f"{number} bot(s) there get no signals"
            try:
                bus.check(node)
            except NoBrokerError as error:
                yield Check(subject, Level.FAIL, f"{trouble}: {error}", "a converge sets up what is missing")
            except HummingfleetError as error:
                yield Check(subject, Level.FAIL, f"{trouble}: {error}",
                            "see that its container runs there and that its port is open for this machine")  # fmt: skip
            else:
                yield Check(subject, Level.OK, f"takes signals for {number} bot(s)")
    finally:
        bus.close()


def _nodes(here: Installation, run: Callable[..., RunResult]) -> Iterator[Check]:
    try:
        result = run(CHECK_NODES, limit="nodes", keep=(COMMAND,))
    except HummingfleetError as error:
        yield Check("nodes", Level.FAIL, str(error), "run it by hand: ansible-playbook playbooks/check_nodes.yml")
        return
    answers: dict[str, dict[str, Mapping[str, Any]]] = {}
    for one in result.answers(COMMAND):
        answers.setdefault(one.host, {})[one.task] = {**one.answer, "at": one.at}
    failures = {failure.host: failure for failure in result.failures}
    for node in here.fleet.nodes:
        if node in failures:
            yield Check(f"node {node}", Level.FAIL, failures[node].message,
                        "see that it runs and that SSH with the fleet file's user and key works")  # fmt: skip
        elif node not in answers:
            yield Check(f"node {node}", Level.FAIL, result.problem() or "it was not asked", "run: ansible " + node)
        else:
            yield Check(f"node {node}", Level.OK, "answers")
            yield from judge_node(node, answers[node], _wanted_images(here, node))


def judge_node(node: str, answers: Mapping[str, Mapping[str, Any]], images: set[frozenset[str]]) -> Iterator[Check]:
    """What a node's answers mean; ``images`` are references, of each set one has to be there."""
    prepare = PREPARE.format(node=node)
    docker = _text(answers.get("Read the version of the Docker engine"))
    if docker is None:
        yield Check(f"docker on {node}", Level.FAIL, "the Docker engine does not answer", prepare)
    elif _version(docker) < MIN_DOCKER:
        yield Check(f"docker on {node}", Level.FAIL, f"Docker {docker} is too old",
                    f"install {_dotted(MIN_DOCKER)} or later")  # fmt: skip
    else:
        yield Check(f"docker on {node}", Level.OK, f"Docker {docker}")
    compose = _text(answers.get("Read the version of docker compose"))
    if compose is None:
        yield Check(f"compose on {node}", Level.FAIL, "docker compose is missing", prepare)
    elif _version(compose) < MIN_COMPOSE:
        yield Check(f"compose on {node}", Level.FAIL, f"docker compose {compose} is too old",
                    f"install {_dotted(MIN_COMPOSE)} or later")  # fmt: skip
    else:
        yield Check(f"compose on {node}", Level.OK, f"docker compose {compose}")
    yield from _clock(node, answers.get("Read the clock"))
    free = _text(answers.get("Read the free disk space"))
    if free is not None and free.split()[-1].isdigit():
        mib = int(free.split()[-1])
        low = mib < DISK_WARN_MIB
        yield Check(f"disk of {node}", Level.WARN if low else Level.OK, f"{mib // 1024} GiB free",
                    "make room; an engine image takes 1 GiB" if low else "")  # fmt: skip
    present = set((_text(answers.get("List the images")) or "").split())
    missing = sorted(" or ".join(sorted(either)) for either in images if not either & present)
    if missing:
        yield Check(f"images on {node}", Level.WARN, f"missing: {', '.join(missing)}",
                    "the next converge brings them; building them takes minutes")  # fmt: skip
    elif images:
        yield Check(f"images on {node}", Level.OK, f"the images of its tenants are there ({len(images)})")


def _clock(node: str, answer: Mapping[str, Any] | None) -> Iterator[Check]:
    text = _text(answer)
    if answer is None or text is None or not isinstance(answer.get("at"), int | float):
        return
    try:
        skew = float(text) - float(answer["at"])
    except ValueError:
        return
    # The answer is a moment old when it arrives, so a node seems a little slow: the limits leave room for that.
    level = Level.OK
    if abs(skew) > CLOCK_WARN_SECONDS:
        level = Level.FAIL if abs(skew) > CLOCK_FAIL_SECONDS else Level.WARN
    action = "" if level is Level.OK else "run a time service there (chrony): exchanges refuse requests that are off"
    yield Check(f"clock of {node}", level, f"{skew:+.1f} s from this machine's", action)


def _text(answer: Mapping[str, Any] | None) -> str | None:
    """What the command wrote, or None if it failed."""
    if not answer or answer.get("rc") != 0:
        return None
    return str(answer.get("stdout", "")).strip() or None


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.lstrip("v").split(".")[:2]:
        digits = "".join(c for c in part if c.isdigit())
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _wanted_images(here: Installation, node: str) -> set[frozenset[str]]:
    """Per service and release of the node's tenants: the references of which one has to be there."""
    found: set[frozenset[str]] = set()
    try:
        releases = {row.release for row in here.registry.list() if row.node == node and row.state != "terminated"}
        for name in releases & set(here.catalogue.releases):
            services = here.catalogue.releases[name].services
            for service in ("engine", "postgres", "redis"):
                if service in services:
                    found.add(frozenset({services[service].image, services[service].local} - {""}))
    except HummingfleetError:
        return set()
    return found
