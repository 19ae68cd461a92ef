#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a fleet needs, and where they come from (an action plugin; nothing is copied to a target)."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_images_info
short_description: Which images a fleet needs, and where they come from
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Lists the images of the releases that tenants use; of the newest release where there is no tenant yet.
  - With C(auto) the node tries to pull the smallest of them. The answer is kept in C(var/images.json), so that a slow
    registry does not make a fleet change its images.
options:
  mode:
    description: Where images come from. By default what the fleet file says.
    type: str
    choices: [auto, registry, build]
  probe_timeout_seconds:
    description: How long a registry may take to answer.
    type: int
    default: 60
extends_documentation_fragment:
  - hummingfleet.core.attributes
attributes:
  check_mode:
    support: full
    description: Asks a registry for the image's description instead of pulling it, and keeps nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See which images are needed
  hummingfleet.core.fleet_images_info:
  register: images

- name: Have them
  hummingfleet.core.node_images:
    references: "{{ images.references }}"
"""

RETURN = r"""
mode:
  description: Where images come from, C(registry) or C(build).
  returned: always
  type: str
  sample: build
reason:
  description: Why, in words.
  returned: always
  type: str
  sample: no registry answered
references:
  description: The images.
  returned: always
  type: list
  elements: str
  sample:
    - hummingfleet/engine:20260922-1
    - hummingfleet/mosquitto:2-1
    - hummingfleet/postgres:15-1
    - hummingfleet/redis:7-1
ansible_facts:
  description: >-
    C(hummingfleet_images_found) is the mode, C(hummingfleet_broker_image) the image of the nodes' MQTT broker, where
    the fleet has them.
  returned: always
  type: dict
  sample: {hummingfleet_images_found: build, hummingfleet_broker_image: "hummingfleet/mosquitto:2-1"}
"""
