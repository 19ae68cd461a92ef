# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a play that works once per node."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_leads
short_description: One tenant per node, for plays that work once per node
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Returns one tenant host for every node that has a tenant in this run, so that a play on them works once per node
    even under C(--limit tenant-acme), and delegates to the node.
  - Fails when a limit leaves no tenant. Without any tenant in the fleet it returns the empty group C(tenants).
options: {}
"""

EXAMPLES = r"""
- name: Work once per node
  hosts: "{{ query('hummingfleet.core.node_leads') | join(',') }}"
  gather_facts: false
  tasks:
    - name: Ask which tenants are behind
      hummingfleet.core.tenant_stacks:
        state: surveyed
      delegate_to: "{{ hummingfleet_node }}"
"""

RETURN = r"""
_raw:
  description: Inventory host names.
  type: list
  elements: str
  sample: [tenant-acme]
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

# `control` is not used here: a play's hosts are found in Ansible's main process, and workers, which are forks of it,
# then need not import the database and validation libraries again for every task.
from ansible_collections.hummingfleet.core.plugins.module_utils import control, scope  # noqa: F401


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """One tenant per node."""
        known = variables or {}
        try:
            by_node = scope.tenants_by_node(known.get("groups", {}), known.get("ansible_limit"), self._loader)
        except scope.ScopeError as error:
            raise AnsibleError(str(error)) from None
        return scope.leads(by_node) or ["tenants"]
