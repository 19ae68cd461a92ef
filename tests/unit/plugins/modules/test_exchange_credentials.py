from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.hummingfleet.core.plugins.module_utils.credentials import encrypt_connection
from ansible_collections.hummingfleet.core.plugins.module_utils.derive import derive_password
from ansible_collections.hummingfleet.core.plugins.modules import exchange_credentials

from tests.factories import ROOT, catalogue
from tests.secrecy import API_KEY, API_SECRET, KEYS, MASTER, SALT, assert_hidden, key_ring, key_ring_text
from tests.unit.plugins.modules.running import Runner, accepted_options, documented_options, run_ansible

PASSWORD = derive_password(key_ring(), tenant="acme", salt=SALT, purpose="keystore", version=1)
SECRETS = [API_KEY, API_SECRET, MASTER, *KEYS.values(), PASSWORD]
FILES = ["connectors/binance.yml", "password_verification"]


def connection(**overrides: Any) -> dict[str, Any]:
    """A connection with fixed nonces: the same ciphertexts in every run."""
    numbers = iter(range(100))
    arguments: dict[str, Any] = {
        "connection_id": "ex1",
        "exchange": "binance",
        "tenant": "acme",
        "keyring": key_ring(),
        "key_id": "k1",
        "connectors": catalogue().connectors,
        "random_bytes": lambda size: bytes([next(numbers)]) * size,
    }
    return encrypt_connection({"api_key": API_KEY, "api_secret": API_SECRET}, **arguments | overrides)


@pytest.fixture
def keyring_path(tmp_path: Path) -> Path:
    path = tmp_path / "keyring.yml"
    path.write_text(key_ring_text())
    path.chmod(0o600)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(exchange_credentials.main, capsys)


@pytest.fixture
def arguments(tmp_path: Path, keyring_path: Path) -> dict[str, Any]:
    return {
        "tenant": "acme",
        "connection": connection(),
        "keyring": {"file": str(keyring_path)},
        "salt": SALT,
        "catalogue": str(ROOT / "catalogue"),
        "dest": str(tmp_path / "conf"),
    }


def written(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_keystore_is_written_for_its_owner_only(run: Runner, arguments: dict[str, Any]) -> None:
    result = run(arguments)
    dest = Path(arguments["dest"])

    assert result["changed"] is True
    assert sorted(written(dest)) == FILES
    assert {(dest / name).stat().st_mode & 0o7777 for name in FILES} == {0o400}
    assert dest.stat().st_mode & 0o077 == 0
    assert result["credentials"]["files"] == FILES
    assert result["credentials"]["fields"] == ["binance_api_key", "binance_api_secret"]


def test_the_documented_sample_is_what_the_module_returns(run: Runner, arguments: dict[str, Any]) -> None:
    documented = yaml.safe_load(exchange_credentials.RETURN)["credentials"]["sample"]

    assert run(arguments)["credentials"] == documented


def test_a_second_run_changes_nothing(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)
    times = {name: (Path(arguments["dest"]) / name).stat().st_mtime_ns for name in FILES}

    again = run(arguments)

    assert (again["changed"], again["diff"]) == (False, {"before": {}, "after": {}})
    assert {name: (Path(arguments["dest"]) / name).stat().st_mtime_ns for name in FILES} == times


def test_check_mode_predicts_the_run_and_writes_nothing(run: Runner, arguments: dict[str, Any]) -> None:
    predicted = run(arguments, check=True)
    assert not Path(arguments["dest"]).exists()

    done = run(arguments)

    assert predicted == done | {"invocation": predicted["invocation"]}
    assert run(arguments, check=True)["changed"] is False


def test_the_diff_names_files_and_shows_no_content(run: Runner, arguments: dict[str, Any]) -> None:
    created = run(arguments)["diff"]
    assert created == {"before": dict.fromkeys(FILES, "absent"), "after": dict.fromkeys(FILES, "present")}

    (Path(arguments["dest"]) / FILES[0]).chmod(0o600)
    (Path(arguments["dest"]) / FILES[0]).write_text("edited")
    repaired = run(arguments)["diff"]
    assert repaired == {"before": {FILES[0]: "present, with another content"}, "after": {FILES[0]: "present"}}


def test_a_loosened_mode_is_mended(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)
    path = Path(arguments["dest"]) / FILES[0]
    path.chmod(0o644)

    assert run(arguments, check=True)["changed"] is True
    result = run(arguments)

    assert result["diff"] == {"before": {FILES[0]: {"mode": "0644"}}, "after": {FILES[0]: {"mode": "0400"}}}
    assert path.stat().st_mode & 0o7777 == 0o400


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_mode_and_owner_are_the_tasks_choice(run: Runner, arguments: dict[str, Any]) -> None:
    arguments |= {"mode": "0440", "owner": "54321", "group": "54321"}
    run(arguments)
    status = (Path(arguments["dest"]) / FILES[0]).stat()

    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o440, 54321, 54321)
    assert run(arguments)["changed"] is False


@pytest.mark.parametrize("change", [{"secret_version": 2}, {"kdf_iterations": 2}, {"salt": SALT[::-1]}])
def test_whatever_the_keystore_depends_on_changes_it(
    run: Runner, arguments: dict[str, Any], change: dict[str, Any]
) -> None:
    first = run(arguments)
    second = run(arguments | change)

    assert second["changed"] is True
    assert second["credentials"]["fingerprint"] != first["credentials"]["fingerprint"]


def test_without_a_destination_it_only_checks(run: Runner, arguments: dict[str, Any]) -> None:
    del arguments["dest"]

    result = run(arguments)

    assert result["changed"] is False
    assert result["credentials"]["files"] == FILES


def test_absent_removes_the_connector_and_with_the_last_one_the_verification(
    run: Runner, arguments: dict[str, Any]
) -> None:
    run(arguments)
    run(arguments | {"connection": connection(exchange="mexc")})
    gone = {key: arguments[key] for key in ("tenant", "catalogue", "dest")} | {"state": "absent"}

    first = run(gone | {"connection": {"exchange": "binance"}})
    assert (first["changed"], first["credentials"]["files"]) == (True, ["connectors/binance.yml"])
    assert sorted(written(Path(arguments["dest"]))) == ["connectors/mexc.yml", "password_verification"]

    assert run(gone | {"connection": {"exchange": "mexc"}}, check=True)["changed"] is True
    assert run(gone | {"connection": {"exchange": "mexc"}})["changed"] is True
    assert written(Path(arguments["dest"])) == {}
    assert run(gone | {"connection": {"exchange": "mexc"}})["changed"] is False


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"connection": connection() | {"key_id": "k9"}}, "it holds k1, k2"),
        ({"connection": connection() | {"key_id": "k2"}}, "does not open with key k2"),
        ({"connection": connection(tenant="other")}, "does not open with key k1"),
        ({"connection": connection() | {"exchange": "nowhere"}}, "`nowhere` is not a connector"),
        ({"connection": connection(aad="v1"), "demand_aad": "v2"}, "accepts only `aad: v2`"),
        ({"salt": "short"}, "`salt`"),
        ({"secret_version": 0}, "`secret_versions.keystore`"),
        ({"kdf_iterations": 0}, "work factor"),
        ({"keyring": {"file": "/nowhere/keyring.yml"}}, "does not exist"),
        ({"keyring": {"key": "x"}}, "source must be one of"),
        ({"catalogue": "/nowhere"}, "/nowhere"),
        ({"salt": None}, "salt"),
    ],
)
def test_a_failure_is_one_sentence_and_writes_nothing(
    run: Runner, arguments: dict[str, Any], change: dict[str, Any], expected: str
) -> None:
    result = run({name: value for name, value in (arguments | change).items() if value is not None})

    assert result["failed"] is True
    assert expected in result["msg"]
    assert "exception" not in result
    assert not Path(arguments["dest"]).exists()


def test_no_output_shows_a_secret(run: Runner, arguments: dict[str, Any]) -> None:
    run(arguments)
    run(arguments, check=True)
    run(arguments | {"connection": connection() | {"key_id": "k2"}})

    assert_hidden(run.printed, SECRETS)


def test_ansible_itself_runs_the_module_without_showing_a_secret(tmp_path: Path, arguments: dict[str, Any]) -> None:
    predicted = run_ansible("exchange_credentials", arguments, tmp_path, "-vvv", "--check", "--diff")
    done = run_ansible("exchange_credentials", arguments, tmp_path, "-vvv", "--diff")
    again = run_ansible("exchange_credentials", arguments, tmp_path, "-vvv")

    assert "localhost | CHANGED" in predicted, predicted
    assert "localhost | CHANGED" in done, done
    assert "localhost | SUCCESS" in again, again
    assert sorted(written(Path(arguments["dest"]))) == FILES
    assert_hidden(predicted + done + again, SECRETS)


def test_ansible_itself_reads_an_ansible_vault_key_ring(tmp_path: Path, arguments: dict[str, Any]) -> None:
    (tmp_path / "vaulted").write_bytes(VaultLib([("default", VaultSecret(b"open sesame"))]).encrypt(key_ring_text()))
    (tmp_path / "password").write_text("open sesame")
    (tmp_path / "password").chmod(0o600)
    source = {"ansible_vault": str(tmp_path / "vaulted"), "password_file": str(tmp_path / "password")}

    done = run_ansible("exchange_credentials", arguments | {"keyring": source}, tmp_path)

    assert "localhost | CHANGED" in done, done


def test_the_documentation_describes_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert documented_options("exchange_credentials") == accepted_options(exchange_credentials, monkeypatch)
