# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands share: lazy loading, exit codes, one way to show results and errors."""

from __future__ import annotations

import enum
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import FaultsError, HummingfleetError

from ..installation import Installation
from ..progress import Progress
from ..text import shown, shown_lines

_WRAP_MIN = 14  # characters that a column keeps when its text is broken into lines

Function = TypeVar("Function", bound=Callable[..., Any])


class Exit(enum.IntEnum):
    """Exit codes, the same for every command; docs/cli.md lists them for people."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    BUSY = 6
    SETUP = 7
    INTERRUPTED = 130


EXIT_MEANINGS: dict[Exit, str] = {
    Exit.OK: "Done, also when there was nothing to do.",
    Exit.FAILED: "The operation failed; the message says what and what to do.",
    Exit.USAGE: "Wrong usage: an unknown command, option or value.",
    Exit.REFUSED: "A document was refused, or no node has room; each fault names field, problem and what is allowed.",
    Exit.NOT_FOUND: "There is no such tenant, bot or revision.",
    Exit.UNREACHABLE: "A node or its Docker engine could not be reached.",
    Exit.BUSY: "Another run is working on the tenant; try again when it has finished.",
    Exit.SETUP: "The installation itself is at fault: fleet file, catalogue, key ring or registry.",
    Exit.INTERRUPTED: "Interrupted with Ctrl+C.",
}

# By class name, so that showing an error imports nothing; the nearest class of the error's family decides.
_CODES: dict[str, Exit] = {
    "DocumentError": Exit.REFUSED,
    "PlacementError": Exit.REFUSED,
    "CredentialError": Exit.REFUSED,
    "UnknownTenantError": Exit.NOT_FOUND,
    "UnknownBotError": Exit.NOT_FOUND,
    "UnknownEventError": Exit.NOT_FOUND,
    "UnknownTokenError": Exit.NOT_FOUND,
    "UnknownCallbackError": Exit.NOT_FOUND,
    "EventStateError": Exit.REFUSED,
    "CallbackStateError": Exit.REFUSED,
    "UnreachableError": Exit.UNREACHABLE,
    "LeaseError": Exit.BUSY,
    "RevisionConflictError": Exit.FAILED,
    "RunCancelledError": Exit.INTERRUPTED,
    "FleetError": Exit.SETUP,
    "CatalogueError": Exit.SETUP,
    "KeyRingError": Exit.SETUP,
    "RegistryError": Exit.SETUP,
    "SecretsError": Exit.SETUP,
    "InstallationError": Exit.SETUP,
}


class UnreachableError(HummingfleetError):
    """A node, or the Docker engine on it, did not answer."""


class OperationError(HummingfleetError):
    """What was asked for did not succeed; ``code`` is the exit code."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def exit_code(error: BaseException) -> Exit:
    """The exit code for an error."""
    if isinstance(error, OperationError):
        return error.code
    for kind in type(error).__mro__:
        if kind.__name__ in _CODES:
            return _CODES[kind.__name__]
    return Exit.FAILED


class Output:
    """Where results go: tables and sentences for people, or one JSON value on standard output for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, value: Any) -> None:
        """The command's result for programs; people are shown something else."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, default=str))

    def say(self, text: str) -> None:
        """A sentence for people; lines are kept, everything else that could steer a terminal is not."""
        if not self.as_json:
            click.echo(shown_lines(text))

    def warn(self, text: str) -> None:
        """A sentence that must be seen, on standard error."""
        click.echo(shown_lines(text), err=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        wrap: Sequence[str] = (),
        empty: str = "nothing",
    ) -> None:
        """Rows for people; cells are data and never markup. ``wrap`` names columns that may be broken into lines."""
        if self.as_json:
            return
        cells = [[("-" if value is None or value == "" else shown(value)) for value in row] for row in rows]
        if not cells:
            click.echo(empty)
            return
        import shutil

        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), header_style="bold")
        widths = []
        for column, values in zip(columns, zip(*cells, strict=True), strict=True):
            full = max(len(column), *(max(map(len, value.split("\n"))) for value in values))
            widths.append((min(full, _WRAP_MIN) if column in wrap else full) + 3)
            table.add_column(column, no_wrap=column not in wrap, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        # A line that is cut would be wrong; one that the terminal breaks is only ugly. Without a terminal (a pipe)
        # lines are as long as they need to be.
        longest = sum(max(map(len, column)) + 3 for column in zip(columns, *cells, strict=True))
        terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else longest
        Console(width=max(terminal, sum(widths)), highlight=False).print(table)

    def error(self, error: BaseException, code: Exit) -> None:
        """An error, in one clear sentence and, for a refused document, one line per fault."""
        message = str(error)
        if self.as_json:
            plain: dict[str, Any] = {"message": message, "code": int(code)}
            if isinstance(error, FaultsError):
                plain["message"] = error.subject
                plain["faults"] = [fault.plain() for fault in error.faults]
            click.echo(json.dumps({"error": plain}, indent=2))
        else:
            click.echo(f"error: {shown_lines(message)}", err=True)


class State:
    """What the main command hands down: the installation, and how to report."""

    def __init__(self, fleet_path: Path | None = None) -> None:
        self.installation = Installation(fleet_path)
        self.output = Output(as_json=False)
        self._run: Callable[..., Any] | None = None

    def progress(self) -> Progress:
        """Progress on standard error."""
        return Progress()

    def run(self, playbook: str, **arguments: Any) -> Any:
        """``runs.run_playbook`` on this installation's fleet file."""
        from ..runs import run_playbook

        return (self._run or run_playbook)(playbook, fleet_path=self.installation.fleet.path, **arguments)

    def replace_runner(self, run: Callable[..., Any]) -> None:
        """Has ``run`` called instead of starting Ansible; for tests."""
        self._run = run


pass_state = click.make_pass_decorator(State)


class FleetCommand(click.Command):
    """A command whose errors are sentences and exit codes, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        state = ctx.find_object(State) or State()
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except HummingfleetError as error:
            code = exit_code(error)
            state.output.error(error, code)
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
            state.output.error(HummingfleetError("interrupted"), code)
        except BrokenPipeError:
            # The reader (head, less) has seen enough.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
            code = Exit.OK
        except Exception as error:
            if os.environ.get("HUMMINGFLEET_DEBUG"):
                raise
            code = Exit.FAILED
            state.output.error(HummingfleetError(_unexpected(error)), code)
        return ctx.exit(int(code))


def _unexpected(error: Exception) -> str:
    """A mistake of ours, without its text: that could hold anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return (
        f"unexpected {type(error).__name__}{where}; this is a mistake in Hummingfleet, please report it. "
        "HUMMINGFLEET_DEBUG=1 shows the details (they may hold data of tenants)"
    )


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: ``hummingfleet --help`` answers at once.

    ``lazy`` maps a command's name to the object (``module:name``) and its one-line help.
    """

    command_class = FleetCommand

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order that a newcomer needs them."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _separator, name = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the short helps where nothing has to be imported for it."""
        if not self._lazy:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_target, text) in self._lazy.items()])


def group(name: str, text: str) -> click.Group:
    """A group of commands of this kind."""
    made = LazyGroup(name=name, help=text)
    made.group_class = LazyGroup
    return made


def json_option(function: Function) -> Function:
    """``--json``: the result as one JSON value on standard output, errors too."""

    def remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(State).output.as_json = True

    return click.option(
        "--json", "as_json", is_flag=True, is_eager=True, expose_value=False, callback=remember,
        help="Write the result (or the error) as JSON to standard output.",
    )(function)  # fmt: skip


def converge_option(function: Function) -> Function:
    """``--no-converge``: only store the revision."""
    return click.option(
        "--converge/--no-converge", default=True, show_default=True, help="Apply the new revision now."
    )(function)


def reason_option(function: Function) -> Function:
    """``--reason``: what stands in the tenant's history."""
    return click.option("--reason", default="", metavar="TEXT", help="Why; kept in the tenant's history.")(function)


def lift_option(function: Function) -> Function:
    """``--lift-risk-halt``: an operator overrides the halt of a tenant's day."""
    return click.option(
        "--lift-risk-halt",
        "lift",
        is_flag=True,
        help="Also if the tenant's daily loss limit has stopped its bots for today; kept in the history.",
    )(function)


def actor() -> str:
    """Who asks: the person behind sudo, else the user."""
    import getpass

    try:
        return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@cli"
    except (KeyError, OSError):
        return f"uid {os.getuid()}@cli"
