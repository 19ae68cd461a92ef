"""Where things are in the container, and what ``bot.json`` says."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, KeystoreError
from .records import read_json
from .risk import RiskLimits


@dataclass(frozen=True)
class Home:
    """The bot home as the node mounts it."""

    home_dir: Path = Path("/home/hummingbot")
    config_dir: Path = Path("/opt/hummingfleet/config")
    password_path: Path = Path("/run/secrets/keystore_password")
    broker_password_path: Path = Path("/run/secrets/broker_password")

    @property
    def conf_dir(self) -> Path:
        """The engine's own conf folder, in memory."""
        return self.home_dir / "conf"

    @property
    def data_dir(self) -> Path:
        """What survives the container."""
        return self.home_dir / "data"

    @property
    def heartbeat_path(self) -> Path:
        """Rewritten every 2 s."""
        return self.data_dir / "heartbeat.json"

    @property
    def lifecycle_path(self) -> Path:
        """Whether the bot ended cleanly."""
        return self.data_dir / "lifecycle.json"

    @property
    def ledger_path(self) -> Path:
        """Own orders and holdings."""
        return self.data_dir / "ledger.json"


@dataclass(frozen=True)
class BrokerAddress:
    """Where the bot reaches its node's MQTT broker."""

    host: str
    port: int

    @classmethod
    def parse(cls, data: object) -> "BrokerAddress | None":
        """The address in bot.json's ``broker``; None where the bot has none. Raises ValueError."""
        if data is None:
            return None
        if not isinstance(data, Mapping) or set(data) != {"host", "port"}:
            raise ValueError("broker must be an object with host and port")
        host, port = data["host"], data["port"]
        if not isinstance(host, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", host):
            raise ValueError("broker.host must be a host name or an address")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError("broker.port must be a port number")
        return cls(host, port)


@dataclass(frozen=True)
class BotSettings:
    """``bot.json``."""

    tenant: str
    bot: str
    connector: str
    trading_pair: str
    kind: str
    config: str
    order_tag: str
    connection: str
    risk: RiskLimits = field(default_factory=RiskLimits)
    resumes: int = 0
    broker: BrokerAddress | None = None

    @property
    def base_asset(self) -> str:
        """The asset that is bought and sold."""
        return self.trading_pair.split("-")[0]

    @property
    def quote_asset(self) -> str:
        """The asset that prices are in."""
        return self.trading_pair.split("-")[1]

    @property
    def live_file(self) -> str:
        """The one file whose changes are applied while the bot runs, relative to the config folder."""
        return f"controllers/{self.config}" if self.kind == "v2" else f"strategies/{self.config}"

    @classmethod
    def load(cls, home: Home) -> "BotSettings":
        """Read and check the file. Raises ConfigurationError naming the field."""
        path = home.config_dir / "bot.json"
        try:
            data = read_json(path)
        except (ValueError, OSError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from None
        if data is None:
            raise ConfigurationError(f"{path} is missing; converge the tenant again")
        return cls.parse(data)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "BotSettings":
        """The settings in a bot.json object. Raises ConfigurationError naming the field."""
        patterns = {
            "tenant": r"[a-z][a-z0-9-]*", "bot": r"[a-z][a-z0-9-]*", "connector": r"[a-z][a-z0-9_]*",
            "trading_pair": r"[A-Z0-9]+-[A-Z0-9]+", "kind": r"v1|v2", "config": r"[a-z0-9][a-z0-9-]*\.yml",
            "order_tag": r"[0-9a-f]{8}", "connection": r"[a-z][a-z0-9-]*",
        }
        for name, pattern in patterns.items():
            if not isinstance(data.get(name), str) or not re.fullmatch(pattern, data[name]):
                raise ConfigurationError(f"bot.json: {name} must match {pattern}; converge the tenant again")
        try:
            risk = RiskLimits.parse(data.get("risk") or {})
            resumes = int(data.get("resumes") or 0)
            broker = BrokerAddress.parse(data.get("broker"))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"bot.json: {error}") from None
        return cls(**{name: data[name] for name in patterns}, risk=risk, resumes=resumes, broker=broker)


def populate_conf(home: Home, broker: BrokerAddress | None = None) -> None:
    """Copy the rendered configuration into the engine's conf folder: the engine rewrites files there as it likes.

    With ``broker`` the engine's MQTT bridge is turned on. Its password is put into the copy, which lives in memory and
    is readable by nobody else. Raises ConfigurationError where a file is missing, KeystoreError where the keystore is.
    """
    source, conf = home.config_dir, home.conf_dir
    try:
        for folder in ("connectors", "strategies", "scripts", "controllers"):
            (conf / folder).mkdir(parents=True, exist_ok=True)
            for old in (conf / folder).iterdir():
                old.unlink()
            for file in sorted((source / folder).glob("*.yml")):
                shutil.copyfile(file, conf / folder / file.name)
        if not (source / "conf_client.yml").is_file():
            raise ConfigurationError(f"{source / 'conf_client.yml'} is missing; converge the tenant again")
        client = (source / "conf_client.yml").read_text(encoding="utf-8")
        if broker is not None:
            client = _with_bridge(client, broker, _broker_password(home))
        _write_private(conf / "conf_client.yml", client)
        if not (source / "password_verification").is_file():
            # The engine would make a new, empty keystore and trade with nothing.
            raise KeystoreError(f"{source / 'password_verification'} is missing; converge the tenant again")
        shutil.copyfile(source / "password_verification", conf / ".password_verification")
    except OSError as error:
        raise ConfigurationError(f"the configuration cannot be copied: {error.strerror}: {error.filename}") from None


def read_password(home: Home) -> str:
    """The keystore's password. Raises KeystoreError where the secret file cannot be read."""
    try:
        password = home.password_path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise KeystoreError(f"the keystore password {home.password_path} cannot be read: {error}") from None
    if not password:
        raise KeystoreError(f"the keystore password {home.password_path} is empty")
    return password


def _broker_password(home: Home) -> str:
    try:
        password = home.broker_password_path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the broker password {home.broker_password_path} cannot be read ({type(error).__name__}); "
            "converge the tenant again") from None
    if not password:
        raise ConfigurationError(
            f"the broker password {home.broker_password_path} is empty; converge the tenant again")
    return password


def _with_bridge(client: str, broker: BrokerAddress, password: str) -> str:
    """conf_client.yml with its ``mqtt_bridge`` section replaced: connected, and with every function of its own off."""
    instance = re.search(r'^instance_id: "?([a-z0-9.-]+)"?$', client, re.MULTILINE)
    if instance is None:
        raise ConfigurationError("conf_client.yml has no instance_id; converge the tenant again")
    rest = re.sub(r"^mqtt_bridge:.*\n(?:[ \t]+.*\n)*", "", client, flags=re.MULTILINE)
    section = {
        "mqtt_host": broker.host, "mqtt_port": broker.port,
        "mqtt_username": instance[1], "mqtt_password": password, "mqtt_namespace": "hbot",
        "mqtt_ssl": False, "mqtt_autostart": True,
        "mqtt_logger": False, "mqtt_notifier": False, "mqtt_commands": False, "mqtt_events": False,
        "mqtt_external_events": False,
    }
    # JSON's scalars are YAML's.
    return rest + "mqtt_bridge:\n" + "".join(f"  {name}: {json.dumps(value)}\n" for name, value in section.items())


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
