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
import queue
import select
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import EventError, EventQueueFullError, EventQueueRemovedError
from ..exhaustive import assert_never
from .accounting import DropReason
from .batching import FORMATS, Batcher
from .delivery import Backoff, Delivery
from .outcome import Accepted, Misconfigured, Outcome, Refused, Retryable, TooLarge, classify
from .wire import build_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..message_queue import MessageQueue
    from ..statsd import Client
    from .accounting import Accounting
    from .collector import Collector
    from .delivery import Attempt, RandomSource
    from .settings import PublisherSettings

logger: logging.Logger = logging.getLogger(__name__)

#: Events received at a time before other duties get their turn. Some milliseconds of work.
_BURST: Final = 1_000

#: Seconds between looks at whether the queue was unlinked. A producer that finds its queue unlinked makes a
#: new one, so this is how long events can wait unseen in a new queue.
_WATCH_INTERVAL: Final = 1.0

#: Seconds for which a queue that was unlinked is still received from, for producers that were about to put.
_ORPHAN_LINGER: Final = 5.0

#: Priority of events that go back to the queue; producers put at 0, and the highest is received first.
RETURN_PRIORITY: Final = 1

#: Share of the grace for which a stopping publisher goes on receiving.
_DRAIN_SHARE: Final = 0.8

#: Share of the grace, and seconds at most, that are kept for putting events back.
_RETURN_SHARE: Final = 0.1
_RETURN_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Finished:
    """An attempt that ended."""

    attempt: Attempt
    outcome: Outcome
    seconds: float


class _Sender(threading.Thread):
    """Compresses, signs and posts one attempt after the other, over a connection of its own."""

    def __init__(
        self,
        settings: PublisherSettings,
        collector: Collector,
        jobs: queue.SimpleQueue[Attempt],
        report: Callable[[_Finished], None],
    ) -> None:
        # A daemon, so that one that hangs in a name lookup can't keep the process from ending.
        super().__init__(name="sender", daemon=True)
        self._settings = settings
        self._collector = collector
        self._format = FORMATS[settings.collector.version]
        self._jobs = jobs
        self._report = report

    def run(self) -> None:
        while True:
            attempt = self._jobs.get()
            started_at = time.monotonic()
            try:
                outcome = self._post(attempt)
            except Exception as exc:  # noqa: BLE001  a mistake of ours must cost neither batch nor sender
                # Only where it happened: the text of an exception might quote an event.
                frame = traceback.extract_tb(exc.__traceback__)[-1]
                reason = f"internal error: {type(exc).__name__} in {frame.name}, line {frame.lineno}"
                outcome = Retryable(reason=reason, from_collector=False)
            self._report(_Finished(attempt, outcome, time.monotonic() - started_at))

    def _post(self, attempt: Attempt) -> Outcome:
        request = build_request(
            self._format.join(attempt.batch.events),
            key_name=self._settings.key.name,
            secret=self._settings.key.secret.reveal(),
            level=self._settings.compression_level,
            wall_time=time.time(),
        )
        return classify(self._collector.post(request))


class EventPublisher:
    """Takes events from a queue and delivers them to a collector until it is told to stop.

    Args:
        settings: What to send where, and how.
        open_queue: Opens the queue, or makes it; called at the start and whenever the queue was unlinked.
        make_collector: Makes a way to the collector; called once for each sender.
        metrics: Where metrics go.
        random_source: Where jitter comes from.
        concurrency: Attempts under way at the same time.

    Raises:
        EventError: The queue can't be opened.
    """

    def __init__(
        self,
        settings: PublisherSettings,
        *,
        open_queue: Callable[[], MessageQueue],
        make_collector: Callable[[], Collector],
        metrics: Client,
        random_source: RandomSource,
        concurrency: int = 1,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._open_queue = open_queue
        self._queue = open_queue()
        self._orphans: list[tuple[MessageQueue, float]] = []
        self._watch_at = 0.0
        self._queue_is_empty = False
        self._delivery = Delivery(
            Batcher(
                FORMATS[settings.collector.version],
                max_size=settings.batch.max_size,
                max_events=settings.batch.max_events,
                max_age=settings.batch.max_age,
            ),
            Backoff(settings.retry.base, settings.retry.cap, random_source),
            concurrency=concurrency,
            max_size=settings.batch.max_size,
            queue_capacity=self._queue.max_messages,
        )
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._stops = 0
        self._stopping = False
        self._stopped_at = 0.0
        self._jobs: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._finished: collections.deque[_Finished] = collections.deque()
        self._senders = [
            _Sender(settings, make_collector(), self._jobs, self._report) for _ in range(concurrency)
        ]

    @property
    def accounting(self) -> Accounting:
        """The fates of all events so far."""
        return self._delivery.accounting

    def stop(self) -> None:
        """Ask to stop, by a second call at once. Safe to call from a signal handler or another thread."""
        if not self._stops:
            self._stopped_at = time.monotonic()
        self._stops += 1
        self._wake()

    def run(self) -> None:
        """Publish until `stop` is called.

        Afterwards every event is delivered, back in the queue, or counted and logged as dropped.
        """
        for sender in self._senders:
            sender.start()
        logger.info("publishing events from %s to %s", self._queue.name, self._settings.collector.url)
        try:
            while not self._step():
                self._sleep()
        finally:
            self._give_back()
            logger.info("stopped: %s", self._delivery.accounting)
            for orphan, _ in self._orphans:
                orphan.close()
            self._queue.close()

    def _report(self, finished: _Finished) -> None:
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
            logger.info("stopping: %d events in hand", self._delivery.accounting.in_hand)
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch_queue(now)
        self._receive(now)
        if stopping and self._queue_is_empty:
            self._delivery.flush()
        while (attempt := self._delivery.next_attempt(now)) is not None:
            self._jobs.put(attempt)
        if not stopping:
            return False
        return self._stops > 1 or now >= self._surrender_at or self._nothing_left(now)

    def _nothing_left(self, now: float) -> bool:
        drained = self._queue_is_empty or not self._may_receive(now)
        return drained and self._delivery.accounting.in_hand == 0

    @property
    def _surrender_at(self) -> float:
        grace = self._settings.shutdown_grace
        return self._stopped_at + grace - min(grace * _RETURN_SHARE, _RETURN_SECONDS)

    def _may_receive(self, now: float) -> bool:
        if not self._stops:
            return True
        drain_until = self._stopped_at + self._settings.shutdown_grace * _DRAIN_SHARE
        return self._delivery.failures == 0 and now < drain_until

    def _receive(self, now: float) -> None:
        """Receive what there is and has a place, a burst at most."""
        self._queue_is_empty = False
        if not self._may_receive(now):
            return
        for _ in range(_BURST):
            if not self._delivery.wants_events:
                return
            message = self._next_message()
            if message is None:
                self._queue_is_empty = True
                return
            dropped = self._delivery.offer(message, now)
            if dropped is not None:
                logger.error("dropped an event of %d bytes: %s", len(message), dropped.value)

    def _next_message(self) -> bytes | None:
        for orphan, _ in self._orphans:
            message = orphan.get(0.0)
            if message is not None:
                return message
        return self._queue.get(0.0)

    def _take(self, finished: _Finished) -> None:
        failures = self._delivery.failures
        count = len(finished.attempt.batch.events)
        now = time.monotonic()
        self._delivery.finish(finished.attempt, finished.outcome, now)
        self._metrics.timer("post").send(finished.seconds)
        match finished.outcome:
            case Accepted():
                self._metrics.counter("sent").increment(count)
                logger.debug("delivered %d events", count)
                if failures:
                    logger.warning("the collector takes events again, after %d failed attempts", failures)
            case TooLarge(reason=reason) | Refused(reason=reason):
                self._metrics.counter("error.http").increment()
                logger.error("the collector refuses %d events: %s; they are dropped", count, reason)
            case Retryable(reason=reason, from_collector=from_collector):
                self._note_failure(reason, count, now, from_collector=from_collector)
            case Misconfigured(reason=reason, remedy=remedy, from_collector=from_collector):
                self._note_failure(f"{reason}; {remedy}", count, now, from_collector=from_collector)
            case _:
                assert_never(finished.outcome)

    def _note_failure(self, reason: str, count: int, now: float, *, from_collector: bool) -> None:
        self._metrics.counter("error.http" if from_collector else "error.io").increment()
        pause = max(0.0, self._delivery.gate_opens_at - now)
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
            fresh = self._open_queue()
        except EventError as exc:
            logger.error("the queue was unlinked, and can't be made anew: %s", exc)
            return
        logger.warning("the queue %s was unlinked; going on with the new one", fresh.name)
        self._orphans.append((self._queue, now + _ORPHAN_LINGER))
        self._queue = fresh
        self._delivery.queue_capacity = fresh.max_messages

    def _sleep(self) -> None:
        """Wait until an attempt ends, somebody asks to stop, an event can be received, or it is time."""
        now = time.monotonic()
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        if self._delivery.wants_events and self._may_receive(now):
            poller.register(self._queue.fileno(), select.POLLIN)
        times = [self._watch_at]
        wake_at = self._delivery.wake_at()
        if wake_at is not None:
            times.append(wake_at)
        if self._stops:
            times.append(self._surrender_at)
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
