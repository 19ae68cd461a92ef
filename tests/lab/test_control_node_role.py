"""The role control_node in a Debian container without systemd, and the processes it installs, run there by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring

from tests.installation import ROOT, SYSTEM_PATH, docker

pytestmark = pytest.mark.lab

# Debian with Python; the packages of this checkout are lent to it.
IMAGE = "hummingfleet/sandbox:1"
PACKAGES = "/mnt/packages"
PATIENCE = 180.0  # a busy machine takes its time
WEB, WORKER = "hummingfleet-web", "hummingfleet-worker"


@dataclass
class Play:
    """How a play ended."""

    code: int
    changed: int
    output: str


class Host:
    """A container that stands for the control node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"hf-test-control-{uuid.uuid4().hex[:8]}"
        site_packages = next((ROOT / ".venv/lib").glob("python3.*/site-packages"))
        docker(
            *("run", "--detach", "--init", "--name", self.name, "--user", "0", "--hostname", "control"),
            *("--volume", f"{site_packages}:{PACKAGES}:ro", "--entrypoint", "sleep", IMAGE, "infinity"),
        )
        self.revision = self._revision()
        fleet = folder / "fleet.tenants.yml"
        fleet.write_text(
            yaml.safe_dump(
                {
                    "plugin": "hummingfleet.core.tenants",
                    "nodes": {"edge_1": {"ansible_host": "192.0.2.1", "memory_mib": 12288}},
                    "webhook": {"grace_seconds": 7},
                }
            )
        )
        (folder / "group_vars").mkdir()
        (folder / "group_vars" / "nodes.yml").write_text("ansible_become: true\n")
        generate_keyring(folder / "keyring.yml")
        self.variables = {
            "control_node_fleet_file": str(fleet),
            "control_node_keyring_file": str(folder / "keyring.yml"),
            "control_node_revision": self.revision,
            "control_node_packages_enabled": False,
        }
        connection = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3"}
        self.inventory = folder / "control.yml"
        self.inventory.write_text(yaml.safe_dump({"control_nodes": {"hosts": {self.name: connection}}}))

    def _revision(self) -> str:
        """The tracked files as they are now, as git's name of a tree; neither index nor branch are touched."""
        environment = {**os.environ, "GIT_INDEX_FILE": str(self.folder / "index")}

        def git(*words: str) -> str:
            command = ["git", "-C", str(ROOT), *words]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

        git("read-tree", "HEAD")
        git("add", "--update")
        return git("rev-parse", "--short=12", git("write-tree"))

    @property
    def release(self) -> str:
        return f"/opt/hummingfleet/releases/{self.revision}"

    def lend_packages(self) -> None:
        """A virtual environment that finds this checkout's packages, so that nothing has to be downloaded."""
        lines = [f"{self.release}/collections", PACKAGES]
        scripts = {
            "hummingfleet": "from webhook.cli import main; main()",
            "ansible-playbook": "import sys; from ansible.cli.playbook import main; sys.exit(main())",
        }
        self.run("python3.11", "-m", "venv", "--without-pip", f"{self.release}/.venv")
        self.write(f"{self.release}/.venv/lib/python3.11/site-packages/hummingfleet.pth", "\n".join(lines) + "\n")
        for name, code in scripts.items():
            path = f"{self.release}/.venv/bin/{name}"
            head = f"#!{self.release}/.venv/bin/python\nimport sys; sys.path[0] = '{self.release}'\n"
            self.write(path, head + code + "\n")
            self.run("chmod", "0755", path)

    def run(self, *command: str, user: str = "root", check: bool = True) -> str:
        """The output of a command as a user."""
        words = ["exec", "--user", user, self.name, *command]
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, env={**os.environ, "PATH": SYSTEM_PATH}
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        subprocess.run(
            ["docker", "exec", "-i", self.name, "tee", path], input=text, text=True, check=True, capture_output=True,
            env={**os.environ, "PATH": SYSTEM_PATH},
        )  # fmt: skip

    def play(self, *arguments: str, **variables: Any) -> Play:
        """Runs the playbook."""
        done = subprocess.run(
            [
                *(f"{ROOT}/.venv/bin/ansible-playbook", str(ROOT / "playbooks/prepare_control_node.yml")),
                *("-i", str(self.inventory), "-e", json.dumps(self.variables | variables), *arguments),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "PATH": SYSTEM_PATH,
            },
            capture_output=True,
            text=True,
        )
        found = re.search(r"ok=\d+ +changed=(\d+)", done.stdout)
        return Play(done.returncode, int(found[1]) if found else -1, done.stdout + done.stderr)

    def start(self, user: str, word: str) -> None:
        """Starts a service as its unit does, as far as that goes without systemd."""
        unit = self.run("cat", f"/etc/systemd/system/hummingfleet-{word}.service")
        command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        folder = re.search(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
        settings = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
        assert command and folder and f"User={user}" in unit and "UMask=0007" in unit
        script = f"umask 0007; cd {folder[1]}; exec env {' '.join(settings)} {command[1]} 2> /tmp/{word}.log"
        docker("exec", "--detach", "--user", f"{user}:hummingfleet", self.name, "sh", "-c", script)

    def wait_for_log(self, word: str, message: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while f'"message": "{message}"' not in (log := self.run("cat", f"/tmp/{word}.log", check=False)):
            assert time.monotonic() < deadline, log
            time.sleep(0.1)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    docker("rm", "--force", "--volumes", host.name)


def test_the_role_from_nothing_to_two_processes_and_back(host: Host) -> None:
    predicted = host.play("--check", "--diff")
    assert (predicted.code, predicted.changed > 5) == (0, True), predicted.output
    assert "No such file" in host.run("ls", "/etc/hummingfleet", check=False)

    host.lend_packages()
    first = host.play()
    assert first.code == 0, first.output
    assert "systemd does not run here" in first.output
    second = host.play()
    assert (second.code, second.changed) == (0, 0), second.output

    # Who may read and write what.
    for path in ("/var/lib/hummingfleet/keyring.yml", "/etc/hummingfleet/group_vars/nodes.yml"):
        assert "Permission denied" in host.run("cat", path, user=WEB, check=False)
        host.run("cat", path, user=WORKER)
    for command in (["rm", "-f"], ["mv", "-t", "/tmp"]):
        path = "/var/lib/hummingfleet/keyring.yml"
        assert "not permitted" in host.run(*command, path, user=f"{WEB}:hummingfleet", check=False)
    assert "Permission denied" in host.run(
        "touch", "/var/lib/hummingfleet/run/x", user=f"{WEB}:hummingfleet", check=False
    )
    assert "Permission denied" in host.run("touch", f"{host.release}/x", user=f"{WEB}:hummingfleet", check=False)

    # What the worker's user makes for the nodes' brokers the web service can read, but for the authority's key.
    modules = "ansible_collections.hummingfleet.core.plugins.module_utils"
    make = f"from {modules} import broker_authority, fleet; broker_authority.ensure(fleet.load_fleet())"
    place = "export HUMMINGFLEET_FLEET=/etc/hummingfleet/fleet.tenants.yml PYTHONPATH=collections"
    host.run("sh", "-c", f"cd {host.release} && {place} && .venv/bin/python -c '{make}'", user=f"{WORKER}:hummingfleet")
    for name in ("ca.pem", "signals_password"):
        host.run("cat", f"/var/lib/hummingfleet/broker/{name}", user=f"{WEB}:hummingfleet")
    key = "/var/lib/hummingfleet/broker/ca.key"
    assert "Permission denied" in host.run("cat", key, user=f"{WEB}:hummingfleet", check=False)

    # Both processes, and an event that the one takes and the other sees.
    host.start(WEB, "web")
    host.wait_for_log("web", "listening")
    host.start(WORKER, "worker")
    host.wait_for_log("worker", "working")
    data = {"plan": "pro"}
    sent = host.run("/usr/local/bin/hummingfleet", "event", "send", "tenant.created", "--tenant", "acme",
                    "--data", json.dumps(data), "--json")  # fmt: skip
    assert '"accepted"' in sent
    host.wait_for_log("worker", "run begins")
    modes = host.run("sh", "-c", "stat -c '%a %G %n' /var/lib/hummingfleet/hummingfleet.db*")
    assert all(line.startswith("660 hummingfleet ") for line in modes.splitlines()), modes
    listed = host.run("/usr/local/bin/hummingfleet", "tenant", "list", "--json")
    assert "acme" in listed

    gone = host.play(control_node_state="absent")
    assert gone.code == 0, gone.output
    assert "No such file" in host.run("ls", "/opt/hummingfleet", check=False)
    assert "hummingfleet.db" in host.run("ls", "/var/lib/hummingfleet")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("local_node", [False, True])
def test_systemd_understands_the_units(tmp_path: Path, local_node: bool) -> None:
    """Rendered by Ansible with the role's own defaults; the program, which is not here, is replaced by one that is."""
    program = "/opt/hummingfleet/current/.venv/bin/hummingfleet"
    play = [
        {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars_files": [str(ROOT / "roles/control_node/defaults/main.yml")],
            "vars": {
                "control_node_local_node_enabled": local_node,
                "__control_node_sqlite": True,
                "__control_node_registry_path": "/var/lib/hummingfleet/hummingfleet.db",
                "__control_node_keyring_path": "/var/lib/hummingfleet/keyring.yml",
                "__control_node_worker_account": "root" if local_node else WORKER,
                "__control_node_grace_seconds": 30,
            },
            "tasks": [
                {
                    "ansible.builtin.template": {
                        "src": str(ROOT / f"roles/control_node/templates/{name}.service.j2"),
                        "dest": str(tmp_path / f"{name}.service"),
                        "mode": "0644",
                    }
                }
                for name in (WEB, WORKER)
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    done = subprocess.run(
        [f"{ROOT}/.venv/bin/ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml")],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (WEB, WORKER):
        unit = tmp_path / f"{name}.service"
        text = unit.read_text()
        assert "ProtectProc=" not in text  # leases are judged by whether their holder's process is there
        assert "KillMode=mixed" in text and "Type=notify" in text
        if name == WORKER:
            assert "TimeoutStopSec=90" in text  # more than its runs get
            assert ("User=root" in text) == local_node
        else:
            assert "InaccessiblePaths=-/var/lib/hummingfleet/keyring.yml" in text
        unit.write_text(re.sub(r"^WorkingDirectory=.*$", "", text.replace(program, "/usr/bin/env"), flags=re.MULTILINE))
        judged = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
        complaints = [line for line in judged.stderr.splitlines() if name in line]
        assert (judged.returncode, complaints) == (0, []), judged.stderr
