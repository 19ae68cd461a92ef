"""A sandbox exchange per test file, and bots that are taken away with the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.broker import Broker
from tests.engine.harness import Bot, Sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox exchange."""
    exchange = Sandbox(tmp_path_factory.mktemp("sandbox"))
    try:
        exchange.start()
        yield exchange
    finally:
        exchange.remove()


@pytest.fixture(scope="module")
def crowd(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Bot]]]:
    """Starts several bots at once, which takes hardly longer than one; they live as long as the module."""
    bots: list[Bot] = []

    def start(**settings: dict[str, Any]) -> dict[str, Bot]:
        made = {name: Bot(sandbox, tmp_path_factory.mktemp(name), **options) for name, options in settings.items()}
        bots.extend(made.values())
        return made

    try:
        yield start
    finally:
        for bot in bots:
            bot.remove()


@pytest.fixture
def make_bot(sandbox: Sandbox, tmp_path: Path) -> Iterator[Callable[..., Bot]]:
    """Makes bots, each with an account of its own on the exchange."""
    bots: list[Bot] = []
    numbers = itertools.count(1)

    def make(**settings: Any) -> Bot:
        bots.append(Bot(sandbox, tmp_path / f"bot{next(numbers)}", **settings))
        return bots[-1]

    sandbox.heal()
    sandbox.set_price(35250)
    try:
        yield make
    finally:
        sandbox.heal()
        for bot in bots:
            bot.remove()


@pytest.fixture
def broker(sandbox: Sandbox, tmp_path: Path) -> Iterator[Broker]:
    """A broker that is not started yet."""
    made = Broker(sandbox, tmp_path / "broker")
    try:
        yield made
    finally:
        made.remove()
