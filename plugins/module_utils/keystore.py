# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own keystore, written without the engine: `.password_verification` and one file per connector.

Each secret is an Ethereum V3 key file (PBKDF2-HMAC-SHA256, AES-128-CTR, Keccak-256 MAC) as hex of its JSON, which the
engine reads with `eth_account`. The engine never writes these files; the launcher copies them into place.

Why equal inputs give equal bytes. The usual random salt and IV would make every converge look like a change, and
recognising a real one would mean decrypting what a node holds. Here salt and IV are HMACs over connector, field and
plaintext, under a key that comes from the keystore's password (a synthetic IV, as in RFC 5297). The salt decides the
encryption key, so two values share a key stream only if they are the same value in the same field: then the files are
equal too. What an observer learns is just that: whether a secret is the same as it was.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Connector, ConnectorField
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import PASSWORD_LENGTH
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from Crypto.Hash import keccak
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

VERIFICATION_WORD: Final = "HummingBot"
VERIFICATION_FILE: Final = "password_verification"
SAFE_ITERATIONS: Final = 600_000
"""Fewer PBKDF2 rounds than this need a password that cannot be guessed at any speed."""

MAX_ITERATIONS: Final = 10_000_000

_DERIVED_KEY_BYTES = 32


class KeystoreError(HummingfleetError):
    """The engine's keystore cannot be made from what was given."""


def engine_keystore(
    password: str, connector: Connector, fields: Mapping[str, str], iterations: int = 1
) -> dict[str, str]:
    """Relative path -> content of the files that give the engine the credentials of one connector.

    `fields` has the connector's secrets and any settings by the engine's names, in clear, as decrypt_connection
    returns them; settings left out take the connector's default. `iterations` is the PBKDF2 work factor; below
    600,000 only a derived password (43 characters or more) is accepted: stretching adds nothing to 256 random bits,
    and the engine pays it for every secret at every start.
    """
    return {
        VERIFICATION_FILE: password_verification(password, iterations),
        f"connectors/{connector.name}.yml": connector_file(password, connector, fields, iterations),
    }


def password_verification(password: str, iterations: int = 1) -> str:
    """The content of `.password_verification`: the known word, sealed; the same for every connector of a tenant."""
    _check_work_factor(password, iterations)
    return _seal(password, VERIFICATION_FILE, VERIFICATION_WORD, VERIFICATION_WORD, iterations)


def connector_file(password: str, connector: Connector, fields: Mapping[str, str], iterations: int = 1) -> str:
    """The content of `connectors/<connector>.yml`."""
    _check_work_factor(password, iterations)
    strangers = set(fields) - {field.name for field in connector.fields}
    if strangers:
        raise KeystoreError(f"Connector {connector.name} was given {len(strangers)} field(s) it does not have.")
    lines = [f"connector: {connector.name}"]
    for field in connector.fields:
        value = fields.get(field.name)
        if value is None and field.encrypted:
            if field.required:
                raise KeystoreError(f"Connector {connector.name}: the secret {field.name} is missing.")
            continue
        if value is not None and field.secure:
            text = _seal(password, connector.name, field.name, value, iterations)
        elif value is not None and field.encrypted:
            text = json.dumps(value)  # a secret that the engine itself reads in clear (one connector has such a field)
        else:
            setting = _setting(field, value, connector)
            if setting is None:
                continue
            text = json.dumps(setting)  # JSON text is YAML
        lines.append(f"{field.name}: {text}")
    return "\n".join(lines) + "\n"


# --- settings --------------------------------------------------------------------------------------------------------


def _setting(field: ConnectorField, value: str | None, connector: Connector) -> str | int | bool | None:
    """A setting in the type the engine declares; None when it is left to the engine's own default."""
    where = f"Connector {connector.name}: the setting {field.name}"
    if value is None:
        if field.required:
            raise KeystoreError(f"{where} has no default; give it.")
        return field.default
    if field.type == "bool":
        if value not in ("true", "false"):
            raise KeystoreError(f"{where} must be true or false.")
        return value == "true"
    if field.type == "int":
        if not value.isascii() or not value.isdigit():
            raise KeystoreError(f"{where} must be a whole number.")
        return int(value)
    if field.choices and value not in field.choices:
        raise KeystoreError(f"{where} must be one of {', '.join(field.choices)}.")
    return value


# --- V3 key files ----------------------------------------------------------------------------------------------------


def _check_work_factor(password: str, iterations: int) -> None:
    if isinstance(iterations, bool) or not isinstance(iterations, int) or not 1 <= iterations <= MAX_ITERATIONS:
        raise KeystoreError(f"The keystore's work factor must be a whole number from 1 to {MAX_ITERATIONS}.")
    if not password:
        raise KeystoreError("The keystore needs a password.")
    if iterations < SAFE_ITERATIONS and len(password) < PASSWORD_LENGTH:
        raise KeystoreError(
            f"A keystore password of less than {PASSWORD_LENGTH} characters needs at least {SAFE_ITERATIONS} "
            "iterations; use a derived password, or raise `kdf_iterations`."
        )


def _seal(password: str, scope: str, field: str, value: str, iterations: int) -> str:
    """The value as the engine stores it: hex of the JSON of a V3 key file."""
    sealing_key = hmac.digest(password.encode(), b"hummingfleet keystore salt and iv", "sha256")
    message = json.dumps([scope, field, value]).encode()
    salt = hmac.digest(sealing_key, b"salt" + message, "sha256")[:16]
    iv = hmac.digest(sealing_key, b"iv" + message, "sha256")[:16]
    derived = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations, _DERIVED_KEY_BYTES)
    encryptor = Cipher(AES(derived[:16]), CTR(iv)).encryptor()
    ciphertext = encryptor.update(value.encode()) + encryptor.finalize()
    mac = keccak.new(digest_bits=256, data=derived[16:] + ciphertext).hexdigest()
    document: dict[str, Any] = {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": iv.hex()},
            "ciphertext": ciphertext.hex(),
            "kdf": "pbkdf2",
            "kdfparams": {"c": iterations, "dklen": _DERIVED_KEY_BYTES, "prf": "hmac-sha256", "salt": salt.hex()},
            "mac": mac,
        },
        "version": 3,
        "alias": "",
    }
    return json.dumps(document).encode().hex()
