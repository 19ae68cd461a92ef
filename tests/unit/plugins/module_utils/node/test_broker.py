"""The node's half of the broker: its users put together and handed over, its container and certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node import broker, certificate
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerError

NAME = "hf-broker"


class FakeEngine:
    """A broker's container that notes its signals; ``status`` is what Docker answers instead."""

    def __init__(self) -> None:
        self.signals: list[str] = []
        self.status = 0
        self.made: dict[str, Any] | None = None
        self.joined: dict[str, Any] = {}

    def signal(self, container: str, name: str) -> None:
        if self.status:
            raise DockerError("no", self.status)
        self.signals.append(f"{container} {name}")

    def image_id(self, reference: str) -> str:
        return "sha256:1"

    def network(self, name: str) -> dict[str, Any] | None:
        subnet = {"Subnet": "10.90.0.8/29"}
        return None if name == "hf-gone" else {"IPAM": {"Config": [subnet]}, "Internal": False}

    def inspect(self, name: str) -> dict[str, Any] | None:
        if self.made is None:
            return None
        facts = {"Labels": self.made["Labels"]}
        networks = {"NetworkSettings": {"Networks": self.joined}}
        return {"Id": "0" * 64, "Config": facts, "HostConfig": self.made["HostConfig"], "State": {"Running": True},
                **networks}  # fmt: skip

    def connect(self, network: str, container: str, aliases: list[str], address: str) -> None:
        self.joined[network] = {"Aliases": aliases, "address": address}

    def request(self, method: str, path: str, query: Any = None, body: Any = None) -> None:
        if path == "/containers/create":
            self.made = body


@pytest.fixture
def engine() -> Any:
    return FakeEngine()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A node with a broker and the users of one stack."""
    (tmp_path / "broker" / "users").mkdir(parents=True)
    (tmp_path / "broker" / "control_users").write_text("signals:$7$\n")
    users(tmp_path, "bell", "bell.b1:$7$\n")
    return tmp_path


def users(base: Path, tenant: str, text: str) -> None:
    (base / "tenants" / tenant).mkdir(parents=True, exist_ok=True)
    (base / "tenants" / tenant / broker.USERS_FILE).write_text(text)


def passwords(base: Path) -> str:
    return (base / "broker" / "users" / "passwords").read_text()


def hand_over(engine: Any, base: Path, **options: Any) -> bool:
    return broker.hand_over_users(engine, str(base), NAME, **options)


def test_the_users_of_all_stacks_are_handed_over_once(engine: Any, base: Path) -> None:
    users(base, "acme", "acme.b1:$7$\nacme.b2:$7$\n")
    assert hand_over(engine, base) is True
    assert passwords(base) == "signals:$7$\nacme.b1:$7$\nacme.b2:$7$\nbell.b1:$7$\n"
    assert hand_over(engine, base) is False
    assert engine.signals == [f"{NAME} HUP"]
    assert (base / "broker" / "users" / "passwords").stat().st_mode & 0o777 == 0o400


def test_a_stack_that_is_gone_takes_its_users_along(engine: Any, base: Path) -> None:
    hand_over(engine, base)
    (base / "tenants" / "bell" / broker.USERS_FILE).unlink()
    assert hand_over(engine, base) is True
    assert passwords(base) == "signals:$7$\n"


@pytest.mark.parametrize("status", [404, 409])
def test_what_a_broker_missed_is_handed_over_later(engine: Any, base: Path, status: int) -> None:
    engine.status = status
    with pytest.raises(broker.BrokerUnavailableError, match=r"hf-broker.*does not run; run the playbook prepare_nodes"):
        hand_over(engine, base)
    assert "bell.b1" in passwords(base), "a broker that starts reads them"
    engine.status = 0
    assert hand_over(engine, base) is True
    assert engine.signals == [f"{NAME} HUP"]
    assert hand_over(engine, base) is False


def test_an_engine_in_trouble_is_not_taken_for_a_missing_broker(engine: Any, base: Path) -> None:
    engine.status = 500
    with pytest.raises(DockerError):
        hand_over(engine, base)


def test_a_node_without_a_broker_says_what_to_run(engine: Any, tmp_path: Path) -> None:
    for check in (True, False):
        with pytest.raises(broker.BrokerUnavailableError, match=r"no MQTT broker.*prepare_nodes"):
            hand_over(engine, tmp_path, check=check)


def test_check_mode_predicts_and_writes_nothing(engine: Any, base: Path) -> None:
    assert hand_over(engine, base, check=True) is True
    assert not (base / "broker" / "users" / "passwords").exists()
    hand_over(engine, base)
    assert hand_over(engine, base, check=True) is False
    assert hand_over(engine, base, check=True, instead={"bell": "bell.b1:$7$\n"}) is False
    assert hand_over(engine, base, check=True, instead={"bell": None}) is True
    assert hand_over(engine, base, check=True, instead={"acme": "acme.b1:$7$\n"}) is True
    assert engine.signals == [f"{NAME} HUP"]


def spec(base: Path) -> broker.BrokerSpec:
    return broker.BrokerSpec(
        name=NAME, image="hummingfleet/mosquitto:2-1", network=f"hf-0-{NAME}", subnet="10.90.0.8/29",
        base_dir=str(base), uid=199998, memory_mib=128, address="192.0.2.11", port=8883,
    )  # fmt: skip


def state(base: Path, tenant: str) -> None:
    """What a converge of a stack that needs the broker leaves behind."""
    guest = {"container": NAME, "aliases": ["broker"], "address": "10.90.3.29", "playbook": "prepare_nodes"}
    path = base / "tenants" / tenant / "state.json"
    path.write_text(json.dumps({"network": {"name": f"hf-{tenant}", "attach": [guest]}}))


def test_a_new_broker_starts_with_the_users_and_in_the_networks_that_need_it(engine: Any, base: Path) -> None:
    state(base, "bell")
    users(base, "gone", "")
    state(base, "gone")
    predicted = broker.present(engine, spec(base), check=True)
    assert engine.made is None
    outcome = broker.present(engine, spec(base), check=False)
    assert predicted.actions == outcome.actions == [f"made {NAME}", f"attached {NAME} to hf-bell"]
    assert engine.joined == {"hf-bell": {"Aliases": ["broker"], "address": "10.90.3.29"}}
    assert "bell.b1" in passwords(base)
    assert engine.signals == [], "it has just read them"
    assert broker.present(engine, spec(base), check=False).actions == []


def test_a_broker_that_runs_is_told_of_users_that_it_missed(engine: Any, base: Path) -> None:
    broker.present(engine, spec(base), check=False)
    users(base, "acme", "acme.b1:$7$\n")
    predicted = broker.present(engine, spec(base), check=True)
    assert predicted.actions == broker.present(engine, spec(base), check=False).actions == ["handed the users over"]
    assert engine.signals == [f"{NAME} HUP"]


def test_only_tls_is_published_and_only_at_the_nodes_address(engine: Any, base: Path) -> None:
    broker.present(engine, spec(base), check=False)
    host = engine.made["HostConfig"]
    assert host["PortBindings"] == {"8883/tcp": [{"HostIp": "192.0.2.11", "HostPort": "8883"}]}
    assert all(bind.endswith(":ro") for bind in host["Binds"])
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    endpoint = engine.made["NetworkingConfig"]["EndpointsConfig"][f"hf-0-{NAME}"]
    assert endpoint["IPAMConfig"]["IPv4Address"] == broker.listen_address("10.90.0.8/29") == "10.90.0.10"


class TestCertificate:
    """With the real openssl."""

    def test_a_key_is_made_once_and_asks_the_same_again(self, tmp_path: Path) -> None:
        assert not certificate.is_valid(tmp_path, "192.0.2.11", "")
        first = certificate.request(tmp_path, 0)
        key = (tmp_path / "server.key").read_bytes()
        assert first.startswith("-----BEGIN CERTIFICATE REQUEST-----")
        assert b"PRIVATE KEY" in key and (tmp_path / "server.key").stat().st_mode & 0o777 == 0o400
        certificate.request(tmp_path, 0)
        assert (tmp_path / "server.key").read_bytes() == key

    def test_only_our_own_certificate_for_that_address_counts(self, tmp_path: Path) -> None:
        from ansible_collections.hummingfleet.core.plugins.module_utils import broker_authority, fleet

        data = {"plugin": "hummingfleet.core.tenants", "nodes": {"local": {"memory_mib": 1}}}
        here, other = (fleet.parse_fleet(data, tmp_path / name / "fleet.tenants.yml") for name in ("a", "b"))
        for one in (here, other):
            broker_authority.ensure(one)
        tls = tmp_path / "tls"
        tls.mkdir()
        issued = broker_authority.issue(here, certificate.request(tls, 0), "192.0.2.11")
        ours = broker_authority.authority(here)
        certificate.install(tls, 0, issued, ours)
        assert certificate.is_valid(tls, "192.0.2.11", ours)
        assert not certificate.is_valid(tls, "192.0.2.12", ours)
        assert not certificate.is_valid(tls, "192.0.2.11", broker_authority.authority(other))
        (tls / "server.key").unlink()
        certificate.request(tls, 0)
        assert not certificate.is_valid(tls, "192.0.2.11", ours), "it belongs to another key"
