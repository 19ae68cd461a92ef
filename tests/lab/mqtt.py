"""An MQTT client for tests: what it hears is waited for, and what it must not hear is proven by what comes after it."""

from __future__ import annotations

import queue
import ssl
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Refused(Exception):
    """The broker did not let the client in; the text is its reason."""


class Ended(Exception):
    """The connection ended while something was waited for."""


class Client:
    """A connected client; ``heard`` are the topics of what arrived so far, in order."""

    def __init__(
        self,
        host: str,
        port: int,
        user: str | None = None,
        password: str | None = None,
        *,
        client_id: str = "",
        version: paho.MQTTProtocolVersion = paho.MQTTProtocolVersion.MQTTv5,
        tls: ssl.SSLContext | None = None,
        will: str | None = None,
    ) -> None:
        self.heard: list[str] = []
        # In each, None stands for the end of the connection.
        self._messages: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._connected: queue.Queue[Any] = queue.Queue()
        self._subscribed: queue.Queue[Any] = queue.Queue()
        self._published: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        self.ended = threading.Event()
        self.assigned_id: str | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = lambda _c, _u, message: self._messages.put((message.topic, message.payload))
        self._client.on_subscribe = lambda _c, _u, _mid, codes, _p: self._subscribed.put(codes)
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._published.put((mid, code))
        self._client.reconnect_delay_set(3600, 3600)
        if user is not None:
            self._client.username_pw_set(user, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        if will is not None:
            self._client.will_set(will, b"dead", qos=1)
        self._client.connect(host, port, keepalive=60)
        self._client.loop_start()
        code = self._connected.get()
        if code is None or code.is_failure:
            self.close()
            raise Refused(str(code))

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, properties: Any) -> None:
        self.assigned_id = getattr(properties, "AssignedClientIdentifier", None)
        self._connected.put(code)

    def _on_disconnect(self, *_rest: Any) -> None:
        self.ended.set()
        for waiting in (self._messages, self._connected, self._subscribed, self._published):
            waiting.put(None)

    def subscribe(self, *topics: str) -> None:
        """Until the broker has taken note."""
        self._client.subscribe([(topic, 1) for topic in topics])
        _next(self._subscribed)

    def publish(self, topic: str, payload: bytes = b"x") -> str:
        """What the broker answered: a reason such as ``Success`` or ``Not authorized``."""
        info = self._client.publish(topic, payload, qos=1)
        while True:
            mid, code = _next(self._published)
            if mid == info.mid:
                return str(code)

    def publish_oddly(self, topic: str, qos: int) -> None:
        """With a property that is allowed and that few programs expect, until it is on its way for good."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("\ufeff", "\ufeff")]
        self._client.publish(topic, b"{}", qos=qos, properties=properties).wait_for_publish()

    def wait_for(self, topic: str) -> bytes:
        """The next message with that topic; what comes before it is in ``heard``, as it is."""
        while True:
            found, payload = _next(self._messages)
            self.heard.append(found)
            if found == topic:
                return payload

    def die(self) -> None:
        """Ends without a word, so that the broker publishes the last will."""
        self._client.loop_stop()
        socket = self._client.socket()
        assert socket is not None
        socket.close()

    def close(self) -> None:
        """Says goodbye."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _next(waiting: queue.Queue[Any]) -> Any:
    found = waiting.get()
    if found is None:
        raise Ended
    return found


def no_subscribers() -> str:
    """The reason with which the broker says that nobody takes a message."""
    from paho.mqtt.reasoncodes import ReasonCode

    return str(ReasonCode(PacketTypes.PUBACK, "No matching subscribers"))


__all__ = ["Client", "Refused", "no_subscribers"]
