"""The line of batches, those that were set aside, and those in flight: order and memory, by example."""

from __future__ import annotations

import math

import pytest

from baseplate_events.event_publisher.policy.batching import Batch
from baseplate_events.event_publisher.policy.pending import ParkedBatch, PendingBatch, PendingBatches
from baseplate_events.event_publisher.policy.poison import FaultRecord
from baseplate_events.event_publisher.policy.span import Span


def make_batch(events: int = 2, *, opened_at: float = 0.0, spans: int = 0) -> Batch:
    """Make a batch in memory, or at so many places of a spool; its body counts for 1,000 bytes an event."""
    places = tuple(Span(b"A" * 16, 100 * place, 100 * place + 50) for place in range(spans))
    return Batch((b"x",) * events, 1_000 * events, opened_at, places)


def make_pending(
    number: int,
    events: int = 2,
    *,
    failures: int = 0,
    is_part: bool = False,
    spans: int = 0,
    opened_at: float = 0.0,
) -> PendingBatch:
    """Make a batch that was tried."""
    record = FaultRecord(failures=failures, is_part=is_part)
    return PendingBatch((number, 0), make_batch(events, opened_at=opened_at, spans=spans), record)


def levels(pending: PendingBatches) -> tuple[int, int, int, int]:
    """Return what is counted."""
    return pending.memory, pending.held_memory, pending.held_count, pending.parked_places


def test_nothing_is_pending_at_first() -> None:
    """All counts are 0, and nothing is due."""
    pending = PendingBatches(may_park=True)
    assert levels(pending) == (0, 0, 0, 0)
    assert (pending.in_flight, pending.are_all_held, pending.has_line) == (0, False, False)
    assert (pending.due_at(10**9), pending.oldest_at, pending.take(0.0, 10**9)) == (None, None, None)
    assert pending.take_unsent() == []


def test_batches_are_counted_wherever_they_are() -> None:
    """In the line, in flight, aside in memory as a single event or several, and parked."""
    pending = PendingBatches(may_park=True)
    pending.add(make_batch(3, opened_at=7.0))
    assert levels(pending) == (3_000, 0, 0, 0)
    assert (pending.has_line, pending.due_at(0), pending.oldest_at) == (True, -math.inf, 7.0)
    taken = pending.take(8.0, 0)
    assert isinstance(taken, PendingBatch)
    assert (taken.order, taken.number, taken.count, taken.opened_at) == ((1, 0), 1, 3, 7.0)
    assert (taken.is_entered, taken.is_held, taken.is_new_part) == (False, False, False)
    assert levels(pending) == (0, 0, 0, 0)
    attempt = pending.start(taken, 8.5)
    assert (attempt.started_at, attempt.batch, pending.in_flight) == (8.5, taken.batch, 1)
    assert (levels(pending), pending.oldest_at) == ((3_000, 0, 0, 0), 7.0)
    pending.finish(attempt)
    assert (levels(pending), pending.in_flight) == ((0, 0, 0, 0), 0)
    pending.set_aside_until(make_pending(2, 1, failures=1), 20.0)
    assert (levels(pending), pending.are_all_held) == ((0, 1_000, 1, 0), True)
    pending.set_aside_until(make_pending(3, 2, failures=1), 19.0)
    assert (levels(pending), pending.are_all_held) == ((2_000, 1_000, 1, 0), False)
    assert pending.due_at(0) == 19.0
    pending.set_aside_until(make_pending(4, 1, failures=1, spans=3), 18.0)
    assert levels(pending) == (2_000, 1_000, 2, 3)
    pending.set_aside_until(make_pending(5, 2, failures=1, spans=2), 17.0)
    assert levels(pending) == (2_000, 1_000, 2, 5)
    assert pending.oldest_at == 0.0


def test_a_parked_batch_is_due_if_there_is_memory_for_it() -> None:
    """A parked batch is taken if its body fits in the spare bytes, at the moment that was set."""
    pending = PendingBatches(may_park=True)
    pending.set_aside_until(make_pending(1, 2, failures=1, spans=1), 10.0)
    assert (pending.due_at(1_999), pending.take(10.0, 1_999)) == (None, None)
    assert (pending.due_at(2_000), pending.take(9.9, 2_000)) == (10.0, None)
    parked = pending.take(10.0, 2_000)
    assert isinstance(parked, ParkedBatch)
    assert (parked.order, parked.count, parked.size, parked.is_held) == ((1, 0), 2, 2_000, False)
    pending.set_aside_until(parked, 12.0)
    assert pending.due_at(2_000) == 12.0


@pytest.mark.parametrize(("may_park", "spans"), [(False, 1), (True, 0)])
def test_what_cannot_be_read_again_stays_in_memory(may_park: bool, spans: int) -> None:
    """It is due whatever there is to spare."""
    pending = PendingBatches(may_park=may_park)
    pending.set_aside_until(make_pending(1, 2, failures=1, spans=spans), 10.0)
    assert (levels(pending), pending.due_at(0)) == ((2_000, 0, 0, 0), 10.0)


def test_what_is_aside_takes_turns_with_the_line() -> None:
    """A due batch that was set aside goes first, then one of the line, and so on."""
    pending = PendingBatches(may_park=False)
    for number in (1, 2, 3):
        pending.set_aside_until(make_pending(number, failures=1), 10.0 + number)
    for _ in range(3):
        pending.add(make_batch())
    for _ in range(3):
        pending.add(make_batch())
    orders: list[int] = []
    while (taken := pending.take(12.5, 0)) is not None:
        orders.append(taken.order[0])
    # Numbers of new batches begin with 1: those of the line are 1 to 6.
    assert orders == [1, 1, 2, 2, 3, 4, 5, 6]
    assert pending.due_at(0) == 13.0


def test_new_parts_go_ahead_of_the_line() -> None:
    """All of them, smallest first, though one that was set aside went just before."""
    pending = PendingBatches(may_park=False)
    pending.add(make_batch())
    for number, events in ((7, 3), (8, 1), (9, 2)):
        pending.set_aside(make_pending(number, events, is_part=True))
    assert pending.due_at(0) == -math.inf
    taken = [pending.take(0.0, 0) for _ in range(4)]
    assert [part.order[0] for part in taken if part is not None] == [8, 9, 7, 1]


def test_recovered_batches_have_their_places() -> None:
    """Failed ones are due at once and parked, parts set aside, others in the line; new ones come later."""
    pending = PendingBatches(may_park=True)
    pending.add_recovered(make_pending(5, spans=1))
    pending.add_recovered(make_pending(3, failures=1, spans=1))
    assert levels(pending) == (2_000, 0, 0, 1)
    pending.add_recovered(make_pending(4, is_part=True, spans=1))
    assert levels(pending) == (4_000, 0, 0, 1)
    pending.add(make_batch())
    orders: list[int] = []
    while (taken := pending.take(0.0, 10**9)) is not None:
        orders.append(taken.order[0])
    assert orders == [3, 4, 5, 6]


def test_what_is_unsent_comes_oldest_first() -> None:
    """Of the line, aside and in flight, but nothing that is in the spool; afterwards nothing is left."""
    pending = PendingBatches(may_park=True)
    for number, events in ((3, (b"c",)), (1, (b"a", b"A")), (2, (b"b",))):
        batch = Batch(events, 10, 0.0)
        single = PendingBatch((number, 0), batch, FaultRecord(failures=1))
        if number == 1:
            pending.start(single, 0.0)
        elif number == 2:
            pending.set_aside(single)
        else:
            pending.put_back(single)
    pending.put_back(make_pending(4, spans=1))
    pending.set_aside_until(make_pending(5, failures=1, spans=1), 1.0)
    assert pending.take_unsent() == [b"a", b"A", b"b", b"c"]
    assert (pending.in_flight, pending.has_line, pending.take(9.0, 10**9)) == (0, False, None)


def test_all_are_held_wherever_they_are() -> None:
    """Aside and in flight; not if one of them is in the line, or has several events."""
    pending = PendingBatches(may_park=True)
    attempt = pending.start(make_pending(1, 1, failures=1), 0.0)
    assert pending.are_all_held
    pending.set_aside(make_pending(2, 1, failures=1))
    pending.set_aside(make_pending(3, 1, failures=1))
    found = [pending.are_all_held]
    pending.add(make_batch(1))
    found.append(pending.are_all_held)
    assert pending.take_unsent() != []
    found.append(pending.are_all_held)
    assert found == [True, False, False]
    assert attempt.pending.is_held
