# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How signals reach bots: one lasting MQTT connection to each node's broker, and the bots' answers on it.

MQTT 5: a broker says at once when nobody listens, and drops a message that has expired before it was delivered.
Nothing is sent while the connection is down. What was on its way when it was lost the library sends again; bots know
its id and when it expires.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import secrets
import socket
import ssl
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import paho.mqtt.client as mqtt
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from .text import shown

CONNECT_SECONDS: Final = 1.5
"""How long the first signal for a node waits for the connection; later ones find it, or that it is down."""

LATE_SECONDS: Final = 60.0
"""How long after a signal has expired its bot's answer is still taken note of."""

_KEEPALIVE_SECONDS = 15
_RECONNECT_SECONDS = (1, 5)
_NOBODY = 0x10  # MQTT 5: no matching subscribers
_FAILURE = 0x80  # reason codes from here on are failures
_ACK_BYTES = 4096
_REASON_CHARACTERS = 300
_LATE_MAX = 10_000
_CODE = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII)
_TOPIC = re.compile(r"hbot/([a-z0-9-]{1,32}\.[a-z0-9-]{1,32})/hummingfleet/ack", re.ASCII)

_LOG = logging.getLogger("webhook.signals")


class BusError(HummingfleetError):
    """The signal did not leave; ``code`` says why for programs. The text is for operators."""

    code = "broker_unreachable"


class NoBrokerError(BusError):
    """The node has no broker that this machine may use."""

    code = "no_broker"


class NobodyListensError(HummingfleetError):
    """The broker has the message and no bot to give it to; nobody will get it."""


class Access(Protocol):
    """How to reach a node's broker; ``module_utils.broker.BrokerAccess`` is one."""

    @property
    def host(self) -> str:
        """Name or address."""
        ...

    @property
    def port(self) -> int:
        """The TLS port."""
        ...

    @property
    def ca_path(self) -> Path:
        """The certificate that the broker's is signed with."""
        ...

    @property
    def user(self) -> str:
        """The user for signals."""
        ...

    @property
    def password_path(self) -> Path:
        """The file that its password is made of."""
        ...

    @property
    def password(self) -> str:
        """Its password; raises OSError or ValueError."""
        ...


@dataclass(frozen=True, slots=True)
class Ack:
    """A bot's answer: whether it has taken the signal; ``code`` for programs, ``reason`` for people."""

    accepted: bool
    code: str
    reason: str


Late = Callable[[str, str, Ack], None]
"""Is told of an answer that came too late: instance, signal id, answer."""


class Bus(Protocol):
    """What brings signals to bots."""

    def listen(self, late: Late) -> None:
        """Has ``late`` called with every answer that came too late."""
        ...

    def check(self, node: str) -> None:
        """Nothing if messages can be sent to the node's bots; raises BusError."""
        ...

    def send(self, node: str, instance: str, message: Mapping[str, Any], seconds: float) -> Ack | None:
        """The bot's answer; None if there was none within ``seconds``: then it may have the message all the same.

        ``instance`` is ``tenant.bot``. Raises BusError (nothing was sent) and NobodyListensError.
        """
        ...


class SignalBus:
    """The brokers of a fleet; ``access`` says how to reach a node's and raises HummingfleetError if there is none.

    Connections are made when they are first needed, and anew when the password or certificate has changed.
    """

    def __init__(self, access: Callable[[str], Access]) -> None:
        self._access = access
        self._clients: dict[str, tuple[tuple[Any, ...], _Client]] = {}
        self._lock = threading.Lock()
        self._answers = _Answers()

    def listen(self, late: Late) -> None:
        """See ``Bus``; each call is in a thread of its own."""
        self._answers.late = late

    def check(self, node: str) -> None:
        """See ``Bus``."""
        self._client(node).wait()

    def send(self, node: str, instance: str, message: Mapping[str, Any], seconds: float) -> Ack | None:
        """See ``Bus``."""
        client = self._client(node)
        client.wait()
        return client.send(instance, message, seconds)

    def close(self) -> None:
        """Ends every connection."""
        with self._lock:
            for _identity, client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, node: str) -> _Client:
        try:
            access = self._access(node)
        except HummingfleetError as error:
            raise NoBrokerError(f"node {node}: {error}") from None
        try:
            identity = (
                access.host,
                access.port,
                access.user,
                *(
                    (str(path), status.st_ino, status.st_mtime_ns, status.st_size)
                    for path in (access.ca_path, access.password_path)
                    for status in (Path(path).stat(),)
                ),
            )
            with self._lock:
                known, client = self._clients.get(node, (None, None))
                if client is None or known != identity:
                    if client is not None:
                        client.close()
                    client = _Client(node, access, self._answers)
                    self._clients[node] = (identity, client)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or type(error).__name__
            name = getattr(error, "filename", None)
            raise NoBrokerError(f"node {node}: {name or 'its broker files'} cannot be used: {what}") from None
        return client


class _Waiting:
    """A message whose answer is waited for; ``done`` is set with an answer or a failure."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.ack: Ack | None = None
        self.failure: HummingfleetError | None = None

    def end(self, ack: Ack | None = None, failure: HummingfleetError | None = None) -> None:
        if not self.done.is_set():
            self.ack, self.failure = ack, failure
            self.done.set()


class _Answers:
    """Whose answers are waited for, or would be news if they came late. Anything else that bots say is nobody's."""

    def __init__(self) -> None:
        self.late: Late = lambda _instance, _id, _ack: None
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._expected: OrderedDict[tuple[str, str], float] = OrderedDict()

    def expect(self, key: tuple[str, str]) -> _Waiting:
        with self._lock:
            self._expected.pop(key, None)
            return self._waiting.setdefault(key, _Waiting())

    def forget(self, key: tuple[str, str], until: float | None) -> None:
        """Nobody waits any more; an answer before ``until`` (seconds of ``time.monotonic``) is late."""
        now = time.monotonic()
        with self._lock:
            self._waiting.pop(key, None)
            if until is not None:
                self._expected[key] = until
            while self._expected and (len(self._expected) > _LATE_MAX or next(iter(self._expected.values())) < now):
                self._expected.popitem(last=False)

    def take(self, instance: str, signal_id: str, ack: Ack) -> None:
        with self._lock:
            waiting = self._waiting.get((instance, signal_id))
            until = None if waiting is not None else self._expected.pop((instance, signal_id), None)
        if waiting is not None:
            waiting.end(ack=ack)
        elif until is not None and time.monotonic() <= until:
            # The registry may be busy, and the thread that calls here has others' answers to read.
            threading.Thread(target=self.late, args=(instance, signal_id, ack), name="late-answer", daemon=True).start()


class _Paho(mqtt.Client):
    """A client that passes over messages it cannot read.

    paho would end the connection, for instance over U+FEFF in a message's properties, which brokers let pass: any bot
    could cut off all others of its node.
    """

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except MalformedPacket:
            return MQTTErrorCode.MQTT_ERR_SUCCESS


class _Client:
    """The connection to one node's broker."""

    def __init__(self, node: str, access: Access, answers: _Answers) -> None:
        self._node = node
        self._answers = answers
        self._ready = threading.Event()  # connected and subscribed
        self._tried = threading.Event()  # the first attempt has ended
        self._problem = "the broker has not answered yet"
        # Which message a PUBACK is for. paho calls back with a lock held that publish() needs, so ours is never held
        # while paho is called; answers that come before publish() has said the number wait in ``_early``.
        self._lock = threading.Lock()
        self._sent: dict[int, _Waiting] = {}
        self._early: dict[int, ReasonCode] = {}
        self._sending = 0
        client = _Paho(
            CallbackAPIVersion.VERSION2, client_id=f"hummingfleet-{secrets.token_hex(8)}", protocol=mqtt.MQTTv5
        )
        client.suppress_exceptions = True
        client.username_pw_set(access.user, access.password)
        client.tls_set(ca_certs=str(access.ca_path), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.reconnect_delay_set(*_RECONNECT_SECONDS)
        client.on_socket_open = _without_delay
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_subscribe, client.on_disconnect = self._on_subscribe, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        self._client = client
        client.connect_async(access.host, access.port, keepalive=_KEEPALIVE_SECONDS, clean_start=True)
        client.loop_start()

    def wait(self) -> None:
        """Returns once messages can be sent; raises BusError if they cannot now."""
        self._tried.wait(CONNECT_SECONDS)
        if not self._ready.is_set():
            raise BusError(f"node {self._node}: {self._problem}")

    def send(self, instance: str, message: Mapping[str, Any], seconds: float) -> Ack | None:
        key, left = (instance, str(message["id"])), max(1.0, float(message["expires_at"]) - time.time())
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = math.ceil(left)
        waiting = self._answers.expect(key)
        until: float | None = None
        try:
            self._publish(f"hbot/{instance}/hummingfleet/signal", json.dumps(message), properties, waiting)
            if not waiting.done.wait(seconds):
                until = time.monotonic() + left + LATE_SECONDS
        finally:
            self._answers.forget(key, until)
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.ack

    def close(self) -> None:
        # What goes wrong with a connection that ends is nobody's concern.
        self._ready.clear()
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._client.loop_stop()

    def _publish(self, topic: str, payload: str, properties: Properties, waiting: _Waiting) -> None:
        with self._lock:
            self._sending += 1
        try:
            if not self._ready.is_set():
                raise BusError(f"node {self._node}: {self._problem}")
            info = self._client.publish(topic, payload, qos=1, properties=properties)
            with self._lock:
                reason = self._early.pop(info.mid, None)
                if reason is None:
                    self._sent[info.mid] = waiting
            if reason is not None:
                self._published(waiting, reason)
        finally:
            with self._lock:
                self._sending -= 1
                if not self._sending:
                    self._early.clear()

    def _published(self, waiting: _Waiting, reason: ReasonCode) -> None:
        if reason.value == _NOBODY:
            waiting.end(failure=NobodyListensError("the bot does not listen for signals"))
        elif reason.value >= _FAILURE:
            waiting.end(failure=BusError(f"node {self._node}: the broker refused the message: {reason}"))

    # - what paho calls, in its own thread -

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._down(f"the broker refused the connection: {reason}")
        else:
            # Without acknowledgements: what cannot be read has none, and the broker waits for only so many.
            client.subscribe("hbot/+/hummingfleet/ack", qos=0)

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._down("the broker refused to pass on the bots' answers")
            return
        _LOG.info("connected to the broker of node %s", self._node)
        self._ready.set()
        self._tried.set()

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        error = sys.exception()
        if isinstance(error, ssl.SSLCertVerificationError):
            said = f"its certificate is refused: {error.verify_message}"
        else:
            said = getattr(error, "strerror", None) or type(error).__name__
        self._down(f"the broker cannot be reached: {said}")

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if self._ready.is_set():
            self._down(f"the connection to the broker was lost: {reason}")
        with self._lock:
            self._sent.clear()

    def _down(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.warning("node %s: %s", self._node, problem)
        self._problem = problem
        self._ready.clear()
        self._tried.set()

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        with self._lock:
            waiting = self._sent.pop(mid, None)
            if waiting is None and self._sending:
                self._early[mid] = reason
        if waiting is not None:
            self._published(waiting, reason)

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        found = _TOPIC.fullmatch(message.topic)
        answer = None if found is None or message.retain else read_ack(bytes(message.payload))
        if found is not None and answer is not None:
            self._answers.take(found[1], *answer)


def _without_delay(_client: Any, _data: Any, sock: Any) -> None:
    """Has small packets sent at once: waiting for more to go with them costs 40 ms each."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_ack(payload: bytes) -> tuple[str, Ack] | None:
    """The signal's id and the bot's answer; None if a bot sent something else."""
    if len(payload) > _ACK_BYTES:
        return None
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    signal_id, accepted, code, reason = (data.get(name) for name in ("id", "accepted", "code", "reason"))
    if not isinstance(signal_id, str) or not isinstance(accepted, bool) or not isinstance(reason, str):
        return None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    return signal_id, Ack(accepted, code, shown(reason[:_REASON_CHARACTERS]))
