"""Clocks and waiting, as the loop and the senders use them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol, final

if TYPE_CHECKING:
    import select


class Clock(Protocol):
    """The clocks of a system."""

    def monotonic(self) -> float:
        """Return monotonic seconds, for durations."""
        ...

    def wall_time(self) -> float:
        """Return seconds since the epoch, for the `Date` header and for display."""
        ...

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """Wait until a descriptor of `poller` is ready, at most `seconds` (which may be infinity).

        Returns:
            The descriptors that are ready, with their events, as `select.poll.poll` returns them.
        """
        ...


@final
class SystemClock:
    """The clocks of this system."""

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall_time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """Wait until a descriptor is ready, at most `seconds`."""
        # poll(2) counts in milliseconds; rounding up avoids repeated wake-ups just before the time.
        return poller.poll(None if seconds == math.inf else math.ceil(max(0.0, seconds) * 1_000))
