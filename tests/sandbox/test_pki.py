"""The private CA and the server's certificate, tried with a real TLS connection."""

from __future__ import annotations

import json
import ssl
import stat
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from sandbox import pki
from sandbox.config import Settings
from sandbox.server import Server


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "ca", tmp_path / "tls"


def test_second_run_changes_nothing(folders: tuple[Path, Path]) -> None:
    assert len(pki.ensure(*folders)) == 2
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    assert pki.ensure(*folders) == []
    assert {path: path.read_bytes() for folder in folders for path in folder.iterdir()} == before


def test_keys_are_readable_by_their_owner_only(folders: tuple[Path, Path]) -> None:
    pki.ensure(*folders)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folders[0] / "ca.key", folders[1] / "server.key")] == [
        0o400, 0o400]


def test_check_says_what_would_be_done_and_does_nothing(folders: tuple[Path, Path]) -> None:
    assert len(pki.ensure(*folders, check=True)) == 2
    assert not any(folder.exists() for folder in folders)


def test_other_names_need_another_certificate_of_the_same_authority(folders: tuple[Path, Path]) -> None:
    pki.ensure(*folders)
    authority = (folders[0] / "ca.pem").read_bytes()
    assert pki.ensure(*folders, ["api.binance.com"]) == ["issued the server certificate"]
    assert (folders[0] / "ca.pem").read_bytes() == authority


def test_certificate_near_its_end_is_renewed(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "SERVER_DAYS", pki.SERVER_RENEW_DAYS - 1)
    pki.ensure(*folders)
    assert pki.ensure(*folders) == ["issued the server certificate"]
    monkeypatch.undo()
    assert pki.ensure(*folders) == ["issued the server certificate"]
    assert pki.ensure(*folders) == []


def test_certificate_of_another_authority_is_replaced(folders: tuple[Path, Path]) -> None:
    pki.ensure(*folders)
    for path in folders[0].iterdir():
        path.unlink()
    assert len(pki.ensure(*folders)) == 2


def test_command_line_reports_changes_as_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--ca-dir", str(folders[0]), "--tls-dir", str(folders[1])]
    for changed in (True, False):
        assert pki.main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["changed"] is changed


def test_missing_openssl_is_a_sentence(
        folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert pki.main(["--ca-dir", str(folders[0]), "--tls-dir", str(folders[1])]) == 1
    assert "install the package openssl" in capsys.readouterr().err


async def test_clients_that_trust_the_authority_can_connect_and_others_cannot(
        settings: Settings, folders: tuple[Path, Path]) -> None:
    pki.ensure(*folders, ["localhost"])
    server = Server(replace(settings, certificate=folders[1] / "server.pem", private_key=folders[1] / "server.key"))
    await server.start()
    url = f"https://localhost:{server.addresses()[0][1]}/api/v3/ping"
    trusting = ssl.create_default_context(cafile=str(folders[0] / "ca.pem"))
    async with aiohttp.ClientSession() as session:
        assert (await session.get(url, ssl=trusting)).status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
    await server.stop()
