#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MQTT broker's container."""

from __future__ import annotations

DOCUMENTATION = r"""
module: broker_container
short_description: The MQTT broker's container and network on a node, and the users it knows
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Keeps the container and a network of its own as described, and the container running.
  - Connections to tenants' networks stay, also when the container has to be made anew. Those that stacks of the node
    need and that are missing are made.
  - Puts the broker's password file together from the control node's user and the users of the node's stacks, and has
    the broker read it, without a restart, if it changed.
  - The role P(hummingfleet.core.node_broker#role) uses it, and provides the files that the container reads.
options:
  state:
    description: Whether container and network exist.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The container's name.
    type: str
    default: hummingfleet-broker
  network:
    description: The name of its own network. Tenants' networks must come after it in alphabetical order.
    type: str
    default: hf-0-hummingfleet-broker
  image:
    description: The image, which must be on the node. Needed with O(state=present).
    type: str
  subnet:
    description: The subnet of its own network. Needed with O(state=present).
    type: str
  base_dir:
    description: >-
      The fleet's folder on the node, with C(broker/config), C(broker/tls) and C(broker/users). Needed with
      O(state=present).
    type: path
  uid:
    description: The user and group id it runs as. Needed with O(state=present).
    type: int
  memory_mib:
    description: Its memory limit in MiB.
    type: int
    default: 128
  address:
    description: The node's IPv4 address at which it speaks TLS. Needed with O(state=present).
    type: str
  port:
    description: The node's port at which it speaks TLS.
    type: int
    default: 8883
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
- name: Run the broker
  hummingfleet.core.broker_container:
    image: hummingfleet/mosquitto:2-1
    subnet: 10.90.0.8/29
    base_dir: /srv/hummingfleet
    uid: 199998
    address: 192.0.2.11
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [made network hf-0-hummingfleet-broker, made hummingfleet-broker]
created:
  description: Whether the container is a new one.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.node import broker, shared
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "default": "hummingfleet-broker"},
            "network": {"type": "str", "default": "hf-0-hummingfleet-broker"},
            "image": {"type": "str"},
            "subnet": {"type": "str"},
            "base_dir": {"type": "path"},
            "uid": {"type": "int"},
            "memory_mib": {"type": "int", "default": 128},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 8883},
            "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
        },
        required_if=[("state", "present", ["image", "subnet", "base_dir", "uid", "address"])],
        supports_check_mode=True,
    )
    wanted = dict(module.params)
    state, engine = wanted.pop("state"), DockerEngine(wanted.pop("docker_socket"))
    try:
        if state == "present":
            outcome = broker.present(engine, broker.BrokerSpec(**wanted), check=module.check_mode)
        else:
            outcome = shared.absent(engine, wanted["name"], wanted["network"], check=module.check_mode)
    except (DockerError, OSError, shared.SharedContainerError, broker.BrokerUnavailableError) as error:
        module.fail_json(msg=str(error))
    diff = {"prepared": "".join(f"{action}\n" for action in outcome.actions)}
    module.exit_json(changed=bool(outcome.actions), actions=outcome.actions, created=outcome.created, diff=diff)


if __name__ == "__main__":
    main()
