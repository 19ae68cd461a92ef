# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tenants a run is about, and which of them speaks for its node.

Plays run on tenants, so that ``--limit`` takes tenants. Work that a node does once is done by one of its tenants, the
lead, which delegates it to the node; so a limit to tenants needs no node in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError


class ScopeError(HummingfleetError):
    """A run that would do nothing although somebody asked for something."""


def hosts_in_limit(groups: Mapping[str, Sequence[str]], limit: str | None, loader: Any) -> set[str] | None:
    """The hosts that ``--limit`` leaves, by Ansible's own pattern rules; None when there is no limit."""
    if not limit:
        return None
    from ansible.inventory.manager import InventoryManager

    manager = InventoryManager(loader, parse=False)
    for group, hosts in groups.items():
        manager.add_group(group)
        for host in hosts:
            manager.add_host(host, group=group)
    manager.subset(limit)
    return {host.name for host in manager.get_hosts("all")}


def tenants_by_node(groups: Mapping[str, Sequence[str]], limit: str | None, loader: Any) -> dict[str, list[str]]:
    """Node id → the tenant hosts on it that the limit leaves, sorted; nodes without any are left out.

    Raises ScopeError when there are tenants, but none in the limit: an empty run must not look like success.
    """
    chosen = hosts_in_limit(groups, limit, loader)
    found = {}
    for node in groups.get("nodes", ()):
        tenants = sorted(h for h in groups.get(f"node_{node}", ()) if chosen is None or h in chosen)
        if tenants:
            found[node] = tenants
    homeless = sorted(
        set(groups.get("tenants", ())) - {h for node in groups.get("nodes", ()) for h in groups.get(f"node_{node}", ())}
    )
    if chosen is not None and chosen.intersection(homeless):
        raise ScopeError(
            f"{', '.join(sorted(chosen.intersection(homeless)))}: placed on a node that the fleet file does not have; "
            "put the node back into it"
        )
    if not found and limit:
        raise ScopeError(
            f"no tenant is in the limit {limit!r}; name tenants (tenant-acme), or a group such as node_<node>, "
            "plan_<plan> or ring_<ring>; `ansible-inventory --graph` lists them"
        )
    return found


def leads(by_node: Mapping[str, Sequence[str]]) -> list[str]:
    """One tenant host per node."""
    return sorted(hosts[0] for hosts in by_node.values())


def tenant_id(host: str) -> str:
    """The tenant behind an inventory host name."""
    return host.removeprefix("tenant-")
