"""A transport that discards all messages, for a queue that is switched off; it never fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import EventQueueFullError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds between two calls of `confirm`.
TRUST = 1e-3


class DiscardingTransport:
    """Accepts and discards messages, also after `close`. It is its own channel.

    Args:
        name: Its name in error messages.

    Attributes:
        trusted_until: As for all transports, so that puts do their periodic checks.
    """

    max_message_size = 2  # of the placeholder for any event

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.trusted_until: float = 0.0

    @property
    def channel(self) -> DiscardingTransport:
        """The transport itself."""
        return self

    def send(self, message: bytes) -> None:
        """Do nothing."""

    def refused(self, exc: Exception) -> bool:
        """Return False: `send` raises nothing."""
        del exc
        return False

    def is_full(self, exc: Exception) -> bool:
        """Return False, likewise."""
        del exc
        return False

    def confirm(self, now: float) -> bool:
        """Return True."""
        self.trusted_until = now + TRUST
        return True

    def put(self, message: bytes, timeout: float = 0.0) -> None:
        """Do nothing."""

    def put_many(self, messages: Sequence[bytes], timeout: float) -> None:
        """Do nothing."""

    def full(self) -> EventQueueFullError:
        """Return an error that is never needed."""
        return EventQueueFullError(self.name)

    def gauges(self) -> Mapping[str, int]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


def serialize_nothing(event: object) -> bytes:
    """Return a placeholder for any event."""
    del event
    return b"{}"
