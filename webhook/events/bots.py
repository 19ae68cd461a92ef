# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events about a tenant's bots."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import Id
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault
from ansible_collections.hummingfleet.core.plugins.module_utils.risk import merge_limits
from ansible_collections.hummingfleet.core.plugins.module_utils.rules import one_of, shown
from pydantic import Field

from .. import changes
from .base import Event, Part, TenantData, document_faults, moved, position, refuse, unknown_keys

_CONFIGS: Final = ("strategy_config", "risk_config")
_NEW_BOT: Final = (
    "id", "name", "bot_name", "exchange_connection_id", "strategy_template", "trading_pair", *_CONFIGS,
    "priority", "state",
)  # fmt: skip
_COUNTERS: Final = {
    "restarts": "no restarts: bot.restarted restarts a bot",
    "resumes": "no resumes: bot.resumed lifts a risk halt",
}
_STATE_HINT: Final = "no state: bot.started, bot.stopped and bot.liquidated change it"


def document_bot(bot: Any) -> Any:
    """A new bot as it stands in the document: stopped unless the event says otherwise. Other values stay."""
    if not isinstance(bot, Mapping):
        return bot
    result = {"risk_config": {}, "state": "stopped", **copy.deepcopy(dict(bot))}
    if "bot_name" in result:
        result.setdefault("name", result["bot_name"])
        del result["bot_name"]
    return result


def new_bot_faults(bot: Any, where: str) -> Iterator[Fault]:
    """What an event refuses about a new bot, of any shape, and a document would not."""
    if not isinstance(bot, Mapping):
        return
    yield from unknown_keys(bot, _NEW_BOT, where, _COUNTERS)
    yield from _two_names(bot, where)
    if bot.get("state") == "liquidated":
        yield Fault(f"{where}/state", "a new bot has nothing to sell", "running, stopped", "bot.state")


def _two_names(bot: Mapping[str, Any], where: str) -> Iterator[Fault]:
    if "name" in bot and "bot_name" in bot:
        yield Fault(f"{where}/bot_name", "the name is given twice", "either name or bot_name", "twice")


class BotCreatedData(TenantData):
    """A new bot, judged by the document's own rules."""

    bot: dict[str, Any] = Field(description="the bot")


class BotCreated(Event):
    """The tenant has a new bot."""

    type: ClassVar[str] = "bot.created"
    summary: ClassVar[str] = "The customer made a bot; it is stopped unless the event says otherwise."
    example_data: ClassVar[Mapping[str, Any]] = {
        "tenant": "acme",
        "bot": {
            "id": "b1",
            "bot_name": "Test Grid Bot",
            "exchange_connection_id": "ex1",
            "strategy_template": "grid",
            "trading_pair": "BTC-USDT",
            "strategy_config": {"lower_bound": 30000, "upper_bound": 35000, "grid_count": 10, "order_amount": 100},
            "risk_config": {"max_position_usd": 10000, "max_daily_loss_usd": 500, "max_drawdown_pct": 10},
        },
    }

    data: BotCreatedData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        bot = data.get("bot")
        yield from new_bot_faults(bot, "/data/bot")
        known = {name: bot[name] for name in _NEW_BOT if name in bot} if isinstance(bot, Mapping) else bot
        # Whether the connection is there, and what depends on it, only the tenant's document can tell.
        faults = document_faults({"bots": [document_bot(known)]}, catalogue)
        yield from _named(moved(faults, "/bots/0", "/data/bot", without=("bot.connection",)), "/data/bot", bot)

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        identifier = self.data.bot["id"]
        if position(document, "bots", identifier) is not None:
            problem = f"bot {shown(identifier)} exists"
            raise refuse("/data/bot/id", problem, "an id of its own; bot.updated changes a bot", "bot.exists")
        return {**document, "bots": [*document.get("bots", []), document_bot(self.data.bot)]}

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        here = f"/bots/{position(document, 'bots', self.data.bot['id'])}"
        name = "bot_name" if "bot_name" in self.data.bot else "name"
        others = [(f"/bots/{index}", "/data") for index in range(len(document["bots"]))]
        return [(f"{here}/name", f"/data/bot/{name}"), (here, "/data/bot/*"), *others, ("/bots", "/data/bot")]


def _named(faults: Iterable[Fault], where: str, bot: Any) -> Iterator[Fault]:
    """The faults, with that of the name at the field that gave it."""
    portal = isinstance(bot, Mapping) and "bot_name" in bot and "name" not in bot
    for fault in faults:
        if portal and fault.pointer == f"{where}/name":
            fault = Fault(f"{where}/bot_name", fault.problem, fault.allowed, fault.rule)
        yield fault


class BotData(TenantData):
    """One of a tenant's bots."""

    bot_id: Id = Field(description="the bot's id")


class _BotEvent(Event):
    """An event about a bot that is there."""

    example_data: ClassVar[Mapping[str, Any]] = {"tenant": "acme", "bot_id": "b1"}

    data: BotData

    def _change(self, document: Mapping[str, Any]) -> dict[str, Any]:
        identifier = self.data.bot_id
        if position(document, "bots", identifier) is None:
            known = one_of([bot["id"] for bot in document.get("bots", ())], identifier)
            raise refuse("/data/bot_id", f"there is no bot {shown(identifier)}", known, "bot.unknown")
        return self._change_bot(document)

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return [(f"/bots/{position(document, 'bots', self.data.bot_id)}", "/data/bot_id")]


class BotChanges(Part):
    """What can be changed about a bot. The values are judged by the document's own rules."""

    name: Any = None
    bot_name: Any = None
    exchange_connection_id: Any = None
    strategy_template: Any = None
    trading_pair: Any = None
    strategy_config: dict[str, Any] = Field({}, description="fields of the strategy template; null removes one")
    risk_config: dict[str, Any] = Field({}, description="limits of the strategy template; null removes one")
    priority: Any = None


class BotUpdatedData(BotData):
    """Some of a bot's settings; the others stay."""

    changes: BotChanges = Field(description="what changes; at least one field")


class BotUpdated(_BotEvent):
    """Settings of a bot changed.

    The two configurations are merged field by field, and null removes a field (its default holds again), unless the
    strategy template changes with them: what was set for another template means nothing for this one.
    """

    type: ClassVar[str] = "bot.updated"
    summary: ClassVar[str] = "The customer changed a bot's settings."
    example_data: ClassVar[Mapping[str, Any]] = {
        "tenant": "acme",
        "bot_id": "b1",
        "changes": {"name": "Wider grid", "strategy_config": {"upper_bound": 36000, "grid_count": 12}},
    }

    data: BotUpdatedData

    @classmethod
    def judge(cls, data: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Fault]:
        given, where = data.get("changes"), "/data/changes"
        if not isinstance(given, dict):
            return
        if not given:
            allowed = "at least one of " + ", ".join(BotChanges.model_fields)
            yield Fault(where, "nothing is changed", allowed, "changes.empty")
        yield from unknown_keys(given, BotChanges.model_fields, where, {**_COUNTERS, "state": _STATE_HINT})
        yield from _two_names(given, where)
        bot = {name: given[name] for name in BotChanges.model_fields if name in given}
        for config in _CONFIGS:
            if isinstance(bot.get(config), dict):
                bot[config] = {name: value for name, value in bot[config].items() if value is not None}
        faults = document_faults({"bots": [document_bot(bot)]}, catalogue)
        yield from _named(moved(faults, "/bots/0", where, without=("missing", "bot.connection")), where, given)

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        bot = changes.find_bot(document, self.data.bot_id)
        fields = copy.deepcopy(self.data.changes.model_dump(exclude_unset=True))
        if "bot_name" in fields:
            fields["name"] = fields.pop("bot_name")
        other_template = fields.get("strategy_template", bot["strategy_template"]) != bot["strategy_template"]
        for config in _CONFIGS:
            before, given = {} if other_template else bot.get(config, {}), fields.get(config, {})
            merged = merge_limits(before, given) if config == "risk_config" else {**before, **given}
            fields[config] = {name: value for name, value in merged.items() if value is not None}
        return changes.update_bot(self.data.bot_id, **fields)(document)

    def _origins(self, document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        here = f"/bots/{position(document, 'bots', self.data.bot_id)}"
        given = self.data.changes.model_fields_set
        places = [(f"{here}/{name}", f"/data/changes/{name}/*") for name in given]
        if "bot_name" in given:
            places.append((f"{here}/name", "/data/changes/bot_name"))
        if "strategy_template" in given:
            places += [(f"{here}/{config}", f"/data/changes/{config}/*") for config in _CONFIGS]
        return [*places, (here, "/data/changes")]


class BotStarted(_BotEvent):
    """The bot is to trade; it adopts the position it has."""

    type: ClassVar[str] = "bot.started"
    summary: ClassVar[str] = "The customer started a bot."

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.set_bot_state(self.data.bot_id, "running")(document)


class BotStopped(_BotEvent):
    """The bot is to stop: orders cancelled, position kept."""

    type: ClassVar[str] = "bot.stopped"
    summary: ClassVar[str] = "The customer stopped a bot."

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.set_bot_state(self.data.bot_id, "stopped")(document)


class BotRestarted(_BotEvent):
    """The bot's container is replaced; a stopped bot is started."""

    type: ClassVar[str] = "bot.restarted"
    summary: ClassVar[str] = "The customer restarted a bot."

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.restart_bot(self.data.bot_id)(document)


class BotResumed(_BotEvent):
    """The bot's risk halt is lifted, and it is to trade."""

    type: ClassVar[str] = "bot.resumed"
    summary: ClassVar[str] = "The customer lifted a bot's risk halt."

    def check_facts(self, document: Mapping[str, Any], seen: Callable[[str], Mapping[str, Any]], now: float) -> None:
        try:
            changes.check_resume(document, self.data.bot_id, seen(self.data.bot_id), now)
        except changes.TooEarlyError as error:
            raise refuse("/data/bot_id", str(error), f"{error.possible_at} or later", "bot.too_early") from None

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.resume_bot(self.data.bot_id)(document)


class BotLiquidated(_BotEvent):
    """The bot is to stop and to sell its position at market."""

    type: ClassVar[str] = "bot.liquidated"
    summary: ClassVar[str] = "The customer wants out: the bot stops and sells its position at market."

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.set_bot_state(self.data.bot_id, "liquidated")(document)


class BotDeleted(_BotEvent):
    """The bot leaves the document; its position stays on the exchange."""

    type: ClassVar[str] = "bot.deleted"
    summary: ClassVar[str] = "The customer deleted a bot."

    def _change_bot(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return changes.remove_bot(self.data.bot_id)(document)
