"""The policy of delivery: what is sent when, and what becomes of it. Pure.

Events come in by `offer`, batches go out by `next_attempt`, and `finish` takes what became of an attempt.
Time is an argument; chance, the spool and the dead letters are passed in, so that all of it can be driven by
simulated ones.

Rules:

1. Nothing is given up but what the collector refuses when it is alone, and what is older than `max_age` where
   that is set; such events become dead letters. Every other batch is tried until it is accepted, at the pace
   of `backoff`.
2. A batch that is refused for its content or size is split in halves until the offender is alone. A 413 for
   several events teaches the batcher a smaller size.
3. A batch that got `MAX_FAILURES` answers of 5xx, or hang-ups, with others going through between each two, is
   treated as refused: an event that crashes the collector must not block the line. A lone event is given up
   after `MAX_LONE_FAILURES` only, and not while other batches that got such answers are accepted later: then
   the collector has troubles that aren't the event's. For others to go through, the next probe after such an
   answer is another batch.
4. Batches are started in the order in which their first events came. With a concurrency of 1 they also arrive
   in that order, but for batches that rule 2 or 3 sets aside.
5. With a spool an event is on disk before the next is received, and its segment is deleted when every event
   of it has found its fate. An event that the disk doesn't take is held, and no more are received until it
   does.
6. What is in memory is bounded: `(concurrency + 1)` batches by size. Without a spool, and as long as the
   collector has not proven that it takes batches (at the start, and after a failure), no more events than the
   queue could take back.
7. An event that can't be written to the dead letters is held, and no more are received until it can.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ...errors import EventError
from .accounting import Accounting, DropReason
from .outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge
from .pending import Attempt, PendingBatch, Rejection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .backoff import ConcurrencyLimit
    from .batching import Batch, Batcher
    from .pending import DeadLetterSink, Segment, Store

#: Answers of 5xx, or hang-ups, that speak against a batch until it is split, and against a lone event until
#: it is given up. A collector that turns away half of what it gets, at random, would get an innocent event
#: given up in one of a million trials: others must go through at once between each two, (0.5 * 0.5)**10.
MAX_FAILURES: Final = 5
MAX_LONE_FAILURES: Final = 10

#: The bytes at the ends of a JSON object.
_OPENS: Final = ord("{")
_CLOSES: Final = ord("}")

#: Seconds until a disk that failed is tried again.
DISK_PAUSE: Final = 1.0


class Delivery:
    """Decides what is sent when, and accounts for every event.

    Args:
        batcher: Gathers events to batches.
        limit: Says when attempts may start.
        concurrency: Attempts under way at the same time, at least 1.
        max_size: Bytes of a batch at most; memory is bounded by `(concurrency + 1)` times that.
        queue_capacity: Events that the queue can hold.
        queue_message_size: Bytes of the largest event that the queue can hold.
        store: The spool, or None.
        recovered: Segments that an earlier run left in the spool, oldest first.
        dead_letters: The dead letters, or None: then what would become one is dropped.
        max_age: Seconds after which an event that can't be delivered is given up, or None: never.
        now: Seconds of the monotonic clock.

    Attributes:
        accounting: The fates of all events.
        queue_capacity: Events that the queue can hold; to be set when the queue was made anew.
        queue_message_size: Bytes of the largest event that it can hold; likewise.
        disk_error: What the disk said when it last failed, None once it works again.
    """

    def __init__(
        self,
        batcher: Batcher,
        limit: ConcurrencyLimit,
        *,
        concurrency: int,
        max_size: int,
        queue_capacity: int,
        queue_message_size: int,
        store: Store | None = None,
        recovered: Iterable[Segment] = (),
        dead_letters: DeadLetterSink | None = None,
        max_age: float | None = None,
        now: float = 0.0,
    ) -> None:
        self.accounting: Accounting = Accounting()
        self.queue_capacity: int = queue_capacity
        self.queue_message_size: int = queue_message_size
        self.disk_error: str | None = None
        self.limit: ConcurrencyLimit = limit
        self._batcher = batcher
        self._max_memory = (concurrency + 1) * max_size
        self._store = store
        self._dead_letters = dead_letters
        self._max_age = max_age
        self._waiting: list[tuple[tuple[int, int], PendingBatch]] = []  # a heap
        self._in_flight: dict[tuple[int, int], Attempt] = {}
        self._memory = 0  # bytes of the batches that wait or are under way, as far as they are in memory
        self._parts: dict[int, int] = {}  # parcels on their way, by segment
        self._doomed: list[tuple[bytes, Rejection, Segment | None]] = []  # events that couldn't be buried yet
        self._held: bytes | None = None  # an event that couldn't be spooled yet
        self._disk_at = float("-inf")  # when the disk is to be tried again
        self._number = 0
        self._passed = 0
        self._acquitted = 0
        for segment in recovered:
            self.accounting.recover(segment.count)
            self._send(PendingBatch(self._next_order(), segment.count, now, None, segment))

    @property
    def room(self) -> int:
        """How many events from the queue there is a safe place for, whatever their sizes."""
        if self._held is not None or self._doomed:
            return 0
        if self._store is not None:
            # One by one, so that no more than one is ever on its way between queue and disk.
            return int(self._store.has_room(self.queue_message_size))
        memory = self._max_memory - self._memory - self._batcher.size
        # Any memory that is left is room for one, which may take a bit more.
        room = (memory + self.queue_message_size - 1) // self.queue_message_size
        if not self.limit.healthy:
            room = min(room, self.queue_capacity - self._exposed)
        return max(0, room)

    @property
    def _exposed(self) -> int:
        """Events in memory, without those of suspects: others must come before they can be convicted."""
        return self.accounting.in_hand - sum(parcel.count for _, parcel in self._waiting if parcel.answers)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event that is still to be delivered came; None if there is none."""
        times = [parcel.opened_at for _, parcel in self._waiting]
        times += [attempt.parcel.opened_at for attempt in self._in_flight.values()]
        if self._batcher.opened_at is not None:
            times.append(self._batcher.opened_at)
        return min(times, default=None)

    def offer(self, events: Iterable[bytes], now: float) -> list[tuple[int, Rejection]]:
        """Take events from the queue while there is `room`.

        Args:
            events: Gives them. None is asked for that there is no room for; with a spool none before the one
                before it is on the disk.
            now: Seconds of the monotonic clock.

        Returns:
            Those that can't be sent at all and were given up, which is counted: the size of each, and why.
        """
        events = iter(events)
        refused: list[tuple[int, Rejection]] = []
        if self._store is not None:
            while self.room and self._spool(self._store, events, now, refused):
                pass
        else:
            while (room := self.room) and (burst := list(itertools.islice(events, room))):
                self._gather(burst, now, refused)
        return refused

    def _gather(self, events: Sequence[bytes], now: float, refused: list[tuple[int, Rejection]]) -> None:
        """Take in events without a spool."""
        largest = self._batcher.largest_event
        # Nearly all events are objects; looking at their two ends in place is what a burst can afford.
        if [e for e in events if not (e and e[0] == _OPENS and e[-1] == _CLOSES and len(e) <= largest)]:
            events = [event for event in events if not self._refuse(event, now, refused)]
        self.accounting.receive(len(events))
        while events:
            taken = self._batcher.add_many(events, now)
            if taken < len(events) or self._batcher.full:
                self._close()
            events = events[taken:]

    def _spool(
        self, store: Store, events: Iterator[bytes], now: float, refused: list[tuple[int, Rejection]]
    ) -> bool:
        """Take in events with a spool, up to the first that doesn't just follow in the open batch.

        Returns:
            Whether there was any.
        """
        run, other, trouble = self._write_run(store, events)
        if run:
            self.disk_error = None
            self.accounting.receive_spooled(len(run))
            self._batcher.add_many(run, now)
            if self._batcher.full:
                self.flush(now)
        if other is None:
            return bool(run)
        if trouble is not None:
            self._held = other
            self.accounting.receive(1)
            self._note_disk(trouble, now)
        elif not self._refuse(other, now, refused):
            self._held = other
            if self._take_in(now):
                self.accounting.receive_spooled(1)
            else:
                self.accounting.receive(1)
        return True

    def _write_run(
        self, store: Store, events: Iterator[bytes]
    ) -> tuple[list[bytes], bytes | None, str | None]:
        """Write events to the disk one by one, as long as each just follows in the open batch and has room.

        Returns:
            Those; one more that is only in memory, if it doesn't follow or the disk failed; what that said.
        """
        append, has_room, message_size = store.append, store.has_room, self.queue_message_size
        spare = self._batcher.spare
        run: list[bytes] = []
        for event in itertools.islice(events, self._batcher.events_left):
            spare -= len(event) + 1
            if spare < 0 or not (event and event[0] == _OPENS and event[-1] == _CLOSES):
                return run, event, None
            try:
                append(event)
            except EventError as exc:
                return run, event, str(exc)
            run.append(event)
            if not has_room(message_size):
                break
        return run, None, None

    def _refuse(self, event: bytes, now: float, refused: list[tuple[int, Rejection]]) -> bool:
        """Give an event up if it can't be sent at all, and note the verdict; tell whether that was so."""
        verdict = self._judge(event)
        if verdict is None:
            return False
        refused.append((len(event), verdict))
        self.accounting.receive(1)
        self._give_up(event, verdict, None, now)
        return True

    def _judge(self, event: bytes) -> Rejection | None:
        if not _may_be_json(event):
            return Rejection(DropReason.INVALID, "not JSON")
        if len(event) > self._batcher.largest_event:
            return Rejection(DropReason.OVERSIZE, "larger than batch.max_size")
        return None

    def _take_in(self, now: float) -> bool:
        """Take in the event that is held, with a spool; tell whether the disk allowed it."""
        batcher, store, event = self._batcher, self._store, self._held
        if store is None or event is None:
            return False
        try:
            if not batcher.fits(event):
                self._close()
            store.append(event)
        except EventError as exc:
            self._note_disk(str(exc), now)
            return False
        self._held = None
        self.disk_error = None
        batcher.add(event, now)
        if batcher.full:
            self.flush(now)
        return True

    def flush(self, now: float) -> None:
        """Close the open batch now, whatever its age, if the disk allows."""
        try:
            self._close()
        except EventError as exc:
            self._note_disk(str(exc), now)

    def _close(self) -> None:
        """Close the open batch and its segment; raise an `EventError` if the disk doesn't let it."""
        segment = self._store.close_segment() if self._store is not None else None
        self.disk_error = None
        batch = self._batcher.take()
        if batch is None:
            return
        in_memory = segment is None or self._memory + batch.size <= self._max_memory
        self._send(
            PendingBatch(
                self._next_order(),
                len(batch.events),
                batch.opened_at,
                batch if in_memory else None,
                segment,
            )
        )

    def _next_order(self) -> tuple[int, int]:
        self._number += 1
        return self._number, 0

    def _send(self, parcel: PendingBatch) -> None:
        """Put a new parcel in the line."""
        if parcel.segment is not None:
            number = parcel.segment.number
            self._parts[number] = self._parts.get(number, 0) + 1
        self._requeue(parcel)

    def _requeue(self, parcel: PendingBatch) -> None:
        if parcel.batch is not None:
            self._memory += parcel.batch.size
        heapq.heappush(self._waiting, (parcel.order, parcel))

    def _note_disk(self, trouble: str, now: float) -> None:
        self.disk_error = trouble
        self._disk_at = now + DISK_PAUSE

    def next_attempt(self, now: float) -> Attempt | None:
        """Start an attempt if there is a batch to send and a reason not to wait any longer.

        Returns:
            What to send now; its end must be told to `finish`. None if there is nothing to do before
            `wake_at`, an event or the end of an attempt.
        """
        self._retry_disk(now)
        while len(self._in_flight) < self.limit.allowed and now >= self.limit.paused_until:
            due_at = self._batcher.due_at
            # Suspects don't count: it is the others that convict or acquit them.
            others_wait = any(not parcel.answers for _, parcel in self._waiting)
            if not others_wait and due_at is not None and now >= max(due_at, self._disk_at):
                self.flush(now)
            if not self._waiting:
                return None
            parcel = self._pick()
            batch = parcel.batch if parcel.batch is not None else self._load(parcel, now)
            if batch is None:
                continue
            attempt = Attempt(parcel, batch, now)
            self._in_flight[parcel.order] = attempt
            return attempt
        return None

    def _pick(self) -> PendingBatch:
        """Take the parcel out of the line that is to be sent next."""
        if self.limit.unpaused or not self._waiting[0][1].answers:
            return heapq.heappop(self._waiting)[1]
        # A suspect waits until those that are less so have been tried.
        item = min(self._waiting, key=lambda item: (item[1].answers, item[0]))
        self._waiting.remove(item)
        heapq.heapify(self._waiting)
        return item[1]

    def _load(self, parcel: PendingBatch, now: float) -> Batch | None:
        """Read a parcel's events from the disk; None if that can't be done now, or there are none."""
        if self._store is None or parcel.segment is None:
            raise AssertionError("a parcel has its events in memory or a segment")
        try:
            events = self._store.load(parcel.segment)
        except EventError as exc:
            self._requeue(parcel)
            self._note_disk(str(exc), now)
            self.limit.paused_until = max(self.limit.paused_until, self._disk_at)
            return None
        self.disk_error = None
        lost = parcel.count - len(events)
        if lost:
            self.accounting.drop(DropReason.DAMAGED, lost, spooled=True)
        if not events:
            self._settle(parcel.segment)
            return None
        batch = self._batcher.batch(events, parcel.opened_at)
        self._memory += batch.size
        return batch

    def wake_at(self) -> float | None:
        """Tell when `next_attempt` is to be asked again at the latest, in seconds of the monotonic clock.

        None where only an event or the end of an attempt can change anything.
        """
        times = [self._disk_at] if self._held is not None or self._doomed else []
        if len(self._in_flight) < self.limit.allowed:
            # A batch that is due stays open, and fills up, until it can be sent.
            if self._waiting:
                times.append(self.limit.paused_until)
            elif self._batcher.due_at is not None:
                times.append(max(self._batcher.due_at, self.limit.paused_until, self._disk_at))
        return min(times, default=None)

    def finish(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        """Take what became of an attempt: settle the fate of its events, or keep them for the next one."""
        del self._in_flight[attempt.parcel.order]
        parcel = replace(attempt.parcel, batch=attempt.batch, count=len(attempt.batch.events))
        self._memory -= attempt.batch.size
        match outcome:
            case Accepted():
                self._passed += 1
                if parcel.answers and not parcel.is_part:
                    self._acquitted += 1  # so such answers don't speak of contents these days
                self.limit.succeed(attempt.started_at, now)
                self.accounting.deliver(parcel.count, spooled=parcel.segment is not None)
                self._settle(parcel.segment)
            case TooLarge() | Refused():
                if isinstance(outcome, TooLarge) and parcel.count > 1:
                    self._batcher.learn(attempt.batch.size // 2)
                self.limit.succeed(attempt.started_at, now)  # the collector is there and reads what it gets
                verdict = Rejection(DropReason.REFUSED, outcome.reason, outcome.status, outcome.excerpt)
                self._isolate(parcel, verdict, now)
            case Retryable():
                self.limit.fail(attempt.started_at, outcome.retry_after, now)
                if outcome.may_be_poison:
                    parcel = self._suspect(parcel)
                enough = MAX_FAILURES if parcel.count > 1 else MAX_LONE_FAILURES
                if parcel.suspicions >= enough:
                    reason = f"{outcome.reason}, {enough} times while other batches went through"
                    self._isolate(parcel, Rejection(DropReason.REFUSED, reason, outcome.status), now)
                else:
                    self._keep(parcel, outcome.reason, outcome.status, now)
            case Misconfigured():
                self.limit.fail(attempt.started_at, outcome.retry_after, now)
                self._keep(parcel, outcome.reason, None, now)
            case _:
                assert_never(outcome)

    def _suspect(self, parcel: PendingBatch) -> PendingBatch:
        parcel = replace(parcel, answers=parcel.answers + 1)
        if not parcel.suspicions or (parcel.count == 1 and parcel.acquitted != self._acquitted):
            return replace(parcel, suspicions=1, passed=self._passed, acquitted=self._acquitted)
        if self._passed > parcel.passed:
            return replace(parcel, suspicions=parcel.suspicions + 1, passed=self._passed)
        return parcel

    def _keep(self, parcel: PendingBatch, reason: str, status: int | None, now: float) -> None:
        """Put a parcel back in the line, unless its time is over."""
        if self._max_age is None or now - parcel.opened_at < self._max_age:
            self._requeue(parcel)
        else:
            self._end(
                parcel, Rejection(DropReason.EXPIRED, f"older than retry.max_age: {reason}", status), now
            )

    def _isolate(self, parcel: PendingBatch, verdict: Rejection, now: float) -> None:
        """Split a parcel that was refused in halves, or give its only event up."""
        if parcel.batch is None or parcel.count == 1:
            self._end(parcel, verdict, now)
            return
        number, start = parcel.order
        # A half of a suspect is nearly convicted; a single event gets the whole trial again.
        suspicions = MAX_FAILURES - 1 if parcel.suspicions >= MAX_FAILURES else 0
        for part in self._batcher.split(parcel.batch):
            count = len(part.events)
            self._send(
                replace(
                    parcel,
                    order=(number, start),
                    count=count,
                    batch=part,
                    answers=suspicions,
                    suspicions=suspicions if count > 1 else 0,
                    passed=self._passed,
                    acquitted=self._acquitted,
                    is_part=True,
                )
            )
            start += count
        self._settle(parcel.segment)

    def _end(self, parcel: PendingBatch, verdict: Rejection, now: float) -> None:
        """Give up every event of a parcel."""
        if parcel.batch is None:
            raise AssertionError("only what was sent is given up")
        for event in parcel.batch.events:
            if parcel.segment is not None:
                self._parts[parcel.segment.number] += 1
            self._give_up(event, verdict, parcel.segment, now)
        self._settle(parcel.segment)

    def _give_up(self, event: bytes, verdict: Rejection, segment: Segment | None, now: float) -> None:
        """Make an event a dead letter, or drop it where there are none; hold it if the disk fails."""
        spooled = segment is not None
        if self._dead_letters is None:
            self.accounting.drop(verdict.fate, 1, spooled=spooled)
        else:
            try:
                self.accounting.letters_dropped += self._dead_letters.write(
                    event, status=verdict.status, reason=verdict.reason, excerpt=verdict.excerpt
                )
            except EventError as exc:
                self._note_disk(str(exc), now)
                self._doomed.append((event, verdict, segment))
                return
            self.accounting.dead_letter(1, spooled=spooled)
        self._settle(segment)

    def _settle(self, segment: Segment | None) -> None:
        """Note that a part of a segment needs it no longer; the last one deletes it."""
        if segment is None or self._store is None:
            return
        self._parts[segment.number] -= 1
        if not self._parts[segment.number]:
            del self._parts[segment.number]
            self._store.release(segment.number)

    def _retry_disk(self, now: float) -> None:
        """Try again what a disk didn't take."""
        if now < self._disk_at:
            return
        doomed, self._doomed = self._doomed, []
        if doomed:
            self.disk_error = None
        for event, verdict, segment in doomed:
            self._give_up(event, verdict, segment, now)
        if self._take_in(now):
            self.accounting.spool(1)

    def take_unsent(self) -> list[bytes]:
        """Give up everything that is in memory only, so that it can go back to the queue.

        Attempts under way count as failed: the collector may have taken their batches or not. What is in the
        spool stays there. To be called once, at the end; nothing else may be called afterwards.

        Returns:
            The events, oldest batch first. They stay `in_hand` in the accounting until their fate is told to
            it.
        """
        parcels = [parcel for _, parcel in self._waiting]
        parcels += [replace(attempt.parcel, batch=attempt.batch) for attempt in self._in_flight.values()]
        last = self._batcher.take() if self._store is None else None
        events = [
            event
            for parcel in sorted(parcels, key=lambda parcel: parcel.order)
            if parcel.segment is None and parcel.batch is not None
            for event in parcel.batch.events
        ]
        events += last.events if last is not None else ()
        events += [event for event, _, segment in self._doomed if segment is None]
        events += [self._held] if self._held is not None else []
        self._waiting, self._in_flight, self._doomed, self._held = [], {}, [], None
        return events


def _may_be_json(event: bytes) -> bool:
    """Look at both ends of a message: enough to find what is empty, cut off, or binary."""
    text = event.strip(b" \t\r\n")
    first, last = text[:1], text[-1:]
    if first in {b"{", b"[", b'"'}:
        return len(text) > 1 and last == {b"{": b"}", b"[": b"]", b'"': b'"'}[first]
    return first.isdigit() or first in {b"-", b"t", b"f", b"n"}
