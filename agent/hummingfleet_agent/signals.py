"""Signals over the engine's MQTT bridge: a listener and its answers, made when the bridge is there.

Imports the engine, but only once the bridge is asked for. The bridge comes up after the strategy, and the engine gives
it up and makes a new one when the broker stays away at the start: whoever listens has to follow it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

LOGGER = logging.getLogger("hummingfleet.signals")

TOPIC = "hummingfleet/signal"
ACK_TOPIC = "hummingfleet/ack"
# The engine tries again every 5 s; shorter gaps are not worth telling.
UNREACHABLE_SECONDS = 8.0
UNREACHABLE = "BROKER_UNREACHABLE"


class SignalLink:
    """Hands messages of the signal topic to ``take`` in the event loop, and sends answers."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take
        self._gateway: Any = None
        self._listener: Any = None
        self._publisher: Any = None
        self._connected_at = time.monotonic()

    def follow(self) -> str | None:
        """Listen on the bridge that there is now; what is wrong with the connection, None where nothing is.

        Called in the event loop, every second.
        """
        from hummingbot.remote_iface.mqtt import ETopicPublisher, ExternalTopicFactory, MQTTGateway

        gateway = MQTTGateway.main()
        if gateway is not None and gateway is not self._gateway:
            self.close()
            loop = asyncio.get_running_loop()

            def hand_over(message: Any, topic: str) -> None:
                # Older engines call from a thread of their own.
                loop.call_soon_threadsafe(self._take, message)

            self._publisher = ETopicPublisher(ACK_TOPIC, use_bot_prefix=True)
            self._listener = ExternalTopicFactory.create_async(TOPIC, hand_over, use_bot_prefix=True)
            self._gateway = gateway
            _take_log_off()
            LOGGER.info("SIGNALS_LISTENING on %s", TOPIC)
        now = time.monotonic()
        if gateway is not None and gateway.health:
            self._connected_at = now
        if now - self._connected_at < UNREACHABLE_SECONDS:
            return None
        return "no connection to the broker: signals do not arrive"

    def answer(self, message: Mapping[str, Any]) -> None:
        """Send an answer; where the broker is gone meanwhile it comes too late to be of use."""
        if self._publisher is not None:
            self._publisher.send(dict(message))

    def close(self) -> None:
        """Listen no longer."""
        if self._listener is None:
            return
        from hummingbot.remote_iface.mqtt import ExternalTopicFactory

        listener, self._listener = self._listener, None
        try:
            ExternalTopicFactory.remove_listener(listener)
        except Exception as error:  # a bridge that is gone cannot be told; it calls nobody any more
            LOGGER.debug("the former listener could not be removed: %s", type(error).__name__)


def _take_log_off() -> None:
    """Keep the engine's log off the bridge: it goes there whatever ``mqtt_logger`` says.

    Without a broker the bridge would keep every line for later, in memory and without an end.
    """
    for logger in [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]:
        for handler in list(logger.handlers):
            if type(handler).__name__ == "MQTTLogHandler":
                logger.removeHandler(handler)
