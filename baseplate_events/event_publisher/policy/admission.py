"""What may be taken from the queue, and how it becomes batches: in memory, or first in the spool. Pure.

Rules:

1. With a spool an event is on disk before the next is received. An event that the disk doesn't take waits
   for it, and no more are received until it does.
2. Batches and held events (`poison`) share `(concurrency + 1) * max_size` bytes. If held events leave less
   than one batch of that, one batch more is allowed: the total never exceeds `(concurrency + 2) * max_size`.
3. Without a spool, and while the collector has not proven that it takes batches (at the start, and after a
   failure), memory holds no more events than fit back into the queue. If it holds nothing but held events,
   one more is received all the same, to have something to compare them with.
4. No more are received while events that are given up can't be written to the dead letters.
5. A message that can't be an event is given up at once.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from ...errors import EventError
from .accounting import DropReason
from .rejection import Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .accounting import Accounting
    from .batching import Batcher
    from .pending import PendingBatches
    from .rejection import Rejections
    from .store import DiskState, Store

#: The bytes at the ends of a JSON object.
_OPENS: Final = ord("{")
_CLOSES: Final = ord("}")


class Admission:
    """Takes events from the queue and makes batches of them.

    Args:
        batcher: Gathers events to batches.
        pending: Where batches go.
        rejections: Where messages go that can't be sent.
        accounting: Where events are counted.
        disk: Where a failure of the spool is recorded.
        store: The spool, or None.
        max_memory: Bytes that batches may take in memory.
        max_size: Bytes of a batch at most.
        queue_capacity: Events that the queue can hold.
        queue_message_size: Bytes of the largest event that the queue can hold.

    Attributes:
        held: An event that the spool didn't take yet, or None.
    """

    def __init__(
        self,
        batcher: Batcher,
        pending: PendingBatches,
        rejections: Rejections,
        accounting: Accounting,
        disk: DiskState,
        *,
        store: Store | None,
        max_memory: int,
        max_size: int,
        queue_capacity: int,
        queue_message_size: int,
    ) -> None:
        self.held: bytes | None = None
        self._batcher = batcher
        self._pending = pending
        self._rejections = rejections
        self._accounting = accounting
        self._disk = disk
        self._store = store
        self._max_memory = max_memory
        self._max_size = max_size
        self._queue_capacity = queue_capacity
        self._queue_message_size = queue_message_size

    @property
    def waits_for_disk(self) -> bool:
        """Whether something that the disk didn't take has to be written before anything else."""
        return self.held is not None or len(self._rejections) > 0 or self._batcher.full

    def resize_queue(self, capacity: int, message_size: int) -> None:
        """Go by another size of the queue, which was recreated."""
        self._queue_capacity = capacity
        self._queue_message_size = message_size

    def room(self, *, healthy: bool) -> int:
        """How many events from the queue there is a safe place for, whatever their sizes.

        Args:
            healthy: Whether the collector has proven that it takes batches.
        """
        if self.waits_for_disk:
            return 0
        if self._store is not None:
            # One by one, so that no more than one is ever between queue and disk.
            return int(self._store.has_room(self._queue_message_size))
        held = self._pending.held_memory
        allowed = max(self._max_memory - held, min(self._max_size, self._max_memory + self._max_size - held))
        memory = allowed - self._pending.memory - self._batcher.size
        # Any memory that is left is room for one, which may take a bit more.
        room = (memory + self._queue_message_size - 1) // self._queue_message_size
        if not healthy:
            exposed = self._accounting.in_hand
            others_come = exposed == self._pending.held_count <= self._queue_capacity
            room = min(room, max(self._queue_capacity - exposed, int(others_come)))
        return max(0, room)

    def offer(self, events: Iterable[bytes], now: float, *, healthy: bool) -> list[tuple[int, Rejection]]:
        """Take events from the queue while there is `room`; see `Delivery.offer`."""
        events = iter(events)
        rejected: list[tuple[int, Rejection]] = []
        if self._store is not None:
            while self.room(healthy=healthy) and self._spool(self._store, events, now, rejected):
                pass
        else:
            while (room := self.room(healthy=healthy)) and (burst := list(itertools.islice(events, room))):
                self._gather(burst, now, rejected)
        return rejected

    def _gather(self, events: Sequence[bytes], now: float, rejected: list[tuple[int, Rejection]]) -> None:
        """Take in events without a spool."""
        largest = self._batcher.largest_event
        # Nearly all events are objects; looking at their two ends in place is what a burst can afford.
        if [e for e in events if not (e and e[0] == _OPENS and e[-1] == _CLOSES and len(e) <= largest)]:
            events = [event for event in events if not self._reject(event, now, rejected)]
        self._accounting.receive(len(events))
        while events:
            taken = self._batcher.add_many(events, now)
            if taken < len(events) or self._batcher.full:
                self._close()
            events = events[taken:]

    def _spool(
        self, store: Store, events: Iterator[bytes], now: float, rejected: list[tuple[int, Rejection]]
    ) -> bool:
        """Take in events with a spool, up to the first that doesn't just follow in the open batch.

        Returns:
            Whether there was any.
        """
        run, other, error = self._write_run(store, events)
        if run:
            self._disk.succeed()
            self._accounting.receive_spooled(len(run))
            self._batcher.add_many(run, now)
            if self._batcher.full:
                self.flush(now)
        if other is None:
            return bool(run)
        if error is not None:
            self.held = other
            self._accounting.receive(1)
            self._disk.fail(error, now)
        elif not self._reject(other, now, rejected):
            self.held = other
            if self._take_in(now):
                self._accounting.receive_spooled(1)
            else:
                self._accounting.receive(1)
        return True

    def _write_run(
        self, store: Store, events: Iterator[bytes]
    ) -> tuple[list[bytes], bytes | None, EventError | None]:
        """Write events to the disk one by one, as long as each just follows in the open batch and has room.

        Returns:
            Those; one more that is only in memory, if it doesn't follow or the disk failed; that failure.
        """
        append, has_room, message_size = store.append, store.has_room, self._queue_message_size
        spare = self._batcher.spare
        run: list[bytes] = []
        for event in itertools.islice(events, self._batcher.events_left):
            spare -= len(event) + 1
            if spare < 0 or not (event and event[0] == _OPENS and event[-1] == _CLOSES):
                return run, event, None
            try:
                append(event)
            except EventError as exc:
                return run, event, exc
            run.append(event)
            if not has_room(message_size):
                break
        return run, None, None

    def _reject(self, event: bytes, now: float, rejected: list[tuple[int, Rejection]]) -> bool:
        """Give an event up if it can't be sent at all, and add why to `rejected`; return whether it was."""
        rejection = self._judge(event)
        if rejection is None:
            return False
        rejected.append((len(event), rejection))
        self._accounting.receive(1)
        self._rejections.reject(event, rejection, None, now)
        return True

    def _judge(self, event: bytes) -> Rejection | None:
        if not _may_be_json(event):
            return Rejection(DropReason.INVALID, "not JSON")
        if len(event) > self._batcher.largest_event:
            return Rejection(DropReason.OVERSIZE, "larger than batch.max_size")
        return None

    def retry(self, now: float) -> None:
        """Try again what the disk of the spool didn't take."""
        if self._batcher.full:
            self.flush(now)
        if self._take_in(now):
            self._accounting.spool(1)

    def _take_in(self, now: float) -> bool:
        """Spool the event that is held; return whether the disk took it."""
        batcher, store, event = self._batcher, self._store, self.held
        if store is None or event is None:
            return False
        try:
            if not batcher.fits(event):
                self._close()
            store.append(event)
        except EventError as exc:
            self._disk.fail(exc, now)
            return False
        self.held = None
        self._disk.succeed()
        batcher.add(event, now)
        if batcher.full:
            self.flush(now)
        return True

    def flush(self, now: float) -> None:
        """Close the open batch now, whatever its age, if the disk allows."""
        try:
            self._close()
        except EventError as exc:
            self._disk.fail(exc, now)

    def _close(self) -> None:
        """Close the open batch and its segment; raise an `EventError` if the disk fails."""
        segment = self._store.close_segment() if self._store is not None else None
        self._disk.succeed()
        batch = self._batcher.take()
        if batch is None:
            return
        self._pending.add(len(batch.events), batch.opened_at, batch, segment)

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that are in memory only and in no closed batch."""
        last = self._batcher.take() if self._store is None else None
        events = [*last.events] if last is not None else []
        events += [self.held] if self.held is not None else []
        self.held = None
        return events


def _may_be_json(event: bytes) -> bool:
    """Look at both ends of a message: enough to find what is empty, cut off, or binary."""
    text = event.strip(b" \t\r\n")
    first, last = text[:1], text[-1:]
    if first in {b"{", b"[", b'"'}:
        return len(text) > 1 and last == {b"{": b"}", b"[": b"]", b'"': b'"'}[first]
    return first.isdigit() or first in {b"-", b"t", b"f", b"n"}
