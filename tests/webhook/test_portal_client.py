"""What docs/ gives to portal developers: the shell client against the real service, and the pages' Python."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from flask import Flask

from tests.factories import ROOT
from tests.webhook import portal as portals
from webhook import signing
from webhook.installation import Installation
from webhook.journal import Journal
from webhook.secrets_file import SecretsFile, Verifier

CLIENT = ROOT / "docs" / "portal-client.sh"
SHELLS = [["sh"], ["bash"], ["bash", "--posix"]]


@pytest.fixture
def url(app: Flask) -> Iterator[str]:
    """Where the real service takes events."""
    with portals.serving(app) as url:
        yield url


@pytest.fixture
def secret_path(web_installation: Installation, tmp_path: Path) -> Path:
    """A file with the inbound secret."""
    path = tmp_path / "portal secret"
    path.write_text(SecretsFile(web_installation.fleet.webhook.secrets_path).current("inbound").secret + "\n")
    return path


def client(
    *arguments: object, shell: list[str] | None = None, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the client; ``path`` is looked into for programs first."""
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run(
        [*(shell or ["sh"]), str(CLIENT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_client_delivers_an_event_once(
    url: str, secret_path: Path, created: Callable[..., dict[str, Any]], tmp_path: Path, shell: list[str], app: Flask
) -> None:
    event = tmp_path / "an event.json"
    event.write_text(json.dumps(created(subdomain="acme"), indent=2) + "\n")
    first = client(secret_path, url, event, "e-1", shell=shell)
    assert (first.returncode, "status 202" in first.stderr) == (0, True), first.stderr + first.stdout
    assert json.loads(first.stdout)["event"]["id"] == "e-1"
    again = client(secret_path, url, event, "e-1", shell=shell)
    assert (again.returncode, "status 200" in again.stderr) == (0, True), again.stderr


def test_the_client_makes_up_an_id(
    url: str, secret_path: Path, created: Callable[..., dict[str, Any]], tmp_path: Path, web_installation: Installation
) -> None:
    event = tmp_path / "event.json"
    event.write_text(json.dumps(created()))
    done = client(secret_path, url, event)
    assert done.returncode == 0, done.stderr
    here = web_installation
    (stored,) = Journal(here.registry, here.fleet, here.catalogue).list().items
    assert re.fullmatch(r"evt_[0-9a-f]{24}", stored.id) and stored.id in done.stderr


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_client_signs_with_any_key_and_any_bytes(tmp_path: Path, shell: list[str]) -> None:
    secrets_path, secret_file, event = tmp_path / "secrets.yml", tmp_path / "secret", tmp_path / "event"
    SecretsFile(secrets_path).ensure(0)
    keys = [bytes(range(64)), b"%" * 24, b"\\0" * 16, b"\x00" * 32, b"\xff" * 33, b"\n" * 24, secrets.token_bytes(41)]
    body = json.dumps({"data": {"tenant": "acme"}, "text": "%s \\n ü\r\n"}, ensure_ascii=False).encode() + b"\n\n\0"
    with portals.running() as portal:
        portal.answer = portals.status(202)
        for key in keys:
            secret_file.write_text("whsec_" + base64.b64encode(key).decode())
            event.write_bytes(body.rstrip(b"\0"))
            done = client(secret_file, portal.url, event, "e.1", shell=shell)
            assert done.returncode == 0, done.stderr
            request = portal.requests[-1]
            now = float(request.headers["webhook-timestamp"])
            assert signing.verify([secret_file.read_text()], request.headers, request.body, now) == "e.1"


def test_the_secret_is_in_no_argument_and_no_environment(secret_path: Path, tmp_path: Path) -> None:
    tools, seen = tmp_path / "tools", tmp_path / "seen"
    tools.mkdir()
    for name in ("openssl", "curl", "od", "tr", "cat", "date"):
        real = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        script = f'#!/bin/sh\n{{ printf "%s\\n" "$0" "$@"; env; }} >>"{seen}"\nexec {real.stdout.strip()} "$@"\n'
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    event = tmp_path / "event"
    event.write_text('{"data": {"tenant": "acme"}}')
    with portals.running() as portal:
        portal.answer = portals.status(202)
        done = client(secret_path, portal.url, event, path=tools)
    assert done.returncode == 0, done.stderr
    secret = secret_path.read_text().strip().removeprefix("whsec_")
    key = base64.b64decode(secret)
    record = seen.read_text(errors="replace")
    assert "webhook-signature" in record
    for form in (secret, key.hex(), "".join(f"\\{byte ^ 0x36:03o}" for byte in key)):
        assert form not in record and form not in done.stdout + done.stderr


def test_a_refusal_is_shown_and_ends_with_1(url: str, secret_path: Path, tmp_path: Path) -> None:
    event = tmp_path / "event"
    event.write_text('{"type": "bot.vanished", "timestamp": "2026-11-23T05:00:00Z", "data": {"tenant": "acme"}}')
    done = client(secret_path, url, event)
    assert done.returncode == 1 and "status 422" in done.stderr
    assert json.loads(done.stdout)["faults"][0]["pointer"] == "/type"
    secret_path.write_text("whsec_" + base64.b64encode(bytes(32)).decode())
    done = client(secret_path, url, event)
    assert done.returncode == 1 and "status 401" in done.stderr


@pytest.mark.parametrize("content", ["", "hunter2", "whsec_", "whsec_!!", "whsec_aHVudGVyMg=="])
def test_a_damaged_secret_is_a_sentence(tmp_path: Path, content: str) -> None:
    secret, event = tmp_path / "secret", tmp_path / "event"
    secret.write_text(content)
    event.write_text("{}")
    done = client(secret, "http://127.0.0.1:1/", event)
    assert done.returncode == 1 and "portal-client.sh: " in done.stderr
    assert "hunter2" not in done.stderr and "aHVudGVyMg" not in done.stderr


def test_missing_files_and_arguments_are_sentences(tmp_path: Path) -> None:
    assert "usage" in client().stderr
    assert "cannot be read" in client(tmp_path / "none", "http://127.0.0.1:1/", tmp_path / "none").stderr


def test_the_pages_python_sends_and_receives(
    url: str, web_installation: Installation, created: Callable[..., dict[str, Any]], web_registry: Registry
) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "portal.md").read_text(), re.DOTALL):
        exec(compile(block, "docs/portal.md", "exec"), names)
    path = web_installation.fleet.webhook.secrets_path
    inbound, outbound = (SecretsFile(path).current(one).secret for one in ("inbound", "outbound"))
    headers, body = names["event_request"](inbound, "e1", created())
    lower = {name.lower(): value for name, value in headers.items()}
    assert Verifier(path).verify(lower, body)[0] == "e1"
    known: set[str] = set()
    import time

    message = b'{"type": "event.applied", "data": {}}'
    made = signing.sign([outbound], "cb_1", time.time(), message)
    assert names["handle"](outbound, made, message, known) == 204 and known == {"cb_1"}
