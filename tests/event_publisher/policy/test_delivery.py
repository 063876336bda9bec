"""Properties of the delivery policy, under a simulated clock, disk and collector."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Retryable,
    TooLarge,
)
from tests.support.machines import check_machine
from tests.support.simulated_publisher import (
    BASE,
    CAP,
    MemoryDeadLetters,
    MemoryStore,
    judge,
    kind_of,
    make_delivery,
    make_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from baseplate_events.event_publisher.policy.delivery import Delivery
    from baseplate_events.event_publisher.policy.pending import Attempt
    from baseplate_events.event_publisher.policy.rejection import Rejection

failures = st.one_of(
    st.builds(Retryable, st.just("503"), st.booleans(), st.sampled_from([0.0, 0.0, 5.0, 300.0])),
    st.builds(
        Retryable,
        st.just("500"),
        from_collector=st.just(True),
        status=st.just(500),
        may_be_poison=st.just(True),
    ),
    st.builds(Misconfigured, st.just("401"), st.just("check the key"), st.booleans()),
)


class DeliveryMachine(RuleBasedStateMachine):
    """The policy between a queue, a disk and a collector that do whatever they like."""

    @initialize(
        concurrency=st.integers(1, 4),
        max_size=st.integers(150, 500),
        max_events=st.integers(1, 8),
        queue_capacity=st.sampled_from([1, 3, 100]),
        spool=st.booleans(),
        dead_letters=st.booleans(),
        seed=st.integers(),
    )
    def start(
        self,
        concurrency: int,
        max_size: int,
        max_events: int,
        queue_capacity: int,
        spool: bool,
        dead_letters: bool,
        seed: int,
    ) -> None:
        self.concurrency = concurrency
        self.max_size = max_size
        self.max_events = max_events
        self.queue_capacity = queue_capacity
        self.seed = seed
        self.store = MemoryStore(room=4_000) if spool else None
        self.dead_letters = MemoryDeadLetters() if dead_letters else None
        self.now = 1_000.0
        self.number = 0
        self.offered: list[bytes] = []
        self.ever_offered: set[bytes] = set()
        self.delivered: Counter[bytes] = Counter()
        self.dropped: set[bytes] = set()
        self.largest_body = 10**9
        self.begin()

    def begin(self) -> None:
        self.delivery = make_delivery(
            concurrency=self.concurrency,
            max_size=self.max_size,
            max_events=self.max_events,
            queue_capacity=self.queue_capacity,
            store=self.store,
            dead_letters=self.dead_letters,
            seed=self.seed,
            now=self.now,
        )
        self.in_flight: list[Attempt] = []

    @rule(
        kinds=st.lists(
            st.tuples(st.sampled_from(["good", "good", "good", "refused", "crash"]), st.integers(0, 60)),
            min_size=1,
            max_size=8,
        )
    )
    def offer(self, kinds: list[tuple[str, int]]) -> None:
        events = [make_event(number, *kind) for number, kind in enumerate(kinds, self.number)]
        self.number += len(events)
        assert self.take(events) == []

    def take(self, events: list[bytes]) -> list[tuple[int, Rejection]]:
        """Offer events, and note those that were taken and can be sent; return the verdicts on the others."""
        room = self.delivery.room
        source = iter(events)
        verdicts = self.delivery.offer(source, self.now)
        taken = events[: len(events) - len(list(source))]
        assert bool(taken) == bool(room)
        good = [event for event in taken if b'"kind"' in event]
        self.offered += good
        self.ever_offered.update(good)
        assert len(taken) - len(good) == len(verdicts)
        return verdicts

    @rule(
        message=st.sampled_from(
            [b"", b"  ", b"\0\1", b'{"cut', b'["cut"', b"?", b"{", b"}", b'{"p":"' + b"x" * 600 + b'"}']
        ),
        before=st.integers(0, 3),
    )
    def offer_what_cannot_be_sent(self, message: bytes, before: int) -> None:
        events = [make_event(self.number + index) for index in range(before)]
        self.number += len(events) + 1
        for size, verdict in self.take([*events, message, make_event(self.number - 1), message]):
            assert len(message) == size
            assert verdict.fate is (DropReason.OVERSIZE if len(message) > 600 else DropReason.INVALID)

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 30.0, 300.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flush(self) -> None:
        self.delivery.flush(self.now)

    @rule(broken=st.booleans())
    def turn_the_spools_disk(self, broken: bool) -> None:
        if self.store is not None:
            self.store.broken = broken

    @rule(broken=st.booleans())
    def turn_the_dead_letters_disk(self, broken: bool) -> None:
        if self.dead_letters is not None:
            self.dead_letters.broken = broken

    @rule(largest_body=st.sampled_from([100, 300, 10**9]))
    def turn_the_collectors_limit(self, largest_body: int) -> None:
        self.largest_body = largest_body

    @rule()
    def attempt(self) -> None:
        failing = self.delivery.failures > 0
        attempt = self.delivery.next_attempt(self.now)
        if attempt is not None:
            assert self.now >= self.delivery.paused_until
            assert len(self.in_flight) < (1 if failing else self.concurrency)
            assert attempt.batch.size <= self.max_size
            self.in_flight.append(attempt)

    @precondition(lambda self: bool(getattr(self, "in_flight", False)))
    @rule(data=st.data(), fault=st.one_of(st.none(), st.none(), failures))
    def finish(self, data: st.DataObject, fault: Outcome | None) -> None:
        attempt = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.end(attempt, fault if fault is not None else judge(attempt.batch, self.largest_body))

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        failures_before = self.delivery.failures
        dropped_before = self.delivery.accounting.dropped[DropReason.REFUSED]
        if isinstance(outcome, Accepted):
            self.delivered.update(attempt.batch.events)
        self.delivery.finish(attempt, outcome, self.now)
        if self.delivery.accounting.dropped[DropReason.REFUSED] > dropped_before:
            self.dropped.update(attempt.batch.events)
        if isinstance(outcome, Misconfigured) or (
            isinstance(outcome, Retryable) and not outcome.may_be_poison
        ):
            opens_at = self.delivery.paused_until
            assert self.now + outcome.retry_after <= opens_at <= self.now + 300.0 + CAP
            assert failures_before <= self.delivery.failures <= failures_before + 1
            assert self.delivery.failures > 0

    @rule()
    def crash_and_restart(self) -> None:
        """With a spool, what isn't on the disk is at most the one event that it didn't take."""
        held = [event for event in self.offered if event not in self.safe()]
        if self.store is not None:
            assert len(held) <= 1
        self.offered = [event for event in self.offered if event not in held]
        self.begin()

    def safe(self) -> set[bytes]:
        """What is delivered, on a disk, or was given up."""
        on_disk = set(self.store.events) if self.store is not None else set[bytes]()
        return {*self.settled(), *on_disk}

    def settled(self) -> set[bytes]:
        """What is delivered or was given up."""
        letters = self.dead_letters.letters if self.dead_letters is not None else ()
        return {*self.delivered, *letters, *self.dropped}

    @rule()
    def take_unsent_and_restart(self) -> None:
        events = self.delivery.take_unsent()
        assert len(events) == self.delivery.accounting.in_hand
        self.delivery.requeued(len(events), lost=0)
        missing = {event for event in self.offered if event not in self.safe()}
        assert missing <= set(events), "everything that is in memory only comes back"
        self.offered = [event for event in self.offered if event not in missing]
        self.begin()

    @invariant()
    def books_are_balanced(self) -> None:
        if not hasattr(self, "delivery"):
            return
        assert self.delivery.accounting.balanced
        if self.store is None:
            assert self.delivery.accounting.spooled == 0
        else:
            assert self.delivery.accounting.spooled <= len(self.store.events)

    @invariant()
    def only_offered_events_are_delivered_and_good_ones_never_given_up(self) -> None:
        if not hasattr(self, "delivery"):
            return
        assert set(map(kind_of, self.delivered)) <= {"good"}
        assert set(self.delivered) <= self.ever_offered
        assert "good" not in set(map(kind_of, [*self.letters(), *self.dropped]))

    def letters(self) -> list[bytes]:
        """The dead letters, without those that were no events at all."""
        letters = self.dead_letters.letters if self.dead_letters is not None else []
        return [letter for letter in letters if letter.startswith(b'{"id"')]

    def teardown(self) -> None:
        """Once nothing fails, everything finds its fate, in a bounded number of steps."""
        if not hasattr(self, "delivery"):
            return
        self.largest_body = 10**9
        if self.store is not None:
            self.store.broken = False
            self.store.room = 10**9
        if self.dead_letters is not None:
            self.dead_letters.broken = False
        unsettled = set(self.offered)
        for step in range(1_000 + 200 * self.number):
            while self.in_flight:
                finished = self.in_flight.pop()
                self.end(finished, judge(finished.batch))
            unsettled -= self.settled()
            if unsettled and step % 2 and self.delivery.room:
                self.offer([("good", 0)])  # life goes on, which shows what the collector falls over
            wake_at = self.delivery.wake_at()
            if wake_at is None:
                break
            self.now = max(self.now, wake_at)
            attempt = self.delivery.next_attempt(self.now)
            if attempt is not None:
                self.in_flight.append(attempt)
        assert self.delivery.accounting.in_hand == 0
        assert self.delivery.accounting.spooled == 0
        assert self.delivery.disk_error is None
        if self.store is not None:
            assert self.store.events == []
        for event in self.offered:
            assert bool(self.delivered[event]) == (kind_of(event) == "good")
            assert event in self.settled()


def test_delivery_between_peers_that_do_what_they_like() -> None:
    """Whatever fails when, every event has one fate, and finds it once nothing fails."""
    check_machine(DeliveryMachine, steps=40, examples=100)


def settle(delivery: Delivery, now: float = 0.0, limit: int = 10_000) -> tuple[list[bytes], float]:
    """Let an honest collector take what comes until nothing is left; return what arrived, and when."""
    arrived: list[bytes] = []
    for _ in range(limit):
        wake_at = delivery.wake_at()
        if wake_at is None:
            return arrived, now
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        if attempt is not None:
            outcome = judge(attempt.batch)
            if isinstance(outcome, Accepted):
                arrived += attempt.batch.events
            delivery.finish(attempt, outcome, now)
    raise AssertionError("it doesn't end")


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=40), seed=st.integers(), data=st.data())
def test_one_sender_keeps_the_order(sizes: list[int], seed: int, data: st.DataObject) -> None:
    """With a concurrency of 1 events arrive in the order in which they came, whatever connections do."""
    delivery = make_delivery(seed=seed, max_size=1_000)
    events = [make_event(number, pad=pad) for number, pad in enumerate(sizes)]
    now, arrived = 0.0, list[bytes]()
    pending = list(events)
    faults = failures.filter(lambda outcome: isinstance(outcome, Misconfigured) or not outcome.may_be_poison)
    while len(arrived) < len(events):
        while pending and delivery.room:
            delivery.offer([pending.pop(0)], now)
        wake_at = delivery.wake_at()
        assert wake_at is not None
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        assert attempt is not None
        outcome = data.draw(st.one_of(st.just(Accepted(200)), faults))
        delivery.finish(attempt, outcome, now)
        if isinstance(outcome, Accepted):
            arrived += attempt.batch.events
    assert events == arrived


@given(seed=st.integers(), number=st.integers(1, 40))
def test_the_rate_of_attempts_follows_the_backoff(seed: int, number: int) -> None:
    """While the collector is down there is one attempt a pause, and pauses grow to the cap."""
    delivery = make_delivery(seed=seed, concurrency=4)
    for index in range(8):
        delivery.offer([make_event(index)], 0.0)
    delivery.flush(0.0)
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
        assert failure == delivery.failures
        pause = delivery.paused_until - now
        assert 0.0 <= pause <= min(CAP, BASE * 2 ** (failure - 1))


@given(
    count=st.integers(1, 200),
    poisons=st.sets(st.integers(0, 199), max_size=4),
    kind=st.sampled_from(["refused", "crash"]),
    spool=st.booleans(),
    concurrency=st.integers(1, 3),
)
def test_a_poison_event_costs_only_itself(
    count: int, poisons: set[int], kind: str, spool: bool, concurrency: int
) -> None:
    """Events that the collector refuses, or falls over, become dead letters; all others arrive."""
    dead_letters = MemoryDeadLetters()
    store = MemoryStore() if spool else None
    delivery = make_delivery(
        max_size=2_000, max_events=20, dead_letters=dead_letters, store=store, concurrency=concurrency
    )
    events = [make_event(number, kind if number in poisons else "good") for number in range(count)]
    bad = sum(number < count for number in poisons)
    pending = deque(events)
    arrived: list[bytes] = []
    now = 0.0
    for number in range(count, count + 20_000):
        while pending and delivery.room:
            delivery.offer([pending.popleft()], now)
        wake_at = delivery.wake_at()
        if wake_at is None:
            break
        if not pending and delivery.room and len(dead_letters.letters) < bad:
            # Life goes on, which shows what the collector falls over.
            delivery.offer([make_event(number)], now)
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        if attempt is not None:
            outcome = judge(attempt.batch)
            arrived += attempt.batch.events if isinstance(outcome, Accepted) else ()
            delivery.finish(attempt, outcome, now)
    poisoned = [event for event in events if kind_of(event) != "good"]
    assert sorted(poisoned) == sorted(dead_letters.letters)
    assert sorted(set(events) - set(poisoned)) == sorted(set(arrived) & set(events))
    assert len(arrived) == len(set(arrived))
    assert delivery.accounting.balanced


def test_a_413_teaches_a_smaller_size() -> None:
    """After a 413 for several events, batches of several are no larger than half of what was refused."""
    delivery = make_delivery(max_size=1_000, max_events=100)
    for number in range(100):
        if delivery.room:
            delivery.offer([make_event(number, pad=20)], 0.0)
    delivery.flush(0.0)
    first = delivery.next_attempt(0.0)
    assert first is not None
    delivery.finish(first, TooLarge("413", 413), 0.0)
    while (attempt := delivery.next_attempt(0.0)) is not None:
        delivery.finish(attempt, Accepted(200), 0.0)
    for number in range(100):
        delivery.offer([make_event(number, pad=20)], 1.0)
        attempt = delivery.next_attempt(1.0)
        if attempt is not None:
            assert attempt.batch.size <= first.batch.size // 2
            delivery.finish(attempt, Accepted(200), 1.0)


def test_an_outage_fills_the_spool_not_the_memory() -> None:
    """With a spool, events are taken in through an outage, and wait on the disk, not in memory."""
    store = MemoryStore()
    delivery = make_delivery(store=store, queue_capacity=1)
    for number in range(1_000):
        assert delivery.room
        delivery.offer([make_event(number)], 0.0)
        attempt = delivery.next_attempt(float(number))
        if attempt is not None:
            delivery.finish(attempt, Retryable("503", from_collector=True), float(number))
    assert delivery.accounting.spooled == 1_000
    assert delivery.accounting.in_hand == 0
    arrived, _ = settle(delivery, 2_000.0)
    assert [make_event(number) for number in range(1_000)] == arrived
    assert store.events == []


def test_a_full_spool_stops_the_draining() -> None:
    """At its limit the spool takes no more, and goes on once there is room."""
    store = MemoryStore(room=1_000)
    delivery = make_delivery(store=store)
    while delivery.room:
        delivery.offer([make_event(0)], 0.0)
    assert 0 < store.size <= 1_000
    settle(delivery)
    assert delivery.room


@given(
    pads=st.lists(st.integers(0, 150), max_size=40),
    room=st.integers(0, 5_000),
    breaks_at=st.none() | st.integers(0, 40),
)
def test_with_a_spool_one_event_at_a_time_is_on_its_way(
    pads: list[int], room: int, breaks_at: int | None
) -> None:
    """None is asked for before the last one is on the disk and there is room for another, however large."""
    store = MemoryStore(room=room)
    delivery = make_delivery(store=store)
    asked: list[bytes] = []

    def queue() -> Iterator[bytes]:
        for number, pad in enumerate(pads):
            assert asked == store.events
            assert store.has_room(400)
            store.broken = number == breaks_at
            asked.append(make_event(number, pad=pad))
            yield asked[-1]

    source = queue()
    assert delivery.offer(source, 0.0) == []
    in_hand = delivery.accounting.in_hand
    assert asked[: len(asked) - in_hand] == store.events
    assert in_hand == (breaks_at is not None and breaks_at < len(asked))
    assert len(asked) == delivery.accounting.received
    assert len(asked) == len(pads) or not delivery.room


@given(
    pads=st.lists(st.integers(0, 400), max_size=40),
    cuts=st.lists(st.integers(1, 10), min_size=40, max_size=40),
    spooled=st.booleans(),
)
def test_it_is_the_same_in_what_bursts_events_come(pads: list[int], cuts: list[int], spooled: bool) -> None:
    """Events make the same batches whether they come one by one, in bursts, or all at once."""
    events = [make_event(number, pad=pad) if pad % 7 else b"?" * pad for number, pad in enumerate(pads)]

    def batches(bursts: Iterable[int]) -> tuple[list[tuple[bytes, ...]], list[int], str]:
        store = MemoryStore() if spooled else None
        delivery = make_delivery(concurrency=len(events) + 1, store=store)
        source = iter(events)
        refused = [
            size for burst in bursts for size, _ in delivery.offer(itertools.islice(source, burst), 0.0)
        ]
        assert not list(source)
        delivery.flush(0.0)
        attempts = iter(lambda: delivery.next_attempt(0.0), None)
        return [attempt.batch.events for attempt in attempts], refused, str(delivery.accounting)

    assert batches([1] * 40) == batches(cuts) == batches([40])


def consumer(delivery: Delivery) -> tuple[str | None, bool]:
    """Return what the disk says, and whether events are wanted."""
    return delivery.disk_error, delivery.room > 0


def test_a_broken_disk_holds_one_event_and_stops_the_draining() -> None:
    """An event that the disk doesn't take is held in memory, and goes on once the disk works."""
    store = MemoryStore(broken=True)
    delivery = make_delivery(store=store)
    delivery.offer([make_event(0)], 0.0)
    assert consumer(delivery) == ("the disk is broken", False)
    assert delivery.accounting.in_hand == 1
    store.broken = False
    arrived, _ = settle(delivery)
    assert [make_event(0)] == arrived
    assert consumer(delivery) == (None, True)


def test_dead_letters_that_cannot_be_written_are_held() -> None:
    """An event that can't be buried is held, and nothing more received, until the disk works."""
    dead_letters = MemoryDeadLetters(broken=True)
    delivery = make_delivery(dead_letters=dead_letters)
    delivery.offer([b"\0 no JSON"], 0.0)
    assert not delivery.room
    assert delivery.accounting.in_hand == 1
    dead_letters.broken = False
    settle(delivery)
    assert [b"\0 no JSON"] == dead_letters.letters
    assert (1, True) == (delivery.accounting.dead_lettered, delivery.room > 0)


@given(age=st.floats(0, 100), limit=st.one_of(st.none(), st.floats(1, 50)))
def test_only_a_limit_gives_up_for_age(age: float, limit: float | None) -> None:
    """An event that can't be delivered is kept for ever, unless `max_age` is set and over."""
    dead_letters = MemoryDeadLetters()
    delivery = make_delivery(give_up_after=limit, dead_letters=dead_letters)
    delivery.offer([make_event(0)], 0.0)
    delivery.flush(0.0)
    attempt = delivery.next_attempt(0.0)
    assert attempt is not None
    delivery.finish(attempt, Misconfigured("401", "", from_collector=True), age)
    assert len(dead_letters.letters) == (limit is not None and age >= limit)


@pytest.mark.parametrize(
    "outcome", [Retryable("503", from_collector=True), Misconfigured("401", "", from_collector=True)]
)
def test_a_failing_collector_stops_the_draining(outcome: Outcome) -> None:
    """Without a success no more events are received than the queue could take back."""
    delivery = make_delivery(queue_capacity=2, max_events=2, max_size=1_000)

    def fill() -> int:
        count = 0
        while delivery.room:
            delivery.offer([make_event(count)], 0.0)
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
    delivery.offer([make_event(0)], 10.0)
    assert delivery.wake_at() == 11.0
    assert delivery.next_attempt(10.999) is None
    attempt = delivery.next_attempt(11.0)
    assert attempt is not None
    assert attempt.batch.events == (make_event(0),)


def test_failures_under_way_count_once() -> None:
    """Attempts that were under way together and fail together are one failure, not a jump in the backoff."""
    delivery = make_delivery(concurrency=3, max_events=1)
    for index in range(3):
        delivery.offer([make_event(index)], 0.0)
    attempts = [delivery.next_attempt(0.0) for _ in range(3)]
    for attempt in attempts:
        assert attempt is not None
        delivery.finish(attempt, Retryable("503", from_collector=True), 1.0)
    assert delivery.failures == 1


def test_a_rejected_event_is_dropped_if_there_are_no_dead_letters() -> None:
    """Without dead letters an event that is rejected while others are accepted is dropped and counted."""
    delivery = make_delivery(max_events=2)
    delivery.offer([make_event(0, "refused"), make_event(1)], 0.0)
    arrived, _ = settle(delivery)
    assert [make_event(1)] == arrived
    assert delivery.accounting.dropped[DropReason.REFUSED] == 1
    assert delivery.next_attempt(0.0) is None
