from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import select
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.errors import (
    EventQueueClosedError,
    EventQueueFullError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventTooLargeError,
)
from baseplate_events.transport import descriptor as descriptor_module
from baseplate_events.transport.posix import MAX_NAME_SIZE, MAX_PRIORITY, MessageQueue, unlink_queue
from tests.support.machines import check_machine
from tests.support.queues import FEW, SMALL, drain, fresh_name, open_files, outlast_trust, producer, reader
from tests.support.tools import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


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
    def empty_and_reopen(self) -> None:
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
    """A real queue, shared, filled, removed and reopened in any order, holds what the model holds."""
    check_machine(QueueMachine, steps=30, examples=60)


@given(st.lists(st.binary(max_size=SMALL), max_size=FEW))
def test_messages_come_out_as_they_went_in(messages: list[bytes]) -> None:
    """Whatever bytes are put are got, the same and in the same order, empty ones too."""
    with fresh_name() as name, producer(name) as queue, reader(name) as other:
        for message in messages:
            queue.put(message)
        assert messages == drain(other)


def test_a_full_queue_is_reported_without_waiting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """A wait looks `select.poll` up when it is called, since gevent replaces it."""
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
    """A put that waits while its queue is unlinked goes to the new queue of that name."""
    with reader(name, max_messages=1) as queue, producer(name) as other:
        queue.put(b"first")
        thread = in_thread(other.put, b"second", 60.0)
        queue.unlink()
        thread.join()
        assert drain(queue) == [b"first"]
        with reader(name) as fresh:
            assert drain(fresh) == [b"second"]


class Interruption(Exception):  # noqa: N818 - it is no error
    """Raised by a signal handler."""


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
    """Signals during a get or a put are handled, and the wait continues to its end."""
    with reader(name, max_messages=1) as queue:
        queue.put(b"first")
        while len(ticks) < 50:
            with pytest.raises(EventQueueFullError):
                queue.put(b"second", 0.02)
        assert queue.get(0.02) == b"first"
        while len(ticks) < 100:
            assert queue.get(0.02) is None


def test_what_a_signal_handler_raises_ends_a_wait(name: str) -> None:
    """An exception of a signal handler ends an indefinite get and a waiting put."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Interruption

    def begin(wait: Callable[..., object], *arguments: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        wait(*arguments)

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with reader(name, max_messages=1) as queue:
            with pytest.raises(Interruption):
                begin(queue.get, None)
            queue.put(b"first")
            with pytest.raises(Interruption):
                begin(queue.put, b"second", 600.0)
            assert drain(queue) == [b"first"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("raised", [Interruption, TimeoutError, TypeError])
def test_what_a_signal_handler_raises_after_a_send_is_not_mistaken(
    name: str, raised: type[Exception]
) -> None:
    """An exception that arrives during the send is raised, and the message isn't sent again."""
    with reader(name) as queue:
        descriptor = queue.channel
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
    """A call that was interrupted by a signal is repeated until it isn't."""
    ipc, _ = descriptor_module.load()
    assert ipc is not None
    with reader(name) as queue:
        descriptor = queue.channel
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


@pytest.mark.unmeasured
def test_forked_processes_share_a_queue(name: str) -> None:
    """Children put through the object that they inherited, and closing it there leaves the parent's open."""
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
    """If its queue was removed and recreated with another size, a producer uses the new size."""
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


def test_a_descriptor_above_1023_works(name: str) -> None:
    """Waits work with descriptors too large for select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_500:
        missing("the limit of open files is too low: raise it to 1500 (ulimit -n)")
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
    """An argument out of bounds is refused with name, bounds and value, and nothing is created."""
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
            with pytest.raises(EventQueueClosedError, match="create a new EventQueue"):
                use(queue)
    with reader(name) as left:
        assert drain(left) == [b"x", b"x"]


def test_closing_in_the_middle_of_a_call_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread whose queue is closed by another gets the error of a closed queue, and nothing stays open."""
    before = open_files()
    queue = producer(name)
    descriptor = queue.channel
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

    queue.channel.receive = receive
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
    assert open_files() <= before


def test_a_producer_cannot_get(name: str) -> None:
    """A queue that was opened only for writing says so on `get`."""
    with producer(name) as queue:
        queue.put(b"x")
        with pytest.raises(EventQueuePermissionError, match="read=True"):
            queue.get()


def test_something_that_is_no_message_is_a_type_error(name: str) -> None:
    """What isn't bytes is a caller's bug, reported as Python reports it."""
    with producer(name) as queue, pytest.raises(TypeError):
        queue.put(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
