# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet bot ...``"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import changes
from ..text import shown
from . import base
from .base import Exit, OperationError, State, UnreachableError, pass_state
from .tenant import change_tenant
from .times import moment

bot = base.group("bot", "Bots of a tenant. Every change is a revision, applied at once unless --no-converge is given.")


def _command(name: str, change: Any, help_text: str) -> None:
    @bot.command(name, help=help_text)
    @click.argument("tenant")
    @click.argument("bot_id", metavar="BOT")
    @base.lift_option
    @base.reason_option
    @base.converge_option
    @base.json_option
    @pass_state
    def run(state: State, tenant: str, bot_id: str, lift: bool, reason: str, converge: bool) -> None:
        change_tenant(state, tenant, change(bot_id), f"bot {name} {bot_id}", reason, converge=converge, lift=lift)


_command("start", lambda b: changes.set_bot_state(b, "running"), "Start a bot; it adopts the position it has.")
_command("restart", changes.restart_bot, "Restart a bot: orders cancelled, position kept and adopted.")


@bot.command()
@click.argument("tenant")
@click.argument("bot_id", metavar="BOT")
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def stop(state: State, tenant: str, bot_id: str, reason: str, converge: bool) -> None:
    """Stop a bot: orders cancelled, position kept."""
    change = changes.set_bot_state(bot_id, "stopped")
    change_tenant(state, tenant, change, f"bot stop {bot_id}", reason, converge=converge)


@bot.command()
@click.argument("tenant")
@click.argument("bot_id", metavar="BOT")
@base.lift_option
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def resume(state: State, tenant: str, bot_id: str, lift: bool, reason: str, converge: bool) -> None:
    """Lift a bot's risk halt and let it trade again; refused before its limit earliest_resume_s allows it."""
    from ..work import last_facts

    registry = state.installation.registry
    document = registry.get(tenant).document
    with registry.transaction() as connection:
        facts, now = last_facts(connection, tenant, bot_id), registry.now(connection)
    try:
        changes.check_resume(document, bot_id, facts, now)
    except changes.TooEarlyError as error:
        raise OperationError(str(error), Exit.REFUSED) from None
    change = changes.resume_bot(bot_id)
    change_tenant(state, tenant, change, f"bot resume {bot_id}", reason, converge=converge, lift=lift)


@bot.command()
@click.argument("tenant")
@click.argument("bot_id", metavar="BOT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def liquidate(state: State, tenant: str, bot_id: str, yes: bool, reason: str, converge: bool) -> None:
    """Stop a bot and sell its position at market."""
    changes.find_bot(state.installation.registry.get(tenant).document, bot_id)
    if not yes and not click.confirm(f"Sell the whole position of {tenant}/{bot_id} at market?", err=True):
        raise OperationError("nothing was sold")
    change = changes.set_bot_state(bot_id, "liquidated")
    change_tenant(state, tenant, change, f"bot liquidate {bot_id}", reason, converge=converge)


@bot.command()
@click.argument("tenant", required=False)
@click.argument("bot_id", metavar="[BOT]", required=False)
@base.json_option
@pass_state
def status(state: State, tenant: str | None, bot_id: str | None) -> None:
    """Show what bots do now; the nodes are asked."""
    from ansible_collections.hummingfleet.core.plugins.module_utils import risk_halt

    from ..operations import survey

    registry = state.installation.registry
    if tenant is not None:
        record = registry.get(tenant)
        if bot_id is not None:
            changes.find_bot(record.document, bot_id)
    elif not registry.list():
        state.output.table((), (), empty="no tenants")
        state.output.result([])
        return
    with state.progress().step("Ask the nodes") as step:
        found = survey(state.run, [tenant] if tenant else None, on_task=step.say)
    records = registry.records({one.tenant for one in found.bots} | ({tenant} if tenant else set()))
    wanted = {(t, b["id"]): b for t, r in records.items() for b in r.document.get("bots", ())}
    rows = {(one.tenant, one.bot): one for one in found.bots}
    keys = [key for key in sorted({*wanted, *rows}) if bot_id is None or key[1] == bot_id]
    plain = []
    for key in keys:
        one, desired = rows.get(key), wanted.get(key, {})
        plain.append(
            {
                "tenant": key[0],
                "bot": key[1],
                "name": desired.get("name"),
                "pair": desired.get("trading_pair"),
                "wanted": desired.get("state", "absent"),
                "state": one.state if one else "not deployed",
                "behind": list(found.reasons.get(key[0], ())),
                **{name: value for name, value in (dict(one.facts) if one else {}).items() if name != "state"},
            }
        )
    state.output.result(plain)
    state.output.table(
        ("tenant", "bot", "name", "pair", "state", "orders", "fills", "position", "today", "equity", "seen", "engine"),
        [
            (
                p["tenant"], p["bot"], p["name"], p["pair"], _state(p), p.get("open_orders"), p.get("fills"),
                _position(p), _money(p, "day_pnl"), _money(p, "equity"), _age(p.get("heartbeat_age_seconds")),
                p.get("engine_version"),
            )
            for p in plain
        ],
        wrap=("name", "state"),
        empty="no bots",
    )  # fmt: skip
    for name, reasons in sorted(found.reasons.items()):
        if reasons:
            state.output.say(f"tenant {name} is behind: {'; '.join(reasons)}")
    for name, record in records.items():
        halt = record.document.get("risk_halt")
        if risk_halt.is_of_today(halt, registry.clock()) and risk_halt.stands(halt):
            state.output.say(
                f"tenant {name}: the bots lost {halt['value']} US dollars on {halt['day']} and {halt['threshold']} are "
                f"allowed; all are stopped until {risk_halt.ends_at(halt['day'])}"
            )
    if found.node_problems:
        raise UnreachableError("\n".join(found.node_problems))
    if found.message:
        raise OperationError(found.message)


@bot.command()
@click.argument("tenant")
@click.argument("bot_id", metavar="BOT")
@click.option("-f", "--follow", is_flag=True, help="Go on as the bot writes.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="How many lines to begin with."
)
@base.json_option
@pass_state
def logs(state: State, tenant: str, bot_id: str, follow: bool, lines: int) -> None:
    """Show a bot's log, from its node."""
    from ..nodes import NodeAccess, log_command

    here = state.installation
    record = here.registry.get(tenant)
    changes.find_bot(record.document, bot_id)
    node = here.fleet.nodes.get(str(record.document["placement"]["node"]))
    if node is None:
        raise OperationError(
            f"tenant {tenant} is on node {record.document['placement']['node']}, which the fleet file does not have",
            Exit.SETUP,
        )
    access = NodeAccess.of(node, here.fleet)
    command = log_command(access, tenant, bot_id, follow=follow, lines=lines)
    code = stream(command, as_json=state.output.as_json)
    if code == 255 and access.remote:
        raise UnreachableError(f"node {node.id} did not answer over SSH; check it with: hummingfleet doctor")
    if code != 0:
        raise OperationError(
            f"the log of {tenant}/{bot_id} cannot be read on node {node.id}; is the bot deployed? "
            f"See: hummingfleet bot status {tenant}"
        )


def stream(command: list[str], *, as_json: bool) -> int:
    """Runs ``command`` and shows what it writes, line by line; the exit code. Ctrl+C ends it, and so does SIGTERM."""
    import json
    import signal
    import subprocess

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    try:
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            sys.stdout.write((json.dumps({"line": line}) if as_json else shown(line)) + "\n")
            sys.stdout.flush()
        return process.wait()
    except (KeyboardInterrupt, BrokenPipeError) as reason:
        if isinstance(reason, BrokenPipeError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        process.terminate()
        process.wait()


def _state(plain: dict[str, Any]) -> str:
    halted, state = plain.get("halted"), str(plain["state"])
    if isinstance(halted, dict):
        since = moment(halted.get("at"))
        return f"halted{f' since {since}' if since else ''}: {halted.get('message') or halted.get('code')}"
    # A liquidated bot has sold its position and stopped.
    wanted = "stopped" if plain["wanted"] == "liquidated" else plain["wanted"]
    return state if wanted == state else f"{state} (wanted: {plain['wanted']})"


def _position(plain: dict[str, Any]) -> str | None:
    position = plain.get("position")
    if not isinstance(position, dict):
        return None
    base_asset = str(plain.get("pair") or "").partition("-")[0]
    return f"{position.get('base')} {base_asset}".strip()


def _money(plain: dict[str, Any], name: str) -> str | None:
    """What the bot reports of its money, in its quote asset."""
    risk = plain.get("risk")
    if not isinstance(risk, dict) or risk.get(name) is None:
        return None
    return f"{risk[name]} {risk.get('quote') or ''}".strip()


def _age(seconds: object) -> str | None:
    return f"{seconds:.0f} s ago" if isinstance(seconds, int | float) else None
