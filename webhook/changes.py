# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators and the portal can ask for, as pure functions from a tenant's document to its next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

BotState = Literal["running", "stopped", "liquidated"]
TenantState = Literal["active", "suspended", "terminated"]
Document = Mapping[str, Any]
Change = Callable[[Document], dict[str, Any]]


class UnknownBotError(HummingfleetError):
    """The tenant has no such bot."""


class TooEarlyError(HummingfleetError):
    """A halted bot cannot be resumed yet; ``possible_at`` says from when on (ISO 8601)."""

    def __init__(self, message: str, possible_at: str) -> None:
        super().__init__(message)
        self.possible_at = possible_at


def find_bot(document: Document, bot: str) -> dict[str, Any]:
    """The bot's part of the document; raises UnknownBotError."""
    found: dict[str, Any] | None = next((b for b in document.get("bots", ()) if b["id"] == bot), None)
    if found is None:
        names = ", ".join(b["id"] for b in document.get("bots", ())) or "none"
        raise UnknownBotError(f"tenant {document['tenant']} has no bot {bot!r}; it has: {names}")
    return found


def update_bot(bot: str, **fields: Any) -> Change:
    """The bot gets these fields; the others stay. Raises UnknownBotError."""

    def change(document: Document) -> dict[str, Any]:
        find_bot(document, bot)
        return {**document, "bots": [{**b, **fields} if b["id"] == bot else b for b in document["bots"]]}

    return change


def set_bot_state(bot: str, state: BotState) -> Change:
    """The bot runs, is stopped (orders cancelled, position kept), or is liquidated (position sold at market, too)."""
    return update_bot(bot, state=state)


def restart_bot(bot: str) -> Change:
    """The bot's container is replaced: orders cancelled, position kept and adopted. A stopped bot is started."""
    return _start_again(bot, "restarts")


def resume_bot(bot: str) -> Change:
    """A risk halt of the bot is lifted. A stopped bot is started."""
    return _start_again(bot, "resumes")


def check_resume(document: Document, bot: str, facts: Mapping[str, Any], now: float) -> None:
    """Nothing if the bot may be resumed at ``now`` (epoch seconds); ``facts`` are those last seen of it.

    A bot that a risk limit halted waits for its ``earliest_resume_s``. Raises TooEarlyError, UnknownBotError.
    """
    wait = (find_bot(document, bot).get("risk_config") or {}).get("earliest_resume_s") or 0
    halted = facts.get("halted")
    if not isinstance(halted, Mapping) or not str(halted.get("code")).startswith("RISK_"):
        return
    at = halted.get("at")
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 < at + float(wait) < 2**37:
        return
    if now < at + float(wait):
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import iso_time

        halted_at, possible_at = iso_time(at), iso_time(at + float(wait))
        raise TooEarlyError(
            f"bot {bot} was halted at {halted_at} ({halted.get('code')}) and is resumed no earlier than {possible_at}: "
            f"its limit earliest_resume_s is {wait}",
            possible_at,
        )


def _start_again(bot: str, counter: str) -> Change:
    def change(document: Document) -> dict[str, Any]:
        count = find_bot(document, bot).get(counter, 0) + 1
        return update_bot(bot, state="running", **{counter: count})(document)

    return change


def remove_bot(bot: str) -> Change:
    """The bot is deleted: orders cancelled, its position left on the exchange. Raises UnknownBotError."""

    def change(document: Document) -> dict[str, Any]:
        find_bot(document, bot)
        return {**document, "bots": [b for b in document["bots"] if b["id"] != bot]}

    return change


def set_tenant_state(state: TenantState) -> Change:
    """The whole stack runs, is suspended (stopped, everything kept), or leaves its node."""

    def change(document: Document) -> dict[str, Any]:
        return {**document, "state": state}

    return change
