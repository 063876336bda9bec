from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from baseplate_events import (
    MAX_EVENT_SIZE,
    MAX_QUEUE_SIZE,
    ContextFactory,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventTooLargeError,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.pytest_plugin import make_event_queue
from baseplate_events.testing import InMemoryEventQueue
from tests.support.commands import IMPORTING, run
from tests.support.machines import check_machine
from tests.support.queues import EVENTS, FEW, SMALL, drain, event_of, fresh_name, outlast_trust, reader
from tests.support.schema_samples import small_event
from tests.support.services import Click, Clicks
from tests.support.strategies import json_objects, puttable_events, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from baseplate_events.pytest_plugin import EventQueueFactory

#: Otherwise unused: importing it is what makes it a fixture of this module.
__all__ = ["make_event_queue"]

#: Bytes that an event of the twins may have: few, so that sizes around it are drawn.
LIMIT = 8

#: What fails in place of the real queue.
FAILURES = (
    EventQueueRemovedError("/events-main", "it was removed and can't be recreated"),
    EventQueuePermissionError("/events-main", "another user's"),
    EventQueueFullError(),
    EventError(),
)


def serialize(event: object) -> bytes:
    """Return an event as it is, even if it isn't bytes, or raise it."""
    if isinstance(event, Exception):
        raise event
    return cast("bytes", event)


def raised(operation: Callable[[], object]) -> tuple[object, ...]:
    """Do something and describe what it raised: type, facts, message and what a traceback shows before it."""
    try:
        operation()
    except Exception as error:  # noqa: BLE001 - it is compared
        before = None if error.__suppress_context__ else error.__context__
        return (type(error), error.args, str(error), error.__cause__, type(before))
    return ()


class Metrics:
    """A metrics client that keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def gauge(self, name: str) -> Metric:
        return Metric(self, name)

    def counter(self, name: str) -> Metric:
        return Metric(self, name)


class Metric:
    """A gauge or counter of that client."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.metrics = metrics
        self.name = name

    def replace(self, new_value: float) -> None:
        self.metrics.values[self.name] = new_value

    def increment(self, delta: float) -> None:
        self.metrics.values[self.name] = self.metrics.values.get(self.name, 0) + delta


class Twins(RuleBasedStateMachine):
    """A real queue and one in memory, to which the same happens."""

    @initialize(limit=st.integers(1, LIMIT), timeout=st.sampled_from([0.0, 1e-9]))
    def make(self, limit: int, timeout: float) -> None:
        self.context = fresh_name(EVENTS)
        self.posix_name = self.context.__enter__()
        self.limit = limit
        self.reader = reader(self.posix_name, FEW, LIMIT)
        self.real: EventQueue[object] = self.queue_of(EventQueue[object], timeout)
        self.twin = cast("InMemoryEventQueue[object]", self.queue_of(InMemoryEventQueue[object], timeout))
        self.closed = False
        self.put: list[object] = []
        self.metrics = Metrics(), Metrics()

    def queue_of(self, kind: type[EventQueue[object]], timeout: float) -> EventQueue[object]:
        name = self.posix_name.removeprefix(EVENTS)
        return kind(name, serialize, max_queue_size=FEW, max_event_size=self.limit, put_timeout=timeout)

    @rule(event=puttable_events, trusted=st.booleans())
    def put_event(self, event: object, trusted: bool) -> None:
        if not trusted:
            outlast_trust()
        expected = raised(lambda: self.real.put(event))
        assert expected == raised(lambda: self.twin.put(event))
        if not expected:
            self.put.append(event)

    @rule()
    def take_everything(self) -> None:
        assert drain(self.reader) == self.twin.messages
        assert self.put == self.twin.events
        self.twin.clear()
        self.put.clear()

    @rule()
    def report(self) -> None:
        for queue, metrics in zip((self.real, self.twin), self.metrics, strict=True):
            queue.report_runtime_metrics(metrics)
        assert self.metrics[0].values == self.metrics[1].values

    @rule()
    def close(self) -> None:
        self.real.close()
        self.twin.close()
        self.closed = True

    @invariant()
    def they_are_alike(self) -> None:
        assert self.real.refused == self.twin.refused
        assert self.reader.current_messages == len(self.twin.messages) == len(self.twin.events)
        assert sum(self.real.refused.values()) == len(self.twin.errors)

    def teardown(self) -> None:
        self.real.close()
        self.reader.close()
        self.context.__exit__(None, None, None)


def test_it_behaves_as_the_real_queue() -> None:
    """Whatever is put, taken and closed in any order: same errors, counts, metrics and messages."""
    check_machine(Twins, steps=25, examples=60)


@given(
    st.sampled_from(["main", "x" * 247, ".", "", "a/b", "\0", "\ud800", "x" * 248]),
    st.sampled_from([-1, 0, 1, FEW, 65_537]),
    st.sampled_from([-1, 0, 1, SMALL, 2**24 + 1]),
    st.sampled_from([-1.0, 0.0, 1.0, float("nan"), float("inf")]),
    st.sampled_from([-1, 0, 0o600, 0o1000]),
)
def test_it_takes_the_arguments_of_the_real_queue(
    name: str, queue_size: int, event_size: int, timeout: float, mode: int
) -> None:
    """What arguments the real queue refuses, it refuses in the same words, and takes all others."""

    def make(kind: type[EventQueue[bytes]], name: str) -> None:
        kind(
            name,
            serialize,
            max_queue_size=queue_size,
            max_event_size=event_size,
            put_timeout=timeout,
            mode=mode,
        ).close()

    with fresh_name(EVENTS) as posix_name:
        if name == "main":  # the only one that a real queue is made of here
            name = posix_name.removeprefix(EVENTS)
        refusal = raised(lambda: make(InMemoryEventQueue[bytes], name))
        if refusal or posix_name == EVENTS + name:
            assert refusal == raised(lambda: make(EventQueue[bytes], name))


def test_the_sizes_are_those_of_the_real_queue() -> None:
    """By default it holds 10,000 events of 102,400 bytes, whatever the host allows."""
    queue = InMemoryEventQueue("main", serialize)
    largest = event_of(MAX_EVENT_SIZE)
    for _ in range(MAX_QUEUE_SIZE):
        queue.put(largest)
    with pytest.raises(EventQueueFullError):
        queue.put(b"{x}")
    queue.clear()
    with pytest.raises(EventTooLargeError):
        queue.put(event_of(MAX_EVENT_SIZE + 1))
    assert [] == queue.events == queue.messages


@given(st.lists(json_objects, max_size=5))
def test_it_has_the_events_and_what_was_made_of_them(events: list[dict[str, object]]) -> None:
    """`events` are the objects that were put, `messages` what the serializer made of them, in order."""
    queue = InMemoryEventQueue("main", serialize_v2j_event)
    for event in events:
        queue.put(event)
    assert [id(event) for event in events] == [id(event) for event in queue.events]
    assert [serialize_v2j_event(event) for event in events] == queue.messages
    queue.events.clear()
    queue.messages.clear()
    assert events == queue.events
    assert len(events) == len(queue.messages)


def test_thrift_events_are_events() -> None:
    """A Thrift struct is kept and serialized as well."""
    event = small_event()
    with InMemoryEventQueue("main", serialize_v2_event) as queue:
        queue.put(event)
        assert queue.only_event() is event
        assert [serialize_v2_event(event)] == queue.messages


@given(st.lists(st.sampled_from(["put", "fill", "clear"]), max_size=10))
def test_it_is_full_on_request(steps: list[str]) -> None:
    """After `fill`, each event is refused as full until `clear`, and the metrics say so."""
    queue = InMemoryEventQueue("main", serialize, max_queue_size=FEW)
    metrics = Metrics()
    filled, held = False, 0
    for step in steps:
        if step == "fill":
            queue.fill()
            filled = True
        elif step == "clear":
            queue.clear()
            filled, held = False, 0
        elif filled or held == FEW:
            with pytest.raises(EventQueueFullError) as caught:
                queue.put(b"{x}")
            assert ("/events-main", FEW) == (caught.value.name, caught.value.capacity)
        else:
            queue.put(b"{x}")
            held += 1
        queue.report_runtime_metrics(metrics)
        assert (FEW if filled else held) == metrics.values["event_queue.main.depth"]
        assert held == len(queue.events)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_it_fails_on_request(failure: EventError) -> None:
    """After `fail_with`, that error is raised and counted for every event that could be put, until None."""
    queue = InMemoryEventQueue("main", serialize)
    queue.put(b"{before}")
    queue.fail_with(failure)
    for _ in range(2):
        with pytest.raises(EventError) as caught:
            queue.put(b"{x}")
        assert failure is caught.value
        with pytest.raises(EventNotSerializableError):
            queue.put(None)
        outlast_trust()
    queue.fail_with(None)
    queue.put(b"{after}")
    assert queue.messages == [b"{before}", b"{after}"]
    assert [failure, failure] == queue.errors[::2]
    assert sum(queue.refused.values()) == 4
    queue.fail_with(failure)
    queue.close()
    with pytest.raises(EventQueueClosedError):
        queue.put(b"{x}")


def test_a_full_queue_is_not_waited_for() -> None:
    """With any `put_timeout`, a full queue refuses immediately: no one removes events."""
    queue = InMemoryEventQueue("main", serialize, max_queue_size=1, put_timeout=1e9)
    queue.put(b"{x}")
    with pytest.raises(EventQueueFullError):
        queue.put(b"{x}")


def test_a_service_is_tested_with_it(make_event_queue: EventQueueFactory) -> None:
    """If an `EventQueue` is asked for it serves, and shows what the service put and what it swallowed."""
    queue: InMemoryEventQueue[Click] = make_event_queue(serialize_v2j_event)
    service = Clicks(queue)
    assert service.handle("click")
    assert queue.only_event() == {"action": "click"}
    queue.fill()
    assert not service.handle("lost")
    assert ["EventQueueFullError"] == [type(error).__name__ for error in queue.errors]
    factory: ContextFactory = queue
    assert queue is factory.make_object_for_context("events", None)
    assert queue is queue("")


@given(texts.filter(bool), st.integers(0, 3), st.integers(0, 2))
def test_a_failed_assertion_says_what_happened(secret: str, put: int, refused: int) -> None:
    """`only_event` gives the only event, or says how many there are and what was refused."""
    queue = InMemoryEventQueue("main", serialize_v2j_event)
    for number in range(put):
        queue.put({"number": number, "secret": f"<{secret}>"})
    for _ in range(refused):
        with pytest.raises(EventNotSerializableError):
            queue.put({"secret": f"<{secret}>", "tags": b"{}"})
    if put == 1:
        assert queue.events == [queue.only_event()]
        return
    with pytest.raises(AssertionError) as caught:
        queue.only_event()
    text = str(caught.value)
    assert f"there are {put}" in text
    assert (f"{refused} refused" in text) == (refused > 0)
    assert ("field tags of the event" in text) == (refused > 0)
    assert f"<{secret}>" not in text


@given(st.integers(1, 4), st.integers(1, 30))
def test_threads_share_it(threads: int, count: int) -> None:
    """What threads put at the same time is there once, each event beside its message."""
    queue = InMemoryEventQueue[dict[str, int]]("main", serialize_v2j_event, max_queue_size=threads * count)
    start = threading.Barrier(threads)

    def work(worker: int) -> None:
        start.wait()
        for number in range(count):
            queue.put({"worker": worker, "number": number})

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [json.loads(message) for message in queue.messages] == queue.events
    assert {(w, n) for w in range(threads) for n in range(count)} == {
        (event["worker"], event["number"]) for event in queue.events
    }
    assert threads * count == len(queue.events)


def test_a_serializer_may_put_too() -> None:
    """An event that is put while another is serialized comes first, and both are there."""

    def nested(event: bytes) -> bytes:
        if len(event) > 3:
            queue.put(b"{%b" % event[2:])
        return event

    queue = InMemoryEventQueue("main", nested)
    queue.put(b"{abc}")
    assert queue.events == queue.messages == [b"{c}", b"{bc}", b"{abc}"]


def test_neither_posix_ipc_nor_pytest_is_needed() -> None:
    """A queue in memory and a collector work where neither is installed, and no POSIX queue is made."""
    program = """if True:
        import sys
        for name in ("posix_ipc", "pytest", "thrift"):
            sys.modules[name] = None
        from baseplate_events import EventError, EventQueue, EventQueueUnsupportedError, serialize_v2j_event
        from baseplate_events.testing import EventCollector, InMemoryEventQueue
        queue = InMemoryEventQueue("main", serialize_v2j_event, put_timeout=1.0)
        queue.put({"action": "click"})
        queue.fill()
        try:
            queue.put({})
        except EventError as error:
            print(error)
        queue.close()
        with EventCollector() as collector:
            print(collector.events, queue.events)
        try:
            EventQueue("main", serialize_v2j_event, strict_size=True)
        except EventQueueUnsupportedError:
            print("no real one")
    """
    done = run(sys.executable, "-W", "error", "-c", program, environ=IMPORTING).check()
    assert [
        str(EventQueueFullError("/events-main", MAX_QUEUE_SIZE)),
        "[] [{'action': 'click'}]",
        "no real one",
    ] == done.splitlines()
