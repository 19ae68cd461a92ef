"""What holds for every test: the order of the files, how Hypothesis works, and a registry of either kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import postgresql

# No limit of time decides about a test: the machine may be busy with the tests beside it.
settings.register_profile("hummingfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hummingfleet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest, so that workers (`-n`) end at about the same time.

    That is first files with the real engine, then those that need this machine's services, then the rest.
    """
    ranks: dict[Path, int] = {}
    for item in items:
        rank = 0 if item.get_closest_marker("engine") else 1 if item.get_closest_marker("lab") else 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


@pytest.fixture(scope="session")
def postgresql_database() -> Iterator[Callable[[], str]]:
    """A PostgreSQL server; what it gives empties the database and answers its URL."""
    with postgresql.server() as database:
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lab)])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new registry can be: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/var/registry.db"
    database: Callable[[], str] = request.getfixturevalue("postgresql_database")
    return database()
