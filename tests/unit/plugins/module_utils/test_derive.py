from __future__ import annotations

import base64
import hashlib
import hmac
import re

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import (
    PURPOSES,
    DeriveError,
    derive_password,
    document_password,
    fingerprint_key,
    order_tag,
)

from tests.secrecy import MASTER, SALT, assert_hidden, key_ring, texts_of


def derived(**overrides: object) -> str:
    arguments = {"tenant": "acme", "salt": SALT, "purpose": "postgres", "version": 1} | overrides
    return derive_password(key_ring(), **arguments)  # type: ignore[arg-type]


def test_a_password_is_hkdf_sha256_as_rfc_5869_describes_it() -> None:
    extracted = hmac.digest(SALT.encode(), MASTER, "sha256")
    expanded = hmac.digest(extracted, b"acme|postgres|1\x01", "sha256")

    assert derived() == base64.urlsafe_b64encode(expanded).rstrip(b"=").decode()


def test_a_password_has_43_characters_that_need_no_quoting() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", derived())


def test_equal_inputs_give_the_same_password_and_every_input_counts() -> None:
    variants = [
        derived(),
        derived(tenant="acme-2"),
        derived(salt=SALT[::-1]),
        derived(version=2),
        *(derived(purpose=purpose) for purpose in PURPOSES if purpose != "postgres"),
    ]

    assert derived() == derived()
    assert len(set(variants)) == len(variants)


def test_another_master_key_gives_another_password() -> None:
    from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing

    other = KeyRing(master_id="m1", master=MASTER[::-1], keys={})

    assert derive_password(other, tenant="acme", salt=SALT, purpose="redis", version=1) != derived(purpose="redis")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"tenant": "acme|redis"}, "tenant id"),
        ({"tenant": "Acme"}, "tenant id"),
        ({"tenant": "acme\n"}, "tenant id"),
        ({"salt": ""}, "`salt`"),
        ({"salt": "short"}, "`salt`"),
        ({"salt": None}, "`salt`"),
        ({"purpose": "postgres|1"}, "known are postgres, redis, keystore, gateway, broker"),
        ({"version": 0}, "`secret_versions.postgres`"),
        ({"version": True}, "`secret_versions.postgres`"),
        ({"version": "1"}, "`secret_versions.postgres`"),
    ],
)
def test_what_no_document_can_hold_is_refused(overrides: dict[str, object], expected: str) -> None:
    with pytest.raises(DeriveError) as caught:
        derived(**overrides)

    assert expected in str(caught.value)
    assert_hidden(texts_of(caught.value), [MASTER])


def test_a_stored_document_names_its_version_or_has_the_first() -> None:
    document = {"tenant": "acme", "salt": SALT, "secret_versions": {"postgres": 3}}

    assert document_password(key_ring(), document, "postgres") == derived(version=3)
    assert document_password(key_ring(), document, "redis") == derived(purpose="redis")


def test_the_fingerprint_key_is_nobodys_password() -> None:
    key = fingerprint_key(key_ring())

    assert len(key) == 32
    assert base64.urlsafe_b64encode(key).rstrip(b"=").decode() not in {derived(purpose=p) for p in PURPOSES}


def test_an_order_tag_is_eight_hex_characters_of_tenant_and_bot() -> None:
    assert order_tag("acme", "b1") == hashlib.sha256(b"acme/b1").hexdigest()[:8]
    assert order_tag("acme", "b1") != order_tag("acme", "b2")
