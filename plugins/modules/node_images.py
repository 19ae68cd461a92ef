#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes images present on a node (an action plugin; the node is only asked to run docker)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_images
short_description: Images present on a node, pulled, or built on the control node and copied
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Images called C(hummingfleet/...) are built with the control node's Docker engine (C(images/build.py)), where their
    inputs changed, and copied to the node, where its engine is another one. Progress is shown meanwhile.
  - All others are pulled where the node lacks them.
options:
  references:
    description: The images.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Tells what would be pulled, built and copied.
  diff_mode:
    support: full
    description: Shows which image a reference names before and after.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Have the images of release 2026.09
  hummingfleet.core.node_images:
    references:
      - hummingfleet/engine:20260922-1
      - hummingfleet/postgres:15-1
      - hummingfleet/redis:7-1
"""

RETURN = r"""
images:
  description: The image ids on the node after a real run, by reference.
  returned: always
  type: dict
  sample: {"hummingfleet/redis:7-1": "sha256:d0f45abacf9f"}
pulled:
  description: Images that were pulled.
  returned: always
  type: list
  elements: str
  sample: [redis:7]
built:
  description: Images that were built on the control node.
  returned: always
  type: list
  elements: str
  sample: [hummingfleet/engine:20260922-1]
copied:
  description: Images that were copied from the control node.
  returned: always
  type: list
  elements: str
  sample: [hummingfleet/engine:20260922-1]
"""
