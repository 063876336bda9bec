"""The policy of delivery: what is sent when, and what becomes of it. Pure.

Events come in by `offer`, batches go out by `next_attempt`, and `finish` takes what became of an attempt.
Time is an argument, chance a random source that is passed in; nothing here waits or opens anything.

Rules:

1. Nothing is given up but what the collector refuses for its content; every other batch is tried until it is
   accepted.
2. After a failed attempt all sending pauses: the n-th failure in a row waits a random time up to
   `min(cap, base * 2**(n-1))` seconds (exponential backoff with full jitter), and never less than the
   collector asked for by Retry-After. While attempts fail, one batch probes at a time; the first success
   opens the way for all.
3. Batches are started in the order in which their first events came. With a concurrency of 1 they also arrive
   in that order.
4. What is in hand is bounded: `(concurrency + 1)` batches by size. And as long as the collector has not
   proven that it takes batches (at the start, and after a failure), no more events than the queue could take
   back.
5. A dying collector is not a reason to drain: while attempts fail, nothing is received beyond rule 4.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import EventEmptyError, EventTooLargeError
from ..exhaustive import assert_never
from .accounting import Accounting, DropReason
from .outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge

if TYPE_CHECKING:
    from .batching import Batch, Batcher


class RandomSource(Protocol):
    """The part of `random.Random` that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between `a` and `b`."""
        ...


class Backoff:
    """How long to wait after failures in a row: exponential backoff with full jitter.

    Args:
        base: Seconds that the first wait takes at most.
        cap: Seconds that any wait takes at most.
        random_source: Where chance comes from.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, for why the jitter is full.
    """

    def __init__(self, base: float, cap: float, random_source: RandomSource) -> None:
        self._base = base
        self._cap = cap
        self._random = random_source

    def ceiling(self, failures: int) -> float:
        """Tell how many seconds the wait after `failures` failures in a row, at least 1, takes at most."""
        # 2**63 seconds exceed every cap; a larger exponent would only overflow the float.
        return float(min(self._cap, self._base * 2.0 ** min(failures - 1, 63)))

    def wait(self, failures: int) -> float:
        """Draw the seconds to wait after `failures` failures in a row, at least 1."""
        return self._random.uniform(0.0, self.ceiling(failures))


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """One try to deliver a batch.

    Attributes:
        sequence: Number of the batch, in the order in which batches were closed.
        batch: What to send.
        started_at: Seconds of the monotonic clock.
    """

    sequence: int
    batch: Batch
    started_at: float


class Delivery:
    """Decides what is sent when, and accounts for every event.

    Args:
        batcher: Gathers events to batches.
        backoff: How long to wait after failures.
        concurrency: Attempts under way at the same time, at least 1.
        max_size: Bytes of a batch at most; what is in hand is bounded by `(concurrency + 1)` times that.
        queue_capacity: Events that the queue can hold.
    """

    def __init__(
        self, batcher: Batcher, backoff: Backoff, *, concurrency: int, max_size: int, queue_capacity: int
    ) -> None:
        self.accounting: Accounting = Accounting()
        self.queue_capacity = queue_capacity
        self._batcher = batcher
        self._backoff = backoff
        self._concurrency = concurrency
        self._max_in_hand = (concurrency + 1) * max_size
        self._waiting: list[tuple[int, Batch]] = []  # a heap by sequence
        self._closed_size = 0  # bytes of the batches that wait or are under way
        self._under_way: dict[int, Attempt] = {}
        self._sequence = 0
        self._failures = 0
        self._failed_at = float("-inf")
        self._gate_opens_at = float("-inf")
        self._proven = False

    @property
    def failures(self) -> int:
        """Failed attempts in a row; 0 while the collector takes what it gets."""
        return self._failures

    @property
    def gate_opens_at(self) -> float:
        """When the pause after the last failure ends, in seconds of the monotonic clock."""
        return self._gate_opens_at

    @property
    def wants_events(self) -> bool:
        """Whether there is a safe place for one more event from the queue."""
        if not self._proven and self.accounting.in_hand >= self.queue_capacity:
            return False
        return self._closed_size + self._batcher.size < self._max_in_hand

    def offer(self, event: bytes, now: float) -> DropReason | None:
        """Take an event that came from the queue.

        Returns:
            Why the event can't be sent at all and was dropped, which is counted; None where it was taken in.
        """
        self.accounting.receive(1)
        try:
            closed = self._batcher.add(event, now)
        except EventEmptyError:
            reason = DropReason.EMPTY
        except EventTooLargeError:
            reason = DropReason.OVERSIZE
        else:
            if closed is not None:
                self._enqueue(closed)
            return None
        self.accounting.drop(reason, 1)
        return reason

    def flush(self) -> None:
        """Close the open batch now, whatever its age."""
        batch = self._batcher.take()
        if batch is not None:
            self._enqueue(batch)

    def _enqueue(self, batch: Batch) -> None:
        heapq.heappush(self._waiting, (self._sequence, batch))
        self._sequence += 1
        self._closed_size += batch.size

    def next_attempt(self, now: float) -> Attempt | None:
        """Start an attempt if there is a batch to send and a reason not to wait any longer.

        Returns:
            What to send now; its end must be told to `finish`. None if there is nothing to do before
            `wake_at`, an event or the end of an attempt.
        """
        if not self._may_start or now < self._gate_opens_at:
            return None
        due_at = self._batcher.due_at
        if not self._waiting and due_at is not None and now >= due_at:
            self.flush()
        if not self._waiting:
            return None
        sequence, batch = heapq.heappop(self._waiting)
        attempt = Attempt(sequence, batch, now)
        self._under_way[sequence] = attempt
        return attempt

    def wake_at(self) -> float | None:
        """Tell when `next_attempt` is to be asked again at the latest, in seconds of the monotonic clock.

        None where only an event or the end of an attempt can change anything.
        """
        # A batch that is due stays open, and fills up, until it can be sent.
        ready_at = float("-inf") if self._waiting else self._batcher.due_at
        if ready_at is None or not self._may_start:
            return None
        return max(ready_at, self._gate_opens_at)

    @property
    def _may_start(self) -> bool:
        return len(self._under_way) < (1 if self._failures else self._concurrency)

    def finish(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        """Take what became of an attempt: count the fate of its events, or keep them for the next attempt."""
        del self._under_way[attempt.sequence]
        self._closed_size -= attempt.batch.size
        count = len(attempt.batch.events)
        match outcome:
            case Accepted():
                self.accounting.deliver(count)
                self._succeed()
            case TooLarge() | Refused():
                # The collector is there and reads what it gets, so the way is open for the others.
                self.accounting.drop(DropReason.REFUSED, count)
                self._succeed()
            case Retryable() | Misconfigured():
                heapq.heappush(self._waiting, (attempt.sequence, attempt.batch))
                self._closed_size += attempt.batch.size
                self._fail(attempt, outcome.retry_after, now)
            case _:
                assert_never(outcome)

    def _succeed(self) -> None:
        self._proven = True
        self._failures = 0
        self._gate_opens_at = float("-inf")

    def _fail(self, attempt: Attempt, retry_after: float, now: float) -> None:
        self._proven = False
        if attempt.started_at >= self._failed_at:  # others that were under way then are the same failure
            self._failures += 1
            self._failed_at = now
            self._gate_opens_at = now + self._backoff.wait(self._failures)
        self._gate_opens_at = max(self._gate_opens_at, now + retry_after)

    def surrender(self) -> list[bytes]:
        """Give up everything in hand, so that it can go back to the queue.

        Attempts under way count as failed: the collector may have taken their batches or not.

        Returns:
            The events, oldest batch first. They stay `in_hand` in the accounting until their fate is told to
            it.
        """
        self.flush()
        batches = self._waiting + [(attempt.sequence, attempt.batch) for attempt in self._under_way.values()]
        self._waiting = []
        self._under_way = {}
        self._closed_size = 0
        return [event for _, batch in sorted(batches, key=lambda item: item[0]) for event in batch.events]
