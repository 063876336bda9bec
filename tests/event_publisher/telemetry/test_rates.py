from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.telemetry.rates import WINDOW, Rates


@given(rate=st.floats(-1e6, 1e6), steps=st.lists(st.floats(0.001, 30), min_size=1, max_size=200))
def test_steady_growth_has_its_rate(rate: float, steps: list[float]) -> None:
    """Whenever it is asked, a number that grows steadily has its rate, once half a second has passed."""
    rates, now = Rates(), 100.0
    assert rates.record(now, {"n": 0.0}) == {}
    for step in steps:
        now += step
        found = rates.record(now, {"n": rate * (now - 100.0)})
        if now >= 101.0:
            assert found["n"] == pytest.approx(rate, rel=1e-3, abs=0.01)


@given(st.lists(st.floats(0.5, 3), min_size=20, max_size=60))
def test_what_was_before_the_window_is_forgotten(steps: list[float]) -> None:
    """A burst that is over counts no more than a window and a step later, and little memory is used."""
    rates, now = Rates(), 0.0
    rates.record(now, {"n": 0})
    now += 1.0
    assert rates.record(now, {"n": 1_000})["n"] == 1_000
    for step in steps:
        now += step
        found = rates.record(now, {"n": 1_000})
        if now > 1.0 + WINDOW + 3.0:
            assert found == {"n": 0}
        assert len(rates._looks) <= WINDOW / 0.5 + 2  # pyright: ignore[reportPrivateUsage]
