"""The log lines of a stopping publisher: what it does, and how much is left. Pure except for the log.

The first line is logged immediately. Others follow every second, after ten seconds every ten. So a stop of an
hour, the longest `shutdown.grace`, logs at most about 370 lines.
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
    """What is left for a stopping publisher.

    Attributes:
        requests: Requests in flight.
        events: Events in memory, including those of the requests.
        queued: Events of the POSIX queue; with a spool, those still to move into it; None without a queue.
        spooled: Undelivered bytes in the spool, including those in memory; None without a spool.
    """

    requests: int
    events: int
    queued: int | None
    spooled: int | None


class StopLog:
    """Logs the progress of one stop.

    Attributes:
        due_at: When to call `write` next, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.due_at: float = -math.inf
        self._began_at: float | None = None

    def write(self, left: Left, now: float, *, drains: bool, ends_at: float) -> None:
        """Log a line.

        Args:
            left: What is left.
            now: The monotonic time in seconds.
            drains: Whether the publisher still starts requests.
            ends_at: The end of `shutdown.grace`.
        """
        if self._began_at is None:
            self._began_at = now
            logger.info("stopping: %s", _beginning(left, drains=drains))
        self.due_at = now + (_INTERVAL if now < self._began_at + _EARLY else _LATE_INTERVAL)
        parts = [
            f"{counted(left.requests, 'request')} in flight",
            f"{counted(left.events, 'event')} in memory",
        ]
        if left.queued is not None:
            where = "in the queue" if left.spooled is None else "to move from the queue"
            parts.append(f"{counted(left.queued, 'event')} {where}")
        if left.spooled is not None:
            parts.append(f"{counted(left.spooled, 'byte')} in the spool")
        logger.info(
            "stopping: %s left; shutdown.grace ends in %.1f seconds",
            ", ".join(parts),
            max(0.0, ends_at - now),
        )


def _beginning(left: Left, *, drains: bool) -> str:
    """Return what the publisher is going to do."""
    if not drains:
        moving = "" if left.queued is None else "moving the events of the queue into the spool, and "
        return (
            f"shutdown.drain is false, so no new request is started; {moving}waiting for the requests in "
            "flight"
        )
    if left.queued is None:
        return "delivering the spool; undelivered events stay in it"
    if left.spooled is None:
        return "delivering the queue; undelivered events go back into it"
    return "delivering the queue and the spool; undelivered events stay in the spool"
