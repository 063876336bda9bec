"""Stands in for a POSIX queue that the settings don't want, or that can't be created."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from .._words import Count
from ..errors import EventError, EventQueueUnavailableError
from .queue_lock import QueueInUseError

if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Generator

    from .queue_consumer import QueueConsumer

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between attempts to create a queue: the first and the longest pause. They double.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


class MissingQueue:
    """Has the methods of a `QueueConsumer`, but is always empty.

    Args:
        name: The name of the queue.
        open_queue: Opens the consumer as soon as that works; None if no queue is wanted.
        now: The monotonic time in seconds.

    Raises:
        QueueInUseError: Another publisher reads the queue, and `queue.exclusive` is set.

    Attributes:
        name: As given.
        capacity: No events.
        message_size: No bytes.
        removed_depth: No events.
        found_empty: True.
        refresh_at: When to call `refresh`, in monotonic seconds.
        times_full: 0.
        found: The consumer, once there is one; use that from then on.
    """

    def __init__(self, name: str, open_queue: Callable[[], QueueConsumer] | None, now: float) -> None:
        self.name: str = name
        self.capacity: int = 0
        self.message_size: int = 0
        self.removed_depth: int = 0
        self.found_empty: bool = True
        self.refresh_at: float = math.inf
        self.times_full: int = 0
        self.found: QueueConsumer | None = None
        self._open_queue = open_queue
        self._pause = _FIRST_PAUSE
        if open_queue is not None:
            self.refresh(now, starts=True)

    @property
    def depth(self) -> int:
        """No events."""
        return 0

    def measure(self) -> int:
        """Return 0."""
        return 0

    def take_highest(self) -> int:
        """Return 0."""
        return 0

    def is_shared(self) -> bool:
        """Return False."""
        return False

    def refresh(self, now: float, *, starts: bool = False) -> bool:
        """Try to open the queue, if one is wanted; return whether there is one now.

        Raises:
            QueueInUseError: Another publisher reads it, and `starts` is set; later that is a warning.
        """
        if self._open_queue is None:
            return False
        try:
            self.found = self._open_queue()
        except EventError as exc:
            if starts and isinstance(exc, QueueInUseError):
                raise
            self.refresh_at = now + self._pause
            logger.warning(
                "POSIX queue unavailable, delivering only the spool: %s; next attempt in "
                "%s. Set queue.transport = spool if no service needs the queue",
                exc,
                Count(round(self._pause), "second"),
            )
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return False
        self.refresh_at = math.inf
        return True

    def register(self, poller: select.poll, *, receiving: bool) -> None:
        """Do nothing: there is nothing to wait for."""

    def handle_ready(self, descriptor: int) -> None:
        """Do nothing."""

    def receive(self) -> Generator[bytes]:
        """Return no events."""
        yield from ()

    def requeue(self, event: bytes, timeout: float, now: float) -> None:
        """Raise an error: there is no queue."""
        del event, timeout, now
        raise EventQueueUnavailableError(self.name, "there is no such queue")

    def close(self) -> None:
        """Close the queue that was found."""
        if self.found is not None:
            self.found.close()
