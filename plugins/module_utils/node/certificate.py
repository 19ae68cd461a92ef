# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker's TLS key and certificate on a node, with the `openssl` program.

The key is made here and never leaves the node; the certificate is signed on the control node, whose authority's key
never comes here.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from ansible_collections.hummingfleet.core.plugins.module_utils.node.files import write_file

RENEW_DAYS = 60


class CertificateError(Exception):
    """openssl is missing or refused; the sentence says which."""


def is_valid(folder: Path, address: str, authority: str) -> bool:
    """Whether the folder has key and certificate, of that authority (PEM), for that address, for long enough."""
    key, certificate = folder / "server.key", folder / "server.pem"
    if not (key.is_file() and certificate.is_file()) or _read(folder / "ca.pem") != authority:
        return False
    shown = _openssl("x509", "-in", str(certificate), "-noout", "-checkip", address)
    return (
        "does match" in shown.stdout
        and _succeeds("x509", "-in", str(certificate), "-noout", "-checkend", str(RENEW_DAYS * 86400))
        and _succeeds("verify", "-CAfile", str(folder / "ca.pem"), str(certificate))
        and _public_key("pkey", "-in", str(key), "-pubout") == _public_key("x509", "-in", str(certificate), "-pubkey")
    )


def request(folder: Path, uid: int) -> str:
    """A request (PEM) for a certificate, signed with the folder's key, which is made if it is missing."""
    key = folder / "server.key"
    if not key.is_file():
        made = _must("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        write_file(key, made.encode(), "0400", uid, uid)
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write("[req]\ndistinguished_name=dn\n[dn]\n")
        config.flush()
        return _must("req", "-new", "-sha256", "-key", str(key), "-subj", "/CN=broker", "-config", config.name)


def install(folder: Path, uid: int, certificate: str, authority: str) -> None:
    """Puts certificate and authority (PEM) beside the key."""
    write_file(folder / "ca.pem", authority.encode(), "0444", uid, uid)
    write_file(folder / "server.pem", certificate.encode(), "0444", uid, uid)


def _public_key(*arguments: str) -> str:
    return _openssl(*arguments, *(("-noout",) if arguments[0] == "x509" else ())).stdout


def _must(*arguments: str) -> str:
    done = _openssl(*arguments)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise CertificateError(f"openssl {arguments[0]} failed: {lines[-1]}")
    return done.stdout


def _succeeds(*arguments: str) -> bool:
    return _openssl(*arguments).returncode == 0


def _openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["openssl", *arguments]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CertificateError("The program openssl is missing; install the package openssl.") from None


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.is_file() else ""
