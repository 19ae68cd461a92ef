# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the module broker_certificate; documented there."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import broker_authority
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet


class ActionModule(ActionBase):
    """Signs what the node asks for."""

    _supports_check_mode = True
    _supports_diff = True
    _VALID_ARGS = frozenset({"folder", "uid", "address"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What was made here and there."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        check = bool(self._task.check_mode)
        try:
            fleet = load_fleet(variables.get("hummingfleet_fleet_path"))
            actions = broker_authority.ensure(fleet, check=check)
            known = not (check and actions)
            address = str(self._task.args["address"])
            arguments = {**self._task.args, "authority": broker_authority.authority(fleet) if known else ""}
            answer = self._ask(arguments, variables)
            if answer["due"]:
                actions.append("issued the broker's certificate")
            if answer["request"]:
                certificate = broker_authority.issue(fleet, answer["request"], address)
                self._ask({**arguments, "certificate": certificate}, variables)
            line = broker_authority.signals_line(fleet, address) if known else ""
        except HummingfleetError as error:
            raise AnsibleActionFail(str(error)) from None
        result.update(changed=bool(actions), actions=actions, signals_line=line)
        if self._task.diff:
            result["diff"] = {"prepared": "".join(f"{action}\n" for action in actions)}
        return result

    def _ask(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="hummingfleet.core.broker_certificate", module_args=arguments, task_vars=variables
        )
        if answer.get("failed"):
            raise AnsibleActionFail(str(answer.get("msg") or answer.get("module_stderr") or "the node gave no answer"))
        return answer
