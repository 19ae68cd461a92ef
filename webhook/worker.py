# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker: brings tenants to their latest revision, looks what their bots do, and tells the portal.

It keeps nothing that the registry does not have: one that dies is replaced by the next one, or by another that is
running already. Its threads: the loop below, which decides; one per run; one that observes; one that delivers.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import (
    RegistryError,
    TenantRecord,
    process_holder,
)

from . import logs, operations
from .runs import end_orphans, run_playbook
from .wake import WakeListener, Waker
from .work import ALIVE, CLAIM_SECONDS, Claim, Ending, Waiting, WorkQueue

if TYPE_CHECKING:
    from .installation import Installation

_log = logging.getLogger("webhook.worker")

# A wake-up may be lost, and a worker of another machine gets none: this is how late it is then.
POLL_SECONDS = 1.0
ALIVE_SECONDS = 30.0
ORPHANS_SECONDS = 30.0
PRUNE_SECONDS = 3600.0
DUTY_SECONDS = 60.0
# After a run its tenants are looked at again soon, since bots place their first orders then.
SOON_SECONDS = (3.0, 10.0, 30.0)
# A tenant whose bots have lost more than half of what they may lose in a day is looked at again so soon.
NEAR_SECONDS = 3.0
# What looking costs is kept below these parts of the time, whatever the size of the fleet.
_FLEET_SHARE = 1 / 40
_SOON_SHARE = 1 / 8
_RECORD_SECONDS = 120.0
# Tenants of a node that did not answer are asked in one run, this many batches of them.
_SILENT_BATCHES = 10


def plan(
    waiting: Sequence[Waiting], free: int, batch: int, *, troubled: int = 0, parallel: int = 0
) -> list[list[Waiting]]:
    """Which of the ``waiting`` (the longest first) run now, given ``free`` runs: each list is one run.

    Tenants without a failure share a run when there are more of them than runs, those of one node first. One that has
    failed before runs alone, so that others need not wait for it, and so does one that leaves; only those of a node
    that did not answer share a run. Of the ``parallel`` runs (default: the free ones) one is kept for tenants without
    a failure: ``troubled`` is how many of the others are working now.
    """
    if free < 1:
        return []
    fresh = [one for one in waiting if _is_fresh(one)]
    alone = _apart((one for one in waiting if not _is_fresh(one)), batch * _SILENT_BATCHES)
    parallel = parallel or free
    kept = 1 if parallel > 1 else int(bool(fresh) and (not alone or fresh[0].since <= alone[0][0].since))
    room = max(0, min(free, parallel - kept - troubled))
    groups = alone[:room]
    slots = free - len(groups)
    taken = sorted(fresh[: slots * batch], key=lambda one: (str(one.node), one.since, one.tenant))
    if taken and slots:
        size = -(-len(taken) // slots)
        groups += [taken[start : start + size] for start in range(0, len(taken), size)]
    return groups


def _apart(waiting: Iterable[Waiting], largest: int) -> list[list[Waiting]]:
    """A run for each of them; those of a node that did not answer are asked together, ``largest`` at most."""
    groups: list[list[Waiting]] = []
    silent: dict[str | None, list[Waiting]] = {}  # the run that takes more of that node
    for one in waiting:
        together = one.problem == "unreachable" and not one.terminated
        group = silent.get(one.node) if together else None
        if group is None or len(group) >= largest:
            group = []
            groups.append(group)
            if together:
                silent[one.node] = group
        group.append(one)
    return groups


def _is_fresh(one: Waiting) -> bool:
    return one.attempt == 0 and not one.terminated and one.node is not None


class Worker:
    """Works for the installation ``here``; ``server`` starts Ansible quickly, ``run`` replaces it altogether."""

    def __init__(self, here: Installation, *, server: Any = None, run: Callable[..., Any] | None = None) -> None:
        self._here = here
        self._settings = here.fleet.webhook
        self._server = server
        self._run = run or run_playbook
        self._holder = process_holder()
        self._queue = WorkQueue(
            here.registry,
            self._holder,
            telling=self._settings.portal_url is not None,
            fleet=here.fleet,
            catalogue=here.catalogue,
        )
        self._waker = Waker(here.fleet.run_dir)
        self._active: dict[Future[None], tuple[tuple[Claim, ...], threading.Event]] = {}
        self._troubled: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._aborted = threading.Event()
        self._news = threading.Event()  # there may be a call-back to deliver
        self._soon: dict[str, list[float]] = {}  # tenant → when to look at it (time.monotonic)
        self._beat = time.monotonic()
        self._ready = False
        self._counts = {"finished": 0, "failed": 0, "tenants": 0, "observations": 0, "callbacks": 0}
        self._run_seconds = 0.0

    # --- for the service ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What it does now: for health checks and metrics."""
        with self._lock:
            return {
                "ready": self._ready and not self._stopping.is_set(),
                "beat_at": self._beat,
                "runs_active": len(self._active),
                "tenants_active": sum(len(claims) for claims, _cancel in self._active.values()),
                "runs_finished": self._counts["finished"],
                "runs_failed": self._counts["failed"],
                "run_seconds_sum": round(self._run_seconds, 3),
                "tenants_converged": self._counts["tenants"],
                "observations": self._counts["observations"],
                "callbacks_delivered": self._counts["callbacks"],
                "holder": self._holder,
            }

    def abort(self) -> None:
        """Cancels the runs at once; they are handed back."""
        self._aborted.set()
        self._waker.wake()

    def run_forever(self, stop: threading.Event) -> None:
        """Works until ``stop`` is set; then lets its runs finish for ``grace_seconds``, and hands back the rest."""
        threads = [
            threading.Thread(target=self._keep_doing, args=(self._observe,), name="observe", daemon=True),
            threading.Thread(target=self._keep_doing, args=(self._deliver,), name="deliver", daemon=True),
        ]
        pool = ThreadPoolExecutor(self._settings.parallel, thread_name_prefix="run")
        with WakeListener(self._here.fleet.run_dir) as listener:
            for thread in threads:
                thread.start()
            alive = _Every(ALIVE_SECONDS / 3)
            renew = _Every(CLAIM_SECONDS / 4)
            orphans = _Every(ORPHANS_SECONDS)
            prune = _Every(PRUNE_SECONDS)
            while not stop.is_set():
                self._beat = time.monotonic()
                try:
                    if alive.due():
                        self._queue.take_duty(ALIVE + self._holder, ALIVE_SECONDS)
                    if orphans.due():
                        self._end_orphans()
                    if renew.due():
                        self._renew()
                    if prune.due() and self._queue.take_duty("prune", DUTY_SECONDS):
                        self._queue.prune(self._settings.keep_events_days * 86_400.0)
                    self._begin(pool)
                    self._ready = True
                except RegistryError as error:
                    self._ready = False
                    _log.error("the registry does not answer: %s", error)
                except Exception:
                    # Whatever it is, the other tenants' work must go on.
                    self._ready = False
                    _log.exception("unexpected error in the worker's loop")
                listener.wait(POLL_SECONDS)
            self._stopping.set()
            self._news.set()
            self._finish(listener)
        pool.shutdown(wait=True)
        for thread in threads:
            thread.join(timeout=30)
        try:
            self._queue.leave()
        except RegistryError as error:
            _log.warning("claims could not be handed back, they run out by themselves: %s", error)

    # --- runs ---------------------------------------------------------------------------------------------------

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        with self._lock:
            parallel, troubled = self._settings.parallel, len(self._troubled)
            free = parallel - len(self._active)
        if free < 1:
            return
        waiting = self._queue.waiting()
        for group in plan(waiting, free, self._settings.batch, troubled=troubled, parallel=parallel):
            claims = self._queue.claim([one.tenant for one in group])
            # What was claimed may have changed since it was looked at: a tenant that leaves needs a run of its own.
            for terminated in (False, True):
                chosen = tuple(claim for claim in claims if claim.terminated == terminated)
                if chosen:
                    self._submit(pool, chosen, troubled=not _is_fresh(group[0]))

    def _submit(self, pool: ThreadPoolExecutor, claims: tuple[Claim, ...], *, troubled: bool) -> None:
        cancel = threading.Event()
        with self._lock:
            future = pool.submit(self._work_safely, claims, cancel)
            self._active[future] = (claims, cancel)
            if troubled:
                self._troubled.add(future)
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        with self._lock:
            self._active.pop(future, None)
            self._troubled.discard(future)
        self._news.set()
        self._waker.wake()

    def _work_safely(self, claims: tuple[Claim, ...], cancel: threading.Event) -> None:
        try:
            self._work(claims, cancel)
        except Exception as error:
            # Before or after the run itself: nothing is known of it, so the claims are given back.
            _log.exception("unexpected error around a run")
            for claim in claims:
                self._record(claim, _failed("cancelled", f"unexpected {type(error).__name__} in the worker"))

    def _work(self, claims: tuple[Claim, ...], cancel: threading.Event) -> None:
        """One run, and what came of it for each of its tenants."""
        names = [claim.tenant for claim in claims]
        logs.bind(tenant=names[0] if len(names) == 1 else None)
        started = time.monotonic()
        known = self._here.registry.records(names)
        # Somebody else has removed it, or an earlier run did so and died before it could say.
        gone = [claim for claim in claims if claim.tenant not in known]
        for claim in gone:
            self._record(claim, Ending())
        # Somebody has begun or ended a tenant under this id meanwhile: that is another run.
        other = [c for c in claims if c.tenant in known and c.terminated != _is_terminated(known[c.tenant])]
        for claim in other:
            self._record(claim, _failed("cancelled", "the tenant was removed or made anew since it was claimed"))
        claims = tuple(claim for claim in claims if claim.tenant in known and claim not in other)
        if not claims:
            return
        playbook = "remove_tenant" if claims[0].terminated else "converge_tenant"
        _log.info("run begins", extra=logs.fields(playbook=playbook, tenants=names))
        endings = self._endings(claims, playbook, cancel)
        for claim in claims:
            self._record(claim, endings[claim.tenant])
        seconds = time.monotonic() - started
        problems = {name: ending.problem for name, ending in endings.items() if ending.problem is not None}
        with self._lock:
            self._counts["finished"] += 1
            self._counts["failed"] += bool(problems)
            self._counts["tenants"] += len(claims) - len(problems)
            self._run_seconds += seconds
            for claim in claims:
                if endings[claim.tenant].problem is None and not claim.terminated:
                    self._soon[claim.tenant] = [time.monotonic() + pause for pause in SOON_SECONDS]
        for name, ending in endings.items():
            if ending.problem is not None:
                _log.warning("%s", ending.message, extra=logs.fields(problem=ending.problem, tenant=name))
        _log.info("run ended", extra=logs.fields(playbook=playbook, tenants=names, seconds=round(seconds, 2)))

    def _endings(self, claims: Sequence[Claim], playbook: str, cancel: threading.Event) -> dict[str, Ending]:
        names = [claim.tenant for claim in claims]
        try:
            report = operations.converge(self._runner(cancel), names, playbook=playbook)
            return judge(claims, report, self._here.registry.records(names))
        except HummingfleetError as error:
            problem = str(operations.problem_of(error))
            return {name: _failed(problem, str(error)) for name in names}
        except Exception as error:
            _log.exception("unexpected error in a run")
            message = f"unexpected {type(error).__name__} in the worker; its log has the details"
            return {name: _failed("internal", message) for name in names}

    def _runner(self, cancel: threading.Event) -> Callable[..., Any]:
        return functools.partial(
            self._run,
            fleet_path=self._here.fleet.path,
            timeout_seconds=float(self._settings.run_timeout_seconds),
            cancel=cancel,
            server=self._server,
            run_dir=self._here.fleet.run_dir,
        )

    def _record(self, claim: Claim, ending: Ending) -> None:
        """Writes the ending; a registry that does not answer is asked again, and in the end the claim runs out."""
        deadline = time.monotonic() + _RECORD_SECONDS
        while True:
            try:
                if not self._queue.finish(claim, ending):
                    _log.warning("the claim on tenant %s was lost; another worker has it now", claim.tenant)
                return
            except RegistryError as error:
                _log.error("the outcome of tenant %s cannot be recorded yet: %s", claim.tenant, error)
                if time.monotonic() > deadline or self._aborted.wait(1.0):
                    return

    def _renew(self) -> None:
        with self._lock:
            claims = [claim for claims, _cancel in self._active.values() for claim in claims]
        if claims:
            self._queue.renew(claims)

    def _finish(self, listener: WakeListener) -> None:
        """Waits for the runs; after the grace, or when told to, they are cancelled."""
        deadline = time.monotonic() + self._settings.grace_seconds
        cancelled = False
        renew = _Every(CLAIM_SECONDS / 4)
        while True:
            self._beat = time.monotonic()
            with self._lock:
                cancels = [cancel for _claims, cancel in self._active.values()]
            if not cancels:
                return
            if not cancelled and (self._aborted.is_set() or time.monotonic() >= deadline):
                cancelled = True
                _log.warning("%d run(s) are cancelled and handed back", len(cancels))
                for cancel in cancels:
                    cancel.set()
            if renew.due():
                try:
                    self._renew()
                except RegistryError as error:
                    _log.error("the registry does not answer: %s", error)
            listener.wait(0.2)

    def _end_orphans(self) -> None:
        for name in end_orphans(self._here.fleet.run_dir):
            _log.warning("a dead worker's run was ended: %s", name)

    # --- what bots do ---------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Looks at all tenants now and then, at those that were just converged sooner; never at the same time."""
        next_fleet = next_soon = 0.0
        while not self._stopping.wait(0.5):
            now = time.monotonic()
            fleet_due = now >= next_fleet
            names = self._due_soon(now) if now >= next_soon else set()
            if not fleet_due and not names:
                continue
            if not self._queue.take_duty("observe", DUTY_SECONDS):
                next_fleet = now + self._settings.observe_seconds
                continue
            there_are = bool(self._here.registry.list())
            took = self._look(None if fleet_due else names) if there_are else 0.0
            end = time.monotonic()
            next_soon = end + took / _SOON_SHARE
            if fleet_due:
                next_fleet = end + max(float(self._settings.observe_seconds), took / _FLEET_SHARE)

    def _due_soon(self, now: float) -> set[str]:
        with self._lock:
            due = {tenant for tenant, times in self._soon.items() if times[0] <= now}
            for tenant in due:
                self._soon[tenant] = [when for when in self._soon[tenant] if when > now]
                if not self._soon[tenant]:
                    del self._soon[tenant]
        return due

    def _look(self, names: Collection[str] | None) -> float:
        """Asks the nodes of these tenants (None: of all); the seconds that took."""
        started, began = time.monotonic(), self._queue.now()
        found = operations.survey(self._runner(self._stopping), names)
        if self._stopping.is_set():
            return 0.0
        for problem in found.node_problems:
            _log.warning("%s", problem)
        by_tenant: dict[str, dict[str, Mapping[str, Any]]] = {tenant: {} for tenant in found.reasons}
        for one in found.bots:
            by_tenant.setdefault(one.tenant, {})[one.bot] = {**one.facts, "state": one.state}
        near = [tenant for tenant, bots in by_tenant.items() if self._queue.see(tenant, bots, looked_at=began)]
        with self._lock:
            self._counts["observations"] += 1
            for tenant in near:
                then = time.monotonic() + NEAR_SECONDS
                self._soon[tenant] = [then, *(when for when in self._soon.get(tenant, ()) if when > then)]
        self._news.set()
        return time.monotonic() - started

    # --- call-backs -----------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        from .callbacks import Deliverer, Outbox
        from .secrets_file import Signer

        url = self._settings.portal_url
        if url is None:
            return
        deliverer = Deliverer(
            Outbox(self._here.registry), Signer(self._settings.secrets_path), url, self._here.registry.clock
        )
        while not self._stopping.is_set():
            if self._queue.take_duty("deliver", DUTY_SECONDS):
                delivery = deliverer.deliver_due(self._stopping.is_set)
                with self._lock:
                    self._counts["callbacks"] += delivery.delivered
                for problem in delivery.problems:
                    _log.warning("%s", problem)
            self._news.wait(POLL_SECONDS)
            self._news.clear()

    def _keep_doing(self, what: Callable[[], None]) -> None:
        """Does it until the worker stops, whatever goes wrong on the way."""
        while not self._stopping.is_set():
            try:
                what()
                return
            except HummingfleetError as error:
                _log.error("%s: %s", threading.current_thread().name, error)
            except Exception:
                _log.exception("unexpected error in thread %s", threading.current_thread().name)
            self._stopping.wait(5.0)


class _Every:
    """Says ``due`` once per ``seconds``, the first time at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def judge(
    claims: Sequence[Claim], report: operations.ConvergeReport, records: Mapping[str, TenantRecord]
) -> dict[str, Ending]:
    """What a run came to for each claimed tenant: by its own report, and by what the registry says afterwards."""
    reports = {one.tenant: one for one in report.tenants}
    endings = {}
    for claim in claims:
        one, record = reports.get(claim.tenant), records.get(claim.tenant)
        bots = None
        if one is not None and record is not None and record.outcome is not None and record.outcome["at"] >= claim.at:
            # A run that failed may have seen none of them, which does not mean that there are none.
            bots = record.outcome.get("bots") or (None if one.problem is not None else {})
        if one is not None and one.problem is not None:
            ending = _failed(str(one.problem), one.message, bots)
        elif one is None and report.message_problem is not None:
            ending = _failed(str(report.message_problem), report.message)
        elif record is not None and claim.terminated and _is_terminated(record):
            ending = _failed("internal", f"tenant {claim.tenant} is still in the registry after its removal")
        elif record is not None and not claim.terminated and record.applied_revision < claim.revision:
            ending = _failed("internal", f"the run ended, but revision {claim.revision} is not recorded as applied")
        else:
            ending = Ending(bots=bots)
        endings[claim.tenant] = ending
    return endings


def _is_terminated(record: TenantRecord) -> bool:
    return bool(record.document["state"] == "terminated")


def _failed(problem: str, message: str, bots: Mapping[str, Mapping[str, Any]] | None = None) -> Ending:
    return Ending(problem, message, operations.user_reason(problem, message), bots)
