"""Bearer tokens: what is stored, who is let in, and what ends a token."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

from webhook.tokens import SCOPES, Token, TokenStore, UnknownTokenError

NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> TokenStore:
    return TokenStore(Registry(f"sqlite:///{tmp_path / 'registry.db'}"), clock)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("tenant", [None, "acme"])
def test_a_token_says_who_asks(store: TokenStore, scope: str, tenant: str | None) -> None:
    token_id, text = store.create(scope, tenant, "for a test")  # type: ignore[arg-type]
    assert text.startswith(f"hft_{token_id}_") and len(text) == 4 + 12 + 1 + 43
    assert store.check(text) == Token(token_id, scope, tenant)  # type: ignore[arg-type]


def test_two_tokens_have_nothing_in_common(store: TokenStore) -> None:
    (first, first_text), (second, second_text) = store.create("operator"), store.create("read-only")
    assert first != second
    crossed = f"hft_{first}_{second_text.split('_', 2)[2]}"
    assert store.check(crossed) is None
    assert store.check(first_text) != store.check(second_text)


def test_only_a_hash_is_stored(store: TokenStore, tmp_path: Path) -> None:
    token_id, text = store.create("portal")
    secret = text.removeprefix(f"hft_{token_id}_")
    with sqlite3.connect(tmp_path / "registry.db") as database:
        rows = database.execute("SELECT * FROM tokens").fetchall()
    assert len(rows) == 1 and secret not in repr(rows)
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_a_revoked_token_is_worth_nothing(store: TokenStore, clock: Clock) -> None:
    token_id, text = store.create("operator")
    _other, other_text = store.create("operator")
    first = store.revoke(token_id)
    clock.now += 60
    assert store.revoke(token_id) == first and first.state(clock.now) == "revoked"
    assert store.check(text) is None and store.check(other_text) is not None


def test_a_token_ends_when_it_was_said_to(store: TokenStore, clock: Clock) -> None:
    _id, text = store.create("operator", expires_at=NOW + 60)
    clock.now = NOW + 59.9
    assert store.check(text) is not None and store.list()[0].state(clock.now) == "valid"
    clock.now = NOW + 60
    assert store.check(text) is None and store.list()[0].state(clock.now) == "expired"


def test_the_list_shows_everything_but_the_token(store: TokenStore, clock: Clock) -> None:
    store.create("operator", note="first")
    clock.now += 1
    token_id, text = store.create("read-only", "acme", "x" * 500 + "\0", NOW + 100)
    newest, oldest = store.list()
    assert oldest.note == "first"
    assert newest.plain() == {
        "id": token_id,
        "scope": "read-only",
        "tenant": "acme",
        "note": "x" * 200,
        "created_at": "2027-01-15T08:00:01.000Z",
        "expires_at": "2027-01-15T08:01:40.000Z",
        "revoked_at": None,
    }
    assert text.split("_", 2)[2] not in repr(store.list())


def test_an_unknown_token_cannot_be_revoked(store: TokenStore) -> None:
    for token_id in ("nosuchtoken0", "", "\0"):
        with pytest.raises(UnknownTokenError):
            store.revoke(token_id)


@pytest.mark.parametrize(
    "text",
    ["", "hft_", f"hft_{'0' * 12}_{'A' * 43}", f"hft_{'0' * 12}_{'ü' * 43}", "x" * 10_000, "hft_\ud800_", "hft_0_0"],
)
def test_what_is_no_token_lets_nobody_in(store: TokenStore, text: str) -> None:
    store.create("operator")
    assert store.check(text) is None


def test_a_token_has_to_be_exact(store: TokenStore) -> None:
    _id, text = store.create("operator")
    for wrong in (text + "\n", " " + text, text[:-1], text.upper(), text[:-1] + ("A" if text[-1] != "A" else "B")):
        assert store.check(wrong) is None
