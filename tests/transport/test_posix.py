from __future__ import annotations

import errno
import gc
import itertools
import logging
import os
import re
import resource
import select
import signal
import stat
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from baseplate_events.errors import (
    EventError,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
    EventTooLargeError,
)
from baseplate_events.transport import descriptor as descriptor_module
from baseplate_events.transport import limits as limits_module
from baseplate_events.transport.limits import QueueSize
from baseplate_events.transport.posix import MAX_NAME_SIZE, MAX_PRIORITY, MessageQueue, unlink_queue
from tests.support.commands import run
from tests.support.machines import check_machine
from tests.support.queues import (
    FEW,
    SMALL,
    as_user,
    bytes_of_queues,
    drain,
    fresh_name,
    needs_root,
    open_files,
    outlast_trust,
    producer,
    reader,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

#: A user that is neither root nor the owner of any queue.
NOBODY = 65_534


@pytest.fixture
def name() -> Generator[str]:
    """Give the name of a queue of the test's own."""
    with fresh_name() as name:
        yield name


class QueueMachine(RuleBasedStateMachine):
    """A real queue with two producers and a reader, against lists.

    Messages of a list are (negative priority, number): sorted, they are in the order in which they are got.
    """

    @initialize()
    def make(self) -> None:
        self.context = fresh_name()
        self.name = self.context.__enter__()
        self.reader = reader(self.name)
        self.producers = [producer(self.name), producer(self.name)]
        self.named: (
            list[tuple[int, bytes]] | None
        ) = []  # what the queue of the name holds, or None if there is none
        self.orphan: list[tuple[int, bytes]] | None = (
            None  # what the reader's queue holds if that was unlinked
        )
        self.number = 0

    def message(self, size: int) -> bytes:
        self.number += 1
        return str(self.number).encode().rjust(size, b"0")

    def expect_put(self, queue: MessageQueue, message: bytes, priority: int) -> None:
        before = self.named or []
        if len(before) == FEW:
            with pytest.raises(EventQueueFullError) as caught:
                queue.put(message, 0.0, priority)
            assert (self.name, FEW) == (caught.value.name, caught.value.capacity)
        else:
            queue.put(message, 0.0, priority)
            self.named = sorted([*before, (-priority, message)], key=lambda entry: entry[0])

    @rule(which=st.integers(0, 1), size=st.integers(4, SMALL), priority=st.sampled_from([0, 1, MAX_PRIORITY]))
    def put(self, which: int, size: int, priority: int) -> None:
        outlast_trust()
        self.expect_put(self.producers[which], self.message(size), priority)

    @rule(size=st.integers(4, SMALL), priority=st.integers(0, 2))
    def put_back(self, size: int, priority: int) -> None:
        outlast_trust()
        message = self.message(size)
        if self.orphan is None:
            self.expect_put(self.reader, message, priority)
        else:
            with pytest.raises(EventQueueRemovedError):
                self.reader.put(message, 0.0, priority)

    @rule(which=st.integers(0, 1), size=st.integers(SMALL + 1, 4 * SMALL))
    def put_too_large(self, which: int, size: int) -> None:
        outlast_trust()
        with pytest.raises(EventTooLargeError) as caught:
            self.producers[which].put(b"x" * size)
        assert (size, SMALL) == (caught.value.size, caught.value.limit)
        self.named = self.named or []  # the producer moved before

    @rule(which=st.integers(0, 1), priority=st.sampled_from([-1, MAX_PRIORITY + 1, 2**70]))
    def put_with_bad_priority(self, which: int, priority: int) -> None:
        outlast_trust()
        with pytest.raises(ValueError, match=r"priority must be from 0 to 32,767, not"):
            self.producers[which].put(b"x", 0.0, priority)
        self.named = self.named or []

    @rule()
    def get(self) -> None:
        held = self.named if self.orphan is None else self.orphan
        assert held is not None
        assert (held.pop(0)[1] if held else None) == self.reader.get()

    @rule(limit=st.integers(0, FEW + 1))
    def take_some(self, limit: int) -> None:
        held = self.named if self.orphan is None else self.orphan
        assert held is not None
        expected = [message for _, message in held[:limit]]
        del held[:limit]
        assert expected == list(itertools.islice(self.reader.drain(), limit))

    @precondition(lambda self: self.orphan is None)
    @rule()
    def unlink(self) -> None:
        self.orphan, self.named = self.named, None
        self.reader.unlink()

    @precondition(lambda self: self.orphan is not None)
    @rule()
    def empty_and_open_anew(self) -> None:
        assert self.orphan is not None
        fresh = reader(self.name)
        self.named = self.named or []
        assert [message for _, message in self.orphan] == drain(self.reader)
        self.reader.close()
        self.reader, self.orphan = fresh, None

    @rule(which=st.integers(0, 1))
    def open_another(self, which: int) -> None:
        self.producers[which].close()
        with pytest.raises(EventQueueClosedError):
            self.producers[which].put(b"x")
        self.producers[which] = producer(self.name)
        self.named = self.named or []

    @invariant()
    def reader_sees_the_model(self) -> None:
        held = self.named if self.orphan is None else self.orphan
        assert held is not None
        assert len(held) == self.reader.current_messages
        assert (self.orphan is not None) == self.reader.removed
        assert (self.reader.max_messages, self.reader.max_message_size) == (FEW, SMALL)

    def teardown(self) -> None:
        for queue in [self.reader, *self.producers]:
            queue.close()
        self.context.__exit__(None, None, None)


def test_a_queue_behaves_as_its_model() -> None:
    """A real queue, shared, filled, removed and opened anew in any order, holds what the model holds."""
    check_machine(QueueMachine, steps=30, examples=60)


@given(st.lists(st.binary(max_size=SMALL), max_size=FEW))
def test_messages_come_out_as_they_went_in(messages: list[bytes]) -> None:
    """Whatever bytes are put are got, the same and in the same order, empty ones too."""
    with fresh_name() as name, producer(name) as queue, reader(name) as other:
        for message in messages:
            queue.put(message)
        assert messages == drain(other)


def test_a_message_keeps_no_more_memory_than_its_bytes(name: str) -> None:
    """Many small messages, got from a queue of large ones, don't keep its large buffers allocated."""
    with reader(name, 2, 8_192) as queue:
        kept: list[bytes] = []
        before = _resident()
        for _ in range(3_000):
            queue.put(b"x" * 100)
            message = queue.get()
            assert message is not None
            kept.append(message)
        assert _resident() - before < 3_000 * 8_192 / 4


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_a_full_queue_is_told_without_waiting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timeout, a put on a full queue and a get on an empty one never poll."""
    monkeypatch.delattr(select, "poll")
    with reader(name) as queue:
        assert queue.get() is None
        for _ in range(FEW):
            queue.put(b"x")
        with pytest.raises(EventQueueFullError):
            queue.put(b"x")


@pytest.mark.parametrize("timeout", [0.0, 0.001, 0.15, -1.0, float("nan")])
def test_a_timeout_ends(name: str, timeout: float) -> None:
    """A put on a full queue and a get on an empty one give up when their time is over."""
    with reader(name) as queue:
        assert queue.get(timeout) is None
        for _ in range(FEW):
            queue.put(b"x")
        with pytest.raises(EventQueueFullError):
            queue.put(b"x", timeout)
        assert queue.current_messages == FEW


def test_waits_poll_through_the_select_module_of_the_moment(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait uses whatever `select.poll` is by then, since gevent replaces it, with event and bound."""
    waits: list[int] = []

    class Poll:
        def register(self, descriptor: int, event: int) -> None:
            assert queue.fileno() == descriptor
            waits.append(event)

        def poll(self, milliseconds: int) -> None:
            assert milliseconds <= 100 or waits[-1] == select.POLLIN
            if waits[-1] == select.POLLIN:
                queue.put(b"last")
            else:
                assert queue.get() == b"first"

    monkeypatch.setattr(select, "poll", Poll)
    with reader(name, max_messages=1) as queue:
        queue.put(b"first")
        queue.put(b"second", 60.0)
        assert queue.get() == b"second"
        assert queue.get(None) == b"last"
    assert waits == [select.POLLOUT, select.POLLIN]


def in_thread(function: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread that calls a function."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_a_put_waits_for_room(name: str) -> None:
    """A put with a timeout goes through as soon as the reader has made room."""
    with reader(name, max_messages=1) as queue, producer(name) as other:
        queue.put(b"first")
        thread = in_thread(other.put, b"second", 60.0)
        assert queue.get(60.0) == b"first"
        assert queue.get(60.0) == b"second"
        thread.join()


def test_a_put_that_waits_notices_that_its_queue_was_removed(name: str) -> None:
    """A put that waits for room in a queue that is unlinked meanwhile goes to the new queue of that name."""
    with reader(name, max_messages=1) as queue, producer(name) as other:
        queue.put(b"first")
        thread = in_thread(other.put, b"second", 60.0)
        queue.unlink()
        thread.join()
        assert drain(queue) == [b"first"]
        with reader(name) as fresh:
            assert drain(fresh) == [b"second"]


class Interruption(Exception):  # noqa: N818 - it is no error
    """What a signal handler raises."""


@pytest.fixture
def ticks() -> Generator[list[int]]:
    """Count the signals of a timer that fires every few milliseconds."""
    counted: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _frame: counted.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        yield counted
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_signals_do_not_end_a_wait(name: str, ticks: list[int]) -> None:
    """Signals that come while a get or a put waits are handled, and the wait goes on to its end."""
    with reader(name, max_messages=1) as queue:
        queue.put(b"first")
        while len(ticks) < 50:
            with pytest.raises(EventQueueFullError):
                queue.put(b"second", 0.02)
        assert queue.get(0.02) == b"first"
        while len(ticks) < 100:
            assert queue.get(0.02) is None


def test_what_a_signal_handler_raises_ends_a_wait(name: str) -> None:
    """An exception of a signal handler comes out of a get that waits for ever, and of a put that waits."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Interruption

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with reader(name, max_messages=1) as queue:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(Interruption):
                queue.get(None)
            queue.put(b"first")
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(Interruption):
                queue.put(b"second", 600.0)
            assert drain(queue) == [b"first"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("raised", [Interruption, TimeoutError, TypeError])
def test_what_a_signal_handler_raises_after_a_send_is_not_mistaken(
    name: str, raised: type[Exception]
) -> None:
    """An exception that comes when the message is sent comes out, and the message isn't sent again."""
    with reader(name) as queue:
        descriptor = queue.descriptor
        real_send, real_receive = descriptor.send, descriptor.receive

        def send(message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
            real_send(message, timeout, priority)
            raise raised

        def receive() -> tuple[bytes, int]:
            real_receive()
            raise raised

        descriptor.send = send
        with pytest.raises(raised):
            queue.put(b"once")
        with pytest.raises(raised):
            descriptor.try_send(b"twice", 0)
        assert queue.current_messages == 2
        descriptor.receive = receive
        with pytest.raises(raised):
            queue.get()
        with pytest.raises(raised):
            descriptor.try_receive()
        assert queue.current_messages == 0


def test_interrupted_calls_are_made_again(name: str) -> None:
    """A call that says it was interrupted by a signal is made again until it isn't."""
    ipc = descriptor_module.posix_ipc
    assert ipc is not None
    with reader(name) as queue:
        descriptor = queue.descriptor
        real_send, real_receive = descriptor.send, descriptor.receive
        interruptions = iter([True, True, True, False] * 2)

        def send(message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
            if next(interruptions):
                raise ipc.SignalError
            real_send(message, timeout, priority)

        def receive() -> tuple[bytes, int]:
            if next(interruptions):
                raise ipc.SignalError
            return real_receive()

        descriptor.send, descriptor.receive = send, receive
        queue.put(b"x", 60.0)
        assert queue.get(60.0) == b"x"


def test_many_threads_share_a_queue(name: str) -> None:
    """Each message of many threads that share an object arrives once, those of a thread in order."""
    count, each = 6, 60
    with reader(name) as queue, producer(name) as shared:

        def put(thread: int) -> None:
            for number in range(each):
                shared.put(b"%d %d" % (thread, number), 60.0)

        threads = [in_thread(put, thread) for thread in range(count)]
        got = [queue.get(60.0) for _ in range(count * each)]
        for thread in threads:
            thread.join()
        for thread_number in range(count):
            mine = [message for message in got if message and message.startswith(b"%d " % thread_number)]
            assert [b"%d %d" % (thread_number, number) for number in range(each)] == mine
        assert queue.get() is None


def test_nothing_is_lost_when_a_queue_is_removed_under_load(name: str) -> None:
    """With a reader that empties orphans, each message of many threads arrives once through many removals."""
    count, each, removals = 3, 80, 10
    errors: list[BaseException] = []
    with producer(name) as shared:

        def put(thread: int) -> None:
            try:
                for number in range(each):
                    shared.put(b"%d %d" % (thread, number), 60.0)
            except BaseException as exc:  # noqa: BLE001 - asserted below
                errors.append(exc)

        queues = [reader(name)]
        threads = [in_thread(put, thread) for thread in range(count)]
        got: list[bytes] = []
        while any(thread.is_alive() for thread in threads):
            for queue in queues:
                got += [message for message in [queue.get() for _ in range(FEW)] if message is not None]
            if len(queues) <= removals and len(got) > len(queues) * count * each // (2 * removals):
                unlink_queue(name)
                queues.append(reader(name))
        for queue in queues:
            got += drain(queue)
            queue.close()
    assert errors == []
    assert len(queues) > removals
    assert Counter(b"%d %d" % (t, n) for t in range(count) for n in range(each)) == Counter(got)


def test_forked_processes_share_a_queue(name: str) -> None:
    """Children put through the object that they inherited, and closing it there doesn't close it here."""
    with reader(name) as queue, producer(name) as shared:
        children: list[int] = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    for number in range(10):
                        shared.put(b"%d %d" % (child, number), 60.0)
                    shared.close()
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        got = [queue.get(60.0) for _ in range(30)]
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        assert Counter(b"%d %d" % (c, n) for c in range(3) for n in range(10)) == Counter(got)
        shared.put(b"still open")
        assert drain(queue) == [b"still open"]


def test_a_producer_takes_the_size_of_the_new_queue(name: str) -> None:
    """When its queue was removed and made anew with another size, a producer goes by that."""
    with producer(name, 2, 16) as queue:
        unlink_queue(name)
        with reader(name, 3, 64) as larger:
            outlast_trust()
            queue.put(b"x" * 64)
            assert (queue.max_messages, queue.max_message_size) == (3, 64)
            assert drain(larger) == [b"x" * 64]
        unlink_queue(name)
        with reader(name, 1, 8):
            outlast_trust()
            with pytest.raises(EventTooLargeError) as caught:
                queue.put(b"x" * 16)
            assert (caught.value.size, caught.value.limit) == (16, 8)
            queue.put(b"x" * 8)
            with pytest.raises(EventQueueFullError) as full:
                queue.put(b"x")
            assert full.value.capacity == 1


def test_an_orphan_is_let_go(name: str) -> None:
    """A producer that moved holds one descriptor as before, and a closed or forgotten queue none."""
    gc.collect()  # what other tests left behind is not to go meanwhile
    before = open_files()
    with producer(name) as queue:
        for _ in range(5):
            unlink_queue(name)
            outlast_trust()
            queue.put(b"x")
            assert len(before) + 1 == len(open_files())
    assert before == open_files()
    queue = producer(name)
    del queue
    gc.collect()
    assert before == open_files()


def test_a_descriptor_that_became_another_file_is_left_alone(name: str) -> None:
    """If the descriptor was closed and its number is another file's, a producer opens the queue again."""
    with reader(name) as other, producer(name) as queue:
        number = queue.fileno()
        os.close(number)
        foreign = os.open(os.devnull, os.O_RDONLY)
        try:
            assert number == foreign
            outlast_trust()
            queue.put(b"x")
            assert queue.fileno() != foreign
            assert drain(other) == [b"x"]
            os.fstat(foreign)  # still open
            os.close(queue.fileno())
            outlast_trust()
            queue.put(b"y")
            os.close(queue.fileno())
            another = os.open(os.devnull, os.O_RDONLY)
            assert queue.fileno() == another
            queue.close()
            os.close(another)  # it was still open
            assert drain(other) == [b"y"]
        finally:
            os.close(foreign)


def test_a_reader_that_lost_its_descriptor_says_so(name: str) -> None:
    """A reader whose descriptor was closed under its hands raises an error, as does its depth."""
    queue = reader(name)
    os.close(queue.fileno())
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.get()
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.current_messages  # noqa: B018 - a property
    with pytest.raises(EventQueueUnavailableError, match="descriptor can't be used"):
        queue.descriptor.try_send(b"x", 0)
    assert queue.removed
    with pytest.raises(EventQueueRemovedError):
        queue.put(b"x")


def test_a_descriptor_above_1023_works(name: str) -> None:
    """Waits work with descriptors beyond what select() takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_500:
        pytest.skip("the limit of open files is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_500), hard))
    files: list[int] = []
    try:
        while not files or files[-1] < 1_024:
            files.append(os.open(os.devnull, os.O_RDONLY))
        with reader(name, max_messages=1) as queue:
            assert queue.fileno() > 1_023
            assert queue.get(0.01) is None
            queue.put(b"x")
            with pytest.raises(EventQueueFullError):
                queue.put(b"y", 0.01)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_told_apart(name: str) -> None:
    """Without a free descriptor, making, opening and finding again fail with an error that says just that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with fresh_name() as other_name, producer(name), producer(other_name) as moving:
        unlink_queue(other_name)
        outlast_trust()
        files = [os.open(os.devnull, os.O_RDONLY)]
        caught: list[EventError] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] + 1, hard))
        try:
            for action in (
                lambda: producer(name),
                lambda: reader(other_name),
                lambda: moving.put(b"x"),
            ):
                try:
                    action()
                except EventError as exc:
                    caught.append(exc)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(files[0])
        kinds = [EventQueueUnavailableError, EventQueueUnavailableError, EventQueueRemovedError]
        assert kinds == [type(error) for error in caught]
        for error in caught:
            assert "too many files open" in str(error)
        moving.put(b"x")


bad_names = st.one_of(
    st.sampled_from(
        ["", "/", "/.", "/..", "no-slash", "/a/b", "//", "/a\0b", "/\ud800", "/" + "x" * 255, "/" + "é" * 128]
    ),
    st.text().filter(lambda text: not text.startswith("/")),
)


@given(bad_names)
def test_bad_names_are_refused(name: str) -> None:
    """A name that isn't a POSIX name of a queue is refused with a message that shows it."""
    for attempt in (reader, unlink_queue):
        with pytest.raises(ValueError, match=re.escape(repr(name))):
            attempt(name)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60))
def test_good_names_are_taken(text: str) -> None:
    """Every other name within the length works, and gives a line of repr."""
    with fresh_name() as unique:
        name = f"{unique}{text}"
        if len(name.encode()) <= MAX_NAME_SIZE:
            try:
                with reader(name) as queue:
                    assert name == queue.name
                assert unlink_queue(name)
            finally:
                unlink_queue(name)
        assert not unlink_queue(name[:MAX_NAME_SIZE] if name.isascii() else unique)


@pytest.mark.parametrize(
    ("argument", "values", "bounds"),
    [
        ("max_messages", [0, -1, 65_537], "1 to 65,536"),
        ("max_message_size", [0, -1, 16 * 1024 * 1024 + 1], "1 to 16,777,216"),
        ("mode", [-1, 0o1000, 0o4755], "0o000 to 0o777"),
    ],
)
def test_arguments_out_of_bounds_are_refused(
    name: str, argument: str, values: list[int], bounds: str
) -> None:
    """An argument out of its bounds is refused with name, bounds and value, and nothing is made."""
    for value in values:
        given = {"max_messages": 1, "max_message_size": 1, "mode": 0o600, argument: value}
        with pytest.raises(ValueError, match=f"{argument} must be .*{bounds}.*not ") as caught:
            MessageQueue(
                name,
                max_messages=given["max_messages"],
                max_message_size=given["max_message_size"],
                mode=given["mode"],
            )
        shown = f"{value:#o}" if argument == "mode" else f"{value:,}"
        assert str(caught.value).endswith(f"not {shown}")
    assert not unlink_queue(name)


def test_a_closed_queue_says_so(name: str) -> None:
    """After close, which may be repeated, everything that needs the queue raises the same error."""
    for queue in (reader(name), producer(name)):
        queue.put(b"x")
        queue.close()
        queue.close()
        assert f"<MessageQueue {name}: 4 events of at most 32 bytes, closed>" == repr(queue)
        uses: list[Callable[[MessageQueue], object]] = [
            lambda queue: queue.put(b"x"),
            lambda queue: queue.put(b"x", 1.0),
            lambda queue: queue.get(),
            lambda queue: queue.get(None),
            lambda queue: queue.removed,
            lambda queue: queue.current_messages,
            lambda queue: queue.fileno(),
        ]
        for use in uses:
            with pytest.raises(EventQueueClosedError, match="make a new one"):
                use(queue)
    with reader(name) as left:
        assert drain(left) == [b"x", b"x"]


def test_closing_in_the_middle_of_a_call_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread whose queue is closed meanwhile gets the error of a closed queue, and nothing stays open."""
    before = open_files()
    queue = producer(name)
    descriptor = queue.descriptor
    real_send = descriptor.send

    def send(message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
        queue.close()
        real_send(message, timeout, priority)

    descriptor.send = send
    with pytest.raises(EventQueueClosedError):
        queue._put_slowly(b"x", 0.0, 0)  # pyright: ignore[reportPrivateUsage]

    queue = reader(name)

    def receive() -> tuple[bytes, int]:
        queue.close()
        raise OSError(errno.EBADF, "gone")

    queue.descriptor.receive = receive
    with pytest.raises(EventQueueClosedError):
        queue.get()

    moving = producer(name)
    unlink_queue(name)
    opened = moving._open  # pyright: ignore[reportPrivateUsage]

    def open_and_close() -> descriptor_module.Descriptor:
        moving.close()
        return opened()

    monkeypatch.setattr(moving, "_open", open_and_close)
    outlast_trust()
    with pytest.raises(EventQueueClosedError):
        moving.put(b"x")
    assert before == open_files()


def test_a_producer_cannot_get(name: str) -> None:
    """A queue that was opened only to put says so when it is asked for a message."""
    with producer(name) as queue:
        queue.put(b"x")
        with pytest.raises(EventQueuePermissionError, match="read=True"):
            queue.get()


def test_something_that_is_no_message_is_a_type_error(name: str) -> None:
    """What isn't bytes is a caller's bug, and is told as Python tells it."""
    with producer(name) as queue, pytest.raises(TypeError):
        queue.put(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@settings(max_examples=40)
@given(st.integers(0, 0o777), st.integers(0, 0o777))
def test_the_umask_does_not_weaken_the_mode(mode: int, umask: int) -> None:
    """A queue has exactly the permission bits asked for, whatever the umask."""
    with fresh_name() as name:
        previous = os.umask(umask)
        try:
            queue = MessageQueue(name, max_messages=1, max_message_size=1, mode=mode)
        finally:
            os.umask(previous)
        with queue:
            assert mode == stat.S_IMODE(os.fstat(queue.fileno()).st_mode)


@needs_root
def test_a_queue_of_somebody_else_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another user's queue raises an error that says whose it is, where that can be known, and what helps."""
    monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path))
    with producer(name) as queue:
        with as_user(NOBODY):
            for attempt in (producer, reader):
                with pytest.raises(EventQueuePermissionError) as caught:
                    attempt(name)
                assert "another user" in str(caught.value)
                assert f"this process of user {NOBODY}" in str(caught.value)
                assert "mode=0o660" in str(caught.value)
            with pytest.raises(EventQueuePermissionError):
                unlink_queue(name)
        tmp_path.chmod(0o755)
        (tmp_path / name[1:]).touch(mode=0o600)
        monkeypatch.setattr(limits_module, "_QUEUE_DIRECTORY", str(tmp_path))
        for parent in (tmp_path.parent, tmp_path.parent.parent):
            parent.chmod(0o755)
        with as_user(NOBODY), pytest.raises(EventQueuePermissionError) as caught:
            producer(name)
        assert "it belongs to user 0 and has mode 0o600" in str(caught.value)
        queue.put(b"still there")


@needs_root
def test_a_common_group_is_let_in(name: str) -> None:
    """A queue of mode 0o660 is open to the group, to put and to get."""
    with (
        MessageQueue(name, max_messages=1, max_message_size=8, mode=0o660) as queue,
        as_user(NOBODY),
        producer(name, 1, 8) as other,
    ):
        other.put(b"x")
        assert queue.get() == b"x"


@needs_root
def test_a_queue_that_somebody_else_made_anew_is_refused(name: str) -> None:
    """A producer whose queue another user made anew gets an error of permission, again and again."""
    with as_user(NOBODY):
        queue = producer(name)
        unlink_queue(name)
        outlast_trust()
    with reader(name), queue:
        for _ in range(2):
            with as_user(NOBODY), pytest.raises(EventQueuePermissionError):
                queue.put(b"x")


class BrokenIpc:
    """A `posix_ipc` that fails in a given way."""

    def __init__(self, on_make: Exception, on_find: Exception) -> None:
        real = descriptor_module.posix_ipc
        assert real is not None
        self.MESSAGE_QUEUES_SUPPORTED = True
        self.O_CREX, self.O_NONBLOCK = real.O_CREX, real.O_NONBLOCK
        self.Error, self.BusyError, self.SignalError = real.Error, real.BusyError, real.SignalError
        self.ExistentialError, self.PermissionsError = real.ExistentialError, real.PermissionsError
        self.on_make, self.on_find = on_make, on_find

    def MessageQueue(  # noqa: N802 - as in posix_ipc
        self,
        name: str,  # noqa: ARG002
        flags: int,
        *,
        mode: int,  # noqa: ARG002
        max_messages: int,  # noqa: ARG002
        max_message_size: int,  # noqa: ARG002
        read: bool,  # noqa: ARG002
    ) -> descriptor_module.PosixQueue:
        raise self.on_make if flags & self.O_CREX else self.on_find

    def unlink_message_queue(self, name: str, /) -> None:  # noqa: ARG002
        raise self.on_find


def _exists() -> Exception:
    assert descriptor_module.posix_ipc is not None
    return descriptor_module.posix_ipc.ExistentialError("A queue with the specified name already exists")


def _vague() -> Exception:
    assert descriptor_module.posix_ipc is not None
    return descriptor_module.posix_ipc.Error("Unable to initialize object")


FAILURES: list[tuple[Exception, type[EventError], str]] = [
    (OSError("Insufficient space for a new queue"), EventQueueLimitError, "fs.mqueue.queues_max"),
    (
        OSError("The system limit on the total number of open files has been reached"),
        EventQueueUnavailableError,
        "fs.file-max",
    ),
    (
        OSError(errno.ENOSYS, "Function not implemented"),
        EventQueueUnsupportedError,
        "no POSIX message queues",
    ),
    (MemoryError("Not enough memory"), EventQueueUnavailableError, "Not enough memory"),
    (OSError(errno.EIO, "Input/output error"), EventQueueUnavailableError, "Input/output error"),
    (PermissionError(errno.EPERM, "Operation not permitted"), EventQueuePermissionError, "same user"),
    (_vague(), EventQueueUnavailableError, "Unable to initialize"),
    (_exists(), EventQueueUnavailableError, "keep removing it"),
]


@pytest.mark.parametrize(("failure", "expected", "words"), FAILURES)
def test_every_failure_to_open_is_ours(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[EventError], words: str
) -> None:
    """However making or opening a queue fails, the error is ours and says what is wrong."""
    for on_make, on_find in ((failure, failure), (_exists(), failure)):
        monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(on_make, on_find))
        with pytest.raises(EventError, match=re.escape(words)) as caught:
            producer("/x")
        assert expected is type(caught.value)


@pytest.mark.parametrize(("failure", "expected", "words"), FAILURES[4:7])
def test_every_failure_to_remove_is_ours(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[EventError], words: str
) -> None:
    """However removing a queue fails, the error is ours and says what is wrong."""
    monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
    with pytest.raises(EventError, match=re.escape(words)) as caught:
        unlink_queue("/x")
    assert expected is type(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("Invalid parameter(s)"),
        OSError("This process already has the maximum number of files open"),
        OSError(errno.EOVERFLOW, "Value too large"),
    ],
)
def test_a_host_without_room_for_anything_is_told(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Where not even the smallest queue is allowed, that is an error that tells what was asked for."""
    monkeypatch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
    with pytest.raises(EventQueueLimitError, match="no room for 4 events of at most 32 bytes"):
        producer("/x")


def test_a_producer_that_cannot_move_says_so_and_tries_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a removed queue can't be made anew, each put says so, until it can be."""
    with producer(name) as queue:
        unlink_queue(name)
        outlast_trust()
        with monkeypatch.context() as patch:
            failure = MemoryError("Not enough memory")
            patch.setattr(descriptor_module, "posix_ipc", BrokenIpc(failure, failure))
            for _ in range(2):
                with pytest.raises(EventQueueRemovedError, match=r"can't be made anew: .*Not enough memory"):
                    queue.put(b"x")
        queue.put(b"x")
        assert queue.current_messages == 1


def test_a_host_without_queues_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `posix_ipc`, or where it has no message queues, making or removing a queue says so."""

    class NoQueues:
        MESSAGE_QUEUES_SUPPORTED = False

    for module, words in ((None, "pip install posix_ipc"), (NoQueues(), "no POSIX message queues")):
        monkeypatch.setitem(sys.modules, "posix_ipc", module)
        loaded, missing = descriptor_module.load()
        monkeypatch.setattr(descriptor_module, "posix_ipc", loaded)
        monkeypatch.setattr(descriptor_module, "why_not", missing)
        for attempt in (reader, unlink_queue):
            with pytest.raises(EventQueueUnsupportedError, match=words):
                attempt("/x")


def test_import_works_without_posix_ipc() -> None:
    """The package imports where `posix_ipc` doesn't, and says so when a queue is made."""
    code = """
import sys
sys.modules["posix_ipc"] = None
import baseplate_events
try:
    baseplate_events.EventQueue("x", bytes)
except baseplate_events.EventQueueUnsupportedError as error:
    print(error)
"""
    assert "posix_ipc" in run(sys.executable, "-c", code).check()


def test_a_smaller_queue_that_exists_is_warned_about_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever finds a queue smaller than asked warns once for each size; a larger one is fine."""
    with reader(name, 2, 16), reader(name, 1, 16), reader(name, 2, 15):
        assert caplog.records == []
        for _ in range(3):
            producer(name, 3, 16).close()
            producer(name, 2, 17).close()
        (record,) = caplog.records
        assert (record.levelno, record.name) == (logging.WARNING, "baseplate_events.transport.posix")
        assert f"Event queue {name}: " in record.getMessage()
        assert "2 events of at most 16 bytes" in record.getMessage()
        assert "unlink_message_queue" in record.getMessage()
        unlink_queue(name)
        with reader(name, 2, 8):
            producer(name, 3, 16).close()
        assert len(caplog.records) == 2


def test_a_smaller_queue_that_exists_can_be_an_error(name: str) -> None:
    """With `strict_size`, a queue that is smaller in any way is refused and left as it is."""
    before = open_files()
    with reader(name, 2, 16) as queue:
        queue.put(b"x")
        for messages, size in ((3, 16), (2, 17), (3, 15)):
            with pytest.raises(EventQueueLimitError) as caught:
                MessageQueue(name, max_messages=messages, max_message_size=size, strict_size=True)
            assert "room for 2 events of at most 16 bytes, instead of" in str(caught.value)
            assert len(before) + 1 == len(
                open_files()
            )  # although the error holds what was alive when it was raised
        MessageQueue(name, max_messages=2, max_message_size=16, strict_size=True).close()
        assert drain(queue) == [b"x"]
    assert before == open_files()


@needs_root
def test_the_sysctls_are_obeyed_by_an_ordinary_user(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary user gets a queue within the sysctls, and a warning with the command that lifts them."""
    limits = limits_module.read_limits()
    if limits.msg_max >= 5_000:
        pytest.skip("the host allows what is asked")
    with bytes_of_queues(QueueSize(5_000, 16).bytes_charged), reader(name, 5_000, 16) as queue:
        assert (limits.msg_max, 16) == (queue.max_messages, queue.max_message_size)
    (record,) = caplog.records
    assert "`sysctl -w fs.mqueue.msg_max=5000`" in record.getMessage()
    assert "msgsize_max" not in record.getMessage()
    assert "ulimit" not in record.getMessage()


class Warnings(logging.Handler):
    """Keep what is logged, also by the examples of a property."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Warnings:  # noqa: PYI034 - typing has Self from Python 3.11 on
        logging.getLogger("baseplate_events.transport.posix").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("baseplate_events.transport.posix").removeHandler(self)


@needs_root
@settings(max_examples=30)
@given(st.integers(2_000, 30_000), st.integers(2, 10), st.integers(1, 8_192))
def test_two_queues_share_the_limit_of_a_user(limit: int, messages: int, message_size: int) -> None:
    """Two queues within a limit that is too small for both find room, and the second blames the first."""
    asked = QueueSize(messages, message_size)
    with fresh_name() as one, fresh_name() as two, bytes_of_queues(limit), reader(one, *asked) as first:
        first_size = QueueSize(first.max_messages, first.max_message_size)
        assert first_size == asked or first_size.max_messages == 1 or first_size.bytes_charged <= limit // 2
        if QueueSize(1, message_size).bytes_charged <= limit - first_size.bytes_charged:
            with Warnings() as warnings, reader(two, *asked) as second:
                second_size = QueueSize(second.max_messages, second.max_message_size)
                assert message_size == second_size.max_message_size
                assert first_size.bytes_charged + second_size.bytes_charged <= limit
            if asked.bytes_charged <= limit and second_size != asked:
                needed = asked.bytes_charged + limit
                assert "other queues of this user" in warnings.texts[0]
                assert f"`ulimit -q {needed}` (systemd: `LimitMSGQUEUE={needed}`)" in warnings.texts[0]
                assert f"`--ulimit msgqueue={needed}`" in warnings.texts[0]


@needs_root
def test_strict_size_negotiates_nothing(name: str) -> None:
    """With `strict_size`, a size beyond the limits is an error with the commands, and nothing is made."""
    with bytes_of_queues(1_000):
        with pytest.raises(EventQueueLimitError) as caught:
            MessageQueue(name, max_messages=2, max_message_size=1_000, strict_size=True)
        needed = QueueSize(2, 1_000).bytes_charged
        assert f"RLIMIT_MSGQUEUE is 1000 bytes and the full size takes {needed}" in str(caught.value)
        assert f"`ulimit -q {needed}`" in str(caught.value)
        assert "unlink" not in str(caught.value)
        assert not unlink_queue(name)


@needs_root
def test_no_room_at_all_is_an_error(name: str) -> None:
    """Where not even one message of 512 bytes fits, that is an error with the command that helps."""
    with bytes_of_queues(500):
        with pytest.raises(EventQueueLimitError, match=r"no room for .*ulimit -q"):
            reader(name, 2, 1_000)
        assert not unlink_queue(name)
