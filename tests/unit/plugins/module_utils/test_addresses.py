"""Address allocation: lowest free /27 first, the pool's first one kept back, an exhausted pool refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import addresses
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import AddressError

POOL = IPv4Network("10.90.0.0/24")


def test_the_first_subnet_is_kept_for_infrastructure() -> None:
    assert addresses.next_subnet(POOL, set()) == "10.90.0.32/27"


def test_the_lowest_free_subnet_is_given() -> None:
    used = {"10.90.0.32/27", "10.90.0.64/27", "10.90.0.128/27"}
    assert addresses.next_subnet(POOL, used) == "10.90.0.96/27"


def test_a_pool_gives_each_of_its_subnets_once_and_then_refuses() -> None:
    used: list[str] = []
    for _number in range(addresses.pool_size(POOL)):
        used.append(addresses.next_subnet(POOL, used))
    networks = [IPv4Network(subnet) for subnet in used]
    assert len(networks) == 7
    assert all(network.subnet_of(POOL) for network in networks)
    assert not any(a.overlaps(b) for a, b in combinations(networks, 2))
    with pytest.raises(AddressError, match=r"10\.90\.0\.0/24 is exhausted: all 7 subnets.*address_pool"):
        addresses.next_subnet(POOL, used)


def test_a_subnet_beyond_the_30th_is_given() -> None:
    pool = IPv4Network("10.90.0.0/16")
    used: set[str] = set()
    for _number in range(40):
        used.add(addresses.next_subnet(pool, used))
    assert addresses.next_subnet(pool, used) == "10.90.5.32/27"


@pytest.mark.parametrize("subnet", ["10.90.0.32/27", "10.90.0.224/27"])
def test_a_subnet_of_the_pool_is_accepted(subnet: str) -> None:
    addresses.check_subnet(subnet, POOL)


@pytest.mark.parametrize(
    "subnet", ["10.90.0.0/27", "10.90.1.0/27", "10.90.0.32/28", "10.90.0.0/24", "10.90.0.33/27", "x", "10.90.0.32"]
)
def test_a_subnet_that_the_pool_could_not_give_is_refused(subnet: str) -> None:
    with pytest.raises(AddressError):
        addresses.check_subnet(subnet, POOL)


def test_the_fixed_addresses_of_a_network_are_distinct_and_outside_the_containers_range() -> None:
    network = addresses.tenant_network("10.90.3.0/27")
    assert network.gateway == IPv4Address("10.90.3.1")
    assert network.shared["sandbox"] == IPv4Address("10.90.3.30")
    assert (network.first_container, network.last_container) == (IPv4Address("10.90.3.2"), IPv4Address("10.90.3.26"))
    fixed = [network.gateway, *network.shared.values()]
    assert len(set(fixed)) == len(fixed)
    assert all(address in network.subnet for address in fixed)
    assert not any(network.first_container <= address <= network.last_container for address in fixed)


def test_a_stack_that_has_more_containers_than_addresses_is_refused() -> None:
    addresses.check_containers(addresses.CONTAINERS)
    with pytest.raises(AddressError, match=r"26 containers.* 25 addresses"):
        addresses.check_containers(addresses.CONTAINERS + 1)
