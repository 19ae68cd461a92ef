"""A node's MQTT broker in a container, and the web service's end of it, for tests on the real engine."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from ansible_collections.hummingfleet.core.plugins.module_utils import broker as node_broker
from jinja2 import Environment
from paho.mqtt.enums import CallbackAPIVersion

from tests.engine.harness import ROOT, Bot, Sandbox, docker, wait_for
from tests.factories import catalogue

ROLE = ROOT / "roles/node_broker"
UID = 199998


@dataclass
class Broker:
    """Mosquitto with the role's rules, on the sandbox's network, and a connection to it as the user ``signals``."""

    sandbox: Sandbox
    folder: Path
    name: str = field(default_factory=lambda: f"hf-test-broker-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.password = secrets.token_urlsafe(32)
        self.answers: list[dict[str, Any]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.username_pw_set(node_broker.SIGNALS_USER, self.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._listen
        self.client.on_message = lambda _client, _data, message: self.answers.append(json.loads(message.payload))

    def start(self, *bots: Bot) -> None:
        """Start it with these bots as users, and connect."""
        template = (ROLE / "templates/mosquitto.conf.j2").read_text()
        # The listener of the control node needs its certificates; what holds for bots stands before it.
        rules, control, _ = template.partition("# The control node.")
        assert control and "listener 1883" in rules
        environment = Environment(autoescape=False)
        environment.filters["comment"] = lambda text: f"# {text}"
        variables = {"ansible_managed": "", "node_broker_max_packet_bytes": 16384, "node_broker_memory_mib": 128}
        users = {node_broker.SIGNALS_USER: self.password,
                 **{node_broker.bot_user(bot.tenant, bot.bot): bot.broker_password for bot in bots}}
        files = {
            "config/mosquitto.conf": environment.from_string(rules).render(variables),
            "config/acl": (ROLE / "files/acl").read_text(),
            "users/passwords": "".join(node_broker.user_line(*user) for user in users.items()),
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, UID, UID)
        releases = catalogue().releases
        image = os.environ.get("HUMMINGFLEET_BROKER_IMAGE") or releases[max(releases)].image("broker", "build")
        docker("run", "--detach", "--init", "--name", self.name, "--network", self.sandbox.network,
               "--network-alias", node_broker.ALIAS, "--user", f"{UID}:{UID}", "--cap-drop", "ALL",
               "--security-opt", "no-new-privileges", "--read-only", "--memory", "128m",
               "--volume", f"{self.folder}/config:/mosquitto/config:ro",
               "--volume", f"{self.folder}/users:/mosquitto/users:ro",
               image, "mosquitto", "-c", "/mosquitto/config/mosquitto.conf")
        self._connect()

    def _connect(self) -> None:
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                         self.name).stdout.strip()
        wait_for("the broker answers", lambda: self._try(address))
        self.client.loop_start()
        wait_for("the broker takes the user", self.client.is_connected)

    def _listen(self, *_: Any) -> None:
        self.client.subscribe("hbot/+/hummingfleet/ack", qos=1)

    def _try(self, address: str) -> bool:
        try:
            return self.client.connect(address, node_broker.PORT) == mqtt.MQTT_ERR_SUCCESS
        except OSError:
            return False

    def restart(self) -> None:
        """Restart it, as an update of its image does."""
        self.client.disconnect()
        self.client.loop_stop()
        docker("restart", "--time", "10", self.name)
        self._connect()

    def send(self, bot: Bot, action: str, size: int | None = None, **fields: Any) -> dict[str, Any]:
        """Hand a signal over and return the bot's answer; ``fields`` replace those of the message."""
        now = time.time()
        message = {"id": secrets.token_hex(8), "action": action, "size_quote": None if size is None else str(size),
                   "sent_at": now, "expires_at": now + 20, **fields}
        seen = len(self.answers)
        self.hand_over(bot, message)

        def answer() -> dict[str, Any] | None:
            return next((item for item in self.answers[seen:] if item["id"] == message["id"]), None)

        return {**wait_for(f"an answer to {message}\n{bot.log()[-3000:]}", answer), "sent_at": now}

    def hand_over(self, bot: Bot, message: Any) -> None:
        """Publish a message for a bot as soon as it listens."""
        topic = f"hbot/{node_broker.bot_user(bot.tenant, bot.bot)}/hummingfleet/signal"

        def heard() -> bool:
            codes: list[int] = []
            self.client.on_publish = lambda _client, _data, _mid, code, _properties: codes.append(code.value)
            self.client.publish(topic, json.dumps(message), qos=1).wait_for_publish(10)
            wait_for("the broker confirms", lambda: codes)
            # 0x10: nobody listens there.
            return codes[-1] == 0

        wait_for(f"{bot.name} listens to signals", heard)

    def remove(self) -> None:
        """Take it away."""
        self.client.loop_stop()
        docker("rm", "--force", self.name, check=False)
