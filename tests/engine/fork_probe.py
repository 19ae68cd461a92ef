"""Runs inside the engine's image: imports the engine once, then forks one bot after another from that.

Requests are JSON lines on standard input: {"start": folder, "signal": message} starts the bot whose files are in
``folder`` (``config/``, ``keystore_password``; its output goes to ``log``) and hands it the message as if a broker had
brought it, if there is one; {"stop": true} kills it. Each is answered with a JSON line. One bot at a time: they share
the engine's home, which is emptied before each.
"""

import asyncio
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

AGENT_DIR = Path("/opt/hummingfleet/agent")
HOME_DIR = Path("/home/hummingbot")
PRELOADED = (
    "hummingbot.cli.bot",
    "hummingbot.cli.engine",
    "hummingbot.client.runner",
    "hummingbot.connector.exchange.binance.binance_exchange",
    "hummingbot.strategy.pure_market_making.start",
    "hummingbot.strategy.strategy_v2_base",
    "hummingbot.strategy_v2.executors.order_executor.order_executor",
)


def preload():
    """Import what a bot will need. Nothing here may start a thread or a loop: neither outlives a fork."""
    os.chdir(HOME_DIR)
    sys.path[0:0] = [str(AGENT_DIR), str(HOME_DIR)]
    for name in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):  # older engines have not all of them
            importlib.import_module(name)
    from hummingbot.client.settings import AllConnectorSettings

    AllConnectorSettings.create_connector_settings()
    for path in sorted((HOME_DIR / "controllers").rglob("hummingfleet_*.py")):
        importlib.import_module(".".join(path.relative_to(HOME_DIR).with_suffix("").parts))
    for name in ("scripts.hummingfleet", "hummingfleet_agent.session"):
        importlib.import_module(name)


async def deliver(session, message):
    """Hand a signal to the controller once it can trade."""
    while True:
        strategy = session.application.trading_core.strategy
        for controller in (strategy.controllers.values() if strategy is not None else ()):
            if controller.market_data_provider.ready and session.state.phase == "trading":
                controller._take({**message, "sent_at": time.time(), "expires_at": time.time() + 30})
                return
        await asyncio.sleep(0.1)


def run(folder, signal_message):
    """A bot as the launcher runs it; never returns."""
    from hummingfleet_agent.logs import log_to_stdout
    from hummingfleet_agent.session import Session
    from hummingfleet_agent.settings import Home

    output = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in ("conf", "data", "logs"):
        for path in (HOME_DIR / name).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    log_to_stdout()
    session = Session("run", home=Home(config_dir=folder / "config", password_path=folder / "keystore_password"))
    trade = session._trade

    async def trade_with_signal():
        task = asyncio.create_task(deliver(session, signal_message))
        await trade()
        task.cancel()

    if signal_message:
        session._trade = trade_with_signal
    code = 1
    try:
        code = session.run()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


def main():
    """Serve until standard input ends."""
    preload()
    answer({"ready": True})
    child = 0
    for line in sys.stdin:
        request = json.loads(line)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        if "start" in request:
            child = os.fork()
            if child == 0:
                run(Path(request["start"]), request.get("signal"))
        answer({"pid": child})


def answer(message):
    """One line; standard output is nothing but answers."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
