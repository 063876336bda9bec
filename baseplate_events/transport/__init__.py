"""How serialized events get from a service to its publisher.

`EventQueue` puts through a `Transport`, which this module defines:

    opening      opens the one that an event queue was made for
    posix        a POSIX message queue: `descriptor` is the only module that imports posix_ipc, and
                 `limits` says how large a queue the host allows
    spool        files in a directory, by the package's folder of the same name
    unopened     stands for a queue that couldn't be opened, and tries again
    discarding   takes everything and discards it, for a queue that is switched off

The tests of a service have one in memory (`testing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..errors import EventQueueFullError


class Channel(Protocol):
    """The open handle of a transport: a descriptor, or a segment."""

    @property
    def send(self) -> Callable[[bytes], object]:
        """Put a message without waiting. For speed, its exceptions aren't translated."""
        ...

    def refused(self, exc: Exception, /) -> bool:
        """Return whether an exception comes from `send` itself, so that nothing was put.

        It may come from a signal handler instead, after the message was put; then the caller re-raises it.
        """
        ...

    def is_full(self, exc: Exception, /) -> bool:
        """Return whether an exception of `send` means that the transport is full, and nothing else."""
        ...


class Transport(Protocol):
    """The way of bytes out of a service.

    For speed, `EventQueue.put` sends through `channel` itself while that is trusted, and leaves everything
    else to `put`. Any number of threads, greenlets and forked processes use a transport at the same time.

    Attributes:
        trusted_until: Time of the monotonic clock until which `channel` may be used without `confirm`.
    """

    trusted_until: float

    @property
    def name(self) -> str:
        """Its name in error messages."""
        ...

    @property
    def channel(self) -> Channel:
        """The current handle. A caller keeps a reference while it uses it."""
        ...

    @property
    def max_message_size(self) -> int:
        """Largest message in bytes."""
        ...

    def confirm(self, now: float, /) -> bool:
        """Return whether `channel` still leads to the publisher; if so, trust it for a moment."""
        ...

    def put(self, message: bytes, timeout: float = 0.0, /) -> None:
        """Add a message.

        Args:
            message: Of at least one byte.
            timeout: Seconds to wait for room; 0 never waits.

        Raises:
            EventQueueFullError: It stayed full for the whole timeout.
            EventTooLargeError: The message is larger than the transport accepts.
            EventQueueUnavailableError: The transport can't be used.
        """

    def put_many(self, messages: Sequence[bytes], timeout: float, /) -> None:
        """Add messages in order, with as few system calls as possible.

        Args:
            messages: Each of at least one byte.
            timeout: Seconds to wait for room, for all of them together.

        Raises:
            EventTooLargeError: A message is larger than the transport accepts; none was added.
            EventQueueFullError: There was no room. Its `events_put` is the number of messages added, from the
                first.
            EventQueueUnavailableError: The transport can't be used. `events_put` as above.
        """

    def full(self) -> EventQueueFullError:
        """Return the error for `Channel.is_full`."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """Return the gauges: how much is in it, and how much it holds.

        Raises:
            EventQueueUnavailableError: It can't be inspected.
        """
        ...

    def close(self) -> None:
        """Close it; its messages stay for the publisher. Closing it again does nothing."""
