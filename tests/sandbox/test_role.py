"""The role sandbox_exchange, run on this machine with its Docker engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.control import ControlClient, ControlClientError
from tests.engine.harness import docker
from tests.sandbox.client import KEY, SECRET
from tests.sandbox.conftest import ACCOUNTS, write_accounts

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("HUMMINGFLEET_SANDBOX_IMAGE", "hummingfleet/sandbox:1")


@dataclass
class Recap:
    """How a play ended."""

    ok: bool
    changed: int
    output: str


class Role:
    """The role with names of its own, so that it meets no other sandbox exchange of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"hf-test-role-{secrets.token_hex(3)}"
        self.accounts = folder / "accounts.json"
        write_accounts(self.accounts, ACCOUNTS)
        third = secrets.randbelow(250)
        self.tenant_subnet, self.tenant_address = f"10.93.{third}.32/27", f"10.93.{third}.62"
        self.variables: dict[str, Any] = {
            "sandbox_exchange_dir": str(folder / "node"), "sandbox_exchange_image": IMAGE,
            "sandbox_exchange_container": self.name, "sandbox_exchange_network": self.name,
            "sandbox_exchange_subnet": f"10.93.{third}.0/29", "sandbox_exchange_accounts_file": str(self.accounts),
        }

    def run(self, *arguments: str, **variables: Any) -> Recap:
        """One play on this machine."""
        playbook = self.folder / "play.yml"
        playbook.write_text(yaml.safe_dump([{
            "hosts": "localhost", "connection": "local", "gather_facts": False,
            "roles": [{"role": "hummingfleet.core.sandbox_exchange", "vars": self.variables | variables}]}]))
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook), *arguments],
            cwd=ROOT, text=True, capture_output=True, check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")})
        recap = re.search(r"ok=\d+ +changed=(\d+)", done.stdout)
        output = done.stdout + done.stderr
        assert recap, output
        return Recap(done.returncode == 0, int(recap[1]), output)

    @property
    def control(self) -> ControlClient:
        """The control endpoint on the node."""
        return ControlClient(str(self.folder / "node/run/control.sock"))

    def inspect(self) -> dict[str, Any]:
        """The container."""
        return dict(json.loads(docker("inspect", self.name).stdout)[0])

    def connect_tenant(self) -> None:
        """What converging a tenant does."""
        docker("network", "create", "--internal", "--subnet", self.tenant_subnet, f"{self.name}-tenant")
        docker("network", "connect", "--ip", self.tenant_address, "--alias", "api.binance.com",
               f"{self.name}-tenant", self.name)

    def tenant_connection(self) -> tuple[str, bool]:
        """Address and whether the alias is there."""
        endpoint = self.inspect()["NetworkSettings"]["Networks"][f"{self.name}-tenant"]
        return endpoint["IPAddress"], "api.binance.com" in endpoint["Aliases"]


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    """The role; what it made is removed afterwards."""
    role = Role(tmp_path)
    yield role
    docker("rm", "--force", role.name, check=False)
    for network in (role.name, f"{role.name}-tenant"):
        docker("network", "rm", network, check=False)


def test_role_from_nothing_to_nothing(role: Role) -> None:
    predicted = role.run("--check", "--diff")
    assert predicted.ok, predicted.output
    assert not (role.folder / "node").exists()
    first = role.run("--diff", "-vvv")
    assert first.ok, first.output
    assert predicted.changed == first.changed > 0
    for recap in (predicted, first):
        assert KEY not in recap.output
        assert SECRET not in recap.output
    assert {item["name"] for item in role.control.get("/accounts")["accounts"]} == {"acme", "zeta"}

    container = role.inspect()
    host = container["HostConfig"]
    assert (container["Config"]["User"], host["ReadonlyRootfs"], host["CapDrop"], host["PortBindings"] or {}) == (
        "199999:199999", True, ["ALL"], {})
    assert docker("exec", role.name, "cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"
    for path, mode in (("ca.pem", 0o444), ("ca.key", 0o400), ("tls/server.key", 0o400), ("config/accounts.json", 0o400),
                       ("config", 0o700), ("run", 0o700)):
        assert (role.folder / "node" / path).stat().st_mode & 0o777 == mode, path

    # A second run changes nothing and leaves the tenant's connection alone.
    role.connect_tenant()
    second = role.run()
    assert (second.ok, second.changed) == (True, 0), second.output
    assert role.tenant_connection() == (role.tenant_address, True)
    assert role.inspect()["Id"] == container["Id"]

    # Accounts are taken over without a restart.
    write_accounts(role.accounts, [ACCOUNTS[0] | {"name": "nova", "api_key": "key-of-nova-0001"}, *ACCOUNTS])
    reloaded = role.run("--diff")
    assert reloaded.ok, reloaded.output
    assert SECRET not in reloaded.output
    assert "nova" in {item["name"] for item in role.control.get("/accounts")["accounts"]}
    assert role.inspect()["State"]["StartedAt"] == container["State"]["StartedAt"]

    # A changed configuration restarts the same container, which finds its state again.
    role.control.request("POST", "/price", {"pair": "BTC-USDT", "price": "31000"})
    restarted = role.run(sandbox_exchange_maker_fee="0.001")
    assert restarted.ok, restarted.output
    assert role.inspect()["Id"] == container["Id"]
    assert role.control.get("/prices")["prices"]["BTC-USDT"]["price"] == "31000"
    assert role.control.get("/account/acme")["maker_fee"] == "0.001"

    # A container that must be made anew keeps state and the tenant's connection.
    role.variables |= {"sandbox_exchange_maker_fee": "0.001", "sandbox_exchange_memory_mib": 200}
    remade = role.run()
    assert remade.ok, remade.output
    assert role.inspect()["Id"] != container["Id"]
    assert role.tenant_connection() == (role.tenant_address, True)
    assert role.control.get("/prices")["prices"]["BTC-USDT"]["price"] == "31000"

    # One that was altered and stopped by hand is put right.
    docker("update", "--memory", "300m", "--memory-swap", "300m", role.name)
    docker("stop", role.name)
    assert role.run().changed == 1
    assert role.inspect()["HostConfig"]["Memory"] == 200 * 1024 * 1024

    for changed in (2, 0):
        removed = role.run(sandbox_exchange_state="absent")
        assert removed.ok, removed.output
        assert removed.changed == changed
    assert not (role.folder / "node").exists()
    assert docker("inspect", role.name, check=False).returncode != 0
    assert docker("network", "inspect", role.name, check=False).returncode != 0


def test_bad_accounts_are_refused_in_words_and_without_the_secret(role: Role) -> None:
    write_accounts(role.accounts, [ACCOUNTS[0] | {"balances": {"usdt": "1"}}])
    recap = role.run()
    assert not recap.ok
    assert "an asset is 1 to 20 capitals and digits" in recap.output
    assert SECRET not in recap.output
    with pytest.raises(ControlClientError):
        role.control.get("/health")


def test_missing_accounts_file_is_refused_before_anything_is_made(role: Role) -> None:
    recap = role.run(sandbox_exchange_accounts_file="/nonexistent/accounts.json")
    assert not recap.ok
    assert "There is no file /nonexistent/accounts.json" in recap.output
    assert not (role.folder / "node").exists()
