"""Properties of pauses and of the concurrency limit."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from tests.support.simulated_publisher import BASE, CAP


class Longest:
    """Chance that always draws the longest pause."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return the upper bound, and check the lower one."""
        assert a == 0.0
        return b


@given(
    base=st.floats(0.001, 100),
    factor=st.floats(1, 1_000),
    steps=st.lists(st.one_of(st.none(), st.floats(0, 300)), max_size=50),
    seed=st.integers(),
)
def test_pauses_stay_between_their_bounds(
    base: float, factor: float, steps: list[float | None], seed: int
) -> None:
    """Failures never shorten the longest pause, successes never lengthen it, and no pause exceeds the cap."""
    cap = base * factor
    backoff = Backoff(base, cap, random.Random(seed))
    ceiling = 0.0
    for asked in steps:
        before, ceiling = (
            ceiling,
            backoff.lowered(ceiling) if asked is None else backoff.raised(ceiling, asked),
        )
        assert (ceiling <= before) if asked is None else (before <= ceiling)
        assert ceiling == 0.0 or base / 2.0 <= ceiling <= cap
        assert 0.0 <= backoff.draw(ceiling) <= ceiling


def test_pauses_by_example() -> None:
    """At most 1, 2, 4, 8, 16 seconds, then 30; two successes undo a failure, and the last pauses end."""
    backoff = Backoff(1.0, 30.0, random.Random(0))
    raised = [0.0]
    for _ in range(7):
        raised.append(backoff.raised(raised[-1], 0.0))
    assert [0, 1, 2, 4, 8, 16, 30, 30] == raised
    assert math.isclose(backoff.lowered(backoff.lowered(16.0)), 8.0)
    assert backoff.lowered(0.7) == 0.0


@given(st.floats(0, 300), st.integers())
def test_what_the_collector_asks_for_has_jitter_on_top(retry_after: float, seed: int) -> None:
    """Publishers with the same Retry-After don't come back at the same moment, nor earlier."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, random.Random(seed)), 1)
    limit.fail(0.0, retry_after, 0.0)
    assert retry_after <= limit.paused_until <= retry_after + max(BASE, min(CAP, retry_after))


def test_a_limit_that_is_resumed_has_no_pauses() -> None:
    """After `resume` an attempt may start at once, and its success is followed by no pause."""
    limit = ConcurrencyLimit(Backoff(3_600.0, 3_600.0, random.Random(0)), 2)
    limit.fail(0.0, 0.0, 0.0)
    limit.resume()
    assert (True, 1, True) == (limit.paused_until <= 1.0, limit.allowed, limit.unpaused)
    limit.succeed(1.0, 2.0)
    assert (True, 2) == (limit.paused_until <= 2.0, limit.allowed)


@given(concurrency=st.integers(1, 64), seed=st.integers())
def test_senders_come_back_one_by_one(concurrency: int, seed: int) -> None:
    """After a failure there is one sender; a round of successes adds one at most, in the end all are back."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, random.Random(seed)), concurrency)
    assert concurrency == limit.allowed
    now = 0.0
    limit.fail(now, 0.0, now)
    for _ in range(100):
        before = limit.allowed
        for _ in range(before):
            now = max(now, limit.paused_until) + 1.0
            limit.succeed(now, now)
        assert before <= limit.allowed <= before + 1
    assert concurrency == limit.allowed


def test_the_success_of_an_older_attempt_ends_no_pause() -> None:
    """An attempt that began before the last failure says nothing about the collector since then."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, random.Random(1)), 3)
    limit.fail(5.0, 60.0, 10.0)
    opens_at = limit.paused_until
    limit.succeed(6.0, 11.0)
    assert (opens_at, 1, False) == (limit.paused_until, limit.failures, limit.healthy)


@given(
    failures=st.integers(1, 10_000),
    base=st.floats(0.001, 100),
    factor=st.floats(1, 1_000),
    seed=st.integers(),
)
def test_the_pause_of_a_batch_doubles_up_to_the_cap(
    failures: int, base: float, factor: float, seed: int
) -> None:
    """A batch that failed n times waits for at most `base * 2**(n - 1)`, and never for more than the cap."""
    cap = base * factor
    pause = Backoff(base, cap, random.Random(seed)).pause_after(failures)
    assert 0.0 <= pause <= min(cap, base * 2.0 ** min(failures - 1, 100))


@given(failures=st.integers(0, 20), seed=st.integers())
def test_a_brief_pause_is_one_before_a_first_retry(failures: int, seed: int) -> None:
    """However often attempts failed, a probe waits for no longer than `base` after the pause before it."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, random.Random(seed)), 1)
    now = 0.0
    for _ in range(failures):
        limit.fail(now, 0.0, now)
        now = limit.paused_until
    limit.pause_briefly(now)
    assert now <= limit.paused_until <= now + BASE
    assert failures == limit.failures


def test_an_answer_that_accepts_nothing_proves_nothing() -> None:
    """A rejection ends pauses as a success does, but only an acceptance shows that batches are taken."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, random.Random(0)), 1)
    limit.succeed(0.0, 1.0, accepted=False)
    assert not limit.healthy
    limit.succeed(1.0, 2.0)
    limit.succeed(2.0, 3.0, accepted=False)
    assert limit.healthy


def test_the_longest_pauses_by_example() -> None:
    """A batch waits for `base`, then twice as long each time: up to `cap`, or 64 times."""
    backoff = Backoff(0.25, 30.0, Longest())
    assert [backoff.pause_after(failures) for failures in (1, 2, 3, 7, 8, 9)] == [0.25, 0.5, 1, 16, 30, 30]
    endless = Backoff(0.25, math.inf, Longest())
    assert [endless.pause_after(failures) for failures in (64, 65, 66, 9_999)] == [2.0**61, *[2.0**62] * 3]


def test_pauses_end_below_half_of_the_first_one() -> None:
    """A success divides the longest pause by the square root of two; half of `base` or less is none."""
    backoff = Backoff(1.0, 30.0, Longest())
    assert math.isclose(backoff.lowered(1.0), math.sqrt(0.5))
    assert math.isclose(backoff.lowered(0.75), 0.75 * math.sqrt(0.5))
    exactly_half = Backoff(2.0 * backoff.lowered(1.0), 30.0, Longest())
    assert exactly_half.lowered(1.0) == 0.0


def test_a_fresh_limit_lets_all_attempts_start() -> None:
    """Nothing failed yet, nothing is paused, and nothing was accepted."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, Longest()), 3)
    assert (limit.failures, limit.paused_until, limit.healthy) == (0, -math.inf, False)
    assert (limit.allowed, limit.unpaused) == (3, True)


def test_an_outage_by_example() -> None:
    """Pauses grow with each failure, shrink with each success, and then the attempts come back one by one."""
    limit = ConcurrencyLimit(Backoff(2.0, 30.0, Longest()), 3)
    limit.succeed(90.0, 91.0)
    assert limit.healthy
    limit.fail(100.0, 0.0, 101.0)
    assert (limit.paused_until, limit.failures, limit.allowed, limit.healthy) == (103.0, 1, 1, False)
    limit.fail(101.0, 0.0, 104.0)  # it began at the moment of that failure: it wasn't in flight with it
    assert (limit.paused_until, limit.failures) == (108.0, 2)
    limit.fail(103.0, 7.0, 105.0)  # it was in flight with the second, so only what it asks for counts
    assert (limit.paused_until, limit.failures) == (112.0, 2)
    limit.fail(112.0, 0.5, 113.0)
    assert (limit.paused_until, limit.failures) == (121.5, 3)
    now, longest = 122.0, 8.0
    while longest > 1.0:
        assert (limit.allowed, limit.unpaused) == (1, False)
        limit.succeed(now, now + 1.0)
        longest *= math.sqrt(0.5)
        assert math.isclose(limit.paused_until, now + 1.0 + (longest if longest > 1.0 else 0.0))
        now += 20.0
    assert limit.failures == 0
    allowed: list[int] = []
    for _ in range(6):
        allowed.append(limit.allowed)
        limit.succeed(now, now)
    assert allowed == [1, 2, 2, 2, 3, 3]
    assert limit.paused_until == now


def test_a_success_that_began_when_another_attempt_failed_counts() -> None:
    """It says something about the collector since then."""
    limit = ConcurrencyLimit(Backoff(BASE, CAP, Longest()), 1)
    limit.fail(1.0, 0.0, 2.0)
    limit.succeed(2.0, 3.0)
    assert (limit.failures, limit.healthy) == (0, True)


def test_a_brief_pause_is_the_first_one_whatever_its_length() -> None:
    """It is `base`, also of less than a second."""
    limit = ConcurrencyLimit(Backoff(0.25, CAP, Longest()), 1)
    limit.pause_briefly(10.0)
    assert limit.paused_until == 10.25
