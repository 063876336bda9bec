"""Simulated peers of the delivery policy: a disk in memory, and a collector that judges contents."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from baseplate_events.errors import EventError
from baseplate_events.event_publisher.policy.backoff import Backoff, ConcurrencyLimit
from baseplate_events.event_publisher.policy.batching import FORMATS, Batch, Batcher
from baseplate_events.event_publisher.policy.delivery import Delivery
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable, TooLarge
from baseplate_events.event_publisher.policy.store import StoredBatch

if TYPE_CHECKING:
    from baseplate_events.event_publisher.spool.spool import Spool

BASE, CAP = 1.0, 30.0


def make_event(number: int, kind: str = "good", pad: int = 0) -> bytes:
    """Make a distinct event; `kind` tells the simulated collector what to do with it."""
    return json.dumps({"id": number, "kind": kind, "pad": "x" * pad}).encode()


def kind_of(event: bytes) -> str:
    """Return the kind of an event."""
    return str(json.loads(event)["kind"])


@dataclass
class MemoryStore:
    """A spool in memory that survives a crash of the policy, and can be full or broken."""

    room: int = 1_000_000
    broken: bool = False
    segments: dict[int, list[bytes]] = field(default_factory=dict[int, list[bytes]])
    current: list[bytes] = field(default_factory=list[bytes])
    number: int = 0

    def check(self) -> None:
        if self.broken:
            raise EventError("the disk is broken")

    @property
    def size(self) -> int:
        return sum(map(len, self.events))

    @property
    def events(self) -> list[bytes]:
        """Everything on the disk, oldest first."""
        return [event for segment in self.segments.values() for event in segment] + self.current

    def has_room(self, event_size: int) -> bool:
        return self.size + event_size <= self.room

    def append(self, event: bytes) -> None:
        self.check()
        self.current.append(event)

    def close_segment(self) -> StoredBatch | None:
        if not self.current:
            return None
        self.check()
        events, self.current = self.current, []
        self.segments[self.number] = events
        self.number += 1
        return self.describe(self.number - 1)

    def describe(self, number: int) -> StoredBatch:
        events = self.segments[number]
        size = sum(map(len, events))
        return StoredBatch(number, len(events), size, size)

    def load(self, segment: StoredBatch) -> tuple[bytes, ...]:
        self.check()
        return tuple(self.segments[segment.number])

    def release(self, number: int) -> None:
        del self.segments[number]

    def recover(self) -> list[StoredBatch]:
        """Do what a restart does: the open segment is one of those that were left."""
        broken, self.broken = self.broken, False
        self.close_segment()
        self.broken = broken
        return [self.describe(number) for number in self.segments]


@dataclass
class MemoryDeadLetters:
    """Dead letters in memory, on a disk that can be broken."""

    broken: bool = False
    letters: list[bytes] = field(default_factory=list[bytes])

    def write(self, event: bytes, *, status: int | None, reason: str, excerpt: bytes) -> int:
        if self.broken:
            raise EventError("the disk is broken")
        assert reason
        del status, excerpt
        self.letters.append(event)
        return 0


def judge(batch: Batch, largest_body: int = 10**9) -> Outcome:
    """Do what an honest collector does: refuse a batch for what is in it, fall over it, or take it."""
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
    store: MemoryStore | Spool | None = None,
    dead_letters: MemoryDeadLetters | None = None,
    give_up_after: float | None = None,
    seed: int = 0,
    now: float = 0.0,
) -> Delivery:
    """Make a delivery with small bounds, which recovers what is in the store."""
    return Delivery(
        Batcher(FORMATS["2j"], max_size=max_size, max_events=max_events, max_age=max_age),
        ConcurrencyLimit(Backoff(BASE, CAP, random.Random(seed)), concurrency),
        concurrency=concurrency,
        max_size=max_size,
        queue_capacity=queue_capacity,
        queue_message_size=max_size,
        store=store,
        recovered=store.recover() if store is not None else (),
        dead_letters=dead_letters,
        max_age=give_up_after,
        now=now,
    )
