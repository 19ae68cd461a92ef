"""Runs inside the engine's image: says of each connector given on stdin what keeps its orders from being followed."""

import json
import sys

from hummingbot.client.config.config_helpers import get_connector_class
from hummingbot.client.settings import AllConnectorSettings
from hummingfleet_agent.engine import order_problem


def main():
    """Answers on the last line; connectors that this engine does not have are left out."""
    AllConnectorSettings.create_connector_settings()
    known = AllConnectorSettings.get_connector_settings()
    wanted = [name for name in json.load(sys.stdin) if name in known]
    print(json.dumps({name: order_problem(get_connector_class(name)) for name in wanted}))


if __name__ == "__main__":
    main()
