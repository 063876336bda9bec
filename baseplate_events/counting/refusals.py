"""How many events were refused, and how many of them were reported to the publisher. Exact, as all counts.

Rules:

1. Whoever takes counts to report them takes each once, and puts back what couldn't be reported. If two
   threads take at the same time, one gets nothing.
2. No one waits for that: a signal handler may have interrupted the thread that takes.
3. Counts are those of a process (see `forks`), so that none is reported twice.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .counters import Tally
from .forks import OfProcess

if TYPE_CHECKING:
    from .forks import Cell


class _Refusals:
    """The refusals of one process, by reason.

    Attributes:
        counted: All of them.
        returned: Those that were put back.
        taken: Those that were taken, as often as they were.
        lock: Held by the thread that takes some.
        unreported: Whether there may be some to take.
    """

    def __init__(self) -> None:
        self.counted: dict[str, Tally] = {}
        self.returned: dict[str, Tally] = {}
        self.taken: dict[str, int] = {}
        self.lock = threading.Lock()
        self.unreported = False

    def take(self) -> dict[str, int]:
        """Return those that weren't taken yet."""
        self.unreported = False  # first: what is counted from now on sets it again
        news: dict[str, int] = {}
        for reason, count in list(self.counted.items()):
            returned = self.returned.get(reason)
            total = count.value + (0 if returned is None else returned.value)
            if new := total - self.taken.get(reason, 0):
                news[reason] = new
                self.taken[reason] = total
        return news


class RefusalCounts:
    """How many events were refused in this process, by reason.

    Args:
        cell: Notices forks; see `OfProcess`.
    """

    def __init__(self, cell: Cell | None = None) -> None:
        self._refusals = OfProcess(_Refusals, cell)

    def count(self, reason: str, number: int = 1) -> None:
        """Tally events as refused.

        Args:
            reason: A word of ASCII letters and underscores.
            number: How many, 1 or more.
        """
        refusals = self._refusals.get()
        _count(refusals.counted, reason, number)
        refusals.unreported = True

    @property
    def totals(self) -> dict[str, int]:
        """All that were counted, by reason."""
        return {reason: count.value for reason, count in list(self._refusals.get().counted.items())}

    @property
    def unreported(self) -> bool:
        """Whether there may be some that `take` would return."""
        return self._refusals.get().unreported

    def take(self) -> dict[str, int]:
        """Return those that weren't taken yet, to report them; none if another thread takes them now."""
        refusals = self._refusals.get()
        if not refusals.unreported or not refusals.lock.acquire(blocking=False):
            return {}
        try:
            return refusals.take()
        finally:
            refusals.lock.release()

    def put_back(self, counts: dict[str, int]) -> None:
        """Have `take` return these again, as they couldn't be reported."""
        refusals = self._refusals.get()
        for reason, number in counts.items():
            _count(refusals.returned, reason, number)
            refusals.unreported = True


def _count(counts: dict[str, Tally], reason: str, number: int) -> None:
    count = counts.get(reason)
    if count is None:
        count = counts.setdefault(reason, Tally())
    count.add(number)
