"""Refusals are counted exactly, whoever counts, and reported once."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.counting.counters import Tally
from baseplate_events.counting.refusals import RefusalCounts
from tests.support.forks import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

REASONS = ("full", "too_large", "empty")


@pytest.fixture
def _frequent_switches() -> Generator[None]:
    """Have threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(number: int, job: Callable[[], None]) -> None:
    """Do something in several threads at once."""
    threads = [threading.Thread(target=job) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(REASONS), st.integers(1, 5)),
            st.sampled_from([("take", 0), ("put back", 0)]),
        )
    )
)
def test_each_is_reported_once(steps: list[tuple[str, int]]) -> None:
    """Counts that were taken and not put back are those reported; the totals include all."""
    refusals = RefusalCounts()
    counted: Counter[str] = Counter()
    reported: Counter[str] = Counter()
    taken: dict[str, int] = {}
    for reason, number in steps:
        if reason == "take":
            taken = refusals.take()
            reported.update(taken)
        elif reason == "put back":
            refusals.put_back(taken)
            reported.subtract(taken)
            taken = {}
        else:
            refusals.count(reason, number)
            counted[reason] += number
        assert refusals.totals == dict(counted)
        assert refusals.unreported == (reported.total() < counted.total())
    reported.update(refusals.take())
    assert +reported == counted
    assert refusals.take() == {}
    assert not refusals.unreported


@pytest.mark.usefixtures("_frequent_switches")
def test_threads_count_exactly() -> None:
    """Eight threads count, report and put back at once."""
    refusals = RefusalCounts()
    reports: list[dict[str, int]] = []
    dips: list[str] = []

    def count() -> None:
        seen = 0
        for number in range(1500):
            refusals.count(REASONS[number % 3], 1 + number % 2)
            if number % 3 == 0:
                taken = refusals.take()
                if number % 2:
                    refusals.put_back(taken)
                else:
                    reports.append(taken)
            total = sum(refusals.totals.values())
            if total < seen:
                dips.append(f"{total} after {seen}")
            seen = total

    in_threads(8, count)
    reports.append(refusals.take())
    reported = sum((Counter(report) for report in reports), Counter[str]())
    assert sum(refusals.totals.values()) == 8 * 1500 * 3 // 2
    assert dict(reported) == refusals.totals
    assert dips == []


def test_signal_handlers_count_exactly() -> None:
    """A signal handler may interrupt a count, also one by the same thread."""
    refusals = RefusalCounts()
    handled: list[int] = []  # a sum might lose one, as another signal may interrupt the handler

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        handled.append(number)
        refusals.count("full")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        rounds = 0
        taken: Counter[str] = Counter()
        while len(handled) < 300:
            rounds += 1
            refusals.count("empty")
            taken.update(refusals.take())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    taken.update(refusals.take())
    assert refusals.totals == {"full": len(handled), "empty": rounds}
    assert taken == refusals.totals


def test_a_child_starts_with_none() -> None:
    """What its parent counted is reported by its parent."""
    refusals = RefusalCounts()
    refusals.count("full", 3)

    def child() -> bool:
        before = (refusals.totals, refusals.unreported, refusals.take())
        refusals.count("empty")
        return before == ({}, False, {}) and refusals.take() == {"empty": 1} == refusals.totals

    assert in_child(child)
    assert refusals.take() == {"full": 3} == refusals.totals


def test_a_child_counts_though_a_thread_was_taking() -> None:
    """The thread that held the lock isn't there any more."""
    refusals = RefusalCounts()
    refusals.count("full")
    with vars(refusals)["_refusals"].get().lock:

        def child() -> bool:
            refusals.count("full", 2)
            return refusals.totals == {"full": 2} == refusals.take()

        assert in_child(child)
    assert refusals.take() == {"full": 1}


def test_no_one_waits_for_who_is_taking() -> None:
    """While another thread takes, `take` has nothing, and the totals are known nevertheless."""
    refusals = RefusalCounts()
    refusals.count("full")
    with vars(refusals)["_refusals"].get().lock:
        refusals.count("full", 2)
        refusals.count("empty", 4)
        refusals.put_back({"full": 1})
        assert refusals.totals == {"full": 3, "empty": 4}
        assert refusals.take() == {}
        assert refusals.unreported
    assert refusals.take() == {"full": 4, "empty": 4}


class Late(dict[str, Tally]):
    """Counts of which one comes while they are listed for a report."""

    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()
        self.count = count

    def items(self) -> list[tuple[str, Tally]]:  # type: ignore[override]
        found = list(super().items())
        self.count()
        return found


def test_what_comes_while_others_are_taken_is_taken_next() -> None:
    """It isn't lost, nor reported twice."""
    refusals = RefusalCounts()
    vars(refusals)["_refusals"].get().counted = Late(lambda: refusals.count("full", 4))
    refusals.count("full")
    first = refusals.take()
    assert refusals.unreported
    second = refusals.take()
    assert first["full"] + second["full"] == 9
