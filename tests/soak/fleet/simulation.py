"""A fleet of publishers with the real delivery policy, and one collector that can't serve them all at once.

A discrete event simulation: a heap of what happens next, a clock that jumps from one moment to the next, and
one seeded random source. The same arguments give the same run.

How it works:

- A publisher is a `Delivery` with the real batcher, backoff and limit, and a spool in memory. It is asked for
  attempts when an event comes, when an attempt ends, and at its `wake_at`, as the real publisher does.
- Events come in blocks of `BLOCK` that travel together, once a second for each publisher, out of phase. The
  simulation counts blocks; its figures are in events.
- The collector serves one request after the other. A request of n events takes it `max(1 / requests, n /
  events)` seconds. A request that would wait longer than `patience` is answered with 503.
- The load of a second is the time that the collector would need to serve what it is sent in that second.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from baseplate_events.event_publisher.config.options import OPTION_BY_NAME
from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.policy.outcome import Outcome, classify
from baseplate_events.event_publisher.policy.span import EventRun, Span, records_size
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Response
from tests.soak.fleet.report import BLOCK, SLICES, Capacity, Mode, Phase, Publisher, Report, Slice
from tests.support.simulated_publisher import MemoryJournal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from baseplate_events.event_publisher.policy.pending import Attempt

#: Blocks of a full batch.
BATCH_BLOCKS: Final = 10

#: Settings of the publishers, the defaults: `batch.max_age`, `retry.base`, `retry.cap`, in seconds.
MAX_AGE, BASE, CAP = 1.0, 1.0, 30.0

#: The same of `delivery.concurrency`.
CONCURRENCY: Final = int(OPTION_BY_NAME["delivery.concurrency"].default or 0)

#: Seconds between two blocks of a publisher: a batch is due just before the next block comes, so that a
#: publisher sends a request a second when all is well.
PERIOD: Final = MAX_AGE + 0.001

#: Bytes of a block in the simulation, which is just its number.
_BLOCK_SIZE: Final = 9

#: The size of a block in the spool, and the segment that a publisher reads.
_RECORD_SIZE: Final = records_size((bytes(_BLOCK_SIZE),))
_SEGMENT: Final = bytes(16)

#: Seconds from a connect to the kernel's "connection refused".
_REFUSAL_SECONDS: Final = 0.001


@dataclass(slots=True, eq=False)
class Exchange:
    """A request in flight.

    Attributes:
        publisher: Who sent it.
        attempt: What it sent.
        outcome: What the answer means.
        commit_at: When the collector takes the events for good; infinity if it doesn't.
    """

    publisher: Publisher
    attempt: Attempt
    outcome: Outcome
    commit_at: float = float("inf")


class Fleet:
    """Publishers, a collector, and a clock.

    Args:
        size: How many publishers.
        capacity: The collector's.
        phases: What happens; then the events end, and the fleet goes on until all is delivered.
        seed: Of the random source.
        batch_blocks: Blocks of a full batch.
    """

    def __init__(
        self,
        size: int,
        capacity: Capacity,
        phases: Sequence[Phase],
        *,
        seed: int = 0,
        batch_blocks: int = BATCH_BLOCKS,
    ) -> None:
        self._random = random.Random(seed)
        self._capacity = capacity
        self._phases = phases
        self._phase = phases[0]
        self._phase_ends_at = 0.0
        self._ends_at = sum(phase.seconds for phase in phases)
        self._busy_until = 0.0
        self._slices: list[Slice] = []
        self._in_flight: set[Exchange] = set()
        self._backlog = 0
        self._resets = 0
        self._last_commit_at = 0.0
        self._serial = 0
        # What happens next: time, a serial number that orders equal times, and the action.
        self._agenda: list[tuple[float, int, Phase | Publisher | Exchange, bool]] = []
        self._publishers = [self._make_publisher(batch_blocks) for _ in range(size)]
        at = 0.0
        for phase in phases:
            self._plan(at, phase)
            at += phase.seconds
        for publisher in self._publishers:
            self._plan(self._random.uniform(0.0, PERIOD), publisher, block=True)

    def _make_publisher(self, batch_blocks: int) -> Publisher:
        journal = MemoryJournal()
        batch_size = FORMATS["2j"].size(batch_blocks, batch_blocks * _BLOCK_SIZE)
        delivery = Delivery(
            Batcher(FORMATS["2j"], max_size=batch_size, max_events=batch_blocks, max_age=MAX_AGE),
            ConcurrencyLimit(Backoff(BASE, CAP, random.Random(self._random.getrandbits(64))), CONCURRENCY),
            concurrency=CONCURRENCY,
            max_size=batch_size,
            queue_capacity=10_000,
            queue_message_size=_BLOCK_SIZE,
            journal=journal,
        )
        return Publisher(delivery, journal)

    def _plan(self, at: float, what: Phase | Publisher | Exchange, *, block: bool = False) -> None:
        self._serial += 1
        heapq.heappush(self._agenda, (at, self._serial, what, block))

    def run(self, patience: float = 86_400.0) -> Report:
        """Let everything happen.

        Args:
            patience: Seconds of simulated time after the last event at most; what isn't delivered then stays
                undelivered in the report.
        """
        while self._agenda:
            now, _, what, block = heapq.heappop(self._agenda)
            if now > self._ends_at + patience:
                break
            while len(self._slices) <= now * SLICES:
                self._close_slice()
            if isinstance(what, Publisher):
                if block:
                    self._bring_block(what, now)
                elif now < what.wake_at:
                    continue  # it was called in the meantime, and has another `wake_at`
                else:
                    what.wake_at = float("inf")
                self._ask(what, now)
            elif isinstance(what, Exchange):
                self._answer(what, now)
            else:
                self._begin(what, now)
        self._close_slice()
        return Report(
            self._capacity,
            self._phases,
            self._slices,
            self._publishers,
            self._resets,
            self._last_commit_at,
        )

    def _close_slice(self) -> None:
        if self._slices:
            self._slices[-1].backlog = self._backlog
        self._slices.append(Slice())

    def _begin(self, phase: Phase, now: float) -> None:
        self._phase = phase
        self._phase_ends_at = now + phase.seconds
        if phase.mode is Mode.UP:
            return
        reset = classify(Failure(FailureKind.INTERRUPTED, "reset"))
        self._busy_until = now
        for exchange in sorted(self._in_flight, key=lambda exchange: exchange.commit_at):
            if exchange.commit_at <= now:
                self._resets += exchange.attempt.pending.count
                self._commit(exchange)
            exchange.commit_at = float("inf")
            exchange.outcome = reset
            self._answer(exchange, now)

    def _bring_block(self, publisher: Publisher, now: float) -> None:
        publisher.appended += 1
        publisher.committed.append(0)
        self._backlog += BLOCK
        if now + PERIOD < self._ends_at:
            self._plan(now + PERIOD, publisher, block=True)

    def _ask(self, publisher: Publisher, now: float) -> None:
        """Do what a publisher does whenever it wakes."""
        delivery = publisher.delivery
        _read(publisher, now)
        while (attempt := delivery.next_attempt(now)) is not None:
            self._send(publisher, attempt, now)
            _read(publisher, now)
        wake_at = delivery.wake_at()
        if wake_at is not None and not now < publisher.wake_at <= wake_at:
            publisher.wake_at = max(wake_at, now)
            self._plan(publisher.wake_at, publisher)

    def _send(self, publisher: Publisher, attempt: Attempt, now: float) -> None:
        blocks = len(attempt.batch.events)
        cost = self._capacity.cost(blocks)
        current = self._slices[-1]
        current.requests += 1
        current.events += blocks * BLOCK
        current.load += cost
        latency = self._capacity.latency
        commit_at = float("inf")
        if self._phase.mode is Mode.REFUSING:
            outcome = _REFUSED
            answer_at = now + _REFUSAL_SECONDS
        elif self._phase.mode is Mode.UNAVAILABLE:
            seconds = int(self._phase_ends_at - now) + 1 if self._phase.announced else 0
            outcome = _unavailable(seconds)
            answer_at = now + latency
            current.rejected += 1
        elif max(self._busy_until - now, 0.0) + cost > self._capacity.patience:
            outcome = _unavailable(self._capacity.retry_after)
            answer_at = now + latency
            current.rejected += 1
        else:
            outcome = _ACCEPTED
            self._busy_until = max(self._busy_until, now) + cost
            commit_at = self._busy_until + latency / 2
            answer_at = commit_at + latency / 2
            current.accepted += 1
            current.accepted_events += blocks * BLOCK
        exchange = Exchange(publisher, attempt, outcome, commit_at)
        self._in_flight.add(exchange)
        self._plan(answer_at, exchange)

    def _answer(self, exchange: Exchange, now: float) -> None:
        if exchange not in self._in_flight:
            return  # its connection was reset
        self._in_flight.remove(exchange)
        if exchange.commit_at <= now:
            self._commit(exchange)
            self._backlog -= len(exchange.attempt.batch.events) * BLOCK
        exchange.publisher.delivery.finish(exchange.attempt, exchange.outcome, now)
        self._ask(exchange.publisher, now)

    def _commit(self, exchange: Exchange) -> None:
        self._last_commit_at = exchange.commit_at
        for block in exchange.attempt.batch.events:
            exchange.publisher.committed[int(block[1:-1])] += 1


def _read(publisher: Publisher, now: float) -> None:
    """Read what fits into memory. A block is just its number, so no spool is needed."""
    while (left := publisher.delivery.memory_left) > 0 and publisher.read < publisher.appended:
        first = publisher.read
        publisher.read = min(publisher.appended, first + -(-left // _BLOCK_SIZE))
        blocks = [b"[%7d]" % number for number in range(first, publisher.read)]
        start = first * _RECORD_SIZE
        run = EventRun(blocks, (Span(_SEGMENT, start, start + records_size(blocks)),))
        assert publisher.delivery.offer_run(run, now) == []


_ACCEPTED: Final = classify(Response(200))
_REFUSED: Final = classify(Failure(FailureKind.UNREACHABLE, "connection refused"))


def _unavailable(retry_after: int) -> Outcome:
    return classify(Response(503, retry_after=str(retry_after) if retry_after else None))
