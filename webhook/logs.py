# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs of the services: one JSON object per line on standard error, without secrets and control characters.

Every line has ``time`` (UTC), ``level``, ``process``, ``logger`` and ``message``; ``event`` and ``tenant`` where the
work belongs to one (``bind``), and whatever ``fields`` a caller adds.
"""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
import threading
import time
from types import TracebackType
from typing import Any

from .text import shown

_event: contextvars.ContextVar[str | None] = contextvars.ContextVar("event", default=None)
_tenant: contextvars.ContextVar[str | None] = contextvars.ContextVar("tenant", default=None)
_HIDDEN = "[hidden]"
_TEXT_MAX = 8_000
# Secrets never get into a log on purpose. What slips into an error's text is taken out by its form.
_SECRETS = re.compile(
    r"""
      (?P<before>\bBearer\s+)[^\s"',;]+
    | (?P<prefix>\bwh(?:sec|sk|pk)_)[A-Za-z0-9+/=_-]+
    | (?P<token>\bhf[ts]_)[A-Za-z0-9+/=_.-]+
    | (?P<signature>\bv1a?,)[A-Za-z0-9+/=_-]{20,}
    | (?P<url>://[^\s:/@]*:)[^\s@/]+(?=@)
    | (?P<field>\b(?:encrypted|nonce)_[a-z_]+["']?\s*[:=]\s*["']?)[A-Za-z0-9+/=_-]{8,}
    | (?P<named>\b(?:password|passphrase|secret|salt|api_key|api_secret)["']?\s*[:=]\s*["']?)[^\s"',;}]{4,}
    """,
    re.VERBOSE | re.IGNORECASE,
)


def bind(*, event: str | None = None, tenant: str | None = None) -> None:
    """Names the event and tenant that everything logged from here on belongs to, in this thread or task."""
    _event.set(event)
    _tenant.set(tenant)


def without_secrets(text: str) -> str:
    """``text`` with everything that has the form of a token, secret, signature or password replaced."""
    return _SECRETS.sub(lambda match: "".join(filter(None, match.groups())) + _HIDDEN, text)


def fields(**values: Any) -> dict[str, Any]:
    """The argument ``extra`` of a logging call that adds ``values`` to the line: plain values, never secrets."""
    return {"fields": values}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; ``process`` says which service wrote it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        for name, value in (("event", _event.get()), ("tenant", _tenant.get())):
            if value is not None:
                line[name] = _clean(value)
        for name, value in getattr(record, "fields", {}).items():
            if value is not None:
                line[name] = _plain(value)
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = [_clean(part) for part in self.formatException(record.exc_info).split("\n")]
        return json.dumps(line)


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Has this process log as JSON to standard error; ``process`` is its name in the lines, such as ``web``.

    Errors that nobody catches, of threads as well, become lines too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written ends no request
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("webhook").critical("the process ends with an error", exc_info=(kind, error, traceback))


def _log_uncaught_of_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is None or issubclass(caught.exc_type, SystemExit):
        return
    name = caught.thread.name if caught.thread is not None else "unknown"
    logging.getLogger("webhook").error(
        "thread %s ends with an error", name, exc_info=(caught.exc_type, caught.exc_value, caught.exc_traceback)
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _clean(str(value))


def _clean(text: str) -> str:
    if len(text) > _TEXT_MAX:
        text = text[:_TEXT_MAX] + "..."
    text = without_secrets(text)
    return text if text.isascii() and text.isprintable() else shown(text)
