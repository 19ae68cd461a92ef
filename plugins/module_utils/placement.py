# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node a tenant runs on: the one with the most free memory that has the labels asked for."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Node


class PlacementError(HummingfleetError):
    """No node can take the tenant; the text says what each one lacks."""


def choose_node(
    memory_mib: int, labels: Mapping[str, str], nodes: Mapping[str, Node], reserved: Mapping[str, int]
) -> str:
    """The id of the node with the most free memory (ties: the lowest id) that has ``labels`` and ``memory_mib`` free.

    ``reserved`` is what tenants already hold on each node, in MiB. Raises PlacementError.
    """
    lacking = {node.id: _lacks(node, memory_mib, labels, reserved) for node in nodes.values()}
    fitting = [node for node in nodes.values() if not lacking[node.id]]
    if not fitting:
        reasons = "; ".join(f"{node} {lacks}" for node, lacks in sorted(lacking.items())) or "the fleet has no nodes"
        raise PlacementError(
            f"no node has room for this tenant, which needs {_needs(memory_mib, labels)}: {reasons}. "
            "Add a node or memory to the fleet file, or remove a tenant"
        )
    return min(fitting, key=lambda node: (reserved.get(node.id, 0) - node.memory_mib, node.id)).id


def check_node(
    node: str, memory_mib: int, labels: Mapping[str, str], nodes: Mapping[str, Node], reserved: Mapping[str, int]
) -> None:
    """Nothing, if the tenant fits on ``node``; raises PlacementError if not.

    ``reserved`` is what the *other* tenants hold on each node, in MiB.
    """
    if node not in nodes:
        raise PlacementError(f"there is no node {node!r} in the fleet file; there are: {', '.join(sorted(nodes))}")
    lacks = _lacks(nodes[node], memory_mib, labels, reserved)
    if lacks:
        raise PlacementError(
            f"node {node} has no room for this tenant, which needs {_needs(memory_mib, labels)}: it {lacks}. "
            "Give the node more memory in the fleet file, or remove a tenant"
        )


def _needs(memory_mib: int, labels: Mapping[str, str]) -> str:
    wanted = ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return f"{memory_mib} MiB" + (f" and the labels {wanted}" if wanted else "")


def _lacks(node: Node, memory_mib: int, labels: Mapping[str, str], reserved: Mapping[str, int]) -> str:
    """What the node lacks, in words; empty if nothing."""
    lacks = []
    for name, value in sorted(labels.items()):
        if node.labels.get(name) != value:
            has = f"{name}={node.labels[name]}" if name in node.labels else f"no label {name}"
            lacks.append(f"has {has} instead of {name}={value}")
    free = node.memory_mib - reserved.get(node.id, 0)
    if free < memory_mib:
        lacks.append(f"has {max(free, 0)} of {node.memory_mib} MiB free")
    return " and ".join(lacks)
