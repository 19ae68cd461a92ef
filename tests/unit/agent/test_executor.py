"""The executor of a single order, on an engine of which only the names are real."""

from __future__ import annotations

import importlib.util
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hummingfleet_agent import runtime
from pydantic import BaseModel

SCRIPT = Path(runtime.__file__).parents[1] / "scripts/hummingfleet.py"
RunnableStatus = Enum("RunnableStatus", ["RUNNING", "TERMINATED"])
CloseType = Enum("CloseType", ["FAILED", "EARLY_STOP", "POSITION_HOLD", "INSUFFICIENT_BALANCE"])


class OrderExecutor:
    """The engine's own, as far as it matters."""

    def __init__(self) -> None:
        self.status, self.close_type = RunnableStatus.RUNNING, None
        self.config = SimpleNamespace(level_id="a|1", side=SimpleNamespace(name="BUY"))
        self._partial_filled_orders: list[Any] = []
        self._held_position_orders: list[Any] = []

    async def validate_sufficient_balance(self) -> None:
        raise ArithmeticError("a price that is none")

    def stop(self) -> None:
        self.status = RunnableStatus.TERMINATED


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script's module."""
    base = "hummingbot.strategy_v2"
    names: dict[str, dict[str, Any]] = {
        "hummingbot.strategy.strategy_v2_base": {"StrategyV2Base": object, "StrategyV2ConfigBase": BaseModel},
        f"{base}.executors.order_executor.data_types": {"ExecutionStrategy": Enum("ExecutionStrategy", ["MARKET"])},
        f"{base}.executors.order_executor.order_executor": {"OrderExecutor": OrderExecutor},
        f"{base}.models.base": {"RunnableStatus": RunnableStatus},
        f"{base}.models.executors": {"CloseType": CloseType},
    }
    for name, content in names.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
        module = ModuleType(parts[-1])
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("script_under_test", SCRIPT)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, loaded)
    spec.loader.exec_module(loaded)
    return loaded


async def test_a_check_that_cannot_be_made_ends_the_executor_and_is_reported(
        script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its level would be busy for ever."""
    reports: list[Any] = []
    state = SimpleNamespace(on_order_end=lambda level, side, failure: reports.append((level, side, failure)))
    monkeypatch.setattr(runtime, "current", state)
    executor = script.SingleOrderExecutor()
    await executor.validate_sufficient_balance()
    assert (executor.status, executor.close_type) == (RunnableStatus.TERMINATED, CloseType.FAILED)
    assert reports == [
        ("a|1", "BUY", "the engine cannot check the balance (ArithmeticError: a price that is none)")]
