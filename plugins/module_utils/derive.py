# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords, keys and tags that are computed from the master key or from names, and therefore stored nowhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing

PURPOSES: Final = ("postgres", "redis", "keystore", "gateway", "broker")
"""What a tenant has a password for; each one changes alone, by its number in `secret_versions`."""

PASSWORD_LENGTH: Final = 43
"""Characters of a derived password: 32 bytes in urlsafe base64 without padding."""

_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_SALT_MIN_LENGTH = 16
_FINGERPRINT_SALT = b"hummingfleet"
_FINGERPRINT_INFO = b"fleet|fingerprint|1"


class DeriveError(HummingfleetError):
    """A password cannot be derived from what was given."""


def derive_password(
    keyring: KeyRing, *, tenant: str, salt: str, purpose: str, version: int, bot: str | None = None
) -> str:
    """The password of one tenant, or of one of its bots, for one purpose: 43 urlsafe characters that carry 256 bits.

    `tenant`, `salt` and `version` come from the tenant's document (`secret_versions[purpose]`, counted from 1).
    HKDF-SHA256 over the master key, with the salt's UTF-8 bytes as salt and `tenant|purpose|version` (and `|bot`) as
    info. Raises DeriveError when one of them is not what a document can hold.
    """
    if not isinstance(tenant, str) or not 2 <= len(tenant) <= 32 or not _ID.match(tenant):
        raise DeriveError("Cannot derive a password: the tenant id is not valid (2 to 32 of a-z, 0-9, '-').")
    if not isinstance(salt, str) or len(salt) < _SALT_MIN_LENGTH:
        raise DeriveError(
            f"Tenant {tenant}: `salt` is missing or shorter than {_SALT_MIN_LENGTH} characters; "
            "the registry allocates it when it first stores the tenant."
        )
    if purpose not in PURPOSES:
        raise DeriveError(f"Tenant {tenant}: there is no password for this purpose; known are {', '.join(PURPOSES)}.")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DeriveError(f"Tenant {tenant}: `secret_versions.{purpose}` must be a whole number from 1 upwards.")
    if bot is not None and not _ID.match(bot):
        raise DeriveError(f"Tenant {tenant}: cannot derive a password for a bot whose id is not valid.")
    info = f"{tenant}|{purpose}|{version}" + ("" if bot is None else f"|{bot}")
    key = keyring.derive(salt=salt.encode(), info=info.encode())
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def document_password(keyring: KeyRing, document: Mapping[str, Any], purpose: str, bot: str | None = None) -> str:
    """The password for `purpose` of the tenant whose stored (plain) document is given, or of one of its bots.

    A purpose that `secret_versions` does not name is at version 1.
    """
    versions = document.get("secret_versions") or {}
    return derive_password(
        keyring,
        tenant=str(document.get("tenant", "")),
        salt=document.get("salt") or "",
        purpose=purpose,
        version=versions.get(purpose, 1),
        bot=bot,
    )


def fingerprint_key(keyring: KeyRing) -> bytes:
    """The fleet-wide HMAC key for fingerprints (32 bytes).

    Keyed, so that somebody who sees two fingerprints cannot test guesses of what is behind them.
    """
    return keyring.derive(salt=_FINGERPRINT_SALT, info=_FINGERPRINT_INFO)


def order_tag(tenant: str, bot: str) -> str:
    """The 8 hex characters that every client order id of this bot carries, so that any process recognises them."""
    return hashlib.sha256(f"{tenant}/{bot}".encode()).hexdigest()[:8]
