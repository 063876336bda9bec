"""What signals ask of a publisher."""

from __future__ import annotations

import select

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.control import Control
from tests.support.queues import open_files


def is_ready(control: Control) -> bool:
    """Whether a poller would wake now."""
    poller = select.poll()
    poller.register(control.fileno(), select.POLLIN)
    return bool(poller.poll(0))


@given(st.lists(st.sampled_from(["stop", "reload", "wake", "clear"]), max_size=30))
def test_requests_are_kept_until_they_are_read(calls: list[str]) -> None:
    """Whatever is called, however often: stops are counted from the first one's time, and a wake stays."""
    moments = iter(range(1, 1_000))
    control = Control(lambda: float(next(moments)))
    try:
        wakes = False
        for call in calls:
            getattr(control, call)()
            wakes = call != "clear"
            assert is_ready(control) == wakes
        assert control.stops == calls.count("stop")
        assert control.stopped_at == (1.0 if "stop" in calls else 0.0)
        assert control.reload_wanted == ("reload" in calls)
        assert is_ready(control) == wakes
    finally:
        control.close()


def test_a_thousand_requests_fill_nothing() -> None:
    """A publisher that is busy for long is woken once, and its requests are all known."""
    control = Control(lambda: 0.0)
    for _ in range(10_000):
        control.stop()
    assert control.stops == 10_000
    while is_ready(control):
        control.clear()
    control.close()


def test_a_request_after_the_end_hits_nothing() -> None:
    """Once closed, requests are harmless, and no descriptor is left."""
    before = open_files()
    control = Control(lambda: 0.0)
    control.close()
    control.stop()
    control.reload()
    assert before == open_files()
