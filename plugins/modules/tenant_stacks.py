#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All stacks of one node in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tenant_stacks
short_description: Tenant stacks of one node
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Answers which of a node's tenants are behind their desired state, and brings those there, several at a time.
  - Runs through the action plugin of the same name, which reads the registry, renders the desired state on the control
    node and sends it here. Only O(state), O(deep), O(keep_data), O(force), O(health_timeout_seconds) and O(parallel)
    are for playbooks; the other options are filled in by the action plugin.
  - Bots that must stop are stopped before anything of theirs changes, their orders cancelled and their position kept.
options:
  state:
    description:
      - V(surveyed) asks and changes nothing, V(present) brings the stacks to their desired state.
    type: str
    choices: [surveyed, present]
    required: true
  deep:
    description: Compare every file and container with what was applied, so that edits by hand are found.
    type: bool
    default: false
  force:
    description: Remove a stack even though the orders of a dead bot could not be checked on its exchange.
    type: bool
    default: false
  keep_data:
    description: Keep the data of removed stacks on the node, in the folder C(removed).
    type: bool
    default: false
  health_timeout_seconds:
    description: How long the stacks may take to become healthy, in seconds.
    type: int
    default: 180
  parallel:
    description: How many tenants are brought up at a time.
    type: int
    default: 4
  lease_wait_seconds:
    description: How long to wait for tenants that another run works on, in seconds, before they are refused.
    type: int
    default: 30
  base_dir:
    description: The folder of everything Hummingfleet keeps on the node.
    type: path
    default: /srv/hummingfleet
  docker_socket:
    description: The Unix socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
  digests:
    description: The desired state's digest by tenant.
    type: dict
    default: {}
  images:
    description: Image references the tenants need.
    type: list
    elements: str
    default: []
  agents:
    description: Agent versions the tenants need; with their files in V(present).
    type: dict
    default: {}
  stacks:
    description: The desired stacks.
    type: list
    elements: dict
    default: []
  secrets:
    description: The contents of secret files, as JSON, by tenant and path.
    type: str
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Predicts what a real run reports.
  diff_mode:
    support: full
    description: Shows the files of a stack; secret files by name only.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Ask which tenants are behind
  hummingfleet.core.tenant_stacks:
    state: surveyed
  delegate_to: "{{ hummingfleet_node }}"
  register: __tenant_stack_survey

- name: Bring the stacks up
  hummingfleet.core.tenant_stacks:
    state: present
  delegate_to: "{{ hummingfleet_node }}"
  register: __tenant_stack_result
"""

RETURN = r"""
tenants:
  description: By tenant, whether it is behind and why (V(surveyed)), or what changed or failed (V(present)).
  returned: always
  type: dict
  sample:
    acme:
      behind: true
      reasons: [container acme-redis is missing]
behind:
  description: The tenants that are behind, added by the action plugin.
  returned: when O(state=surveyed)
  type: list
  elements: str
  sample: [acme]
surveyed:
  description: The tenants that were asked about, added by the action plugin.
  returned: when O(state=surveyed)
  type: list
  elements: str
  sample: [acme, bell]
node_problem:
  description: Why the node gave no answer, in words; added by the action plugin.
  returned: when O(state=surveyed)
  type: str
  sample: "node edge_1 could not be reached: connection timed out"
problem:
  description: What kind of trouble it is, as a stable code (see M(hummingfleet.core.tenant_outcome)).
  returned: on failure, and with RV(node_problem)
  type: str
  sample: unreachable
missing_images:
  description: Image references that this node lacks.
  returned: when O(state=surveyed)
  type: list
  elements: str
  sample: []
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.node import batch
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["surveyed", "present"], "required": True},
            "deep": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "keep_data": {"type": "bool", "default": False},
            "health_timeout_seconds": {"type": "int", "default": 180},
            "parallel": {"type": "int", "default": 4},
            "lease_wait_seconds": {"type": "int", "default": 30},
            "base_dir": {"type": "path", "default": "/srv/hummingfleet"},
            "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
            "digests": {"type": "dict", "default": {}},
            "images": {"type": "list", "elements": "str", "default": []},
            "agents": {"type": "dict", "default": {}},
            "stacks": {"type": "list", "elements": "dict", "default": []},
            "secrets": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    os.umask(0o022)
    engine = DockerEngine(wanted["docker_socket"])
    try:
        if wanted["state"] == "surveyed":
            result = batch.survey(
                engine,
                wanted["base_dir"],
                wanted["digests"],
                images=wanted["images"],
                agents=sorted(wanted["agents"]),
                deep=wanted["deep"],
            )
            module.exit_json(changed=False, **result)
        result = batch.apply(
            engine,
            wanted["base_dir"],
            wanted["stacks"],
            json.loads(wanted["secrets"] or "{}"),
            agents=wanted["agents"],
            parallel=wanted["parallel"],
            health_timeout_seconds=wanted["health_timeout_seconds"],
            keep_data=wanted["keep_data"],
            force=wanted["force"],
            deep=wanted["deep"],
            check=module.check_mode,
        )
        changed = bool(result["installed_agents"]) or any(one["changed"] for one in result["tenants"].values())
        module.exit_json(changed=changed, **result)
    except DockerError as error:
        module.fail_json(msg=str(error), problem=str(error.problem))
    except OSError as error:
        module.fail_json(msg=str(error), problem=str(Problem.NODE_REFUSED))


if __name__ == "__main__":
    main()
