#!/usr/bin/python
# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One bot's strategy as the engine's own files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: strategy_config
short_description: Hummingbot configuration of one bot
version_added: 0.1.0
author: Hummingfleet contributors
description:
  - Validates a tenant document and turns one of its bots into the files that the Hummingbot engine reads.
  - The engine accepts nonsense and trades on it; whatever a document can show to be wrong is refused here, field by
    field, with what would be allowed.
  - Equal documents give identical files, so a second run changes nothing.
options:
  document:
    description: The tenant document that has the bot.
    type: dict
    required: true
  bot:
    description: The bot's id.
    type: str
    required: true
  dest:
    description:
      - The bot's configuration folder. Without it nothing is written and the files are only returned.
      - Files are made with mode V(0440) unless O(mode) says otherwise.
      - Files of another strategy that the bot had before are removed.
    type: path
extends_documentation_fragment:
  - ansible.builtin.files
  - hummingfleet.core.attributes
  - hummingfleet.core.control_node
attributes:
  check_mode:
    support: full
    description: Validates and compares, writes nothing.
  diff_mode:
    support: full
    description: Shows the files; there is no secret in them.
  idempotent:
    support: full
    description: The files depend on nothing but the document and the catalogue.
"""

EXAMPLES = r"""
- name: Write the strategy files of a bot
  hummingfleet.core.strategy_config:
    document: "{{ lookup('ansible.builtin.file', 'acme.yml') | from_yaml }}"
    bot: b1
    catalogue: /opt/hummingfleet/catalogue
    dest: /srv/hummingfleet/tenants/acme/bots/b1/config
  delegate_to: localhost

- name: Look at the strategy files of a bot
  hummingfleet.core.strategy_config:
    document: "{{ lookup('ansible.builtin.file', 'acme.yml') | from_yaml }}"
    bot: b1
    catalogue: /opt/hummingfleet/catalogue
  delegate_to: localhost
  register: __strategy
"""

RETURN = r"""
config:
  description: What the bot's document stands for in the engine.
  returned: success
  type: dict
  contains:
    strategy:
      description: The strategy template.
      type: str
    kind:
      description: V(v2) runs on a controller, V(v1) on a strategy of the engine's first generation.
      type: str
    files:
      description: The text of each file by its path in the bot's configuration folder.
      type: dict
  sample:
    strategy: grid
    kind: v2
    files:
      scripts/b1.yml: |
        script_file_name: "hummingfleet.py"
        controllers_config: ["b1.yml"]
      controllers/b1.yml: |
        id: "b1"
        controller_name: "hummingfleet_grid"
        controller_type: "generic"
        connector_name: "binance"
        trading_pair: "BTC-USDT"
        total_amount_quote: 1000
        lower_bound: 30000
        upper_bound: 35000
        grid_count: 10
        order_amount: 100
        take_profit_pct: null
        stop_price: null
        activation_bounds_pct: null
        trailing_activation_pct: null
        trailing_delta_pct: null
      conf_client.yml: |
        instance_id: "acme.b1"
        log_level: "INFO"
        kill_switch_mode: {}
        send_error_logs: false
        anonymized_metrics_mode: {}
        rate_oracle_source:
          name: "binance"
        rate_limits_share_pct: 100
        paper_trade:
          paper_trade_exchanges: []
        mqtt_bridge:
          mqtt_autostart: false
faults:
  description: Everything that is wrong with the document.
  returned: when the document is refused
  type: list
  elements: dict
  contains:
    pointer:
      description: JSON pointer to the field.
      type: str
    problem:
      description: What is wrong with its value.
      type: str
    allowed:
      description: What would be accepted.
      type: str
    rule:
      description: The rule's stable name.
      type: str
  sample: []
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.config_files import apply_files
from ansible_collections.hummingfleet.core.plugins.module_utils.document import (
    DocumentError,
    bot_context,
    parse_document,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import templates
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies.base import engine_client_config

DEFAULT_MODE = "0440"
FOLDERS = ("controllers", "scripts", "strategies")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "document": {"type": "dict", "required": True},
            "bot": {"type": "str", "required": True},
            "catalogue": {"type": "path", "required": True},
            "dest": {"type": "path"},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    try:
        result = _config(module)
    except DocumentError as error:
        module.fail_json(msg=str(error), faults=[fault.plain() for fault in error.faults])
    except HummingfleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


def _config(module: AnsibleModule) -> dict[str, Any]:
    catalogue = load_catalogue(Path(module.params["catalogue"]))
    document = parse_document(module.params["document"], catalogue)
    try:
        bot = document.bot(module.params["bot"])
    except KeyError:
        known = ", ".join(bot.id for bot in document.bots) or "none"
        raise HummingfleetError(f"Tenant {document.tenant} has no such bot; its bots are: {known}.") from None
    strategy = templates(catalogue)[bot.strategy_template]
    context = bot_context(document, bot, catalogue)
    files = {**strategy.engine_files(context), "conf_client.yml": engine_client_config(context)}
    config = {"strategy": strategy.name, "kind": strategy.kind, "files": files}
    if module.params["dest"] is None:
        return {"changed": False, "config": config}
    obsolete = {f"{folder}/{bot.id}.yml" for folder in FOLDERS} - set(files)
    changed, diff = apply_files(
        module, Path(module.params["dest"]), files, absent=obsolete, default_mode=DEFAULT_MODE, show_content=True
    )
    return {"changed": changed, "diff": diff, "config": config}


if __name__ == "__main__":
    main()
