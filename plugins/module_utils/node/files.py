# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a stack on the node: compared by content, mode and owner; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

REPORT_MAX_BYTES = 65_536
REPORT_MAX_ENTRIES = 64
REPORT_MAX_CHARACTERS = 500


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def file_facts(path: Path) -> dict[str, object] | None:
    """Content digest, mode and owner of a regular file, or None; a link is not followed and counts as absent."""
    descriptor = _open_regular(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as handle:
        status = os.fstat(descriptor)
        return {
            "sha256": digest(handle.read()),
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "uid": status.st_uid,
            "gid": status.st_gid,
        }


def _open_regular(path: Path) -> int | None:
    """A regular file opened for reading, or None for everything else that can be in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor


def directory_is(path: Path, mode: str, uid: int, gid: int) -> bool:
    """Whether ``path`` is a directory (no link) with that mode and owner."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and f"{stat.S_IMODE(status.st_mode):04o}" == mode
        and (status.st_uid, status.st_gid) == (uid, gid)
    )


def ensure_directory(path: Path, mode: str, uid: int, gid: int) -> None:
    """Makes the directory with that mode and owner; a link in its place is replaced, never followed."""
    if path.is_symlink():
        path.unlink()
    path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, int(mode, 8))
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes, mode: str, uid: int, gid: int) -> None:
    """Replaces the file atomically; it never exists half-written or readable for others."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, int(mode, 8))
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path, limit: int = 262_144) -> dict[str, Any] | None:
    """The JSON object in a file that a tenant may have written, or None: no link, folder, pipe or endless file."""
    descriptor = _open_regular(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as handle:
        raw = handle.read(limit + 1)
    if len(raw) > limit:
        return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_report(path: Path) -> dict[str, Any] | None:
    """What a bot says of itself in a file of its own, as short plain values, or None if there is nothing to read.

    A bot may have been taken over: numbers that overflow, texts without end and deep structures stay out, so that
    whatever it writes harms nobody who reads on.
    """
    found = read_json(path, limit=REPORT_MAX_BYTES)
    return None if found is None else _short(found, depth=2)


def _short(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value[:REPORT_MAX_CHARACTERS].encode("utf-8", "replace").decode()
    if isinstance(value, dict) and depth:
        entries = list(value.items())[:REPORT_MAX_ENTRIES]
        return {_short(key, depth=0): _short(item, depth - 1) for key, item in entries}
    return None
