"""Events that are given up: each becomes a dead letter, or is dropped if none are kept. Pure.

Dead letters that can't be written wait in memory. Until they are written, their events have no fate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ...errors import EventError
from .journal import DeadLetter
from .span import records_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .accounting import Accounting, DropReason
    from .journal import Journal
    from .span import Span

#: Seconds until dead letters that couldn't be written are tried again.
DISK_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an event is given up.

    Attributes:
        fate: How it is counted if there are no dead letters.
        reason: What happened.
        status: The HTTP status that decided it, or None.
        excerpt: The beginning of the response's body.
    """

    fate: DropReason
    reason: str
    status: int | None = None
    excerpt: bytes = b""


class _Waiting(NamedTuple):
    """Dead letters that couldn't be written, and the batch and place of their events."""

    letters: Sequence[DeadLetter]
    order: tuple[int, int] | None
    spans: Sequence[Span]


class Rejections:
    """Writes events that are given up to the dead letters, or drops them, and counts them.

    Args:
        journal: Where dead letters are kept, or None: then events are dropped.
        accounting: Where their fates are counted.

    Attributes:
        error: Why dead letters couldn't be written the last time; None if they could.
        retry_at: When that may be tried again, in seconds of the monotonic clock.
        size: Bytes of the records of the events that wait for it: 0 if none does.
    """

    def __init__(self, journal: Journal | None, accounting: Accounting) -> None:
        self.error: str | None = None
        self.retry_at: float = float("-inf")
        self.size: int = 0
        self._journal = journal
        self._accounting = accounting
        self._waiting: list[_Waiting] = []

    def reject(
        self,
        events: Sequence[bytes],
        rejection: Rejection,
        spans: Sequence[Span],
        now: float,
        *,
        order: tuple[int, int] | None = None,
    ) -> None:
        """Give events up.

        Args:
            events: All events of a batch that was entered, or others.
            rejection: Why.
            spans: Where they are in the spool; none if they are in memory only.
            now: Seconds of the monotonic clock.
            order: Of the batch, if it was entered.
        """
        if self._journal is None:
            self._accounting.drop(rejection.fate, len(events))
            return
        letters = [
            DeadLetter(event, rejection.status, rejection.reason, rejection.excerpt) for event in events
        ]
        self._write(self._journal, _Waiting(letters, order, spans), now)

    def retry(self, now: float) -> None:
        """Try again to write what couldn't be written, if it is time for that."""
        if self._journal is None or now < self.retry_at:
            return
        waiting, self._waiting, self.size, self.error = self._waiting, [], 0, None
        for item in waiting:
            self._write(self._journal, item, now)

    def take_unsent(self) -> list[bytes]:
        """Hand over the events that wait to be written and are in memory only."""
        waiting, self._waiting, self.size = self._waiting, [], 0
        return [letter.event for item in waiting if not item.spans for letter in item.letters]

    def _write(self, journal: Journal, item: _Waiting, now: float) -> None:
        letters, order, spans = item
        try:
            dropped = journal.resolve(spans, letters) if order is None else journal.finish(order, letters)
        except EventError as exc:
            self.error = str(exc)
            self.retry_at = now + DISK_PAUSE
            self.size += records_size([letter.event for letter in letters])
            self._waiting.append(item)
        else:
            self._accounting.letters_dropped += dropped
            self._accounting.dead_letter(len(letters), spooled=bool(spans))
