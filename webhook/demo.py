# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: this machine becomes a node, and a tenant's bot trades on the sandbox exchange.

It goes the way a portal goes: signed events to the web service, whose worker runs the playbooks, and the status API to
see what came of them. Every step asks what is there before it does anything, so a second run changes nothing (the same
events under the same ids are answered with their first result) and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import http.client
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
PROVISION_SECONDS = 900.0
TRADE_SECONDS = 240.0
READY_SECONDS = 60.0
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
    events: list[dict[str, Any]] = field(default_factory=list)

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
            "events": self.events,
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
        self.events_path = self.folder / "events.json"
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
        with self.progress.step("The portal's events, with encrypted exchange credentials") as step:
            step.note = self._ensure_events()
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
        first = self._is_first()
        if first:
            self._control().request("POST", "/price", {"pair": PAIR, "price": PRICE})
        with contextlib.ExitStack() as stack:
            with self.progress.step("Web service and worker", usually="5 s") as step:
                service = stack.enter_context(DemoService(self.here, self.folder))
                step.note = service.note
            with self.progress.step("Send the portal's events") as step:
                step.note = self._send(service, step)
            with self.progress.step("Provision the tenant: network, Postgres, Redis, bot", usually="1 min") as step:
                self._wait_for_events(service, step)
            if not first:
                with self.progress.step("Converge, in case the machine is not as it was left") as step:
                    report = converge(self._run, [TENANT], on_task=step.say)
                    self._count("converge_tenant", report.changed)
                    step.note = f"{report.changed} changed"
                    self._raise_problem(report)
            with self.progress.step("Ask the status API until the bot trades", usually="20 s") as step:
                self._wait_for_orders(service, step)
            self._look(node)
            self._dip_once(node, first)
        return self._report(time.monotonic() - started)

    def _dip_once(self, node: Node, first: bool) -> None:
        if first or (self.facts.state == "running" and not self.facts.fills):
            with self.progress.step("Let the price dip and recover", usually="15 s") as step:
                self._dip(node, step)

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

    def _ensure_events(self) -> str:
        """The events of the portal's quick test; credentials are random and exist encrypted only."""
        if self._credentials() is not None:
            return "are there"
        if self._is_stored():
            raise DemoError(
                f"tenant {TENANT} is stored, but {self.events_path} does not open with the key ring; "
                "run: hummingfleet demo down"
            )
        write_private(self.events_path, json.dumps(self._new_events(), indent=2) + "\n")
        write_private(self.folder / "bot.json", json.dumps({"tenant": TENANT, "bot_id": BOT}) + "\n")
        return f"made {self.events_path.relative_to(self.here.fleet.root)}"

    def _events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.events_path.read_text(encoding="utf-8"))
        return events

    def _credentials(self) -> dict[str, str] | None:
        """Key and secret of the exchange account, or None if there are no events that open with the key ring."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import decrypt_connection

        try:
            connection = next(e["body"]["data"]["connection"] for e in self._events() if "connection" in str(e["body"]))
            return decrypt_connection(connection, TENANT, self.here.keyring, self.here.catalogue.connectors)
        except (OSError, ValueError, KeyError, TypeError, StopIteration, HummingfleetError):
            return None

    def _new_events(self) -> list[dict[str, Any]]:
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
        bot = {
            "id": BOT,
            "bot_name": "Test Grid Bot",
            "exchange_connection_id": "ex1",
            "strategy_template": "grid",
            "trading_pair": PAIR,
            "strategy_config": dict(GRID),
            "risk_config": dict(RISK),
        }
        data: list[tuple[str, dict[str, Any]]] = [
            ("tenant.created", {"plan": "pro", "exchange_environment": "sandbox"}),
            ("exchange.connected", {"connection": connection}),
            ("bot.created", {"bot": bot}),
            ("bot.started", {"bot_id": BOT}),
        ]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        series = secrets.token_hex(6)
        return [
            {
                "id": f"demo_{series}_{number}",
                "body": {"type": type_, "timestamp": now, "data": {"tenant": TENANT, **rest}},
            }
            for number, (type_, rest) in enumerate(data, 1)
        ]

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
        broker = fleet.broker_container if fleet.broker_enabled else None
        images = image_source.references(
            catalogue, releases or {max(catalogue.releases)}, mode, broker=fleet.broker_enabled
        )
        return take_picture(fleet.path, fleet.base_dir, [*images, SANDBOX_IMAGE], broker)

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

    def _is_first(self) -> bool:
        """Whether the tenant has never been brought up."""
        if not self._is_stored():
            return True
        record = self.here.registry.get(TENANT)
        if record.document["exchange_environment"] != "sandbox":
            raise DemoError(f"there is a tenant {TENANT} that trades on real exchanges; it is left alone")
        if record.document["state"] != "active":
            raise DemoError(f"tenant {TENANT} is {record.document['state']}; run: hummingfleet demo down")
        return record.applied_revision == 0

    def _send(self, service: DemoService, step: Step) -> str:
        """Every event once more: those that are known are answered as they were the first time."""
        answers = []
        for event in self._events():
            step.say(f"{event['body']['type']}")
            status = service.send(event["id"], event["body"])
            answers.append(status)
            self.facts.events.append({"id": event["id"], "type": event["body"]["type"], "answer": status})
        known = answers.count(200)
        return f"{len(answers) - known} accepted (202), {known} known (200)"

    def _wait_for_events(self, service: DemoService, step: Step) -> None:
        open_events = {event["id"] for event in self.facts.events}

        def finished() -> bool:
            for event in self.facts.events:
                if event["id"] not in open_events:
                    continue
                answer = service.get(f"/v1/events/{event['id']}")
                event["state"] = answer["state"]
                if answer["state"] in ("failed", "discarded"):
                    raise DemoError(
                        f"event {event['type']} is {answer['state']}: {answer['reason']}\n"
                        f"More: {_HUMMINGFLEET} event show {event['id']}; the bot's log: {_HUMMINGFLEET} bot logs "
                        f"{TENANT} {BOT}. Try it again: {_HUMMINGFLEET} event retry {event['id']}, then make demo"
                    )
                if answer["state"] == "applied":
                    open_events.discard(event["id"])
                elif answer["reason"]:
                    step.say(f"attempt {answer['attempts'] + 1}: {answer['reason']}")
            if open_events:
                tenant = service.get(f"/v1/tenants/{TENANT}")
                step.say(f"tenant {tenant['work']}, {len(open_events)} of {len(self.facts.events)} events open")
            return not open_events

        if not _wait(finished, PROVISION_SECONDS):
            raise DemoError(
                f"after {PROVISION_SECONDS:.0f} s the events are not applied; "
                f"{self.folder / 'service.log'} and '{_HUMMINGFLEET} event list' say why"
            )
        step.note = f"{len(self.facts.events)} events applied"

    def _is_stored(self) -> bool:
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import registry_exists

        return registry_exists(self.here.fleet.registry) and bool(self.here.registry.list(only=[TENANT]))

    def _raise_problem(self, report: ConvergeReport) -> None:
        if report.problem is not None:
            raise DemoError(
                f"{report.problems()}\nThe bot's log: hummingfleet bot logs {TENANT} {BOT}. Run this again to go on"
            )

    def _wait_for_orders(self, service: DemoService, step: Step) -> None:
        wanted = self._wanted_orders()
        bot: dict[str, Any] = {}

        def ask() -> None:
            bots = service.get(f"/v1/tenants/{TENANT}")["bots"]
            bot.update(next((one for one in bots if one["bot"] == BOT), {"state": "absent", "facts": {}}))

        def trades() -> bool:
            ask()
            orders = bot["facts"].get("open_orders") or 0
            step.say(f"bot {bot['state']}, {orders} of {wanted} orders open")
            return bool(bot["state"] == "running" and orders >= (wanted or 0))

        if wanted is None:
            ask()
            step.note = f"somebody has stopped it; it is {bot['state']}"
            return
        if not _wait(trades, TRADE_SECONDS):
            raise DemoError(
                f"after {TRADE_SECONDS:.0f} s bot {BOT} is {bot['state']} with {bot['facts'].get('open_orders') or 0} "
                f"of {wanted} orders open; its log says why: hummingfleet bot logs {TENANT} {BOT}"
            )
        step.note = f"{bot['facts']['open_orders']} orders open"

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
        if not others:
            with self.progress.step("Remove the MQTT broker") as step:
                if shutil.which("docker") and _docker_answers():
                    self._playbook("remove_broker", step, limit=node.id)
        with self.progress.step("Remove its files"):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not others:
                self._remove_node_files()
        kept = ["Docker, its settings and the images that were built (the next demonstration takes seconds)"]
        kept.append(
            f"the key ring {self.here.keyring_path}, the registry and {self.var / 'broker'}: they may belong to more "
            "than this"
        )
        if sandboxed:
            kept.append(f"the sandbox exchange, since other tenants use it: {', '.join(sandboxed)}")
        return kept

    def _in_sandbox(self, tenant: str) -> bool:
        return bool(self.here.registry.get(tenant).document.get("exchange_environment") == "sandbox")

    def _remove_node_files(self) -> None:
        """What the node keeps for tenants, when there are none left."""
        base = Path(self.here.fleet.base_dir)
        # Fencing numbers count within one registry: another one's first run would look outdated beside them.
        for name in ("agent", "sandbox", "broker", "fences"):
            shutil.rmtree(base / name, ignore_errors=True)
        for empty in (base / "tenants", base):
            with contextlib.suppress(OSError):
                empty.rmdir()
        if _FIREWALL.exists():
            subprocess.run([str(_FIREWALL), "remove"], check=False, capture_output=True)


class DemoService:
    """Web service and worker of this installation, for as long as the demonstration runs; a context manager.

    Those that run already are used. What is asked of them is asked as a portal does: events are signed with the
    inbound secret, the status API is read with a token that is revoked at the end.
    """

    def __init__(self, here: Installation, folder: Path) -> None:
        host, port = here.fleet.webhook.listen
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._here = here
        self._log_path = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._token: tuple[str, str] = ("", "")
        self.note = ""

    def __enter__(self) -> DemoService:
        from .secrets_file import SecretsFile
        from .tokens import TokenStore

        settings = self._here.fleet.webhook
        SecretsFile(settings.secrets_path).ensure(time.time())
        if self._is_ready():
            self.note = f"run already: {self._url}"
        else:
            self._start()
            self.note = f"started: {self._url}"
        self._token = TokenStore(self._here.registry).create("portal", TENANT, "the demonstration", time.time() + 3600)
        return self

    def __exit__(self, *_error: object) -> None:
        from .tokens import TokenStore

        with contextlib.suppress(HummingfleetError):
            TokenStore(self._here.registry).revoke(self._token[0])
        self._end()

    def send(self, event_id: str, body: Mapping[str, Any]) -> int:
        """Posts the event, signed; 202 or 200. Raises DemoError with the service's own words."""
        from .secrets_file import Signer

        raw = json.dumps(body).encode()
        headers = Signer(self._here.fleet.webhook.secrets_path, direction="inbound").sign(event_id, raw)
        status, answer = self._ask("POST", "/v1/events", raw, {**headers, "Content-Type": "application/json"})
        if status not in (200, 202):
            faults = "".join(f"\n- {f['pointer']}: {f['problem']}" for f in answer.get("faults", ()))
            raise DemoError(f"the web service answered {status} to {body['type']}: {answer.get('detail')}{faults}")
        return status

    def get(self, path: str) -> dict[str, Any]:
        """The answer of the status API; raises DemoError."""
        status, answer = self._ask("GET", path, None, {"Authorization": f"Bearer {self._token[1]}"})
        if status != 200:
            raise DemoError(f"the status API answered {status} to {path}: {answer.get('detail')}")
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        host, port = self._here.fleet.webhook.listen
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DemoError(
                f"the web service at {self._url} does not answer ({type(error).__name__}); see {self._log_path}"
            ) from None
        finally:
            connection.close()

    def _is_ready(self) -> bool:
        try:
            return self._ask("GET", "/readyz", None, {})[0] == 200
        except DemoError:
            return False

    def _start(self) -> None:
        command = [sys.executable, "-m", "webhook", "--fleet", str(self._here.fleet.path), "up", "--log-format", "json"]
        self._log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            # A session of its own: Ctrl+C reaches this process, which ends the other one.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
            )
        process = self._process
        if (
            not _wait(lambda: process.poll() is not None or self._is_ready(), READY_SECONDS)
            or process.poll() is not None
        ):
            self._end()
            lines = self._log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise DemoError(
                f"web service and worker did not start; {self._log_path} ends with: {(lines or ['nothing'])[-1][:500]}"
            )

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


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
    yield "the portal's events", f"{_HUMMINGFLEET} event list --tenant {TENANT}"
    yield "web service and worker, until Ctrl+C", f"{_HUMMINGFLEET} up"
    yield (
        "be the portal (while that runs)",
        f"{_HUMMINGFLEET} event send bot.restarted --data @var/demo/bot.json --wait",
    )
    yield "the stack on the node", f"docker ps --filter label=hummingfleet.tenant={TENANT}"
    yield "the exchange's own view", "docker exec hf-sandbox python -m sandbox.control orders"
    yield "move the price yourself", f"docker exec hf-sandbox python -m sandbox.control price {PAIR} 33900"
    yield "check the installation", f"{_HUMMINGFLEET} doctor"
    yield "remove all of it", "make demo-down"
