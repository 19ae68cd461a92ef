#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tenant judges what the batch on its node did for it (an action plugin; nothing runs on a target)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_outcome
short_description: A tenant's own result of a converge
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Reads what M(hummingfleet.core.tenant_stacks) did for this tenant on its node, records it in the registry as the
    applied revision, releases the tenant's lease, and fails when the stack is not as desired.
  - So C(serial), C(rescue) and failure counts of a play on tenants mean something.
options:
  lead:
    description: The tenant host that spoke for the node; the variable C(hummingfleet_lead) by default.
    type: str
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Reports the prediction and records nothing.
  diff_mode:
    support: full
    description: Shows the tenant's files; secret files by name only.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Judge the stack
  hummingfleet.core.tenant_outcome:
"""

RETURN = r"""
changes:
  description: What was changed (or would be), in words.
  returned: always
  type: list
  elements: str
  sample: [start container acme-redis]
reasons:
  description: Why the tenant was behind.
  returned: always
  type: list
  elements: str
  sample: [container acme-redis is missing]
bots:
  description: The state of each bot after a real run.
  returned: when the tenant has bots
  type: dict
  sample: {b1: running}
problem:
  description:
    - What kind of trouble it is, as a stable code. C(busy), C(unreachable), C(node_refused), C(engine_refused),
      C(exchange_unanswered), C(credentials_refused), C(document_refused), C(timeout), C(cancelled) or C(internal).
  returned: on failure
  type: str
  sample: node_refused
lead:
  description: The host that spoke for the node, and whose failure is the reason that there is no result.
  returned: when the batch did not run
  type: str
  sample: tenant-acme
"""
