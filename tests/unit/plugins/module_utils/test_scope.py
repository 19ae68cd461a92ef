"""Which tenants a run is about."""

from __future__ import annotations

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.hummingfleet.core.plugins.module_utils import scope

GROUPS = {
    "all": ["edge_1", "edge_2", "tenant-acme", "tenant-bell", "tenant-corp"],
    "nodes": ["edge_1", "edge_2"],
    "tenants": ["tenant-acme", "tenant-bell", "tenant-corp"],
    "node_edge_1": ["tenant-bell", "tenant-acme"],
    "node_edge_2": ["tenant-corp"],
    "ring_canary": ["tenant-bell"],
}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, {"edge_1": ["tenant-acme", "tenant-bell"], "edge_2": ["tenant-corp"]}),
        ("tenant-bell", {"edge_1": ["tenant-bell"]}),
        ("tenant-bell,edge_1", {"edge_1": ["tenant-bell"]}),
        ("ring_canary", {"edge_1": ["tenant-bell"]}),
        ("node_edge_1:!tenant-acme", {"edge_1": ["tenant-bell"]}),
        ("tenant-*", {"edge_1": ["tenant-acme", "tenant-bell"], "edge_2": ["tenant-corp"]}),
    ],
)
def test_limit_takes_tenants_and_groups_and_needs_no_node(limit: str | None, expected: dict[str, list[str]]) -> None:
    assert scope.tenants_by_node(GROUPS, limit, DataLoader()) == expected


@pytest.mark.parametrize("limit", ["edge_1", "nodes", "tenant-nobody"])
def test_limit_without_a_tenant_is_an_error_not_an_empty_success(limit: str) -> None:
    with pytest.raises(scope.ScopeError, match=f"no tenant is in the limit '{limit}'"):
        scope.tenants_by_node(GROUPS, limit, DataLoader())


def test_a_fleet_without_tenants_is_no_error() -> None:
    assert scope.tenants_by_node({"all": ["edge_1"], "nodes": ["edge_1"]}, None, DataLoader()) == {}


def test_one_tenant_speaks_for_each_node() -> None:
    assert scope.leads({"edge_1": ["tenant-acme", "tenant-bell"], "edge_2": ["tenant-corp"]}) == [
        "tenant-acme",
        "tenant-corp",
    ]
