# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/cli.md, written from the commands themselves: ``python -m webhook.cli.reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator

import click

from . import cli
from .base import EXIT_MEANINGS

_HEAD = """\
# The command line

<!-- Written by `python -m webhook.cli.reference > docs/cli.md`; a test keeps it in step. -->

`hummingfleet` is in `.venv/bin` after `make venv`. It works on the installation that its fleet file describes:
`--fleet FILE`, else the environment variable `HUMMINGFLEET_FLEET`, else `inventories/local/fleet.tenants.yml`.

- Every command has `--json`: one JSON value on standard output, also for errors (`{"error": {"message", "code",
  "faults"}}`). Progress goes to standard error: a live line on a terminal, plain lines elsewhere.
- Every change is a revision in the registry first, with its cause (`--reason`) and who asked, and then applied by a
  converge. So a converge that fails loses nothing: `hummingfleet converge TENANT` goes on.
- A converge of named tenants reads just those from the registry, however large the fleet is.
- What portals, exchanges and bots wrote is displayed without control characters and never evaluated.

## Exit codes

| code | meaning |
| --- | --- |
"""


def write() -> str:
    """The page."""
    codes = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in EXIT_MEANINGS.items())
    return _HEAD + codes + "\n## Commands\n" + "".join(_commands(cli, ("hummingfleet",)))


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(words))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _commands(found, (*words, name))
        return
    usage = " ".join([*words, *command.collect_usage_pieces(context)])
    yield f"\n### {' '.join(words)}\n\n"
    yield f"```\n{usage}\n```\n\n"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n")) + "\n\n"
    yield "| option | |\n| --- | --- |\n"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            option, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
            yield f"| `{option}` | {text} |\n"


if __name__ == "__main__":
    print(write(), end="")
