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
    state.output.say("")
    state.output.table(
        ("step", "took", "result"),
        [(s["title"], duration(s["seconds"]), s["note"]) for s in report["steps"]],
        wrap=("step", "result"),
    )
    state.output.say("")
    _show(state, report)
    total = report["changed"]["total"]
    parts = ", ".join(f"{name} {count}" for name, count in report["changed"].items() if name != "total")
    state.output.say(f"\nchanged={total} ({parts}) in {duration(report['seconds'])}; see var/demo/report.json")
    state.output.say("\nWhat to try next:")
    for what, command in next_steps():
        state.output.say(f"  {command:<52}  # {what}")


@demo.command()
@base.json_option
@pass_state
def down(state: State) -> None:
    """Remove the demonstration: bots stopped in the safe order, stack, network, sandbox exchange, files."""
    kept = _demo(state).down()
    state.output.say("The demonstration is removed. What stays:")
    for line in kept:
        state.output.say(f"- {line}")
    state.output.result({"removed": True, "kept": kept})


@demo.command()
@base.json_option
@pass_state
def status(state: State) -> None:
    """Show what the demonstration's bot does now."""
    facts = _demo(state).status()
    state.output.result(facts)
    if facts["state"] == "absent":
        state.output.say("the demonstration is not there; run: make demo")
        return
    _show(state, facts)


def _demo(state: State) -> Demo:
    from ..demo import Demo

    return Demo(state.installation, state.run, state.progress())


def _show(state: State, facts: dict[str, Any]) -> None:
    exchange = facts["exchange"]
    signatures = f"{exchange['good_signatures']} good, {exchange['bad_signatures']} bad" if exchange else None
    state.output.table(
        ("tenant", "bot", "engine version", "state", "orders open", "fills", "position (BTC)", "signatures"),
        [
            (
                facts["tenant"],
                facts["bot"],
                facts["engine_version"],
                facts["state"],
                facts["open_orders"],
                facts["fills"],
                facts["position"],
                signatures,
            )
        ],
    )
