"""API keys: which account a request belongs to, and whether its signature is right."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from sandbox import errors
from sandbox.config import API_KEY, Credentials

MAX_RECV_WINDOW_MS = 60_000
DEFAULT_RECV_WINDOW_MS = 5_000
EARLIEST_MS = 1_000
"""How far ahead of the server's clock a timestamp may be."""


class KeyTable:
    """Keys and secrets, in memory only; never shown, logged or saved from here."""

    def __init__(self) -> None:
        self._by_key: dict[str, Credentials] = {}

    def replace(self, credentials: Iterable[Credentials]) -> set[str]:
        """From now on these are the keys; returns the accounts whose former key or secret is no longer valid."""
        former = set(self._by_key.values())
        self._by_key = {item.api_key: item for item in credentials}
        return {item.account for item in former - set(self._by_key.values())}

    def owner(self, api_key: str | None) -> str | None:
        """The account name of a key, None for a stranger."""
        found = self._by_key.get(api_key or "")
        return found.account if found else None

    def __contains__(self, api_key: str) -> bool:
        return api_key in self._by_key

    def credentials(self, api_key: str | None) -> Credentials:
        """Key and secret behind a request's key; ExchangeError -2014 or -2015 when there are none."""
        if api_key is None or not API_KEY.fullmatch(api_key):
            raise errors.bad_key_format()
        found = self._by_key.get(api_key)
        if found is None:
            raise errors.bad_key()
        return found


def signed_bytes(query: bytes, body: bytes) -> bytes:
    """What a REST signature covers: query and body, byte for byte as sent, without the signature itself."""
    return b"".join(
        b"&".join(part for part in text.split(b"&") if not part.startswith(b"signature=")) for text in (query, body)
    )


def websocket_signed_bytes(params: Mapping[str, object]) -> bytes:
    """What a WebSocket API signature covers: the parameters sorted by name, not URL-encoded."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature").encode()


def signature_fits(secret: str, message: bytes, signature: str) -> bool:
    """Whether `signature` is the hexadecimal HMAC-SHA256 of the message."""
    expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.lower().encode("utf-8", "surrogateescape"))


def check_timestamp(now: int, timestamp: int, recv_window: int | None) -> None:
    """Refuse a request that is too old or from the future; all in milliseconds."""
    window = DEFAULT_RECV_WINDOW_MS if recv_window is None else recv_window
    if window > MAX_RECV_WINDOW_MS:
        raise errors.ExchangeError(-1131, "recvWindow must be less than 60000.")
    if timestamp >= now + EARLIEST_MS:
        raise errors.early_timestamp()
    if now - timestamp > window:
        raise errors.late_timestamp()
