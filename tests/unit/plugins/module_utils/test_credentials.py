from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import credentials
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import (
    CredentialError,
    decrypt_connection,
    encrypt_connection,
    fingerprint,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing, KeyRingError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import ROOT, catalogue
from tests.secrecy import API_KEY, API_SECRET, KEYS, MASTER, assert_hidden, key_ring, texts_of

CONNECTORS = catalogue().connectors
WITH_SECRETS = sorted(name for name, connector in CONNECTORS.items() if connector.secrets)


def encrypted(fields: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "connection_id": "ex1",
        "exchange": "binance",
        "tenant": "acme",
        "keyring": key_ring(),
        "key_id": "k1",
        "connectors": CONNECTORS,
    }
    fields = {"api_key": API_KEY, "api_secret": API_SECRET} if fields is None else fields
    return encrypt_connection(fields, **arguments | overrides)


def decrypted(connection: Any, tenant: Any = "acme", keyring: KeyRing | None = None, **more: Any) -> dict[str, str]:
    return decrypt_connection(connection, tenant, keyring or key_ring(), CONNECTORS, **more)


def refused(
    attempt: Callable[[], object],
    *expected: str,
    connection: Mapping[Any, Any] | None = None,
    kind: type[HummingfleetError] = CredentialError,
    secrets: tuple[str | bytes, ...] = (),
) -> None:
    """The attempt ends in one sentence with the expected words and without a byte of secret, ciphertext or key."""
    with pytest.raises(kind) as caught:
        attempt()
    for text in expected:
        assert text in str(caught.value)
    hidden = [MASTER, *KEYS.values(), API_KEY, API_SECRET, *secrets]
    for entry, value in (connection or {}).items():
        if str(entry).startswith(("encrypted_", "nonce_")) and isinstance(value, str) and len(value) >= 12:
            hidden.append(value)
            with contextlib.suppress(ValueError):
                hidden.append(base64.b64decode(value))
    assert_hidden(texts_of(caught.value), hidden)


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aad", ["v1", "v2"])
def test_what_the_portal_encrypts_comes_out_under_the_engines_names(aad: str) -> None:
    fields = decrypted(encrypted(aad=aad))

    assert fields == {"binance_api_key": API_KEY, "binance_api_secret": API_SECRET}


def test_the_portals_format_needs_nothing_of_ours() -> None:
    nonce_key, nonce_secret = b"n" * 12, b"m" * 12
    aes = AESGCM(KEYS["k1"])
    connection = {
        "id": "ex1",
        "exchange": "binance",
        "key_id": "k1",
        "encrypted_api_key": base64.b64encode(aes.encrypt(nonce_key, API_KEY.encode(), None)).decode(),
        "nonce_key": base64.b64encode(nonce_key).decode(),
        "encrypted_api_secret": base64.b64encode(aes.encrypt(nonce_secret, API_SECRET.encode(), None)).decode(),
        "nonce_secret": base64.b64encode(nonce_secret).decode(),
    }
    assert decrypted(connection) == {"binance_api_key": API_KEY, "binance_api_secret": API_SECRET}

    bound = connection | {
        "aad": "v2",
        "encrypted_api_key": base64.b64encode(aes.encrypt(nonce_key, b"K", b"acme|ex1|api_key")).decode(),
        "encrypted_api_secret": base64.b64encode(aes.encrypt(nonce_secret, b"S", b"acme|ex1|api_secret")).decode(),
    }
    assert decrypted(bound) == {"binance_api_key": "K", "binance_api_secret": "S"}


printable = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"), min_size=1)


@given(value=printable.filter(lambda text: text == text.strip()), aad=st.sampled_from(["v1", "v2"]))
def test_any_printable_value_makes_the_round_trip(value: str, aad: str) -> None:
    connection = encrypted({"api_key": value, "api_secret": API_SECRET}, aad=aad)

    assert decrypted(connection)["binance_api_key"] == value


@pytest.mark.parametrize("exchange", WITH_SECRETS)
def test_every_connector_makes_the_round_trip(exchange: str) -> None:
    fields = {field.name: f"value of {field.name}" for field in CONNECTORS[exchange].secrets}

    assert decrypted(encrypted(fields, exchange=exchange)) == fields


def test_names_may_be_the_engines_the_short_ones_or_the_portals() -> None:
    values = {"kucoin_api_key": "K", "kucoin_secret_key": "S", "kucoin_passphrase": "P"}
    portal = encrypted({"api_key": "K", "api_secret": "S", "passphrase": "P"}, exchange="kucoin", aad="v1")
    assert {"encrypted_api_secret", "nonce_secret", "encrypted_kucoin_passphrase", "nonce_kucoin_passphrase"} <= set(
        portal
    )
    assert decrypted(portal) == values

    engine = {
        entry.replace("encrypted_api_secret", "encrypted_kucoin_secret_key").replace(
            "nonce_secret", "nonce_kucoin_secret_key"
        ): value
        for entry, value in portal.items()
    }
    assert decrypted(engine) == values


def test_a_nonce_may_have_the_portals_name_or_its_secrets() -> None:
    portal = encrypted()
    own = {
        {"nonce_key": "nonce_api_key", "nonce_secret": "nonce_api_secret"}.get(entry, entry): value
        for entry, value in portal.items()
    }

    assert decrypted(own) == decrypted(portal)
    twice = portal | {"nonce_api_key": own["nonce_api_key"]}
    refused(lambda: decrypted(twice), "`nonce_api_key` is not expected", connection=twice)


def test_an_optional_secret_may_be_left_out() -> None:
    required = {f.name: "x" for f in CONNECTORS["pacifica_perpetual"].secrets if f.required}

    assert decrypted(encrypted(required, exchange="pacifica_perpetual")) == required


def test_a_nonce_is_never_used_twice() -> None:
    connections = [encrypted() for _ in range(20)]
    nonces = [connection[name] for connection in connections for name in ("nonce_key", "nonce_secret")]

    assert len(set(nonces)) == 40


def test_values_are_stripped_because_the_engine_does_not() -> None:
    fields = decrypted(encrypted({"api_key": f" \t{API_KEY}\r\n", "api_secret": f"{API_SECRET}\u3000"}))

    assert fields == {"binance_api_key": API_KEY, "binance_api_secret": API_SECRET}


def test_line_breaks_of_a_pem_key_become_the_escape_that_the_engine_turns_back() -> None:
    pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\r\nIB\n-----END EC PRIVATE KEY-----\n"
    connection = encrypted({"api_key": "K", "api_secret": pem}, exchange="coinbase_advanced_trade")

    assert decrypted(connection)["coinbase_advanced_trade_api_secret"] == (
        r"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIB\n-----END EC PRIVATE KEY-----"
    )


def test_settings_come_along_under_the_engines_names() -> None:
    fields = {"okx_api_key": "K", "okx_secret_key": "S", "okx_passphrase": "P"}
    connection = encrypted(fields, exchange="okx", settings={"registration_sub_domain": "app"})

    assert decrypted(connection) == fields | {"okx_registration_sub_domain": "app"}


# --- ciphertexts that do not open ------------------------------------------------------------------------------------


def flip(text: str, byte: int) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[byte] ^= 1
    return base64.b64encode(bytes(raw)).decode()


def test_an_unknown_key_id_is_refused_with_the_known_ones() -> None:
    connection = encrypted() | {"key_id": "k7"}

    refused(
        lambda: decrypted(connection),
        "Tenant acme, connection ex1",
        "key k7",
        "k1, k2",
        connection=connection,
        kind=KeyRingError,
    )


@pytest.mark.parametrize("aad", ["v1", "v2"])
def test_another_key_is_refused(aad: str) -> None:
    connection = encrypted(aad=aad) | {"key_id": "k2"}

    refused(
        lambda: decrypted(connection),
        "Tenant acme, connection ex1, field api_key",
        "does not open with key k2",
        connection=connection,
    )


@pytest.mark.parametrize("byte", [0, 5, -17, -16, -1])
@pytest.mark.parametrize("field", ["encrypted_api_key", "encrypted_api_secret", "nonce_key", "nonce_secret"])
def test_one_altered_bit_is_refused(field: str, byte: int) -> None:
    connection = encrypted()
    if field.startswith("nonce_") and byte < -12:
        byte = 11
    connection[field] = flip(connection[field], byte)

    refused(lambda: decrypted(connection), "does not open", "cut short or altered", connection=connection)


@pytest.mark.parametrize("kept", [17, 30, 63])
def test_a_ciphertext_that_lost_its_end_is_refused(kept: int) -> None:
    connection = encrypted()
    connection["encrypted_api_key"] = base64.b64encode(
        base64.b64decode(connection["encrypted_api_key"])[:kept]
    ).decode()

    refused(lambda: decrypted(connection), "field api_key", "does not open", connection=connection)


@pytest.mark.parametrize("kept", [0, 1, 15, 16])
def test_a_ciphertext_too_short_for_its_tag_is_called_cut_short(kept: int) -> None:
    connection = encrypted()
    connection["encrypted_api_key"] = base64.b64encode(
        base64.b64decode(connection["encrypted_api_key"])[:kept]
    ).decode()

    refused(lambda: decrypted(connection), "field api_key", "cut short", f"{kept} bytes", connection=connection)


def test_bound_ciphertexts_open_in_no_other_place() -> None:
    mine = encrypted()

    refused(lambda: decrypted(mine, tenant="evil"), "Tenant evil", "another tenant", connection=mine)
    refused(lambda: decrypted(mine | {"id": "ex2"}), "connection ex2", "does not open", connection=mine)
    swapped = mine | {
        "encrypted_api_key": mine["encrypted_api_secret"],
        "nonce_key": mine["nonce_secret"],
        "encrypted_api_secret": mine["encrypted_api_key"],
        "nonce_secret": mine["nonce_key"],
    }
    refused(lambda: decrypted(swapped), "does not open", connection=mine)
    unbound = {entry: value for entry, value in mine.items() if entry != "aad"}
    refused(lambda: decrypted(unbound), "does not open", connection=mine)


def test_a_fleet_can_demand_bound_ciphertexts() -> None:
    refused(lambda: decrypted(encrypted(aad="v1"), demand_aad="v2"), "accepts only `aad: v2`")
    assert decrypted(encrypted(aad="v2"), demand_aad="v2")


# --- connections that are not well formed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"exchange": "binance_us"}, "`binance_us` is not a connector"),
        ({"exchange": "../etc"}, "`exchange` is not a connector"),
        ({"exchange": None}, "`exchange` is not a connector"),
        ({"exchange": "injective_v2"}, "takes no credentials in this form"),
        ({"encrypted_api_key": None}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": 7}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": "!!!"}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": "QUJD\nREVG"}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": "QUJDRA"}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": "_-_-QUJD"}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": "é" * 8}, "`encrypted_api_key` is not base64"),
        ({"encrypted_api_key": base64.b64encode(b"x" * 9000).decode()}, "more than 8192 bytes"),
        ({"nonce_key": "not base64"}, "field api_key: `nonce_key` is not base64"),
        ({"nonce_key": None}, "field api_key: `nonce_key` is missing"),
        ({"nonce_key": base64.b64encode(b"x" * 11).decode()}, "`nonce_key` has 11 bytes"),
        ({"nonce_secret": base64.b64encode(b"x" * 16).decode()}, "`nonce_secret` has 16 bytes"),
        ({"encrypted_passphrase": "QUJD", "nonce_passphrase": "QUJD"}, "`encrypted_passphrase` is not expected"),
        ({"encrypted_binance_api_key": "QUJD"}, "gives a secret that another field gives already"),
        ({"nonce_passphrase": "QUJD"}, "`nonce_passphrase` is not expected"),
        ({"api_key": API_KEY}, "`api_key` is not expected; connector binance takes encrypted_api_key"),
        ({API_KEY: "x"}, "a field of unusual name"),
        ({5: "x"}, "a field of unusual name"),
        ({"aad": "v3"}, "`aad` must be v1 or v2"),
        ({"key_id": base64.b64encode(KEYS["k1"]).decode()}, "`key_id` must name a key of the key ring (k1, k2)"),
        ({"key_id": None}, "`key_id` must name a key"),
        ({"id": "ex1|api_key"}, "a connection's `id`"),
        ({"id": "{{ lookup('pipe','id') }}"}, "a connection's `id`"),
        ({"settings": ["x"]}, "`settings` must map"),
        ({"settings": {"tier": "x"}}, "`settings.tier` is not expected; settings of binance: none"),
        ({"settings": {"api_key": API_KEY}}, "`settings.api_key` is not expected"),
    ],
)
def test_a_malformed_connection_is_refused_by_field(change: dict[Any, Any], expected: str) -> None:
    connection = encrypted() | change

    refused(
        lambda: decrypted(connection), "enant acme", expected, connection={str(k): v for k, v in connection.items()}
    )


@pytest.mark.parametrize("field", ["api_key", "api_secret"])
def test_a_missing_field_is_named(field: str) -> None:
    connection = encrypted()
    del connection[f"encrypted_{field}"]
    del connection["nonce_key" if field == "api_key" else "nonce_secret"]

    refused(lambda: decrypted(connection), f"`encrypted_{field}`", "is missing", connection=connection)


@pytest.mark.parametrize("tenant", ["Acme", "a", "acme|x", "acme\n", "", None, 5, "a" * 33])
def test_a_tenant_id_that_no_document_has_is_refused(tenant: Any) -> None:
    refused(lambda: decrypted(encrypted(), tenant=tenant), "tenant id")


@pytest.mark.parametrize("connection", [None, "text", 5, []])
def test_what_is_no_mapping_is_refused(connection: Any) -> None:
    refused(lambda: decrypted(connection), "must be a mapping")


# --- plaintexts that the engine could not use ------------------------------------------------------------------------


def with_plaintext(plaintext: bytes) -> dict[str, Any]:
    nonce = b"p" * 12
    sealed = AESGCM(KEYS["k1"]).encrypt(nonce, plaintext, None)
    return encrypted(aad="v1") | {
        "encrypted_api_key": base64.b64encode(sealed).decode(),
        "nonce_key": base64.b64encode(nonce).decode(),
    }


@pytest.mark.parametrize(
    ("plaintext", "expected"),
    [
        (b" ", "is empty"),
        (b"\r\n\t ", "is empty"),
        (b"\xff\xfe" + API_KEY.encode(), "is not UTF-8"),
        (API_KEY.encode("utf-16"), "is not UTF-8"),
        (API_KEY.encode() + b"\n" + API_SECRET.encode(), "a line break or another control character"),
        (API_KEY.encode() + b"\x00x", "control character"),
        (API_KEY.encode() + b"\x7fx", "control character"),
        (f"{API_KEY}\u0085x".encode(), "control character"),
        (f"{API_KEY}\u2028x".encode(), "line break"),
    ],
)
def test_a_plaintext_that_is_no_credential_is_refused_unseen(plaintext: bytes, expected: str) -> None:
    connection = with_plaintext(plaintext)

    refused(
        lambda: decrypted(connection), "Tenant acme, connection ex1, field api_key", expected, connection=connection
    )


@given(st.binary(max_size=60), st.binary(max_size=16))
def test_whatever_arrives_the_answer_is_one_of_our_errors(ciphertext: bytes, nonce: bytes) -> None:
    connection = encrypted() | {
        "encrypted_api_key": base64.b64encode(ciphertext).decode(),
        "nonce_key": base64.b64encode(nonce).decode(),
    }

    with pytest.raises(HummingfleetError):
        decrypted(connection)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*encrypted(aad="v2"), "settings", "nonce_", "encrypted_", 5, None]), anything))
def test_a_connection_of_any_shape_ends_in_credentials_or_one_of_our_errors(changes: dict[Any, Any]) -> None:
    for attempt in (decrypted, mark):
        with contextlib.suppress(HummingfleetError):
            attempt(encrypted() | changes)


# --- the portal's side -----------------------------------------------------------------------------------------------


def test_a_secret_that_the_connector_does_not_have_is_refused_when_encrypting() -> None:
    refused(lambda: encrypted({"passphrase": API_SECRET}), "has no such secret", "encrypted_api_key")
    refused(lambda: encrypted(exchange="binance_us"), "not a connector")
    refused(lambda: encrypted(key_id="k9"), "k1, k2", kind=KeyRingError)


def test_the_code_that_the_documentation_gives_to_portal_developers_works() -> None:
    page = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)

    connection = names["connection"](KEYS["k2"], "k2", "acme", "ex1", API_KEY, f" {API_SECRET} ")

    assert decrypted(connection, demand_aad="v2") == {"binance_api_key": API_KEY, "binance_api_secret": API_SECRET}


# --- fingerprints ----------------------------------------------------------------------------------------------------


def mark(connection: dict[str, Any], tenant: str = "acme", ring: KeyRing | None = None, **context: str | int) -> str:
    return fingerprint(ring or key_ring(), connection, tenant, CONNECTORS, context=context)


def test_a_fingerprint_is_steady_and_changes_with_everything_that_matters() -> None:
    connection = encrypted()
    reordered = dict(reversed(connection.items()))
    variants = [
        mark(connection),
        mark(encrypted()),
        mark(connection | {"id": "ex2"}),
        mark(connection | {"settings": {"x": "y"}}),
        mark(connection, tenant="other"),
        mark(connection, ring=key_ring(k1=bytes(32))),
        mark(connection, ring=KeyRing(master_id="m2", master=bytes(range(1, 33)), keys=KEYS)),
        mark(connection, keystore=2),
        mark(connection, iterations=1000),
    ]

    assert mark(connection) == mark(reordered)
    assert len(set(variants)) == len(variants)
    assert all(len(text) == 64 for text in variants)


def test_a_fingerprint_does_not_decrypt_and_keeps_the_secret_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = encrypted()

    def fail(*_: object) -> None:
        raise AssertionError("decrypted")

    monkeypatch.setattr(credentials, "AESGCM", fail)

    assert_hidden(mark(connection), [API_KEY, API_SECRET, *KEYS.values(), MASTER])


def test_a_fingerprint_of_an_unknown_key_or_connector_is_refused() -> None:
    refused(lambda: mark(encrypted() | {"key_id": "k7"}), "key k7", kind=KeyRingError)
    refused(lambda: mark(encrypted() | {"exchange": "nowhere"}), "not a connector")
