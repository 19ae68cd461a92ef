# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenants that the surveys of all nodes found behind."""

from __future__ import annotations

DOCUMENTATION = r"""
name: behind_tenants
short_description: The tenants that are behind, from the surveys of all nodes
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Returns pairs of a node's lead and a tenant of that node that is behind.
options:
  _input:
    description: The hosts of the play that surveyed, one lead per node.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Group the tenants that are behind
  ansible.builtin.add_host:
    name: "tenant-{{ item.1 }}"
    groups: behind
    hummingfleet_lead: "{{ item.0 }}"
  loop: "{{ ansible_play_hosts | hummingfleet.core.behind_tenants(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Pairs of lead and tenant id.
  type: list
  elements: list
  sample: [[tenant-acme, acme]]
"""

from collections.abc import Iterable, Mapping
from typing import Any


def behind_tenants(leads: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of lead and tenant id."""
    return [
        (lead, tenant) for lead in leads for tenant in hostvars[lead].get("__tenant_stack_survey", {}).get("behind", [])
    ]


class FilterModule:
    """See DOCUMENTATION."""

    def filters(self) -> dict[str, Any]:
        """The filter by name."""
        return {"behind_tenants": behind_tenants}
