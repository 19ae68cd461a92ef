# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with a signal: judged, written down, passed on to its bot once, and the bot's answer waited for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import RegistryError

from .signal_bus import Ack, Bus, BusError, NobodyListensError
from .signal_log import SignalLog, SignalRecord
from .signal_tokens import SignalToken
from .signals import Signal, SignalRefusedError, check_age, expiry

NOT_LISTENING = "not_listening"
"""The code of a signal whose bot is not connected to its node's broker."""

SILENT_SECONDS: Final = 60.0
"""How long a bot that left a signal without an answer is known for it."""

_LOG = logging.getLogger("webhook.signals")


class BusyError(HummingfleetError):
    """Too many signals wait for their bots already."""


class NoAnswerError(HummingfleetError):
    """The bot has not answered in time; ``record`` says until when it may trade the signal."""

    def __init__(self, record: SignalRecord) -> None:
        super().__init__(
            f"the bot has not answered; it may have taken the signal, and cannot trade it after {record.expires_at}"
        )
        self.record = record


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a signal; ``duplicate`` means that it was passed on before, and not again."""

    record: SignalRecord
    duplicate: bool


class Places:
    """A number of places to wait in: each signal takes one, and those of one tenant's bots at most half of them.

    A bot that left a signal without an answer is known as silent for a minute. All silent bots together have a
    quarter of the places, so that they cannot keep those of bots that answer. ``clock`` gives seconds.
    """

    def __init__(self, number: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._number = number
        self._each = max(1, number // 2)
        self._silent_ones = max(1, number // 4)
        self._taken: Counter[str] = Counter()
        self._waiting_silent = 0
        self._silent_until: dict[str, float] = {}
        self._clock = clock
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def taken(self, tenant: str, bot: str) -> Iterator[None]:
        """One place for the bot inside the block; raises BusyError if there is none."""
        with self._lock:
            silent = self._silent_until.get(f"{tenant}.{bot}", 0.0) > self._clock()
            if (
                self._taken.total() >= self._number
                or self._taken[tenant] >= self._each
                or (silent and self._waiting_silent >= self._silent_ones)
            ):
                raise BusyError("too many signals wait for their bots' answers")
            self._taken[tenant] += 1
            self._waiting_silent += silent
        try:
            yield
        finally:
            with self._lock:
                self._waiting_silent -= silent
                self._taken[tenant] -= 1
                if not self._taken[tenant]:
                    del self._taken[tenant]

    def note_silence(self, tenant: str, bot: str) -> None:
        """The bot has not answered in time. Its next answer ends nothing: it might leave out every other one."""
        with self._lock:
            now = self._clock()
            self._silent_until = {name: until for name, until in self._silent_until.items() if until > now}
            self._silent_until[f"{tenant}.{bot}"] = now + SILENT_SECONDS


class SignalDesk:
    """Passes signals on to bots through ``bus`` and keeps what became of them in ``log``.

    A bot's answer is waited for ``ack_seconds``, by at most ``waiting`` callers at a time. ``clock`` gives epoch
    seconds.
    """

    def __init__(
        self,
        log: SignalLog,
        bus: Bus,
        *,
        ack_seconds: float,
        waiting: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._bus = bus
        self._ack_seconds = ack_seconds
        self._places = Places(waiting)
        self._clock = clock

    def connect(self) -> None:
        """Connects to the nodes that have bots for signals, so that no first signal has to wait for that."""
        with _in_the_log():
            for node in self._log.nodes():
                # The bus says so in its log, and goes on trying.
                with contextlib.suppress(BusError):
                    self._bus.check(node)

    def pass_on(self, sender: SignalToken, signal: Signal) -> Delivery:
        """Has the token's bot told of the signal, unless it was before.

        Raises SignalConflictError, SignalRefusedError (the bot will not trade it), StaleSignalError, NoAnswerError;
        and BusError, BusyError and RegistryError, after which it may be sent again.
        """
        now = self._clock()
        known, receiver = self._log.look(sender.tenant, signal, now)
        if known is not None:
            return Delivery(known, True)
        if receiver.obstacle is not None:
            raise receiver.obstacle
        check_age(signal, now, receiver.max_age_seconds)
        instance = f"{sender.tenant}.{signal.bot}"
        with self._places.taken(sender.tenant, signal.bot):
            self._bus.check(receiver.node)
            now = self._clock()  # the connection may have taken its time
            until = expiry(signal, now, self._ack_seconds, receiver.max_age_seconds)
            record, new = self._log.begin(sender.tenant, signal, token=sender.id, now=now, expires_at=until)
            if not new:
                return Delivery(record, True)
            try:
                ack = self._bus.send(receiver.node, instance, signal.message(until), self._ack_seconds)
            except NobodyListensError as error:
                ack = Ack(False, NOT_LISTENING, str(error))
            except BusError:
                self._log.withdraw(record)
                raise
        if ack is None:
            self._places.note_silence(sender.tenant, signal.bot)
        return self._answered(record, ack)

    def late(self, instance: str, signal_id: str, ack: Ack) -> None:
        """Notes an answer that nobody waits for any more."""
        tenant, _dot, bot = instance.partition(".")
        with _in_the_log():
            self._log.finish(tenant, bot, signal_id, ack, self._clock())

    def _answered(self, record: SignalRecord, ack: Ack | None) -> Delivery:
        # What the bot does is done, whether or not it can be written down.
        with _in_the_log():
            self._log.finish(record.tenant, record.bot, record.id, ack, self._clock())
        if ack is None:
            raise NoAnswerError(record)
        if not ack.accepted:
            raise SignalRefusedError(ack.code, ack.reason)
        return Delivery(replace(record, outcome=ack.code, accepted=True, reason=ack.reason), False)


@contextlib.contextmanager
def _in_the_log() -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        _LOG.error("the registry did not answer for signals: %s", error)
