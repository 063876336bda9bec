"""Gathers events into batches, each of which one request carries. Pure.

Rules:

1. The body of a batch, wrapper and commas included, never exceeds `max_size` bytes.
2. A batch holds at most `max_events` events and is due `max_age` seconds after its first event came.
3. Events leave in the order in which they came, each in exactly one batch, byte for byte.
4. A batch is never empty.

The two body formats are those of baseplate.py: version `2` is Thrift's JSON form of a struct whose field 1 is
a list of events, version `2j` a plain JSON array.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .span import cut_spans, join_spans, records_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .span import Span

#: Bytes of a piece of a body: enough that the work on each costs more than the calls, and small enough to
#: stay in a cache of the processor.
_PIECE: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class BatchFormat:
    """How serialized events become the body of a request.

    Attributes:
        prefix: The bytes before the events, or before their number.
        counted: Whether the number of events and a comma are between prefix and events.
        suffix: The bytes after the events.
    """

    prefix: bytes
    counted: bool
    suffix: bytes

    def size(self, count: int, events_size: int) -> int:
        """Return the length of the body of `count` events, at least one, that have `events_size` bytes."""
        counter = len(str(count)) + 1 if self.counted else 0
        return len(self.prefix) + counter + events_size + count - 1 + len(self.suffix)

    def pieces(self, events: tuple[bytes, ...]) -> Iterator[bytes]:
        """Join one or more events to a body, and yield it in pieces, so that it is never in memory whole.

        The wrapper is in pieces of its own. Each of the others except the last has events of `_PIECE` bytes,
        and what its last event has beyond that.
        """
        yield self.prefix + (b"%d," % len(events) if self.counted else b"")
        ends = list(itertools.accumulate(map(len, events)))
        start = size = 0
        before: tuple[bytes, ...] = ()
        while start < len(events):
            end = min(bisect.bisect_left(ends, size + _PIECE, start) + 1, len(events))
            yield b",".join((*before, *events[start:end]))
            before, start, size = (b"",), end, ends[end - 1]  # the next piece begins with a comma
        yield self.suffix

    def join(self, events: tuple[bytes, ...]) -> bytes:
        """Join one or more events to a body."""
        return b"".join(self.pieces(events))


#: Formats of a body by `collector.version`.
FORMATS: Final[Mapping[str, BatchFormat]] = {
    "2": BatchFormat(prefix=b'{"1":{"lst":["rec",', counted=True, suffix=b"]}}"),
    "2j": BatchFormat(prefix=b"[", counted=False, suffix=b"]"),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are sent in one request.

    Attributes:
        events: The serialized events, oldest first; at least one.
        size: Bytes of the body, uncompressed.
        opened_at: When the first event came, in seconds of the monotonic clock.
        spans: Where the events are in the spool, in their order; none if they are in memory only.
    """

    events: tuple[bytes, ...]
    size: int
    opened_at: float
    spans: tuple[Span, ...] = ()


class Batcher:
    """Gathers events until one more doesn't fit.

    Args:
        body_format: How the body is written, which decides its size.
        max_size: Bytes of a body at most, uncompressed.
        max_events: Events of a batch at most, at least 1.
        max_age: Seconds from a batch's first event until it is due.

    Attributes:
        largest_event: Bytes of the largest event that any batch could hold.
        spare: Bytes that are certainly left for more events, counting one more byte for each. It is quicker
            to compare with than the exact size.
    """

    def __init__(self, body_format: BatchFormat, *, max_size: int, max_events: int, max_age: float) -> None:
        self.largest_event: int = max_size - body_format.size(1, 0)
        self._format = body_format
        self._taught_size = max_size
        self._max_events = max_events
        self._max_age = max_age
        self._events: list[bytes] = []
        self._events_size = 0
        self._spans: list[Span] = []
        self._opened_at = 0.0
        self.spare: int = self._whole_spare()

    def _whole_spare(self) -> int:
        """Return the `spare` of an empty batch, with the widest counter."""
        commas = self._max_events - 1
        return self._taught_size - (self._format.size(self._max_events, 0) - commas)

    def __len__(self) -> int:
        """Number of events in the open batch."""
        return len(self._events)

    @property
    def size(self) -> int:
        """Bytes of the open batch's body, 0 while there is no event in it."""
        return self._format.size(len(self._events), self._events_size) if self._events else 0

    @property
    def events_left(self) -> int:
        """How many more events the open batch may hold, whatever their size."""
        return self._max_events - len(self._events)

    @property
    def full(self) -> bool:
        """Whether the open batch holds as many events as it may."""
        return self.events_left <= 0

    @property
    def opened_at(self) -> float | None:
        """When the first event of the open batch came; None while it is empty."""
        return self._opened_at if self._events else None

    @property
    def due_at(self) -> float | None:
        """When the open batch is due, in seconds of the monotonic clock; None while it is empty."""
        return self._opened_at + self._max_age if self._events else None

    @property
    def has_spans(self) -> bool:
        """Whether the events of the open batch are in the spool."""
        return bool(self._spans)

    def fits(self, event: bytes) -> bool:
        """Whether there is room for the event in the open batch."""
        if len(event) <= self.spare:
            return not self.full
        if not self._events:
            return len(event) <= self.largest_event
        size = self._format.size(len(self._events) + 1, self._events_size + len(event))
        return size <= self._taught_size and not self.full

    def add(self, event: bytes, now: float) -> None:
        """Take in an event that fits.

        Args:
            event: A serialized event.
            now: Seconds of the monotonic clock.
        """
        if not self._events:
            self._opened_at = now
        self._events.append(event)
        size = len(event)
        self._events_size += size
        self.spare -= size + 1

    def add_many(self, events: Sequence[bytes], now: float) -> int:
        """Take in events from the first one on, while they fit and the batch isn't full.

        Args:
            events: Serialized events, none larger than `largest_event`.
            now: Seconds of the monotonic clock.

        Returns:
            How many were taken in; fewer than all only if the next one doesn't fit.
        """
        sizes = list(itertools.accumulate(map(len, events)))
        most = min(len(events), self.events_left)
        # First those that certainly fit, with commas between them; then one by one, to the byte.
        sure = bisect.bisect_right(range(most), self.spare, key=lambda index: sizes[index] + index)
        if sure:
            if not self._events:
                self._opened_at = now
            self._events += events[:sure]
            self._events_size += sizes[sure - 1]
            self.spare -= sizes[sure - 1] + sure
        for taken in range(sure, len(events)):
            if not self.fits(events[taken]):
                return taken
            self.add(events[taken], now)
        return len(events)

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Take in the places in the spool of the events that were taken in last."""
        self._spans += spans

    def take(self) -> Batch | None:
        """Close the open batch and return it; None if there is no event in it."""
        if not self._events:
            return None
        batch = Batch(tuple(self._events), self.size, self._opened_at, join_spans(self._spans))
        self._events = []
        self._spans = []
        self._events_size = 0
        self.spare = self._whole_spare()
        return batch

    def learn(self, max_size: int) -> None:
        """Make no larger bodies of several events from now on, as the collector refuses them."""
        self._taught_size = min(self._taught_size, max_size)
        self.spare = self._whole_spare() - self._events_size - len(self._events)

    def split(self, batch: Batch) -> tuple[Batch, Batch]:
        """Split a batch of at least two events into halves of the same age, the older events first."""
        middle = len(batch.events) // 2
        first, second = batch.events[:middle], batch.events[middle:]
        head, tail = cut_spans(batch.spans, records_size(first))
        return self.batch(first, batch.opened_at, head), self.batch(second, batch.opened_at, tail)

    def batch(self, events: tuple[bytes, ...], opened_at: float, spans: tuple[Span, ...] = ()) -> Batch:
        """Make a batch of one or more events that were gathered before."""
        return Batch(events, self._format.size(len(events), sum(map(len, events))), opened_at, spans)
