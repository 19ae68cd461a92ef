#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox exchange's container."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_container
short_description: The sandbox exchange's container and network on a node
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Keeps the container and an internal network of its own as described, and the container running.
  - Connections to other networks stay, also when the container has to be made anew; converging a tenant makes them.
  - The role P(hummingfleet.core.sandbox_exchange#role) uses it, and provides the files that the container reads.
options:
  state:
    description: Whether container and network exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The container's name.
    type: str
    default: hf-sandbox
  network:
    description: The name of its own network.
    type: str
    default: hf-sandbox
  image:
    description: The image, which must be on the node. Needed with O(state=present).
    type: str
  subnet:
    description: The subnet of its own network. Needed with O(state=present).
    type: str
  folder:
    description: Folder on the node with C(config), C(tls), C(state) and C(run). Needed with O(state=present).
    type: path
  uid:
    description: The user and group id it runs as. Needed with O(state=present).
    type: int
  memory_mib:
    description: Its memory limit in MiB.
    type: int
    default: 256
  docker_socket:
    description: The Unix socket of the Docker engine.
    type: path
    default: /var/run/docker.sock
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Predicts what a real run reports.
  diff_mode:
    support: full
    description: Shows what is done, in words.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Run the sandbox exchange
  hummingfleet.core.sandbox_container:
    image: hummingfleet/sandbox:1
    subnet: 10.90.0.0/29
    folder: /srv/hummingfleet/sandbox
    uid: 199999
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [made network hf-sandbox, made hf-sandbox]
created:
  description: Whether the container is a new one.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.node import sandbox, shared
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "default": "hf-sandbox"},
            "network": {"type": "str", "default": "hf-sandbox"},
            "image": {"type": "str"},
            "subnet": {"type": "str"},
            "folder": {"type": "path"},
            "uid": {"type": "int"},
            "memory_mib": {"type": "int", "default": 256},
            "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        required_if=[("state", "present", ["image", "subnet", "folder", "uid"])],
        supports_check_mode=True,
    )
    wanted = dict(module.params)
    state, engine = wanted.pop("state"), DockerEngine(wanted.pop("docker_socket"))
    try:
        if state == "present":
            outcome = sandbox.present(engine, sandbox.SandboxSpec(**wanted), check=module.check_mode)
        else:
            outcome = shared.absent(engine, wanted["name"], wanted["network"], check=module.check_mode)
    except (DockerError, shared.SharedContainerError) as error:
        module.fail_json(msg=str(error))
    diff = {"prepared": "".join(f"{action}\n" for action in outcome.actions)}
    module.exit_json(changed=bool(outcome.actions), actions=outcome.actions, created=outcome.created, diff=diff)


if __name__ == "__main__":
    main()
