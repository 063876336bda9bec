"""Which batch is to blame for failures: when it is split, and when its only event is given up. Pure.

Rules:

1. A batch that failed `MAX_FAILURES` times by a 5xx response or a hang-up, with others accepted between each
   two, is split: an event that crashes the collector must not block the line. A lone event is given up after
   `MAX_LONE_FAILURES` only, and not while other batches with such failures are accepted later: then the
   collector has trouble that isn't the event's.
2. Halves start one failure short of the limit; a lone event starts at zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .pending import PendingBatch

#: Failures that speak against a batch until it is split, and against a lone event until it is given up. A
#: collector that turns away half of what it gets, at random, would get an innocent event given up in one of
#: a million trials: others must be accepted at once between each two, (0.5 * 0.5)**10.
MAX_FAILURES: Final = 5
MAX_LONE_FAILURES: Final = 10


class PoisonPolicy:
    """Judges batches by their failures and by what becomes of others."""

    def __init__(self) -> None:
        self._accepted = 0
        self._recoveries = 0

    def accept(self, pending: PendingBatch) -> None:
        """Record that a batch was accepted."""
        self._accepted += 1
        if pending.failures and not pending.is_part:
            self._recoveries += 1  # so such failures don't speak of contents at the moment

    def fail(self, pending: PendingBatch) -> PendingBatch:
        """Record a failure that a batch may have caused; return the batch with its record."""
        pending = replace(pending, failures=pending.failures + 1)
        if not pending.witnessed or (pending.count == 1 and pending.recoveries != self._recoveries):
            return replace(pending, witnessed=1, accepted=self._accepted, recoveries=self._recoveries)
        if self._accepted > pending.accepted:
            return replace(pending, witnessed=pending.witnessed + 1, accepted=self._accepted)
        return pending

    @staticmethod
    def limit(pending: PendingBatch) -> int:
        """After how many witnessed failures a batch is split, or its only event given up."""
        return MAX_FAILURES if pending.count > 1 else MAX_LONE_FAILURES

    def part(self, parent: PendingBatch, count: int) -> PendingBatch:
        """Return the parent with the record that a part of `count` events of it starts with."""
        failures = MAX_FAILURES - 1 if parent.witnessed >= MAX_FAILURES else 0
        return replace(
            parent,
            failures=failures,
            witnessed=failures if count > 1 else 0,
            accepted=self._accepted,
            recoveries=self._recoveries,
            is_part=True,
        )
