"""What can go wrong while an image is built."""

from __future__ import annotations


class BuildError(Exception):
    """An image could not be built; the text says which step, why, and what to do."""
