"""Token buckets: how many, how soon again, and in how much memory."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.limits import RateLimiter


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_full_bucket_gives_a_minutes_worth_at_once(clock: Clock) -> None:
    limiter = RateLimiter(3, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 20]


def test_a_burst_is_all_that_may_come_at_once(clock: Clock) -> None:
    limiter = RateLimiter(60, burst=2, clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 1]
    clock.now += 3600
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 1]
    clock.now += 1
    assert [limiter.take("a") for _ in range(2)] == [0, 1]


def test_waiting_as_long_as_told_is_enough_and_less_is_not(clock: Clock) -> None:
    limiter = RateLimiter(3, clock=clock)
    for _ in range(3):
        limiter.take("a")
    clock.now += limiter.take("a") - 0.001
    assert limiter.take("a") > 0
    clock.now += limiter.wait("a")
    assert limiter.take("a") == 0


def test_keys_do_not_share(clock: Clock) -> None:
    limiter = RateLimiter(1, clock=clock)
    assert limiter.take("a") == limiter.take("b") == 0
    assert limiter.take("a") > 0


def test_asking_counts_nothing(clock: Clock) -> None:
    limiter = RateLimiter(1, clock=clock)
    assert [limiter.wait("a") for _ in range(5)] == [0] * 5
    assert len(limiter) == 0
    assert limiter.take("a") == 0
    assert limiter.wait("a") == 60


def test_a_refusal_counts_nothing(clock: Clock) -> None:
    limiter = RateLimiter(1, clock=clock)
    limiter.take("a")
    assert limiter.take("a") == limiter.take("a") == 60


def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing(clock: Clock) -> None:
    limiter = RateLimiter(2, clock=clock)
    limiter.take("a")
    clock.now -= 3600
    assert limiter.take("a") == 0
    assert limiter.take("a") == 30
    clock.now += 30
    assert limiter.take("a") == 0


def test_memory_is_bounded_and_the_longest_unused_key_goes_first(clock: Clock) -> None:
    limiter = RateLimiter(1, keys=3, clock=clock)
    for key in ("a", "b", "c", "d"):
        assert limiter.take(key) == 0
    assert len(limiter) == 3
    assert limiter.wait("a") == 0
    assert limiter.wait("b") > 0
    for number in range(1000):
        limiter.take(f"stranger {number}")
    assert len(limiter) == 3


def test_threads_together_get_no_more_than_one_would(clock: Clock) -> None:
    limiter = RateLimiter(100, clock=clock)
    granted: list[float] = []

    def take() -> None:
        granted.extend(wait for wait in (limiter.take("a") for _ in range(50)) if not wait)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 100


@given(st.integers(1, 1000), st.lists(st.floats(0, 100), max_size=60))
def test_never_more_than_the_rate_allows(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, clock=clock)
    granted = 0
    for pause in pauses:
        clock.now += pause
        granted += limiter.take("a") == 0
    assert granted <= per_minute + sum(pauses) * per_minute / 60 + 1


@pytest.mark.parametrize(("per_minute", "keys"), [(0, 1), (-1, 1), (1, 0)])
def test_a_limiter_that_could_allow_nothing_is_refused(per_minute: int, keys: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        RateLimiter(per_minute, keys=keys)
