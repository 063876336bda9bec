"""The policy of delivery: what is sent when, and what becomes of it. Pure.

Events come in by `offer`, batches go out by `next_attempt`, and `finish` receives the outcome of an attempt.
Time is an argument; randomness, the spool and the dead letters are passed in, so tests can simulate them.

    queue ──offer──▶ admission ──▶ pending ──next_attempt──▶ a sender
                                      ▲                          │
                                      └── retry, split ◀──finish─┘──▶ accepted, or given up: rejection

Rules:

1. An event is given up in four cases only: it cannot be an event (`admission`); it is refused, or keeps
   failing, alone while others are accepted (`poison`); or it is older than `max_age`. Every other batch is
   retried at the pace of `backoff` until it is accepted.
2. A batch that may be the cause of its failures, or is refused, is set aside or split in halves. A 413 for
   several events teaches the batcher a smaller size.
3. Batches are started in the order in which their first events came. With a concurrency of 1 they also arrive
   in that order, except those that rule 2 sets aside.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ...errors import EventError
from .accounting import Accounting, DropReason
from .admission import Admission
from .outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge
from .pending import PendingBatches
from .poison import CLEAN, Action, Pace, PoisonPolicy
from .rejection import Rejection, Rejections
from .store import DiskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .backoff import ConcurrencyLimit
    from .batching import Batch, Batcher
    from .pending import Attempt, PendingBatch
    from .poison import Judgement
    from .rejection import DeadLetterSink
    from .store import Store, StoredBatch

#: Seconds until a segment that couldn't be read is tried again; meanwhile others are.
_UNREADABLE_PAUSE: Final = 30.0

#: The HTTP status of a collector that has too much to do.
_SERVICE_UNAVAILABLE: Final = 503


class Delivery:
    """Decides what is sent when, and accounts for every event.

    Args:
        batcher: Gathers events to batches.
        limit: How many attempts may be in flight, and when they may start.
        concurrency: Attempts in flight at the same time, at least 1.
        max_size: Bytes of a batch at most; memory is bounded by `(concurrency + 2)` times that.
        queue_capacity: Events that the queue can hold.
        queue_message_size: Bytes of the largest event that the queue can hold.
        store: The spool, or None.
        recovered: Segments that an earlier run left in the spool, oldest first.
        dead_letters: Where events that are given up are written, or None: then they are dropped.
        max_age: Seconds after which an event that can't be delivered is given up, or None: never.
        now: Seconds of the monotonic clock.

    Attributes:
        accounting: The fates of all events.
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
        recovered: Iterable[StoredBatch] = (),
        dead_letters: DeadLetterSink | None = None,
        max_age: float | None = None,
        now: float = 0.0,
    ) -> None:
        self.accounting: Accounting = Accounting()
        self._limit = limit
        self._batcher = batcher
        self._max_age = max_age
        self._disk = DiskState()
        self._poison = PoisonPolicy()
        max_memory = (concurrency + 1) * max_size
        self._pending = PendingBatches(store, max_memory)
        self._rejections = Rejections(dead_letters, self.accounting, self._disk, self._pending.release)
        self._admission = Admission(
            batcher,
            self._pending,
            self._rejections,
            self.accounting,
            self._disk,
            store=store,
            max_memory=max_memory,
            max_size=max_size,
            queue_capacity=queue_capacity,
            queue_message_size=queue_message_size,
        )
        for segment in recovered:
            self.accounting.recover(segment.count)
            self._pending.add(segment.count, now, None, segment)

    @property
    def room(self) -> int:
        """How many events from the queue there is a safe place for, whatever their sizes."""
        return self._admission.room(healthy=self._limit.healthy)

    @property
    def in_flight(self) -> int:
        """How many attempts are in flight."""
        return self._pending.in_flight

    @property
    def failures(self) -> int:
        """Failed attempts in a row; 0 while the collector takes what it gets."""
        return self._limit.failures

    @property
    def paused_until(self) -> float:
        """When the next attempt may start, in seconds of the monotonic clock, if one may at all."""
        return self._limit.paused_until

    @property
    def disk_error(self) -> str | None:
        """What the disk reported when it last failed; None once it works again."""
        return self._disk.error

    @property
    def unspooled(self) -> bytes | None:
        """The one event that was received and that the spool didn't take yet, or None."""
        return self._admission.held

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event that is still to be delivered came; None if there is none."""
        times = [time for time in (self._pending.oldest_at, self._batcher.opened_at) if time is not None]
        return min(times, default=None)

    def resize_queue(self, capacity: int, message_size: int) -> None:
        """Go by another size of the queue, which was recreated: its events, and bytes of the largest."""
        self._admission.resize_queue(capacity, message_size)

    def resume(self) -> None:
        """End all pauses, as someone may have corrected what was wrong."""
        self._limit.resume()

    def offer(self, events: Iterable[bytes], now: float) -> list[tuple[int, Rejection]]:
        """Take events from the queue while there is `room`.

        Args:
            events: Gives them. None is asked for that there is no room for; with a spool none before the one
                before it is on the disk.
            now: Seconds of the monotonic clock.

        Returns:
            Those that can't be sent at all and were given up, which is counted: the size of each, and why.
        """
        return self._admission.offer(events, now, healthy=self._limit.healthy)

    def flush(self, now: float) -> None:
        """Close the open batch now, whatever its age, if the disk allows."""
        self._admission.flush(now)

    def next_attempt(self, now: float) -> Attempt | None:
        """Start an attempt if there is a batch to send and a reason not to wait any longer.

        Returns:
            What to send now; its end must be given to `finish`. None if there is nothing to do before
            `wake_at`, an event or the end of an attempt.
        """
        if now >= self._disk.retry_at:
            self._rejections.retry(now)
            self._admission.retry(now)
        while self._pending.in_flight < self._limit.allowed and now >= self._limit.paused_until:
            due_at = self._batcher.due_at
            if due_at is not None and now >= max(due_at, self._disk.retry_at) and not self._pending.has_line:
                self.flush(now)
            pending = self._pending.take(now)
            if pending is None:
                return None
            if pending.batch is not None:
                return self._pending.start(pending, pending.batch, now)
            attempt = self._load(pending, now)
            if attempt is not None:
                return attempt
        return None

    def _load(self, pending: PendingBatch, now: float) -> Attempt | None:
        """Start an attempt for a batch that is on disk only; None if that fails, or if it has no events."""
        try:
            events = self._pending.load(pending)
        except EventError as exc:
            # Others may be readable, so this one must not stop the line.
            self._pending.set_aside(pending, now + _UNREADABLE_PAUSE)
            self._disk.fail(exc, now)
            self._limit.pause_until(self._disk.retry_at)
            return None
        self._disk.succeed()
        lost = pending.count - len(events)
        if lost:
            self.accounting.drop(DropReason.DAMAGED, lost, spooled=True)
            self._poison.leave(pending.number, pending.count)
            pending = replace(pending, count=len(events), record=CLEAN)
        if not events:
            self._pending.release(pending.segment)
            return None
        return self._pending.start(pending, self._batcher.batch(events, pending.opened_at), now)

    def wake_at(self) -> float | None:
        """Tell when `next_attempt` is to be asked again at the latest, in seconds of the monotonic clock.

        None where only an event or the end of an attempt can change anything.
        """
        times = [self._disk.retry_at] if self._admission.waits_for_disk else []
        if self._pending.in_flight < self._limit.allowed:
            # A batch that is due stays open, and fills up, until it can be sent.
            paused_until = self._limit.paused_until
            if self._pending.due_at is not None:
                times.append(max(self._pending.due_at, paused_until))
            if self._batcher.due_at is not None and not self._pending.has_line:
                times.append(max(self._batcher.due_at, paused_until, self._disk.retry_at))
        return min(times, default=None)

    def finish(self, attempt: Attempt, outcome: Outcome, now: float) -> Action | None:
        """Take what became of an attempt: settle the fate of its events, or keep them for the next one.

        Returns:
            What is done with the batch if it wasn't accepted.
        """
        pending = attempt.pending
        action = Action.KEEP
        self._pending.finish(attempt)
        match outcome:
            case Accepted():
                self._poison.accept(pending.record, pending.number, pending.count, attempt.started_at)
                self._limit.succeed(attempt.started_at, now)
                self.accounting.deliver(pending.count, spooled=pending.segment is not None)
                self._pending.release(pending.segment)
                return None
            case TooLarge() | Refused():
                if isinstance(outcome, TooLarge) and pending.count > 1:
                    self._batcher.learn(attempt.batch.size // 2)
                judgement = self._poison.refuse(pending.record, pending.number, pending.count, now)
                rejection = Rejection(DropReason.REFUSED, outcome.reason, outcome.status, outcome.excerpt)
                self._change_pace(attempt, judgement.pace, 0.0, now)
                action = self._act(attempt, judgement, rejection, now)
            case Retryable(may_be_poison=True):
                overloaded = outcome.status == _SERVICE_UNAVAILABLE
                judgement = self._poison.fail(
                    pending.record,
                    pending.number,
                    pending.count,
                    overloaded=overloaded,
                    all_held=self._pending.are_all_held,
                )
                reason = f"{outcome.reason}, {judgement.record.failures} times while others were accepted"
                rejection = Rejection(DropReason.REFUSED, reason, outcome.status)
                self._change_pace(attempt, judgement.pace, outcome.retry_after, now)
                action = self._act(attempt, judgement, rejection, now)
            case Retryable() | Misconfigured():
                self._poison.pass_over(pending.record)
                self._limit.fail(attempt.started_at, outcome.retry_after, now)
                status = outcome.status if isinstance(outcome, Retryable) else None
                if self._expire(attempt, outcome.reason, status, now):
                    action = Action.GIVE_UP
                else:
                    self._put_back(pending, now)
            case _:
                assert_never(outcome)
        return action

    def _change_pace(self, attempt: Attempt, pace: Pace, retry_after: float, now: float) -> None:
        """Let an attempt that failed, or was rejected, decide when the next ones start."""
        match pace:
            case Pace.ANSWERED:
                self._limit.succeed(attempt.started_at, now, accepted=False)
            case Pace.UNCHANGED:
                self._limit.pause_until(now + retry_after)
            case Pace.PROBE:
                self._limit.pause_until(now + retry_after)
                self._limit.pause_briefly(now)
            case Pace.FAILED:
                self._limit.fail(attempt.started_at, retry_after, now)
            case _:
                assert_never(pace)

    def _act(self, attempt: Attempt, judgement: Judgement, rejection: Rejection, now: float) -> Action:
        """Set a batch aside that failed or was rejected, split it, or give its only event up."""
        pending = replace(attempt.pending, record=judgement.record)
        if self._expire(attempt, rejection.reason, rejection.status, now):
            return Action.GIVE_UP
        match judgement.action:
            case Action.KEEP if judgement.goes_first:
                self._pending.set_aside(pending, float("-inf"))
            case Action.KEEP:
                self._put_back(pending, now)
            case Action.SPLIT:
                self._split(pending, attempt.batch)
            case Action.GIVE_UP:
                self._give_up(pending, attempt.batch, rejection, now)
            case _:
                assert_never(judgement.action)
        return judgement.action

    def _put_back(self, pending: PendingBatch, now: float) -> None:
        """Put a batch back in the line, or aside if it failed in a way that it may have caused."""
        if pending.record.failures:
            self._pending.set_aside(pending, now + self._limit.backoff.pause_after(pending.record.failures))
        elif pending.record.is_part:
            self._pending.set_aside(pending, float("-inf"))
        else:
            self._pending.put_back(pending)

    def _expire(self, attempt: Attempt, reason: str, status: int | None, now: float) -> bool:
        """Give up a batch that is older than `max_age`; return whether it was."""
        pending = attempt.pending
        if self._max_age is None or now - pending.opened_at < self._max_age:
            return False
        self._poison.leave(pending.number, pending.count)
        rejection = Rejection(DropReason.EXPIRED, f"older than retry.max_age: {reason}", status)
        self._give_up(pending, attempt.batch, rejection, now)
        return True

    def _split(self, pending: PendingBatch, batch: Batch) -> None:
        """Set the halves of a batch aside in its place; they are due at once."""
        first, second = self._batcher.split(batch)
        number, start = pending.order
        record = self._poison.split(pending.record, number, (len(first.events), len(second.events)))
        for half in (first, second):
            count = len(half.events)
            part = replace(pending, order=(number, start), count=count, batch=half, record=record)
            self._pending.add_part(part)
            start += count
        self._pending.release(pending.segment)

    def _give_up(self, pending: PendingBatch, batch: Batch, rejection: Rejection, now: float) -> None:
        """Give up every event of a batch."""
        for event in batch.events:
            if pending.segment is not None:
                self._pending.hold(pending.segment)
            self._rejections.reject(event, rejection, pending.segment, now)
        self._pending.release(pending.segment)

    def take_unsent(self) -> list[bytes]:
        """Hand over everything that is in memory only, so that it can go back to the queue.

        Attempts in flight count as failed: the collector may have taken their batches or not. What is in the
        spool stays there. To be called once, at the end; only `requeued` may be called afterwards.

        Returns:
            The events, oldest batch first. They stay `in_hand` in the accounting until `requeued`.
        """
        return [
            *self._pending.take_unsent(),
            *self._admission.take_unsent(),
            *self._rejections.take_unsent(),
        ]

    def requeued(self, count: int, *, lost: int) -> None:
        """Account for what `take_unsent` gave: `count` are in the queue again, it had no room for `lost`."""
        self.accounting.requeue(count)
        self.accounting.drop(DropReason.QUEUE_FULL, lost)
