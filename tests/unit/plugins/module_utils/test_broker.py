"""The brokers' users, passwords and authority as the control node makes them, and what a stack gets of them."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import broker, broker_authority, render
from ansible_collections.hummingfleet.core.plugins.module_utils.broker import BrokerAccess, BrokerError
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import DeriveError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet, Node, parse_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing, generate_keyring
from ansible_collections.hummingfleet.core.plugins.module_utils.node.broker import USERS_FILE
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.factories import grid_bot, signal_bot, stored_document

ROOT = Path(__file__).parents[4]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    data = {
        "plugin": "hummingfleet.core.tenants",
        "nodes": {"local": {"ansible_connection": "local", "memory_mib": 1}, "edge_1": {"memory_mib": 1}},
    }
    return parse_fleet(data, tmp_path / "fleet.tenants.yml")


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return generate_keyring(tmp_path_factory.mktemp("keys") / "keyring.yml")


class TestUsers:
    def test_a_line_is_mosquittos_form_of_pbkdf2(self) -> None:
        user, _colon, rest = broker.user_line("acme.b1", "secret").partition(":")
        empty, scheme, iterations, salt, key = rest.strip().split("$")
        assert (user, empty, scheme, iterations) == ("acme.b1", "", "7", "101")
        expected = hashlib.pbkdf2_hmac("sha512", b"secret", base64.b64decode(salt), 101)
        assert base64.b64decode(key) == expected

    def test_equal_passwords_of_two_users_do_not_show_and_lines_stay_the_same(self) -> None:
        lines = [broker.user_line(user, "secret").partition(":")[2] for user in ("acme.b1", "acme.b2")]
        assert lines[0] != lines[1]
        assert broker.user_line("acme.b1", "secret") == f"acme.b1:{lines[0]}"

    def test_every_bot_of_every_tenant_has_a_password_of_its_own(self, keyring: KeyRing) -> None:
        acme = stored_document()
        other = stored_document(tenant="bell", salt="YW5vdGhlciBzYWx0IGZvciB0ZXN0cw")
        newer = stored_document(secret_versions={"broker": 2})
        passwords = [broker.bot_password(keyring, acme, bot) for bot in ("b1", "b2", "b-2")]
        passwords += [broker.bot_password(keyring, document, "b1") for document in (other, newer)]
        assert len(set(passwords)) == 5
        assert all(len(password) == 43 for password in passwords)
        assert broker.bot_password(keyring, copy.deepcopy(acme), "b1") == passwords[0]

    @pytest.mark.parametrize("bot", ["", "b1|x", "b 1", "B1", "+", "b1\n"])
    def test_an_id_that_no_bot_can_have_gets_none(self, keyring: KeyRing, bot: str) -> None:
        with pytest.raises(DeriveError):
            broker.bot_password(keyring, stored_document(), bot)


class TestAccess:
    def test_it_says_where_and_with_what(self, fleet: Fleet) -> None:
        folder = fleet.root / "var" / "broker"
        assert broker.broker_access(fleet, "local") == BrokerAccess(
            "127.0.0.1", 8883, folder / "ca.pem", "signals", folder / "signals_password"
        )

    @pytest.mark.parametrize(
        ("node", "change", "words"),
        [
            ("gone", {}, "has no node gone"),
            ("edge_1", {}, "give the node one as broker_address"),
            ("local", {"broker_enabled": False}, "broker_enabled: false"),
        ],
    )
    def test_without_a_way_it_says_what_is_missing(
        self, fleet: Fleet, node: str, change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(BrokerError, match=words):
            broker.broker_access(replace(fleet, **change), node)


class TestAuthority:
    def test_it_is_made_once(self, fleet: Fleet) -> None:
        assert broker_authority.ensure(fleet, check=True) == broker_authority.ensure(fleet) != []
        files = [broker.ca_path(fleet), broker.ca_key_path(fleet), broker.password_path(fleet)]
        before = [path.read_bytes() for path in files]
        assert broker_authority.ensure(fleet) == []
        assert [path.read_bytes() for path in files] == before
        assert [path.stat().st_mode & 0o777 for path in files] == [0o644, 0o600, 0o600]
        assert files[0].parent.stat().st_mode & 0o777 == 0o700
        access = broker.broker_access(fleet, "local")
        assert broker_authority.signals_line(fleet, access.host) == broker.user_line("signals", access.password)

    def test_what_one_node_learns_opens_no_other_broker(self, fleet: Fleet) -> None:
        broker_authority.ensure(fleet)
        here = broker.broker_access(fleet, "local")
        there = replace(here, host="192.0.2.12")
        assert here.password != there.password == replace(there).password
        secret = broker.password_path(fleet).read_text().strip()
        assert secret not in here.password and len(here.password) == len(there.password) == 43
        assert broker_authority.signals_line(fleet, there.host) == broker.user_line("signals", there.password)

    def test_two_users_of_one_group_share_the_password_and_not_the_key(self, fleet: Fleet) -> None:
        folder = broker.control_dir(fleet)
        folder.mkdir(parents=True)
        folder.chmod(0o2750)
        broker_authority.ensure(fleet)
        assert broker.password_path(fleet).stat().st_mode & 0o777 == 0o640
        assert broker.ca_key_path(fleet).stat().st_mode & 0o777 == 0o600

    def test_half_an_authority_is_refused_instead_of_replaced(self, fleet: Fleet) -> None:
        broker_authority.ensure(fleet)
        broker.ca_key_path(fleet).unlink()
        with pytest.raises(BrokerError, match=r"ca\.key is missing.*backup"):
            broker_authority.ensure(fleet)

    def test_a_node_gets_a_certificate_for_its_address_only(self, fleet: Fleet) -> None:
        broker_authority.ensure(fleet)
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("portal.example.com")])
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        text = broker_authority.issue(fleet, request.public_bytes(serialization.Encoding.PEM).decode(), "192.0.2.11")
        certificate = x509.load_pem_x509_certificate(text.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(broker.ca_path(fleet).read_bytes()))
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(found) == [x509.IPAddress(IPv4Address("192.0.2.11"))]
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        assert certificate.public_key() == key.public_key()

    @pytest.mark.parametrize("text", ["", "nonsense"])
    def test_what_is_no_request_is_refused(self, fleet: Fleet, text: str) -> None:
        broker_authority.ensure(fleet)
        with pytest.raises(BrokerError, match="cannot be made"):
            broker_authority.issue(fleet, text, "192.0.2.11")

    def test_a_missing_password_says_what_to_do(self, fleet: Fleet) -> None:
        with pytest.raises(BrokerError, match="prepare_nodes"):
            broker_authority.signals_line(fleet, "192.0.2.11")


class TestStack:
    """What a tenant's stack gets."""

    @pytest.fixture
    def renderer(self, fleet: Fleet, keyring: KeyRing) -> render.Renderer:
        return render.Renderer(fleet, load_catalogue(ROOT / "catalogue"), keyring, "build")

    def render(
        self, renderer: render.Renderer, bots: list[dict[str, Any]], **overrides: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        connection = encrypt_connection(
            {"api_key": "key", "api_secret": "secret"}, connection_id="ex1", exchange="binance", tenant="acme",
            keyring=renderer.keyring, key_id=renderer.keyring.ids[0], connectors=renderer.catalogue.connectors,
        )  # fmt: skip
        document = stored_document(bots=bots, exchange_connections=[connection], state="active", **overrides)
        return render.render_stack(document, renderer, revision=1, fence=1)

    def test_a_bot_that_needs_the_broker_has_a_user_and_the_others_have_none(self, renderer: render.Renderer) -> None:
        stack, secrets = self.render(renderer, [signal_bot(id="s1"), grid_bot(id="b1")])
        password = secrets["secrets/broker_password_s1"]
        assert secrets[USERS_FILE] == broker.user_line("acme.s1", password)
        assert not [path for path in secrets if path.endswith("broker_password_b1")]
        about = {f["path"]: json.loads(f["content"]) for f in stack["files"] if f["path"].endswith("bot.json")}
        assert about["bots/s1/config/bot.json"]["broker"] == {"host": "broker", "port": 1883}
        assert "broker" not in about["bots/b1/config/bot.json"]
        compose = next(f["content"] for f in stack["files"] if f["path"] == "compose.yml")
        assert compose.count("/run/secrets/broker_password:ro") == 1
        assert password not in json.dumps(stack)
        owners = {f["path"]: (f["mode"], f["uid"]) for f in stack["files"] if f["path"] in secrets}
        assert owners[USERS_FILE] == ("0400", 0), "the tenant's user reads no hashes"
        assert owners["secrets/broker_password_s1"] == ("0400", 200003)

    def test_the_broker_joins_only_where_a_bot_needs_it(self, renderer: render.Renderer) -> None:
        joined, _ = self.render(renderer, [signal_bot()])
        left, secrets = self.render(renderer, [grid_bot()])
        guests = {guest["container"]: guest for guest in joined["network"]["attach"]}
        assert guests["hummingfleet-broker"] == {
            "container": "hummingfleet-broker", "aliases": ["broker"], "address": "10.90.3.29",
            "playbook": "prepare_nodes",
        }  # fmt: skip
        assert joined["network"]["detach"] == []
        assert [guest["container"] for guest in left["network"]["attach"]] == ["hf-sandbox"]
        assert left["network"]["detach"] == ["hummingfleet-broker"]
        assert USERS_FILE not in secrets

    def test_a_new_version_asks_for_new_containers_of_those_bots_alone(self, renderer: render.Renderer) -> None:
        versions = {"postgres": 1, "redis": 1, "keystore": 1, "gateway": 1, "broker": 2}
        bots = [signal_bot(id="s1"), grid_bot(id="b1")]
        before, _ = self.render(renderer, bots)
        after, _ = self.render(renderer, bots, secret_versions=versions)
        changed = {n for n in before["services"] if before["services"][n]["spec"] != after["services"][n]["spec"]}
        assert changed == {"bot_s1"}
        assert before["digest"] != after["digest"]

    def test_a_removed_tenant_does_not_need_the_broker(self, renderer: render.Renderer) -> None:
        data = stored_document(bots=[signal_bot()])
        stack = render.removed_stack(data, renderer, fence=1)
        assert "hummingfleet-broker" not in [guest["container"] for guest in stack["network"]["attach"]]
        assert stack["broker"] == "hummingfleet-broker"

    def test_a_fleet_without_brokers_says_so(self, renderer: render.Renderer) -> None:
        without = replace(renderer, fleet=replace(renderer.fleet, broker_enabled=False))
        with pytest.raises(render.RenderError, match=r"bot s1: signal_webhook needs.*broker_enabled: false"):
            self.render(without, [signal_bot(id="s1")])
        self.render(without, [grid_bot()])


def test_a_node_of_the_inventory_can_be_a_broker(fleet: Fleet) -> None:
    named = replace(fleet, nodes={"edge_1": Node("edge_1", 1, broker_address="192.0.2.9")}, broker_port=18883)
    access = broker.broker_access(named, "edge_1")
    assert (access.host, access.port) == ("192.0.2.9", 18883)
