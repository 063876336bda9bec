"""The spool as the policy sees it: its segments, and whether its disk works. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

#: Seconds until a disk that failed is tried again.
DISK_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A closed segment.

    Attributes:
        number: Its number; smaller ones are older.
        count: Events in it, at least one.
        events_size: Bytes of these events, without frames.
        size: Bytes of its first line and its frames.
    """

    number: int
    count: int
    events_size: int
    size: int


class Store(Protocol):
    """The spool, as the policy uses it; see `spool.Spool` for what each method does."""

    def has_room(self, event_size: int, /) -> bool:
        """Whether an event of that size could be appended."""
        ...

    def append(self, event: bytes, /) -> None:
        """Write an event to the open segment."""
        ...

    def close_segment(self) -> StoredBatch | None:
        """Close the open segment."""
        ...

    def load(self, segment: StoredBatch, /) -> tuple[bytes, ...]:
        """Read the events of a closed segment."""
        ...

    def release(self, number: int, /) -> None:
        """Delete a closed segment."""
        ...


class DiskState:
    """Whether the disk of the spool and the dead letters works, by its last use.

    Attributes:
        error: What it reported when it last failed; None once it works again.
        retry_at: When it may be tried again, in seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self.error: str | None = None
        self.retry_at: float = float("-inf")

    def fail(self, error: Exception, now: float) -> None:
        """Record a failure at `now`."""
        self.error = str(error)
        self.retry_at = now + DISK_PAUSE

    def succeed(self) -> None:
        """Record that it took, or gave, what it should."""
        self.error = None
