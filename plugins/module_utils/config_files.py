# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's set of small files below one folder: compared, written atomically, predicted in check mode."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def apply_files(
    module: AnsibleModule,
    dest: Path,
    files: Mapping[str, str],
    *,
    absent: Collection[str] = (),
    default_mode: str,
    show_content: bool,
) -> tuple[bool, dict[str, Any]]:
    """Whether anything changed (or, in check mode, would), and the diff.

    `files` maps paths below `dest` to their text, `absent` names files to remove. Mode and owner come from the module's
    common file arguments, the mode from `default_mode` when the task gives none. With `show_content` false the diff
    says only which files are missing, different or there, so that it can hold no secret.
    """
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for relative in sorted({*files, *absent}):
        path = dest / relative
        old, new = _read(path), files.get(relative)
        if old != new:
            before[relative] = _shown(old, new, show_content)
            after[relative] = _shown(new, new, show_content)
            if not module.check_mode:
                _put(module, path, new)
        if new is not None:
            changes: dict[str, Any] = {}
            if _set_attributes(module, path, default_mode, changes) and old == new:
                before[relative], after[relative] = changes.get("before", {}), changes.get("after", {})
    return bool(before), {"before": before, "after": after}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _shown(text: str | None, new: str | None, show_content: bool) -> str:
    if text is None:
        return "" if show_content else "absent"
    if show_content:
        return text
    return "present" if text == new or new is None else "present, with another content"


def _put(module: AnsibleModule, path: Path, text: str | None) -> None:
    if text is None:
        path.unlink(missing_ok=True)
        return
    mask = os.umask(0o077)  # a new file is never readable for others, not even until its mode is set
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        module.atomic_move(temporary, str(path))
    finally:
        os.umask(mask)


def _set_attributes(module: AnsibleModule, path: Path, default_mode: str, diff: dict[str, Any]) -> bool:
    if module.check_mode and not path.exists():
        return True
    arguments = module.load_file_common_arguments({**module.params, "path": str(path)}, path=str(path))
    if arguments["mode"] is None:
        arguments["mode"] = default_mode
    return bool(module.set_fs_attributes_if_different(arguments, False, diff=diff))
