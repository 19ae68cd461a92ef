"""The real worker, which also writes when it hears of a run's tasks: ``latency_worker.py FLEET_FILE TASKS_FILE``."""

if __name__ == "__main__":
    import json
    import sys
    import time
    from pathlib import Path
    from typing import Any

    from webhook import worker
    from webhook.installation import Installation
    from webhook.notify import Notifier
    from webhook.runs import RunResult, run_playbook
    from webhook.service import work

    tasks = Path(sys.argv[2])
    # What it looks at soon after a run would meet the next round's measurement.
    worker.SOON_SECONDS = (1_000_000.0,)

    def run(playbook: str, **arguments: Any) -> RunResult:
        """Runs the playbook, and writes a line for each task as soon as it begins."""

        def note(task: str) -> None:
            with tasks.open("a") as file:
                file.write(json.dumps({"at": time.time(), "playbook": playbook, "task": task}) + "\n")

        return run_playbook(playbook, **{**arguments, "on_task": note})

    work(
        Installation(Path(sys.argv[1])),
        Notifier(None),
        make_worker=lambda installation, server: worker.Worker(installation, server=server, run=run),
    )
