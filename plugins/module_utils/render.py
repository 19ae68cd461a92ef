# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant's document becomes the desired stack: files, network and containers, as plain data that a node understands.

Runs on the control node only. ``desired_digest`` answers whether anything could differ, without decrypting or rendering
anything; ``render_stack`` does the work, for the tenants that are behind.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils import broker
from ansible_collections.hummingfleet.core.plugins.module_utils.addresses import tenant_network
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue, ImageMode, Plan, Release
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import decrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import (
    document_password,
    fingerprint_key,
    order_tag,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    Bot,
    TenantDocument,
    bot_context,
    read_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import engine_keystore
from ansible_collections.hummingfleet.core.plugins.module_utils.node.broker import USERS_FILE
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import templates
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import engine_client_config

SANDBOX_NAMES = ("api.binance.com", "stream.binance.com", "ws-api.binance.com")
AGENT_DIR = Path(__file__).resolve().parents[2] / "agent"
# Where a service answers once it is ready, inside its network.
PORTS = {"postgres": 5432, "redis": 6379}
AGENT_PATH = "/opt/hummingfleet/agent"
CONFIG_PATH = "/opt/hummingfleet/config"
CA_PATH = "/opt/hummingfleet/ca.pem"
HOME = "/home/hummingbot"
AGENT_COMMAND = ["python", f"{AGENT_PATH}/launcher.py"]
# `hbot status` and `hbot logs` look for this word in the command line of a process.
HBOT_WORD = "hummingbot.cli.engine"

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class RenderError(HummingfleetError):
    """A stored document cannot be turned into a stack."""


@dataclass(frozen=True)
class Renderer:
    """Everything rendering needs beside the document; made once per run."""

    fleet: Fleet
    catalogue: Catalogue
    keyring: KeyRing
    images: ImageMode

    def release(self, name: str) -> Release:
        """The release of that name; raises RenderError when the catalogue has lost it."""
        try:
            return self.catalogue.releases[name]
        except KeyError:
            raise RenderError(
                f"release {name} is not in the catalogue any more; put it back into releases.yml"
            ) from None

    def plan(self, name: str) -> Plan:
        """The plan of that name; raises RenderError when the catalogue has lost it."""
        try:
            return self.catalogue.plans[name]
        except KeyError:
            raise RenderError(f"plan {name} is not in the catalogue any more; put it back into plans.yml") from None

    def seal(self, text: str) -> str:
        """A keyed fingerprint: equal texts give equal ones, and nobody without the key can try texts against it."""
        return hmac.new(fingerprint_key(self.keyring), text.encode(), hashlib.sha256).hexdigest()


def image_mode(fleet: Fleet, found: str | None = None) -> ImageMode:
    """Where images come from; ``found`` is what the playbook's probe decided for ``auto``."""
    mode = fleet.images if fleet.images != "auto" else found
    if mode == "registry":
        return "registry"
    if mode in ("build", None, "auto"):
        return "build"
    raise RenderError(f"images must be registry or build, not {mode!r}")


@functools.cache
def code_digest() -> str:
    """Changes whenever the code that renders does, so that a new version of it reaches every stack."""
    here = Path(__file__).resolve().parent
    names = ("render", "document", "fields", "catalogue", "addresses", "derive", "credentials", "keystore", "risk")
    parts = [*(here / f"{name}.py" for name in (*names, "broker")), *sorted((here / "strategies").glob("*.py"))]
    total = hashlib.sha256()
    for part in parts:
        total.update(part.name.encode() + b"\0" + part.read_bytes())
    return total.hexdigest()


def desired_digest(document: Mapping[str, Any], renderer: Renderer) -> str:
    """What a node compares: differs whenever the rendered stack would. Costs no decryption.

    Keyed, because a master key's change must show and the document's ciphertexts must not be recognisable from it.
    """
    release, plan = renderer.release(document["release"]), renderer.plan(document["plan"])
    used = {bot["strategy_template"] for bot in document.get("bots", ())}
    inputs = {
        "code": code_digest(),
        "document": {key: value for key, value in document.items() if key not in ("placement", "risk", "risk_halt")},
        "release": _release_inputs(release, renderer.images),
        "plan": asdict(plan),
        "exchanges": {
            c["exchange"]: _exchange_inputs(renderer.catalogue, c["exchange"])
            for c in document.get("exchange_connections", ())
        },
        "scripts": {name: script.digest for name, script in renderer.catalogue.scripts.items() if name in used},
        "base_dir": renderer.fleet.base_dir,
        "sandbox_container": renderer.fleet.sandbox_container,
        "broker": [renderer.fleet.broker_enabled, renderer.fleet.broker_container],
        "kdf_iterations": renderer.fleet.kdf_iterations,
        "keys": [
            renderer.seal(renderer.keyring.key(c["key_id"]).hex())
            for c in document.get("exchange_connections", ())
            if c["key_id"] in renderer.keyring.ids
        ],
    }
    return renderer.seal(json.dumps(inputs, sort_keys=True, default=str))


def _release_inputs(release: Release, mode: ImageMode) -> dict[str, str]:
    return {"agent": agent_name(release), **{s: release.image(s, mode) for s in ("engine", "postgres", "redis")}}


def _exchange_inputs(catalogue: Catalogue, name: str) -> str:
    return str(catalogue.exchanges.get(name))


def images_of(document: Mapping[str, Any], renderer: Renderer) -> set[str]:
    """The image references this tenant's containers use."""
    release = renderer.release(document["release"])
    services = ["engine", "postgres"] + (["redis"] if document.get("redis", {}).get("enabled", True) else [])
    return {release.image(service, renderer.images) for service in services}


def removed_stack(data: Mapping[str, Any], renderer: Renderer, *, fence: int) -> dict[str, Any]:
    """The stack of a tenant that is to leave its node."""
    document = read_document(data, renderer.catalogue)
    return {
        "tenant": document.tenant,
        "state": "absent",
        "fence": fence,
        "gid": document.uid,
        # Bots that died need it to settle.
        "network": network(document, renderer),
        "broker": renderer.fleet.broker_container,
        "services": {},
        "bots": [],
    }


def network_name(tenant: str) -> str:
    """The tenant's network on its node."""
    return f"hf-{tenant}"


def render_stack(
    data: Mapping[str, Any], renderer: Renderer, *, revision: int, fence: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The desired stack, and the contents of its secret files by path; raises HummingfleetError naming the tenant.

    The two travel apart so that only one of them has to be kept out of every log.
    """
    document = read_document(data, renderer.catalogue)
    if document.uid is None or document.subnet is None or document.placement.node is None:
        raise RenderError(f"tenant {document.tenant} was never placed; store it through the registry")
    builder = _Builder(document, data, renderer)
    builder.build()
    stack = {
        "tenant": document.tenant,
        "state": "present",
        "revision": revision,
        "digest": desired_digest(data, renderer),
        "fence": fence,
        "gid": document.uid,
        "network": network(document, renderer, broker_needed=bool(builder.broker_users)),
        "broker": renderer.fleet.broker_container,
        "directories": builder.directories,
        "files": builder.files,
        "services": builder.services,
        "bots": builder.bots,
    }
    return stack, builder.secrets


def network(document: TenantDocument, renderer: Renderer, *, broker_needed: bool = False) -> dict[str, Any]:
    """The tenant's network, the shared services that join it, and those that leave it."""
    addresses = tenant_network(document.subnet or "")
    sandbox = document.exchange_environment == "sandbox"
    attach = []
    if sandbox:
        attach.append(
            {
                "container": renderer.fleet.sandbox_container,
                "aliases": list(SANDBOX_NAMES),
                "address": str(addresses.shared["sandbox"]),
                "playbook": "prepare_sandbox",
            }
        )
    if broker_needed:
        attach.append(
            {
                "container": renderer.fleet.broker_container,
                "aliases": [broker.ALIAS],
                "address": str(addresses.shared["broker"]),
                "playbook": "prepare_nodes",
            }
        )
    return {
        "name": network_name(document.tenant),
        "subnet": str(addresses.subnet),
        "gateway": str(addresses.gateway),
        "internal": sandbox,
        "attach": attach,
        "detach": [] if broker_needed else [renderer.fleet.broker_container],
    }


class _Builder:
    """Collects one stack's parts."""

    def __init__(self, document: TenantDocument, data: Mapping[str, Any], renderer: Renderer) -> None:
        self.document = document
        self.data = data
        self.renderer = renderer
        self.plan = renderer.plan(document.plan)
        self.release = renderer.release(document.release)
        self.uid = document.uid or 0
        self.active = document.state == "active"
        self.sandbox = document.exchange_environment == "sandbox"
        self.directories: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []
        self.secrets: dict[str, str] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.bots: list[dict[str, Any]] = []
        self.broker_users: list[str] = []
        self._compose: dict[str, dict[str, Any]] = {}

    def build(self) -> None:
        self._directory("secrets", "0750", owner=0)
        self._directory("bots", "0750", owner=0)
        self._postgres()
        if self.document.redis.enabled:
            self._redis()
        for bot in self.document.bots:
            self._bot(bot)
        if self.broker_users:
            self._secret(USERS_FILE, "".join(self.broker_users), owner=0)
        compose = {
            "name": network_name(self.document.tenant),
            "services": self._compose,
            "networks": {"default": {"external": True, "name": network_name(self.document.tenant)}},
        }
        head = "# Written by Hummingfleet for this tenant; the next converge replaces edits.\n"
        self._file("compose.yml", head + dump_yaml(compose), mode="0640", owner=0)

    # - services -

    def _postgres(self) -> None:
        password = document_password(self.renderer.keyring, self.data, "postgres")
        self._secret("secrets/postgres_password", password)
        self._directory("postgres", "0700")
        service = self._service("postgres", "postgres", self.plan.postgres_memory_mib)
        service.update(
            {
                "environment": {
                    "POSTGRES_USER": "hummingbot",
                    "POSTGRES_DB": "hummingbot",
                    # The official image would put what POSTGRES_PASSWORD_FILE holds into the environment of the
                    # server; initdb reads it from the file. The image insists on a password all the same.
                    "POSTGRES_PASSWORD": "see-pwfile",
                    "POSTGRES_INITDB_ARGS": "--pwfile=/run/secrets/postgres_password",
                    "PGDATA": "/var/lib/postgresql/data/pgdata",
                },
                "volumes": [
                    "./postgres:/var/lib/postgresql/data",
                    "./secrets/postgres_password:/run/secrets/postgres_password:ro",
                ],
                "tmpfs": ["/tmp", self._tmpfs("/var/run/postgresql", 4)],  # noqa: S108
                "shm_size": "64m",
                "stop_signal": "SIGINT",
            }
        )
        self._add("postgres", service, running=self.active, inputs=["secrets/postgres_password"])

    def _redis(self) -> None:
        password = document_password(self.renderer.keyring, self.data, "redis")
        memory = max(8, self.plan.redis_memory_mib * 3 // 4)
        lines = [
            "bind * -::*",
            "protected-mode yes",
            "dir /data",
            "appendonly no",
            "save 300 1",
            f"maxmemory {memory}mb",
            "maxmemory-policy noeviction",
            f"requirepass {password}",
        ]
        self._secret("secrets/redis.conf", "\n".join(lines) + "\n")
        self._directory("redis", "0700")
        service = self._service("redis", "redis", self.plan.redis_memory_mib)
        service.update(
            {
                "command": ["redis-server", "/etc/redis/redis.conf"],
                "volumes": ["./redis:/data", "./secrets/redis.conf:/etc/redis/redis.conf:ro"],
                "tmpfs": ["/tmp"],  # noqa: S108
            }
        )
        self._add("redis", service, running=self.active, inputs=["secrets/redis.conf"])

    def _bot(self, bot: Bot) -> None:
        tenant, home = self.document.tenant, f"bots/{bot.id}"
        connection = next(c for c in self.data["exchange_connections"] if c["id"] == bot.exchange_connection_id)
        connector = self.renderer.catalogue.connectors[connection["exchange"]]
        password = document_password(self.renderer.keyring, self.data, "keystore")
        fields = decrypt_connection(connection, tenant, self.renderer.keyring, self.renderer.catalogue.connectors)
        keystore = engine_keystore(password, connector, fields, self.renderer.fleet.kdf_iterations)
        template = templates(self.renderer.catalogue)[bot.strategy_template]
        context = bot_context(self.document, bot, self.renderer.catalogue)
        strategy_files = template.engine_files(context)
        live_path = f"controllers/{bot.id}.yml"

        for path, mode, owner in (
            (home, "0750", 0),
            (f"{home}/config", "0750", 0),
            (f"{home}/data", "0700", self.uid),
            (f"{home}/logs", "0700", self.uid),
        ):
            self._directory(path, mode, owner=owner)
        # Every level, those above first: a folder is made inside one that is there.
        folders = sorted({str(above) for path in (*keystore, *strategy_files) for above in Path(path).parents} - {"."})
        for folder in folders:
            self._directory(f"{home}/config/{folder}", "0750", owner=0)
        self._secret("secrets/keystore_password", password)
        inputs = ["secrets/keystore_password"]
        broker_files = self._broker_user(bot) if template.needs_broker else []
        inputs += broker_files
        for relative, text in keystore.items():
            path = f"{home}/config/{relative}"
            self._secret(path, text)
            inputs.append(path)
        about = {
            "tenant": tenant,
            "bot": bot.id,
            "connection": connection["id"],
            "connector": connector.name,
            "trading_pair": bot.trading_pair,
            "kind": template.kind,
            "config": f"{bot.id}.yml",
            "order_tag": order_tag(tenant, bot.id),
            "agent_version": self.release.agent,
            "release": self.release.name,
            "resumes": bot.resumes,
            # The engine's own code knows the kill switch alone, and finds it in conf_client.yml.
            "risk": json.loads(json.dumps(context.limits if template.kind == "v2" else {}, default=str)),
        }
        if template.needs_broker:
            about["broker"] = {"host": broker.ALIAS, "port": broker.PORT}
        texts = {
            **strategy_files,
            "bot.json": json.dumps(about, sort_keys=True, indent=1) + "\n",
            "conf_client.yml": engine_client_config(context),
        }
        for relative, text in sorted(texts.items()):
            path = f"{home}/config/{relative}"
            self._file(path, text, mode="0440", owner=0)
            if relative not in (live_path, "conf_client.yml"):
                inputs.append(path)

        agent = f"{self.renderer.fleet.base_dir}/agent/{agent_name(self.release)}"
        service = self._service("engine", f"bot_{bot.id}", self.plan.bot_memory_mib)
        volumes = [
            f"{agent}:{AGENT_PATH}:ro",
            f"{agent}/scripts:{HOME}/scripts:ro",
            f"{agent}/controllers:{HOME}/controllers:ro",
            f"./{home}/config:{CONFIG_PATH}:ro",
            f"./{home}/data:{HOME}/data",
            f"./{home}/logs:{HOME}/logs",
            "./secrets/keystore_password:/run/secrets/keystore_password:ro",
            *(f"./{path}:/run/secrets/broker_password:ro" for path in broker_files),
        ]
        environment = {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}  # noqa: S108
        if self.sandbox:
            volumes.append(f"{self.renderer.fleet.base_dir}/sandbox/ca.pem:{CA_PATH}:ro")
            environment["SSL_CERT_FILE"] = CA_PATH
        service.update(
            {
                "command": [*AGENT_COMMAND, "run", HBOT_WORD],
                "working_dir": HOME,
                "init": True,
                "stop_grace_period": "60s",
                "cpus": float(self.plan.bot_cpus),
                "pids_limit": self.plan.bot_pids,
                "environment": environment,
                "volumes": volumes,
                "tmpfs": [self._tmpfs(f"{HOME}/conf", 16), self._tmpfs("/tmp", 64)],  # noqa: S108
            }
        )
        running = self.active and bot.state == "running"
        # A neighbour's arrival changes this bot's share of the rate limits; that takes effect at its next start.
        alone = engine_client_config(dataclasses.replace(context, rate_limit_bots=1))
        # The controller's file is followed by the running bot; what it cannot follow asks for a new container.
        fixed = {name: str(value) for name, value in context.config.items() if not template.fields[name].live}
        extra = {"restarts": bot.restarts, "client": alone, "fixed": fixed}
        self._add(f"bot_{bot.id}", service, running=running, inputs=inputs, extra=extra)
        live = strategy_files.get(live_path)
        self.bots.append(
            {
                "id": bot.id,
                "service": f"bot_{bot.id}",
                "state": bot.state if self.active or bot.state == "liquidated" else "stopped",
                "command": AGENT_COMMAND,
                "live_digest": hashlib.sha256(live.encode()).hexdigest() if live else None,
            }
        )

    def _broker_user(self, bot: Bot) -> list[str]:
        """Gives the bot a user on the node's MQTT broker; the file with its password."""
        if not self.renderer.fleet.broker_enabled:
            raise RenderError(
                f"tenant {self.document.tenant}, bot {bot.id}: {bot.strategy_template} needs the nodes' MQTT broker, "
                "and the fleet file says broker_enabled: false"
            )
        password = broker.bot_password(self.renderer.keyring, self.data, bot.id)
        self.broker_users.append(broker.user_line(broker.bot_user(self.document.tenant, bot.id), password))
        path = f"secrets/broker_password_{bot.id}"
        self._secret(path, password)
        return [path]

    # - parts -

    def _service(self, image: str, name: str, memory_mib: int) -> dict[str, Any]:
        return {
            "image": self.release.image(image, self.renderer.images),
            "container_name": f"{self.document.tenant}-{name}",
            "user": f"{self.uid}:{self.uid}",
            "restart": "unless-stopped",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": f"{memory_mib}m",
            "memswap_limit": f"{memory_mib}m",
            "pids_limit": 256,
            "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        }

    def _add(
        self,
        name: str,
        service: dict[str, Any],
        *,
        running: bool,
        inputs: list[str],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds a service; its ``spec`` changes with everything that asks for a new container, and with nothing else."""
        contents = {f["path"]: f["content"] for f in self.files if not f["secret"]}
        seen = {path: self.renderer.seal(self.secrets.get(path) or contents[path]) for path in inputs}
        text = json.dumps({"service": service, "files": seen, "extra": dict(extra or {})}, sort_keys=True)
        spec = hashlib.sha256(text.encode()).hexdigest()
        labels = {
            "hummingfleet.tenant": self.document.tenant,
            "hummingfleet.service": name,
            "hummingfleet.release": self.release.name,
            "hummingfleet.spec": spec,
        }
        entry = {**service, "labels": labels}
        if not running:
            # `docker compose up -d` by hand starts what should run, and nothing else.
            entry["profiles"] = ["stopped"]
        self._compose[name] = entry
        self.services[name] = {
            "container": service["container_name"],
            "image": service["image"],
            "spec": spec,
            "running": running,
            "port": PORTS.get(name),
        }

    def _tmpfs(self, path: str, size_mib: int) -> str:
        return f"{path}:uid={self.uid},gid={self.uid},mode=0700,size={size_mib}m"

    def _directory(self, path: str, mode: str, owner: int | None = None) -> None:
        self.directories.append(
            {"path": path, "mode": mode, "uid": self.uid if owner is None else owner, "gid": self.uid}
        )

    def _file(self, path: str, content: str, *, mode: str, owner: int) -> None:
        self.files.append(
            {"path": path, "content": content, "secret": False, "mode": mode, "uid": owner, "gid": self.uid}
        )

    def _secret(self, path: str, content: str, owner: int | None = None) -> None:
        """A file that only the tenant's user (or ``owner``) can read; its content travels apart."""
        if path in self.secrets:
            return
        self.secrets[path] = content
        uid = self.uid if owner is None else owner
        self.files.append({"path": path, "secret": True, "mode": "0400", "uid": uid, "gid": self.uid})


def dump_yaml(data: Any) -> str:
    """Readable YAML with the keys in the order given."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120))


@functools.cache
def agent_files() -> dict[str, bytes]:
    """The agent's files by relative path; what a node mounts into its bots."""
    return {
        str(path.relative_to(AGENT_DIR)): path.read_bytes()
        for path in sorted(AGENT_DIR.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def agent_name(release: Release) -> str:
    """The folder of the release's agent on nodes: its version and a digest of its files.

    So a changed agent never hides behind an old one of the same version, and bots get it by a new container, in the
    safe order. Raises RenderError when the release wants another agent than the one of this repository.
    """
    version = agent_files()["VERSION"].decode().strip()
    if release.agent != version:
        raise RenderError(
            f"release {release.name} wants agent {release.agent}, and this version of Hummingfleet has {version}; give "
            "its tenants a release with that agent"
        )
    total = hashlib.sha256()
    for path, content in agent_files().items():
        total.update(f"{path}\0{len(content)}\0".encode() + content)
    return f"{version}-{total.hexdigest()[:12]}"
