"""DBOS in the place of our worker: ``dbos_worker.py URL FLEET_FILE BEHAVIOUR_JSON``.

A workflow per event, of one tenant one at a time; its step runs the stand-in for the playbook unless the event's
revision has been applied meanwhile, so that waiting events coalesce as ours do. As its documentation advises:
a fixed executor and application version, portable serialisation, WAL, migrations beforehand.
"""

from __future__ import annotations

PARALLEL = 4  # as many runs at a time as our worker has by default
POLLING_SECONDS = 0.1


def main() -> None:
    """Works until it is told to stop."""
    # Here, so that the stand-in's processes, which import this file again, do not pay for it.
    import json
    import signal
    import sys
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from pathlib import Path

    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
    from dbos import DBOS, DBOSPortableJSONSerializer

    from tests.kill.playbook import Behaviour, StandIn
    from webhook import operations
    from webhook.installation import Installation

    class Health(BaseHTTPRequestHandler):
        """Answers every question with yes."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    url, fleet_path, behaviour_path = sys.argv[1:]
    behaviour = Behaviour(**json.loads(Path(behaviour_path).read_text()))
    play = StandIn(behaviour)
    registry = Registry(behaviour.registry)
    DBOS(
        config={
            "name": "hummingfleet-bench",
            "system_database_url": url,
            "executor_id": behaviour.worker,
            "application_version": "1",
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "run_migrations": False,
        }
    )

    @DBOS.step(retries_allowed=True, interval_seconds=0.2, backoff_rate=1.5, max_attempts=30)
    def bring_to(tenant: str, revision: int) -> str:
        if registry.get(tenant).applied_revision >= revision:
            return "was there"
        report = operations.converge(play, [tenant])
        if report.problem is not None:
            raise RuntimeError(str(report.problem))
        return "done"

    @DBOS.workflow(name="converge")
    def converge(tenant: str, revision: int) -> str:
        return bring_to(tenant, revision)

    DBOS.launch()
    DBOS.register_queue(
        "tenants", worker_concurrency=PARALLEL, partition_concurrency=1, polling_interval_sec=POLLING_SECONDS
    )
    server = ThreadingHTTPServer(Installation(Path(fleet_path)).fleet.webhook.worker_listen, Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    DBOS.destroy()


if __name__ == "__main__":
    main()
