"""Build the fleet's container images without an image registry.

usage: python images/build.py [NAME ...] [--engine VERSION ...] [--check] [--force] [--relock] [--json]

A NAME is a recipe (base-bookworm, base-trixie, engine, mosquitto, postgres, redis, sandbox, standin) or an image
reference such as hummingfleet/postgres:15-1; none means all. An image whose inputs are unchanged is left alone. Needs
root, Docker and debootstrap. Exit codes: 0 done, 1 a build failed, 2 wrong usage; with --check 0 whether or not
something is due.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from images.builder.errors import BuildError
from images.builder.progress import Progress
from images.builder.recipes import load_recipes, select
from images.builder.work import Builder, Result, cache_dir


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; give the exit code."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="build.py", description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="VERSION", dest="engines",
        help="also know the engine of this PyPI version as engine-VERSION, although no release has it",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="say what would be built, and build nothing")
    parser.add_argument("--force", action="store_true", help="build anew, with today's Debian packages")
    parser.add_argument("--relock", action="store_true", help="resolve the locked Python packages anew, build nothing")
    parser.add_argument("--json", action="store_true", help="write the results to standard output as JSON")
    options = parser.parse_args(arguments)
    try:
        recipes = load_recipes(engines=options.engines)
        selected = select(recipes, options.names)
        builder = Builder(recipes, cache=cache_dir(), progress=Progress(), force=options.force)
        if options.relock:
            for path in builder.relock(selected):
                print(f"changed: {path}")
            return 0
        results = builder.check(selected) if options.check else builder.build(selected)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([result.plain() for result in results], indent=2))
    else:
        for result in results:
            print(_line(result, options.check))
    return 0


def _line(result: Result, check: bool) -> str:
    """Give one row of the table of results."""
    if result.changed:
        state = "would be built" if check else f"built in {result.seconds:.0f} s"
    else:
        state = "up to date"
    size = f"{result.size_mib} MiB" if result.size_mib is not None else "-"
    return f"{result.reference:<36} {size:>9}  {state}"


if __name__ == "__main__":
    sys.exit(main())
