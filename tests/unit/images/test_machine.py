"""The builder finds mirrors, proxies and package indexes in this machine's own configuration."""

from pathlib import Path

import pytest

from images.builder import machine
from images.builder.errors import BuildError


def line(origin="Debian", label="Debian", release="bookworm", component="main", uri="http://mirror.example.com/debian"):
    return "\t".join((origin, label, release, component, uri, "Packages"))


SECURITY = line(label="Debian-Security", release="bookworm-security", uri="http://mirror.example.com/debian-security")


def test_main_and_security_mirrors_are_told_apart():
    targets = "\n".join((SECURITY, line(release="bookworm-updates", uri="http://updates.example.com/"), line()))
    mirrors = machine.parse_mirrors(targets, "bookworm")
    assert mirrors == machine.Mirrors("http://mirror.example.com/debian", "http://mirror.example.com/debian-security")


def test_mirrors_are_found_before_the_first_apt_update():
    targets = "\n".join(
        (line(origin="", label=""), line(origin="", label="", release="bookworm-security", uri="http://s"))
    )
    assert machine.parse_mirrors(targets, "bookworm") == machine.Mirrors("http://mirror.example.com/debian", "http://s")


@pytest.mark.parametrize(
    "foreign",
    [
        line(origin="Elsewhere", uri="http://elsewhere.example.com"),
        line(component="contrib", uri="http://elsewhere.example.com"),
        line(uri="http://elsewhere.example.com").replace("Packages", "Translations"),
    ],
)
def test_other_sources_are_passed_over(foreign):
    assert machine.parse_mirrors(f"{foreign}\n{line()}", "bookworm").main == "http://mirror.example.com/debian"


def test_a_machine_without_debian_sources_is_refused_with_advice():
    with pytest.raises(BuildError, match="HUMMINGFLEET_APT_MIRROR"):
        machine.parse_mirrors(line(origin="Elsewhere"), "bookworm")


def test_sources_list_names_updates_and_security_of_the_suite():
    text = machine.Mirrors("http://m", "http://s").sources_list("trixie")
    assert text.splitlines() == [
        "deb http://m trixie main",
        "deb http://m trixie-updates main",
        "deb http://s trixie-security main",
    ]
    assert "security" not in machine.Mirrors("http://m", None).sources_list("trixie")


def test_apt_proxies_are_read_and_direct_is_none():
    dump = (
        'Acquire::http::Proxy "http://proxy.example.com:3128";\nAcquire::https::Proxy "DIRECT";\nAcquire::Retries "3";'
    )
    assert machine.parse_apt_proxies(dump) == {"http_proxy": "http://proxy.example.com:3128"}


def test_proxies_of_the_environment_win(monkeypatch):
    assert machine.find_proxies({"HTTPS_PROXY": "http://p:1", "no_proxy": "x"})["https_proxy"] == "http://p:1"


def test_pip_variables_leave_certificates_and_caches_out():
    found = machine.pip_variables({"PIP_INDEX_URL": "i", "PIP_CERT": "c", "UV_CACHE_DIR": "d", "HOME": "/root"})
    assert found == {"PIP_INDEX_URL": "i"}


def test_local_indexes_and_link_folders_are_found(tmp_path):
    wheels, index = tmp_path / "wheels", tmp_path / "index" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    conf = tmp_path / "pip.conf"
    conf.write_text(f"[global]\nfind-links = {wheels} https://links.example.com\nextra-index-url = file://{index}\n")
    found = machine.local_package_dirs([conf, tmp_path / "missing.conf"], {"PIP_FIND_LINKS": f"{wheels}/"})
    assert found == [tmp_path / "index", wheels]


def test_folders_inside_others_are_mounted_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    found = machine.local_package_dirs([], {"PIP_FIND_LINKS": f"{tmp_path}/a {tmp_path}/a/b {tmp_path}/absent"})
    assert found == [tmp_path / "a"]


def test_what_is_lent_to_a_build_quotes_values_and_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("HUMMINGFLEET_APT_MIRROR", "http://mirror.example.com/debian")
    monkeypatch.setenv("https_proxy", "http://user:p'w@proxy.example.com")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example.com/simple")
    machine.build_files("trixie", tmp_path)
    environment = (tmp_path / "environment").read_text()
    assert """export https_proxy='http://user:p'"'"'w@proxy.example.com'""" in environment
    assert "PIP_INDEX_URL" not in environment
    assert "PIP_INDEX_URL=https://index.example.com/simple" in (tmp_path / "environment-pip").read_text()
    assert (tmp_path / "environment").stat().st_mode & 0o077 == 0
    assert "deb http://mirror.example.com/debian trixie main" in (tmp_path / "sources.list").read_text()


def test_pip_files_of_the_user_go_to_roots_home(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/operator"))
    assert machine._in_container(Path("/home/operator/.config/pip/pip.conf")) == "/root/.config/pip/pip.conf"
    assert machine._in_container(Path("/etc/pip.conf")) == "/etc/pip.conf"
