# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures of webhook messages, after Standard Webhooks (https://www.standardwebhooks.com), in both directions.

The package ``standardwebhooks`` computes them. Its ``verify`` is not used: it takes one secret, reads the clock itself,
lets foreign errors out on malformed headers and parses the body.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets as random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import standardwebhooks
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
TOLERANCE_SECONDS: Final = 300
MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)  # what the specification asks for
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,10}")
_SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
_MAX_HEADER = 2048
_MAX_SIGNATURES = 16


class SignatureError(HummingfleetError):
    """A message was not signed by who may send it, not recently, or not in the form that Standard Webhooks has."""


class Headers(Protocol):
    """A request's headers by name; names are lower-case, or their case makes no difference."""

    def get(self, name: str, /) -> str | None:
        """The header's value."""
        ...


def generate_secret() -> str:
    """A new secret of 256 random bits, as Standard Webhooks writes them: ``whsec_`` and base64."""
    return _PREFIX + base64.b64encode(random.token_bytes(32)).decode()


def derived_secret(secret: str, purpose: str) -> str:
    """A secret of its own for ``purpose``, the same every time; it tells nothing about ``secret``, nor the reverse."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return _PREFIX + base64.b64encode(hmac.digest(key, purpose.encode(), "sha256")).decode()


def is_secret(text: str) -> bool:
    """Whether ``text`` is ``whsec_`` and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_PREFIX) and len(key) in _SECRET_BYTES


def sign(secrets: Sequence[str], msg_id: str, timestamp: float, body: bytes) -> dict[str, str]:
    """The three headers of a message that is sent at ``timestamp`` (epoch seconds), one signature per secret.

    ``body`` is UTF-8. Raises ValueError for an id or a secret that is none.
    """
    if not secrets or not all(map(is_secret, secrets)):
        raise ValueError("a message is signed with secrets that begin with whsec_")
    if not MESSAGE_ID.fullmatch(msg_id):
        raise ValueError("a message's id has 1 to 128 letters, digits, dots, underscores and hyphens")
    seconds, text = int(timestamp), body.decode()
    return {
        ID_HEADER: msg_id,
        TIMESTAMP_HEADER: str(seconds),
        SIGNATURE_HEADER: " ".join(_signature(secret, msg_id, seconds, text) for secret in secrets),
    }


def verify(secrets: Sequence[str], headers: Headers, body: bytes, now: float) -> str:
    """The id of the message, which one of ``secrets`` has signed; raises SignatureError, and nothing else.

    ``now`` is in epoch seconds. The same message is accepted any number of times: who must not act twice remembers ids.
    """
    return find_secret(secrets, headers, body, now)[0]


def find_secret(secrets: Sequence[str], headers: Headers, body: bytes, now: float) -> tuple[str, int]:
    """What ``verify`` answers, and the index of the secret; all are tried, so that time tells nothing about them."""
    msg_id = _header(headers, ID_HEADER)
    if not MESSAGE_ID.fullmatch(msg_id):
        raise SignatureError(
            f"the header {ID_HEADER} must have 1 to 128 letters, digits, dots, underscores and hyphens"
        )
    stamp = _header(headers, TIMESTAMP_HEADER)
    if not _TIMESTAMP.fullmatch(stamp):
        raise SignatureError(f"the header {TIMESTAMP_HEADER} must be whole seconds since 1970")
    given = [word for word in _header(headers, SIGNATURE_HEADER).split(" ") if _SIGNATURE.fullmatch(word)]
    if not 0 < len(given) <= _MAX_SIGNATURES:
        raise SignatureError(f"the header {SIGNATURE_HEADER} must hold 1 to {_MAX_SIGNATURES} signatures 'v1,<base64>'")
    seconds = int(stamp)
    if abs(now - seconds) > TOLERANCE_SECONDS:
        raise SignatureError(
            f"the header {TIMESTAMP_HEADER} is more than {TOLERANCE_SECONDS} seconds away from this machine's clock; "
            "sign each attempt anew and keep clocks in step"
        )
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise SignatureError("the body is not UTF-8") from None
    found = -1
    for index, secret in enumerate(secrets):
        expected = _signature(secret, msg_id, seconds, text)
        matches = [hmac.compare_digest(expected, one) for one in given]
        if any(matches):
            found = index
    if found < 0:
        raise SignatureError(
            f"no signature matches; it is computed over '<{ID_HEADER}>.<{TIMESTAMP_HEADER}>.<body>' with the body's "
            "bytes as they are sent"
        )
    return msg_id, found


def _signature(secret: str, msg_id: str, seconds: int, text: str) -> str:
    return standardwebhooks.Webhook(secret).sign(msg_id, datetime.fromtimestamp(seconds, UTC), text)


def _header(headers: Headers, name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureError(f"the header {name} is missing")
    if len(value) > _MAX_HEADER:
        raise SignatureError(f"the header {name} is longer than {_MAX_HEADER} characters")
    return value
