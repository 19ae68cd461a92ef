"""A throw-away PostgreSQL server from the distribution's package, on a unix socket of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _binaries() -> Path:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql-15")


@contextlib.contextmanager
def server() -> Iterator[Callable[[], str]]:
    """Runs a server; gives a function that empties the database and answers its URL."""
    binaries = _binaries()
    # PostgreSQL refuses to run as root, and the path of a unix socket may have 107 characters.
    root = os.geteuid() == 0
    account = pwd.getpwnam("postgres") if root else pwd.getpwuid(os.geteuid())
    identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if root else {}
    folder = Path(tempfile.mkdtemp(prefix="hf-pg-"))
    if root:
        os.chown(folder, account.pw_uid, account.pw_gid)
    data = folder / "data"
    process: subprocess.Popen[bytes] | None = None

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120, **identity)  # type: ignore[call-overload]

    try:
        run(str(binaries / "initdb"), "-D", str(data), "-U", "hummingfleet", "-A", "trust", "-E", "UTF8", "--no-sync")
        log = (folder / "server.log").open("wb")
        process = subprocess.Popen(
            [
                str(binaries / "postgres"),
                *("-D", str(data), "-k", str(folder), "-h", "", "-c", "fsync=off", "-c", "max_connections=60"),
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            **identity,  # type: ignore[call-overload]
        )
        run(*("timeout", "60", "sh", "-c", f"until {binaries}/pg_isready -q -h {folder}; do sleep 0.1; done"))
        client = (str(binaries / "psql"), "-qX", "-h", str(folder), "-U", "hummingfleet")
        run(*client, "-d", "postgres", "-c", "CREATE DATABASE registry")

        def database() -> str:
            # Far quicker than a database of its own, which is 7 MB to copy and to delete.
            run(*client, "-d", "registry", "-c", "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            return f"postgresql://hummingfleet@/registry?host={folder}"

        yield database
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(60)
        shutil.rmtree(folder)
