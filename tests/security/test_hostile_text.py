"""Hostile text in every field of a document, and from a bot: refused by the field's name, or shown, never evaluated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    RESERVED_TENANTS,
    DocumentError,
    parse_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, UnknownTenantError

from tests.factories import catalogue, document, grid_document, market_making_bot
from tests.installation import ROOT, SYSTEM_PATH, Installation, docker
from tests.security.hostile import MARKS, texts
from webhook.text import shown

TEXTS = texts()
WORD = r"[a-z][a-z0-9_]{0,31}"
ID = r"(?=.{2,32}$)[a-z][a-z0-9]*(-[a-z0-9]+)*"

Place = Callable[[dict[str, Any], str], None]


def at(*path: str | int) -> Place:
    def put(data: dict[str, Any], text: str) -> None:
        target: Any = data
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = text

    return put


def as_key(*path: str | int) -> Place:
    def put(data: dict[str, Any], text: str) -> None:
        target: Any = data
        for part in path:
            target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
        target[text] = "x"

    return put


CONNECTION, BOT = ("exchange_connections", 0), ("bots", 0)
FIELDS: dict[str, tuple[Place, str, str | None]] = {
    # field: how to put it there, the beginning of the pointer that a refusal names, what is accepted all the same
    "tenant": (at("tenant"), "/tenant", ID),
    "state": (at("state"), "/state", None),
    "plan": (at("plan"), "/plan", None),
    "release": (at("release"), "/release", None),
    "subdomain": (at("subdomain"), "/subdomain", ID),
    "ring": (at("placement", "ring"), "/placement/ring", WORD),
    "node": (at("placement", "node"), "/placement/node", WORD),
    "label": (at("placement", "labels", "region"), "/placement/labels", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"),
    "name of a label": (as_key("placement", "labels"), "/placement/labels", WORD),
    "subnet": (at("subnet"), "/subnet", None),
    "salt": (at("salt"), "/salt", None),
    "uid": (at("uid"), "/uid", None),
    "dashboard": (at("dashboard"), "/dashboard", None),
    "exchange environment": (at("exchange_environment"), "/exchange_environment", None),
    "field of the document": (as_key(), "", None),
    "connection id": (at(*CONNECTION, "id"), "/", ID),
    "exchange": (at(*CONNECTION, "exchange"), "/exchange_connections/0/exchange", None),
    "key id": (at(*CONNECTION, "key_id"), "/exchange_connections/0/key_id", WORD),
    "aad": (at(*CONNECTION, "aad"), "/exchange_connections/0/aad", None),
    "ciphertext": (at(*CONNECTION, "encrypted_api_key"), "/exchange_connections/0/encrypted_api_key", None),
    "nonce": (at(*CONNECTION, "nonce_key"), "/exchange_connections/0/nonce_key", None),
    "field of a connection": (as_key(*CONNECTION), "/exchange_connections/0", None),
    "setting of a connection": (as_key(*CONNECTION, "settings"), "/exchange_connections/0/settings", None),
    "bot id": (at(*BOT, "id"), "/bots/0/id", ID),
    "bot's connection": (at(*BOT, "exchange_connection_id"), "/bots/0/exchange_connection_id", None),
    "strategy template": (at(*BOT, "strategy_template"), "/bots/0/strategy_template", None),
    "trading pair": (at(*BOT, "trading_pair"), "/bots/0/trading_pair", None),
    "number of the strategy": (at(*BOT, "strategy_config", "order_amount"), "/bots/0/strategy_config", None),
    "whole number of the strategy": (at(*BOT, "strategy_config", "grid_count"), "/bots/0/strategy_config", None),
    "field of the strategy": (as_key(*BOT, "strategy_config"), "/bots/0/strategy_config", None),
    "limit": (at(*BOT, "risk_config", "max_position_usd"), "/bots/0/risk_config", None),
    "field of the limits": (as_key(*BOT, "risk_config"), "/bots/0/risk_config", None),
    "state of a bot": (at(*BOT, "state"), "/bots/0/state", None),
    "restarts": (at(*BOT, "restarts"), "/bots/0/restarts", None),
}


def refusal(data: dict[str, Any], **options: Any) -> DocumentError | None:
    try:
        parse_document(data, catalogue(), **options)
    except DocumentError as error:
        return error
    return None


def test_there_are_enough_texts() -> None:
    assert len(TEXTS) >= 30


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_text_is_refused_by_the_name_of_its_field(field: str) -> None:
    put, pointer, accepted = FIELDS[field]
    for kind, text in TEXTS.items():
        data = grid_document(placement={"labels": {}})
        put(data, text)
        error = refusal(data)
        if error is None:
            assert accepted is not None and re.fullmatch(accepted, text), kind
            continue
        assert any(fault.pointer.startswith(pointer) for fault in error.faults), f"{kind}: {error}"
        # What it says can go to any terminal or log: no character that could steer one, and not endless.
        for line in str(error).replace("…", "").split("\n"):
            assert line.isascii() and line.isprintable() and len(line) < 1000, f"{kind}: {line!r}"


@pytest.mark.parametrize("kind", TEXTS)
def test_a_bots_name_is_text_or_refused(kind: str) -> None:
    data = grid_document()
    data["bots"][0]["name"] = TEXTS[kind]
    error = refusal(data)
    if error is None:
        assert parse_document(data, catalogue()).plain()["bots"][0]["name"] == TEXTS[kind] == shown(TEXTS[kind])
    else:
        assert [fault.pointer for fault in error.faults] == ["/bots/0/name"]


TAKEN = ["all", "nodes", "tenants", "ungrouped", "localhost", "behind", "leads", "node", "tenant", "sandbox"]


@pytest.mark.parametrize("name", sorted({*TAKEN, *RESERVED_TENANTS}))
def test_a_name_that_means_something_is_no_tenants(name: str) -> None:
    error = refusal(grid_document(tenant=name, subdomain="acme"))
    assert error is not None and {fault.pointer for fault in error.faults} == {"/tenant"}


@pytest.mark.parametrize("name", ["edge", "edge-1"])
def test_a_nodes_name_is_no_tenants(name: str) -> None:
    error = refusal(grid_document(tenant=name, subdomain="acme"), reserved={"edge", "edge_1"})
    assert error is not None and {fault.pointer for fault in error.faults} == {"/tenant"}
    assert refusal(grid_document(tenant=name, subdomain="acme")) is None


# Through Ansible ------------------------------------------------------------------------------------------------------

PREFIX = "hfsec-h-"
NAMES = [text for text in TEXTS.values() if refusal(document(bots=[market_making_bot(name=text)])) is None]
BOTS_EACH = 10
RUNNING_EACH = 2
LURE = f"{{{{ lookup('pipe','touch {MARKS}/bot') }}}}\x1b[31m$(touch {MARKS}/shell)"


class Fleet:
    """Tenants whose bots have hostile names, keys and files, after converges."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.names: dict[tuple[str, str], str] = {}
        for number, start in enumerate(range(0, len(NAMES), BOTS_EACH)):
            tenant = f"{PREFIX}t{number}"
            bots = []
            for position, name in enumerate(NAMES[start : start + BOTS_EACH]):
                self.names[tenant, f"b{position}"] = name
                state = "running" if position < RUNNING_EACH else "stopped"
                bots.append(market_making_bot(id=f"b{position}", name=name, state=state))
            secrets = {
                "api_key": LURE.replace("\x1b", ""),
                "api_secret": f"${{HOME}} $$HOME `touch {MARKS}/key` %s {{0}}",
            }
            installation.registry.submit(
                document(
                    tenant=tenant,
                    exchange_environment="live",
                    redis={"enabled": False},
                    exchange_connections=[installation.connection(tenant, **secrets)],
                    bots=bots,
                ),
                cause=Cause(LURE, LURE, LURE),
                fleet=installation.fleet,
                catalogue=installation.catalogue,
            )
        self.tenants = sorted({tenant for tenant, _bot in self.names})
        self.output = self.converge()
        self.write_as_bots()
        for tenant in self.tenants:
            installation.change(tenant, lambda data: data["bots"][0].update(restarts=1))
        self.output += self.converge()

    def converge(self) -> str:
        run = self.installation.converge("-vvv", "--diff")
        assert run.code == 0, run.output[-2000:]
        return run.output

    def folder(self, tenant: str) -> Path:
        return self.installation.base_dir / "tenants" / tenant

    def write_as_bots(self) -> None:
        """What a hostile bot could put where the node reads: its data folder is its own."""
        facts = {"halted": {"code": LURE, "message": LURE, "at": 0}, "engine_version": LURE, "phase": LURE, "pid": LURE}
        more = {"position": {"base": LURE, "cost_quote": LURE}, "open_orders": LURE, "fills": [LURE], "at": LURE}
        lifecycle = {"state": "stopped", "clean": True, "verified": LURE, "open_orders": LURE, "position_base": LURE}
        for tenant in self.tenants:
            bots = sorted(bot for owner, bot in self.names if owner == tenant)[RUNNING_EACH:]
            for bot in bots:
                data = self.folder(tenant) / "bots" / bot / "data"
                (data / "heartbeat.json").write_text(json.dumps(facts | more))
                (data / "lifecycle.json").write_text(json.dumps(lifecycle))
                (data / "link").symlink_to(MARKS)
        odd = [self.folder(self.tenants[0]) / "bots" / f"b{number}" / "data" for number in range(RUNNING_EACH, 10)]
        for data in odd:
            (data / "heartbeat.json").unlink()
        (odd[0] / "heartbeat.json").symlink_to(self.folder(self.tenants[1]) / "state.json")
        os.mkfifo(odd[1] / "heartbeat.json")
        (odd[2] / "heartbeat.json").mkdir()
        (odd[3] / "heartbeat.json").write_text("[" * 50_000)
        with (odd[4] / "heartbeat.json").open("wb") as handle:
            handle.truncate(2**40)
        (odd[5] / "heartbeat.json").write_bytes(b'{"engine_version": "\xff\xfe"}')
        (odd[6] / "heartbeat.json").write_text(
            '{"at": NaN, "engine_version": "\\ud800", "halted": 1e999, "pid": -Infinity}'
        )
        deep = '{"a":' * 900 + "1" + "}" * 900
        (odd[7] / "heartbeat.json").write_text(
            f'{{"at": {"9" * 4000}, "position": {deep}, "open_orders": {"9" * 400}}}'
        )
        lifecycle |= {"position_base": 10**400}
        (odd[7] / "lifecycle.json").write_text(json.dumps(lifecycle))

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [f"{ROOT}/.venv/bin/hummingfleet", *arguments],
            capture_output=True,
            check=False,
            env={**os.environ, "HUMMINGFLEET_FLEET": str(self.installation.fleet_path), "PATH": SYSTEM_PATH},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode() + done.stderr.decode()


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    folder = Path(tempfile.mkdtemp(prefix="hfsec-h-", dir="/var/tmp"))
    shutil.rmtree(MARKS, ignore_errors=True)
    MARKS.mkdir()
    installation = Installation(folder, prefix=PREFIX, pool="10.197.4.0/23", uid_start=352_000)
    try:
        yield Fleet(installation)
    finally:
        installation.clean()
        shutil.rmtree(folder)
        shutil.rmtree(MARKS)


def steers_no_terminal(output: str) -> bool:
    return all(line == shown(line) for line in output.split("\n"))


@pytest.mark.lab
class TestThroughAnsible:
    def test_nothing_was_evaluated(self, fleet: Fleet) -> None:
        assert len(NAMES) >= 30
        assert list(MARKS.iterdir()) == []

    def test_every_bot_is_what_it_was_meant_to_be(self, fleet: Fleet) -> None:
        for (tenant, bot), name in fleet.names.items():
            stored = fleet.installation.registry.get(tenant)
            assert stored.applied_revision == stored.revision
            assert next(one for one in stored.document["bots"] if one["id"] == bot)["name"] == name
        running = {f"{tenant}-bot_b{number}" for tenant in fleet.tenants for number in range(RUNNING_EACH)}
        assert running <= set(fleet.installation.containers())

    def test_names_are_in_no_file_and_no_label_of_the_node(self, fleet: Fleet) -> None:
        inspected = json.dumps([json.loads(docker("inspect", name)) for name in fleet.installation.containers()])
        telling = [name for name in NAMES if len(name) > 8]
        for tenant in fleet.tenants:
            compose = (fleet.folder(tenant) / "compose.yml").read_text()
            assert set(yaml.safe_load(compose)["services"]) >= {"postgres", "bot_b0"}
            for path in fleet.folder(tenant).rglob("*"):
                if path.is_file() and "data" not in path.parts:
                    text = path.read_text()
                    assert [name for name in telling if name in text] == [], path
        assert [name for name in telling if json.dumps(name)[1:-1] in inspected] == []

    def test_compose_on_the_node_interpolates_nothing(self, fleet: Fleet) -> None:
        for tenant in fleet.tenants:
            assert "$" not in (fleet.folder(tenant) / "compose.yml").read_text()

    def test_hostile_credentials_reach_the_keystore_as_they_are(self, fleet: Fleet) -> None:
        from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import decrypt_connection

        tenant = fleet.tenants[0]
        stored = fleet.installation.registry.get(tenant).document["exchange_connections"][0]
        connectors = fleet.installation.catalogue.connectors
        fields = decrypt_connection(stored, tenant, fleet.installation.keyring, connectors)
        assert fields["binance_api_secret"].startswith("${HOME} $$HOME `touch")
        assert "$$HOME" not in fleet.output

    def test_tables_show_names_and_steer_no_terminal(self, fleet: Fleet) -> None:
        for (tenant, _bot), name in fleet.names.items():
            assert name == shown(name), tenant
        output = fleet.command("bot", "status")
        assert steers_no_terminal(output)
        lines = output.split("\n")
        for (tenant, bot), name in fleet.names.items():
            assert any(line.split()[:2] == [tenant, bot] and name in line for line in lines), (tenant, bot)

    @pytest.mark.parametrize(
        "arguments",
        [("tenant", "get", f"{PREFIX}t0"), ("tenant", "history", f"{PREFIX}t0", "--diff"), ("tenant", "list")],
    )
    def test_what_else_shows_a_tenant_steers_no_terminal(self, fleet: Fleet, arguments: tuple[str, ...]) -> None:
        output = fleet.command(*arguments)
        assert PREFIX in output and steers_no_terminal(output)

    def test_programs_get_names_as_they_are(self, fleet: Fleet) -> None:
        answer = json.loads(fleet.command("bot", "status", "--json").partition("\n]")[0] + "\n]")
        assert {(one["tenant"], one["bot"]): one["name"] for one in answer} == fleet.names

    def test_ansible_shows_what_bots_wrote_and_does_not_evaluate_it(self, fleet: Fleet) -> None:
        run = fleet.installation.playbook(ROOT / "playbooks" / "show_tenants.yml")
        assert run.code == 0, run.output[-2000:]
        assert f"lookup('pipe','touch {MARKS}/bot')" in run.output.replace("''", "'")
        assert "\x1b" not in run.output
        assert list(MARKS.iterdir()) == []

    def test_a_hostile_log_is_shown_and_steers_no_terminal(self, fleet: Fleet) -> None:
        name = f"{fleet.tenants[0]}-bot_b0"
        docker("rm", "-f", name)
        docker("run", "--name", name, "hummingfleet/sandbox:1", "python3", "-c", f"print({LURE!r})")
        output = fleet.command("bot", "logs", fleet.tenants[0], "b0")
        assert shown(LURE) in output and steers_no_terminal(output)
        docker("rm", "-f", name)

    def test_removal_follows_no_link_of_a_bot(self, fleet: Fleet) -> None:
        kept = MARKS.with_name("hfsecm-kept")
        kept.mkdir()
        try:
            (kept / "file").touch()
            tenant = fleet.tenants[-1]
            for bot in (bot for owner, bot in fleet.names if owner == tenant):
                (fleet.folder(tenant) / "bots" / bot / "data" / "way").symlink_to(kept)
            fleet.installation.change(tenant, lambda data: data.update(state="terminated"))
            run = fleet.installation.converge("--limit", f"tenant-{tenant}")
            assert run.code == 0, run.output[-2000:]
            assert not fleet.folder(tenant).exists()
            assert (kept / "file").exists()
        finally:
            shutil.rmtree(kept)

    def test_an_unknown_tenant_of_any_name_is_just_unknown(self, fleet: Fleet) -> None:
        for text in TEXTS.values():
            with pytest.raises(UnknownTenantError) as caught:
                fleet.installation.registry.get(text)
            assert str(caught.value).isprintable()
