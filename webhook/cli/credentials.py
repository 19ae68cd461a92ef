# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet credentials ...`` and ``hummingfleet keyring ...``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..text import shown
from . import base
from .base import Exit, OperationError, State, pass_state

credentials = base.group("credentials", "Exchange credentials.")
keyring = base.group("keyring", "The keys that open the portal's ciphertexts, and the fleet's master key.")


@credentials.command()
@click.option("--tenant", required=True, help="The tenant the ciphertexts are bound to.")
@click.option("--exchange", required=True, help="The engine's connector, such as binance.")
@click.option("--id", "connection_id", default="ex1", show_default=True, help="The connection's id in the document.")
@click.option("--key-id", help="The key to encrypt with.  [default: the first one of the key ring]")
@click.option("--aad", type=click.Choice(["v1", "v2"]), default="v2", show_default=True,
              help="v2 binds the ciphertext to tenant, connection and field.")  # fmt: skip
@click.option("--from", "source", type=click.Path(allow_dash=True, dir_okay=False),
              help="A file 'api_key: ...' with the secrets; - reads standard input.  [default: ask]")  # fmt: skip
@base.json_option
@pass_state
def encrypt(
    state: State, tenant: str, exchange: str, connection_id: str, key_id: str | None, aad: str, source: str | None
) -> None:
    """Encrypt exchange credentials as a portal does, and print the connection for a tenant document.

    Secrets come from a file, from standard input or from a hidden prompt; never from the command line, where every
    user of the machine could read them.
    """
    import yaml
    from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection

    here = state.installation
    connector = here.catalogue.connectors.get(exchange)
    if connector is None:
        raise OperationError(
            f"{shown(exchange)} is not a connector of the engine; catalogue/connectors.json lists them", Exit.USAGE
        )
    fields = _read_secrets(source) if source else _ask([field.short for field in connector.secrets if field.required])
    given = {found.name for name in fields if (found := connector.find_field(name)) is not None}
    missing = [field.short for field in connector.secrets if field.required and field.name not in given]
    if missing:
        raise OperationError(f"{exchange} needs {', '.join(missing)}, too", Exit.USAGE)
    connection = encrypt_connection(
        fields,
        connection_id=connection_id,
        exchange=exchange,
        tenant=tenant,
        keyring=here.keyring,
        key_id=key_id or here.keyring.ids[0],
        connectors=here.catalogue.connectors,
        aad="v2" if aad == "v2" else "v1",
    )
    state.output.result(connection)
    state.output.say(yaml.safe_dump([connection], sort_keys=False, width=200).rstrip())


@keyring.command()
@click.option(
    "--key-id", "key_ids", multiple=True, default=("k1",), show_default=True, help="A key's id; may be repeated."
)
@base.json_option
@pass_state
def init(state: State, key_ids: tuple[str, ...]) -> None:
    """Make a key ring of random keys where the fleet file wants it; one that exists is never replaced."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring

    path = state.installation.keyring_path
    if path.exists():
        raise OperationError(
            f"the key ring {path} exists and is not replaced: what its keys encrypted would be lost", Exit.FAILED
        )
    ring = generate_keyring(path, key_ids=key_ids)
    state.output.say(f"made the key ring {path} with the keys {', '.join(ring.ids)}; keep a copy in a safe place")
    state.output.result({"path": str(path), "keys": list(ring.ids)})


def _read_secrets(source: str) -> dict[str, str]:
    import yaml

    loader: Any = yaml.BaseLoader
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise OperationError(f"the file {source} cannot be read as text", Exit.USAGE) from None
    try:
        data = yaml.load(text, Loader=loader)  # noqa: S506  makes strings only
    except yaml.YAMLError:  # its text would hold secrets
        data = None
    if not isinstance(data, dict) or not data or not all(isinstance(value, str) and value for value in data.values()):
        raise OperationError("the secrets must be written as 'api_key: ...', one per line", Exit.USAGE)
    return {str(name): str(value) for name, value in data.items()}


def _ask(names: list[str]) -> dict[str, str]:
    return {name: click.prompt(name, hide_input=True, err=True) for name in names}
