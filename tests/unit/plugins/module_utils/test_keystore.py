from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import derive_password
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import (
    SAFE_ITERATIONS,
    KeystoreError,
    connector_file,
    engine_keystore,
    password_verification,
)
from Crypto.Cipher import AES
from Crypto.Hash import keccak
from Crypto.Util import Counter
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import catalogue
from tests.secrecy import API_KEY, API_SECRET, SALT, assert_hidden, key_ring, texts_of

CONNECTORS = catalogue().connectors
BINANCE = CONNECTORS["binance"]
FIELDS = {"binance_api_key": API_KEY, "binance_api_secret": API_SECRET}
PASSWORD = derive_password(key_ring(), tenant="acme", salt=SALT, purpose="keystore", version=1)
OTHER_PASSWORD = derive_password(key_ring(), tenant="acme", salt=SALT, purpose="keystore", version=2)


def opened(sealed: str, password: str = PASSWORD) -> str:
    """What a V3 key file holds, read as the engine's library does; ValueError on a wrong password."""
    document = json.loads(bytes.fromhex(sealed))
    crypto = document["crypto"]
    parameters = crypto["kdfparams"]
    assert (document["version"], document["alias"], crypto["cipher"]) == (3, "", "aes-128-ctr")
    assert (crypto["kdf"], parameters["prf"], parameters["dklen"]) == ("pbkdf2", "hmac-sha256", 32)
    salt, ciphertext = bytes.fromhex(parameters["salt"]), bytes.fromhex(crypto["ciphertext"])
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, parameters["c"], 32)
    if keccak.new(digest_bits=256, data=key[16:] + ciphertext).hexdigest() != crypto["mac"]:
        raise ValueError("MAC mismatch")
    counter = Counter.new(128, initial_value=int(crypto["cipherparams"]["iv"], 16))
    return AES.new(key[:16], AES.MODE_CTR, counter=counter).decrypt(ciphertext).decode()


def salt_and_iv(sealed: str) -> tuple[str, str]:
    crypto = json.loads(bytes.fromhex(sealed))["crypto"]
    return crypto["kdfparams"]["salt"], crypto["cipherparams"]["iv"]


def connector_yaml(files: dict[str, str], connector: str = "binance") -> dict[str, Any]:
    return dict(yaml.safe_load(files[f"connectors/{connector}.yml"]))


def test_the_files_are_the_ones_the_engine_reads() -> None:
    files = engine_keystore(PASSWORD, BINANCE, FIELDS)
    content = connector_yaml(files)

    assert sorted(files) == ["connectors/binance.yml", "password_verification"]
    assert list(content) == ["connector", "binance_api_key", "binance_api_secret"]
    assert content["connector"] == "binance"
    assert opened(content["binance_api_key"]) == API_KEY
    assert opened(content["binance_api_secret"]) == API_SECRET
    assert opened(files["password_verification"]) == "HummingBot"


def test_a_wrong_password_opens_nothing() -> None:
    with pytest.raises(ValueError, match="MAC mismatch"):
        opened(password_verification(PASSWORD), OTHER_PASSWORD)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_value_makes_the_round_trip(value: str) -> None:
    content = connector_yaml(engine_keystore(PASSWORD, BINANCE, FIELDS | {"binance_api_secret": value}))

    assert opened(content["binance_api_secret"]) == value


def test_equal_inputs_give_equal_bytes() -> None:
    assert engine_keystore(PASSWORD, BINANCE, FIELDS) == engine_keystore(
        PASSWORD, BINANCE, dict(reversed(FIELDS.items()))
    )


def test_another_password_field_connector_or_value_gives_another_salt_and_iv() -> None:
    value = "same value"
    same = {"binance_api_key": value, "binance_api_secret": value}
    content = connector_yaml(engine_keystore(PASSWORD, BINANCE, same))
    sealed = [
        content["binance_api_key"],
        content["binance_api_secret"],
        connector_yaml(engine_keystore(PASSWORD, BINANCE, same | {"binance_api_key": value + "!"}))["binance_api_key"],
        connector_yaml(engine_keystore(OTHER_PASSWORD, BINANCE, same))["binance_api_key"],
        password_verification(PASSWORD),
        password_verification(OTHER_PASSWORD),
    ]
    backpack = {"backpack_api_key": value, "backpack_api_secret": value}  # two connectors with the same field names
    for name in ("backpack", "backpack_perpetual"):
        files = engine_keystore(PASSWORD, CONNECTORS[name], backpack)
        sealed.append(connector_yaml(files, name)["backpack_api_key"])
    salts, ivs = zip(*(salt_and_iv(text) for text in sealed), strict=True)

    assert len(set(salts)) == len(set(ivs)) == len(sealed)


def test_the_files_show_neither_secret_nor_password() -> None:
    for text in engine_keystore(PASSWORD, BINANCE, FIELDS).values():
        assert_hidden(text, [API_KEY, API_SECRET, PASSWORD])
        for word in text.split():
            if len(word) > 100:
                assert_hidden(bytes.fromhex(word).decode(), [API_KEY, API_SECRET, PASSWORD])


def test_settings_follow_the_connectors_table_in_the_engines_types() -> None:
    fields = {"hyperliquid_address": "0xabc", "hyperliquid_secret_key": "0xdef"}
    hyperliquid = CONNECTORS["hyperliquid"]

    by_default = connector_yaml(engine_keystore(PASSWORD, hyperliquid, fields), "hyperliquid")
    assert (by_default["hyperliquid_mode"], by_default["use_vault"]) == ("arb_wallet", False)

    given = fields | {"hyperliquid_mode": "api_wallet", "use_vault": "true"}
    chosen = connector_yaml(engine_keystore(PASSWORD, hyperliquid, given), "hyperliquid")
    assert (chosen["hyperliquid_mode"], chosen["use_vault"]) == ("api_wallet", True)


def test_an_optional_secret_that_is_not_given_is_left_to_the_engine() -> None:
    pacifica = CONNECTORS["pacifica_perpetual"]
    fields = {f.name: "x" for f in pacifica.secrets if f.required}

    assert "pacifica_perpetual_api_config_key" not in connector_file(PASSWORD, pacifica, fields)


@pytest.mark.parametrize(
    ("connector", "fields", "expected"),
    [
        ("binance", {"binance_api_key": API_KEY}, "the secret binance_api_secret is missing"),
        ("binance", FIELDS | {"okx_passphrase": API_SECRET}, "1 field(s) it does not have"),
        ("hyperliquid", {"hyperliquid_mode": "other"}, "hyperliquid_mode must be one of arb_wallet, api_wallet"),
        ("hyperliquid", {"use_vault": "maybe"}, "use_vault must be true or false"),
        ("lighter", {"lighter_l1_address": "0x1", "lighter_api_key_index": "-1"}, "must be a whole number"),
        ("lighter", {}, "the setting lighter_l1_address has no default"),
    ],
)
def test_fields_that_do_not_fit_the_connector_are_refused(
    connector: str, fields: dict[str, str], expected: str
) -> None:
    with pytest.raises(KeystoreError) as caught:
        connector_file(PASSWORD, CONNECTORS[connector], fields)

    assert connector in str(caught.value)
    assert expected in str(caught.value)
    assert_hidden(texts_of(caught.value), [API_KEY, API_SECRET, PASSWORD])


def test_a_cheap_work_factor_needs_a_password_that_cannot_be_guessed() -> None:
    chosen_by_a_person = "correct horse battery staple"
    for iterations in (1, SAFE_ITERATIONS - 1):
        with pytest.raises(KeystoreError) as caught:
            password_verification(chosen_by_a_person, iterations)
        assert "600000" in str(caught.value)
        assert_hidden(texts_of(caught.value), [chosen_by_a_person])

    assert opened(password_verification(chosen_by_a_person, SAFE_ITERATIONS), chosen_by_a_person) == "HummingBot"
    assert opened(password_verification(PASSWORD, 1)) == "HummingBot"
    with pytest.raises(KeystoreError):
        password_verification(PASSWORD[:-1], 1)


@pytest.mark.parametrize("iterations", [0, -1, True, "1", 1.5, 10_000_001])
def test_a_work_factor_that_is_none_is_refused(iterations: Any) -> None:
    with pytest.raises(KeystoreError, match="work factor"):
        engine_keystore(PASSWORD, BINANCE, FIELDS, iterations)


def test_the_work_factor_is_written_where_the_engine_looks_for_it() -> None:
    for iterations in (1, 1000):
        sealed = password_verification(PASSWORD, iterations)
        assert json.loads(bytes.fromhex(sealed))["crypto"]["kdfparams"]["c"] == iterations
        assert opened(sealed) == "HummingBot"


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(KeystoreError, match="needs a password"):
        password_verification("", SAFE_ITERATIONS)


@pytest.mark.parametrize("name", sorted(CONNECTORS))
def test_paths_stay_inside_the_bots_folder(name: str) -> None:
    connector = CONNECTORS[name]
    values = {"int": "1", "bool": "true"}
    fields = {f.name: values.get(f.type, "x") for f in connector.fields if f.required}

    for path in engine_keystore(PASSWORD, connector, fields):
        assert not PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts
