# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory: nodes from the fleet file, tenants from the registry."""

from __future__ import annotations

DOCUMENTATION = r"""
name: tenants
short_description: Tenants and nodes of a Hummingfleet
version_added: 0.1.0
author:
  - Hummingfleet contributors (@hummingfleet)
description:
  - Reads the fleet file and the registry it names. Every tenant becomes a host C(tenant-<id>), every node a host with
    its own id.
  - Tenants are in the groups C(tenants), C(node_<node>), C(plan_<plan>), C(state_<state>), C(release_<release>) and
    C(ring_<ring>), nodes in C(nodes). Characters other than letters, digits and underscores become underscores.
  - A tenant has the variables C(hummingfleet_tenant), C(hummingfleet_node) and C(hummingfleet_revision); its document
    stays in the registry until something needs it. All hosts have C(hummingfleet_fleet_path),
    C(hummingfleet_base_dir), C(hummingfleet_images), C(hummingfleet_address_pool), C(hummingfleet_sandbox_container),
    C(hummingfleet_broker_enabled), C(hummingfleet_broker_container) and C(hummingfleet_broker_port); a node has
    C(hummingfleet_broker_address), which is empty where the fleet file gives no address.
  - Values of the fleet file are taken as they are, without templating.
  - A registry that does not exist yet gives the nodes and no tenant. One that cannot be read is an error.
options:
  plugin:
    description: Names this plugin.
    type: str
    required: true
    choices: [hummingfleet.core.tenants]
  only:
    description:
      - Read just these tenants, by id, instead of all. A tenant that does not exist is an error.
      - This is how work on one tenant costs the same in a fleet of ten thousand.
    type: list
    elements: str
    default: []
    env:
      - name: HUMMINGFLEET_ONLY
  registry:
    description:
      - Where the registry is, as a path to a SQLite file or a URL beginning with V(postgresql://).
      - A relative path starts from the nearest folder above the fleet file that has an C(ansible.cfg).
    type: str
    default: var/hummingfleet.db
  keyring:
    description: Where the keys are; not read by this plugin.
    type: dict
    default: {file: var/keyring.yml}
  catalogue:
    description: Folder of the catalogue; not read by this plugin.
    type: str
    default: catalogue
  images:
    description: Where images come from.
    type: str
    choices: [auto, registry, build]
    default: auto
  base_dir:
    description: Folder on nodes that holds everything of the fleet.
    type: str
    default: /srv/hummingfleet
  address_pool:
    description: Private IPv4 network from which every tenant gets a /27.
    type: str
    default: 10.90.0.0/16
  uid_pool:
    description: First and last user id for tenants.
    type: list
    elements: int
    default: [200000, 299999]
  kdf_iterations:
    description: PBKDF2 iterations of the engine's keystore.
    type: int
    default: 1
  sandbox_container:
    description: Name of the sandbox exchange's container on nodes; two installations that share a machine need two.
    type: str
    default: hf-sandbox
  broker_enabled:
    description: Whether nodes have an MQTT broker, which bots that trade on signals need.
    type: bool
    default: true
  broker_container:
    description: Name of the broker's container on nodes; two installations that share a machine need two.
    type: str
    default: hummingfleet-broker
  broker_port:
    description: The port of nodes at which the control node reaches their broker; two installations need two.
    type: int
    default: 8883
  webhook:
    description: Settings of the web service and its worker; not read by this plugin.
    type: dict
    default: {}
  nodes:
    description:
      - Nodes by id. O(nodes) maps an id to C(memory_mib) (what tenants may reserve there), C(labels), C(broker_address)
        (where the control node reaches the node's broker, by default the node's address) and Ansible's connection
        variables.
    type: dict
    required: true
"""

EXAMPLES = r"""
# inventories/local/fleet.tenants.yml: this machine is the only node
plugin: hummingfleet.core.tenants
registry: var/hummingfleet.db
nodes:
  local: {ansible_connection: local, memory_mib: 12288, labels: {region: local}}

# Two nodes over SSH, the registry in PostgreSQL:
# plugin: hummingfleet.core.tenants
# registry: postgresql://hummingfleet@db.example.com/hummingfleet
# nodes:
#   edge_1: {ansible_host: 192.0.2.11, memory_mib: 16384, labels: {region: tokyo}}
#   edge_2: {ansible_host: 192.0.2.12, memory_mib: 16384, labels: {region: tokyo}}
"""

import re

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import FILE_SUFFIXES, Fleet, load_fleet

HOST_PREFIX = "tenant-"


class InventoryModule(BaseInventoryPlugin):
    NAME = "hummingfleet.core.tenants"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(FILE_SUFFIXES)

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        try:
            fleet = load_fleet(path)
            self._read_config_data(path)
            only = [name.removeprefix(HOST_PREFIX) for name in self.get_option("only")]
            summaries = _read_tenants(fleet, only)
        except HummingfleetError as error:
            raise AnsibleParserError(str(error)) from error
        self._add_nodes(fleet)
        self._add_tenants(summaries)

    def _add_nodes(self, fleet):
        for group in ("nodes", "tenants"):
            self.inventory.add_group(group)
        self.inventory.set_variable("all", "hummingfleet_fleet_path", str(fleet.path))
        self.inventory.set_variable("all", "hummingfleet_base_dir", fleet.base_dir)
        self.inventory.set_variable("all", "hummingfleet_images", fleet.images)
        self.inventory.set_variable("all", "hummingfleet_address_pool", str(fleet.address_pool))
        self.inventory.set_variable("all", "hummingfleet_sandbox_container", fleet.sandbox_container)
        self.inventory.set_variable("all", "hummingfleet_broker_enabled", fleet.broker_enabled)
        self.inventory.set_variable("all", "hummingfleet_broker_container", fleet.broker_container)
        self.inventory.set_variable("all", "hummingfleet_broker_port", fleet.broker_port)
        for node in fleet.nodes.values():
            self.inventory.add_group(f"node_{node.id}")
            self.inventory.add_host(node.id, group="nodes")
            self.inventory.set_variable(node.id, "hummingfleet_broker_address", node.broker_address or "")
            for name, value in node.variables.items():
                self.inventory.set_variable(node.id, name, value)

    def _add_tenants(self, summaries):
        groups = {}
        for summary in summaries:
            host = self.inventory.add_host(HOST_PREFIX + summary.tenant, group="tenants")
            self.inventory.set_variable(host, "hummingfleet_tenant", summary.tenant)
            self.inventory.set_variable(host, "hummingfleet_node", summary.node)
            self.inventory.set_variable(host, "hummingfleet_revision", summary.revision)
            for kind in ("node", "plan", "state", "release", "ring"):
                key = (kind, getattr(summary, kind))
                if key not in groups:
                    groups[key] = self.inventory.add_group(_group_name(*key))
                self.inventory.add_child(groups[key], host)


def _read_tenants(fleet: Fleet, only):
    # Imported here: Ansible loads this plugin for every inventory source, also for those it does not parse.
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
        Registry,
        UnknownTenantError,
        registry_exists,
    )

    summaries = Registry(fleet.registry).list(only=only or None) if registry_exists(fleet.registry) else ()
    missing = sorted(set(only) - {summary.tenant for summary in summaries})
    if missing:
        raise UnknownTenantError(
            f"the registry has no tenant {', '.join(missing)} ('only' or HUMMINGFLEET_ONLY names it)"
        )
    return summaries


def _group_name(kind, value):
    return f"{kind}_" + re.sub(r"[^A-Za-z0-9_]", "_", value)
