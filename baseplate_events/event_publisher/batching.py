"""Bytes in, batches out: how events are gathered until one request carries them. Pure.

Rules:

1. The body of a batch, wrapper and commas included, never exceeds `max_size` bytes.
2. A batch holds at most `max_events` events and is due `max_age` seconds after its first event came.
3. Events leave in the order in which they came, each in exactly one batch, byte for byte.
4. A batch is never empty.

The two body formats are the original's: version `2` is Thrift's JSON form of a struct whose field 1 is a list
of events, version `2j` a plain JSON array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import EventEmptyError, EventTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class BatchFormat:
    """How serialized events are put together to the body of a request.

    Attributes:
        prefix: What stands before the events, or before their number.
        counted: Whether the number of events and a comma stand between prefix and events.
        suffix: What stands behind the events.
    """

    prefix: bytes
    counted: bool
    suffix: bytes

    def size(self, count: int, events_size: int) -> int:
        """Tell the bytes that `join` gives for `count` events, at least one, of `events_size` bytes."""
        counter = len(str(count)) + 1 if self.counted else 0
        return len(self.prefix) + counter + events_size + count - 1 + len(self.suffix)

    def join(self, events: tuple[bytes, ...]) -> bytes:
        """Put one or more events together to a body."""
        counter = b"%d," % len(events) if self.counted else b""
        return b"%b%b%b%b" % (self.prefix, counter, b",".join(events), self.suffix)


#: Formats of a body by `collector.version`.
FORMATS: Final[Mapping[str, BatchFormat]] = {
    "2": BatchFormat(prefix=b'{"1":{"lst":["rec",', counted=True, suffix=b"]}}"),
    "2j": BatchFormat(prefix=b"[", counted=False, suffix=b"]"),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that travel together.

    Attributes:
        events: The serialized events, oldest first; at least one.
        size: Bytes of the body, uncompressed.
        opened_at: When the first event came, in seconds of the monotonic clock.
    """

    events: tuple[bytes, ...]
    size: int
    opened_at: float


class Batcher:
    """Gathers events and closes a batch when the next event doesn't fit.

    Args:
        body_format: How the body is written, which decides what it weighs.
        max_size: Bytes of a body at most, uncompressed.
        max_events: Events of a batch at most, at least 1.
        max_age: Seconds from a batch's first event until it is due.
    """

    def __init__(self, body_format: BatchFormat, *, max_size: int, max_events: int, max_age: float) -> None:
        self._format = body_format
        self._max_size = max_size
        self._max_events = max_events
        self._max_age = max_age
        self._events: list[bytes] = []
        self._events_size = 0
        self._opened_at = 0.0

    def __len__(self) -> int:
        """Number of events in the open batch."""
        return len(self._events)

    @property
    def size(self) -> int:
        """Bytes of the open batch's body, 0 while there is no event in it."""
        return self._format.size(len(self._events), self._events_size) if self._events else 0

    @property
    def due_at(self) -> float | None:
        """When the open batch is due, in seconds of the monotonic clock; None while it is empty."""
        return self._opened_at + self._max_age if self._events else None

    def add(self, event: bytes, now: float) -> Batch | None:
        """Take an event in.

        Args:
            event: A serialized event.
            now: Seconds of the monotonic clock.

        Returns:
            The batch that is complete now: the one that was closed to make room for the event, or the one
            that the event filled to `max_events`. None while there is room.

        Raises:
            EventEmptyError: The event has no bytes. It isn't taken in; nothing else changed.
            EventTooLargeError: The event alone exceeds `max_size`. It isn't taken in; nothing else changed.
        """
        if not event:
            raise EventEmptyError
        closed = None
        if self._format.size(len(self._events) + 1, self._events_size + len(event)) > self._max_size:
            if self._format.size(1, len(event)) > self._max_size:
                raise EventTooLargeError(len(event), self._max_size - self._format.size(1, 0))
            closed = self.take()
        if not self._events:
            self._opened_at = now
        self._events.append(event)
        self._events_size += len(event)
        if len(self._events) >= self._max_events and closed is None:
            return self.take()
        return closed

    def take(self) -> Batch | None:
        """Close the open batch and return it; None if there is no event in it."""
        if not self._events:
            return None
        batch = Batch(tuple(self._events), self.size, self._opened_at)
        self._events = []
        self._events_size = 0
        return batch
