"""Events that are given up: each becomes a dead letter, or is dropped if there is no sink for them. Pure.

An event that the disk doesn't take waits for it, and counts as in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ...errors import EventError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .accounting import Accounting, DropReason
    from .store import DiskState, StoredBatch


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an event is given up.

    Attributes:
        fate: How it is counted if there are no dead letters.
        reason: What happened, in words.
        status: The HTTP status that decided it, or None.
        excerpt: The beginning of the response's body.
    """

    fate: DropReason
    reason: str
    status: int | None = None
    excerpt: bytes = b""


class DeadLetterSink(Protocol):
    """Where events that are given up are written."""

    def write(self, event: bytes, /, *, status: int | None, reason: str, excerpt: bytes) -> int:
        """Write an event to the dead letters; raise an `EventError` if that fails.

        Returns:
            How many old ones were dropped to make room.
        """
        ...


class Rejections:
    """Writes events that are given up to a sink, or drops them, and counts them.

    Args:
        sink: The dead letters, or None: then they are dropped.
        accounting: Where their fates are counted.
        disk: Where a failure of the sink is recorded.
        release: Called with the segment of each event that has found its fate here.
    """

    def __init__(
        self,
        sink: DeadLetterSink | None,
        accounting: Accounting,
        disk: DiskState,
        release: Callable[[StoredBatch], None],
    ) -> None:
        self._sink = sink
        self._accounting = accounting
        self._disk = disk
        self._release = release
        self._unwritten: list[tuple[bytes, Rejection, StoredBatch | None]] = []

    def __len__(self) -> int:
        """How many events wait for the disk."""
        return len(self._unwritten)

    def reject(self, event: bytes, rejection: Rejection, segment: StoredBatch | None, now: float) -> None:
        """Give an event up, which is in a segment or in memory only."""
        spooled = segment is not None
        if self._sink is None:
            self._accounting.drop(rejection.fate, 1, spooled=spooled)
        else:
            try:
                self._accounting.letters_dropped += self._sink.write(
                    event, status=rejection.status, reason=rejection.reason, excerpt=rejection.excerpt
                )
            except EventError as exc:
                self._disk.fail(exc, now)
                self._unwritten.append((event, rejection, segment))
                return
            self._accounting.dead_letter(1, spooled=spooled)
        if segment is not None:
            self._release(segment)

    def retry(self, now: float) -> None:
        """Try again what the disk didn't take."""
        unwritten, self._unwritten = self._unwritten, []
        if unwritten:
            self._disk.succeed()
        for event, rejection, segment in unwritten:
            self.reject(event, rejection, segment, now)

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that wait for the disk and are in no segment."""
        events = [event for event, _, segment in self._unwritten if segment is None]
        self._unwritten = []
        return events
