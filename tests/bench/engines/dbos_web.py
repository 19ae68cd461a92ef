"""Our web process with DBOS as the dispatcher of what it accepted: ``dbos_web.py FLEET_FILE URL``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dbos import DBOSClient, DBOSPortableJSONSerializer

from webhook.app import create_app
from webhook.installation import Installation
from webhook.journal import Acceptance, Journal
from webhook.notify import Notifier
from webhook.service import serve


class QueueingJournal(Journal):
    """A journal that also enqueues a workflow per event, in a second durable store and so in a second transaction."""

    client: DBOSClient

    def accept(self, event: Any, **arguments: Any) -> Acceptance:
        """Also for an event that is known: its first delivery may have died between the two transactions."""
        acceptance = super().accept(event, **arguments)
        self.client.enqueue(
            {
                "queue_name": "tenants",
                "workflow_name": "converge",
                "workflow_id": acceptance.event.id,
                "queue_partition_key": acceptance.event.tenant,
                "app_version": "1",
            },
            acceptance.event.tenant,
            acceptance.event.revision,
        )
        return acceptance


def make_app(installation: Installation) -> Any:
    """The application with that journal."""
    journal = QueueingJournal(installation.registry, installation.fleet, installation.catalogue)
    journal.client = DBOSClient(system_database_url=sys.argv[2], serializer=DBOSPortableJSONSerializer())
    return create_app(installation, journal=journal)


if __name__ == "__main__":
    serve(Installation(Path(sys.argv[1])), Notifier(None), make_app=make_app)
