"""A clock for tests."""

from __future__ import annotations


class FakeClock:
    """A clock that stands still until a test moves it; it can sleep, too."""

    def __init__(self) -> None:
        self.now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
