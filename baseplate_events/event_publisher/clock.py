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
        """Return seconds that never go back, for durations."""
        ...

    def wall_time(self) -> float:
        """Return seconds since the epoch, for the `Date` header and for display."""
        ...

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """Wait until a descriptor of `poller` is ready, or until `seconds` have passed (infinity: never).

        Returns:
            The descriptors that are ready, with their events, as `select.poll.poll` returns them.
        """
        ...


@final
class SystemClock:
    """The clocks of this system."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wall_time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        """Wait until a descriptor is ready, or until `seconds` have passed."""
        # poll(2) counts in milliseconds; rounding up keeps it from waking just too early, again and again.
        return poller.poll(None if seconds == math.inf else math.ceil(max(0.0, seconds) * 1_000))
