# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet demo ...``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..text import duration
from . import base
from .base import State, pass_state

if TYPE_CHECKING:
    from ..demo import Demo

demo = base.group("demo", "The whole thing on this machine: a tenant whose bot trades on a sandbox exchange.")


@demo.command()
@click.option("--all-steps", is_flag=True, help="Run every playbook, even if nothing has changed since the last run.")
@base.json_option
@pass_state
def up(state: State, all_steps: bool) -> None:
    """Make this machine a node and provision tenant 'demo', whose grid bot trades on the sandbox exchange.

    Needs root. A second run changes nothing; an interrupted one goes on where it stopped.
    """
    from ..demo import next_steps

    report = _demo(state).up(all_steps=all_steps)
    state.output.result(report)
    _show(state, report)
    total = report["changed"]["total"]
    per_playbook = ", ".join(f"{name} {count}" for name, count in report["changed"].items() if name != "total")
    state.output.say(f"changed={total} ({per_playbook})")
    state.output.say("")
    state.output.table(
        ("step", "took", "result"),
        [(s["title"], duration(s["seconds"]), s["note"]) for s in report["steps"]],
        wrap=("step", "result"),
    )
