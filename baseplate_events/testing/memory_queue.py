"""An event queue in memory, for unit tests of a service; see the rules of this package."""

from __future__ import annotations

import os  # noqa: TC003 - for typing.get_type_hints, as the next
import pickle
import threading
from collections.abc import Callable, Iterable  # noqa: TC003
from typing import TYPE_CHECKING, TypeVar

from .._words import counted
from ..errors import EventError, EventQueueClosedError, EventQueueFullError
from ..events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, MAX_SPOOL_SIZE, EventQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..queue_settings import QueueArguments
    from ..transport import Channel, Transport

T = TypeVar("T")


class _RefusedError(Exception):
    """Raised by a send that adds nothing; never leaves this module."""


class _MemoryTransport:
    """A transport that keeps messages in memory. It is its own channel.

    Attributes:
        messages: The messages in it.
        filled: Whether it refuses messages although it has room.
        failure: The error to raise instead of accepting a message.
    """

    def __init__(self, name: str, capacity: int, max_message_size: int) -> None:
        self.name: str = name
        self.max_message_size: int = max_message_size
        self.trusted_until: float = 0.0
        self.messages: list[bytes] = []
        self.filled: bool = False
        self.failure: EventError | None = None
        self._capacity = capacity
        self._closed = False

    @property
    def channel(self) -> Channel:
        return self

    def send(self, message: bytes) -> None:
        if self.failure is not None or self._depth >= self._capacity:
            raise _RefusedError
        self.messages.append(message)

    def refused(self, exc: Exception) -> bool:
        return isinstance(exc, _RefusedError)

    def is_full(self, exc: Exception) -> bool:
        del exc
        return False  # `put` finds out why

    def confirm(self, now: float) -> bool:
        del now
        return not self._closed

    def put(self, message: bytes, timeout: float = 0.0) -> None:
        del timeout  # waiting is pointless: nothing makes room
        self._check_open()
        try:
            self.send(message)
        except _RefusedError:
            if self.failure is not None:
                raise self.failure.with_traceback(None) from None
            raise self.full() from None

    def put_many(self, messages: Sequence[bytes], timeout: float) -> None:
        for done, message in enumerate(messages):
            try:
                self.put(message, timeout)
            except EventError as error:
                error.events_put = done
                raise

    def full(self) -> EventQueueFullError:
        return EventQueueFullError(self.name, self._capacity)

    def gauges(self) -> dict[str, int]:
        self._check_open()
        return {"depth": self._depth, "capacity": self._capacity}

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EventQueueClosedError(self.name)

    @property
    def _depth(self) -> int:
        return self._capacity if self.filled else len(self.messages)


class InMemoryEventQueue(EventQueue[T]):
    """An event queue that keeps what is put on it, for unit tests.

    It can replace any `EventQueue[T]`, and takes the same arguments. It has the requested size, whatever the
    host allows, and is separate from other queues of its name. Threads may share it; a forked worker gets its
    own copy.

    Args:
        name: The name of the event queue.
        event_serializer: Returns an event as bytes; it is called for every event.
        max_queue_size: Events that the queue holds, 1 to 65,536.
        max_event_size: Largest serialized event in bytes, 1 to 16 MiB.
        put_timeout: Only checked: nothing makes room, so a full queue refuses immediately.
        mode: Only checked.
        strict_size: Ignored: the queue always has its full size.
        spool_directory: Only checked.
        max_spool_size: Only checked.
        enabled: False makes it discard events like a real queue that is switched off. The environment is
            ignored; the default is True.

    Raises:
        ValueError: An argument is out of bounds.
    """

    def __init__(
        self,
        name: str,
        event_serializer: Callable[[T], bytes],
        *,
        max_queue_size: int = MAX_QUEUE_SIZE,
        max_event_size: int = MAX_EVENT_SIZE,
        put_timeout: float = 0.0,
        mode: int = 0o600,
        strict_size: bool = False,
        spool_directory: str | os.PathLike[str] | None = None,
        max_spool_size: int = MAX_SPOOL_SIZE,
        enabled: bool | None = None,
    ) -> None:
        self._memory = _MemoryTransport("", 0, 0)  # for a queue that is switched off
        super().__init__(
            name,
            event_serializer,
            max_queue_size=max_queue_size,
            max_event_size=max_event_size,
            put_timeout=put_timeout,
            mode=mode,
            strict_size=strict_size,
            spool_directory=spool_directory,
            max_spool_size=max_spool_size,
            enabled=enabled is not False,
        )
        self._events: list[T] = []
        self._errors: list[EventError] = []
        self._in_turn: threading.RLock = threading.RLock()  # a serializer may put another event

    def _open(self, arguments: QueueArguments) -> Transport:
        self._memory = _MemoryTransport(
            arguments.posix_name, arguments.max_queue_size, arguments.max_event_size
        )
        return self._memory

    def put(self, event: T) -> None:
        """Add an event to the queue, or raise what the real queue would; it never waits.

        Args:
            event: The event to send. Its type depends on the serializer.

        Raises:
            EventTooLargeError: The serialized event is too large.
            EventQueueFullError: The queue is full.
            EventEmptyError: The event serialized to nothing.
            EventNotSerializableError: The event can't be serialized.
            EventQueueClosedError: The queue was closed.
            EventError: Any other EventError that the serializer raises, or the error given to `fail_with`.
        """
        with self._in_turn:
            try:
                super().put(event)
            except EventError as error:
                self._errors.append(error)
                raise
            if self.enabled:
                self._events.append(event)

    def put_many(self, events: Iterable[T]) -> None:
        """Add events to the queue, or raise what the real queue would; it never waits.

        Args:
            events: The events to send, any number.

        Raises:
            EventError: As for `put`. The first `events_put` events are in the queue, the others aren't.
        """
        with self._in_turn:
            all_events = list(events)
            try:
                super().put_many(all_events)
            except EventError as error:
                self._events += all_events[: error.events_put]
                self._errors.append(error)
                raise
            if self.enabled:
                self._events += all_events

    @property
    def events(self) -> list[T]:
        """The events in the queue, in order: the objects that were put."""
        with self._in_turn:
            return list(self._events)

    @property
    def messages(self) -> list[bytes]:
        """The same events, as the serializer wrote them when they were put."""
        with self._in_turn:
            return list(self._memory.messages)

    @property
    def errors(self) -> list[EventError]:
        """The errors that `put` raised, in order, even if the service handled them."""
        with self._in_turn:
            return list(self._errors)

    def only_event(self) -> T:
        """Return the only event in the queue.

        Raises:
            AssertionError: There is none, or more than one; the message includes what was refused.
        """
        events = self.events
        if len(events) != 1:
            raise AssertionError(f"expected one event in the queue, there are {len(events)}: {self!r}")
        return events[0]

    def clear(self) -> None:
        """Remove everything from the queue, as the publisher does; also ends `fill`."""
        with self._in_turn:
            self._events.clear()
            self._memory.messages.clear()
            self._memory.filled = False

    def fill(self) -> None:
        """Be full until `clear`; `events` are unchanged."""
        self._memory.filled = True

    def fail_with(self, error: EventError | None) -> None:
        """Raise this error for every event that could be put, until called with None.

        Args:
            error: For example `EventQueueRemovedError("/events-main", "it was removed and can't be
                recreated")`.
        """
        self._memory.failure = error

    def __reduce__(self) -> tuple[object, ...]:
        """Raise a `pickle.PicklingError`: the events are in the memory of this process."""
        raise pickle.PicklingError(
            f"the {type(self).__name__} {self._name!r} can't be sent to another process: its events are in "
            "the memory of this one; create it in the worker, or test workers with an "
            "EventQueue(..., spool_directory=tmp_path)"
        )

    def __enter__(self) -> InMemoryEventQueue[T]:
        return self

    def __repr__(self) -> str:
        with self._in_turn:
            parts = [repr(self._name), counted(len(self._events), "event")]
            if self._errors:
                last = self._errors[-1]
                parts.append(f"{len(self._errors)} refused, the last with {type(last).__name__}: {last}")
        return f"<{type(self).__name__} {', '.join(parts)}>"
