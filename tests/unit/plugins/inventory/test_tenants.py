"""The inventory plugin, in a fresh process through Ansible's own InventoryManager: hosts, groups, patterns, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, Registry

from tests.factories import catalogue, document

ROOT = Path(__file__).resolve().parents[4]
FLEET = """\
plugin: hummingfleet.core.tenants
registry: registry.db
base_dir: /opt/fleet
address_pool: 10.91.0.0/16
images: build
nodes:
  edge_1: {ansible_host: 192.0.2.11, ansible_port: 2222, memory_mib: 65536, labels: {region: tokyo}}
  edge_2: {ansible_host: "{{ lookup('pipe', 'id') }}", memory_mib: 65536, labels: {region: frankfurt}}
  edge_3: {ansible_host: 192.0.2.13, memory_mib: 1}
"""
DRIVER = """\
import json, sys
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

init_plugin_loader([])
loader = DataLoader()
inventory = InventoryManager(loader=loader, sources=[sys.argv[1]])
variables = VariableManager(loader=loader, inventory=inventory)
names = lambda hosts: sorted(host.name for host in hosts)
limited = {}
for limit in sys.argv[2:]:
    inventory.subset(limit)
    limited[limit] = names(inventory.get_hosts("tenants"))
inventory.subset(None)
hosts = {}
for host in inventory.get_hosts():
    own = host.get_vars()
    seen = Templar(loader=loader, variables=variables.get_vars(host=host)).template(own.get("ansible_host"))
    hosts[host.name] = own | {"templated_ansible_host": seen}
json.dump({
    "hosts": hosts,
    "groups": {name: names(group.get_hosts()) for name, group in inventory.groups.items()},
    "all": dict(inventory.groups["all"].vars),
    "limited": limited,
    "sqlalchemy": "sqlalchemy" in sys.modules,
    "pydantic": "pydantic" in sys.modules,
}, sys.stdout)
"""
PATTERNS = [
    "tenant-acme",
    "node_edge_2",
    "ring_early:&plan_pro",
    "tenants:!tenant-acme",
    "tenant-b*",
    "state_suspended",
]


def run(fleet: Path, *patterns: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "HUMMINGFLEET_"))}
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(fleet), *patterns],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"} | environment,
        check=False,
    )


def parse(fleet: Path, *patterns: str, **environment: str) -> dict[str, Any]:
    done = run(fleet, *patterns, **environment)
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def write_fleet(folder: Path, text: str = FLEET) -> Path:
    path = folder / "fleet.tenants.yml"
    path.write_text(text, encoding="utf-8")
    return path


def words(text: str) -> str:
    """The text without the line breaks that Ansible puts into messages."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def fleet_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_fleet(tmp_path_factory.mktemp("fleet"))
    fleet = load_fleet(path)
    registry = Registry(fleet.registry)
    for data in (
        document(tenant="acme"),
        document(tenant="blue", placement={"ring": "early"}),
        document(tenant="coral", plan="starter", placement={"ring": "early"}, state="suspended"),
    ):
        registry.submit(data, cause=Cause("test"), fleet=fleet, catalogue=catalogue())
    return path


@pytest.fixture(scope="module")
def parsed(fleet_path: Path) -> dict[str, Any]:
    return parse(fleet_path, *PATTERNS)


def test_tenants_and_nodes_are_hosts(parsed: dict[str, Any]) -> None:
    assert sorted(parsed["hosts"]) == ["edge_1", "edge_2", "edge_3", "tenant-acme", "tenant-blue", "tenant-coral"]


def test_tenants_are_in_their_groups(parsed: dict[str, Any]) -> None:
    groups = {name: hosts for name, hosts in parsed["groups"].items() if name not in ("all", "ungrouped")}
    assert groups == {
        "nodes": ["edge_1", "edge_2", "edge_3"],
        "tenants": ["tenant-acme", "tenant-blue", "tenant-coral"],
        "node_edge_1": ["tenant-acme", "tenant-coral"],
        "node_edge_2": ["tenant-blue"],
        "node_edge_3": [],
        "plan_pro": ["tenant-acme", "tenant-blue"],
        "plan_starter": ["tenant-coral"],
        "state_active": ["tenant-acme", "tenant-blue"],
        "state_suspended": ["tenant-coral"],
        "release_2026_09": ["tenant-acme", "tenant-blue", "tenant-coral"],
        "ring_stable": ["tenant-acme"],
        "ring_early": ["tenant-blue", "tenant-coral"],
    }
    assert parsed["groups"]["ungrouped"] == []


def test_a_tenant_has_three_variables_of_its_own(parsed: dict[str, Any]) -> None:
    ours = {name: value for name, value in parsed["hosts"]["tenant-blue"].items() if name.startswith("hummingfleet_")}
    assert ours == {"hummingfleet_tenant": "blue", "hummingfleet_node": "edge_2", "hummingfleet_revision": 1}


def test_a_node_has_its_connection_variables_and_the_fleets_settings(parsed: dict[str, Any], fleet_path: Path) -> None:
    node = parsed["hosts"]["edge_1"]
    assert (node["ansible_host"], node["ansible_port"]) == ("192.0.2.11", 2222)
    assert "memory_mib" not in node
    assert parsed["all"] == {
        "hummingfleet_fleet_path": str(fleet_path),
        "hummingfleet_base_dir": "/opt/fleet",
        "hummingfleet_images": "build",
        "hummingfleet_address_pool": "10.91.0.0/16",
        "hummingfleet_sandbox_container": "hf-sandbox",
        "hummingfleet_broker_enabled": True,
        "hummingfleet_broker_container": "hummingfleet-broker",
        "hummingfleet_broker_port": 8883,
    }
    addresses = [parsed["hosts"][name]["hummingfleet_broker_address"] for name in ("edge_1", "edge_2")]
    assert addresses == ["192.0.2.11", ""], "a name is no address to listen at"


def test_a_value_of_the_fleet_file_is_not_a_template(parsed: dict[str, Any]) -> None:
    assert parsed["hosts"]["edge_2"]["templated_ansible_host"] == "{{ lookup('pipe', 'id') }}"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("tenant-acme", ["tenant-acme"]),
        ("node_edge_2", ["tenant-blue"]),
        ("ring_early:&plan_pro", ["tenant-blue"]),
        ("tenants:!tenant-acme", ["tenant-blue", "tenant-coral"]),
        ("tenant-b*", ["tenant-blue"]),
        ("state_suspended", ["tenant-coral"]),
    ],
)
def test_a_limit_chooses_tenants(parsed: dict[str, Any], limit: str, expected: list[str]) -> None:
    assert parsed["limited"][limit] == expected


def test_parsing_does_not_load_what_only_writers_need(parsed: dict[str, Any]) -> None:
    assert not parsed["pydantic"]


@pytest.mark.parametrize("only", ["blue", "tenant-blue", "blue,coral"])
def test_only_reads_just_the_tenants_that_it_names(fleet_path: Path, only: str) -> None:
    groups = parse(fleet_path, HUMMINGFLEET_ONLY=only)["groups"]
    assert groups["tenants"] == ["tenant-blue", "tenant-coral"][: len(only.split(","))]
    assert groups["nodes"] == ["edge_1", "edge_2", "edge_3"]


def test_only_a_tenant_that_is_not_there_is_an_error(fleet_path: Path) -> None:
    done = run(fleet_path, HUMMINGFLEET_ONLY="blue,nobody")
    assert done.returncode != 0
    assert "the registry has no tenant nobody" in words(done.stderr)


def test_a_fleet_without_a_registry_has_its_nodes_and_makes_no_file(tmp_path: Path) -> None:
    parsed = parse(write_fleet(tmp_path))
    assert parsed["groups"]["nodes"] == ["edge_1", "edge_2", "edge_3"]
    assert parsed["groups"]["tenants"] == []
    assert [file.name for file in tmp_path.iterdir()] == ["fleet.tenants.yml"]


def test_a_damaged_registry_fails_loudly(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"no database at all" * 50)
    done = run(write_fleet(tmp_path))
    assert done.returncode != 0
    assert "registry.db is damaged or no registry" in words(done.stderr)
    assert "Completely failed to parse inventory source" in words(done.stderr)


def test_a_wrong_fleet_file_fails_loudly(tmp_path: Path) -> None:
    done = run(write_fleet(tmp_path, FLEET.replace("images: build", "images: somehow")))
    assert done.returncode != 0
    assert "/images: is 'somehow'; allowed: auto, registry or build" in words(done.stderr)


@pytest.mark.parametrize("arguments", [["--graph"], ["--list"], ["--host", "tenant-acme"]])
def test_ansible_inventory_shows_it(fleet_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(fleet_path), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "acme" in done.stdout
    assert "WARNING" not in done.stderr


def test_options_of_the_plugin_are_the_settings_of_the_fleet_file() -> None:
    import yaml
    from ansible_collections.hummingfleet.core.plugins.inventory import tenants
    from ansible_collections.hummingfleet.core.plugins.module_utils import fleet

    options = yaml.safe_load(tenants.DOCUMENTATION)["options"]
    assert set(options) == set(fleet._Reader.KEYS)
    example = next(yaml.safe_load_all(tenants.EXAMPLES))
    default = fleet.parse_fleet(example, Path("/fleets/fleet.tenants.yml"))
    written = {name: option["default"] for name, option in options.items() if "default" in option and name != "only"}
    assert fleet.parse_fleet(example | written, Path("/fleets/fleet.tenants.yml")) == default
