"""Runs inside the engine's image: loads the configuration given on stdin as the engine does and prints what it took."""

import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

import hummingbot
from hummingbot.client.config.client_config_map import ClientConfigMap
from hummingbot.client.config.config_helpers import load_yml_into_cm_legacy
from hummingbot.strategy.pure_market_making.pure_market_making_config_map import pure_market_making_config_map
from ruamel.yaml import YAML

TEMPLATE = Path(hummingbot.__file__).parent / "templates" / "conf_pure_market_making_strategy_TEMPLATE.yml"


class Complaints(logging.Handler):
    """The engine only logs what it does not like in a strategy file."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def client(text):
    """The client configuration's values that matter, with the class the engine chose for each mode."""
    config = ClientConfigMap(**YAML(typ="safe").load(text))
    return {
        "instance_id": config.instance_id,
        "kill_switch": type(config.kill_switch_mode).__name__,
        "kill_switch_rate": str(getattr(config.kill_switch_mode, "kill_switch_rate", "")),
        "metrics": type(config.anonymized_metrics_mode).__name__,
        "rate_oracle": config.rate_oracle_source.name,
        "share": str(config.rate_limits_share_pct),
        "paper_trade_exchanges": config.paper_trade.paper_trade_exchanges,
        "send_error_logs": config.send_error_logs,
    }


def strategy(text):
    """The V1 strategy's values, the validators' complaints, and whether the engine rewrote the file."""
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mm1.yml"
        path.write_text(text)
        asyncio.run(load_yml_into_cm_legacy(str(path), str(TEMPLATE), pure_market_making_config_map))
        rewritten = path.read_text() != text
    verdicts = {}
    for name, variable in pure_market_making_config_map.items():
        # The market's validator asks the exchange for its pairs, which is out of reach here.
        if variable.value is not None and name not in ("market", "price_source_market"):
            verdict = asyncio.run(variable.validate(str(variable.value)))
            if verdict:
                verdicts[name] = verdict
    values = {name: None if v.value is None else str(v.value) for name, v in pure_market_making_config_map.items()}
    return {"values": values, "complaints": complaints.messages, "rewritten": rewritten, "verdicts": verdicts}


def refused(candidates):
    """Of the values given for each variable, those that its validator does not take."""
    result = {}
    for name, values in candidates.items():
        result[name] = []
        for value in values:
            try:
                verdict = asyncio.run(pure_market_making_config_map[name].validate(value))
            except Exception as error:  # a validator that fails over a value has not taken it
                verdict = str(error) or type(error).__name__
            if verdict:
                result[name].append(value)
    return result


def main():
    """Answers on the last line."""
    request = json.load(sys.stdin)
    print(
        json.dumps(
            {
                "clients": [client(text) for text in request["clients"]],
                "strategy": strategy(request["strategy"]),
                "refused": refused(request["candidates"]),
            }
        )
    )


if __name__ == "__main__":
    main()
