"""What a run leaves behind, by place, as bytes to be searched: files, processes, what Docker shows."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.installation import docker
from tests.security.search import Search

Piece = tuple[str, bytes]
"""Where it was found, and what was found there."""


class Finding(NamedTuple):
    """A secret that was found: in what kind of place, where there, which one, in which form."""

    place: str
    where: str
    secret: str
    form: str


SAMPLE_SECONDS = 0.02
ANSIBLE_FOLDER = Path("~/.ansible").expanduser()
TEMPORARY = (Path("/tmp"), Path("/var/tmp"), ANSIBLE_FOLDER)
LARGEST_TEMPORARY_FILE = 4 * 2**20


def files(folder: Path, *, without: Iterable[Path] = ()) -> Iterator[Piece]:
    """Every file below ``folder``, its path included, but those in ``without`` and what is below them."""
    left_out = {str(path) for path in without}
    for base, names, found in os.walk(folder):
        names[:] = [name for name in names if os.path.join(base, name) not in left_out]
        for name in (*found, *names):
            path = os.path.join(base, name)
            yield path, os.fsencode(path)
            with contextlib.suppress(FileNotFoundError):
                if path not in left_out and stat.S_ISREG(os.lstat(path).st_mode):
                    yield path, Path(path).read_bytes()


def database(path: Path) -> Iterator[Piece]:
    """Every row of a SQLite database: values stand there in one piece, unlike in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for number, line in enumerate(connection.iterdump()):
            yield f"{path}, statement {number} of its dump", line.encode("utf-8", "surrogateescape")


def containers(prefix: str) -> list[str]:
    """The names of all containers that begin with ``prefix``."""
    names = docker("ps", "--all", "--format", "{{.Names}}").splitlines()
    return sorted(name for name in names if name.startswith(prefix))


def container_logs(prefix: str) -> Iterator[Piece]:
    """What ``docker logs`` shows, both streams."""
    for name in containers(prefix):
        done = subprocess.run(["docker", "logs", name], capture_output=True, check=True)
        yield f"log of {name}", done.stdout + b"\n" + done.stderr


def container_inspections(prefix: str) -> Iterator[Piece]:
    """What ``docker inspect`` shows of containers."""
    for name in containers(prefix):
        yield f"container {name}", docker("container", "inspect", name).encode()


def network_inspections(prefixes: tuple[str, ...]) -> Iterator[Piece]:
    """What ``docker inspect`` shows of networks."""
    for name in docker("network", "ls", "--format", "{{.Name}}").splitlines():
        if name.startswith(prefixes):
            yield f"network {name}", docker("network", "inspect", name).encode()


def image_inspections(references: Iterable[str]) -> Iterator[Piece]:
    """What ``docker inspect`` and ``docker history`` show of images."""
    for reference in sorted(set(references)):
        shown = docker("image", "inspect", reference) + docker("history", "--no-trunc", reference)
        yield f"image {reference}", shown.encode()


def docker_files(prefix: str) -> Iterator[Piece]:
    """What Docker itself keeps of containers: configuration and logs."""
    root = Path(docker("info", "--format", "{{.DockerRootDir}}"))
    for name in containers(prefix):
        identifier = docker("container", "inspect", "--format", "{{.Id}}", name)
        for path, data in files(root / "containers" / identifier):
            yield f"files of Docker of {name}: {os.path.basename(path)}", data


def memory_files(prefix: str, folders: Iterable[str]) -> Iterator[Piece]:
    """The files in a container's file systems in memory, which no folder of the node shows."""
    for name in containers(prefix):
        facts = json.loads(docker("container", "inspect", name))[0]
        pid = facts["State"]["Pid"]
        for folder in (*folders, *(facts["HostConfig"]["Tmpfs"] or {})):
            for path, data in files(Path(f"/proc/{pid}/root{folder}")) if pid else ():
                yield f"{path.removeprefix(f'/proc/{pid}/root')} in {name}", data


class Sampler:
    """Searches all processes every 20 ms, and new temporary files about as often, until it is stopped."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.found: set[Finding] = set()
        self._known = {entry.path for folder in TEMPORARY for entry in _entries(folder)}
        self._processes: set[bytes] = set()
        self._files: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()
        looks = (self._look_at_processes, self._look_at_files)
        self._rounds = dict.fromkeys(looks, 0)
        self._round_ended = threading.Condition()
        self._threads = [threading.Thread(target=self._repeat, args=(look,), daemon=True) for look in looks]

    def __enter__(self) -> Sampler:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def rounds(self) -> int:
        """How often everything has been searched."""
        return min(self._rounds.values())

    def look_once(self) -> None:
        """Returns when everything that is there now has been searched."""
        with self._round_ended:
            # The round that is under way may have passed it already.
            goals = {look: count + 2 for look, count in self._rounds.items()}
            done = self._round_ended.wait_for(
                lambda: all(self._rounds[look] >= goal for look, goal in goals.items()), timeout=120
            )
        assert done, f"a search has ended or takes for ever: {self._rounds}, wanted {goals}"

    def _repeat(self, look: Callable[[], None]) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            look()
            with self._round_ended:
                self._rounds[look] += 1
                self._round_ended.notify_all()
            self._ended.wait(max(0.001, began + SAMPLE_SECONDS - time.monotonic()))

    def _look_at_processes(self) -> None:
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                for place, name in (("environments", "environ"), ("command lines", "cmdline")):
                    with contextlib.suppress(OSError):
                        data = _read(f"/proc/{pid}/{name}")
                        if data not in self._processes:
                            self._processes.add(data)
                            self._note(place, f"{name} of process {pid}", data)

    def _look_at_files(self) -> None:
        for folder in TEMPORARY:
            whole = folder == ANSIBLE_FOLDER
            for entry in _entries(folder):
                if whole or entry.path not in self._known:
                    self._look_at(entry, "temporary files of Ansible" if whole else "temporary files")

    def _look_at(self, entry: os.DirEntry[str], place: str) -> None:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                for inner in _entries(Path(entry.path)):
                    self._look_at(inner, place)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                mark = (status.st_mtime_ns, status.st_size)
                if self._files.get(entry.path) != mark and status.st_size <= LARGEST_TEMPORARY_FILE:
                    self._files[entry.path] = mark
                    self._note(place, entry.path, _read(entry.path))

    def _note(self, place: str, where: str, data: bytes) -> None:
        self.found.update(Finding(place, where, *trace) for trace in self.search.scan(data))


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as handle:
        return handle.read(LARGEST_TEMPORARY_FILE)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
