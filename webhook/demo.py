# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: this machine becomes a node, and a tenant's bot trades on the sandbox exchange.

Every step asks what is there before it does anything, so a second run changes nothing and an interrupted one goes on
where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import ImageMode
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Node

from . import ROOT
from .installation import Installation
from .operations import ConvergeReport, converge
from .prepared import differences, read_picture, take_picture
from .progress import Progress, Step
from .runs import RunResult

TENANT = "demo"
BOT = "b1"
PAIR = "BTC-USDT"
SANDBOX_IMAGE = "hummingfleet/sandbox:1"
GRID = {"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 100}
RISK = {"max_position_usd": 10000, "max_daily_loss_usd": 500, "max_drawdown_pct": 10}
BALANCES = {"USDT": "20000", "BTC": "0"}
# Above the grid, so that all of its buy orders rest; the dip goes through its highest level and back.
PRICE = "35500"
DIP = "34400"
TRADE_SECONDS = 240.0
FILL_SECONDS = 60.0
_POLL_SECONDS = 0.5
_HUMMINGFLEET = ".venv/bin/hummingfleet"
_IMAGE_TASKS = ("See which images are needed", "Have the images on the node")
_FIREWALL = Path("/usr/local/sbin/hummingfleet-firewall")


class DemoError(HummingfleetError):
    """A step of the demonstration failed; the text says what and what to do."""


@dataclass
class Facts:
    """What the demonstration came to."""

    tenant: str = TENANT
    bot: str = BOT
    state: str = "absent"
    engine_version: str | None = None
    open_orders: int | None = None
    fills: int | None = None
    position: str | None = None
    exchange: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The facts as JSON-plain data."""
        return {
            "tenant": self.tenant,
            "bot": self.bot,
            "pair": PAIR,
            "engine_version": self.engine_version,
            "state": self.state,
            "open_orders": self.open_orders,
            "fills": self.fills,
            "position": self.position,
            "exchange": self.exchange,
            "changed": {**self.changed, "total": sum(self.changed.values())},
        }


class Demo:
    """The demonstration on the installation ``here``; ``run`` starts playbooks."""

    def __init__(self, here: Installation, run: Callable[..., RunResult], progress: Progress) -> None:
        self.here = here
        self._run = run
        self.progress = progress
        self.facts = Facts()
        self.var = here.fleet.root / "var"
        self.folder = self.var / "demo"
        self.document_path = self.folder / "tenant.yml"
        self.report_path = self.folder / "report.json"
        self.picture_path = self.folder / "prepared.json"

    # --- up ----------------------------------------------------------------------------------------------------------

    def up(self, *, all_steps: bool = False) -> dict[str, Any]:
        """Everything; the facts that are also in var/demo/report.json. Raises HummingfleetError.

        With ``all_steps`` the playbooks run even if nothing has changed since the last run.
        """
        node = self._local_node()
        self._check_machine()
        started = time.monotonic()
        with self.progress.step("Key ring") as step:
            step.note = self._ensure_keyring()
        with self.progress.step("Tenant document with encrypted exchange credentials") as step:
            step.note = self._ensure_document()
        with self.progress.step("Ask this machine whether it is prepared") as step:
            due = ["all steps were asked for"] if all_steps else self._due()
            step.note = "; ".join(due) or "it is: Docker, compose, firewall, images, exchange, their files"
        if due:
            self._prepare(node)
            with self.progress.step("Sandbox exchange", usually="10 s") as step:
                self._playbook("prepare_sandbox", step, limit=node.id)
            write_private(self.picture_path, json.dumps(self._picture()) + "\n")
        for playbook in ("prepare_nodes", "prepare_sandbox"):
            self._count(playbook, 0)
        with self.progress.step("Account on the sandbox exchange") as step:
            new_account = self._ensure_account()
            self._count("sandbox account", int(new_account))
            step.note = "opened" if new_account else "is there"
        with self.progress.step("Store the tenant's document") as step:
            first = self._store(step)
        if first:
            self._control().request("POST", "/price", {"pair": PAIR, "price": PRICE})
        with self.progress.step("Provision the tenant: network, Postgres, Redis, bot", usually="1 min") as step:
            report = converge(self._run, [TENANT], on_task=step.say)
            self._count("converge_tenant", report.changed)
            step.note = f"{report.changed} changed"
            self._raise_problem(report)
        with self.progress.step("Wait until the bot trades", usually="20 s") as step:
            self._wait_for_orders(node, step)
        if first or (self.facts.state == "running" and not self.facts.fills):
            with self.progress.step("Let the price dip and recover", usually="15 s") as step:
                self._dip(node, step)
        return self._report(time.monotonic() - started)

    def status(self) -> dict[str, Any]:
        """What the demonstration's bot does now."""
        node = self._local_node()
        if not self._is_stored():
            return self.facts.plain()
        self._look(node)
        with contextlib.suppress(HummingfleetError):
            self._ask_exchange()
        return self.facts.plain()

    def _local_node(self) -> Node:
        nodes = self.here.fleet.nodes.values()
        found = next((node for node in nodes if node.variables.get("ansible_connection") == "local"), None)
        if found is None:
            raise DemoError(
                f"the demonstration runs on this machine, and the fleet file {self.here.fleet.path} has no node with "
                "ansible_connection: local; use inventories/local/fleet.tenants.yml"
            )
        return found

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise DemoError("the demonstration installs Docker and makes containers, which needs root; run it as root")

    def _ensure_keyring(self) -> str:
        from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import generate_keyring

        path = self.here.keyring_path
        if path.exists():
            return f"is there ({len(self.here.keyring.ids)} keys)"
        generate_keyring(path)
        return f"made {path}"

    def _ensure_document(self) -> str:
        """A document whose credentials are random; they exist encrypted only, as a portal would have them."""
        if self._credentials() is not None:
            return "is there"
        if self._is_stored():
            raise DemoError(
                f"tenant {TENANT} is stored, but {self.document_path} does not open with the key ring; "
                "run: hummingfleet demo down"
            )
        write_private(self.document_path, self._new_document())
        return f"made {self.document_path.relative_to(self.here.fleet.root)}"

    def _credentials(self) -> dict[str, str] | None:
        """Key and secret of the exchange account, or None if there is no document that opens with the key ring."""
        import yaml
        from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import decrypt_connection

        try:
            data = yaml.safe_load(self.document_path.read_text(encoding="utf-8"))
            connection = data["exchange_connections"][0]
            return decrypt_connection(connection, TENANT, self.here.keyring, self.here.catalogue.connectors)
        except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError, HummingfleetError):
            return None

    def _new_document(self) -> str:
        import yaml
        from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection

        connection = encrypt_connection(
            {"api_key": _random_word(), "api_secret": _random_word()},
            connection_id="ex1",
            exchange="binance",
            tenant=TENANT,
            keyring=self.here.keyring,
            key_id=self.here.keyring.ids[0],
            connectors=self.here.catalogue.connectors,
        )
        document = {
            "tenant": TENANT,
            "plan": "pro",
            "subdomain": TENANT,
            "release": max(self.here.catalogue.releases),
            "exchange_environment": "sandbox",
            "exchange_connections": [connection],
            "bots": [
                {
                    "id": BOT,
                    "name": "Test Grid Bot",
                    "exchange_connection_id": "ex1",
                    "strategy_template": "grid",
                    "trading_pair": PAIR,
                    "strategy_config": dict(GRID),
                    "risk_config": dict(RISK),
                }
            ],
        }
        head = "# The demonstration's tenant, as a portal would submit it: hummingfleet tenant apply -f FILE\n"
        return head + yaml.safe_dump(document, sort_keys=False, width=120)

    def _ensure_account(self) -> bool:
        """The exchange knows the account; True if it is new there."""
        control = self._control()
        name = self._account_name()
        if any(account["name"] == name for account in control.request("GET", "/accounts")["accounts"]):
            return False
        fields = self._credentials() or {}
        account = {
            "name": name,
            "api_key": fields["binance_api_key"],
            "api_secret": fields["binance_api_secret"],
            "balances": dict(BALANCES),
        }
        control.request("POST", "/accounts", account)
        return True

    def _account_name(self) -> str:
        """The account's name on the exchange: it goes with the key, so that new credentials are a new account."""
        return f"{TENANT}-{(self._credentials() or {}).get('binance_api_key', 'unknown')[:6]}"

    def _due(self) -> list[str]:
        """Why this machine has to be prepared, in words; empty if it is as the last run left it."""
        before = read_picture(self.picture_path)
        return differences(before, self._picture()) if before else differences(None, {})

    def _picture(self) -> dict[str, Any]:
        from ansible_collections.hummingfleet.core.plugins.module_utils import image_source

        fleet, catalogue = self.here.fleet, self.here.catalogue
        found = fleet.images if fleet.images != "auto" else image_source.load_found_mode(fleet)
        mode: ImageMode = "registry" if found == "registry" else "build"
        releases = {row.release for row in self.here.registry.list()} & set(catalogue.releases)
        images = image_source.references(catalogue, releases or {max(catalogue.releases)}, mode)
        return take_picture(fleet.path, fleet.base_dir, [*images, SANDBOX_IMAGE])

    def _prepare(self, node: Node) -> None:
        """The machine and its images are one playbook, shown as two steps."""
        with contextlib.ExitStack() as stack:
            step = stack.enter_context(self.progress.step("Prepare this machine: Docker, firewall", usually="1 min"))
            steps = [step]

            def on_task(name: str) -> None:
                if name in _IMAGE_TASKS and len(steps) == 1:
                    stack.close()
                    usually = "seconds when they are there, 15 min when they are built"
                    steps.append(stack.enter_context(self.progress.step("Images", usually=usually)))
                steps[-1].say(name)

            def on_output(text: str) -> None:
                # What the builder says, through Ansible.
                lines = [line for line in text.splitlines() if line.startswith("images: ")]
                if lines:
                    steps[-1].say(lines[-1].removeprefix("images: "))

            result = self._run("prepare_nodes", limit=node.id, on_task=on_task, on_output=on_output)
            self._count("prepare_nodes", result.changed_count)
            steps[-1].note = f"{result.changed_count} changed"
            if not result.ok:
                raise DemoError(f"preparing this machine failed:\n{result.problem()}")

    def _playbook(self, playbook: str, step: Step, **options: Any) -> None:
        result = self._run(playbook, on_task=step.say, **options)
        self._count(playbook, result.changed_count)
        step.note = f"{result.changed_count} changed"
        if not result.ok:
            raise DemoError(f"the playbook {playbook} failed:\n{result.problem()}")

    def _store(self, step: Step) -> bool:
        """Stores the tenant if it is new; True until it was applied once."""
        import yaml
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause

        if not self._is_stored():
            self.here.registry.submit(
                yaml.safe_load(self.document_path.read_text(encoding="utf-8")),
                cause=Cause("apply", "hummingfleet demo up", "demo"),
                fleet=self.here.fleet,
                catalogue=self.here.catalogue,
            )
        record = self.here.registry.get(TENANT)
        if record.document["exchange_environment"] != "sandbox":
            raise DemoError(f"there is a tenant {TENANT} that trades on real exchanges; it is left alone")
        if record.document["state"] != "active":
            raise DemoError(f"tenant {TENANT} is {record.document['state']}; run: hummingfleet demo down")
        step.note = f"revision {record.revision}"
        return record.applied_revision == 0

    def _is_stored(self) -> bool:
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import registry_exists

        return registry_exists(self.here.fleet.registry) and bool(self.here.registry.list(only=[TENANT]))

    def _raise_problem(self, report: ConvergeReport) -> None:
        if report.problem is not None:
            raise DemoError(
                f"{report.problems()}\nThe bot's log: hummingfleet bot logs {TENANT} {BOT}. Run this again to go on"
            )

    def _wait_for_orders(self, node: Node, step: Step) -> None:
        wanted = self._wanted_orders()
        if wanted is None:
            self._look(node)
            step.note = f"somebody has stopped it; it is {self.facts.state}"
            return

        def trades() -> bool:
            self._look(node)
            step.say(f"bot {self.facts.state}, {self.facts.open_orders or 0} of {wanted} orders open")
            return self.facts.state == "running" and (self.facts.open_orders or 0) >= wanted

        if not _wait(trades, TRADE_SECONDS):
            raise DemoError(
                f"after {TRADE_SECONDS:.0f} s bot {BOT} is {self.facts.state} with {self.facts.open_orders or 0} of "
                f"{wanted} orders open; its log says why: hummingfleet bot logs {TENANT} {BOT}"
            )
        step.note = f"{self.facts.open_orders} orders open"

    def _wanted_orders(self) -> int | None:
        """How many orders the bot should have open; None when somebody has stopped it."""
        from .changes import find_bot

        found = find_bot(self.here.registry.get(TENANT).document, BOT)
        return int(found["strategy_config"]["grid_count"]) if found["state"] == "running" else None

    def _dip(self, node: Node, step: Step) -> None:
        """One round trip: a level buys in the dip and sells in the recovery."""
        control = self._control()
        for price, fills, words in ((DIP, 1, "price falls to"), (PRICE, 2, "price rises to")):
            step.say(f"{words} {price}")
            control.request("POST", "/price", {"pair": PAIR, "price": price})

            def filled(fills: int = fills) -> bool:
                self._look(node)
                return (self.facts.fills or 0) >= fills and self.facts.open_orders == GRID["grid_count"]

            if not _wait(filled, FILL_SECONDS):
                raise DemoError(
                    f"at {price} bot {BOT} has {self.facts.fills or 0} fills and {self.facts.open_orders or 0} open "
                    f"orders where {fills} and {GRID['grid_count']} were expected; its log says why: "
                    f"{_HUMMINGFLEET} bot logs {TENANT} {BOT}"
                )
        step.note = f"bought at {GRID['upper_bound'] - 500}, sold at {GRID['upper_bound']}: {self.facts.fills} fills"

    def _look(self, node: Node) -> None:
        """What the node itself would answer about the bot; it is this machine, so no playbook is needed."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.node import docker_api, observe

        folder = observe.tenants_dir(self.here.fleet.base_dir) / TENANT / "bots" / BOT
        try:
            containers = observe.container_facts(docker_api.DockerEngine())
        except docker_api.DockerError as error:
            raise DemoError(f"{error}. Run: make demo") from None
        facts = observe.bot_facts(folder, containers.get(TENANT, {}).get(f"bot_{BOT}"), time.time())
        self.facts.state = str(facts["state"])
        self.facts.engine_version = facts["engine_version"]
        self.facts.open_orders = facts["open_orders"]
        self.facts.fills = facts["fills"]
        position = facts["position"]
        self.facts.position = str(position.get("base")) if isinstance(position, dict) else None

    def _control(self) -> Any:
        """The sandbox exchange's control endpoint."""
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
        from sandbox.control import ControlClient, ControlClientError

        client = ControlClient(f"{self.here.fleet.base_dir}/sandbox/run/control.sock")

        class Client:
            def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
                try:
                    return client.request(method, path, body)
                except ControlClientError as error:
                    raise DemoError(f"{error} Start it with: make demo") from None

        return Client()

    def _ask_exchange(self) -> None:
        """What the exchange itself says, beside what the bot says of itself."""
        control = self._control()
        account = self._account_name()
        orders = control.request("GET", f"/orders?account={account}&state=open")["orders"]
        fills = control.request("GET", f"/fills?account={account}")["fills"]
        stats = control.request("GET", "/stats")
        self.facts.exchange = {
            "open_orders": len(orders),
            "open_buys": sorted((str(o["price"]) for o in orders if o["side"] == "BUY"), key=Decimal),
            "open_sells": sorted((str(o["price"]) for o in orders if o["side"] == "SELL"), key=Decimal),
            "fills": len(fills),
            "good_signatures": stats["signed"],
            "bad_signatures": stats["bad_signatures"],
        }

    def _count(self, playbook: str, changed: int) -> None:
        self.facts.changed[playbook] = self.facts.changed.get(playbook, 0) + changed

    def _report(self, seconds: float) -> dict[str, Any]:
        self._ask_exchange()
        report = {
            **self.facts.plain(),
            "seconds": round(seconds, 1),
            "steps": [
                {"title": one.title, "seconds": round(one.seconds, 1), "note": one.note}
                for one in self.progress.records
            ],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_private(self.report_path, json.dumps(report, indent=2) + "\n")
        return report

    # --- down --------------------------------------------------------------------------------------------------------

    def down(self) -> list[str]:
        """Removes all of it; what stays, in words."""
        node = self._local_node()
        self._check_machine()
        others: list[str] = []
        if self._is_stored():
            if not _docker_answers():
                self._prepare(node)  # without the engine nothing can be removed
            with self.progress.step("Remove the tenant: cancel orders, stop, remove", usually="30 s") as step:
                report = converge(self._run, [TENANT], playbook="remove_tenant", on_task=step.say)
                if report.problem is not None:
                    # The sandbox is about to go with everything on it, so orders that cannot be checked do not matter.
                    step.say("once more, without asking the sandbox exchange")
                    report = converge(
                        self._run,
                        [TENANT],
                        playbook="remove_tenant",
                        on_task=step.say,
                        variables={"tenant_stack_force": True},
                    )
                self._raise_problem(report)
            others = [row.tenant for row in self.here.registry.list()]
        sandboxed = [name for name in others if self._in_sandbox(name)]
        if not sandboxed:
            with self.progress.step("Remove the sandbox exchange") as step:
                if shutil.which("docker") and _docker_answers():
                    self._playbook("remove_sandbox", step, limit=node.id)
        with self.progress.step("Remove its files"):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not others:
                self._remove_node_files()
        kept = ["Docker, its settings and the images that were built (the next demonstration takes seconds)"]
        kept.append(f"the key ring {self.here.keyring_path} and the registry: they may belong to more than this")
        if sandboxed:
            kept.append(f"the sandbox exchange, since other tenants use it: {', '.join(sandboxed)}")
        return kept

    def _in_sandbox(self, tenant: str) -> bool:
        return bool(self.here.registry.get(tenant).document.get("exchange_environment") == "sandbox")

    def _remove_node_files(self) -> None:
        """What the node keeps for tenants, when there are none left."""
        base = Path(self.here.fleet.base_dir)
        # Fencing numbers count within one registry: another one's first run would look outdated beside them.
        for name in ("agent", "sandbox", "fences"):
            shutil.rmtree(base / name, ignore_errors=True)
        for empty in (base / "tenants", base):
            with contextlib.suppress(OSError):
                empty.rmdir()
        if _FIREWALL.exists():
            subprocess.run([str(_FIREWALL), "remove"], check=False, capture_output=True)


def _random_word(length: int = 64) -> str:
    """Random letters and digits, in the form of Binance's keys."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _docker_answers() -> bool:
    return subprocess.run(["docker", "version"], check=False, capture_output=True).returncode == 0


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def next_steps() -> Iterator[tuple[str, str]]:
    """What to try next: a sentence and the command."""
    yield "what the bot does", f"{_HUMMINGFLEET} bot status {TENANT}"
    yield "its log, as it is written", f"{_HUMMINGFLEET} bot logs -f {TENANT} {BOT}"
    yield "stop it: orders cancelled, position kept", f"{_HUMMINGFLEET} bot stop {TENANT} {BOT}"
    yield "start it again: it adopts its position", f"{_HUMMINGFLEET} bot start {TENANT} {BOT}"
    yield "what changed, when and why", f"{_HUMMINGFLEET} tenant history {TENANT} --diff"
    yield "the stack on the node", f"docker ps --filter label=hummingfleet.tenant={TENANT}"
    yield "the exchange's own view", "docker exec hf-sandbox python -m sandbox.control orders"
    yield "move the price yourself", f"docker exec hf-sandbox python -m sandbox.control price {PAIR} 33900"
    yield "check the installation", f"{_HUMMINGFLEET} doctor"
    yield "remove all of it", "make demo-down"
