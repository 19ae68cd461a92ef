"""What each image is made of: its base, the script that installs it, its configuration, and a hash of all that."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
IMAGES_DIR = ROOT / "images"
TRIAL_LOCKS_DIR = ROOT / "var" / "compat"
"""Where the locks of engines are that no release has."""
_OVERRIDES_UNTIL = {"20260531": "xrpl-py<5"}
"""What engines up to a version need besides: they import what later packages have no more."""
_VERSION = re.compile(r"20\d{6}")
_SCHEMA = "1"
_IGNORED_DIRS = frozenset(("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "tests"))


@dataclass(frozen=True)
class PythonPackages:
    """Locked Python packages that an image contains; ``python`` is the version that its suite ships."""

    lock: Path
    python: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    compilers: tuple[str, ...] = ()
    """Debian packages needed to compile those that come as source only."""


@dataclass(frozen=True)
class Recipe:
    """How one image is made.

    ``base`` is the name of another recipe; a recipe without one is a Debian suite (``suite`` and ``include``).
    ``copies`` are (path in the repository, path for the install script below /run/build/copies).
    """

    name: str
    reference: str
    suite: str
    usually: str
    family: str = ""
    """A name for several recipes at once: every engine is of the family ``engine``."""
    base: str | None = None
    include: tuple[str, ...] = ()
    directory: Path | None = None
    packages: PythonPackages | None = None
    copies: tuple[tuple[Path, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    configuration: tuple[str, ...] = ()
    flat: bool = False
    """True: the install script fills /out, which becomes the whole image, without its base."""


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _engine(
    reference: str, pin: str, overrides: tuple[str, ...], *, family: str = "engine", locks: Path | None = None
) -> Recipe:
    """Give the recipe of the trading engine's image for one PyPI version of hummingbot."""
    return Recipe(
        name=f"engine-{pin}",
        family=family,
        reference=reference,
        suite="trixie",
        usually="5 to 12 minutes, most of it compiling; 1 minute with cached wheels",
        base="base-trixie",
        directory=IMAGES_DIR / "engine",
        packages=PythonPackages(
            lock=(locks or IMAGES_DIR / "engine") / f"lock-{pin}.txt",
            python="3.13",
            requirements=(f"hummingbot=={pin}",),
            overrides=overrides,
            compilers=("build-essential", "python3-dev", "libpq-dev", "libssl-dev", "libffi-dev", "pkg-config", "git"),
        ),
        environment={"PATH": f"/opt/hummingbot/bin:{_PATH}", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"},
        configuration=("WORKDIR /home/hummingbot", 'CMD ["hbot", "--help"]'),
    )


def _fixed() -> list[Recipe]:
    """Give the recipes that do not depend on the release catalogue."""
    return [
        Recipe(
            name="base-bookworm",
            reference="hummingfleet/base-bookworm:1",
            suite="bookworm",
            usually="1 minute",
            include=("ca-certificates",),
            directory=IMAGES_DIR / "base",
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
            configuration=('CMD ["/bin/sh"]',),
        ),
        Recipe(
            name="base-trixie",
            reference="hummingfleet/base-trixie:1",
            suite="trixie",
            usually="1 minute",
            include=("ca-certificates", "python3", "python3-venv"),
            directory=IMAGES_DIR / "base",
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
            configuration=('CMD ["/bin/sh"]',),
        ),
        Recipe(
            name="postgres",
            reference="hummingfleet/postgres:15-1",
            suite="bookworm",
            usually="30 s",
            base="base-bookworm",
            directory=IMAGES_DIR / "postgres",
            environment={
                "PATH": f"/usr/lib/postgresql/15/bin:{_PATH}",
                "LANG": "C.UTF-8",
                "PG_MAJOR": "15",
                "PGDATA": "/var/lib/postgresql/data",
            },
            configuration=(
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["postgres"]',
                "STOPSIGNAL SIGINT",
                "EXPOSE 5432",
            ),
        ),
        Recipe(
            name="redis",
            reference="hummingfleet/redis:7-1",
            suite="bookworm",
            usually="15 s",
            base="base-bookworm",
            directory=IMAGES_DIR / "redis",
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
            configuration=(
                "WORKDIR /data",
                'ENTRYPOINT ["docker-entrypoint.sh"]',
                'CMD ["redis-server"]',
                "EXPOSE 6379",
            ),
        ),
        Recipe(
            name="mosquitto",
            reference="hummingfleet/mosquitto:2-1",
            suite="trixie",
            usually="15 s",
            base="base-trixie",
            directory=IMAGES_DIR / "mosquitto",
            environment={"PATH": _PATH, "LANG": "C.UTF-8"},
            configuration=(
                'CMD ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]',
                "EXPOSE 1883 8883",
            ),
        ),
        Recipe(
            name="sandbox",
            reference="hummingfleet/sandbox:1",
            suite="bookworm",
            usually="40 s",
            base="base-bookworm",
            directory=IMAGES_DIR / "sandbox",
            packages=PythonPackages(
                lock=IMAGES_DIR / "sandbox" / "lock.txt",
                python="3.11",
                requirements=tuple(_lines(IMAGES_DIR / "sandbox" / "requirements.in")),
            ),
            copies=((ROOT / "sandbox", "sandbox"),),
            environment={
                "PATH": f"/opt/sandbox/bin:{_PATH}",
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": "/opt/sandbox/app",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            configuration=(
                "WORKDIR /opt/sandbox/app",
                'CMD ["python", "-m", "sandbox", "--config", "/etc/sandbox/sandbox.json"]',
                "EXPOSE 443 9443",
            ),
        ),
        Recipe(
            name="standin",
            reference="hummingfleet/standin:1",
            suite="bookworm",
            usually="30 s",
            base="base-bookworm",
            directory=IMAGES_DIR / "standin",
            environment={"PATH": "/bin"},
            configuration=('CMD ["standin"]',),
            flat=True,
        ),
    ]


def _lines(path: Path) -> list[str]:
    """Give the lines of a requirements file without comments."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines()) if path.is_file() else ()
    return [line for line in lines if line]


def engine_builds(releases: Mapping[str, object]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Read (local image, PyPI version, overrides) of every release in the catalogue, each image once."""
    builds: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    for name, release in releases.items():
        engine = release.get("engine") if isinstance(release, Mapping) else None
        build = engine.get("build") if isinstance(engine, Mapping) else None
        if not isinstance(engine, Mapping) or not isinstance(build, Mapping):
            continue
        entry = (str(engine["local"]), str(build["hummingbot"]), tuple(str(o) for o in build.get("overrides") or ()))
        if builds.setdefault(entry[0], entry) != entry:
            raise BuildError(f"release {name}: image {entry[0]} is described differently by another release")
    return list(builds.values())


def load_recipes(catalogue_dir: Path | None = None, *, engines: Iterable[str] = ()) -> dict[str, Recipe]:
    """Give all recipes by name, bases first; engines are those that the release catalogue names.

    ``engines`` asks for further PyPI versions, for trying them out: a version that no release has is made with the
    newest release's overrides, its image is called hummingfleet/engine:<version>-compat, and its lock is resolved
    on this machine (``TRIAL_LOCKS_DIR``).
    """
    import yaml

    path = (catalogue_dir or ROOT / "catalogue") / "releases.yml"
    try:
        data = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise BuildError(f"the release catalogue {path} cannot be read: {error}") from error
    releases = data.get("releases", data) if isinstance(data, dict) else {}
    builds = engine_builds(releases)
    recipes = {recipe.name: recipe for recipe in [*_fixed(), *(_engine(*build) for build in builds)]}
    overrides = builds[-1][2] if builds else ()
    for version in engines:
        if not _VERSION.fullmatch(version):
            raise BuildError(f"{version!r} is no version of the engine; they are dates such as 20260922")
        reference = f"hummingfleet/engine:{version}-compat"
        older = _OVERRIDES_UNTIL.items()
        wanted = (*overrides, *(override for last, override in older if version <= last))
        trial = _engine(reference, version, wanted, family="engine-trial", locks=TRIAL_LOCKS_DIR)
        recipes.setdefault(trial.name, trial)
    return recipes


def select(recipes: Mapping[str, Recipe], names: Iterable[str]) -> list[Recipe]:
    """Give the recipes that names or image references ask for, each after its base; nothing asked gives all.

    ``engine`` alone stands for every engine in the catalogue.
    """
    wanted: list[Recipe] = []
    by_reference = {recipe.reference: recipe for recipe in recipes.values()}

    def add(recipe: Recipe) -> None:
        if recipe.base is not None:
            add(recipes[recipe.base])
        if recipe not in wanted:
            wanted.append(recipe)

    for name in list(names) or list(recipes):
        found = [recipe for recipe in recipes.values() if name in (recipe.name, recipe.family)]
        if not found and name in by_reference:
            found = [by_reference[name]]
        if not found:
            known = ", ".join([*recipes, *by_reference])
            raise BuildError(f"no image is called {name}; there are {known}")
        for recipe in found:
            add(recipe)
    return wanted


def inputs_hash(recipe: Recipe, recipes: Mapping[str, Recipe]) -> str:
    """Give the hash of everything an image is made of, its base included; equal hashes mean an equal image."""
    digest = hashlib.sha256(_SCHEMA.encode())
    if recipe.base is not None:
        digest.update(inputs_hash(recipes[recipe.base], recipes).encode())
    facts = {
        "reference": recipe.reference,
        "suite": recipe.suite,
        "include": recipe.include,
        "environment": dict(recipe.environment),
        "configuration": recipe.configuration,
        "flat": recipe.flat,
        "python": recipe.packages.python if recipe.packages else None,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    sources = [source for source, _ in recipe.copies]
    if recipe.directory is not None:
        sources += [recipe.directory / "install.sh", recipe.directory / "files"]
    if recipe.packages is not None:
        sources.append(recipe.packages.lock)
    for source in sources:
        for path in _files(source):
            mode = "x" if path.stat().st_mode & 0o111 else "-"
            digest.update(f"\0{path.relative_to(ROOT)}\0{mode}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _files(source: Path) -> list[Path]:
    """Give the files of a file or folder in a stable order, without caches."""
    if source.is_file():
        return [source]
    return sorted(
        path
        for path in source.rglob("*")
        if path.is_file() and not _IGNORED_DIRS.intersection(path.relative_to(source).parts) and path.suffix != ".pyc"
    )
