"""The control node's half of a converge, as far as it needs neither Ansible nor a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import control, render
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import CredentialError
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRingError
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import KeystoreError
from ansible_collections.hummingfleet.core.plugins.module_utils.node import observe
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem, gravest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import TenantRecord
from ansible_collections.hummingfleet.core.plugins.module_utils.render import RenderError


def record(tenant: str = "acme", state: str = "active") -> TenantRecord:
    return TenantRecord(
        tenant=tenant, revision=4, applied_revision=4, document={"tenant": tenant, "state": state}, outcome=None,
        updated_at="2026-11-23T05:00:00.000Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (CredentialError("x"), Problem.CREDENTIALS_REFUSED),
        (KeyRingError("x"), Problem.CREDENTIALS_REFUSED),
        (KeystoreError("x"), Problem.CREDENTIALS_REFUSED),
        (DocumentError([Fault("/plan", "is wrong", "free")]), Problem.DOCUMENT_REFUSED),
        (RenderError("x"), Problem.INTERNAL),
        (HummingfleetError("x"), Problem.INTERNAL),
    ],
)
def test_a_stack_that_cannot_be_rendered_has_a_code(
    monkeypatch: pytest.MonkeyPatch, error: HummingfleetError, problem: Problem
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(render, "render_stack", refuse)
    _stacks, _secrets, failures = control.render_all(None, {"acme": record()}, {"acme": 1})  # type: ignore[arg-type]
    assert (failures["acme"].problem, failures["acme"].text) == (problem, str(error))


def test_a_surprise_while_rendering_is_one_tenants_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def render_one(document: dict[str, Any], *_arguments: Any, **_options: Any) -> Any:
        if document["tenant"] == "acme":
            raise KeyError("sk-very-secret")
        return {"tenant": document["tenant"]}, {}

    monkeypatch.setattr(render, "render_stack", render_one)
    records = {tenant: record(tenant) for tenant in ("acme", "bell")}
    stacks, _secrets, failures = control.render_all(None, records, {"acme": 1, "bell": 2})  # type: ignore[arg-type]
    assert stacks == [{"tenant": "bell"}]
    assert failures["acme"].problem is Problem.INTERNAL
    assert "sk-very-secret" not in failures["acme"].text


def test_what_is_recorded_is_small_and_has_what_a_node_says_of_bots(tmp_path: Path) -> None:
    facts = observe.bot_facts(tmp_path, None, 0.0)
    one = {"changed": True, "changes": ["x"] * 80, "bots": {"b1": facts}, "diff": [{"before": "y"}]}
    outcome = control.outcome(one)
    assert json.loads(json.dumps(outcome)) == outcome
    assert outcome["bots"]["b1"] == {name: facts[name] for name in control.RECORDED_FACTS}
    assert (outcome["problem"], outcome["message"], len(outcome["changes"])) == (None, None, 50)
    assert "diff" not in outcome


def test_a_failure_is_recorded_with_its_code() -> None:
    outcome = control.outcome(control.failed("no room", Problem.NODE_REFUSED))
    assert (outcome["problem"], outcome["message"], outcome["bots"]) == ("node_refused", "no room", {})
    assert type(outcome["problem"]) is str
    assert control.outcome({"failed": True, "changes": []})["problem"] == "internal"


def test_a_removal_that_is_only_predicted_is_seen_as_stored() -> None:
    records = {"acme": record(), "bell": record("bell"), "gone": record("gone", "terminated")}
    found = control.removed_in_prediction(records, ["acme", "gone"])
    assert [(one.document["state"], one.revision) for one in found.values()] == [
        ("terminated", 5),
        ("active", 4),
        ("terminated", 4),
    ]
    assert records["acme"].document["state"] == "active"


def test_the_gravest_problem_is_the_first_of_the_list() -> None:
    assert gravest([Problem.BUSY, Problem.ENGINE_REFUSED, Problem.UNREACHABLE]) is Problem.ENGINE_REFUSED
    assert gravest([]) is Problem.INTERNAL
    assert Problem.read("busy") is Problem.BUSY
