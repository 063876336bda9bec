"""Batches that wait or are in flight: their order, their memory, and the segments that they need. Pure.

Rules:

1. Batches are started in the order in which their first events came, unless the collector is failing and
   one of them may be the cause: then batches with fewer such failures go first.
2. `memory` counts the bytes of all batches that are in memory, waiting or in flight. A batch of the spool can
   wait without being in memory.
3. A segment is released when every part of it has found its fate.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .batching import Batch
    from .store import Segment, Store


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that waits or is in flight, or a part of one.

    Attributes:
        order: What it is sorted by: the number of its batch, and of its first event in that.
        count: Events in it.
        opened_at: When its first event came, in seconds of the monotonic clock.
        batch: Its events, or None while they are on disk only.
        segment: Where they are on disk, or None without a spool.
        failures: Failures that it may have caused: 5xx responses and hang-ups.
        witnessed: Those of them that speak against it: others were accepted between each two.
        accepted: Batches that had been accepted in total at the last of these.
        recoveries: Batches that had been accepted after such failures, in total, at the first of these.
        is_part: Whether it is a part of a batch that was split.
    """

    order: tuple[int, int]
    count: int
    opened_at: float
    batch: Batch | None
    segment: Segment | None
    failures: int = 0
    witnessed: int = 0
    accepted: int = 0
    recoveries: int = 0
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver a batch.

    Attributes:
        pending: What it is an attempt for.
        batch: What to send.
        started_at: Seconds of the monotonic clock.
    """

    pending: PendingBatch
    batch: Batch
    started_at: float


class PendingBatches:
    """The line of batches, and those in flight.

    Args:
        store: The spool, or None.

    Attributes:
        memory: Bytes of the batches that are in memory.
    """

    def __init__(self, store: Store | None) -> None:
        self.memory: int = 0
        self._store = store
        self._waiting: list[tuple[tuple[int, int], PendingBatch]] = []  # a heap
        self._in_flight: dict[tuple[int, int], Attempt] = {}
        self._references: dict[int, int] = {}  # parts that have found no fate yet, by segment
        self._number = 0

    @property
    def waiting(self) -> int:
        """How many batches wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """How many batches are in flight."""
        return len(self._in_flight)

    @property
    def only_suspects_wait(self) -> bool:
        """Whether every batch that waits, if any, has failures that it may have caused."""
        return all(pending.failures for _, pending in self._waiting)

    @property
    def suspect_events(self) -> int:
        """How many events wait in batches with failures that these may have caused."""
        return sum(pending.count for _, pending in self._waiting if pending.failures)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event of any batch came, by the monotonic clock; None without batches."""
        times = [pending.opened_at for _, pending in self._waiting]
        times += [attempt.pending.opened_at for attempt in self._in_flight.values()]
        return min(times, default=None)

    def add(self, count: int, opened_at: float, batch: Batch | None, segment: Segment | None) -> None:
        """Put a new batch at the end of the line."""
        self._number += 1
        self.add_part(PendingBatch((self._number, 0), count, opened_at, batch, segment))

    def add_part(self, pending: PendingBatch) -> None:
        """Put a batch, or a part of one, in its place of the line; its segment gets one reference more."""
        if pending.segment is not None:
            self.hold(pending.segment)
        self.put_back(pending)

    def put_back(self, pending: PendingBatch) -> None:
        """Put a batch that was taken or finished back in its place of the line."""
        if pending.batch is not None:
            self.memory += pending.batch.size
        heapq.heappush(self._waiting, (pending.order, pending))

    def take(self, *, suspects_last: bool) -> PendingBatch:
        """Take the batch out of the line that is to be sent next; there must be one.

        Args:
            suspects_last: Whether batches with failures that they may have caused wait for those with fewer.
        """
        if suspects_last and self._waiting[0][1].failures:
            item = min(self._waiting, key=lambda item: (item[1].failures, item[0]))
            self._waiting.remove(item)
            heapq.heapify(self._waiting)
        else:
            item = heapq.heappop(self._waiting)
        pending = item[1]
        if pending.batch is not None:
            self.memory -= pending.batch.size
        return pending

    def load(self, pending: PendingBatch) -> tuple[bytes, ...]:
        """Read the events of a batch that isn't in memory: those that are whole, perhaps none.

        Raises:
            EventError: The disk fails; nothing changed.
        """
        if self._store is None or pending.segment is None:
            raise AssertionError("a batch has its events in memory or a segment")
        return self._store.load(pending.segment)

    def start(self, pending: PendingBatch, batch: Batch, now: float) -> Attempt:
        """Put a batch that was taken in flight."""
        attempt = Attempt(pending, batch, now)
        self._in_flight[pending.order] = attempt
        self.memory += batch.size
        return attempt

    def finish(self, attempt: Attempt) -> PendingBatch:
        """Take a batch that is no longer in flight, with the events that were sent."""
        del self._in_flight[attempt.pending.order]
        self.memory -= attempt.batch.size
        return replace(attempt.pending, batch=attempt.batch, count=len(attempt.batch.events))

    def hold(self, segment: Segment) -> None:
        """Keep a segment until one `release` more."""
        self._references[segment.number] = self._references.get(segment.number, 0) + 1

    def release(self, segment: Segment | None) -> None:
        """Let go of a segment for a part that needs it no longer; the last part deletes it."""
        if segment is None or self._store is None:
            return
        self._references[segment.number] -= 1
        if not self._references[segment.number]:
            del self._references[segment.number]
            self._store.release(segment.number)

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that are in memory only, oldest batch first; attempts in flight included."""
        batches = [pending for _, pending in self._waiting]
        batches += [replace(attempt.pending, batch=attempt.batch) for attempt in self._in_flight.values()]
        self._waiting, self._in_flight = [], {}
        return [
            event
            for pending in sorted(batches, key=lambda pending: pending.order)
            if pending.segment is None and pending.batch is not None
            for event in pending.batch.events
        ]
