"""What is kept of a run's events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from webhook import runs


def _event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": data, "stdout": ""}


def _collect(*events: dict[str, Any], keep: frozenset[str] = frozenset()) -> runs._Collector:
    collector = runs._Collector(keep, None, None)
    for event in events:
        assert collector.handle(event) is True  # ansible-runner drops the statistics otherwise
    return collector


def test_results_of_wanted_modules_are_kept_and_others_are_not() -> None:
    collector = _collect(
        _event("runner_on_ok", host="a", task="Ask", resolved_action="x.y.ask", res={"answer": 1}),
        _event("runner_on_ok", host="a", task="Copy", resolved_action="ansible.builtin.copy", res={"dest": "/x"}),
        keep=frozenset({"x.y.ask"}),
    )
    assert [(r.host, r.task, r.answer) for r in collector.results] == [("a", "Ask", {"answer": 1})]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"msg": "no room"}, "no room"),
        ({"msg": "some failed", "results": [{"failed": True, "msg": "one"}, {"msg": "fine"}]}, "some failed\none"),
        ({"msg": "non-zero", "cmd": ["false"], "stderr": "bad disk"}, "non-zero\nbad disk"),
        ({}, "the task 'Do' failed without a message"),
    ],
)
def test_a_failure_says_why(answer: dict[str, Any], message: str) -> None:
    failure = _collect(_event("runner_on_failed", host="a", task="Do", res=answer)).failures[0]
    assert (failure.message, failure.unreachable) == (message, False)


def test_ignored_failures_are_none_and_unreachable_hosts_are() -> None:
    collector = _collect(
        _event("runner_on_failed", host="a", task="Do", res={"msg": "x"}, ignore_errors=True),
        _event("runner_on_unreachable", host="b", task="Do", res={"msg": "no route"}),
    )
    assert [(f.host, f.unreachable) for f in collector.failures] == [("b", True)]


def test_changed_counts_come_from_the_recap() -> None:
    collector = _collect(_event("playbook_on_stats", changed={"a": 2, "b": 1}, ok={"a": 9}))
    assert runs.RunResult("p", 0, 1.0, collector.changed).changed_count == 3


def test_the_problem_of_a_run_without_events_is_what_our_inventory_said() -> None:
    lines = (
        "[WARNING]: Failed to parse inventory with 'a.plugins.inventory.tenants' plugin: the registry has no tenant x",
        "[WARNING]: Failed to parse inventory with 'a.plugins.inventory.ini' plugin: Invalid host pattern",
        "[ERROR]: Completely failed to parse inventory source f",
    )
    assert runs.RunResult("p", 1, 1.0, output=lines).problem() == "the registry has no tenant x"


def test_an_unknown_playbook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(runs.RunError, match=r"no playbook nothing\.yml"):
        runs.run_playbook("nothing", fleet_path=tmp_path / "f.tenants.yml")
