"""The real worker with a stand-in for the playbook: ``worker_process.py FLEET_FILE BEHAVIOUR_JSON``."""

if __name__ == "__main__":
    import json
    import sys
    from pathlib import Path

    from tests.kill.playbook import Behaviour, StandIn, be_elsewhere
    from webhook import callbacks, retries, work, worker
    from webhook.installation import Installation
    from webhook.notify import Notifier
    from webhook.service import work as work_until_stopped

    behaviour = Behaviour(**json.loads(Path(sys.argv[2]).read_text()))
    if behaviour.foreign:
        be_elsewhere()
    # The decisions are the product's, the pauses are not: a campaign has no five minutes for a node to come back.
    retries.FIRST_SECONDS = 0.2
    retries.LONGEST_SECONDS = 1.0
    callbacks.FIRST_PAUSE_SECONDS = 0.2
    callbacks.LONGEST_PAUSE_SECONDS = 1.0
    work.CLAIM_SECONDS = worker.CLAIM_SECONDS = worker.DUTY_SECONDS = behaviour.claim_seconds
    play = StandIn(behaviour)
    work_until_stopped(
        Installation(Path(sys.argv[1])),
        Notifier(None),
        make_worker=lambda installation, _server: worker.Worker(installation, run=play),
        make_server=lambda _installation: None,
    )
