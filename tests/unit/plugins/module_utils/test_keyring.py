from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import (
    KeyRing,
    KeyRingError,
    generate_keyring,
    load_keyring,
)

from tests.secrecy import KEYS, MASTER, assert_hidden, key_ring, key_ring_text, texts_of

VAULT_PASSWORD = "open sesame"
WRONG_PASSWORD = "open barley"
TOKEN = "hvs.CAESIJ0f3vYt9dummytoken"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(load: Callable[[], object], *expected: str, secrets: tuple[str | bytes, ...] = ()) -> None:
    with pytest.raises(KeyRingError) as caught:
        load()
    for text in expected:
        assert text in str(caught.value)
    assert_hidden(texts_of(caught.value), [MASTER, *KEYS.values(), *secrets])


# --- the ring --------------------------------------------------------------------------------------------------------


def test_a_key_is_found_by_its_id() -> None:
    assert key_ring().key("k2") == KEYS["k2"]
    assert key_ring().ids == ("k1", "k2")


def test_an_unknown_id_is_refused_with_the_known_ones() -> None:
    refused(lambda: key_ring().key("k9"), "key k9", "k1, k2")


def test_a_key_given_where_an_id_belongs_is_not_repeated() -> None:
    value = base64.b64encode(KEYS["k1"]).decode()

    refused(lambda: key_ring().key(value), "k1, k2")
    refused(lambda: KeyRing(master_id=value, master=MASTER, keys={}), "key id")


def test_a_key_ring_shows_ids_only_and_is_neither_pickled_nor_copied() -> None:
    ring = key_ring()

    assert repr(ring) == str(ring) == "KeyRing(master=m1, keys=[k1, k2])"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            attempt(ring)
        assert_hidden(texts_of(caught.value), [MASTER, *KEYS.values()])
    with pytest.raises(TypeError):
        vars(ring)


def test_no_key_serves_twice() -> None:
    refused(lambda: key_ring(k3=KEYS["k1"]), "key k3 is the same as key k1")
    refused(lambda: key_ring(k3=MASTER), "key k3 is the same as the master key")


def test_a_key_of_another_length_is_refused() -> None:
    refused(lambda: key_ring(k3=KEYS["k1"][:16]), "key k3 has 16 bytes")


# --- a file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_guarded_file_is_read(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keyring.yml", key_ring_text(), mode)

    ring = load_keyring({"file": str(path)})

    assert (ring.master_id, ring.ids, ring.key("k1")) == ("m1", ("k1", "k2"), KEYS["k1"])


def test_a_relative_path_starts_at_the_given_root(tmp_path: Path) -> None:
    write(tmp_path / "keyring.yml", key_ring_text())

    assert load_keyring({"file": "keyring.yml"}, root=tmp_path).ids == ("k1", "k2")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700, 0o660, 0o200])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keyring.yml", key_ring_text(), mode)

    refused(lambda: load_keyring({"file": str(path)}), f"{mode:04o}", "chmod 0600", str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "keyring.yml", key_ring_text())
    os.chown(path, 12345, 12345)

    refused(lambda: load_keyring({"file": str(path)}), "uid 12345")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    refused(lambda: load_keyring({"file": str(tmp_path / "none.yml")}), "does not exist")
    refused(lambda: load_keyring({"file": str(tmp_path)}), "not a regular file")
    refused(lambda: load_keyring({"file": str(tmp_path / "pipe")}), "not a regular file")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "keyring.yml", "#" * 300_000)

    refused(lambda: load_keyring({"file": str(path)}), "larger than")


K1 = base64.b64encode(KEYS["k1"]).decode()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("version: 1", "version: 2"), "`version` must be 1"),
        (("version: 1", "version: true"), "`version` must be 1"),
        (("version: 1\n", ""), "exactly the entries version, master and keys"),
        (("version: 1", "version: 1\nmore: 1"), "exactly the entries version, master and keys"),
        (("id: m1, ", ""), "`master` must have exactly"),
        (("keys:\n", "keys: []\nrest:\n"), "exactly the entries"),
        (("  k1:", "  K1:"), "a key id must begin"),
        (("  k1:", "  ../k1:"), "a key id must begin"),
        (("  k1:", "  1:"), "a key id must begin"),
        (("  k2:", "  k1:"), "line 5 names the same entry a second time"),
        ((K1, K1[:-1]), "`keys.k1` is not base64"),
        ((K1, "%" + K1[1:]), "not valid YAML"),
        ((K1, "'%" + K1[1:] + "'"), "`keys.k1` is not base64"),
        ((K1, base64.b64encode(KEYS["k1"][:31]).decode()), "`keys.k1` has 31 bytes"),
        ((K1, "12"), "`keys.k1` is not base64"),
        ((K1, f"[{K1}"), "is not valid YAML"),
        ((K1, f"!!python/object/apply:os.system [{K1}]"), "is not valid YAML"),
    ],
)
def test_a_malformed_key_ring_is_refused_without_quoting_it(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    assert change[0] in key_ring_text()
    path = write(tmp_path / "keyring.yml", key_ring_text().replace(change[0], change[1], 1))

    refused(lambda: load_keyring({"file": str(path)}), expected, str(path))


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keyring.yml"
    path.write_bytes(b"\xff\xfe\x00" + MASTER)
    path.chmod(0o600)

    refused(lambda: load_keyring({"file": str(path)}), "not valid YAML")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"key": "x"},
        {"file": "a", "ansible_vault": "b"},
        {"ansible_vault": "b"},
        {"file": ""},
        {"file": 3},
        "a",
        None,
    ],
)
def test_a_source_that_is_none_or_two_is_refused(spec: Any) -> None:
    with pytest.raises(KeyRingError):
        load_keyring(spec)


# --- first set-up ----------------------------------------------------------------------------------------------------


def test_a_generated_key_ring_is_guarded_random_and_readable(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        ring = generate_keyring(tmp_path / "var" / "keyring.yml", key_ids=("k1", "k2"))
        other = generate_keyring(tmp_path / "var" / "other.yml")
    finally:
        os.umask(old_mask)

    assert (tmp_path / "var" / "keyring.yml").stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "var").stat().st_mode & 0o7777 == 0o700
    assert ring.ids == ("k1", "k2")
    assert ring.key("k1") != other.key("k1")
    assert load_keyring({"file": str(tmp_path / "var" / "keyring.yml")}).key("k1") == ring.key("k1")


def test_an_existing_key_ring_is_never_replaced_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "keyring.yml", key_ring_text())

    refused(lambda: generate_keyring(path), "exists and is not replaced")
    assert path.read_text() == key_ring_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["keyring.yml"]


# --- ansible-vault ---------------------------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path: Path) -> dict[str, str]:
    sealed = VaultLib([("default", VaultSecret(VAULT_PASSWORD.encode()))]).encrypt(key_ring_text())
    (tmp_path / "keyring.vault").write_bytes(sealed)
    write(tmp_path / "password", VAULT_PASSWORD + "\n")
    return {"ansible_vault": str(tmp_path / "keyring.vault"), "password_file": str(tmp_path / "password")}


def test_an_ansible_vault_file_is_read_with_its_password_file(vault: dict[str, str]) -> None:
    assert load_keyring(vault).key("k1") == KEYS["k1"]


def test_what_the_command_line_encrypted_is_read(tmp_path: Path) -> None:
    write(tmp_path / "password", VAULT_PASSWORD + "\n")
    path = write(tmp_path / "keyring.yml", key_ring_text())
    command = [
        str(Path(sys.executable).with_name("ansible-vault")),
        "encrypt",
        "--vault-id",
        f"fleet@{tmp_path / 'password'}",
        str(path),
    ]
    subprocess.run(command, check=True, capture_output=True)

    assert load_keyring({"ansible_vault": str(path), "password_file": str(tmp_path / "password")}).ids == ("k1", "k2")


def test_a_wrong_vault_password_is_refused(vault: dict[str, str]) -> None:
    write(Path(vault["password_file"]), WRONG_PASSWORD + "\n")

    refused(lambda: load_keyring(vault), "does not open", secrets=(WRONG_PASSWORD, VAULT_PASSWORD))


def test_a_damaged_or_plain_vault_file_is_refused(vault: dict[str, str]) -> None:
    path = Path(vault["ansible_vault"])
    path.write_bytes(path.read_bytes()[:-20])
    refused(lambda: load_keyring(vault), "does not open", secrets=(VAULT_PASSWORD,))
    path.write_text(key_ring_text())
    refused(lambda: load_keyring(vault), "is not encrypted")
    path.unlink()
    refused(lambda: load_keyring(vault), "cannot be read")


def test_the_password_file_is_guarded_too(vault: dict[str, str]) -> None:
    Path(vault["password_file"]).chmod(0o644)
    refused(lambda: load_keyring(vault), "Vault password file", "0644")
    write(Path(vault["password_file"]), "\n")
    refused(lambda: load_keyring(vault), "is empty")


# --- HashiCorp Vault -------------------------------------------------------------------------------------------------


class FakeVault(BaseHTTPRequestHandler):
    """Answers what the test put into `answer`; keeps what it was asked."""

    answer: tuple[int, dict[str, str], bytes]
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def secret_answer() -> bytes:
    content = {
        "version": 1,
        "master": {"id": "m1", "key": base64.b64encode(MASTER).decode()},
        "keys": {name: base64.b64encode(key).decode() for name, key in KEYS.items()},
    }
    return json.dumps({"data": {"data": content, "metadata": {"version": 7}}}).encode()


@contextmanager
def fake_vault(
    status: int = 200,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    asked: list[tuple[str, dict[str, str]]] = []
    answer = (status, headers or {}, secret_answer() if body is None else body)
    handler = type("Handler", (FakeVault,), {"answer": answer, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def token_path(tmp_path: Path) -> Path:
    return write(tmp_path / "token", TOKEN + "\n")


def spec(url: str, token_path: Path, **more: str) -> dict[str, Any]:
    options = {"url": url, "token_file": str(token_path), "mount": "secret", "path": "fleet/keyring"}
    return {"hashicorp_vault": options | more}


def test_a_kv_version_2_secret_is_read_with_the_token(token_path: Path) -> None:
    with fake_vault() as (url, asked):
        ring = load_keyring(spec(url, token_path, namespace="trading"))

    assert ring.key("k1") == KEYS["k1"]
    path, headers = asked[0]
    assert path == "/v1/secret/data/fleet/keyring"
    assert headers["X-Vault-Token"] == TOKEN
    assert headers["X-Vault-Namespace"] == "trading"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, b'{"errors":["permission denied"]}', "token is not accepted"),
        (404, b'{"errors":[]}', "no such secret"),
        (503, b"", "sealed"),
        (500, b"", "HTTP status 500"),
        (200, b"not json", "KV version 2"),
        (200, b'{"data": {"data": null}}', "KV version 2"),
        (200, b'{"data": {"keys": {}}}', "KV version 2"),
        (200, b'{"data": {"data": {"version": 1}}}', "exactly the entries"),
        (200, b"[" * 300_000, "larger than"),
    ],
)
def test_an_answer_without_a_key_ring_is_refused_in_words(
    token_path: Path, status: int, body: bytes, expected: str
) -> None:
    with fake_vault(status, body) as (url, _):
        refused(lambda: load_keyring(spec(url, token_path)), expected, "secret/fleet/keyring", secrets=(TOKEN,))


def test_the_token_does_not_follow_a_redirect(token_path: Path) -> None:
    with fake_vault() as (elsewhere, asked), fake_vault(307, b"", {"Location": elsewhere + "/v1/x"}) as (url, _):
        refused(lambda: load_keyring(spec(url, token_path)), "HTTP status 307", secrets=(TOKEN,))

    assert asked == []


def test_the_token_does_not_go_to_a_proxy_of_the_environment(token_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_vault() as (url, _), fake_vault() as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        load_keyring(spec(url, token_path))

    assert asked == []


def test_an_unreachable_vault_is_named(token_path: Path) -> None:
    with fake_vault() as (url, _):
        pass

    refused(lambda: load_keyring(spec(url, token_path)), "cannot be reached", url, secrets=(TOKEN,))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake vault")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_verified_against_the_given_ca(token_path: Path, certificate: tuple[Path, Path]) -> None:
    with fake_vault(tls=certificate) as (url, asked):
        assert load_keyring(spec(url, token_path, ca_file=str(certificate[0]))).ids == ("k1", "k2")
        asked.clear()
        refused(lambda: load_keyring(spec(url, token_path)), "certificate is not trusted", "ca_file", secrets=(TOKEN,))

    assert asked == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"url": "http://vault.example.com:8200"}, "must begin with https://"),
        ({"url": "ftp://127.0.0.1"}, "must look like"),
        ({"url": "https://user:pw@vault.example.com"}, "must look like"),
        ({"mount": ""}, "not empty"),
        ({"verify": "no"}, "may have ca_file"),
        ({"ca_file": "/nowhere.pem"}, "not a readable PEM certificate"),
    ],
)
def test_unsafe_or_unknown_vault_options_are_refused(token_path: Path, options: dict[str, str], expected: str) -> None:
    full = spec("http://127.0.0.1:1", token_path)["hashicorp_vault"] | options

    refused(lambda: load_keyring({"hashicorp_vault": full}), expected, secrets=(TOKEN,))


@pytest.mark.parametrize("text", ["", "two words", "line\nline", "\x00"])
def test_a_token_file_without_one_token_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "token", text)

    refused(lambda: load_keyring(spec("http://127.0.0.1:1", path)), "does not hold one token")


def test_the_token_file_is_guarded_too(token_path: Path) -> None:
    token_path.chmod(0o644)

    refused(lambda: load_keyring(spec("http://127.0.0.1:1", token_path)), "Vault token file", "0644", secrets=(TOKEN,))
