# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One installation: its fleet file, and what that names, each opened when it is first needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
    from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet
    from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry


class InstallationError(HummingfleetError):
    """Something this installation needs is missing."""


class Installation:
    """The installation that the fleet file at ``path`` describes (default: the one the environment names)."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    @cached_property
    def fleet(self) -> Fleet:
        """The fleet file's content; raises FleetError."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import load_fleet

        return load_fleet(self._path)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue; raises CatalogueError."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue

        return load_catalogue(self.fleet.catalogue)

    @cached_property
    def registry(self) -> Registry:
        """The registry, made if there is none; raises RegistryError."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

        return Registry(self.fleet.registry)

    @cached_property
    def keyring(self) -> KeyRing:
        """The key ring; raises KeyRingError."""
        from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import load_keyring

        return load_keyring(self.fleet.keyring, root=self.fleet.root)

    @property
    def keyring_path(self) -> Path:
        """The key ring's file; raises InstallationError if the keys are kept elsewhere."""
        if "file" not in self.fleet.keyring:
            raise InstallationError(
                f"the fleet file {self.fleet.path} keeps the keys in {next(iter(self.fleet.keyring))}, not in a file; "
                "make the key ring there"
            )
        return Path(self.fleet.root, str(self.fleet.keyring["file"]))
