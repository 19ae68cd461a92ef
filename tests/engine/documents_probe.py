"""Runs inside the engine's image: loads many bots' configurations as the engine does and prints what it took of them.

The request on standard input: ``bots``, each with ``client`` (the text of conf_client.yml), ``files`` (the strategy's
files by path) and ``rules`` (the pair's, for what the agent itself refuses), and ``raw``: V1 strategy files as data,
for the engine's own validators. The answer has an entry for each.
"""

import asyncio
import io
import json
import logging
import os
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

HOME_DIR = Path("/home/hummingbot")
os.chdir(HOME_DIR)
sys.path[0:0] = ["/opt/hummingfleet/agent", str(HOME_DIR)]

import hummingbot  # noqa: E402
import yaml  # noqa: E402
from hummingbot.client import settings  # noqa: E402
from hummingbot.client.config import config_helpers  # noqa: E402
from hummingbot.client.config.client_config_map import ClientConfigMap  # noqa: E402
from hummingbot.strategy.pure_market_making.pure_market_making_config_map import (  # noqa: E402
    pure_market_making_config_map as v1_map,
)

V1_TEMPLATE = Path(hummingbot.__file__).parent / "templates" / "conf_pure_market_making_strategy_TEMPLATE.yml"


class Complaints(logging.Handler):
    """The engine only logs what it does not like in a V1 strategy file."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def plain(values):
    """Values as text, as the engine has them."""
    return {name: None if value is None else str(value) for name, value in values.items()}


def load_v1(text):
    """What the engine takes of a V1 strategy file, and what it says."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    for variable in v1_map.values():
        variable.value = None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "b1.yml"
        path.write_text(text)
        asyncio.run(config_helpers.load_yml_into_cm_legacy(str(path), str(V1_TEMPLATE), v1_map))
        if path.read_text() != text:
            complaints.messages.append("the engine rewrote the file")
    logging.getLogger().removeHandler(complaints)
    return {"values": plain({name: v.value for name, v in v1_map.items()}), "complaints": complaints.messages}


def refuse(config, rules):
    """Raise ValueError for what the engine loads and the agent's controllers refuse on a market with these rules."""
    from hummingfleet_agent.grid_plan import plan_levels
    from hummingfleet_agent.planning import MarketRules

    rules = MarketRules(*(Decimal(rules[name]) for name in ("tick", "lot", "min_amount", "min_notional")))
    if config.controller_name == "hummingfleet_grid":
        config.check_extras()
        plan_levels(config.grid, rules)
    elif config.controller_name == "hummingfleet_dca":
        config.ladder.check() if config.mode == "ladder" else config.interval.check(rules)
    else:
        config.settings.check()


def load_v2(files, rules):
    """What the engine takes of a script file and of the controller's file that it names."""
    from scripts.hummingfleet import HummingfleetConfig

    conf = Path(settings.CONTROLLERS_CONF_DIR_PATH)
    conf.mkdir(parents=True, exist_ok=True)
    script = next(text for path, text in files.items() if path.startswith("scripts/"))
    for path, text in files.items():
        if path.startswith("controllers/"):
            (conf / Path(path).name).write_text(text)
    try:
        (config,) = HummingfleetConfig(**yaml.safe_load(script)).load_controller_configs()
        refuse(config, rules)
    except Exception as error:
        return {"values": {}, "complaints": [f"{type(error).__name__}: {error}"]}
    taken = {name: getattr(config, name) for name in type(config).model_fields}
    lists = {name: [str(item) for item in value] for name, value in taken.items() if isinstance(value, list | tuple)}
    return {"values": {**plain(taken), **lists}, "complaints": []}


def load_client(text):
    """Complaints about conf_client.yml."""
    try:
        config = ClientConfigMap(**yaml.safe_load(text))
    except Exception as error:
        return [f"conf_client.yml: {error}"]
    return [] if config.mqtt_bridge.mqtt_autostart is False else ["the engine would start its MQTT bridge"]


def load(bot):
    """A bot's files."""
    v1 = [text for path, text in bot["files"].items() if path.startswith("strategies/")]
    loaded = load_v1(v1[0]) if v1 else load_v2(bot["files"], bot["rules"])
    return {**loaded, "complaints": loaded["complaints"] + load_client(bot["client"])}


def cache_template():
    """The engine parses its own template anew for every file, which is most of the time that takes."""
    original, parsed = config_helpers.yaml_parser.load, []

    def load_once(stream):
        if getattr(stream, "name", "") != str(V1_TEMPLATE):
            return original(stream)
        if not parsed:
            parsed.append(original(io.StringIO(stream.read())))
        return parsed[0]

    config_helpers.yaml_parser.load = load_once


def main():
    """Answers on the last line."""
    cache_template()
    request = json.load(sys.stdin)
    print(json.dumps({
        "bots": [load(bot) for bot in request["bots"]],
        "raw": [load_v1(json.dumps(data))["complaints"] for data in request.get("raw", [])],
    }))


if __name__ == "__main__":
    main()
