"""A POSIX message queue of this host: bytes in, bytes out.

Rules:

1. Every failure is an `EventError`, except that a bad argument is a `ValueError`.
2. Only `_wait` waits. It polls with `select.poll`, looked up at each call so that gevent can replace it. A
   signal neither ends a wait nor extends it.
3. A queue keeps the size that it was created with. Whoever opens it accepts that size.
4. A queue that was unlinked lives on without a name, as an *orphan*, until its last descriptor is closed. A
   producer notices at its next put and moves to the queue that has the name now, or creates it. A reader
   checks `removed` and decides itself, because it may want to empty the orphan first.
5. Threads share a queue without a lock, so that a fork is harmless at any moment. When a producer moves,
   threads in the middle of a call finish it on the old descriptor, and the last of them closes it. If two
   move at once, both open the new queue, and either descriptor works.
"""

from __future__ import annotations

import math
import select
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from .._log import WARNING, log
from ..errors import (
    EventError,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from .descriptor import Descriptor, find_queue, make_queue, remove_queue
from .limits import (
    HARD_MAX_MESSAGE_SIZE,
    HARD_MAX_MESSAGES,
    Negotiation,
    QueueSize,
    Refusal,
    queues_of_user,
    read_limits,
    unlink_command,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType

#: Longest name of a queue in bytes, including its slash (mq_overview(7)).
MAX_NAME_SIZE = 255

#: All permission bits that a queue can have.
ALL_PERMISSIONS = 0o777

#: The highest priority of a message (MQ_PRIO_MAX of Linux, less one).
MAX_PRIORITY = 32_767

#: Priority of events that are put back; producers use 0, and higher priorities are received first.
RETURN_PRIORITY = 1

#: Seconds for which a producer trusts that its queue wasn't removed. A check costs as much as a send. So a
#: burst checks once in some 500 puts, and a single put always does. Events put in that time are lost with the
#: queue, if no one receives from it any more.
TRUST = 1e-3

#: Seconds for which a producer polls a full queue before it checks again for removal, which wakes no poll.
_SLICE = 0.1

#: Longest poll of an empty queue in seconds; poll's argument is a C int of milliseconds.
_LONGEST_POLL = 3_600.0

#: How often a queue may appear and disappear between two system calls before that is an error.
_OPEN_ATTEMPTS = 100

_Self = TypeVar("_Self", bound="MessageQueue")

#: Queues and sizes that this process has warned about.
_warned: set[tuple[str, QueueSize]] = set()


class MessageQueue:
    """A POSIX message queue of this host; created if it doesn't exist.

    Any number of threads, greenlets and forked processes may put through the same object at the same time. If
    the host doesn't allow the requested size, or the existing queue is smaller, a warning says how to fix
    that; it is logged once for each size.

    Args:
        name: POSIX name: a slash and 1 to 254 bytes of UTF-8 without another slash.
        max_messages: Messages that the queue holds if this call creates it, 1 to 65,536.
        max_message_size: Largest message in bytes if this call creates it, 1 to 16 MiB.
        mode: Permission bits if this call creates it, regardless of the umask.
        strict_size: Raise `EventQueueLimitError` rather than use a queue that is smaller than requested.
        read: Open it for reading and writing, as its reader does; otherwise only for writing, as producers
            do.

    Raises:
        ValueError: An argument is out of bounds.
        EventQueuePermissionError: The queue belongs to another user, and this process may not open it.
        EventQueueLimitError: The host has no room for even the smallest queue or, with `strict_size`, for one
            of this size.
        EventQueueUnsupportedError: The host has no POSIX message queues.
        EventQueueUnavailableError: The queue can't be opened for another reason, such as too many open files.

    Attributes:
        channel: The current descriptor; see `Transport`.
        trusted_until: Time of the monotonic clock until which `channel` may be used without `confirm`.
    """

    def __init__(
        self,
        name: str,
        *,
        max_messages: int,
        max_message_size: int,
        mode: int = 0o600,
        strict_size: bool = False,
        read: bool = True,
    ) -> None:
        check_arguments(name, max_messages, max_message_size, mode)
        self._name = name
        self._asked = QueueSize(max_messages, max_message_size)
        self._mode = mode
        self._strict_size = strict_size
        self._read = read
        self._closed = False
        self.trusted_until: float = 0.0
        self.channel: Descriptor = self._open()

    @property
    def name(self) -> str:
        """POSIX name of the queue."""
        return self._name

    @property
    def max_messages(self) -> int:
        """The actual capacity of the queue in messages."""
        return self.channel.size.max_messages

    @property
    def max_message_size(self) -> int:
        """The actual largest message in bytes."""
        return self.channel.size.max_message_size

    @property
    def current_messages(self) -> int:
        """Messages in the queue now; raises `EventQueueClosedError` after `close`."""
        self._check_open()
        return self.channel.depth

    @property
    def removed(self) -> bool:
        """Whether the queue was unlinked: its messages can still be read, but no one else can open it.

        Raises `EventQueueClosedError` after `close`.
        """
        self._check_open()
        return self.channel.removed()

    def fileno(self) -> int:
        """Return the descriptor's number, for polling; a producer's may change with each put.

        Raises:
            EventQueueClosedError: The queue was closed.
        """
        self._check_open()
        return self.channel.fd

    def confirm(self, now: float) -> bool:
        """Return whether the queue still exists; if so, trust it for a while."""
        if self.channel.removed():
            return False
        self.trusted_until = now + TRUST
        return True

    def put(self, message: bytes, timeout: float = 0.0, priority: int = 0) -> None:
        """Add a message to the queue; after any error it isn't in the queue.

        A producer whose queue was unlinked moves to the queue that has the name now, or creates it. (In a
        burst, a removal in the last millisecond may go unnoticed; the message then goes to the orphan.)

        Args:
            message: The message to add.
            timeout: Seconds to wait for room; 0 never waits.
            priority: 0 to 32,767; higher priorities are received first, equal ones in order.

        Raises:
            EventQueueFullError: The queue stayed full.
            EventTooLargeError: The message is larger than the queue accepts.
            EventQueueClosedError: The queue was closed.
            EventQueueRemovedError: The queue was unlinked, and the producer can't recreate it, or this is the
                reader, which doesn't try.
            EventQueuePermissionError: The queue was recreated by another user, and this process may not open
                it.
            EventQueueUnavailableError: The queue can't be used for another reason.
            ValueError: The priority is out of bounds.
            TypeError: The message isn't bytes.
        """
        if type(message) is not bytes:  # posix_ipc crashes the process for any other type
            message = bytes(memoryview(message))
        now = monotonic()
        if now >= self.trusted_until and not self.confirm(now):
            self._move()
        descriptor = self.channel  # this reference keeps it open while it is in use
        try:
            descriptor.send(message, None, priority)
        except Exception as exc:
            if not descriptor.refused(exc):
                raise
            self._put_slowly(message, timeout, priority)

    def _put_slowly(self, message: bytes, timeout: float, priority: int) -> None:
        _check_bounds("priority", priority, 0, MAX_PRIORITY)
        deadline = monotonic() + timeout
        while True:
            if self.channel.removed():
                self._move()
            descriptor = self.channel
            size = descriptor.size
            if len(message) > size.max_message_size:
                raise EventTooLargeError(len(message), size.max_message_size) from None
            try:
                if descriptor.try_send(message, priority):
                    return
            except EventQueueUnavailableError:
                self._check_open()  # another thread may have closed it in the meantime
                raise
            remaining = deadline - monotonic()
            if not remaining > 0:
                raise self.full() from None
            _wait(descriptor.fd, select.POLLOUT, min(remaining, _SLICE))

    def put_many(self, messages: Sequence[bytes], timeout: float = 0.0) -> None:
        """Add messages in order, each as `put` does; see `Transport.put_many`."""
        limit = self.max_message_size
        for message in messages:
            if len(message) > limit:
                raise EventTooLargeError(len(message), limit)
        deadline = monotonic() + timeout if timeout else 0.0
        for done, message in enumerate(messages):
            try:
                self.put(message, timeout and deadline - monotonic())
            except EventError as error:
                error.events_put = done
                raise

    def full(self) -> EventQueueFullError:
        """Return the error for a full queue."""
        return EventQueueFullError(self._name, self.max_messages)

    def gauges(self) -> dict[str, int]:
        """Return how many messages are in the queue, and how many it holds."""
        return {"depth": self.current_messages, "capacity": self.max_messages}

    def get(self, timeout: float | None = 0.0) -> bytes | None:
        """Receive the first message of the highest priority, even if the queue was unlinked.

        Args:
            timeout: Seconds to wait for one; 0 never waits, None waits indefinitely.

        Returns:
            The message, or None if none came in time.

        Raises:
            EventQueueClosedError: The queue was closed.
            EventQueuePermissionError: The queue was opened only for writing.
            EventQueueUnavailableError: The queue can't be used for another reason.
        """
        deadline = math.inf if timeout is None else monotonic() + timeout
        while True:
            message = next(self.drain(), None)
            remaining = deadline - monotonic()
            if message is not None or not remaining > 0:
                return message
            _wait(self.channel.fd, select.POLLIN, min(remaining, _LONGEST_POLL))

    def drain(self) -> Generator[bytes]:
        """Receive messages lazily, as `get` does without waiting.

        Yields:
            The messages in the order of `get`, until the queue is empty.

        Raises:
            EventQueueClosedError: The queue was closed.
            EventQueuePermissionError: The queue was opened only for writing.
            EventQueueUnavailableError: The queue can't be used for another reason, and nothing was received.
                If something was, the generator ends; the next call raises.
        """
        self._check_open()
        descriptor = self.channel
        try:
            yield from descriptor.receive_all()
        except EventQueueUnavailableError:
            self._check_open()  # another thread may have closed it in the meantime
            raise

    def unlink(self) -> None:
        """Remove the queue that has this name now, if any; processes that have it open can go on using it.

        Raises:
            EventQueuePermissionError: The queue belongs to another user.
            EventQueueUnavailableError: The queue can't be removed for another reason.
        """
        remove_queue(self._name)

    def close(self) -> None:
        """Close the descriptor; the queue and its messages stay. Closing it again does nothing.

        A thread that is waiting on the queue notices late, or never if it waits indefinitely.
        """
        self._closed = True
        self.trusted_until = 0.0
        self.channel.close()

    def __enter__(self: _Self) -> _Self:  # noqa: PYI019 - typing has Self from Python 3.11 on
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<{type(self).__name__} {self._name}: {self.channel.size}{state}>"

    def _check_open(self) -> None:
        if self._closed:
            raise EventQueueClosedError(self._name) from None

    def _move(self) -> None:
        """Move from an orphan to the queue that has the name now."""
        self._check_open()
        if self._read:
            raise EventQueueRemovedError(self._name, "it was removed; read what is left, and reopen it")
        try:
            self.channel = self._open()
        except EventQueuePermissionError:
            raise
        except EventQueueUnavailableError as exc:
            raise EventQueueRemovedError(
                self._name, f"it was removed and can't be recreated: {exc.problem}"
            ) from exc
        if self._closed:  # closed in the meantime by another thread, which saw only the old descriptor
            self.channel.close()
            self._check_open()

    def _open(self) -> Descriptor:
        """Open or create the queue."""
        for _ in range(_OPEN_ATTEMPTS):
            descriptor = self._make() or self._find()
            if descriptor is not None:
                return descriptor
        raise EventQueueUnavailableError(self._name, "other processes keep removing it")

    def _make(self) -> Descriptor | None:
        """Create the queue as large as the host allows; None if it exists."""
        made = make_queue(self._name, self._asked, mode=self._mode, read=self._read)
        if not isinstance(made, Refusal):
            return made
        negotiation = Negotiation(self._asked, read_limits())
        while isinstance(made, Refusal):
            size = negotiation.refused(made)
            if size is None or self._strict_size:
                raise EventQueueLimitError(self._name, self._explain(negotiation, None))
            made = make_queue(self._name, size, mode=self._mode, read=self._read)
        if made is not None:
            self._warn(negotiation, made.size)
        return made

    def _find(self) -> Descriptor | None:
        """Open the existing queue; None if it no longer exists."""
        found = find_queue(self._name, read=self._read)
        if found is not None and not found.size.covers(self._asked):
            try:
                negotiation, depth = Negotiation(self._asked, read_limits()), found.depth
                if self._strict_size:
                    explanation = self._explain(negotiation, found.size, depth)
                    raise EventQueueLimitError(self._name, explanation)  # noqa: TRY301 - to close it
                self._warn(negotiation, found.size, depth)
            except BaseException:
                found.close()
                raise
        return found

    def _warn(self, negotiation: Negotiation, got: QueueSize, found: int | None = None) -> None:
        """Log that the queue is smaller than requested, once for each size."""
        if (self._name, got) not in _warned:
            _warned.add((self._name, got))
            explanation = self._explain(negotiation, got, found)
            log(__name__, WARNING, "Event queue %s: %s", self._name, explanation)

    def _explain(self, negotiation: Negotiation, got: QueueSize | None, found: int | None = None) -> str:
        """Return why the queue is smaller than requested; `found` is its depth, if it existed."""
        return negotiation.explain(
            got,
            found=found is not None,
            unlink=unlink_command(self._name),
            depth=found or 0,
            neighbours=queues_of_user(other_than=self._name) if negotiation.crowded else (),
        )


def unlink_queue(name: str) -> bool:
    """Remove the queue of this POSIX name; processes that have it open can go on using it.

    Returns:
        Whether there was one.

    Raises:
        ValueError: The name isn't a POSIX name of a queue.
        EventQueuePermissionError: The queue belongs to another user.
        EventQueueUnavailableError: The queue can't be removed for another reason.
    """
    _check_name(name)
    return remove_queue(name)


def check_arguments(name: str, max_messages: int, max_message_size: int, mode: int) -> None:
    """Raise a `ValueError` for an argument of `MessageQueue` that is out of bounds."""
    _check_name(name)
    _check_bounds("max_messages", max_messages, 1, HARD_MAX_MESSAGES)
    _check_bounds("max_message_size", max_message_size, 1, HARD_MAX_MESSAGE_SIZE)
    if not 0 <= mode <= ALL_PERMISSIONS:
        raise ValueError(f"mode must be permission bits, 0o000 to 0o777, not {mode:#o}")


def _check_name(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate
        size = 0
    tail = name[1:]
    if name[:1] != "/" or not 1 < size <= MAX_NAME_SIZE or "/" in tail or "\0" in tail or tail in {".", ".."}:
        raise ValueError(
            f"name must be a slash and 1 to {MAX_NAME_SIZE - 1} bytes of UTF-8 without a slash or a NUL, "
            f"such as '/events-v2', not {name!r}"
        )


def _check_bounds(argument: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{argument} must be from {lowest:,} to {highest:,}, not {value:,}")


def _wait(descriptor: int, event: int, seconds: float) -> None:
    """Wait until the descriptor is ready or closed, at most about `seconds`."""
    poller = select.poll()
    poller.register(descriptor, event)
    poller.poll(math.ceil(seconds * 1_000))
