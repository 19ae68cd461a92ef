# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet signal-token ...``"""

from __future__ import annotations

import time

import click
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import UnknownTenantError

from ..text import duration
from . import base
from .base import Exit, OperationError, State, pass_state
from .times import Length

signal_token = base.group("signal-token", "Tokens that signals for a bot come with; docs/signals.md.")


@signal_token.command()
@click.argument("tenant")
@click.argument("bot")
@click.option("--overlap", type=Length(), default="24h", show_default=True, metavar="TIME",
              help="How long the bot's tokens before stay good; 0s if they have leaked.")  # fmt: skip
@base.json_option
@pass_state
def new(state: State, tenant: str, bot: str, overlap: float) -> None:
    """Make a bot's new token and print it, which happens only now: what is stored is a hash of it.

    The bot's other tokens end with the overlap. Beside it stands the secret for senders who sign their signals instead
    of showing the token.
    """
    from ..secrets_file import SecretsError, SecretsFile
    from ..signal_log import SignalLog
    from ..signal_tokens import SignalTokens, signing_secrets

    here = state.installation
    try:
        receiver = SignalLog(here.registry).receiver(tenant, bot)
    except UnknownTenantError:
        text = f"there is no tenant {tenant!r}; 'hummingfleet tenant list' shows them"
        raise OperationError(text, Exit.NOT_FOUND) from None
    if receiver.obstacle is not None and receiver.obstacle.code == "no_bot":
        text = f"tenant {tenant} has no bot {bot!r}; 'hummingfleet bot status {tenant}' shows them"
        raise OperationError(text, Exit.NOT_FOUND)
    if not receiver.takes_signals:
        raise OperationError(f"bot {bot} of tenant {tenant} has a strategy that takes no signals", Exit.REFUSED)
    made = SignalTokens(here.registry).create(tenant, bot, overlap)
    now = time.time()
    try:
        signing = signing_secrets(SecretsFile(here.fleet.webhook.secrets_path), made.token, now)[-1:]
    except SecretsError as error:
        signing = []
        state.output.warn(f"there is no signing secret for it: {error}")
    secret = signing[0] if signing else None
    state.output.result({**made.token.plain(now), "token": made.text, "signing_secret": secret})
    state.output.say(f"token           {made.text}")
    if secret is not None:
        state.output.say(f"signing secret  {secret}")
    if not state.output.as_json:
        others = len([one for one in SignalTokens(here.registry).list(tenant, bot) if one.state(now) == "valid"]) - 1
        ends = f"; {others} other(s) of the bot end within {duration(overlap)}" if others else ""
        state.output.warn(f"token {made.token.id}; keep it now, it cannot be shown again{ends}")


@signal_token.command("list")
@click.argument("tenant", required=False)
@click.argument("bot", required=False)
@base.json_option
@pass_state
def list_(state: State, tenant: str | None, bot: str | None) -> None:
    """List the tokens of a bot, a tenant or all, those that are worth nothing any more included."""
    from ..signal_tokens import SignalTokens

    now = time.time()
    found = SignalTokens(state.installation.registry).list(tenant, bot)
    state.output.result([token.plain(now) for token in found])
    state.output.table(
        ("id", "tenant", "bot", "generation", "state", "created", "expires"),
        [
            (one.id, one.tenant, one.bot, one.generation, one.state(now), one.created_at, one.expires_at)
            for one in found
        ],
        empty="no signal tokens",
    )


@signal_token.command()
@click.argument("token_id", metavar="ID")
@base.json_option
@pass_state
def revoke(state: State, token_id: str) -> None:
    """Make a token worthless, and with it its signing secret, from the next signal on."""
    from ..signal_tokens import SignalTokens

    token = SignalTokens(state.installation.registry).revoke(token_id)
    state.output.result(token.plain(time.time()))
    state.output.say(f"signal token {token.id} was revoked at {token.revoked_at}")
