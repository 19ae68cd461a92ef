# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategy templates by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import Strategy
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.dca import Dca
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.grid import Grid
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.pure_market_making import PureMarketMaking
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.script import script_strategy
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.signal_webhook import SignalWebhook

TEMPLATES: Final[Mapping[str, Strategy]] = {
    strategy.name: strategy for strategy in (Grid(), Dca(), SignalWebhook(), PureMarketMaking())
}
"""The strategy templates that come with Hummingfleet."""


def templates(catalogue: Catalogue | None) -> Mapping[str, Strategy]:
    """Every strategy template a document may name: our own, and the operators' in ``catalogue``."""
    scripts = catalogue.scripts.values() if catalogue is not None else ()
    return {**TEMPLATES, **{script.name: script_strategy(script) for script in scripts}}
