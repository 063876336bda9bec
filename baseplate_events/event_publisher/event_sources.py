"""Takes events from the POSIX queue and the spool: decides when, and how many. Used by one thread.

Before a stop it takes what has a place. Without a spool that place is memory (`policy.admission`). With one,
events of the queue are moved into the spool even if memory is full, since a full queue refuses events, and
the spool is read as memory allows.

After a stop, for four fifths of `shutdown.grace`:

1. Without a spool, the queue is received from, unless the collector is failing.
2. With a spool, as many events as the queue held at the stop are moved into the spool. The spool is read,
   even if the collector is failing, as it may be deleted with the pod. If `shutdown.drain` is off, it isn't
   read.

At the end, events that are in memory only go back into the queue, ahead of everything else.
"""

from __future__ import annotations

import itertools
import logging
import math
import select
from typing import TYPE_CHECKING, Final

from .._words import Count
from ..errors import EventError, EventQueueFullError
from .missing_queue import MissingQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from .assembly import Parts
    from .clock import Clock
    from .config.settings import PublisherSettings
    from .control import Control
    from .policy.rejection import Rejection
    from .queue_consumer import QueueConsumer
    from .spool_source import SpoolSource

logger: logging.Logger = logging.getLogger(__name__)

#: Events taken at a time before the publisher does anything else: some milliseconds of work.
_BURST: Final = 1_000

#: Share of the grace for which a stopping publisher goes on taking events.
_DRAIN_SHARE: Final = 0.8

#: Share of the grace, and seconds at most, that are reserved for putting events back.
_REQUEUE_SHARE: Final = 0.1
_REQUEUE_SECONDS: Final = 0.5

#: Seconds without the end of an attempt after which events are moved into the spool although memory is full.
#: Until then they wait in the queue, as waiting for some batches costs less than reading events back.
_STALL: Final = 0.02

#: Events that a queue must hold for that: 20 ms of 50,000 a second. A smaller queue would refuse some.
_DEEP: Final = 1_000

#: Seconds after a read in which no writer wakes the publisher, at most, and at most this share of
#: `batch.max_age`, since the batch waits for more events anyway. A writer that wakes it may be interrupted by
#: it, in the middle of a request.
_REST: Final = 0.05
_REST_SHARE: Final = 0.1


class EventSources:
    """The queue and the spool of a publisher.

    Args:
        parts: What was opened; closed elsewhere.
        control: Says whether to stop, and since when.
        clock: The clocks.
        current_settings: Returns the settings.

    Attributes:
        consumer: The queue, or its stand-in while it is missing.
        fate: What happens to events that are given up, for logs.
        ended_at: When the last attempt ended, in seconds of the monotonic clock; set by the publisher.
        to_move: Events of the queue that a stopping publisher has yet to move into the spool.
    """

    def __init__(
        self,
        parts: Parts,
        control: Control,
        clock: Clock,
        current_settings: Callable[[], PublisherSettings],
    ) -> None:
        self.consumer: QueueConsumer | MissingQueue = parts.consumer
        self.fate: str = "kept in the dead letters" if parts.keeps_letters else "dropped"
        self.ended_at: float = -math.inf
        self._spool: SpoolSource | None = parts.source
        self._delivery = parts.delivery
        self._control = control
        self._clock = clock
        self._current_settings = current_settings
        self.to_move: int = 0
        self._moved_at = -math.inf  # when events were last moved from the queue to the spool
        self._rests_until = -math.inf

    def begin_stop(self, now: float) -> None:
        """Note how many events are there at a stop."""
        self.check_queue(now)  # one that was recreated just now may hold events
        self.to_move = self.consumer.depth + self.consumer.removed_depth
        if self._spool is not None and self._spool.relay.held is not None:
            self.to_move += 1

    def check_queue(self, now: float) -> None:
        """Follow the queue if it was removed, or use it if it was missing and exists now."""
        consumer = self.consumer
        if consumer.refresh(now):
            if isinstance(consumer, MissingQueue) and consumer.found is not None:
                self.consumer = consumer.found
                logger.warning("the POSIX queue is available: %s", self.consumer.name)
            self._delivery.resize_queue(self.consumer.capacity, self.consumer.message_size)

    def take(self, now: float) -> bool:
        """Take at most a burst from each; return whether nothing is left that may be taken."""
        nothing_to_receive = self._receive(now) or not self._may_receive()
        nothing_to_read = self._read(now)
        return nothing_to_receive and nothing_to_read

    def register(self, poller: select.poll, now: float) -> float:
        """Register with a poller what announces events; return when to look at the latest."""
        self.consumer.register(poller, receiving=min(self._may_receive(), self._room(now)) > 0)
        times = [self.consumer.refresh_at]
        if self._spool is not None:
            times += [self._spool.work_at, now + self._wait_for_spool(self._spool, poller)]
            if self._delivery.memory_left <= 0 and now < self.ended_at + self._stall:
                times.append(self.ended_at + self._stall)
        return min(times)

    @property
    def may_send(self) -> bool:
        """Whether attempts are started: without `shutdown.drain`, not after a stop."""
        return self._spool is None or not self._control.stops or self._current_settings().shutdown.drain

    @property
    def ends_at(self) -> float:
        """When the grace of a stopping publisher is over, by the monotonic clock."""
        return self._control.stopped_at + self._current_settings().shutdown.grace

    @property
    def requeue_at(self) -> float:
        """When a stopping publisher begins to put events back, by the monotonic clock."""
        grace = self._current_settings().shutdown.grace
        return self.ends_at - min(grace * _REQUEUE_SHARE, _REQUEUE_SECONDS)

    def requeue_unsent(self) -> None:
        """Put everything that is in memory only back into the queue, ahead of its events."""
        events = self._delivery.take_unsent()
        held = None if self._spool is None else self._spool.relay.take_held()
        if held is not None:
            self._delivery.accounting.receive(1)
            events.append(held)
        grace = self._current_settings().shutdown.grace
        give_up_at = self._control.stopped_at + grace if self._control.stops == 1 else 0.0
        lost = 0
        for event in events:
            try:
                now = self._clock.monotonic()
                self.consumer.requeue(event, 0.0 if lost else max(0.0, give_up_at - now), now)
            except EventQueueFullError:
                lost += 1
            except EventError as exc:
                lost += 1
                logger.error("can't put an event back: %s", exc)
        self._delivery.requeued(len(events) - lost, lost=lost)
        name = self.consumer.name
        if lost:
            logger.error("lost %s that could not be delivered: %s has no room", Count(lost, "event"), name)
        if len(events) > lost:
            logger.warning("put %s back into %s", Count(len(events) - lost, "event"), name)

    @property
    def _is_draining(self) -> bool:
        """Whether there is time to take more; before a stop, there always is."""
        stopped_at = self._control.stopped_at if self._control.stops else math.inf
        return self._clock.monotonic() < stopped_at + self._current_settings().shutdown.grace * _DRAIN_SHARE

    def _may_receive(self) -> int:
        """How many events of the queue may be received in this step."""
        if not self._control.stops:
            return _BURST
        if not self._is_draining:
            return 0
        if self._spool is not None:
            # The queue is lost with the host, the spool isn't. Busy producers must not delay the stop.
            return min(_BURST, self.to_move)
        if not self._delivery.failures:
            return _BURST
        return min(_BURST, self.consumer.removed_depth)  # no one else can receive these any more

    def _may_read(self) -> bool:
        """Whether events in the spool are read now."""
        return self.may_send and self._is_draining

    @property
    def _stall(self) -> float:
        """How long events may wait in the queue for memory, in seconds."""
        return _STALL if self.consumer.capacity >= _DEEP else 0.0

    def _room(self, now: float) -> int:
        """How many events of the queue have a place."""
        spool, memory_left = self._spool, self._delivery.memory_left
        if spool is None:
            return self._delivery.room
        if not self.consumer.capacity:
            return 0  # there is no queue, so whether the relay works doesn't matter
        if not self._control.stops:
            if memory_left > 0:
                # What was moved before goes first.
                waits_until = self._moved_at + self._stall if spool.is_behind else -math.inf
            else:
                waits_until = -math.inf if self._delivery.failures else self.ended_at + self._stall
            if now < waits_until:
                return 0
        return spool.relay.room(self.consumer.message_size)

    def _receive(self, now: float) -> bool:
        """Receive at most a burst of what has a place; return whether the queue was found empty."""
        allowed = min(self._may_receive(), self._room(now))
        if not allowed:
            return False
        events = itertools.islice(self.consumer.receive(), allowed)
        if self._spool is None:
            self._log_rejected(self._delivery.offer(events, now))
        else:
            moved, run = self._spool.relay_events(events, self._delivery.memory_left)
            self.to_move = max(0, self.to_move - moved)  # the one that was held may be one more
            if moved:
                self._moved_at = now
            self._log_rejected(self._delivery.offer_run(run, now))
        return self.consumer.found_empty

    def _read(self, now: float) -> bool:
        """Read at most a burst of what memory has room for; return whether nothing is left to read."""
        if self._spool is None or not self._may_read():
            return True
        run = self._spool.read(_BURST, self._delivery.memory_left)
        if run.events:
            self._rests_until = now + min(_REST, _REST_SHARE * self._current_settings().batch.max_age)
        self._log_rejected(self._delivery.offer_run(run, now))
        return not self._spool.may_be_more

    def _wait_for_spool(self, spool: SpoolSource, poller: select.poll) -> float:
        """Register with a poller what announces records; return the seconds to sleep at most."""
        if self._delivery.memory_left <= 0 or not self._may_read():
            return math.inf
        if spool.may_be_more:
            return 0.0
        rest = self._rests_until - self._clock.monotonic()
        if rest > 0:
            return rest
        pause = spool.wait_time(self._current_settings().batch.max_age)
        if pause > 0 and spool.wait_descriptor is not None:
            poller.register(spool.wait_descriptor, select.POLLIN)
        return pause

    def _log_rejected(self, rejected: list[tuple[int, Rejection]]) -> None:
        for size, rejection in rejected:
            logger.error(
                "can't send a message of %s: %s; %s", Count(size, "byte"), rejection.reason, self.fate
            )
