# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection's exchange credentials: out of the portal's AES-256-GCM ciphertexts, and (for tests and demo) into them.

A connection is what a tenant document has under `exchange_connections`, in its plain form: `id`, `exchange`, `key_id`,
and per secret `encrypted_<name>` (base64 of ciphertext and 16-byte tag) with its nonce in `nonce_<name>` (base64 of 12
bytes). The portal calls the nonces of `api_key` and `api_secret` `nonce_key` and `nonce_secret`; both ways are read.
With `aad: v2` the ciphertext is bound to `tenant|connection id|name`, so that it opens in no other place.

No error of this module repeats a ciphertext, a nonce, a key or a secret, and none carries an exception that does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Connector, ConnectorField
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import fingerprint_key
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KEY_ID, KeyRing, KeyRingError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MAX_SECRET_BYTES: Final = 8192

Aad = Literal["v1", "v2"]

_PLAIN_KEYS = {"id", "exchange", "key_id", "aad", "settings"}
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_NONCE_NAMES = {"api_key": "nonce_key", "api_secret": "nonce_secret"}


class CredentialError(HummingfleetError):
    """A connection's credentials are incomplete, malformed or cannot be decrypted."""


def nonce_name(name: str) -> str:
    """The field in which the portal puts the nonce of `encrypted_<name>`."""
    return _NONCE_NAMES.get(name, f"nonce_{name}")


def decrypt_connection(
    connection: Mapping[str, Any],
    tenant: str,
    keyring: KeyRing,
    connectors: Mapping[str, Connector],
    *,
    demand_aad: Aad = "v1",
) -> dict[str, str]:
    """The connector's fields in clear, by the engine's names: every secret, and the settings the connection gives.

    With `demand_aad="v2"` a connection whose ciphertexts are not bound to their place is refused.
    Raises CredentialError or KeyRingError, which name tenant, connection and field.
    """
    where, connector = _open(connection, tenant, connectors)
    aad = connection.get("aad", "v1")
    if aad not in ("v1", "v2"):
        raise CredentialError(f"{where}: `aad` must be v1 or v2.")
    if demand_aad == "v2" and aad != "v2":
        raise CredentialError(f"{where}: this fleet accepts only `aad: v2`; the portal has to encrypt anew.")
    names = _secret_names(connection, connector, where)
    key = _key(connection, keyring, where)
    fields: dict[str, str] = {}
    for field in connector.secrets:
        name = names.get(field.name)
        if name is None:
            continue
        place = f"{where}, field {name}"
        nonce_field = _nonce_field(connection, name)
        nonce = _base64(connection.get(nonce_field), nonce_field, place)
        if len(nonce) != NONCE_BYTES:
            raise CredentialError(f"{place}: `{nonce_field}` has {len(nonce)} bytes; AES-GCM here takes {NONCE_BYTES}.")
        ciphertext = _base64(connection.get(f"encrypted_{name}"), f"encrypted_{name}", place)
        if len(ciphertext) <= TAG_BYTES:
            raise CredentialError(
                f"{place}: `encrypted_{name}` is cut short: {len(ciphertext)} bytes cannot hold a "
                f"value and the {TAG_BYTES}-byte tag."
            )
        if len(ciphertext) > MAX_SECRET_BYTES + TAG_BYTES:
            raise CredentialError(f"{place}: `encrypted_{name}` holds more than {MAX_SECRET_BYTES} bytes.")
        associated = _associated_data(aad, tenant, connection["id"], name)
        plaintext = _decrypt(key, nonce, ciphertext, associated)
        if plaintext is None:
            raise CredentialError(
                f"{place}: `encrypted_{name}` does not open with key {connection['key_id']}. It was encrypted with "
                "another key or nonce, belongs to another tenant, connection or field, or was cut short or altered; "
                "have the customer enter the credentials again in the portal."
            )
        fields[field.name] = _clean(plaintext, place)
    fields.update(_settings(connection, connector, where))
    return fields


def encrypt_connection(
    fields: Mapping[str, str],
    *,
    connection_id: str,
    exchange: str,
    tenant: str,
    keyring: KeyRing,
    key_id: str,
    connectors: Mapping[str, Connector],
    aad: Aad = "v2",
    settings: Mapping[str, str | int | bool] | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> dict[str, Any]:
    """What the portal stores for a connection whose secrets are `fields` (by the engine's, short or portal's names).

    Each call draws new nonces (`random_bytes` is for tests): the result differs even for equal fields.
    """
    where = f"Tenant {tenant}, connection {connection_id}"
    connector = _connector(exchange, connectors, where)
    result: dict[str, Any] = {"id": connection_id, "exchange": exchange, "key_id": key_id}
    if aad != "v1":
        result["aad"] = aad
    if settings:
        result["settings"] = dict(settings)
    key = AESGCM(keyring.key(key_id))
    for given, value in fields.items():
        field = connector.find_field(given)
        if field is None or not field.encrypted:
            raise CredentialError(f"{where}: connector {exchange} has no such secret; it has {_names(connector)}.")
        name = _portal_name(field, connector)
        nonce = random_bytes(NONCE_BYTES)
        associated = _associated_data(aad, tenant, connection_id, name)
        result[f"encrypted_{name}"] = base64.b64encode(key.encrypt(nonce, value.encode(), associated)).decode()
        result[nonce_name(name)] = base64.b64encode(nonce).decode()
    return result


def fingerprint(
    keyring: KeyRing,
    connection: Mapping[str, Any],
    tenant: str,
    connectors: Mapping[str, Connector],
    *,
    context: Mapping[str, str | int] | None = None,
) -> str:
    """64 hex characters that change whenever what is made of this connection would, found without decrypting.

    HMAC-SHA256 under the fleet's fingerprint key over tenant, connection, connector description, the portal's key and
    `context` (what else the result depends on: salt, secret version, work factor).
    """
    where, connector = _open(connection, tenant, connectors)
    _secret_names(connection, connector, where)
    mac_key = fingerprint_key(keyring)
    portal_key = hmac.new(mac_key, _key(connection, keyring, where), hashlib.sha256).hexdigest()
    text = json.dumps(
        {
            "tenant": tenant,
            "connection": dict(connection),
            "connector": [[f.name, f.secure, f.encrypted, f.default] for f in connector.fields],
            "key": portal_key,
            "context": dict(context or {}),
        },
        sort_keys=True,
        separators=(",", ":"),
        default=str,
    )
    return hmac.new(mac_key, text.encode(), hashlib.sha256).hexdigest()


# --- steps -----------------------------------------------------------------------------------------------------------


def _open(connection: Mapping[str, Any], tenant: str, connectors: Mapping[str, Connector]) -> tuple[str, Connector]:
    """The words every error begins with, and the connection's connector."""
    if not isinstance(tenant, str) or not 2 <= len(tenant) <= 32 or not _ID.match(tenant):
        raise CredentialError("The tenant id of a connection must be 2 to 32 of a-z, 0-9 and '-'.")
    if not isinstance(connection, Mapping):
        raise CredentialError(f"Tenant {tenant}: a connection must be a mapping.")
    connection_id = connection.get("id")
    if not isinstance(connection_id, str) or not 2 <= len(connection_id) <= 32 or not _ID.match(connection_id):
        raise CredentialError(f"Tenant {tenant}: a connection's `id` must be 2 to 32 of a-z, 0-9 and '-'.")
    where = f"Tenant {tenant}, connection {connection_id}"
    return where, _connector(connection.get("exchange"), connectors, where)


def _connector(exchange: object, connectors: Mapping[str, Connector], where: str) -> Connector:
    connector = connectors.get(exchange) if isinstance(exchange, str) else None
    if connector is None:
        shown = f"`{exchange}` is" if isinstance(exchange, str) and _NAME.match(exchange) else "`exchange` is"
        raise CredentialError(f"{where}: {shown} not a connector of the engine; catalogue/connectors.json lists them.")
    if not connector.secrets:
        raise CredentialError(f"{where}: connector {connector.name} takes no credentials in this form; use another.")
    return connector


def _key(connection: Mapping[str, Any], keyring: KeyRing, where: str) -> bytes:
    key_id = connection.get("key_id")
    if not isinstance(key_id, str) or not KEY_ID.match(key_id):
        raise CredentialError(f"{where}: `key_id` must name a key of the key ring ({', '.join(keyring.ids)}).")
    if key_id not in keyring.ids:
        raise KeyRingError(
            f"{where}: the key ring does not hold key {key_id}; it holds {', '.join(keyring.ids) or 'no keys'}. "
            "Add the key to the key ring, or have the portal encrypt with one of these."
        )
    return keyring.key(key_id)


def _secret_names(connection: Mapping[str, Any], connector: Connector, where: str) -> dict[str, str]:
    """The engine's field name -> the name the connection uses for it; complete, without strangers or doubles."""
    names: dict[str, str] = {}
    for entry in connection:
        if entry in _PLAIN_KEYS or (isinstance(entry, str) and entry.startswith("nonce_")):
            continue
        shown = f"`{entry}`" if isinstance(entry, str) and _NAME.match(entry) else "a field of unusual name"
        name = entry.removeprefix("encrypted_") if isinstance(entry, str) else ""
        field = connector.find_field(name) if name != entry else None
        if field is None or not field.encrypted:
            raise CredentialError(
                f"{where}: {shown} is not expected; connector {connector.name} takes {_names(connector)}."
            )
        if field.name in names:
            raise CredentialError(f"{where}: {shown} gives a secret that another field gives already.")
        names[field.name] = name
    expected_nonces = {_nonce_field(connection, name) for name in names.values()}
    for entry in connection:
        if isinstance(entry, str) and entry.startswith("nonce_") and entry not in expected_nonces:
            shown = f"`{entry}`" if _NAME.match(entry) else "a nonce of unusual name"
            raise CredentialError(f"{where}: {shown} is not expected: it belongs to no encrypted field.")
    for field in connector.secrets:
        if field.required and field.name not in names:
            name = _portal_name(field, connector)
            raise CredentialError(
                f"{where}: `encrypted_{name}` (with `{nonce_name(name)}`) is missing; connector {connector.name} "
                "needs it."
            )
    for name in names.values():
        nonce_field = _nonce_field(connection, name)
        if connection.get(nonce_field) is None:
            raise CredentialError(f"{where}, field {name}: `{nonce_field}` is missing.")
    return names


def _nonce_field(connection: Mapping[str, Any], name: str) -> str:
    """The field in which this connection has the nonce of `encrypted_<name>`; the portal's when it has neither."""
    own = f"nonce_{name}"
    return own if own in connection and nonce_name(name) not in connection else nonce_name(name)


def _portal_name(field: ConnectorField, connector: Connector) -> str:
    """The name the portal uses: `api_key`, `api_secret`, and the engine's own name for everything else."""
    for name in ("api_key", "api_secret"):
        if connector.find_field(name) is field:
            return name
    return field.name


def _names(connector: Connector) -> str:
    return ", ".join(f"encrypted_{_portal_name(field, connector)}" for field in connector.secrets)


def _associated_data(aad: str, tenant: str, connection_id: str, name: str) -> bytes | None:
    return f"{tenant}|{connection_id}|{name}".encode() if aad == "v2" else None


def _base64(value: object, name: str, place: str) -> bytes:
    decoded: bytes | None
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        decoded = None
    if decoded is None:
        raise CredentialError(f"{place}: `{name}` is not base64 text (standard alphabet, padded, no line breaks).")
    return decoded


def _decrypt(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes | None) -> bytes | None:
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated)
    except InvalidTag:
        return None


def _clean(plaintext: bytes, place: str) -> str:
    """The decrypted value as the engine needs it: stripped (the engine does not), in one line.

    Line breaks inside a PEM key become the two characters backslash and n, which the engine's connectors turn back.
    """
    text: str | None
    try:
        text = plaintext.decode()
    except UnicodeDecodeError:  # its text would hold the plaintext, so it ends here
        text = None
    if text is None:
        raise CredentialError(f"{place}: the decrypted value is not UTF-8 text; have the customer enter it again.")
    text = text.strip()
    if not text:
        raise CredentialError(f"{place}: the decrypted value is empty; have the customer enter it again.")
    if text.startswith("-----BEGIN ") and text.endswith("-----"):
        text = text.replace("\r\n", "\n").replace("\n", "\\n")
    if any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F or c in "\u2028\u2029" for c in text):
        raise CredentialError(
            f"{place}: the decrypted value has a line break or another control character inside; "
            "have the customer enter it again."
        )
    return text


def _settings(connection: Mapping[str, Any], connector: Connector, where: str) -> dict[str, str]:
    settings = connection.get("settings") or {}
    if not isinstance(settings, Mapping):
        raise CredentialError(f"{where}: `settings` must map setting names to values.")
    result: dict[str, str] = {}
    allowed = ", ".join(field.name for field in connector.settings if field.type != "object") or "none"
    for name, value in settings.items():
        field = connector.find_field(name) if isinstance(name, str) else None
        if field is None or field.encrypted or field.type == "object":
            shown = f"`settings.{name}`" if isinstance(name, str) and _NAME.match(name) else "a setting"
            raise CredentialError(f"{where}: {shown} is not expected; settings of {connector.name}: {allowed}.")
        if not isinstance(value, str | int) or (isinstance(value, str) and (not value or not value.isprintable())):
            raise CredentialError(f"{where}: `settings.{field.name}` must be a word, a whole number or true/false.")
        result[field.name] = str(value).lower() if isinstance(value, bool) else str(value)
    return result
