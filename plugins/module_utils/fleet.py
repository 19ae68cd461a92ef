# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet file: nodes and settings of one installation, in one place, read by Ansible, the CLI and the webhook."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, HummingfleetError, pointer

ENVIRONMENT_VARIABLE = "HUMMINGFLEET_FLEET"
FILE_SUFFIXES = (".tenants.yml", ".tenants.yaml")
NODE_ID = re.compile(r"^[a-z][a-z0-9_]{0,31}$")
CONTAINER_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}", re.ASCII)
# A group or host of that name means something to the inventory or to Ansible itself.
RESERVED_NODE_IDS = frozenset({"all", "behind", "leads", "localhost", "nodes", "tenants", "ungrouped"})
RESERVED_NODE_PREFIXES = ("node_", "plan_", "release_", "ring_", "state_", "tenant_")
# How Ansible reaches a node. Anything else (and every password) belongs into group_vars, where Ansible Vault works.
CONNECTION_VARIABLES = frozenset(
    {
        "ansible_become",
        "ansible_become_exe",
        "ansible_become_flags",
        "ansible_become_method",
        "ansible_become_user",
        "ansible_connection",
        "ansible_host",
        "ansible_host_key_checking",
        "ansible_pipelining",
        "ansible_port",
        "ansible_private_key_file",
        "ansible_python_interpreter",
        "ansible_remote_tmp",
        "ansible_shell_executable",
        "ansible_shell_type",
        "ansible_ssh_args",
        "ansible_ssh_common_args",
        "ansible_ssh_executable",
        "ansible_ssh_extra_args",
        "ansible_ssh_host_key_checking",
        "ansible_ssh_pipelining",
        "ansible_ssh_port",
        "ansible_ssh_private_key_file",
        "ansible_ssh_retries",
        "ansible_ssh_timeout",
        "ansible_ssh_user",
        "ansible_timeout",
        "ansible_user",
    }
)
PRIVATE_NETWORKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918
KEYRING_PATHS = frozenset({"file", "ansible_vault", "password_file", "token_file", "ca_file"})
ImagesSetting = Literal["auto", "registry", "build"]


class FleetError(HummingfleetError):
    """The fleet file is missing or says something that cannot be."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that runs tenants. ``memory_mib`` is what tenants may reserve on it, ``variables`` are Ansible's.

    ``broker_address`` is the IPv4 address at which the control node reaches the node's MQTT broker, None where the
    fleet file gives neither it nor an address as ``ansible_host``.
    """

    id: str
    memory_mib: int
    labels: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    broker_address: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The section ``webhook``: how the portal's events come in, and how they are worked off.

    ``listen`` and ``worker_listen`` are host and port; the worker's has its health and metrics. ``portal_url`` gets the
    call-backs. Rates are per minute: events of one tenant, refused signatures and tokens of one client address.
    ``parallel`` runs at a time, each for at most ``batch`` tenants. ``trusted_proxies`` may say who the client is.
    ``signals_per_minute`` and ``signal_burst`` are of one bot; for ``signal_ack_seconds`` its answer is waited for.
    """

    listen: tuple[str, int]
    worker_listen: tuple[str, int]
    secrets_path: Path
    portal_url: str | None
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    max_body_bytes: int
    tenant_events_per_minute: int
    failures_per_minute: int
    threads: int
    parallel: int
    batch: int
    run_timeout_seconds: int
    grace_seconds: int
    observe_seconds: int
    keep_events_days: int
    signals_per_minute: int
    signal_burst: int
    signal_ack_seconds: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """The settings of one installation; every path is absolute.

    ``root`` is the folder that relative paths of the file start from: the nearest one above the file that has an
    ``ansible.cfg``, else the file's own. ``registry`` is a database URL and may hold a password, so it is not in the
    representation. ``base_dir`` is a folder on nodes. ``uid_pool`` holds the first and the last user id for tenants.
    ``sandbox_container`` is the sandbox exchange that this installation's tenants trade on, ``broker_container`` the
    MQTT broker that their bots take signals from, if nodes have one (``broker_enabled``), and ``broker_port`` its TLS
    port.
    """

    path: Path
    root: Path
    registry: str = field(repr=False)
    keyring: Mapping[str, Any] = field(repr=False)
    catalogue: Path
    images: ImagesSetting
    base_dir: str
    address_pool: ipaddress.IPv4Network
    uid_pool: tuple[int, int]
    kdf_iterations: int
    sandbox_container: str
    broker_enabled: bool
    broker_container: str
    broker_port: int
    nodes: Mapping[str, Node]
    webhook: WebhookSettings

    @property
    def run_dir(self) -> Path:
        """Where running processes keep sockets and folders of runs; only their user's."""
        return self.root / "var" / "run"


def default_fleet_path() -> Path:
    """The fleet file that is meant when none is named: ``HUMMINGFLEET_FLEET``, else inventories/local."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named).absolute()
    return Path(__file__).resolve().parents[2] / "inventories" / "local" / "fleet.tenants.yml"


def load_fleet(path: Path | str | None = None) -> Fleet:
    """The fleet that ``path`` (default: ``default_fleet_path()``) describes; raises FleetError with every fault."""
    file = Path(path).absolute() if path is not None else default_fleet_path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FleetError(
            f"there is no fleet file {file}; name one with {ENVIRONMENT_VARIABLE} or copy inventories/local"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FleetError(f"the fleet file {file} cannot be read: {error}") from None
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  the loader is a SafeLoader
    except yaml.YAMLError as error:
        raise FleetError(f"the fleet file {file} is not YAML: {_one_line(error)}") from None
    return parse_fleet(data, file)


def parse_fleet(data: object, path: Path) -> Fleet:
    """The fleet in ``data``, the parsed content of the file at ``path`` (absolute); raises FleetError."""
    reader = _Reader(path)
    fleet = reader.fleet(data)
    if reader.faults or fleet is None:
        raise FleetError(f"the fleet file {path} is refused:\n" + "\n".join(f"- {fault}" for fault in reader.faults))
    return fleet


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses a key that is written twice: YAML would silently drop the first node of that name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return cast("dict[Hashable, Any]", super().construct_mapping(node, deep=deep))


class _Reader:
    """Reads the file's values one by one and collects what is wrong with them."""

    KEYS = (
        "plugin",
        "only",
        "registry",
        "keyring",
        "catalogue",
        "images",
        "base_dir",
        "address_pool",
        "uid_pool",
        "kdf_iterations",
        "sandbox_container",
        "broker_enabled",
        "broker_container",
        "broker_port",
        "nodes",
        "webhook",
    )
    # Default, smallest and largest value of the section webhook's numbers.
    WEBHOOK_NUMBERS: ClassVar[Mapping[str, tuple[int, int, int]]] = {
        "max_body_bytes": (262_144, 1024, 16_777_216),
        "tenant_events_per_minute": (600, 1, 1_000_000),
        "failures_per_minute": (60, 1, 1_000_000),
        "threads": (8, 1, 64),
        "parallel": (4, 1, 64),
        "batch": (8, 1, 500),
        "run_timeout_seconds": (900, 10, 86_400),
        "grace_seconds": (30, 0, 3600),
        "observe_seconds": (20, 1, 3600),
        "keep_events_days": (90, 1, 3650),
        "signals_per_minute": (30, 1, 10_000),
        "signal_burst": (10, 1, 1000),
        "signal_ack_seconds": (2, 1, 30),
    }
    WEBHOOK_TEXTS = ("listen", "worker_listen", "secrets", "portal_url", "trusted_proxies")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _root_of(path)
        self.faults: list[Fault] = []

    def refuse(self, where: str, problem: str, allowed: str, rule: str) -> None:
        self.faults.append(Fault(where, problem, allowed, rule))

    def fleet(self, data: object) -> Fleet | None:
        if not isinstance(data, Mapping):
            self.refuse("", "the file holds no mapping", "keys such as 'nodes'", "fleet_mapping")
            return None
        self.unknown_keys("", data, self.KEYS)
        if data.get("plugin") != "hummingfleet.core.tenants":
            self.refuse("/plugin", f"is {data.get('plugin')!r}", "hummingfleet.core.tenants", "plugin")
        registry = self.registry(data.get("registry", "var/hummingfleet.db"))
        keyring = self.keyring(data.get("keyring", {"file": "var/keyring.yml"}))
        catalogue = self.folder("/catalogue", data.get("catalogue", "catalogue"))
        images = data.get("images", "auto")
        if images not in ("auto", "registry", "build"):
            self.refuse("/images", f"is {images!r}", "auto, registry or build", "images")
        base_dir = self.base_dir(data.get("base_dir", "/srv/hummingfleet"))
        pool = self.address_pool(data.get("address_pool", "10.90.0.0/16"))
        uids = self.uid_pool(data.get("uid_pool", [200000, 299999]))
        iterations = self.number("/kdf_iterations", data.get("kdf_iterations", 1), 1, 10_000_000)
        sandbox = self.container("/sandbox_container", data.get("sandbox_container", "hf-sandbox"))
        broker_enabled = self.boolean("/broker_enabled", data.get("broker_enabled", True))
        broker = self.container("/broker_container", data.get("broker_container", "hummingfleet-broker"))
        broker_port = self.number("/broker_port", data.get("broker_port", 8883), 1, 65_535)
        nodes = self.nodes(data.get("nodes"))
        webhook = self.webhook(data.get("webhook", {}))
        if self.faults or pool is None:
            return None
        return Fleet(
            path=self.path,
            root=self.root,
            registry=registry,
            keyring=keyring,
            catalogue=catalogue,
            images=cast(ImagesSetting, images),
            base_dir=base_dir,
            address_pool=pool,
            uid_pool=uids,
            kdf_iterations=iterations,
            sandbox_container=sandbox,
            broker_enabled=broker_enabled,
            broker_container=broker,
            broker_port=broker_port,
            nodes=nodes,
            webhook=webhook,
        )

    def unknown_keys(self, where: str, data: Mapping[Any, Any], known: Iterable[str]) -> None:
        names = tuple(known)
        for key in data:
            if key not in names:
                self.refuse(where + pointer(str(key)), "is not a setting", ", ".join(names), "unknown_key")

    def number(self, where: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(where, f"is {value!r}", f"a whole number from {low} to {high}", "number")
            return low
        return value

    def boolean(self, where: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.refuse(where, f"is {value!r}", "true or false", "boolean")
            return False
        return value

    def container(self, where: str, value: object) -> str:
        if not isinstance(value, str) or not CONTAINER_NAME.fullmatch(value):
            self.refuse(where, f"is {value!r}", "a container's name, such as hf-sandbox", "container")
            return ""
        return value

    def folder(self, where: str, value: object) -> Path:
        if not isinstance(value, str) or not value or "{{" in value or "\0" in value:
            self.refuse(where, f"is {value!r}", f"a path; a relative one starts from {self.root}", "path")
            return self.root
        return _absolute(self.root, value)

    def registry(self, value: object) -> str:
        allowed = (
            f"a path to a SQLite file (a relative one starts from {self.root}), or a URL that begins with "
            "sqlite:/// or postgresql://"
        )
        if not isinstance(value, str) or not value or "{{" in value or "\0" in value or "\n" in value:
            self.refuse(
                "/registry", "is not a path or URL" if isinstance(value, str) else f"is {value!r}", allowed, "registry"
            )
            return ""
        scheme, separator, rest = value.partition("://")
        if not separator:
            return f"sqlite:///{_absolute(self.root, value)}"
        # The value is not repeated here: it may hold a password.
        if scheme == "sqlite":
            file = rest.removeprefix("/")
            if not rest.startswith("/") or not file or file == ":memory:" or "?" in file:
                self.refuse("/registry", "names no SQLite file", allowed, "registry")
                return ""
            return f"sqlite:///{_absolute(self.root, file)}"
        if scheme in ("postgresql", "postgresql+psycopg"):
            return f"postgresql+psycopg://{rest}"
        self.refuse("/registry", f"names a database of kind {scheme[:30]!r}", allowed, "registry")
        return ""

    def keyring(self, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not value:
            self.refuse("/keyring", "is not a mapping", "for example {file: var/keyring.yml}", "keyring")
            return {}
        kinds = [kind for kind in ("file", "ansible_vault", "hashicorp_vault") if kind in value]
        if len(kinds) != 1:
            self.refuse("/keyring", "has to name one source", "one of file, ansible_vault, hashicorp_vault", "keyring")
        self.unknown_keys("/keyring", value, ("file", "ansible_vault", "password_file", "hashicorp_vault"))
        return {str(key): self.keyring_value("/keyring", str(key), item) for key, item in value.items()}

    def keyring_value(self, where: str, key: str, value: object) -> Any:
        if key in KEYRING_PATHS:
            return str(self.folder(where + pointer(key), value))
        if isinstance(value, Mapping):
            return {str(k): self.keyring_value(where + pointer(key), str(k), v) for k, v in value.items()}
        return value

    def base_dir(self, value: object) -> str:
        if (
            not isinstance(value, str)
            or not re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", value)
            or {"..", "."} & set(value.split("/"))
        ):
            self.refuse("/base_dir", f"is {value!r}", "an absolute path such as /srv/hummingfleet", "base_dir")
            return "/"
        return value

    def address_pool(self, value: object) -> ipaddress.IPv4Network | None:
        allowed = "a private IPv4 network of 64 addresses or more, such as 10.90.0.0/16"
        try:
            pool = ipaddress.IPv4Network(value if isinstance(value, str) else "")
        except ValueError as error:
            self.refuse("/address_pool", f"is {value!r} ({error})", allowed, "address_pool")
            return None
        if pool.prefixlen > 26 or not any(pool.subnet_of(private) for private in PRIVATE_NETWORKS):
            self.refuse("/address_pool", f"is {value!r}", allowed, "address_pool")
            return None
        return pool

    def uid_pool(self, value: object) -> tuple[int, int]:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(uid, int) and not isinstance(uid, bool) for uid in value)
            or not 10_000 <= value[0] <= value[1] <= 2_000_000_000
        ):
            self.refuse("/uid_pool", f"is {value!r}", "[first, last] between 10000 and 2000000000", "uid_pool")
            return (0, 0)
        return (value[0], value[1])

    def webhook(self, value: object) -> WebhookSettings:
        data: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            self.refuse("/webhook", f"is {value!r}", "a mapping such as {listen: '127.0.0.1:8642'}", "webhook")
        self.unknown_keys("/webhook", data, (*self.WEBHOOK_TEXTS, *self.WEBHOOK_NUMBERS))
        numbers = {
            name: self.number("/webhook/" + name, data.get(name, default), low, high)
            for name, (default, low, high) in self.WEBHOOK_NUMBERS.items()
        }
        return WebhookSettings(
            listen=self.address("/webhook/listen", data.get("listen", "127.0.0.1:8642")),
            worker_listen=self.address("/webhook/worker_listen", data.get("worker_listen", "127.0.0.1:8643")),
            secrets_path=self.folder("/webhook/secrets", data.get("secrets", "var/webhook-secrets.yml")),
            portal_url=self.portal_url(data.get("portal_url")),
            trusted_proxies=self.networks("/webhook/trusted_proxies", data.get("trusted_proxies", [])),
            **numbers,
        )

    def address(self, where: str, value: object) -> tuple[str, int]:
        host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        try:
            host = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            host = ""
        if not host or not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
            self.refuse(where, f"is {value!r}", "an address and a port, such as '127.0.0.1:8642'", "address")
            return ("127.0.0.1", 0)
        return (host, int(port))

    def portal_url(self, value: object) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value if isinstance(value, str) and value.isprintable() else "")
            schemes = ("https", "http") if _is_loopback(parts.hostname or "") else ("https",)
            valid = bool(parts.hostname and parts.scheme in schemes and parts.port != 0)
            valid = valid and parts.username is None and not parts.fragment
        except ValueError:
            valid = False
        if not valid:
            # Not repeated: it may hold a password.
            self.refuse(
                "/webhook/portal_url",
                "is no URL that call-backs can go to",
                "https://host/path, without user and password; http only to this machine",
                "portal_url",
            )
            return None
        return str(value)

    def networks(self, where: str, value: object) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        try:
            if not isinstance(value, list):
                raise ValueError
            return tuple(ipaddress.ip_network(str(one)) for one in value)
        except ValueError:
            self.refuse(where, f"is {value!r}", "a list of addresses or networks, such as [127.0.0.1]", "networks")
            return ()

    def nodes(self, value: object) -> dict[str, Node]:
        if not isinstance(value, Mapping) or not value:
            self.refuse("/nodes", "names no node", "at least one node with memory_mib", "nodes")
            return {}
        return {str(key): self.node(key, settings) for key, settings in value.items()}

    def node(self, key: object, settings: object) -> Node:
        where = pointer("nodes", str(key))
        if not isinstance(key, str) or not NODE_ID.fullmatch(key):
            self.refuse(
                where, "is not a node id", "lower-case letters, digits and _, a letter first, up to 32", "node_id"
            )
        elif key in RESERVED_NODE_IDS or key.startswith(RESERVED_NODE_PREFIXES):
            self.refuse(
                where,
                "is a name that groups or tenants have",
                f"not one of {', '.join(sorted(RESERVED_NODE_IDS))}, not beginning with "
                f"{', '.join(RESERVED_NODE_PREFIXES)}",
                "node_id_reserved",
            )
        if not isinstance(settings, Mapping):
            self.refuse(where, f"is {settings!r}", "a mapping with memory_mib", "node")
            return Node(str(key), 0)
        memory = self.number(where + "/memory_mib", settings.get("memory_mib"), 1, 1 << 30)
        labels = settings.get("labels", {})
        if not isinstance(labels, Mapping) or not all(
            isinstance(name, str) and isinstance(label, str) for name, label in labels.items()
        ):
            self.refuse(where + "/labels", f"is {labels!r}", "a mapping of texts, such as {region: tokyo}", "labels")
            labels = {}
        variables: dict[str, Any] = {}
        for name, item in settings.items():
            if name in ("memory_mib", "labels", "broker_address"):
                continue
            if name not in CONNECTION_VARIABLES:
                self.refuse(
                    where + pointer(str(name)),
                    "is not a setting of a node",
                    "memory_mib, labels, broker_address, and Ansible's connection variables "
                    "(ansible_host, ansible_user, ansible_port, ansible_ssh_common_args ...); "
                    "others, and passwords in a vault, belong into group_vars or host_vars",
                    "node_variable",
                )
            elif not isinstance(item, (str, int, bool)):
                self.refuse(where + pointer(str(name)), f"is {item!r}", "a text, number or boolean", "node_variable")
            else:
                variables[str(name)] = item
        address = self.broker_address(where + "/broker_address", settings, variables)
        return Node(str(key), memory, dict(labels), variables, address)

    def broker_address(self, where: str, settings: Mapping[Any, Any], variables: Mapping[str, Any]) -> str | None:
        if "broker_address" in settings:
            if not _is_address(settings["broker_address"]):
                self.refuse(
                    where, f"is {settings['broker_address']!r}", "an IPv4 address such as 192.0.2.11", "broker_address"
                )
            return str(settings["broker_address"])
        if variables.get("ansible_connection") == "local":
            return "127.0.0.1"
        host = variables.get("ansible_host")
        return str(host) if _is_address(host) else None


def _is_address(value: object) -> bool:
    try:
        return isinstance(value, str) and not ipaddress.IPv4Address(value).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _root_of(path: Path) -> Path:
    for folder in path.parents:
        if (folder / "ansible.cfg").is_file():
            return folder
    return path.parent


def _absolute(root: Path, value: str) -> Path:
    return Path(os.path.normpath(root / Path(value).expanduser()))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
