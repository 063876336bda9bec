"""The delivery policy on a simulated clock: events arrive, attempts take time, a collector judges them."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.policy.outcome import Accepted, Misconfigured, Outcome
from tests.support.simulated_publisher import MemoryJournal, MemorySpool, feed, recover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from baseplate_events.event_publisher.policy.batching import Batch
    from baseplate_events.event_publisher.policy.pending import Attempt

#: Seconds that an attempt takes.
ROUND_TRIP = 0.02


@dataclass
class Timeline:
    """A publisher with the default settings, in simulated time.

    Args:
        judge: What the collector answers to a batch at a moment.
        concurrency: `delivery.concurrency`.
        spooled: Whether there is a spool.
        queue_capacity: Events that the queue holds.
        max_size: `batch.max_size`.
        max_events: `batch.max_events`.
        max_age: `retry.max_age`.
        seed: Where jitter comes from.

    Attributes:
        now: Seconds of the simulated clock.
        delivered: When each event was accepted first.
        failed: Attempts that failed or were rejected, by the number of their events.
    """

    judge: Callable[[Batch, float], Outcome]
    concurrency: int = 16
    spooled: bool = False
    queue_capacity: int = 10_000
    max_size: int = 512_000
    max_events: int = 10_000
    max_age: float | None = None
    seed: int = 0
    now: float = 0.0
    delivered: dict[bytes, float] = field(default_factory=dict[bytes, float])
    failed: Counter[int] = field(default_factory=Counter[int])

    def __post_init__(self) -> None:
        self.journal = MemoryJournal()
        self.spool = MemorySpool() if self.spooled else None
        self.queue: deque[bytes] = deque()
        self.attempts: list[tuple[float, int, Attempt]] = []
        self._serial = itertools.count()
        self.start()

    def start(self) -> None:
        """Start a publisher on what is in the spool; attempts of an earlier one are forgotten."""
        self.attempts.clear()
        self.delivery = Delivery(
            Batcher(FORMATS["2j"], max_size=self.max_size, max_events=self.max_events, max_age=1.0),
            ConcurrencyLimit(Backoff(1.0, 30.0, random.Random(self.seed)), self.concurrency),
            concurrency=self.concurrency,
            max_size=self.max_size,
            queue_capacity=self.queue_capacity,
            queue_message_size=102_400,
            journal=self.journal,
            load=None if self.spool is None else self.spool.reader_for(self.journal),
            max_age=self.max_age,
        )
        if self.spool is not None:
            recover(self.delivery, self.spool, self.journal, self.now)

    def run(self, seconds: float, arrivals: Iterable[tuple[float, bytes]] = ()) -> None:
        """Let so many seconds pass, with events put at certain moments, ascending."""
        end = self.now + seconds
        coming = deque(arrivals)
        while True:
            while coming and coming[0][0] <= self.now:
                self._put(coming.popleft()[1])
            while self.attempts and self.attempts[0][0] <= self.now:
                self._finish(heapq.heappop(self.attempts)[2])
            self._receive()
            while (attempt := self.delivery.next_attempt(self.now)) is not None:
                heapq.heappush(self.attempts, (self.now + ROUND_TRIP, next(self._serial), attempt))
            wake_at = self.delivery.wake_at()
            times = [end] if wake_at is None else [end, wake_at]
            times += [coming[0][0]] if coming else []
            times += [self.attempts[0][0]] if self.attempts else []
            self.now = max(self.now, min(times))
            if self.now >= end:
                return

    def _put(self, event: bytes) -> None:
        if self.spool is not None:
            self.spool.append(event)
        else:
            self.queue.append(event)

    def _receive(self) -> None:
        if self.spool is not None:
            feed(self.delivery, self.spool, self.now)
        while self.queue and self.delivery.room:
            source = iter(list(self.queue))
            self.delivery.offer(source, self.now)
            left = len(list(source))
            while len(self.queue) > left:
                self.queue.popleft()

    def _finish(self, attempt: Attempt) -> None:
        outcome = self.judge(attempt.batch, self.now)
        if isinstance(outcome, Accepted):
            for event in attempt.batch.events:
                self.delivered.setdefault(event, self.now)
        elif not isinstance(outcome, Misconfigured):
            self.failed[len(attempt.batch.events)] += 1
        self.delivery.finish(attempt, outcome, self.now)
        assert self.delivery.accounting.balanced
