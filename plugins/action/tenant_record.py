# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module tenant_record, which runs on the control node; documented there."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import scope
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Cause, Registry


class ActionModule(ActionBase):
    """Runs for one tenant, on the control node; needs no connection."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = False
    _VALID_ARGS = frozenset({"state", "actor"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What became of the record."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = dict(self._task.args)
        if set(arguments) - self._VALID_ARGS or arguments.get("state") not in ("terminated", "forgotten"):
            raise AnsibleActionFail("tenant_record takes state (terminated or forgotten) and actor, nothing else")
        tenant = scope.tenant_id(str(variables["inventory_hostname"]))
        try:
            fleet = load_fleet(variables.get("hummingfleet_fleet_path"))
            registry = Registry(fleet.registry)
            if arguments["state"] == "forgotten":
                known = bool(registry.list(only=[tenant]))
                if known and not self._task.check_mode:
                    registry.forget(tenant)
                return {**result, "changed": known}
            record = registry.get(tenant)
            if record.document["state"] != "terminated" and self._task.check_mode:
                return {**result, "changed": True, "revision": record.revision + 1}
            submission = registry.change(
                tenant,
                lambda document: {**document, "state": "terminated"},
                cause=Cause("remove", "remove_tenant", str(arguments.get("actor", "ansible-playbook"))),
                fleet=fleet,
                catalogue=load_catalogue(fleet.catalogue),
            )
            return {**result, "changed": submission.changed, "revision": submission.record.revision}
        except HummingfleetError as error:
            raise AnsibleActionFail(str(error)) from None
