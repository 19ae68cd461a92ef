# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet callback ...``"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import click

from . import base
from .base import State, pass_state

if TYPE_CHECKING:
    from ..callbacks import CallbackState, Outbox

callback = base.group("callback", "Messages to the portal: what was delivered, and what waits.")


@callback.command("list")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--state", "wanted", type=click.Choice(["pending", "delivered", "given_up"]), help="Only these.")
@click.option("--after", type=int, metavar="NUMBER", help="Only those before this number: the next page.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@base.json_option
@pass_state
def list_(state: State, tenant: str | None, wanted: str | None, after: int | None, limit: int) -> None:
    """List call-backs, the newest first."""
    found = _outbox(state).list(tenant, cast("CallbackState | None", wanted), after, limit)
    plain = [one.plain() for one in found]
    state.output.result(plain)
    state.output.table(
        ("number", "tenant", "type", "state", "attempts", "created (UTC)", "next attempt (UTC)", "last error"),
        [
            (
                one["number"],
                one["tenant"],
                one["type"],
                one["state"],
                one["attempts"],
                one["created_at"],
                one["next_attempt_at"],
                one["last_error"],
            )
            for one in plain
        ],
        wrap=("last error",),
        empty="no call-backs",
    )
    if len(found) == limit:
        state.output.warn(f"perhaps there are more: --after {found[-1].number}")


@callback.command()
@click.argument("number", type=int)
@base.json_option
@pass_state
def show(state: State, number: int) -> None:
    """Show a call-back with its body."""
    plain = _outbox(state).get(number).plain()
    state.output.result(plain)
    for name, value in plain.items():
        if name != "body":
            state.output.say(f"{name}: {'-' if value is None else value}")
    state.output.say(json.dumps(plain["body"], indent=2))


@callback.command()
@click.argument("number", type=int)
@base.json_option
@pass_state
def resend(state: State, number: int) -> None:
    """Deliver a call-back again, or now: under its id, before its tenant's newer ones.

    Also one that was delivered or given up; the portal knows it by its id.
    """
    found = _outbox(state).resend(number)
    state.output.result(found.plain())
    state.output.say(f"call-back {number} ({found.type}, {found.tenant}) is going to be sent")


def _outbox(state: State) -> Outbox:
    from ..callbacks import Outbox

    return Outbox(state.installation.registry)
