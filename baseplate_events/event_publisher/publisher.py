"""The event publisher's loop: the threads, descriptors and clocks around the policy in `policy.delivery`.

The thread that calls `run` receives events and takes every decision. Sender threads compress, sign and post,
and decide nothing. `Control` wakes the deciding thread when an attempt ends or a signal comes; otherwise it
sleeps until there is an event, or until the time comes that `Delivery.wake_at` names.

Stopping, once `stop` was called:

1. What is in the queue is still received and sent, unless the collector is failing, for four fifths of
   `grace`. With a spool and a failing collector, as many events as the queue held at the stop are moved to
   the spool.
2. What is in memory is tried until `grace` is nearly over.
3. Undelivered events that are not in the spool go back into the queue, ahead of everything else. Events that
   the queue has no room for are counted and logged as lost.

A second `stop` goes straight to step 3.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import select
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .. import __version__
from .._compat import assert_never
from ..errors import EventError, EventQueueFullError
from .assembly import open_parts
from .clock import SystemClock
from .control import Control
from .policy.outcome import Accepted, Misconfigured, Refused, Retryable, TooLarge
from .policy.poison import Action
from .sender import Finished, Sender, TransportFactory
from .telemetry.reporter import Reporter
from .telemetry.snapshot import Snapshot, SpoolLevel, describe_failure
from .telemetry.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .config.settings import PublisherSettings
    from .policy.accounting import Accounting
    from .policy.backoff import RandomSource
    from .policy.pending import Attempt
    from .sender import CollectorTransport

logger: logging.Logger = logging.getLogger(__name__)

#: Events received at a time before other duties get their turn. Some milliseconds of work.
_BURST: Final = 1_000

#: Seconds between two log lines of a publisher that is stopping about what is left.
_PROGRESS_INTERVAL: Final = 2.0

#: Share of the grace for which a stopping publisher goes on receiving.
_DRAIN_SHARE: Final = 0.8

#: Share of the grace, and seconds at most, that are kept for putting events back.
_REQUEUE_SHARE: Final = 0.1
_REQUEUE_SECONDS: Final = 0.5


class EventPublisher:
    """Takes events from a queue and delivers them to a collector until it is asked to stop.

    Args:
        load_settings: Reads the settings; called at the start, and again for each `reload`.
        random_source: Where jitter comes from.
        notifier: Reports to systemd; by default to no one.
        control: What signals ask for, perhaps since before this call; closed in the end.
        clock: The clocks, and how to wait.
        connect: Makes the transport of a sender; by default to the collector of the settings.

    Raises:
        ConfigurationError: The settings can't be used.
        StoppedError: A stop was asked for meanwhile.
        EventError: The queue, the spool, the dead letters or the health endpoint can't be opened. Whatever
            was opened before is closed again.
    """

    def __init__(
        self,
        load_settings: Callable[[], PublisherSettings],
        random_source: RandomSource,
        notifier: Notifier | None = None,
        *,
        control: Control | None = None,
        clock: Clock | None = None,
        connect: Callable[[PublisherSettings], CollectorTransport] | None = None,
    ) -> None:
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._control = control if control is not None else Control(self._clock.monotonic)
        self._load_settings = load_settings
        self._connect = connect if connect is not None else TransportFactory()
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.close)
            self._settings = load_settings()
            parts = open_parts(stack, lambda: self._settings, random_source, self._control, self._clock)
            self._consumer = parts.consumer
            self._spool = parts.spool
            self._delivery = parts.delivery
            self._fate = "dropped" if parts.dead_letters is None else "kept in the dead letters"
            self._reporter = Reporter(
                self._settings, notifier if notifier is not None else Notifier({}), self._snapshot
            )
            stack.callback(self._reporter.close)
            self._resources = stack.pop_all()
        self._stopping = False
        self._in_queue_at_stop = 0
        self._received_at_stop = 0
        self._log_progress_at = 0.0
        self._disk_error: str | None = None
        self._finished: collections.deque[Finished] = collections.deque()
        self._idle_senders: list[Sender] = []
        self._started_at = self._clock.monotonic()

    @property
    def accounting(self) -> Accounting:
        """The fates of all events so far."""
        return self._delivery.accounting

    @property
    def in_flight(self) -> int:
        """How many attempts are in flight."""
        return self._delivery.in_flight

    @property
    def unready(self) -> str | None:
        """Why nothing is being delivered: what the last attempt ran into. None while nothing is wrong."""
        return self._reporter.attempts.last_error

    def stop(self) -> None:
        """Ask to stop, by a second call at once. Safe to call from a signal handler or another thread."""
        self._control.stop()

    def reload(self) -> None:
        """Ask to read the settings again. Safe to call from a signal handler or another thread.

        What the senders use takes effect with the next attempt: `collector.*` but the version, `key.*`,
        `compression.level` and `retry.codes`. The rest needs a restart. Settings with a mistake change
        nothing, and the mistakes are logged.
        """
        self._control.reload()

    def run(self) -> None:
        """Publish until `stop` is called.

        Afterwards every event is delivered, back in the queue, in the spool or the dead letters, or counted
        and logged as dropped.
        """
        with self._resources:
            logger.info("publishing events from %s to %s", self._consumer.name, self._settings.collector.url)
            if self.accounting.recovered:
                logger.info("recovered %d events from the spool", self.accounting.recovered)
            if self._spool is not None and self._spool.cut:
                logger.error("cut off damaged ends of %d segments of the spool", self._spool.cut)
            health = self._reporter.start(self._clock.monotonic())
            if health is not None:
                logger.info("health endpoint listening on %s", health)
            try:
                while not self._step():
                    self._sleep()
            finally:
                self._requeue_unsent()
                logger.info("stopped: %s", self.accounting)
                self._reporter.finish(self._clock.monotonic())

    def _report(self, finished: Finished) -> None:
        """Take the end of an attempt from a sender."""
        self._finished.append(finished)
        self._control.wake()

    def _step(self) -> bool:
        """Do all that can be done now; return whether the work is over."""
        while self._finished:
            self._finish(self._finished.popleft())
        # Read once a step: only a queue that was found empty after the stop is known to hold nothing from
        # before it.
        stopping = self._control.stops > 0
        now = self._clock.monotonic()
        if stopping and not self._stopping:
            self._begin_stop(now)
        if stopping and now >= self._log_progress_at:
            self._log_progress_at = now + _PROGRESS_INTERVAL
            logger.info(
                "stopping: %d events in hand, %d in the queue, %d in the spool",
                self.accounting.in_hand,
                self._consumer.depth,
                self.accounting.spooled,
            )
        if self._control.reload_wanted:
            self._reload()
        if now >= self._consumer.look_at:
            self._check_queue(now)
        self._reporter.report(now)
        queue_is_empty = self._receive(now)
        if stopping and queue_is_empty:
            self._delivery.flush(now)
        while (attempt := self._delivery.next_attempt(now)) is not None:
            self._send(attempt)
        self._log_disk_error()
        if not stopping:
            return False
        return (
            self._control.stops > 1
            or now >= self._requeue_at
            or self._nothing_left(now, queue_is_empty=queue_is_empty)
        )

    def _begin_stop(self, now: float) -> None:
        self._stopping = True
        self._check_queue(now)  # one that was recreated just now may hold events
        self._in_queue_at_stop = self._consumer.depth
        self._received_at_stop = self.accounting.received
        self._reporter.stopping(now)

    def _send(self, attempt: Attempt) -> None:
        """Give an attempt to the sender that was busy last, with the freshest connection, or to a new one."""
        if self._idle_senders:
            sender = self._idle_senders.pop()
        else:
            sender = Sender(lambda: self._settings, self._connect, self._report, self._clock)
            try:
                sender.start()
            except RuntimeError as exc:
                reason = f"no thread for a sender: {exc}; raise the limit on processes (ulimit -u, TasksMax=)"
                self._report(Finished(None, attempt, Retryable(reason, from_collector=False), 0.0))
                return
        sender.post(attempt)

    def _nothing_left(self, now: float, *, queue_is_empty: bool) -> bool:
        if not queue_is_empty and self._may_receive(now):
            return False
        accounting = self.accounting
        # With a spool there is no reason to stay for a collector that is failing.
        return accounting.in_hand == 0 and (accounting.spooled == 0 or self._delivery.failures > 0)

    @property
    def _requeue_at(self) -> float:
        """When a stopping publisher begins to put events back, by the monotonic clock."""
        grace = self._settings.shutdown_grace
        return self._control.stopped_at + grace - min(grace * _REQUEUE_SHARE, _REQUEUE_SECONDS)

    def _may_receive(self, now: float) -> int:
        """How many events may be received now before other duties get their turn."""
        if not self._control.stops:
            return _BURST
        if now >= self._control.stopped_at + self._settings.shutdown_grace * _DRAIN_SHARE:
            return 0
        if not self._delivery.failures:
            return _BURST
        if removed := self._consumer.removed_depth:
            return min(_BURST, removed)  # no one else can receive these any more
        if self._spool is None or not self._stopping:
            return 0
        # The queue is lost with the host, the spool isn't. Busy producers must not hold the stop up.
        moved = self.accounting.received - self._received_at_stop
        return max(0, min(_BURST, self._in_queue_at_stop - moved))

    def _receive(self, now: float) -> bool:
        """Receive a burst at most of what has a place; return whether the queue was found empty."""
        allowed = self._may_receive(now)
        if not allowed:
            return False
        rejected = self._delivery.offer(itertools.islice(self._consumer.receive(), allowed), now)
        for size, rejection in rejected:
            logger.error("can't send a message of %d bytes: %s; %s", size, rejection.reason, self._fate)
        return self._consumer.found_empty

    def _finish(self, finished: Finished) -> None:
        """Take the end of an attempt, and log it."""
        if finished.sender is not None:
            self._idle_senders.append(finished.sender)
        failures = self._delivery.failures
        count = len(finished.attempt.batch.events)
        now = self._clock.monotonic()
        action = self._delivery.finish(finished.attempt, finished.outcome, now)
        self._reporter.record(finished.outcome, count, finished.seconds, now)
        match finished.outcome:
            case Accepted():
                logger.debug("delivered %d events", count)
                if failures and not self._delivery.failures:
                    logger.warning("the collector takes events again, after %d failed attempts", failures)
            case TooLarge(reason=reason) | Refused(reason=reason):
                if action is Action.GIVE_UP:
                    what = self._fate
                elif action is Action.SPLIT:
                    what = "looking for the offender"
                else:
                    what = "kept until it accepts others"
                logger.error("the collector refuses %d events: %s; %s", count, reason, what)
            case Retryable() | Misconfigured() if action is Action.GIVE_UP:
                logger.error(
                    "gave %d events up: %s; %s", count, describe_failure(finished.outcome), self._fate
                )
            case Retryable() | Misconfigured():
                logger.warning(
                    "can't deliver %d events: %s; next attempt in %.1f seconds",
                    count,
                    describe_failure(finished.outcome),
                    max(0.0, self._delivery.paused_until - now),
                )
            case _:
                assert_never(finished.outcome)

    def _check_queue(self, now: float) -> None:
        if self._consumer.look(now):
            self._delivery.resize_queue(self._consumer.capacity, self._consumer.message_size)

    def _reload(self) -> None:
        self._control.reload_wanted = False
        self._reporter.reloading()
        self._read_settings()
        self._reporter.ready()

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
        self._delivery.resume()  # whatever was wrong may have been corrected
        logger.info("read the configuration again")

    def _log_disk_error(self) -> None:
        """Log when a disk begins to fail, fails in another way, or works again."""
        error = self._delivery.disk_error
        if error == self._disk_error:
            return
        self._disk_error = error
        if error is None:
            logger.warning("the disk takes events again")
        else:
            logger.error("%s; events wait in the queue meanwhile", error)

    def _snapshot(self, now: float) -> Snapshot:
        """Copy what the publisher is doing, for other threads to read."""
        accounting = self.accounting
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
            attempts=self._reporter.attempts.counts(),
            failures=self._delivery.failures,
            oldest_at=self._delivery.oldest_at,
            spool=level,
            disk_error=self._delivery.disk_error,
            stopping=self._control.stops > 0,
            metrics_dropped=self._reporter.metrics_dropped,
        )

    def _sleep(self) -> None:
        """Wait until an attempt ends, a signal comes, an event can be received, or it is time."""
        now = self._clock.monotonic()
        poller = select.poll()
        poller.register(self._control.fileno(), select.POLLIN)
        self._consumer.register(poller, receiving=self._may_receive(now) > 0 and self._delivery.room > 0)
        times = [self._consumer.look_at, self._reporter.report_at]
        wake_at = self._delivery.wake_at()
        if wake_at is not None:
            times.append(wake_at)
        if self._control.stops:
            times += [self._requeue_at, self._log_progress_at]
        for descriptor, _ in self._clock.poll(poller, min(times) - now):
            self._consumer.woken(descriptor)
        self._control.clear()

    def _requeue_unsent(self) -> None:
        """Put everything in memory back into the queue, ahead of what is there."""
        events = self._delivery.take_unsent()
        grace = self._settings.shutdown_grace
        give_up_at = self._control.stopped_at + grace if self._control.stops == 1 else 0.0
        lost = 0
        for event in events:
            try:
                now = self._clock.monotonic()
                self._consumer.requeue(event, 0.0 if lost else max(0.0, give_up_at - now), now)
            except EventQueueFullError:
                lost += 1
            except EventError as exc:
                lost += 1
                logger.error("can't put an event back: %s", exc)
        self._delivery.requeued(len(events) - lost, lost=lost)
        name = self._consumer.name
        if lost:
            logger.error(
                "lost %d events: they could not be delivered, and %s has no room for them", lost, name
            )
        if len(events) > lost:
            logger.warning("put %d events back into %s", len(events) - lost, name)
