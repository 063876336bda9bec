from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.event_sources import BURST_BYTES, burst

#: Sizes of events, some of which fill a burst alone.
SIZES = st.lists(st.sampled_from([1, 102_400, BURST_BYTES // 3, BURST_BYTES]), max_size=8)


@given(sizes=SIZES, allowed=st.integers(0, 8))
def test_a_burst_is_bounded_in_events_and_bytes(sizes: list[int], allowed: int) -> None:
    """It ends after so many events, or with the event that makes it large; the rest stays where it is."""
    events = [bytes(size) for size in sizes]
    queue = iter(events)
    taken = list(burst(queue, allowed))
    assert events == [*taken, *queue]
    assert len(taken) <= allowed
    assert sum(map(len, taken[:-1])) < BURST_BYTES
    assert len(taken) in {allowed, len(events)} or sum(map(len, taken)) >= BURST_BYTES
