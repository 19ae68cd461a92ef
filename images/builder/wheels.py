"""Locked Python packages: the lock, and a cached folder with a wheel of each (a wheelhouse)."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
from pathlib import Path

from . import docker, machine
from .errors import BuildError
from .progress import Progress
from .recipes import PythonPackages, Recipe

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?==[^\s;\\]+(?:\s*;[^\\]*)?)")
_SUMS = "SHA256SUMS"
_HEADER = "# Made with: python images/build.py --relock\n"


def parse_lock(text: str) -> list[str]:
    """Give the pinned requirements of a lock (``name==version``), without hashes and comments."""
    pins = []
    for line in text.splitlines():
        match = _PIN.match(line)
        if match:
            pins.append(match.group(1).strip())
        elif line.strip() and not line.lstrip().startswith(("#", "--hash=")):
            raise BuildError(f"the lock has a line that is no pinned package: {line.strip()}")
    return pins


def read_lock(packages: PythonPackages) -> str:
    """Give a lock's text."""
    try:
        return packages.lock.read_text()
    except OSError as error:
        raise BuildError(
            f"the lock {packages.lock} is missing; make it with: python images/build.py --relock"
        ) from error


def wheelhouse_key(lock_text: str, python: str, suite: str, architecture: str) -> str:
    """Give the name of the wheelhouse for a lock: compiled wheels depend on suite, Python and architecture too."""
    facts = "\n".join([*(line for line in lock_text.splitlines() if not line.lstrip().startswith("#")), python, suite])
    return f"{suite}-{architecture}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def is_complete(wheelhouse: Path) -> bool:
    """Tell whether a wheelhouse holds every wheel it once held, unaltered."""
    sums = wheelhouse / _SUMS
    if not sums.is_file():
        return False
    for line in sums.read_text().splitlines():
        digest, _, name = line.partition("  ")
        wheel = wheelhouse / name
        if not wheel.is_file() or _sha256(wheel) != digest:
            return False
    return True


def seal(wheelhouse: Path) -> None:
    """Write down the digests of a finished wheelhouse."""
    wheels = sorted(wheelhouse.glob("*.whl"))
    (wheelhouse / _SUMS).write_text("".join(f"{_sha256(wheel)}  {wheel.name}\n" for wheel in wheels))


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def provide(recipe: Recipe, base: Recipe, *, cache: Path, work: Path, log: Path, progress: Progress) -> Path:
    """Give a folder with a wheel of every package in the recipe's lock, from the cache or made now.

    Hashes in the lock are checked while downloading; what comes as source only is compiled in a container of ``base``.
    """
    packages = recipe.packages
    if packages is None:
        raise BuildError(f"image {recipe.name} contains no Python packages")
    text = read_lock(packages)
    pins = parse_lock(text)
    wheelhouse = cache / "wheelhouse" / wheelhouse_key(text, packages.python, recipe.suite, platform.machine())
    if is_complete(wheelhouse):
        progress.say(recipe.name, f"{len(pins)} wheels are in the cache")
        return wheelhouse
    partial = wheelhouse.with_name(wheelhouse.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (work / "lock.txt").write_text(text)
    only_binary = "" if packages.compilers else "--only-binary :all:"
    script = f"""
. {machine.BUILD_DIR}/environment
. {machine.BUILD_DIR}/environment-pip
mkdir -p /run/apt-lists/partial /run/apt-archives/partial
apt-get update -q
apt-get install -q -y python3-venv {" ".join(packages.compilers)}
python3 -m venv /run/pip
# No debug symbols: nobody debugs compiled strategies in production, and they double the size.
export CFLAGS="-g0 -O2" PIP_CACHE_DIR=/var/cache/pip
/run/pip/bin/pip wheel --no-deps {only_binary} --require-hashes -r {machine.BUILD_DIR}/lock.txt -w /wheels
"""
    what = f"compile and fetch {len(pins)} wheels" if packages.compilers else f"fetch {len(pins)} wheels"
    usually = "4 to 11 minutes" if packages.compilers else "20 s"
    with progress.step(recipe.name, what, usually=usually, log=log):
        _in_throwaway_container(base, script, cache=cache, work=work, log=log, target=(partial, "/wheels"))
    found = len(list(partial.glob("*.whl")))
    if found != len([pin for pin in pins if ";" not in pin]) and found < len(pins):
        raise BuildError(f"{recipe.name}: the lock has {len(pins)} packages, but {found} wheels were made; see {log}")
    seal(partial)
    shutil.rmtree(wheelhouse, ignore_errors=True)
    partial.rename(wheelhouse)
    return wheelhouse


def relock(recipe: Recipe, base: Recipe, *, cache: Path, work: Path, log: Path, progress: Progress) -> bool:
    """Resolve a recipe's requirements anew and write its lock; tell whether the lock changed.

    This runs inside a container of ``base``, since packages that come as source only must be asked there.
    """
    packages = recipe.packages
    if packages is None:
        return False
    out = work / "relock"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "requirements.in").write_text("\n".join(packages.requirements) + "\n")
    (out / "overrides.txt").write_text("\n".join(packages.overrides) + "\n")
    script = f"""
. {machine.BUILD_DIR}/environment
. {machine.BUILD_DIR}/environment-pip
mkdir -p /run/apt-lists/partial /run/apt-archives/partial
apt-get update -q
apt-get install -q -y python3-venv {" ".join(packages.compilers)}
python3 -m venv /run/pip
/run/pip/bin/pip install --quiet uv
cd /lock
/run/pip/bin/uv pip compile --quiet --no-cache --generate-hashes --no-header --no-emit-index-url \
    --no-emit-find-links --python /usr/bin/python3 --override overrides.txt requirements.in -o lock.txt
"""
    with progress.step(recipe.name, "resolve the lock anew", usually="2 minutes", log=log):
        _in_throwaway_container(base, script, cache=cache, work=work, log=log, target=(out, "/lock"))
    text = _HEADER + (out / "lock.txt").read_text()
    parse_lock(text)
    changed = not packages.lock.exists() or packages.lock.read_text() != text
    if changed:
        packages.lock.parent.mkdir(parents=True, exist_ok=True)
        packages.lock.write_text(text)
    return changed


def _in_throwaway_container(
    base: Recipe, script: str, *, cache: Path, work: Path, log: Path, target: tuple[Path, str]
) -> None:
    """Run a script in a container whose file system nobody keeps, so pip's own files may be mounted in place."""
    archives, pip_cache = cache / "apt" / base.suite, cache / "pip"
    for folder in (archives, pip_cache):
        folder.mkdir(parents=True, exist_ok=True)
    mounts = [
        (work, machine.BUILD_DIR, False),
        (archives, "/run/apt-archives", True),
        (pip_cache, "/var/cache/pip", True),
        (*target, True),
        *((source, there, False) for source, there in machine.package_mounts()),
    ]
    with docker.container(base.reference, script, mounts=mounts, log=log):
        pass
