"""What a node finds out and what it takes for healthy; the changes themselves are tested with Docker in tests/lab."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node import files, observe
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem

NOW = 1_000_000.0


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def container(service: str, state: str = "running", spec: str = "s1") -> dict[str, Any]:
    return {
        "id": service * 4,
        "name": f"acme-{service}",
        "state": state,
        "status": "Up 3 minutes",
        "spec": spec,
        "image_id": "sha256:1",
        "created": int(NOW) - 180,
        "address": "127.0.0.1",
    }


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    """A node on which acme was brought up with one bot that trades."""
    directory = tmp_path / "tenants" / "acme"
    services = {
        name: {"container": f"acme-{name}", "spec": "s1", "running": True, "image": "i:1", "inspect": None}
        for name in ("redis", "bot_b1")
    }
    write_json(
        directory / "state.json",
        {
            "digest": "d1",
            "revision": 4,
            "services": services,
            "bots": [{"id": "b1", "service": "bot_b1", "state": "running"}],
        },
    )
    write_json(
        directory / "bots" / "b1" / "data" / "heartbeat.json",
        {
            "at": NOW - 1,
            "phase": "trading",
            "strategy_running": True,
            "connectors": {"binance": True},
            "open_orders": 10,
            "config_digest": "live1",
        },
    )
    write_json(directory / "bots" / "b1" / "data" / "lifecycle.json", {"state": "running", "clean": False})
    return tmp_path


def survey(base: Path, digest: str = "d1", **containers: dict[str, Any]) -> dict[str, Any]:
    return observe.survey_tenant(str(base), "acme", digest, containers, NOW)


def test_a_stack_as_applied_is_not_behind(applied: Path) -> None:
    answer = survey(applied, redis=container("redis"), bot_b1=container("bot_b1"))
    assert answer["behind"] is False
    assert answer["bots"]["b1"]["state"] == "running"
    assert answer["bots"]["b1"]["open_orders"] == 10


def test_a_tenant_that_was_never_here_is_behind(tmp_path: Path) -> None:
    assert survey(tmp_path)["reasons"] == ["not deployed here yet"]


@pytest.mark.parametrize(
    ("digest", "redis", "reason"),
    [
        ("d2", container("redis"), "the desired state has changed"),
        ("d1", None, "container acme-redis is missing"),
        ("d1", container("redis", state="exited"), "container acme-redis is exited"),
        ("d1", container("redis", state="restarting"), "container acme-redis is restarting"),
        ("d1", container("redis", spec="s0"), "container acme-redis runs another specification"),
    ],
)
def test_what_makes_a_tenant_behind(applied: Path, digest: str, redis: dict[str, Any] | None, reason: str) -> None:
    containers = {"bot_b1": container("bot_b1"), **({"redis": redis} if redis else {})}
    assert survey(applied, digest, **containers)["reasons"] == [reason]


def test_a_container_nobody_asked_for_makes_behind(applied: Path) -> None:
    answer = survey(applied, redis=container("redis"), bot_b1=container("bot_b1"), extra=container("extra"))
    assert answer["reasons"] == ["container acme-extra is not expected"]


@pytest.mark.parametrize(
    ("lifecycle", "running", "expected"),
    [
        ({"state": "stopped", "clean": True, "open_orders": 0}, None, "stopped"),
        ({"state": "running", "clean": False}, None, "unclean"),
        ({"state": "stopped", "clean": False, "open_orders": 3}, None, "unclean"),
        ({"state": "running", "clean": False}, container("bot_b1", state="exited"), "unclean"),
        ({"state": "running", "clean": False}, container("bot_b1"), "running"),
    ],
)
def test_a_dead_bot_is_unclean_until_its_record_says_otherwise(
    applied: Path, lifecycle: dict[str, Any], running: dict[str, Any] | None, expected: str
) -> None:
    bot = applied / "tenants" / "acme" / "bots" / "b1"
    write_json(bot / "data" / "lifecycle.json", lifecycle)
    assert observe.bot_facts(bot, running, NOW)["state"] == expected


@pytest.mark.parametrize(
    ("heartbeat", "expected"),
    [
        ({"at": NOW - 60, "phase": "trading", "strategy_running": True, "connectors": {"b": True}}, "starting"),
        ({"at": NOW, "phase": "trading", "strategy_running": False, "connectors": {"b": True}}, "starting"),
        ({"at": NOW, "phase": "trading", "strategy_running": True, "connectors": {"b": False}}, "starting"),
        ({"at": NOW, "phase": "trading", "strategy_running": True, "connectors": {}}, "starting"),
        ({"at": NOW, "phase": "settling"}, "settling"),
        ({"at": NOW, "phase": "halted", "halted": {"code": "RISK_HALT"}}, "halted"),
        ({"at": True, "phase": "trading"}, "starting"),
        ({"at": NOW, "phase": ["x"]}, "starting"),
    ],
)
def test_a_live_process_alone_is_not_a_running_bot(applied: Path, heartbeat: dict[str, Any], expected: str) -> None:
    bot = applied / "tenants" / "acme" / "bots" / "b1"
    write_json(bot / "data" / "heartbeat.json", heartbeat)
    assert observe.bot_facts(bot, container("bot_b1"), NOW)["state"] == expected


def stack(live_digest: str | None = "live1") -> dict[str, Any]:
    service = {"container": "acme-bot_b1", "running": True, "spec": "s1", "image": "i:1", "port": None}
    return {
        "tenant": "acme",
        "services": {"bot_b1": service},
        "bots": [{"id": "b1", "service": "bot_b1", "live_digest": live_digest, "state": "running"}],
    }


def troubles(wanted: dict[str, Any], base: Path, containers: dict[str, dict[str, Any]]) -> list[tuple[str, Problem]]:
    return [(one.text, one.problem) for one in observe.unhealthy(wanted, str(base), containers, NOW)]


def test_health_waits_for_the_live_configuration(applied: Path) -> None:
    containers = {"bot_b1": container("bot_b1")}
    assert observe.unhealthy(stack(), str(applied), containers, NOW) == []
    assert troubles(stack("live2"), applied, containers) == [
        ("bot b1 has not taken over its new configuration yet", Problem.ENGINE_REFUSED)
    ]


def test_a_configuration_that_the_bot_refuses_is_not_waited_for(applied: Path) -> None:
    beat = applied / "tenants" / "acme" / "bots" / "b1" / "data" / "heartbeat.json"
    reason = "buy_price must be\nbelow " + "k" * 40
    write_json(beat, {**json.loads(beat.read_text()), "config_rejected": {"digest": "live2", "reason": reason}})
    containers = {"bot_b1": container("bot_b1")}
    # The refusal of another one says nothing about this one.
    assert [one.final for one in observe.unhealthy(stack("live3"), str(applied), containers, NOW)] == [False]
    assert observe.unhealthy(stack("live1"), str(applied), containers, NOW) == []
    [trouble] = observe.unhealthy(stack("live2"), str(applied), containers, NOW)
    assert (trouble.problem, trouble.bot, trouble.final) == (Problem.ENGINE_REFUSED, "b1", True)
    assert trouble.text == (
        "bot b1 refuses its new configuration and stays with the former one (its log: buy_price must be below …)"
    )
    write_json(beat, {**json.loads(beat.read_text()), "at": time.time() - 1})
    engine: Any = Engine()
    found = observe.wait_healthy(engine, str(applied), [stack("live2")], 60, pause=not_awaited)
    assert [one.text for one in found["acme"]] == [trouble.text]
    # Another bot of the tenant that only needs some time has it.
    other = {"id": "b2", "service": "bot_b2", "live_digest": None, "state": "running"}
    both = stack("live2")
    both["bots"].append(other)
    both["services"]["bot_b2"] = {**both["services"]["bot_b1"], "container": "acme-bot_b2"}
    with pytest.raises(AssertionError, match="it waited"):
        observe.wait_healthy(engine, str(applied), [both], 60, pause=not_awaited)


class Engine:
    """Lists the one container."""

    def containers(self, labels: list[str]) -> list[dict[str, Any]]:
        labelled = {observe.LABEL_TENANT: "acme", observe.LABEL_SERVICE: "bot_b1"}
        return [
            {
                "Id": "c1",
                "Names": ["/acme-bot_b1"],
                "State": "running",
                "Status": "Up",
                "ImageID": "sha256:1",
                "Created": 0,
                "Labels": labelled,
                "NetworkSettings": {"Networks": {}},
            }
        ]


def not_awaited(seconds: float) -> None:
    raise AssertionError("it waited")


def test_health_waits_until_a_service_answers(applied: Path) -> None:
    redis = {"container": "acme-redis", "running": True, "spec": "s1", "image": "i:1"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wanted = {"tenant": "acme", "services": {"redis": {**redis, "port": port}}, "bots": []}
        assert observe.unhealthy(wanted, str(applied), {"redis": container("redis")}, NOW) == []
    assert troubles(wanted, applied, {"redis": container("redis")}) == [
        (f"container acme-redis does not answer on port {port} yet", Problem.NODE_REFUSED)
    ]


def test_a_heartbeat_of_the_container_before_does_not_count(applied: Path) -> None:
    fresh = {**container("bot_b1"), "created": int(NOW) + 1}
    assert troubles(stack(), applied, {"bot_b1": fresh}) == [
        ("bot b1 has not reported since its container was made", Problem.ENGINE_REFUSED)
    ]


def test_a_bot_that_still_settles_waits_for_the_exchange(applied: Path) -> None:
    bot = applied / "tenants" / "acme" / "bots" / "b1"
    write_json(bot / "data" / "heartbeat.json", {"at": NOW - 1, "phase": "settling"})
    assert troubles(stack(), applied, {"bot_b1": container("bot_b1")}) == [
        ("bot b1 is settling: its orders could not be checked on the exchange yet", Problem.EXCHANGE_UNANSWERED)
    ]


def test_a_bot_that_does_not_stay_up_is_the_engines_matter_and_a_missing_container_the_nodes(applied: Path) -> None:
    restarting = {**container("bot_b1", state="restarting"), "status": "Restarting (2) 1 second ago"}
    assert troubles(stack(), applied, {"bot_b1": restarting}) == [
        (
            "bot b1 does not stay up: container acme-bot_b1 is restarting (Restarting (2) 1 second ago)",
            Problem.ENGINE_REFUSED,
        )
    ]
    assert troubles(stack(), applied, {}) == [("container acme-bot_b1 is missing", Problem.NODE_REFUSED)]


def test_a_bots_facts_are_small_and_of_known_kinds_whatever_it_writes(applied: Path) -> None:
    bot = applied / "tenants" / "acme" / "bots" / "b1"
    huge = "x" * 500
    heartbeat = {
        "at": NOW - 1,
        "phase": huge,
        "position": {"base": huge, "cost_quote": 7, "more": huge, "list": [huge]},
        "open_orders": -1,
        "fills": True,
        "halted": {"code": huge, "message": {"deep": huge}, "at": NOW},
        "risk": {"day": "2026-11-23", "day_pnl": "-12.5", "pnl": [1], "equity": 7, "more": 8, "quote": "USDT"},
        "connectors": {f"{number}{huge}": huge for number in range(60)},
        "engine_version": [huge],
        "pid": huge,
    }
    write_json(bot / "data" / "heartbeat.json", heartbeat)
    facts = observe.bot_facts(bot, container("bot_b1"), NOW)
    assert len(json.dumps(facts)) < 2500
    assert facts["position"] == {"base": "x" * 300, "cost_quote": 7}
    assert (facts["open_orders"], facts["fills"], facts["pid"]) == (None, None, None)
    assert (facts["connectors"], facts["engine_version"]) == (None, None)
    assert facts["halted"] == {"code": "x" * 300, "message": None, "at": NOW}
    assert facts["risk"] == {
        "day": "2026-11-23",
        "day_pnl": "-12.5",
        "pnl": None,
        "equity": 7,
        "position": None,
        "quote": "USDT",
        "market": None,
    }


class TestTenantWrittenFiles:
    """A tenant can put anything where root reads: links, pipes, endless files, deep JSON."""

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        write_json(tmp_path / "real.json", {"secret": 1})
        (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
        assert files.read_json(tmp_path / "real.json") == {"secret": 1}
        assert files.read_json(tmp_path / "link.json") is None

    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.json")
        assert files.read_json(tmp_path / "pipe.json") is None

    @pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 200_000, '{"a": "' + "x" * 300_000 + '"}'])
    def test_what_is_no_small_object_counts_as_nothing(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.json").write_text(text)
        assert files.read_json(tmp_path / "x.json") is None


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    files.write_file(target, b"new", "0400", os.getuid(), os.getgid())
    assert files.file_facts(target) == {
        "sha256": files.digest(b"new"),
        "mode": "0400",
        "uid": os.getuid(),
        "gid": os.getgid(),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_never_grows_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "data").symlink_to(elsewhere)
    files.ensure_directory(tmp_path / "data", "0700", os.getuid(), os.getgid())
    assert not (tmp_path / "data").is_symlink()
    assert files.directory_is(tmp_path / "data", "0700", os.getuid(), os.getgid())
    assert elsewhere.stat().st_mode & 0o777 == 0o755
