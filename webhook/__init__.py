# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's services: command line now, web service and worker beside it.

Importing this package makes ``ansible_collections.hummingfleet.core`` importable outside Ansible: this repository's
collection joins the namespace package that the PyPI package ``ansible`` fills.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_COLLECTIONS = str(ROOT / "collections")

if _COLLECTIONS not in sys.path:
    sys.path.insert(0, _COLLECTIONS)
