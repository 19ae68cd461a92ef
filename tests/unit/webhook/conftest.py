"""A small installation in a temporary folder, and a runner that answers without starting Ansible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from click.testing import CliRunner, Result

from tests import factories
from webhook.cli import cli
from webhook.cli.base import State
from webhook.operations import OUTCOME, STACKS
from webhook.runs import RunResult, TaskFailure, TaskResult


class FakeRunner:
    """Stands for ``run_playbook``: remembers what was asked, answers like a node that did everything right.

    ``failures`` are tenants that fail, with their message, all with the code ``problem``; ``bots`` is what the node
    says of bots; ``overtaken``: another run applies what this one was to apply.
    """

    def __init__(self, registry_url: str) -> None:
        self.registry_url = registry_url
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failures: dict[str, str] = {}
        self.problem = "node_refused"
        self.bots: dict[str, dict[str, Any]] = {}
        self.node_problem: str | None = None
        self.overtaken = False

    def __call__(self, playbook: str, **arguments: Any) -> RunResult:
        self.calls.append((playbook, arguments))
        if playbook in ("prepare_nodes", "prepare_sandbox", "remove_sandbox", "remove_broker", "check_nodes"):
            return self._result(playbook, [])
        registry = Registry(self.registry_url)
        tenants = arguments.get("only")
        tenants = [row.tenant for row in registry.list()] if tenants is None else list(tenants)
        if playbook == "show_tenants":
            return self._result(playbook, [self._survey(tenants)])
        if playbook == "remove_tenant":
            registry_change(registry, tenants[0])
        results = [self._survey(tenants)]
        failures = []
        for tenant in tenants:
            message = self.failures.get(tenant)
            answer = {"changed": message is None, "changes": ["start container x"], "reasons": ["new"], "bots": {}}
            if self.overtaken:
                answer |= {"changed": False, "changes": [], "reasons": ["revision 2 is not applied yet (applied: 1)"]}
            if message is not None:
                answer |= {"failed": True, "msg": message, "problem": self.problem}
                failures.append(TaskFailure(f"tenant-{tenant}", "Judge", message))
            else:
                self._apply(registry, tenant)
                if playbook == "remove_tenant":
                    registry.forget(tenant)
            results.append(TaskResult(f"tenant-{tenant}", OUTCOME, "Judge", answer))
        return self._result(playbook, results, failures)

    def _survey(self, tenants: list[str]) -> TaskResult:
        answers = {tenant: {"reasons": [], "bots": self.bots} for tenant in tenants}
        answer = {"behind": tenants, "asked": len(tenants), "node_problem": self.node_problem, "tenants": answers}
        return TaskResult(f"tenant-{tenants[0]}", STACKS, "Ask", answer)

    def _apply(self, registry: Registry, tenant: str) -> None:
        lease = registry.acquire_leases([tenant], holder="test:1:x", ttl_seconds=60)[tenant]
        assert lease is not None
        revision = registry.get(tenant).revision
        registry.record_outcome(tenant, revision=revision, fence=lease.fence, applied=True, outcome={})
        registry.release_leases({tenant: lease.fence})

    def _result(self, playbook: str, results: list[TaskResult], failures: list[TaskFailure] | None = None) -> RunResult:
        return RunResult(
            playbook=playbook,
            rc=2 if failures else 0,
            seconds=0.1,
            changed={result.host: 1 for result in results if result.answer.get("changed")},
            failures=tuple(failures or ()),
            results=tuple(results),
        )


def registry_change(registry: Registry, tenant: str) -> None:
    """Sets a tenant's state to terminated without judging its document, as the removal playbook's first play does."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

    fleet = load_fleet()
    registry.change(
        tenant,
        lambda document: {**document, "state": "terminated"},
        cause=Cause("remove"),
        fleet=fleet,
        catalogue=factories.catalogue(),
    )


@pytest.fixture
def fleet_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet file with everything it names in the temporary folder; the environment names it."""
    path = tmp_path / "fleet.tenants.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "plugin": "hummingfleet.core.tenants",
                "registry": str(tmp_path / "registry.db"),
                "keyring": {"file": str(tmp_path / "keyring.yml")},
                "catalogue": str(factories.ROOT / "catalogue"),
                "base_dir": str(tmp_path / "node"),
                "nodes": {"local": {"ansible_connection": "local", "memory_mib": 12288, "labels": {}}},
            }
        )
    )
    generate_keyring(tmp_path / "keyring.yml")
    monkeypatch.setenv("HUMMINGFLEET_FLEET", str(path))
    return path


@pytest.fixture
def registry(fleet_path: Path) -> Registry:
    """The registry of that installation."""
    return Registry(f"sqlite:///{fleet_path.parent / 'registry.db'}")


@pytest.fixture
def runner(registry: Registry, fleet_path: Path) -> FakeRunner:
    """The runner that commands use."""
    return FakeRunner(f"sqlite:///{fleet_path.parent / 'registry.db'}")


@pytest.fixture
def call(fleet_path: Path, runner: FakeRunner) -> Callable[..., Result]:
    """Calls ``hummingfleet`` with the given words."""

    def invoke(*words: str, stdin: str | None = None) -> Result:
        state = State(fleet_path)
        state.replace_runner(runner)
        return CliRunner().invoke(cli, list(words), input=stdin, obj=state, prog_name="hummingfleet")

    return invoke


@pytest.fixture
def stored(call: Callable[..., Result]) -> dict[str, Any]:
    """Tenant ``acme`` with a grid bot, stored and not yet applied."""
    document = factories.grid_document()
    result = call("tenant", "apply", "-f", "-", stdin=json.dumps(document))
    assert result.exit_code == 0, result.output
    return document
