"""Tenants of one node, tried from inside: what a container of one reaches, and what a process of its user can read."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import tenant_network
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue

from tests.factories import document, market_making_bot, signal_bot
from tests.installation import ROOT, STANDIN, Installation, docker
from tests.security.listen import Listeners

# While Docker makes a network it takes its jump to DOCKER-USER, where the firewall's rules are, away for a moment.
pytestmark = [pytest.mark.lab, pytest.mark.alone]

PREFIX = "hfsec-i-"
ACME, BELL, SAND = f"{PREFIX}acme", f"{PREFIX}bell", f"{PREFIX}sand"
TENANTS = (ACME, BELL, SAND)
SMALL_IMAGE = "hummingfleet/sandbox:1"
HERE = Path(__file__).parent
LISTENER_PORT = 7777
POSTGRES_PORT = 5432
METADATA = "169.254.169.254"
ALL_PORTS = (1, 65535)


@dataclass
class Node:
    """The node with its tenants, and the ways to try things on it."""

    installation: Installation
    firewall: Path
    listeners: Listeners
    uids: dict[str, int] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    gateways: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tenant in TENANTS:
            stored = self.installation.registry.get(tenant).document
            self.uids[tenant] = int(stored["uid"])
            self.gateways[tenant] = str(tenant_network(stored["subnet"]).gateway)

    def start_listener(self, tenant: str) -> None:
        """A container in the tenant's network that takes whatever comes on one port."""
        docker(
            *("run", "--detach", "--init", "--name", f"{tenant}-listener", *self.like_a_bot(tenant)),
            *("--volume", f"{HERE}/listen.py:/listen.py:ro", SMALL_IMAGE, "python3", "/listen.py", str(LISTENER_PORT)),
        )

    def like_a_bot(self, tenant: str) -> list[str]:
        """How a tenant's own containers run."""
        return [
            *("--network", f"hf-{tenant}", "--user", f"{self.uids[tenant]}:{self.uids[tenant]}", "--read-only"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
        ]

    def find_addresses(self) -> None:
        """The containers' addresses by ``container/network``."""
        for name in self.installation.containers():
            for network, facts in json.loads(docker("inspect", name))[0]["NetworkSettings"]["Networks"].items():
                self.addresses[f"{name}/{network}"] = facts["IPAddress"]

    def containers_of(self, tenant: str) -> dict[str, str]:
        """A tenant's containers with their addresses; the sandbox that visits its network is not one of them."""
        return {name: address for name, address in self.addresses.items() if name.startswith(f"{tenant}-")}

    def probe(self, tenant: str, **asked: Any) -> dict[str, list[int]]:
        """What a container of the tenant reaches; see probe.py."""
        command = [
            *("docker", "run", "--rm", "--interactive", "--name", f"{tenant}-probe", *self.like_a_bot(tenant)),
            *("--volume", f"{HERE}/probe.py:/probe.py:ro", SMALL_IMAGE, "python3", "/probe.py"),
        ]
        done = subprocess.run(
            command, input=json.dumps({"timeout": 1.0, **asked}), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def apply_firewall(self, action: str = "apply") -> int:
        """What the role's program answers."""
        return subprocess.run([str(self.firewall), action], check=False, capture_output=True).returncode


def render_firewall(installation: Installation) -> Path:
    """The program that the role node_base puts on a node, for this installation's pool and with chains of its own."""
    target = installation.folder / "firewall"
    template = {"src": str(ROOT / "roles/node_base/templates/hummingfleet-firewall.j2"), "dest": str(target)}
    play = {
        "hosts": "nodes",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles/node_base/defaults/main.yml")],
        "tasks": [{"ansible.builtin.template": {**template, "mode": "0755"}}],
    }
    playbook = installation.folder / "firewall.yml"
    playbook.write_text(yaml.safe_dump([play]))
    run = installation.playbook(playbook)
    assert run.code == 0, run.output
    text = target.read_text()
    assert "HUMMINGFLEET-" in text and str(installation.fleet.address_pool) in text
    target.write_text(text.replace("HUMMINGFLEET-", "HFSEC-"))
    return target


def node_addresses() -> list[str]:
    """Addresses that the node has beside its bridges of tenants: the one it talks to the world with, and Docker's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.254", 9))  # sends nothing
        primary = probe.getsockname()[0]
    bridge = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    gateway = bridge.get("Gateway") or str(next(ipaddress.ip_network(bridge["Subnet"]).hosts()))
    return [primary, gateway]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="hfsec-i-", dir="/var/tmp"))
    release = load_catalogue(ROOT / "catalogue").releases["2026.09"]
    images = {"engine": STANDIN, "redis": STANDIN, "postgres": release.image("postgres", "build")}
    installation = Installation(folder, prefix=PREFIX, pool="10.197.2.0/23", uid_start=351_000, images=images)
    made = None
    try:
        # As on a node: everybody may pass, nobody may look around.
        for path in (folder, installation.base_dir, installation.base_dir / "tenants"):
            path.chmod(0o711)
        installation.start_sandbox()
        # At an address that others reach, as on a node of a fleet.
        run = installation.start_broker(node_broker_address=node_addresses()[0])
        assert run.code == 0, run.output
        for tenant in TENANTS:
            installation.submit(
                document(
                    tenant=tenant,
                    exchange_environment="sandbox" if tenant == SAND else "live",
                    redis={"enabled": False},
                    exchange_connections=[installation.connection(tenant)],
                    bots=[market_making_bot(), *([signal_bot()] if tenant == ACME else [])],
                )
            )
        run = installation.converge()
        assert run.code == 0, run.output
        gateways = [
            str(tenant_network(installation.registry.get(tenant).document["subnet"]).gateway) for tenant in TENANTS
        ]
        with Listeners(["0.0.0.0", *gateways, *node_addresses()]) as listeners:
            made = Node(installation, render_firewall(installation), listeners)
            for tenant in TENANTS:
                made.start_listener(tenant)
            made.find_addresses()
            assert made.apply_firewall() == 0 and made.apply_firewall("check") == 0
            yield made
    finally:
        if made is not None:
            made.apply_firewall("remove")
        installation.clean()
        shutil.rmtree(folder)


def own_services(node: Node, tenant: str) -> dict[str, list[int]]:
    """What a tenant's containers offer each other."""
    network = f"hf-{tenant}"
    return {
        node.addresses[f"{tenant}-postgres/{network}"]: [POSTGRES_PORT],
        node.addresses[f"{tenant}-listener/{network}"]: [LISTENER_PORT],
    }


def around(node: Node) -> list[str]:
    """The node's own addresses, the metadata service's, and the sandbox exchange's."""
    sandbox = [address for name, address in node.addresses.items() if name.startswith(f"{PREFIX}sandbox/")]
    assert len(sandbox) == 2
    return [*node.gateways.values(), *node_addresses(), METADATA, *sandbox]


def sandbox_address(node: Node, tenant: str) -> str:
    return node.addresses[f"{PREFIX}sandbox/hf-{tenant}"]


class TestNetwork:
    @pytest.mark.parametrize("tenant", TENANTS)
    def test_the_probe_reaches_the_tenants_own_services(self, node: Node, tenant: str) -> None:
        expected = own_services(node, tenant)
        assert node.probe(tenant, tcp=dict.fromkeys(expected, ALL_PORTS)) == expected

    def test_a_tenant_reaches_no_other_tenant_and_nothing_of_the_node(self, node: Node) -> None:
        others = [address for tenant in (BELL, SAND) for address in node.containers_of(tenant).values()]
        assert len(others) == 6
        targets = [*others, *around(node)]
        reached = node.probe(ACME, tcp=dict.fromkeys(targets, ALL_PORTS))
        assert reached == {target: [] for target in targets}
        assert node.listeners.connections == set()

    def test_a_sandbox_tenant_reaches_the_exchange_and_nothing_else(self, node: Node) -> None:
        others = [address for tenant in (ACME, BELL) for address in node.containers_of(tenant).values()]
        targets = [*others, *around(node)]
        reached = node.probe(SAND, tcp=dict.fromkeys(targets, ALL_PORTS))
        assert reached == {target: [] for target in targets} | {sandbox_address(node, SAND): [443, 9443]}
        assert node.listeners.connections == set()

    def test_a_tenant_with_a_signal_bot_reaches_the_brokers_port_for_bots_and_no_other(self, node: Node) -> None:
        own, inside = (node.addresses[f"{PREFIX}broker/{name}"] for name in (f"hf-0-{PREFIX}broker", f"hf-{ACME}"))
        published = (node_addresses()[0], node.installation.fleet.broker_port)
        with socket.create_connection(published):
            pass
        targets = {own: ALL_PORTS, inside: ALL_PORTS, published[0]: (published[1], published[1])}
        assert node.probe(ACME, tcp=targets) == {own: [], inside: [1883], published[0]: []}
        assert node.probe(BELL, tcp=targets) == {own: [], inside: [], published[0]: []}

    def test_no_datagram_arrives(self, node: Node) -> None:
        mark = secrets.token_hex(4)
        targets = [[address, node.listeners.ports["0.0.0.0"], mark] for address in around(node)]
        targets += [[address, port, mark] for address, port in node.listeners.ports.items() if address != "0.0.0.0"]
        own, other = (node.addresses[f"{tenant}-listener/hf-{tenant}"] for tenant in (ACME, BELL))
        node.probe(ACME, udp=[*targets, [other, LISTENER_PORT, mark], [own, LISTENER_PORT, mark]])
        # The tenant's own listener was told last.
        wait_for_log(f"{ACME}-listener", mark)
        assert mark not in docker("logs", f"{BELL}-listener")
        assert node.listeners.datagrams == set()

    @pytest.mark.parametrize("tenant", [ACME, SAND])
    def test_there_is_no_other_way_by_ipv6(self, node: Node, tenant: str) -> None:
        lines = docker("exec", f"{tenant}-listener", "cat", "/proc/net/if_inet6").splitlines()
        assert [line for line in lines if not line.endswith(" lo")] == []

    def test_without_the_firewall_the_same_probe_reaches_the_node(self, node: Node) -> None:
        assert node.apply_firewall("remove") == 0
        try:
            assert node.apply_firewall("check") != 0
            mark = secrets.token_hex(4)
            ports = {address: port for address, port in node.listeners.ports.items() if address != "0.0.0.0"}
            targets = {address: (port, port) for address, port in ports.items()}
            reached = node.probe(ACME, tcp=targets, udp=[[address, port, mark] for address, port in ports.items()])
            assert reached == {address: [port] for address, port in ports.items()}
            everywhere = node.listeners.ports["0.0.0.0"]
            assert node.probe(ACME, tcp={node.gateways[ACME]: (everywhere, everywhere)}) == {
                node.gateways[ACME]: [everywhere]
            }
            assert node.listeners.connections == set(node.listeners.ports)
            assert node.listeners.datagrams == {(address, mark) for address in ports}
        finally:
            node.listeners.connections.clear()
            node.listeners.datagrams.clear()
            assert node.apply_firewall() == 0

    def test_a_tenants_containers_are_in_its_network_alone(self, node: Node) -> None:
        for tenant in TENANTS:
            networks = {name.partition("/")[2] for name in node.containers_of(tenant)}
            assert networks == {f"hf-{tenant}"}


def wait_for_log(container: str, text: str) -> None:
    """Until the container has printed the text."""
    with subprocess.Popen(["docker", "logs", "--follow", container], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if text in line:
                process.terminate()
                return
    raise AssertionError(f"{container} ended without printing {text}")


TRY_TO_READ = """
import json, os, socket, sys
found = []
for path in json.load(sys.stdin):
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        elif os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, "rb").close()
        found.append(path)
    except OSError:
        pass
    if os.access(path, os.W_OK) and path not in found:
        found.append(path)
json.dump(found, sys.stdout)
"""


def readable(uid: int, paths: list[str]) -> list[str]:
    """The paths that a process of this user can open."""
    done = subprocess.run(
        [*("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"),
         *("/usr/bin/python3", "-c", TRY_TO_READ)],
        input=json.dumps(paths), capture_output=True, text=True, check=True, cwd="/",
    )  # fmt: skip
    return sorted(json.loads(done.stdout))


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path) for path in [folder, *folder.rglob("*")])


class TestFiles:
    def test_every_tenant_has_a_user_of_its_own(self, node: Node) -> None:
        assert len(set(node.uids.values())) == len(TENANTS)
        for tenant in TENANTS:
            for name in (f"{tenant}-postgres", f"{tenant}-bot_mm1"):
                assert docker("inspect", "-f", "{{.Config.User}}", name) == f"{node.uids[tenant]}:{node.uids[tenant]}"

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_a_tenants_user_reads_nothing_of_another_tenant(self, node: Node, tenant: str) -> None:
        folder = node.installation.base_dir / "tenants"
        for other in TENANTS:
            paths = everything_below(folder / other)
            assert str(folder / other / "secrets" / "keystore_password") in paths
            assert bool(readable(node.uids[tenant], paths)) is (other == tenant)

    def test_a_tenants_user_reads_its_own_secrets_and_changes_nothing_that_is_written_for_it(self, node: Node) -> None:
        folder = node.installation.base_dir / "tenants" / ACME
        secret = str(folder / "secrets" / "keystore_password")
        assert readable(node.uids[ACME], [secret]) == [secret]
        writable = [path for path in everything_below(folder) if may_write(node.uids[ACME], path)]
        own = tuple(str(folder / part) for part in ("postgres", "bots/mm1/data", "bots/mm1/logs", "bots/s1/data",
                                                      "bots/s1/logs"))  # fmt: skip
        assert writable and [path for path in writable if not path.startswith(own)] == []

    @pytest.mark.parametrize("tenant", TENANTS)
    def test_a_tenants_user_reads_no_key_and_does_not_reach_the_sandboxs_control(self, node: Node, tenant: str) -> None:
        base, folder = node.installation.base_dir, node.installation.folder
        closed = [
            *everything_below(base / "broker"),
            *everything_below(base / "sandbox"),
            *(str(folder / name) for name in ("keyring.yml", "registry.db")),
            "/var/run/docker.sock",
        ]
        assert str(base / "sandbox/run/control.sock") in closed
        public = [str(base / name) for name in ("broker", "sandbox", "sandbox/ca.pem")]
        assert readable(node.uids[tenant], closed) == public
        control = base / "sandbox/run/control.sock"
        assert readable(control.stat().st_uid, [str(control)]) == [str(control)]

    def test_no_container_of_a_tenant_is_given_anything_of_somebody_else(self, node: Node) -> None:
        base = node.installation.base_dir
        for tenant in TENANTS:
            for name in (f"{tenant}-postgres", f"{tenant}-bot_mm1"):
                facts = json.loads(docker("inspect", name))[0]
                for mount in facts["Mounts"]:
                    if mount["Type"] == "tmpfs":
                        continue
                    source = Path(mount["Source"])
                    shared = source.is_relative_to(base / "agent") or source == base / "sandbox" / "ca.pem"
                    assert source.is_relative_to(base / "tenants" / tenant) or (shared and not mount["RW"]), source
                host = facts["HostConfig"]
                assert not host["Privileged"] and host["PidMode"] == "" and host["IpcMode"] == "private"
                assert host["NetworkMode"] != "host" and host["PortBindings"] in ({}, None)


def may_write(uid: int, path: str) -> bool:
    """Whether the user could write there, by mode and owner."""
    status = os.lstat(path)
    bits = 0o200 if status.st_uid == uid else 0o020 if status.st_gid == uid else 0o002
    return bool(status.st_mode & bits)
