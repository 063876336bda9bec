"""Batches that wait or are in flight: their order and their memory. Pure.

Rules:

1. Batches start in the order in which their first events came. One that was refused, or failed in a way that
   its contents may have caused, is set aside: later batches go first, and it is retried after a pause of its
   own, in turns with them. The batch on trial has no pause (`Judgement.goes_first`).
2. New parts of batches are due at once and go ahead of the line, smallest first.
3. `memory` counts the bytes of all batches, waiting or in flight. Single events that were set aside are in
   `held_memory` instead.
4. A batch that is set aside for a time, and whose events are in the spool, is *parked*: only their places
   stay in memory, however long it waits. Its events are read again for the next attempt.
5. A parked batch that memory has no room for keeps no other waiting: smaller ones that are due go first. Once
   it is the first that is due, no new events are taken in until it has started (`is_short`), so its turn
   comes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from .poison import CLEAN, FaultRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .batching import Batch
    from .span import Span

_NOW: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that waits or is in flight, or a part of one.

    Attributes:
        order: Its place in the line: the number of its batch, and of its first event in that.
        batch: Its events.
        record: What is known of its failures.
        is_entered: Whether it is in the journal.
    """

    order: tuple[int, int]
    batch: Batch
    record: FaultRecord = CLEAN
    is_entered: bool = False

    @property
    def count(self) -> int:
        """Events in it."""
        return len(self.batch.events)

    @property
    def opened_at(self) -> float:
        """When its first event came, in seconds of the monotonic clock."""
        return self.batch.opened_at

    @property
    def number(self) -> int:
        """The number of the batch, which its parts share."""
        return self.order[0]

    @property
    def is_new_part(self) -> bool:
        """Whether it is a part of a batch that wasn't tried yet."""
        return self.record.is_part and not self.record.failures

    @property
    def is_held(self) -> bool:
        """Whether it is a single event that failed, or was refused, alone."""
        return self.count == 1 and self.record.failures > 0


@dataclass(frozen=True, slots=True)
class ParkedBatch:
    """A batch that was tried, or a part of one, whose events are in the spool only.

    Attributes:
        order: As in `PendingBatch`.
        count: Events in it.
        size: Bytes of its body.
        opened_at: When its first event came, in seconds of the monotonic clock.
        spans: Where its events are in the spool, in their order.
        record: What is known of its failures.
    """

    order: tuple[int, int]
    count: int
    size: int
    opened_at: float
    spans: tuple[Span, ...]
    record: FaultRecord

    @property
    def is_held(self) -> bool:
        """Whether it is a single event."""
        return self.count == 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver a batch.

    Attributes:
        pending: What it is an attempt for.
        started_at: Seconds of the monotonic clock.
    """

    pending: PendingBatch
    started_at: float

    @property
    def batch(self) -> Batch:
        """What to send."""
        return self.pending.batch


#: A batch that was set aside: when it is due, its events, its `order`, and the batch.
_Aside: TypeAlias = tuple[float, int, tuple[int, int], PendingBatch | ParkedBatch]


class PendingBatches:
    """The line of batches, those that were set aside, and those in flight.

    Args:
        may_park: Whether events in the spool can be read again.

    Attributes:
        memory: Bytes of the batches, without `held_memory`.
        held_memory: Bytes of the single events that were set aside and are in memory.
        held_count: How many single events were set aside.
        parked_places: Places of the batches that are parked.
        is_short: Whether the parked batch that is due first waits for memory.
    """

    def __init__(self, *, may_park: bool) -> None:
        self.memory: int = 0
        self.held_memory: int = 0
        self.held_count: int = 0
        self.parked_places: int = 0
        self._may_park = may_park
        self._line: list[tuple[tuple[int, int], PendingBatch]] = []  # a heap
        self._aside: list[_Aside] = []  # likewise
        self._aside_was_last = False
        self.is_short: bool = False
        self._in_flight: dict[tuple[int, int], Attempt] = {}
        self._number = 0

    @property
    def in_flight(self) -> int:
        """How many batches are in flight."""
        return len(self._in_flight)

    @property
    def are_all_held(self) -> bool:
        """Whether nothing is pending but single events that were set aside, at least one."""
        return 0 < self.held_count == len(self._line) + len(self._aside) + len(self._in_flight)

    @property
    def has_line(self) -> bool:
        """Whether a batch waits that was not set aside."""
        return bool(self._line)

    def due_at(self, spare: float) -> float | None:
        """When a batch may be taken, in seconds of the monotonic clock; None if none may, whatever the time.

        Args:
            spare: Bytes that a parked batch may take.
        """
        if self._line:
            return _NOW
        first = self._first_aside(spare)
        return None if first is None else first[0]

    def _first_aside(self, spare: float) -> _Aside | None:
        """Return the batch that was set aside and is due first among those that memory has room for."""
        if not self._aside or _fits(self._aside[0], spare):
            return self._aside[0] if self._aside else None
        return min((item for item in self._aside if _fits(item, spare)), default=None)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event of any batch came, by the monotonic clock; None without batches."""
        times = [pending.opened_at for pending in self._waiting()]
        times += [attempt.pending.opened_at for attempt in self._in_flight.values()]
        return min(times, default=None)

    def _waiting(self) -> Iterator[PendingBatch | ParkedBatch]:
        yield from (pending for _, pending in self._line)
        yield from (item[-1] for item in self._aside)

    def add(self, batch: Batch) -> None:
        """Put a new batch at the end of the line."""
        self._number += 1
        self.put_back(PendingBatch((self._number, 0), batch))

    def add_recovered(self, pending: PendingBatch) -> None:
        """Put a batch of an earlier run back, before there is any new one."""
        self._number = max(self._number, pending.number)
        if pending.record.failures:
            self._put_aside(self._park(pending), _NOW)
        elif pending.record.is_part:
            self.set_aside(pending)
        else:
            self.put_back(pending)

    def put_back(self, pending: PendingBatch) -> None:
        """Put a batch in its place in the line."""
        heapq.heappush(self._line, (pending.order, pending))
        self._count(pending, 1)

    def set_aside(self, pending: PendingBatch) -> None:
        """Let a batch be due at once, before others."""
        self._put_aside(pending, _NOW)

    def set_aside_until(self, pending: PendingBatch | ParkedBatch, due_at: float) -> None:
        """Let later batches go first until `due_at`, by the monotonic clock, and then take turns with it."""
        self._put_aside(self._park(pending) if isinstance(pending, PendingBatch) else pending, due_at)

    def _put_aside(self, pending: PendingBatch | ParkedBatch, due_at: float) -> None:
        heapq.heappush(self._aside, (due_at, pending.count, pending.order, pending))
        self._count(pending, 1)

    def _park(self, pending: PendingBatch) -> PendingBatch | ParkedBatch:
        batch = pending.batch
        if not batch.spans or not self._may_park:
            return pending
        return ParkedBatch(
            pending.order, pending.count, batch.size, batch.opened_at, batch.spans, pending.record
        )

    def take(self, now: float, spare: float) -> PendingBatch | ParkedBatch | None:
        """Take out the batch that is to be sent next; None if none is due.

        Args:
            now: Seconds of the monotonic clock.
            spare: Bytes that a parked batch may take.
        """
        self.is_short = bool(self._aside) and self._aside[0][0] <= now and not _fits(self._aside[0], spare)
        first = self._first_aside(spare)
        if (
            first is not None
            and first[0] <= now
            and not (self._line and self._aside_was_last and not _is_new_part(first))
        ):
            pending = first[-1]
            if first is self._aside[0]:
                heapq.heappop(self._aside)
            else:
                self._aside.remove(first)
                heapq.heapify(self._aside)
            self._aside_was_last = True
        elif self._line:
            _, pending = heapq.heappop(self._line)
            self._aside_was_last = False
        else:
            return None
        self._count(pending, -1)
        return pending

    def start(self, pending: PendingBatch, now: float) -> Attempt:
        """Put a batch that was taken in flight."""
        attempt = Attempt(pending, now)
        self._in_flight[pending.order] = attempt
        self._count(pending, 1)
        return attempt

    def finish(self, attempt: Attempt) -> None:
        """Take a batch that is no longer in flight."""
        del self._in_flight[attempt.pending.order]
        self._count(attempt.pending, -1)

    def _count(self, pending: PendingBatch | ParkedBatch, sign: int) -> None:
        self.held_count += sign * pending.is_held
        if isinstance(pending, ParkedBatch):
            self.parked_places += sign * len(pending.spans)
        elif pending.is_held:
            self.held_memory += sign * pending.batch.size
        else:
            self.memory += sign * pending.batch.size

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that are in memory only, oldest batch first; attempts in flight included."""
        waiting = [pending for pending in self._waiting() if isinstance(pending, PendingBatch)]
        batches = waiting + [attempt.pending for attempt in self._in_flight.values()]
        self._line, self._aside, self._in_flight = [], [], {}
        return [
            event
            for pending in sorted(batches, key=lambda pending: pending.order)
            if not pending.batch.spans
            for event in pending.batch.events
        ]


def _fits(item: _Aside, spare: float) -> bool:
    """Return whether a batch that was set aside can be in memory."""
    pending = item[-1]
    return isinstance(pending, PendingBatch) or pending.size <= spare


def _is_new_part(item: _Aside) -> bool:
    pending = item[-1]
    return isinstance(pending, PendingBatch) and pending.is_new_part
