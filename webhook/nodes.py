# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reaching a node without a playbook, for what streams: commands are lists, never a shell's text."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet, Node

from . import ROOT


class NodeAccessError(HummingfleetError):
    """How to reach a node cannot be told."""


@dataclass(frozen=True)
class NodeAccess:
    """How to run a command on a node; ``prefix`` goes before it."""

    node: str
    remote: bool
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node, fleet: Fleet) -> NodeAccess:
        """Access to ``node`` with the variables that Ansible would use, those of group_vars included."""
        if node.variables.get("ansible_connection") == "local":
            return cls(node.id, remote=False)
        return cls.from_variables(node.id, _inventory_variables(node.id, fleet))

    @classmethod
    def from_variables(cls, node: str, variables: Mapping[str, Any]) -> NodeAccess:
        """Access by Ansible's connection variables."""
        if variables.get("ansible_connection") in ("local", "community.docker.docker", "docker"):
            return cls(node, remote=False)
        command = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]
        port = variables.get("ansible_port") or variables.get("ansible_ssh_port")
        if port:
            command += ["-p", str(int(port))]
        user = variables.get("ansible_user") or variables.get("ansible_ssh_user")
        if user:
            command += ["-l", str(user)]
        key = variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file")
        if key:
            command += ["-i", str(Path(str(key)).expanduser())]
        for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
            command += shlex.split(str(variables.get(name) or ""))
        host = str(variables.get("ansible_host") or node)
        if host.startswith("-"):
            raise NodeAccessError(f"node {node} has the address {host!r}, which cannot be one")
        return cls(node, remote=True, prefix=(*command, "--", host), variables=variables)

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs ``words`` on the node; ssh hands them to a shell there, so they are quoted for it."""
        if not self.remote:
            return list(words)
        if self.variables.get("ansible_become"):
            words = ["sudo", "-n", *words]
        return [*self.prefix, shlex.join(words)]


def log_command(access: NodeAccess, tenant: str, bot: str, *, follow: bool, lines: int) -> list[str]:
    """The command that shows the last ``lines`` of a bot's log, and goes on if ``follow``."""
    words = ["docker", "logs", "--tail", str(lines), *(["--follow"] if follow else []), f"{tenant}-bot_{bot}"]
    return access.command(words)


def _inventory_variables(node: str, fleet: Fleet) -> dict[str, Any]:
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [str(program), "--inventory", str(fleet.path), "--host", node],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    try:
        variables: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["ansible-inventory said nothing"])[-1]
        raise NodeAccessError(f"how to reach node {node} cannot be told: {reason}") from None
    return variables
