"""How much a benchmark measures."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Scale(Enum):
    """How much to measure: the more, the steadier the figures."""

    FULL = "full"  # for figures that are published
    QUICK = "quick"  # for a look, while something is being changed
    TINY = "tiny"  # for tests, which only see that all runs

    def pick(self, *, full: T, quick: T, tiny: T) -> T:
        """Return a quantity at this scale."""
        return {Scale.FULL: full, Scale.QUICK: quick, Scale.TINY: tiny}[self]
