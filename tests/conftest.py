"""What holds for every test: the order of the files, and how Hypothesis works."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
