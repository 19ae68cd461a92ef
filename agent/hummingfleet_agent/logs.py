"""Logging: one format on stdout for `docker logs`, the engine's own rotated file for `hbot logs`."""

import logging
import sys
import time

FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s - %(message)s"
EVENT_LOGGER = "hummingbot.core.event.event_reporter"
REPEATS_PER_MINUTE = 10


class UtcFormatter(logging.Formatter):
    """Times in UTC, whatever the container's zone."""

    converter = staticmethod(time.gmtime)


class FloodFilter(logging.Filter):
    """Lets a message of one place through ten times a minute, then says how many it held back.

    With a refused API key the engine repeats an error with its traceback every second, for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; the same answer for every handler that asks about it."""
        verdict = getattr(record, "hummingfleet_verdict", None)
        if verdict is None:
            verdict = self._judge(record)
            record.hummingfleet_verdict = verdict
        return verdict

    def _judge(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or record.levelno >= logging.CRITICAL:
            return True
        place = (record.name, record.lineno)
        began, count = self._seen.get(place, (record.created, 0))
        if record.created - began >= 60:
            if count > REPEATS_PER_MINUTE:
                record.msg = f"{record.getMessage()} [{count - REPEATS_PER_MINUTE} alike held back in the last minute]"
                record.args = ()
            began, count = record.created, 0
        self._seen[place] = (began, count + 1)
        return count < REPEATS_PER_MINUTE


_FLOOD = FloodFilter()


def log_to_stdout() -> None:
    """Send everything to stdout; used before the engine has set up its own logging."""
    logging.basicConfig(level=logging.INFO, handlers=[_stdout_handler()], force=True)


def add_stdout_to_engine_loggers() -> None:
    """Have stdout repeat what the engine's loggers write to the file, but for its stream of order events."""
    handler = _stdout_handler()
    for logger in [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]:
        # The engine's set-up silences every logger that existed before it.
        logger.disabled = False
        writes_file = [item for item in logger.handlers if isinstance(item, logging.FileHandler)]
        for file_handler in writes_file:
            file_handler.addFilter(_FLOOD)  # adding it twice has no effect
        if writes_file and logger.name != EVENT_LOGGER:
            logger.addHandler(handler)


def _stdout_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(UtcFormatter(FORMAT, "%Y-%m-%dT%H:%M:%S"))
    handler.setLevel(logging.INFO)
    handler.addFilter(_FLOOD)
    return handler
