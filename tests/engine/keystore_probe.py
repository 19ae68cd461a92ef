"""Runs inside the engine's container: logs in with mounted keystores and says what the engine made of each.

Standard input: a JSON list of `{"conf": folder, "password": …, "connectors": [names]}`. The last line of standard
output: a JSON list with `login` and, after a login, `api_keys` by connector. Each has a process of its own, which
finds the engine imported.
"""

import json
import sys
from multiprocessing import get_context
from pathlib import Path

from hummingbot.client import settings

CONF = Path("/tmp/conf")  # a link to the folder in question
settings.CONF_DIR_PATH = CONF  # before the modules below copy these two names
settings.CONNECTORS_CONF_DIR_PATH = CONF / "connectors"

from hummingbot.client.config.config_crypt import ETHKeyFileSecretManger  # noqa: E402
from hummingbot.client.config.security import Security  # noqa: E402


def answer(request):
    CONF.unlink(missing_ok=True)
    CONF.symlink_to(request["conf"])
    try:
        if not Security.login(ETHKeyFileSecretManger(request["password"])):
            return {"login": False}
    except Exception as error:  # a file that this engine does not understand spoils the whole folder
        return {"login": None, "problem": f"{type(error).__name__}: {error}"}
    return {"login": True, "api_keys": {name: Security.api_keys(name) for name in request["connectors"]}}


with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print("\n" + json.dumps(pool.map(answer, json.load(sys.stdin), chunksize=1), default=str))
