"""A set of byte ranges of one file. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ByteRanges:
    """A set of offsets, kept as few ranges: those that touch are one.

    Args:
        ranges: Pairs of start and end, in any order; they may overlap or be empty.

    Attributes:
        total: How many offsets are in it.
    """

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total: int = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add all offsets from `start` to before `end`, of which some may be in it already."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        first = bisect_left(ends, start)
        last = bisect_right(starts, end)
        before = 0
        if first < last:
            before = sum(ends[first:last]) - sum(starts[first:last])
            start = min(start, starts[first])
            end = max(end, ends[last - 1])
        starts[first:last] = (start,)
        ends[first:last] = (end,)
        self.total += end - start - before

    @property
    def prefix(self) -> int:
        """The first offset that isn't in it."""
        return self.end_at(0)

    def end_at(self, offset: int) -> int:
        """Return the first offset from `offset` on that isn't in it."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._ends[index]) if index >= 0 else offset

    def next_start(self, offset: int) -> int | None:
        """Return where the first range begins that begins at an offset or behind it, or None."""
        index = bisect_left(self._starts, offset)
        return self._starts[index] if index < len(self._starts) else None

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return what isn't in it from `start` to before `end`, as pairs of start and end, in order."""
        gaps: list[tuple[int, int]] = []
        at = self.end_at(start)
        while at < end:
            bound = self.next_start(at)
            stop = end if bound is None else min(end, bound)
            gaps.append((at, stop))
            at = self.end_at(stop)
        return gaps

    def pairs(self) -> list[tuple[int, int]]:
        """Return the ranges as pairs of start and end, in order."""
        return list(zip(self._starts, self._ends, strict=True))
