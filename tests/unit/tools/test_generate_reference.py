"""The reference pages are those of the code."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import parse_document
from ansible_collections.hummingfleet.core.plugins.module_utils.fields import plain_value
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

from tests import factories
from tests.factories import ROOT

TOOL = ROOT / "tools" / "generate_reference.py"


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(TOOL), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Every configuration that the page of templates shows."""
    spec = importlib.util.spec_from_file_location("generate_reference", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return [(name, config) for name, strategy in TEMPLATES.items() for config in tool.examples(strategy)]


@pytest.mark.parametrize(("name", "config"), examples())
def test_the_examples_of_a_template_make_a_bot(name: str, config: dict[str, Any]) -> None:
    limits = {limit: plain_value(field.example) for limit, field in TEMPLATES[name].limits.items()}
    pair = "ETH-USDT" if name == "pure_market_making" else "BTC-USDT"
    bot = factories.grid_bot(strategy_template=name, trading_pair=pair, strategy_config=config, risk_config=limits)
    document = parse_document(factories.document(bots=[bot]), factories.catalogue())
    assert set(document.bots[0].strategy_config) == set(config)
    assert set(document.bots[0].risk_config) == set(limits)
