"""Delivery by example: moments, sizes and orders, each at its bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Refused,
    Retryable,
    TooLarge,
)
from baseplate_events.event_publisher.policy.poison import Action
from tests.support.simulated_publisher import (
    BASE,
    MemoryJournal,
    MemorySpool,
    feed,
    make_delivery,
    make_event,
    start_all,
    start_next,
    start_one,
    start_with,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from baseplate_events.event_publisher.policy.journal import DeadLetter
    from baseplate_events.event_publisher.policy.pending import Attempt
    from baseplate_events.event_publisher.policy.span import Span

FAILURE = Retryable("500", from_collector=True, status=500, may_be_poison=True)


def test_a_fresh_delivery_waits_for_events() -> None:
    """It has memory for a batch more than may be in flight, and nothing to do."""
    delivery = make_delivery(concurrency=2, max_size=400)
    assert (delivery.in_flight, delivery.failures, delivery.paused_until) == (0, 0, -math.inf)
    assert (delivery.disk_error, delivery.oldest_at, delivery.wake_at()) == (None, None, None)
    assert (delivery.memory_left, delivery.room) == (1_200, 3)
    assert delivery.next_attempt(0.0) is None


def test_a_batch_is_due_after_its_age() -> None:
    """It is started at that moment, not before, and counts as the oldest until it is accepted."""
    delivery = make_delivery(max_age=1.0)
    delivery.offer([make_event(1)], 10.0)
    assert (delivery.oldest_at, delivery.wake_at()) == (10.0, 11.0)
    assert delivery.next_attempt(10.99) is None
    attempt = start_one(delivery, 11.0)
    assert (delivery.in_flight, delivery.oldest_at, delivery.wake_at()) == (1, 10.0, None)
    delivery.offer([make_event(2)], 12.0)
    assert delivery.next_attempt(13.0) is None  # one at a time
    assert delivery.wake_at() is None
    assert delivery.finish(attempt, Accepted(200), 14.0) is None
    assert (delivery.in_flight, delivery.failures, delivery.oldest_at) == (0, 0, 12.0)
    assert delivery.wake_at() == 14.0 or delivery.wake_at() == 13.0
    assert delivery.next_attempt(14.0) is not None


def test_a_due_batch_fills_up_while_another_one_waits() -> None:
    """It isn't closed before it can be sent."""
    delivery = make_delivery(concurrency=2)
    delivery.offer([make_event(1)], 0.0)
    delivery.flush()
    delivery.offer([make_event(2)], 0.0)
    first = start_one(delivery, 5.0)
    assert first.batch.events == (make_event(1),)
    delivery.offer([make_event(3)], 5.0)
    second = start_one(delivery, 5.0)
    assert second.batch.events == (make_event(2), make_event(3))
    assert delivery.in_flight == 2


def test_a_pause_ends_at_its_moment() -> None:
    """An attempt may start then, and not before."""
    delivery = make_delivery()
    attempt = start_with(delivery, [make_event(1)], 0.0)
    delivery.finish(attempt, Misconfigured("404", "", from_collector=True, retry_after=20.0), 1.0)
    until = delivery.paused_until
    assert 21.0 <= until <= 21.0 + 20.0
    assert delivery.failures == 1
    assert delivery.wake_at() == until
    assert delivery.next_attempt(math.nextafter(until, 0.0)) is None
    assert delivery.next_attempt(until) is not None


@pytest.mark.parametrize(("count", "following"), [(5, 2), (2, 1), (1, 5)])
def test_a_413_for_several_events_halves_batches(count: int, following: int) -> None:
    """Half of what was too large is the bound from then on; a single event teaches nothing."""
    event = b'{"a":"%b"}' % (b"x" * 50)
    delivery = make_delivery(max_size=400, max_events=5)
    attempt = start_with(delivery, [event] * count, 0.0)
    delivery.finish(attempt, TooLarge("413", 413), 0.0)
    while (
        part := delivery.next_attempt(0.0)
    ) is not None and part.pending.record.failures + part.pending.record.is_part:
        delivery.finish(part, Accepted(200), 0.0)
    later = start_with(delivery, [event] * 5, 0.0)
    assert len(later.batch.events) == following


@pytest.mark.parametrize(("status", "failures"), [(500, 4), (502, 4), (504, 4), (503, 10)])
def test_a_batch_is_split_after_some_failures(status: int, failures: int) -> None:
    """More of them if the collector says that it is overloaded; the parts are named by their first events."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, max_size=10_000)
    for number in range(5):
        spool.append(make_event(number))
    feed(delivery, spool, 0.0)
    delivery.flush()
    outcome = Retryable(str(status), from_collector=True, status=status, may_be_poison=True)
    now = 0.0
    for count in range(1, failures + 1):
        attempt, now = start_next(delivery, now)
        assert attempt.pending.order == (1, 0)
        action = delivery.finish(attempt, outcome, now)
        assert action is (Action.SPLIT if count == failures else Action.KEEP)
    assert {order: batch.count for order, batch in journal.entered.items()} == {(1, 0): 2, (1, 2): 3}
    now += 100.0
    part = start_one(delivery, now)
    assert part.pending.order == (1, 0)
    delivery.finish(part, Accepted(200), now)
    now += 100.0
    part = start_one(delivery, now)
    delivery.finish(part, Refused("400", 400), now)
    assert {order: batch.count for order, batch in journal.entered.items()} == {(1, 2): 1, (1, 3): 2}


def test_a_refusal_does_not_make_the_collector_healthy() -> None:
    """So there is room for one event only beside the refused one, as the queue takes back no more."""
    delivery = make_delivery(queue_capacity=1, max_size=400)
    attempt = start_with(delivery, [make_event(0)], 0.0)
    delivery.finish(attempt, Refused("400", 400), 0.0)
    assert delivery.room == 1
    delivery.offer([make_event(1)], 0.0)
    assert delivery.room == 0


def test_many_refusals_slow_down() -> None:
    """From the seventeenth on, as failures do: by the first pause, without anything on top of it."""
    delivery = make_delivery(max_events=1, concurrency=20, queue_capacity=100, max_size=400)
    now = 0.0
    for number in range(17):
        assert delivery.paused_until <= now
        delivery.offer([make_event(number)], now)
        attempt = start_one(delivery, now)
        delivery.finish(attempt, Refused("400", 400), now)
    assert now < delivery.paused_until <= now + BASE
    assert delivery.failures == 1


@pytest.mark.parametrize(("failing", "extra"), [(0, 0.0), (1, BASE)])
def test_a_lone_failure_waits_for_what_the_collector_asks(failing: int, extra: float) -> None:
    """If others fare well, they wait for no more than that; if not, for a brief pause on top at most."""
    delivery = make_delivery(max_events=1, concurrency=5, max_size=400)
    delivery.offer([make_event(0)], 100.0)
    first = start_one(delivery, 100.0)
    delivery.finish(first, FAILURE, 100.0)
    now = 200.0
    delivery.resume()
    delivery.offer([make_event(1), make_event(2)], now)
    again: list[Attempt] = []
    for attempt in start_all(delivery, now):
        if attempt.pending.number == 1:
            again.append(attempt)
        elif attempt.pending.number == 2 or not failing:
            delivery.finish(attempt, Accepted(200), now)
            delivery.resume()
        else:
            delivery.finish(attempt, Misconfigured("404", "", from_collector=True), now)
            delivery.resume()
    for attempt in start_all(delivery, now):
        if attempt.pending.number == 1:
            again.append(attempt)
        elif failing:
            delivery.finish(attempt, Misconfigured("404", "", from_collector=True), now)
            delivery.resume()
        else:
            delivery.finish(attempt, Accepted(200), now)
            delivery.resume()
    (held,) = again
    assert held.batch.events == (make_event(0),)
    outcome = Retryable("500", from_collector=True, retry_after=7.0, status=500, may_be_poison=True)
    delivery.finish(held, outcome, now)
    assert now + 7.0 <= delivery.paused_until <= now + 7.0 + extra


@pytest.mark.parametrize(
    "outcome", [FAILURE, Refused("400", 400), Misconfigured("404", "", from_collector=True)]
)
@pytest.mark.parametrize(("age", "expires"), [(49.9, False), (50.0, True)])
def test_an_event_expires_at_its_age(
    outcome: Retryable | Refused | Misconfigured, age: float, expires: bool
) -> None:
    """At the end of an attempt, counted from when it came; it is a dead letter then."""
    journal = MemoryJournal()
    delivery = make_delivery(journal=journal, give_up_after=50.0)
    attempt = start_with(delivery, [make_event(0)], 100.0)
    action = delivery.finish(attempt, outcome, 100.0 + age)
    assert action is (Action.GIVE_UP if expires else Action.KEEP)
    assert journal.letters == [make_event(0)] * expires
    assert delivery.accounting.in_hand == (not expires)


def test_without_dead_letters_expired_events_are_counted() -> None:
    """By their reason."""
    delivery = make_delivery(give_up_after=0.0)
    attempt = start_with(delivery, [make_event(0), make_event(1)], 0.0)
    delivery.finish(attempt, FAILURE, 0.0)
    assert delivery.accounting.dropped[DropReason.EXPIRED] == 2


def test_what_is_unsent_is_accounted_for() -> None:
    """It is in memory until it was requeued, or lost."""
    delivery = make_delivery()
    delivery.offer([make_event(0), make_event(1), make_event(2)], 0.0)
    assert delivery.take_unsent() == [make_event(0), make_event(1), make_event(2)]
    delivery.requeued(2, lost=1)
    assert (delivery.accounting.returned, delivery.accounting.dropped[DropReason.QUEUE_FULL]) == (2, 1)
    assert (delivery.accounting.in_hand, delivery.accounting.balanced) == (0, True)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_what_is_lost_of_a_batch_that_waits_in_the_spool(lost: int) -> None:
    """It is counted once. With one event left or none, another batch may be put on trial."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool, max_size=10_000, max_events=3)
    for number in range(9):
        spool.append(make_event(number))
    feed(delivery, spool, 0.0)
    overloaded = replace(FAILURE, status=503)
    for outcome in (FAILURE, overloaded):  # on trial, then in the spool only
        attempt = start_one(delivery, 0.0)
        assert attempt.pending.order == (1, 0)
        assert delivery.finish(attempt, outcome, 0.0) is Action.KEEP
        delivery.resume()
    spool.lost = set(list(spool.events)[:lost])
    other = start_one(delivery, 5_000.0)  # in its turn
    assert other.pending.order == (2, 0)
    delivery.finish(other, Accepted(200), 5_000.0)
    now = 10_000.0
    attempt = start_one(delivery, now)
    if lost < 3:
        assert attempt.pending.order == (1, 0)
        assert attempt.batch.events == tuple(make_event(number) for number in range(lost, 3))
        assert journal.entered[1, 0].count == 3 - lost
        delivery.finish(attempt, overloaded, now)
        delivery.resume()
        attempt = start_one(delivery, now)
    assert ((1, 0) in journal.entered) == (lost < 3)
    assert attempt.pending.order == (3, 0)
    action = delivery.finish(attempt, Refused("400", 400), now)
    assert action is (Action.SPLIT if lost > 1 else Action.KEEP)
    assert delivery.accounting.dropped[DropReason.SPOOL_LOST] == lost
    assert (delivery.accounting.spooled, delivery.accounting.balanced) == (6 - lost, True)


def test_a_failed_event_waits_for_its_own_pause() -> None:
    """It isn't due at once, whatever the pause of all batches is."""
    delivery = make_delivery()
    delivery.offer([make_event(0)], 99.0)
    attempt = delivery.next_attempt(100.0)
    assert attempt is not None
    delivery.finish(attempt, FAILURE, 100.0)
    delivery.resume()
    wake_at = delivery.wake_at()
    assert wake_at is not None
    assert 100.0 < wake_at <= 100.0 + BASE
    assert delivery.next_attempt(math.nextafter(wake_at, 0.0)) is None
    assert delivery.next_attempt(wake_at) is not None


def test_what_cannot_be_read_lets_others_go_first() -> None:
    """A batch in the spool waits as after a failure, and the next one is sent at that moment."""
    spool, journal = MemorySpool(), MemoryJournal()
    delivery = make_delivery(journal=journal, spool=spool, max_size=10_000, max_events=3)
    for number in range(9):
        spool.append(make_event(number))
    feed(delivery, spool, 0.0)
    for outcome in (FAILURE, replace(FAILURE, status=503)):
        attempt = delivery.next_attempt(0.0)
        assert attempt is not None
        assert attempt.pending.order == (1, 0)
        delivery.finish(attempt, outcome, 0.0)
        delivery.resume()
    spool.is_unreadable = True
    for order in ((2, 0), (3, 0)):
        attempt = delivery.next_attempt(100.0)
        assert attempt is not None
        assert attempt.pending.order == order
        delivery.finish(attempt, Accepted(200), 100.0)
    assert delivery.next_attempt(100.0) is None
    spool.is_unreadable = False
    wake_at = delivery.wake_at()
    assert wake_at is not None
    assert wake_at > 100.0
    attempt = delivery.next_attempt(wake_at)
    assert attempt is not None
    assert attempt.pending.order == (1, 0)


@dataclass(slots=True)
class LetterJournal(MemoryJournal):
    """A journal that keeps the statuses of its letters."""

    statuses: list[int | None] = field(default_factory=list["int | None"])

    def resolve(self, spans: Sequence[Span], letters: Sequence[DeadLetter] = (), /) -> int:
        self.statuses += [letter.status for letter in letters]
        return MemoryJournal.resolve(self, spans, letters)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (FAILURE, 500),
        (Refused("400", 400), 400),
        (Retryable("429", from_collector=True, status=429), 429),
        (Retryable("down", from_collector=False), None),
        (Misconfigured("404", "", from_collector=True, status=404), None),
    ],
)
def test_the_status_of_an_expired_event(
    outcome: Retryable | Refused | Misconfigured, status: int | None
) -> None:
    """It is that of the last response, unless that is about a configuration."""
    journal = LetterJournal()
    delivery = make_delivery(journal=journal, give_up_after=1.0)
    attempt = start_with(delivery, [make_event(0)], 0.0)
    assert delivery.finish(attempt, outcome, 1.0) is Action.GIVE_UP
    assert journal.statuses == [status]
