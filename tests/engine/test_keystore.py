"""The real engine logs in with keystores of ours and gets every credential back."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import (
    decrypt_connection,
    encrypt_connection,
)
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import derive_password
from ansible_collections.hummingfleet.core.plugins.module_utils.keystore import VERIFICATION_FILE, engine_keystore

from tests.engine.harness import PATIENCE_SECONDS, engine_image
from tests.factories import catalogue
from tests.secrecy import SALT, key_ring

pytestmark = pytest.mark.engine

PROBE = Path(__file__).with_name("keystore_probe.py")
PASSWORD = derive_password(key_ring(), tenant="acme", salt=SALT, purpose="keystore", version=1)
AWKWARD = """Ünï¢ødé 鍵 🔑 "double" 'single' `back` \\n $HOME {{ jinja }} # : - & * ! | > % @ end"""
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"
BINANCE = {"binance_api_key": AWKWARD, "binance_api_secret": PEM.replace("\n", "\\n")}


ITERATIONS = (1, 1000, 600_000)


def ask_engine(keystores: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--cap-drop=ALL"]
    command += ["--volume", f"{keystores}:/keystores:ro", "--volume", f"{PROBE}:/probe.py:ro"]
    command += ["--workdir=/tmp", "--env=HOME=/tmp", "--entrypoint=sh", engine_image()]
    command += ["-c", "PATH=/opt/hummingbot/bin:$PATH exec python /probe.py"]
    done = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def write_conf(conf_dir: Path, files: dict[str, str]) -> None:
    """The files where the launcher puts them in a bot's container."""
    (conf_dir / "connectors").mkdir(parents=True, exist_ok=True)
    conf_dir.chmod(0o755)
    for path, text in files.items():
        name = f".{path}" if path == VERIFICATION_FILE else path
        (conf_dir / name).write_text(text, encoding="utf-8")


def write_every_connector(conf_dir: Path) -> dict[str, dict[str, Any]]:
    """A keystore for every connector, made from portal ciphertexts; gives the fields inside."""
    connectors = catalogue().connectors
    contents: dict[str, dict[str, Any]] = {}
    for name, connector in connectors.items():
        if not connector.secrets:
            continue
        secrets = {f.name: f"{AWKWARD} {f.name}" for f in connector.secrets}
        settings = {f.name: 3 if f.type == "int" else "0xabc" for f in connector.settings if f.required}
        connection = encrypt_connection(
            secrets,
            connection_id="ex1",
            exchange=name,
            tenant="acme",
            keyring=key_ring(),
            key_id="k1",
            connectors=connectors,
            settings=settings,
        )
        fields = decrypt_connection(connection, "acme", key_ring(), connectors)
        write_conf(conf_dir, engine_keystore(PASSWORD, connector, fields))
        contents[name] = {**secrets, **settings}
    return contents


@dataclass
class Answers:
    """What one start of the engine made of all keystores, and what is in them."""

    contents: dict[str, dict[str, Any]]
    every: dict[str, Any]
    wrong_password: dict[str, Any]
    by_iterations: dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    keystores = tmp_path_factory.mktemp("keystores")
    contents = write_every_connector(keystores / "every")
    for number in ITERATIONS:
        keystore = engine_keystore(PASSWORD, catalogue().connectors["binance"], BINANCE, number)
        write_conf(keystores / str(number), keystore)
    every, wrong_password, *others = ask_engine(
        keystores,
        [
            {"conf": "/keystores/every", "password": PASSWORD, "connectors": sorted(contents)},
            {"conf": "/keystores/every", "password": PASSWORD[::-1], "connectors": []},
            *({"conf": f"/keystores/{n}", "password": PASSWORD, "connectors": ["binance"]} for n in ITERATIONS),
        ],
    )
    return Answers(contents, every, wrong_password, dict(zip(ITERATIONS, others, strict=True)))


def test_the_engine_logs_in_and_reads_every_connectors_credentials(answers: Answers) -> None:
    assert answers.every["login"] is True, answers.every.get("problem")
    assert answers.contents
    for name, fields in answers.contents.items():
        read = answers.every["api_keys"][name]
        assert {field: read[field] for field in fields} == fields, name


def test_the_engine_refuses_a_wrong_password(answers: Answers) -> None:
    assert answers.wrong_password == {"login": False}


@pytest.mark.parametrize("iterations", ITERATIONS)
def test_the_engine_accepts_the_work_factor(answers: Answers, iterations: int) -> None:
    assert answers.by_iterations[iterations] == {"login": True, "api_keys": {"binance": BINANCE}}
