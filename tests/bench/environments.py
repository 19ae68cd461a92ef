"""Python environments of benchmarks, apart from the project's own: what is only measured is no dependency."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment_with(name: str, packages: tuple[str, ...]) -> Path:
    """An environment under var/bench with these packages, made if it is not there."""
    folder = ROOT / "var" / "bench" / name
    stamp = folder / ".packages"
    if not stamp.exists() or stamp.read_text() != "\n".join(packages):
        print(f"making an environment for {packages[0]}", file=sys.stderr, flush=True)
        uv = str(ROOT / ".venv" / "bin" / "uv")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *packages], check=True)
        stamp.write_text("\n".join(packages))
    return folder
