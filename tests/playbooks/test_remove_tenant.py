"""Removal names its tenants: without a limit nothing is removed, and nothing is forgotten that was not removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import RegistryError

from tests.factories import document
from tests.installation import ROOT, Installation

PLAYBOOK = ROOT / "playbooks" / "remove_tenant.yml"
TENANT = "hfremove-acme"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(tmp_path, prefix="hfremove-", pool="10.199.32.0/20", uid_start=380_000)
    made.submit(document(tenant=TENANT, subdomain=TENANT, exchange_connections=[made.connection(TENANT)], bots=[]))
    return made


@pytest.mark.parametrize(
    "arguments",
    [(), ("--limit", "all"), ("--limit", "tenants"), ("--limit", "tenant-*"), ("--limit", "state_active")],
)
def test_a_run_that_names_no_tenant_removes_none(installation: Installation, arguments: tuple[str, ...]) -> None:
    run = installation.playbook(PLAYBOOK, *arguments)
    assert run.code != 0
    assert "Name each tenant to remove" in run.output
    assert installation.registry.get(TENANT).document["state"] == "active"


def test_a_tenant_that_is_not_there_is_no_success(installation: Installation) -> None:
    assert installation.playbook(PLAYBOOK, "--limit", "tenant-nobody").code != 0


def test_a_tenant_whose_removal_was_not_applied_is_not_forgotten(installation: Installation) -> None:
    with pytest.raises(RegistryError, match="cannot be forgotten"):
        installation.registry.forget(TENANT)
