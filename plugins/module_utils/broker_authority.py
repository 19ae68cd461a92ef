# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control node makes for its brokers: an authority, nodes' certificates, the signals user's passwords.

The folder holds ``ca.key``, its owner's only; ``ca.pem``; and ``signals_password``, its owner's only, or its group's
too where the folder has the setgid bit: there web service and worker are two users of one group.
"""

from __future__ import annotations

import base64
import fcntl
import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ansible_collections.hummingfleet.core.plugins.module_utils import broker
from ansible_collections.hummingfleet.core.plugins.module_utils.broker import BrokerError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 7300
SERVER_DAYS = 800
"""Some TLS clients refuse server certificates valid for more than 825 days."""

_PASSWORD_BYTES = 32
_SETGID = 0o2000


def ensure(fleet: Fleet, *, check: bool = False) -> list[str]:
    """Makes what the control node does not have yet; what was (or with ``check`` would be) made, in words.

    What is there stays: nodes and the web service hold it. Raises BrokerError where a file cannot be used.
    """
    made = []
    with _folder(fleet, check=check):
        missing = [path for path in (broker.ca_path(fleet), broker.ca_key_path(fleet)) if not path.exists()]
        if len(missing) == 1:
            raise BrokerError(
                f"{missing[0]} is missing, and its counterpart is there; restore it from a backup, or remove "
                f"{broker.control_dir(fleet)} to make a new authority and prepare every node again"
            )
        if missing:
            made.append("made the brokers' certificate authority")
            if not check:
                _make_authority(fleet)
        path = broker.password_path(fleet)
        if not path.exists():
            made.append("made the signals user's password")
            if not check:
                password = base64.urlsafe_b64encode(secrets.token_bytes(_PASSWORD_BYTES)).rstrip(b"=")
                setgid = bool(path.parent.stat().st_mode & _SETGID)
                _write(path, password + b"\n", 0o640 if setgid else 0o600)
    return made


def signals_line(fleet: Fleet, address: str) -> str:
    """The signals user's line of the password file of the broker at that address."""
    secret = _read(broker.password_path(fleet)).decode().strip()
    return broker.user_line(broker.SIGNALS_USER, broker.signals_password(secret, address))


def authority(fleet: Fleet) -> str:
    """The authority's certificate, PEM."""
    return _read(broker.ca_path(fleet)).decode()


def issue(fleet: Fleet, request: str, address: str) -> str:
    """A certificate (PEM) for a broker at that IPv4 address.

    Of the request (PEM, signed with the node's key) only the key counts: a node cannot ask for another's address.
    """
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        ca = x509.load_pem_x509_certificate(_read(broker.ca_path(fleet)))
        key = serialization.load_pem_private_key(_read(broker.ca_key_path(fleet)), None)
    except (ValueError, TypeError) as error:
        raise BrokerError(f"the broker's certificate cannot be made: {error}") from None
    if not asked.is_signature_valid or not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BrokerError("the broker's certificate cannot be made: the request is not signed with its own key")
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(f"Hummingfleet broker at {address}"))
        .issuer_name(ca.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(min(now + timedelta(days=SERVER_DAYS), ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address(address))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _make_authority(fleet: Fleet) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = _name("Hummingfleet broker CA"), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(broker.ca_key_path(fleet), encoded, 0o600)
    _write(broker.ca_path(fleet), certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@contextmanager
def _folder(fleet: Fleet, *, check: bool) -> Iterator[None]:
    """The folder, for one process at a time: nodes are prepared side by side."""
    folder = broker.control_dir(fleet)
    if check:
        yield
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise BrokerError(
            f"{folder} cannot be written: {error.strerror}; who runs the playbook has to own it"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokerError(
            f"{path} cannot be read: {error.strerror}; run the playbook prepare_nodes as its owner"
        ) from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """A new file, whole or not at all, never readable for others meanwhile."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(content)
        os.fchmod(handle.fileno(), mode)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
