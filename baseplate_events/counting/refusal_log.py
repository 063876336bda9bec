"""What an event queue logs. Refused events are logged, but not each of them.

Rules:

1. The first refusal is logged at once, then at most one message in `PAUSE` seconds: how many events were
   refused since the last message, and why.
2. Once the queue takes events again, the first put after the pause logs the remaining refusals.
3. A message holds no traceback and nothing of an event. Logging can't fail a put, and no thread waits for
   another one to log.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from .._log import ERROR, INFO, WARNING, log
from .._words import counted
from .forks import OfProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import EventError, EventQueueUnavailableError
    from .refusals import RefusalCounts

#: Seconds between two messages, at least.
PAUSE = 10.0


class _Logged:
    """What one process has logged.

    Attributes:
        lock: Held by the thread that logs.
        totals: How many refusals, by reason.
        at: When it logged last, by the clock; None if it hasn't.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.totals: dict[str, int] = {}
        self.at: float | None = None


class RefusalLog:
    """Logs the refusals of one queue.

    Args:
        name: The name of the queue.
        refusals: What counts them.
        clock: Gives seconds that never step back.

    Attributes:
        pending: Whether there may be refusals that weren't logged.
    """

    __slots__ = ("_clock", "_logged", "_name", "_refusals", "pending")

    def __init__(self, name: str, refusals: RefusalCounts, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._refusals = refusals
        self._clock = clock
        self._logged = OfProcess(_Logged)  # the counts of a forked child start again too
        self.pending: bool = False

    def note(self, error: EventError) -> None:
        """Log this refusal and all that weren't logged yet, if a message is due."""
        self.pending = True
        if self._is_due():
            self._write(f", the last: {error}")

    def recovered(self) -> None:
        """Log the remaining refusals, since the queue takes events again, if a message is due."""
        if self._is_due():
            self._write("; it takes events again")

    def close(self) -> None:
        """Log the remaining refusals."""
        if self.pending:
            self._write("; it is closed", at_once=True)

    def _is_due(self) -> bool:
        logged_at = self._logged.get().at
        return logged_at is None or self._clock() >= logged_at + PAUSE

    def _write(self, ending: str, *, at_once: bool = False) -> None:
        logged = self._logged.get()
        # A thread that has the lock logs for all, and for a signal handler that came in between.
        if not logged.lock.acquire(blocking=False):
            return
        try:
            if not (at_once or self._is_due()):
                return  # another thread was faster
            before, now = logged.at, self._clock()
            self.pending = False
            totals = self._refusals.totals
            news = {reason: count - logged.totals.get(reason, 0) for reason, count in totals.items()}
            logged.totals, logged.at = totals, now
            if any(news.values()):
                self._log(news, None if before is None else now - before, ending)
        finally:
            logged.lock.release()

    def _log(self, news: dict[str, int], seconds: float | None, ending: str) -> None:
        count = sum(news.values())
        log(
            __name__,
            WARNING,
            "Event queue %s refused %s%s (%s)%s",
            self._name,
            counted(count, "event"),
            "" if seconds is None else f" in {seconds:,.0f} s",
            ", ".join(f"{number:,} {reason}" for reason, number in news.items() if number),
            ending,
        )


def log_unopened(error: EventQueueUnavailableError) -> None:
    """Log that a queue couldn't be opened, and why."""
    log(__name__, ERROR, "Can't open an event queue; events are refused until that works: %s", error)


def log_switched_off(name: str) -> None:
    """Log that a queue is switched off."""
    log(__name__, INFO, "Event queue %s is switched off: its events are discarded", name)


def log_ignored(name: str) -> None:
    """Log that the configuration has neither `on` nor `off`."""
    problem = "The configuration has a value for event queue %s that is neither on nor off, and is ignored"
    log(__name__, WARNING, problem, name)
