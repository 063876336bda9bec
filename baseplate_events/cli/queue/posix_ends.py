"""A POSIX queue as the source and the sink of `transfer`."""

from __future__ import annotations

import contextlib
import math
import select
from typing import TYPE_CHECKING, final

from ..._words import counted
from ...errors import EventError, EventQueueUnavailableError
from ...event_publisher.exit_status import print_stderr
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
        raise absent(name)
    try:
        yield queue
    finally:
        queue.close()


def absent(name: str) -> EventQueueUnavailableError:
    """Return the error that there is no queue of this POSIX name, and how to create it."""
    problem = f"there is no such queue; {command('queue', 'create', name)} creates it"
    return EventQueueUnavailableError(name, problem)


@final
class PosixSource:
    """A queue from which events are read; a `Source`.

    Args:
        name: Its POSIX name.
        queue: The queue, open for reading.
    """

    unprinted: str = "the event was put back at the head of the queue"

    def __init__(self, name: str, queue: Descriptor) -> None:
        self._name = name
        self._queue = queue
        self._removed = False

    def try_take(self) -> bytes | None:
        """Remove the next event from the queue."""
        return self._queue.try_receive()

    def settle(self) -> None:
        """Do nothing: the event is already removed."""

    def put_back(self, event: bytes, interrupts: Interrupts) -> None:
        """Put an event back at the head of the queue; waits for room, since it has no other place.

        Raises:
            EventError: A signal ended the wait, so the event is lost.
        """
        if self._queue.try_send(event, RETURN_PRIORITY):
            return
        print_stderr("stdout is closed and the queue is full; waiting for room to put 1 event back")
        try:
            while not self._queue.try_send(event, RETURN_PRIORITY):
                with interrupts.waiting():
                    _wait(self._queue.fd, select.POLLOUT, SLICE)
        except KeyboardInterrupt:
            raise EventError("interrupted; 1 event lost, because the queue stayed full") from None

    def wait(self, seconds: float, interrupts: Interrupts) -> None:
        """Wait for an event.

        Raises:
            EventQueueUnavailableError: The queue was removed, and all its events have been read.
        """
        if self._removed:
            problem = "it was removed; everything in it was printed"
            raise EventQueueUnavailableError(self._name, problem)
        # Producers may still put for a moment, so wait once more.
        self._removed = self._queue.removed()
        with interrupts.waiting():
            _wait(self._queue.fd, select.POLLIN, seconds)


@final
class PosixSink:
    """A queue that events are put on; a `Sink`.

    Args:
        queue: The queue, open for writing.
    """

    def __init__(self, queue: Descriptor) -> None:
        self._queue = queue
        self.max_event_size: int = queue.size.max_message_size

    def try_put(self, event: bytes) -> str:
        """Put an event; return "", or the message that the queue is full."""
        if self._queue.removed():
            raise EventError("the queue was removed")
        if self._queue.try_send(event, 0):
            return ""
        return f"the queue is full ({counted(self._queue.size.max_messages, 'event')})"

    def wait(self, seconds: float) -> None:
        """Wait for room."""
        _wait(self._queue.fd, select.POLLOUT, seconds)


def _wait(descriptor: int, event: int, seconds: float) -> None:
    """Wait until a queue is ready, at most this long."""
    poller = select.poll()
    poller.register(descriptor, event)
    poller.poll(math.ceil(seconds * 1_000))
