from __future__ import annotations

import sys

import pytest

from tests.support.processes import started
from tests.support.waiting import wait_until


def test_the_value_of_the_condition_is_returned() -> None:
    """A condition is asked until its value is true, and that value is the result."""
    values = [0, 0, 7, 8]
    assert wait_until(lambda: values.pop(0), "it does not come") == 7
    assert values == [8]


def test_a_condition_that_does_not_come_to_hold_is_an_error() -> None:
    """After its time is up the wait fails with the message, which may be what holds by then."""
    seen: list[int] = []
    with pytest.raises(TimeoutError, match=r"not enough: [1-9]"):
        wait_until(lambda: seen.append(1), lambda: f"not enough: {len(seen)}", patience=0.02, interval=0.001)
    assert len(seen) > 1
    with pytest.raises(TimeoutError, match="none"):
        wait_until(lambda: False, "none", patience=0.0)


def test_the_end_of_the_process_ends_the_wait() -> None:
    """A wait for a process that has ended fails with its status, unless the condition holds all the same."""
    with started(sys.executable, "-c", "raise SystemExit(3)") as process:
        with pytest.raises(TimeoutError, match=r"nothing is done .*ended with 3"):
            wait_until(lambda: False, "nothing is done", process=process)
        assert wait_until(lambda: True, "nothing is done", process=process)
