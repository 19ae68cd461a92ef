# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module node_images; documented there."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.hummingfleet.core.plugins.module_utils.image_source import is_built

BUILDER = Path(__file__).resolve().parents[2] / "images" / "build.py"


class ActionModule(ActionBase):
    """Builds on the control node and runs ``docker`` on the node over whatever connection it has."""

    _supports_check_mode = True
    _supports_diff = True
    _VALID_ARGS = frozenset({"references"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What was pulled, built and copied."""
        result: dict[str, Any] = super().run(tmp, task_vars or {})
        _, arguments = self.validate_argument_spec(
            {"references": {"type": "list", "elements": "str", "required": True}}
        )
        references = list(dict.fromkeys(arguments["references"]))
        before = {reference: self._image_id(reference) for reference in references}
        pulled = [reference for reference in references if not is_built(reference) and before[reference] is None]
        for reference in pulled:
            self._pull(reference)
        built, here = self._build([reference for reference in references if is_built(reference)])
        copied = [reference for reference in here if here[reference] is None or here[reference] != before[reference]]
        if copied and self._is_control_nodes_engine():
            copied = []
        self._copy(copied)
        after = before if self._task.check_mode else {reference: self._image_id(reference) for reference in references}
        result.update(changed=bool(pulled or built or copied), images=after, pulled=pulled, built=built, copied=copied)
        if self._task.diff:
            due = dict.fromkeys([*pulled, *built, *copied], "a new image") if self._task.check_mode else {}
            result["diff"] = {
                "before": _lines(before),
                "after": _lines({**after, **due}),
            }
        return result

    def _image_id(self, reference: str) -> str | None:
        """Give the id of an image on the node, None where it is missing."""
        answer = self._docker("image", "inspect", "--format", "{{.Id}}", reference)
        if answer["rc"] == 0:
            return str(answer["stdout"]).strip()
        if "No such image" in answer["stderr"]:
            return None
        raise AnsibleActionFail(
            f"the Docker engine of the node does not answer: {answer['stderr'].strip() or answer['stdout'].strip()}. "
            "Run the playbook prepare_nodes first."
        )

    def _pull(self, reference: str) -> None:
        if self._task.check_mode:
            return
        self._display.display(f"images: pull {reference}")
        answer = self._docker("pull", "--quiet", reference)
        if answer["rc"] != 0:
            raise AnsibleActionFail(
                f"image {reference} could not be pulled: {answer['stderr'].strip()}. Where no registry can be reached, "
                "set `images: build` in the fleet file."
            )

    def _build(self, references: Sequence[str]) -> tuple[list[str], dict[str, str | None]]:
        """Build on the control node; give what was (or would be) built, and the ids there by reference."""
        if not references:
            return [], {}
        check = ["--check"] if self._task.check_mode else []
        command = [sys.executable, str(BUILDER), "--json", *check, *references]
        errors = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None and process.stdout is not None  # both are pipes
            for line in process.stderr:
                errors.append(line)
                if not line.rstrip().endswith("is up to date"):
                    self._display.display(f"images: {line.rstrip()}")
            output = process.stdout.read()
        if process.returncode != 0:
            said = "".join(errors)
            reason = said[said.rfind("error: ") + len("error: ") :] if "error: " in said else said[-2000:]
            raise AnsibleActionFail(f"images could not be built on the control node: {reason.strip()}")
        results = [entry for entry in json.loads(output) if entry["reference"] in references]
        return (
            [entry["reference"] for entry in results if entry["changed"]],
            {entry["reference"]: None if check and entry["changed"] else entry["id"] for entry in results},
        )

    def _is_control_nodes_engine(self) -> bool:
        """Tell whether the node's engine is the one that built."""
        there = self._docker("info", "--format", "{{.ID}}")["stdout"].strip()
        here = subprocess.run(["docker", "info", "--format", "{{.ID}}"], capture_output=True, text=True).stdout.strip()
        return bool(here) and here == there

    def _copy(self, references: Sequence[str]) -> None:
        """Copy images to the node, in one archive so that shared layers travel once."""
        if not references or self._task.check_mode:
            return
        with tempfile.TemporaryDirectory(prefix="hummingfleet-images-") as folder:
            archive = Path(folder) / "images.tar.gz"
            self._display.display(f"images: pack {', '.join(references)}")
            command = f"docker save {' '.join(map(shlex.quote, references))} | gzip -1 > {shlex.quote(str(archive))}"
            done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
            if done.returncode != 0:
                raise AnsibleActionFail(f"docker save failed on the control node: {done.stderr.strip()}")
            remote_dir = self._make_tmp_path()
            remote = self._connection._shell.join_path(remote_dir, "images.tar.gz")
            self._display.display(f"images: copy {archive.stat().st_size // 2**20} MiB to the node")
            try:
                self._transfer_file(str(archive), remote)
                self._display.display("images: load them there")
                answer = self._docker("load", "--quiet", "--input", remote)
            finally:
                self._remove_tmp_path(remote_dir)
        if answer["rc"] != 0:
            raise AnsibleActionFail(f"docker load failed on the node: {answer['stderr'].strip()}")

    def _docker(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._low_level_execute_command(shlex.join(["docker", *arguments]))
        return answer


def _lines(images: dict[str, str | None]) -> str:
    return "".join(f"{reference}: {identifier or 'missing'}\n" for reference, identifier in sorted(images.items()))
