"""Runs inside the engine's container: logs in with the mounted keystore and says what the engine made of it.

Standard input: JSON `{"password": …, "connectors": [names]}`. The last line of standard output: JSON with `login` and,
after a login, `api_keys` by connector.
"""

import json
import sys
from pathlib import Path

from hummingbot.client import settings

settings.CONF_DIR_PATH = Path("/conf")  # before the modules below copy these two names
settings.CONNECTORS_CONF_DIR_PATH = settings.CONF_DIR_PATH / "connectors"

from hummingbot.client.config.config_crypt import ETHKeyFileSecretManger  # noqa: E402
from hummingbot.client.config.security import Security  # noqa: E402

request = json.load(sys.stdin)
answer = {"login": Security.login(ETHKeyFileSecretManger(request["password"]))}
if answer["login"]:
    answer["api_keys"] = {name: Security.api_keys(name) for name in request["connectors"]}
print("\n" + json.dumps(answer, default=str))
