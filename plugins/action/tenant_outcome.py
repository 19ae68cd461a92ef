# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the module tenant_outcome; documented there."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import control, scope
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem
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
            words = f"the batch on its node did not run ({batch.get('msg') or 'its preparation failed'})"
            one = {**control.failed(words, Problem.read(batch.get("problem"))), "lead": lead}
        if not self._task.check_mode and one.get("fence") is not None:
            one = self._record(variables, tenant, one)
        result.update(changed=bool(one["changed"]), changes=one["changes"], reasons=one.get("reasons", []))
        if self._task.diff:
            result["diff"] = one["diff"]
        if one.get("bots"):
            result["bots"] = {name: facts["state"] for name, facts in one["bots"].items()}
        if one.get("failed"):
            problem = str(Problem.read(one.get("problem")))
            result.update(failed=True, problem=problem, msg=f"tenant {tenant}: {one.get('message', 'failed')}")
        if "lead" in one:
            result["lead"] = one["lead"]
        return result

    def _record(self, variables: dict[str, Any], tenant: str, one: dict[str, Any]) -> dict[str, Any]:
        """Writes the result into the registry and gives the lease back; the result, or why that failed."""
        fence = int(one["fence"])
        try:
            registry = Registry(load_fleet(variables.get("hummingfleet_fleet_path")).registry)
            kept = registry.record_outcome(
                tenant,
                revision=int(one["revision"]),
                fence=fence,
                applied=not one.get("failed"),
                outcome=control.outcome(one),
            )
            if kept:
                registry.release_leases({tenant: fence})
                return one
            words = "the lease was lost before the result was recorded; another run has taken over"
            return {**one, "failed": True, "problem": str(Problem.BUSY), "message": words}
        except HummingfleetError as error:
            return {**one, "failed": True, "problem": str(Problem.INTERNAL), "message": str(error)}
