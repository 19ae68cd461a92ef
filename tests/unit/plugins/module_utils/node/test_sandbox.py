"""The sandbox exchange's container: what is created, what stays, what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.sandbox import SandboxSpec, present
from ansible_collections.hummingfleet.core.plugins.module_utils.node.shared import SharedContainerError, absent

SPEC = SandboxSpec("hf-sandbox", "hummingfleet/sandbox:1", "hf-sandbox", "10.90.0.0/29", "/srv/sandbox", 199999, 256)


class FakeEngine:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.image: str | None = "sha256:1"
        self.container: dict[str, Any] | None = None
        self.nets: dict[str, dict[str, Any]] = {}
        self.done: list[str] = []
        self.connected: dict[str, Any] = {}
        self.connect_error: DockerError | None = None

    def image_id(self, reference: str) -> str | None:
        return self.image

    def network(self, name: str) -> dict[str, Any] | None:
        return self.nets.get(name)

    def create_network(
        self, name: str, subnet: str, gateway: str, internal: bool, labels: dict[str, str], options: dict[str, str]
    ) -> None:
        self.done.append("network")
        self.nets[name] = {"IPAM": {"Config": [{"Subnet": subnet, "Gateway": gateway}]}, "Internal": internal}

    def remove_network(self, name: str) -> None:
        self.done.append("remove network")
        del self.nets[name]

    def inspect(self, name: str) -> dict[str, Any] | None:
        return self.container

    def stop(self, name: str, grace_seconds: int) -> None:
        self.done.append("stop")

    def remove(self, name: str) -> None:
        self.done.append("remove")
        self.container = None

    def request(self, method: str, path: str, query: Any = None, body: Any = None) -> None:
        if path == "/containers/create":
            self.done.append("create")
            self.container = {
                "Id": "0123456789abcdef",
                "Config": {"Labels": body["Labels"], "User": body["User"]},
                "HostConfig": copy.deepcopy(body["HostConfig"]),
                "State": {"Running": False},
                "NetworkSettings": {"Networks": {SPEC.network: {"Aliases": None}}},
            }
            self.body = body
        elif path.endswith("/connect"):
            if self.connect_error:
                raise self.connect_error
            self.connected[path.split("/")[2]] = body["EndpointConfig"]
        elif path.endswith("/start"):
            self.done.append("start")
            assert self.container is not None
            self.container["State"]["Running"] = True
        else:
            raise AssertionError(path)


@pytest.fixture
def engine() -> Any:
    return FakeEngine()


@pytest.fixture
def running(engine: Any) -> Any:
    present(engine, SPEC, check=False)
    engine.done.clear()
    return engine


def test_first_run_makes_network_and_container(engine: Any) -> None:
    outcome = present(engine, SPEC, check=False)
    assert engine.done == ["network", "create", "start"]
    assert (outcome.actions, outcome.created) == (["made network hf-sandbox", "made hf-sandbox"], True)
    assert engine.nets["hf-sandbox"]["Internal"] is True
    host = engine.body["HostConfig"]
    assert host["Sysctls"]["net.ipv4.ip_forward"] == "0"
    assert (host["CapDrop"], host["ReadonlyRootfs"], engine.body["User"]) == (["ALL"], True, "199999:199999")
    assert "PortBindings" not in host
    assert "ExposedPorts" not in engine.body


def test_second_run_does_nothing(running: Any) -> None:
    assert present(running, SPEC, check=False).actions == []
    assert running.done == []


def test_stopped_container_is_started(running: Any) -> None:
    running.container["State"]["Running"] = False
    outcome = present(running, SPEC, check=False)
    assert (running.done, outcome.created) == (["start"], False)


@pytest.mark.parametrize("change", ["image", "memory", "hand"])
def test_new_container_gets_the_tenants_connections_of_the_old_one(running: Any, change: str) -> None:
    running.container["NetworkSettings"]["Networks"]["hf-acme"] = {
        "Aliases": ["api.binance.com", "0123456789ab"],
        "IPAMConfig": {"IPv4Address": "10.90.1.30"},
    }
    spec = SPEC
    if change == "image":
        running.image = "sha256:2"
    elif change == "memory":
        spec = SandboxSpec(**{**SPEC.__dict__, "memory_mib": 128})
    else:
        running.container["HostConfig"]["Memory"] = 1
    outcome = present(running, spec, check=False)
    assert running.done == ["stop", "remove", "create", "start"]
    assert outcome.created
    assert running.connected == {
        "hf-acme": {"Aliases": ["api.binance.com"], "IPAMConfig": {"IPv4Address": "10.90.1.30"}}
    }


@pytest.mark.parametrize(("status", "tolerated"), [(404, True), (403, True), (500, False)])
def test_tenant_that_went_or_came_meanwhile_does_not_matter(running: Any, status: int, tolerated: bool) -> None:
    running.container["NetworkSettings"]["Networks"]["hf-acme"] = {"Aliases": None, "IPAMConfig": None}
    running.image, running.connect_error = "sha256:2", DockerError("no", status)
    if tolerated:
        present(running, SPEC, check=False)
        assert running.done[-1] == "start"
    else:
        with pytest.raises(DockerError):
            present(running, SPEC, check=False)


def test_check_mode_predicts_and_does_nothing(engine: Any) -> None:
    engine.image = None
    predicted = present(engine, SPEC, check=True)
    assert engine.done == []
    engine.image = "sha256:1"
    assert present(engine, SPEC, check=False) == predicted
    engine.done.clear()
    assert absent(engine, "hf-sandbox", "hf-sandbox", check=True).actions == [
        "removed hf-sandbox",
        "removed network hf-sandbox",
    ]
    assert engine.done == []


def test_missing_image_is_refused_with_what_to_do(engine: Any) -> None:
    engine.image = None
    with pytest.raises(SharedContainerError, match="prepare_nodes"):
        present(engine, SPEC, check=False)


@pytest.mark.parametrize(
    "network",
    [
        {"IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}, "Internal": True},
        {"IPAM": {"Config": [{"Subnet": "10.90.0.0/29"}]}, "Internal": False},
    ],
)
def test_foreign_network_of_the_same_name_is_refused(engine: Any, network: dict[str, Any]) -> None:
    engine.nets["hf-sandbox"] = network
    with pytest.raises(SharedContainerError, match="sandbox_exchange_subnet"):
        present(engine, SPEC, check=False)
    assert engine.done == []


def test_absent_removes_both_and_then_nothing(running: Any) -> None:
    assert len(absent(running, "hf-sandbox", "hf-sandbox", check=False).actions) == 2
    assert absent(running, "hf-sandbox", "hf-sandbox", check=False).actions == []
