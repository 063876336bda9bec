"""What a publisher that was asked to stop logs: what it does, and how much is left. Pure but for the log.

The first line comes at once. Others follow every second, after ten seconds every ten: so a stop of an hour,
the longest `shutdown.grace`, logs some 370 lines at most.
"""

from __future__ import annotations

import logging
import math
from typing import Final, NamedTuple

from .._words import counted

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between two lines in the first `_EARLY` seconds, and later.
_INTERVAL: Final = 1.0
_EARLY: Final = 10.0
_LATE_INTERVAL: Final = 10.0


class Left(NamedTuple):
    """What a stopping publisher has left.

    Attributes:
        requests: Requests in flight.
        events: Events in memory, those of the requests included.
        queued: Events of the POSIX queue: all of them; if they go into a spool, those that still do.
        spooled: Bytes in the spool that aren't delivered, those in memory included; None without a spool.
    """

    requests: int
    events: int
    queued: int
    spooled: int | None


class StopLog:
    """Logs the progress of one stop.

    Attributes:
        due_at: When `write` is to be called, in seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.due_at: float = -math.inf
        self._began_at: float | None = None

    def write(self, left: Left, now: float, *, drains: bool, ends_at: float) -> None:
        """Write a line.

        Args:
            left: What is left.
            now: Seconds of the monotonic clock.
            drains: Whether it still starts requests.
            ends_at: When it gives up: the end of `shutdown.grace`.
        """
        if self._began_at is None:
            self._began_at = now
            logger.info("stopping: %s", _beginning(left, drains=drains))
        self.due_at = now + (_INTERVAL if now < self._began_at + _EARLY else _LATE_INTERVAL)
        queued = counted(left.queued, "event")
        parts = [
            f"{counted(left.requests, 'request')} in flight",
            f"{counted(left.events, 'event')} in memory",
            f"{queued} in the queue" if left.spooled is None else f"{queued} to move from the queue",
        ]
        if left.spooled is not None:
            parts.append(f"{counted(left.spooled, 'byte')} in the spool")
        logger.info(
            "stopping: %s left; shutdown.grace ends in %.1f seconds",
            ", ".join(parts),
            max(0.0, ends_at - now),
        )


def _beginning(left: Left, *, drains: bool) -> str:
    """Say what the publisher is going to do."""
    if not drains:
        return (
            "shutdown.drain is false, so no new request is started; moving what the queue holds into the "
            "spool, and waiting for the requests in flight"
        )
    if left.spooled is None:
        return "delivering what is in the queue; what can't be delivered goes back into it"
    return "delivering what is in the queue and the spool; what can't be delivered stays in the spool"
