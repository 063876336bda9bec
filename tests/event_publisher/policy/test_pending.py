"""Batches that failed and wait in the spool: they leave memory, and are read again for their next attempt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy import admission
from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Retryable
from baseplate_events.event_publisher.policy.pending import ParkedBatch, PendingBatches
from baseplate_events.event_publisher.policy.poison import CLEAN, FaultRecord
from tests.support.simulated_publisher import (
    CAP,
    MemoryJournal,
    MemorySpool,
    feed,
    make_delivery,
    make_event,
    recover,
    start_all,
)
from tests.support.timeline import Timeline

if TYPE_CHECKING:
    from baseplate_events.event_publisher.policy.batching import Batch
    from baseplate_events.event_publisher.policy.delivery import Delivery
    from baseplate_events.event_publisher.policy.pending import Attempt


def fail_once(delivery: Delivery, spool: MemorySpool, count: int) -> Attempt:
    """Have a batch of so many events fail, so that it waits in the spool."""
    for number in range(count):
        spool.append(make_event(number))
    feed(delivery, spool, 0.0)
    delivery.flush()
    (attempt,) = start_all(delivery, 0.0)
    outcome = Retryable("503", from_collector=True, status=503, may_be_poison=True)
    delivery.finish(attempt, outcome, 0.0)
    return attempt


@given(count=st.integers(1, 5), pauses=st.integers(0, 5))
def test_a_batch_that_cannot_be_read_again_waits(count: int, pauses: int) -> None:
    """It is tried again after a pause, costs others nothing, and is sent as it was."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool, max_size=10_000)
    failed = fail_once(delivery, spool, count)
    spool.is_unreadable = True
    now = 0.0
    for _ in range(pauses):
        now = max(now, delivery.wake_at() or now)
        assert start_all(delivery, now) == []
        assert delivery.accounting.spooled == count
    spool.is_unreadable = False
    now = max(now, delivery.wake_at() or now) + CAP
    (attempt,) = start_all(delivery, now)
    assert (attempt.batch, attempt.pending.order) == (failed.batch, failed.pending.order)
    delivery.finish(attempt, Accepted(200), now)
    assert (delivery.accounting.delivered, delivery.wake_at()) == (count, None)


@given(count=st.integers(1, 5), lost=st.sets(st.integers(0, 4), min_size=1))
def test_what_is_gone_of_a_batch_is_dropped_and_the_rest_is_sent(count: int, lost: set[int]) -> None:
    """At its next attempt, with nothing held against the rest; the journal knows both."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool, max_size=10_000)
    failed = fail_once(delivery, spool, count)
    places = list(spool.events)
    spool.lost = {places[number] for number in lost if number < count}
    left = [event for span, event in spool.events.items() if span not in spool.lost]
    attempts = start_all(delivery, 10 * CAP)
    assert [list(attempt.batch.events) for attempt in attempts] == [left] * bool(left)
    assert delivery.accounting.dropped[DropReason.SPOOL_LOST] == count - len(left)
    assert delivery.accounting.balanced
    assert sorted(spool.unresolved(journal)) == sorted(left)
    for attempt in attempts:
        assert (attempt.pending.record == CLEAN) == (len(left) < count)
        assert attempt.pending.order == failed.pending.order
        delivery.finish(attempt, Accepted(200), 10 * CAP)
    assert ({}, []) == (journal.entered, spool.unresolved(journal))
    assert delivery.wake_at() is None


@given(
    parked=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=8),
    spare=st.integers(0, 9),
    now=st.integers(0, 5),
)
def test_smaller_batches_go_before_one_that_memory_has_no_room_for(
    parked: list[tuple[int, int]], spare: int, now: int
) -> None:
    """Those that are due and fit go in the order of their times; the first of all has memory kept for it."""
    pending = PendingBatches(may_park=True)
    waiting = [
        (due_at, 1, (number, 0), ParkedBatch((number, 0), 1, size, 0.0, (), FaultRecord(failures=1)))
        for number, (size, due_at) in enumerate(parked)
    ]
    for due_at, _, _, batch in waiting:
        pending.set_aside_until(batch, due_at)
    while fitting := sorted(item for item in waiting if item[-1].size <= spare):
        assert pending.due_at(spare) == fitting[0][0]
        first = min(waiting)
        taken = pending.take(now, spare)
        assert pending.is_short == (first[0] <= now and first[-1].size > spare)
        if fitting[0][0] > now:
            assert taken is None
            break
        assert taken == fitting[0][-1]
        waiting.remove(fitting[0])
    else:
        assert pending.due_at(spare) is None
    assert len(waiting) == pending.held_count


def fail_the_first(batch: Batch, now: float) -> Outcome:
    """Do what a collector does that is overloaded by the first event for a second, and then accepts it."""
    is_first = json.loads(batch.events[0])["id"] == 0
    if is_first and now < 1.0:
        return Retryable("503", from_collector=True, status=503, may_be_poison=True)
    return Accepted(200)


@pytest.mark.unmeasured
@given(pad=st.sampled_from([900, 1_500]), seed=st.integers(0, 2**32))
def test_a_large_batch_gets_its_turn_under_steady_load(pad: int, seed: int) -> None:
    """What comes all the time doesn't take the memory that it needs again and again."""
    timeline = Timeline(fail_the_first, concurrency=2, spooled=True, max_size=2_000, seed=seed)
    large = make_event(0, pad=1_900)
    others = [(0.005 * number, make_event(number, pad=pad)) for number in range(1, 2_000)]
    timeline.run(10.0, [(0.0, large), *others])
    assert timeline.spool is not None
    assert not timeline.spool.is_read, "there was no steady load"
    assert timeline.delivered.get(large, 10.0) < 5.0


def test_a_batch_that_has_lost_all_but_one_ends_its_trial() -> None:
    """The next batch that keeps failing is put on trial, and split."""
    spool, journal = MemorySpool(turn=1_000), MemoryJournal()
    for number in range(2):
        spool.append(make_event(number))
    run = spool.read(2, 1_000)
    journal.enter(EnteredBatch((1, 0), 2, run.spans, FaultRecord(failures=1, is_part=True)))
    delivery = make_delivery(journal=journal, spool=spool, max_size=2_000)
    recover(delivery, spool, journal, 0.0)
    failure = Retryable("500", from_collector=True, status=500, may_be_poison=True)
    (attempt,) = start_all(delivery, 0.0)
    delivery.finish(attempt, failure, 0.0)
    spool.lost = {next(iter(spool.events))}
    now = CAP
    (attempt,) = start_all(delivery, now)
    delivery.finish(attempt, Accepted(200), now)
    for number, kind in enumerate(["good", "crash"]):
        spool.append(make_event(number, kind))
    feed(delivery, spool, now)
    delivery.flush()
    for _ in range(20):
        now = max(now, delivery.wake_at() or now)
        (attempt,) = start_all(delivery, now)
        if len(attempt.batch.events) == 1:
            return
        delivery.finish(attempt, failure, now)
    pytest.fail("it was never split")


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_batch_that_is_larger_than_memory_is_sent_alone(size: int) -> None:
    """An earlier run may have made it with a larger `batch.max_size`."""
    spool, journal = MemorySpool(turn=1_000), MemoryJournal()
    for number in range(10):
        spool.append(make_event(number, pad=size))
    run = spool.read(10, 1_000_000)
    journal.enter(EnteredBatch((1, 0), 10, run.spans, FaultRecord(failures=1)))
    delivery = make_delivery(journal=journal, spool=spool, max_size=2_000)
    recover(delivery, spool, journal, 0.0)
    (attempt,) = start_all(delivery, 0.0)
    assert list(attempt.batch.events) == run.events


@pytest.mark.parametrize("spooled", [False, True])
def test_events_that_failed_leave_memory_if_they_are_in_the_spool(spooled: bool) -> None:
    """Only their places stay, and of these no more than `MAX_PARKED`: then no more are read."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool if spooled else None, max_size=10_000)
    before = delivery.memory_left
    failed = fail_once(delivery, spool, 3)
    places = len(failed.batch.spans)
    assert (delivery.memory_left == before) == spooled
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(admission, "MAX_PARKED", places)
        assert (delivery.memory_left > 0) != spooled
        patched.setattr(admission, "MAX_PARKED", places + 1)
        assert delivery.memory_left > 0
