"""Every error of this package, under one root.

Rules:

1. Whatever `EventQueue.put` raises is an `EventError`; a service needs one `except` clause.
2. An error carries its facts as typed attributes and passes them to `Exception`, so that it can be
   pickled and copied; its message is made from them and names the thing, what was expected and the
   remedy.
3. No message holds the content of an event or a secret.
"""

from __future__ import annotations

import errno

from ._words import counted

#: What is wrong, and the remedy, if the system has no more descriptors (EMFILE, ENFILE); for any queue.
TOO_MANY_FILES = {
    errno.EMFILE: "this process has too many files open; close some, or raise `ulimit -n` (RLIMIT_NOFILE)",
    errno.ENFILE: "this host has too many files open; raise the sysctl fs.file-max",
}


class EventError(Exception):
    """Base class for event related exceptions.

    Attributes:
        events_put: For an error of `put_many`: how many of its events are in the queue, counted from the
            first.
    """

    events_put: int = 0


class EventTooLargeError(EventError):
    """Raised when a serialized event is too large to send.

    Attributes:
        size: Bytes of the serialized event.
        limit: Bytes that the queue accepts, or None if unknown.
    """

    def __init__(self, size: int, limit: int | None = None) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        if self.limit is None:
            return f"Event is too large to send ({self.size} bytes)"
        return (
            f"Event is too large to send ({counted(self.size, 'byte')}, the queue accepts at most "
            f"{self.limit:,}); "
            "leave out or shorten its largest fields"
        )


class EventQueueFullError(EventError):
    """Raised when the queue of events is full.

    This usually indicates that the event publisher is having trouble talking to the event collector.

    Attributes:
        name: POSIX name of the queue or path of the spool, or None if unknown.
        capacity: Events that the queue holds; None for a spool, or if unknown.
        problem: Why a spool has no room, and the remedy; None for a POSIX queue.
    """

    def __init__(
        self, name: str | None = None, capacity: int | None = None, problem: str | None = None
    ) -> None:
        super().__init__(name, capacity, problem)
        self.name = name
        self.capacity = capacity
        self.problem = problem

    def __str__(self) -> str:
        return self._text() + _progress(self.events_put)

    def _text(self) -> str:
        if self.name is None:
            return "The event queue is full."
        if self.problem is not None:
            return f"The event queue {self.name} is full: {self.problem}"
        room = "" if self.capacity is None else f" ({counted(self.capacity, 'event')})"
        return (
            f"The event queue {self.name} is full{room}: its event publisher isn't "
            "running, or can't reach the event collector"
        )


class EventEmptyError(EventError):
    """Raised when an event serializes to no bytes at all, which no collector accepts."""

    def __str__(self) -> str:
        return "The event serialized to nothing; check what the event serializer returns"


class EventNotSerializableError(EventError):
    """Raised when an event can't be written as valid JSON.

    Attributes:
        field: Path of the field that can't be written, such as `user.tags[3]`; empty if it is the event
            itself.
        problem: What is wrong with it and what was expected, without its value.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        where = f"field {self.field} of the event" if self.field else "the event"
        return f"Can't serialize {where}: {self.problem}"


class EventQueueUnavailableError(EventError):
    """Raised when the queue can't be opened, created or used; the subclasses say why.

    Attributes:
        name: POSIX name of the queue, such as `/events-v2`, or path of the spool.
        problem: What is wrong and how to fix it.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"Event queue {self.name}: {self.problem}{_progress(self.events_put)}"


class EventQueuePermissionError(EventQueueUnavailableError):
    """Raised when the queue belongs to another user, and this process may not use it."""


class EventQueueRemovedError(EventQueueUnavailableError):
    """Raised when the queue was removed and couldn't be recreated."""


class EventQueueClosedError(EventQueueUnavailableError):
    """Raised when a queue is used after `close()`."""

    def __init__(self, name: str, problem: str = "it was closed; create a new EventQueue") -> None:
        super().__init__(name, problem)


class EventQueueLimitError(EventQueueUnavailableError):
    """Raised when the limits of the host allow no queue, or not one of the required size."""


class EventQueueUnsupportedError(EventQueueUnavailableError):
    """Raised if the operating system has no POSIX message queues or, for a spool, no file locks."""


class ConfigurationError(EventError):
    """Raised when a configuration can't be used; lists all its mistakes, not just the first.

    Attributes:
        problems: One line for each mistake: section, key, what is wrong and what was expected.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


def _progress(events_put: int) -> str:
    """Return how far `put_many` got, for a message."""
    if not events_put:
        return ""
    return f" ({events_put} {'event was' if events_put == 1 else 'events were'} put before that)"
