"""`python -m sandbox --config FILE` runs the exchange until SIGTERM or SIGINT; SIGHUP reloads accounts and TLS."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.config import Settings, load_settings
from sandbox.errors import SandboxError
from sandbox.server import Server

log = logging.getLogger("sandbox")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after an ordered stop, 2 when the configuration cannot be used, 1 when a port cannot be opened."""
    parser = argparse.ArgumentParser(prog="python -m sandbox",
                                     description="A sandbox exchange that speaks Binance spot.")
    parser.add_argument("--config", required=True, type=Path, help="configuration file (JSON)")
    parser.add_argument("--check", action="store_true", help="check configuration and saved state, then exit")
    options = parser.parse_args(arguments)
    _log_to_stdout()
    try:
        server_settings = load_settings(options.config)
        if options.check:
            Server(server_settings)
            return 0
        asyncio.run(run(server_settings))
    except SandboxError as error:
        log.error("%s", error)
        return 2
    except OSError as error:
        log.error("the server cannot run: %s", error)
        return 1
    return 0


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    server = Server(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, server)
    await server.start()
    log.info("ready: %s on ports %d and %d, control on %s", ", ".join(server.exchange.markets), settings.https_port,
             settings.stream_port, settings.control_socket)
    try:
        await stop.wait()
    finally:
        await server.stop()
        log.info("stopped")


def _reload(server: Server) -> None:
    try:
        server.reload_certificate()
        server.reload_accounts()
    except SandboxError as error:
        log.error("nothing reloaded: %s", error)


def _log_to_stdout() -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # It logs every malformed request with a traceback and the request's bytes: a client could flood the log, and a key
    # could get into it. What fails in a handler is logged by the handlers' guard.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
