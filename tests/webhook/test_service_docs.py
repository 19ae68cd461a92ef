"""What docs/operations.md tells an operator to look at is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import yaml

from tests import factories
from webhook.cli import cli
from webhook.health import _StatusCollector
from webhook.installation import Installation
from webhook.journal import JournalStats
from webhook.metrics import WebMetrics
from webhook.worker import Worker

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_settings_and_rules_are_yaml() -> None:
    documents = [yaml.safe_load(block) for block in blocks("yaml")]
    rules = next(document["groups"][0]["rules"] for document in documents if "groups" in document)
    assert all({"alert", "expr", "labels"} <= set(rule) for rule in rules)


def test_every_metric_it_names_exists(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.tenants.yml"
    data = {
        "plugin": "hummingfleet.core.tenants",
        "registry": str(tmp_path / "registry.db"),
        "catalogue": str(factories.ROOT / "catalogue"),
        "nodes": {"edge_1": {"memory_mib": 1024}},
    }
    fleet.write_text(yaml.safe_dump(data))
    worker = Worker(Installation(fleet))
    stats = JournalStats(
        events={"failed": 1}, tenants=1, behind=1, running=1, retrying=1, failed=1, oldest_waiting_seconds=1.0,
        callbacks_pending=1, workers=1,
    )  # fmt: skip
    metrics = WebMetrics(lambda: stats)
    metrics.answered("GET", "/livez", 200, 0.1, "internal")
    known = set(re.findall(r"^(hummingfleet_[a-z_]+)", metrics.text().decode(), re.MULTILINE))
    known |= {metric.name for metric in _StatusCollector(worker.status).collect()}
    named = set(re.findall(r"hummingfleet_[a-z_]+", PAGE))
    assert named - known == set()
    short = {f"hummingfleet_worker{name}" for name in re.findall(r"`(_[a-z_]+)`", PAGE)}
    assert short - known == set()


def test_every_command_it_names_exists() -> None:
    code = "\n".join([*blocks("sh"), *re.findall(r"`([^`\n]+)`", PAGE)])
    for line in re.findall(r"^ *hummingfleet ((?:[a-z]+ ?)+)", code, re.MULTILINE):
        command: Any = cli
        for word in line.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, line
            command = found
