"""Properties of pauses and of the concurrency limit."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from tests.support.simulated_publisher import BASE, CAP


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
        raised.append(backoff.raised(raised[-1]))
    assert [0, 1, 2, 4, 8, 16, 30, 30] == raised
    assert math.isclose(backoff.lowered(backoff.lowered(16.0)), 8.0)
    assert backoff.lowered(0.7) == 0.0


@given(st.floats(0, 300), st.integers())
def test_what_the_collector_asks_for_has_jitter_on_top(retry_after: float, seed: int) -> None:
    """Those who were told the same moment don't come back in the same moment, nor before it."""
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
    """An attempt that began before the last failure tells nothing about the collector since then."""
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
