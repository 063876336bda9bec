"""The event publisher's loop: the threads, descriptors and clocks around the policy in `policy.delivery`.

The thread that calls `run` takes events and makes every decision. Sender threads compress, sign and post, and
decide nothing. `Control` wakes the main thread when an attempt ends or a signal arrives; otherwise it sleeps
until there is an event, or until the time given by `Delivery.wake_at`.

After `stop`:

1. For four fifths of `shutdown.grace`, `event_sources` still takes events from the queue and the spool.
2. Events in memory are sent until `grace` is nearly over. With `shutdown.drain` off, no attempt is started.
3. Events that exist only in memory are put back at the head of the queue. If the queue has no room, they are
   counted and logged as lost. The spool keeps its events.

A second `stop` goes straight to step 3.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import select
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .. import __version__
from .._compat import assert_never
from .._words import Count, counted
from ..errors import EventError
from .assembly import open_parts
from .clock import SystemClock
from .config.in_force import changed_options, reloaded, shown_values
from .control import Control
from .event_sources import EventSources
from .missing_queue import MissingQueue
from .policy.outcome import Accepted, Misconfigured, Refused, Retryable, TooLarge
from .policy.poison import Action
from .sender import Finished, Sender, TransportFactory
from .stop_log import Left, StopLog
from .telemetry.reporter import Reporter
from .telemetry.snapshot import Snapshot, describe_failure
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

#: The transports of services, by `queue.transport`.
_TRANSPORTS: Final = {"posix": ("posix",), "spool": ("spool",), "both": ("posix", "spool")}


class EventPublisher:
    """Delivers the events of a queue to a collector until it is stopped.

    Args:
        load_settings: Loads the settings; called at the start, and for each `reload`.
        random_source: The source of jitter.
        notifier: Reports to systemd, by default to nothing; closed in the end.
        control: The requests from signals, possibly made before this call; closed in the end.
        clock: The clocks.
        connect: Creates the transport of a sender; by default to the collector of the settings.

    Raises:
        ConfigurationError: The settings can't be used.
        EventError: The queue, the spool, the dead letters or the health endpoint can't be opened. Everything
            opened before is closed again.
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
        self._stopping = False
        self._waiting: list[str] = []  # changed options that need a restart
        self._disk_error: str | None = None
        self._finished: collections.deque[Finished] = collections.deque()
        self._idle_senders: list[Sender] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.close)
            notifier = notifier if notifier is not None else Notifier({})
            stack.callback(notifier.close)
            self._connect = connect if connect is not None else TransportFactory()
            self._stop_log = StopLog()
            self._settings = load_settings()
            self._transports = _TRANSPORTS[self._settings.queue.transport]
            parts = open_parts(stack, lambda: self._settings, random_source, self._clock)
            self._sources = EventSources(parts, self._control, self._clock, lambda: self._settings)
            self._source = parts.source
            self._delivery = parts.delivery
            self._reporter = Reporter(self._settings, notifier, self._snapshot)
            stack.callback(self._reporter.close)
            self._started_at = self._clock.monotonic()
            self._resources = stack.pop_all()

    @property
    def queue_name(self) -> str:
        """The NAME of its queue."""
        return self._settings.queue.name

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
        """Why nothing is being delivered: the failure of the last attempt. None if nothing is wrong."""
        return self._reporter.attempts.last_error

    def snapshot(self) -> Snapshot:
        """Return the state of the publisher. For the thread that runs it, or while none does."""
        return self._snapshot(self._clock.monotonic())

    def stop(self) -> None:
        """Request a stop, the second time an immediate one. Safe to call from signal handlers and threads."""
        self._control.stop()

    def reload(self) -> None:
        """Request a reload of the settings. Safe to call from a signal handler or another thread.

        The senders' settings take effect with the next attempt: `collector.*` except the version, `key.*`,
        `compression.level` and `retry.codes`; and so does `shutdown.*`. Changes of other settings need a
        restart, and are logged. Settings with a mistake change nothing, and the mistakes are logged.
        """
        self._control.reload()

    def run(self) -> None:
        """Publish until `stop` is called.

        Afterwards every event is delivered, back on the queue, in the spool or the dead letters, or counted
        and logged as dropped.

        Raises:
            HealthError: The health endpoint can't be started; no event was received.
        """
        with self._resources:
            logger.info("publishing events from %s to %s", self._places(), self._settings.collector.url)
            if self.accounting.recovered:
                logger.info("recovered %s of unfinished batches", Count(self.accounting.recovered, "event"))
            health = self._reporter.start(self._clock.monotonic())
            if health is not None:
                logger.info("health endpoint listening on %s", health)
            try:
                while not self._step():
                    self._sleep()
            finally:
                self._sources.requeue_unsent()
                logger.info("stopped: %s%s", self.accounting, self._left_in_spool())
                self._reporter.finish(self._clock.monotonic())

    def _left_in_spool(self) -> str:
        if self._source is None:
            return ""
        return f"; {counted(self._source.backlog, 'byte')} left in the spool"

    def _places(self) -> str:
        """Return where events come from, for the log."""
        places = [self._sources.consumer.name] if "posix" in self._transports else []
        places += [] if self._source is None else [self._source.relay.path]
        return " and ".join(places)

    def _report(self, finished: Finished) -> None:
        """Accept the result of an attempt from a sender."""
        self._finished.append(finished)
        self._control.wake()

    def _step(self) -> bool:
        """Do all that can be done now; return whether the publisher has finished."""
        while self._finished:
            self._finish(self._finished.popleft())
        # Read once per step: only a queue found empty after the stop is known to hold nothing from before it.
        stopping = self._control.stops > 0
        now = self._clock.monotonic()
        if stopping and not self._stopping:
            self._stopping = True
            self._sources.begin_stop(now)
            self._reporter.stopping(now)
        if stopping and now >= self._stop_log.due_at:
            self._log_stop(now)
        if self._control.reload_wanted:
            self._reload()
        if now >= self._sources.consumer.refresh_at:
            self._sources.check_queue(now)
        self._reporter.report(now)
        nothing_to_come = self._sources.take(now)
        if stopping and nothing_to_come:
            self._delivery.flush()
        while self._sources.may_send and (attempt := self._delivery.next_attempt(now)) is not None:
            self._send(attempt)
        if self._source is not None:
            self._source.work(now)
        self._log_disk_error()
        if not stopping:
            return False
        return (
            self._control.stops > 1
            or now >= self._sources.requeue_at
            or (nothing_to_come and self._nothing_left())
        )

    def _log_stop(self, now: float) -> None:
        """Log the progress of a stop."""
        accounting, sources, source = self.accounting, self._sources, self._source
        queued = sources.consumer.depth if source is None else sources.to_move
        left = Left(
            requests=self._delivery.in_flight,
            events=accounting.in_hand + accounting.spooled,
            queued=queued if "posix" in self._transports else None,
            spooled=None if source is None else source.backlog,
        )
        self._stop_log.write(left, now, drains=sources.may_send, ends_at=sources.ends_at)

    def _send(self, attempt: Attempt) -> None:
        """Give an attempt to the sender that finished last, with the freshest connection, or to a new one."""
        if self._idle_senders:
            sender = self._idle_senders.pop()
        else:
            sender = Sender(lambda: self._settings, self._connect, self._report, self._clock)
            try:
                sender.start()
            except RuntimeError as exc:
                reason = f"no thread for a sender: {exc}; raise the process limit (ulimit -u, TasksMax=)"
                self._report(Finished(None, attempt, Retryable(reason, from_collector=False), 0.0))
                return
        sender.post(attempt)

    def _nothing_left(self) -> bool:
        """Whether no event in memory is still to be sent before the end."""
        if not self._sources.may_send:
            return self._delivery.in_flight == 0
        return self.accounting.in_hand == self.accounting.spooled == 0

    def _finish(self, finished: Finished) -> None:
        """Handle the result of an attempt, and log it."""
        if finished.sender is not None:
            self._idle_senders.append(finished.sender)
        failures = self._delivery.failures
        count = len(finished.attempt.batch.events)
        events = Count(count, "event")
        now = self._sources.ended_at = self._clock.monotonic()
        action = self._delivery.finish(finished.attempt, finished.outcome, now)
        self._reporter.record(finished.outcome, count, finished.seconds, now)
        match finished.outcome:
            case Accepted():
                logger.debug("delivered %s", events)
                if failures and not self._delivery.failures:
                    logger.warning(
                        "the collector accepts events again, after %s", Count(failures, "failed attempt")
                    )
            case TooLarge(reason=reason) | Refused(reason=reason):
                if action is Action.GIVE_UP:
                    what = self._sources.fate
                elif action is Action.SPLIT:
                    what = "splitting the batch to find the offending event"
                else:
                    what = "kept until it accepts other events"
                logger.error("the collector refuses %s: %s; %s", events, reason, what)
            case Retryable() | Misconfigured() if action is Action.GIVE_UP:
                logger.error(
                    "gave up %s: %s; %s", events, describe_failure(finished.outcome), self._sources.fate
                )
            case Retryable() | Misconfigured():
                logger.warning(
                    "can't deliver %s: %s; next attempt in %.1f seconds",
                    events,
                    describe_failure(finished.outcome),
                    max(0.0, self._delivery.paused_until - now),
                )
            case _:
                assert_never(finished.outcome)

    def _reload(self) -> None:
        self._control.reload_wanted = False
        self._reporter.reloading()
        self._read_settings()
        self._reporter.ready()

    def _read_settings(self) -> None:
        try:
            fresh = self._load_settings()
        except EventError as exc:
            logger.error("configuration not reloaded, because it has mistakes:\n%s", exc)
            return
        taken, waiting = changed_options(self._settings, fresh)
        if fresh.collector.version != self._settings.collector.version:
            # A new key or host may belong to the new version.
            self._waiting = taken + waiting
            logger.error(
                "collector.version changed, which needs a restart; all changed options keep their old "
                "values: %s",
                ", ".join(self._waiting),
            )
            return
        self._settings = reloaded(self._settings, fresh)
        self._waiting = waiting
        self._delivery.resume()  # the cause of failures may be fixed
        logger.info("configuration reloaded: %s", _in_effect(taken))
        if self._waiting:
            logger.warning(
                "changed options that need a restart: %s; they keep their old values",
                ", ".join(self._waiting),
            )

    def _log_disk_error(self) -> None:
        """Log when a disk starts failing, fails differently, or works again."""
        error = self._delivery.disk_error
        if error is None and self._source is not None:
            error = self._source.relay.error
        if error == self._disk_error:
            return
        self._disk_error = error
        if error is None:
            logger.warning("the disk accepts events again")
        else:
            logger.error("%s; events wait in the queue", error)

    def _snapshot(self, now: float) -> Snapshot:
        """Copy the state of the publisher, for other threads."""
        accounting, consumer = self.accounting, self._sources.consumer
        depth = None if isinstance(consumer, MissingQueue) else consumer.measure()
        transports = {name: name != "posix" or depth is not None for name in self._transports}
        oldest_at = self._delivery.oldest_at
        if oldest_at is None:
            self._reporter.attempts.settle()
        return Snapshot(
            queue_name=self._settings.queue.name,
            version=__version__,
            started_at=self._started_at,
            made_at=now,
            accounting=replace(accounting, dropped=dict(accounting.dropped)),
            queue_depth=depth,
            queue_capacity=consumer.capacity if depth is not None else None,
            queue_highest=consumer.take_highest(),
            queue_full=consumer.times_full,
            transports=transports,
            attempts=self._reporter.attempts.counts(),
            failures=self._delivery.failures,
            oldest_at=oldest_at,
            spool=None if self._source is None else self._source.level(now, self._clock.wall_time()),
            disk_error=self._delivery.disk_error,
            stopping=self._control.stops > 0,
            metrics_dropped=self._reporter.metrics_dropped,
            collector=self._settings.collector.url,
            settings=shown_values(self._settings),
            waiting=tuple(self._waiting),
            queue_shared=consumer.is_shared(),
        )

    def _sleep(self) -> None:
        """Wait until an attempt ends, a signal arrives, there is an event, or the next action is due."""
        now = self._clock.monotonic()
        poller = select.poll()
        poller.register(self._control.fileno(), select.POLLIN)
        times = [self._sources.register(poller, now), self._reporter.report_at]
        wake_at = self._delivery.wake_at() if self._sources.may_send else None
        if wake_at is not None:
            times.append(wake_at)
        if self._control.stops:
            times += [self._sources.requeue_at, self._stop_log.due_at]
        for descriptor, _ in self._clock.poll(poller, min(times) - now):
            self._sources.consumer.handle_ready(descriptor)
        self._control.clear()


def _in_effect(names: list[str]) -> str:
    """Return which options took effect, for the log."""
    return (
        f"{', '.join(names)} took effect"
        if names
        else "no option that takes effect without a restart was changed"
    )
