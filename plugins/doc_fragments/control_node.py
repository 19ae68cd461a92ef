# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules that work on the control node share."""

from __future__ import annotations


class ModuleDocFragment:
    """Requirements and options of modules that run on the control node."""

    DOCUMENTATION = r"""
options:
  catalogue:
    description: The folder with C(connectors.json), C(plans.yml), C(releases.yml) and the exchanges' rules.
    type: path
    required: true
requirements:
  - The Python environment of the control node (C(pyproject.toml) of the collection names the packages).
notes:
  - Runs on the control node. In a play on other hosts use C(delegate_to=localhost), which takes Ansible's own Python.
"""
