"""When to try again: exponential backoff with full jitter, and one concurrency limit for all senders. Pure.

Rules:

1. The pause before an attempt is random, between 0 and a ceiling, and comes on top of what the collector
   asked for by Retry-After. Publishers that got the same Retry-After must not come back at the same moment.
2. A failure doubles the ceiling, from `base` up to `cap`, and makes it no less than what the collector asked
   for, up to `cap`. A success multiplies it by `DECREASE_FACTOR`. Below half of `base`, pauses end.
3. While there are pauses, one attempt at a time is in flight. Afterwards each round of successes adds one, up
   to `concurrency`, until the next failure.
4. Attempts that were in flight together and fail together are one failure.

If pauses ended with the first success, a thousand publishers with a backlog would offer a collector that has
just recovered about four times what it can serve. If all 16 senders of each started then, three times.

The jitter is full for the reasons in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Rule 3 is
the congestion avoidance of RFC 5681, section 3.1.
"""

from __future__ import annotations

from typing import Final, Protocol


class RandomSource(Protocol):
    """The part of `random.Random` that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between `a` and `b`."""
        ...


#: Factor of the ceiling after a success. Two successes undo one failure: a fleet that is too large for its
#: collector settles where a third of its requests are turned away, at 1.5 times what is served.
DECREASE_FACTOR: Final = 0.5**0.5

#: Doublings after which a pause has reached its cap, whatever `retry.base` and `retry.cap` are.
_MOST_DOUBLINGS: Final = 64


class Backoff:
    """How long to pause.

    Args:
        base: Seconds of the first pause at most.
        cap: Seconds of any pause at most, besides what the collector asks for.
        random_source: Draws the pauses.
    """

    def __init__(self, base: float, cap: float, random_source: RandomSource) -> None:
        self._base = base
        self._cap = cap
        self._random = random_source

    def raised(self, ceiling: float, asked: float) -> float:
        """Return the longest pause after a failure, in seconds.

        Args:
            ceiling: The longest pause before it, 0 for none.
            asked: Seconds that the collector asked for.
        """
        return min(self._cap, max(self._base, 2.0 * ceiling, asked))

    def lowered(self, ceiling: float) -> float:
        """Return the longest pause after a success, in seconds; 0 for none."""
        ceiling *= DECREASE_FACTOR
        return ceiling if ceiling > self._base / 2.0 else 0.0

    def pause_after(self, failures: int) -> float:
        """Draw the pause of a batch that failed so many times, at least once, in seconds."""
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return self.draw(min(self._cap, self._base * 2.0**doublings))

    def draw(self, ceiling: float) -> float:
        """Draw a pause of at most `ceiling` seconds."""
        return self._random.uniform(0.0, ceiling)


class ConcurrencyLimit:
    """Lets attempts start, or holds them back while the collector is failing.

    Args:
        backoff: How long to hold back.
        concurrency: Attempts in flight at the same time, at least 1, while nothing fails.

    Attributes:
        failures: Failed attempts in a row; 0 while the collector accepts batches.
        paused_until: When the current pause ends, in seconds of the monotonic clock.
        healthy: Whether the last attempt that ended was a success.
    """

    def __init__(self, backoff: Backoff, concurrency: int) -> None:
        self.backoff: Backoff = backoff
        self._concurrency = concurrency
        self.failures: int = 0
        self.paused_until: float = float("-inf")
        self.healthy: bool = False
        self._allowed = float(concurrency)
        self._ceiling = 0.0  # seconds of the longest pause between attempts; 0 for none
        self._failed_at = float("-inf")

    @property
    def allowed(self) -> int:
        """How many attempts may be in flight."""
        return 1 if self._ceiling else int(self._allowed)

    @property
    def unpaused(self) -> bool:
        """Whether attempts may follow each other without pauses."""
        return not self._ceiling

    def resume(self) -> None:
        """End all pauses, as the cause may have been corrected."""
        self._ceiling = 0.0
        self.paused_until = float("-inf")

    def pause_briefly(self, now: float) -> None:
        """Pause as before a first retry, however many attempts failed."""
        self.pause_until(now + self.backoff.pause_after(1))

    def pause_until(self, moment: float) -> None:
        """Start no attempt before `moment`, in seconds of the monotonic clock."""
        self.paused_until = max(self.paused_until, moment)

    def succeed(self, started_at: float, now: float, *, accepted: bool = True) -> None:
        """Take the success of an attempt that began at `started_at`: pauses become shorter, then end.

        One that began before the last failure proves nothing, and leaves the pause as it is.

        Args:
            started_at: When it began.
            now: Seconds of the monotonic clock.
            accepted: Whether the batch was accepted, or only answered in a way that shows a working
                collector.
        """
        if started_at < self._failed_at:
            return
        self.healthy = self.healthy or accepted
        self.failures = 0
        if not self._ceiling:
            self._allowed = min(self._allowed + 1.0 / self._allowed, float(self._concurrency))
        self._ceiling = self.backoff.lowered(self._ceiling)
        self.paused_until = now + self.backoff.draw(self._ceiling)

    def fail(self, started_at: float, retry_after: float, now: float) -> None:
        """Take the failure of an attempt that began at `started_at`."""
        self.healthy = False
        if started_at >= self._failed_at:
            self.failures += 1
            self._allowed = 1.0
            self._failed_at = now
            self._ceiling = self.backoff.raised(self._ceiling, retry_after)
            self.paused_until = now + retry_after + self.backoff.draw(self._ceiling)
        self.pause_until(now + retry_after)
