"""Which events are taken in, and how they become batches. Pure.

Rules:

1. Batches, held events (`poison`) and dead letters that can't be written yet share
   `(concurrency + 1) * max_size` bytes. If held events leave less than one batch of that, one batch more is
   allowed: the total never exceeds `(concurrency + 2) * max_size`. What is in the spool waits there, unread
   or parked (`pending`). With `MAX_PARKED` places of parked batches, or while one waits for memory, no more
   is read.
2. Without a spool, and while the collector isn't known to be healthy (at the start, and after a failure),
   memory holds no more events than fit back into the queue. If it contains only held events, one more is
   received nevertheless, to have something to compare them with.
3. Without a spool, no more are received while events that are given up can't be written to the dead letters.
4. A message that can't be an event is given up at once.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from .accounting import DropReason
from .rejection import Rejection
from .span import EventRun, cut_spans, records_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .accounting import Accounting
    from .batching import Batcher
    from .pending import PendingBatches
    from .rejection import Rejections
    from .span import Span

#: Places of parked batches in memory, each of some hundred bytes. Each comes from a failed attempt, so more
#: come together only if the collector has accepted nothing for a long time.
MAX_PARKED: Final = 10_000

#: The bytes at the ends of a JSON object.
_OPENS: Final = ord("{")
_CLOSES: Final = ord("}")


class Admission:
    """Takes events in and makes batches of them.

    Args:
        batcher: Gathers events to batches.
        pending: Where batches go.
        rejections: Where messages go that can't be sent.
        accounting: Where events are counted.
        max_memory: Bytes that batches may take in memory.
        max_size: Bytes of a batch at most.
        queue_capacity: Events that the queue can hold.
        queue_message_size: Bytes of the largest event that the queue can hold.
    """

    def __init__(
        self,
        batcher: Batcher,
        pending: PendingBatches,
        rejections: Rejections,
        accounting: Accounting,
        *,
        max_memory: int,
        max_size: int,
        queue_capacity: int,
        queue_message_size: int,
    ) -> None:
        self._batcher = batcher
        self._pending = pending
        self._rejections = rejections
        self._accounting = accounting
        self._max_memory = max_memory
        self._max_size = max_size
        self._queue_capacity = queue_capacity
        self._queue_message_size = queue_message_size

    def resize_queue(self, capacity: int, message_size: int) -> None:
        """Go by another size of the queue, which was recreated."""
        self._queue_capacity = capacity
        self._queue_message_size = message_size

    @property
    def memory_left(self) -> int:
        """Bytes of events that there is room for; any number above 0 is room for one of any size."""
        if self._pending.parked_places >= MAX_PARKED or self._pending.is_short:
            return 0
        held = self._pending.held_memory
        allowed = max(self._max_memory - held, min(self._max_size, self._max_memory + self._max_size - held))
        return allowed - self._used

    @property
    def spare(self) -> float:
        """Bytes that a parked batch may take, beyond what is in memory; with nothing there, any number.

        A batch of an earlier run with a larger `batch.max_size` exceeds the bounds.
        """
        used = self._used
        return self._max_memory + self._max_size - self._pending.held_memory - used if used else math.inf

    @property
    def _used(self) -> int:
        """Bytes in memory, without held events."""
        return self._pending.memory + self._batcher.size + self._rejections.size

    def room(self, *, healthy: bool) -> int:
        """How many events from the queue there is a safe place for in memory, whatever their sizes.

        Args:
            healthy: Whether the collector takes batches, as far as is known.
        """
        if self._rejections.size:
            return 0
        room = (self.memory_left + self._queue_message_size - 1) // self._queue_message_size
        if not healthy:
            exposed = self._accounting.in_hand
            others_come = exposed == self._pending.held_count <= self._queue_capacity
            room = min(room, max(self._queue_capacity - exposed, int(others_come)))
        return max(0, room)

    def offer(self, events: Iterable[bytes], now: float, *, healthy: bool) -> list[tuple[int, Rejection]]:
        """Take events from the queue while there is `room`; see `Delivery.offer`."""
        events = iter(events)
        rejected: list[tuple[int, Rejection]] = []
        while (room := self.room(healthy=healthy)) and (burst := list(itertools.islice(events, room))):
            self._accounting.receive(len(burst))
            self._take(EventRun(burst, ()), now, rejected)
        return rejected

    def offer_run(self, run: EventRun, now: float) -> list[tuple[int, Rejection]]:
        """Take events that are in the spool; see `Delivery.offer_run`."""
        rejected: list[tuple[int, Rejection]] = []
        self._accounting.receive_spooled(len(run.events))
        self._take(run, now, rejected)
        return rejected

    def _take(self, run: EventRun, now: float, rejected: list[tuple[int, Rejection]]) -> None:
        """Gather events, and give up those that can't be sent at all."""
        events, spans = run
        if events and bool(spans) != self._batcher.has_spans:
            self.flush()  # a batch is in the spool, or it isn't
        largest = self._batcher.largest_event
        # Nearly all events are objects. For a burst, a look at the two ends of each is cheap enough.
        if not [e for e in events if not (e and e[0] == _OPENS and e[-1] == _CLOSES and len(e) <= largest)]:
            self._gather(events, spans, now)
            return
        for event in events:
            place, spans = cut_spans(spans, records_size((event,)))
            rejection = self._judge(event)
            if rejection is None:
                self._gather((event,), place, now)
            else:
                rejected.append((len(event), rejection))
                self._rejections.reject((event,), rejection, place, now)

    def _gather(self, events: Sequence[bytes], spans: Sequence[Span], now: float) -> None:
        """Put events into batches."""
        while events:
            taken = self._batcher.add_many(events, now)
            whole = taken == len(events)
            head, spans = (spans, ()) if whole else cut_spans(spans, records_size(events[:taken]))
            self._batcher.add_spans(head)
            if not whole or self._batcher.full:
                self.flush()
            events = events[taken:]

    def _judge(self, event: bytes) -> Rejection | None:
        if not _may_be_json(event):
            return Rejection(DropReason.INVALID, "not JSON")
        if len(event) > self._batcher.largest_event:
            return Rejection(DropReason.OVERSIZE, "larger than batch.max_size")
        return None

    def flush(self) -> None:
        """Close the open batch now, whatever its age."""
        batch = self._batcher.take()
        if batch is not None:
            self._pending.add(batch)

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that are in memory only and in no closed batch."""
        batch = self._batcher.take()
        return [*batch.events] if batch is not None and not batch.spans else []


def _may_be_json(event: bytes) -> bool:
    """Return whether both ends of a message look like JSON, which finds what is empty, cut off or binary."""
    text = event.strip(b" \t\r\n")
    first, last = text[:1], text[-1:]
    if first in {b"{", b"[", b'"'}:
        return len(text) > 1 and last == {b"{": b"}", b"[": b"]", b'"': b'"'}[first]
    return first.isdigit() or first in {b"-", b"t", b"f", b"n"}
