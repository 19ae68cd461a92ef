# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet doctor``"""

from __future__ import annotations

from dataclasses import asdict

import click

from ..text import shown
from . import base
from .base import Exit, State, pass_state

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(cls=base.FleetCommand)
@click.option("--no-nodes", is_flag=True, help="Look at this machine's files only; ask no node.")
@base.json_option
@click.pass_context
@pass_state
def doctor(state: State, ctx: click.Context, no_nodes: bool) -> None:
    """Check fleet file, catalogue, key ring, registry, events and nodes; say what to do.

    Ends with 1 if a check failed; warnings are none.
    """
    from ..doctor import Check, Level, examine

    checks: list[Check] = []
    for check in examine(state.installation, state.run, nodes=not no_nodes):
        checks.append(check)
        if not state.output.as_json:
            click.echo(click.style(f"{check.level:<5}", fg=_COLOURS[check.level]), nl=False)
            state.output.say(f" {check.subject}: {shown(check.finding)}")
            if check.level is not Level.OK and check.action:
                state.output.say(f"      -> {check.action}")
    state.output.result([asdict(check) for check in checks])
    failed = any(check.level is Level.FAIL for check in checks)
    ctx.exit(int(Exit.FAILED if failed else Exit.OK))
