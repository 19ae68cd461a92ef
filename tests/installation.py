"""An installation of its own in a temporary folder, for tests and benchmarks: registry, key ring, catalogue, node.

The node is this machine's Docker engine, reached directly or over an SSH server of the installation's own. Images are
the tiny stand-ins unless told otherwise, so that stacks cost next to nothing.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, Registry, Submission

if TYPE_CHECKING:
    from sandbox.control import ControlClient

ROOT = Path(__file__).resolve().parent.parent
STANDIN = "hummingfleet/standin:1"
CAUSE = Cause("test", "a test", getpass.getuser())
# Debian's Docker client; another one that comes first in PATH may not find the compose plugin.
SYSTEM_PATH = f"/usr/bin:/usr/sbin:{os.environ['PATH']}"


def docker(*arguments: str, check: bool = True) -> str:
    """The output of a docker command."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, env={**os.environ, "PATH": SYSTEM_PATH}
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Run:
    """What an ansible-playbook run came to."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """By host the counts of the play recap."""
        _head, _separator, tail = self.output.partition("PLAY RECAP")
        found = {}
        for line in tail.splitlines():
            host, colon, counts = line.partition(" : ")
            if colon:
                found[host.strip()] = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counts)}
        return found

    @property
    def changed(self) -> int:
        """Tasks that changed something, over all hosts."""
        return sum(counts["changed"] for counts in self.recap.values())


class Installation:
    """See the module's text. ``prefix`` begins every tenant id made here and marks what ``clean`` removes."""

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        pool: str,
        images: dict[str, str] | None = None,
        over_ssh: bool = False,
        uid_start: int = 310_000,
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self.base_dir = folder / "node"
        self.base_dir.mkdir()
        for name in ("tenants", "agent", "sandbox"):
            (self.base_dir / name).mkdir()
        shutil.copytree(ROOT / "catalogue", folder / "catalogue")
        self._edit_catalogue("releases", lambda data: self._use_images(data, images))
        self._edit_catalogue("plans", lambda data: self._use_small_plans(data) if images is None else None)
        self.ssh = SshServer(folder) if over_ssh else None
        fleet = {
            "plugin": "hummingfleet.core.tenants",
            "registry": str(folder / "registry.db"),
            "keyring": {"file": str(folder / "keyring.yml")},
            "catalogue": str(folder / "catalogue"),
            "images": "build",
            "base_dir": str(self.base_dir),
            "address_pool": pool,
            "uid_pool": [uid_start, uid_start + 9_999],
            "kdf_iterations": 1,
            "sandbox_container": f"{prefix}sandbox",
            "broker_container": f"{prefix}broker",
            "broker_port": free_port(),
            "nodes": {"lab": {**self._connection(), "memory_mib": 1_000_000, "labels": {}}},
        }
        self.fleet_path = folder / "fleet.tenants.yml"
        self.fleet_path.write_text(yaml.safe_dump(fleet))
        self.keyring = generate_keyring(folder / "keyring.yml")
        self.fleet = load_fleet(self.fleet_path)
        self.catalogue = load_catalogue(self.fleet.catalogue)
        self.registry = Registry(self.fleet.registry)

    def _connection(self) -> dict[str, Any]:
        if self.ssh is None:
            return {"ansible_connection": "local"}
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.ssh.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "client_key"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder}/known_hosts -o StrictHostKeyChecking=yes",
        }

    def _edit_catalogue(self, name: str, edit: Any) -> None:
        path = self.folder / "catalogue" / f"{name}.yml"
        data = yaml.safe_load(path.read_text())
        edit(data)
        path.write_text(yaml.safe_dump(data))

    def _use_images(self, releases: dict[str, Any], images: dict[str, str] | None) -> None:
        for service in ("engine", "postgres", "redis"):
            if images is None or service in images:
                releases["2026.09"][service]["local"] = STANDIN if images is None else images[service]

    def _use_small_plans(self, plans: dict[str, Any]) -> None:
        for plan in plans.values():
            plan.update(bot_memory_mib=64, postgres_memory_mib=64, redis_memory_mib=16)

    def allow_strategy(self, source: Path, *, plan: str) -> Path:
        """Puts an operator's own strategy into the catalogue and a plan; its folder there."""
        folder = self.folder / "catalogue" / "strategies" / source.name
        shutil.copytree(source, folder)
        self._edit_catalogue("plans", lambda plans: plans[plan]["strategies"].append(source.name))
        self.catalogue = load_catalogue(self.fleet.catalogue)
        return folder

    # - tenants -

    def connection(self, tenant: str, **secrets: str) -> dict[str, Any]:
        """Exchange credentials of a tenant as the portal stores them."""
        fields = {"api_key": f"key of {tenant}", "api_secret": f"secret of {tenant}", **secrets}
        return encrypt_connection(
            fields,
            connection_id="ex1",
            exchange="binance",
            tenant=tenant,
            keyring=self.keyring,
            key_id="k1",
            connectors=self.catalogue.connectors,
        )

    def submit(self, data: dict[str, Any]) -> Submission:
        """Stores a document."""
        return self.registry.submit(data, cause=CAUSE, fleet=self.fleet, catalogue=self.catalogue)

    def change(self, tenant: str, edit: Any) -> Submission:
        """A new revision: ``edit`` alters the document in place."""

        def change(data: dict[str, Any]) -> dict[str, Any]:
            edit(data)
            return data

        return self.registry.change(tenant, change, cause=CAUSE, fleet=self.fleet, catalogue=self.catalogue)

    # - runs -

    def playbook(self, path: Path, *arguments: str, inventory: Path | None = None) -> Run:
        """Runs ansible-playbook."""
        command = [f"{ROOT}/.venv/bin/ansible-playbook", str(path), "-i", str(inventory or self.fleet_path), *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "HUMMINGFLEET_FLEET": str(self.fleet_path),
            "PATH": f"{ROOT}/.venv/bin:{SYSTEM_PATH}",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return Run(done.returncode, done.stdout + done.stderr)

    def converge(self, *arguments: str) -> Run:
        """Our converge; the whole fleet unless limited."""
        return self.playbook(ROOT / "playbooks" / "converge_tenant.yml", *arguments)

    # - the node -

    def start_sandbox(self) -> ControlClient:
        """The sandbox exchange of this installation, as its role makes it; its control endpoint."""
        from sandbox.control import ControlClient

        settings = {
            "sandbox_exchange_container": f"{self.prefix}sandbox",
            "sandbox_exchange_network": f"{self.prefix}sandbox",
            "sandbox_exchange_subnet": str(next(self.fleet.address_pool.subnets(new_prefix=29))),
        }
        run = self.playbook(ROOT / "playbooks" / "prepare_sandbox.yml", "-e", json.dumps(settings))
        assert run.code == 0, run.output
        return ControlClient(str(self.base_dir / "sandbox" / "run" / "control.sock"))

    def start_broker(self, *arguments: str, **variables: Any) -> Run:
        """The node's MQTT broker, as its role makes it."""
        play = [{"hosts": "nodes", "gather_facts": False, "roles": [
            {"role": "hummingfleet.core.node_broker", "vars": variables}]}]  # fmt: skip
        path = self.folder / "broker.yml"
        path.write_text(yaml.safe_dump(play))
        return self.playbook(path, *arguments)

    def containers(self) -> dict[str, str]:
        """Container name → id, of all containers made here."""
        lines = docker("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}").splitlines()
        return dict(line.split() for line in lines if line.startswith(self.prefix))

    def clean(self) -> None:
        """Removes every container and network made here, and ends the SSH server."""
        ids = list(self.containers().values())
        for start in range(0, len(ids), 50):
            docker("rm", "-f", *ids[start : start + 50], check=False)
        for name in docker("network", "ls", "--format", "{{.Name}}").splitlines():
            if name.startswith((f"hf-{self.prefix}", f"hf-0-{self.prefix}", self.prefix)):
                docker("network", "rm", name, check=False)
        if self.ssh is not None:
            self.ssh.stop()


class SshServer:
    """An sshd of our own on loopback, with keys of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        self.port = free_port()
        shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
        host_key = (folder / "host_key.pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key[0]} {host_key[1]}\n")
        config = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "Subsystem sftp internal-sftp",
            "MaxSessions 64",
            "MaxStartups 64:30:128",
            f"PidFile {folder}/sshd.pid",
        ]
        (folder / "sshd_config").write_text("\n".join(config) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config")])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise AssertionError("the SSH server did not start")

    def stop(self) -> None:
        """Ends the server."""
        self.process.terminate()
        self.process.wait()
