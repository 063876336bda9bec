"""Batches that failed and wait in the spool: they leave memory, and are read again for their next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy import admission
from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.outcome import Accepted, Retryable
from tests.support.simulated_publisher import (
    CAP,
    MemoryJournal,
    MemorySpool,
    feed,
    make_delivery,
    make_event,
    start_all,
)

if TYPE_CHECKING:
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


@given(count=st.integers(1, 5))
def test_a_batch_that_is_gone_is_dropped_and_counted(count: int) -> None:
    """It has a fate, in the journal too, and later ones are sent."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool, max_size=10_000)
    fail_once(delivery, spool, count)
    spool.is_lost = True
    assert start_all(delivery, 10 * CAP) == []
    assert delivery.accounting.dropped[DropReason.SPOOL_LOST] == count
    assert delivery.accounting.balanced
    assert ({}, []) == (journal.entered, spool.unresolved(journal))
    assert delivery.wake_at() is None


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
