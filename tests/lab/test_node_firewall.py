"""The firewall's program, in a network namespace of its own: what it refuses, lets pass, finds altered and removes."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

pytestmark = pytest.mark.lab

ROLE = Path(__file__).resolve().parents[2] / "roles" / "node_base"
POOL = "10.90.0.0/16"


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done


@dataclass
class Node:
    """A network namespace that stands for a node, and the firewall's program rendered for it."""

    namespace: str
    program: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("ip", "netns", "exec", self.namespace, *command, check=check)

    def firewall(self, action: str) -> int:
        return self.run(str(self.program), action, check=False).returncode

    def rules(self) -> list[str]:
        return self.run("iptables", "-S").stdout.splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    environment = Environment(loader=FileSystemLoader(ROLE / "templates"), autoescape=False)
    environment.filters |= {
        "comment": lambda text: f"# {text}",
        "quote": lambda text: f"'{text}'",
        "regex_replace": lambda text, *_: text if "/" in text else f"{text}/32",
    }
    program = tmp_path / "firewall"
    program.write_text(
        environment.get_template("hummingfleet-firewall.j2").render(
            ansible_managed="test",
            node_base_tenant_pool=POOL,
            node_base_denied_networks=["169.254.0.0/16", "198.51.100.7"],
        )
    )
    program.chmod(0o755)
    namespace = f"hf-test-{uuid.uuid4().hex[:6]}"
    run("ip", "netns", "add", namespace)
    try:
        yield Node(namespace, program)
    finally:
        run("ip", "netns", "del", namespace)


def test_applied_rules_are_found_complete_and_a_second_time_changes_nothing(node: Node) -> None:
    assert node.firewall("check") != 0
    assert node.firewall("apply") == 0
    before = node.rules()
    assert node.firewall("check") == 0
    assert node.firewall("apply") == 0
    assert node.rules() == before
    assert f"-A INPUT -s {POOL} -j HUMMINGFLEET-NODE" in before
    assert "-A HUMMINGFLEET-OTHERS -d 198.51.100.7/32 -p tcp -j REJECT --reject-with tcp-reset" in before


@pytest.mark.parametrize(
    "alteration",
    [
        ("-D", "HUMMINGFLEET-NODE", "2"),
        ("-F", "HUMMINGFLEET-OTHERS"),
        ("-I", "HUMMINGFLEET-NODE", "1", "-j", "ACCEPT"),
        ("-I", "INPUT", "1", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"),
        ("-I", "DOCKER-USER", "1", "-j", "RETURN"),
        ("-D", "INPUT", "1"),
    ],
    ids=" ".join,
)
def test_an_alteration_by_hand_is_found_and_repaired(node: Node, alteration: tuple[str, ...]) -> None:
    node.firewall("apply")
    node.run("iptables", *alteration)
    assert node.firewall("check") != 0
    assert node.firewall("apply") == 0
    assert node.firewall("check") == 0


def test_another_fleet_on_the_machine_is_no_alteration(node: Node) -> None:
    node.firewall("apply")
    node.run("iptables", "-N", "OTHERFLEET-NODE")
    node.run("iptables", "-I", "INPUT", "1", "-s", "10.91.0.0/16", "-j", "OTHERFLEET-NODE")
    assert node.firewall("check") == 0


def test_a_changed_pool_leaves_no_rule_of_the_old_one(node: Node) -> None:
    node.firewall("apply")
    node.program.write_text(node.program.read_text().replace(POOL, "10.80.0.0/16"))
    assert node.firewall("check") != 0
    node.firewall("apply")
    assert node.firewall("check") == 0
    assert not [rule for rule in node.rules() if POOL in rule]


def test_removal_leaves_other_rules_alone(node: Node) -> None:
    node.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    before = set(node.rules())
    node.firewall("apply")
    assert node.firewall("remove") == 0
    assert set(node.rules()) - before == {"-N DOCKER-USER"}


def reaches(node: Node, source: str, address: str, port: int) -> bool:
    """Tell whether a connection from a source address to a listener succeeds inside the namespace."""
    script = (
        "import socket,sys\n"
        "server=socket.create_server((sys.argv[2],int(sys.argv[3])))\n"
        "try: socket.create_connection((sys.argv[2],int(sys.argv[3])),5,(sys.argv[1],0))\n"
        "except ConnectionRefusedError: sys.exit(9)\n"
    )
    code = node.run("python3", "-c", script, source, address, str(port), check=False).returncode
    assert code in (0, 9)
    return code == 0


def test_tenants_do_not_reach_the_node_and_others_do(node: Node) -> None:
    node.run("ip", "link", "set", "lo", "up")
    for address in ("10.90.0.2/32", "192.0.2.10/32", "192.0.2.11/32"):
        node.run("ip", "addr", "add", address, "dev", "lo")
    assert reaches(node, "10.90.0.2", "192.0.2.10", 2222), "without rules the probe succeeds"
    node.firewall("apply")
    assert not reaches(node, "10.90.0.2", "192.0.2.10", 2222)
    assert reaches(node, "192.0.2.11", "192.0.2.10", 2222)
    # What the node starts towards a tenant is answered.
    assert reaches(node, "192.0.2.10", "10.90.0.2", 2222)
