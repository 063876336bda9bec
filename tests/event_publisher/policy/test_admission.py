"""What may be taken in: bounds of memory, a disk that fails, and room for one fresh batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable
from tests.support.simulated_publisher import (
    MemoryJournal,
    MemorySpool,
    feed,
    make_delivery,
    make_event,
    start_all,
)

FAILURES: list[Outcome] = [
    Retryable("500", from_collector=True, status=500, may_be_poison=True),
    Retryable("429", from_collector=True, status=429),
    Refused("400", 400),
]


@given(
    outcomes=st.lists(st.sampled_from(FAILURES), min_size=1, max_size=60),
    concurrency=st.integers(1, 3),
    max_events=st.integers(1, 5),
    pads=st.lists(st.integers(0, 200), min_size=1, max_size=9),
    spooled=st.booleans(),
    parks=st.booleans(),
    invalid=st.booleans(),
)
def test_memory_stays_within_its_bound(
    outcomes: list[Outcome],
    concurrency: int,
    max_events: int,
    pads: list[int],
    spooled: bool,
    parks: bool,
    invalid: bool,
) -> None:
    """Whatever fails, no more than `concurrency + 2` batches and an event are in memory, by their size."""
    max_size = 300
    journal, spool = MemoryJournal(broken=True), MemorySpool()
    delivery = make_delivery(
        concurrency=concurrency,
        max_size=max_size,
        max_events=max_events,
        queue_capacity=1_000,
        journal=journal,
        spool=spool if parks else None,
        give_up_after=100.0,
    )
    now, received, settled = 0.0, 0, 0
    for outcome in [Accepted(200), *outcomes]:
        for number in range(30):
            event = make_event(number, pad=pads[number % len(pads)])
            event = event[1:] if invalid and not number % 4 else event
            if spooled:
                spool.append(event)
            elif delivery.room:
                delivery.offer([event], now)
                received += len(event)
        if spooled:
            feed(delivery, spool, now)
            received = sum(map(len, spool.events.values())) - sum(map(len, spool.unread))
            received -= sum(
                sum(map(len, spool.load(batch.spans)))
                for batch in journal.entered.values()
                if parks and batch.record.failures
            )
        assert received - settled <= (concurrency + 2) * max_size + 300, "an event more than fits, at most"
        wake_at = delivery.wake_at()
        assert wake_at is not None
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        if attempt is not None:
            delivery.finish(attempt, outcome, now)
            settled += sum(map(len, attempt.batch.events)) if outcome == Accepted(200) else 0
    assert journal.letters == []


@given(
    messages=st.lists(st.integers(0, 2).map(lambda size: b"?" * size), min_size=1, max_size=4),
    max_events=st.integers(1, 3),
    spooled=st.booleans(),
)
def test_letters_that_cannot_be_written_ask_for_no_turn_in_which_nothing_can_be_done(
    messages: list[bytes], max_events: int, spooled: bool
) -> None:
    """However small, they stop the draining if there is no spool; beside them, full batches are delivered."""
    journal, spool = MemoryJournal(broken=True), MemorySpool()
    delivery = make_delivery(journal=journal, max_events=max_events, max_size=10_000)
    events = [*messages, *map(make_event, range(6))]
    for event in events:
        spool.append(event)
    if spooled:
        feed(delivery, spool, 0.0)
    else:
        delivery.offer(spool.read(100, 10_000).events, 0.0)
        assert delivery.room == 0
    now = 0.0
    delivered: list[bytes] = []
    for turn in range(10):
        journal.broken = turn < 5
        while attempts := start_all(delivery, now):
            for attempt in attempts:
                delivered += attempt.batch.events
                delivery.finish(attempt, Accepted(200), now)
        wake_at = delivery.wake_at()
        assert (delivery.disk_error is not None) == journal.broken
        assert bool(delivery.room) == (not journal.broken)
        now += 1.0 if wake_at is None else wake_at - now
    received = delivery.accounting.received
    assert 0 < received <= len(events)
    assert received == len(events) or not spooled
    assert events[:received] == journal.letters + delivered


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
