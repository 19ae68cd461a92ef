"""The short campaign. The long one, with 1,000 events for 100 tenants, is ``make test-kill``."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests import postgresql
from tests.kill.campaign import SHORT, Report, run_campaign


@pytest.fixture(scope="module")
def database() -> Iterator[Callable[[], str]]:
    with postgresql.server() as make:
        yield make


@pytest.fixture
def seed() -> int:
    """Another one each time, unless ``KILL_SEED`` names one."""
    return int(os.environ.get("KILL_SEED") or secrets.randbelow(1_000_000))


def check(report: Report) -> None:
    print(json.dumps(asdict(report), indent=1))
    problems = "\n".join(report.problems[:20])
    assert report.held, f"{problems}\nrepeat it with KILL_SEED={report.seed}"


def test_nothing_is_lost_or_mixed_up_when_processes_are_killed_on_sqlite(tmp_path: Path, seed: int) -> None:
    check(run_campaign(SHORT, seed, "sqlite", tmp_path))


@pytest.mark.lab
def test_nothing_is_lost_or_mixed_up_on_postgresql_when_one_of_two_workers_never_comes_back(
    tmp_path: Path, seed: int, database: Callable[[], str]
) -> None:
    scale = replace(SHORT, workers=2, lose_a_worker=True)
    check(run_campaign(scale, seed, "postgresql", tmp_path, database()))
