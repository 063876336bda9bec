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
        """Put a message without waiting. For speed, it raises whatever it raises."""
        ...

    def refused(self, exc: Exception, /) -> bool:
        """Return whether an exception of `send` is its own, so that nothing was put.

        It may be a signal handler's instead, which came when the call was over, and has to go its way.
        """
        ...

    def is_full(self, exc: Exception, /) -> bool:
        """Return whether an exception of `send` says that the transport is full, and nothing else."""
        ...


class Transport(Protocol):
    """Bytes out of a service.

    `EventQueue.put` can't afford more calls than it needs: it sends through `channel` itself if that is
    trusted, and leaves all else to `put`. Any number of threads, greenlets and forked processes use a
    transport at the same time.

    Attributes:
        trusted_until: Time of the monotonic clock until which `channel` may be used without `confirm`.
    """

    trusted_until: float

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def channel(self) -> Channel:
        """What it is open by now. Whoever uses it holds it meanwhile."""
        ...

    @property
    def max_message_size(self) -> int:
        """Bytes that a message may have."""
        ...

    def confirm(self, now: float, /) -> bool:
        """Return whether `channel` leads to the publisher, and if so trust it for a moment."""
        ...

    def put(self, message: bytes, timeout: float = 0.0, /) -> None:
        """Add a message.

        Args:
            message: Of at least one byte.
            timeout: Seconds to wait for room; 0 never waits.

        Raises:
            EventQueueFullError: It stayed full for the whole timeout.
            EventTooLargeError: The message is larger than the transport takes.
            EventQueueUnavailableError: The transport can't be used.
        """

    def put_many(self, messages: Sequence[bytes], timeout: float, /) -> None:
        """Add messages in order, with as few system calls as possible.

        Args:
            messages: Each of at least one byte.
            timeout: Seconds to wait for room, for all of them together.

        Raises:
            EventTooLargeError: A message is larger than the transport takes; none was added.
            EventQueueFullError: There was no room. Its `events_put` says how many were added, the first ones.
            EventQueueUnavailableError: The transport can't be used. `events_put` as above.
        """

    def full(self) -> EventQueueFullError:
        """Return the error for `Channel.is_full`."""
        ...

    def gauges(self) -> Mapping[str, int]:
        """Return what there is to measure: how much is in it, and how much it holds.

        Raises:
            EventQueueUnavailableError: It can't be looked at.
        """
        ...

    def close(self) -> None:
        """Close it; what is in it stays for the publisher. Closing again does nothing."""
