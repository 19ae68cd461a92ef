"""Files that other processes read: written whole or not at all."""

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional


def write_file(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace ``path`` by ``text`` atomically; ``durable`` waits until file and name have reached the disk."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        Path(temporary).chmod(0o640)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``, or None where the file is missing. Raises ValueError where it is no JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object")
    return data


@dataclass(frozen=True)
class Lifecycle:
    """What is known about the bot's orders: the record that decides whether a start must settle first.

    state: ``running`` from before the first order can leave until the process ended; then ``stopped``.
    clean: own open orders were counted as 0 after the last order was sent.
    verified: ``exchange`` (a signed open-orders query said so) or ``engine`` (only the engine's own tracking did).
    open_orders: own orders known to be open; -1 = unknown.
    position_base: what the bot itself bought and has not sold.
    dust_base: what a liquidation wrote off: too little for an order, or (negative) sold beyond what was bought.
    """

    state: str
    clean: bool
    verified: str
    open_orders: int
    position_base: str
    at: float
    reason: str
    dust_base: str = "0"

    @classmethod
    def load(cls, path: Path) -> Optional["Lifecycle"]:
        """The record on disk; None where there is none. An unreadable record counts as an unclean one."""
        try:
            data = read_json(path)
            return None if data is None else cls(**data)
        except (ValueError, TypeError):
            return cls("running", False, "engine", -1, "0", time.time(), "the record on disk was unreadable")

    def write(self, path: Path) -> None:
        """Put the record on disk, durably."""
        write_file(path, self.line() + "\n", durable=True)

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def needs_settling(self) -> bool:
        """Whether orders may be left on the exchange."""
        return not self.clean
