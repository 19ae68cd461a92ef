"""Bots are refused on the connectors whose orders the agent cannot follow, and for its reasons."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.engine.harness import PATIENCE_SECONDS, engine_image
from tests.factories import ROOT, catalogue

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("connectors_probe.py")
UNTRADABLE = {c.name: c.untradable for c in catalogue().connectors.values() if c.kind == "spot"}
"""Why the catalogue refuses bots on a spot connector; None where it does not."""


@pytest.fixture(scope="module")
def problems() -> dict[str, str | None]:
    """What the agent says about the engine's classes."""
    command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--cap-drop=ALL"]
    command += ["--volume", f"{PROBE}:/probe.py:ro", "--volume", f"{ROOT / 'agent'}:/agent:ro", "--workdir=/tmp"]
    command += ["--env=HOME=/tmp", "--env=PYTHONPATH=/agent", "--env=PYTHONDONTWRITEBYTECODE=1", "--entrypoint=sh"]
    command += [engine_image(), "-c", "PATH=/opt/hummingbot/bin:$PATH exec python /probe.py"]
    done = subprocess.run(
        command, input=json.dumps([*UNTRADABLE]), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", UNTRADABLE)
def test_the_catalogue_refuses_bots_for_the_agents_reason(problems: dict[str, str | None], name: str) -> None:
    if name not in problems:
        pytest.skip(f"the engine has no connector {name}")
    assert problems[name] == UNTRADABLE[name]


def test_orders_on_binance_can_be_followed(problems: dict[str, str | None]) -> None:
    assert problems["binance"] is None
