"""Listening on the engine's bridge: it comes late, it is replaced, it calls from anywhere."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hummingfleet_agent import signals
from hummingfleet_agent.signals import UNREACHABLE_SECONDS, SignalLink


class Gateway:
    """The engine's bridge, as far as it is used."""

    current: Gateway | None = None

    def __init__(self) -> None:
        self.health = True
        self.listeners: dict[str, Callable[[Any, str], None]] = {}
        self.sent: list[tuple[str, Any]] = []
        Gateway.current = self


class Listeners:
    """ExternalTopicFactory and ETopicPublisher in one."""

    def __init__(self, topic: str, *, use_bot_prefix: bool) -> None:
        assert use_bot_prefix and Gateway.current is not None
        self.topic, self.gateway = topic, Gateway.current

    @staticmethod
    def create_async(topic: str, callback: Callable[[Any, str], None], use_bot_prefix: bool) -> tuple[Gateway, str]:
        assert use_bot_prefix and Gateway.current is not None
        Gateway.current.listeners[topic] = callback
        return Gateway.current, topic

    @staticmethod
    def remove_listener(listener: tuple[Gateway, str]) -> None:
        del listener[0].listeners[listener[1]]

    def send(self, message: Any) -> None:
        self.gateway.sent.append((self.topic, message))


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine without a bridge yet."""
    module = ModuleType("hummingbot.remote_iface.mqtt")
    module.__dict__.update(ETopicPublisher=Listeners, ExternalTopicFactory=Listeners,
                           MQTTGateway=type("MQTTGateway", (), {"main": staticmethod(lambda: Gateway.current)}))
    for name in ("hummingbot", "hummingbot.remote_iface"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "hummingbot.remote_iface.mqtt", module)
    monkeypatch.setattr(Gateway, "current", None)


def test_it_follows_the_bridge_that_there_is() -> None:
    taken: list[Any] = []

    async def scenario() -> None:
        link = SignalLink(taken.append)
        link.answer({"id": "nobody hears this"})
        assert link.follow() is None
        first = Gateway()
        link.follow()
        link.follow()
        assert set(first.listeners) == {"hummingfleet/signal"}
        # Older engines call from a thread.
        thread = threading.Thread(target=first.listeners["hummingfleet/signal"], args=({"id": "a"}, "topic"))
        thread.start()
        thread.join()
        assert taken == []
        await asyncio.sleep(0)
        assert taken == [{"id": "a"}]

        # The engine gave it up and made another.
        second = Gateway()
        link.follow()
        assert not first.listeners and second.listeners
        link.answer({"id": "a", "accepted": True})
        assert second.sent == [("hummingfleet/ack", {"id": "a", "accepted": True})] and not first.sent

        link.close()
        link.close()
        assert not second.listeners

    asyncio.run(scenario())


def test_it_says_when_the_broker_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: now))

    async def scenario() -> None:
        nonlocal now
        link = SignalLink(lambda message: None)
        now += UNREACHABLE_SECONDS
        assert link.follow() is not None
        gateway = Gateway()
        assert link.follow() is None
        gateway.health = False
        now += UNREACHABLE_SECONDS - 1
        assert link.follow() is None
        now += 1
        assert link.follow() is not None
        gateway.health = True
        assert link.follow() is None

    asyncio.run(scenario())


def test_the_engines_log_stays_off_the_bridge() -> None:
    class MQTTLogHandler(logging.NullHandler):
        """What the engine puts on its loggers."""

    kept, taken = logging.NullHandler(), MQTTLogHandler()
    loggers = [logging.getLogger(), logging.getLogger("hummingbot.strategy")]
    for logger in loggers:
        logger.addHandler(kept)
        logger.addHandler(taken)
    Gateway()

    async def scenario() -> None:
        SignalLink(lambda message: None).follow()

    try:
        asyncio.run(scenario())
        assert all(kept in logger.handlers and taken not in logger.handlers for logger in loggers)
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
            logger.removeHandler(taken)
