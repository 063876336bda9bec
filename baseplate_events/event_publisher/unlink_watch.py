"""Notices at once when a queue was removed: a watch of inotify(7) on the queue itself.

Asking again and again would cost an idle publisher a wake-up each time, and would find a queue that was made
and removed again in between too late.

Rules:

1. There is one instance of inotify for as long as the publisher runs (see `inotify`); when another queue is
   followed, its watch is changed.
2. An event counts only if it is about the queue that is watched now: events of the queue before it, and the
   one that says that its watch was removed (IN_IGNORED), may come later.
3. An event says that something changed, maybe only the permissions, so whoever is notified has to look. A
   queue may have been removed before it was watched, so whoever starts a watch has to look too.
"""

from __future__ import annotations

from .inotify import IN_ATTRIB, IN_IGNORED, NO_WATCH, Inotify


class UnlinkWatch:
    """A descriptor that becomes readable when the queue that it watches was removed, or changed otherwise.

    Raises:
        OSError: This system has no such watches, or none left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self._watch = NO_WATCH
        self._inotify = Inotify()

    @property
    def watching(self) -> bool:
        """Whether a queue is watched."""
        return self._watch != NO_WATCH

    def fileno(self) -> int:
        """Give the descriptor to poll."""
        return self._inotify.fileno()

    def watch(self, queue: int) -> None:
        """Watch a queue by its descriptor, and no longer the one before. See rule 3.

        Raises:
            OSError: It can't be watched (fs.inotify.max_user_watches); no queue is watched now.
        """
        before, self._watch = self._watch, NO_WATCH
        watch, error = NO_WATCH, None
        try:
            # By its descriptor: the file system of queues is mounted nowhere on many hosts. As one of its
            # attributes, the number of links is watched.
            watch = self._inotify.add(b"/proc/self/fd/%d" % queue, IN_ATTRIB)
        except OSError as exc:
            error = exc
        if before not in {NO_WATCH, watch}:
            self._inotify.remove(before)
        self.clear()  # of what was about the queue before
        if error is not None:
            raise error
        self._watch = watch

    def clear(self) -> bool:
        """Be unreadable until the next change; tell whether the queue that is watched has changed."""
        changed = False
        for watch, mask in self._inotify.read():
            changed |= watch in {self._watch, NO_WATCH}
            if watch == self._watch and mask & IN_IGNORED:
                self._watch = NO_WATCH
        return changed

    def close(self) -> None:
        """Stop watching; nothing else can be called afterwards."""
        self._inotify.close()
