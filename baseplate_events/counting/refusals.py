"""How many events were refused, exactly: with threads, in signal handlers, and after a fork.

Rules:

1. A count is never lost: it is added to a deque, which is one step on every build of Python. Whoever holds
   the lock adds up what is in the deque, where each count stays until the sums have it. No one waits for the
   lock: a signal handler may have interrupted the one who holds it, and in a forked child the thread that
   held it doesn't exist.
2. Counts are those of a process. A forked child starts with none, so that none is reported twice.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class _Count(NamedTuple):
    """Events that were refused.

    Attributes:
        reason: Why.
        number: How many.
        is_new: False if they were counted before, and couldn't be reported.
    """

    reason: str
    number: int
    is_new: bool


class _Sums(NamedTuple):
    """What was added up.

    Attributes:
        totals: All, by reason.
        unreported: Those that weren't reported.
        last: What was added last. It may still be in `_Counts.fresh`.
    """

    totals: dict[str, int]
    unreported: dict[str, int]
    last: _Count | None

    def plus(self, count: _Count) -> _Sums:
        """Return these with another count."""
        reason, number, is_new = count
        unreported = self.unreported | {reason: self.unreported.get(reason, 0) + number}
        return _Sums(self.totals_with((count,)) if is_new else self.totals, unreported, count)

    def totals_with(self, counts: Iterable[_Count]) -> dict[str, int]:
        """Return the totals with those of some counts that aren't among them."""
        totals = dict(self.totals)
        for count in counts:
            if count.is_new and count is not self.last:
                totals[count.reason] = totals.get(count.reason, 0) + count.number
        return totals


class _Counts:
    """The counts of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fresh: deque[_Count] = deque()
        self.sums = _Sums({}, {}, None)

    def add_up(self) -> bool:
        """Add up what came, and return whether that was possible now."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self._add_up()
        finally:
            self.lock.release()
        return True

    def take(self) -> dict[str, int]:
        """Return what wasn't reported yet, which is reported from now on."""
        if not self.lock.acquire(blocking=False):
            return {}
        try:
            self._add_up()
            taken = self.sums.unreported
            self.sums = self.sums._replace(unreported={})
        finally:
            self.lock.release()
        return taken

    def totals(self) -> dict[str, int]:
        """Return all that were counted, by reason."""
        while not self.add_up():  # another thread does, or the code that a signal handler interrupts
            sums = self.sums
            try:
                fresh = self.fresh.copy()
            except RuntimeError:  # free-threaded Python: another thread added a count at that moment
                continue
            if self.sums is sums:
                return sums.totals_with(fresh)
        return dict(self.sums.totals)

    def _add_up(self) -> None:
        while self.fresh:
            count = self.fresh[0]
            if count is not self.sums.last:
                self.sums = self.sums.plus(count)
            self.fresh.popleft()


class RefusalCounts:
    """How many events were refused in this process, by reason.

    Args:
        process: Returns the number of this process.
    """

    def __init__(self, process: Callable[[], int] = os.getpid) -> None:
        self._process = process
        self._by_process: dict[int, _Counts] = {}
        self._ever = False  # whether any was counted; spares those who never refuse the rest of `unreported`

    def count(self, reason: str, number: int = 1) -> None:
        """Count events as refused.

        Args:
            reason: A word of ASCII letters and underscores.
            number: How many, 1 or more.
        """
        self._ever = True
        counts = self._counts()
        counts.fresh.append(_Count(reason, number, is_new=True))
        counts.add_up()

    @property
    def totals(self) -> dict[str, int]:
        """All that were counted, by reason."""
        return self._counts().totals()

    @property
    def unreported(self) -> bool:
        """Whether there are some that `take` would return."""
        if not self._ever:
            return False
        counts = self._counts()
        return bool(counts.fresh or counts.sums.unreported)

    def take(self) -> dict[str, int]:
        """Return those that weren't taken yet, to report them; none if another thread is counting."""
        return self._counts().take() if self.unreported else {}

    def give_back(self, counts: dict[str, int]) -> None:
        """Have `take` return these again, as they couldn't be reported."""
        self._ever = True
        mine = self._counts()
        mine.fresh.extend(_Count(reason, number, is_new=False) for reason, number in counts.items())
        mine.add_up()

    def _counts(self) -> _Counts:
        process = self._process()
        counts = self._by_process.get(process)
        if counts is None:
            counts = self._by_process.setdefault(process, _Counts())
            for other in list(self._by_process):  # of ancestors, whose numbers may be used again
                if other != process:
                    self._by_process.pop(other, None)
        return counts
