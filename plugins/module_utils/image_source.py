# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a fleet's images come from, and which it needs.

With ``images: auto`` the first answer is kept: every stack names its images, so a fleet that changed its mind whenever
a registry was slow would restart every bot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue, ImageMode
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet

BUILT_PREFIX = "hummingfleet/"
"""Images of this name are built by images/build.py and exist in no registry."""

STACK_SERVICES = ("engine", "postgres", "redis")


class ImageSourceError(HummingfleetError):
    """It cannot be said where images come from, or which are needed."""


def found_path(fleet: Fleet) -> Path:
    """Give the file that keeps what ``auto`` found."""
    return fleet.root / "var" / "images.json"


def load_found_mode(fleet: Fleet) -> ImageMode | None:
    """Give what ``auto`` once found for this fleet, or None where nobody has looked yet."""
    path = found_path(fleet)
    try:
        mode = json.loads(path.read_text())["mode"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageSourceError(f"{path} is not usable ({error}); remove it, and the next run looks again") from None
    if mode not in ("registry", "build"):
        raise ImageSourceError(f"{path} says {mode!r} instead of registry or build; remove it")
    return cast(ImageMode, mode)


def store_found_mode(fleet: Fleet, mode: ImageMode) -> None:
    """Keep what ``auto`` found."""
    path = found_path(fleet)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"mode": mode}) + "\n")
    temporary.replace(path)


def releases_in_use(catalogue: Catalogue, groups: Iterable[str]) -> list[str]:
    """Give the releases of the inventory's tenants (groups ``release_<name>``), or the newest where there are none."""
    names = set(groups)
    used = [release for release in catalogue.releases if f"release_{re.sub('[^A-Za-z0-9_]', '_', release)}" in names]
    return used or [max(catalogue.releases)]


def references(catalogue: Catalogue, releases: Iterable[str], mode: ImageMode, *, broker: bool = False) -> list[str]:
    """Give the images that tenants' stacks of these releases (and ``broker``: their nodes) need, sorted, each once."""
    names = list(releases)
    found = {catalogue.releases[name].image(service, mode) for name in names for service in STACK_SERVICES}
    return sorted(found | ({broker_reference(catalogue, names, mode)} if broker else set()))


def broker_reference(catalogue: Catalogue, releases: Iterable[str], mode: ImageMode) -> str:
    """Give the image of the nodes' MQTT broker: that of the newest of these releases, since a node has one broker."""
    return catalogue.releases[max(releases)].image("broker", mode)


def probe_reference(catalogue: Catalogue) -> str:
    """Give the smallest image of the newest release, to see whether a registry answers."""
    return catalogue.releases[max(catalogue.releases)].image("redis", "registry")


def is_built(reference: str) -> bool:
    """Tell whether an image is built by this project instead of pulled."""
    return reference.startswith(BUILT_PREFIX)
