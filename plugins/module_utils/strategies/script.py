# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates from the catalogue: an operator's own controller with its description."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

from ansible_collections.hummingfleet.core.plugins.module_utils.fields import Value, number
from ansible_collections.hummingfleet.core.plugins.module_utils.scripts import Script
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import BotContext, Judgement
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.controller import (
    ControllerStrategy,
    check_position,
)

CODE_DIR = "code/controllers/generic"
"""Where the controller lies below a bot's ``config`` folder; the agent puts ``code`` on the engine's import path."""


class ScriptStrategy(ControllerStrategy):
    """What every template from the catalogue has in common; ``script_strategy`` makes one of it."""

    script: ClassVar[Script]

    def capital(self, config: Mapping[str, Value], limits: Mapping[str, Value]) -> Decimal:
        """The field that the description names, or max_position."""
        return number(config, self.script.capital) if self.script.capital else number(limits, "max_position")

    def check_config(self, config: Mapping[str, Value], judgement: Judgement) -> None:
        """The capital stays within max_position; anything more the controller itself refuses at its start."""
        if self.script.capital:
            field = self.script.capital
            check_position(number(config, field), field, "the bot works with", "at most {limit}", judgement)

    def engine_files(self, context: BotContext) -> dict[str, str]:
        """The strategy files of every controller, and the controller itself."""
        return {**super().engine_files(context), f"{CODE_DIR}/{self.name}.py": self.script.code}


def script_strategy(script: Script) -> ScriptStrategy:
    """The template that ``script`` describes."""
    about = {
        "name": script.name,
        "title": script.title,
        "text": script.text,
        "fields": script.fields,
        "controller": script.name,
        "script": script,
    }
    made: type[ScriptStrategy] = type(ScriptStrategy.__name__, (ScriptStrategy,), about)
    return made()
