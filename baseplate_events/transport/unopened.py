"""A placeholder for a transport that couldn't be opened, so that the service can start."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from ..errors import EventQueueClosedError, EventQueueFullError, EventQueueUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from . import Transport

#: Seconds between attempts to open it.
RETRY_PAUSE = 1.0


class _NotOpenError(Exception):
    """Raised by a channel that isn't open; never leaves this package."""


class _NoChannel:
    """A channel that accepts nothing."""

    def send(self, message: bytes) -> None:
        del message
        raise _NotOpenError

    def refused(self, exc: Exception) -> bool:
        return isinstance(exc, _NotOpenError)

    def is_full(self, exc: Exception) -> bool:
        del exc
        return False


NO_CHANNEL = _NoChannel()


class UnopenedTransport:
    """A transport that couldn't be opened; `open` tries again.

    Args:
        error: Why it couldn't be opened.
        make: Opens the transport, or raises `EventQueueUnavailableError`.
        clock: A monotonic clock, in seconds.
    """

    channel = NO_CHANNEL

    def __init__(
        self,
        error: EventQueueUnavailableError,
        make: Callable[[], Transport],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._error = error
        self._make = make
        self._clock = clock
        self._retry_at = clock() + RETRY_PAUSE
        self._closed = False
        self.trusted_until: float = 0.0

    def open(self) -> Transport:
        """Open and return the transport.

        Raises:
            EventQueueUnavailableError: Opening failed, now or less than `RETRY_PAUSE` ago.
        """
        self._check_open()
        now = self._clock()
        if now < self._retry_at:
            raise type(self._error)(*self._error.args)
        self._retry_at = now + RETRY_PAUSE
        try:
            transport = self._make()
        except EventQueueUnavailableError as error:
            self._error = error
            raise
        if self._closed:  # closed in the meantime by another thread
            transport.close()
            self._check_open()
        return transport

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return self._error.name

    @property
    def max_message_size(self) -> int:
        """0: nothing can be put yet."""
        return 0

    def confirm(self, now: float) -> bool:
        """Return False."""
        del now
        return False

    def put(self, message: bytes, timeout: float = 0.0) -> None:
        """Put through the transport, if it can be opened."""
        self.open().put(message, timeout)

    def put_many(self, messages: Sequence[bytes], timeout: float) -> None:
        """Put through the transport, if it can be opened."""
        self.open().put_many(messages, timeout)

    def full(self) -> EventQueueFullError:
        """Return an error that is never needed, since nothing was sent."""
        return EventQueueFullError(self.name)

    def gauges(self) -> Mapping[str, int]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Stop trying to open it."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EventQueueClosedError(self.name)
