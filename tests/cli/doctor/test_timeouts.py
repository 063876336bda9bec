from __future__ import annotations

import concurrent.futures
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.doctor.timeouts import within
from tests.support.waiting import PATIENCE


@given(st.integers() | st.text() | st.none())
def test_what_work_gives_comes_through(result: object) -> None:
    """Work that ends in time returns its result."""
    assert within(PATIENCE, lambda: result) is result


def test_work_within_a_time_gives_or_raises_what_it_does() -> None:
    """A result and an error come through; a timeout of the work's own isn't taken for ours."""
    assert within(PATIENCE, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        within(PATIENCE, lambda: 1 // 0)

    def give_up() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        within(PATIENCE, give_up)


def test_work_that_ends_with_its_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that comes just after the time is up, and before the error is made, comes through."""

    class Late(concurrent.futures.Future[int]):
        def result(self, timeout: float | None = None) -> int:
            found = super().result()
            if timeout is not None:
                raise concurrent.futures.TimeoutError
            return found

    monkeypatch.setattr(concurrent.futures, "Future", Late)
    assert within(PATIENCE, lambda: 5) == 5


def test_work_that_takes_too_long_is_given_up() -> None:
    """The error names the time limit."""
    done = threading.Event()
    with pytest.raises(TimeoutError, match=r"^no answer within 50 milliseconds$"):
        within(0.05, lambda: done.wait(PATIENCE))
    done.set()
