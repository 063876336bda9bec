"""Decides what is sent when, and what follows from each reply. Pure.

Events come in by `offer` or, if they are in the spool, by `offer_run`. Batches go out by `next_attempt`, and
`finish` receives the outcome of an attempt. Time is an argument. Randomness and the journal are passed in, so
tests can simulate them.

    queue, spool ──▶ admission ──▶ pending ──next_attempt──▶ a sender
                                      ▲                          │
                                      └── retry, split ◀──finish─┘──▶ accepted, or given up: rejection

Rules:

1. An event is given up in four cases only: it cannot be an event (`admission`); it is refused, or keeps
   failing, alone while others are accepted (`poison`); or it is older than `max_age`. Every other batch is
   retried at the pace of `backoff` until it is accepted.
2. A batch that is refused, or may be the cause of its failures, is set aside or split in halves. After a 413
   for several events, the batcher makes smaller batches.
3. Batches start in the order in which their first events came. With a concurrency of 1 they also arrive in
   that order, except those that rule 2 sets aside.
4. A batch whose events are in the spool is entered in the journal before its first attempt, and again when
   more is known of its failures or when it is split. So after a kill the same batches are sent again, under
   the same idempotency keys. It is taken out when its events have their fates.
5. What others delete or damage in the spool while it waits there only is dropped and counted. What is left of
   its batch is a batch of its own, under another key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..._compat import assert_never
from ..._words import counted
from .accounting import Accounting, DropReason
from .admission import Admission
from .journal import EnteredBatch
from .outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge
from .pending import ParkedBatch, PendingBatch, PendingBatches
from .poison import CLEAN, Action, Pace, PoisonPolicy
from .rejection import Rejection, Rejections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .backoff import ConcurrencyLimit
    from .batching import Batcher
    from .journal import Journal
    from .pending import Attempt
    from .poison import Judgement
    from .span import EventRun

#: The HTTP status of a collector that has too much to do.
_SERVICE_UNAVAILABLE: Final = 503


class Delivery:
    """Decides what is sent when, and accounts for every event.

    Args:
        batcher: Gathers events into batches.
        limit: How many attempts may be in flight, and when they may start.
        concurrency: Attempts in flight at the same time, at least 1.
        max_size: Bytes of a batch at most; memory is bounded by `(concurrency + 2)` times that.
        queue_capacity: Events that the queue can hold.
        queue_message_size: Bytes of the largest event that the queue can hold.
        journal: Where batches of events in the spool are entered, and dead letters written. None if there is
            neither: then events that are given up are dropped.
        load: Reads the events of a batch again that was entered, by its `order`, and gives their places:
            fewer events if the others are gone for good, None if they can't be read now. Without it, all
            batches stay in memory.
        max_age: Seconds after which an event that can't be delivered is given up, or None: never.

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
        journal: Journal | None = None,
        load: Callable[[tuple[int, int]], EventRun | None] | None = None,
        max_age: float | None = None,
    ) -> None:
        self.accounting: Accounting = Accounting()
        self._limit = limit
        self._batcher = batcher
        self._max_age = max_age
        self._journal = journal
        self._load = load
        self._poison = PoisonPolicy()
        self._pending = PendingBatches(may_park=load is not None)
        self._rejections = Rejections(journal, self.accounting)
        self._admission = Admission(
            batcher,
            self._pending,
            self._rejections,
            self.accounting,
            max_memory=(concurrency + 1) * max_size,
            max_size=max_size,
            queue_capacity=queue_capacity,
            queue_message_size=queue_message_size,
        )

    @property
    def room(self) -> int:
        """How many events from the queue have a safe place in memory, whatever their sizes."""
        return self._admission.room(healthy=self._limit.healthy)

    @property
    def memory_left(self) -> int:
        """Bytes of events that there is room for; any number above 0 is room for one of any size."""
        return self._admission.memory_left

    @property
    def in_flight(self) -> int:
        """How many attempts are in flight."""
        return self._pending.in_flight

    @property
    def failures(self) -> int:
        """Failed attempts in a row; 0 while the collector accepts batches."""
        return self._limit.failures

    @property
    def paused_until(self) -> float:
        """When the next attempt may start, in seconds of the monotonic clock, if one may at all."""
        return self._limit.paused_until

    @property
    def disk_error(self) -> str | None:
        """Why dead letters couldn't be written the last time; None if they could."""
        return self._rejections.error

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event that is still to be delivered came; None if there is none."""
        times = [time for time in (self._pending.oldest_at, self._batcher.opened_at) if time is not None]
        return min(times, default=None)

    def resize_queue(self, capacity: int, message_size: int) -> None:
        """Use another size of the queue, which was recreated: its events, and bytes of the largest."""
        self._admission.resize_queue(capacity, message_size)

    def resume(self) -> None:
        """End all pauses, as the cause may have been corrected."""
        self._limit.resume()

    def offer(self, events: Iterable[bytes], now: float) -> list[tuple[int, Rejection]]:
        """Take events from the queue into memory while there is `room`.

        Args:
            events: Yields them. None is requested without room for it.
            now: Seconds of the monotonic clock.

        Returns:
            Those that can't be sent at all and were given up, and counted: the size of each, and why.
        """
        return self._admission.offer(events, now, healthy=self._limit.healthy)

    def offer_run(self, run: EventRun, now: float) -> list[tuple[int, Rejection]]:
        """Take events that are in the spool, of `memory_left` bytes or one; return as `offer` does."""
        return self._admission.offer_run(run, now)

    def recover(self, entered: EnteredBatch, events: Sequence[bytes], now: float) -> bool:
        """Take a batch that an earlier run had entered, before anything else is taken.

        Args:
            entered: As the journal has it.
            events: All events at its places; at least one.
            now: Seconds of the monotonic clock.

        Returns:
            Whether it has the same events as when it was entered. Otherwise it gets another idempotency key.
        """
        self.accounting.recover(len(events))
        batch = self._batcher.batch(tuple(events), now, entered.spans)
        pending = PendingBatch(entered.order, batch, entered.record, is_entered=True)
        is_same = pending.count == entered.count  # their bytes are those that the spool has checked
        if not is_same:
            self._enter(pending)
        self._pending.add_recovered(pending)
        return is_same

    def flush(self) -> None:
        """Close the open batch now, whatever its age."""
        self._admission.flush()

    def next_attempt(self, now: float) -> Attempt | None:
        """Start an attempt if a batch is due.

        Returns:
            What to send now; its outcome must be given to `finish`. None if there is nothing to do before
            `wake_at`, an event or the end of an attempt.
        """
        self._rejections.retry(now)
        if self._pending.in_flight >= self._limit.allowed or now < self._limit.paused_until:
            return None
        due_at = self._batcher.due_at
        if due_at is not None and now >= due_at and not self._pending.has_line:
            self.flush()
        pending = self._take(now)
        if pending is None:
            return None
        if pending.batch.spans and not pending.is_entered:
            pending = replace(pending, is_entered=True)
            self._enter(pending)
        return self._pending.start(pending, now)

    def _take(self, now: float) -> PendingBatch | None:
        """Take the batch that is to be sent next, with its events; None if none is due."""
        while True:
            pending = self._pending.take(now, self._admission.spare)
            if not isinstance(pending, ParkedBatch):
                return pending
            run = self._load(pending.order) if self._load is not None else None
            if run is None:
                self._set_aside(pending, now)
                continue
            record = pending.record
            if len(run.events) < pending.count:
                record = CLEAN  # it is another batch now, of which nothing is known
                self._lose(pending, run)
            if run.events:
                batch = self._batcher.batch(tuple(run.events), pending.opened_at, run.spans)
                return PendingBatch(pending.order, batch, record, is_entered=True)

    def _lose(self, parked: ParkedBatch, rest: EventRun) -> None:
        """Drop the events of a batch that are gone from the spool."""
        left = len(rest.events)
        if left <= 1:
            self._poison.leave(parked.order[0], parked.count)
        self.accounting.drop(DropReason.SPOOL_LOST, parked.count - left, spooled=True)
        if self._journal is not None:
            self._journal.shrink(EnteredBatch(parked.order, left, rest.spans), parked.count - left)

    def _enter(self, pending: PendingBatch) -> None:
        """Enter a batch in the journal as it is now."""
        if self._journal is not None and pending.batch.spans:
            self._journal.enter(_entry(pending))

    def wake_at(self) -> float | None:
        """Return when to call `next_attempt` again at the latest, in seconds of the monotonic clock.

        None if only an event or the end of an attempt can change anything.
        """
        times = [self._rejections.retry_at] if self._rejections.size else []
        if self._pending.in_flight < self._limit.allowed:
            # A batch that is due stays open, and fills up, until it can be sent.
            paused_until = self._limit.paused_until
            due_at = self._pending.due_at(self._admission.spare)
            if due_at is not None:
                times.append(max(due_at, paused_until))
            if self._batcher.due_at is not None and not self._pending.has_line:
                times.append(max(self._batcher.due_at, paused_until))
        return min(times, default=None)

    def finish(self, attempt: Attempt, outcome: Outcome, now: float) -> Action | None:
        """Take the outcome of an attempt: its events get their fates, or are kept for the next one.

        Returns:
            What is done with the batch if it wasn't accepted; None if it was.
        """
        pending = attempt.pending
        action = Action.KEEP
        self._pending.finish(attempt)
        match outcome:
            case Accepted():
                self._poison.accept(pending.record, pending.number, pending.count, attempt.started_at)
                self._limit.succeed(attempt.started_at, now)
                self.accounting.deliver(pending.count, spooled=bool(pending.batch.spans))
                if self._journal is not None and pending.batch.spans:
                    self._journal.finish(pending.order)
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
                failures = counted(judgement.record.failures, "time")
                reason = f"{outcome.reason}, {failures} while others were accepted"
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
        """Change when the next attempts start, after one that failed or was refused."""
        match pace:
            case Pace.ANSWERED:
                self._limit.succeed(attempt.started_at, now, accepted=False)
            case Pace.UNCHANGED | Pace.PROBE:
                self._limit.pause_until(now + retry_after)
                if pace is Pace.PROBE:
                    self._limit.pause_briefly(now)
            case Pace.FAILED:
                self._limit.fail(attempt.started_at, retry_after, now)
            case _:
                assert_never(pace)

    def _act(self, attempt: Attempt, judgement: Judgement, rejection: Rejection, now: float) -> Action:
        """Set aside a batch that failed or was refused, split it, or give up its only event."""
        pending = replace(attempt.pending, record=judgement.record)
        if self._expire(attempt, rejection.reason, rejection.status, now):
            return Action.GIVE_UP
        match judgement.action:
            case Action.KEEP:
                self._enter(pending)
                if judgement.goes_first:
                    self._pending.set_aside(pending)
                else:
                    self._put_back(pending, now)
            case Action.SPLIT:
                self._split(pending)
            case Action.GIVE_UP:
                self._give_up(pending, rejection, now)
            case _:
                assert_never(judgement.action)
        return judgement.action

    def _put_back(self, pending: PendingBatch, now: float) -> None:
        """Put a batch back in the line, or aside if it may be the cause of a failure."""
        if pending.record.failures:
            self._set_aside(pending, now)
        elif pending.record.is_part:
            self._pending.set_aside(pending)
        else:
            self._pending.put_back(pending)

    def _set_aside(self, pending: PendingBatch | ParkedBatch, now: float) -> None:
        """Set a batch aside for a time that grows with its failures."""
        pause = self._limit.backoff.pause_after(pending.record.failures)
        self._pending.set_aside_until(pending, now + pause)

    def _expire(self, attempt: Attempt, reason: str, status: int | None, now: float) -> bool:
        """Give up a batch that is older than `max_age`; return whether it was."""
        pending = attempt.pending
        if self._max_age is None or now - pending.opened_at < self._max_age:
            return False
        self._poison.leave(pending.number, pending.count)
        rejection = Rejection(DropReason.EXPIRED, f"older than retry.max_age: {reason}", status)
        self._give_up(pending, rejection, now)
        return True

    def _split(self, pending: PendingBatch) -> None:
        """Set the halves of a batch aside in its place; they are due at once."""
        first, second = self._batcher.split(pending.batch)
        number, start = pending.order
        count = len(first.events)
        record = self._poison.split(pending.record, number, (count, len(second.events)))
        parts = [
            replace(pending, batch=first, record=record),
            replace(pending, order=(number, start + count), batch=second, record=record),
        ]
        if self._journal is not None and pending.batch.spans:
            self._journal.replace(pending.order, [_entry(part) for part in parts])
        for part in parts:
            self._pending.set_aside(part)

    def _give_up(self, pending: PendingBatch, rejection: Rejection, now: float) -> None:
        """Give up every event of a batch."""
        batch = pending.batch
        order = pending.order if batch.spans else None
        self._rejections.reject(batch.events, rejection, batch.spans, now, order=order)

    def take_unsent(self) -> list[bytes]:
        """Hand over everything that is in memory only, so that it can go back to the queue.

        Attempts in flight count as failed: the collector may have accepted their batches or not. What is in
        the spool stays there. To be called once, at the end; only `requeued` may be called afterwards.

        Returns:
            The events, oldest batch first. They stay `in_hand` in the accounting until `requeued`.
        """
        return [
            *self._pending.take_unsent(),
            *self._admission.take_unsent(),
            *self._rejections.take_unsent(),
        ]

    def requeued(self, count: int, *, lost: int) -> None:
        """Count what `take_unsent` returned: `count` are in the queue again, which had no room for `lost`."""
        self.accounting.requeue(count)
        self.accounting.drop(DropReason.QUEUE_FULL, lost)


def _entry(pending: PendingBatch) -> EnteredBatch:
    """Return a batch as the journal has it."""
    return EnteredBatch(pending.order, pending.count, pending.batch.spans, pending.record)
