"""Runs the engine tests against the last four monthly engine releases and writes docs/compatibility.md.

Usage: python tools/compat.py [--release VERSION ...] [--only TEXT ...] [--jobs N] [--again] [--report]

The releases are those of the package index that pip uses: of each of the last four months that have a release, its
newest. Each one's image is built and kept (hummingfleet/engine:<version>-compat; a version that the release catalogue
has keeps its name there), which takes 5 to 15 minutes the first time. Results are kept in var/compat.json test file by
test file: an interrupted run goes on where it was, and what passed is not run again while image, agent, templates and
tests are the same.
Exit codes: 0 every test passed, 1 something failed (the page says what), 2 wrong usage, 3 the index cannot be asked.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from images.builder import docker  # noqa: E402
from images.builder.errors import BuildError  # noqa: E402
from images.builder.progress import Progress  # noqa: E402
from images.builder.recipes import Recipe, load_recipes, select  # noqa: E402
from images.builder.work import Builder, cache_dir  # noqa: E402

TESTS_DIR = ROOT / "tests" / "engine"
PAGE = ROOT / "docs" / "compatibility.md"
NOTES = ROOT / "tools" / "compat_notes.yml"
CONNECTORS = ROOT / "catalogue" / "connectors.json"
STATE = ROOT / "var" / "compat.json"
MONTHS = 4

LEFT_OUT: Final = {
    "test_stack.py": "a whole stack runs the engine that its release names",
    "test_tenant_risk.py": "so do a tenant's bots under a worker",
}
"""Test files that do not run the engine under test, and why."""

INPUTS: Final = ("agent", "catalogue", "plugins/module_utils", "sandbox", "tests/engine", "tests/factories.py",
                 "tests/strategies_documents.py")  # fmt: skip
"""What a result depends on besides the image."""

_ORDERS: Final = r"test_limits::.*(order_limits|gate|rate_limit|far_beyond)"
_LOSSES: Final = r"test_limits::.*loss_limits"
ROWS: Final[Sequence[tuple[str, str]]] = (
    ("Template `grid`", r"^test_grid"),
    ("Template `dca`", r"^test_dca"),
    ("Template `signal_webhook`", r"^test_signal"),
    ("Template `pure_market_making`", r"^test_market_making"),
    ("An operator's own template", r"^test_script"),
    *((f"Limit `{name}`", _ORDERS) for name in ("max_position", "max_order", "max_open_orders", "price_band_pct")),
    *((f"Limit `{name}`", _LOSSES) for name in ("max_daily_loss", "max_drawdown", "max_drawdown_pct")),
    *((f"Limit `{name}`", _LOSSES) for name in ("close_position_on_halt", "earliest_resume_s")),
    ("Limit `kill_switch_pct`", r"^test_market_making::.*kill_switch"),
    *((f"200 random documents of `{name}` are loaded", rf"^test_random_documents::.*engine_loads.*\[{name}\]")
      for name in ("grid", "dca", "signal_webhook", "pure_market_making")),
    *((f"20 random documents of `{name}` trade", rf"^test_random_documents::.*first_orders.*\[{name}\]")
      for name in ("grid", "dca", "signal_webhook", "pure_market_making")),
    ("Random documents are refused", r"^test_random_documents::.*refuse"),
)  # fmt: skip
"""Title of a row, and what "file::test" has to match; a test may count in several rows, others get rows by file."""

FACTS_SCRIPT: Final = """
import importlib.metadata as metadata, json, pathlib, platform, hummingbot
version = (pathlib.Path(hummingbot.__file__).parent / "VERSION").read_text().strip()
packages = {name: metadata.version(name) for name in ("aiohttp", "numpy", "pandas", "pydantic", "SQLAlchemy")}
from hummingbot.client.settings import AllConnectorSettings
AllConnectorSettings.create_connector_settings()
connectors = {name: sorted({*type(setting.config_keys).model_fields} - {"connector"})
              for name, setting in AllConnectorSettings.get_connector_settings().items() if setting.config_keys}
print(json.dumps({"engine": version, "package": metadata.version("hummingbot"), "python": platform.python_version(),
                  "packages": packages, "connectors": connectors}))
"""


# Which releases ---------------------------------------------------------------------------------------------------


def monthly(versions: Iterable[str], months: int = MONTHS) -> list[str]:
    """The newest version of each of the last months that have one, newest first; versions are dates (20260922)."""
    newest: dict[str, str] = {}
    for version in versions:
        if re.fullmatch(r"20\d{6}", version):
            newest[version[:6]] = max(version, newest.get(version[:6], ""))
    return [newest[month] for month in sorted(newest, reverse=True)[:months]]


def parse_versions(said: str) -> list[str]:
    """The versions in what ``pip index versions`` prints."""
    match = re.search(r"^Available versions: (.+)$", said, re.MULTILINE)
    return [version.strip() for version in match.group(1).split(",")] if match else []


def ask_index() -> list[str]:
    """The engine's versions on pip's package index; SystemExit with a sentence where it cannot be asked."""
    command = [sys.executable, "-m", "pip", "index", "versions", "hummingbot"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    versions = parse_versions(done.stdout)
    if not versions:
        last = (done.stderr.strip().splitlines() or ["it printed no versions"])[-1]
        print(f"error: pip cannot list the engine's versions ({last}); name them with --release", file=sys.stderr)
        raise SystemExit(3)
    return versions


# Images -----------------------------------------------------------------------------------------------------------


def provide_image(version: str, progress: Progress) -> Recipe:
    """Builds the image of a version unless it is there, its lock included. Raises BuildError."""
    recipes = load_recipes(engines=[version])
    recipe = recipes[f"engine-{version}"]
    builder = Builder(recipes, cache=cache_dir(), progress=progress)
    if recipe.packages is not None and not recipe.packages.lock.exists():
        builder.relock([recipe])
    builder.build(select(recipes, [recipe.name]))
    return recipe


def image_facts(reference: str) -> dict[str, Any]:
    """What the image says about itself, and its id."""
    image = docker.find_image(reference)
    said = docker.run(["docker", "run", "--rm", "--network", "none", reference, "python", "-c", FACTS_SCRIPT])
    return {**json.loads(said.splitlines()[-1]), "id": image.id if image else ""}


# Tests ------------------------------------------------------------------------------------------------------------


def inputs_digest(image_id: str) -> str:
    """Changes with everything a result depends on."""
    digest = hashlib.sha256(image_id.encode())
    for name in INPUTS:
        place = ROOT / name
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def parse_results(junit: str) -> dict[str, dict[str, str]]:
    """Outcome and message of each test in a JUnit report, by ``file::test``."""
    results = {}
    for case in ElementTree.fromstring(junit).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                message = child.get("message") or (child.text or "")
        results[name] = {"outcome": outcome, "message": one_line(message)}
    return results


def one_line(message: str) -> str:
    """The first line of a message without this machine's paths, cut to 200 characters."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return re.sub(r"(/[\w.+@-]+){2,}/?", "…", line)[:200]


def run_file(path: Path, image: str, folder: Path, only: Sequence[str]) -> tuple[dict[str, dict[str, str]], float]:
    """Runs one test file against an image; results by test, and seconds. Its output is kept in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    report, log = folder / f"{path.stem}.xml", folder / f"{path.stem}.log"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(path), "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
    if only:
        command += ["-k", " or ".join(only)]
    began = time.monotonic()
    with log.open("wb") as handle:
        environment = {**os.environ, "HUMMINGFLEET_ENGINE_IMAGE": image}
        done = subprocess.run(command, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, env=environment, check=False)
    seconds = time.monotonic() - began
    if done.returncode == 5:  # nothing of this file was asked for
        return {}, seconds
    try:
        return parse_results(report.read_text()), seconds
    except (OSError, ElementTree.ParseError):
        tail = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        return {f"{path.stem}::all": {"outcome": "failed", "message": one_line(tail)}}, seconds


class Results:
    """var/compat.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.releases: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.releases = json.loads(path.read_text())["releases"]

    def of(self, version: str) -> dict[str, Any]:
        """What is known about a release."""
        return self.releases.setdefault(version, {"files": {}})

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".new")
            partial.write_text(json.dumps({"releases": self.releases}, indent=1, sort_keys=True) + "\n")
            partial.rename(self.path)

    def add(self, version: str, file: str, inputs: str, tests: Mapping[str, Any], seconds: float, whole: bool) -> None:
        """Takes over the results of a test file, or (not ``whole``) of some of its tests."""
        entry: dict[str, Any] = {
            "tests": dict(tests),
            "at": today(),
            "seconds": round(seconds),
            "inputs": inputs if whole else "",
        }
        with self._lock:
            files = self.of(version)["files"]
            if not whole and file in files:
                entry["tests"] = {**files[file]["tests"], **entry["tests"]}
            files[file] = entry
        self.save()


def today() -> str:
    """The day, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def is_done(entry: Mapping[str, Any] | None, inputs: str) -> bool:
    """Whether a file's results are of these inputs and need no other run."""
    return (
        entry is not None
        and entry["inputs"] == inputs
        and all(test["outcome"] != "failed" for test in entry["tests"].values())
    )


def test_release(version: str, results: Results, options: argparse.Namespace, progress: Progress) -> None:
    """Builds, asks and tests one release; everything that happens is in ``results``."""
    known = results.of(version)
    try:
        recipe = provide_image(version, progress)
        known["image"], known["facts"] = recipe.reference, image_facts(recipe.reference)
        known.pop("problem", None)
    except BuildError as error:
        known["problem"] = one_line(str(error))
        progress.say(version, f"no image: {known['problem']}")
        return
    finally:
        results.save()
    inputs = inputs_digest(known["facts"]["id"])
    files = [path for path in sorted(TESTS_DIR.glob("test_*.py")) if path.name not in LEFT_OUT]
    for gone in set(known["files"]) - {path.name for path in files}:
        del known["files"][gone]
    named = [path for path in files if any(text in path.stem for text in options.only)]
    parts = [] if named else options.only
    due = [
        path for path in named or files if options.again or parts or not is_done(known["files"].get(path.name), inputs)
    ]
    progress.say(version, f"{len(named or files) - len(due)} of {len(named or files)} test files are done")

    def run(path: Path) -> None:
        tests, seconds = run_file(path, known["image"], ROOT / "var" / "compat" / version, parts)
        if tests:
            results.add(version, path.name, inputs, tests, seconds, whole=not parts)
            progress.say(version, f"{path.name}: {tally(list(tests.values()))} in {seconds:.0f} s")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, due))


# The page ---------------------------------------------------------------------------------------------------------


def tally(tests: Sequence[Mapping[str, str]]) -> str:
    """``4 passed``, ``3 of 4`` or ``not run``."""
    ran = [test for test in tests if test["outcome"] != "skipped"]
    passed = sum(test["outcome"] == "passed" for test in ran)
    return "not run" if not ran else f"{passed} passed" if passed == len(ran) else f"**{passed} of {len(ran)}**"


def rows_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """Title and pattern of the page's rows, in order; tests that are in none get a row for their file."""
    names = sorted(names)
    rows = [(title, pattern) for title, pattern in ROWS if any(re.search(pattern, name) for name in names)]
    others = {name.partition("::")[0] for name in names if not any(re.search(pattern, name) for _, pattern in ROWS)}
    return rows + [(title_of(stem), f"^{re.escape(stem)}::") for stem in sorted(others)]


def title_of(stem: str) -> str:
    """A test file's first line about itself."""
    try:
        text = ast.get_docstring(ast.parse((TESTS_DIR / f"{stem}.py").read_text())) or stem
    except OSError:
        text = stem
    return text.splitlines()[0].rstrip(".")


def load_notes() -> list[dict[str, Any]]:
    """Why something fails, in words: ``releases``, ``tests`` (a pattern) and ``text`` of each entry."""
    return list(yaml.safe_load(NOTES.read_text()) or []) if NOTES.exists() else []


def page(releases: Mapping[str, Mapping[str, Any]], versions: Sequence[str], notes: Sequence[Mapping[str, Any]]) -> str:
    """The text of docs/compatibility.md."""
    tests = {v: {n: t for file in releases[v]["files"].values() for n, t in file["tests"].items()} for v in versions}
    lines = [HEAD.format(months=MONTHS, left_out="; ".join(f"`{file}` ({why})" for file, why in LEFT_OUT.items()))]
    lines += ["| release | engine's version | package | Python | packages | tested |", "| --- |" + " --- |" * 5]
    for version in versions:
        known = releases[version]
        facts = known.get("facts")
        if facts is None or "problem" in known:
            lines.append(f"| {version} | no image: {known.get('problem', 'not built yet')} | | | | |")
            continue
        packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
        days = sorted({file["at"] for file in known["files"].values()})
        when = "" if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        lines.append(
            f"| {version} | {facts['engine']} | {facts['package']} | {facts['python']} | {packages} | {when} |"
        )
    lines += [
        "",
        "## Connectors",
        "",
        "A bot on a connector that a release lacks, or has with other fields, cannot run",
    ]
    lines += ["on it.", "", *connector_table(releases, versions)]
    lines += ["", "## What passes", "", "| area | " + " | ".join(versions) + " |", "| --- |" + " --- |" * len(versions)]
    for title, pattern in rows_of({name for of_release in tests.values() for name in of_release}):
        cells = [tally([t for n, t in tests[v].items() if re.search(pattern, n)]) for v in versions]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "## What fails, and why", ""]
    return "\n".join([*lines, *failures(tests, notes)]) + "\n"


def connector_table(releases: Mapping[str, Mapping[str, Any]], versions: Sequence[str]) -> list[str]:
    """How each release's connectors differ from the catalogue's."""
    lines = ["| release | of the catalogue's connectors | lacks | has with other fields |", "| --- | --- | --- | --- |"]
    known = json.loads(CONNECTORS.read_text())
    wanted = {name: {field["name"] for field in entry["fields"]} for name, entry in known.items()}
    for version in versions:
        found = (releases[version].get("facts") or {}).get("connectors", {})
        if not found:
            continue
        lacks = sorted(set(wanted) - set(found))
        others = sorted(name for name in set(wanted) & set(found) if wanted[name] != set(found[name]))
        same = len(wanted) - len(lacks) - len(others)
        lines.append(f"| {version} | {same} of {len(wanted)} | {', '.join(lacks)} | {', '.join(others)} |")
    return lines


def failures(tests: Mapping[str, Mapping[str, Mapping[str, str]]], notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """One entry for each failed test: a note where somebody found out, else what the test said."""
    found: dict[str, list[str]] = {}
    for version, of_release in tests.items():
        for name, test in sorted(of_release.items()):
            if test["outcome"] != "failed":
                continue
            fits = [n for n in notes if version in map(str, n["releases"]) and re.search(n["tests"], name)]
            text = str(fits[0]["text"]) if fits else f"not looked into yet; the test says: {test['message']}"
            found.setdefault(f"`{name}`: {' '.join(text.split())}", []).append(version)
    return [f"- {', '.join(versions)}: {text}" for text, versions in found.items()] or ["Nothing."]


HEAD = """<!-- Written by tools/compat.py (make compat); change that, or tools/compat_notes.yml. -->

# Engine releases

Bots run the engine that their release names in `catalogue/releases.yml`. `make compat` tries the same agent,
templates and limits with the newest engine of each of the last {months} months that have one, so that going back to
an older engine, or on to a new one, is a known step: it builds an image of each (kept as
`hummingfleet/engine:<version>-compat`), runs the tests in `tests/engine` against it on the sandbox exchange, and
writes this page. The packages beside the engine are those that its requirements resolve to on the day its image is
first built, with the overrides of the newest release in the catalogue. A cell says how many tests of that area passed;
a test that concerns several areas counts in each of their rows. Left out: {left_out}.

Engines before 2.16 (20260616 and older) have neither `hbot` nor `hummingbot.client.runner`: the agent starts them by
itself, and `hbot status` and `hbot logs` are not there in their containers. The agent finds out by looking, not by
version.

An engine that passes here is not yet a release: add one to the catalogue, with a lock of its own
(`python images/build.py --relock`), and roll it out by rings.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="compat.py", description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", action="append", default=[], metavar="VERSION", help="this one (repeatable)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="test files, or else tests, whose name has it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="test files at a time, default 2")
    parser.add_argument("--again", action="store_true", help="run what has passed, too")
    parser.add_argument("--report", action="store_true", help="only write the page from the results there are")
    options = parser.parse_args(arguments)
    results, progress = Results(STATE), Progress()
    if options.report:
        versions = sorted(results.releases, reverse=True)
    else:
        versions = options.release or monthly(ask_index())
        progress.say("releases", ", ".join(versions))
        for version in versions:
            test_release(version, results, options, progress)
            PAGE.write_text(page(results.releases, sorted(results.releases, reverse=True), load_notes()))
        if not options.release:
            for old in set(results.releases) - set(versions):
                del results.releases[old]
            results.save()
    text = page(results.releases, sorted(results.releases, reverse=True), load_notes())
    PAGE.write_text(text)
    print(f"written: {PAGE.relative_to(ROOT)}")
    outcomes = [t["outcome"] for v in versions for f in results.of(v)["files"].values() for t in f["tests"].values()]
    return 1 if "failed" in outcomes or any("problem" in results.of(v) for v in versions) else 0


if __name__ == "__main__":
    sys.exit(main())
