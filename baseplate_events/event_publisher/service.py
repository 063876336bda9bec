"""The event publisher's shell: the threads, signals, clocks and descriptors around the policy in `delivery`.

The thread that calls `run` receives events and takes every decision. Sender threads compress, sign and post,
and decide nothing. A pipe wakes the deciding thread when an attempt ends or somebody asks it to stop;
otherwise it sleeps until there is an event, or until the time comes that `Delivery.wake_at` names.

Stopping, once `stop` was called:

1. What is in the queue is still received and sent, unless the collector is failing, for four fifths of
   `grace`.
2. What is in hand is tried until `grace` is nearly over.
3. What could not be delivered goes back into the queue, at a priority that puts it ahead of everything else.
   What the queue has no room for is counted and logged as lost.

A second `stop` goes straight to step 3.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import time
from typing import TYPE_CHECKING, Final

from ..errors import EventError, EventQueueFullError, EventQueueRemovedError
from ..exhaustive import assert_never
from ..message_queue import MessageQueue
from ..statsd import Client
from .accounting import DropReason
from .backoff import Backoff, Gate
from .batching import FORMATS, Batcher
from .dead_letters import DeadLetters
from .delivery import Delivery
from .outcome import Accepted, Misconfigured, Refused, Retryable, TooLarge
from .sender import Finished, Sender
from .spool import Folder, Spool, Sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from .accounting import Accounting
    from .backoff import RandomSource
    from .settings import PublisherSettings
    from .spool import Segment

logger: logging.Logger = logging.getLogger(__name__)

#: Events received at a time before other duties get their turn. Some milliseconds of work.
_BURST: Final = 1_000

#: Seconds between looks at whether the queue was unlinked. A producer that finds its queue unlinked makes a
#: new one, so this is how long events can wait unseen in a new queue.
_WATCH_INTERVAL: Final = 1.0

#: Seconds for which a queue that was unlinked is still received from, for producers that were about to put.
_ORPHAN_LINGER: Final = 5.0

#: Seconds between two reports of gauges and fates; the flush interval of the usual statsd.
_REPORT_INTERVAL: Final = 10.0

#: Priority of events that go back to the queue; producers put at 0, and the highest is received first.
RETURN_PRIORITY: Final = 1

#: Share of the grace for which a stopping publisher goes on receiving.
_DRAIN_SHARE: Final = 0.8

#: Share of the grace, and seconds at most, that are kept for putting events back.
_RETURN_SHARE: Final = 0.1
_RETURN_SECONDS: Final = 0.5


class EventPublisher:
    """Takes events from a queue and delivers them to a collector until it is told to stop.

    Args:
        load_settings: Reads the settings; called at the start, and again for each `reload`.
        random_source: Where jitter comes from.

    Raises:
        ConfigurationError: The settings can't be used.
        EventError: The queue, the spool or the dead letters can't be opened.
    """

    def __init__(self, load_settings: Callable[[], PublisherSettings], random_source: RandomSource) -> None:
        self._load_settings = load_settings
        self._settings = settings = load_settings()
        self._metrics = _make_metrics(settings)
        self._queue = _open_queue(settings)
        self._orphans: list[tuple[MessageQueue, float]] = []
        self._watch_at = 0.0
        self._queue_is_empty = False
        self._spool: Spool | None = None
        self._cemetery: DeadLetters | None = None
        recovered: list[Segment] = []
        self._folder: Folder | None = None
        if settings.spool is not None:
            self._folder = Folder(settings.spool.directory)
            self._spool = Spool(
                self._folder,
                settings.spool.directory,
                version=settings.collector.version,
                max_size=settings.spool.max_size,
                sync=settings.spool.sync,
            )
            recovered = self._spool.recover()
        if settings.dead_letters is not None:
            self._cemetery = DeadLetters(
                settings.dead_letters.directory,
                max_size=settings.dead_letters.max_size,
                # A letter must be as safe as the segment that is deleted for it.
                sync=settings.spool is not None and settings.spool.sync is not Sync.NEVER,
            )
        backoff = Backoff(settings.retry.base, settings.retry.cap, random_source)
        self._delivery: Delivery = Delivery(
            Batcher(
                FORMATS[settings.collector.version],
                max_size=settings.batch.max_size,
                max_events=settings.batch.max_events,
                max_age=settings.batch.max_age,
            ),
            Gate(backoff, settings.concurrency),
            concurrency=settings.concurrency,
            max_size=settings.batch.max_size,
            queue_capacity=self._queue.max_messages,
            queue_message_size=self._queue.max_message_size,
            store=self._spool,
            recovered=recovered,
            cemetery=self._cemetery,
            max_age=settings.retry.max_age,
            now=time.monotonic(),
        )
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._stops = 0
        self._stopping = False
        self._stopped_at = 0.0
        self._reload_wanted = False
        self._trouble: str | None = None
        self._unready: str | None = None
        self._report_at = 0.0
        self._reported: dict[str, int] = {}
        self._finished: collections.deque[Finished] = collections.deque()
        self._idle_senders: list[Sender] = []

    @property
    def accounting(self) -> Accounting:
        """The fates of all events so far."""
        return self._delivery.accounting

    @property
    def unready(self) -> str | None:
        """Why nothing is being delivered: what the last attempt ran into. None while nothing is wrong."""
        return self._unready

    def stop(self) -> None:
        """Ask to stop, by a second call at once. Safe to call from a signal handler or another thread."""
        if not self._stops:
            self._stopped_at = time.monotonic()
        self._stops += 1
        self._wake()

    def reload(self) -> None:
        """Ask to read the settings again. Safe to call from a signal handler or another thread.

        What the senders use takes effect with the next attempt: `collector.*` but the version, `key.*`,
        `compression.level` and `retry.codes`. The rest needs a restart. Settings with a mistake change
        nothing, and the mistakes are logged.
        """
        self._reload_wanted = True
        self._wake()

    def run(self) -> None:
        """Publish until `stop` is called.

        Afterwards every event is delivered, back in the queue, in the spool or the dead letters, or counted
        and logged as dropped.
        """
        logger.info("publishing events from %s to %s", self._queue.name, self._settings.collector.url)
        if self._delivery.accounting.recovered:
            logger.info("recovered %d events from the spool", self._delivery.accounting.recovered)
        if self._spool is not None and self._spool.cut:
            logger.error("cut off damaged ends of %d segments of the spool", self._spool.cut)
        try:
            while not self._step():
                self._sleep()
        finally:
            self._give_back()
            self._report_metrics(time.monotonic())
            logger.info("stopped: %s", self._delivery.accounting)
            for orphan, _ in self._orphans:
                orphan.close()
            self._queue.close()
            if self._spool is not None:
                self._spool.close()
            if self._folder is not None:
                self._folder.release()
            if self._cemetery is not None:
                self._cemetery.close()

    def _report(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_writer, b"!")

    def _step(self) -> bool:
        """Do all that can be done now; tell whether the work is over."""
        while self._finished:
            self._take(self._finished.popleft())
        # Noted once a step: only a queue that was found empty after the stop is known to hold nothing from
        # before it.
        stopping = self._stops > 0
        if stopping and not self._stopping:
            self._stopping = True
            self._watch_at = 0.0  # a queue that was made anew since the last look may hold events
            logger.info("stopping: %d events in hand", self._delivery.accounting.in_hand)
        if self._reload_wanted:
            self._reload()
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch_queue(now)
        if now >= self._report_at:
            self._report_metrics(now)
        self._receive(now)
        if stopping and self._queue_is_empty:
            self._delivery.flush(now)
        while (attempt := self._delivery.next_attempt(now)) is not None:
            self._idle_sender().post(attempt)
        self._note_trouble()
        if not stopping:
            return False
        return self._stops > 1 or now >= self._surrender_at or self._nothing_left(now)

    def _idle_sender(self) -> Sender:
        """Give the sender that was busy last, whose connection is the freshest, or a new one."""
        if self._idle_senders:
            return self._idle_senders.pop()
        sender = Sender(lambda: self._settings, self._report)
        sender.start()
        return sender

    def _nothing_left(self, now: float) -> bool:
        if not self._queue_is_empty and self._may_receive(now):
            return False
        accounting = self._delivery.accounting
        # With a spool there is no reason to stay for a collector that is failing.
        return accounting.in_hand == 0 and (accounting.spooled == 0 or self._delivery.gate.failures > 0)

    @property
    def _surrender_at(self) -> float:
        grace = self._settings.shutdown_grace
        return self._stopped_at + grace - min(grace * _RETURN_SHARE, _RETURN_SECONDS)

    def _may_receive(self, now: float) -> bool:
        if not self._stops:
            return True
        drain_until = self._stopped_at + self._settings.shutdown_grace * _DRAIN_SHARE
        return self._delivery.gate.failures == 0 and now < drain_until

    def _receive(self, now: float) -> None:
        """Receive what there is and has a place, a burst at most."""
        self._queue_is_empty = False
        if not self._may_receive(now):
            return
        left = _BURST
        while left and (room := self._delivery.room):
            limit = min(room, left)
            messages = self._next_messages(limit)
            for size, verdict in self._delivery.offer(messages, now) if messages else ():
                logger.error("can't send a message of %d bytes: %s; %s", size, verdict.reason, self._fate)
            # An orphan that gave a few tells nothing of the others.
            if len(messages) < limit and not (messages and self._orphans):
                self._queue_is_empty = True
                return
            left -= limit

    def _next_messages(self, limit: int) -> list[bytes]:
        """Receive some messages, orphans' first; fewer than `limit` if there are no more in one of them."""
        for orphan, _ in self._orphans:
            if messages := orphan.get_many(limit):
                return messages
        return self._queue.get_many(limit)

    def _take(self, finished: Finished) -> None:
        self._idle_senders.append(finished.sender)
        failures = self._delivery.gate.failures
        count = len(finished.attempt.batch.events)
        now = time.monotonic()
        self._delivery.finish(finished.attempt, finished.outcome, now)
        self._metrics.timer("post").send(finished.seconds)
        if not isinstance(finished.outcome, Retryable | Misconfigured):
            self._unready = None
        match finished.outcome:
            case Accepted():
                self._metrics.counter("sent").increment(count)
                logger.debug("delivered %d events", count)
                if failures:
                    logger.warning("the collector takes events again, after %d failed attempts", failures)
            case TooLarge(reason=reason) | Refused(reason=reason):
                self._metrics.counter("error.http").increment()
                logger.error(
                    "the collector refuses %d events: %s; %s",
                    count,
                    reason,
                    self._fate if count == 1 else "looking for the offender",
                )
            case Retryable(reason=reason, from_collector=from_collector):
                self._note_failure(reason, count, now, from_collector=from_collector)
            case Misconfigured(reason=reason, remedy=remedy, from_collector=from_collector):
                self._note_failure(f"{reason}; {remedy}", count, now, from_collector=from_collector)
            case _:
                assert_never(finished.outcome)

    def _note_failure(self, reason: str, count: int, now: float, *, from_collector: bool) -> None:
        self._metrics.counter("error.http" if from_collector else "error.io").increment()
        self._unready = reason
        pause = max(0.0, self._delivery.gate.opens_at - now)
        logger.warning("can't deliver %d events: %s; next attempt in %.1f seconds", count, reason, pause)

    def _watch_queue(self, now: float) -> None:
        """Follow the queue when it was unlinked, and let go of orphans that have been drained."""
        self._watch_at = now + _WATCH_INTERVAL
        for orphan, until in list(self._orphans):
            if now >= until and not orphan.current_messages:
                orphan.close()
                self._orphans.remove((orphan, until))
        if not self._queue.removed:
            return
        try:
            fresh = _open_queue(self._settings)
        except EventError as exc:
            logger.error("the queue was unlinked, and can't be made anew: %s", exc)
            return
        logger.warning("the queue %s was unlinked; going on with the new one", fresh.name)
        self._orphans.append((self._queue, now + _ORPHAN_LINGER))
        self._queue = fresh
        self._delivery.queue_capacity = fresh.max_messages
        self._delivery.queue_message_size = fresh.max_message_size

    @property
    def _fate(self) -> str:
        return "dropped" if self._cemetery is None else "kept in the dead letters"

    def _reload(self) -> None:
        self._reload_wanted = False
        try:
            fresh = self._load_settings()
        except EventError as exc:
            logger.error("the configuration has mistakes; going on with the old one:\n%s", exc)
            return
        if fresh.collector.version != self._settings.collector.version:
            logger.error("collector.version needs a restart; going on with the old configuration")
            return
        self._settings = fresh
        self._delivery.gate.reopen()  # whatever was wrong may be mended
        logger.info("read the configuration again")

    def _note_trouble(self) -> None:
        """Log when a disk begins to fail, fails in another way, or works again."""
        trouble = self._delivery.disk_trouble
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            logger.warning("the disk takes events again")
        else:
            logger.error("%s; events wait in the queue meanwhile", trouble)

    def _report_metrics(self, now: float) -> None:
        """Send what the books say: gauges of what is held, counters of the fates since the last report."""
        self._report_at = now + _REPORT_INTERVAL
        accounting = self._delivery.accounting
        oldest_at = self._delivery.oldest_at
        with self._metrics.batch() as batch:
            batch.gauge("queue.depth").replace(self._queue.current_messages)
            batch.gauge("in_hand").replace(accounting.in_hand)
            batch.gauge("oldest.age").replace(0 if oldest_at is None else round(now - oldest_at, 3))
            if self._spool is not None:
                batch.gauge("spooled").replace(accounting.spooled)
                batch.gauge("spool.size").replace(self._spool.size)
            fates = {
                "received": accounting.received,
                "recovered": accounting.recovered,
                "delivered": accounting.delivered,
                "dead_lettered": accounting.dead_lettered,
                "returned": accounting.returned,
                "dead_letters.dropped": accounting.letters_dropped,
                **{f"dropped.{reason.value}": count for reason, count in accounting.dropped.items()},
            }
            for name, count in fates.items():
                batch.counter(name).increment(count - self._reported.get(name, 0))
            self._reported = fates

    def _sleep(self) -> None:
        """Wait until an attempt ends, somebody asks to stop, an event can be received, or it is time."""
        now = time.monotonic()
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        if self._may_receive(now) and self._delivery.room:
            poller.register(self._queue.fileno(), select.POLLIN)
        times = [self._watch_at]
        wake_at = self._delivery.wake_at()
        if wake_at is not None:
            times.append(wake_at)
        if self._stops:
            times.append(self._surrender_at)
        times.append(self._report_at)
        # poll() counts in milliseconds; rounding up keeps it from waking just too early, again and again.
        poller.poll(max(0, int((min(times) - now) * 1_000) + 1))
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_reader, 1_024)

    def _give_back(self) -> None:
        """Put everything in hand back into the queue, ahead of what is there."""
        events = self._delivery.surrender()
        give_up_at = self._stopped_at + self._settings.shutdown_grace if self._stops == 1 else 0.0
        lost = 0
        for event in events:
            try:
                self._put_back(event, 0.0 if lost else max(0.0, give_up_at - time.monotonic()))
            except EventQueueFullError:
                lost += 1
            except EventError as exc:
                lost += 1
                logger.error("can't put an event back: %s", exc)
        self._delivery.accounting.give_back(len(events) - lost)
        self._delivery.accounting.drop(DropReason.QUEUE_FULL, lost)
        name = self._queue.name
        if lost:
            logger.error(
                "lost %d events: they could not be delivered, and %s has no room for them", lost, name
            )
        if len(events) > lost:
            logger.warning("put %d events back into %s", len(events) - lost, name)

    def _put_back(self, event: bytes, timeout: float) -> None:
        try:
            self._queue.put(event, timeout, RETURN_PRIORITY)
        except EventQueueRemovedError:
            self._watch_queue(time.monotonic())
            self._queue.put(event, timeout, RETURN_PRIORITY)


def _open_queue(settings: PublisherSettings) -> MessageQueue:
    wanted = settings.queue
    return MessageQueue(
        f"/events-{wanted.name}",
        max_messages=wanted.max_size,
        max_message_size=wanted.max_event_size,
        mode=wanted.mode,
    )


def _make_metrics(settings: PublisherSettings) -> Client:
    metrics = settings.metrics
    return Client(metrics.namespace, metrics.endpoint, log_if_unconfigured=metrics.log_if_unconfigured)
