"""The order in which a stack is changed, as far as it decides about orders; tests/lab and tests/engine use Docker."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node import batch, observe, stack
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a stack's files belong to several users")

UNCLEAN = {"state": "running", "clean": False}
CLEAN = {"state": "stopped", "clean": True}


class FakeEngine:
    """Docker with one tenant; notes what was done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.found: list[dict[str, Any]] = []
        self.net: dict[str, Any] | None = None
        self.logs: dict[str, list[str]] = {}

    def network(self, name: str) -> dict[str, Any] | None:
        return self.net

    def create_network(self, name: str, subnet: str, *_rest: object) -> None:
        self.done.append("network")
        self.net = {
            "Id": name,
            "Name": name,
            "IPAM": {"Config": [{"Subnet": subnet}]},
            "Internal": False,
            "Labels": {observe.LABEL_TENANT: "acme"},
        }

    def containers(self, labels: list[str]) -> list[dict[str, Any]]:
        return self.found

    def inspect(self, container: str) -> dict[str, Any] | None:
        return None

    def stop(self, container: str, grace_seconds: int) -> None:
        self.done.append(f"stop {container}")

    def remove(self, container: str) -> None:
        self.done.append(f"remove {container}")

    def remove_network(self, name: str) -> None:
        self.done.append(f"remove network {name}")
        self.net = None

    def log(self, container: str, *, lines: int, since: int) -> list[str]:
        return self.logs.get(container, [])


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
        self,
        bots: dict[str, str],
        containers: dict[str, dict[str, Any]] | None = None,
        *,
        absent: bool = False,
        check: bool = False,
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
            "tenant": "acme", "revision": 1, "digest": "d", "fence": 1, "gid": 0, "broker": "hf-broker",
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
        worker = stack.Stack(self.engine, str(self.base), wanted, {}, containers or {}, check=check)  # type: ignore[arg-type]
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


def _apply(
    engine: FakeEngine, base: Path, wanted: list[dict[str, Any]], *, seconds: float = 0, check: bool = False
) -> dict[str, Any]:
    answer = batch.apply(
        engine, str(base), wanted, {}, agents={}, parallel=2, health_timeout_seconds=seconds,  # type: ignore[arg-type]
        keep_data=False, force=False, deep=False, check=check,
    )  # fmt: skip
    results: dict[str, Any] = answer["tenants"]
    return results


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (stack.StackError("x"), "node_refused"),
        (stack.StackError("x", Problem.BUSY), "busy"),
        (DockerError("no room", 500), "node_refused"),
        (DockerError("nobody answers"), "unreachable"),
        (OSError(28, "No space left on device"), "node_refused"),
        (KeyError("x"), "internal"),
    ],
)
def test_every_failure_of_a_tenant_has_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def present(self: stack.Stack) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(stack.Stack, "present", present)
    wanted = [{"tenant": "acme", "state": "present", "services": {}, "bots": []}]
    assert _apply(FakeEngine(), tmp_path, wanted)["acme"]["problem"] == problem


def test_a_bot_that_does_not_trade_is_explained_by_its_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack.Stack, "present", lambda self: {"changed": True, "changes": ["x"], "diff": []})
    engine = FakeEngine()
    labels = {observe.LABEL_TENANT: "acme", observe.LABEL_SERVICE: "bot_b1", observe.LABEL_SPEC: "s1"}
    engine.found = [
        {
            "Id": "c1", "Names": ["/acme-bot_b1"], "State": "running", "Status": "Up 1 second", "Labels": labels,
            "ImageID": "i", "Created": 0, "NetworkSettings": {"Networks": {}},
        }
    ]  # fmt: skip
    engine.logs = {"c1": ["2026-11-23T05:00:00.1Z ERROR hummingfleet.launcher - CONFIGURATION bot.json: no pair"]}
    service = {"container": "acme-bot_b1", "spec": "s1", "running": True, "image": "i:1", "port": None}
    bot = {"id": "b1", "service": "bot_b1", "state": "running", "live_digest": None}
    wanted = [{"tenant": "acme", "state": "present", "services": {"bot_b1": service}, "bots": [bot]}]
    result = _apply(engine, tmp_path, wanted)["acme"]
    assert result["problem"] == "engine_refused"
    assert result["message"].endswith("bot b1 is starting (its log: CONFIGURATION bot.json: no pair)")
    assert result["bots"]["b1"]["state"] == "starting"


class TestSettling:
    """A bot whose orders cannot be checked: the code, and why, as the agent wrote it down."""

    @pytest.mark.parametrize(
        ("exit_code", "problem"),
        [(3, "exchange_unanswered"), (1, "exchange_unanswered"), (2, "engine_refused"), (4, "engine_refused")],
    )
    def test_the_agents_exit_code_decides(
        self, node: Node, monkeypatch: pytest.MonkeyPatch, exit_code: int, problem: str
    ) -> None:
        node.bring({"b1": "running"})
        node.record("b1", UNCLEAN)

        def compose(_self: stack.Stack, *arguments: str, timeout: float = 0) -> str:
            node.record("b1", {**UNCLEAN, "at": time.time(), "reason": "OSError:\x1b[2J -2015 refused"})
            raise stack.StackError("docker compose run failed: {noise}", exit_code=exit_code)

        monkeypatch.setattr(stack.Stack, "_compose", compose)
        with pytest.raises(stack.StackError) as caught:
            node.bring({"b1": "stopped"})
        assert str(caught.value.problem) == problem
        said = "settle: OSError: [2J -2015 refused" if exit_code == 3 else "docker compose run failed"
        assert said in str(caught.value)

    def test_what_a_settling_that_broke_off_left_is_ended_first(self, node: Node) -> None:
        left = {"Id": "run1", "Names": ["/hf-acme-bot_b1-run-1"], "State": "running"}
        node.engine.found = [{**left, "Labels": {"com.docker.compose.oneoff": "True"}}]
        made = node.bring({})
        assert node.engine.done[:2] == ["stop run1", "remove run1"]
        assert any("hf-acme-bot_b1-run-1" in change for change in made["changes"])


class TestOwnNetworkOnly:
    def test_a_strangers_network_of_that_name_survives_the_removal(self, node: Node) -> None:
        node.bring({})
        assert node.engine.net is not None
        node.engine.net["Labels"] = {observe.LABEL_TENANT: "other"}
        node.bring({}, absent=True)
        assert node.engine.net is not None
        assert not node.folder.exists()

    def test_a_strangers_network_is_not_taken(self, node: Node) -> None:
        node.engine.net = {"Id": "n", "Name": "hf-acme", "Labels": None}
        with pytest.raises(stack.StackError, match="not of this tenant"):
            node.bring({})
        assert not node.folder.exists()


def test_the_folders_own_mode_is_repaired_and_told(node: Node) -> None:
    node.bring({})
    node.folder.chmod(0o777)
    assert "the stack's folder" in node.bring({})["changes"]
    assert node.folder.stat().st_mode & 0o777 == 0o750
    assert node.bring({})["changes"] == []


def test_a_run_that_lost_its_lease_makes_no_folder(node: Node) -> None:
    fences = node.base / "fences"
    fences.mkdir()
    (fences / "acme.json").write_text('{"fence": 7}')
    with pytest.raises(stack.StackError, match="lost its lease") as caught:
        node.bring({})
    assert caught.value.problem is Problem.BUSY
    assert not node.folder.exists()


def test_a_removal_is_predicted_as_it_comes(node: Node) -> None:
    node.bring({"b1": "running"})
    containers = node.container("bot_b1", "running")
    node.engine.done.clear()
    predicted = node.bring({}, containers, absent=True, check=True)
    assert node.engine.done == []
    assert node.folder.is_dir()
    assert predicted["changes"] == node.bring({}, containers, absent=True)["changes"]
