"""What this machine is configured to use: Debian mirrors, proxies, pip settings and certificate authorities.

A build uses them and leaves none of them in an image: they are mounted into build containers below ``/run``, which is
a tmpfs there, or into throw-away containers.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .errors import BuildError

_TARGET_FORMAT = "$(ORIGIN)\t$(LABEL)\t$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)\t$(CREATED_BY)"
_PROXY_NAMES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CA_DEFAULT = "/etc/ssl/certs/ca-certificates.crt"

BUILD_DIR = "/run/build"
"""Where a build container finds what this machine lends it."""


@dataclass(frozen=True)
class Mirrors:
    """Where Debian packages come from: the main archive and, where the machine uses it, the security archive."""

    main: str
    security: str | None

    def sources_list(self, suite: str) -> str:
        """Give the text of a sources.list for a suite such as ``trixie``."""
        lines = [f"deb {self.main} {suite} main", f"deb {self.main} {suite}-updates main"]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return "\n".join(lines) + "\n"


def parse_mirrors(index_targets: str, codename: str) -> Mirrors:
    """Read the mirrors from ``apt-get indextargets`` output in our format.

    Before the first ``apt-get update`` apt knows neither origin nor label, so an empty origin counts as Debian's when
    the suite is the machine's own.
    """
    main = security = None
    for line in index_targets.splitlines():
        fields = line.split("\t")
        if len(fields) != 6 or fields[5] != "Packages":
            continue
        origin, label, release, component, uri, _ = fields
        if component != "main" or origin not in ("Debian", ""):
            continue
        if release in (f"{codename}-security", "stable-security", "oldstable-security") or label == "Debian-Security":
            security = security or uri
        elif release in (codename, "stable", "oldstable"):
            main = main or uri
    if main is None:
        raise BuildError(
            f"apt on this machine has no source for Debian {codename} main; check /etc/apt/sources.list.d, "
            "or name a mirror with HUMMINGFLEET_APT_MIRROR"
        )
    return Mirrors(main, security)


def find_mirrors() -> Mirrors:
    """Give the mirrors this machine uses; ``HUMMINGFLEET_APT_MIRROR`` overrides the main one."""
    override = os.environ.get("HUMMINGFLEET_APT_MIRROR")
    if override:
        return Mirrors(override, None)
    try:
        out = subprocess.run(
            ["apt-get", "indextargets", "--format", _TARGET_FORMAT], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError("images are built from Debian packages, and apt-get does not work on this machine") from error
    return parse_mirrors(out, os_release().get("VERSION_CODENAME", ""))


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Give the fields of os-release."""
    fields = {}
    for line in path.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator:
            fields[name] = value.strip().strip('"')
    return fields


def parse_apt_proxies(dump: str) -> dict[str, str]:
    """Read proxies from ``apt-config dump``: lower-case environment name -> URL."""
    proxies = {}
    for line in dump.splitlines():
        name, _, value = line.rstrip(";").partition(" ")
        for scheme in ("http", "https"):
            if name.lower() == f"acquire::{scheme}::proxy":
                proxies[f"{scheme}_proxy"] = value.strip('"')
    return {name: value for name, value in proxies.items() if value and value.upper() != "DIRECT"}


def find_proxies(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the proxy variables a build container needs: the environment's, else apt's."""
    proxies: dict[str, str] = {}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        proxies.update(
            parse_apt_proxies(subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout)
        )
    for name in _PROXY_NAMES:
        value = environment.get(name) or environment.get(name.upper())
        if value:
            proxies[name] = value
    return proxies


def find_ca_bundle(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Give the certificate authorities this machine trusts, if there is such a file."""
    for candidate in (*(environment.get(name) for name in _CA_VARIABLES), _CA_DEFAULT):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def pip_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the settings of pip and uv that say where packages come from; certificates are handled apart."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("PIP_", "UV_"))
        and name not in ("PIP_CERT", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_CACHE_DIR", "PIP_CACHE_DIR")
    }


def pip_files(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Give pip's configuration files that exist on this machine."""
    names = [*_PIP_FILES, environment.get("PIP_CONFIG_FILE", "")]
    paths = (Path(name).expanduser() for name in names if name and name != os.devnull)
    return [path for path in paths if path.is_file()]


def local_package_dirs(files: Iterable[Path], variables: Mapping[str, str]) -> list[Path]:
    """Give folders of this machine that pip's settings point to (find-links, file:// indexes), without nesting."""
    values = [value for name, value in variables.items() if name.split("_", 1)[1] in _PLACES]
    for path in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(path.read_text())
        except (OSError, configparser.Error):
            continue
        for section in parser.sections():
            values += [v for k, v in parser.items(section) if k.replace("-", "_").upper() in _PLACES]
    found: set[Path] = set()
    for word in " ".join(values).split():
        place = Path(unquote(urlsplit(word).path)) if word.startswith("file:") else Path(word)
        if place.is_absolute() and place.exists():
            # An index refers to its files relatively, often to a folder beside it.
            found.add(place.parent if word.startswith("file:") else place)
    return sorted(
        place for place in found if not any(place != other and place.is_relative_to(other) for other in found)
    )


_PLACES = frozenset(("FIND_LINKS", "INDEX_URL", "EXTRA_INDEX_URL", "DEFAULT_INDEX", "INDEX", "EXTRA_INDEX_URLS"))


def build_files(suite: str, target: Path) -> None:
    """Write what a build container needs into a folder that is mounted at ``/run/build``.

    ``environment`` is sourced by the build scripts: variables given to ``docker run`` would stay in a committed image.
    ``environment-pip`` is for scripts that fetch Python packages.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / "sources.list").write_text(find_mirrors().sources_list(suite))
    (target / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{BUILD_DIR}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\n'
        'Dir::State::lists "/run/apt-lists";\n'
        'Dir::Cache::archives "/run/apt-archives";\n'
        'APT::Install-Recommends "false";\n'
        'APT::Install-Suggests "false";\n'
        'APT::Sandbox::User "root";\n'
        'DPkg::Use-Pty "false";\n'
        'Acquire::Retries "3";\n' + (f'Acquire::https::CAInfo "{BUILD_DIR}/ca.pem";\n' if find_ca_bundle() else "")
    )
    variables = {
        "APT_CONFIG": f"{BUILD_DIR}/apt.conf",
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C.UTF-8",
        **find_proxies(),
    }
    bundle = find_ca_bundle()
    if bundle:
        (target / "ca.pem").write_bytes(bundle.read_bytes())
        variables |= dict.fromkeys(_CA_VARIABLES, f"{BUILD_DIR}/ca.pem")
    for name, values in (("environment", variables), ("environment-pip", pip_variables())):
        text = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in sorted(values.items()))
        (target / name).touch(mode=0o600)
        (target / name).write_text(text)


def package_mounts() -> list[tuple[Path, str]]:
    """Give (path here, path in the container) of pip's files and folders, for throw-away containers only."""
    files = pip_files()
    mounts = [(path, _in_container(path)) for path in files]
    mounts += [(path, str(path)) for path in local_package_dirs(files, pip_variables())]
    return mounts


def _in_container(path: Path) -> str:
    """Give where a configuration file belongs in a container, whose user is root."""
    try:
        return str(Path("/root") / path.relative_to(Path.home()))
    except ValueError:
        return str(path)
