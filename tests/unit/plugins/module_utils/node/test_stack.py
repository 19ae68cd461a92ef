"""The order in which a stack is changed, as far as it decides about orders; tests/lab and tests/engine use Docker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node import batch, observe, stack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a stack's files belong to several users")

UNCLEAN = {"state": "running", "clean": False}
CLEAN = {"state": "stopped", "clean": True}


class FakeEngine:
    """Docker with one tenant; notes what was done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.found: list[dict[str, Any]] = []
        self.net: dict[str, Any] | None = None

    def network(self, name: str) -> dict[str, Any] | None:
        return self.net

    def create_network(self, name: str, subnet: str, *_rest: object) -> None:
        self.done.append("network")
        self.net = {"IPAM": {"Config": [{"Subnet": subnet}]}, "Internal": False}

    def containers(self, labels: list[str]) -> list[dict[str, Any]]:
        return self.found

    def inspect(self, container: str) -> dict[str, Any] | None:
        return None

    def stop(self, container: str, grace_seconds: int) -> None:
        self.done.append(f"stop {container}")

    def remove(self, container: str) -> None:
        self.done.append(f"remove {container}")

    def remove_network(self, name: str) -> None:
        self.net = None


class Node:
    """A node on which acme's stack is brought about; ``settles`` says whether the exchange answers."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.folder = base / "tenants" / "acme"
        self.folder.parent.mkdir(parents=True)
        self.engine = FakeEngine()
        self.settles = True
        self.up_fails = False
        monkeypatch.setattr(stack.Stack, "_compose", self._compose)

    def _compose(self, *arguments: str, timeout: float = 0) -> str:
        if arguments[0] == "up":
            self.engine.done.append("up")
            if self.up_fails:
                raise stack.StackError("up failed")
            return ""
        service = next(word for word in arguments if word.startswith("bot_"))
        self.engine.done.append(f"settle {service}")
        if service not in (self.folder / "compose.yml").read_text():
            raise stack.StackError(f"no such service: {service}")
        if self.engine.net is None:
            raise stack.StackError("the network could not be found")
        if not self.settles:
            raise stack.StackError("the exchange does not answer")
        self.record(service.removeprefix("bot_"), CLEAN)
        return ""

    def record(self, bot: str, lifecycle: dict[str, Any]) -> None:
        path = self.folder / "bots" / bot / "data" / "lifecycle.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(lifecycle))

    def container(self, service: str, state: str) -> dict[str, dict[str, Any]]:
        return {service: {"id": service, "name": f"acme-{service}", "state": state, "spec": "s1", "image_id": "i"}}

    def bring(
        self, bots: dict[str, str], containers: dict[str, dict[str, Any]] | None = None, *, absent: bool = False
    ) -> dict[str, Any]:
        services = {
            f"bot_{bot}": {
                "container": f"acme-bot_{bot}", "spec": "s1", "running": state == "running", "image": "i:1",
                "port": None,
            }
            for bot, state in bots.items()
        }  # fmt: skip
        directories = ["bots"]
        for bot in bots:
            directories += [f"bots/{bot}", f"bots/{bot}/data"]
        wanted = {
            "tenant": "acme", "revision": 1, "digest": "d", "fence": 1, "gid": 0,
            "network": {
                "name": "hf-acme", "subnet": "10.0.0.0/27", "gateway": "10.0.0.1", "internal": False, "attach": [],
            },
            "directories": [{"path": path, "mode": "0750", "uid": 0, "gid": 0} for path in directories],
            "files": [
                {
                    "path": "compose.yml", "content": " ".join(services), "secret": False, "mode": "0640", "uid": 0,
                    "gid": 0,
                }
            ],
            "services": services,
            "bots": [
                {"id": bot, "service": f"bot_{bot}", "state": state, "command": ["agent"], "live_digest": None}
                for bot, state in bots.items()
            ],
        }  # fmt: skip
        worker = stack.Stack(self.engine, str(self.base), wanted, {}, containers or {}, check=False)  # type: ignore[arg-type]
        return worker.absent(keep_data=False, force=False) if absent else worker.present()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


@pytest.mark.parametrize("absent", [False, True], ids=["the bot is deleted", "the tenant is removed"])
def test_a_bot_of_a_deployment_that_broke_off_is_stopped_before_it_is_removed(node: Node, absent: bool) -> None:
    node.up_fails = True
    with pytest.raises(stack.StackError, match="up failed"):
        node.bring({"b1": "running"})
    node.record("b1", UNCLEAN)  # it was started all the same, and trades
    node.up_fails = False
    node.engine.done.clear()
    node.bring({}, node.container("bot_b1", "running"), absent=absent)
    assert node.engine.done[:3] == ["stop bot_b1", "settle bot_b1", "remove bot_b1"]


def test_a_deleted_bot_that_cannot_settle_now_settles_at_the_next_converge(node: Node) -> None:
    node.bring({"b1": "running"})
    node.record("b1", UNCLEAN)
    node.settles = False
    for _attempt in range(2):
        with pytest.raises(stack.StackError, match=r"b1 is unclean .*the exchange does not answer"):
            node.bring({}, node.container("bot_b1", "exited"))
    assert "remove bot_b1" not in node.engine.done
    node.settles = True
    node.bring({}, node.container("bot_b1", "exited"))
    assert node.engine.done[-2:] == ["settle bot_b1", "remove bot_b1"]
    assert not (node.folder / "bots" / "b1").exists()


def test_a_dead_bot_settles_on_a_node_that_lost_its_containers_and_networks(node: Node) -> None:
    node.bring({"b1": "running"})
    node.record("b1", UNCLEAN)
    node.engine.net = None
    node.engine.done.clear()
    node.bring({"b1": "stopped"})
    assert node.engine.done == ["network", "settle bot_b1"]


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_a_record_that_cannot_be_read_is_not_a_clean_one(node: Node, damage: str) -> None:
    node.bring({"b1": "running"})
    node.record("b1", CLEAN)
    (node.folder / "bots" / "b1" / "data" / "lifecycle.json").write_text(damage)
    assert observe.bot_facts(node.folder / "bots" / "b1", None, 0.0)["state"] == "unclean"
    node.engine.done.clear()
    node.bring({"b1": "stopped"})
    assert node.engine.done == ["settle bot_b1"]


def test_a_surprise_with_one_tenant_leaves_its_neighbours_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def present(self: stack.Stack) -> dict[str, Any]:
        if self.tenant == "acme":
            raise KeyError("IPAddress")
        return {"changed": True, "changes": ["x"], "diff": []}

    monkeypatch.setattr(stack.Stack, "present", present)
    stacks = [{"tenant": tenant, "state": "present", "services": {}, "bots": []} for tenant in ("acme", "zeta")]
    answer = batch.apply(
        FakeEngine(), str(tmp_path), stacks, {}, agents={}, parallel=2, health_timeout_seconds=0,  # type: ignore[arg-type]
        keep_data=False, force=False, deep=False, check=False,
    )  # fmt: skip
    assert answer["tenants"]["acme"]["failed"]
    assert "KeyError" in answer["tenants"]["acme"]["message"]
    assert answer["tenants"]["zeta"]["changed"]
    assert "failed" not in answer["tenants"]["zeta"]
