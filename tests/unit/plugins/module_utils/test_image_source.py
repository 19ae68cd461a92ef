# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where images come from is decided once; which are needed follows from the releases in use."""

from dataclasses import replace

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils import image_source
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue, Release, Service
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet


def release(name, number):
    services = {
        service: Service(image=f"{service}:{number}", local=f"hummingfleet/{service}:{number}-1")
        for service in ("engine", "postgres", "redis", "edge", "broker")
    }
    return Release(name=name, agent="1.0.0", services=services)


@pytest.fixture
def catalogue():
    releases = {"2026.08": release("2026.08", 8), "2026.09": release("2026.09", 9)}
    return Catalogue(releases=releases, plans={}, connectors={}, exchanges={})


@pytest.fixture
def fleet(tmp_path):
    return replace(load_fleet(), root=tmp_path)


def test_nothing_is_known_before_somebody_looked(fleet):
    assert image_source.load_found_mode(fleet) is None


@pytest.mark.parametrize("mode", ["registry", "build"])
def test_what_was_found_is_kept(fleet, mode):
    image_source.store_found_mode(fleet, mode)
    assert image_source.load_found_mode(fleet) == mode


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mode": "guess"}'])
def test_a_broken_memory_is_refused_with_advice(fleet, text):
    path = image_source.found_path(fleet)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(image_source.ImageSourceError, match="remove it"):
        image_source.load_found_mode(fleet)


def test_the_releases_of_tenants_are_in_use_else_the_newest(catalogue):
    assert image_source.releases_in_use(catalogue, ["tenants", "release_2026_08"]) == ["2026.08"]
    assert image_source.releases_in_use(catalogue, ["release_2026_08", "release_2026_09"]) == ["2026.08", "2026.09"]
    assert image_source.releases_in_use(catalogue, ["tenants"]) == ["2026.09"]


def test_references_are_those_of_a_stack(catalogue):
    assert image_source.references(catalogue, ["2026.09"], "registry") == ["engine:9", "postgres:9", "redis:9"]
    both = image_source.references(catalogue, ["2026.08", "2026.09"], "registry", broker=True)
    assert [name for name in both if "broker" in name] == ["broker:9"], "a node has one broker, the newest"
    built = image_source.references(catalogue, ["2026.08"], "build")
    assert built == ["hummingfleet/engine:8-1", "hummingfleet/postgres:8-1", "hummingfleet/redis:8-1"]
    assert all(image_source.is_built(reference) for reference in built)
    assert not image_source.is_built("hummingbot/hummingbot:latest")


def test_the_probe_asks_for_the_newest_releases_smallest_image(catalogue):
    assert image_source.probe_reference(catalogue) == "redis:9"
