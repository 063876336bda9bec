"""Notices immediately when a queue is removed: an inotify(7) watch on the queue itself.

Polling would cost an idle publisher regular wake-ups, and would miss a queue that was created and removed
again in between.

Rules:

1. There is one inotify instance while the publisher runs (see `inotify`); when another queue is followed, its
   watch is changed.
2. An event counts only if it is about the queue that is watched now: events of the queue before it, and the
   one that reports the removal of its watch (IN_IGNORED), may arrive later.
3. An event means that something changed, perhaps only the permissions, so the caller has to check. A queue
   may have been removed before it was watched, so the caller also has to check after starting a watch.
"""

from __future__ import annotations

from .inotify import IN_ATTRIB, IN_IGNORED, NO_WATCH, Inotify


class UnlinkWatch:
    """A descriptor that becomes readable when the watched queue is removed or changed.

    Raises:
        OSError: inotify isn't available, or no instance is left (fs.inotify.max_user_instances).
    """

    def __init__(self) -> None:
        self._watch = NO_WATCH
        self._inotify = Inotify()

    @property
    def watching(self) -> bool:
        """Whether a queue is watched."""
        return self._watch != NO_WATCH

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._inotify.fileno()

    def watch(self, queue: int) -> None:
        """Watch a queue by its descriptor, instead of the one before. See rule 3.

        Raises:
            OSError: It can't be watched (fs.inotify.max_user_watches); afterwards no queue is watched.
        """
        before, self._watch = self._watch, NO_WATCH
        watch, error = NO_WATCH, None
        try:
            # By descriptor: many hosts don't mount the file system of queues. The number of links is an
            # attribute.
            watch = self._inotify.add(b"/proc/self/fd/%d" % queue, IN_ATTRIB)
        except OSError as exc:
            error = exc
        if before not in {NO_WATCH, watch}:
            self._inotify.remove(before)
        self.clear()  # discard events of the previous queue
        if error is not None:
            raise error
        self._watch = watch

    def clear(self) -> bool:
        """Consume the events; return whether the watched queue has changed."""
        changed = False
        for watch, mask in self._inotify.read():
            changed |= watch in {self._watch, NO_WATCH}
            if watch == self._watch and mask & IN_IGNORED:
                self._watch = NO_WATCH
        return changed

    def close(self) -> None:
        """Stop watching; no other method may be called afterwards."""
        self._inotify.close()
