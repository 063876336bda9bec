"""The event publisher's shell: the threads, signals, clocks and descriptors around the policy in `delivery`.

The thread that calls `run` receives events and takes every decision. Sender threads compress, sign and post,
and decide nothing. A pair of sockets wakes the deciding thread when an attempt ends or somebody asks it to
stop; otherwise it sleeps until there is an event, or until the time comes that `Delivery.wake_at` names.

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
import itertools
import logging
import math
import select
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .. import __version__
from .._compat import assert_never
from ..errors import EventError, EventQueueFullError
from ..transport.posix import MessageQueue
from .config.settings import Sync
from .dead_letters.store import DeadLetters
from .policy.accounting import DropReason
from .policy.backoff import Backoff, ConcurrencyLimit
from .policy.batching import FORMATS, Batcher
from .policy.delivery import Delivery
from .policy.outcome import Accepted, Misconfigured, Refused, Retryable, TooLarge
from .queue_consumer import QueueConsumer
from .sender import Finished, Sender
from .spool.spool import Spool
from .storage import Folder
from .telemetry.reporter import Telemetry
from .telemetry.snapshot import Snapshot, SpoolLevel, describe_failure
from .telemetry.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config.settings import PublisherSettings
    from .policy.accounting import Accounting
    from .policy.backoff import RandomSource
    from .policy.pending import Segment

logger: logging.Logger = logging.getLogger(__name__)

#: Events received at a time before other duties get their turn. Some milliseconds of work.
_BURST: Final = 1_000

#: Seconds after which a publisher that is stopping, or recovers its spool, tells how much is left.
_REST_INTERVAL: Final = 2.0

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
        notifier: Tells systemd how it goes; by default nobody is told.

    Raises:
        ConfigurationError: The settings can't be used.
        EventError: The queue, the spool, the dead letters or the health endpoint can't be opened.
    """

    def __init__(
        self,
        load_settings: Callable[[], PublisherSettings],
        random_source: RandomSource,
        notifier: Notifier | None = None,
    ) -> None:
        self._load_settings = load_settings
        self._settings = settings = load_settings()
        self._consumer = QueueConsumer(lambda: _open_queue(self._settings))
        self._spool: Spool | None = None
        self._dead_letters: DeadLetters | None = None
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
            recovered = self._spool.recover(_Recovery().tell)
        if settings.dead_letters is not None:
            self._dead_letters = DeadLetters(
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
            ConcurrencyLimit(backoff, settings.concurrency),
            concurrency=settings.concurrency,
            max_size=settings.batch.max_size,
            queue_capacity=self._consumer.capacity,
            queue_message_size=self._consumer.message_size,
            store=self._spool,
            recovered=recovered,
            dead_letters=self._dead_letters,
            max_age=settings.retry.max_age,
            now=time.monotonic(),
        )
        self._stops = 0
        self._stopping = False
        self._stopped_at = 0.0
        self._tell_rest_at = 0.0
        self._reload_wanted = False
        self._trouble: str | None = None
        self._finished: collections.deque[Finished] = collections.deque()
        self._idle_senders: list[Sender] = []
        self._started_at = time.monotonic()
        self._telemetry = Telemetry(settings, notifier if notifier is not None else Notifier({}), self._look)
        # Sockets rather than a pipe: a call that comes after they were closed hits nobody else's descriptor.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

    @property
    def accounting(self) -> Accounting:
        """The fates of all events so far."""
        return self._delivery.accounting

    @property
    def unready(self) -> str | None:
        """Why nothing is being delivered: what the last attempt ran into. None while nothing is wrong."""
        return self._telemetry.attempts.trouble

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
        logger.info("publishing events from %s to %s", self._consumer.name, self._settings.collector.url)
        if self._delivery.accounting.recovered:
            logger.info("recovered %d events from the spool", self._delivery.accounting.recovered)
        if self._spool is not None and self._spool.cut:
            logger.error("cut off damaged ends of %d segments of the spool", self._spool.cut)
        health = self._telemetry.start(time.monotonic())
        if health is not None:
            logger.info("healthy and ready or not is told at %s", health)
        try:
            while not self._step():
                self._sleep()
        finally:
            self._give_back()
            logger.info("stopped: %s", self._delivery.accounting)
            self._telemetry.close(time.monotonic())
            self._consumer.close()
            if self._spool is not None:
                self._spool.close()
            if self._folder is not None:
                self._folder.release()
            if self._dead_letters is not None:
                self._dead_letters.close()
            self._wake_reader.close()
            self._wake_writer.close()

    def _report(self, finished: Finished) -> None:
        self._finished.append(finished)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is full, which wakes as well, or closed
            self._wake_writer.send(b"!")

    def _step(self) -> bool:
        """Do all that can be done now; tell whether the work is over."""
        while self._finished:
            self._take(self._finished.popleft())
        # Noted once a step: only a queue that was found empty after the stop is known to hold nothing from
        # before it.
        stopping = self._stops > 0
        if stopping and not self._stopping:
            self._stopping = True
            self._look_after_queue(time.monotonic())  # one that was made anew just now may hold events
            self._telemetry.stopping(time.monotonic())
        if stopping and time.monotonic() >= self._tell_rest_at:
            self._tell_rest_at = time.monotonic() + _REST_INTERVAL
            logger.info(
                "stopping: %d events in hand, %d in the queue, %d in the spool",
                self._delivery.accounting.in_hand,
                self._consumer.depth,
                self._delivery.accounting.spooled,
            )
        if self._reload_wanted:
            self._reload()
        now = time.monotonic()
        if now >= self._consumer.look_at:
            self._look_after_queue(now)
        self._telemetry.tell(now)
        queue_is_empty = self._receive(now)
        if stopping and queue_is_empty:
            self._delivery.flush(now)
        while (attempt := self._delivery.next_attempt(now)) is not None:
            self._idle_sender().post(attempt)
        self._note_trouble()
        if not stopping:
            return False
        return (
            self._stops > 1
            or now >= self._surrender_at
            or self._nothing_left(now, queue_is_empty=queue_is_empty)
        )

    def _idle_sender(self) -> Sender:
        """Give the sender that was busy last, whose connection is the freshest, or a new one."""
        if self._idle_senders:
            return self._idle_senders.pop()
        sender = Sender(lambda: self._settings, self._report)
        sender.start()
        return sender

    def _nothing_left(self, now: float, *, queue_is_empty: bool) -> bool:
        if not queue_is_empty and self._may_receive(now):
            return False
        accounting = self._delivery.accounting
        # With a spool there is no reason to stay for a collector that is failing.
        return accounting.in_hand == 0 and (accounting.spooled == 0 or self._delivery.limit.failures > 0)

    @property
    def _surrender_at(self) -> float:
        grace = self._settings.shutdown_grace
        return self._stopped_at + grace - min(grace * _RETURN_SHARE, _RETURN_SECONDS)

    def _may_receive(self, now: float) -> bool:
        if not self._stops:
            return True
        drain_until = self._stopped_at + self._settings.shutdown_grace * _DRAIN_SHARE
        return self._delivery.limit.failures == 0 and now < drain_until

    def _receive(self, now: float) -> bool:
        """Receive what there is and has a place, a burst at most; tell whether the queue was found empty."""
        if not self._may_receive(now):
            return False
        for size, verdict in self._delivery.offer(itertools.islice(self._consumer.receive(), _BURST), now):
            logger.error("can't send a message of %d bytes: %s; %s", size, verdict.reason, self._fate)
        return self._consumer.found_empty

    def _take(self, finished: Finished) -> None:
        self._idle_senders.append(finished.sender)
        failures = self._delivery.limit.failures
        count = len(finished.attempt.batch.events)
        now = time.monotonic()
        self._delivery.finish(finished.attempt, finished.outcome, now)
        self._telemetry.note(finished.outcome, count, finished.seconds, now)
        match finished.outcome:
            case Accepted():
                logger.debug("delivered %d events", count)
                if failures and not self._delivery.limit.failures:
                    logger.warning("the collector takes events again, after %d failed attempts", failures)
            case TooLarge(reason=reason) | Refused(reason=reason):
                logger.error(
                    "the collector refuses %d events: %s; %s",
                    count,
                    reason,
                    self._fate if count == 1 else "looking for the offender",
                )
            case Retryable() | Misconfigured():
                logger.warning(
                    "can't deliver %d events: %s; next attempt in %.1f seconds",
                    count,
                    describe_failure(finished.outcome),
                    max(0.0, self._delivery.limit.paused_until - now),
                )
            case _:
                assert_never(finished.outcome)

    def _look_after_queue(self, now: float) -> None:
        if self._consumer.look(now):
            self._delivery.queue_capacity = self._consumer.capacity
            self._delivery.queue_message_size = self._consumer.message_size

    @property
    def _fate(self) -> str:
        return "dropped" if self._dead_letters is None else "kept in the dead letters"

    def _reload(self) -> None:
        self._reload_wanted = False
        self._telemetry.reloading()
        self._read_settings()
        self._telemetry.ready()

    def _read_settings(self) -> None:
        try:
            fresh = self._load_settings()
        except EventError as exc:
            logger.error("the configuration has mistakes; going on with the old one:\n%s", exc)
            return
        if fresh.collector.version != self._settings.collector.version:
            logger.error("collector.version needs a restart; going on with the old configuration")
            return
        self._settings = fresh
        self._delivery.limit.resume()  # whatever was wrong may be mended
        logger.info("read the configuration again")

    def _note_trouble(self) -> None:
        """Log when a disk begins to fail, fails in another way, or works again."""
        trouble = self._delivery.disk_error
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            logger.warning("the disk takes events again")
        else:
            logger.error("%s; events wait in the queue meanwhile", trouble)

    def _look(self, now: float) -> Snapshot:
        """See what the publisher is doing, for other threads to read."""
        accounting = self._delivery.accounting
        settings = self._settings.spool
        level = SpoolLevel(self._spool.size, settings.max_size) if self._spool and settings else None
        return Snapshot(
            queue_name=self._settings.queue.name,
            version=__version__,
            started_at=self._started_at,
            made_at=now,
            accounting=replace(accounting, dropped=dict(accounting.dropped)),
            queue_depth=self._consumer.depth,
            queue_capacity=self._consumer.capacity,
            attempts=self._telemetry.attempts.counts(),
            failures=self._delivery.limit.failures,
            oldest_at=self._delivery.oldest_at,
            spool=level,
            disk_error=self._delivery.disk_error,
            stopping=self._stops > 0,
            metrics_dropped=self._telemetry.metrics_dropped,
        )

    def _sleep(self) -> None:
        """Wait until an attempt ends, somebody asks to stop, an event can be received, or it is time."""
        now = time.monotonic()
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        self._consumer.register(poller, receiving=self._may_receive(now) and self._delivery.room > 0)
        times = [self._consumer.look_at, self._telemetry.tell_at]
        wake_at = self._delivery.wake_at()
        if wake_at is not None:
            times.append(wake_at)
        if self._stops:
            times += [self._surrender_at, self._tell_rest_at]
        first = min(times)
        # poll() counts in milliseconds; rounding up keeps it from waking just too early, again and again.
        timeout = None if first == math.inf else math.ceil(max(0.0, first - now) * 1_000)
        for descriptor, _ in poller.poll(timeout):
            self._consumer.woken(descriptor)
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(1_024)

    def _give_back(self) -> None:
        """Put everything in hand back into the queue, ahead of what is there."""
        events = self._delivery.take_unsent()
        give_up_at = self._stopped_at + self._settings.shutdown_grace if self._stops == 1 else 0.0
        lost = 0
        for event in events:
            try:
                now = time.monotonic()
                self._consumer.requeue(event, 0.0 if lost else max(0.0, give_up_at - now), now)
            except EventQueueFullError:
                lost += 1
            except EventError as exc:
                lost += 1
                logger.error("can't put an event back: %s", exc)
        self._delivery.accounting.requeue(len(events) - lost)
        self._delivery.accounting.drop(DropReason.QUEUE_FULL, lost)
        name = self._consumer.name
        if lost:
            logger.error(
                "lost %d events: they could not be delivered, and %s has no room for them", lost, name
            )
        if len(events) > lost:
            logger.warning("put %d events back into %s", len(events) - lost, name)


class _Recovery:
    """Tells how far the recovery of the spool is, once in a while: a large one takes minutes."""

    def __init__(self) -> None:
        self._tell_at = time.monotonic() + _REST_INTERVAL

    def tell(self, done: int, total: int) -> None:
        """Log how many files were read, if it is time to."""
        now = time.monotonic()
        if now >= self._tell_at:
            self._tell_at = now + _REST_INTERVAL
            logger.info("recovering the spool: read %d of %d files", done, total)


def _open_queue(settings: PublisherSettings) -> MessageQueue:
    wanted = settings.queue
    return MessageQueue(
        f"/events-{wanted.name}",
        max_messages=wanted.max_size,
        max_message_size=wanted.max_event_size,
        mode=wanted.mode,
    )
