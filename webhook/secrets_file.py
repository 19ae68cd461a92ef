# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets that webhook messages are signed with: portal → us (inbound) and us → portal (outbound).

From the third kind (signals) the secrets of those who sign signals are derived; an older file lacks it. They are in a
file of their own, readable by its owner only. The web process and the worker read it again when it has changed, so that
replacing a secret needs no restart::

    version: 1
    inbound:
    - {id: in_5f0c1a22, secret: whsec_…, created_at: "2026-11-23T05:00:00.000Z"}
    outbound:
    - {id: out_9b1d0e7f, secret: whsec_…, created_at: "2026-11-01T05:00:00.000Z", retire_at: "2026-11-24T05:00:00.000Z"}
    - {id: out_07c3d1aa, secret: whsec_…, created_at: "2026-11-23T05:00:00.000Z"}
    signals:
    - {id: sig_1f6ab0c9, secret: whsec_…, created_at: "2026-11-23T05:00:00.000Z"}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets as random
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import iso_time

from . import signing

Direction = Literal["inbound", "outbound", "signals"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_MODES = (0o600, 0o400)
# Root's, for web service and worker as two users of one group: they read it, only root changes it.
_SHARED_MODES = (0o640, 0o440)
_MAX_BYTES = 64 * 1024
_MAX_SECRETS = 8  # per direction: each costs a signature per message
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEAD = (
    "# What messages between the portal and this fleet are signed with; docs/portal.md. Mode 0600, never in version\n"
    "# control. Replace a secret with: hummingfleet webhook secret rotate\n"
)


class SecretsError(HummingfleetError):
    """The file of webhook secrets is missing, not guarded well enough, or not well formed."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret; times are ISO 8601 in UTC. From ``retire_at`` on it is accepted and used no more."""

    id: str
    secret: str = field(repr=False)
    created_at: str
    retire_at: str | None = None

    def is_active(self, now: float) -> bool:
        """Whether it is accepted at ``now`` (epoch seconds)."""
        return self.retire_at is None or now < _epoch(self.retire_at)

    def plain(self) -> dict[str, str]:
        """The secret as it stands in the file."""
        data = {"id": self.id, "secret": self.secret, "created_at": self.created_at}
        return data if self.retire_at is None else {**data, "retire_at": self.retire_at}


class SecretsFile:
    """The file at ``path``; everything raises SecretsError if it cannot be used as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, ...], dict[Direction, tuple[Secret, ...]]] | None = None

    def secrets(self, direction: Direction) -> tuple[Secret, ...]:
        """All secrets of a direction, retired ones included, the one for signing last."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            raise SecretsError(
                f"the webhook has no secrets: {self.path} does not exist; make it with "
                "'hummingfleet webhook secret rotate'"
            ) from None
        except OSError as error:
            raise SecretsError(f"the webhook's secrets {self.path} cannot be read: {error.strerror}") from None
        if self._read is None or self._read[0] != _identity(status):
            self._read = _read(self.path)
        return self._read[1][direction]

    def active(self, direction: Direction, now: float) -> tuple[Secret, ...]:
        """The secrets that are accepted at ``now`` (epoch seconds), the one for signing last."""
        return tuple(secret for secret in self.secrets(direction) if secret.is_active(now))

    def current(self, direction: Direction) -> Secret:
        """The secret that new messages are signed with."""
        for secret in reversed(self.secrets(direction)):
            if secret.retire_at is None:
                return secret
        raise SecretsError(
            f"every {direction} secret in {self.path} is retired; make one with "
            f"'hummingfleet webhook secret rotate --direction {direction}'"
        )

    def ensure(self, now: float) -> bool:
        """Makes the file with one secret per direction if there is none; answers whether it did."""
        with self._locked():
            if self.path.exists():
                return False
            self._write({direction: (_new(direction, now),) for direction in DIRECTIONS})
            return True

    def rotate(self, direction: Direction, overlap_seconds: float, now: float) -> Secret:
        """Makes a new secret, which is the one for signing from now on; the file is made if there is none.

        The older ones are accepted for another ``overlap_seconds`` (0: no longer). Those that retired before are
        removed.
        """
        with self._locked():
            if not self.path.exists():
                self._write({one: (_new(one, now),) for one in DIRECTIONS})
                return self.current(direction)
            stored = {one: self.secrets(one) for one in DIRECTIONS}
            end = now + overlap_seconds
            retired = (_retired(secret, end) for secret in stored[direction] if secret.is_active(now))
            kept = tuple(secret for secret in retired if secret.is_active(now))
            if len(kept) >= _MAX_SECRETS:
                raise SecretsError(
                    f"{len(kept)} {direction} secrets are still accepted, which is the most there can be; end them "
                    "now with an overlap of 0, or wait until one retires"
                )
            made = _new(direction, now)
            self._write({**stored, direction: (*kept, made)})
            return made

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes the file; the lock is on its folder."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SecretsError(f"the webhook's secrets {self.path} cannot be written: {error.strerror}") from None

    def _write(self, secrets: Mapping[Direction, tuple[Secret, ...]]) -> None:
        """Replaces the file, whole or not at all; its owner, group and mode stay what they were."""
        document: dict[str, Any] = {
            "version": 1,
            **{one: [secret.plain() for secret in secrets[one]] for one in DIRECTIONS},
        }
        before = self.path.stat() if self.path.exists() else None
        owner = before or self.path.parent.stat()
        handle, name = tempfile.mkstemp(prefix=".webhook-secrets-", dir=self.path.parent)  # mkstemp makes it 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(_HEAD + yaml.safe_dump(document, sort_keys=False, width=200))
                if os.geteuid() == 0:  # by an administrator, for the user who runs the service
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
                if before is not None:
                    os.fchmod(stream.fileno(), stat.S_IMODE(before.st_mode))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._read = None


class Verifier:
    """Judges messages from the portal by the inbound secrets at ``secrets_path``."""

    def __init__(self, secrets_path: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = SecretsFile(secrets_path)
        self._clock = clock

    def verify(self, headers: signing.Headers, body: bytes) -> tuple[str, str]:
        """The message's id and the id of the secret that signed it; raises SignatureError and SecretsError."""
        now = self._clock()
        secrets = self._file.active("inbound", now)
        msg_id, index = signing.find_secret([secret.secret for secret in secrets], headers, body, now)
        return msg_id, secrets[index].id


class Signer:
    """Signs messages to the portal with the outbound secrets at ``secrets_path``.

    While one replaces another, each message carries a signature of both. ``direction`` is for tools that act as the
    portal.
    """

    def __init__(
        self, secrets_path: Path, clock: Callable[[], float] = time.time, *, direction: Direction = "outbound"
    ) -> None:
        self._file = SecretsFile(secrets_path)
        self._clock = clock
        self._direction = direction

    def sign(self, msg_id: str, body: bytes) -> dict[str, str]:
        """The headers of a message that is sent now; raises SecretsError."""
        now = self._clock()
        self._file.current(self._direction)  # says what to do if there is none
        secrets = [secret.secret for secret in reversed(self._file.active(self._direction, now))]
        return signing.sign(secrets, msg_id, now, body)


def _new(direction: Direction, now: float) -> Secret:
    prefix = {"inbound": "in", "outbound": "out", "signals": "sig"}[direction]
    return Secret(f"{prefix}_{random.token_hex(4)}", signing.generate_secret(), iso_time(now))


def _retired(secret: Secret, end: float) -> Secret:
    """The secret with its end at ``end`` (epoch seconds), or earlier if that was said before."""
    if secret.retire_at is not None and _epoch(secret.retire_at) <= end:
        return secret
    return replace(secret, retire_at=iso_time(end))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What differs when somebody has written, replaced or re-protected the file."""
    return (status.st_ino, status.st_dev, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _read(path: Path) -> tuple[tuple[int, ...], dict[Direction, tuple[Secret, ...]]]:
    where = f"the webhook's secrets {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretsError(f"{where} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(stream.fileno())  # of the opened file: nobody can swap it between check and read
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise SecretsError(f"{where} are not in a regular file")
        shared = mode in _SHARED_MODES and status.st_uid == 0 and status.st_gid != 0
        if mode not in _MODES and not shared:
            raise SecretsError(
                f"{where} have mode {mode:04o}; it must be 0600 or 0400 (chmod 0600 {path}), or 0640 if it is root's "
                "and its group is that of the service's users"
            )
        # Root also reads what belongs to the user who runs the service, to whom the folder belongs.
        owners = {0, os.geteuid()} | ({path.parent.stat().st_uid} if os.geteuid() == 0 else set())
        if status.st_uid not in owners:
            raise SecretsError(
                f"{where} belong to uid {status.st_uid}; they must belong to root or to uid {os.geteuid()}, "
                "who runs this"
            )
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise SecretsError(f"{where} are larger than {_MAX_BYTES // 1024} KiB; this is not the right file")
    return _identity(status), _parse(content, where)


def _parse(content: bytes, where: str) -> dict[Direction, tuple[Secret, ...]]:
    loader: Any = yaml.BaseLoader
    try:
        data = yaml.load(content, Loader=loader)  # noqa: S506  makes strings only
    except (yaml.YAMLError, ValueError, RecursionError):  # its text would quote the file
        data = None
    if not isinstance(data, dict) or data.get("version") != "1" or set(data) | {"signals"} != {"version", *DIRECTIONS}:
        raise SecretsError(f"{where} are not YAML with 'version: 1', 'inbound' and 'outbound' (docs/portal.md)")
    found: dict[Direction, tuple[Secret, ...]] = {}
    seen: set[str] = set()
    for direction in DIRECTIONS:
        entries = data.get(direction, [])
        if not isinstance(entries, list) or len(entries) > _MAX_SECRETS:
            raise SecretsError(f"{where}: {direction} must be a list of at most {_MAX_SECRETS} secrets")
        found[direction] = tuple(
            _entry(entry, f"{where}: entry {number} of {direction}", seen) for number, entry in enumerate(entries, 1)
        )
    return found


def _entry(data: object, where: str, seen: set[str]) -> Secret:
    """One entry; ``seen`` holds the ids and secrets of those before it."""
    if not isinstance(data, dict) or not {"id", "secret", "created_at"} <= set(data) <= set(Secret.__slots__):
        raise SecretsError(f"{where} must have id, secret, created_at and may have retire_at, and nothing else")
    if not all(isinstance(value, str) for value in data.values()):
        raise SecretsError(f"{where} must hold texts only")
    secret = Secret(**cast("dict[str, str]", data))
    if not _ID.fullmatch(secret.id):
        raise SecretsError(f"{where}: the id must have 1 to 64 letters, digits, dots, underscores and hyphens")
    if not signing.is_secret(secret.secret):
        raise SecretsError(f"{where}: the secret must be whsec_ and the base64 of 24 to 64 bytes")
    try:
        _epoch(secret.created_at), _epoch(secret.retire_at or secret.created_at)
    except ValueError:
        raise SecretsError(f"{where}: times must look like 2026-11-23T05:00:00Z") from None
    if secret.id in seen or secret.secret in seen:
        raise SecretsError(f"{where} repeats the id or the secret of another entry")
    seen |= {secret.id, secret.secret}
    return secret


def _epoch(text: str) -> float:
    """Seconds since 1970; raises ValueError, also for a time without zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without zone")
    return moment.timestamp()
