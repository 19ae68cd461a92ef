"""Builds images: skips what is up to date, caches what is expensive, reports what it does."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import docker, machine, wheels
from .errors import BuildError
from .progress import Progress
from .recipes import IMAGES_DIR, Recipe, inputs_hash


@dataclass(frozen=True)
class Result:
    """What happened to one image. ``seconds`` is None where nothing was done; ``id`` is None where it is missing."""

    name: str
    reference: str
    inputs: str
    changed: bool
    id: str | None
    size_mib: int | None
    seconds: float | None

    def plain(self) -> dict[str, object]:
        """Give the result as JSON-plain values."""
        return asdict(self)


def cache_dir() -> Path:
    """Give the folder for wheels, packages and root file systems (``HUMMINGFLEET_CACHE_DIR``)."""
    return Path(os.environ.get("HUMMINGFLEET_CACHE_DIR") or "~/.cache/hummingfleet").expanduser().absolute()


class Builder:
    """Builds recipes with the local Docker engine."""

    def __init__(self, recipes: Mapping[str, Recipe], *, cache: Path, progress: Progress, force: bool = False) -> None:
        self._recipes = recipes
        self._cache = cache
        self._progress = progress
        self._force = force

    def check(self, selected: Sequence[Recipe]) -> list[Result]:
        """Tell what a build would do, without doing it."""
        return [self._result(recipe, changed=not self._is_current(recipe)) for recipe in self._needed(selected)]

    def build(self, selected: Sequence[Recipe]) -> list[Result]:
        """Build what is missing or out of date; one build at a time on this machine."""
        with self._exclusively():
            return [self._bring_up_to_date(recipe) for recipe in self._needed(selected)]

    def relock(self, selected: Sequence[Recipe]) -> list[Path]:
        """Resolve the locks of the selected recipes anew; give those that changed."""
        changed = []
        with self._exclusively():
            for recipe in selected:
                if recipe.packages is None:
                    continue
                base = self._base(recipe)
                self._bring_up_to_date(base)
                with self._work_dir(recipe) as work:
                    if wheels.relock(
                        recipe, base, cache=self._cache, work=work, log=self._log(recipe), progress=self._progress
                    ):
                        changed.append(recipe.packages.lock)
        return changed

    def _needed(self, selected: Sequence[Recipe]) -> list[Recipe]:
        """Leave out bases that nothing out of date needs, so that a machine with finished images builds no base."""
        stale = {r.name for r in selected if r.base is not None and (self._force or not self._is_current(r))}
        bases = {r.base for r in selected if r.name in stale}
        all_bases = {r.base for r in selected if r.base is not None}
        return [r for r in selected if r.name not in all_bases or r.name in bases]

    def _bring_up_to_date(self, recipe: Recipe) -> Result:
        if not self._force and self._is_current(recipe):
            self._progress.say(recipe.name, f"{recipe.reference} is up to date")
            return self._result(recipe, changed=False)
        started = time.monotonic()
        self._progress.say(recipe.name, f"build {recipe.reference} (usually {recipe.usually})")
        self._log(recipe).unlink(missing_ok=True)
        with self._work_dir(recipe) as work:
            if recipe.base is None:
                self._build_base(recipe, work)
            else:
                self._build_derived(recipe, work)
        return self._result(recipe, changed=True, seconds=round(time.monotonic() - started, 1))

    def _build_base(self, recipe: Recipe, work: Path) -> None:
        """Make a Debian root file system with debootstrap, bring it up to date, and flatten it into one layer."""
        tar = self._cache / "rootfs" / f"{recipe.name}-{self._inputs(recipe)}.tar"
        log = self._log(recipe)
        if self._force or not tar.exists():
            mirrors = machine.find_mirrors()
            tar.parent.mkdir(parents=True, exist_ok=True)
            _require("debootstrap", "tar")
            if os.geteuid() != 0:
                raise BuildError(f"{recipe.name}: debootstrap works for root only; run the build as root")
            rootfs = work.parent / f"rootfs-{recipe.name}"
            first = f"hummingfleet/building:{recipe.name}"
            try:
                with self._progress.step(recipe.name, f"debootstrap Debian {recipe.suite}", usually="40 s", log=log):
                    environment = {**os.environ, **machine.find_proxies()}
                    command = ["debootstrap", "--variant=minbase", f"--include={','.join(recipe.include)}"]
                    with log.open("ab") as handle:
                        done = subprocess.run(
                            [*command, recipe.suite, str(rootfs), mirrors.main],
                            stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, env=environment,
                        )  # fmt: skip
                    if done.returncode != 0:
                        raise BuildError(f"debootstrap of {recipe.suite} failed; the whole log is {log}")
                    raw = work.parent / f"raw-{recipe.name}.tar"
                    docker.run(["tar", "--numeric-owner", "--one-file-system", "-C", rootfs, "-cf", raw, "."])
                    docker.import_tar(raw, first, ())
                    raw.unlink()
                with (
                    self._progress.step(recipe.name, "apply updates", usually="20 s", log=log),
                    self._container(recipe, first, work) as container,
                ):
                    partial = tar.with_suffix(".partial")
                    docker.run(["docker", "export", "--output", partial, container])
                    partial.rename(tar)
            finally:
                shutil.rmtree(rootfs, ignore_errors=True)
                if docker.find_image(first):
                    docker.run(["docker", "image", "rm", "--force", first])
            for old in tar.parent.glob(f"{recipe.name}-*.tar"):
                if old != tar:
                    old.unlink()
        docker.import_tar(tar, recipe.reference, self._configuration(recipe))

    def _build_derived(self, recipe: Recipe, work: Path) -> None:
        """Run the install script in a container of the base image and commit what it leaves behind."""
        base = self._base(recipe)
        log = self._log(recipe)
        wheelhouse = None
        if recipe.packages is not None:
            wheelhouse = wheels.provide(recipe, base, cache=self._cache, work=work, log=log, progress=self._progress)
            pins = wheels.parse_lock(wheels.read_lock(recipe.packages))
            (work / "packages.txt").write_text("\n".join(pins) + "\n")
        with (
            self._progress.step(recipe.name, "install", log=log),
            self._container(recipe, base.reference, work, wheelhouse) as container,
        ):
            if recipe.flat:
                tar = work / "flat.tar"
                with tar.open("wb") as handle:
                    done = subprocess.run(["docker", "cp", f"{container}:/out/.", "-"], stdout=handle)
                if done.returncode != 0:
                    raise BuildError(f"{recipe.name}: its files could not be copied out of the build container")
                docker.import_tar(tar, recipe.reference, self._configuration(recipe))
            else:
                docker.commit(container, recipe.reference, self._configuration(recipe))

    @contextmanager
    def _container(self, recipe: Recipe, image: str, work: Path, wheelhouse: Path | None = None) -> Iterator[str]:
        """Run a recipe's install script; give the stopped container."""
        if recipe.directory is None:
            raise BuildError(f"image {recipe.name} has no folder with an install script")
        for source, target in recipe.copies:
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "tests")
            shutil.copytree(source, work / "copies" / target, ignore=ignore)
        if (recipe.directory / "files").is_dir():
            shutil.copytree(recipe.directory / "files", work / "files")
        script = (IMAGES_DIR / "common.sh").read_text() + (recipe.directory / "install.sh").read_text()
        archives = self._cache / "apt" / recipe.suite
        archives.mkdir(parents=True, exist_ok=True)
        mounts = [(work, machine.BUILD_DIR, False), (archives, "/run/apt-archives", True)]
        if wheelhouse is not None:
            mounts.append((wheelhouse, "/run/wheels", False))
        with docker.container(image, script, mounts=mounts, log=self._log(recipe)) as container:
            yield container

    def _configuration(self, recipe: Recipe) -> list[str]:
        inputs = docker.label(docker.INPUTS_LABEL, self._inputs(recipe))
        return [*docker.env(recipe.environment), *recipe.configuration, inputs]

    def _is_current(self, recipe: Recipe) -> bool:
        image = docker.find_image(recipe.reference)
        return image is not None and image.inputs == self._inputs(recipe)

    def _result(self, recipe: Recipe, *, changed: bool, seconds: float | None = None) -> Result:
        image = docker.find_image(recipe.reference)
        return Result(
            name=recipe.name,
            reference=recipe.reference,
            inputs=self._inputs(recipe),
            changed=changed,
            id=image.id if image else None,
            size_mib=image.size_bytes // 2**20 if image else None,
            seconds=seconds,
        )

    def _inputs(self, recipe: Recipe) -> str:
        return inputs_hash(recipe, self._recipes)

    def _base(self, recipe: Recipe) -> Recipe:
        if recipe.base is None:
            raise BuildError(f"image {recipe.name} has no base image")
        return self._recipes[recipe.base]

    def _log(self, recipe: Recipe) -> Path:
        path = self._cache / "logs" / f"{recipe.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def _work_dir(self, recipe: Recipe) -> Iterator[Path]:
        """Give a private folder with what this machine lends a build container."""
        parent = self._cache / "work"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{recipe.name}-", dir=parent) as name:
            work = Path(name) / "build"
            machine.build_files(recipe.suite, work)
            yield work

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Wait until no other build uses the cache."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._progress.say("images", f"wait for another build that uses {self._cache} ...")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _require(*commands: str) -> None:
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        raise BuildError(f"building needs {', '.join(missing)}; run: apt-get install {' '.join(missing)}")
