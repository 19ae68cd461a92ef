"""The real engine logs in with keystores of ours and gets every credential back."""

from __future__ import annotations

import json
import subprocess
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


def ask_engine(conf_dir: Path, password: str, connectors: list[str]) -> dict[str, Any]:
    command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--cap-drop=ALL"]
    command += ["--volume", f"{conf_dir}:/conf:ro", "--volume", f"{PROBE}:/probe.py:ro"]
    command += ["--workdir=/tmp", "--env=HOME=/tmp", "--entrypoint=sh", engine_image()]
    command += ["-c", "PATH=/opt/hummingbot/bin:$PATH exec python /probe.py"]
    request = json.dumps({"password": password, "connectors": connectors})
    done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_conf(conf_dir: Path, files: dict[str, str]) -> None:
    """The files where the launcher puts them in a bot's container."""
    (conf_dir / "connectors").mkdir(parents=True, exist_ok=True)
    conf_dir.chmod(0o755)
    for path, text in files.items():
        name = f".{path}" if path == VERIFICATION_FILE else path
        (conf_dir / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A conf folder with a keystore for every connector, made from portal ciphertexts, and the fields inside."""
    conf_dir = tmp_path_factory.mktemp("conf")
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
    return conf_dir, contents


def test_the_engine_logs_in_and_reads_every_connectors_credentials(
    expected: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    conf_dir, contents = expected

    answer = ask_engine(conf_dir, PASSWORD, sorted(contents))

    assert answer["login"] is True
    for name, fields in contents.items():
        read = answer["api_keys"][name]
        assert {field: read[field] for field in fields} == fields, name


def test_the_engine_refuses_a_wrong_password(expected: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    assert ask_engine(expected[0], PASSWORD[::-1], []) == {"login": False}


@pytest.mark.parametrize("iterations", [1, 1000, 600_000])
def test_the_engine_accepts_the_work_factor(tmp_path: Path, iterations: int) -> None:
    fields = {"binance_api_key": AWKWARD, "binance_api_secret": PEM.replace("\n", "\\n")}
    write_conf(tmp_path, engine_keystore(PASSWORD, catalogue().connectors["binance"], fields, iterations))

    answer = ask_engine(tmp_path, PASSWORD, ["binance"])

    assert answer == {"login": True, "api_keys": {"binance": fields}}
