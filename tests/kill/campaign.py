"""Kills web and worker processes at random while a portal posts events, then checks that nothing was lost or mixed up.

    .venv/bin/python tests/kill/campaign.py                       # both databases, 1,000 events for 100 tenants each
    .venv/bin/python tests/kill/campaign.py --seed 7 --database sqlite --json var/kill.json

Web and worker are the real ones; only the playbook is a stand-in (playbook.py). What a seed decides: the events, who is
killed when, which call-backs are refused, who fails. How the processes interleave is up to the machine, so a seed
repeats a campaign, not every race in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue  # noqa: E402
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry  # noqa: E402

from tests.kill.checks import Callback, Evidence, JournalEntry, Stored, Verdict, judge  # noqa: E402
from tests.kill.model import comparable, final_documents  # noqa: E402
from tests.kill.plan import PlannedEvent, make_plan  # noqa: E402
from tests.kill.playbook import Behaviour, read_lines, write_line  # noqa: E402
from tests.kill.portal import CallbackServer, Connection  # noqa: E402
from tests.kill.stage import Service, Stage, stage, wait_until  # noqa: E402
from webhook.journal import EventStateError, Journal  # noqa: E402

FAIL_CODES = {"credentials_refused": 1, "engine_refused": 2}


@dataclass(frozen=True)
class Scale:
    """How large a campaign is. ``workers`` includes one that never comes back if ``lose_a_worker``.

    ``failing`` tenants fail until they are healed and their events retried; ``broken`` ones of them for ever.
    """

    events: int = 1000
    tenants: int = 100
    worker_kills: int = 20
    web_kills: int = 5
    connections: int = 6
    workers: int = 1
    lose_a_worker: bool = False
    failing: int = 6
    broken: int = 2
    fail_probability: float = 0.03
    refuse_callbacks: float = 0.02
    lease_seconds: float = 20.0


SHORT = Scale(events=90, tenants=15, worker_kills=3, web_kills=1, connections=4, failing=2, broken=1, lease_seconds=6.0)


@dataclass
class Report:
    """What came of a campaign."""

    seed: int
    database: str
    scale: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    repeat: str = ""

    @property
    def held(self) -> bool:
        """Whether everything held."""
        return not self.problems


class Poster:
    """The portal's side: some connections that post every tenant's events in order, not faster than allowed."""

    def __init__(self, target: Stage, plan: dict[str, list[PlannedEvent]], seed: int, connections: int) -> None:
        self.answers: dict[str, int] = {}
        self.refusals: list[str] = []
        self.seconds: list[float] = []
        self.attempts = 0
        self.allowed = 0
        self.errors: list[BaseException] = []
        self._condition = threading.Condition()
        self._started = 0
        self._threads = []
        names = list(plan)
        for index in range(connections):
            chance = random.Random(f"poster {seed} {index}")
            queues = [deque(plan[name]) for name in names[index::connections]]
            arguments = (target, queues, chance)
            self._threads.append(threading.Thread(target=self._post_guarded, args=arguments, daemon=True))

    def start(self) -> None:
        """Begins to post what is allowed."""
        for thread in self._threads:
            thread.start()

    def allow(self, events: int) -> None:
        """Lets it post that many events altogether."""
        with self._condition:
            self.allowed = events
            self._condition.notify_all()

    @property
    def done(self) -> int:
        """How many events have an answer."""
        return len(self.answers)

    def join(self) -> None:
        """Waits until everything is posted; raises what a connection raised."""
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def check(self) -> bool:
        """Raises what a connection raised; else True."""
        if self.errors:
            raise self.errors[0]
        return True

    def _post_guarded(self, *arguments: Any) -> None:
        try:
            self._post(*arguments)
        except BaseException as error:
            self.errors.append(error)

    def _post(self, target: Stage, queues: list[deque[PlannedEvent]], chance: random.Random) -> None:
        connection = Connection(target.port, target.secret)
        while queues:
            queue = chance.choice(queues)
            event = queue.popleft()
            if not queue:
                queues.remove(queue)
            with self._condition:
                self._condition.wait_for(lambda: self._started < self.allowed)
                self._started += 1
            answer = connection.deliver(
                event.id, event.body, patience_seconds=120, pause=lambda: chance.uniform(0.01, 0.2)
            )
            if answer.status not in (200, 202):
                self.refusals.append(f"{event.id}: {answer.status} {json.dumps(answer.body)[:500]}")
            self.attempts += answer.attempts
            self.seconds.append(answer.seconds)
            self.answers[event.id] = answer.status
        connection.close()


class Killer:
    """Kills processes one after another, each while there is work, and starts them again."""

    def __init__(self, target: Stage, poster: Poster, scale: Scale, seed: int) -> None:
        self.players_killed = 0
        self._target = target
        self._poster = poster
        self._scale = scale
        self._chance = random.Random(f"killer {seed}")
        self._lost: Service | None = None
        self._victims = ["worker"] * scale.worker_kills + ["web"] * scale.web_kills
        self._chance.shuffle(self._victims)
        self._step = scale.events / (len(self._victims) + 1)

    def work(self) -> None:
        """All kills, spread evenly over the events."""
        halfway = next(
            (i for i, v in enumerate(self._victims) if v == "worker" and i >= len(self._victims) // 2),
            len(self._victims) - 1,
        )
        for index, victim in enumerate(self._victims):
            before = int(self._step * (index + 1))
            self._poster.allow(int(self._step * (index + 2)))
            wait_until(
                lambda before=before: self._poster.check() and self._poster.done >= before,
                f"{before} events are posted",
            )
            if victim == "web":
                time.sleep(self._chance.uniform(0, 0.2))
                self._target.web.kill()
                time.sleep(self._chance.uniform(0, 0.3))
                self._target.web.start()
                self._target.web.wait_ready()
            else:
                workers = [worker for worker in self._target.workers if worker is not self._lost]
                worker = self._chance.choice(workers)
                if self._scale.lose_a_worker and index == halfway:
                    worker = self._lost = self._target.workers[-1]
                self._kill_worker(worker)
        self._poster.allow(self._scale.events)

    def _kill_worker(self, worker: Service) -> None:
        seen = len(read_lines(self._lines))
        # Best in the middle of its work; if there is none at the moment, then out of idleness.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self._at_work(worker.name, seen), f"{worker.name} is at work", 3)
        time.sleep(self._chance.uniform(0, 0.1))
        worker.kill()
        if worker is self._lost or self._chance.random() < 0.25:
            self._kill_players(worker.name)
        if worker is not self._lost:
            time.sleep(self._chance.uniform(0, 0.3))
            worker.start()
            worker.wait_ready()

    @property
    def _lines(self) -> Path:
        return self._target.folder / "runs.jsonl"

    def _at_work(self, name: str, seen: int) -> bool:
        return any(line.get("worker") == name and line["what"] == "begin" for line in read_lines(self._lines)[seen:])

    def _kill_players(self, name: str) -> None:
        """Also its playbooks die, as when a machine loses power."""
        at_work = {}
        for line in read_lines(self._lines):
            if line.get("worker") == name:
                at_work[line["tenant"]] = line["pid"] if line["what"] == "begin" else None
        for pid in {pid for pid in at_work.values() if pid is not None}:
            with contextlib.suppress(OSError):
                # Stopped first: it writes nothing more after the line that says it is dead.
                os.kill(pid, signal.SIGSTOP)
                wait_until(lambda pid=pid: _state(pid) in ("T", "Z", ""), "it is stopped", 10)
                if _state(pid) == "T":
                    write_line(self._lines, what="killed", tenant="", victim=pid)
                    self.players_killed += 1
                os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def run_campaign(scale: Scale, seed: int, database: str, folder: Path, registry_url: str | None = None) -> Report:
    """One campaign in the empty ``folder``; the report says what did not hold."""
    report = Report(seed, database, asdict(scale))
    started = time.monotonic()
    chance = random.Random(f"campaign {seed}")
    plan = make_plan(seed, scale.events, scale.tenants)
    planted = dict(zip(chance.sample(list(plan), scale.failing), [*FAIL_CODES] * scale.failing, strict=False))
    broken = frozenset(chance.sample(sorted(planted), scale.broken))
    (folder / "healed").mkdir()
    sink = CallbackServer(seed, scale.refuse_callbacks)
    with contextlib.closing(sink), stage(folder, registry_url, portal_url=sink.url) as target:
        sink.secret = target.callback_secret
        for index in range(scale.workers):
            target.add_worker(
                Behaviour(
                    folder=str(folder),
                    registry=target.fleet.registry,
                    worker=f"worker{index}",
                    seed=seed,
                    failing=planted,
                    fail_probability=scale.fail_probability,
                    lease_seconds=scale.lease_seconds,
                    claim_seconds=scale.lease_seconds,
                    foreign=scale.lose_a_worker and index == scale.workers - 1,
                )
            )
        for service in (target.web, *target.workers):
            service.start()
        for service in (target.web, *target.workers):
            service.wait_ready()
        catalogue = load_catalogue(target.fleet.catalogue)
        registry = Registry(target.fleet.registry)
        journal = Journal(registry, target.fleet, catalogue)
        poster = Poster(target, plan, seed, scale.connections)
        killer = Killer(target, poster, scale, seed)
        poster.start()
        killer.work()
        poster.join()
        report.figures["posting_seconds"] = round(time.monotonic() - started, 1)
        try:
            settle(journal)
            failed = {event.id: str(event.code) for event in read_events(journal) if event.state == "failed"}
            for tenant in set(planted) - broken:
                (folder / "healed" / tenant).touch()
            owners = {event.id: tenant for tenant, events in plan.items() for event in events}
            for event in failed:
                if owners[event] not in broken:
                    # One that failed in the same run as another is tried again with that one.
                    with contextlib.suppress(EventStateError):
                        journal.retry(event, actor="campaign")
            settle(journal)
            wait_until(lambda: journal.stats().callbacks_pending == 0, "every call-back is delivered")
        except AssertionError as error:
            report.problems.append(str(error))
            failed = {}
        entries = sorted((entry_of(record) for record in read_events(journal)), key=lambda entry: entry.number)
        bodies = {event.id: event.content for events in plan.values() for event in events}
        stored = registry.records(plan)
        evidence = Evidence(
            answers=poster.answers,
            journal=entries,
            expected=final_documents((bodies[entry.id] for entry in entries if entry.id in bodies), catalogue),
            stored={
                tenant: Stored(record.revision, record.applied_revision, comparable(record.document))
                for tenant, record in stored.items()
            },
            runs=[{**line, "pid": line.get("victim", line["pid"])} for line in read_lines(folder / "runs.jsonl")],
            callbacks=[callback_of(delivery) for delivery in list(sink.deliveries)],
            failed=failed,
            planted=planted,
            broken=broken,
        )
    finish(report, judge(evidence), target, poster, killer)
    report.figures["seconds"] = round(time.monotonic() - started, 1)
    return report


def settle(journal: Journal) -> None:
    """Waits until no event is waiting any more."""
    wait_until(lambda: not journal.list(state="accepted", limit=1).items, "no event is waiting", 240)


def read_events(journal: Journal) -> Iterator[Any]:
    """Every event of the journal."""
    after = None
    while True:
        page = journal.list(after=after, limit=100)
        yield from page.items
        if page.next is None:
            return
        after = page.next


def entry_of(record: Any) -> JournalEntry:
    """The journal's event for the checks."""
    return JournalEntry(record.id, record.number, record.tenant, record.state, record.code)


def callback_of(delivery: Any) -> Callback:
    """The call-back for the checks."""
    data = delivery.body.get("data", {})
    return Callback(
        type=str(delivery.body.get("type")),
        event=str(data.get("event_id", "")),
        tenant=str(data.get("tenant", "")),
        acknowledged=delivery.acknowledged,
        signed=delivery.signed,
    )


def finish(report: Report, verdict: Verdict, target: Stage, poster: Poster, killer: Killer) -> None:
    """Adds what was judged and measured."""
    report.problems += [*verdict.problems, *(f"refused: {refusal}" for refusal in poster.refusals)]
    report.counts = {
        **verdict.counts,
        "attempts": poster.attempts,
        "worker_kills": sum(worker.kills for worker in target.workers),
        "web_kills": target.web.kills,
        "playbook_kills": killer.players_killed,
    }
    times = sorted(poster.seconds)
    report.figures["post_p50_ms"] = round(statistics.median(times) * 1000, 1)
    report.figures["post_p95_ms"] = round(times[int(len(times) * 0.95) - 1] * 1000, 1)
    scale = report.scale
    report.repeat = (
        f".venv/bin/python tests/kill/campaign.py --seed {report.seed} --database {report.database} "
        f"--events {scale['events']} --tenants {scale['tenants']} --worker-kills {scale['worker_kills']} "
        f"--web-kills {scale['web_kills']}"
    )
    for name, wanted in (("worker_kills", scale["worker_kills"]), ("web_kills", scale["web_kills"])):
        if report.counts[name] < wanted:
            report.problems.append(f"only {report.counts[name]} of {wanted} {name} took place")


def campaigns(scale: Scale, seed: int, databases: Sequence[str], keep: bool = False) -> Iterator[Report]:
    """A campaign per database: ``sqlite`` with one worker, ``postgresql`` with two of which one is lost."""
    from dataclasses import replace

    from tests import postgresql

    for database in databases:
        folder = Path(tempfile.mkdtemp(prefix=f"hf-kill-{database}-", dir="/var/tmp"))
        print(f"{database}: {folder}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            if database == "sqlite":
                report = run_campaign(scale, seed, database, folder)
            else:
                url = stack.enter_context(postgresql.server())()
                report = run_campaign(replace(scale, workers=2, lose_a_worker=True), seed, database, folder, url)
        # Logs, run journal and registry of one that failed are what explains it.
        if report.held and not keep:
            shutil.rmtree(folder)
        yield report


def main() -> int:
    """Runs the campaigns and prints a report of each as JSON; exit code 1 if something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--tenants", type=int, default=100)
    parser.add_argument("--worker-kills", type=int, default=20)
    parser.add_argument("--web-kills", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="the campaign of the test suite")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and registry")
    parser.add_argument("--json", type=Path, help="write the reports to this file, too")
    options = parser.parse_args()
    scale = SHORT if options.short else Scale(
        events=options.events, tenants=options.tenants,
        worker_kills=options.worker_kills, web_kills=options.web_kills,
    )  # fmt: skip
    databases = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    reports = []
    for report in campaigns(scale, options.seed, databases, options.keep):
        print(json.dumps({**asdict(report), "problems": report.problems[:20]}, indent=1), flush=True)
        print(f"{report.database}: {'held' if report.held else f'{len(report.problems)} problems'}", file=sys.stderr)
        if not report.held:
            print(f"repeat it with: {report.repeat}", file=sys.stderr)
        reports.append(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    return 0 if all(report.held for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
