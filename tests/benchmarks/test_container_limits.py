"""The benchmark of containers at a tiny scale, and that it counts lost events."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, EventQueueFullError, serialize_v2j_event
from benchmarks import container_limits, container_pod
from benchmarks.container_pod import Arrivals
from benchmarks.container_service import (
    BareWriter,
    Event,
    Load,
    make_event,
    make_noises,
    put_all,
    run,
)
from benchmarks.scale import Scale

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOISE = make_noises(1)[0]
EVENTS = st.tuples(st.integers(0, 1), st.integers(0, 9))


def test_the_benchmark_runs() -> None:
    """Each row has a cell for each head; nothing is refused or lost; both claims have a target."""
    table = container_limits.run(Scale.TINY)
    assert table.rows
    assert all(len(row) == len(table.head) for row in table.rows)
    assert table.targets[0].reached
    assert table.targets[1].bound == 2.0
    assert str(table).count("\n|") == len(table.rows) + 2


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=5), max_size=5)
)
def test_all_events_that_arrive_are_counted(batches: list[list[tuple[int, int]]]) -> None:
    """Events are identified by lane and number; duplicates are counted."""
    bodies = [
        gzip.compress(b"[%b]" % b",".join(serialize_v2j_event(make_event(*each, NOISE)) for each in batch))
        for batch in batches
    ]
    events = [event for batch in batches for event in batch]
    arrivals = Arrivals(bodies)
    arrivals.wait_for(len(set(events)))
    assert arrivals.count == len(events)
    assert sum(map(len, arrivals.numbers)) == len(set(events))


def test_what_does_not_come_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for more events than there are ends."""
    monkeypatch.setattr(container_pod, "SILENCE", 0.0)
    arrivals = Arrivals([])
    arrivals.wait_for(1)
    assert arrivals.numbers == [set(), set()]


@given(st.sets(st.integers(0, 9)))
def test_refused_events_are_named(full: set[int]) -> None:
    """A service reports which of its events were refused."""
    events = [make_event(0, number, NOISE) for number in range(10)]

    def put(event: Event) -> None:
        if events.index(event) in full:
            raise EventQueueFullError("/events-test", 10)

    assert put_all(put, events) == sorted(full)


def test_a_service_puts_what_it_is_asked_to(tmp_path: Path) -> None:
    """So many requests of so many events, and as many of bare writes, which leave no file behind."""
    with EventQueue("test", serialize_v2j_event, spool_directory=tmp_path) as queue:
        figures = run(queue, BareWriter(tmp_path), 1, Load(1_000.0, 7, 0.02))
    assert (figures["put"], figures["refused"]) == (140, [])
    assert [len(figures[who]) for who in ("ours", "bare")] == [20, 20]
    assert [path.name for path in tmp_path.iterdir()] == ["events-test"]
