"""The file of webhook secrets: who may read it, how a secret is replaced, and when a change is noticed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from webhook import signing
from webhook.secrets_file import SecretsError, SecretsFile, Signer, Verifier
from webhook.signing import SignatureError

NOW = 1_800_000_000.0
DAY = 86_400
BODY = b'{"type": "bot.started"}'


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "var" / "webhook-secrets.yml"
    assert SecretsFile(path).ensure(NOW) is True
    return path


def signed_by(secret: str, now: float = NOW) -> dict[str, str]:
    return signing.sign([secret], "msg_1", now, BODY)


def rewrite(path: Path, change: Callable[[dict[str, list[dict[str, str]]]], None]) -> None:
    """Edits the file as an operator would: in place."""
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_a_new_file_has_a_secret_per_direction_and_is_private(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    data = yaml.safe_load(path.read_text())
    assert data["version"] == 1
    assert [len(data[direction]) for direction in ("inbound", "outbound")] == [1, 1]
    assert data["inbound"][0]["secret"] != data["outbound"][0]["secret"]


def test_a_file_that_exists_is_kept(path: Path) -> None:
    before = path.read_bytes()
    assert SecretsFile(path).ensure(NOW + 1) is False
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_missing_file_is_a_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match="webhook secret rotate"):
        Verifier(tmp_path / "none.yml").verify({}, BODY)


def test_a_message_is_verified_and_its_secret_named(path: Path, clock: Clock) -> None:
    secret = SecretsFile(path).current("inbound")
    verifier = Verifier(path, clock)
    assert verifier.verify(signed_by(secret.secret), BODY) == ("msg_1", secret.id)
    with pytest.raises(SignatureError):
        verifier.verify(signed_by(SecretsFile(path).current("outbound").secret), BODY)


def test_the_old_secret_is_accepted_until_the_overlap_ends(path: Path, clock: Clock) -> None:
    verifier = Verifier(path, clock)
    old = SecretsFile(path).current("inbound")
    verifier.verify(signed_by(old.secret), BODY)
    new = SecretsFile(path).rotate("inbound", DAY, NOW)
    assert new != old and SecretsFile(path).current("inbound") == new
    assert verifier.verify(signed_by(old.secret), BODY)[1] == old.id
    assert verifier.verify(signed_by(new.secret), BODY)[1] == new.id
    clock.now = NOW + DAY - 1
    assert verifier.verify(signed_by(old.secret, clock.now), BODY)[1] == old.id
    clock.now = NOW + DAY
    with pytest.raises(SignatureError):
        verifier.verify(signed_by(old.secret, clock.now), BODY)
    assert verifier.verify(signed_by(new.secret, clock.now), BODY)[1] == new.id


def test_a_leaked_secret_can_be_ended_at_once(path: Path, clock: Clock) -> None:
    file = SecretsFile(path)
    first = file.current("inbound")
    second = file.rotate("inbound", DAY, NOW)
    third = file.rotate("inbound", 0, NOW)
    verifier = Verifier(path, clock)
    for secret in (first, second):
        with pytest.raises(SignatureError):
            verifier.verify(signed_by(secret.secret), BODY)
    assert verifier.verify(signed_by(third.secret), BODY)[1] == third.id
    assert first.secret not in path.read_text()


def test_a_later_rotation_prolongs_nothing_and_forgets_the_retired(path: Path) -> None:
    file = SecretsFile(path)
    first = file.current("outbound")
    file.rotate("outbound", 100, NOW)
    file.rotate("outbound", DAY, NOW + 50)
    kept = {secret.id: secret.retire_at for secret in file.secrets("outbound")}
    assert kept[first.id] == "2027-01-15T08:01:40.000Z"
    file.rotate("outbound", DAY, NOW + 100)
    assert first.id not in {secret.id for secret in file.secrets("outbound")}
    assert len(file.secrets("inbound")) == 1


def test_both_secrets_sign_while_one_replaces_the_other(path: Path, clock: Clock) -> None:
    file, signer = SecretsFile(path), Signer(path, clock)
    old = file.current("outbound")
    new = file.rotate("outbound", DAY, NOW)
    for secret in (old, new):
        assert signing.verify([secret.secret], signer.sign("cb_1", BODY), BODY, NOW) == "cb_1"
    clock.now = NOW + DAY
    with pytest.raises(SignatureError):
        signing.verify([old.secret], signer.sign("cb_1", BODY), BODY, clock.now)
    signing.verify([new.secret], signer.sign("cb_1", BODY), BODY, clock.now)


def test_an_edit_is_noticed_and_so_is_its_mistake(path: Path, clock: Clock) -> None:
    verifier = Verifier(path, clock)
    secret = SecretsFile(path).current("inbound")
    verifier.verify(signed_by(secret.secret), BODY)
    other = signing.generate_secret()
    rewrite(path, lambda data: data["inbound"][0].update(secret=other))
    assert verifier.verify(signed_by(other), BODY)[1] == secret.id
    with pytest.raises(SignatureError):
        verifier.verify(signed_by(secret.secret), BODY)
    path.write_text("version: 1\ninbound: []\n")
    with pytest.raises(SecretsError):
        verifier.verify(signed_by(other), BODY)
    path.unlink()
    with pytest.raises(SecretsError):
        verifier.verify(signed_by(other), BODY)


def test_the_file_is_read_only_when_it_has_changed(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, secret = Verifier(path, clock), SecretsFile(path).current("inbound").secret
    verifier.verify(signed_by(secret), BODY)
    monkeypatch.setattr(yaml, "load", lambda *_a, **_k: pytest.fail("read again"))
    verifier.verify(signed_by(secret), BODY)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o700])
def test_a_file_that_others_could_read_is_refused(path: Path, clock: Clock, mode: int) -> None:
    verifier, secret = Verifier(path, clock), SecretsFile(path).current("inbound").secret
    verifier.verify(signed_by(secret), BODY)
    path.chmod(mode)
    with pytest.raises(SecretsError, match="chmod 0600"):
        verifier.verify(signed_by(secret), BODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owners(path: Path) -> None:
    os.chown(path, 12345, 12345)
    with pytest.raises(SecretsError, match="uid 12345"):
        SecretsFile(path).current("inbound")
    # The folder of the user who runs the service: root may look, and what root writes stays that user's.
    os.chown(path.parent, 12345, 12345)
    SecretsFile(path).rotate("inbound", 0, NOW)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_users_of_a_group_may_share_a_file_of_roots(path: Path) -> None:
    os.chown(path, 0, 54321)
    path.chmod(0o640)
    made = SecretsFile(path).rotate("inbound", 0, NOW)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 54321, 0o640)
    assert SecretsFile(path).current("inbound") == made
    os.chown(path, 12345, 54321)
    with pytest.raises(SecretsError, match="0640"):
        SecretsFile(path).current("inbound")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "{",
        "version: 2\ninbound: []\noutbound: []",
        "version: 1\ninbound: []",
        "version: 1\ninbound: []\noutbound: []\nother: []",
        "version: 1\ninbound: {}\noutbound: []",
        "version: 1\ninbound: [x]\noutbound: []",
        "version: 1\ninbound: [{id: a}]\noutbound: []",
        "version: 1\ninbound: [{id: a, secret: whsec_SECRETx, created_at: 2026-11-23T05:00:00Z}]\noutbound: []",
        "\xff",
    ],
)
def test_a_malformed_file_is_refused_without_quoting_it(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SecretsError) as caught:
        SecretsFile(path).current("inbound")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "a b"},
        {"secret": "hunter2"},
        {"created_at": "yesterday"},
        {"retire_at": "2026-11-23T05:00:00"},
        {"note": "x"},
    ],
)
def test_a_wrong_entry_is_refused_and_named(path: Path, change: dict[str, str]) -> None:
    rewrite(path, lambda data: data["outbound"][0].update(change))
    with pytest.raises(SecretsError, match="entry 1 of outbound") as caught:
        SecretsFile(path).current("inbound")
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_there_twice_is_refused(path: Path) -> None:
    rewrite(path, lambda data: data["outbound"][0].update(secret=data["inbound"][0]["secret"]))
    with pytest.raises(SecretsError, match="repeats"):
        SecretsFile(path).current("inbound")


def test_a_retired_last_secret_says_what_to_do(path: Path) -> None:
    rewrite(path, lambda data: data["outbound"][0].update(retire_at="2026-01-01T00:00:00Z"))
    with pytest.raises(SecretsError, match="rotate --direction outbound"):
        Signer(path).sign("cb_1", BODY)


def test_secrets_do_not_show_themselves(path: Path) -> None:
    secret = SecretsFile(path).current("inbound")
    assert secret.secret not in repr(secret)


def test_there_is_an_end_to_how_many_are_accepted(path: Path) -> None:
    file = SecretsFile(path)
    for _ in range(7):
        file.rotate("inbound", DAY, NOW)
    with pytest.raises(SecretsError, match="overlap of 0"):
        file.rotate("inbound", DAY, NOW)
    file.rotate("inbound", 0, NOW)
    assert len(file.secrets("inbound")) == 1


def test_rotations_at_the_same_time_lose_no_secret(path: Path) -> None:
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(SecretsFile(path).rotate("inbound", DAY, NOW))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {secret.id for secret in made} < {secret.id for secret in SecretsFile(path).secrets("inbound")}
    assert len(SecretsFile(path).active("inbound", NOW)) == 6
