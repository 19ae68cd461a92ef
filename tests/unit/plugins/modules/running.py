"""Runs modules: their main() in this process as Ansible would call it, and through Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import FILE_COMMON_ARGUMENTS
from ansible.module_utils.testing import patch_module_args

from tests.factories import ROOT


class Runner:
    """Calls a module with arguments; keeps all that it printed, for searches."""

    def __init__(self, main: Callable[[], None], capture: pytest.CaptureFixture[str]) -> None:
        self.main = main
        self.capture = capture
        self.printed = ""

    def __call__(self, arguments: dict[str, Any], *, check: bool = False, diff: bool = True) -> dict[str, Any]:
        """The module's result; `failed` and `msg` are in it when it failed."""
        own = {"_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args({**arguments, **own}), pytest.raises(SystemExit):
            self.main()
        captured = self.capture.readouterr()
        self.printed += captured.out + captured.err
        return dict(json.loads(captured.out))


def run_ansible(module: str, arguments: dict[str, Any], tmp_path: Path, *options: str) -> str:
    """What `ansible localhost -m hummingfleet.core.<module>` prints, on both streams."""
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", *options]
    command += ["-m", f"hummingfleet.core.{module}", "-a", json.dumps(arguments)]
    (tmp_path / "ansible.cfg").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def documented_options(module: str) -> set[str]:
    """The options that `ansible-doc` shows for the module, fragments included."""
    command = [str(Path(sys.executable).with_name("ansible-doc")), "--json", f"hummingfleet.core.{module}"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)[f"hummingfleet.core.{module}"]["doc"]["options"])


def accepted_options(module: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The options in the argument spec that the module's main() hands to AnsibleModule."""
    seen: dict[str, Any] = {}

    class Stop(Exception):
        """Ends main() once the spec is known."""

    def remember(**arguments: Any) -> None:
        seen.update(arguments)
        raise Stop

    monkeypatch.setattr(module, "AnsibleModule", remember)
    with pytest.raises(Stop):
        module.main()
    common = set(FILE_COMMON_ARGUMENTS) if seen.get("add_file_common_args") else set()
    return set(seen["argument_spec"]) | common
