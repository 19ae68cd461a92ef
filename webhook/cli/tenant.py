# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet tenant ...``"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..changes import Change, set_tenant_state
from ..text import shortened, shown, shown_lines
from . import base
from .base import Exit, OperationError, State, pass_state
from .converging import apply_now, store_change

tenant = base.group("tenant", "Tenants: what each should look like, and what became of it.")
_MAX_BYTES = 4 * 1024 * 1024


@tenant.command()
@click.option(
    "-f", "--file", "source", required=True, type=click.Path(allow_dash=True, dir_okay=False),
    help="The tenant document, YAML or JSON; - reads standard input.",
)  # fmt: skip
@base.lift_option
@base.reason_option
@click.option("--converge/--no-converge", default=False, show_default=True, help="Apply the new revision now.")
@base.json_option
@pass_state
def apply(state: State, source: str, lift: bool, reason: str, converge: bool) -> None:
    """Store a tenant document as a new revision, and show what changes.

    A document that is wrong is refused with every fault named, and nothing is stored. One that says what is stored
    already makes no revision. A risk halt of today stays, whether the document has it or not.
    """
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

    data = _read_document(source)
    here = state.installation
    submission = here.registry.submit(
        data,
        cause=Cause("apply", reason or f"hummingfleet tenant apply -f {shown(source)}", base.actor(), lift),
        fleet=here.fleet,
        catalogue=here.catalogue,
    )
    record = submission.record
    changes = here.registry.diff(record.tenant, record.revision - 1, record.revision) if submission.changed else ""
    if submission.changed:
        state.output.say(changes.rstrip())
        state.output.say(f"tenant {record.tenant}: stored revision {record.revision}")
    else:
        state.output.say(f"tenant {record.tenant}: nothing new, still revision {record.revision}")
    plain: dict[str, Any] = {
        "tenant": record.tenant,
        "revision": record.revision,
        "changed": submission.changed,
        "diff": changes,
    }
    if converge:
        plain["converge"] = apply_now(state, [record.tenant], plain)
    elif record.applied_revision < record.revision:
        state.output.say(f"apply it with: hummingfleet converge {record.tenant}")
    state.output.result(plain)


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option(
    "--document", "only_document", is_flag=True,
    help="Only the document, with its ciphertexts in full: it can be edited and applied again.",
)  # fmt: skip
@click.option("--revision", type=click.IntRange(1), help="The document as it was then.")
@base.json_option
@pass_state
def get(state: State, name: str, form: str, only_document: bool, revision: int | None) -> None:
    """Show a tenant's document, what the last converge came to, and the bots' day. Ciphertexts are shortened."""
    import yaml

    from ..journal import Journal

    here = state.installation
    record = here.registry.get(name)
    document = here.registry.document_at(name, revision) if revision else record.document
    plain: dict[str, Any]
    if only_document:
        plain = document
    else:
        plain = {
            "tenant": record.tenant,
            "revision": record.revision,
            "applied_revision": record.applied_revision,
            "updated_at": record.updated_at,
            "outcome": record.outcome,
            "risk": dict(Journal(here.registry, here.fleet, here.catalogue).tenant_status(name).risk),
            "document": shortened(document),
        }
    if state.output.as_json or form == "json":
        click.echo(json.dumps(plain, indent=2))
        return
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    if text != shown_lines(text):  # characters that could steer a terminal are written as YAML escapes
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=False, width=120)
    click.echo(text, nl=False)


@tenant.command("list")
@click.option("--behind", is_flag=True, help="Only tenants whose latest revision is not applied.")
@base.json_option
@pass_state
def list_(state: State, behind: bool) -> None:
    """List the tenants."""
    registry = state.installation.registry
    found = registry.behind() if behind else registry.list()
    state.output.result([row._asdict() for row in found])
    state.output.table(
        ("tenant", "node", "plan", "state", "release", "ring", "revision", "applied"),
        found,
        empty="no tenants" if not behind else "no tenant is behind",
    )


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("--diff", "with_diff", is_flag=True, help="Show what each revision changed.")
@base.json_option
@pass_state
def history(state: State, name: str, with_diff: bool) -> None:
    """Show what changed, when, why, and who asked."""
    registry = state.installation.registry
    revisions = registry.history(name)
    applied = registry.get(name).applied_revision
    diffs = {r.revision: registry.diff(name, r.revision - 1, r.revision) for r in revisions} if with_diff else {}
    plain = [{**asdict(r), "applied": r.revision == applied} for r in revisions]
    state.output.result([{**one, "diff": diffs[one["revision"]]} if with_diff else one for one in plain])
    rows = [
        (r.revision, r.at, r.cause.kind, r.cause.text, r.cause.actor, "applied" if r.revision == applied else "")
        for r in revisions
    ]
    if not with_diff:
        state.output.table(("revision", "at (UTC)", "kind", "why", "who", ""), rows, wrap=("why",))
        return
    for row in rows:
        state.output.say(f"revision {row[0]}  {row[1]}  {row[2]}: {row[3]} ({row[4]}) {row[5]}".rstrip())
        state.output.say(diffs[row[0]])


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.argument("revision", type=click.IntRange(1))
@base.lift_option
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def rollback(state: State, name: str, revision: int, lift: bool, reason: str, converge: bool) -> None:
    """Store the content of an old REVISION as a new one; node, subnet and user id stay as they are."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

    here = state.installation
    submission = here.registry.rollback(
        name,
        revision,
        cause=Cause("rollback", reason or f"back to revision {revision}", base.actor(), lift),
        fleet=here.fleet,
        catalogue=here.catalogue,
    )
    store_change(state, submission, converge=converge)


@tenant.command()
@click.argument("name", metavar="TENANT")
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def suspend(state: State, name: str, reason: str, converge: bool) -> None:
    """Stop a tenant's whole stack: orders cancelled, positions, data and configuration kept."""
    change_tenant(state, name, set_tenant_state("suspended"), "tenant suspend", reason, converge=converge)


@tenant.command()
@click.argument("name", metavar="TENANT")
@base.reason_option
@base.converge_option
@base.json_option
@pass_state
def resume(state: State, name: str, reason: str, converge: bool) -> None:
    """Start a suspended tenant's stack again; its bots adopt their positions."""
    change_tenant(state, name, set_tenant_state("active"), "tenant resume", reason, converge=converge)


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--keep-data", is_flag=True, help="Keep the tenant's data on its node, in the folder 'removed'.")
@click.option(
    "--force", is_flag=True,
    help="Also when the orders of a dead bot cannot be checked on its exchange; they stay there.",
)  # fmt: skip
@base.json_option
@pass_state
def remove(state: State, name: str, yes: bool, keep_data: bool, force: bool) -> None:
    """Remove a tenant: its bots' orders are cancelled, its stack leaves the node, the registry forgets it.

    Positions are not sold; liquidate the bots first if they should be.
    """
    here = state.installation
    record = here.registry.get(name)
    bots = ", ".join(b["id"] for b in record.document.get("bots", ())) or "none"
    if not yes and not click.confirm(
        f"Remove tenant {name} with its bots ({shown(bots)}), data and history? Positions are not sold.", err=True
    ):
        raise OperationError("nothing was removed")
    variables = {"tenant_stack_keep_data": keep_data, "tenant_stack_force": force}
    report = apply_now(state, [name], {"tenant": name}, verb="Remove", playbook="remove_tenant", variables=variables)
    if here.registry.list(only=[name]):
        raise OperationError(f"tenant {name} is still in the registry; run the command again", Exit.FAILED)
    state.output.say(f"tenant {name} is removed")
    state.output.result({"tenant": name, "removed": True, "converge": report})


def change_tenant(
    state: State, name: str, change: Change, what: str, reason: str, *, converge: bool, lift: bool = False
) -> None:
    """Stores ``change`` of the tenant's document and, if asked to, applies it; ``lift`` lifts its risk halt."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

    here = state.installation
    submission = here.registry.change(
        name,
        change,
        cause=Cause("command", reason or what, base.actor(), lift),
        fleet=here.fleet,
        catalogue=here.catalogue,
    )
    store_change(state, submission, converge=converge)


def _read_document(source: str) -> dict[str, Any]:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if source == "-":
            text = sys.stdin.read(_MAX_BYTES + 1)
        else:
            with Path(source).open(encoding="utf-8") as stream:
                text = stream.read(_MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise OperationError(f"the document {source} cannot be read: {reason}", Exit.USAGE) from None
    if len(text) > _MAX_BYTES:
        raise OperationError(f"the document {source} is larger than {_MAX_BYTES // 2**20} MiB", Exit.REFUSED)
    try:
        data = yaml.load(text, Loader=loader)  # noqa: S506  a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or "its values cannot be read"
        raise OperationError(
            f"the document {source} is neither YAML nor JSON{where}: {problem}", Exit.REFUSED
        ) from None
    if not isinstance(data, dict):
        raise OperationError(f"the document {source} must be a mapping that begins with 'tenant: <id>'", Exit.REFUSED)
    return data
