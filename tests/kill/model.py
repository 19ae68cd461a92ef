"""What the fleet has to look like in the end, computed without the registry: events applied in order, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.document import parse_document

from webhook.events import parse_event

# What the registry chooses when it first stores a tenant; nothing that an event says has an influence on it.
ALLOCATED = ("subnet", "uid", "salt", "secret_versions")


def final_documents(bodies: Iterable[Mapping[str, Any]], catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """By tenant the document after all of ``bodies``, in their order, without what the registry allocates."""
    documents: dict[str, dict[str, Any]] = {}
    for body in bodies:
        event = parse_event(body, catalogue)
        before = documents.get(event.tenant)
        documents[event.tenant] = parse_document(event.apply(copy.deepcopy(before)), catalogue).plain()
    return {tenant: comparable(document) for tenant, document in documents.items()}


def comparable(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without what was allocated to its tenant."""
    plain = {name: value for name, value in document.items() if name not in ALLOCATED}
    plain["placement"] = {name: value for name, value in document["placement"].items() if name != "node"}
    return plain
