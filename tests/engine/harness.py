"""Bots and a sandbox exchange in containers, the way the node runs them, for tests on the real engine."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from ansible_collections.hummingfleet.core.plugins.module_utils import broker
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import order_tag
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import engine_keystore
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import (
    BotContext,
    Strategy,
    engine_client_config,
)

from sandbox.control import ControlClient
from tests.factories import catalogue

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
BOT_UID = 200003
SANDBOX_UID = 199999
PAIR = "BTC-USDT"
PAIR_RULES = {"price": "35250", "tick": "0.01", "lot": "0.00001", "min_notional": "5"}
PATIENCE_SECONDS = 300
"""After which something never happens; no test depends on how long it takes on a busy machine."""
LAUNCHER = "/opt/hummingfleet/agent/launcher.py"
ALIASES = ("api.binance.com", "stream.binance.com", "ws-api.binance.com", "data-api.binance.vision")
GUIDE_GRID = {"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 100}


def engine_image() -> str:
    """The engine image under test: of the newest release, unless the environment names another."""
    releases = catalogue().releases
    return os.environ.get("HUMMINGFLEET_ENGINE_IMAGE") or releases[max(releases)].image("engine", "build")


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run docker; a failure shows what it said."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    said = f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert not check or done.returncode == 0, said
    return done


def wait_for(what: str, probe: Callable[[], T]) -> T:
    """Wait until ``probe`` answers something true and return it; says what is missing if that never happens."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = 0.02
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what} (last seen: {answer!r})"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


@dataclass
class Sandbox:
    """The sandbox exchange on an internal network of its own; ``pairs`` as its settings have them."""

    folder: Path
    pairs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {PAIR: PAIR_RULES})
    name: str = field(default_factory=lambda: f"hf-test-sandbox-{secrets.token_hex(4)}")

    @property
    def network(self) -> str:
        """The network that bots join."""
        return f"{self.name}-net"

    @property
    def ca_path(self) -> Path:
        """The private CA's certificate."""
        return self.folder / "pki/ca.pem"

    @property
    def control(self) -> ControlClient:
        """The control endpoint."""
        return ControlClient(str(self.folder / "run/control.sock"))

    def start(self) -> None:
        """Start it and wait until it answers."""
        for name in ("pki", "tls", "run", "state", "config"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, str(ROOT / "sandbox/pki.py"), "--ca-dir", str(self.folder / "pki"), "--tls-dir",
                        str(self.folder / "tls")], check=True, capture_output=True)
        settings = {
            "control_socket": "/run/sandbox/control.sock", "state_dir": "/var/lib/sandbox",
            "tls": {"certificate": "/etc/sandbox/tls/server.pem", "key": "/etc/sandbox/tls/server.key"},
            "pairs": self.pairs,
        }
        (self.folder / "config/sandbox.json").write_text(json.dumps(settings))
        (self.folder / "config/tls").mkdir(exist_ok=True)
        for path in [self.folder, *self.folder.rglob("*")]:
            if "pki" not in path.parts:
                os.chown(path, SANDBOX_UID, SANDBOX_UID)
        docker("network", "create", "--internal", self.network)
        docker("run", "--detach", "--init", "--name", self.name, "--network", self.network,
               *(item for alias in ALIASES for item in ("--network-alias", alias)),
               "--user", f"{SANDBOX_UID}:{SANDBOX_UID}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
               "--read-only", "--tmpfs", "/tmp", "--memory", "256m",
               "--sysctl", "net.ipv4.ip_unprivileged_port_start=0",
               "--volume", f"{self.folder}/config:/etc/sandbox:ro",
               "--volume", f"{self.folder}/tls:/etc/sandbox/tls:ro",
               "--volume", f"{self.folder}/run:/run/sandbox", "--volume", f"{self.folder}/state:/var/lib/sandbox",
               *self._image())
        wait_for("the sandbox answers", self._answers)

    @staticmethod
    def _image() -> list[str]:
        """The image that the environment names, as it is; otherwise ours with the exchange of this work tree."""
        named = os.environ.get("HUMMINGFLEET_SANDBOX_IMAGE")
        here = f"{ROOT}/sandbox:/opt/sandbox/app/sandbox:ro"
        return [named] if named else ["--volume", here, "hummingfleet/sandbox:1"]

    def _answers(self) -> bool:
        try:
            return bool(self.control.get("/health")["status"] == "ok")
        except Exception:
            return False

    def remove(self) -> None:
        """Take everything away."""
        docker("rm", "--force", self.name, check=False)
        docker("network", "rm", self.network, check=False)

    def set_price(self, price: int | str, *, volume: str | None = None, spread_bps: str | None = None) -> None:
        """Move the market, filling what it meets: all of it, or ``volume`` base. The spread stays unless given."""
        self.control.request("POST", "/price", {"pair": PAIR, "price": str(price), "volume": volume,
                                                "spread_bps": spread_bps})

    def add_account(self, name: str, balances: Mapping[str, str], fee: str = "0") -> tuple[str, str]:
        """A new account that pays this fee (a fraction); returns key and secret."""
        key, secret = f"{name}-{secrets.token_hex(12)}", secrets.token_hex(24)
        self.control.request("POST", "/accounts", {"name": name, "api_key": key, "api_secret": secret,
                                                   "balances": dict(balances), "maker_fee": fee, "taker_fee": fee})
        return key, secret

    def fault(self, kind: str, account: str | None = None, **details: Any) -> None:
        """Make something go wrong, for one account or everybody."""
        self.control.request("POST", "/faults", {"kind": kind, **({"account": account} if account else {}), **details})

    def heal(self) -> None:
        """End all faults."""
        self.control.request("DELETE", "/faults")

    def bad_signatures(self, account: str) -> int:
        """Requests of the account whose signature was wrong."""
        return int(self.control.get("/stats")["accounts"][account]["bad_signatures"])

    def refusals(self, account: str, path: str = "POST /api/v3/order") -> dict[str, int]:
        """What the exchange refused of itself (faults on order apart), by its code and words."""
        return dict(self.control.get("/stats")["accounts"].get(account, {}).get("refusals", {}).get(path, {}))

    def fills(self, account: str) -> list[dict[str, Any]]:
        """The account's fills, oldest first."""
        return list(self.control.get("/fills", account=account)["fills"])

    def orders(self, account: str, state: str = "open") -> list[dict[str, Any]]:
        """The account's orders as the exchange has them."""
        return list(self.control.get("/orders", account=account, state=state)["orders"])

    def balances(self, account: str) -> dict[str, Decimal]:
        """Free and locked together, by asset."""
        held = self.control.get(f"/account/{account}")["balances"]
        return {asset: Decimal(item["free"]) + Decimal(item["locked"]) for asset, item in held.items()}

    def resting(self, account: str, side: str) -> list[tuple[Decimal, Decimal]]:
        """Price and amount of open orders of a side, lowest first."""
        return sorted((Decimal(item["price"]), Decimal(item["quantity"])) for item in self.orders(account)
                      if item["side"] == side)


@dataclass
class Bot:
    """A bot's home on the node, and its container."""

    sandbox: Sandbox
    folder: Path
    bot: str = "b1"
    tenant: str = "acme"
    template: str = "grid"
    config: dict[str, Any] = field(default_factory=lambda: dict(GUIDE_GRID))
    risk: dict[str, Any] = field(default_factory=lambda: {"max_position": 10000})
    balances: dict[str, str] = field(default_factory=lambda: {"USDT": "20000", "BTC": "1"})
    fee: str = "0"
    resumes: int = 0
    agent: Path = ROOT / "agent"
    strategy: Strategy | None = None

    def __post_init__(self) -> None:
        self.started_at = 0.0
        self.account = f"{self.bot}-{secrets.token_hex(3)}"
        self.name = f"hf-test-{self.account}"
        self.password = secrets.token_urlsafe(32)
        self.broker_password = secrets.token_urlsafe(32)
        self.key, self.secret = self.sandbox.add_account(self.account, self.balances, self.fee)
        for name in ("config", "data", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            os.chown(self.folder / name, BOT_UID, BOT_UID)
        self.write_password(self.password)
        self.write_password(self.broker_password, "broker_password")
        self.write_config()

    # -- files

    def write_password(self, password: str, name: str = "keystore_password") -> None:
        """A secret file that the container mounts."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(password)
        path.chmod(0o400)
        os.chown(path, BOT_UID, BOT_UID)

    def write_config(self) -> None:
        """Everything the renderer writes for this bot."""
        strategy = self.strategy or TEMPLATES[self.template]
        context = BotContext(
            tenant=self.tenant, bot=self.bot, connector="binance", trading_pair=PAIR,
            config={key: Decimal(str(value)) if isinstance(value, float) else value
                    for key, value in self.config.items()},
            limits={name: value if isinstance(value, bool) else Decimal(str(value))
                    for name, value in self.risk.items()})
        files = {
            "conf_client.yml": engine_client_config(context),
            **strategy.engine_files(context),
            **engine_keystore(self.password, catalogue().connectors["binance"],
                              {"binance_api_key": self.key, "binance_api_secret": self.secret}),
            "bot.json": json.dumps({
                "tenant": self.tenant, "bot": self.bot, "connector": "binance", "trading_pair": PAIR,
                "connection": "ex1", "kind": strategy.kind, "config": f"{self.bot}.yml",
                "order_tag": order_tag(self.tenant, self.bot),
                "agent_version": "1.0.0", "release": "2026.09", "resumes": self.resumes,
                "risk": self.risk if strategy.kind == "v2" else {},
                **({"broker": {"host": broker.ALIAS, "port": broker.PORT}} if strategy.needs_broker else {})}),
        }
        for path, text in files.items():
            self.write_file(path, text)

    def write_file(self, path: str, text: str) -> None:
        """One file of the config folder, replaced atomically as the node does."""
        target = self.folder / "config" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(target)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the data folder; {} while there is none."""
        try:
            return dict(json.loads((self.folder / "data" / name).read_text()))
        except FileNotFoundError:
            return {}

    @property
    def lifecycle(self) -> dict[str, Any]:
        """The lifecycle record."""
        return self.read("lifecycle.json")

    @property
    def heartbeat(self) -> dict[str, Any]:
        """The heartbeat."""
        return self.read("heartbeat.json")

    # -- container

    def _arguments(self) -> list[str]:
        folder, agent = self.folder, self.agent
        volumes = {
            f"{agent}": "/opt/hummingfleet/agent:ro", f"{agent}/scripts": "/home/hummingbot/scripts:ro",
            f"{agent}/controllers": "/home/hummingbot/controllers:ro",
            f"{folder}/config": "/opt/hummingfleet/config:ro",
            f"{folder}/data": "/home/hummingbot/data", f"{folder}/logs": "/home/hummingbot/logs",
            f"{folder}/keystore_password": "/run/secrets/keystore_password:ro",
            f"{folder}/broker_password": "/run/secrets/broker_password:ro",
            f"{self.sandbox.ca_path}": "/opt/hummingfleet/ca.pem:ro",
        }
        return [
            "--init", "--network", self.sandbox.network, "--user", f"{BOT_UID}:{BOT_UID}", "--read-only",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "512m", "--pids-limit", "256",
            "--workdir", "/home/hummingbot", "--tmpfs", "/tmp",
            "--tmpfs", f"/home/hummingbot/conf:uid={BOT_UID},gid={BOT_UID},mode=0700",
            "--env", "HOME=/tmp", "--env", "PYTHONDONTWRITEBYTECODE=1",
            "--env", "SSL_CERT_FILE=/opt/hummingfleet/ca.pem",
            *(item for source, target in volumes.items() for item in ("--volume", f"{source}:{target}")),
        ]

    def start(self, *, wait: bool = True) -> None:
        """Start the container; by default wait until it trades."""
        docker("rm", "--force", self.name, check=False)
        self.started_at = time.time()
        docker("run", "--detach", "--name", self.name, "--stop-timeout", "60", *self._arguments(), engine_image(),
               "python", LAUNCHER, "run", "hummingbot.cli.engine")
        if wait:
            self.wait_for_phase("trading")

    def wait_for_phase(self, phase: str) -> None:
        """Wait for a heartbeat of the present run with this phase; trading includes a connected exchange."""
        def reached() -> bool:
            heartbeat = self.heartbeat
            return (heartbeat.get("phase") == phase and heartbeat["at"] > self.started_at
                    and (phase != "trading" or all(heartbeat["connectors"].values())))

        try:
            wait_for(f"{self.name} is {phase}", reached)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.heartbeat}\n{self.log()[-4000:]}") from None

    def stop(self) -> int:
        """Stop the container as Docker does; returns the exit code."""
        docker("stop", "--time", "60", self.name)
        return self.exit_code()

    def cut_off(self) -> None:
        """Take the container off its network."""
        docker("network", "disconnect", self.sandbox.network, self.name)

    def kill_python(self) -> None:
        """Kill the launcher's process without warning."""
        docker("exec", self.name, "sh", "-c", f"kill -9 {self.pid()}")
        wait_for("the container has ended", lambda: not self.is_running())

    def restart(self) -> None:
        """Start the same container again, as Docker's restart policy does."""
        self.started_at = time.time()
        docker("start", self.name)

    def pid(self) -> int:
        """The launcher's process id inside the container."""
        return int(self.heartbeat["pid"])

    def exit_code(self) -> int:
        """Of the ended container."""
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name).stdout)

    def is_running(self) -> bool:
        """Whether the container runs."""
        return docker("inspect", "--format", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def run_mode(self, mode: str, *options: str) -> tuple[int, dict[str, Any], str]:
        """Run settle or liquidate in a container of its own; exit code, its last line as JSON, everything it said."""
        command = ["python", LAUNCHER, mode, *options]
        done = docker("run", "--rm", *self._arguments(), engine_image(), *command, check=False)
        last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "{}"
        return done.returncode, json.loads(last) if last.startswith("{") else {}, done.stdout + done.stderr

    def execute(self, *command: str) -> str:
        """Run a command in the running container; its output."""
        return docker("exec", self.name, *command).stdout

    def has_hbot(self) -> bool:
        """Whether the engine under test has a command line of its own; that of the newest release must."""
        has = docker("exec", self.name, "test", "-x", "/usr/local/bin/hbot", check=False).returncode == 0
        assert has or "HUMMINGFLEET_ENGINE_IMAGE" in os.environ, "hbot is missing from the image"
        return has

    def log(self) -> str:
        """What `docker logs` shows."""
        done = docker("logs", self.name, check=False)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Take the container away."""
        docker("rm", "--force", self.name, check=False)
