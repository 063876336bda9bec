"""Properties of the delivery policy, under a simulated clock, disk and collector."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.event_publisher.policy.accounting import DropReason
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.policy.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Retryable,
    TooLarge,
)
from baseplate_events.event_publisher.policy.poison import FaultRecord
from baseplate_events.event_publisher.policy.span import EventRun
from tests.support.machines import check_machine
from tests.support.simulated_publisher import (
    BASE,
    CAP,
    MemoryJournal,
    MemorySpool,
    feed,
    judge,
    kind_of,
    make_delivery,
    make_event,
    recover,
    start_all,
    start_next,
    start_one,
    start_with,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from baseplate_events.event_publisher.policy.delivery import Delivery
    from baseplate_events.event_publisher.policy.pending import Attempt
    from baseplate_events.event_publisher.policy.rejection import Rejection

failures = st.one_of(
    st.builds(Retryable, st.just("503"), st.booleans(), st.sampled_from([0.0, 0.0, 5.0, 300.0])),
    st.builds(
        Retryable,
        st.just("500"),
        from_collector=st.just(True),
        retry_after=st.sampled_from([0.0, 5.0]),
        status=st.sampled_from([500, 503]),
        may_be_poison=st.just(True),
    ),
    st.builds(Misconfigured, st.just("401"), st.just("check the key"), st.booleans()),
)


class DeliveryMachine(RuleBasedStateMachine):
    """The policy between a queue, a spool, a journal and a collector that do whatever they like."""

    @initialize(
        concurrency=st.integers(1, 4),
        max_size=st.integers(150, 500),
        max_events=st.integers(1, 8),
        queue_capacity=st.sampled_from([1, 3, 100]),
        turn=st.none() | st.integers(1, 5),
        letters=st.booleans(),
        max_age=st.sampled_from([None, None, 400.0]),
        seed=st.integers(),
    )
    def start(
        self,
        concurrency: int,
        max_size: int,
        max_events: int,
        queue_capacity: int,
        turn: int | None,
        letters: bool,
        max_age: float | None,
        seed: int,
    ) -> None:
        self.concurrency = concurrency
        self.max_size = max_size
        self.max_events = max_events
        self.queue_capacity = queue_capacity
        self.max_age = max_age
        self.seed = seed
        self.spool = MemorySpool(turn) if turn is not None else None
        self.journal = MemoryJournal() if letters or self.spool is not None else None
        self.now = 1_000.0
        self.number = 0
        self.offered: list[bytes] = []  # to memory, without those that a restart has lost
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
            journal=self.journal,
            spool=self.spool,
            give_up_after=self.max_age,
            seed=self.seed,
        )
        self.in_flight: list[Attempt] = []
        self.taken = 0
        if self.spool is not None and self.journal is not None:
            recover(self.delivery, self.spool, self.journal, self.now)
            self.taken = self.delivery.accounting.recovered

    @rule(
        kinds=st.lists(
            st.tuples(st.sampled_from(["good", "good", "good", "refused", "crash"]), st.integers(0, 60)),
            min_size=1,
            max_size=8,
        ),
        relayed=st.booleans(),
    )
    def offer(self, kinds: list[tuple[str, int]], relayed: bool) -> None:
        events = [make_event(number, *kind) for number, kind in enumerate(kinds, self.number)]
        self.number += len(events)
        self.note_rejections(self.take_in(events) if relayed else self.take(events))

    def take_in(self, events: list[bytes]) -> list[tuple[int, Rejection]]:
        """Offer events through the spool if there is one; return the rejections on those that were read."""
        if self.spool is None:
            return self.take(events)
        for event in events:
            self.spool.append(event)
        self.ever_offered.update(events)
        unread = len(self.spool.unread)
        rejections = feed(self.delivery, self.spool, self.now)
        self.taken += unread - len(self.spool.unread)
        return rejections

    def take(self, events: list[bytes]) -> list[tuple[int, Rejection]]:
        """Offer events to memory, and note those that were taken and can be sent; return the rejections."""
        room = self.delivery.room
        source = iter(events)
        rejections = self.delivery.offer(source, self.now)
        taken = events[: len(events) - len(list(source))]
        assert bool(taken) == bool(room)
        self.taken += len(taken)
        good = [event for event in taken if b'"kind"' in event]
        self.offered += good
        self.ever_offered.update(good)
        assert len(taken) - len(good) == len(rejections)
        return rejections

    @rule(
        message=st.sampled_from(
            [b"", b"  ", b"\0\1", b'{"cut', b'["cut"', b"?", b"{", b"}", b'{"p":"' + b"x" * 600 + b'"}']
        ),
        before=st.integers(0, 3),
    )
    def offer_what_cannot_be_sent(self, message: bytes, before: int) -> None:
        events = [make_event(self.number + index) for index in range(before)]
        self.number += len(events) + 1
        rejections = self.take_in([*events, message, make_event(self.number - 1), message])
        self.note_rejections(rejections)

    def note_rejections(self, rejections: list[tuple[int, Rejection]]) -> None:
        for size, rejection in rejections:
            assert rejection.fate is (DropReason.OVERSIZE if size > 600 else DropReason.INVALID)
            assert size > 600 or size <= 6, "only what can't be sent"

    @rule()
    def read(self) -> None:
        """Read on in the spool, or find nothing there, which changes nothing."""
        self.note_rejections(self.take_in([]) if self.spool is not None else [])
        wake_at = self.delivery.wake_at()
        assert self.delivery.offer_run(EventRun([], ()), self.now) == []
        assert wake_at == self.delivery.wake_at()

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 30.0, 300.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def flush(self) -> None:
        self.delivery.flush()

    @rule(broken=st.booleans())
    def turn_the_disk(self, broken: bool) -> None:
        if self.journal is not None:
            self.journal.broken = broken

    @rule(unreadable=st.booleans())
    def turn_the_spool(self, unreadable: bool) -> None:
        if self.spool is not None:
            self.spool.is_unreadable = unreadable

    @precondition(lambda self: getattr(self, "spool", None) is not None and bool(self.journal.entered))
    @rule(data=st.data())
    def lose_places(self, data: st.DataObject) -> None:
        """Others delete or damage events in the spool, whether they are in memory as well or not."""
        assert self.spool is not None
        assert self.journal is not None
        batch = data.draw(st.sampled_from(list(self.journal.entered.values())))
        self.spool.lost |= data.draw(st.sets(st.sampled_from(self.spool.places(batch.spans)), min_size=1))

    @rule(largest_body=st.sampled_from([100, 300, 10**9]))
    def turn_the_collectors_limit(self, largest_body: int) -> None:
        self.largest_body = largest_body

    @rule()
    def attempt(self) -> None:
        failing = self.delivery.failures > 0
        attempt = self.delivery.next_attempt(self.now)
        if attempt is None:
            wake_at = self.delivery.wake_at()
            assert wake_at is None or wake_at > self.now, "it asks for a turn in which nothing can be done"
            return
        assert self.now >= self.delivery.paused_until
        assert len(self.in_flight) < (1 if failing else self.concurrency)
        assert attempt.batch.size <= self.max_size
        self.check_entry(attempt)
        self.in_flight.append(attempt)

    def check_entry(self, attempt: Attempt) -> None:
        """A batch is in the journal as it is sent if it is in the spool, and not otherwise."""
        spans, pending = attempt.batch.spans, attempt.pending
        assert bool(spans) != bool(set(attempt.batch.events) & set(self.offered))
        if not spans:
            return
        assert self.spool is not None
        assert self.journal is not None
        assert list(attempt.batch.events) == self.spool.load(spans)
        entered = self.journal.entered[pending.order]
        assert (entered.count, entered.spans) == (pending.count, spans)
        assert (entered.record.failures, entered.record.evidence, entered.record.is_part) == (
            pending.record.failures,
            pending.record.evidence,
            pending.record.is_part,
        )

    @precondition(lambda self: bool(getattr(self, "in_flight", False)))
    @rule(data=st.data(), fault=st.one_of(st.none(), st.none(), failures))
    def finish(self, data: st.DataObject, fault: Outcome | None) -> None:
        attempt = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.end(attempt, fault if fault is not None else judge(attempt.batch, self.largest_body))

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        failures_before = self.delivery.failures
        dropped_before = sum(self.delivery.accounting.dropped.values())
        if isinstance(outcome, Accepted):
            self.delivered.update(attempt.batch.events)
        self.delivery.finish(attempt, outcome, self.now)
        if sum(self.delivery.accounting.dropped.values()) > dropped_before:
            self.dropped.update(attempt.batch.events)
        opens_at = self.delivery.paused_until
        if isinstance(outcome, Retryable):
            assert opens_at >= self.now + outcome.retry_after
        if isinstance(outcome, Misconfigured) or (
            isinstance(outcome, Retryable) and not outcome.may_be_poison
        ):
            assert self.now + outcome.retry_after <= opens_at <= self.now + 300.0 + CAP
            assert failures_before <= self.delivery.failures <= failures_before + 1
            assert self.delivery.failures > 0

    @rule()
    def crash_and_restart(self) -> None:
        """What is in memory only is lost; nothing that is in the spool."""
        self.offered = [event for event in self.offered if event in self.settled()]
        self.begin()

    @rule()
    def take_unsent_and_restart(self) -> None:
        events = self.delivery.take_unsent()
        assert len(events) == self.delivery.accounting.in_hand
        self.delivery.requeued(len(events), lost=0)
        assert self.delivery.accounting.balanced
        missing = set(self.offered) - self.settled()
        assert missing <= set(events), "everything that is in memory only comes back"
        self.offered = [event for event in self.offered if event not in missing]
        self.begin()

    def settled(self) -> set[bytes]:
        """What is delivered or was given up."""
        return {*self.delivered, *self.letters(), *self.dropped}

    def letters(self) -> list[bytes]:
        """The dead letters."""
        return self.journal.letters if self.journal is not None else []

    @invariant()
    def every_event_has_one_fate(self) -> None:
        if not hasattr(self, "delivery"):
            return
        accounting = self.delivery.accounting
        assert accounting.balanced
        assert self.taken == accounting.received
        if self.spool is None or self.journal is None:
            assert accounting.spooled == 0
            return
        unresolved, unread = self.spool.unresolved(self.journal), self.spool.unread
        assert len(unresolved) - len(unread) == accounting.spooled
        in_spool = Counter(self.spool.events.values())
        fates = self.delivered + Counter(self.letters())
        resolved = in_spool - Counter(unresolved)
        settled = Counter({event: fates[event] for event in in_spool if fates[event]})
        assert not settled - resolved
        assert not resolved - settled - Counter(self.spool.events[span] for span in self.spool.lost)
        in_flight = {attempt.pending.order for attempt in self.in_flight}
        parked = [
            event
            for order, batch in self.journal.entered.items()
            if batch.record.failures and order not in in_flight
            for event in self.spool.load(batch.spans)
        ]
        size = sum(map(len, unresolved)) - sum(map(len, unread)) - sum(map(len, parked))
        assert size <= (self.concurrency + 2) * self.max_size + 610, "an event more than fits, at most"

    @invariant()
    def only_offered_events_are_delivered_and_good_ones_never_given_up(self) -> None:
        if not hasattr(self, "delivery"):
            return
        assert set(map(kind_of, self.delivered)) <= {"good"}
        assert set(self.delivered) <= self.ever_offered
        given_up = {event for event in [*self.letters(), *self.dropped] if b'"kind"' in event}
        assert self.max_age is not None or "good" not in set(map(kind_of, given_up))

    def teardown(self) -> None:
        """Once nothing fails, everything finds its fate, in a bounded number of steps."""
        if not hasattr(self, "delivery"):
            return
        self.largest_body = 10**9
        if self.journal is not None:
            self.journal.broken = False
        if self.spool is not None:
            self.spool.is_unreadable = False
        for step in range(1_000 + 200 * self.number):
            while self.in_flight:
                finished = self.in_flight.pop()
                self.end(finished, judge(finished.batch))
            self.read()
            unsettled = self.delivery.accounting.in_hand + self.delivery.accounting.spooled
            has_room = self.spool.is_read if self.spool is not None else self.delivery.room > 0
            if unsettled and step % 2 and has_room:
                self.offer([("good", 0)], relayed=True)  # life goes on, which shows what crashes it
            wake_at = self.delivery.wake_at()
            if wake_at is None:
                break
            self.now = max(self.now, wake_at)
            self.attempt()
        assert self.delivery.accounting.in_hand == 0
        assert self.delivery.accounting.spooled == 0
        assert self.delivery.disk_error is None
        self.every_event_has_one_fate()
        events = list(self.offered)
        if self.spool is not None and self.journal is not None:
            assert self.spool.unresolved(self.journal) == []
            assert self.journal.entered == {}
            events += [
                event
                for span, event in self.spool.events.items()
                if b'"kind"' in event and span not in self.spool.lost
            ]
        for event in events:
            assert event in self.settled()
            assert self.delivered[event] <= 1
            assert self.max_age is not None or bool(self.delivered[event]) == (kind_of(event) == "good")


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
        attempt, now = start_next(delivery, now)
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
    delivery.flush()
    now = 0.0
    for failure in range(1, number + 1):
        attempt, now = start_next(delivery, now)
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
    spooled=st.booleans(),
    concurrency=st.integers(1, 3),
)
def test_a_poison_event_costs_only_itself(
    count: int, poisons: set[int], kind: str, spooled: bool, concurrency: int
) -> None:
    """Events that the collector refuses, or falls over, become dead letters; all others arrive."""
    journal = MemoryJournal()
    delivery = make_delivery(max_size=2_000, max_events=20, journal=journal, concurrency=concurrency)
    spool = MemorySpool()
    events = [make_event(number, kind if number in poisons else "good") for number in range(count)]
    bad = sum(number < count for number in poisons)
    for event in events:
        spool.append(event)
    arrived: list[bytes] = []
    now = 0.0
    for number in range(count, count + 20_000):
        if spooled:
            feed(delivery, spool, now)
        while not spool.is_read and delivery.room:
            delivery.offer(spool.read(1, 1).events, now)
        wake_at = delivery.wake_at()
        if wake_at is None:
            break
        if spool.is_read and len(journal.letters) < bad:
            spool.append(make_event(number))  # life goes on, which shows what the collector falls over
        now = max(now, wake_at)
        attempt = delivery.next_attempt(now)
        if attempt is not None:
            outcome = judge(attempt.batch)
            arrived += attempt.batch.events if isinstance(outcome, Accepted) else ()
            delivery.finish(attempt, outcome, now)
    poisoned = [event for event in events if kind_of(event) != "good"]
    assert sorted(poisoned) == sorted(journal.letters)
    assert sorted(set(events) - set(poisoned)) == sorted(set(arrived) & set(events))
    assert len(arrived) == len(set(arrived))
    assert delivery.accounting.balanced


def test_a_413_teaches_a_smaller_size() -> None:
    """After a 413 for several events, batches of several are no larger than half of what was refused."""
    delivery = make_delivery(max_size=1_000, max_events=100)
    for number in range(100):
        if delivery.room:
            delivery.offer([make_event(number, pad=20)], 0.0)
    delivery.flush()
    first = start_one(delivery, 0.0)
    delivery.finish(first, TooLarge("413", 413), 0.0)
    while (attempt := delivery.next_attempt(0.0)) is not None:
        delivery.finish(attempt, Accepted(200), 0.0)
    for number in range(100):
        delivery.offer([make_event(number, pad=20)], 1.0)
        attempt = delivery.next_attempt(1.0)
        if attempt is not None:
            assert attempt.batch.size <= first.batch.size // 2
            delivery.finish(attempt, Accepted(200), 1.0)


@given(
    pads=st.lists(st.integers(0, 400), max_size=40),
    cuts=st.lists(st.integers(1, 10), min_size=40, max_size=40),
    spooled=st.booleans(),
)
def test_it_is_the_same_in_what_bursts_events_come(pads: list[int], cuts: list[int], spooled: bool) -> None:
    """Events make the same batches whether they come one by one, in bursts, or all at once."""
    events = [make_event(number, pad=pad) if pad % 7 else b"?" * pad for number, pad in enumerate(pads)]

    def batches(bursts: Iterable[int]) -> tuple[list[tuple[bytes, ...]], list[int], str]:
        spool, journal = MemorySpool(), MemoryJournal()
        delivery = make_delivery(concurrency=len(events) + 1, journal=journal)
        for event in events:
            spool.append(event)
        refused: list[int] = []
        for burst in bursts:
            run = spool.read(burst, 10**9)
            rejected = delivery.offer_run(run, 0.0) if spooled else delivery.offer(run.events, 0.0)
            refused += [size for size, _ in rejected]
        assert spool.is_read
        delivery.flush()
        attempts = iter(lambda: delivery.next_attempt(0.0), None)
        return [attempt.batch.events for attempt in attempts], refused, str(delivery.accounting)

    assert batches([1] * 40) == batches(cuts) == batches([40])


def test_dead_letters_that_cannot_be_written_are_held() -> None:
    """An event that can't be written is held, and nothing more received, until the disk works."""
    journal = MemoryJournal(broken=True)
    delivery = make_delivery(journal=journal)
    delivery.offer([b"\0 no JSON"], 0.0)
    assert not delivery.room
    assert delivery.accounting.in_hand == 1
    journal.broken = False
    settle(delivery)
    assert [b"\0 no JSON"] == journal.letters
    assert (1, True) == (delivery.accounting.dead_lettered, delivery.room > 0)


@given(age=st.floats(0, 100), limit=st.one_of(st.none(), st.floats(1, 50)))
def test_only_a_limit_gives_up_for_age(age: float, limit: float | None) -> None:
    """An event that can't be delivered is kept for ever, unless `max_age` is set and over."""
    journal = MemoryJournal()
    delivery = make_delivery(give_up_after=limit, journal=journal)
    attempt = start_with(delivery, [make_event(0)], 0.0)
    delivery.finish(attempt, Misconfigured("401", "", from_collector=True), age)
    assert len(journal.letters) == (limit is not None and age >= limit)


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
        attempt = start_one(delivery, now)
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
    attempt = start_one(delivery, 11.0)
    assert attempt.batch.events == (make_event(0),)


def test_failures_under_way_count_once() -> None:
    """Attempts that were in flight together and fail together are one failure, not a jump in the backoff."""
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


@given(
    kinds=st.lists(st.sampled_from(["good", "good", "good", "refused", "crash"]), min_size=1, max_size=60),
    outcomes=st.lists(st.none() | failures, max_size=40),
    seed=st.integers(),
    data=st.data(),
)
def test_after_a_crash_the_same_batches_come_back(
    kinds: list[str], outcomes: list[Outcome | None], seed: int, data: st.DataObject
) -> None:
    """All at once, with the same events, names and records; new batches have greater numbers."""
    spool, journal = MemorySpool(), MemoryJournal()
    for number, kind in enumerate(kinds):
        spool.append(make_event(number, kind))
    start = partial(make_delivery, seed=seed, max_events=12, max_size=2_000, journal=journal, spool=spool)
    delivery = start(concurrency=2)
    now = 0.0
    in_flight: list[Attempt] = []
    for outcome in outcomes:
        feed(delivery, spool, now)
        in_flight += start_all(delivery, now)
        if in_flight:
            attempt = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            delivery.finish(attempt, judge(attempt.batch) if outcome is None else outcome, now)
        now = max(now, delivery.wake_at() or now)
    unfinished = journal.unfinished(now)
    before = {batch.order: (spool.load(batch.spans), batch.record) for batch in unfinished}

    delivery = start(concurrency=200)
    recover(delivery, spool, journal, now)
    feed(delivery, spool, now)
    delivery.flush()
    attempts = [attempt.pending for attempt in start_all(delivery, now)]
    recovered = {
        pending.order: (list(pending.batch.events), pending.record)
        for pending in attempts
        if pending.order in before
    }
    assert before == recovered
    last = max((number for number, _ in before), default=0)
    assert all(pending.number > last for pending in attempts if pending.order not in before)
    events = [event for pending in attempts for event in pending.batch.events]
    assert sorted(events) == sorted(spool.unresolved(journal))
    assert delivery.accounting.recovered == sum(len(batch) for batch, _ in before.values())


@given(count=st.integers(1, 9), missing=st.integers(0, 3), is_part=st.booleans())
def test_a_batch_that_is_rebuilt_with_fewer_events_is_reported(
    count: int, missing: int, is_part: bool
) -> None:
    """It is entered as it is now, under its name, and delivered."""
    spool, journal = MemorySpool(), MemoryJournal()
    for number in range(count):
        spool.append(make_event(number))
    run = spool.read(count, 10_000)
    entered = EnteredBatch((7, 3), count + missing, run.spans, FaultRecord(failures=1, is_part=is_part))
    journal.enter(entered)
    delivery = make_delivery(journal=journal)
    assert delivery.recover(entered, run.events, 0.0) == (missing == 0)
    assert journal.entered == {(7, 3): replace(entered, count=count)}
    (attempt,) = start_all(delivery, 0.0)
    delivery.finish(attempt, Accepted(200), 0.0)
    assert (count, count) == (delivery.accounting.recovered, delivery.accounting.delivered)
    assert ({}, []) == (journal.entered, spool.unresolved(journal))
