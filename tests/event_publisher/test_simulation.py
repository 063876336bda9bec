"""The whole publisher but its threads: simulated clock, queue, disk and collector, real policy and spool.

Every schedule is drawn by hypothesis, so a failure comes back as the shortest schedule that shows it.
"""

from __future__ import annotations

import errno
import random
from collections import Counter, deque
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.policy.outcome import Accepted, Misconfigured, Outcome, Retryable
from baseplate_events.event_publisher.spool.spool import Spool
from tests.support.machines import check_machine
from tests.support.simulated_disk import Crashed, SimulatedDisk
from tests.support.simulated_publisher import (
    CAP,
    MemoryDeadLetters,
    judge,
    kind_of,
    make_delivery,
    make_event,
)

if TYPE_CHECKING:
    from baseplate_events.event_publisher.policy.delivery import Delivery
    from baseplate_events.event_publisher.policy.pending import Attempt

#: Events that the simulated queue holds, as on a stock Linux.
QUEUE_CAPACITY = 10

MAX_SIZE = 300

failures = st.one_of(
    st.builds(Retryable, st.just("503"), st.booleans(), st.sampled_from([0.0, 5.0, 300.0])),
    st.builds(
        Retryable,
        st.just("500"),
        from_collector=st.just(True),
        status=st.just(500),
        may_be_poison=st.just(True),
    ),
    st.builds(Misconfigured, st.just("401"), st.just("check the key"), st.booleans()),
)


class PublisherMachine(RuleBasedStateMachine):
    """Producers, a queue, a publisher that dies and comes back, its disk, and a collector."""

    @initialize(
        sync=st.sampled_from(Sync),
        concurrency=st.integers(1, 3),
        seed=st.integers(),
        max_events=st.integers(1, 6),
        sizes=st.sampled_from([(3_000, 10**9), (3_000, 180), (6_400, 400)]),
    )
    def start(self, sync: Sync, concurrency: int, seed: int, max_events: int, sizes: tuple[int, int]) -> None:
        self.sync = sync
        self.concurrency = concurrency
        self.max_events = max_events
        self.max_size, self.journal_size = sizes
        self.random = random.Random(seed)
        self.disk = SimulatedDisk()
        self.dead_letters = MemoryDeadLetters()
        self.queue: deque[bytes] = deque()
        self.accepted_puts: set[bytes] = set()
        self.committed: Counter[bytes] = Counter()
        self.resent = 0
        self.unsafe: set[bytes] = set()  # what a power cut may have taken
        self.unforced: set[bytes] = set()
        self.missing_per_crash: list[set[bytes]] = []
        self.now = 1_000.0
        self.number = 0
        self.begin()

    def begin(self) -> None:
        """Start a publisher on what is there."""
        self.disk.heal()
        self.spool = Spool(
            self.disk,
            "spool",
            version="2j",
            max_size=self.max_size,
            sync=self.sync,
            journal_size=self.journal_size,
        )
        self.delivery: Delivery = make_delivery(
            concurrency=self.concurrency,
            max_size=MAX_SIZE,
            max_events=self.max_events,
            store=self.spool,
            dead_letters=self.dead_letters,
            queue_capacity=QUEUE_CAPACITY,
            now=self.now,
        )
        self.in_flight: list[Attempt] = []

    # --- what producers, clock and disk do ---

    @rule(
        kinds=st.lists(
            st.sampled_from(["good", "good", "good", "refused"]), min_size=1, max_size=QUEUE_CAPACITY
        ),
        pad=st.integers(0, 40),
    )
    def put(self, kinds: list[str], pad: int) -> None:
        """Producers put events, and the publisher takes them if it can."""
        for kind in kinds:
            if len(self.queue) < QUEUE_CAPACITY:
                event = make_event(self.number, kind, pad)
                self.number += 1
                self.queue.append(event)
                self.accepted_puts.add(event)
        self.receive(QUEUE_CAPACITY // 2)

    @rule(seconds=st.sampled_from([0.01, 1.0, 30.0, 300.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        call=st.sampled_from(["create", "write", "sync", "sync_names", "delete", "read"]),
        times=st.integers(1, 3),
    )
    def let_the_disk_fail(self, call: str, times: int) -> None:
        self.disk.fail(call, errno.EIO, times)  # type: ignore[arg-type]  # a name of a call, as drawn

    @rule(room=st.integers(0, 200))
    def fill_the_disk(self, room: int) -> None:
        self.disk.capacity = self.disk.used + room

    @rule()
    def heal_the_disk(self) -> None:
        self.disk.heal()
        self.dead_letters.broken = False

    @rule()
    def break_the_dead_letters(self) -> None:
        self.dead_letters.broken = True

    # --- what the publisher does ---

    @rule(count=st.integers(1, QUEUE_CAPACITY))
    def receive(self, count: int) -> None:
        while count and self.queue and (room := self.delivery.room):
            events = [self.queue.popleft() for _ in range(min(count, room, len(self.queue)))]
            self.delivery.offer(events, self.now)
            count -= len(events)

    @rule(count=st.integers(1, 6), calls=st.integers(0, 6), torn=st.integers(0, 80))
    def receive_and_crash_on_the_way(self, count: int, calls: int, torn: int) -> None:
        """The process dies within a call of the disk, or after it; at most one event was on its way."""
        self.disk.crash_after(calls, torn)
        try:
            for _ in range(count):
                if self.queue and self.delivery.room:
                    event = self.queue.popleft()
                    self.unforced.add(event)
                    self.delivery.offer([event], self.now)
                    self.unforced.discard(event)
            self.send()
        except Crashed:
            pass
        self.crash_now()

    @rule()
    def crash(self) -> None:
        self.crash_now()

    def crash_now(self) -> None:
        self.note_held()
        self.disk.crash()
        self.begin()
        self.note_missing(limit=1)

    @rule()
    def cut_power(self) -> None:
        """The queue is memory and is gone; the disk keeps what was forced onto it."""
        self.note_held()
        before = self.on_disk() - self.unforced
        self.disk.cut_power(self.random)
        self.queue.clear()
        self.begin()
        if self.sync is Sync.EVENT:
            assert before <= self.on_disk() | self.settled(), "what append returned for was forced"
        self.unsafe |= self.accepted_puts - self.on_disk() - self.settled()

    @rule()
    def stop_and_start(self) -> None:
        """A stop puts back what is in memory only, and leaves the rest in the spool."""
        events = self.delivery.take_unsent()
        self.spool.close()
        self.queue.extendleft(reversed(events))
        self.disk.crash()
        self.begin()
        self.note_missing(limit=0)

    def send(self) -> None:
        attempt = self.delivery.next_attempt(self.now)
        if attempt is not None:
            assert self.now >= self.delivery.paused_until
            self.in_flight.append(attempt)

    @rule(
        faults=st.lists(st.one_of(st.none(), failures), min_size=1, max_size=6),
        commits=st.booleans(),
        newest_first=st.booleans(),
    )
    def exchange(self, faults: list[Outcome | None], commits: bool, newest_first: bool) -> None:
        """Attempts start as soon as they may, and end in any order.

        A collector may have taken a batch (`commits`) though the publisher never hears of it.
        """
        for fault in faults:
            wake_at = self.delivery.wake_at()
            if wake_at is not None:
                self.now = max(self.now, wake_at)
            self.send()
            if self.in_flight and (fault is None or len(self.in_flight) == self.concurrency):
                self.end(self.in_flight.pop(-1 if newest_first else 0), fault, commits=commits)

    @precondition(lambda self: bool(getattr(self, "in_flight", False)))
    @rule(fault=st.one_of(st.none(), failures), commits=st.booleans())
    def finish(self, fault: Outcome | None, commits: bool) -> None:
        self.end(self.in_flight.pop(), fault, commits=commits)

    def end(self, attempt: Attempt, fault: Outcome | None, *, commits: bool) -> None:
        outcome = judge(attempt.batch)
        if isinstance(outcome, Accepted) and (fault is None or commits):
            self.committed.update(attempt.batch.events)
        if fault is not None:
            outcome = fault
        self.delivery.finish(attempt, outcome, self.now)
        if isinstance(outcome, Retryable | Misconfigured) and fault is not None:
            assert self.delivery.paused_until <= self.now + 300.0 + CAP

    # --- what must hold ---

    def note_held(self) -> None:
        """An event that append didn't return for may be on the disk, but nobody has forced it there."""
        held = self.delivery.unspooled
        if held is not None:
            self.unforced.add(held)

    def on_disk(self) -> set[bytes]:
        """What a publisher that starts now would recover."""
        spool = Spool(self.disk, "spool", version="2j", max_size=10**9, sync=self.sync)
        faults, self.disk._faults = self.disk._faults, {}  # pyright: ignore[reportPrivateUsage]
        events = {event for segment in spool.recover() for event in spool.load(segment)}
        self.disk._faults = faults  # pyright: ignore[reportPrivateUsage]
        return events

    def settled(self) -> set[bytes]:
        return {*self.committed, *self.dead_letters.letters}

    def note_missing(self, limit: int) -> None:
        """A crash costs at most the one event between receive and append."""
        known = {event for missing in self.missing_per_crash for event in missing} | self.unsafe
        missing = self.accepted_puts - self.on_disk() - self.settled() - set(self.queue) - known
        assert len(missing) <= limit
        self.missing_per_crash.append(missing)

    @invariant()
    def books_are_balanced(self) -> None:
        if hasattr(self, "delivery"):
            assert self.delivery.accounting.balanced

    @invariant()
    def nothing_is_invented(self) -> None:
        if hasattr(self, "delivery"):
            assert set(self.committed) <= self.accepted_puts
            assert set(self.dead_letters.letters) <= self.accepted_puts
            assert {kind_of(event) for event in self.committed} <= {"good"}
            assert {kind_of(event) for event in self.dead_letters.letters} <= {"refused"}

    def teardown(self) -> None:
        """Once faults end, every event whose put returned has arrived or is a dead letter, at least once."""
        if not hasattr(self, "delivery"):
            return
        self.disk.heal()
        self.dead_letters.broken = False
        lost = {event for missing in self.missing_per_crash for event in missing} | self.unsafe
        unsettled = self.accepted_puts - lost
        for step in range(1_000 + 200 * self.number):
            for attempt in self.in_flight:
                outcome = judge(attempt.batch)
                if isinstance(outcome, Accepted):
                    self.committed.update(attempt.batch.events)
                self.delivery.finish(attempt, outcome, self.now)
            self.in_flight = []
            while self.queue and self.delivery.room:
                self.delivery.offer([self.queue.popleft()], self.now)
            unsettled -= self.settled()
            if unsettled and step % 2 and not self.queue:
                self.put(["good"], 0)  # life goes on, which shows what the collector refuses
            wake_at = self.delivery.wake_at()
            if wake_at is None and not self.queue:
                break
            self.now = max(self.now, wake_at if wake_at is not None else self.now)
            self.send()
        assert not self.queue
        assert self.delivery.accounting.in_hand == self.delivery.accounting.spooled == 0
        assert self.accepted_puts - lost <= self.settled()
        assert self.on_disk() == set()


def test_a_publisher_through_every_fault() -> None:
    """Whatever happens when, nothing is lost but one event a crash; all arrive once faults end."""
    check_machine(PublisherMachine, steps=40, examples=100)
