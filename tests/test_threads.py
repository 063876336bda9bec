"""Threads share a queue: no event is lost, doubled or torn, and all counts are exact.

On a Python with a GIL threads take turns as often as possible. Without it, as in `tox -e free-threaded`, they
run at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from baseplate_events import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueFullError,
    EventTooLargeError,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.spool import writer
from tests.support.commands import IMPORTING, run
from tests.support.queues import EVENTS, FEW, SMALL, reader
from tests.support.schema_samples import PLAIN, rich_event
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_services import TINY, open_queue, read_all, spool_of
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

#: Threads that put, and how many events each puts.
THREADS: Final = 8
EACH: Final = 400


@pytest.fixture(autouse=True)
def _frequent_switches() -> Generator[None]:
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@contextlib.contextmanager
def threads(job: Callable[[int], object]) -> Generator[Callable[[], bool]]:
    """Call a function in many threads with their numbers; yield a function that says if one still runs.

    At the end of the block all have returned. An exception of a thread is raised there.
    """
    failures: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> None:
        barrier.wait()
        try:
            job(number)
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    started = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in started:
        thread.start()
    try:
        yield lambda: any(thread.is_alive() for thread in started)
    finally:
        for thread in started:
            thread.join()
    if failures:
        raise failures[0]


def event_of(thread: int, number: int) -> bytes:
    """Return an event that names its thread, and shows whether it is whole."""
    return b"{%d %d %b}" % (thread, number, b"abcdefghijklmnopqrstuvwxyz"[: number % 20])


def events_of_all(each: int = EACH) -> Counter[bytes]:
    """Return what the threads put."""
    return Counter(event_of(thread, number) for thread in range(THREADS) for number in range(each))


def check_order(arrived: Iterable[bytes]) -> None:
    """Check that the events of each thread are in order."""
    last = [-1] * THREADS
    for event in arrived:
        thread, number = map(int, event[1:].split(b" ")[:2])
        assert number > last[thread], f"thread {thread}: event {number} came after event {last[thread]}"
        last[thread] = number


def test_each_event_arrives_once_through_a_posix_queue(name: str) -> None:
    """Events of a thread are in order. Events that the full queue refused are counted, and put again."""
    queue = EventQueue(name, bytes, max_queue_size=FEW, max_event_size=SMALL)
    full = [0] * THREADS
    arrived: list[bytes] = []

    def put(thread: int) -> None:
        for number in range(EACH):
            while True:
                try:
                    queue.put(event_of(thread, number))
                    break
                except EventQueueFullError:
                    full[thread] += 1
                    os.sched_yield()

    with reader(EVENTS + name) as messages:
        with threads(put) as running:
            wait_until(lambda: all(full), "the queue isn't full")
            while running():
                arrived += itertools.islice(messages.drain(), 1)
        arrived += messages.drain()
    assert events_of_all() == Counter(arrived)
    check_order(arrived)
    assert {"full": sum(full)} == queue.refused


@pytest.mark.parametrize("segment_size", [TINY, writer.MIN_SEGMENT_SIZE])
def test_each_event_arrives_once_through_a_spool(
    tmp_path: Path, segment_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost while segments start all the time, and a reader deletes finished ones."""
    monkeypatch.setattr(writer, "MIN_SEGMENT_SIZE", segment_size)
    monkeypatch.setattr(writer, "SEGMENTS", 1 << 40)
    queue = open_queue(tmp_path)

    def put(thread: int) -> None:
        events = [event_of(thread, number) for number in range(EACH)]
        while events:
            queue.put(events.pop(0))
            queue.put_many(events[: thread // 2])
            del events[: thread // 2]

    with SpoolFileReader(spool_of(tmp_path)) as messages:
        with threads(put) as running:
            while running():
                messages.read()
        queue.close()
        assert events_of_all() == Counter(messages.drain())
        assert (messages.torn, messages.grown) == (0, 0)
    assert queue.refused == {}


def test_events_of_a_thread_are_in_order_in_a_spool(tmp_path: Path) -> None:
    """Nothing is lost if threads start segments at the same moment, as with their first events."""
    each = 6
    for turn in range(100):
        directory = tmp_path / str(turn)
        directory.mkdir()
        queue = open_queue(directory)

        def put(thread: int) -> None:
            for number in range(each):
                queue.put(event_of(thread, number))  # noqa: B023 - it ends before the next begins

        with threads(put):
            pass
        queue.close()
        arrived = read_all(directory)
        assert events_of_all(each) == Counter(arrived)
        check_order(arrived)


def test_refusals_are_counted_exactly(tmp_path: Path) -> None:
    """Refusals are exact per reason, in the queue and in the control records of the spool."""

    def serialize(event: bytes) -> bytes:
        if event == b"fail":
            raise ValueError
        return event

    queue = EventQueue("test", serialize, spool_directory=tmp_path, max_event_size=SMALL, strict_size=True)
    bad = (
        (b"", EventEmptyError),
        (b"{%b}" % (b"x" * SMALL), EventTooLargeError),
        (b"fail", EventNotSerializableError),
    )

    def put(thread: int) -> None:
        for number in range(EACH):
            event, error = bad[(thread + number) % len(bad)]
            with contextlib.suppress(error):
                queue.put(event)
            if number % 3 == 0:
                with pytest.raises(EventTooLargeError):
                    queue.put_many([b"{x}", bad[1][0], b"{y}"])
            if number % 5 == 0:
                queue.put(event_of(thread, number))

    with threads(put):
        pass
    queue.put(b"{last}")
    queue.close()
    reasons = ("empty", "too_large", "not_serializable")
    expected = Counter(
        reasons[(thread + number) % 3] for thread in range(THREADS) for number in range(EACH)
    ) + Counter({"too_large": THREADS * 3 * len(range(0, EACH, 3))})
    assert expected == queue.refused
    with SpoolFileReader(spool_of(tmp_path)) as messages:
        arrived = messages.drain()
        assert expected == messages.refusals
    assert len(arrived) == THREADS * len(range(0, EACH, 5)) + 1


def test_threads_share_a_class_that_is_new() -> None:
    """All threads get the right bytes, whichever serializes the first event of a class."""
    fields = {"action": "click", "number": 1, "tags": ["a", "b"]}
    wanted = serialize_v2_event(rich_event()), serialize_v2j_event(fields)
    for _ in range(30):
        thrift: Any = type("Fresh", (PLAIN.RichEvent,), {})
        record: Any = dataclasses.make_dataclass("Fresh", fields)
        results: list[tuple[bytes, bytes]] = []

        def work(_: int) -> None:
            results.append(  # noqa: B023 - it ends before the next begins
                (
                    serialize_v2_event(thrift(**vars(rich_event()))),  # noqa: B023
                    serialize_v2j_event(record(**fields)),  # noqa: B023
                )
            )

        with threads(work):
            pass
        assert [wanted] * THREADS == results


def test_a_queue_can_be_closed_while_threads_put(tmp_path: Path, name: str) -> None:
    """Each event is in the queue, or its put said that the queue was closed."""
    queues = (
        EventQueue(name, bytes, max_queue_size=FEW, max_event_size=SMALL, put_timeout=30.0),
        open_queue(tmp_path),
    )
    for queue in queues:
        put: list[list[bytes]] = [[] for _ in range(THREADS)]

        def work(thread: int) -> None:
            with contextlib.suppress(EventError):
                for number in range(EACH * 100):
                    queue.put(event_of(thread, number))  # noqa: B023 - it ends before the next begins
                    put[thread].append(event_of(thread, number))  # noqa: B023

        arrived: list[bytes] = []
        with reader(EVENTS + name) as messages:
            with threads(work) as running:
                while running():
                    arrived += messages.drain()
                    if all(len(events) > 20 for events in put):
                        queue.close()
            arrived += messages.drain()
        if queue is queues[1]:
            arrived = read_all(tmp_path)
        assert Counter(event for events in put for event in events) == Counter(arrived)


#: A service whose queue is made by a thread that ends, waits, or goes on putting while the interpreter ends.
SERVICE: Final = """
import sys, threading
from baseplate_events import EventError, EventQueue

name, directory, then = sys.argv[1:]
enabled = getattr(sys, "_is_gil_enabled", lambda: True)
before = enabled()
made = threading.Barrier(3)

def make():
    global queue
    queue = EventQueue(
        name, bytes, max_queue_size=4, max_event_size=32, spool_directory=directory or None, strict_size=True
    )
    put(queue)
    made.wait()
    if then == "wait":
        threading.Event().wait()
    while then == "put":
        put(queue)

def put(queue):
    try:
        queue.put(b"event")
    except EventError:
        pass

threads = [threading.Thread(target=make, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
made.wait()
assert not directory or enabled() == before
"""


@pytest.mark.unmeasured
@pytest.mark.parametrize("then", ["end", "wait", "put"])
@pytest.mark.parametrize("transport", ["posix", "spool"])
def test_nothing_is_said_when_the_interpreter_ends(
    tmp_path: Path, name: str, transport: str, then: str
) -> None:
    """Nothing is written at exit or import; with a spool, free-threaded Python keeps its GIL off."""
    directory = str(tmp_path) if transport == "spool" else ""
    # What free-threaded Python does unless its GIL is disabled explicitly.
    environ = {**IMPORTING, "PYTHON_GIL": ""}
    done = run(sys.executable, "-W", "error", "-c", SERVICE, name, directory, then, environ=environ)
    assert (done.status, done.err) == (0, "")
