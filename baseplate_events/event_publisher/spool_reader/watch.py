"""Wakes the reader of a spool: a watch of inotify(7) on the folder, armed while there is nothing to read.

Rules:

1. While the reader is busy, nothing is watched, so writers don't pay for it. The kernel removes an armed
   watch with its first event.
2. Whoever arms the watch looks once more before sleeping, since something may have come just before.
3. inotify can be silent about the writes of another sandbox or virtual machine, and there may be no instance
   left (128 for all pods of a node, by default). So the reader also looks every `POLL_PAUSE` seconds.
4. If a look finds something that the armed watch didn't announce, and still doesn't within `GRACE` seconds,
   inotify isn't trusted any more; unless the folder at the path is another one than the one that is watched.
   A writer may be interrupted after its data can be seen and before the kernel announces it, which is what
   the grace is for.
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

#: Seconds between two looks while inotify is trusted.
POLL_PAUSE: Final = 5.0

#: Seconds after which what was found must have been announced.
GRACE: Final = 1.0

#: The deletion of a folder that is open isn't announced, but that of the files in it before is.
_MASK: Final = IN_MODIFY | IN_MOVED_TO | IN_DELETE | IN_MOVE_SELF | IN_ONLYDIR | IN_ONESHOT


class SpoolWatch:
    """Watches the folder of a spool.

    Args:
        path: The folder.
        clock: Gives seconds that never step back.
        make: Makes the instance of inotify; OSError says that there is none.

    Attributes:
        problem: Why inotify isn't relied on; None if it is.
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
        self._place: tuple[int, int] | None = None  # device and inode of the folder that is watched
        self._looked = False  # whether a look has found nothing since the watch was armed
        self._suspected_at: float | None = None

    @property
    def armed(self) -> bool:
        """Whether the next change will be announced, as far as is known."""
        return self._watch != NO_WATCH

    @property
    def descriptor(self) -> int | None:
        """What to poll while the watch is armed; None if polling is all there is."""
        return None if self._inotify is None else self._inotify.fileno()

    def pause(self, max_pause: float) -> float:
        """Return after how many seconds to look again, whatever is announced.

        Args:
            max_pause: Seconds that an event may wait if inotify isn't relied on.
        """
        return min(POLL_PAUSE, max_pause) if self.problem is not None else POLL_PAUSE

    def arm(self) -> bool:
        """Have the descriptor become readable at the next change, see rule 2; return whether that is news."""
        if self._inotify is None or self.problem is not None:
            return False
        place = self._find_place()
        if self._watch != NO_WATCH:
            if place == self._place:
                return False
            self._disarm()
        self._looked = False
        self._suspected_at = None
        self._place = place
        try:
            self._watch = self._inotify.add(self._path, _MASK)
        except (FileNotFoundError, PermissionError):
            return True  # the folder is gone, and the look that follows recreates it; or it is closed for now
        except OSError as exc:
            self.problem = f"the folder can't be watched ({exc.strerror}); see fs.inotify.max_user_watches"
        return True

    def note(self, *, found: bool) -> None:
        """Say whether a look, which is over, has found something new."""
        if self._watch == NO_WATCH or self._inotify is None:
            return
        if self._announced():
            self._watch = NO_WATCH
            return
        now = self._clock()
        if self._suspected_at is not None:
            if now >= self._suspected_at + GRACE:
                self.problem = "inotify doesn't announce what others write here; the spool is polled instead"
                self._disarm()
        elif not found:
            self._looked = True
        elif self._looked and self._place == self._find_place():
            self._suspected_at = now
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
            for _ in self._inotify.read():  # what comes of it late
                pass
        self._watch = NO_WATCH
