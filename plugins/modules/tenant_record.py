#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's record in the registry (an action plugin; nothing runs on a target)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_record
short_description: A tenant's record in the registry
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Asks for a tenant's removal in the registry, and forgets the tenant once its removal was applied.
  - Runs on the control node, on the tenant host of the play; needs no connection.
options:
  state:
    description:
      - V(terminated) stores a revision that asks for the removal of the tenant's stack; a converge then removes it.
      - V(forgotten) deletes the tenant with its history, which is refused before the removal was applied.
    type: str
    choices: [terminated, forgotten]
    required: true
  actor:
    description: Who asks, for the tenant's history.
    type: str
    default: ansible-playbook
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Reports whether something would be written, and writes nothing.
  diff_mode:
    support: none
    description: A record is no file.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Ask for the tenant's removal
  hummingfleet.core.tenant_record:
    state: terminated

- name: Forget the tenant
  hummingfleet.core.tenant_record:
    state: forgotten
"""

RETURN = r"""
revision:
  description: The tenant's latest revision.
  returned: when O(state=terminated)
  type: int
  sample: 7
"""
