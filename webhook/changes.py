# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator can ask for, as pure functions from a tenant's document to its next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

BotState = Literal["running", "stopped", "liquidated"]
TenantState = Literal["active", "suspended", "terminated"]
Change = Callable[[dict[str, Any]], Mapping[str, Any]]


class UnknownBotError(HummingfleetError):
    """The tenant has no such bot."""


def find_bot(document: Mapping[str, Any], bot: str) -> dict[str, Any]:
    """The bot's part of the document; raises UnknownBotError."""
    found: dict[str, Any] | None = next((b for b in document.get("bots", ()) if b["id"] == bot), None)
    if found is None:
        names = ", ".join(b["id"] for b in document.get("bots", ())) or "none"
        raise UnknownBotError(f"tenant {document['tenant']} has no bot {bot!r}; it has: {names}")
    return found


def set_bot_state(bot: str, state: BotState) -> Change:
    """The bot runs, is stopped (orders cancelled, position kept), or is liquidated (position sold at market, too)."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        find_bot(document, bot)["state"] = state
        return document

    return change


def restart_bot(bot: str) -> Change:
    """The bot's container is replaced: orders cancelled, position kept and adopted. A stopped bot is started."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        found = find_bot(document, bot)
        found["state"] = "running"
        found["restarts"] = found.get("restarts", 0) + 1
        return document

    return change


def resume_bot(bot: str) -> Change:
    """A risk halt of the bot is lifted."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        found = find_bot(document, bot)
        found["state"] = "running"
        found["resumes"] = found.get("resumes", 0) + 1
        return document

    return change


def set_tenant_state(state: TenantState) -> Change:
    """The whole stack runs, is suspended (stopped, everything kept), or leaves its node."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        document["state"] = state
        return document

    return change
