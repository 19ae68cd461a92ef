"""The way to bots and back: with a real Mosquitto, set up as the role does it, and a real client as the bot."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import paho.mqtt.client as paho
import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import broker, broker_authority
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet, parse_fleet
from flask import Flask

from tests import factories
from tests.installation import docker, free_port
from tests.lab.mqtt import Client, Ended
from tests.webhook.conftest import Clock
from webhook.app import create_app
from webhook.installation import Installation
from webhook.signal_bus import Ack, BusError, NobodyListensError, NoBrokerError, SignalBus, read_ack

ROLE = factories.ROOT / "roles" / "node_broker"
IMAGE = "hummingfleet/mosquitto:2-1"
NAME = f"hfsig-{secrets.token_hex(4)}"  # several processes may run tests of this file
BOT, PASSWORD = "acme.s1", "not-random"
SIGNAL, ACK = f"hbot/{BOT}/hummingfleet/signal", f"hbot/{BOT}/hummingfleet/ack"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        b"[]",
        b"[" * 4000,
        b'{"id": 1, "accepted": true, "code": "accepted", "reason": ""}',
        b'{"id": "1", "accepted": 1, "code": "accepted", "reason": ""}',
        b'{"id": "1", "accepted": true, "code": "Shout it", "reason": ""}',
        b'{"id": "1", "accepted": true, "code": "accepted"}',
        b'{"id": "1", "accepted": true, "code": "accepted", "reason": "' + b"x" * 5000 + b'"}',
        b"\xff",
    ],
)
def test_what_is_no_answer_is_nobodys(payload: bytes) -> None:
    assert read_ack(payload) is None


def test_a_bots_reason_is_made_safe_to_show() -> None:
    payload = json.dumps({"id": "1", "accepted": False, "code": "halted", "reason": "\x1b[2J" + "x" * 400, "at": 1.5})
    found = read_ack(payload.encode())
    assert found is not None
    assert found[1].reason.isprintable()
    assert len(found[1].reason) < 320


class Broker:
    """A Mosquitto in a container, with the role's configuration; ``port`` of this machine leads to its TLS port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.fleet = self._fleet()
        broker_authority.ensure(self.fleet)
        for name in ("config", "users", "tls"):
            (folder / name).mkdir()
        request = folder / "tls" / "request.pem"
        new_key = ["openssl", "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        subprocess.run(
            [*new_key, "-subj", "/CN=x", "-keyout", str(folder / "tls" / "server.key"), "-out", str(request)],
            check=True,
            capture_output=True,
        )
        certificate = broker_authority.issue(self.fleet, request.read_text(), "127.0.0.1")
        (folder / "tls" / "server.pem").write_text(certificate)
        (folder / "config" / "acl").write_text((ROLE / "files" / "acl").read_text())
        environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
        environment.filters["comment"] = lambda text: f"# {text}"
        made = environment.from_string((ROLE / "templates" / "mosquitto.conf.j2").read_text()).render(
            ansible_managed="for a test",
            node_broker_max_packet_bytes=16384,
            node_broker_memory_mib=128,
            node_broker_max_control_connections=64,
            __node_broker_listen_address="0.0.0.0",
        )
        (folder / "config" / "mosquitto.conf").write_text(f"{made}\nuser root\n")
        users = broker_authority.signals_line(self.fleet, "127.0.0.1") + broker.user_line(BOT, PASSWORD)
        (folder / "users" / "passwords").write_text(users)
        (folder / "users" / "passwords").chmod(0o600)

    def _fleet(self) -> Fleet:
        data = {
            "plugin": "hummingfleet.core.tenants",
            "broker_port": self.port,
            "nodes": {"local": {"memory_mib": 1024, "broker_address": "127.0.0.1"}},
        }
        return parse_fleet(data, self.folder / "fleet.tenants.yml")

    @property
    def access(self) -> broker.BrokerAccess:
        return broker.broker_access(self.fleet, "local")

    def start(self) -> None:
        docker("rm", "-f", NAME, check=False)
        docker(
            *("run", "-d", "--name", NAME, "-v", f"{self.folder}:/mosquitto", "-p", f"127.0.0.1:{self.port}:8883"),
            IMAGE,
        )
        self.await_answer()

    def await_answer(self) -> None:
        """Until it speaks TLS."""
        context = ssl.create_default_context(cafile=str(self.access.ca_path))
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port)) as connection,
                context.wrap_socket(connection, server_hostname="127.0.0.1"),
            ):
                return
            assert docker("inspect", "-f", "{{.State.Running}}", NAME) == "true", docker("logs", NAME)
            threading.Event().wait(0.05)

    def client(self) -> Client:
        """Logged in as the bot."""
        context = ssl.create_default_context(cafile=str(self.access.ca_path))
        return Client("127.0.0.1", self.port, BOT, PASSWORD, tls=context)


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="hfsig-", dir="/var/tmp"))
    try:
        made = Broker(folder)
        made.start()
        yield made
    finally:
        docker("rm", "-f", NAME, check=False)
        shutil.rmtree(folder)


class Bot:
    """Listens for signals and answers each as ``answer`` says; None: not at all."""

    def __init__(self, mosquitto: Broker) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _signal: {}
        self._publishing = threading.Lock()  # the client can wait for one thing at a time
        self.client = mosquitto.client()
        self.client.subscribe(SIGNAL)
        self._thread = threading.Thread(target=self._listen_until_cut_off, daemon=True)
        self._thread.start()

    def _listen_until_cut_off(self) -> None:
        with contextlib.suppress(Ended):
            self._listen()

    def _listen(self) -> None:
        while payload := self.client.wait_for(SIGNAL):
            signal = json.loads(payload)
            self.heard.append(signal)
            answer = self.answer(signal)
            if answer is not None:
                self.say({"id": signal["id"], **answer})

    def say(self, fields: dict[str, Any]) -> None:
        whole = {"accepted": True, "code": "accepted", "reason": "taken", "at": time.time(), **fields}
        with self._publishing:
            assert self.client.publish(ACK, json.dumps(whole).encode()) == "Success"

    def close(self) -> None:
        with self._publishing:
            self.client.publish(SIGNAL, b"")  # to itself
        self._thread.join()
        self.client.close()


@pytest.fixture
def bot(mosquitto: Broker) -> Iterator[Bot]:
    made = Bot(mosquitto)
    yield made
    made.close()


@pytest.fixture
def bus(mosquitto: Broker) -> Iterator[SignalBus]:
    made = SignalBus(lambda _node: mosquitto.access)
    yield made
    made.close()


def message(signal_id: str) -> dict[str, Any]:
    return {"id": signal_id, "action": "buy", "size_quote": "1", "sent_at": time.time(), "expires_at": time.time() + 9}


PATIENT = 60.0  # no answer is waited for that long where there is one


@pytest.mark.lab
class TestBus:
    """The bus itself."""

    def test_the_bots_answer_comes_back(self, bus: SignalBus, bot: Bot) -> None:
        sent = message("one")
        assert bus.send("local", BOT, sent, PATIENT) == Ack(True, "accepted", "taken")
        assert bot.heard == [sent]
        bot.answer = lambda _signal: {"accepted": False, "code": "halted", "reason": "by max_drawdown"}
        assert bus.send("local", BOT, message("two"), PATIENT) == Ack(False, "halted", "by max_drawdown")

    def test_a_bot_that_is_not_there_is_told_at_once(self, bus: SignalBus) -> None:
        with pytest.raises(NobodyListensError):
            bus.send("local", BOT, message("one"), PATIENT)

    def test_what_the_broker_says_before_the_message_has_a_number_counts(
        self, bus: SignalBus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish = paho.Client.publish

        def slow(*arguments: Any, **options: Any) -> paho.MQTTMessageInfo:
            info = publish(*arguments, **options)
            info.wait_for_publish()
            return info

        monkeypatch.setattr(paho.Client, "publish", slow)
        with pytest.raises(NobodyListensError):
            bus.send("local", BOT, message("one"), PATIENT)

    def test_a_silent_bot_has_no_answer_and_a_late_one_is_passed_on(self, bus: SignalBus, bot: Bot) -> None:
        late: list[Any] = []
        told = threading.Event()

        def note(*heard: Any) -> None:
            late.append(heard)
            told.set()

        bus.listen(note)
        bot.answer = lambda _signal: None
        assert bus.send("local", BOT, message("one"), 0.2) is None
        bot.say({"id": "unheard of"})
        bot.say({"id": "one", "code": "halted", "accepted": False})
        bot.say({"id": "one"})  # the first one counts
        told.wait()
        bot.answer = lambda _signal: {}
        assert bus.send("local", BOT, message("two"), PATIENT) is not None
        assert late == [(BOT, "one", Ack(False, "halted", "taken"))]

    def test_answers_find_the_signals_they_are_for(self, bus: SignalBus, bot: Bot) -> None:
        bot.answer = lambda signal: {"reason": f"about {signal['id']}"}
        found: dict[str, Ack | None] = {}

        def send(name: str) -> None:
            found[name] = bus.send("local", BOT, message(name), PATIENT)

        threads = [threading.Thread(target=send, args=(f"n{number}",)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {f"n{number}": Ack(True, "accepted", f"about n{number}") for number in range(20)}

    def test_a_bot_cannot_end_the_connection_that_all_share(self, bus: SignalBus, bot: Bot) -> None:
        """MQTT lets a text hold U+FEFF; clients that think it does not end the connection."""
        assert bus.send("local", BOT, message("one"), PATIENT) is not None
        for qos in (*([0, 1, 2] * 10), 1):
            bot.client.publish_oddly(ACK, qos)
        assert bus.send("local", BOT, message("two"), PATIENT) is not None
        assert len(bot.heard) == 2

    def test_it_may_publish_nothing_but_signals(self, bus: SignalBus) -> None:
        with pytest.raises(BusError, match="Not authorized"):
            bus.send("local", "acme/s1", message("one"), PATIENT)

    def test_a_new_password_needs_no_restart(self, mosquitto: Broker, bus: SignalBus, bot: Bot) -> None:
        path = mosquitto.access.password_path
        good = path.read_bytes()
        assert bus.send("local", BOT, message("one"), PATIENT) is not None
        try:
            path.write_bytes(b"not the password\n")
            with pytest.raises(BusError, match="Not authorized"):
                bus.send("local", BOT, message("two"), PATIENT)
        finally:
            path.write_bytes(good)
        assert bus.send("local", BOT, message("three"), PATIENT) is not None

    def test_a_broker_that_shows_anothers_certificate_gets_no_password(
        self, mosquitto: Broker, tmp_path: Path, bot: Bot
    ) -> None:
        other = parse_fleet({**_plain(), "broker_port": mosquitto.port}, tmp_path / "fleet.tenants.yml")
        broker_authority.ensure(other)
        bus = SignalBus(lambda node: broker.broker_access(other, node))
        with pytest.raises(BusError, match="certificate is refused"):
            bus.send("local", BOT, message("one"), PATIENT)
        bus.close()
        assert not bot.heard

    def test_what_is_not_set_up_is_named(self, tmp_path: Path) -> None:
        fleet = parse_fleet(_plain(), tmp_path / "fleet.tenants.yml")
        with pytest.raises(NoBrokerError, match=r"ca\.pem"):
            SignalBus(lambda node: broker.broker_access(fleet, node)).check("local")
        with pytest.raises(NoBrokerError, match="no node other"):
            SignalBus(lambda node: broker.broker_access(fleet, node)).check("other")


def _plain() -> dict[str, Any]:
    return {
        "plugin": "hummingfleet.core.tenants",
        "nodes": {"local": {"memory_mib": 1024, "broker_address": "127.0.0.1"}},
    }


@pytest.mark.lab
class TestService:
    """``POST /v1/signals`` with all of it."""

    @pytest.fixture
    def web_settings(self) -> dict[str, Any]:
        return {"signal_ack_seconds": 1, "signals_per_minute": 10_000, "signal_burst": 1000}

    @pytest.fixture
    def clock(self) -> Any:
        """The real one: the broker and the bot have no other."""
        return _RealClock()

    @pytest.fixture
    def app(self, web_installation: Installation, bus: SignalBus) -> Flask:
        return create_app(web_installation, bus=bus)

    @pytest.fixture
    def send(self, portal: Any) -> Callable[..., Any]:
        """Sends a signal with that id."""
        data = factories.document(
            exchange_connections=[factories.connection()], bots=[factories.signal_bot(state="running")]
        )
        portal.accepted({"type": "tenant.created", "timestamp": "2026-11-23T05:00:00Z", "data": data})
        made = portal.post("/v1/tenants/acme/bots/s1/signal-token", "portal").json

        def post(signal_id: str, sent_at: float | None = None) -> Any:
            body = {"bot": "s1", "token": made["token"], "id": signal_id, "action": "buy", "sent_at": sent_at or now()}
            return portal.client.post("/v1/signals", data=json.dumps(body), content_type="text/plain")

        return post

    def test_what_becomes_of_signals(self, send: Any, bot: Bot) -> None:
        answer = send("one")
        assert (answer.status_code, answer.json["outcome"]) == (202, "accepted")
        bot.answer = lambda _signal: {"accepted": False, "code": "halted", "reason": "by max_drawdown"}
        refused = send("two")
        assert (refused.status_code, refused.get_json(force=True)["code"]) == (409, "halted")
        bot.answer = lambda _signal: None
        sent_at = now()
        silent = send("three", sent_at)
        assert silent.status_code == 504
        assert send("three", sent_at).json["outcome"] == "unknown"
        bot.say({"id": "three"})
        while (settled := send("three", sent_at).json)["outcome"] == "unknown":
            threading.Event().wait(0.02)
        assert (settled["outcome"], settled["duplicate"]) == ("accepted", True)
        assert [signal["id"] for signal in bot.heard] == ["one", "two", "three"]

    def test_a_bot_that_does_not_listen(self, send: Any) -> None:
        answer = send("one")
        assert (answer.status_code, answer.get_json(force=True)["code"]) == (409, "not_listening")

    def test_a_broker_that_goes_away_and_comes_back(self, send: Any, mosquitto: Broker) -> None:
        bot = Bot(mosquitto)
        assert send("one").status_code == 202
        docker("kill", NAME)
        bot.client.ended.wait()
        statuses = set()
        while 503 not in statuses:  # one that was on its way is unanswered
            answer = send(f"lost {len(statuses)} {now()}")
            statuses.add(answer.status_code)
        assert statuses <= {503, 504}
        assert answer.get_json(force=True)["code"] == "broker_unreachable"
        docker("start", NAME)
        mosquitto.await_answer()
        back = Bot(mosquitto)
        while (answer := send("again", sent_at=float(int(now())))).status_code in (503, 409):
            threading.Event().wait(0.05)
        assert answer.status_code in (202, 200)
        assert [signal["id"] for signal in back.heard][-1] == "again"
        back.close()


class _RealClock(Clock):
    @property
    def now(self) -> float:  # type: ignore[override]
        return time.time()

    @now.setter
    def now(self, _value: float) -> None:
        pass


def now() -> float:
    return time.time()
