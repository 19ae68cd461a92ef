# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet serve``, ``worker`` and ``up``"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import base
from .base import Exit, OperationError, State, pass_state

if TYPE_CHECKING:
    from ..notify import Notifier

Function = TypeVar("Function", bound=Callable[..., Any])
# What ends with these codes before it was ready does so every time.
_HOPELESS = frozenset({int(Exit.USAGE), int(Exit.SETUP)})


def _log_option(function: Function) -> Function:
    return click.option(
        "--log-format", type=click.Choice(["text", "json"]), default=lambda: "text" if sys.stderr.isatty() else "json",
        help="Log lines for people or for programs.  [default: text on a terminal, else json]",
    )(function)  # fmt: skip


def _parent_option(function: Function) -> Function:
    return click.option("--follow-parent", type=int, hidden=True, help="End when this parent process ends.")(function)


@click.command(cls=base.FleetCommand)
@_log_option
@_parent_option
@base.json_option
@pass_state
def serve(state: State, log_format: str, follow_parent: int | None) -> None:
    """Run the web service: it takes the portal's signed events and answers for their state.

    Listens where the fleet file's webhook.listen says, and logs to standard error. SIGTERM finishes the requests in
    flight. It needs no key ring and should run as a user who cannot read one.
    """
    notifier = _begin("web", log_format, follow_parent)
    from ..service import serve as run

    run(state.installation, notifier)


@click.command(cls=base.FleetCommand)
@_log_option
@_parent_option
@base.json_option
@pass_state
def worker(state: State, log_format: str, follow_parent: int | None) -> None:
    """Run the worker: it brings tenants to their latest revision and delivers call-backs.

    SIGTERM lets its runs finish for the fleet file's webhook.grace_seconds, then cancels them and hands them back; a
    second one does so at once. Health and metrics are on webhook.worker_listen.
    """
    notifier = _begin("worker", log_format, follow_parent)
    from ..service import work as run

    run(state.installation, notifier)


@click.command(cls=base.FleetCommand)
@_log_option
@base.json_option
@pass_state
def up(state: State, log_format: str) -> None:
    """Run web service and worker on this machine, until Ctrl+C.

    Makes the webhook's secrets if there are none. One that dies is started again; one that keeps dying ends both, with
    code 1.
    """
    from ..logtext import readable
    from ..notify import Notifier
    from ..secrets_file import SecretsFile
    from ..supervisor import Program, Supervisor

    notifier = Notifier.from_environment()
    settings = state.installation.fleet.webhook
    text = log_format == "text"
    colours = text and sys.stderr.isatty()

    def show(name: str, line: str) -> None:
        print(readable(line, process=name, colours=colours) if text else line, file=sys.stderr, flush=True)

    def say(sentence: str) -> None:
        logging.getLogger("webhook.up").warning(sentence)

    def ready() -> None:
        notifier.ready("web service and worker run")
        for line in _welcome(state) if text else ():
            state.output.warn(line)

    _configure("up", log_format)
    if SecretsFile(settings.secrets_path).ensure(time.time()):
        say(
            f"made the webhook's secrets, {settings.secrets_path}: the portal signs with the inbound one and checks "
            "call-backs with the outbound one; hand both over as you would a password, with "
            "'hummingfleet webhook secret show' (docs/portal.md)"
        )
    # -P: whatever is called webhook in the working directory is not meant.
    command = [sys.executable, "-P", "-m", "webhook", "--fleet", str(state.installation.fleet.path)]
    options = ["--log-format", "json", "--follow-parent", str(os.getpid())]
    supervisor = Supervisor(
        [
            Program("web", [*command, "serve", *options], _HOPELESS),
            Program("worker", [*command, "worker", *options], _HOPELESS),
        ],
        grace_seconds=settings.grace_seconds,
        show=show,
        say=say,
        on_ready=ready,
    )
    code = supervisor.run()
    notifier.stopping("ended")
    if code:
        try:
            meaning = Exit(code)
        except ValueError:
            meaning = Exit.FAILED
        raise OperationError("web service and worker have ended; the lines above say why", meaning)


def _begin(process: str, log_format: str, follow_parent: int | None) -> Notifier:
    """Logging, and the ties to whoever started this process."""
    from ..notify import Notifier
    from ..service import follow_parent as follow

    notifier = Notifier.from_environment()
    if follow_parent is not None:
        follow(follow_parent)
    _configure(process, log_format)
    return notifier


def _configure(process: str, log_format: str) -> None:
    from .. import logs

    logs.configure(process)
    if log_format == "text":
        from ..logtext import TextFormatter

        for handler in logging.getLogger().handlers:
            handler.setFormatter(TextFormatter(process, colours=sys.stderr.isatty()))


def _welcome(state: State) -> list[str]:
    """What a person wants to know when both run."""
    from ..service import url_of

    settings = state.installation.fleet.webhook
    web, worker_at = url_of(settings.listen), url_of(settings.worker_listen)
    return [
        "",
        f"Hummingfleet takes events at {web}/v1/events; the worker's health is at {worker_at}/readyz.",
        "In another terminal:",
        "  hummingfleet event send --help      # send a signed event, as the portal does",
        "  hummingfleet event tail             # watch events come in and be applied",
        "  hummingfleet token create --help    # a token to read the status API with",
        "",
    ]
