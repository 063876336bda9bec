"""Events to the publisher through a spool: files in a directory that both share.

Rules:

1. `put` waits for no other process, and no network. `write` may wait for a busy disk.
2. Forks, threads and signal handlers need no special care; see `spool.writer`.
3. With a timeout, `put` waits while the spool is full but otherwise usable.
4. If events are put for a minute while no publisher reads the spool, one warning is logged.
"""

from __future__ import annotations

import math
import time
from time import monotonic
from typing import TYPE_CHECKING

from .._log import WARNING, log
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

#: Seconds between two checks for a publisher, and seconds without one after which that is logged.
CHECK_PAUSE = 20.0
UNREAD_LIMIT = 60.0

#: Longest sleep in a wait for room, in seconds.
_SLICE = 0.05


class SpoolTransport:
    """Puts messages into a spool.

    Args:
        directory: The directory of the spool.
        event_format: The `collector.version` that the messages are for, or `UNKNOWN_FORMAT`.
        max_size: Bytes of undelivered messages that the spool holds.
        max_message_size: Largest message in bytes.
        refusals: The refusals to report to the publisher.
        clock: A monotonic clock, in seconds.
        sleep: Sleeps for some seconds; None for `time.sleep`, looked up late so that gevent can replace it.

    Attributes:
        channel: The current segment; see `Transport`.
        trusted_until: Time of the clock until which `channel` may be used without `confirm`.
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
        self._look_at = -math.inf
        self.trusted_until: float = 0.0
        self.channel: Channel = NO_CHANNEL

    @property
    def name(self) -> str:
        """The path of the spool."""
        return self._name

    @property
    def max_message_size(self) -> int:
        """Largest message in bytes."""
        return self._max_message_size

    def confirm(self, now: float) -> bool:
        """Return whether the segment can be appended to; if so, trust that for a moment.

        False also if the put has more to do: report refusals, or check for a publisher.
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
        self._check_for_reader()

    def full(self) -> EventQueueFullError:
        """Return an error that is never needed: a segment doesn't know whether the spool is full."""
        return EventQueueFullError(self._name)

    def gauges(self) -> Mapping[str, int]:
        """Return the undelivered bytes in the spool, and its capacity."""
        try:
            return {"spool_size": self._writer.used(), "spool_max_size": self._max_size}
        except OSError as exc:
            raise EventQueueUnavailableError(self._name, f"it can't be read ({exc.strerror})") from exc

    def close(self) -> None:
        """Stop appending; the descriptor is closed when the last thread stops using it."""
        self._closed = True
        self.trusted_until = 0.0
        self._writer.segment = None
        self.channel = NO_CHANNEL

    def _check_open(self) -> None:
        if self._closed:
            raise EventQueueClosedError(self._name)

    def _check_for_reader(self) -> None:
        """Log once if no check has found a publisher for `UNREAD_LIMIT`."""
        now = self._clock()
        if self._look_at == -math.inf:  # the first put
            self._look_at = now + CHECK_PAUSE
        if now < self._look_at:
            return
        self._look_at = now + CHECK_PAUSE
        has_reader = self._writer.has_reader()
        if has_reader is None:
            return
        if has_reader:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now  # it may be restarting
        elif now - self._unread_since >= UNREAD_LIMIT:
            self._look_at = math.inf
            log(
                __name__,
                WARNING,
                "Event queue %s: events put for %d seconds, but no event publisher reads this spool; "
                "start one with the same directory and queue name",
                self._name,
                UNREAD_LIMIT,
            )
