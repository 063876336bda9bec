"""Simulated peers of the delivery policy: spool and journal in memory, a collector that judges contents."""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from baseplate_events.errors import EventError
from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from baseplate_events.event_publisher.policy.batching import FORMATS, Batch, Batcher
from baseplate_events.event_publisher.policy.byte_ranges import ByteRanges
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable, TooLarge
from baseplate_events.event_publisher.policy.span import (
    EventRun,
    Span,
    join_spans,
    records_size,
    spans_without,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from baseplate_events.event_publisher.policy.journal import DeadLetter
    from baseplate_events.event_publisher.policy.pending import Attempt
    from baseplate_events.event_publisher.policy.rejection import Rejection

BASE, CAP = 1.0, 30.0


def make_event(number: int, kind: str = "good", pad: int = 0) -> bytes:
    """Make a distinct event; `kind` decides what the simulated collector does with it."""
    return json.dumps({"id": number, "kind": kind, "pad": "x" * pad}).encode()


def kind_of(event: bytes) -> str:
    """Return the kind of an event."""
    return str(json.loads(event)["kind"])


@dataclass
class MemoryJournal:
    """The journal of a policy, in memory: it survives a crash of the policy.

    It checks the policy's use of it: places are entered or resolved once, a batch that is entered again has
    the same places, and the parts of a split have the places of the whole, in their order.

    Attributes:
        broken: Whether letters can't be written.
        entered: Unfinished batches.
        letters: The dead letters.
    """

    broken: bool = False
    entered: dict[tuple[int, int], EnteredBatch] = field(default_factory=dict[tuple[int, int], EnteredBatch])
    letters: list[bytes] = field(default_factory=list[bytes])
    _taken: dict[bytes, ByteRanges] = field(default_factory=dict[bytes, ByteRanges])
    _resolved: dict[bytes, ByteRanges] = field(default_factory=dict[bytes, ByteRanges])

    @property
    def resolved_size(self) -> int:
        """Bytes of the resolved places."""
        return sum(ranges.total for ranges in self._resolved.values())

    def is_taken(self, span: Span) -> bool:
        """Whether the place of an event was entered or resolved."""
        ranges = self._taken.get(span.identity)
        return ranges is not None and ranges.end_at(span.start) >= span.end

    def is_resolved(self, span: Span) -> bool:
        """Whether the place of an event is resolved."""
        ranges = self._resolved.get(span.identity)
        return ranges is not None and ranges.end_at(span.start) >= span.end

    def unfinished(self, now: float) -> list[EnteredBatch]:
        """Return the unfinished batches in order, as a starting publisher knows them."""
        unfinished: list[EnteredBatch] = []
        for _, batch in sorted(self.entered.items()):
            refused_at = None if batch.record.refused_at is None else now
            record = replace(batch.record, tried=0, failed=0, accepted=0, refused_at=refused_at)
            unfinished.append(replace(batch, record=record))
        return unfinished

    def enter(self, batch: EnteredBatch, /) -> None:
        before = self.entered.get(batch.order)
        assert batch.spans
        assert batch.count > 0
        if before is None:
            _add(self._taken, batch.spans)
        else:
            assert before != batch
            assert before.spans == batch.spans
        self.entered[batch.order] = batch

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch], /) -> None:
        whole = self.entered.pop(order)
        assert whole.spans == join_spans(span for part in parts for span in part.spans)
        assert whole.count == sum(part.count for part in parts)
        for part in parts:
            assert part.spans
            assert part.order not in self.entered
            self.entered[part.order] = part

    def shrink(self, rest: EnteredBatch, lost: int, /) -> None:
        before = self.entered.pop(rest.order)
        assert lost > 0
        assert (before.count, bool(rest.count)) == (rest.count + lost, bool(rest.spans))
        assert spans_without(rest.spans, before.spans) == ()
        _add(self._resolved, spans_without(before.spans, rest.spans))
        if rest.count:
            self.entered[rest.order] = rest

    def forget(self, order: tuple[int, int]) -> None:
        """Take a batch out, so that its events count as new."""
        for identity, start, end in self.entered.pop(order).spans:
            place = ByteRanges([(start, end)])
            rest = [gap for pair in self._taken[identity].pairs() for gap in place.gaps(*pair)]
            self._taken[identity] = ByteRanges(rest)

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = (), /) -> int:
        batch = self.entered[order]
        assert len(letters) in {0, batch.count}
        self._write(letters)
        _add(self._resolved, batch.spans)
        del self.entered[order]
        return 0

    def resolve(self, spans: Sequence[Span], letters: Sequence[DeadLetter] = (), /) -> int:
        self._write(letters)
        _add(self._taken, spans)
        _add(self._resolved, spans)
        return 0

    def _write(self, letters: Sequence[DeadLetter]) -> None:
        if letters and self.broken:
            raise EventError("the disk is broken")
        assert all(letter.reason for letter in letters)
        self.letters += [letter.event for letter in letters]


def _add(ranges: dict[bytes, ByteRanges], spans: Sequence[Span]) -> None:
    """Add places, which must be new."""
    for identity, start, end in spans:
        of_segment = ranges.setdefault(identity, ByteRanges())
        before = of_segment.total
        of_segment.add(start, end)
        assert of_segment.total - before == end - start > 0, "a place was entered or resolved twice"


class MemorySpool:
    """The segments of two writers that take turns, in memory, and a reader of them.

    Args:
        turn: Events that each of them appends in its turn.

    Attributes:
        events: All events that were appended, by their places.
        is_unreadable: Whether batches that were entered can't be read now.
        lost: Places of events that are gone.
    """

    def __init__(self, turn: int = 3) -> None:
        self.is_unreadable: bool = False
        self.lost: set[Span] = set()
        self.events: dict[Span, bytes] = {}
        self._turn = turn
        self._ends = {b"A" * 16: 0, b"B" * 16: 0}
        self._unread: deque[Span] = deque()
        self._by_start: dict[tuple[bytes, int], Span] = {}

    @property
    def is_read(self) -> bool:
        """Whether all events were read."""
        return not self._unread

    @property
    def unread(self) -> list[bytes]:
        """The events that weren't read."""
        return [self.events[span] for span in self._unread]

    def append(self, event: bytes) -> None:
        """Append an event to the segment of the writer whose turn it is."""
        identity = list(self._ends)[len(self.events) // self._turn % len(self._ends)]
        start = self._ends[identity]
        span = Span(identity, start, start + records_size((event,)))
        self._ends[identity] = span.end
        self.events[span] = event
        self._by_start[identity, start] = span
        self._unread.append(span)

    def read(self, max_events: int, max_bytes: int) -> EventRun:
        """Read the next events, at most so many and so many bytes, but at least one."""
        events: list[bytes] = []
        spans: list[Span] = []
        while self._unread and len(events) < max_events:
            event = self.events[self._unread[0]]
            max_bytes -= len(event)
            if events and max_bytes < 0:
                break
            events.append(event)
            spans.append(self._unread.popleft())
        return EventRun(events, join_spans(spans))

    def reader_for(self, journal: MemoryJournal) -> Callable[[tuple[int, int]], EventRun | None]:
        """Return what reads the events of a batch again that is in a journal; see `Delivery`."""

        def load(order: tuple[int, int]) -> EventRun | None:
            if self.is_unreadable:
                return None
            left = [span for span in self.places(journal.entered[order].spans) if span not in self.lost]
            return EventRun([self.events[span] for span in left], join_spans(left))

        return load

    def load(self, spans: Iterable[Span]) -> list[bytes]:
        """Return the events that were appended at places."""
        return [self.events[span] for span in self.places(spans)]

    def places(self, spans: Iterable[Span]) -> list[Span]:
        """Return the place of each event within places."""
        places: list[Span] = []
        for identity, start, end in spans:
            while start < end:
                places.append(self._by_start[identity, start])
                start = places[-1].end  # noqa: PLW2901 - a place of many is walked
            assert start == end
        return places

    def reread(self, journal: MemoryJournal) -> None:
        """Read again from the start, as after a crash: whatever the journal doesn't know."""
        torn = [span for span in self.events if span in self.lost and not journal.is_taken(span)]
        journal.resolve(torn)
        self._unread = deque(span for span in self.events if not journal.is_taken(span))

    def unresolved(self, journal: MemoryJournal) -> list[bytes]:
        """Return the unresolved events."""
        return [event for span, event in self.events.items() if not journal.is_resolved(span)]


def recover(delivery: Delivery, spool: MemorySpool, journal: MemoryJournal, now: float) -> None:
    """Recover a new policy from the journal of an earlier one."""
    for entered in journal.unfinished(now):
        if spool.lost.isdisjoint(spool.places(entered.spans)):
            assert delivery.recover(entered, spool.load(entered.spans), now)
        else:
            journal.forget(entered.order)
    spool.reread(journal)


def feed(delivery: Delivery, spool: MemorySpool, now: float) -> list[tuple[int, Rejection]]:
    """Offer the events of a spool to a policy, while it has memory for them."""
    rejected: list[tuple[int, Rejection]] = []
    while (memory_left := delivery.memory_left) > 0 and not spool.is_read:
        rejected += delivery.offer_run(spool.read(1_000, memory_left), now)
    return rejected


def start_one(delivery: Delivery, now: float) -> Attempt:
    """Start the attempt that may start now; there must be one."""
    attempt = delivery.next_attempt(now)
    assert attempt is not None
    return attempt


def start_next(delivery: Delivery, now: float) -> tuple[Attempt, float]:
    """Let the time pass until an attempt may start, and start it; return it, and when that was."""
    wake_at = delivery.wake_at()
    assert wake_at is not None
    now = max(now, wake_at)
    return start_one(delivery, now), now


def start_with(delivery: Delivery, events: Iterable[bytes], now: float = 0.0) -> Attempt:
    """Offer events, close their batch, and start the attempt that is due."""
    delivery.offer(iter(events), now)
    delivery.flush()
    return start_one(delivery, now)


def start_all(delivery: Delivery, now: float) -> list[Attempt]:
    """Start all attempts that may start now; then nothing is due before `wake_at`."""
    attempts = list(iter(lambda: delivery.next_attempt(now), None))
    wake_at = delivery.wake_at()
    assert wake_at is None or wake_at > now, "it asks for a turn in which nothing can be done"
    return attempts


def judge(batch: Batch, largest_body: int = 10**9) -> Outcome:
    """Behave like an honest collector: refuse a batch for its content, crash on it, or accept it."""
    if batch.size > largest_body and len(batch.events) > 1:
        return TooLarge("413", 413)
    kinds = set(map(kind_of, batch.events))
    if "crash" in kinds:
        return Retryable("500", from_collector=True, status=500, may_be_poison=True)
    if "refused" in kinds:
        return Refused("400", 400)
    return Accepted(200)


def make_delivery(
    *,
    concurrency: int = 1,
    max_size: int = 400,
    max_events: int = 5,
    max_age: float = 1.0,
    queue_capacity: int = 100,
    journal: MemoryJournal | None = None,
    spool: MemorySpool | None = None,
    give_up_after: float | None = None,
    seed: int = 0,
) -> Delivery:
    """Create a delivery with small bounds; with a spool, failed batches wait there."""
    return Delivery(
        Batcher(FORMATS["2j"], max_size=max_size, max_events=max_events, max_age=max_age),
        ConcurrencyLimit(Backoff(BASE, CAP, random.Random(seed)), concurrency),
        concurrency=concurrency,
        max_size=max_size,
        queue_capacity=queue_capacity,
        queue_message_size=max_size,
        journal=journal,
        load=None if spool is None or journal is None else spool.reader_for(journal),
        max_age=give_up_after,
    )
