# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet webhook ...``"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import click

from ..text import duration
from . import base
from .base import Exit, Function, OperationError, State, pass_state
from .times import Length

if TYPE_CHECKING:
    from ..secrets_file import Direction, SecretsFile

webhook = base.group("webhook", "The webhook's own settings.")
secret = base.group("secret", "Secrets that messages from and to the portal are signed with.")
webhook.add_command(secret)

_DIRECTIONS = click.Choice(["inbound", "outbound"])
_ALL_DIRECTIONS = click.Choice(["inbound", "outbound", "signals"])
_DEFAULT_OVERLAP = "24h"


_HELP = "inbound: the portal signs its events; outbound: the portal verifies call-backs"


def _direction_option(choices: click.Choice[str], text: str) -> Callable[[Function], Function]:
    return click.option("--direction", type=choices, default="inbound", show_default=True, help=text)


@secret.command()
@_direction_option(_ALL_DIRECTIONS, f"{_HELP}; signals: what the secrets of those who sign signals are derived from.")
@click.option("--overlap", type=Length(), default=_DEFAULT_OVERLAP, show_default=True, metavar="TIME",
              help="How long the secrets before stay accepted; 0s if they have leaked.")  # fmt: skip
@base.json_option
@pass_state
def rotate(state: State, direction: str, overlap: float) -> None:
    """Make a new secret; nothing has to be restarted. Without any yet, make one for each direction.

    Inbound: hand the new one ('webhook secret show') to the portal before the overlap ends. Outbound: until then
    call-backs carry a signature of both, so that the portal can change when it likes. Signals: every sender who signs
    needs a new secret before the overlap ends ('signal-token new').
    """
    file = _file(state)
    made = file.rotate(cast("Direction", direction), overlap, time.time())
    state.output.result({"id": made.id, "direction": direction, "created_at": made.created_at})
    until = ""
    if len(file.secrets(cast("Direction", direction))) > 1:
        until = f"; those before it are accepted for another {duration(overlap)}"
    state.output.say(f"{made.id} is the {direction} secret from now on{until}")
    if direction == "signals":
        state.output.say("senders who sign get their new secrets with: hummingfleet signal-token new TENANT BOT")
    else:
        state.output.say(f"hand it to the portal: hummingfleet webhook secret show --direction {direction}")


@secret.command("list")
@click.option("--direction", type=_ALL_DIRECTIONS, help="Only these.  [default: all]")
@base.json_option
@pass_state
def list_(state: State, direction: str | None) -> None:
    """List the secrets with their times, and never themselves."""
    from ..secrets_file import DIRECTIONS

    file, now = _file(state), time.time()
    rows = [
        (one, found.id, found.created_at, found.retire_at, "accepted" if found.is_active(now) else "retired")
        for one in DIRECTIONS
        if direction in (None, one)
        for found in file.secrets(one)
    ]
    columns = ("direction", "id", "created_at", "retire_at", "state")
    state.output.result([dict(zip(columns, row, strict=True)) for row in rows])
    state.output.table(("direction", "id", "created (UTC)", "retires (UTC)", "state"), rows, empty="no secrets")


@secret.command()
@_direction_option(_DIRECTIONS, f"{_HELP}.")
@click.option("--yes", is_flag=True, help="Also into a file or a pipe.")
@base.json_option
@pass_state
def show(state: State, direction: str, yes: bool) -> None:
    """Print the newest secret of a direction, to be handed to the portal; to a terminal only, unless --yes is given."""
    if not yes and not sys.stdout.isatty():
        raise OperationError("standard output is no terminal; --yes prints the secret all the same", Exit.USAGE)
    found = _file(state).current(cast("Direction", direction))
    state.output.result({"id": found.id, "direction": direction, "secret": found.secret})
    state.output.say(found.secret)


def _file(state: State) -> SecretsFile:
    from ..secrets_file import SecretsFile

    return SecretsFile(state.installation.fleet.webhook.secrets_path)
