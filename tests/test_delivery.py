"""Properties of the delivery policy, under a simulated clock and collector."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from baseplate_events.event_publisher.accounting import DropReason
from baseplate_events.event_publisher.batching import FORMATS, Batcher
from baseplate_events.event_publisher.delivery import Attempt, Backoff, Delivery
from baseplate_events.event_publisher.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Retryable,
    TooLarge,
)
from tests import strategies
from tests.machines import check_machine

BASE, CAP = 1.0, 30.0


def make_delivery(
    *,
    concurrency: int = 1,
    max_size: int = 200,
    max_events: int = 5,
    max_age: float = 1.0,
    queue_capacity: int = 100,
    seed: int = 0,
) -> Delivery:
    """Make a delivery with small bounds."""
    batcher = Batcher(FORMATS["2j"], max_size=max_size, max_events=max_events, max_age=max_age)
    return Delivery(
        batcher,
        Backoff(BASE, CAP, random.Random(seed)),
        concurrency=concurrency,
        max_size=max_size,
        queue_capacity=queue_capacity,
    )


failures = st.one_of(
    st.builds(Retryable, st.just("503"), st.booleans(), st.sampled_from([0.0, 0.0, 5.0, 300.0])),
    st.builds(Misconfigured, st.just("401"), st.just("check the key"), st.booleans()),
)
outcomes = st.one_of(
    st.just(Accepted(200)),
    st.just(Accepted(200)),
    st.just(TooLarge("413")),
    st.just(Refused("400")),
    failures,
)


@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 1000), st.integers())
def test_backoff_stays_below_its_ceiling(number: int, base: float, cap: float, seed: int) -> None:
    """A wait is never negative, never above the cap, and its ceiling never shrinks with more failures."""
    backoff = Backoff(base, cap, random.Random(seed))
    assert 0.0 <= backoff.wait(number) <= backoff.ceiling(number) <= cap
    assert backoff.ceiling(number) <= backoff.ceiling(number + 1)


def test_backoff_ceilings_by_example() -> None:
    """1, 2, 4, 8, 16 seconds, then 30."""
    backoff = Backoff(1.0, 30.0, random.Random(0))
    assert [backoff.ceiling(number) for number in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


class DeliveryMachine(RuleBasedStateMachine):
    """The policy against a plain list of what went in."""

    @initialize(
        concurrency=st.integers(1, 4),
        max_size=st.integers(64, 300),
        max_events=st.integers(1, 8),
        queue_capacity=st.sampled_from([1, 3, 100]),
        seed=st.integers(),
    )
    def start(self, concurrency: int, max_size: int, max_events: int, queue_capacity: int, seed: int) -> None:
        self.concurrency = concurrency
        self.max_size = max_size
        self.queue_capacity = queue_capacity
        self.delivery = make_delivery(
            concurrency=concurrency,
            max_size=max_size,
            max_events=max_events,
            queue_capacity=queue_capacity,
            seed=seed,
        )
        self.now = 1_000.0
        self.under_way: list[Attempt] = []
        self.offered: list[bytes] = []
        self.delivered: list[bytes] = []
        self.refused: list[bytes] = []
        self.number = 0

    @rule(filler=st.integers(0, 40))
    def offer(self, filler: int) -> None:
        if not self.delivery.wants_events:
            return
        event = b"%d-%s" % (self.number, b"x" * filler)
        self.number += 1
        assert self.delivery.offer(event, self.now) is None
        self.offered.append(event)

    @rule(size=st.sampled_from([0, 1_000]))
    def offer_what_fits_nowhere(self, size: int) -> None:
        before = sum(self.delivery.accounting.dropped.values())
        reason = self.delivery.offer(b"x" * size, self.now)
        assert reason is (DropReason.OVERSIZE if size else DropReason.EMPTY)
        assert sum(self.delivery.accounting.dropped.values()) == before + 1

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 30.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flush(self) -> None:
        self.delivery.flush()

    @rule()
    def attempt(self) -> None:
        wake_at = self.delivery.wake_at()
        failing = self.delivery.failures > 0
        attempt = self.delivery.next_attempt(self.now)
        assert (attempt is not None) == (wake_at is not None and wake_at <= self.now)
        if attempt is not None:
            assert self.now >= self.delivery.gate_opens_at
            assert len(self.under_way) < (1 if failing else self.concurrency)
            self.under_way.append(attempt)

    @precondition(lambda self: bool(getattr(self, "under_way", False)))
    @rule(data=st.data(), outcome=outcomes)
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        attempt = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        failures_before = self.delivery.failures
        self.delivery.finish(attempt, outcome, self.now)
        events = list(attempt.batch.events)
        match outcome:
            case Accepted():
                self.delivered += events
            case TooLarge() | Refused():
                self.refused += events
            case Retryable(retry_after=retry_after) | Misconfigured(retry_after=retry_after):
                assert self.now + retry_after <= self.delivery.gate_opens_at
                assert self.delivery.gate_opens_at <= self.now + max(CAP, 300.0)
                assert failures_before <= self.delivery.failures <= failures_before + 1
                assert self.delivery.failures > 0

    @rule()
    def surrender(self) -> None:
        under_way = {event for attempt in self.under_way for event in attempt.batch.events}
        kept = [event for event in self.offered if event not in {*self.delivered, *self.refused}]
        assert under_way <= set(kept)
        events = self.delivery.surrender()
        assert kept == events, "everything in hand comes back, in the order in which it came"
        self.delivery.accounting.give_back(len(events))
        self.offered = [event for event in self.offered if event not in set(kept)]
        self.under_way = []

    @invariant()
    def books_are_balanced(self) -> None:
        if not hasattr(self, "delivery"):
            return
        accounting = self.delivery.accounting
        assert accounting.balanced
        assert accounting.in_hand == len(self.offered) - len(self.delivered) - len(self.refused)
        assert accounting.delivered == len(self.delivered)
        assert accounting.dropped[DropReason.REFUSED] == len(self.refused)
        assert len(self.delivered) == len(set(self.delivered))

    @invariant()
    def memory_is_bounded(self) -> None:
        if not hasattr(self, "delivery"):
            return
        finished = {*self.delivered, *self.refused}
        in_hand = sum(len(event) for event in self.offered if event not in finished)
        assert in_hand <= (self.concurrency + 2) * self.max_size

    def teardown(self) -> None:
        """Once the collector takes everything, everything arrives, in a bounded number of steps."""
        if not hasattr(self, "delivery"):
            return
        for _ in range(10 * self.number + 10):
            while self.under_way:
                finished = self.under_way.pop()
                self.delivery.finish(finished, Accepted(200), self.now)
                self.delivered += finished.batch.events
            wake_at = self.delivery.wake_at()
            if wake_at is None:
                break
            self.now = max(self.now, wake_at)
            attempt = self.delivery.next_attempt(self.now)
            assert attempt is not None
            self.under_way.append(attempt)
        assert sorted(self.offered) == sorted(self.delivered + self.refused)
        assert self.delivery.accounting.in_hand == 0


def test_delivery_against_a_simulated_collector() -> None:
    """Whatever the collector answers when, every event has one fate, and each arrives once nothing fails."""
    check_machine(DeliveryMachine, steps=40)


@given(events=st.lists(strategies.messages, min_size=1, max_size=40), seed=st.integers(), data=st.data())
def test_one_sender_keeps_the_order(events: list[bytes], seed: int, data: st.DataObject) -> None:
    """With a concurrency of 1 events arrive in the order in which they came, whatever fails."""
    delivery = make_delivery(seed=seed, max_size=1_000)
    now, arrived = 0.0, list[bytes]()
    pending = list(events)
    while len(arrived) < len(events):
        while pending and delivery.wants_events:
            delivery.offer(pending.pop(0), now)
        wake_at = delivery.wake_at()
        assert wake_at is not None
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        assert attempt is not None
        outcome = data.draw(st.one_of(st.just(Accepted(200)), failures))
        delivery.finish(attempt, outcome, now)
        if isinstance(outcome, Accepted):
            arrived += attempt.batch.events
    assert events == arrived


@given(seed=st.integers(), number=st.integers(1, 40))
def test_the_rate_of_attempts_follows_the_backoff(seed: int, number: int) -> None:
    """While the collector is down there is one attempt a pause, and pauses grow to the cap."""
    delivery = make_delivery(seed=seed, concurrency=4)
    for index in range(8):
        delivery.offer(b"event %d" % index, 0.0)
    delivery.flush()
    now = 0.0
    for failure in range(1, number + 1):
        wake_at = delivery.wake_at()
        assert wake_at is not None
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        assert attempt is not None
        if failure > 1:
            assert delivery.next_attempt(now) is None, "only one batch probes"
        delivery.finish(attempt, Retryable("503", from_collector=True), now)
        assert delivery.failures == failure
        pause = delivery.gate_opens_at - now
        assert 0.0 <= pause <= min(CAP, BASE * 2 ** (failure - 1))


@pytest.mark.parametrize("outcome", [Retryable("503", from_collector=True), Misconfigured("401", "", True)])
def test_a_failing_collector_stops_the_draining(outcome: Outcome) -> None:
    """Without a success no more events are received than the queue could take back."""
    delivery = make_delivery(queue_capacity=2, max_events=2, max_size=1_000)

    def fill() -> int:
        count = 0
        while delivery.wants_events:
            delivery.offer(b"event", 0.0)
            count += 1
        return count

    def finish_next(result: Outcome, now: float) -> None:
        attempt = delivery.next_attempt(now)
        assert attempt is not None
        delivery.finish(attempt, result, now)

    assert fill() == 2, "an unproven collector gets no more than the queue could take back"
    finish_next(Accepted(200), 0.0)
    assert fill() > 2
    finish_next(outcome, 1.0)
    assert fill() == 0
    finish_next(Accepted(200), 1_000.0)
    assert fill() > 0


def test_a_due_batch_goes_without_another_event() -> None:
    """A batch is sent `max_age` after its first event, though nothing else comes."""
    delivery = make_delivery(max_age=1.0)
    delivery.offer(b"event", 10.0)
    assert delivery.wake_at() == 11.0
    assert delivery.next_attempt(10.999) is None
    attempt = delivery.next_attempt(11.0)
    assert attempt is not None
    assert attempt.batch.events == (b"event",)


def test_failures_under_way_count_once() -> None:
    """Attempts that were under way together and fail together are one failure, not a jump in the backoff."""
    delivery = make_delivery(concurrency=3, max_events=1)
    for index in range(3):
        delivery.offer(b"%d" % index, 0.0)
    attempts = [delivery.next_attempt(0.0) for _ in range(3)]
    for attempt in attempts:
        assert attempt is not None
        delivery.finish(attempt, Retryable("503", from_collector=True), 1.0)
    assert delivery.failures == 1
