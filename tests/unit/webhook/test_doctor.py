"""The doctor's judgements, on recorded answers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import process_holder
from click.testing import Result

from tests import factories
from webhook.doctor import Level, judge_node
from webhook.secrets_file import SecretsFile
from webhook.work import Ending, WorkQueue

HEALTHY: dict[str, dict[str, Any]] = {
    "Read the clock": {"rc": 0, "stdout": "1795400348.9", "at": 1795400349.0},
    "Read the version of the Docker engine": {"rc": 0, "stdout": "20.10.24+dfsg1"},
    "Read the version of docker compose": {"rc": 0, "stdout": "2.26.1-4"},
    "List the images": {"rc": 0, "stdout": "hummingfleet/redis:7-1\nhummingfleet/engine:1\n"},
    "Read the free disk space": {"rc": 0, "stdout": "Avail\n 73000"},
}
REDIS = frozenset({"redis:7", "hummingfleet/redis:7-1"})


def _levels(**changes: dict[str, Any]) -> dict[str, Level]:
    names = {"clock": 0, "docker": 1, "compose": 2, "images": 3, "disk": 4}
    answers = dict(HEALTHY)
    for name, answer in changes.items():
        answers[list(HEALTHY)[names[name]]] = answer
    return {check.subject.split()[0]: check.level for check in judge_node("local", answers, {REDIS})}


def test_a_healthy_node_has_no_complaint() -> None:
    assert set(_levels().values()) == {Level.OK}


@pytest.mark.parametrize(
    ("changes", "subject", "level"),
    [
        ({"docker": {"rc": 2, "msg": "[Errno 2] No such file"}}, "docker", Level.FAIL),
        ({"docker": {"rc": 0, "stdout": "19.3.1"}}, "docker", Level.FAIL),
        ({"compose": {"rc": 0, "stdout": "1.29.2"}}, "compose", Level.FAIL),
        ({"compose": {"rc": 0, "stdout": "v5.0.0"}}, "compose", Level.OK),
        ({"clock": {"rc": 0, "stdout": "1795400345.9", "at": 1795400349.0}}, "clock", Level.WARN),
        ({"clock": {"rc": 0, "stdout": "1795400400.0", "at": 1795400349.0}}, "clock", Level.FAIL),
        ({"disk": {"rc": 0, "stdout": "Avail\n 900"}}, "disk", Level.WARN),
        ({"images": {"rc": 0, "stdout": "postgres:15"}}, "images", Level.WARN),
        ({"images": {"rc": 0, "stdout": "redis:7"}}, "images", Level.OK),
    ],
)
def test_what_is_wrong_is_found(changes: dict[str, Any], subject: str, level: Level) -> None:
    assert _levels(**changes)[subject] is level


def test_everything_that_is_wrong_has_an_action() -> None:
    broken = {task: {"rc": 1} for task in HEALTHY}
    assert all(check.action for check in judge_node("local", broken, {REDIS}) if check.level is not Level.OK)


def test_a_missing_key_ring_fails_and_says_what_to_do(call: Callable[..., Result], fleet_path: Path) -> None:
    (fleet_path.parent / "keyring.yml").unlink()
    result = call("doctor", "--no-nodes", "--json")
    checks = {check["subject"]: check for check in json.loads(result.output)}
    assert result.exit_code == 1
    assert checks["key ring"]["level"] == "fail"
    assert checks["key ring"]["action"] == "make one with: hummingfleet keyring init"


def test_a_plan_that_names_a_strategy_nobody_has_is_a_warning(call: Callable[..., Result], fleet_path: Path) -> None:
    assert not [subject for subject in _webhook(call) if subject.startswith("plan")]
    shutil.copytree(factories.ROOT / "catalogue", fleet_path.parent / "catalogue")
    fleet = yaml.safe_load(fleet_path.read_text())
    fleet_path.write_text(yaml.safe_dump({**fleet, "catalogue": str(fleet_path.parent / "catalogue")}))
    path = fleet_path.parent / "catalogue" / "plans.yml"
    plans = yaml.safe_load(path.read_text())
    name = next(iter(plans))
    plans[name]["strategies"] = ["grid", "range_keeper_v1"]
    path.write_text(yaml.safe_dump(plans))
    level, finding = _webhook(call)[f"plan {name}"]
    assert (level, finding) == ("warn", "it names strategies that do not exist: range_keeper_v1")


def test_a_key_ring_that_others_can_read_fails(call: Callable[..., Result], fleet_path: Path) -> None:
    (fleet_path.parent / "keyring.yml").chmod(0o644)
    assert call("doctor", "--no-nodes").exit_code == 1


def test_tenants_behind_and_held_leases_are_shown(
    call: Callable[..., Result], registry: Any, stored: dict[str, Any]
) -> None:
    registry.acquire_leases(["acme"], holder="elsewhere:1:x", ttl_seconds=60)
    result = call("doctor", "--no-nodes")
    assert result.exit_code == 0
    assert "warn  behind: 1 tenant(s)" in result.output
    assert "tenant acme is being worked on by process 1 on elsewhere" in result.output


def _webhook(call: Callable[..., Result]) -> dict[str, tuple[str, str]]:
    found = json.loads(call("doctor", "--no-nodes", "--json").output)
    return {one["subject"]: (one["level"], one["finding"]) for one in found}


def test_a_fleet_without_a_portal_is_well(call: Callable[..., Result]) -> None:
    assert _webhook(call)["webhook"][0] == "ok"


def test_waiting_work_without_a_worker_is_a_warning(
    call: Callable[..., Result], stored: dict[str, Any], fleet_path: Path
) -> None:
    SecretsFile(fleet_path.parent / "var" / "webhook-secrets.yml").ensure(time.time())
    assert _webhook(call)["worker"] == ("warn", "none runs on this registry")
    call("converge", "acme")
    assert _webhook(call)["worker"][0] == "ok"


def test_a_tenant_that_was_given_up_is_a_warning(
    call: Callable[..., Result], stored: dict[str, Any], registry: Any, fleet_path: Path
) -> None:
    SecretsFile(fleet_path.parent / "var" / "webhook-secrets.yml").ensure(time.time())
    queue = WorkQueue(registry, process_holder())
    (claim,) = queue.claim(["acme"])
    queue.finish(claim, Ending("credentials_refused"))
    level, finding = _webhook(call)["events"]
    assert (level, finding) == ("warn", "1 tenant(s) have failed and wait for somebody")


def test_signing_secrets_that_others_can_read_fail(call: Callable[..., Result], fleet_path: Path) -> None:
    path = fleet_path.parent / "var" / "webhook-secrets.yml"
    SecretsFile(path).ensure(time.time())
    path.chmod(0o644)
    assert _webhook(call)["webhook secrets"][0] == "fail"


def test_a_fleet_without_bots_that_take_signals_needs_no_broker(
    call: Callable[..., Result], stored: dict[str, Any]
) -> None:
    assert not [subject for subject in _webhook(call) if subject.startswith("broker")]


def test_a_node_whose_bots_get_no_signals_fails(call: Callable[..., Result]) -> None:
    bots = [factories.signal_bot(), factories.signal_bot(id="s2", name="two"), factories.grid_bot()]
    document = factories.document(exchange_connections=[factories.connection()], bots=bots)
    assert call("tenant", "apply", "-f", "-", stdin=json.dumps(document)).exit_code == 0
    level, finding = _webhook(call)["broker of local"]
    assert level == "fail"
    assert finding.startswith("2 bot(s) there get no signals: ")
