"""What the bot is told about its broker, and what becomes of the password."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hummingfleet_agent.errors import ConfigurationError
from hummingfleet_agent.settings import BotSettings, BrokerAddress, Home, populate_conf

BOT = {
    "tenant": "acme", "bot": "b1", "connector": "binance", "trading_pair": "BTC-USDT", "kind": "v2", "config": "b1.yml",
    "order_tag": "0123abcd", "connection": "ex1",
}
CLIENT = '''instance_id: "acme.b1"
log_level: "INFO"
mqtt_bridge:
  mqtt_autostart: false
rate_limits_share_pct: 100
'''
PASSWORD = "bro\"ker: #secret"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A bot's folders, with a broker's password."""
    made = Home(tmp_path / "home", tmp_path / "config", tmp_path / "password", tmp_path / "broker_password")
    for folder in (made.config_dir, made.home_dir):
        folder.mkdir()
    (made.config_dir / "conf_client.yml").write_text(CLIENT)
    (made.config_dir / "password_verification").write_text("x")
    made.broker_password_path.write_text(PASSWORD + "\n")
    return made


def test_a_bot_without_a_broker_stays_off_it(home: Home) -> None:
    assert BotSettings.parse(BOT).broker is None
    home.broker_password_path.unlink()
    populate_conf(home)
    assert (home.conf_dir / "conf_client.yml").read_text() == CLIENT


def test_the_bridge_is_turned_on_with_nothing_else(home: Home) -> None:
    broker = BotSettings.parse({**BOT, "broker": {"host": "broker", "port": 1883}}).broker
    assert broker == BrokerAddress("broker", 1883)
    populate_conf(home, broker)
    # A second start, over what the engine made of the first.
    populate_conf(home, broker)
    path = home.conf_dir / "conf_client.yml"
    client = yaml.safe_load(path.read_text())
    assert client["mqtt_bridge"] == {
        "mqtt_host": "broker", "mqtt_port": 1883, "mqtt_username": "acme.b1", "mqtt_password": PASSWORD,
        "mqtt_namespace": "hbot", "mqtt_ssl": False, "mqtt_autostart": True, "mqtt_logger": False,
        "mqtt_notifier": False, "mqtt_commands": False, "mqtt_events": False, "mqtt_external_events": False,
    }
    assert {name for name in client if name != "mqtt_bridge"} == {"instance_id", "log_level", "rate_limits_share_pct"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD not in (home.config_dir / "conf_client.yml").read_text()


@pytest.mark.parametrize("broker", [
    "broker", {"host": "broker"}, {"host": "broker", "port": 1883, "password": "x"}, {"host": "", "port": 1883},
    {"host": "a b", "port": 1883}, {"host": 5, "port": 1883}, {"host": "broker", "port": "1883"},
    {"host": "broker", "port": True}, {"host": "broker", "port": 0}, {"host": "broker", "port": 70000},
])
def test_an_odd_broker_is_refused(broker: Any) -> None:
    with pytest.raises(ConfigurationError, match="broker"):
        BotSettings.parse({**BOT, "broker": broker})


def test_a_missing_password_is_named(home: Home) -> None:
    for prepare in (lambda: home.broker_password_path.write_text("\n"), home.broker_password_path.unlink):
        prepare()
        with pytest.raises(ConfigurationError, match=r"broker password .* converge the tenant again"):
            populate_conf(home, BrokerAddress("broker", 1883))
