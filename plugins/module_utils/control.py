# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins do on the control node: which documents a node needs, and leases kept alive meanwhile."""

from __future__ import annotations

import base64
import dataclasses
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils import render
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import CredentialError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import FaultsError, HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.image_source import load_found_mode
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRingError, load_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import KeystoreError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, Trouble
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, TenantRecord

LEASE_TTL_SECONDS = 120.0
LEASE_RENEW_SECONDS = 30.0
# What the registry remembers of each bot after a run; ``node.observe.bot_facts`` makes them.
RECORDED_FACTS = (
    "state",
    "open_orders",
    "fills",
    "position",
    "halted",
    "engine_version",
    "agent_version",
    "verified",
    "heartbeat_age_seconds",
)


class ControlError(HummingfleetError):
    """A converge cannot go on for a reason of the control node."""


def make_renderer(fleet_path: str | None) -> render.Renderer:
    """The renderer for the installation that the fleet file at ``fleet_path`` (default: the usual one) describes."""
    fleet = load_fleet(fleet_path)
    return render.Renderer(
        fleet=fleet,
        catalogue=load_catalogue(fleet.catalogue),
        keyring=load_keyring(fleet.keyring, root=fleet.root),
        images=render.image_mode(fleet, load_found_mode(fleet)),
    )


def survey_request(renderer: render.Renderer, records: Mapping[str, TenantRecord]) -> dict[str, Any]:
    """What a node is asked: the digest per tenant, and the images and agents that they need.

    A document that cannot be read any more has the digest "unreadable", so its tenant counts as behind and fails there.
    """
    digests: dict[str, str] = {}
    images: set[str] = set()
    agents: set[str] = set()
    for tenant, record in records.items():
        if record.document["state"] == "terminated":
            digests[tenant] = "absent"
            continue
        try:
            digests[tenant] = render.desired_digest(record.document, renderer)
            images |= render.images_of(record.document, renderer)
            agents.add(render.agent_name(renderer.release(record.document["release"])))
        except HummingfleetError:
            digests[tenant] = "unreadable"
    return {"digests": digests, "images": sorted(images), "agents": {version: {} for version in sorted(agents)}}


def judge_survey(
    records: Mapping[str, TenantRecord], answers: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The node's answers, with what only the registry knows: revisions that are not recorded as applied."""
    judged = {}
    for tenant, record in records.items():
        answer = dict(answers[tenant])
        reasons = list(answer["reasons"])
        terminated = record.document["state"] == "terminated"
        if terminated:
            gone = reasons == ["not deployed here yet"]
            reasons = [] if gone else ["the tenant is terminated and its stack is still here"]
        if record.applied_revision != record.revision:
            reasons.append(f"revision {record.revision} is not applied yet (applied: {record.applied_revision})")
        judged[tenant] = {**answer, "reasons": reasons, "behind": bool(reasons)}
    return judged


def agent_payload(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The agent's files, base64, under each of those names (``render.agent_name``)."""
    return {
        name: {path: base64.b64encode(data).decode() for path, data in render.agent_files().items()} for name in names
    }


@contextmanager
def kept_leases(registry: Registry, fences: Mapping[str, int]) -> Iterator[set[str]]:
    """Renews the leases while the body works; the set names those that were lost on the way."""
    lost: set[str] = set()
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE_RENEW_SECONDS):
            try:
                answers = registry.renew_leases(fences, ttl_seconds=LEASE_TTL_SECONDS)
            except HummingfleetError:
                continue
            lost.update(tenant for tenant, lease in answers.items() if lease is None)

    thread = threading.Thread(target=renew, name="lease-renewal", daemon=True)
    if fences:
        thread.start()
    try:
        yield lost
    finally:
        ended.set()
        if fences:
            thread.join()


def render_all(
    renderer: render.Renderer, records: Mapping[str, TenantRecord], fences: Mapping[str, int]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]], dict[str, Trouble]]:
    """Stacks, their secrets by tenant, and by tenant why it could not be rendered."""
    stacks: list[dict[str, Any]] = []
    secrets: dict[str, dict[str, str]] = {}
    failures: dict[str, Trouble] = {}
    for tenant, record in records.items():
        try:
            if record.document["state"] == "terminated":
                stacks.append(render.removed_stack(record.document, renderer, fence=fences[tenant]))
                continue
            stack, secret = render.render_stack(
                record.document, renderer, revision=record.revision, fence=fences[tenant]
            )
        except HummingfleetError as error:
            failures[tenant] = Trouble(str(error), problem_of(error))
            continue
        except Exception as error:  # its text could hold a secret; and neighbours must not suffer
            words = f"unexpected {type(error).__name__} while rendering the stack (a fault of Hummingfleet)"
            failures[tenant] = Trouble(words, Problem.INTERNAL)
            continue
        stacks.append(stack)
        secrets[tenant] = secret
    return stacks, secrets, failures


def problem_of(error: HummingfleetError) -> Problem:
    """What kind of trouble an error of rendering a tenant's stack is."""
    if isinstance(error, CredentialError | KeyRingError | KeystoreError):
        return Problem.CREDENTIALS_REFUSED
    return Problem.DOCUMENT_REFUSED if isinstance(error, FaultsError) else Problem.INTERNAL


def failed(message: str, problem: Problem, *, changed: bool = False) -> dict[str, Any]:
    """A tenant's result that says only why it failed."""
    return {
        "failed": True,
        "problem": str(problem),
        "changed": changed,
        "changes": [],
        "diff": [],
        "message": message,
    }


def outcome(one: Mapping[str, Any]) -> dict[str, Any]:
    """What the registry keeps of a tenant's result: ``message`` and ``problem`` are None where all went well."""
    bots = one.get("bots") or {}
    return {
        "bots": {bot: {name: facts.get(name) for name in RECORDED_FACTS} for bot, facts in bots.items()},
        "message": one.get("message"),
        "problem": str(Problem.read(one.get("problem"))) if one.get("failed") else None,
        "changes": list(one["changes"])[:50],
    }


def removed_in_prediction(records: Mapping[str, TenantRecord], predicted: Iterable[str]) -> dict[str, TenantRecord]:
    """The records as a real run would find them, where check mode only predicted that tenants leave."""
    leaving = set(predicted)
    return {
        tenant: dataclasses.replace(
            record, revision=record.revision + 1, document={**record.document, "state": "terminated"}
        )
        if tenant in leaving and record.document["state"] != "terminated"
        else record
        for tenant, record in records.items()
    }


def behind_of(survey: Mapping[str, Any], tenants: Sequence[str]) -> list[str]:
    """The tenants that are behind, in the order given."""
    answers = survey["tenants"]
    return [tenant for tenant in tenants if answers[tenant]["behind"]]
