# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failures in words for a tenant's user, who knows bots, connections and fields, and nothing of the fleet.

A message is for operators: it names hosts, paths and containers, and quotes exchanges and bots, which may say anything.
So no message is shown or cleaned: ids and quotations are taken out of it, and only in forms that can do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem

QUOTE_MAX_CHARACTERS = 200
_MANY = 3
_ID_MAX_CHARACTERS = 32

_ID = r"([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![\w-])"
_BOT = re.compile(r"\bbot " + _ID)
_REFUSES = re.compile(_BOT.pattern + " refuses its new configuration")
_CONNECTION = re.compile(r"\bconnection " + _ID)
_FAULT = re.compile(r"^- /?([\w/~-]*)[^\n:]*: ([^\n]*?)(?:; allowed: [^\n]*)?$", re.MULTILINE)
_LOG = re.compile(r"\(its log: (.*?)\)(?=; |$)", re.DOTALL)
_NO_LOG = "(its log: )"
_EXCHANGE_TEXT = re.compile(r"""["'](?:msg|message)["']\s*:\s*(["'])(.{1,300}?)\1""", re.DOTALL)
# An exchange that refuses the key itself: Binance's codes, and what all of HTTP has for it.
_KEY_REFUSED = re.compile(r"-20(?:08|14|15)\b|-1022\b|HTTP status is 40[13]\b", re.IGNORECASE)

# What a quotation may not show: addresses of all kinds, files, keys, and names that only the fleet uses.
_HIDDEN = re.compile(
    r"""
      \S*[/\\@]\S*                                        # paths, URLs, mail addresses
    | (?<!\w)[\w-]+(?:\.[\w-]+)*\.[^\W\d_][\w-]*          # host names, file names
    | \b\d+(?:\.\d+){3}(?::\d+)?                          # IPv4
    | [0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*            # IPv6
    | \b[0-9a-fA-F]{12,}\b                                # ids of containers
    | \b(?:tenant|node|host|container|network)[-\s:=]+\S+
    | \S+-(?:bot_\S*|postgres|redis|gateway|dashboard|sandbox)\b
    | \bhf-\S+
    | \S{32,}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PUNCTUATION = " .,;:!?%+-_()'=#…"


def user_reason(code: str, message: str) -> str:
    """A sentence for the user of the portal about a failure with that code (``Problem``) and that message.

    Has the tenant's own ids (bots, connections, fields) and what exchange or bot said, as far as that can be told.
    """
    return _SENTENCES[Problem.read(code)](message)


def _credentials(message: str) -> str:
    connection = _first(_CONNECTION, message)
    whose = f" of connection {connection}" if connection else ""
    return f"The exchange credentials{whose} could not be opened; please enter them again."


def _document(message: str) -> str:
    faults = []
    for pointer, problem in _FAULT.findall(message)[:_MANY]:
        field = ".".join(part for part in pointer.split("/") if part)[:100]
        words = _quotable(problem)
        if words:
            faults.append(f"{field}: {words}" if field else words)
    return "The settings were refused" + (f": {'; '.join(faults)}." if faults else "; please check them.")


def _engine(message: str) -> str:
    refusing, others = _told_apart(message)
    sentences = []
    if bots := _bots(refusing):
        verb = "refuse their new settings and go on" if " and " in bots else "refuses its new settings and goes on"
        sentences.append(f"{bots[0].upper()}{bots[1:]} {verb} with the former ones." + _logged(refusing))
    if bots := _bots(others):
        verb = "were started and do not trade" if " and " in bots else "was started and does not trade"
        sentences.append(f"{bots[0].upper()}{bots[1:]} {verb}." + (_said(others) or _logged(others)))
    return " ".join(sentences) or "A bot was started and does not trade." + _said(message)


def _told_apart(message: str) -> tuple[str, str]:
    """The parts of a message about bots that refuse a change, and the others; what a bot's log says decides nothing."""
    logs = iter(_LOG.findall(message))
    refusing: list[str] = []
    others: list[str] = []
    for part in _LOG.sub(_NO_LOG, message).split("; "):
        whole = part.replace(_NO_LOG, f"(its log: {next(logs, '')})") if _NO_LOG in part else part
        (refusing if _REFUSES.search(part) else others).append(whole)
    return "; ".join(refusing), "; ".join(others)


def _exchange(message: str) -> str:
    bots = _bots(message) or "a bot"
    if _KEY_REFUSED.search(message):
        return f"The exchange refused the API key of {bots}; please check the key and its permissions." + _said(message)
    pronoun = "they do" if " and " in bots else "it does"
    return (
        f"The exchange did not answer when the open orders of {bots} were to be checked; {pronoun} not trade until "
        "that has succeeded." + _said(message)
    )


def _plain(text: str) -> Callable[[str], str]:
    return lambda message: text


_SENTENCES: dict[Problem, Callable[[str], str]] = {
    Problem.INTERNAL: _plain(
        "The change was not applied because of a fault on our side; you need not change anything."
    ),
    Problem.DOCUMENT_REFUSED: _document,
    Problem.CREDENTIALS_REFUSED: _credentials,
    Problem.NODE_REFUSED: _plain(
        "The change could not be carried out where your bots run; this is for us to mend, you need not change anything."
    ),
    Problem.ENGINE_REFUSED: _engine,
    Problem.EXCHANGE_UNANSWERED: _exchange,
    Problem.UNREACHABLE: _plain(
        "The place where your bots run cannot be reached now, so the change was not applied; what was running there "
        "may still be running."
    ),
    Problem.TIMEOUT: _plain("The change took too long and was ended before it was complete."),
    Problem.CANCELLED: _plain("The change was interrupted before it was complete."),
    Problem.BUSY: _plain("Another change is being applied just now; this one was not applied yet."),
}


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    return next((one for one in pattern.findall(text) if len(one) <= _ID_MAX_CHARACTERS), None)


def _bots(message: str) -> str:
    """The bots that a message is about, as words; empty if it names none."""
    own = _LOG.sub("", message).partition("(its log: ")[0]
    names = [one for one in dict.fromkeys(_BOT.findall(own)) if len(one) <= _ID_MAX_CHARACTERS]
    if len(names) > _MANY:
        return f"bots {', '.join(names[:_MANY])} and {len(names) - _MANY} more"
    if len(names) > 1:
        return f"bots {', '.join(names[:-1])} and {names[-1]}"
    return f"bot {names[0]}" if names else ""


def _said(message: str) -> str:
    """What the exchange answered, as a sentence that follows another; empty if there is nothing to quote."""
    found = _EXCHANGE_TEXT.search(message)
    words = _quotable(found[2]) if found else ""
    return f' The exchange said: "{words}"' if words else ""


def _logged(message: str) -> str:
    found = _LOG.search(message)
    words = _quotable(found[1]) if found else ""
    return f' The bot\'s log says: "{words}"' if words else ""


def _quotable(text: str) -> str:
    """Somebody else's words in one short line: no markup, nothing hidden in them; empty if too little is left."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    hidden = _HIDDEN.sub("…", printable)
    plain = "".join(c if c.isalnum() or c in _PUNCTUATION else " " for c in hidden)
    words = " ".join(plain.split())[:QUOTE_MAX_CHARACTERS].strip()
    return words if sum(c.isalpha() for c in words) >= _MANY else ""
