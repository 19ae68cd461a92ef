"""Runs become reports: what changed, what failed, and what kind of trouble it was."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine, DockerError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Lease

from webhook.operations import OUTCOME, STACKS, Problem, read_converge, survey
from webhook.runs import RunResult, TaskFailure, TaskResult


def _run(*outcomes: tuple[str, dict[str, Any]], failures: tuple[TaskFailure, ...] = (), rc: int = 0) -> RunResult:
    tenants = [tenant for tenant, _answer in outcomes]
    results = [TaskResult("tenant-a", STACKS, "Ask", {"behind": tenants, "asked": 5})]
    results += [TaskResult(f"tenant-{tenant}", OUTCOME, "Judge", answer) for tenant, answer in outcomes]
    return RunResult("converge_tenant", rc, 1.0, failures=failures, results=tuple(results))


def test_tenants_judge_themselves() -> None:
    report = read_converge(
        _run(
            ("b", {"changed": True, "changes": ["start container b-redis"], "bots": {"b1": "running"}}),
            ("a", {"changed": False, "changes": []}),
            ("c", {"failed": True, "msg": "tenant c: not healthy after 180 s"}),
            failures=(TaskFailure("tenant-c", "Judge", "tenant c: not healthy after 180 s"),),
            rc=2,
        )
    )
    assert [(one.tenant, one.result) for one in report.tenants] == [
        ("a", "unchanged"),
        ("b", "changed"),
        ("c", "failed"),
    ]
    assert report.asked == 5
    assert report.problem is Problem.FAILED
    assert report.problems() == "tenant c: not healthy after 180 s"


def test_the_words_of_a_held_lease_are_recognised() -> None:
    message = Lease("acme", 3, "host:12:boot/1", 0.0, 60.0).describe()
    report = read_converge(_run(("acme", {"failed": True, "msg": f"tenant acme: {message}"}), rc=2))
    assert report.problem is Problem.BUSY


def test_the_words_of_an_engine_that_does_not_answer_are_recognised() -> None:
    with pytest.raises(DockerError) as caught:
        DockerEngine("/nowhere/docker.sock").request("GET", "/containers/json")
    report = read_converge(_run(("acme", {"failed": True, "msg": f"tenant acme: {caught.value}"}), rc=2))
    assert report.problem is Problem.UNREACHABLE


def test_a_run_that_fails_before_any_tenant_is_no_success() -> None:
    report = read_converge(RunResult("converge_tenant", 4, 1.0, output=("[ERROR]: no tenant is in the limit 'x'",)))
    assert report.problem is Problem.FAILED
    assert "no tenant is in the limit" in report.problems()


def test_a_failure_outside_tenants_is_reported() -> None:
    failure = TaskFailure("tenant-a", "Have the images on the node", "no space left")
    report = read_converge(RunResult("converge_tenant", 2, 1.0, failures=(failure,)))
    assert (report.problem, report.problems()) == (Problem.FAILED, "no space left")


def test_a_survey_has_bots_in_order_and_the_nodes_that_did_not_answer() -> None:
    answers = [
        {"node_problem": None, "tenants": {"b": {"reasons": [], "bots": {"b2": {"state": "running"}}}}},
        {"node_problem": None, "tenants": {"a": {"reasons": ["x"], "bots": {"b1": {"state": "halted"}}}}},
        {"node_problem": "node edge_1 could not be reached: timeout", "tenants": {}},
    ]
    results = tuple(TaskResult("h", STACKS, "Ask", answer) for answer in answers)
    found = survey(lambda playbook, **arguments: RunResult(playbook, 0, 1.0, results=results))
    assert [(one.tenant, one.bot, one.state) for one in found.bots] == [("a", "b1", "halted"), ("b", "b2", "running")]
    assert found.reasons["a"] == ("x",)
    assert found.node_problems == ("node edge_1 could not be reached: timeout",)
