"""Images reach a node: pulled, decided once for `auto`, predicted in check mode. Docker is a recording stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = """\
#!/bin/sh
# Has the images that are files in $STATE/images; a registry answers while $STATE/registry exists.
STATE=$(dirname "$0")
echo "$*" >> "$STATE/calls"
for last; do :; done
file=$STATE/images/$(echo "$last" | tr '/:' '__')
case "$1 $2" in
    "image inspect") [ -e "$file" ] && echo "sha256:1" || { echo "Error: No such image: $last" >&2; exit 1; } ;;
    "pull --quiet") [ -e "$STATE/registry" ] && touch "$file" || { echo "no route to registry" >&2; exit 1; } ;;
    "manifest inspect") [ -e "$STATE/registry" ] || exit 1 ;;
    *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
PLAY = """\
- hosts: nodes
  gather_facts: false
  roles:
    - hummingfleet.core.node_images
"""


class Node:
    """A node whose Docker is the stand-in, in an installation of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        (folder / "play.yml").write_text(PLAY)
        shutil.copytree(ROOT / "catalogue", folder / "catalogue")
        self.fleet = folder / "fleet.tenants.yml"
        self.fleet.write_text(
            "plugin: hummingfleet.core.tenants\nregistry: hummingfleet.db\nkeyring: {file: keyring.yml}\n"
            "catalogue: catalogue\nimages: auto\n"
            f"nodes: {{here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}}}\n"
        )
        text = self.fleet.read_text().replace("ansible_connection", "memory_mib: 1024, ansible_connection")
        self.fleet.write_text(text)

    def run(self, *options: str) -> tuple[int, str, dict[str, int]]:
        """Exit code, output, and the recap's changed and failed counts."""
        done = subprocess.run(
            [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(self.fleet), str(self.folder / "play.yml"), *options],
            capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        output = done.stdout + done.stderr
        recap = dict(word.split("=") for word in output.partition("PLAY RECAP")[2].split() if "=" in word)
        return done.returncode, output, {name: int(recap.get(name, -1)) for name in ("changed", "failed")}

    def calls(self, verb: str) -> list[str]:
        """What Docker was asked, by the command's first word."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(verb)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_images_are_pulled_where_a_registry_answers_and_the_second_run_changes_nothing(node: Node) -> None:
    (node.folder / "registry").touch()
    code, output, recap = node.run()
    assert code == 0, output
    assert recap["changed"] == 1
    assert {call.split()[-1].split(":")[0] for call in node.calls("pull")} == {
        "eclipse-mosquitto",
        "hummingbot/hummingbot",
        "postgres",
        "redis",
    }
    assert json.loads((node.folder / "var/images.json").read_text()) == {"mode": "registry"}
    pulls = len(node.calls("pull"))
    code, output, recap = node.run()
    assert (code, recap["changed"]) == (0, 0), output
    assert len(node.calls("pull")) == pulls


def test_check_mode_predicts_pulls_and_keeps_nothing(node: Node) -> None:
    (node.folder / "registry").touch()
    code, output, recap = node.run("--check", "--diff")
    assert code == 0, output
    assert recap["changed"] == 1
    assert "+postgres:15: a new image" in output
    assert node.calls("pull") == []
    assert not (node.folder / "var").exists()


def test_a_decision_outlives_the_registry(node: Node) -> None:
    (node.folder / "registry").touch()
    assert node.run()[0] == 0
    (node.folder / "registry").unlink()
    code, output, recap = node.run()
    assert (code, recap["changed"]) == (0, 0), output


def test_an_image_that_no_registry_has_fails_with_advice(node: Node) -> None:
    code, output, _recap = node.run("-e", "node_images_mode=registry")
    assert code != 0
    assert "could not be pulled: no route to registry" in output
    assert "images: build" in output
