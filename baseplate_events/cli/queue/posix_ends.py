"""A POSIX queue as `transfer` reads it and writes to it."""

from __future__ import annotations

import contextlib
import math
import select
from typing import TYPE_CHECKING, final

from ..._words import counted
from ...errors import EventError, EventQueueUnavailableError
from ...event_publisher.exit_status import say
from ...transport.descriptor import find_queue
from ...transport.posix import RETURN_PRIORITY
from ..common import command
from .transfer import SLICE

if TYPE_CHECKING:
    from collections.abc import Generator

    from ...transport.descriptor import Descriptor
    from .transfer import Interrupts


@contextlib.contextmanager
def open_queue(name: str, *, read: bool) -> Generator[Descriptor]:
    """Open a queue that exists.

    Raises:
        EventQueueUnavailableError: There is none, or it can't be opened.
    """
    queue = find_queue(name, read=read)
    if queue is None:
        raise EventQueueUnavailableError(name, absence(name))
    try:
        yield queue
    finally:
        queue.close()


def absence(name: str) -> str:
    """Say that there is no queue of this POSIX name, and what makes one."""
    return f"there is no such queue; {command('queue', 'create', name)} makes it"


@final
class PosixSource:
    """A queue that events are taken out of; a `Source`.

    Args:
        name: Its POSIX name.
        queue: It, open to read.
    """

    unprinted: str = "the event is back in the queue, ahead of all others"

    def __init__(self, name: str, queue: Descriptor) -> None:
        self._name = name
        self._queue = queue
        self._removed = False

    def try_take(self) -> bytes | None:
        """Take the next event out of the queue."""
        return self._queue.try_receive()

    def settle(self) -> None:
        """Do nothing: what was taken out is gone."""

    def give_back(self, event: bytes, interrupts: Interrupts) -> None:
        """Put the event back."""
        put_back(self._queue, event, interrupts)

    def wait(self, seconds: float, interrupts: Interrupts) -> None:
        """Wait for an event.

        Raises:
            EventQueueUnavailableError: The queue was removed; all that was in it has been taken.
        """
        if self._removed:
            problem = "it was removed; everything in it was printed"
            raise EventQueueUnavailableError(self._name, problem)
        # Producers may put on it for another moment, so it is waited for once more.
        self._removed = self._queue.removed()
        with interrupts.waiting():
            _wait(self._queue.fd, select.POLLIN, seconds)


@final
class PosixSink:
    """A queue that events are put on; a `Sink`.

    Args:
        queue: It, open to write.
    """

    def __init__(self, queue: Descriptor) -> None:
        self._queue = queue
        self.max_event_size: int = queue.size.max_message_size

    def try_put(self, event: bytes) -> str:
        """Put an event, or say that the queue is full."""
        if self._queue.removed():
            raise EventError("the queue was removed")
        if self._queue.try_send(event, 0):
            return ""
        return f"the queue is full ({counted(self._queue.size.max_messages, 'event')})"

    def wait(self, seconds: float) -> None:
        """Wait for room."""
        _wait(self._queue.fd, select.POLLOUT, seconds)


def put_back(queue: Descriptor, event: bytes, interrupts: Interrupts) -> None:
    """Put an event back ahead of all others; waits for room, since it has no other place.

    Raises:
        EventError: A signal ended the waiting, so that the event is lost.
    """
    if queue.try_send(event, RETURN_PRIORITY):
        return
    say("stdout is gone and the queue is full: waiting for room to put 1 event back")
    try:
        while not queue.try_send(event, RETURN_PRIORITY):
            with interrupts.waiting():
                _wait(queue.fd, select.POLLOUT, SLICE)
    except KeyboardInterrupt:
        raise EventError("interrupted; 1 event is lost, which the queue had no room for") from None


def _wait(descriptor: int, event: int, seconds: float) -> None:
    """Wait until a queue is ready or these seconds have passed."""
    poller = select.poll()
    poller.register(descriptor, event)
    poller.poll(math.ceil(seconds * 1_000))
