"""Main process of a bot container: runs, settles or liquidates one bot on the Hummingbot engine.

    launcher.py run [hummingbot.cli.engine]     trade until SIGTERM; then cancel own orders and keep the position
    launcher.py settle [--timeout 60]           cancel own orders, account for them, verify; trade nothing
    launcher.py liquidate [--timeout 60]        settle, then sell the bot's own position at market

The extra word of ``run`` is ignored: `hbot status` and `hbot logs` look for it in the command line.
Exit codes: 0 done, 1 other failure, 2 configuration, 3 exchange not reachable or orders remain, 4 keystore or password.
settle and liquidate print the lifecycle record as one JSON line at the end.
"""

import signal

EARLY_SIGNALS: list[int] = []
# Before anything slow: a stop that comes while the rest is imported must not kill the process.
signal.signal(signal.SIGTERM, lambda number, frame: EARLY_SIGNALS.append(number))

import argparse  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).resolve().parent)

from hummingfleet_agent.errors import EXIT_OTHER, AgentError  # noqa: E402
from hummingfleet_agent.logs import log_to_stdout  # noqa: E402
from hummingfleet_agent.session import Session  # noqa: E402

LOGGER = logging.getLogger("hummingfleet.launcher")


def main() -> int:
    """Run the launcher; returns the exit code."""
    parser = argparse.ArgumentParser(description="Runs one bot on the Hummingbot engine.")
    modes = parser.add_subparsers(dest="mode", required=True)
    modes.add_parser("run", help="trade until SIGTERM").add_argument("marker", nargs="?", help="ignored")
    for name in ("settle", "liquidate"):
        modes.add_parser(name).add_argument("--timeout", type=float, default=60.0, help="seconds, default 60")
    arguments = parser.parse_args()
    log_to_stdout()
    os.umask(0o027)
    session = Session(arguments.mode, timeout_seconds=getattr(arguments, "timeout", 60.0),
                      stop_requested=bool(EARLY_SIGNALS))
    try:
        code = session.run()
    except AgentError as error:
        LOGGER.error("%s %s", error.code, error)
        code = error.exit_code
    except Exception as error:
        LOGGER.critical("AGENT_FAILED %s: %s", type(error).__name__, str(error)[:300], exc_info=True)
        code = EXIT_OTHER
    if arguments.mode != "run" and session.record is not None:
        print(session.record.line(), flush=True)
    return code


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # The engine leaves threads behind that would keep the process alive.
    os._exit(exit_code)
