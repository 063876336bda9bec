"""What the policy of delivery handles, and what it needs of the disks around it: values and interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .accounting import DropReason
    from .batching import Batch


@dataclass(frozen=True, slots=True)
class Segment:
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

    def close_segment(self) -> Segment | None:
        """Close the open segment."""
        ...

    def load(self, segment: Segment, /) -> tuple[bytes, ...]:
        """Read the events of a closed segment."""
        ...

    def release(self, number: int, /) -> None:
        """Delete a closed segment."""
        ...


class DeadLetterSink(Protocol):
    """The dead letters, as the policy uses them."""

    def write(self, event: bytes, /, *, status: int | None, reason: str, excerpt: bytes) -> int:
        """Write an event to the dead letters; raise an `EventError` if that can't be done.

        Returns:
            How many old ones were dropped to make room.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an event is given up.

    Attributes:
        fate: How it is counted where there are no dead letters.
        reason: What happened, in words.
        status: The HTTP status that decided it, or None.
        excerpt: The beginning of the response's body.
    """

    fate: DropReason
    reason: str
    status: int | None = None
    excerpt: bytes = b""


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch on its way, or a part of one.

    Attributes:
        order: What it is sorted by: the number of its batch, and of its first event in that.
        count: Events in it.
        opened_at: When its first event came, in seconds of the monotonic clock.
        batch: Its events, or None while they are on disk only.
        segment: Where they are on disk, or None without a spool.
        answers: Answers of 5xx and hang-ups that it got.
        suspicions: Those of them that speak against it: others went through between each two.
        passed: Batches that had been accepted in all at the last of these.
        acquitted: Batches that had been accepted after such answers, in all, at the first of these.
        is_part: Whether it is a part of a batch that was split.
    """

    order: tuple[int, int]
    count: int
    opened_at: float
    batch: Batch | None
    segment: Segment | None
    answers: int = 0
    suspicions: int = 0
    passed: int = 0
    acquitted: int = 0
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver a batch.

    Attributes:
        parcel: What it is a part of.
        batch: What to send.
        started_at: Seconds of the monotonic clock.
    """

    parcel: PendingBatch
    batch: Batch
    started_at: float
