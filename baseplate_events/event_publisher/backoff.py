"""When to try again: exponential backoff with full jitter, and one gate for all senders. Pure.

Rules:

1. After the n-th failure in a row nothing is sent for a random time up to `min(cap, base * 2**(n-1))`
   seconds, and never for less than the collector asked for by Retry-After.
2. While attempts fail, one attempt at a time probes; the first success opens the way for all.
3. Attempts that were under way together and fail together are one failure.

See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, for why the jitter is full.
"""

from __future__ import annotations

from typing import Protocol


class RandomSource(Protocol):
    """The part of `random.Random` that jitter needs."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between `a` and `b`."""
        ...


class Backoff:
    """How long to wait after failures in a row.

    Args:
        base: Seconds that the first wait takes at most.
        cap: Seconds that any wait takes at most.
        random_source: Where chance comes from.
    """

    def __init__(self, base: float, cap: float, random_source: RandomSource) -> None:
        self._base = base
        self._cap = cap
        self._random = random_source

    def ceiling(self, failures: int) -> float:
        """Tell how many seconds the wait after `failures` failures in a row, at least 1, takes at most."""
        # 2**63 seconds exceed every cap; a larger exponent would only overflow the float.
        return float(min(self._cap, self._base * 2.0 ** min(failures - 1, 63)))

    def wait(self, failures: int) -> float:
        """Draw the seconds to wait after `failures` failures in a row, at least 1."""
        return self._random.uniform(0.0, self.ceiling(failures))


class Gate:
    """Lets attempts start, or holds them back while the collector is failing.

    Args:
        backoff: How long to hold back.
        concurrency: Attempts under way at the same time, at least 1, while nothing fails.

    Attributes:
        failures: Failed attempts in a row; 0 while the collector takes what it gets.
        opens_at: When the pause after the last failure ends, in seconds of the monotonic clock.
        proven: Whether the last attempt that ended was a success.
    """

    def __init__(self, backoff: Backoff, concurrency: int) -> None:
        self.backoff: Backoff = backoff
        self._concurrency = concurrency
        self.failures: int = 0
        self.opens_at: float = float("-inf")
        self.proven: bool = False
        self._failed_at = float("-inf")

    @property
    def width(self) -> int:
        """How many attempts may be under way."""
        return 1 if self.failures else self._concurrency

    def succeed(self) -> None:
        """Take a success: the way is open for all."""
        self.proven = True
        self.failures = 0
        self.opens_at = float("-inf")

    def fail(self, started_at: float, retry_after: float, now: float) -> None:
        """Take the failure of an attempt that began at `started_at`."""
        self.proven = False
        if started_at >= self._failed_at:
            self.failures += 1
            self._failed_at = now
            self.opens_at = now + self.backoff.wait(self.failures)
        self.opens_at = max(self.opens_at, now + retry_after)
