# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's half of the module tenant_stacks; documented there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import control, scope
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, TenantRecord, process_holder


class ActionModule(ActionBase):
    """Runs for a node's lead, delegated to the node."""

    _supports_check_mode = True
    _supports_diff = True
    _VALID_ARGS = frozenset(
        {
            "state",
            "deep",
            "force",
            "keep_data",
            "health_timeout_seconds",
            "parallel",
            "details",
            "docker_socket",
            "lease_wait_seconds",
        }
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The node's answer, or its tenants' results."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = dict(self._task.args)
        unknown = sorted(set(arguments) - self._VALID_ARGS)
        if unknown:
            raise AnsibleActionFail(f"tenant_stacks has no option {', '.join(unknown)}")
        try:
            node = str(variables["hummingfleet_node"])
            renderer = control.make_renderer(variables.get("hummingfleet_fleet_path"))
            registry = Registry(renderer.fleet.registry)
            by_node = scope.tenants_by_node(variables["groups"], variables.get("ansible_limit"), self._loader)
            tenants = [scope.tenant_id(host) for host in by_node.get(node, [])]
            arguments.setdefault("base_dir", renderer.fleet.base_dir)
            details = bool(arguments.pop("details", False))
            if arguments["state"] == "surveyed":
                found = self._survey(arguments, variables, renderer, registry, tenants, details)
            else:
                survey = variables.get("__tenant_stack_survey", {})
                found = self._present(arguments, variables, renderer, registry, survey)
        except HummingfleetError as error:
            return {**result, "failed": True, "msg": str(error), "problem": str(Problem.INTERNAL)}
        result.update(found)
        result.pop("invocation", None)
        return result

    def _ask(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="hummingfleet.core.tenant_stacks", module_args=arguments, task_vars=variables
        )
        return answer

    def _survey(
        self,
        arguments: dict[str, Any],
        variables: dict[str, Any],
        renderer: Any,
        registry: Registry,
        tenants: list[str],
        details: bool,
    ) -> dict[str, Any]:
        records = registry.records(tenants)
        # A tenant forgotten since the inventory was read has nothing to converge.
        tenants = [tenant for tenant in tenants if tenant in records]
        records = self._predicted(records, variables)
        request = control.survey_request(renderer, records)
        try:
            answer = self._ask({**arguments, **request}, variables)
        except AnsibleConnectionFailure as error:
            answer = {"unreachable": True, "msg": str(error)}
        if answer.get("unreachable") or answer.get("failed"):
            kind = "could not be reached" if answer.get("unreachable") else "failed"
            problem = f"node {variables['hummingfleet_node']} {kind}: {_reason(answer)}"
            return {
                "behind": tenants,
                "node_problem": problem,
                "problem": str(_problem(answer)),
                "surveyed": tenants,
                "missing_images": [],
                "missing_agents": [],
                "tenants": {},
            }
        judged = control.judge_survey(records, answer["tenants"])
        behind = control.behind_of({"tenants": judged}, tenants)
        return {
            "changed": False,
            "behind": behind,
            "node_problem": None,
            "problem": None,
            "surveyed": tenants,
            "missing_images": answer["missing_images"],
            "missing_agents": answer["missing_agents"],
            "asked": len(tenants),
            "tenants": judged if details else {tenant: {"reasons": judged[tenant]["reasons"]} for tenant in behind},
        }

    def _present(
        self,
        arguments: dict[str, Any],
        variables: dict[str, Any],
        renderer: Any,
        registry: Registry,
        survey: dict[str, Any],
    ) -> dict[str, Any]:
        tenants = [str(tenant) for tenant in survey.get("behind", [])]
        if survey.get("node_problem"):
            refused = control.failed(str(survey["node_problem"]), Problem.read(survey.get("problem")))
            return {"changed": False, "tenants": {tenant: dict(refused) for tenant in tenants}}
        check = bool(self._task.check_mode)
        patience = float(arguments.pop("lease_wait_seconds", 30))
        results: dict[str, dict[str, Any]] = {}
        fences: dict[str, int] = dict.fromkeys(tenants, 2**62)
        if not check:
            # The run as a whole holds the lease, also after this worker process has ended.
            leases = registry.acquire_leases(
                tenants,
                holder=process_holder(os.getppid()),
                ttl_seconds=control.LEASE_TTL_SECONDS,
                wait_seconds=patience,
                on_wait=lambda lease: self._display.display(f"waiting: {lease.describe()}"),
            )
            held = registry.leases(only=tenants)
            for tenant, lease in leases.items():
                if lease is None:
                    other = held.get(tenant)
                    results[tenant] = control.failed(
                        (other.describe() if other else f"tenant {tenant} is being worked on")
                        + "; converge again later",
                        Problem.BUSY,
                    )
            fences = {tenant: lease.fence for tenant, lease in leases.items() if lease is not None}
        records = self._predicted(registry.records(fences), variables)
        stacks, secrets, failures = control.render_all(renderer, records, fences)
        results.update({tenant: control.failed(one.text, one.problem) for tenant, one in failures.items()})
        request = {
            **arguments,
            "stacks": stacks,
            "agents": control.agent_payload(survey.get("missing_agents", [])),
        }
        changed = False
        if stacks:
            with control.kept_leases(registry, fences) as lost:
                try:
                    answer = self._ask({**request, "secrets": json.dumps(secrets)}, variables)
                except AnsibleConnectionFailure as error:
                    answer = {"unreachable": True, "msg": str(error)}
            if "tenants" in answer:
                results.update(answer["tenants"])
                changed = bool(answer["changed"])
            else:
                problem = f"node {variables['hummingfleet_node']}: {_reason(answer)}"
                results.update({stack["tenant"]: control.failed(problem, _problem(answer)) for stack in stacks})
            for tenant in lost:
                words = "the lease was lost while working; another run has taken over"
                results[tenant] = control.failed(words, Problem.BUSY)
        for tenant, one in results.items():
            one["fence"] = fences.get(tenant)
            one["revision"] = records[tenant].revision if tenant in records else None
            one["terminated"] = tenant in records and records[tenant].document["state"] == "terminated"
            one["reasons"] = survey.get("tenants", {}).get(tenant, {}).get("reasons", [])
        return {"changed": changed, "tenants": results}

    def _predicted(self, records: Mapping[str, TenantRecord], variables: dict[str, Any]) -> dict[str, TenantRecord]:
        """In check mode the playbook remove_tenant has stored nothing: its tenants are taken for terminated."""
        if not self._task.check_mode:
            return dict(records)
        known = variables["hostvars"]
        asked = (tenant for tenant in records if known[f"tenant-{tenant}"].get("__remove_tenant_record"))
        return control.removed_in_prediction(records, asked)


def _problem(answer: dict[str, Any]) -> Problem:
    """The code of a module that gave no result."""
    return Problem.UNREACHABLE if answer.get("unreachable") else Problem.read(answer.get("problem"))


def _reason(answer: dict[str, Any]) -> str:
    """What a module that gave no result said: its message, else the last line of its traceback."""
    said = answer.get("msg") or (str(answer.get("module_stderr") or "").strip().splitlines() or [""])[-1]
    return _one_line(said) or "its module ended without an answer; -vvv shows more"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:500]
