"""The search itself: every form, wherever it stands, and nothing where there is nothing."""

from __future__ import annotations

import base64
import json
import random
import urllib.parse
from collections.abc import Callable

import pytest
import yaml

from tests.security.search import SHORTEST, WINDOW, Search

TEXT = b"sK9-_x/Qa+7Zr%2~vB&n=Jm0'Lp\\4\"TyW|e5Uc8Hd"
KEY = bytes(random.Random(7).randrange(256) for _ in range(32))
SEARCH = Search({"text": TEXT, "key": KEY})
NOISE = bytes(random.Random(8).randrange(256) for _ in range(1000))

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda secret: secret,
    "hex": lambda secret: secret.hex().encode(),
    "capital hex": lambda secret: secret.hex().upper().encode(),
    "hex inside a longer one": lambda secret: (b"abc" + secret + b"de").hex().encode(),
    "percent": lambda secret: urllib.parse.quote(secret).encode(),
    "percent, nothing safe": lambda secret: urllib.parse.quote(secret, safe="").encode(),
    "form": lambda secret: urllib.parse.urlencode({"a": secret}).encode(),
    "percent for every byte": lambda secret: "".join(f"%{byte:02x}" for byte in secret).encode(),
    "JSON": lambda secret: json.dumps({"a": secret.decode("latin-1")}).encode(),
    "JSON in UTF-8": lambda secret: json.dumps({"a": secret.decode("latin-1")}, ensure_ascii=False).encode("latin-1"),
    "YAML": lambda secret: yaml.safe_dump({"a": secret}).encode(),
    "Python": lambda secret: repr({"a": secret}).encode(),
    **{
        f"{name} after {before} and before {behind} bytes": (
            lambda secret, encode=encode, before=before, behind=behind: encode(b"{" * before + secret + b"}" * behind)
        )
        for name, encode in (("base64", base64.b64encode), ("urlsafe base64", base64.urlsafe_b64encode))
        for before in range(4)
        for behind in (0, 1, 2)
    },
}


@pytest.mark.parametrize("secret", [TEXT, KEY], ids=["text", "key"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", range(6))
def test_a_secret_is_found_wherever_it_stands(secret: bytes, way: str, before: int) -> None:
    written = WAYS[way](secret)
    found = {trace.secret for trace in SEARCH.scan(NOISE[: 100 + before] + written + NOISE[:50])}
    assert found == {"text" if secret == TEXT else "key"}


@pytest.mark.parametrize("start", range(len(TEXT) - SHORTEST + 1))
def test_a_part_of_a_secret_is_found(start: int) -> None:
    part = TEXT[start : start + SHORTEST]
    for before in range(6):
        assert SEARCH.scan(NOISE[:before] + part + NOISE[:20])
    assert SEARCH.scan(part)


def test_base64_in_lines_is_found() -> None:
    assert SEARCH.scan(base64.encodebytes(NOISE[:70] + KEY + NOISE[:70]))


@pytest.mark.parametrize("data", [b"", b"x", NOISE, TEXT[: WINDOW - 1], bytes(10_000)])
def test_nothing_is_found_where_nothing_is(data: bytes) -> None:
    assert SEARCH.scan(data) == set()


def test_a_secret_too_short_to_tell_from_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="pin"):
        Search({"pin": b"1234"})
