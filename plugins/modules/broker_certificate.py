#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TLS certificate of a node's MQTT broker: the node's half (the action plugin signs)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: broker_certificate
short_description: The TLS certificate of a node's MQTT broker
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - The node makes a key, the control node signs a certificate for the node's address with an authority of its own. The
    node's key stays on the node, the authority's on the control node.
  - Makes the authority, and the password of the control node's user, where the control node has none yet
    (C(var/broker)).
  - A certificate is renewed 60 days before its end, and when address or authority changed.
options:
  folder:
    description: Folder on the node that gets C(server.key), C(server.pem) and C(ca.pem).
    type: path
    required: true
  uid:
    description: User and group id that own these files.
    type: int
    required: true
  address:
    description: The IPv4 address at which the control node reaches the broker.
    type: str
    required: true
  authority:
    description: The authority's certificate (PEM). Given by the action plugin.
    type: str
  certificate:
    description: The certificate to install (PEM). Given by the action plugin.
    type: str
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
- name: Have a certificate for the broker
  hummingfleet.core.broker_certificate:
    folder: /srv/hummingfleet/broker/tls
    uid: 199998
    address: 192.0.2.11
  register: certificate
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [issued the broker's certificate]
signals_line:
  description: The line of the broker's password file for the control node's user; empty if it is not known yet.
  returned: success
  type: str
  sample: "signals:$7$101$c2FsdHNhbHRzYWx0$a2V5"
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.node import certificate


def main() -> None:
    """Runs the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "uid": {"type": "int", "required": True},
            "address": {"type": "str", "required": True},
            "authority": {"type": "str"},
            "certificate": {"type": "str"},
        },
        supports_check_mode=True,
    )
    folder, uid, authority = Path(module.params["folder"]), module.params["uid"], module.params["authority"] or ""
    request = ""
    try:
        due = not certificate.is_valid(folder, module.params["address"], authority)
        if due and not module.check_mode:
            if module.params["certificate"]:
                certificate.install(folder, uid, module.params["certificate"], authority)
            else:
                request = certificate.request(folder, uid)
    except (certificate.CertificateError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=due, due=due, request=request)


if __name__ == "__main__":
    main()
