"""Builds the fleet's container images from Debian and Python packages alone, without an image registry."""
