"""`EventQueue` on each transport: the choice, `put_many`, waiting, and queues that can't be opened."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
import threading
from collections import Counter
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.events import SPOOL_VARIABLE
from baseplate_events.spool import MIN_SPOOL_SIZE
from baseplate_events.spool.format import MAX_HEADER, Header
from baseplate_events.testing import InMemoryEventQueue
from baseplate_events.transport.posix import MessageQueue
from baseplate_events.transport.unopened import UnopenedTransport
from tests.support.commands import IMPORTING, run
from tests.support.queues import (
    EVENTS,
    FEW,
    SMALL,
    drain,
    event_of,
    fresh_event_name,
    open_files,
    outlast_trust,
    reader,
)
from tests.support.spool_directories import unusable
from tests.support.spools_written import read_events, read_refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from baseplate_events.transport import Transport

#: What `serialize` can't serialize.
UNWRITABLE = b"fail"

#: What is put, at times.
MIXED = st.lists(
    st.sampled_from([b"{a}", b"{bb}", event_of(SMALL), b"", UNWRITABLE, event_of(SMALL + 1)]),
    max_size=FEW + 2,
)


def serialize(event: bytes) -> bytes:
    """Serialize all events except one."""
    if event == UNWRITABLE:
        raise RuntimeError
    return event


def in_spool(folder: Path | str, serializer: Callable[[bytes], bytes] = serialize) -> EventQueue[bytes]:
    """Open a queue with a spool."""
    return EventQueue("main", serializer, spool_directory=folder, max_event_size=SMALL)


def in_kernel(name: str, put_timeout: float = 0.0) -> EventQueue[bytes]:
    """Open a POSIX queue that is small."""
    return EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL, put_timeout=put_timeout)


def expected_error(event: bytes) -> type[EventError] | None:
    """Return the error of an event if there is room."""
    if event == UNWRITABLE:
        return EventNotSerializableError
    if not event:
        return EventEmptyError
    return EventTooLargeError if len(event) > SMALL else None


# --- which transport ---


def test_the_argument_or_the_variable_chooses_the_spool(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument takes precedence; an empty variable counts as unset. Paths are resolved at the start."""
    one, other, elsewhere = (tmp_path / word for word in ("one", "other", "elsewhere"))
    for folder in (one, other, elsewhere):
        folder.mkdir()
    monkeypatch.setenv(SPOOL_VARIABLE, str(one))
    with (
        EventQueue(name, serialize) as by_variable,
        EventQueue(name, serialize, spool_directory=other) as by_argument,
    ):
        by_variable.put(b"{one}")
        by_argument.put(b"{other}")
    assert [b"{one}"] == read_events(one / f"events-{name}")
    assert [b"{other}"] == read_events(other / f"events-{name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SPOOL_VARIABLE, "one")
    with EventQueue(name, serialize) as relative:
        monkeypatch.chdir(elsewhere)
        relative.put(b"{two}")
    assert [b"{one}", b"{two}"] == read_events(one / f"events-{name}")
    monkeypatch.setenv(SPOOL_VARIABLE, "")
    with in_kernel(name) as queue, reader(EVENTS + name) as other_side:
        queue.put(b"{three}")
        assert [b"{three}"] == drain(other_side)


def test_a_relative_path_needs_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once that is deleted, a relative path is a bad argument; an absolute one works."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ValueError, match=r"absolute path, not 'spools'.*working directory was deleted"):
        in_spool("spools")
    in_spool(tmp_path).close()


def test_the_format_of_the_serializer_is_in_the_header(tmp_path: Path) -> None:
    """The publisher recognises events that its collector wouldn't accept."""
    for serializer, expected in (
        (serialize_v2_event, "2"),
        (serialize_v2j_event, "2j"),
        (partial(serialize_v2j_event), "unknown"),
    ):
        folder = tmp_path / expected
        folder.mkdir()
        queue: EventQueue[dict[str, object]] = EventQueue("main", serializer, spool_directory=folder)  # type: ignore[arg-type]
        queue._put([b"{}"])  # pyright: ignore[reportPrivateUsage]
        (segment,) = (folder / "events-main").iterdir()
        header = Header.decode(segment.read_bytes()[:MAX_HEADER])
        assert header is not None
        assert expected == header.event_format


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"max_spool_size": MIN_SPOOL_SIZE - 1}, "max_spool_size must be 1,048,576 bytes or more"),
        ({"spool_directory": ""}, "spool_directory"),
        ({"max_spool_size": float("nan")}, "max_spool_size"),
        ({"spool_directory": "/tmp", "mode": 0o640}, "0o660.*EVENT_SPOOL_DIRECTORY"),
        ({"spool_directory": "/tmp\0"}, "absolute path"),
        ({"spool_directory": "/tmp", "max_event_size": 2**25}, "max_message_size"),
        ({"spool_directory": "/tmp", "max_queue_size": 0}, "max_messages"),
    ],
)
def test_bad_arguments_are_raised_at_once(arguments: dict[str, object], match: str) -> None:
    """Bad arguments are mistakes of the program; the in-memory queue finds them too."""
    for kind in (EventQueue, InMemoryEventQueue):
        with pytest.raises(ValueError, match=match):
            kind("main", serialize, **arguments)  # type: ignore[arg-type]


def test_the_gauges_of_a_spool_are_bytes(tmp_path: Path) -> None:
    """A POSIX queue reports events, a spool bytes."""
    found: dict[str, float] = {}

    class Metric:
        def __init__(self, name: str) -> None:
            self.name = name

        def replace(self, value: float) -> None:
            found[self.name] = value

        def increment(self, delta: float) -> None:
            raise AssertionError(delta)

    class Batch:
        def gauge(self, name: str) -> Metric:
            return Metric(name)

        counter = gauge

    with in_spool(tmp_path) as queue:
        queue.report_runtime_metrics(Batch())
        assert {"event_queue.main.spool_size": 0, "event_queue.main.spool_max_size": 2**30} == found
        queue.put(b"{x}")
        queue.report_runtime_metrics(Batch())
        assert found["event_queue.main.spool_size"] > 0


# --- refusals ---


@given(events=MIXED)
def test_each_put_is_in_the_spool_or_reported_there(
    events: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Refusals are reported by the next put, whatever their reason, and never twice."""
    folder = tmp_path_factory.mktemp("spool")
    refused: Counter[str] = Counter()
    with in_spool(folder) as queue:
        for event in events:
            error = expected_error(event)
            if error is None:
                queue.put(event)
                assert refused == read_refusals(folder / "events-main")
                continue
            with pytest.raises(error):
                queue.put(event)
            names: dict[type[EventError], str] = {EventTooLargeError: "too_large", EventEmptyError: "empty"}
            refused[names.get(error, "not_serializable")] += 1
            assert dict(refused) == queue.refused
        queue.put(b"{last}")
    assert refused == read_refusals(folder / "events-main")
    assert [*(event for event in events if not expected_error(event)), b"{last}"] == read_events(
        folder / "events-main"
    )


def test_refusals_are_exact_with_threads_and_signals(name: str) -> None:
    """Reports are exact, however many threads count, and wherever a counting signal handler interrupts."""
    with in_kernel(name) as queue:
        refused_in_handler: list[object] = []  # a sum might lose one, as signals may interrupt the handler

        def handle(*arguments: object) -> None:
            refused_in_handler.append(arguments)
            with pytest.raises(EventEmptyError):
                queue.put(b"")

        def refuse() -> None:
            for _ in range(2_000):
                with contextlib.suppress(EventEmptyError):
                    queue.put(b"")

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            threads = [threading.Thread(target=refuse) for _ in range(7)]
            for thread in threads:
                thread.start()
            refuse()
            for thread in threads:
                thread.join()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert {"empty": 8 * 2_000 + len(refused_in_handler)} == queue.refused


# --- many at once ---


def check_put_many(queue: EventQueue[bytes], events: list[bytes], room: int) -> int:
    """Put events at once where there is room for some, and return how many must be in the queue."""
    refused = sum(queue.refused.values())
    error = next(filter(None, map(expected_error, events)), None)
    if error is None and len(events) > room:
        error = EventQueueFullError
    if error is None:
        queue.put_many(iter(events))
        count = len(events)
    else:
        with pytest.raises(error) as caught:
            queue.put_many(iter(events))
        count = room if error is EventQueueFullError else 0
        assert count == caught.value.events_put
        assert (f"({count} event" in str(caught.value)) == (count > 0)
        refused += len(events) - count
    assert refused == sum(queue.refused.values())
    return count


@given(batches=st.lists(MIXED, max_size=3))
def test_many_are_put_or_as_many_as_the_error_says(batches: list[list[bytes]]) -> None:
    """An event that can't be serialized or is too large puts none; a full queue takes those that fit."""
    with fresh_event_name() as name, in_kernel(name) as queue, reader(EVENTS + name) as other:
        put: list[bytes] = []
        for batch in batches:
            put += batch[: check_put_many(queue, batch, FEW - len(put))]
        assert put == drain(other)


@given(batches=st.lists(MIXED, max_size=3))
def test_many_are_put_into_a_spool_in_one_write(
    batches: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same holds for a spool; a batch is one write, with the refusals before it."""
    folder = tmp_path_factory.mktemp("spool")
    with in_spool(folder) as queue:
        put = list(chain(*(batch[: check_put_many(queue, batch, 100)] for batch in batches)))
        queue.put(b"{last}")
    assert [*put, b"{last}"] == read_events(folder / "events-main")
    assert sum(queue.refused.values()) == read_refusals(folder / "events-main").total()


def test_a_generator_that_fails_puts_nothing(name: str) -> None:
    """An exception of the iterable is the caller's."""

    def events() -> Iterable[bytes]:
        yield b"{a}"
        raise LookupError

    with in_kernel(name) as queue, reader(EVENTS + name) as other:
        with pytest.raises(LookupError):
            queue.put_many(events())
        assert [] == drain(other)
        assert {} == queue.refused


def test_an_error_of_the_serializer_says_nothing_of_the_events(tmp_path: Path) -> None:
    """A serializer may fail with the error of another `put_many`; none of the events is put."""

    def fail(event: bytes) -> bytes:
        if event == UNWRITABLE:
            error = EventQueueFullError("other")
            error.events_put = 2
            raise error
        return event

    with in_spool(tmp_path, fail) as queue:
        with pytest.raises(EventQueueFullError) as caught:
            queue.put_many([b"{a}", b"{b}", UNWRITABLE])
        assert caught.value.events_put == 0
        assert {"full": 3} == queue.refused


# --- waiting ---


class WaitingQueue(MessageQueue):
    """A queue that counts how often a put waits, instead of waiting."""

    waits = 0

    def put(self, message: bytes, timeout: float = 0.0, priority: int = 0) -> None:
        type(self).waits += timeout > 0
        super().put(message, 0.0, priority)


def test_after_a_wait_in_vain_none_waits_until_one_finds_room(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 puts into a dead queue cost one wait; each later time that the queue is full, one more."""
    monkeypatch.setattr("baseplate_events.transport.opening.MessageQueue", WaitingQueue)
    WaitingQueue.waits = 0
    with in_kernel(name, put_timeout=0.05) as queue, reader(EVENTS + name) as other:
        for outage in range(3):
            for _ in range(FEW):
                outlast_trust()
                queue.put(b"{x}")
            for _ in range(200):
                with pytest.raises(EventQueueFullError):
                    queue.put(b"{x}")
            with pytest.raises(EventQueueFullError):
                queue.put_many([b"{x}", b"{y}"])
            assert outage + 1 == WaitingQueue.waits
            assert FEW == len(drain(other))


def test_room_that_any_put_finds_ends_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One put is enough, also if the queue is full again after it."""
    monkeypatch.setattr("baseplate_events.transport.opening.MessageQueue", WaitingQueue)
    WaitingQueue.waits = 0
    with in_kernel(name, put_timeout=0.05) as queue, reader(EVENTS + name) as other:
        queue.put_many([b"{x}"] * FEW)
        waits = WaitingQueue.waits
        for count in range(1, 4):
            for _ in range(2):
                with pytest.raises(EventQueueFullError):
                    queue.put(b"{x}")
            assert waits + count == WaitingQueue.waits
            assert other.get() == b"{x}"
            queue.put(b"{x}")


# --- what can't be opened yet ---


def test_a_service_starts_without_its_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is logged once, with its remedy; `put` raises it, and works when the cause is gone."""
    monkeypatch.setattr("baseplate_events.transport.unopened.RETRY_PAUSE", 0.0)
    missing = tmp_path / "volume"
    folder = missing / "events-main"
    queue = in_spool(missing)
    for _ in range(3):
        with pytest.raises(EventQueueUnavailableError) as caught:
            queue.put(b"{x}")
        assert caught.value.args == (str(folder), unusable(folder, errno.ENOENT))
    with pytest.raises(EventQueueUnavailableError) as caught:
        queue.put_many([b"{x}", b"{y}"])
    assert {"unavailable": 5} == queue.refused
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert str(caught.value) in record.getMessage()
    queue.report_runtime_metrics(None)  # type: ignore[arg-type]
    missing.mkdir()
    queue.put(b"{x}")
    assert {"unavailable": 5} == read_refusals(missing / "events-main")
    assert [b"{x}"] == read_events(missing / "events-main")


#: What a service does that has no descriptors left when it opens its queue.
WITHOUT_DESCRIPTORS = """
import os, resource, time
from baseplate_events import EventQueue, EventQueueUnavailableError

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
opened = []
try:
    while True:
        opened.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
queue = EventQueue({name!r}, bytes, max_queue_size=1, max_event_size=9, spool_directory={directory!r})
try:
    queue.put(b"{{x}}")
except EventQueueUnavailableError as error:
    print(error)
for descriptor in opened:
    os.close(descriptor)
while not queue.try_put(b"{{x}}"):
    time.sleep(0.01)
"""


@pytest.mark.parametrize("kind", ["queue", "spool"])
def test_a_service_starts_without_descriptors(name: str, tmp_path: Path, kind: str) -> None:
    """A queue can't be opened, nor the modules loaded that it needs or logs with; later it works."""
    directory = str(tmp_path) if kind == "spool" else None
    code = WITHOUT_DESCRIPTORS.format(name=name, directory=directory)
    out = run(sys.executable, "-c", code, environ=IMPORTING).check()
    assert f"{directory or ''}/events-{name}: this process has too many files open" in out


def test_with_strict_size_it_does_not(tmp_path: Path) -> None:
    """With `strict_size` nothing is logged, and nothing stays open."""
    before = open_files()
    missing = tmp_path / "volume"
    with pytest.raises(EventQueueUnavailableError) as caught:
        EventQueue("main", serialize, spool_directory=missing, strict_size=True)
    assert caught.value.problem == unusable(missing / "events-main", errno.ENOENT)
    assert open_files() <= before


def test_a_queue_that_is_closed_while_it_is_opened_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may close it just before the transport takes the place of the placeholder."""
    monkeypatch.setattr("baseplate_events.transport.unopened.RETRY_PAUSE", 0.0)
    queue = in_spool(tmp_path / "volume")
    (tmp_path / "volume").mkdir()
    open_it = UnopenedTransport.open

    def open_and_close(placeholder: UnopenedTransport) -> Transport:
        transport = open_it(placeholder)
        queue.close()
        return transport

    monkeypatch.setattr(UnopenedTransport, "open", open_and_close)
    for _ in range(2):
        with pytest.raises(EventQueueClosedError):
            queue.put(b"{x}")


def test_a_queue_that_was_closed_before_it_could_be_opened_says_so(tmp_path: Path) -> None:
    """A closed queue isn't opened any more."""
    queue = in_spool(tmp_path / "volume")
    queue.close()
    (tmp_path / "volume").mkdir()
    with pytest.raises(EventQueueClosedError):
        queue.put(b"{x}")
    assert [] == list((tmp_path / "volume").iterdir())
