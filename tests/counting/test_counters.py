from __future__ import annotations

import pickle
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import QueueCounters, RefusedEvents
from baseplate_events.counting.counters import Tally

counts = st.integers(0, 2**40)
refused_events = st.builds(RefusedEvents, *[counts] * len(RefusedEvents._fields))
snapshots = st.builds(QueueCounters, counts, refused_events, counts)


# --- snapshots ---


@given(snapshots)
def test_outcomes_are_all_counts(counters: QueueCounters) -> None:
    """Each count has its own name; none is missing, also if it is 0."""
    outcomes = counters.by_outcome()
    assert {"put", "discarded", *RefusedEvents._fields} == outcomes.keys()
    assert counters.put + counters.discarded + counters.refused.total == sum(outcomes.values())
    assert (counters.put, counters.discarded) == (outcomes["put"], outcomes["discarded"])
    assert all(outcomes[reason] == getattr(counters.refused, reason) for reason in RefusedEvents._fields)


@given(snapshots, snapshots)
def test_what_came_since_is_the_difference(earlier: QueueCounters, news: QueueCounters) -> None:
    """Earlier counts plus `since` give the later ones."""
    refused = RefusedEvents(*map(sum, zip(earlier.refused, news.refused, strict=True)))
    later = QueueCounters(earlier.put + news.put, refused, earlier.discarded + news.discarded)
    assert news == later.since(earlier)
    assert QueueCounters() == later.since(later)


@given(snapshots)
def test_a_snapshot_does_not_change_and_can_be_sent(counters: QueueCounters) -> None:
    """Counters are hashable and can be pickled."""
    assert {counters: 1}[pickle.loads(pickle.dumps(counters))] == 1
    with pytest.raises(AttributeError):
        counters.put = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# --- the tally ---


@given(st.lists(st.sampled_from([-1, 0]) | st.integers(0, 3_000)))
def test_a_tally_counts(steps: list[int]) -> None:
    """The value is exact, whether events are counted singly or in bulk, and however often it is read."""
    tally, expected = Tally(), 0
    for step in steps:
        if step < 0:
            tally.fresh.append(None)
            tally.add_up()
        else:
            tally.add(step)
        expected += abs(step)
        if step % 2 == 0:
            assert expected == tally.value
    assert expected == tally.value


def test_a_tally_stays_small() -> None:
    """The list is short again if it is added up now and then, also if no one reads the value."""
    tally = Tally()
    for _ in range(100):
        for _ in range(100):
            tally.fresh.append(None)
        tally.add_up()
    assert len(tally.fresh) <= 1_100
    assert tally.value == 10_000


class Busy(list[None]):
    """A list to which another thread appends whenever someone has asked for its length."""

    def __len__(self) -> int:
        length = super().__len__()
        self.append(None)
        return length


@given(st.lists(st.integers(0, 1_500), max_size=5))
def test_what_is_counted_while_counts_are_added_up_stays(steps: list[int]) -> None:
    """A count during the sum is in the next value."""
    tally = Tally()
    tally.fresh = busy = Busy()
    appended = 0
    for step in steps:
        busy += [None] * step
        appended += step + 2
        assert appended == tally.value + 1  # the last one isn't counted yet


class Interrupted(list[None]):
    """A list that a signal handler uses when the program has asked for its length so many times."""

    def __init__(self, tally: Tally, at: int) -> None:
        super().__init__()
        self.tally = tally
        self.at = at
        self.asked = 0

    def __len__(self) -> int:
        length = super().__len__()
        self.asked += 1
        if self.asked == self.at:
            self.tally.add(2_000)
            assert self.tally.value >= 2_000
        return length


@given(st.integers(1, 12), st.lists(st.integers(0, 1_500), min_size=4, max_size=4))
def test_a_signal_handler_may_count_and_read_while_its_thread_adds_up(at: int, steps: list[int]) -> None:
    """A handler sees at least its own counts, and none counts twice."""
    tally = Tally()
    tally.fresh = busy = Interrupted(tally, at)
    for step in steps:
        busy += [None] * step
        tally.add_up()
        assert tally.value <= sum(steps) + 2_000
    while busy.asked < at:
        tally.add_up()
    assert sum(steps) + 2_000 == tally.value


def test_threads_lose_no_count_and_see_none_go_down() -> None:
    """While threads count and add up, others read; a signal handler does both in between."""
    tally, going = Tally(), True
    handled: list[object] = []  # a sum might lose one, as another signal may interrupt the handler
    seen: list[list[int]] = [[] for _ in range(2)]

    def count() -> None:
        for number in range(20_000):
            tally.fresh.append(None)
            if number % 50 == 0:
                tally.add_up()

    def read(values: list[int]) -> None:
        while going:
            values.append(tally.value)

    def handle(*arguments: object) -> None:
        tally.fresh.append(None)
        tally.add(1_500)
        handled.append(arguments)  # at the end, likewise
        least = 1_501 * len(handled)  # before the value is read, as another signal may come in between
        assert tally.value >= least

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        readers = [threading.Thread(target=read, args=(values,)) for values in seen]
        counters = [threading.Thread(target=count) for _ in range(4)]
        for thread in [*readers, *counters]:
            thread.start()
        count()
        for thread in counters:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        going = False
    for thread in readers:
        thread.join()
    assert 5 * 20_000 + 1_501 * len(handled) == tally.value
    assert all(values == sorted(values) for values in seen)
