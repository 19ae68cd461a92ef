# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet token ...``"""

from __future__ import annotations

import time
from typing import cast

import click

from . import base
from .base import Exit, OperationError, State, pass_state
from .times import Length

token = base.group("token", "Bearer tokens of the status API.")


@token.command()
@click.option("--scope", type=click.Choice(["portal", "operator", "read-only"]), required=True,
              help="What the bearer may do; docs/portal.md lists it.")  # fmt: skip
@click.option("--tenant", help="The token is good for this tenant alone.  [default: all tenants]")
@click.option("--note", default="", metavar="TEXT", help="Who has it, and what for.")
@click.option(
    "--expires", type=Length(), metavar="TIME", help="How long it is valid, such as 90d.  [default: for ever]"
)
@base.json_option
@pass_state
def create(state: State, scope: str, tenant: str | None, note: str, expires: float | None) -> None:
    """Make a token and print it, which happens only now: what is stored is a hash of it."""
    from ..tokens import Scope, TokenStore

    if tenant is not None and not state.installation.registry.list(only=[tenant]):
        raise OperationError(f"there is no tenant {tenant!r}; 'hummingfleet tenant list' shows them", Exit.NOT_FOUND)
    expires_at = None if expires is None else time.time() + expires
    token_id, text = TokenStore(state.installation.registry).create(cast(Scope, scope), tenant, note, expires_at)
    state.output.result({"id": token_id, "token": text})
    if not state.output.as_json:
        click.echo(text)
        state.output.warn(f"token {token_id}; keep it now, it cannot be shown again")


@token.command()
@click.argument("token_id", metavar="ID")
@base.json_option
@pass_state
def revoke(state: State, token_id: str) -> None:
    """Make a token worthless, from its next request on."""
    from ..tokens import TokenStore

    record = TokenStore(state.installation.registry).revoke(token_id)
    state.output.result(record.plain())
    state.output.say(f"token {record.id} was revoked at {record.revoked_at}")


@token.command("list")
@base.json_option
@pass_state
def list_(state: State) -> None:
    """List all tokens, the newest first, those that are worth nothing any more included."""
    from ..tokens import TokenStore

    now = time.time()
    found = TokenStore(state.installation.registry).list()
    state.output.result([{**record.plain(), "state": record.state(now)} for record in found])
    state.output.table(
        ("id", "scope", "tenant", "state", "created", "expires", "note"),
        [
            (one.id, one.scope, one.tenant or "all", one.state(now), one.created_at, one.expires_at, one.note)
            for one in found
        ],
        wrap=("note",),
        empty="no tokens",
    )
