"""What the policy writes down, so that a publisher continues where a kill ended it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .poison import CLEAN, FaultRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .span import Span


@dataclass(frozen=True, slots=True)
class EnteredBatch:
    """A batch, or a part of one, that was tried and has found no fate yet.

    Attributes:
        order: What it is sorted by, and its name: the number of its batch, and of its first event in that.
        count: Events in it. If its places hold as many whole records later, these are the same, as the spool
            checks each. So this shows whether a batch that was rebuilt has the same bytes.
        spans: Where its events are, in their order; see `join_spans`.
        record: What is known of its failures. The next run uses `failures`, `evidence`, `is_part` and whether
            it was refused.
    """

    order: tuple[int, int]
    count: int
    spans: tuple[Span, ...]
    record: FaultRecord = CLEAN


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up.

    Attributes:
        event: Its bytes.
        status: The HTTP status that decided it, or None.
        reason: What was wrong.
        excerpt: The beginning of the response's body.
    """

    event: bytes
    status: int | None
    reason: str
    excerpt: bytes = b""


class Journal(Protocol):
    """The ledger, as the policy uses it."""

    def enter(self, batch: EnteredBatch, /) -> None:
        """Write a batch down before its first attempt, or again with another fault record. Never fails."""
        ...

    def replace(self, order: tuple[int, int], parts: Sequence[EnteredBatch], /) -> None:
        """Replace a batch that was entered by its parts, which have the same spans. Never fails."""
        ...

    def shrink(self, rest: EnteredBatch, lost: int, /) -> None:
        """End `lost` events of a batch that was entered, as they are gone from the spool. Never fails.

        Args:
            rest: The batch with the events that are left, at places that it had. Without any, it has ended.
            lost: How many are gone.
        """
        ...

    def finish(self, order: tuple[int, int], letters: Sequence[DeadLetter] = (), /) -> int:
        """End a batch that was entered: its events were delivered or dropped, or become dead letters.

        Returns:
            How many old dead letters were dropped to make room.

        Raises:
            EventError: The letters can't be written; nothing has changed. Without letters it never fails.
        """
        ...

    def resolve(self, spans: Sequence[Span], letters: Sequence[DeadLetter] = (), /) -> int:
        """End events that are in no batch that was entered; without a spool, there are letters only.

        Returns and raises as `finish`.
        """
        ...
