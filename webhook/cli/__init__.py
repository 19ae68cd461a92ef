# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line ``hummingfleet``."""

from __future__ import annotations

from pathlib import Path

import click

from .base import EXIT_MEANINGS, LazyGroup, State

_COMMANDS = {
    "tenant": ("webhook.cli.tenant:tenant", "Tenants: apply, get, list, history, rollback, suspend, resume, remove."),
    "bot": ("webhook.cli.bot:bot", "Bots: start, stop, restart, resume, liquidate, status, logs."),
    "converge": ("webhook.cli.converge:converge", "Bring tenants to their latest revision."),
    "up": ("webhook.cli.service:up", "Run web service and worker on this machine."),
    "serve": ("webhook.cli.service:serve", "Run the web service that takes the portal's events."),
    "worker": ("webhook.cli.service:worker", "Run the worker that applies them."),
    "doctor": ("webhook.cli.doctor:doctor", "Check this installation and its nodes; say what to do."),
    "event": ("webhook.cli.event:event", "Events from the portal: send, list, show, retry, discard, tail, example."),
    "callback": ("webhook.cli.callback:callback", "Messages to the portal: list, show, resend."),
    "token": ("webhook.cli.token:token", "Bearer tokens of the status API: create, revoke, list."),
    "signal-token": (
        "webhook.cli.signal_token:signal_token",
        "Tokens that signals for a bot come with: new, list, revoke.",
    ),
    "webhook": ("webhook.cli.webhook:webhook", "The secrets that messages are signed with: rotate, list, show."),
    "credentials": ("webhook.cli.credentials:credentials", "Encrypt exchange credentials as a portal does."),
    "keyring": ("webhook.cli.credentials:keyring", "Make the fleet's key ring."),
    "demo": ("webhook.cli.demo:demo", "The whole thing on this machine: a tenant whose bot trades on a sandbox."),
}

_EPILOG = "Exit codes: " + "  ".join(
    f"{int(code)} {text.partition(':')[0].partition(';')[0].rstrip('.')}." for code, text in EXIT_MEANINGS.items()
)


@click.group(
    cls=LazyGroup,
    lazy=_COMMANDS,
    name="hummingfleet",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--fleet",
    "fleet_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="HUMMINGFLEET_FLEET",
    help="The fleet file; HUMMINGFLEET_FLEET names another default.  [default: inventories/local/fleet.tenants.yml]",
)
@click.version_option(package_name="hummingfleet", message="hummingfleet %(version)s")
@click.pass_context
def cli(ctx: click.Context, fleet_path: Path | None) -> None:
    """Runs Hummingbot for many customers: one Docker stack per tenant, brought to its desired state by Ansible."""
    if ctx.obj is None:
        ctx.obj = State(fleet_path.absolute() if fleet_path else None)


def main() -> None:
    """The console script."""
    cli(prog_name="hummingfleet")
