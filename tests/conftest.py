"""Lets tests import the collection the way Ansible does."""

import webhook  # noqa: F401  puts this repository's collection on the import path
