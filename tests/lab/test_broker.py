"""The node's MQTT broker, tried with a real client: who is let in, who reads and writes what, how users come and go."""

from __future__ import annotations

import json
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import broker
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import tenant_network
from ansible_collections.hummingfleet.core.plugins.module_utils.node import broker as node_broker
from ansible_collections.hummingfleet.core.plugins.module_utils.node.docker_api import DockerEngine

from tests.factories import document, market_making_bot, signal_bot
from tests.installation import Installation, docker
from tests.lab.mqtt import Client, Refused, no_subscribers

pytestmark = pytest.mark.lab

PREFIX = "hfbrk-"
ACME, BELL = f"{PREFIX}acme", f"{PREFIX}bell"
NAME = f"{PREFIX}broker"
ENGINE = "hummingfleet/engine:20260922-1"
# The second in the second /29 of the installation's pool.
OWN_ADDRESS = "10.195.0.10"
NOT_AUTHORISED = "Not authorized"


class Place:
    """An installation with a broker, and clients of it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.access = broker.broker_access(installation.fleet, "lab")

    def address(self, tenant: str) -> str:
        """The broker in the tenant's network."""
        return str(tenant_network(self.document(tenant)["subnet"]).shared["broker"])

    def document(self, tenant: str) -> dict[str, Any]:
        return self.installation.registry.get(tenant).document

    def password(self, user: str) -> str:
        """What the bot finds in its file."""
        tenant, _dot, bot = user.partition(".")
        path = self.installation.base_dir / "tenants" / tenant / "secrets" / f"broker_password_{bot}"
        return path.read_text()

    def bot(self, user: str, **options: Any) -> Client:
        """Logged in as a bot, in its tenant's network."""
        if "password" not in options:
            options["password"] = self.password(user)
        return Client(self.address(user.partition(".")[0]), broker.PORT, user, **options)

    def signals(self, **options: Any) -> Client:
        """Logged in as the control node does."""
        options.setdefault("tls", ssl.create_default_context(cafile=str(self.access.ca_path)))
        return Client(self.access.host, self.access.port, self.access.user, self.access.password, **options)

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", NAME))[0])

    def networks(self) -> set[str]:
        return set(self.inspect()["NetworkSettings"]["Networks"])

    def change_bots(self, tenant: str, bots: list[dict[str, Any]]) -> None:
        self.installation.change(tenant, lambda data: data.update(bots=bots))
        run = self.installation.converge()
        assert run.code == 0, run.output


def topic(user: str, kind: str) -> str:
    return f"hbot/{user}/hummingfleet/{kind}"


def bots(*ids: str) -> list[dict[str, Any]]:
    return [signal_bot(id=bot, state="running") for bot in ids]


A1, A2, B1 = f"{ACME}.b1", f"{ACME}.b2", f"{BELL}.b1"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
    made = Installation(folder, prefix=PREFIX, pool="10.195.0.0/20", uid_start=410_000)
    try:
        run = made.start_broker()
        assert run.code == 0, run.output
        for tenant, wanted in ((ACME, bots("b1", "b2")), (BELL, bots("b1"))):
            made.submit(
                document(
                    tenant=tenant,
                    exchange_environment="live",
                    exchange_connections=[made.connection(tenant)],
                    bots=wanted,
                )
            )
        run = made.converge()
        assert run.code == 0, run.output
        yield Place(made)
    finally:
        made.clean()
        shutil.rmtree(folder)


@pytest.fixture
def clients(place: Place) -> Iterator[dict[str, Client]]:
    """One client of each kind: three bots and the control node."""
    with ExitStack() as stack:
        found = {user: stack.enter_context(place.bot(user)) for user in (A1, A2, B1)}
        found["signals"] = stack.enter_context(place.signals())
        yield found


def test_a_bot_hears_the_control_node_and_answers(clients: dict[str, Client]) -> None:
    bot, signals = clients[A1], clients["signals"]
    bot.subscribe(topic(A1, "signal"))
    signals.subscribe("hbot/+/hummingfleet/ack")
    assert signals.publish(topic(A1, "signal"), b'{"id": "1"}') == "Success"
    assert bot.wait_for(topic(A1, "signal")) == b'{"id": "1"}'
    assert bot.publish(topic(A1, "ack"), b"yes") == "Success"
    assert signals.wait_for(topic(A1, "ack")) == b"yes"


def test_a_signal_that_no_bot_takes_is_told_apart_and_kept_for_nobody(place: Place, clients: dict[str, Client]) -> None:
    signals = clients["signals"]
    assert signals.publish(topic(B1, "signal"), b"lost") == no_subscribers()
    bot = clients[B1]
    bot.subscribe(topic(B1, "signal"))
    assert signals.publish(topic(B1, "signal"), b"taken") == "Success"
    assert bot.wait_for(topic(B1, "signal")) == b"taken"


@pytest.mark.parametrize(
    "subscription",
    [
        "#", "+/#", "hbot/#", "hbot/+/#", "+/+/+/+", "hbot/+/hummingfleet/signal", "hbot/+/hummingfleet/ack", "$SYS/#",
        f"hbot/{A2}/#", f"hbot/{B1}/#", f"hbot/{A2}/hummingfleet/signal", "$share/g/#", "$share/g/hbot/+/#",
        "hbot/signals/#",
    ],
)  # fmt: skip
def test_a_bot_reads_no_topic_but_its_own(clients: dict[str, Client], subscription: str) -> None:
    spy = clients[A1]
    # Whether the broker takes the subscription does not matter; what it delivers does.
    spy.subscribe(subscription, f"hbot/{A1}/fence")
    for user in (A2, B1):
        clients[user].subscribe(topic(user, "signal"))
        assert clients["signals"].publish(topic(user, "signal")) == "Success"
        clients[user].wait_for(topic(user, "signal"))
        clients[user].publish(topic(user, "ack"))
        clients[user].publish(f"hbot/{user}/hb")
    # The broker has done all that by now, so what the spy was to hear of it comes before this.
    spy.publish(f"hbot/{A1}/fence")
    spy.wait_for(f"hbot/{A1}/fence")
    assert set(spy.heard) == {f"hbot/{A1}/fence"}


def test_a_spy_hides_that_nobody_listens_and_gets_nothing(clients: dict[str, Client]) -> None:
    """A known limit of Mosquitto 2.0: it counts a subscriber before it asks whether that one may read."""
    assert clients["signals"].publish(topic(B1, "signal")) == no_subscribers()
    clients[A1].subscribe("#")
    assert clients["signals"].publish(topic(B1, "signal")) == "Success"
    clients[A1].publish(f"hbot/{A1}/fence")
    clients[A1].wait_for(f"hbot/{A1}/fence")
    assert clients[A1].heard == [f"hbot/{A1}/fence"]


@pytest.mark.parametrize(
    "forbidden",
    [
        topic(A2, "signal"), topic(A2, "ack"), topic(B1, "signal"), f"hbot/{B1}/hb", "hbot/signals/x", "hbot", "x",
        "$SYS/x", "$CONTROL/dynamic-security/v1", f"hbot/{A1}", f"/hbot/{A1}/x", f"hbot/{A1}x/y", f"HBOT/{A1}/x",
    ],
)  # fmt: skip
def test_a_bot_writes_no_topic_but_its_own(clients: dict[str, Client], forbidden: str) -> None:
    for user in (A2, B1):
        clients[user].subscribe(f"hbot/{user}/#")
    clients["signals"].subscribe("hbot/+/hummingfleet/ack")
    # "hbot/<user>" is the one topic above its own that MQTT's "#" includes.
    allowed = forbidden == f"hbot/{A1}"
    assert (clients[A1].publish(forbidden) != NOT_AUTHORISED) is allowed
    for user in (A2, B1):
        clients[user].publish(f"hbot/{user}/fence")
        clients[user].wait_for(f"hbot/{user}/fence")
        clients[user].publish(topic(user, "ack"))
        clients["signals"].wait_for(topic(user, "ack"))
        assert set(clients[user].heard) <= {f"hbot/{user}/fence", topic(user, "ack")}
    assert clients["signals"].heard == [topic(A2, "ack"), topic(B1, "ack")]


def test_a_last_will_is_no_way_around(place: Place, clients: dict[str, Client]) -> None:
    clients[A2].subscribe(f"hbot/{A2}/#")
    clients[A1].close()
    with place.bot(A1) as witness:
        assert witness.publish(f"hbot/{A1}/x") != NOT_AUTHORISED
    try:
        dying = place.bot(A1, will=topic(A2, "signal"))
    except Refused:
        pass
    else:
        dying.die()
    # A new connection of the same user ends the dead one at the latest, and the broker then deals with its will.
    with place.bot(A1) as successor:
        successor.publish(f"hbot/{A1}/x")
    clients[A2].publish(f"hbot/{A2}/fence")
    clients[A2].wait_for(f"hbot/{A2}/fence")
    assert clients[A2].heard == [f"hbot/{A2}/fence"]


@pytest.mark.parametrize("name", ["a#", "+", f"{ACME}.+", "+/hummingfleet", "..", "signals/x"])
def test_a_user_whose_name_is_a_wildcard_reads_and_writes_nothing(place: Place, name: str) -> None:
    """No document can have such ids. If one could, the pattern in the rules would still not widen."""
    base, engine = str(place.installation.base_dir), DockerEngine()
    users = place.installation.base_dir / "tenants" / ACME / node_broker.USERS_FILE
    before = users.read_text()
    try:
        users.write_text(before + broker.user_line(name, "secret"))
        assert node_broker.hand_over_users(engine, base, NAME)
        login = (place.address(ACME), broker.PORT, name, "secret")
        with wait_until_let_in(*login) as spy, place.bot(A2) as neighbour:
            spy.subscribe("#", "hbot/#", "hbot/+/#", f"hbot/{A2}/#")
            neighbour.subscribe(f"hbot/{A2}/#")
            assert spy.publish(topic(A2, "signal")) == NOT_AUTHORISED
            neighbour.publish(f"hbot/{A2}/hb")
            neighbour.wait_for(f"hbot/{A2}/hb")
            assert neighbour.heard == [f"hbot/{A2}/hb"]
            spy.publish("hbot/fence")
            assert spy.heard == []
    finally:
        users.write_text(before)
        node_broker.hand_over_users(engine, base, NAME)


def wait_until_let_in(*login: Any) -> Client:
    """The broker takes users over within its next turn, which nobody can see from outside."""
    while True:
        try:
            return Client(*login)
        except Refused:
            continue


@pytest.mark.parametrize(
    ("user", "password"), [(None, None), (A1, None), (A1, "wrong"), (A1, ""), ("nobody", "x"), ("signals", "")]
)
@pytest.mark.parametrize("version", [paho.MQTTProtocolVersion.MQTTv311, paho.MQTTProtocolVersion.MQTTv5])
def test_nobody_is_let_in_without_the_right_password(
    place: Place, user: str | None, password: str | None, version: paho.MQTTProtocolVersion
) -> None:
    with pytest.raises(Refused):
        Client(place.address(ACME), broker.PORT, user, password, version=version)


@pytest.mark.parametrize(("user", "password"), [(None, None), (A1, "wrong")])
def test_nobody_is_let_in_at_the_control_nodes_port_either(
    place: Place, user: str | None, password: str | None
) -> None:
    with pytest.raises(Refused):
        trusted = ssl.create_default_context(cafile=str(place.access.ca_path))
        Client(place.access.host, place.access.port, user, password, tls=trusted)


def test_a_bot_is_not_let_in_with_the_password_of_another(place: Place) -> None:
    for other in (A2, B1):
        with pytest.raises(Refused):
            place.bot(A1, password=place.password(other))
    place.bot(A1).close()


def test_the_control_node_only_hands_over_signals_and_hears_acknowledgements(clients: dict[str, Client]) -> None:
    signals = clients["signals"]
    for forbidden in (topic(A1, "ack"), f"hbot/{A1}/stop", f"hbot/{A1}/hummingfleet", "hbot/signals/x", "x"):
        assert signals.publish(forbidden) == NOT_AUTHORISED, forbidden
    signals.subscribe("#", "hbot/signals/#", "hbot/+/hummingfleet/ack")
    for name in ("hb", "log", "hummingfleet/signal", "hummingfleet/other"):
        clients[A1].publish(f"hbot/{A1}/{name}")
    clients[A1].publish(topic(A1, "ack"))
    signals.wait_for(topic(A1, "ack"))
    assert set(signals.heard) == {topic(A1, "ack")}


@pytest.mark.parametrize("stolen", [A1, f"hbot.{A1}"])
def test_a_bot_cannot_take_the_client_id_of_another(place: Place, stolen: str) -> None:
    """A broker ends the connection of a client whose id comes again, so ids must not be the clients' to choose."""
    for version in (paho.MQTTProtocolVersion.MQTTv311, paho.MQTTProtocolVersion.MQTTv5):
        with place.bot(A1, client_id=f"hbot.{A1}", version=version) as victim:
            victim.subscribe(f"hbot/{A1}/fence")
            for thief in (A2, B1):
                with place.bot(thief, client_id=stolen, version=version) as stranger:
                    stranger.subscribe(f"hbot/{thief}/fence")
                    stranger.publish(f"hbot/{thief}/fence")
                    stranger.wait_for(f"hbot/{thief}/fence")
                    victim.publish(f"hbot/{A1}/fence")
                    victim.wait_for(f"hbot/{A1}/fence")
            assert not victim.ended.is_set()


def test_a_bot_that_comes_back_takes_its_own_place(place: Place) -> None:
    with place.bot(A1, client_id=f"hbot.{A1}") as first, place.bot(A1, client_id="other") as second:
        first.ended.wait()
        second.subscribe(f"hbot/{A1}/fence")
        second.publish(f"hbot/{A1}/fence")
        second.wait_for(f"hbot/{A1}/fence")


def test_the_engines_client_id_is_of_the_form_tried_here() -> None:
    script = "from hummingbot.remote_iface.mqtt import MQTTGateway; print(MQTTGateway.NODE_NAME)"
    printed = docker("run", "--rm", "--network", "none", ENGINE, "python", "-c", script).splitlines()[-1]
    assert printed.replace("$instance_id", A1) == f"hbot.{A1}"


def test_tls_is_verified_with_our_authority(place: Place) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        place.signals(tls=ssl.create_default_context())
    with pytest.raises(Refused):
        Client(
            place.access.host, place.access.port, "signals", "wrong",
            tls=ssl.create_default_context(cafile=str(place.access.ca_path)),
        )  # fmt: skip
    # The same broker at an address that the certificate is not for.
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(OWN_ADDRESS, 8883, tls=ssl.create_default_context(cafile=str(place.access.ca_path)))
    place.signals().close()


def test_tenants_networks_have_no_tls_port(place: Place) -> None:
    """There a client could choose its id."""
    with pytest.raises(ConnectionRefusedError):
        Client(place.address(ACME), 8883)


def test_what_is_published_and_how_it_runs(place: Place) -> None:
    facts = place.inspect()
    host = facts["HostConfig"]
    assert host["PortBindings"] == {"8883/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(place.access.port)}]}
    assert facts["Config"]["User"] == "199998:199998"
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["Memory"] == host["MemorySwap"] == 128 * 2**20
    assert docker("exec", NAME, "cat", "/proc/sys/net/ipv4/ip_forward") == "0"
    # Answers to the control node leave by its own network, however many tenants' networks it is in.
    routes = [line.split() for line in docker("exec", NAME, "cat", "/proc/net/route").splitlines()[1:]]
    gateway = next(route[2] for route in routes if route[1] == "00000000")
    assert bytes.fromhex(gateway)[::-1] == bytes([10, 195, 0, 9])
    folder = place.installation.folder / "var" / "broker"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.name != ".lock"}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "signals_password": 0o600}
    everything = [path for path in place.installation.base_dir.rglob("*") if path.is_file()]
    ca_key = (folder / "ca.key").read_bytes()
    assert not [path for path in everything if path.read_bytes() == ca_key]


def test_a_second_run_changes_nothing(place: Place) -> None:
    before = place.inspect()["State"]["StartedAt"]
    assert place.installation.start_broker().changed == 0
    assert place.installation.converge().changed == 0
    assert place.inspect()["State"]["StartedAt"] == before


def test_users_come_and_go_without_anybody_else_noticing(place: Place) -> None:
    started = place.inspect()["State"]["StartedAt"]
    password = place.password(A2)
    with place.bot(A1) as stays, place.bot(B1) as other, place.bot(A2) as leaves, place.signals() as signals:
        place.change_bots(ACME, bots("b1"))
        leaves.ended.wait()
        with pytest.raises(Refused):
            place.bot(A2, password=password)
        assert not (place.installation.base_dir / "tenants" / ACME / "secrets" / "broker_password_b2").exists()
        place.change_bots(ACME, bots("b1", "b2"))
        place.bot(A2).close()
        for user, client in ((A1, stays), (B1, other)):
            client.publish(topic(user, "ack"))
        signals.publish(topic(A1, "signal"))
        assert not any(client.ended.is_set() for client in (stays, other, signals))
    assert place.inspect()["State"]["StartedAt"] == started


def test_a_new_version_replaces_the_passwords_of_one_tenant(place: Place) -> None:
    before = {user: place.password(user) for user in (A1, A2, B1)}
    containers = place.installation.containers()

    def rotate(data: dict[str, Any]) -> None:
        data["secret_versions"] = {**data["secret_versions"], "broker": data["secret_versions"]["broker"] + 1}

    with place.bot(A1) as old, place.bot(B1) as other:
        place.installation.change(ACME, rotate)
        run = place.installation.converge()
        assert run.code == 0, run.output
        old.ended.wait()
        assert not other.ended.is_set()
    with pytest.raises(Refused):
        place.bot(A1, password=before[A1])
    place.bot(A1).close()
    changed = {user for user in before if place.password(user) != before[user]}
    assert changed == {A1, A2}
    # Bots read their password when they start.
    now = place.installation.containers()
    assert {name for name in containers if containers[name] != now[name]} == {f"{ACME}-bot_b1", f"{ACME}-bot_b2"}


def test_the_control_nodes_password_is_replaced(place: Place) -> None:
    old = place.access.password
    with place.signals() as signals, place.bot(A1) as bot:
        place.access.password_path.unlink()
        run = place.installation.start_broker("--diff")
        assert run.code == 0, run.output
        signals.ended.wait()
        assert not bot.ended.is_set()
    assert old not in run.output and place.access.password not in run.output
    assert place.access.password_path.read_text().strip() not in run.output
    with pytest.raises(Refused):
        trusted = ssl.create_default_context(cafile=str(place.access.ca_path))
        Client(place.access.host, place.access.port, "signals", old, tls=trusted)
    place.signals().close()


def test_the_broker_is_in_the_networks_of_tenants_that_need_it_only(place: Place) -> None:
    own = f"hf-0-{NAME}"
    assert place.networks() == {own, f"hf-{ACME}", f"hf-{BELL}"}
    password = place.password(B1)
    address = place.address(BELL)
    place.change_bots(BELL, [market_making_bot(id="b1")])
    assert place.networks() == {own, f"hf-{ACME}"}
    with pytest.raises(OSError):
        Client(address, broker.PORT, B1, password)
    place.change_bots(BELL, bots("b1"))
    assert place.networks() == {own, f"hf-{ACME}", f"hf-{BELL}"}
    place.bot(B1).close()


def test_a_missing_broker_is_named_before_anything_is_stopped(place: Place) -> None:
    docker("rm", "--force", NAME)
    containers = place.installation.containers()
    # Nothing has changed, so nobody is asked.
    assert place.installation.converge().code == 0
    place.installation.change(ACME, lambda data: data.update(bots=bots("b1")))
    run = place.installation.converge()
    assert run.code != 0
    words = f"container {NAME}, which this tenant needs, is not on the node; run the playbook prepare_nodes"
    assert words in run.output
    assert place.installation.containers() == containers
    # It comes back into the networks where it is needed, with the users that there are.
    assert place.installation.start_broker().code == 0
    assert place.networks() == {f"hf-0-{NAME}", f"hf-{ACME}", f"hf-{BELL}"}
    for user in (A1, A2, B1):
        place.bot(user).close()
    place.change_bots(ACME, bots("b1", "b2"))
    assert place.installation.start_broker().changed == 0


def test_a_removed_tenant_leaves_no_user(place: Place) -> None:
    gone = f"{PREFIX}gone"
    place.installation.submit(
        document(
            tenant=gone,
            exchange_environment="live",
            exchange_connections=[place.installation.connection(gone)],
            bots=bots("b1"),
        )
    )
    run = place.installation.converge()
    assert run.code == 0, run.output
    passwords = place.installation.base_dir / "broker" / "users" / "passwords"
    assert f"{gone}.b1:" in passwords.read_text()
    with place.bot(f"{gone}.b1"), place.bot(A1) as other:
        playbook = Path(__file__).parents[2] / "playbooks" / "remove_tenant.yml"
        run = place.installation.playbook(playbook, "--limit", f"tenant-{gone}")
        assert run.code == 0, run.output
        # The network may be gone before the goodbye has passed it, so it is the broker that is asked.
        while f"Client {gone}.b1 disconnected" not in docker("logs", NAME):
            continue
        assert not other.ended.is_set()
    assert gone not in passwords.read_text()
    assert f"hf-{gone}" not in place.networks()


def test_the_role_from_nothing_to_nothing(place: Place) -> None:
    """Last: it takes the broker away."""
    installation = place.installation
    changed = {"node_broker_max_packet_bytes": 8192}
    before = place.inspect()
    predicted, done = installation.start_broker("--check", **changed), installation.start_broker(**changed)
    assert (predicted.code, done.code) == (0, 0), done.output
    assert predicted.changed >= 1
    after = place.inspect()
    assert (after["Id"], after["State"]["StartedAt"] != before["State"]["StartedAt"]) == (before["Id"], True)
    bigger = installation.start_broker(**changed, node_broker_memory_mib=96)
    assert bigger.code == 0, bigger.output
    assert place.inspect()["Id"] != after["Id"]
    assert place.networks() == set(after["NetworkSettings"]["Networks"])
    place.bot(A1).close()
    for expected in (2, 0):
        run = installation.start_broker(node_broker_state="absent")
        assert (run.code, run.changed) == (0, expected), run.output
    assert not (installation.base_dir / "broker").exists()
    assert docker("network", "ls", "--quiet", "--filter", f"name=hf-0-{NAME}") == ""


def test_a_node_without_an_address_is_refused_in_words(place: Place) -> None:
    run = place.installation.start_broker(node_broker_address="edge.example.com")
    assert run.code != 0
    assert "needs an IPv4 address" in run.output and "broker_address" in run.output
