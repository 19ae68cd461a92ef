"""`make compat`: which releases, what a run is kept for, and what the page says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools import compat

INDEX = """hummingbot (20260922)
Available versions: 20260922, 20260920, 20260729, 20260616, 20260610, 20260521, 20260430, 2.1
"""
REPORT = """<testsuites><testsuite>
<testcase classname="tests.engine.test_grid" name="test_life"/>
<testcase classname="tests.engine.test_market_making" name="test_the_kill_switch_halts">
<failure message="AssertionError: not within 300 s: /tmp/pytest-1/b1/data&#10;more">long</failure></testcase>
<testcase classname="tests.engine.test_other" name="test_new[1]"><skipped message="no"/></testcase>
</testsuite></testsuites>"""


def release(junit: str = REPORT, **changes: Any) -> dict[str, Any]:
    facts = {"engine": "2.16.0", "package": "20260922", "python": "3.13.5", "packages": {"numpy": "2.1"}, "id": "sha"}
    file = {"tests": compat.parse_results(junit), "at": "2026-11-23", "seconds": 9, "inputs": "abc"}
    return {"image": "example/engine:1", "facts": facts, "files": {"test_grid.py": file}} | changes


def test_the_newest_of_each_of_the_last_four_months_that_have_one() -> None:
    versions = compat.parse_versions(INDEX)
    assert compat.monthly(versions) == ["20260922", "20260729", "20260616", "20260521"]
    assert compat.monthly(versions[:2]) == ["20260922"]
    assert compat.parse_versions("ERROR: nothing") == []


def test_results_keep_the_first_line_without_paths() -> None:
    results = compat.parse_results(REPORT)
    assert results["test_grid::test_life"] == {"outcome": "passed", "message": ""}
    failed = results["test_market_making::test_the_kill_switch_halts"]
    assert failed == {"outcome": "failed", "message": "AssertionError: not within 300 s: …"}
    assert results["test_other::test_new[1]"]["outcome"] == "skipped"


def test_what_passed_with_the_same_inputs_is_not_run_again() -> None:
    entry = release(REPORT.replace("failure", "ignored"))["files"]["test_grid.py"]
    assert compat.is_done(entry, "abc")
    assert not compat.is_done(entry, "abd")
    assert not compat.is_done(release()["files"]["test_grid.py"], "abc"), "what failed is tried again"
    assert not compat.is_done(None, "abc")


def test_results_of_some_tests_join_those_of_the_others(tmp_path: Any) -> None:
    results = compat.Results(tmp_path / "compat.json")
    tests = compat.parse_results(REPORT)
    results.add("20260922", "test_grid.py", "abc", tests, 9.0, whole=True)
    once_more = {"test_grid::test_life": {"outcome": "failed", "message": "x"}}
    results.add("20260922", "test_grid.py", "abc", once_more, 1.0, whole=False)
    entry = compat.Results(tmp_path / "compat.json").of("20260922")["files"]["test_grid.py"]
    assert entry["tests"] == tests | once_more
    assert not compat.is_done(entry, "abc"), "a part is no whole"


def test_the_page_has_a_row_for_each_template_and_limit_and_a_reason_for_each_failure() -> None:
    releases = {"20260922": release(REPORT.replace("failure", "ignored")), "20260521": release()}
    releases["20260430"] = {"files": {}, "problem": "the lock cannot be resolved"}
    versions = sorted(releases, reverse=True)
    text = compat.page(releases, versions, [])
    assert "| Template `grid` | 1 passed | 1 passed | not run |" in text
    assert "| Template `pure_market_making` | 1 passed | **0 of 1** | not run |" in text
    assert "| Limit `kill_switch_pct` | 1 passed | **0 of 1** | not run |" in text, "one test, two areas"
    assert "| test_other | not run | not run | not run |" in text, "no test is left out"
    assert "| 20260430 | no image: the lock cannot be resolved |" in text
    said = "`test_market_making::test_the_kill_switch_halts`: not looked into yet; the test says: Assert"
    assert f"- 20260521: {said}" in text
    catalogue = json.loads(compat.CONNECTORS.read_text())
    fields = {name: sorted(field["name"] for field in entry["fields"]) for name, entry in catalogue.items()}
    fields["binance"] = ["binance_key"]
    del fields["kraken"]
    releases["20260922"]["facts"]["connectors"] = fields
    same = f"| 20260922 | {len(catalogue) - 2} of {len(catalogue)} | kraken | binance |"
    assert same in compat.page(releases, versions, [])
    notes = [{"releases": [20260521], "tests": "kill_switch", "text": "No such\n  class there."}]
    assert "test_the_kill_switch_halts`: No such class there." in compat.page(releases, versions, notes)


@pytest.mark.parametrize("name", sorted(path.stem for path in compat.TESTS_DIR.glob("test_*.py")))
def test_every_engine_test_has_a_row(name: str) -> None:
    rows = compat.rows_of([f"{name}::test_something"])
    assert any(compat.re.search(pattern, f"{name}::test_something") for _, pattern in rows)
