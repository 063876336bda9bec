from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Retryable,
    TooLarge,
)
from baseplate_events.event_publisher.telemetry.snapshot import (
    BOUNDS,
    PEAK_TIME,
    STUCK_AFTER,
    AttemptResult,
    Attempts,
    Peak,
    Snapshot,
    SpoolLevel,
    describe_failure,
)
from tests.support.strategies import durations, outcomes, snapshots


@given(st.lists(st.tuples(outcomes, durations, st.floats(0, 10))))
def test_every_attempt_is_counted_once(attempts: list[tuple[Outcome, float, float]]) -> None:
    """Results and classes each add up to the attempts, and the total to the seconds that they took."""
    counter = Attempts()
    for outcome, seconds, now in attempts:
        counter.record(outcome, seconds, now)
    counts = counter.counts()
    assert set(AttemptResult) == set(counts.results)
    assert len(attempts) == sum(counts.results.values()) == counts.seconds.count
    assert counts.seconds.total == pytest.approx(sum(seconds for _, seconds, _ in attempts))
    for bound_index, bound in enumerate(BOUNDS):
        below = sum(seconds <= bound for _, seconds, _ in attempts)
        assert below == sum(counts.seconds.counts[: bound_index + 1])


@given(st.lists(outcomes))
def test_results_are_the_kinds_of_outcomes(ended: list[Outcome]) -> None:
    """An attempt counts by the kind of its outcome, and as unanswered where there was no response."""
    counter = Attempts()
    for outcome in ended:
        counter.record(outcome, 0.1, 0.0)
    kinds = {
        AttemptResult.ACCEPTED: Accepted,
        AttemptResult.TOO_LARGE: TooLarge,
        AttemptResult.REFUSED: Refused,
        AttemptResult.RETRYABLE: Retryable,
        AttemptResult.MISCONFIGURED: Misconfigured,
    }
    answered = [outcome for outcome in ended if getattr(outcome, "from_collector", True)]
    expected = {result: sum(type(one) is kind for one in answered) for result, kind in kinds.items()}
    assert {**expected, AttemptResult.UNANSWERED: len(ended) - len(answered)} == counter.counts().results


@given(st.lists(outcomes, min_size=1))
def test_trouble_is_that_of_the_last_attempt(ended: list[Outcome]) -> None:
    """The error is that of the last attempt, since the first of the consecutive failures."""
    counter = Attempts()
    for now, outcome in enumerate(ended):
        counter.record(outcome, 0.1, float(now))
    counts = counter.counts()
    failed = [not isinstance(outcome, Accepted) for outcome in ended]
    row = failed[::-1].index(False) if False in failed else len(failed)
    assert (float(len(ended) - row) if row else None) == counts.failing_since
    assert describe_failure(ended[-1]) == counts.last_error == counter.last_error
    assert bool(row) == (counts.last_error is not None)
    if isinstance(ended[-1], Retryable | Misconfigured):
        assert ended[-1].reason in (counts.last_error or "")
        assert getattr(ended[-1], "remedy", "") in (counts.last_error or "")
    accepted = [float(now) for now, outcome in enumerate(ended) if isinstance(outcome, Accepted)]
    assert (accepted[-1] if accepted else None) == counts.last_success_at


@given(st.lists(outcomes, min_size=1))
def test_a_refusal_is_no_trouble_once_nothing_is_left(ended: list[Outcome]) -> None:
    """A refusal in the last attempt ends with its event; every other failure stays."""
    counter = Attempts()
    for now, outcome in enumerate(ended):
        counter.record(outcome, 0.1, float(now))
    before = counter.counts()
    counter.settle()
    if isinstance(ended[-1], TooLarge | Refused):
        assert (counter.counts().last_error, counter.counts().failing_since) == (None, None)
        assert counter.last_error is None
    else:
        assert counter.counts() == before


@given(st.lists(st.tuples(outcomes, durations), min_size=1))
def test_counts_that_were_given_never_change(attempts: list[tuple[Outcome, float]]) -> None:
    """Counts that were returned don't change later."""
    counter = Attempts()
    before = counter.counts()
    for outcome, seconds in attempts:
        counter.record(outcome, seconds, 0.0)
    assert Attempts().counts() == before
    assert counter.counts() != before


@given(snapshots(), st.floats(0, 2 * STUCK_AFTER))
def test_a_publisher_is_ready_unless_something_is_wrong(snapshot: Snapshot, later: float) -> None:
    """It is unready when it is stuck or stopping, the last attempt failed, or disk or spool can't be used."""
    now = snapshot.made_at + later
    unready = snapshot.unready(now)
    spool, success = snapshot.spool, snapshot.attempts.last_success_at
    reasons = [snapshot.attempts.last_error, snapshot.disk_error, spool.error if spool else None]
    if spool is not None and (success is None or success < now - STUCK_AFTER):
        reasons.append(spool.paused)
    problems = [text for text in reasons if text is not None]
    if now - snapshot.made_at > STUCK_AFTER:
        assert unready is not None
        assert unready.startswith("stuck")
        assert not snapshot.alive(now)
        return
    assert snapshot.alive(now)
    if snapshot.stopping:
        assert unready == "stopping"
    else:
        assert all(problem in (unready or "") for problem in problems)
        assert (unready is None) == (not problems)


@given(snapshots())
def test_a_status_line_says_what_is_held(snapshot: Snapshot) -> None:
    """The line has the reason if nothing is delivered, and always the number of waiting events."""
    line = snapshot.in_words(snapshot.made_at)
    unready = snapshot.unready(snapshot.made_at)
    assert line.startswith("delivering (" if unready is None else f"not delivering: {unready} (")
    assert f"{snapshot.accounting.in_hand:,} in memory" in line
    held = line.rpartition("(")[2]
    assert ("in the spool" in held) == (snapshot.spool is not None)
    assert ("in the queue" in held) == (snapshot.queue_depth is not None)


def test_a_new_publisher_is_ready() -> None:
    """Before the first attempt nothing is known to be wrong."""
    snapshot = Snapshot("v2", "1.0", 0.0, 1.0, Accounting(), 0, 10)
    assert snapshot.unready(1.0) is None
    assert dataclasses.replace(snapshot, disk_error="full").unready(1.0) == "full"


def test_a_spool_that_is_full_and_being_emptied_is_no_reason_to_be_unready() -> None:
    """A full spool makes it unready once no batch was accepted for a while."""
    attempts = Attempts()
    spool = SpoolLevel(10, 10, paused="the spool is full")
    snapshot = Snapshot("v2", "1.0", 0.0, 100.0, Accounting(), 0, 10, spool=spool)
    assert snapshot.unready(100.0) == "the spool is full"
    attempts.record(Accepted(200), 0.1, 100.0)
    snapshot = dataclasses.replace(snapshot, attempts=attempts.counts())
    assert snapshot.unready(100.0) is None
    later = dataclasses.replace(snapshot, made_at=101.0 + STUCK_AFTER)
    assert later.unready(101.0 + STUCK_AFTER) == "the spool is full"


@given(st.lists(st.tuples(st.integers(0, int(PEAK_TIME)), st.integers(0, 9)), min_size=1))
def test_a_peak_is_the_highest_of_one_to_two_minutes(looks: list[tuple[float, int]]) -> None:
    """A peak is seen by readers that poll once a minute, and is forgotten after two."""
    peak, now = Peak(), 0.0
    noted: list[tuple[float, int]] = []
    for pause, number in looks:
        now += pause
        noted.append((now, number))
        shown = peak.record(number, now)
        assert max(number for at, number in noted if at > now - PEAK_TIME) <= shown
        assert shown in {number for at, number in noted if at > now - 2 * PEAK_TIME}
