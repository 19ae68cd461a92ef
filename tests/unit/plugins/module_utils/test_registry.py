"""The registry, on SQLite and on a real PostgreSQL: documents, revisions, allocation, leases, many writers at once."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import addresses, derive
from ansible_collections.hummingfleet.core.plugins.module_utils import registry as module
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import AddressError
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet, Node, parse_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.placement import PlacementError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    Cause,
    Lease,
    LeaseError,
    Registry,
    RegistryError,
    RevisionConflictError,
    Submission,
    UnknownTenantError,
    holder_is_dead,
    process_holder,
    registry_exists,
)

from tests.factories import catalogue, connection, document, encrypted_text, grid_bot, grid_document, nonce_text

CAUSE = Cause("apply", "because", "test")
FLEET = parse_fleet(
    {
        "plugin": "hummingfleet.core.tenants",
        "address_pool": "10.90.0.0/16",
        "uid_pool": [200000, 200999],
        "nodes": {
            "edge_1": {"memory_mib": 65536, "labels": {"region": "tokyo"}},
            "edge_2": {"memory_mib": 65536, "labels": {"region": "frankfurt"}},
        },
    },
    Path("/fleets/fleet.tenants.yml"),
)
OURS = {"fleet": FLEET, "catalogue": catalogue()}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(registry_url: str) -> str:
    return registry_url


@pytest.fixture
def registry(url: str, clock: Clock) -> Registry:
    return Registry(url, clock=clock)


def submit(registry: Registry, data: Mapping[str, Any], fleet: Fleet = FLEET, cause: Cause = CAUSE) -> Submission:
    return registry.submit(data, cause=cause, fleet=fleet, catalogue=catalogue())


def bot_names(data: Mapping[str, Any]) -> set[str]:
    return {bot["id"] for bot in data["bots"]}


def add_bot(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(data: dict[str, Any]) -> dict[str, Any]:
        data["bots"].append(grid_bot(id=name))
        return data

    return change


def set_field(name: str, value: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, name: value}


def terminate(registry: Registry, tenant: str, applied: bool = True) -> None:
    revision = registry.change(tenant, set_field("state", "terminated"), cause=CAUSE, **OURS).record.revision
    if applied:
        apply(registry, tenant, revision)


def apply(registry: Registry, tenant: str, revision: int) -> None:
    lease = registry.acquire_leases([tenant], holder="other-host:1:x/y", ttl_seconds=60)[tenant]
    assert lease is not None
    assert registry.record_outcome(tenant, revision=revision, fence=lease.fence, applied=True, outcome={})
    registry.release_leases({tenant: lease.fence})


def rules(error: pytest.ExceptionInfo[DocumentError]) -> set[tuple[str, str]]:
    return {(fault.pointer, fault.rule) for fault in error.value.faults}


# --- storing ---------------------------------------------------------------------------------------------------------


def test_a_new_tenant_gets_node_subnet_user_id_salt_and_secret_versions(registry: Registry) -> None:
    submission = submit(registry, grid_document())
    stored = submission.record.document
    assert submission.changed
    assert (submission.record.revision, submission.record.applied_revision) == (1, 0)
    assert stored["placement"]["node"] == "edge_1"
    assert stored["subnet"] == "10.90.0.32/27"
    assert stored["uid"] == 200000
    assert len(stored["salt"]) == 32
    assert set(stored["secret_versions"]) == set(derive.PURPOSES)
    assert registry.get("acme") == submission.record


def test_every_tenant_gets_its_own(registry: Registry) -> None:
    stored = [submit(registry, document(tenant=name)).record.document for name in ("acme", "blue", "coral")]
    for name in ("subnet", "uid", "salt"):
        assert len({data[name] for data in stored}) == 3
    assert [data["placement"]["node"] for data in stored] == ["edge_1", "edge_2", "edge_1"]


def test_the_same_document_again_makes_no_revision(registry: Registry) -> None:
    first = submit(registry, grid_document())
    again = submit(registry, grid_document())
    stored = submit(registry, first.record.document)
    assert (again.changed, stored.changed) == (False, False)
    assert again.record == stored.record == first.record
    assert len(registry.history("acme")) == 1


def test_a_change_makes_the_next_revision_and_keeps_what_was_allocated(registry: Registry) -> None:
    first = submit(registry, grid_document()).record
    second = submit(registry, grid_document(state="suspended")).record
    assert second.revision == 2
    assert second.document == first.document | {"state": "suspended"}


def test_placement_is_sticky(registry: Registry) -> None:
    submit(registry, document(tenant="acme"))
    submit(registry, document(tenant="blue"))  # edge_2 has more room now
    roomier = replace(FLEET, nodes={**FLEET.nodes, "edge_0": Node("edge_0", 1 << 20)})
    assert submit(registry, grid_document(), roomier).record.document["placement"]["node"] == "edge_1"


def test_labels_of_a_tenant_decide_about_its_node(registry: Registry) -> None:
    data = document(placement={"labels": {"region": "frankfurt"}})
    assert submit(registry, data).record.document["placement"]["node"] == "edge_2"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"subnet": "10.90.7.0/27"}, "/subnet"),
        ({"uid": 200777}, "/uid"),
        ({"salt": "another salt, long enough"}, "/salt"),
        ({"secret_versions": {"postgres": 2}}, "/secret_versions"),
        ({"secret_versions": {"broker": 2, "postgres": 2}}, "/secret_versions"),
        ({"secret_versions": {"broker": 0}}, "/secret_versions"),
        ({"placement": {"node": "edge_2"}}, "/placement/node"),
    ],
)
def test_a_value_that_was_allocated_otherwise_is_refused(
    registry: Registry, change: dict[str, Any], where: str
) -> None:
    salt = submit(registry, grid_document()).record.document["salt"]
    with pytest.raises(DocumentError) as caught:
        submit(registry, grid_document(**change))
    assert (where, "allocated") in rules(caught)
    assert salt not in str(caught.value)
    assert registry.get("acme").revision == 1


def test_the_brokers_passwords_are_made_new_by_a_higher_version(registry: Registry) -> None:
    before = submit(registry, grid_document()).record.document["secret_versions"]
    raised = submit(registry, grid_document(secret_versions={**before, "broker": 3}))
    assert raised.changed
    assert raised.record.document["secret_versions"] == {**before, "broker": 3}
    # A document that says nothing of it, as a portal's, takes nothing back, nor does an old one.
    assert not submit(registry, grid_document()).changed
    back = registry.rollback("acme", 1, cause=Cause("rollback", "to 1", "alice"), **OURS)
    assert back.record.document["secret_versions"]["broker"] == 3


def test_faults_of_the_document_are_named_beside_those_of_the_allocation(registry: Registry) -> None:
    submit(registry, grid_document())
    with pytest.raises(DocumentError) as caught:
        submit(registry, grid_document(uid=200777, plan="no-such-plan"))
    assert {"/uid", "/plan"} <= {fault.pointer for fault in caught.value.faults}


def test_a_refused_document_stores_nothing_and_takes_nothing(registry: Registry) -> None:
    with pytest.raises(DocumentError):
        submit(registry, grid_document(plan="no-such-plan"))
    with pytest.raises(UnknownTenantError):
        registry.get("acme")
    assert submit(registry, document(tenant="blue")).record.document["subnet"] == "10.90.0.32/27"


@pytest.mark.parametrize(
    "tenant",
    [
        "all",
        "nodes",
        "tenants",
        "localhost",
        "ungrouped",
        "behind",
        "leads",
        "edge_1",
        "Acme",
        "a",
        "-acme",
        "acme-",
        "a" * 33,
        "../etc",
        "acme\n",
        "acme\0",
        "\ud800",
        "{{ lookup('pipe', 'id') }}",
        "acme:!blue",
        "acme*",
        "$(id)",
        "'; DROP TABLE tenants; --",
        "",
        None,
        5,
        ["acme"],
    ],
)
def test_a_hostile_or_meaningful_tenant_id_never_gets_in(registry: Registry, tenant: object) -> None:
    with pytest.raises(DocumentError):
        submit(registry, document() | {"tenant": tenant})
    assert registry.list() == ()


def test_a_nodes_id_cannot_become_a_tenant(registry: Registry) -> None:
    fleet = replace(FLEET, nodes={"local": Node("local", 65536)})
    with pytest.raises(DocumentError):
        submit(registry, document(tenant="local"), fleet)


def test_a_tenant_cannot_be_renamed(registry: Registry) -> None:
    submit(registry, grid_document())
    with pytest.raises(DocumentError) as caught:
        registry.change("acme", set_field("tenant", "blue"), cause=CAUSE, **OURS)
    assert ("/tenant", "tenant_changed") in rules(caught)


def test_an_expected_revision_protects_from_overwriting(registry: Registry) -> None:
    registry.submit(grid_document(), cause=CAUSE, expected_revision=0, **OURS)
    registry.submit(grid_document(state="suspended"), cause=CAUSE, expected_revision=1, **OURS)
    with pytest.raises(RevisionConflictError, match="acme is at revision 2, not 1"):
        registry.submit(grid_document(), cause=CAUSE, expected_revision=1, **OURS)


# --- addresses, user ids, subdomains, ciphertexts --------------------------------------------------------------------


def test_a_restored_tenant_keeps_the_free_values_it_brings_along(registry: Registry) -> None:
    brought = {
        "subnet": "10.90.5.64/27",
        "uid": 200042,
        "salt": "0123456789abcdef0123456789abcdef",
        "secret_versions": {"postgres": 3},
        "placement": {"node": "edge_2"},
    }
    stored = submit(registry, grid_document(**brought)).record.document
    for name in ("subnet", "uid", "salt"):
        assert stored[name] == brought[name]
    assert (stored["secret_versions"]["postgres"], stored["secret_versions"]["redis"]) == (3, 1)
    assert stored["placement"]["node"] == "edge_2"
    assert submit(registry, document(tenant="blue")).record.document["uid"] == 200000


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"subnet": "10.90.0.32/27"}, "/subnet"),
        ({"uid": 200000}, "/uid"),
        ({"uid": 199999}, "/uid"),
        ({"subdomain": "acme"}, "/subdomain"),
    ],
)
def test_what_another_tenant_has_is_refused(registry: Registry, change: dict[str, Any], where: str) -> None:
    submit(registry, grid_document())
    with pytest.raises(DocumentError) as caught:
        submit(registry, document(**({"tenant": "blue"} | change)))
    assert where in {fault.pointer for fault in caught.value.faults}


def test_a_subnet_outside_the_pool_is_refused(registry: Registry) -> None:
    with pytest.raises(HummingfleetError, match=r"10\.91"):
        submit(registry, grid_document(subnet="10.91.0.32/27"))


def test_a_subdomain_that_was_given_up_is_free(registry: Registry) -> None:
    submit(registry, grid_document())
    submit(registry, grid_document(subdomain="new"))
    assert submit(registry, document(tenant="blue", subdomain="acme")).changed


def test_an_exhausted_address_pool_is_a_clear_refusal(registry: Registry) -> None:
    fleet = replace(FLEET, address_pool=IPv4Network("10.90.0.0/26"))
    submit(registry, document(), fleet)
    with pytest.raises(AddressError, match="exhausted"):
        submit(registry, document(tenant="blue"), fleet)


def test_exhausted_user_ids_are_a_clear_refusal(registry: Registry) -> None:
    fleet = replace(FLEET, uid_pool=(200000, 200000))
    submit(registry, document(), fleet)
    with pytest.raises(RegistryError, match="200000 to 200000 are all used up"):
        submit(registry, document(tenant="blue"), fleet)


@pytest.mark.parametrize("field", ["encrypted_api_key", "nonce_key", "encrypted_api_secret", "nonce_secret"])
def test_a_ciphertext_or_nonce_of_another_tenant_is_refused(registry: Registry, field: str) -> None:
    submit(registry, grid_document())
    stolen = connection(seed="blue") | {field: connection(seed="acme")[field]}
    with pytest.raises(DocumentError) as caught:
        submit(registry, document(tenant="blue", exchange_connections=[stolen]))
    assert rules(caught) == {(f"/exchange_connections/0/{field}", "foreign_ciphertext")}
    assert stolen[field] not in str(caught.value)
    assert submit(registry, document(tenant="blue")).changed


def test_a_ciphertext_that_its_tenant_no_longer_uses_stays_its_own(registry: Registry) -> None:
    submit(registry, grid_document())
    submit(registry, grid_document(exchange_connections=[connection(seed="fresh")]))
    with pytest.raises(DocumentError):
        submit(registry, document(tenant="blue", exchange_connections=[connection(seed="acme")]))
    assert submit(registry, grid_document()).changed  # its own tenant may return to it


@pytest.mark.parametrize(("spelling", "other"), [("QQ==", "QR=="), ("+/+/", "+/+/")])
def test_one_ciphertext_is_the_same_in_every_spelling_of_base64(spelling: str, other: str) -> None:
    def digests(text: str) -> list[tuple[str, str, str]]:
        return list(module._ciphertext_digests({"exchange_connections": [{"encrypted_api_key": text}]}))

    assert digests(spelling) == digests(other) != digests("AAAA")
    assert digests(spelling)[0][:2] == ("/exchange_connections/0/encrypted_api_key", "ciphertext")


# --- room on nodes ---------------------------------------------------------------------------------------------------


def small_fleet(memory_mib: int) -> Fleet:
    return replace(FLEET, nodes={"edge_1": Node("edge_1", memory_mib)})


def memory_of(data: Mapping[str, Any]) -> int:
    plan = catalogue().plans["pro"]
    return plan.postgres_memory_mib + plan.redis_memory_mib + plan.bot_memory_mib * len(data["bots"])


def test_no_room_anywhere_is_a_refusal_that_stores_nothing(registry: Registry) -> None:
    fleet = small_fleet(memory_of(grid_document()) + memory_of(document()) - 1)
    submit(registry, grid_document(), fleet)
    with pytest.raises(PlacementError, match="edge_1 has 319 of"):
        submit(registry, document(tenant="blue"), fleet)
    assert [summary.tenant for summary in registry.list()] == ["acme"]


def test_a_placed_tenant_grows_only_as_far_as_its_node_has_room(registry: Registry) -> None:
    fleet = small_fleet(memory_of(grid_document()))
    submit(registry, grid_document(), fleet)
    ours = {"fleet": fleet, "catalogue": catalogue()}
    with pytest.raises(PlacementError, match="node edge_1 has no room"):
        registry.change("acme", add_bot("b2"), cause=CAUSE, **ours)
    # What takes no more memory is never refused, also when the node has been given less meanwhile.
    shrunk = {"fleet": small_fleet(1), "catalogue": catalogue()}
    assert registry.change("acme", set_field("state", "suspended"), cause=CAUSE, **shrunk).changed


def test_a_growing_tenants_own_memory_is_not_counted_twice(registry: Registry) -> None:
    two_bots = memory_of(grid_document(bots=[grid_bot(id="b1"), grid_bot(id="b2")]))
    ours = {"fleet": small_fleet(two_bots), "catalogue": catalogue()}
    submit(registry, grid_document(), ours["fleet"])
    assert registry.change("acme", add_bot("b2"), cause=CAUSE, **ours).changed
    assert registry.reserved_memory() == {"edge_1": two_bots}


def test_a_removed_tenant_holds_its_memory_until_the_removal_was_applied(registry: Registry) -> None:
    fleet = small_fleet(memory_of(document()))
    submit(registry, document(), fleet)
    terminate(registry, "acme", applied=False)
    assert registry.reserved_memory() == {"edge_1": memory_of(document())}
    with pytest.raises(PlacementError):
        submit(registry, document(tenant="blue"), fleet)
    apply(registry, "acme", 2)
    assert registry.reserved_memory() == {}
    assert submit(registry, document(tenant="blue"), fleet).changed
    with pytest.raises(PlacementError):  # no way back into a full node
        submit(registry, document(), fleet)


def test_a_stack_with_more_containers_than_addresses_is_refused(registry: Registry) -> None:
    most = addresses.CONTAINERS - module.SERVICE_CONTAINERS
    bots = [grid_bot(id=f"b{number}") for number in range(most + 1)]
    plans = {**catalogue().plans, "business": dataclasses.replace(catalogue().plans["business"], bots=100)}
    wide = dataclasses.replace(catalogue(), plans=plans)
    with pytest.raises(AddressError, match=f"{addresses.CONTAINERS + 1} containers"):
        registry.submit(document(plan="business", bots=bots), cause=CAUSE, fleet=FLEET, catalogue=wide)
    assert registry.list() == ()
    data = document(plan="business", bots=bots[:-1])
    assert registry.submit(data, cause=CAUSE, fleet=FLEET, catalogue=wide).changed


def test_every_shipped_plan_fits_a_tenants_subnet() -> None:
    most = addresses.CONTAINERS - module.SERVICE_CONTAINERS
    assert {name: plan.bots for name, plan in catalogue().plans.items() if plan.bots > most} == {}


# --- history ---------------------------------------------------------------------------------------------------------


def test_every_revision_is_kept_with_its_cause_and_time(registry: Registry, clock: Clock) -> None:
    submit(registry, grid_document(), cause=Cause("apply", "first", "alice"))
    clock.seconds += 61.5
    registry.change("acme", add_bot("b2"), cause=Cause("event", "bot.created", "portal"), **OURS)
    history = registry.history("acme")
    assert [(entry.revision, entry.at, entry.cause) for entry in history] == [
        (1, "2027-01-15T08:00:00.000Z", Cause("apply", "first", "alice")),
        (2, "2027-01-15T08:01:01.500Z", Cause("event", "bot.created", "portal")),
    ]
    assert bot_names(registry.document_at("acme", 1)) == {"b1"}
    assert bot_names(registry.document_at("acme", 2)) == {"b1", "b2"}
    assert registry.get("acme").updated_at == history[-1].at


def test_a_rollback_lowers_no_counter(registry: Registry) -> None:
    submit(registry, grid_document())

    def ask(data: dict[str, Any]) -> dict[str, Any]:
        data["bots"][0].update(restarts=3, resumes=2, name="renamed")
        return data

    registry.change("acme", ask, cause=CAUSE, **OURS)
    bot = registry.rollback("acme", 1, cause=CAUSE, **OURS).record.document["bots"][0]
    assert (bot["name"], bot["restarts"], bot["resumes"]) == ("Test Grid Bot", 3, 2)


def test_a_cause_may_be_any_text(registry: Registry) -> None:
    submit(registry, grid_document(), cause=Cause("event", "a\0b \ud800 {{ x }} " + "y" * 5000, "\0"))
    cause = registry.history("acme")[0].cause
    assert cause.text.startswith("ab ? {{ x }} yyy")
    assert (len(cause.text) <= 1000, cause.actor) == (True, "")


def test_a_rollback_is_a_new_revision_with_the_old_content(registry: Registry) -> None:
    first = submit(registry, grid_document()).record
    registry.change("acme", add_bot("b2"), cause=CAUSE, **OURS)
    back = registry.rollback("acme", 1, cause=Cause("rollback", "to 1", "alice"), **OURS)
    assert (back.changed, back.record.revision) == (True, 3)
    assert back.record.document == first.document
    assert registry.history("acme")[-1].cause.kind == "rollback"


def test_a_rollback_to_what_is_there_changes_nothing(registry: Registry) -> None:
    submit(registry, grid_document())
    assert not registry.rollback("acme", 1, cause=CAUSE, **OURS).changed


def test_a_rollback_to_a_revision_that_is_not_there_is_refused(registry: Registry) -> None:
    submit(registry, grid_document())
    for revision in (0, 2, -1, 1 << 80):
        with pytest.raises(UnknownTenantError, match=f"no revision {revision}; it has 1 to 1"):
            registry.rollback("acme", revision, cause=CAUSE, **OURS)


def test_the_difference_of_two_revisions_reads_well_and_shows_no_ciphertext(registry: Registry) -> None:
    submit(registry, grid_document())
    fresh = connection(seed="fresh") | {"encrypted_api_secret": connection()["encrypted_api_secret"]}
    registry.change("acme", set_field("exchange_connections", [fresh]), cause=CAUSE, **OURS)
    registry.change("acme", set_field("state", "suspended"), cause=CAUSE, **OURS)
    assert registry.diff("acme", 2, 3).splitlines()[:2] == ["--- acme revision 2", "+++ acme revision 3"]
    assert {"-state: active", "+state: suspended"} <= set(registry.diff("acme", 2, 3).splitlines())
    credentials = registry.diff("acme", 1, 2)
    assert sum(line.lstrip("+ -").startswith("encrypted_api_key: sha256:") for line in credentials.splitlines()) == 2
    everything = registry.diff("acme", 0, 3)
    assert "+tenant: acme" in everything
    salt = registry.get("acme").document["salt"]
    for seed in ("acme", "fresh"):
        for secret in (encrypted_text(f"{seed} key"), nonce_text(f"{seed} key"), salt):
            assert secret not in credentials + everything
    assert registry.diff("acme", 3, 3) == ""


def test_reading_an_unknown_tenant_says_so(registry: Registry) -> None:
    for read in (registry.get, registry.history, lambda name: registry.document_at(name, 1)):
        with pytest.raises(UnknownTenantError, match="no tenant 'nobody'"):
            read("nobody")
        for nonsense in ("x\0", "\ud800", "x" * 99, ""):
            with pytest.raises(UnknownTenantError):
                read(nonsense)
    with pytest.raises(UnknownTenantError):
        registry.change("nobody", dict, cause=CAUSE, **OURS)


# --- listings --------------------------------------------------------------------------------------------------------


def test_a_listing_has_the_columns_that_groups_are_made_of(registry: Registry) -> None:
    submit(registry, document(tenant="blue", placement={"ring": "early"}))
    submit(registry, grid_document())
    assert [tuple(summary) for summary in registry.list()] == [
        ("acme", "edge_2", "pro", "active", "2026.09", "stable", 1, 0),
        ("blue", "edge_1", "pro", "active", "2026.09", "early", 1, 0),
    ]
    assert [summary.tenant for summary in registry.list(only=["blue", "nobody", "x' OR 1=1"])] == ["blue"]
    assert registry.list(only=[]) == registry.list(only=["x\0", "\ud800"]) == ()
    assert list(registry.records(["blue", "acme", "nobody"])) == ["acme", "blue"]
    assert registry.records(["acme"])["acme"] == registry.get("acme")


def test_the_tenants_that_are_behind_are_a_query(registry: Registry) -> None:
    for name in ("acme", "blue"):
        submit(registry, document(tenant=name))
    apply(registry, "acme", 1)
    assert [summary.tenant for summary in registry.behind()] == ["blue"]
    registry.change("acme", set_field("state", "suspended"), cause=CAUSE, **OURS)
    assert [summary.tenant for summary in registry.behind()] == ["acme", "blue"]
    assert [summary.tenant for summary in registry.behind(only=["acme"])] == ["acme"]


def test_that_query_uses_its_index(tmp_path: Path) -> None:
    Registry(f"sqlite:///{tmp_path}/r.db")
    query = "EXPLAIN QUERY PLAN SELECT tenant FROM tenants WHERE applied_revision < revision ORDER BY tenant"
    with sqlite3.connect(tmp_path / "r.db") as connection_:
        assert "tenants_behind" in str(connection_.execute(query).fetchall())


def test_listing_more_tenants_than_a_statement_has_parameters(registry: Registry) -> None:
    submit(registry, grid_document())
    assert len(registry.list(only=[f"t{number}" for number in range(2000)] + ["acme"])) == 1


# --- leases and outcomes ---------------------------------------------------------------------------------------------

A, B = "host-a:1:boot/1", "host-b:2:boot/2"


@pytest.fixture
def tenants(registry: Registry) -> list[str]:
    names = ["acme", "blue", "coral"]
    for name in names:
        submit(registry, document(tenant=name))
    return names


def take(registry: Registry, tenant: str, holder: str, ttl_seconds: float = 60) -> Lease | None:
    return registry.acquire_leases([tenant], holder=holder, ttl_seconds=ttl_seconds)[tenant]


def fence_of(lease: Lease | None) -> int:
    assert lease is not None
    return lease.fence


def test_a_lease_is_held_by_one(registry: Registry, tenants: list[str], clock: Clock) -> None:
    lease = take(registry, "acme", A)
    assert lease == Lease("acme", 1, A, clock(), clock() + 60)
    assert take(registry, "acme", B) is None
    assert registry.leases() == {"acme": lease}
    assert lease is not None
    assert lease.describe() == (
        "tenant acme is being worked on by process 1 on host-a since 2027-01-15T08:00:00.000Z "
        "(its lease ends at 2027-01-15T08:01:00.000Z unless renewed)"
    )


def test_what_is_free_is_given_beside_what_is_not(registry: Registry, tenants: list[str]) -> None:
    take(registry, "blue", A)
    leases = registry.acquire_leases(tenants, holder=B, ttl_seconds=60)
    assert {tenant: bool(lease) for tenant, lease in leases.items()} == {"acme": True, "blue": False, "coral": True}


def test_the_fence_grows_with_every_new_holder(registry: Registry, tenants: list[str], clock: Clock) -> None:
    assert fence_of(take(registry, "acme", A)) == 1
    registry.release_leases({"acme": 1})
    assert registry.leases() == {}
    assert fence_of(take(registry, "acme", B)) == 2
    clock.seconds += 60  # it ran out
    assert fence_of(take(registry, "acme", A)) == 3
    registry.release_leases({"acme": 2})  # a late release of the former holder
    assert take(registry, "acme", B) is None


def test_acquiring_again_renews(registry: Registry, tenants: list[str], clock: Clock) -> None:
    take(registry, "acme", A)
    clock.seconds += 50
    again = take(registry, "acme", A)
    assert (fence_of(again), again and again.expires_at) == (1, clock() + 60)


def test_renewal_prolongs_what_was_not_lost(registry: Registry, tenants: list[str], clock: Clock) -> None:
    for tenant in tenants:
        take(registry, tenant, A)
    registry.release_leases({"blue": 1})
    clock.seconds += 61
    take(registry, "coral", B)
    renewed = registry.renew_leases(dict.fromkeys(tenants, 1), ttl_seconds=60)
    assert {tenant: bool(lease) for tenant, lease in renewed.items()} == {"acme": True, "blue": False, "coral": False}
    assert registry.leases()["acme"].expires_at == clock() + 60
    assert registry.leases()["coral"].holder == B


def test_waiting_ends_when_the_lease_is_released(registry: Registry, tenants: list[str]) -> None:
    take(registry, "blue", A)
    waits: list[float] = []
    told: list[str] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        # Nothing behind the missing one is held while waiting: two waiting runs cannot block each other.
        assert set(registry.leases()) == {"acme", "blue"}
        if len(waits) == 3:
            registry.release_leases({"blue": 1})

    leases = registry.acquire_leases(
        tenants,
        holder=B,
        ttl_seconds=60,
        wait_seconds=30,
        sleep=sleep,
        on_wait=lambda lease: told.append(lease.describe()),
    )
    assert all(leases.values())
    assert len(waits) == 3
    assert [text.partition(" since")[0] for text in told] == ["tenant blue is being worked on by process 1 on host-a"]


def test_waiting_ends_after_its_time_with_what_is_free(registry: Registry, tenants: list[str]) -> None:
    take(registry, "acme", A)
    waits: list[float] = []
    leases = registry.acquire_leases(tenants, holder=B, ttl_seconds=60, wait_seconds=1.2, sleep=waits.append)
    assert sum(waits) == pytest.approx(1.2)
    assert {tenant: bool(lease) for tenant, lease in leases.items()} == {"acme": False, "blue": True, "coral": True}


def test_an_unknown_tenant_has_no_lease(registry: Registry, tenants: list[str]) -> None:
    with pytest.raises(UnknownTenantError, match="nobody"):
        registry.acquire_leases(["acme", "nobody"], holder=A, ttl_seconds=60)
    assert registry.leases() == {}


def test_a_lease_of_a_dead_process_of_this_host_is_taken_at_once(registry: Registry, tenants: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = process_holder(process.pid)
        take(registry, "acme", holder)
        assert take(registry, "acme", B) is None
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead enough
        assert fence_of(take(registry, "acme", B)) == 2


def test_only_a_process_that_is_certainly_gone_counts_as_dead() -> None:
    ours = process_holder()
    host, pid, start = ours.split(":", 2)
    boot, _slash, ticks = start.rpartition("/")
    assert not holder_is_dead(ours)
    assert holder_is_dead(f"{host}:{pid}:{boot}/{int(ticks) + 1}")  # the process id is used again
    assert not holder_is_dead(f"{host}:{pid}:another-boot/1/{ticks}")
    assert not holder_is_dead(f"another-{host}:{pid}:{boot}/{int(ticks) + 1}")
    for nonsense in ("", "x", "a:b:c", f"{host}:{pid}", f"{host}:{pid}:"):
        assert not holder_is_dead(nonsense)


def test_an_outcome_is_recorded_under_a_valid_fence(registry: Registry, tenants: list[str], clock: Clock) -> None:
    fence = fence_of(take(registry, "acme", A))
    outcome = {"bots": {"b1": {"state": "running", "health": "trading"}}, "failure": None}
    assert registry.record_outcome("acme", revision=1, fence=fence, applied=True, outcome=outcome)
    record = registry.get("acme")
    assert record.applied_revision == 1
    assert record.outcome == outcome | {"revision": 1, "applied": True, "at": "2027-01-15T08:00:00.000Z"}


def test_a_failure_is_recorded_and_leaves_the_tenant_behind(registry: Registry, tenants: list[str]) -> None:
    fence = fence_of(take(registry, "acme", A))
    assert registry.record_outcome("acme", revision=1, fence=fence, applied=False, outcome={"failure": "no image"})
    record = registry.get("acme")
    assert record.applied_revision == 0
    assert record.outcome is not None
    assert record.outcome["failure"] == "no image"


def test_an_outcome_of_an_older_revision_leaves_the_tenant_behind(registry: Registry, tenants: list[str]) -> None:
    fence = fence_of(take(registry, "acme", A))
    registry.change("acme", set_field("state", "suspended"), cause=CAUSE, **OURS)
    assert registry.record_outcome("acme", revision=1, fence=fence, applied=True, outcome={})
    assert "acme" in [summary.tenant for summary in registry.behind()]


@pytest.mark.parametrize("lost", ["taken", "released", "never had"])
def test_a_run_that_lost_its_lease_writes_nothing(
    registry: Registry, tenants: list[str], clock: Clock, lost: str
) -> None:
    if lost != "never had":
        take(registry, "acme", A)
    if lost == "released":
        registry.release_leases({"acme": 1})
    if lost == "taken":
        clock.seconds += 61
        take(registry, "acme", B)
    assert not registry.record_outcome("acme", revision=1, fence=1, applied=True, outcome={})
    assert (registry.get("acme").applied_revision, registry.get("acme").outcome) == (0, None)


def test_an_outcome_of_a_revision_that_is_not_there_is_refused(registry: Registry, tenants: list[str]) -> None:
    fence = fence_of(take(registry, "acme", A))
    for revision in (0, 2):
        with pytest.raises(RegistryError, match=f"no revision {revision}"):
            registry.record_outcome("acme", revision=revision, fence=fence, applied=True, outcome={})


# --- forgetting ------------------------------------------------------------------------------------------------------


def test_a_terminated_tenant_keeps_everything_until_it_is_forgotten(registry: Registry) -> None:
    old = submit(registry, grid_document()).record.document
    terminate(registry, "acme")
    assert [entry.revision for entry in registry.history("acme")] == [1, 2]
    other = submit(registry, document(tenant="blue")).record.document
    assert other["subnet"] != old["subnet"]
    registry.forget("acme")
    with pytest.raises(UnknownTenantError):
        registry.get("acme")
    with pytest.raises(UnknownTenantError):
        registry.history("acme")
    third = submit(registry, document(tenant="coral", subdomain="acme")).record.document
    assert third["subnet"] == old["subnet"]
    assert third["uid"] not in (old["uid"], other["uid"])
    with pytest.raises(DocumentError):  # its ciphertexts stay its own
        submit(registry, document(tenant="dune", exchange_connections=[connection(seed="acme")]))


def test_a_forgotten_tenant_that_comes_back_is_new_but_for_its_user_id_and_fence(registry: Registry) -> None:
    old = submit(registry, grid_document()).record.document
    terminate(registry, "acme")
    registry.forget("acme")
    new = submit(registry, grid_document()).record
    assert (new.revision, new.document["uid"]) == (1, old["uid"])
    assert new.document["salt"] != old["salt"]
    assert fence_of(take(registry, "acme", A)) == 2


def test_only_an_applied_removal_can_be_forgotten(registry: Registry) -> None:
    submit(registry, grid_document())
    with pytest.raises(RegistryError, match="it is active and revision 0 of 1 is applied"):
        registry.forget("acme")
    terminate(registry, "acme", applied=False)
    with pytest.raises(RegistryError, match="it is terminated and revision 0 of 2 is applied"):
        registry.forget("acme")


def test_a_tenant_that_somebody_works_on_is_not_forgotten(registry: Registry) -> None:
    submit(registry, grid_document())
    terminate(registry, "acme")
    fence = fence_of(take(registry, "acme", A))
    with pytest.raises(LeaseError, match="host-a"):
        registry.forget("acme")
    registry.forget("acme", fence=fence)
    assert registry.list() == ()


# --- many writers ----------------------------------------------------------------------------------------------------


def run_together(function: Callable[..., None], arguments: list[tuple[Any, ...]]) -> None:
    """Runs ``function`` in one process per entry, all starting at the same moment."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(arguments))
    processes = [context.Process(target=function, args=(barrier, *entry)) for entry in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def write_changes(barrier: Any, url: str, tenant: str, bot: str, times: int) -> None:
    """Asks ``times`` times for a restart of ``bot``."""
    barrier.wait()
    registry = Registry(url)
    for number in range(1, times + 1):

        def change(data: dict[str, Any]) -> dict[str, Any]:
            next(entry for entry in data["bots"] if entry["id"] == bot)["restarts"] += 1
            return data

        registry.change(tenant, change, cause=Cause("event", f"{bot} {number}"), **OURS)


def write_tenant(barrier: Any, url: str, tenant: str) -> None:
    barrier.wait()
    Registry(url).submit(document(tenant=tenant), cause=CAUSE, **OURS)


def take_lease(barrier: Any, url: str, name: str, folder: str) -> None:
    barrier.wait()
    leases = Registry(url).acquire_leases(["acme"], holder=f"host-{name}:1:x/y", ttl_seconds=600)
    (Path(folder) / name).write_text(json.dumps(bool(leases["acme"])))


def restarts(registry: Registry, tenant: str) -> dict[str, int]:
    return {bot["id"]: bot["restarts"] for bot in registry.get(tenant).document["bots"]}


def test_concurrent_changes_of_one_tenant_are_all_there(url: str) -> None:
    registry = Registry(url)
    bots = ["b1", "b2", "b3", "b4"]
    submit(registry, document(bots=[grid_bot(id=bot) for bot in bots]))
    run_together(write_changes, [(url, "acme", bot, 4) for bot in bots * 2])
    assert restarts(registry, "acme") == dict.fromkeys(bots, 8)
    history = registry.history("acme")
    assert [entry.revision for entry in history] == list(range(1, 34))
    assert sorted(entry.cause.text for entry in history[1:]) == sorted(
        f"{bot} {number}" for bot in bots * 2 for number in range(1, 5)
    )


def test_concurrent_changes_of_several_tenants_are_all_there(url: str) -> None:
    registry = Registry(url)
    names = ["acme", "blue", "coral"]
    for name in names:
        submit(registry, document(tenant=name, bots=[grid_bot(id="b1"), grid_bot(id="b2")]))
    run_together(write_changes, [(url, name, bot, 3) for name in names for bot in ("b1", "b2", "b1")])
    for name in names:
        assert restarts(registry, name) == {"b1": 6, "b2": 3}
        assert [entry.revision for entry in registry.history(name)] == list(range(1, 11))


def test_tenants_that_are_made_at_the_same_moment_in_a_new_registry_share_nothing(url: str) -> None:
    names = [f"tenant{number}x" for number in range(10)]
    run_together(write_tenant, [(url, name) for name in names])
    stored = [record.document for record in Registry(url).records(names).values()]
    assert len(stored) == 10
    assert {data["subnet"] for data in stored} == {
        f"10.90.{number // 8}.{number % 8 * 32}/27" for number in range(1, 11)
    }
    assert {data["uid"] for data in stored} == set(range(200000, 200010))
    assert sorted(data["placement"]["node"] for data in stored) == ["edge_1"] * 5 + ["edge_2"] * 5


def test_one_of_many_gets_the_lease(url: str, tmp_path: Path) -> None:
    registry = Registry(url)
    submit(registry, document())
    folder = tmp_path / "answers"
    folder.mkdir()
    run_together(take_lease, [(url, f"n{number}", str(folder)) for number in range(8)])
    assert sorted(json.loads(file.read_text()) for file in folder.iterdir()) == [False] * 7 + [True]


def test_a_writer_that_dies_in_the_middle_leaves_nothing_half_done(url: str) -> None:
    registry = Registry(url)
    submit(registry, document())

    def die(barrier: Any) -> None:
        barrier.wait()

        def change(data: dict[str, Any]) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGKILL)
            return data

        Registry(url).change("acme", change, cause=CAUSE, **OURS)

    context = multiprocessing.get_context("fork")
    process = context.Process(target=die, args=(context.Barrier(1),))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert registry.change("acme", set_field("state", "suspended"), cause=CAUSE, **OURS).record.revision == 2


@pytest.mark.parametrize("table", ["subnet", "uid", "subdomain"])
def test_the_database_itself_refuses_to_give_one_value_twice(registry: Registry, table: str) -> None:
    submit(registry, document())
    with registry.transaction() as connection_:
        value = connection_.execute(
            sa.select(module._allocations.c.value).where(module._allocations.c.kind == table)
        ).scalar_one()
    with pytest.raises(RegistryError, match=r"(?i)unique"), registry.transaction(write=True) as connection_:
        connection_.execute(module._allocations.insert().values(kind=table, value=value, tenant="blue"))


# --- the database ----------------------------------------------------------------------------------------------------


def test_sqlite_is_durable_private_and_waits_for_others(tmp_path: Path) -> None:
    path = tmp_path / "var" / "r.db"
    registry = Registry(f"sqlite:///{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with registry.transaction() as connection_:
        pragmas = {
            name: connection_.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30000, "foreign_keys": 1}


def test_a_registry_that_is_not_there_is_known_without_making_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/var/r.db"
    assert not registry_exists(url)
    assert not (tmp_path / "var").exists()
    Registry(url)
    assert registry_exists(url)


def test_an_older_schema_is_brought_forward_step_by_step(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(Registry(url), document())

    def first(connection_: sa.Connection) -> None:
        connection_.execute(sa.text("ALTER TABLE tenants ADD COLUMN colour VARCHAR(8)"))

    def second(connection_: sa.Connection) -> None:
        connection_.execute(sa.text("UPDATE tenants SET colour = 'blue'"))

    version = module.SCHEMA_VERSION
    monkeypatch.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 2)
    monkeypatch.setattr(module, "MIGRATIONS", {version: first, version + 1: second})
    for _again in range(2):
        registry = Registry(url)
        assert registry.get("acme").revision == 1
    with registry.transaction() as connection_:
        assert connection_.execute(sa.text("SELECT colour FROM tenants")).scalar_one() == "blue"
        assert connection_.execute(sa.text("SELECT version FROM schema_version")).scalar_one() == version + 2


def test_a_registry_of_the_first_schema_gets_the_tables_for_events(url: str) -> None:
    registry = Registry(url)
    submit(registry, document())
    new = {"events", "work", "bots", "duties", "callbacks", "tokens", "signals", "signal_tokens"}
    with registry.transaction(write=True) as connection_:
        for name in new:
            connection_.execute(sa.text(f"DROP TABLE {name}"))
        connection_.execute(module.schema_version.update().values(version=1))
    registry = Registry(url)
    assert registry.get("acme").revision == 1
    assert new <= set(sa.inspect(registry._engine).get_table_names())


def test_a_registry_of_the_second_schema_gets_the_tables_for_signals(url: str) -> None:
    registry = Registry(url)
    submit(registry, document())
    new = {"signals", "signal_tokens"}
    with registry.transaction(write=True) as connection_:
        for name in new:
            connection_.execute(sa.text(f"DROP TABLE {name}"))
        connection_.execute(module.schema_version.update().values(version=2))
    registry = Registry(url)
    assert registry.get("acme").revision == 1
    assert new <= set(sa.inspect(registry._engine).get_table_names())


def test_a_failing_migration_leaves_the_older_schema(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(url)

    def broken(connection_: sa.Connection) -> None:
        connection_.execute(sa.text("ALTER TABLE tenants ADD COLUMN colour VARCHAR(8)"))
        connection_.execute(sa.text("SELECT nonsense"))

    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", {module.SCHEMA_VERSION: broken})
        patch.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 1)
        with pytest.raises(RegistryError):
            Registry(url)
    registry = Registry(url)
    assert "colour" not in {column["name"] for column in sa.inspect(registry._engine).get_columns("tenants")}


def test_a_newer_schema_is_refused_clearly(url: str) -> None:
    registry = Registry(url)
    with registry.transaction(write=True) as connection_:
        connection_.execute(module.schema_version.update().values(version=99))
    with pytest.raises(RegistryError, match=r"newer Hummingfleet \(schema 99, this one knows \d+\); update"):
        Registry(url)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_damaged_file_is_reported_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"r\.db is damaged or no registry .*; restore it from a backup"):
        Registry(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_registry_that_is_kept_locked_is_reported_in_words(url: str) -> None:
    submit(Registry(url), document())
    with Registry(url).transaction(write=True), pytest.raises(RegistryError, match="is busy"):
        submit(Registry(url, busy_seconds=0.1), document(state="suspended"))


def test_a_place_where_no_file_can_be_is_reported_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="cannot be created"):
        Registry(f"sqlite:///{tmp_path}/file/r.db")


@pytest.mark.parametrize("url", ["nonsense", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@127.0.0.1:1/d"])
def test_a_database_that_cannot_be_used_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


# --- a catalogue that changed ----------------------------------------------------------------------------------------


def without(catalogue_: Any, **changes: Any) -> Any:
    """The catalogue of today with other parts."""
    return dataclasses.replace(catalogue_, **changes)


def delisted() -> Any:
    """A catalogue in which Binance lost all of its pairs but one."""
    binance = catalogue().exchanges["binance"]
    kept = {name: pair for name, pair in binance.pairs.items() if name == "ETH-USDT"}
    return without(catalogue(), exchanges={**catalogue().exchanges, "binance": replace(binance, pairs=kept)})


def test_a_bot_whose_pair_was_delisted_can_still_be_stopped(registry: Registry) -> None:
    submit(registry, grid_document(bots=[grid_bot(id="b1"), grid_bot(id="b2")]))

    def stop(data: dict[str, Any]) -> dict[str, Any]:
        data["bots"] = [{**data["bots"][1], "state": "stopped"}]
        return data

    record = registry.change("acme", stop, cause=CAUSE, fleet=FLEET, catalogue=delisted()).record
    assert [(bot["id"], bot["state"]) for bot in record.document["bots"]] == [("b2", "stopped")]


def test_what_the_catalogue_lost_cannot_be_chosen_anew(registry: Registry) -> None:
    submit(registry, grid_document(bots=[grid_bot(id="b1", trading_pair="ETH-USDT")]))

    def choose(data: dict[str, Any]) -> dict[str, Any]:
        data["bots"][0]["trading_pair"] = "BTC-USDT"
        return data

    with pytest.raises(DocumentError, match="/bots/0/trading_pair"):
        registry.change("acme", choose, cause=CAUSE, fleet=FLEET, catalogue=delisted())


def test_another_bot_cannot_have_what_one_may_keep(registry: Registry) -> None:
    submit(registry, grid_document(bots=[grid_bot(id="b1")]))
    with pytest.raises(DocumentError) as caught:
        registry.change("acme", add_bot("b2"), cause=CAUSE, fleet=FLEET, catalogue=delisted())
    assert {fault.pointer for fault in caught.value.faults} == {"/bots/1/trading_pair"}


def test_a_tenant_whose_plan_left_the_catalogue_can_be_suspended_and_keeps_its_memory(registry: Registry) -> None:
    submit(registry, grid_document())
    before = registry.reserved_memory()
    plans = {name: plan for name, plan in catalogue().plans.items() if name != registry.get("acme").document["plan"]}
    suspended = registry.change(
        "acme",
        lambda data: {**data, "state": "suspended"},
        cause=CAUSE,
        fleet=FLEET,
        catalogue=without(catalogue(), plans=plans),
    )
    assert suspended.record.document["state"] == "suspended"
    assert registry.reserved_memory() == before
