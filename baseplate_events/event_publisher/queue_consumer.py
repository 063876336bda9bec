"""The queue that the publisher drains. If it is removed, the consumer follows it.

Rules:

1. A queue that was removed is reopened, or created, at once. What it still holds is received first.
2. A removed queue is let go when it is empty and `_LINGER` seconds have passed: a producer that doesn't know
   yet may have been about to put.
3. The system notifies of the removal. If it can't, the queue is looked at every `_CHECK_INTERVAL` seconds.
4. A queue that was opened may have been removed before it was watched: it is looked at once more.
5. The queue is locked against other publishers, see `queue_lock`. Each report looks whether another one reads
   it. While one does, so does every look, one in `_SHARED_INTERVAL` seconds at least.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
from typing import TYPE_CHECKING, Final

from ..errors import EventError, EventQueueRemovedError
from ..transport.posix import RETURN_PRIORITY
from .queue_lock import QueueInUseError, describe_sharing, find_holder, lock_queue
from .unlink_watch import UnlinkWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..transport.posix import MessageQueue

logger: logging.Logger = logging.getLogger(__name__)

#: Seconds between two checks if removals aren't announced or the queue can't be reopened. A producer that
#: finds its queue removed creates a new one, so this is how long events can wait unseen in that.
_CHECK_INTERVAL: Final = 1.0

#: Fewest seconds for which a removed queue is still read.
_LINGER: Final = 5.0

#: Seconds between two looks at a queue that another publisher reads as well.
_SHARED_INTERVAL: Final = 5.0

#: How many queues of the name a requeue tries, if each is removed in the meantime.
_FOLLOWED: Final = 5


class QueueConsumer:
    """Receives from a queue, and from removed queues of that name.

    Args:
        open_queue: Opens or creates the queue; raises an `EventError` if it can't.
        exclusive: Whether a queue that another publisher reads counts as unavailable.

    Raises:
        EventError: The queue can't be opened.

    Attributes:
        found_empty: Whether the last `receive` found all queues empty.
        refresh_at: When `refresh` must be called at the latest, in monotonic seconds.
        times_full: How often the queue was full when it was measured.
        shared: Whether another publisher was seen to read the queue as well.
    """

    def __init__(self, open_queue: Callable[[], MessageQueue], *, exclusive: bool = False) -> None:
        self._open = open_queue
        self._exclusive = exclusive
        self.shared: bool
        self._watch: UnlinkWatch | None = None
        self._orphans: list[tuple[MessageQueue, float]] = []
        self.found_empty: bool = False
        self.refresh_at: float = -math.inf  # it may have been removed before it was watched
        self.times_full: int = 0
        self._highest = 0
        self._queue: MessageQueue = self._open_queue()
        try:
            self._watch_queue()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """POSIX name of the queue."""
        return self._queue.name

    @property
    def capacity(self) -> int:
        """Capacity of the queue in events."""
        return self._queue.max_messages

    @property
    def message_size(self) -> int:
        """Largest event of the queue in bytes."""
        return self._queue.max_message_size

    @property
    def depth(self) -> int:
        """Events waiting in it."""
        return self._queue.current_messages

    def measure(self) -> int:
        """Return the depth, and record it; called before each burst."""
        depth = self._queue.current_messages
        self._highest = max(self._highest, depth)
        self.times_full += depth >= self._queue.max_messages
        return depth

    def take_highest(self) -> int:
        """Return the highest depth that was measured since the last call."""
        highest, self._highest = self._highest, 0
        return highest

    @property
    def removed_depth(self) -> int:
        """Events waiting in removed queues of that name; they are lost if this process dies."""
        return sum(orphan.current_messages for orphan, _ in self._orphans)

    def register(self, poller: select.poll, *, receiving: bool) -> None:
        """Register with a poller, so that it wakes when there is something to do.

        Args:
            poller: The poller.
            receiving: Whether to wake for an event.
        """
        if receiving:
            poller.register(self._queue.fileno(), select.POLLIN)
        if self._watch is not None:
            poller.register(self._watch.fileno(), select.POLLIN)

    def handle_ready(self, descriptor: int) -> None:
        """Handle a descriptor that a poller found ready."""
        if self._watch is not None and descriptor == self._watch.fileno() and self._watch.clear():
            self.refresh_at = -math.inf

    def receive(self) -> Generator[bytes]:
        """Receive the events of one queue lazily: of a removed one while any has events left.

        Returns:
            The events, until the queue is empty.

        Raises:
            EventError: Raised by the generator: the queue can't be used, and nothing was received.
        """
        # Outside the generator, which starts only with the first `next`.
        self.found_empty = False
        return self._drain()

    def _drain(self) -> Generator[bytes]:
        source = next((orphan for orphan, _ in self._orphans if orphan.current_messages), self._queue)
        if source is self._queue:
            self.measure()
        yield from source.drain()
        self.found_empty = source is self._queue
        if not self.found_empty:
            self.refresh_at = -math.inf  # nothing announces events in other removed queues

    def refresh(self, now: float) -> bool:
        """Follow the queue if it was removed, and close removed queues that are empty.

        Returns:
            Whether there is a new queue now, which may have another size.
        """
        if self._watch is None or not self._watch.watching:
            self._watch_queue()
        followed = self._follow(now) if self._queue.removed else None
        for orphan, until in list(self._orphans):
            if now >= until and not orphan.current_messages:
                orphan.close()
                self._orphans.remove((orphan, until))
        watching = self._watch is not None and self._watch.watching and followed is not False
        self.refresh_at = math.inf if watching and not self._orphans else now + _CHECK_INTERVAL
        if self.shared and self.is_shared():
            self.refresh_at = min(self.refresh_at, now + _SHARED_INTERVAL)
        if followed and self._queue.removed:
            self.refresh_at = -math.inf
        return followed is True

    def _follow(self, now: float) -> bool:
        try:
            fresh = self._open_queue()
        except EventError as exc:
            logger.error("the queue was unlinked and cannot be recreated: %s", exc)
            return False
        logger.warning("the queue %s was unlinked; reading its successor", fresh.name)
        self._orphans.append((self._queue, now + _LINGER))
        self._queue = fresh
        self._watch_queue()
        return True

    def _open_queue(self) -> MessageQueue:
        """Open and lock the queue."""
        queue = self._open()
        try:
            shared = not lock_queue(queue.fileno(), exclusive=self._exclusive)
            holder = find_holder(queue.fileno()) if shared else None
            if shared and self._exclusive:
                raise QueueInUseError(queue.name, holder)  # noqa: TRY301 - to close it
            if shared:
                _warn(queue.name, holder)
        except BaseException:
            queue.close()
            raise
        self.shared = shared
        return queue

    def is_shared(self) -> bool:
        """Look whether another publisher reads the queue as well; a warning says if that has changed."""
        if not self._queue.removed:  # else it is about to be followed
            before, self.shared = self.shared, not lock_queue(self._queue.fileno())
            if self.shared and not before:
                _warn(self.name, None)
            elif before and not self.shared:
                logger.warning("the other publisher that read %s has ended", self.name)
        return self.shared

    def _watch_queue(self) -> None:
        """Watch the current queue; the caller has to check afterwards whether it was removed before."""
        with contextlib.suppress(OSError):
            if self._watch is None:
                self._watch = UnlinkWatch()
            self._watch.watch(self._queue.fileno())

    def requeue(self, event: bytes, timeout: float, now: float) -> None:
        """Put an event back at the head of the queue.

        Raises:
            EventError: The event isn't in the queue.
        """
        for _ in range(_FOLLOWED - 1):
            try:
                self._queue.put(event, timeout, RETURN_PRIORITY)
            except EventQueueRemovedError:
                self.refresh(now)
            else:
                return
        self._queue.put(event, timeout, RETURN_PRIORITY)

    def close(self) -> None:
        """Close all queues; their events stay."""
        for orphan, _ in self._orphans:
            orphan.close()
        self._queue.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _warn(name: str, holder: int | None) -> None:
    logger.warning(
        "%s, so each gets some of the events; stop one of them, or set queue.exclusive",
        describe_sharing(name, holder),
    )
