"""The fleet file: what is accepted, and for every rule a refused value next to an accepted one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import (
    Fleet,
    FleetError,
    default_fleet_path,
    load_fleet,
    parse_fleet,
)

REPOSITORY = Path(__file__).resolve().parents[4]
MINIMUM: dict[str, Any] = {"plugin": "hummingfleet.core.tenants", "nodes": {"local": {"memory_mib": 1024}}}


def write(folder: Path, data: object) -> Path:
    path = folder / "fleet.tenants.yml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def refusal(data: object) -> str:
    with pytest.raises(FleetError) as caught:
        parse_fleet(data, Path("/fleets/fleet.tenants.yml"))
    return str(caught.value)


@pytest.mark.parametrize("environment", ["local", "example"])
def test_the_files_of_the_repository_are_accepted(environment: str) -> None:
    fleet = load_fleet(REPOSITORY / "inventories" / environment / "fleet.tenants.yml")
    assert fleet.root == REPOSITORY
    assert fleet.catalogue == REPOSITORY / "catalogue"


def test_the_local_file_says_what_the_defaults_say(tmp_path: Path) -> None:
    local = load_fleet(REPOSITORY / "inventories" / "local" / "fleet.tenants.yml")
    default = parse_fleet(MINIMUM | {"nodes": {"local": {"memory_mib": 1}}}, local.path)
    for name in {setting.name for setting in fields(Fleet)} - {"path", "root", "nodes"}:
        assert getattr(local, name) == getattr(default, name)


def test_relative_paths_start_from_the_folder_with_ansible_cfg(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").touch()
    folder = tmp_path / "inventories" / "x"
    folder.mkdir(parents=True)
    keyring = {"ansible_vault": "secrets/keys.yml", "password_file": "/etc/vault"}
    fleet = load_fleet(write(folder, MINIMUM | {"registry": "var/a.db", "keyring": keyring}))
    assert fleet.registry == f"sqlite:///{tmp_path}/var/a.db"
    assert fleet.catalogue == tmp_path / "catalogue"
    assert fleet.keyring == {"ansible_vault": f"{tmp_path}/secrets/keys.yml", "password_file": "/etc/vault"}


def test_without_ansible_cfg_they_start_from_the_files_own_folder(tmp_path: Path) -> None:
    fleet = load_fleet(write(tmp_path, MINIMUM))
    assert fleet.registry == f"sqlite:///{tmp_path}/var/hummingfleet.db"


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUMMINGFLEET_FLEET", raising=False)
    assert default_fleet_path() == REPOSITORY / "inventories" / "local" / "fleet.tenants.yml"
    path = write(tmp_path, MINIMUM | {"kdf_iterations": 7})
    monkeypatch.setenv("HUMMINGFLEET_FLEET", str(path))
    assert load_fleet().kdf_iterations == 7


def test_a_node_has_memory_labels_and_connection_variables() -> None:
    node = {"ansible_host": "192.0.2.1", "ansible_port": 2222, "memory_mib": 4096, "labels": {"region": "tokyo"}}
    fleet = parse_fleet(MINIMUM | {"nodes": {"edge_1": node}}, Path("/fleets/fleet.tenants.yml"))
    assert fleet.nodes["edge_1"].memory_mib == 4096
    assert fleet.nodes["edge_1"].labels == {"region": "tokyo"}
    assert fleet.nodes["edge_1"].variables == {"ansible_host": "192.0.2.1", "ansible_port": 2222}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ansible_connection": "local"}, "127.0.0.1"),
        ({"ansible_host": "192.0.2.1"}, "192.0.2.1"),
        ({"ansible_host": "edge.example.com"}, None),
        ({}, None),
        ({"ansible_host": "edge.example.com", "broker_address": "192.0.2.9"}, "192.0.2.9"),
        ({"ansible_connection": "local", "broker_address": "192.0.2.9"}, "192.0.2.9"),
    ],
)
def test_a_nodes_broker_is_at_the_nodes_own_address(settings: dict[str, object], expected: str | None) -> None:
    fleet = parse_fleet(MINIMUM | {"nodes": {"edge_1": {"memory_mib": 1, **settings}}}, Path("/f/x"))
    assert fleet.nodes["edge_1"].broker_address == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("var/a.db", "sqlite:////fleets/var/a.db"),
        ("/srv/a.db", "sqlite:////srv/a.db"),
        ("../a.db", "sqlite:////a.db"),
        ("sqlite:///var/a.db", "sqlite:////fleets/var/a.db"),
        ("sqlite:////srv/a.db", "sqlite:////srv/a.db"),
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg://u@h/d?sslmode=verify-full", "postgresql+psycopg://u@h/d?sslmode=verify-full"),
    ],
)
def test_the_registry_is_a_path_or_a_url(value: str, expected: str) -> None:
    assert parse_fleet(MINIMUM | {"registry": value}, Path("/fleets/fleet.tenants.yml")).registry == expected


@pytest.mark.parametrize(
    "value", ["mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "{{ root }}/a.db", "", 5, None, ["a"], "a\nb"]
)
def test_any_other_registry_is_refused_without_repeating_a_password(value: object) -> None:
    text = refusal(MINIMUM | {"registry": value})
    assert "/registry" in text
    assert "hunter2" not in text


def test_the_representation_holds_no_database_password() -> None:
    fleet = parse_fleet(MINIMUM | {"registry": "postgresql://u:hunter2@h/d"}, Path("/fleets/fleet.tenants.yml"))
    assert "hunter2" not in repr(fleet)


@pytest.mark.parametrize("value", ["10.90.0.0/16", "192.168.4.0/26", "172.16.0.0/12", "10.0.0.0/8"])
def test_a_private_network_is_a_pool(value: str) -> None:
    assert str(parse_fleet(MINIMUM | {"address_pool": value}, Path("/f/x")).address_pool) == value


@pytest.mark.parametrize(
    "value",
    [
        "10.90.0.1/16",
        "10.90.0.0/27",
        "8.8.8.0/24",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "0.0.0.0/0",
        "fd00::/8",
        "x",
        10,
        None,
    ],
)
def test_any_other_network_is_refused(value: object) -> None:
    assert "/address_pool" in refusal(MINIMUM | {"address_pool": value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plugin": "other"}, "/plugin: is 'other'; allowed: hummingfleet.core.tenants"),
        ({"nodez": {}}, "/nodez: is not a setting"),
        ({"images": "pull"}, "/images: is 'pull'; allowed: auto, registry or build"),
        ({"base_dir": "srv"}, "/base_dir: is 'srv'"),
        ({"base_dir": "/srv/../etc"}, "/base_dir"),
        ({"base_dir": "/srv/a b"}, "/base_dir"),
        ({"base_dir": "/"}, "/base_dir"),
        ({"uid_pool": [0, 100]}, "/uid_pool"),
        ({"uid_pool": [200001, 200000]}, "/uid_pool"),
        ({"uid_pool": ["200000", "200001"]}, "/uid_pool"),
        ({"uid_pool": 200000}, "/uid_pool"),
        ({"kdf_iterations": 0}, "/kdf_iterations: is 0"),
        ({"sandbox_container": "-rm"}, "/sandbox_container: is '-rm'"),
        ({"sandbox_container": "{{ x }}"}, "/sandbox_container: is '{{ x }}'"),
        ({"broker_container": "a b"}, "/broker_container: is 'a b'"),
        ({"broker_enabled": "yes"}, "/broker_enabled: is 'yes'; allowed: true or false"),
        ({"broker_port": 0}, "/broker_port: is 0"),
        ({"nodes": {"local": {"memory_mib": 1, "broker_address": "edge.example.com"}}}, "/nodes/local/broker_address"),
        ({"nodes": {"local": {"memory_mib": 1, "broker_address": "0.0.0.0"}}}, "/nodes/local/broker_address"),
        ({"kdf_iterations": True}, "/kdf_iterations: is True"),
        ({"catalogue": "{{ x }}"}, "/catalogue"),
        ({"keyring": {}}, "/keyring"),
        ({"keyring": {"file": "a", "hashicorp_vault": {}}}, "/keyring: has to name one source"),
        ({"keyring": {"file": "a", "passwort_file": "b"}}, "/keyring/passwort_file: is not a setting"),
        ({"nodes": {}}, "/nodes: names no node"),
        ({"nodes": ["local"]}, "/nodes: names no node"),
        ({"nodes": {"local": None}}, "/nodes/local: is None"),
        ({"nodes": {"local": {}}}, "/nodes/local/memory_mib: is None"),
        ({"nodes": {"local": {"memory_mib": 0}}}, "/nodes/local/memory_mib: is 0"),
        ({"nodes": {"local": {"memory_mib": "8G"}}}, "/nodes/local/memory_mib: is '8G'"),
        ({"nodes": {"local": {"memory_mib": 1, "labels": ["a"]}}}, "/nodes/local/labels"),
        ({"nodes": {"local": {"memory_mib": 1, "labels": {"a": 1}}}}, "/nodes/local/labels"),
        ({"nodes": {"local": {"memory_mib": 1, "colour": "red"}}}, "/nodes/local/colour: is not a setting of a node"),
        ({"nodes": {"local": {"memory_mib": 1, "ansible_host": ["a"]}}}, "/nodes/local/ansible_host"),
        ({"webhook": []}, "/webhook: is []"),
        ({"webhook": {"port": 1}}, "/webhook/port: is not a setting"),
        ({"webhook": {"parallel": 0}}, "/webhook/parallel: is 0; allowed: a whole number from 1 to 64"),
        ({"webhook": {"listen": "8642"}}, "/webhook/listen: is '8642'"),
        ({"webhook": {"listen": "example.com:1"}}, "/webhook/listen"),
        ({"webhook": {"worker_listen": "127.0.0.1:65536"}}, "/webhook/worker_listen"),
        ({"webhook": {"secrets": "{{ x }}"}}, "/webhook/secrets"),
        ({"webhook": {"trusted_proxies": "127.0.0.1"}}, "/webhook/trusted_proxies"),
        ({"webhook": {"portal_url": "http://portal.example.com/hooks"}}, "/webhook/portal_url: is no URL"),
        ({"webhook": {"portal_url": "ftp://127.0.0.1/hooks"}}, "/webhook/portal_url: is no URL"),
        ({"webhook": {"portal_url": "https://"}}, "/webhook/portal_url: is no URL"),
        ({"webhook": {"portal_url": "https://[x/"}}, "/webhook/portal_url: is no URL"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(change: dict[str, Any], words: str) -> None:
    assert words in refusal(MINIMUM | change)


@pytest.mark.parametrize(
    "node", ["Edge", "edge-1", "1edge", "tenant-acme", "a" * 33, "", "a b", "é", "{{x}}", 5, "a\n"]
)
def test_a_node_id_that_is_no_plain_name_is_refused(node: object) -> None:
    assert "is not a node id" in refusal(MINIMUM | {"nodes": {node: {"memory_mib": 1}}})


@pytest.mark.parametrize(
    "node", ["all", "nodes", "tenants", "ungrouped", "behind", "leads", "localhost", "node_a", "ring_a", "tenant_a"]
)
def test_a_node_id_that_groups_or_tenants_have_is_refused(node: str) -> None:
    assert "is a name that groups or tenants have" in refusal(MINIMUM | {"nodes": {node: {"memory_mib": 1}}})


@pytest.mark.parametrize("name", ["ansible_password", "ansible_ssh_pass", "ansible_become_password"])
def test_a_password_of_a_node_is_refused_without_repeating_it(name: str) -> None:
    text = refusal(MINIMUM | {"nodes": {"local": {"memory_mib": 1, name: "hunter2"}}})
    assert "passwords in a vault, belong into group_vars" in text
    assert "hunter2" not in text


def test_every_fault_is_named_at_once() -> None:
    text = refusal(MINIMUM | {"images": "x", "kdf_iterations": 0, "nodes": {"A": {"memory_mib": 0}}})
    for where in ("/images", "/kdf_iterations", "/nodes/A", "/nodes/A/memory_mib"):
        assert f"- {where}:" in text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FleetError, match=r"there is no fleet file .*/gone\.tenants\.yml; name one with HUMMINGFLEET_FLEET"
    ):
        load_fleet(tmp_path / "gone.tenants.yml")


@pytest.mark.parametrize(("text", "words"), [("a: [", "is not YAML"), ("", "no mapping"), ("- a", "no mapping")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FleetError, match=words):
        load_fleet(write(tmp_path, text))


def test_a_node_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = "plugin: hummingfleet.core.tenants\nnodes:\n  a: {memory_mib: 1}\n  a: {memory_mib: 2}\n"
    with pytest.raises(FleetError, match="the key 'a' is there twice"):
        load_fleet(write(tmp_path, text))


@pytest.mark.parametrize(
    "url", ["https://portal.example.com/hooks", "http://127.0.0.1:9000/x", "http://localhost/x", "http://[::1]:9/x"]
)
def test_call_backs_go_over_tls_or_stay_on_this_machine(url: str) -> None:
    fleet = parse_fleet(MINIMUM | {"webhook": {"portal_url": url}}, Path("/fleets/fleet.tenants.yml"))
    assert fleet.webhook.portal_url == url


def test_a_password_in_the_portals_url_is_refused_without_repeating_it() -> None:
    words = refusal(MINIMUM | {"webhook": {"portal_url": "https://portal:hunter2@example.com/"}})
    assert "/webhook/portal_url" in words
    assert "hunter2" not in words


def test_the_webhook_listens_where_it_is_told() -> None:
    settings = {"listen": "[::1]:80", "worker_listen": "0.0.0.0:81", "trusted_proxies": ["10.0.0.0/8", "::1"]}
    webhook = parse_fleet(MINIMUM | {"webhook": settings}, Path("/fleets/fleet.tenants.yml")).webhook
    assert webhook.listen == ("::1", 80)
    assert webhook.worker_listen == ("0.0.0.0", 81)
    assert [str(network) for network in webhook.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
