"""Sets of byte ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.byte_ranges import ByteRanges

OFFSETS = st.integers(0, 40)
PAIRS = st.lists(st.tuples(OFFSETS, OFFSETS))


@given(pairs=PAIRS, offset=OFFSETS)
def test_ranges_are_a_set_of_offsets(pairs: list[tuple[int, int]], offset: int) -> None:
    """Whatever was added, in whatever order."""
    ranges = ByteRanges(pairs)
    model = {at for start, end in pairs for at in range(start, end)}
    assert ranges.total == len(model)
    assert {at for start, end in ranges.pairs() for at in range(start, end)} == model
    assert all(end < start for (_, end), (start, _) in pairwise(ranges.pairs()))
    assert ranges.prefix == next(at for at in range(100) if at not in model)
    assert ranges.end_at(offset) == next(at for at in range(offset, 100) if at not in model)
    starts = [at for at in model if at >= offset and at - 1 not in model]
    assert ranges.next_start(offset) == min(starts, default=None)


@given(pairs=PAIRS, start=OFFSETS, end=OFFSETS)
def test_gaps_are_what_is_not_in_it(pairs: list[tuple[int, int]], start: int, end: int) -> None:
    """In order, none of them empty, and no two that could be one."""
    gaps = ByteRanges(pairs).gaps(start, end)
    model = {at for low, high in pairs for at in range(low, high)}
    assert [at for low, high in gaps for at in range(low, high)] == [
        at for at in range(start, end) if at not in model
    ]
    assert all(low < high for low, high in gaps)
    assert all(high < low for (_, high), (low, _) in pairwise(gaps))
