# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet converge``"""

from __future__ import annotations

import click

from . import base
from .base import State, pass_state
from .converging import apply_now


@click.command(cls=base.FleetCommand)
@click.argument("tenants", metavar="[TENANT]...", nargs=-1)
@click.option("--deep", is_flag=True, help="Compare every file and container, so that edits by hand are repaired.")
@click.option("--check", is_flag=True, help="Predict what would change, and change nothing.")
@click.option("--diff", is_flag=True, help="Show how files change.")
@click.option("--limit", metavar="PATTERN", help="Ansible's own pattern, such as node_edge_1 or ring_canary.")
@base.json_option
@pass_state
def converge(state: State, tenants: tuple[str, ...], deep: bool, check: bool, diff: bool, limit: str | None) -> None:
    """Bring TENANTs (without any: the whole fleet) to their latest revision.

    Tenants that are where they should be cost nothing. With TENANTs the inventory reads just those.
    """
    registry = state.installation.registry
    for name in tenants:
        registry.get(name)
    wanted = sorted(set(tenants)) or None
    if wanted is None and limit is None and not registry.list():
        state.output.say("no tenants yet; store one with: hummingfleet tenant apply -f FILE")
        state.output.result({"tenants": [], "asked": 0, "changed": 0})
        return
    report = apply_now(state, wanted, deep=deep, check=check, diff=diff, limit=limit)
    state.output.result(report)
