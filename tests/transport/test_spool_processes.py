"""Services with a spool and what their processes do: forks, threads, signals, kills, descriptors."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import baseplate_events.events
from baseplate_events.transport.spool import SpoolTransport
from tests.support.forks import library_fork
from tests.support.queues import event_of, outlast_trust
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_services import (
    STEPS,
    TINY,
    Putters,
    WatchedQueue,
    check_exit,
    files_in,
    forked,
    open_queue,
    read_all,
    spool_of,
)
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from types import FrameType

#: Python from 3.12 on warns of forks in a process with threads: that is what these tests are about.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]


# --- forks ---


@pytest.mark.usefixtures("tiny_segments")
def test_children_of_a_thread_put_while_others_do(tmp_path: Path) -> None:
    """A thread forks children, which put in threads of their own, while others put: nothing is lost."""
    children, events = 20, 30
    with open_queue(tmp_path) as queue:

        def run_child(child: int) -> None:
            def put(who: bytes) -> None:
                for number in range(events):
                    queue.put(b"{child %d %b %d}" % (child, who, number))

            thread = threading.Thread(target=put, args=(b"{thread}",))
            thread.start()
            put(b"{main}")
            thread.join()

        def fork_all() -> None:
            for child in range(children):
                check_exit(forked(lambda: run_child(child)))  # noqa: B023 - it ends before the next begins

        with Putters(queue) as putters:
            putters.wait_for_each(1)
            forker = threading.Thread(target=fork_all)
            forker.start()
            forker.join()
            putters.wait_for_each(100)
    arrived = read_all(tmp_path)
    of_children = [
        b"{child %d %b %d}" % (child, who, number)
        for child in range(children)
        for who in (b"{thread}", b"{main}")
        for number in range(events)
    ]
    assert Counter([*putters.all_put, *of_children]) == Counter(arrived)


@pytest.fixture
def fork() -> Generator[Callable[[], int]]:
    """The fork of the C library."""
    with library_fork() as fork:
        yield fork


@pytest.mark.usefixtures("tiny_segments")
def test_a_fork_that_bypasses_python(tmp_path: Path, fork: Callable[[], int]) -> None:
    """Children of `fork` of the C library put while threads of their parent are in puts: nothing is lost."""
    children, events, threads = 20, 30, 3
    parking: list[bool] = []
    parked: list[str] = []
    steps: set[str] = set()
    wait, go_on = os.pipe()
    main = threading.get_ident()

    def park(step: str) -> None:
        if parking and threading.get_ident() != main:
            parked.append(step)
            os.read(wait, 1)

    with WatchedQueue(tmp_path, park) as queue, Putters(queue, threads) as putters:
        for child in range(children):
            putters.wait_for_each(child % 5 + 1)
            parking.append(True)
            wait_until(lambda: len(parked) == threads, "the threads don't put", interval=0.001)
            pid = fork()
            if not pid:
                status = 1
                try:
                    for number in range(events):
                        queue.put(b"{child %d %d}" % (child, number))
                    status = 0
                finally:
                    os._exit(status)
            check_exit(pid)
            steps.update(parked)
            parking.clear()
            parked.clear()
            os.write(go_on, b"." * threads)
    os.close(wait)
    os.close(go_on)
    assert len(steps) > 2, "forks are always at the same step"
    arrived = read_all(tmp_path)
    of_children = [
        b"{child %d %d}" % (child, number) for child in range(children) for number in range(events)
    ]
    assert Counter([*putters.all_put, *of_children]) == Counter(arrived)


def test_a_fork_while_a_segment_takes_its_place(tmp_path: Path, fork: Callable[[], int]) -> None:
    """A child starts a segment although a thread of its parent has the lock for that, and isn't in it."""
    with open_queue(tmp_path) as queue:
        transport = queue._queue  # pyright: ignore[reportPrivateUsage]
        assert isinstance(transport, SpoolTransport)
        lock = transport._writer._replacing.get()  # pyright: ignore[reportPrivateUsage]
        held, forked_it = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                forked_it.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        pid = fork()
        if not pid:
            signal.alarm(10)  # ends a child that waits for the lock
            queue.put(b"{child}")
            os._exit(0)
        forked_it.set()
        thread.join()
        check_exit(pid)
    assert [b"{child}"] == read_all(tmp_path)


def test_a_forked_child_goes_on_in_the_segment_of_its_parent(tmp_path: Path) -> None:
    """Parent, child and grandchild append to one file, also after the others have closed it or ended."""
    with open_queue(tmp_path) as queue:
        queue.put(b"{parent}")

        def run_child() -> None:
            queue.put(b"{child}")
            check_exit(forked(lambda: queue.put(b"{grandchild}")))
            queue.put(b"{child again}")

        check_exit(forked(run_child))
        queue.put(b"{parent again}")
        assert len(files_in(tmp_path)) == 1
        release, wait = os.pipe()[::-1]

        def run_orphan() -> None:
            os.close(release)
            os.read(wait, 1)  # until its parent has closed the queue
            queue.put(b"{orphan}")

        orphan = forked(run_orphan)
        queue.close()
        with SpoolFileReader(spool_of(tmp_path)) as reader:
            assert reader.read() == 1  # the child has it open
        os.close(release)
        os.close(wait)
        check_exit(orphan)
    arrived = read_all(tmp_path)
    assert [
        b"{parent}",
        b"{child}",
        b"{grandchild}",
        b"{child again}",
        b"{parent again}",
        b"{orphan}",
    ] == arrived


# --- kills and stops, at each step ---


def watch(directory: Path, when: str, what: Callable[[str], object]) -> WatchedQueue:
    """Open a queue with a hook before or after each step."""
    return WatchedQueue(directory, what) if when == "before" else WatchedQueue(directory, after=what)


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_costs_no_event(tmp_path: Path, step: str, when: str) -> None:
    """A service is killed while it starts a segment: what it put is there, and nothing is left over."""
    armed: list[bool] = []

    def kill(now: str) -> None:
        if armed and now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        queue = watch(tmp_path, when, kill)
        for event in (b"{0}", b"{1}"):
            queue.put(event)
        armed.append(True)
        queue.put(event_of(TINY))  # which doesn't fit into the segment

    child = forked(run)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    visible = [event_of(TINY)] if (step, when) == ("publish", "after") else []
    assert [b"{0}", b"{1}", *visible] == read_all(tmp_path)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_reader_during_a_stop_at_any_step_costs_no_event(tmp_path: Path, step: str, when: str) -> None:
    """A reader reads and deletes what it may while a service is stopped in the start of a segment."""
    stops: list[bool] = [True]

    def stop(now: str) -> None:
        if now == step and stops:
            stops.clear()
            os.kill(os.getpid(), signal.SIGSTOP)

    def run() -> None:
        queue = watch(tmp_path, when, stop)
        queue.put(b"{first}")
        outlast_trust()
        queue.put(b"{second}")

    open_queue(tmp_path).close()  # makes the folder
    child = forked(run)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    with SpoolFileReader(spool_of(tmp_path)) as reader:
        reader.read()
        assert reader.removed == ((step, when) in {("create", "after"), ("lock", "before")})
        os.kill(child, signal.SIGCONT)
        check_exit(child)
        assert [b"{first}", b"{second}"] == reader.drain()
        assert (reader.grown, reader.vanished) == (0, 0)
    assert files_in(tmp_path) == []


# --- signals ---


@pytest.mark.usefixtures("tiny_segments")
@pytest.mark.parametrize("size", [20, 1_200])
def test_a_put_at_any_line_of_a_put(tmp_path: Path, size: int) -> None:
    """A handler that puts may interrupt a put that starts a segment anywhere: each event arrives once."""
    package = os.path.dirname(baseplate_events.events.__file__)  # noqa: PTH120 - as code objects have it
    put: list[bytes] = []
    with open_queue(tmp_path) as queue, SpoolFileReader(spool_of(tmp_path)) as reader:

        def put_one(kind: bytes, number: int, size: int) -> None:
            event = b"{%b}" % (b"%b %d " % (kind, number)).ljust(size - 2, b".")
            queue.put(event)
            put.append(event)

        line = 0
        reached = True
        before = sys.gettrace()
        while reached:
            line += 1
            reached = False
            lines = 0

            def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
                nonlocal lines, reached
                del argument
                if not frame.f_code.co_filename.startswith(package):
                    return None
                if event == "line":
                    lines += 1
                    if lines == line:  # noqa: B023 - it is removed before the next line is tried
                        reached = True
                        put_one(b"nested", line, size)  # noqa: B023 - likewise
                return trace

            sys.settrace(trace)
            try:
                put_one(b"outer", line, 1_200)
            finally:
                sys.settrace(before)
            reader.read()  # to have the same to do in each turn
        queue.close()
        arrived = reader.drain()
    assert line > 100, "the put was not traced"
    assert Counter(put) == Counter(arrived)


@pytest.mark.usefixtures("tiny_segments")
def test_a_put_in_a_signal_handler(tmp_path: Path) -> None:
    """Some thousand signals, each of whose handlers puts, interrupt puts: each event arrives once."""
    wanted = 5_000
    chance = random.Random(5)
    handled: list[bytes] = []
    put: list[bytes] = []
    with open_queue(tmp_path) as queue:

        def handle(number: int, frame: FrameType | None) -> None:
            del number, frame
            event = b"{handler %d}" % len(handled)
            queue.put(event)
            handled.append(event)
            if len(handled) < wanted:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-6, 60e-6))

        before = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6)
            while len(handled) < wanted:
                event = b"{main %d}" % len(put)
                queue.put(event)
                put.append(event)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    arrived = read_all(tmp_path)
    assert Counter([*put, *handled]) == Counter(arrived)
    assert put == [event for event in arrived if event.startswith(b"{main")]


# --- descriptors that a program closes ---


def reuse_numbers(folder: Path, count: int) -> list[int]:
    """Open so many files, which get the lowest free numbers."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    return [os.open(folder / f"mine {number}", flags, 0o600) for number in range(count)]


def check_closed_descriptors(directory: Path, own: Path, threads: int) -> None:
    """Close all descriptors below a running writer, reuse their numbers, and go on."""
    # Threads start segments as soon as theirs is closed. These numbers are closed before, so that none of the
    # new descriptors is among those that are yet to be closed.
    for _ in range(50):
        os.open(os.devnull, os.O_RDONLY)
    queue = open_queue(directory)
    with Putters(queue, threads) as putters:
        putters.wait_for_each(100)
        os.closerange(3, 256)
        mine = reuse_numbers(own, 200)
        known = [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in mine]
        outlast_trust()
        putters.wait_for_each(2)  # so that each began one after that
        sizes = [os.fstat(fd).st_size for fd in mine]
        putters.wait_for_each(1_000)
        assert sizes == [os.fstat(fd).st_size for fd in mine]
        assert known == [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in mine]
    queue.close()
    assert known == [(os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in mine]
    strays = b"".join(file.read_bytes() for file in own.iterdir())
    with SpoolFileReader(spool_of(directory)) as reader:
        arrived = Counter(reader.drain())
        assert reader.torn == 0
    assert not arrived - Counter(putters.all_put)
    # What is missing went into files of the test in the millisecond of trust.
    assert [] == [event for event in Counter(putters.all_put) - arrived if event not in strays]


@pytest.mark.parametrize("threads", [1, 3])
def test_descriptors_are_closed_below_a_running_writer(tmp_path: Path, threads: int) -> None:
    """After the millisecond of trust no other file is written to or closed, and events arrive."""
    for turn in range(3):
        directory, own = tmp_path / f"spool {turn}", tmp_path / f"own {turn}"
        directory.mkdir()
        own.mkdir()
        check_exit(forked(lambda: check_closed_descriptors(directory, own, threads)))  # noqa: B023 - it waits


def test_descriptors_are_closed_between_puts(tmp_path: Path) -> None:
    """A daemonizer closes all descriptors, and other files get their numbers: not a byte goes there."""

    def run() -> None:
        (tmp_path / "spool").mkdir()
        with open_queue(tmp_path / "spool") as queue:
            queue.put(b"{before}")
            os.closerange(3, 256)
            mine = reuse_numbers(tmp_path, 200)
            outlast_trust()
            for number in range(100):
                queue.put(b"{%d}" % number)
        assert [0] * len(mine) == [os.fstat(fd).st_size for fd in mine]
        assert [b"{before}", *(b"{%d}" % number for number in range(100))] == read_all(tmp_path / "spool")

    check_exit(forked(run))


def test_a_descriptor_that_is_closed_with_the_queue_was_its_own(tmp_path: Path) -> None:
    """A queue whose descriptor became another file's leaves that open when it is closed, however soon."""

    def run() -> None:
        (tmp_path / "spool").mkdir()
        queue = open_queue(tmp_path / "spool")
        queue.put(b"{before}")
        os.closerange(3, 256)
        mine = reuse_numbers(tmp_path, 200)
        queue.close()
        del queue
        assert [0] * len(mine) == [os.fstat(fd).st_size for fd in mine]
        assert [b"{before}"] == read_all(tmp_path / "spool")

    check_exit(forked(run))
