"""Every event has exactly one fate, and every fate is counted. Pure.

The equation that holds at every moment:

    received = delivered + returned + in_hand + dropped

`returned` events went back to the queue at shutdown; `in_hand` are those that the publisher holds in memory;
`dropped` are gone, counted by reason.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class DropReason(enum.Enum):
    """Why an event is gone."""

    REFUSED = "refused"
    """The collector refuses its content (400, 413, 422)."""
    EMPTY = "empty"
    """A producer put a message without a byte."""
    OVERSIZE = "oversize"
    """A producer put a message that exceeds `batch.max_size` alone."""
    QUEUE_FULL = "queue_full"
    """At shutdown the collector was out of reach, and the queue had no room to take it back."""


def _no_drops() -> dict[DropReason, int]:
    return dict.fromkeys(DropReason, 0)


@dataclass(slots=True)
class Accounting:
    """Counts of events by their fate.

    Attributes:
        received: Events taken from the queue.
        delivered: Events that the collector accepted.
        returned: Events put back to the queue.
        in_hand: Events held in memory.
        dropped: Events that are gone, by reason; every reason has an entry.
    """

    received: int = 0
    delivered: int = 0
    returned: int = 0
    in_hand: int = 0
    dropped: dict[DropReason, int] = field(default_factory=_no_drops)

    def receive(self, count: int) -> None:
        """Count events that came from the queue into memory."""
        self.received += count
        self.in_hand += count

    def deliver(self, count: int) -> None:
        """Count events that the collector accepted."""
        self.in_hand -= count
        self.delivered += count

    def give_back(self, count: int) -> None:
        """Count events that went from memory back to the queue."""
        self.in_hand -= count
        self.returned += count

    def drop(self, reason: DropReason, count: int) -> None:
        """Count events that are gone from memory."""
        self.in_hand -= count
        self.dropped[reason] += count

    @property
    def balanced(self) -> bool:
        """Whether every event received has exactly one fate."""
        fates = self.delivered + self.returned + self.in_hand + sum(self.dropped.values())
        return self.received == fates and self.in_hand >= 0

    def __str__(self) -> str:
        drops = [f"{count} dropped ({reason.value})" for reason, count in self.dropped.items() if count]
        fates = [
            f"{self.delivered} delivered",
            f"{self.returned} returned",
            f"{self.in_hand} in hand",
            *drops,
        ]
        return f"{self.received} events received = {', '.join(fates)}"
