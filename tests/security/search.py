"""Finds secrets in whatever a run left behind, in every form in which a program would write them, whole or in part."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

WINDOW = 12
STRIDE = 6
SHORTEST = WINDOW + STRIDE - 1
"""So many consecutive bytes of any form are found wherever they stand."""


class Trace(NamedTuple):
    """A secret's name and the form it was found in; never the secret."""

    secret: str
    form: str


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways a secret can be written down, by name.

    Base64 of a longer text shows a secret in one of three ways, by its distance from the beginning; characters that
    also depend on the neighbours are left out.
    """
    found = {
        "plain": secret,
        "hex": secret.hex().encode(),
        "hex capitals": secret.hex().upper().encode(),
        "percent": urllib.parse.quote(secret, safe="").encode(),
        "percent throughout": "".join(f"%{byte:02X}" for byte in secret).encode(),
        "percent throughout, small": "".join(f"%{byte:02x}" for byte in secret).encode(),
        "escaped as Python does": repr(secret)[2:-1].encode(),
        "escaped as JSON does": json.dumps(secret.decode("latin-1"))[1:-1].encode(),
        "escaped throughout": "".join(f"\\x{byte:02x}" for byte in secret).encode(),
    }
    for before in range(3):
        for kind, encode in (("base64", base64.b64encode), ("base64 urlsafe", base64.urlsafe_b64encode)):
            encoded = encode(bytes(before) + secret)
            first = -(-before * 8 // 6)
            last = (before + len(secret)) * 8 // 6
            found[f"{kind}, {before} bytes in"] = encoded[first:last]
    return found


class Search:
    """Looks for many secrets at once; costs the same for one as for hundreds."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._windows: dict[bytes, Trace] = {}
        for name, secret in secrets.items():
            for form, text in forms(secret).items():
                if len(text) < SHORTEST:
                    raise ValueError(f"{name} is too short to be searched for")
                for start in range(len(text) - WINDOW + 1):
                    self._windows.setdefault(text[start : start + WINDOW], Trace(name, form))

    def scan(self, data: bytes) -> set[Trace]:
        """The secrets of which at least SHORTEST consecutive bytes, in any form, are in ``data``."""
        windows, width = self._windows, WINDOW
        return {
            windows[data[start : start + width]]
            for start in range(0, len(data) - width + 1, STRIDE)
            if data[start : start + width] in windows
        }
