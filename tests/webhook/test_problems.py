"""Problems: their form, and that each kind has a name and a status of its own."""

from __future__ import annotations

import json

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault

from webhook import problems
from webhook.problems import KINDS, Kind, Problem


def test_every_kind_is_listed_once() -> None:
    declared = [value for value in vars(problems).values() if isinstance(value, Kind)]
    assert sorted(kind.name for kind in declared) == sorted({kind.name for kind in KINDS})
    assert len({kind.uri for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_says_what_it_means(kind: Kind) -> None:
    assert 400 <= kind.status < 600
    assert kind.title
    assert kind.meaning.endswith(".")


def test_a_problem_is_what_rfc_9457_asks_for() -> None:
    fault = Fault("/data/plan", "is unknown", "pro", "plan")
    answer = Problem(
        problems.REFUSED, "one fault", faults=[fault], headers={"X-Test": "1"}, instance="urn:x"
    ).response()
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert answer.headers["X-Test"] == "1"
    assert json.loads(answer.data) == {
        "type": "urn:hummingfleet:problem:refused",
        "title": "Event refused",
        "status": 422,
        "detail": "one fault",
        "instance": "urn:x",
        "faults": [fault.plain()],
    }


def test_hostile_text_in_a_fault_stays_text() -> None:
    hostile = "\x1b[31m\ud800\u202e</script>"
    answer = problems.refused([Fault("/" + hostile, hostile, "", "")]).response()
    assert answer.data.isascii()
    assert b"\x1b" not in answer.data
    assert json.loads(answer.data)["faults"][0]["problem"] == hostile


@pytest.mark.parametrize(("seconds", "said"), [(0.001, "1"), (1, "1"), (1.2, "2"), (59.5, "60")])
def test_retry_after_is_whole_seconds_and_never_too_short(seconds: float, said: str) -> None:
    assert problems.after(problems.UNAVAILABLE, "later", seconds).headers["Retry-After"] == said
