from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine.cuts.oracle import (
    Outcome,
    Report,
    broken_promises,
    compare,
    covered,
    parse_reports,
    parse_syncs,
)
from tests.machine.cuts.plan import Kind, Way, plan
from tests.machine.guest.numbered import MAX_EVENT_SIZE, numbered

SERIES = "cut-1-2"
WHOLE = Outcome(100, 90, 90, 0, 0, 0.0, 0.0, 0, 0, 0)


def reports(count: int, held: int = 0) -> list[Report]:
    """Report an event each second."""
    return [Report(number, min(number, held), float(number)) for number in range(1, count + 1)]


def arrivals(*numbers: int) -> list[bytes]:
    """Return events of the series."""
    return [numbered(SERIES, number) for number in numbers]


@given(
    count=st.integers(1, 30),
    held=st.integers(0, 5),
    arrived=st.lists(st.integers(1, 35)),
    damaged=st.lists(st.binary(max_size=30) | st.just(numbered("cut-1-3", 1)), max_size=3),
)
def test_every_event_is_accounted_for(
    count: int, held: int, arrived: list[int], damaged: list[bytes]
) -> None:
    """What was received either arrived or is lost; what the queue held is neither."""
    outcome = compare(SERIES, reports(count, held), count + 1.0, [*arrivals(*arrived), *damaged])
    received = max(0, count - held)
    lost = set(range(1, received + 1)) - set(arrived)
    assert (count, received) == (outcome.put, outcome.received)
    assert (received - len(lost), len(lost)) == (outcome.delivered, outcome.lost)
    assert sum(number < max(arrived, default=0) for number in lost) == outcome.holes
    assert len(arrived) - len(set(arrived)) == outcome.duplicates
    assert len(damaged) == outcome.damaged
    assert (outcome.oldest > 0) == bool(lost)


def test_the_oldest_lost_event_counts() -> None:
    """Its age is from when it was received: here four more had been put by then."""
    assert 10.0 == compare(SERIES, reports(20), 20.0, arrivals(*range(1, 10))).oldest
    assert 6.0 == compare(SERIES, reports(20, held=4), 20.0, arrivals(*range(1, 10))).oldest


@given(number=st.integers(1, 100_000))
def test_an_event_that_was_changed_is_damaged(number: int) -> None:
    """A single other byte is enough."""
    event = numbered(SERIES, number)
    assert len(event) <= MAX_EVENT_SIZE
    changed = event[:-2] + b'0"}' if event[-3:] != b'0"}' else event[:-3] + b'1"}'
    assert 1 == compare(SERIES, reports(1), 1.0, [changed]).damaged


def test_a_report_that_was_cut_off_is_ignored() -> None:
    """Only whole lines count."""
    assert [Report(1, 0, 2.5), Report(2, 1, 3.0)] == parse_reports("1 0 2.5\n2 1 3.0\n3 1 4")
    assert [] == parse_reports("1 0 2.")


#: What the kernel of the machine writes.
TRACE = """\
traced
          python-317     [000] ...1.    31.622049: sys_fdatasync(fd: e)
          python-320     [000] ...1.    31.625000: sys_fsync(fd: 3)
          python-317     [000] ...1.    31.629381: sys_fdatasync -> 0x0
          python-317     [000] ...1.    31.717899: sys_fdatasync(fd: d)
          python-317     [000] ...1.    31.7"""


def test_the_trace_of_syncs_is_read() -> None:
    """A sync ends with that of its process; those without an end ran until the cut."""
    assert [(31.622049, 31.629381), (31.625, math.inf), (31.717899, math.inf)] == parse_syncs(TRACE)
    assert [] == parse_syncs("")


@given(
    periods=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6),
    begin=st.integers(0, 30),
    end=st.integers(0, 30),
)
def test_overlapping_periods_count_once(periods: list[tuple[int, int]], begin: int, end: int) -> None:
    """Each second of the time in question counts if it is in at least one of the periods."""
    wanted = sum(any(first <= second < last for first, last in periods) for second in range(begin, end))
    assert wanted == covered(periods, begin, end)


def test_only_the_time_since_the_oldest_lost_event_is_busy() -> None:
    """Here it is lost from 10 seconds after the begin on, until the cut at 20."""
    excused = [(3.0, 11.5), (11.0, 12.0), (19.0, math.inf)]
    assert 3.0 == compare(SERIES, reports(20), 20.0, arrivals(*range(1, 10)), excused).busy
    assert 0.0 == compare(SERIES, reports(20), 20.0, arrivals(*range(1, 21)), excused).busy


@pytest.mark.parametrize(
    ("fsync", "way", "kind", "lost", "oldest", "busy", "damaged", "broken"),
    [
        ("never", Way.SERVICE, Kind.WRITE, 50, 70.0, 0.0, 0, False),
        ("never", Way.SERVICE, Kind.WRITE, 0, 0.0, 0.0, 1, True),
        ("batch", Way.SERVICE, Kind.WRITE, 50, 1.5, 0.0, 0, False),
        ("batch", Way.SERVICE, Kind.WRITE, 50, 1.6, 0.0, 0, True),
        ("batch", Way.RELAY, Kind.WRITE, 50, 9.0, 7.4, 0, True),
        ("batch", Way.RELAY, Kind.WRITE, 50, 9.0, 7.6, 0, False),
        ("event", Way.SERVICE, Kind.WRITE, 50, 1.5, 0.0, 0, False),
        ("event", Way.SERVICE, Kind.WRITE, 50, 9.0, 0.0, 0, True),
        ("event", Way.RELAY, Kind.WRITE, 1, 9.0, 0.0, 0, False),
        ("event", Way.RELAY, Kind.WRITE, 2, 0.1, 0.1, 0, True),
        ("event", Way.RELAY, Kind.KILL, 1, 0.1, 0.0, 0, False),
        ("event", Way.RELAY, Kind.KILL, 2, 0.1, 0.0, 0, True),
        ("event", Way.RELAY, Kind.RESTART, 2, 0.1, 0.0, 0, False),
        ("event", Way.RELAY, Kind.RESTART, 3, 0.1, 0.0, 0, True),
    ],
)
def test_promises(
    fsync: str, way: Way, kind: Kind, lost: int, oldest: float, busy: float, damaged: int, broken: bool
) -> None:
    """Each `spool.fsync` promises something else."""
    cut = dataclasses.replace(plan(1)[0], fsync=fsync, way=way, kind=kind)
    outcome = dataclasses.replace(WHOLE, lost=lost, oldest=oldest, busy=busy, damaged=damaged)
    assert broken == bool(broken_promises(cut, outcome))
