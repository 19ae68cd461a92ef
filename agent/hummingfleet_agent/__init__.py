"""The part of Hummingfleet that runs inside a bot's container, around the unmodified Hummingbot engine.

Standard library only, except where a module says that it needs the engine (``exchange``, ``runtime``).
"""

from pathlib import Path

AGENT_VERSION = (Path(__file__).resolve().parent.parent / "VERSION").read_text(encoding="ascii").strip()
