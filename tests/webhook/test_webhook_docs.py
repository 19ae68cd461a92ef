"""docs/webhook.md: its tables name what there is, and its commands work as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from flask import Flask

from tests.webhook.portal import serving
from webhook.openapi import Auth
from webhook.problems import KINDS
from webhook.views import ROUTES

TEXT = (Path(__file__).parents[2] / "docs" / "webhook.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def rows(title: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """Where the service listens, in a thread of this process."""
    with serving(app) as events:
        yield events.removesuffix("/v1/events")


def test_every_endpoint_is_listed_with_who_may_use_it() -> None:
    who = {
        Auth.NOBODY: {"everybody"},
        Auth.SIGNATURE: {"whoever has an inbound secret"},
        Auth.SIGNAL: {"whoever has a bot's signal token"},
    }
    listed = {cells[0].strip("`"): (cells[1], set(cells[2].split(", "))) for cells in rows("Endpoints")}
    assert listed.keys() == {f"{route.method} {route.path}" for route in ROUTES}
    for route in ROUTES:
        text, allowed = listed[f"{route.method} {route.path}"]
        assert allowed == who.get(route.auth, set(route.scopes)), route.path
        assert all(f"`{name}`" in text for name in route.query), route.path


def test_every_problem_is_listed_with_its_status() -> None:
    listed = {cells[0].strip("`"): int(cells[1]) for cells in rows("Problems")}
    assert listed == {kind.name: kind.status for kind in KINDS}


def test_the_problem_that_is_shown_is_what_the_service_answers(portal: Any, created: Any, event: Any) -> None:
    shown = json.loads(re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0])
    portal.accepted(created())
    assert portal.send(event("bot.started", bot_id="b9")).get_json(force=True) == shown


def test_the_commands_work_as_they_stand_there(
    url: str, portal: Any, created: Any, event: Any, finish: Any, web_registry: Registry, tmp_path: Path
) -> None:
    portal.accepted(created(), "msg_1")
    finish("acme")
    portal.accepted(event("bot.started", bot_id="b1"), "msg_3")
    finish("acme", "document_refused")
    with web_registry.transaction(write=True) as connection:
        connection.execute(tables.callbacks.update().values(attempts=1))
    folder = tmp_path / "shell"
    folder.mkdir()
    (folder / "token").write_text(portal.tokens.create("operator")[1])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(COMMANDS)],
        cwd=folder,
        env={"URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(COMMANDS) == 6
    assert (folder / "authorization").stat().st_mode & 0o777 == 0o600
    assert '"state": "pending"' in done.stdout
    assert portal.get("/v1/events/msg_3").json["state"] == "accepted"
