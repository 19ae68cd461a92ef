# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often somebody may do something: token buckets in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimiter:
    """One bucket per key: ``per_minute`` times a minute, ``burst`` of them (default: all) at once after a pause.

    At most ``keys`` buckets are kept; the one that was not used for the longest time makes room. ``clock`` gives
    seconds. Safe for use by several threads.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        burst: int | None = None,
        keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        burst = per_minute if burst is None else burst
        if min(per_minute, burst, keys) < 1:
            raise ValueError("a rate limiter needs at least one token a minute, one at once and one key")
        self._size = float(burst)
        self._per_second = per_minute / 60
        self._keys = keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Counts one for ``key`` and answers 0, or the seconds until the next one is allowed, counting nothing."""
        with self._lock:
            tokens, now = self._refilled(key)
            wait = self._wait(tokens)
            if not wait:
                self._buckets[key] = (tokens - 1, now)
                self._buckets.move_to_end(key)
                if len(self._buckets) > self._keys:
                    self._buckets.popitem(last=False)
            return wait

    def wait(self, key: str) -> float:
        """The seconds until one is allowed for ``key``: 0 if it is now. Counts nothing."""
        if key not in self._buckets:
            return 0.0
        with self._lock:
            tokens, _now = self._refilled(key)
            return self._wait(tokens)

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._buckets)

    def _refilled(self, key: str) -> tuple[float, float]:
        now = self._clock()
        found = self._buckets.get(key)
        if found is None:
            return self._size, now
        tokens, then = found
        return min(self._size, tokens + max(0.0, now - then) * self._per_second), now

    def _wait(self, tokens: float) -> float:
        return 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
