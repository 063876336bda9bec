"""Supplies a publisher that has a spool with events, and records their fates.

    services ──▶ segments ──▶ reader ──▶ policy ──▶ journal: recorded in the ledger, space freed by the reader
    POSIX queue ──▶ relay ──▶ a segment ──▶ ┘ directly, if there is memory and nothing before it

Rules:

1. Relayed events are handed on without being read back, unless events that were relayed before, by this run
   or an earlier one, may wait unread (`is_behind`). Then the reader returns them in their turn, which keeps
   the order.
2. Delivery outranks bookkeeping: if the ledger can't be written, events are delivered, and a crash may
   deliver some of them twice.
3. With `spool.fsync`, the spool is forced onto the disk at most `batch.max_age` later, and at the end. If
   that fails for a segment, its events are written to another one: the system may have discarded the data,
   and doesn't report that twice.
4. Events that failed may wait in the spool only. If a segment is deleted or damaged meanwhile, what is whole
   of a batch is delivered, and the rest is counted as lost, both at the next attempt. While a segment can't
   be read, its batches wait.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from .._words import Count
from .policy.span import EventRun, Span, cut_spans, join_spans, records_size, spans_without
from .spool_reader.catalog import REASONS
from .telemetry.snapshot import SpoolLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .ledger.ledger import Ledger
    from .policy.delivery import Delivery
    from .policy.journal import DeadLetter, EnteredBatch
    from .relay import Relay
    from .spool_reader.reader import SpoolReader

logger: logging.Logger = logging.getLogger(__name__)

_NOTHING: Final = EventRun([], ())

#: Bytes of events of the POSIX queue that are appended at a time: a slow disk may take longer for 1,000 of
#: full size than the watchdog waits.
BURST_BYTES: Final = 8 * 2**20

#: Reasons for which services refuse events, as their segments report them (`EventQueue.refused`).
_REFUSALS: Final = ("too_large", "full", "empty", "not_serializable", "unavailable", "other")


class _Moved(NamedTuple):
    """The former and the present places of events that were written to another segment, in the same order."""

    before: tuple[Span, ...]
    now: tuple[Span, ...]


class SpoolSource:
    """The reader, the relay and the ledger of a spool; the journal of the policy.

    Args:
        reader: Reads the spool.
        relay: Appends events of the POSIX queue to it.
        ledger: Records batches and fates.
        clock: Returns the seconds of the monotonic clock.
        sync_pause: Seconds after a read until the spool is forced onto the disk; None: never.

    Attributes:
        relay: As given.
        ledger: As given.
        rekeyed: Events whose batches have other bytes than when they were first sent, and so another key.
        may_be_more: Whether events may wait unread: the last `read` found some, or had no room for any.
        is_behind: Whether events that were relayed may wait to be read, until `read` finds nothing.
    """

    def __init__(
        self,
        reader: SpoolReader,
        relay: Relay,
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        sync_pause: float | None,
    ) -> None:
        self.relay: Relay = relay
        self.ledger: Ledger = ledger
        self.rekeyed: int = 0
        self.may_be_more: bool = True
        self.is_behind: bool = False
        self._reader = reader
        self._clock = clock
        self._sync_pause = sync_pause
        self._sync_at = math.inf
        self._spans: dict[tuple[int, int], tuple[Span, ...]] = {}  # of batches that were entered
        self._moved: dict[bytes, _Moved] = {}  # events that the policy has, by the segment that they left
        self._has_reported_error = False
        self._unwritten = _NOTHING  # events of a segment that couldn't be rewritten, and go next

    def recover(self, delivery: Delivery, now: float) -> None:
        """Hand the batches that an earlier run had begun to send to the policy. To be called once, first."""
        self.ledger.retain(self._reader.identities())
        for entered in self.ledger.unfinished():
            events = self._reader.load(entered.spans)
            if not events:
                logger.error(
                    "can't read all of the %s of an unfinished batch from the spool again; "
                    "those that are whole are sent under another idempotency key",
                    Count(entered.count, "event"),
                )
                self.ledger.replace(entered.order, ())
                self.rekeyed += entered.count
                continue
            self._spans[entered.order] = entered.spans
            if not delivery.recover(entered, events, now):
                self.rekeyed += len(events)
        self.is_behind = self._reader.status().backlog > 0

    # The journal of the policy.

    def enter(self, batch: EnteredBatch) -> None:
        """Record a batch; see `Journal.enter`."""
        batch = self._find(batch)
        self._spans[batch.order] = batch.spans
        self.ledger.enter(batch)

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch]) -> None:
        """Replace a batch by its parts; see `Journal.replace`."""
        del self._spans[order]
        parts = list(map(self._find, parts))
        self._spans.update((part.order, part.spans) for part in parts)
        self.ledger.replace(order, parts)

    def shrink(self, rest: EnteredBatch, lost: int) -> None:
        """End events of a batch that are gone from the spool; see `Journal.shrink`."""
        logger.error(
            "lost %s that had failed and waited in the spool: a segment was deleted or damaged; "
            "%s of the same batch left",
            Count(lost, "event"),
            Count(rest.count, "event"),
        )
        gone = spans_without(self._spans.pop(rest.order), rest.spans)
        self.ledger.shrink(rest, lost)
        self._reader.resolve(gone)
        if rest.count:
            self._spans[rest.order] = rest.spans
            self.rekeyed += rest.count

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = ()) -> int:
        """End a batch; see `Journal.finish`. Without letters, `work` writes it down at the latest."""
        spans, dropped = self._spans[order], 0
        if letters:
            dropped = self.ledger.finish(order, letters)
        else:
            self.ledger.finish_later(order, spans)
        del self._spans[order]
        self._reader.resolve(spans)
        return dropped

    def resolve(self, spans: Sequence[Span], letters: Sequence[DeadLetter] = ()) -> int:
        """Record the fate of events that are in no batch; see `Journal.resolve`."""
        spans = self._places(spans)
        dropped = self.ledger.resolve(spans, letters)
        self._reader.resolve(spans)
        return dropped

    # Events.

    def load(self, order: tuple[int, int]) -> EventRun | None:
        """Read the events of a batch again that was entered.

        Returns:
            The events that are still whole, and their places; None if a segment can't be read now.
        """
        run = self._reader.load_whole(self._places(self._spans[order]))
        if run is None and not self._has_reported_error:
            self._has_reported_error = True
            logger.error(
                "can't read the events of a failed batch from the spool; retrying: see the log line about "
                "the folder or the segment"
            )
        return run

    def relay_events(self, events: Iterable[bytes], memory_left: int) -> tuple[int, EventRun]:
        """Append events of the POSIX queue to the spool.

        With memory for them, and if nothing waits unread, they are handed on. Then these are no more than
        there is memory for; the last one may exceed that.

        Args:
            events: Yields them; each is requested after the last one was appended.
            memory_left: Bytes of events that may be handed on.

        Returns:
            How many were appended, and those that are handed on: all or none.
        """
        if memory_left > 0 and not self.is_behind:
            run = handed_on = self.relay.append(events, min(memory_left, BURST_BYTES))
            self._reader.skip(run.spans)
        else:
            run, handed_on = self.relay.append(events, BURST_BYTES), _NOTHING
            for span in run.spans:
                self.is_behind = True
                self._reader.notice(span.identity)
        if run.events:
            self._plan_sync()
        return len(run.events), handed_on

    def read(self, max_events: int, memory_left: int) -> EventRun:
        """Return the next events: at most so many, and of so many bytes, or one that is larger."""
        if memory_left <= 0:
            self.may_be_more = True
            self._plan_sync()  # services go on writing
            return _NOTHING
        run, self._unwritten = self._unwritten, _NOTHING
        if not run.events:
            run = self._reader.read(max_events, memory_left)
        self.may_be_more = bool(run.events)
        if run.events:
            self._plan_sync()
        else:
            self.is_behind = False
        return run

    # Duties.

    def work(self, now: float) -> None:
        """Do what is due: free space, record what the reader settled, force the spool onto the disk."""
        settled = self._reader.take_settled()
        if settled:
            self.ledger.resolve(settled)
        self.ledger.retry()
        self.ledger.forget(self._reader.tidy())
        if now >= self._sync_at:
            self._sync()
            if self.may_be_more:  # services go on writing, even if there is no memory to read
                self._plan_sync()

    @property
    def work_at(self) -> float:
        """When `work` is to be called at the latest, in seconds of the monotonic clock."""
        times = [self._sync_at]
        if self.ledger.error is not None:
            times.append(self.ledger.retry_at)
        if self.relay.error is not None and self.relay.retry_at > self._clock():  # else nothing waits for it
            times.append(self.relay.retry_at)
        return min(times)

    @property
    def wait_descriptor(self) -> int | None:
        """The descriptor to poll for input after `wait_time`; None for none."""
        return self._reader.wait_descriptor

    def wait_time(self, max_pause: float) -> float:
        """Prepare to wait while `may_be_more` is False; see `SpoolReader.wait_time`."""
        return self._reader.wait_time(max_pause)

    @property
    def backlog(self) -> int:
        """Bytes in the spool that aren't delivered."""
        return self._reader.status().backlog

    def level(self, now: float, wall_time: float) -> SpoolLevel:
        """Return how full the spool is, and what the reader found in it.

        Args:
            now: Seconds of the monotonic clock.
            wall_time: Seconds since 1970.
        """
        status = self._reader.status()
        free_space = free_inodes = None
        with contextlib.suppress(OSError):  # the folder may be gone
            free_space, free_inodes = self.relay.free()
        problems = [status.watch_problem, self.ledger.error]
        if not status.locks_work:
            problems.append(
                "file locks don't work here; only segments whose writers have started another are deleted"
            )
        return SpoolLevel(
            size=status.backlog,
            max_size=self.relay.max_size,
            segments=status.segments,
            oldest_at=None if status.oldest is None else now - max(0.0, wall_time - status.oldest),
            aside={**dict.fromkeys(REASONS, 0), **status.aside},
            torn_bytes=status.torn_bytes,
            torn_gaps=status.torn_gaps,
            refusals={**dict.fromkeys(_REFUSALS, 0), **status.refusals},
            free_space=free_space,
            free_inodes=free_inodes,
            rekeyed=self.rekeyed,
            error=None if status.problem is None else f"the spool can't be read: {status.problem}",
            paused=self.relay.error,
            held=int(self.relay.held is not None),
            problems=tuple(problem for problem in problems if problem is not None),
        )

    def close(self) -> None:
        """Free space where possible, and close everything."""
        if self._sync_at < math.inf:
            self._sync()
        self.relay.close()
        self.ledger.retry()
        self.ledger.forget(self._reader.tidy(at_once=True))
        self.ledger.close()
        self._reader.close()

    def _plan_sync(self) -> None:
        if self._sync_pause is not None and self._sync_at == math.inf:
            self._sync_at = self._clock() + self._sync_pause

    def _sync(self) -> None:
        """Force the spool onto the disk; rewrite segments for which that fails."""
        self._sync_at = math.inf
        unsynced, self.relay.unsynced = self.relay.unsynced, []
        for identity in dict.fromkeys(unsynced + self._reader.sync()):
            self._rewrite(identity)

    def _rewrite(self, identity: bytes) -> None:
        """Write the events of a segment that couldn't be forced onto the disk to another one.

        Unread events are read from there. The policy knows its events by their old places, which stand for
        the new ones from now on.
        """
        rest = self._reader.take_rest(identity)
        logger.error(
            "a segment of the spool couldn't be forced onto the disk; its events are written to another one"
        )
        count = len(self._append(rest.events).events)
        done, left = cut_spans(rest.spans, records_size(rest.events[:count]))
        self._unwritten = EventRun(self._unwritten.events + rest.events[count:], self._unwritten.spans + left)
        self.ledger.resolve(done)
        self._reader.resolve(done)
        if not left:
            handed_out = self._reader.handed_out(identity)
            moved = self._append(self._reader.load(handed_out) or [])
            self._reader.skip(moved.spans)
            before, _ = cut_spans(handed_out, records_size(moved.events))
            self._moved[identity] = _Moved(before, moved.spans)
            batches = [self._find(batch) for batch in self.ledger.unfinished()]
            self._spans.update((batch.order, batch.spans) for batch in batches)
            self.ledger.relocate(batches, before)
            self._reader.resolve(before)
        self.may_be_more = True

    def _append(self, events: list[bytes]) -> EventRun:
        """Append events, as many as the disk takes."""
        if self.relay.held is not None or not events:
            return _NOTHING
        run = self.relay.append(events)
        self.relay.take_held()  # it is one of these events
        return run

    def _find(self, batch: EnteredBatch) -> EnteredBatch:
        """Return a batch with the places where its events are now."""
        return replace(batch, spans=self._places(batch.spans)) if self._moved else batch

    def _places(self, spans: Sequence[Span]) -> tuple[Span, ...]:
        """Return where events are now."""
        places: list[Span] = []
        for span in spans:
            identity, at, end = span
            moved = self._moved.get(identity)
            if moved is None:
                places.append(span)
                continue
            behind = moved.now
            for _, first, last in moved.before:
                ours, behind = cut_spans(behind, last - first)
                if at < last and first < end:
                    if at < first:
                        places.append(Span(identity, at, first))
                    _, ours = cut_spans(ours, max(at - first, 0))
                    ours, _ = cut_spans(ours, min(end, last) - max(at, first))
                    places += self._places(ours)
                    at = last
            if at < end:
                places.append(Span(identity, at, end))
        return join_spans(places)
