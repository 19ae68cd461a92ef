"""The few Docker commands that building needs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

INPUTS_LABEL = "hummingfleet.inputs"


@dataclass(frozen=True)
class Image:
    """An image that the Docker engine has."""

    id: str
    inputs: str | None
    size_bytes: int


def run(arguments: Sequence[str | Path], *, log: Path | None = None, stdin: bytes = b"", classic: bool = False) -> str:
    """Run a command; give its standard output, or append its whole output to a log and give nothing.

    ``classic`` asks for the builder that every engine has. Raises BuildError with the end of the output when the
    command fails.
    """
    command = [str(argument) for argument in arguments]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"} if classic else None
    try:
        if log is None:
            done = subprocess.run(command, capture_output=True, input=stdin, env=environment)
            output, errors = done.stdout.decode(), done.stderr.decode("utf-8", "replace")
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as handle:
                done = subprocess.run(command, stdout=handle, stderr=subprocess.STDOUT, input=stdin)
            output, errors = "", ""
    except FileNotFoundError as error:
        raise BuildError(f"the command {command[0]} is missing on this machine; install it first") from error
    if done.returncode != 0:
        tail = "\n".join((errors or _tail(log)).strip().splitlines()[-15:])
        where = f"; the whole log is {log}" if log else ""
        raise BuildError(f"{' '.join(command[:3])} ... failed with status {done.returncode}{where}:\n{tail}")
    return output


def _tail(log: Path | None) -> str:
    return log.read_text("utf-8", "replace")[-6000:] if log and log.exists() else ""


def find_image(reference: str) -> Image | None:
    """Give an image of the local engine, or None where it is missing."""
    try:
        text = run(["docker", "image", "inspect", reference])
    except BuildError as error:
        if "No such image" in str(error):
            return None
        raise BuildError(f"the Docker engine does not answer: {error}") from error
    data = json.loads(text)[0]
    labels = (data.get("Config") or {}).get("Labels") or {}
    return Image(id=data["Id"], inputs=labels.get(INPUTS_LABEL), size_bytes=int(data.get("Size", 0)))


@contextmanager
def container(
    image: str, script: str, *, mounts: Iterable[tuple[Path, str, bool]], log: Path, network: str = "host"
) -> Iterator[str]:
    """Run a root shell script in a new container, and give the stopped container's id; it is removed afterwards.

    ``/run`` is a tmpfs, so what is mounted below it leaves no trace in a commit. Mounts are (path here, path there,
    writable).
    """
    arguments: list[str | Path] = ["docker", "create", "--network", network, "--hostname", "build"]
    arguments += ["--tmpfs", "/run:exec", *_politeness()]
    for source, target, writable in mounts:
        arguments += ["--volume", f"{source}:{target}{'' if writable else ':ro'}"]
    arguments += ["--entrypoint", "/bin/sh", "--workdir", "/", image, "-euc", script]
    identifier = run(arguments).strip()
    try:
        run(["docker", "start", "--attach", identifier], log=log)
        yield identifier
    finally:
        with suppress(BuildError):
            run(["docker", "rm", "--force", "--volumes", identifier])


def _politeness() -> list[str]:
    """Give the options that let a build run under ``nice`` yield to others.

    A container's processes are the Docker engine's children, and between groups of processes niceness counts nothing.
    """
    niceness = os.nice(0)
    return ["--cpu-shares", str(1024 >> (niceness // 5))] if niceness > 0 else []


def commit(identifier: str, reference: str, instructions: Iterable[str]) -> None:
    """Make an image of a container's file system, with Dockerfile instructions as its configuration.

    ``docker commit --change`` knows only some instructions (no STOPSIGNAL), hence the build without a context.
    """
    layer = run(["docker", "commit", "--message", "hummingfleet", identifier]).strip()
    dockerfile = "\n".join((f"FROM {layer}", "ENTRYPOINT []", "CMD []", *instructions)) + "\n"
    run(["docker", "build", "--quiet", "--force-rm", "--tag", reference, "-"], stdin=dockerfile.encode(), classic=True)


def import_tar(tar: Path, reference: str, changes: Iterable[str]) -> None:
    """Make an image of one layer from a root file system."""
    arguments: list[str | Path] = ["docker", "import", "--message", "hummingfleet"]
    for change in changes:
        arguments += ["--change", change]
    run([*arguments, tar, reference])


def label(name: str, value: str) -> str:
    """Give the Dockerfile instruction that sets a label."""
    return f"LABEL {name}={json.dumps(value)}"


def env(variables: Mapping[str, str]) -> list[str]:
    """Give the Dockerfile instructions that set environment variables."""
    return [f"ENV {name}={json.dumps(value)}" for name, value in variables.items()]
