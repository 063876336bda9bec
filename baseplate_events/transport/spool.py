"""Events to the publisher by way of a spool: files in a directory that both share.

Rules:

1. `put` waits for no other process, and no network. `write` may wait for a disk that has much to write.
2. Nothing needs care at a fork, in threads, or in signal handlers; see `spool.writer`.
3. With a timeout, `put` waits for room as long as there is none and the spool is otherwise usable.
4. If no publisher has read the spool for a minute in which events were put, that is logged once.
"""

from __future__ import annotations

import math
import time
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import (
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from ..spool.segment import TRUST
from ..spool.writer import SpoolWriter
from .unopened import NO_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..counting.refusals import RefusalCounts
    from ..spool.segment import SpoolFolder
    from . import Channel

#: Seconds between two looks for a publisher, and for how long none may be there before that is logged.
LOOK_PAUSE = 20.0
UNREAD_LIMIT = 60.0

#: Seconds that a wait for room sleeps at most at a time.
_SLICE = 0.05


class SpoolTransport:
    """Puts messages into a spool.

    Args:
        directory: The directory of the spool.
        event_format: The `collector.version` that the messages are for, or `UNKNOWN_FORMAT`.
        max_size: Bytes of undelivered messages that the spool holds.
        max_message_size: Bytes that a message may have.
        refusals: What to report to the publisher.
        clock: Gives seconds that never step back.
        sleep: Waits for some seconds; None for `time.sleep`, looked up late so that gevent can replace it.

    Attributes:
        channel: The segment that is appended to now; see `Transport`.
        trusted_until: Time of the clock until which that may be sent to without another `confirm`.
    """

    def __init__(
        self,
        directory: SpoolFolder,
        event_format: str,
        *,
        max_size: int,
        max_message_size: int,
        refusals: RefusalCounts,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._name = directory.path
        self._writer = SpoolWriter(directory, event_format, max_size, refusals, clock)
        self._max_size = max_size
        self._max_message_size = max_message_size
        self._refusals = refusals
        self._clock = clock
        self._sleep = sleep
        self._closed = False
        self._unread_since: float | None = None
        self._look_at = math.inf
        self.trusted_until: float = 0.0
        self.channel: Channel = NO_CHANNEL

    @property
    def name(self) -> str:
        """The path of the spool."""
        return self._name

    @property
    def max_message_size(self) -> int:
        """Bytes that a message may have."""
        return self._max_message_size

    def confirm(self, now: float) -> bool:
        """Return whether the segment can be appended to; if so, trust that for a moment.

        It can't for now if there is more to do than that: refusals to report, or to look for a publisher.
        """
        segment = self._writer.segment
        if self._closed or segment is None or self._refusals.unreported or now >= self._look_at:
            return False
        if not segment.check(now):
            return False
        self.channel = segment
        self.trusted_until = now + TRUST
        return True

    def put(self, message: bytes, timeout: float = 0.0) -> None:
        """Add a message; see `Transport.put`."""
        self.put_many((message,), timeout)

    def put_many(self, messages: Sequence[bytes], timeout: float) -> None:
        """Add messages; see `Transport.put_many`."""
        self._check_open()
        for message in messages:
            if len(message) > self._max_message_size:
                raise EventTooLargeError(len(message), self._max_message_size)
        deadline = self._clock() + timeout
        done = 0
        while True:
            try:
                self._writer.append(messages[done:])
            except (EventQueueFullError, EventQueueUnavailableError) as error:
                self.channel = self._writer.segment or NO_CHANNEL
                done += error.events_put
                error.events_put = done
                remaining = deadline - self._clock()
                if isinstance(error, EventQueueUnavailableError) or not remaining > 0:
                    raise
                (self._sleep or time.sleep)(min(remaining, _SLICE))
                self._check_open()
            else:
                break
        self.channel = self._writer.segment or NO_CHANNEL
        self._look_for_reader()

    def full(self) -> EventQueueFullError:
        """Return an error that is never needed: a segment can't know whether the spool is full."""
        return EventQueueFullError(self._name)

    def gauges(self) -> Mapping[str, int]:
        """Return the bytes in the spool that aren't delivered, and how many it holds."""
        try:
            return {"spool_size": self._writer.used(), "spool_max_size": self._max_size}
        except OSError as exc:
            raise EventQueueUnavailableError(self._name, f"it can't be read ({exc.strerror})") from exc

    def close(self) -> None:
        """Append no more; the descriptor is closed when no thread uses it any more."""
        self._closed = True
        self.trusted_until = 0.0
        self._writer.segment = None
        self.channel = NO_CHANNEL

    def _check_open(self) -> None:
        if self._closed:
            raise EventQueueClosedError(self._name)

    def _look_for_reader(self) -> None:
        """Log once if no publisher has read the spool for `UNREAD_LIMIT`."""
        now = self._clock()
        if self._unread_since is None:
            self._unread_since = now
            self._look_at = now + LOOK_PAUSE
        if now < self._look_at:
            return
        self._look_at = now + LOOK_PAUSE
        has_reader = self._writer.has_reader()
        if has_reader is None:
            return
        if has_reader:
            self._unread_since = now
        elif now - self._unread_since >= UNREAD_LIMIT:
            self._look_at = math.inf
            import logging  # noqa: PLC0415 - a slow import; most services have nothing to warn about

            logging.getLogger(__name__).warning(
                "Event queue %s: events were put for %d seconds, but no event publisher reads this spool; "
                "start one that reads it, with the same directory and queue name",
                self._name,
                UNREAD_LIMIT,
            )
