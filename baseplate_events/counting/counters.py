"""What became of the events of a process, counted.

Rules:

1. Counts are exact: with threads, on each build of Python, in signal handlers and after a fork.
2. A put is counted by appending to a list, the quickest step of Python that loses nothing. The list is added
   up where a put has more to do anyway, and no put waits for that.
3. Counts are those of a process (see `forks`), so that none is reported twice.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

#: Counts that are added up at a time, at least: some kilobytes.
MANY = 1_000


class RefusedEvents(NamedTuple):
    """How many events weren't put, by reason.

    Attributes:
        too_large: They had more bytes than the queue takes (`EventTooLargeError`).
        full: There was no room (`EventQueueFullError`).
        empty: They serialized to nothing (`EventEmptyError`).
        not_serializable: They couldn't be serialized (`EventNotSerializableError`).
        unavailable: The queue couldn't be opened or used (`EventQueueUnavailableError`).
        other: The serializer raised another `EventError`.
    """

    too_large: int = 0
    full: int = 0
    empty: int = 0
    not_serializable: int = 0
    unavailable: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


class QueueCounters(NamedTuple):
    """What became of the events that this process gave to an `EventQueue`; a snapshot that doesn't change.

    Attributes:
        put: They are, or were, in the queue.
        refused: They aren't, and the service got an error for each.
        discarded: They aren't, because the queue is switched off.
    """

    put: int = 0
    refused: RefusedEvents = RefusedEvents()
    discarded: int = 0

    def since(self, earlier: QueueCounters) -> QueueCounters:
        """Return what came after an earlier snapshot of the same queue in the same process."""
        return QueueCounters(
            self.put - earlier.put,
            RefusedEvents(*(now - then for now, then in zip(self.refused, earlier.refused, strict=True))),
            self.discarded - earlier.discarded,
        )

    def by_outcome(self) -> dict[str, int]:
        """Return all counts by name, for a metric with a label: `put`, `discarded`, and each reason."""
        return {"put": self.put, "discarded": self.discarded, **self.refused._asdict()}


class Tally:
    """A number that one process counts up.

    Attributes:
        fresh: `fresh.append(None)` counts one, in a single step on each build of Python. Whoever does that
            calls `add_up` now and then, or the list grows.
    """

    __slots__ = ("_is_adding_up", "_lock", "_sum", "fresh")

    def __init__(self) -> None:
        self.fresh: list[None] = []
        # Reentrant: a signal handler may ask for the value while its thread is adding up.
        self._lock = threading.RLock()
        self._sum = 0
        self._is_adding_up = False

    def add(self, number: int) -> None:
        """Tally so many."""
        self.fresh += [None] * number
        self.add_up()

    def add_up(self) -> None:
        """Make the list short again, unless another thread is doing so."""
        if len(self.fresh) > MANY and self._lock.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._lock.release()

    @property
    def value(self) -> int:
        """How many were counted."""
        with self._lock:
            self._add_up()
            return self._sum + len(self.fresh)

    def _add_up(self) -> None:
        if self._is_adding_up:
            return  # this is a signal handler that interrupted it, and sees what was before
        self._is_adding_up = True
        try:
            count = len(self.fresh)
            # What others append meanwhile stays. No signal handler can come in between the two assignments.
            self._sum, self.fresh[:count] = self._sum + count, ()
        finally:
            self._is_adding_up = False
