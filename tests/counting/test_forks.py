"""What belongs to a process: a forked child starts with its own, whoever forked it."""

from __future__ import annotations

import math
import mmap
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, EventQueueFullError, QueueCounters, RefusedEvents
from baseplate_events.counting import forks
from baseplate_events.counting.forks import OfProcess
from baseplate_events.testing import InMemoryEventQueue
from tests.support.examples import examples
from tests.support.forks import FORKS, in_child, python_fork
from tests.support.queues import EVENTS, FEW, SMALL, reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from baseplate_events.counting.forks import Cell

pytestmark = pytest.mark.unmeasured


def fail(*_: object, **__: object) -> NoReturn:
    """Stand in for a kernel that clears no memory."""
    raise OSError


def page() -> Cell:
    """Return memory that the kernel clears."""
    cell = forks._new_cell()  # pyright: ignore[reportPrivateUsage]
    assert sys.platform != "linux" or isinstance(cell, mmap.mmap)
    return cell


def number() -> Cell:
    """Return what other systems have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmap, "mmap", fail)
        cell = forks._new_cell()  # pyright: ignore[reportPrivateUsage]
    assert not isinstance(cell, mmap.mmap)
    return cell


@examples(20)
@given(
    st.sampled_from([page, number]),
    st.lists(st.tuples(st.sampled_from(sorted(FORKS)), st.integers(0, 3)), max_size=4),
)
def test_each_generation_starts_anew(make: Callable[[], Cell], generations: list[tuple[str, int]]) -> None:
    """Whether or not the value was used, and whoever forked: a child never sees what an ancestor had."""
    values = OfProcess(list[None], make())

    def live(left: list[tuple[str, int]]) -> bool:
        if not left:
            return values.get() == []
        (who, uses), *others = left
        for used in range(uses):
            if len(values.get()) != used:
                return False
            values.get().append(None)
        with FORKS[who]() as fork:
            held = in_child(lambda: live(others), fork)
        return held and len(values.get()) == uses

    assert live(generations)


def test_generations_are_more_than_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks come again after the last one; a value doesn't."""
    monkeypatch.setattr(forks, "_MOST", 2)
    cell = bytearray(1)
    values = OfProcess(list[int], cell)
    for generation in range(7):
        assert values.get() == []
        values.get().append(generation)
        assert values.get() == [generation]
        cell[0] = 0  # what a fork does


def test_numbers_of_processes_dont_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a namespace of its own, a child may have its parent's number."""
    values = OfProcess(list[None], page())
    values.get().append(None)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert in_child(lambda: values.get() == [])
    assert values.get() == [None]


class Interrupted(bytearray):
    """A cell at whose accesses, from a certain one on, other code runs first, once."""

    countdown = 0

    def interrupt(self) -> None:
        """Do nothing, until a test has something to do."""

    def _count(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            self.interrupt()

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        self._count()
        return super().__getitem__(index)

    def __setitem__(self, index: int, value: int) -> None:  # type: ignore[override]
        self._count()
        super().__setitem__(index, value)


@pytest.mark.parametrize("at", [1, 2])
def test_all_who_are_first_get_the_same(at: int) -> None:
    """Another thread, or a signal handler, may ask in between any two steps of the first one."""
    cell = Interrupted(1)
    values = OfProcess(list[None], cell)
    inherited, others = values.get(), list[list[None]]()
    cell[0] = 0
    cell.interrupt = lambda: others.append(values.get())  # type: ignore[method-assign]
    cell.countdown = at
    mine = values.get()
    assert mine is not inherited
    assert all(mine is other for other in [*others, values.get()])
    assert len(others) == 1


def test_threads_of_a_child_get_the_same() -> None:
    """However many ask first; after a fork that Python doesn't know of, it promises nothing for threads."""
    values = OfProcess(list[None])
    values.get().append(None)

    def ask() -> bool:
        sys.setswitchinterval(1e-6)
        barrier, seen = threading.Barrier(8), list[list[None]]()

        def get() -> None:
            barrier.wait()
            seen.append(values.get())

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return all(value is seen[0] for value in seen) and seen[0] == []

    with python_fork() as fork:
        assert all(in_child(ask, fork) for _ in range(20))


# --- queues ---


@pytest.mark.parametrize("who", FORKS)
@pytest.mark.parametrize("kind", ["posix", "spool", "memory", "off"])
def test_a_queue_counts_exactly_in_a_child(kind: str, who: str, name: str, tmp_path: Path) -> None:
    """Also what the child puts at once, while it may still trust what its parent looked at."""
    queue: EventQueue[bytes] = (InMemoryEventQueue if kind == "memory" else EventQueue)(
        name,
        bytes,
        max_queue_size=FEW,
        max_event_size=SMALL,
        spool_directory=tmp_path if kind == "spool" else None,
        enabled=kind != "off",
    )

    def counters(taken: int, refused: int) -> QueueCounters:
        return QueueCounters(
            put=0 if kind == "off" else taken,
            refused=RefusedEvents(empty=0 if kind == "off" else refused),
            discarded=taken + refused if kind == "off" else 0,
        )

    def put(events: list[bytes]) -> None:
        queue._queue.trusted_until = math.inf  # pyright: ignore[reportPrivateUsage]
        for event in events:
            queue.try_put(event)

    def live() -> bool:
        put([b"{x}", b""])
        return queue.counters() == counters(1, 1)

    with queue, FORKS[who]() as fork:
        put([b"", b"", b"{x}"])
        assert in_child(live, fork)
        put([b"{x}"])
        assert queue.counters() == counters(2, 2)


def test_a_child_that_only_looks_has_no_counts(name: str) -> None:
    """Nor does what it inherited come back later."""
    queue = EventQueue(name, bytes, max_queue_size=1, max_event_size=SMALL)
    with queue, FORKS["library"]() as fork, reader(EVENTS + name) as other:
        queue.put(b"{x}")

        def look() -> bool:
            before = queue.counters()
            with pytest.raises(EventQueueFullError):
                queue.put(b"{x}")
            other.get()
            queue.put(b"{x}")
            return before == QueueCounters() and queue.counters() == QueueCounters(1, RefusedEvents(full=1))

        assert in_child(look, fork)
        assert queue.counters() == QueueCounters(1)
