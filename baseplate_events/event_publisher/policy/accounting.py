"""Counts the fate of each event: exactly one. Pure.

This equation holds at every moment:

    received = delivered + dead_lettered + returned + spooled + in_hand + dropped

`received` came from the queue, or were read from the spool. `delivered` were accepted by the collector.
`dead_lettered` were written to the dead letters. `returned` went back to the queue at shutdown. `spooled` are
in the spool and still to be delivered. `in_hand` are in memory only. `dropped` are gone, counted by reason.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ..._words import counted


class DropReason(enum.Enum):
    """Why an event was given up. It is gone, unless it became a dead letter."""

    REFUSED = "refused"
    """The collector refuses it (400, 413, 422, or 5xx while it takes everything else)."""
    EXPIRED = "expired"
    """It couldn't be delivered within `retry.max_age`."""
    INVALID = "invalid"
    """A producer put a message that can't be an event: nothing at all, or no JSON object."""
    OVERSIZE = "oversize"
    """A producer put a message that exceeds `batch.max_size` alone."""
    QUEUE_FULL = "queue_full"
    """At shutdown the collector could not be reached, and the queue had no room to take it back."""
    SPOOL_LOST = "spool_lost"
    """It had failed and waited in the spool, where its segment was deleted or damaged."""


def _no_drops() -> dict[DropReason, int]:
    return dict.fromkeys(DropReason, 0)


@dataclass(slots=True)
class Accounting:
    """Counts of events by their fate.

    Attributes:
        received: Events taken from the queue or read from the spool, each counted once.
        recovered: Those of them in batches that an earlier run had begun to send.
        delivered: Events that the collector accepted.
        dead_lettered: Events that were written to the dead letters.
        returned: Events put back into the queue.
        spooled: Events read from the spool that are still to be delivered.
        in_hand: Events in memory only.
        dropped: Events that are gone, by reason; every reason has an entry.
        letters_dropped: Dead letters, of any run, that made room for newer ones. Not a part of the equation,
            as they were counted before.
    """

    received: int = 0
    recovered: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    returned: int = 0
    spooled: int = 0
    in_hand: int = 0
    dropped: dict[DropReason, int] = field(default_factory=_no_drops)
    letters_dropped: int = 0

    def receive(self, count: int) -> None:
        """Count events that came from the queue into memory."""
        self.received += count
        self.in_hand += count

    def receive_spooled(self, count: int) -> None:
        """Count events that are in the spool."""
        self.received += count
        self.spooled += count

    def recover(self, count: int) -> None:
        """Count events of batches that an earlier run had begun to send."""
        self.received += count
        self.recovered += count
        self.spooled += count

    def deliver(self, count: int, *, spooled: bool = False) -> None:
        """Count events, from memory or from the spool, that the collector accepted."""
        self._leave(count, spooled=spooled)
        self.delivered += count

    def dead_letter(self, count: int, *, spooled: bool = False) -> None:
        """Count events, from memory or from the spool, that are dead letters now."""
        self._leave(count, spooled=spooled)
        self.dead_lettered += count

    def requeue(self, count: int) -> None:
        """Count events that went from memory back to the queue."""
        self._leave(count, spooled=False)
        self.returned += count

    def drop(self, reason: DropReason, count: int, *, spooled: bool = False) -> None:
        """Count events, from memory or from the spool, that are gone."""
        self._leave(count, spooled=spooled)
        self.dropped[reason] += count

    def _leave(self, count: int, *, spooled: bool) -> None:
        if spooled:
            self.spooled -= count
        else:
            self.in_hand -= count

    @property
    def balanced(self) -> bool:
        """Whether every event received has exactly one fate."""
        ended = self.delivered + self.dead_lettered + self.returned + sum(self.dropped.values())
        held = self.spooled + self.in_hand
        return self.received == ended + held and self.spooled >= 0 and self.in_hand >= 0

    def __str__(self) -> str:
        """One line for a log: the fates that events had, and always the most important ones."""
        parts = [f"{self.delivered:,} delivered"]
        parts += [counted(self.dead_lettered, "dead letter")] if self.dead_lettered else []
        parts += [f"{self.returned:,} returned", *([f"{self.spooled:,} spooled"] if self.spooled else [])]
        parts += [f"{self.in_hand:,} in memory"]
        parts += [f"{count:,} dropped ({reason.value})" for reason, count in self.dropped.items() if count]
        recovered = f" ({self.recovered:,} of them recovered)" if self.recovered else ""
        letters = (
            f"; {counted(self.letters_dropped, 'old dead letter')} made room" if self.letters_dropped else ""
        )
        return f"{counted(self.received, 'event')} received{recovered} = {', '.join(parts)}{letters}"
