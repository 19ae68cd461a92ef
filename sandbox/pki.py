"""Private CA and server certificate of the sandbox exchange, made with the `openssl` program.

Standard library only, because it also runs on nodes. Prints {"changed": bool, "actions": [...]}; a second run
changes nothing until a certificate nears its end or the names change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CA_DAYS = 7300
CA_RENEW_DAYS = 730
SERVER_DAYS = 800
"""Some TLS clients refuse server certificates valid for more than 825 days."""
SERVER_RENEW_DAYS = 60
NAMES = (
    "api.binance.com", "api1.binance.com", "api2.binance.com", "api3.binance.com", "api4.binance.com",
    "api-gcp.binance.com", "data-api.binance.vision", "data-stream.binance.vision", "stream.binance.com",
    "ws-api.binance.com", "hf-sandbox", "localhost",
)


class PkiError(Exception):
    """openssl is missing or refused; the sentence says which."""


def ensure(ca_dir: Path, tls_dir: Path, names: Sequence[str] = NAMES, *, check: bool = False) -> list[str]:
    """Make what is missing or near its end; returns what was (or with `check` would be) done.

    `ca_dir` gets ca.pem and ca.key, `tls_dir` gets server.pem and server.key; keys have mode 0400.
    """
    actions = []
    ca_cert, ca_key = ca_dir / "ca.pem", ca_dir / "ca.key"
    cert, key = tls_dir / "server.pem", tls_dir / "server.key"
    if not _valid(ca_cert, ca_key, CA_RENEW_DAYS):
        actions.append("created the certificate authority")
        if not check:
            _make_authority(ca_cert, ca_key)
    stamp = _stamp(names)
    if actions or not _valid(cert, key, SERVER_RENEW_DAYS) or _read(tls_dir / "server.names") != stamp \
            or not _issued_by(ca_cert, cert):
        actions.append("issued the server certificate")
        if not check:
            _issue(ca_cert, ca_key, cert, key, names)
            _write(tls_dir / "server.names", stamp.encode(), 0o644)
    return actions


def _valid(cert: Path, key: Path, days: int) -> bool:
    """Whether both files exist and the certificate lasts that long."""
    if not (cert.is_file() and key.is_file()):
        return False
    return _openssl("x509", "-in", str(cert), "-noout", "-checkend", str(days * 86400), check=False) == 0


def _issued_by(ca_cert: Path, cert: Path) -> bool:
    return _openssl("verify", "-CAfile", str(ca_cert), str(cert), check=False) == 0


def _make_authority(cert: Path, key: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        new_key, new_cert = Path(work, "key"), Path(work, "cert")
        _new_key(new_key)
        _openssl("req", "-x509", "-new", "-sha256", "-key", str(new_key), "-days", str(CA_DAYS), "-out", str(new_cert),
                 "-subj", "/CN=Hummingfleet sandbox exchange CA", "-config", _config(work, [
                     "[req]", "distinguished_name=dn", "x509_extensions=ext", "[dn]", "[ext]",
                     "basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign",
                     "subjectKeyIdentifier=hash"]))
        _write(key, new_key.read_bytes(), 0o400)
        _write(cert, new_cert.read_bytes(), 0o444)


def _issue(ca_cert: Path, ca_key: Path, cert: Path, key: Path, names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as work:
        new_key, request, new_cert = Path(work, "key"), Path(work, "csr"), Path(work, "cert")
        _new_key(new_key)
        config = _config(work, [
            "[req]", "distinguished_name=dn", "[dn]", "[ext]", "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth", "subjectKeyIdentifier=hash",
            "authorityKeyIdentifier=keyid", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)])
        _openssl("req", "-new", "-sha256", "-key", str(new_key), "-subj", f"/CN={names[0]}", "-out", str(request),
                 "-config", config)
        _openssl("x509", "-req", "-sha256", "-in", str(request), "-CA", str(ca_cert), "-CAkey", str(ca_key),
                 "-set_serial", "0x" + os.urandom(16).hex(), "-days", str(SERVER_DAYS), "-extfile", config,
                 "-extensions", "ext", "-out", str(new_cert))
        _write(key, new_key.read_bytes(), 0o400)
        _write(cert, new_cert.read_bytes(), 0o444)


def _new_key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))


def _config(work: str, lines: Sequence[str]) -> str:
    path = Path(work, "openssl.cnf")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _openssl(*arguments: str, check: bool = True) -> int:
    try:
        done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise PkiError("The program openssl is missing; install the package openssl.") from None
    if check and done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise PkiError(f"openssl {arguments[0]} failed: {lines[-1]}")
    return done.returncode


def _stamp(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest() + "\n"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one step; keeps the owner of its directory, so that the server can read it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    if temporary.exists():
        temporary.unlink()
    descriptor = os.open(str(temporary), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        owner = path.parent.stat()
        if os.geteuid() == 0:
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="pki.py", description="Make the sandbox exchange's CA and certificate.")
    parser.add_argument("--ca-dir", required=True, type=Path)
    parser.add_argument("--tls-dir", required=True, type=Path)
    parser.add_argument("--name", action="append", help="a DNS name; replaces the usual ones, may be repeated")
    parser.add_argument("--check", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)
    try:
        actions = ensure(options.ca_dir, options.tls_dir, options.name or NAMES, check=options.check)
    except (PkiError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"changed": bool(actions), "actions": actions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
