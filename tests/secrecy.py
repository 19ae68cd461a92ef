"""Made-up secrets, and the check that none of them shows in what a person or a log could read."""

from __future__ import annotations

import base64
import traceback
import urllib.parse
from collections.abc import Iterable

from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing

MASTER = bytes(range(32))
KEYS = {"k1": bytes(range(100, 132)), "k2": bytes(range(200, 232))}
API_KEY = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
API_SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
SALT = "5f1d0c3b8a7e49f2a1c6d4e8b0937f25"


def key_ring(**overrides: bytes) -> KeyRing:
    """A key ring with the keys above; `overrides` replace or add keys by id."""
    return KeyRing(master_id="m1", master=MASTER, keys=KEYS | overrides)


def key_ring_text() -> str:
    """The same key ring as its file has it."""
    lines = ["version: 1", f"master: {{id: m1, key: {base64.b64encode(MASTER).decode()}}}", "keys:"]
    return "\n".join([*lines, *(f"  {name}: {base64.b64encode(key).decode()}" for name, key in KEYS.items())]) + "\n"


def forms(secret: str | bytes) -> set[str]:
    """The ways a secret could show: as it is, as Python writes it, hex, base64, percent-encoded, and long pieces."""
    raw = secret.encode() if isinstance(secret, str) else secret
    shown = {
        raw.decode("latin-1"),
        repr(raw)[2:-1],
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        urllib.parse.quote(raw),
    }
    pieces = {text[start : start + 12] for text in shown for start in range(0, max(len(text) - 12, 0) + 1, 6)}
    return {text for text in shown | pieces if len(text) >= 4}


def texts_of(error: BaseException) -> str:
    """Everything an error could print: its text, its representation, its arguments, its traceback, its ancestors'."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    parts = [f"{e}\n{e!r}\n{e.args!r}\n{vars(e)!r}" for e in chain]
    return "\n".join([*parts, *traceback.format_exception(error)])


def assert_hidden(text: str, secrets: Iterable[str | bytes]) -> None:
    """Fails when a form of a secret is in the text."""
    for secret in secrets:
        for form in forms(secret):
            assert form not in text, "a secret shows"
