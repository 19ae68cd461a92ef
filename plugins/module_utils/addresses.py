# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses: the fleet's pool is cut into one /27 per tenant (Docker's own pools end at the 30th network).

Inside a tenant's network the first address is the gateway, and the last ones belong to services that several tenants
share and that join every network; the tenant's own containers get what is between.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

TENANT_PREFIX = 27
# Counted down from the last address. New services go to the end of the list: an address never changes its meaning.
SHARED_SERVICES = ("sandbox", "broker", "edge", "monitoring")
# What is left for a tenant's own containers: network, broadcast and gateway address are taken too.
CONTAINERS = (1 << (32 - TENANT_PREFIX)) - 3 - len(SHARED_SERVICES)


class AddressError(HummingfleetError):
    """The address pool has no room, or a subnet is not one of the pool's."""


@dataclass(frozen=True, slots=True)
class TenantNetwork:
    """The addresses with a fixed meaning in one tenant's network."""

    subnet: IPv4Network
    gateway: IPv4Address
    shared: dict[str, IPv4Address]
    first_container: IPv4Address
    last_container: IPv4Address


def next_subnet(pool: IPv4Network, used: Collection[str]) -> str:
    """The lowest /27 of ``pool`` that is not ``used``; the pool's first one is kept for infrastructure.

    Raises AddressError when the pool is exhausted.
    """
    first, step = int(pool.network_address), 1 << (32 - TENANT_PREFIX)
    for number in range(1, pool_size(pool) + 1):
        subnet = f"{IPv4Address(first + number * step)}/{TENANT_PREFIX}"
        if subnet not in used:
            return subnet
    raise AddressError(
        f"the address pool {pool} is exhausted: all {pool_size(pool)} subnets are taken. "
        "Set a larger address_pool in the fleet file, or forget removed tenants"
    )


def pool_size(pool: IPv4Network) -> int:
    """How many tenants ``pool`` has subnets for."""
    return (1 << (TENANT_PREFIX - pool.prefixlen)) - 1


def check_subnet(subnet: str, pool: IPv4Network) -> None:
    """Nothing, if ``subnet`` is one that ``next_subnet`` could give from ``pool``; raises AddressError if not."""
    try:
        network = IPv4Network(subnet)
    except ValueError as error:
        raise AddressError(f"the subnet {subnet!r} is none: {error}") from None
    reserved = next(pool.subnets(new_prefix=TENANT_PREFIX))
    if network.prefixlen != TENANT_PREFIX or not network.subnet_of(pool) or network == reserved:
        raise AddressError(
            f"the subnet {subnet} is not a tenant's: a /{TENANT_PREFIX} inside {pool} other than {reserved} is"
        )


def check_containers(number: int) -> None:
    """Nothing, if a tenant's network has addresses for ``number`` containers; raises AddressError if not."""
    if number > CONTAINERS:
        raise AddressError(
            f"the tenant would have {number} containers, but a /{TENANT_PREFIX} has {CONTAINERS} addresses for them; "
            "remove bots"
        )


def tenant_network(subnet: str) -> TenantNetwork:
    """The fixed addresses of the tenant's network ``subnet``."""
    network = IPv4Network(subnet)
    last = network.broadcast_address - 1
    shared = {service: last - index for index, service in enumerate(SHARED_SERVICES)}
    return TenantNetwork(
        subnet=network,
        gateway=network.network_address + 1,
        shared=shared,
        first_container=network.network_address + 2,
        last_container=last - len(SHARED_SERVICES),
    )
