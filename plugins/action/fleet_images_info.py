# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module fleet_images_info; documented there."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils import image_source
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import ImageMode, load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet, load_fleet


class ActionModule(ActionBase):
    """Reads the catalogue here and asks a registry from the node."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset({"mode", "probe_timeout_seconds"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The mode and the images."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _, arguments = self.validate_argument_spec(
            {
                "mode": {"type": "str", "choices": ["auto", "registry", "build"]},
                "probe_timeout_seconds": {"type": "int", "default": 60},
            }
        )
        try:
            fleet = load_fleet(variables.get("hummingfleet_fleet_path"))
            catalogue = load_catalogue(fleet.catalogue)
            wanted = arguments["mode"] or fleet.images
            if wanted == "auto":
                mode, reason = self._find(fleet, image_source.probe_reference(catalogue), arguments)
            else:
                mode, reason = wanted, f"the settings say {wanted}"
            releases = image_source.releases_in_use(catalogue, variables.get("groups", {}))
            found = image_source.references(catalogue, releases, mode, broker=fleet.broker_enabled)
            facts = {"hummingfleet_images_found": mode}
            if fleet.broker_enabled:
                facts["hummingfleet_broker_image"] = image_source.broker_reference(catalogue, releases, mode)
        except HummingfleetError as error:
            raise AnsibleActionFail(str(error)) from None
        result.update(
            changed=False,
            mode=mode,
            reason=reason,
            references=found,
            ansible_facts=facts,
        )
        return result

    def _find(self, fleet: Fleet, reference: str, arguments: dict[str, Any]) -> tuple[ImageMode, str]:
        """Decide for ``auto``: what an earlier run found, else whether a registry gives an image now."""
        known = image_source.load_found_mode(fleet)
        if known is not None:
            return known, f"an earlier run found it, see {image_source.found_path(fleet)}"
        verb = "manifest inspect" if self._task.check_mode else "pull --quiet"
        self._display.display(f"images: see whether a registry has {reference}")
        answer = self._low_level_execute_command(
            f"timeout {arguments['probe_timeout_seconds']} docker {verb} {shlex.quote(reference)} > /dev/null"
        )
        mode: ImageMode = "registry" if answer["rc"] == 0 else "build"
        if not self._task.check_mode:
            image_source.store_found_mode(fleet, mode)
        return mode, f"a registry gave {reference}" if mode == "registry" else "no registry answered"
