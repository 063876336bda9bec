"""Wakes the reader of a spool: an inotify(7) watch on the folder, armed while there is nothing to read.

Rules:

1. While the reader is busy, nothing is watched, so writers don't pay for it. The kernel removes an armed
   watch with its first event.
2. After arming the watch, the reader polls once more before it sleeps, since events may have arrived just
   before.
3. inotify can be silent about writes of another sandbox or virtual machine, and there may be no instance left
   (by default 128 for all pods of a node). So the reader also polls every `POLL_PAUSE` seconds.
4. If a poll finds something that the armed watch didn't announce, and doesn't announce within another `GRACE`
   seconds, inotify isn't trusted any more, unless the folder at the path isn't the watched one. The grace
   exists because a writer may be interrupted after its data is visible and before the kernel announces it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ..inotify import (
    IN_DELETE,
    IN_MODIFY,
    IN_MOVE_SELF,
    IN_MOVED_TO,
    IN_ONESHOT,
    IN_ONLYDIR,
    NO_WATCH,
    Inotify,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two polls while inotify is trusted.
POLL_PAUSE: Final = 5.0

#: Seconds within which a finding must be announced.
GRACE: Final = 1.0

#: The deletion of an open folder isn't announced, but that of its files just before is.
_MASK: Final = IN_MODIFY | IN_MOVED_TO | IN_DELETE | IN_MOVE_SELF | IN_ONLYDIR | IN_ONESHOT


class SpoolWatch:
    """Watches the folder of a spool.

    Args:
        path: The folder.
        clock: The monotonic clock, in seconds.
        make: Creates the inotify instance; raises OSError if there is none.

    Attributes:
        problem: Why inotify isn't trusted, or None.
    """

    def __init__(self, path: str, clock: Callable[[], float], make: Callable[[], Inotify] = Inotify) -> None:
        self.problem: str | None = None
        self._path = os.fsencode(path)
        self._clock = clock
        self._inotify: Inotify | None = None
        try:
            self._inotify = make()
        except OSError as exc:
            self.problem = (
                f"inotify is not available ({exc.strerror or exc}); see fs.inotify.max_user_instances"
            )
        self._watch = NO_WATCH
        self._place: tuple[int, int] | None = None  # device and inode of the watched folder
        self._polled = False  # whether a poll has found nothing since the watch was armed
        self._missed_at: float | None = None

    @property
    def armed(self) -> bool:
        """Whether the next change will be announced, as far as known."""
        return self._watch != NO_WATCH

    @property
    def descriptor(self) -> int | None:
        """The descriptor to poll while the watch is armed; None without inotify."""
        return None if self._inotify is None else self._inotify.fileno()

    def pause(self, max_pause: float) -> float:
        """Return the seconds until the next poll, regardless of announcements.

        Args:
            max_pause: Seconds that an event may wait while inotify isn't trusted.
        """
        return min(POLL_PAUSE, max_pause) if self.problem is not None else POLL_PAUSE

    def arm(self) -> bool:
        """Make the descriptor readable at the next change, see rule 2; return whether that is new."""
        if self._inotify is None or self.problem is not None:
            return False
        place = self._find_place()
        if self._watch != NO_WATCH:
            if place == self._place:
                return False
            self._disarm()
        self._polled = False
        self._missed_at = None
        self._place = place
        try:
            self._watch = self._inotify.add(self._path, _MASK)
        except (FileNotFoundError, PermissionError):
            return True  # the folder is gone, and the next poll recreates it; or it is closed for now
        except OSError as exc:
            self.problem = f"the folder can't be watched ({exc.strerror}); see fs.inotify.max_user_watches"
        return True

    def record_poll(self, *, found: bool) -> None:
        """Record whether a finished poll has found something new."""
        if self._watch == NO_WATCH or self._inotify is None:
            return
        if self._announced():
            self._watch = NO_WATCH
            return
        now = self._clock()
        if self._missed_at is not None:
            if now >= self._missed_at + GRACE:
                self.problem = (
                    "inotify doesn't announce the writes of others here; the spool is polled instead"
                )
                self._disarm()
        elif not found:
            self._polled = True
        elif self._polled and self._place == self._find_place():
            self._missed_at = now
        else:
            self._disarm()

    def close(self) -> None:
        """Stop watching."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _find_place(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - it is bytes
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _announced(self) -> bool:
        assert self._inotify is not None  # noqa: S101 - for the type checkers
        watches = {event.watch for event in self._inotify.read()}
        return bool(watches & {self._watch, NO_WATCH})

    def _disarm(self) -> None:
        if self._inotify is not None:
            self._inotify.remove(self._watch)
            for _ in self._inotify.read():  # discard late events
                pass
        self._watch = NO_WATCH
