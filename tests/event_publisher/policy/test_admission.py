"""What may be taken from the queue: bounds of memory, a disk that fails, and room for one fresh batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import EventError
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable
from tests.support.simulated_publisher import MemoryStore, make_delivery, make_event

if TYPE_CHECKING:
    from baseplate_events.event_publisher.policy.store import StoredBatch

FAILURES: list[Outcome] = [
    Retryable("500", from_collector=True, status=500, may_be_poison=True),
    Retryable("429", from_collector=True, status=429),
    Refused("400", 400),
]


class UnsyncedStore(MemoryStore):
    """A spool whose segments can't be closed while `fails` is set, as if a sync failed."""

    fails = False

    def close_segment(self) -> StoredBatch | None:
        if self.fails:
            raise EventError("the sync failed")
        return super().close_segment()


def test_a_full_batch_that_cannot_be_closed_asks_for_no_event() -> None:
    """Nothing has a place until the batch is closed, which is tried again, and then everything goes on."""
    store = UnsyncedStore()
    delivery = make_delivery(store=store, max_events=1)
    store.fails = True
    assert delivery.offer([make_event(0)], 0.0) == []
    assert (delivery.room, delivery.disk_error) == (0, "the sync failed")
    wake_at = delivery.wake_at()
    assert wake_at is not None
    assert 0.0 < wake_at < 10.0, "it neither polls nor sleeps for ever"
    store.fails = False
    attempt = delivery.next_attempt(wake_at)
    assert attempt is not None
    assert (delivery.disk_error, delivery.room > 0) == (None, True)


@given(
    outcomes=st.lists(st.sampled_from(FAILURES), min_size=1, max_size=60),
    concurrency=st.integers(1, 3),
    max_events=st.integers(1, 5),
)
def test_memory_stays_within_its_bound(outcomes: list[Outcome], concurrency: int, max_events: int) -> None:
    """Whatever fails, no more than `concurrency + 2` batches are in memory, by their size."""
    max_size = 200
    delivery = make_delivery(
        concurrency=concurrency, max_size=max_size, max_events=max_events, queue_capacity=1_000
    )
    now, number = 0.0, 0
    for outcome in [Accepted(200), *outcomes]:
        while delivery.room:
            delivery.offer([make_event(number)], now)
            number += 1
        held = delivery.accounting.in_hand * len(make_event(number))
        assert held <= (concurrency + 2) * max_size + 400, "an event more than fits, at most"
        wake_at = delivery.wake_at()
        assert wake_at is not None
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        if attempt is not None:
            delivery.finish(attempt, outcome, now)


@given(held=st.integers(1, 12), capacity=st.integers(1, 12))
def test_what_is_held_leaves_room_for_one_event_more(held: int, capacity: int) -> None:
    """A collector that accepted nothing gets one event beside those that failed, up to the capacity."""
    delivery = make_delivery(max_events=1, queue_capacity=capacity, concurrency=20)
    now = 0.0
    for number in range(held):
        if delivery.room:
            assert number <= capacity
            delivery.offer([make_event(number, "crash")], now)
        for _ in range(3):
            now = max(now, delivery.wake_at() or now)
            attempt = delivery.next_attempt(now)
            if attempt is not None:
                delivery.finish(attempt, FAILURES[0], now)
    assert bool(delivery.room) == (held <= capacity)
