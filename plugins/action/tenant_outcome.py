# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the module tenant_outcome; documented there."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import scope
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry


class ActionModule(ActionBase):
    """Runs for one tenant, on the control node; needs no connection."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The tenant's own result."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        tenant = scope.tenant_id(str(variables["inventory_hostname"]))
        lead = str(self._task.args.get("lead") or variables["hummingfleet_lead"])
        batch = variables["hostvars"][lead].get("__tenant_stack_result") or {}
        one = (batch.get("tenants") or {}).get(tenant)
        if one is None:
            raise AnsibleActionFail(
                f"tenant {tenant} has no result: the batch on its node did not run "
                f"({batch.get('msg', 'no reason given')})"
            )
        failed = bool(one.get("failed"))
        if not self._task.check_mode and one.get("fence") is not None:
            try:
                self._record(variables, tenant, one, failed)
            except HummingfleetError as error:
                failed = True
                one = {**one, "message": str(error)}
        result.update(changed=bool(one["changed"]), changes=one["changes"], reasons=one.get("reasons", []))
        if self._task.diff:
            result["diff"] = one["diff"]
        if one.get("bots"):
            result["bots"] = {name: facts["state"] for name, facts in one["bots"].items()}
        if failed:
            result.update(failed=True, msg=f"tenant {tenant}: {one.get('message', 'failed')}")
        return result

    def _record(self, variables: dict[str, Any], tenant: str, one: dict[str, Any], failed: bool) -> None:
        registry = Registry(load_fleet(variables.get("hummingfleet_fleet_path")).registry)
        outcome = {"bots": one.get("bots", {}), "message": one.get("message"), "changes": list(one["changes"])[:50]}
        kept = registry.record_outcome(
            tenant, revision=int(one["revision"]), fence=int(one["fence"]), applied=not failed, outcome=outcome
        )
        if not kept:
            raise HummingfleetError("the lease was lost before the result was recorded; another run has taken over")
        registry.release_leases({tenant: int(one["fence"])})
