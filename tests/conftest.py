"""The order of the files: what takes longest begins first, so that workers (`-n`) end at about the same time."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the real engine first, then those that need this machine's services, then the rest."""
    ranks: dict[Path, int] = {}
    for item in items:
        rank = 0 if item.get_closest_marker("engine") else 1 if item.get_closest_marker("lab") else 2
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])
