"""Batches that wait or are in flight: their order and their memory. Pure.

Rules:

1. Batches are started in the order in which their first events came. One that failed in a way that its
   contents may have caused, or was refused, is set aside: later batches go first, and it is retried after a
   pause of its own, in turns with them. The batch on trial has no pause (`Judgement.goes_first`).
2. New parts of batches are due at once and go ahead of the line, smallest first.
3. `memory` counts the bytes of all batches, waiting or in flight, except those of single events that were
   set aside, which `held_memory` counts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .poison import CLEAN, FaultRecord

if TYPE_CHECKING:
    from .batching import Batch


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that waits or is in flight, or a part of one.

    Attributes:
        order: What it is sorted by: the number of its batch, and of its first event in that.
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


class PendingBatches:
    """The line of batches, those that were set aside, and those in flight.

    Attributes:
        memory: Bytes of the batches, without `held_memory`.
        held_memory: Bytes of the single events that were set aside.
        held_count: How many single events were set aside.
    """

    def __init__(self) -> None:
        self.memory: int = 0
        self.held_memory: int = 0
        self.held_count: int = 0
        self._line: list[tuple[tuple[int, int], PendingBatch]] = []  # a heap
        self._aside: list[tuple[float, int, tuple[int, int], PendingBatch]] = []  # likewise
        self._aside_was_last = False
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

    @property
    def due_at(self) -> float | None:
        """When a batch may be taken, in seconds of the monotonic clock; None if none waits."""
        if self._line:
            return float("-inf")
        return self._aside[0][0] if self._aside else None

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event of any batch came, by the monotonic clock; None without batches."""
        times = [pending.opened_at for pending in self._waiting()]
        times += [attempt.pending.opened_at for attempt in self._in_flight.values()]
        return min(times, default=None)

    def _waiting(self) -> list[PendingBatch]:
        return [item[-1] for item in self._line] + [item[-1] for item in self._aside]

    def add(self, batch: Batch) -> None:
        """Put a new batch at the end of the line."""
        self._number += 1
        self.put_back(PendingBatch((self._number, 0), batch))

    def add_recovered(self, pending: PendingBatch) -> None:
        """Put a batch of an earlier run back, before there is any new one."""
        self._number = max(self._number, pending.number)
        if pending.record.is_part or pending.record.failures:
            self.set_aside(pending, float("-inf"))
        else:
            self.put_back(pending)

    def put_back(self, pending: PendingBatch) -> None:
        """Put a batch in its place of the line."""
        heapq.heappush(self._line, (pending.order, pending))
        self._count(pending, 1)

    def set_aside(self, pending: PendingBatch, due_at: float) -> None:
        """Let later batches go first until `due_at`, by the monotonic clock, and take turns from then on."""
        heapq.heappush(self._aside, (due_at, pending.count, pending.order, pending))
        self._count(pending, 1)

    def take(self, now: float) -> PendingBatch | None:
        """Take the batch out that is to be sent next; None if none is due."""
        aside_is_due = bool(self._aside) and self._aside[0][0] <= now
        if aside_is_due and not (self._line and self._aside_was_last and not self._aside[0][-1].is_new_part):
            pending = heapq.heappop(self._aside)[-1]
            self._aside_was_last = True
        elif self._line:
            pending = heapq.heappop(self._line)[-1]
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

    def _count(self, pending: PendingBatch, sign: int) -> None:
        size = sign * pending.batch.size
        if pending.is_held:
            self.held_memory += size
            self.held_count += sign
        else:
            self.memory += size

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that are in memory only, oldest batch first; attempts in flight included."""
        batches = [*self._waiting(), *(attempt.pending for attempt in self._in_flight.values())]
        self._line, self._aside, self._in_flight = [], [], {}
        return [
            event
            for pending in sorted(batches, key=lambda pending: pending.order)
            if not pending.batch.spans
            for event in pending.batch.events
        ]
