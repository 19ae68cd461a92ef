"""Runs become reports: what changed, what failed, and what kind of trouble it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import CredentialError
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import LeaseError

from webhook.operations import IMAGES, OUTCOME, STACKS, Problem, problem_of, read_converge, survey
from webhook.runs import RunCancelledError, RunError, RunResult, RunTimeoutError, TaskFailure, TaskResult


def _run(*outcomes: tuple[str, dict[str, Any]], failures: tuple[TaskFailure, ...] = (), rc: int = 0) -> RunResult:
    tenants = [tenant for tenant, _answer in outcomes]
    results = [TaskResult("tenant-a", STACKS, "Ask", {"behind": tenants, "asked": 5})]
    results += [TaskResult(f"tenant-{tenant}", OUTCOME, "Judge", answer) for tenant, answer in outcomes]
    return RunResult("converge_tenant", rc, 1.0, failures=failures, results=tuple(results))


def _failed(problem: str | None, message: str = "it failed") -> dict[str, Any]:
    return {"failed": True, "msg": message, **({"problem": problem} if problem else {})}


def test_tenants_judge_themselves() -> None:
    message = "tenant c: not healthy after 180 s"
    report = read_converge(
        _run(
            ("b", {"changed": True, "changes": ["start container b-redis"], "bots": {"b1": "running"}}),
            ("a", {"changed": False, "changes": []}),
            ("c", _failed("engine_refused", message)),
            failures=(TaskFailure("tenant-c", "Judge", message),),
            rc=2,
        ),
        ["a", "b", "c"],
    )
    assert [(one.tenant, one.result) for one in report.tenants] == [
        ("a", "unchanged"),
        ("b", "changed"),
        ("c", "engine_refused"),
    ]
    assert report.asked == 5
    assert report.problem is Problem.ENGINE_REFUSED
    assert report.problems() == message
    assert json.loads(json.dumps(report.plain()))["tenants"][2]["problem"] == "engine_refused"


@pytest.mark.parametrize("code", [str(problem) for problem in Problem])
def test_the_code_decides_and_not_the_words(code: str) -> None:
    misleading = "tenant acme is being worked on, could not be reached, does not answer"
    report = read_converge(_run(("acme", _failed(code, misleading)), rc=2))
    assert (report.problem, str(report.problem)) == (Problem(code), code)


@pytest.mark.parametrize("code", [None, "", "nonsense", 7, ["busy"]])
def test_a_failure_without_a_code_is_internal(code: Any) -> None:
    report = read_converge(_run(("acme", {"failed": True, "msg": "x", "problem": code}), rc=2))
    assert report.problem is Problem.INTERNAL


def test_the_gravest_problem_is_the_reports() -> None:
    answers = [("a", _failed("busy")), ("b", _failed("unreachable")), ("c", _failed("node_refused"))]
    problems = [read_converge(_run(*answers[:count], rc=2)).problem for count in (1, 2, 3)]
    assert problems == [Problem.BUSY, Problem.UNREACHABLE, Problem.NODE_REFUSED]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (RunCancelledError("x"), Problem.CANCELLED),
        (RunTimeoutError("x"), Problem.TIMEOUT),
        (RunError("x"), Problem.INTERNAL),
        (LeaseError("x"), Problem.BUSY),
        (CredentialError("x"), Problem.CREDENTIALS_REFUSED),
        (DocumentError([]), Problem.DOCUMENT_REFUSED),
        (KeyError("x"), Problem.INTERNAL),
    ],
)
def test_an_error_that_ends_a_run_has_a_code(error: Exception, problem: Problem) -> None:
    assert problem_of(error) is problem


class TestRunsThatDie:
    """A tenant that was asked for is never taken for converged because nothing was heard of it."""

    def test_before_any_host_every_tenant_has_failed(self) -> None:
        dead = RunResult("converge_tenant", 4, 1.0, output=("[ERROR]: the registry is damaged",))
        report = read_converge(dead, ["acme", "bell"])
        assert [(one.tenant, one.problem) for one in report.tenants] == [
            ("acme", Problem.INTERNAL),
            ("bell", Problem.INTERNAL),
        ]
        assert "the registry is damaged" in report.problems()

    def test_without_known_tenants_the_report_itself_has_failed(self) -> None:
        report = read_converge(RunResult("converge_tenant", 4, 1.0, output=("[ERROR]: no tenant is in the limit 'x'",)))
        assert (report.tenants, report.problem) == ((), Problem.INTERNAL)
        assert "no tenant is in the limit" in report.problems()

    def test_on_a_host_that_is_unreachable(self) -> None:
        failure = TaskFailure("tenant-acme", "Have the images", "timed out", unreachable=True)
        report = read_converge(RunResult("converge_tenant", 4, 1.0, failures=(failure,)), ["acme", "bell"])
        assert {one.tenant: one.problem for one in report.tenants} == dict.fromkeys(
            ("acme", "bell"), Problem.UNREACHABLE
        )

    def test_in_the_survey_with_the_code_it_gave(self) -> None:
        failure = TaskFailure("tenant-acme", "Ask", "x")
        answer = TaskResult("tenant-acme", STACKS, "Ask", {"failed": True, "msg": "x", "problem": "node_refused"})
        run = RunResult("converge_tenant", 2, 1.0, failures=(failure,), results=(answer,))
        assert [one.problem for one in read_converge(run, ["acme", "bell"]).tenants] == [Problem.NODE_REFUSED] * 2

    def test_because_images_could_not_be_had(self) -> None:
        """The lead fails, so its neighbour judges without a result, and one that was not behind is well."""
        failure = TaskFailure("tenant-acme", "Have the images", "no space left on device")
        results = (
            TaskResult(
                "tenant-acme", STACKS, "Ask", {"behind": ["acme", "bell"], "surveyed": ["acme", "bell", "cora"]}
            ),
            TaskResult("tenant-acme", IMAGES, "Have the images", {"failed": True}),
            TaskResult("tenant-bell", OUTCOME, "Judge", {**_failed("internal", "no result"), "lead": "tenant-acme"}),
        )
        judged = TaskFailure("tenant-bell", "Judge", "no result")
        run = RunResult("converge_tenant", 2, 1.0, failures=(failure, judged), results=results)
        report = read_converge(run, ["acme", "bell", "cora"])
        assert {one.tenant: (one.problem, one.message) for one in report.tenants} == {
            "acme": (Problem.NODE_REFUSED, "no space left on device"),
            "bell": (Problem.NODE_REFUSED, "tenant bell: no space left on device"),
        }
        assert report.message == ""

    def test_with_the_failure_of_one_tenant_that_is_nobody_elses(self) -> None:
        message = "tenant acme: bot b7 is starting"
        failures = (TaskFailure("tenant-acme", "Judge", message),)
        run = _run(("acme", _failed("engine_refused", message)), failures=failures, rc=250)
        report = read_converge(run, ["acme", "bell"])
        assert {one.tenant: one.problem for one in report.tenants} == {
            "acme": Problem.ENGINE_REFUSED,
            "bell": Problem.INTERNAL,
        }
        assert "b7" not in report.tenants[1].message

    def test_after_a_tenant_was_judged_well(self) -> None:
        failure = TaskFailure("tenant-acme", "Forget", "the registry is busy")
        report = read_converge(_run(("acme", {"changed": True}), failures=(failure,), rc=2), ["acme"])
        assert [(one.problem, one.message) for one in report.tenants] == [(Problem.INTERNAL, "the registry is busy")]


def test_a_tenant_that_was_not_behind_has_no_report() -> None:
    answer = TaskResult("tenant-a", STACKS, "Ask", {"behind": [], "surveyed": ["a"], "asked": 1})
    report = read_converge(RunResult("converge_tenant", 0, 1.0, results=(answer,)), ["a"])
    assert (report.tenants, report.problem) == ((), None)


def test_a_failure_outside_tenants_is_reported() -> None:
    failure = TaskFailure("edge_1", "Have the images on the node", "no space left")
    report = read_converge(RunResult("converge_tenant", 2, 1.0, failures=(failure,)))
    assert (report.problem, report.problems()) == (Problem.INTERNAL, "no space left")


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
