# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key ring: the portal's AES keys by id and the fleet's master key, read from a file or a vault, never a variable.

What a source holds, as YAML or JSON::

    version: 1
    master: {id: m1, key: <base64 of 32 bytes>}
    keys: {k1: <base64 of 32 bytes>, k2: <base64 of 32 bytes>}
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import ssl
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
KEY_ID = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")

_MODES = (0o600, 0o400)
_MAX_BYTES = 256 * 1024
_VAULT_TIMEOUT_SECONDS = 10.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class KeyRingError(HummingfleetError):
    """The key ring cannot be read, is not well formed, or does not hold the key that was asked for."""


class KeyRing:
    """Keys by id. Shows ids to everybody and keys only to who asks for one; neither printed, pickled nor copied."""

    __slots__ = ("_keys", "_master", "master_id")

    master_id: str

    def __init__(self, *, master_id: str, master: bytes, keys: Mapping[str, bytes]) -> None:
        """Checks ids (pattern), lengths (32 bytes) and that no key is there twice."""
        for key_id in (master_id, *keys):
            _check_key_id(key_id, "The key ring")
        for key_id, key in (("master", master), *keys.items()):
            if len(key) != KEY_BYTES:
                raise KeyRingError(f"The key ring: key {key_id} has {len(key)} bytes; AES-256 needs {KEY_BYTES}.")
        seen: dict[bytes, str] = {master: "the master key"}
        for key_id, key in keys.items():
            if key in seen:
                raise KeyRingError(
                    f"The key ring: key {key_id} is the same as {seen[key]}; make a new key for each id."
                )
            seen[key] = f"key {key_id}"
        self.master_id = master_id
        self._master = bytes(master)
        self._keys = dict(keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the portal's keys, sorted."""
        return tuple(sorted(self._keys))

    def key(self, key_id: str) -> bytes:
        """The portal's key with this id; KeyRingError names the known ids when there is none."""
        found = self._keys.get(key_id) if isinstance(key_id, str) else None
        if found is None:
            shown = f"key {key_id}" if isinstance(key_id, str) and KEY_ID.match(key_id) else "a key of that id"
            raise KeyRingError(f"The key ring does not hold {shown}; it holds {', '.join(self.ids) or 'no keys'}.")
        return found

    def derive(self, *, salt: bytes, info: bytes) -> bytes:
        """32 bytes of HKDF-SHA256 over the master key."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(self._master)

    def __repr__(self) -> str:
        return f"KeyRing(master={self.master_id}, keys=[{', '.join(self.ids)}])"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key ring is not copied or written: hand on the path of its source.")


def load_keyring(spec: Mapping[str, Any], *, root: Path | None = None) -> KeyRing:
    """The key ring from exactly one source.

    `{file: path}`: a file of mode 0600 or 0400 that belongs to root or to the user who runs this;
    `{ansible_vault: path, password_file: path}`: an ansible-vault file; its password file is guarded likewise;
    `{hashicorp_vault: {url, token_file, mount, path, ca_file, namespace}}`: a secret of a KV version 2 mount.
    Relative paths start at `root` (or at the working directory).
    """
    if not isinstance(spec, Mapping):
        raise KeyRingError("The key ring's source must be a mapping such as {file: var/keyring.yml}.")
    base = root or Path.cwd()
    names = set(spec)
    if names == {"file"}:
        path = _path(spec["file"], base, "keyring.file")
        return _parse_text(_read_guarded(path, "Key ring"), f"Key ring {path}")
    if names == {"ansible_vault", "password_file"}:
        return _load_ansible_vault(
            _path(spec["ansible_vault"], base, "keyring.ansible_vault"),
            _path(spec["password_file"], base, "keyring.password_file"),
        )
    if names == {"hashicorp_vault"}:
        return _load_hashicorp_vault(spec["hashicorp_vault"], base)
    raise KeyRingError(
        "The key ring's source must be one of {file: …}, {ansible_vault: …, password_file: …} "
        "or {hashicorp_vault: {url: …, token_file: …, mount: …, path: …}}."
    )


def generate_keyring(path: Path, *, key_ids: tuple[str, ...] = ("k1",), master_id: str = "m1") -> KeyRing:
    """Writes a new key ring of random keys to `path` (mode 0600) and returns it; refuses to replace a file.

    The file appears whole or not at all.
    """
    for key_id in (master_id, *key_ids):
        _check_key_id(key_id, "The new key ring")
    document = {
        "version": 1,
        "master": {"id": master_id, "key": _encode(secrets.token_bytes(KEY_BYTES))},
        "keys": {key_id: _encode(secrets.token_bytes(KEY_BYTES)) for key_id in key_ids},
    }
    text = (
        "# The fleet's keys. Whoever reads this file can read every tenant's exchange credentials:\n"
        "# mode 0600, never in version control, a copy in a safe place. docs/secrets.md has the rotation.\n"
        + yaml.safe_dump(document, sort_keys=False)
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".keyring-", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(temporary, path)  # unlike a rename, a link never replaces
    except FileExistsError:
        raise KeyRingError(
            f"Key ring {path} exists and is not replaced: what its keys encrypted would be lost. "
            "Add keys to it, or move it away first."
        ) from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return load_keyring({"file": str(path)})


# --- sources ---------------------------------------------------------------------------------------------------------


def _path(value: object, base: Path, name: str) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise KeyRingError(f"`{name}` must be the path of a file.")
    return base.absolute() / Path(value).expanduser()


def _read_guarded(path: Path, what: str) -> bytes:
    """The content of a file that only its owner may read, and whose owner is root or this process's user."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyRingError(f"{what} {path} does not exist; name the right path, or create it.") from None
    except OSError as error:
        raise KeyRingError(f"{what} {path} cannot be opened: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)  # of the opened file: nobody can swap it between check and read
        if not stat.S_ISREG(status.st_mode):
            raise KeyRingError(f"{what} {path} is not a regular file.")
        mode = stat.S_IMODE(status.st_mode)
        if mode not in _MODES:
            raise KeyRingError(f"{what} {path} has mode {mode:04o}; it must be 0600 or 0400: chmod 0600 {path}")
        if status.st_uid not in (0, os.geteuid()):
            raise KeyRingError(
                f"{what} {path} belongs to uid {status.st_uid}; it must belong to root or to uid {os.geteuid()}, "
                "who runs this."
            )
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise KeyRingError(f"{what} {path} is larger than {_MAX_BYTES // 1024} KiB; this is not the right file.")
    return content


def _load_ansible_vault(path: Path, password_path: Path) -> KeyRing:
    where = f"Key ring {path} (ansible-vault)"
    try:
        encrypted = path.read_bytes()
    except OSError as error:
        raise KeyRingError(f"{where} cannot be read: {error.strerror}.") from None
    if not encrypted.startswith(b"$ANSIBLE_VAULT;"):
        raise KeyRingError(f"{where} is not encrypted; encrypt it with: ansible-vault encrypt {path}")
    if not _read_guarded(password_path, "Vault password file").strip():
        raise KeyRingError(f"Vault password file {password_path} is empty.")
    # A process of its own, because a module's payload carries only the part of Ansible that targets need.
    command = [sys.executable, "-m", "ansible", "vault", "decrypt", "--output", "-"]
    command += ["--vault-password-file", str(password_path), str(path)]
    done = subprocess.run(
        command,
        cwd="/",
        env={name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise KeyRingError(
            f"{where} does not open with the password in {password_path}: another password, or the file is damaged."
        )
    return _parse_text(done.stdout, where)


def _load_hashicorp_vault(options: object, base: Path) -> KeyRing:
    required, optional = {"url", "token_file", "mount", "path"}, {"ca_file", "namespace"}
    if not isinstance(options, Mapping) or not required <= set(options) <= required | optional:
        raise KeyRingError(
            "`keyring.hashicorp_vault` needs url, token_file, mount and path, and may have ca_file and namespace."
        )
    if not all(isinstance(value, str) and value for value in options.values()):
        raise KeyRingError("`keyring.hashicorp_vault`: every value must be a text that is not empty.")
    url = urllib.parse.urlsplit(options["url"])
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        raise KeyRingError("`keyring.hashicorp_vault.url` must look like https://vault.example.com:8200.")
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise KeyRingError(
            "`keyring.hashicorp_vault.url` must begin with https:// — plain http is accepted only for this machine, "
            "since the token and the keys would cross the network in clear."
        )
    token = _read_guarded(_path(options["token_file"], base, "keyring.hashicorp_vault.token_file"), "Vault token file")
    token_text = token.decode("ascii", "replace").strip()
    if not token_text.isprintable() or not token_text.isascii() or " " in token_text or not token_text:
        raise KeyRingError(f"Vault token file {options['token_file']} does not hold one token.")
    mount, secret = options["mount"].strip("/"), options["path"].strip("/")
    address = f"{options['url'].rstrip('/')}/v1/{urllib.parse.quote(mount)}/data/{urllib.parse.quote(secret)}"
    headers = {"X-Vault-Token": token_text, "X-Vault-Request": "true"}
    if "namespace" in options:
        headers["X-Vault-Namespace"] = options["namespace"]
    ca_path = _path(options["ca_file"], base, "keyring.hashicorp_vault.ca_file") if "ca_file" in options else None
    where = f"Key ring {mount}/{secret} in the vault at {url.scheme}://{url.netloc}"
    answer = _http_get(address, headers, ca_path, where)
    try:
        content = json.loads(answer)["data"]["data"]
    except (ValueError, KeyError, TypeError):
        content = None
    if not isinstance(content, Mapping):
        raise KeyRingError(f"{where}: the answer is not a secret of a KV version 2 mount.")
    return _parse(content, where)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would send the token along to wherever a redirect points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _http_get(address: str, headers: Mapping[str, str], ca_path: Path | None, where: str) -> bytes:
    """The body of an answer 200; KeyRingError says in words what came instead."""
    try:
        context = ssl.create_default_context(cafile=str(ca_path) if ca_path else None)
    except OSError:
        raise KeyRingError(f"{where}: ca_file {ca_path} is not a readable PEM certificate.") from None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
    )
    request = urllib.request.Request(address, headers=dict(headers))  # noqa: S310  scheme checked by the caller
    problem: str
    try:
        with opener.open(request, timeout=_VAULT_TIMEOUT_SECONDS) as answer:
            body = bytes(answer.read(_MAX_BYTES + 1))
        if len(body) <= _MAX_BYTES:
            return body
        problem = f"the answer is larger than {_MAX_BYTES // 1024} KiB."
    except urllib.error.HTTPError as error:
        error.close()
        problem = {
            400: "the vault calls the request malformed; check mount, path and namespace.",
            403: "the token is not accepted or may not read this path; renew it or extend its policy.",
            404: "there is no such secret; check mount and path, and that the mount is KV version 2.",
            503: "the vault is sealed or in maintenance.",
        }.get(error.code, f"the vault answered with HTTP status {error.code}.")
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            problem = f"its certificate is not trusted ({error.reason.verify_message}); set ca_file."
        else:
            problem = f"the vault cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})."
    except (OSError, ValueError) as error:
        problem = f"the vault cannot be reached ({type(error).__name__})."
    except Exception as error:  # http.client raises its own family on a malformed answer
        problem = f"the vault's answer is not HTTP ({type(error).__name__})."
    raise KeyRingError(f"{where}: {problem}")


# --- content ---------------------------------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would keep the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(problem="twice", problem_mark=key_node.start_mark)
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep=deep)


def _parse_text(content: bytes, where: str) -> KeyRing:
    document: object = None
    problem = ""
    try:
        document = yaml.load(content, Loader=_StrictLoader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:  # its text would quote the file: only the line number goes on
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        detail = "names the same entry a second time" if error.problem == "twice" else "is not valid YAML"
        problem = f"{where}: line {line} {detail}."
    except (yaml.YAMLError, UnicodeDecodeError, ValueError):
        problem = f"{where} is not valid YAML."
    if problem:
        raise KeyRingError(problem)
    return _parse(document, where)


def _parse(document: object, where: str) -> KeyRing:
    if not isinstance(document, Mapping) or set(document) != {"version", "master", "keys"}:
        raise KeyRingError(f"{where} must have exactly the entries version, master and keys.")
    if document["version"] != 1 or isinstance(document["version"], bool):
        raise KeyRingError(f"{where}: `version` must be 1, the only format there is.")
    master, keys = document["master"], document["keys"]
    if not isinstance(master, Mapping) or set(master) != {"id", "key"}:
        raise KeyRingError(f"{where}: `master` must have exactly the entries id and key.")
    if not isinstance(keys, Mapping):
        raise KeyRingError(f"{where}: `keys` must map key ids to keys.")
    for key_id in (master["id"], *keys):
        _check_key_id(key_id, where)
    return KeyRing(
        master_id=master["id"],
        master=_decode(master["key"], "master.key", where),
        keys={key_id: _decode(key, f"keys.{key_id}", where) for key_id, key in keys.items()},
    )


def _check_key_id(key_id: object, where: str) -> None:
    if not isinstance(key_id, str) or not KEY_ID.match(key_id):
        raise KeyRingError(  # the id is not repeated: it may be a key that slipped into the wrong place
            f"{where}: a key id must begin with a letter a-z and have up to 32 of a-z, 0-9, '_' and '-'."
        )


def _decode(value: object, name: str, where: str) -> bytes:
    key: bytes | None
    try:
        key = base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        key = None
    if key is None:
        raise KeyRingError(f"{where}: `{name}` is not base64 text.")
    if len(key) != KEY_BYTES:
        raise KeyRingError(f"{where}: `{name}` has {len(key)} bytes; AES-256 needs {KEY_BYTES}.")
    return key


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
