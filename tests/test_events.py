from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections import Counter as Counted
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import baseplate_events
from baseplate_events import (
    MAX_EVENT_SIZE,
    MAX_QUEUE_SIZE,
    ContextFactory,
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueLimitError,
    EventTooLargeError,
)
from baseplate_events.transport.posix import MessageQueue, unlink_queue
from tests.support.commands import IMPORTING, run
from tests.support.examples import examples
from tests.support.queues import EVENTS, FEW, SMALL, drain, event_of, fresh_event_name, outlast_trust, reader
from tests.support.strategies import texts

if TYPE_CHECKING:
    from collections.abc import Callable

#: What stands in events that no message may show.
SECRET = "4111-1111-1111-1111"


def same(event: bytes) -> bytes:
    """Return an event that is serialized already."""
    return event


def small_queue(
    name: str, event_serializer: Callable[[bytes], bytes] = same, put_timeout: float = 0.0
) -> EventQueue[bytes]:
    """Make a queue that the stock limits allow many times over."""
    return EventQueue(
        name, event_serializer, max_queue_size=FEW, max_event_size=SMALL, put_timeout=put_timeout
    )


def publisher_side(name: str) -> MessageQueue:
    """Open the queue as the publisher does."""
    return reader(EVENTS + name)


@given(st.lists(st.tuples(texts, st.integers()), max_size=FEW))
def test_what_is_put_is_what_the_serializer_made(events: list[tuple[str, int]]) -> None:
    """The publisher's side gets exactly the serialized events, each at once, in order."""

    def serialize(event: tuple[str, int]) -> bytes:
        return json.dumps({"event": event}).encode()

    with fresh_event_name() as name:
        queue = EventQueue(name, serialize, max_queue_size=FEW, max_event_size=1_024)
        with queue, MessageQueue(EVENTS + name, max_messages=1, max_message_size=1) as other:
            for event in events:
                queue.put(event)
            assert [serialize(event) for event in events] == drain(other)


@given(
    st.lists(st.just(0) | st.integers(2, SMALL + 5), max_size=3 * FEW), st.integers(2, SMALL), st.booleans()
)
def test_each_put_either_queues_or_raises(sizes: list[int], limit: int, trusted: bool) -> None:
    """Of events of any sizes, those that fit are in the queue, and each other one gets its error."""
    with (
        fresh_event_name() as name,
        reader(EVENTS + name, FEW, min(limit, SMALL)) as other,
        EventQueue(name, same, max_queue_size=FEW, max_event_size=SMALL) as queue,
    ):
        expected: list[bytes] = []
        for size in sizes:
            event = event_of(size)
            if not trusted:
                outlast_trust()
            if size == 0:
                with pytest.raises(EventEmptyError):
                    queue.put(event)
            elif size > limit:
                with pytest.raises(EventTooLargeError, match=f"at most {limit}") as too_large:
                    queue.put(event)
                assert (size, limit) == (too_large.value.size, too_large.value.limit)
            elif len(expected) == FEW:
                with pytest.raises(EventQueueFullError) as full:
                    queue.put(event)
                assert (EVENTS + name, FEW) == (full.value.name, full.value.capacity)
            else:
                queue.put(event)
                expected.append(event)
        assert expected == drain(other)


@given(st.integers(1, SMALL), st.integers(2, SMALL))
def test_the_limit_asked_for_holds_in_a_larger_queue(limit: int, size: int) -> None:
    """An existing queue with larger messages accepts no event beyond the requested size."""
    with (
        fresh_event_name() as name,
        reader(EVENTS + name, FEW, SMALL),
        EventQueue(name, same, max_queue_size=1, max_event_size=limit) as queue,
    ):
        if size <= limit:
            queue.put(event_of(size))
        else:
            with pytest.raises(EventTooLargeError) as caught:
                queue.put(event_of(size))
            assert (size, limit) == (caught.value.size, caught.value.limit)


def fail_with(error: BaseException) -> Callable[[bytes], bytes]:
    """Make a serializer that raises an error."""

    def serialize(event: bytes) -> bytes:
        assert event
        raise error

    return serialize


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        MemoryError(SECRET),
        RecursionError(SECRET),
        UnicodeError(SECRET),
        OSError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_serializer_is_an_error_of_ours_without_the_event(name: str, error: Exception) -> None:
    """Whatever a serializer raises becomes an error that says what and where, and shows no event."""
    with small_queue(name, fail_with(error)) as queue, publisher_side(name) as other:
        with pytest.raises(EventNotSerializableError) as caught:
            queue.put(SECRET.encode())
        shown = "".join(
            traceback.format_exception(type(caught.value), caught.value, caught.value.__traceback__)
        )
        assert SECRET not in shown
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert re.search(rf"{type(error).__name__} .* at .*:\d+ in serialize$", str(caught.value))
        assert drain(other) == []


def test_a_failing_serializer_written_in_c_is_reported_too(name: str) -> None:
    """A serializer without a frame of its own is named by what it raised."""
    with EventQueue(name, bytes.fromhex, max_queue_size=FEW, max_event_size=SMALL) as queue:
        with pytest.raises(EventNotSerializableError) as caught:
            queue.put(SECRET)
        assert (caught.value.field, caught.value.problem) == ("", "ValueError in the event serializer")


@pytest.mark.parametrize("error", [EventNotSerializableError("a.b", "why"), EventEmptyError(), EventError()])
def test_an_event_error_of_the_serializer_is_kept(name: str, error: EventError) -> None:
    """An error of the serializer that is an `EventError` is raised as it is."""
    with small_queue(name, fail_with(error)) as queue:
        with pytest.raises(EventError) as caught:
            queue.put(b"{x}")
        assert error is caught.value


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_the_end_of_the_program_is_not_held_up(name: str, error: BaseException) -> None:
    """KeyboardInterrupt and SystemExit pass through a put."""
    with small_queue(name, fail_with(error)) as queue, pytest.raises(type(error)):
        queue.put(b"{x}")


@pytest.mark.parametrize(
    "result", [None, SECRET, 4111, bytearray(SECRET.encode()), memoryview(b"{x}"), [b"{x}"]]
)
def test_a_serializer_that_gives_no_bytes_is_reported(name: str, result: object) -> None:
    """What isn't bytes is refused by its type, without its value."""
    with small_queue(name, lambda _event: cast("bytes", result)) as queue:
        for _ in range(2):
            with pytest.raises(EventNotSerializableError) as caught:
                queue.put(b"{x}")
            assert f"must return bytes, not {type(result).__name__}" in str(caught.value)
            assert SECRET not in str(caught.value)


@given(
    st.binary(min_size=1, max_size=SMALL) | st.text("{} \t\n[]1", min_size=1, max_size=6).map(str.encode),
    st.booleans(),
)
def test_what_cannot_be_an_object_is_refused(message: bytes, several: bool) -> None:
    """A serializer must return what begins and ends like a JSON object, except for blanks around it."""
    blanks = b" \t\r\n"
    inner = message.strip(blanks)
    may_be_object = inner.startswith(b"{") and inner.endswith(b"}")
    with fresh_event_name() as name, small_queue(name) as queue, publisher_side(name) as other:
        put: Callable[[], None] = (
            (lambda: queue.put_many([message])) if several else (lambda: queue.put(message))
        )
        if may_be_object:
            put()
            assert [message] == drain(other)
            assert {} == queue.refused
            return
        with pytest.raises(EventNotSerializableError, match="must return a JSON object") as caught:
            put()
        assert "" == caught.value.field
        assert {"not_serializable": 1} == queue.refused
        assert [] == drain(other)


@pytest.mark.parametrize("raised", [TimeoutError, LookupError])
def test_what_a_signal_handler_raises_after_a_send_is_not_mistaken(
    name: str, raised: type[Exception]
) -> None:
    """An exception that arrives during the send is raised, and the event isn't sent again."""
    with small_queue(name) as queue:
        queue.put(b"{first}")
        inner = queue._queue  # pyright: ignore[reportPrivateUsage]
        assert isinstance(inner, MessageQueue)
        inner.trusted_until = float("inf")
        real_send = inner.channel.send

        def send(message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
            real_send(message, timeout, priority)
            raise raised

        inner.channel.send = send
        with pytest.raises(raised):
            queue.put(b"{once}")
        with publisher_side(name) as other:
            assert drain(other) == [b"{first}", b"{once}"]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_removed_queue_is_found_again(name: str, trusted: bool) -> None:
    """After its queue was removed, a put goes to the queue of that name, created if needed."""
    with small_queue(name) as queue:
        for _ in range(3):
            queue.put(b"{before}")
            unlink_queue(EVENTS + name)
            with publisher_side(name) as other:
                if not trusted:
                    outlast_trust()
                    queue.put(b"{after}")
                    assert drain(other) == [b"{after}"]
                queue._queue.trusted_until = 0.0  # pyright: ignore[reportPrivateUsage]
            unlink_queue(EVENTS + name)
            queue.put(b"{alone}")
            with publisher_side(name) as other:
                assert drain(other) == [b"{alone}"]


def test_put_waits_only_if_asked(name: str) -> None:
    """With a `put_timeout`, a put on a full queue waits for room, and gives up in time."""
    with small_queue(name, put_timeout=0.01) as queue:
        for _ in range(FEW):
            queue.put(b"{x}")
        with pytest.raises(EventQueueFullError):
            queue.put(b"{x}")


def test_a_closed_queue_says_so(name: str) -> None:
    """After close, which may be repeated, a put raises, at once and later."""
    queue = small_queue(name)
    with queue as entered:
        assert queue is entered
        queue.put(b"{x}")
    queue.close()
    for _ in range(2):
        with pytest.raises(EventQueueClosedError):
            queue.put(b"{x}")
        outlast_trust()


@pytest.mark.parametrize("value", [-0.001, float("inf"), float("-inf"), float("nan")])
def test_an_impossible_timeout_is_refused(name: str, value: float) -> None:
    """`put_timeout` must be finite and not negative; nothing is made otherwise."""
    with pytest.raises(ValueError, match=f"put_timeout must be .* not {value}"):
        small_queue(name, put_timeout=value)
    assert not unlink_queue(EVENTS + name)


@given(
    st.sampled_from(["", "a/b", "/", "a\0", "\ud800", "x" * 248, "é" * 124])
    | st.text(min_size=1).map(lambda text: text + "/")
)
def test_bad_names_are_refused(name: str) -> None:
    """An invalid name is refused in the terms of the caller, with its value."""
    with pytest.raises(ValueError, match="^name must be 1 to 247 bytes .*" + re.escape(repr(name))):
        small_queue(name)


@pytest.mark.parametrize("name", ["x" * 247, ".", "..", "v2", "é", "a b\n"])
def test_unusual_names_work(name: str) -> None:
    """Any other name works: these too, which aren't left behind here."""
    if unlink_queue(EVENTS + name):
        pytest.skip("this name is in use")
    try:
        with small_queue(name) as queue:
            queue.put(b"{x}")
            assert f"EventQueue({name!r})" == repr(queue)
    finally:
        unlink_queue(EVENTS + name)


@pytest.mark.parametrize(
    ("queue_size", "event_size", "mode", "named"),
    [(0, 1, 0, "max_messages"), (1, 2**25, 0, "max_message_size"), (1, 1, 0o1777, "mode")],
)
def test_other_arguments_are_checked(
    name: str, queue_size: int, event_size: int, mode: int, named: str
) -> None:
    """Sizes and mode out of bounds are refused."""
    with pytest.raises(ValueError, match=f"^{named} must be"):
        EventQueue(name, same, max_queue_size=queue_size, max_event_size=event_size, mode=mode)


def test_the_sizes_of_the_original_are_the_defaults(name: str) -> None:
    """Without sizes, 10,000 events of 102,400 bytes are asked for."""
    assert (MAX_QUEUE_SIZE, MAX_EVENT_SIZE) == (10_000, 102_400)
    with (
        publisher_side(name),
        pytest.raises(EventQueueLimitError, match=r"10,000 .* 102,400 "),
    ):
        EventQueue(name, same, strict_size=True)


def test_a_queue_of_a_supertype_serves_for_a_subtype(name: str) -> None:
    """A queue that takes objects is one that takes numbers, for a type checker; not the other way round."""

    def serialize(event: object) -> bytes:
        return b"{%b}" % type(event).__name__.encode()

    def put_number(queue: EventQueue[int]) -> None:
        queue.put(7)

    objects: EventQueue[object] = EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL)
    numbers: EventQueue[int] = objects
    wrong: EventQueue[object] = numbers  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    with objects, publisher_side(name) as other:
        put_number(objects)
        numbers.put(True)
        assert wrong is objects
        assert drain(other) == [b"{int}", b"{bool}"]


class Metrics:
    """A metrics client that keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def gauge(self, name: str) -> Gauge:
        return Gauge(self, name)

    def counter(self, name: str) -> Counter:
        return Counter(self, name)


class Counter:
    """A counter of that client."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.metrics = metrics
        self.name = name

    def increment(self, delta: float) -> None:
        self.metrics.values[self.name] = self.metrics.values.get(self.name, 0) + delta


class Gauge:
    """A gauge of that client."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.metrics = metrics
        self.name = name

    def replace(self, new_value: float) -> None:
        self.metrics.values[self.name] = new_value


def test_it_is_a_context_factory(name: str) -> None:
    """The framework gets the queue itself, for a context and for a configuration, whatever that says."""
    with small_queue(name) as queue:
        factory: ContextFactory = queue
        assert queue is factory.make_object_for_context("events", object())
        assert queue is queue.make_object_for_context(name="events", span=None)
        assert queue is queue()
        assert queue is queue("anything")


@given(st.integers(0, FEW))
def test_depth_and_capacity_are_reported(count: int) -> None:
    """The gauges are the number of events in the queue and the number that it holds."""
    with fresh_event_name() as name:
        with small_queue(name) as queue:
            for _ in range(count):
                queue.put(b"{x}")
            metrics = Metrics()
            factory: ContextFactory = queue
            factory.report_runtime_metrics(metrics)
        expected = {f"event_queue.{name}.depth": count, f"event_queue.{name}.capacity": FEW}
        assert expected == metrics.values


@given(st.lists(st.sampled_from([b"", event_of(SMALL + 1), b"raise", b"{x}"]), max_size=2 * FEW))
def test_refusals_are_counted_by_reason_and_reported_once(messages: list[bytes]) -> None:
    """Whatever `put` raises is counted under its reason; reports together hold each refusal once."""

    def serialize(message: bytes) -> bytes:
        if message == b"raise":
            raise RuntimeError
        return message

    expected: Counted[str] = Counted()
    metrics = Metrics()
    with fresh_event_name() as name:
        with EventQueue(name, serialize, max_queue_size=FEW, max_event_size=SMALL) as queue:
            for message in messages:
                try:
                    queue.put(message)
                except EventTooLargeError:
                    expected["too_large"] += 1
                except EventEmptyError:
                    expected["empty"] += 1
                except EventNotSerializableError:
                    expected["not_serializable"] += 1
                except EventQueueFullError:
                    expected["full"] += 1
                queue.report_runtime_metrics(metrics)
            assert expected == queue.refused
        with pytest.raises(EventQueueClosedError):
            queue.put(b"{x}")
        assert queue.refused["unavailable"] == 1
    start = f"event_queue.{name}.refused."
    reported = {key.removeprefix(start): value for key, value in metrics.values.items() if start in key}
    assert expected == reported


def test_reporting_never_raises(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A closed queue and a broken metrics client are logged for debugging and no more."""

    class Broken:
        def gauge(self, name: str) -> Gauge:
            raise OSError(name)

        def counter(self, name: str) -> Counter:
            raise OSError(name)

    caplog.set_level(logging.DEBUG)
    with small_queue(name) as queue:
        queue.report_runtime_metrics(Broken())
    metrics = Metrics()
    queue.report_runtime_metrics(metrics)
    assert metrics.values == {}
    assert [record.levelname for record in caplog.records] == ["DEBUG", "DEBUG"]


@pytest.mark.unmeasured
@examples(5)
@given(st.integers(1, 3))
def test_forked_workers_share_a_queue(workers: int) -> None:
    """Workers that were forked after the queue was made put through it, and each event arrives once."""
    with fresh_event_name() as name, reader(EVENTS + name) as other:
        queue = small_queue(name, put_timeout=60.0)
        children: list[int] = []
        for worker in range(workers):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    for number in range(10):
                        queue.put(b"{%d %d}" % (worker, number))
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        got = [other.get(60.0) for _ in range(10 * workers)]
        assert [0] * workers == [os.waitpid(pid, 0)[1] for pid in children]
        assert Counted(b"{%d %d}" % (w, n) for w in range(workers) for n in range(10)) == Counted(got)
        queue.close()


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` can be imported, and none is missing that a service needs."""
    for public in baseplate_events.__all__:
        assert hasattr(baseplate_events, public)
    errors = {public for public in baseplate_events.__all__ if public.endswith("Error")}
    assert len(errors) == 12
    assert re.fullmatch(r"\d+\.\d+\.\d+", baseplate_events.__version__)


def test_the_import_is_light() -> None:
    """Importing the library imports nothing of HTTP, TLS, command lines, processes or the publisher."""
    code = "import sys, baseplate_events; print(*sorted(sys.modules))"
    done = run(sys.executable, "-S", "-c", code, environ=IMPORTING)
    modules = set(done.out.split())
    assert "baseplate_events.events" in modules, done.err
    heavy = {
        "argparse",
        "asyncio",
        "configparser",
        "email",
        "gzip",
        "http",
        "multiprocessing",
        "pathlib",
        "socket",
    }
    heavy |= {"ssl", "subprocess", "tempfile", "thrift", "unittest", "urllib", "uuid", "zlib"}
    assert set() == {module.partition(".")[0] for module in modules} & heavy
    assert [module for module in modules if module.startswith("baseplate_events.event_publisher")] == []
