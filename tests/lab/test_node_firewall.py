"""The firewall's program, in a network namespace of its own: what it refuses, lets pass, finds altered and removes."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        both = (self.run("iptables", "-t", table, "-S").stdout.splitlines() for table in ("filter", "security"))
        return [rule for rules in both for rule in rules]


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
    assert f"-A FORWARD -s {POOL} -j HUMMINGFLEET-LAST" in before
    assert "-A HUMMINGFLEET-LAST -d 198.51.100.7/32 -j DROP" in before


@pytest.mark.parametrize(
    "alteration",
    [
        ("-D", "HUMMINGFLEET-NODE", "2"),
        ("-F", "HUMMINGFLEET-OTHERS"),
        ("-I", "HUMMINGFLEET-NODE", "1", "-j", "ACCEPT"),
        ("-I", "INPUT", "1", "-p", "tcp", "--dport", "22", "-j", "ACCEPT"),
        ("-I", "DOCKER-USER", "1", "-j", "RETURN"),
        ("-D", "INPUT", "1"),
        ("-t", "security", "-F", "HUMMINGFLEET-LAST"),
        ("-t", "security", "-D", "HUMMINGFLEET-LAST", "3"),
        ("-t", "security", "-D", "FORWARD", "1"),
        ("-t", "security", "-I", "FORWARD", "1", "-j", "ACCEPT"),
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
    node.run("iptables", "-t", "security", "-N", "OTHERFLEET-LAST")
    node.run("iptables", "-t", "security", "-I", "FORWARD", "1", "-s", "10.91.0.0/16", "-j", "OTHERFLEET-LAST")
    assert node.firewall("check") == 0
    node.firewall("remove")
    assert [rule.split()[-1] for rule in node.rules() if " -j " in rule] == ["OTHERFLEET-NODE", "OTHERFLEET-LAST"]


def test_a_changed_pool_leaves_no_rule_of_the_old_one(node: Node) -> None:
    node.firewall("apply")
    node.program.write_text(node.program.read_text().replace(POOL, "10.80.0.0/16"))
    assert node.firewall("check") != 0
    node.firewall("apply")
    assert node.firewall("check") == 0
    assert not [rule for rule in node.rules() if POOL in rule]


def test_removal_leaves_other_rules_alone(node: Node) -> None:
    node.run("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    node.run("iptables", "-t", "security", "-A", "FORWARD", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
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


PORT = 2222
NODE = "node"
# Machines behind the node: their bridges, addresses and the node's address there. Two bridges are tenants' networks.
MACHINES = {
    "bot": ("acme", "10.90.1.2", "10.90.1.1"),
    "neighbour": ("acme", "10.90.1.3", "10.90.1.1"),
    "other": ("bolt", "10.90.2.2", "10.90.2.1"),
    "metadata": ("meta", "169.254.169.254", "169.254.169.1"),
    "exchange": ("world", "192.0.2.2", "192.0.2.1"),
}
LISTEN = """
import socket
server = socket.create_server(("", PORT))
print("listening", flush=True)
while True:
    server.accept()[0].sendall(b"hello")
""".replace("PORT", str(PORT))
# A dropped packet is never answered, so that a short patience suffices; the rule's counter shows what became of it.
CONNECT = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], PORT), 2).recv(5).decode())
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silence")
""".replace("PORT", str(PORT))


@dataclass
class Network:
    """A node with two tenants' bridges and two others, as Docker would have it, and listeners behind all of them."""

    node: Node

    def connect(self, source: str, target: str) -> str:
        """What a connection between two machines comes to: ``hello``, ``refused`` or ``silence``."""
        namespace = self.node.namespace + ("" if source == NODE else f"-{source}")
        return run("ip", "netns", "exec", namespace, "python3", "-c", CONNECT, MACHINES[target][1]).stdout.strip()

    def dropped(self) -> dict[str, int]:
        """Packets that each of the last rules dropped, by the network they were for."""
        lines = self.node.run("iptables", "-t", "security", "-nvxL", "HUMMINGFLEET-LAST").stdout.splitlines()
        words = [line.split() for line in lines]
        return {word[-1]: int(word[0]) for word in words if "DROP" in word}

    @contextmanager
    def without_docker_user(self) -> Iterator[None]:
        """The moment in which Docker makes a network."""
        self.node.run("iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
        try:
            yield
        finally:
            self.node.run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")


@pytest.fixture
def network(node: Node) -> Iterator[Network]:
    with ExitStack() as stack:
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
        for bridge, gateway in {(bridge, gateway) for bridge, _, gateway in MACHINES.values()}:
            node.run("ip", "link", "add", bridge, "type", "bridge")
            node.run("ip", "addr", "add", f"{gateway}/24", "dev", bridge)
            node.run("ip", "link", "set", bridge, "up")
        for name, (bridge, address, gateway) in MACHINES.items():
            machine = f"{node.namespace}-{name}"
            run("ip", "netns", "add", machine)
            stack.callback(run, "ip", "netns", "del", machine)
            node.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", machine)
            node.run("ip", "link", "set", name, "master", bridge, "up")
            run("ip", "-n", machine, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", machine, "link", "set", "eth0", "up")
            run("ip", "-n", machine, "route", "add", "default", "via", gateway)
            listener = subprocess.Popen(
                ["ip", "netns", "exec", machine, "python3", "-c", LISTEN], stdout=subprocess.PIPE, text=True
            )
            stack.callback(listener.wait)
            stack.callback(listener.kill)
            assert listener.stdout is not None
            stack.callback(listener.stdout.close)
            assert listener.stdout.readline() == "listening\n"
        assert node.firewall("apply") == 0
        # As Docker calls it; what forbids tenants' networks to each other otherwise, Docker's own rules, is not here.
        node.run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
        yield Network(node)


def test_a_tenant_is_refused_at_once_what_it_must_not_reach(network: Network) -> None:
    assert {target: network.connect("bot", target) for target in MACHINES if target != "bot"} == {
        "neighbour": "hello",
        "other": "refused",
        "metadata": "refused",
        "exchange": "hello",
    }
    assert network.connect(NODE, "bot") == "hello"
    assert network.connect("metadata", "bot") == "hello", "answers are let out"
    assert not any(network.dropped().values()), "refused before it came to that"


def test_nothing_slips_through_while_docker_makes_a_network(network: Network) -> None:
    with network.without_docker_user():
        assert network.connect("bot", "metadata") == "silence"
        assert network.connect("bot", "other") == "silence"
        dropped = network.dropped()
        assert dropped["169.254.0.0/16"] and dropped[POOL]
        assert network.connect("bot", "neighbour") == "hello"
        assert network.connect("bot", "exchange") == "hello"
        assert network.connect(NODE, "bot") == "hello"
        assert network.connect("metadata", "bot") == "hello", "answers are let out"
        # Only the last rules are between them: without them it is reached.
        network.node.run("iptables", "-t", "security", "-D", "FORWARD", "1")
        assert network.connect("bot", "metadata") == "hello"
        assert network.connect("bot", "other") == "hello"
    assert network.node.firewall("apply") == 0
    assert network.connect("bot", "metadata") == "refused"
