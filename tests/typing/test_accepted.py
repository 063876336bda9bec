"""What type checkers must accept, and what types they must see: calls as services write them.

The functions are for mypy and pyright; a test runs those that need no queue.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from baseplate_events import (
    MAX_EVENT_SIZE,
    MAX_QUEUE_SIZE,
    ConfigurationError,
    ContextFactory,
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueue,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
    EventTooLargeError,
    QueueCounters,
    RefusedEvents,
    ThriftStruct,
    json_serializer,
    serialize_v2_event,
    serialize_v2j_event,
)
from baseplate_events.testing import EventCollector, InMemoryEventQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import assert_type

    from baseplate_events.framework import Gauge, MetricsBatch
    from baseplate_events.pytest_plugin import EventQueueFactory
    from baseplate_events.serializers import DataclassInstance
else:

    def assert_type(value: object, _: object) -> object:
        """Stand in at run time for what only type checkers need."""
        return value


class Click(TypedDict):
    """A JSON event as a dict."""

    action: str


class LongClick(Click):
    """One with more in it."""

    seconds: float


@dataclass
class Vote:
    """A JSON event as an object."""

    direction: int


@dataclass(frozen=True)
class FrozenVote:
    """One that doesn't change."""

    direction: int


@dataclass
class WeightedVote(Vote):
    """One with more in it."""

    weight: float


class PlainStruct:
    """What a checker sees of a generated class that it can look into: methods without types."""

    thrift_spec = (None, (1, 11, "source", "UTF8", None))

    def read(self, iprot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as generated
        """Read it."""

    def write(self, oprot):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as generated
        """Write it."""


class FrozenStruct:
    """What later compilers write for `python.immutable`: `read` is a class method that returns the struct."""

    @classmethod
    def read(cls, iprot: object) -> FrozenStruct:
        """Read one."""
        del iprot
        return cls()

    def write(self, oprot: object) -> None:
        """Write it."""


class Point(NamedTuple):
    """Something that JSON has no name for, with a serializer of its own."""

    x: int


def serialize_point(point: Point) -> bytes:
    """Serialize it."""
    return b'{"x":%d}' % point.x


def constants_and_serializers() -> None:
    """The public constants and functions have these types."""
    _sizes: tuple[int, int] = (MAX_EVENT_SIZE, MAX_QUEUE_SIZE)
    by_thrift: Callable[[ThriftStruct], bytes] = serialize_v2_event
    by_json: Callable[[Mapping[str, object] | DataclassInstance], bytes] = serialize_v2j_event
    assert_type(by_thrift(PlainStruct()), bytes)
    assert_type(by_json({}), bytes)


def json_events() -> None:
    """Mappings, TypedDicts and instances of dataclasses and NamedTuples are JSON events."""
    assert_type(serialize_v2j_event({"action": "click", "nested": [1, {"a": None}]}), bytes)
    assert_type(serialize_v2j_event(Click(action="click")), bytes)
    assert_type(serialize_v2j_event(OrderedDict(action="click")), bytes)
    assert_type(serialize_v2j_event(Vote(1)), bytes)
    assert_type(serialize_v2j_event(FrozenVote(1)), bytes)
    assert_type(serialize_v2j_event(Point(1)), bytes)
    assert_type(json_serializer(default=str)(Vote(1)), bytes)
    votes: Callable[[Vote], bytes] = json_serializer()
    assert_type(votes(Vote(1)), bytes)


def thrift_events() -> None:
    """What looks like a generated class to a checker is a Thrift struct."""
    assert_type(serialize_v2_event(PlainStruct()), bytes)
    assert_type(serialize_v2_event(FrozenStruct()), bytes)


def queue_of_thrift_structs() -> None:
    """The serializer decides what may be put."""
    queue = EventQueue("main", serialize_v2_event)
    assert_type(queue, EventQueue[ThriftStruct])
    queue.put(PlainStruct())
    assert_type(queue.close(), None)
    assert_type(queue.make_object_for_context("events", None), EventQueue[ThriftStruct])
    assert_type(queue(""), EventQueue[ThriftStruct])
    with queue as same:
        assert_type(same, EventQueue[ThriftStruct])


def queue_of_certain_events() -> None:
    """A declared type narrows what may be put."""
    clicks: EventQueue[Click] = EventQueue("main", serialize_v2j_event)
    clicks.put({"action": "click"})
    clicks.put(LongClick(action="click", seconds=1.5))
    votes = EventQueue[Vote]("main", serialize_v2j_event, max_queue_size=1, max_event_size=1, put_timeout=1)
    votes.put(Vote(1))
    votes.put(WeightedVote(1, 0.5))
    points = EventQueue("main", serialize_point, mode=0o660, strict_size=True)
    assert_type(points, EventQueue[Point])
    points.put(Point(1))
    spooled = EventQueue("main", serialize_point, spool_directory=Path("/spool"), max_spool_size=2**20)
    assert_type(spooled, EventQueue[Point])
    spooled.put_many([Point(1)])
    spooled.put_many(Point(number) for number in range(3))
    assert_type(EventQueue("main", serialize_point, spool_directory="/spool").refused, dict[str, int])


def contravariance(
    votes: EventQueue[Vote], structs: EventQueue[ThriftStruct], anything: EventQueue[object]
) -> None:
    """A queue of a supertype serves where a queue of a subtype is asked for."""
    _weighted_votes: EventQueue[WeightedVote] = votes
    _certain_structs: EventQueue[PlainStruct] = structs
    _votes: EventQueue[Vote] = anything
    _structs: EventQueue[ThriftStruct] = anything


def context_factories(
    queue: EventQueue[Vote], factory: ContextFactory, gauge: Gauge, batch: MetricsBatch
) -> None:
    """A queue is a context factory, and any metrics client of the framework's form will do for it."""
    _factory: ContextFactory = queue
    assert_type(factory.make_object_for_context("events", object()), object)
    assert_type(factory.report_runtime_metrics(batch), None)
    gauge.replace(1)
    batch.gauge("depth").replace(0.5)
    parse: Callable[[str], object] = queue
    parse("")
    queue.report_runtime_metrics(FrameworkBatch())


class FrameworkGauge:
    """A gauge as baseplate.py's metrics client has it."""

    def replace(self, new_value: float) -> None:
        """Set it."""


class FrameworkCounter:
    """A counter as baseplate.py's metrics client has it."""

    def increment(self, delta: float = 1.0, sample_rate: float = 1.0) -> None:
        """Count up."""


class FrameworkBatch:
    """A batch as baseplate.py's metrics client has it."""

    def counter(self, name: str, tags: dict[str, object] | None = None) -> FrameworkCounter:
        """Return the counter."""
        del name, tags
        return FrameworkCounter()

    def gauge(self, name: str, tags: dict[str, object] | None = None) -> FrameworkGauge:
        """Return the gauge."""
        del name, tags
        return FrameworkGauge()


def what_can_be_seen_of_a_queue(queue: EventQueue[Vote]) -> None:
    """Counters are numbers by name, and what may be unknown says so."""
    counters = queue.counters()
    assert_type(counters, QueueCounters)
    assert_type(counters.put, int)
    assert_type(counters.refused, RefusedEvents)
    assert_type(counters.refused.full, int)
    assert_type(counters.refused.total, int)
    assert_type(counters.since(counters), QueueCounters)
    assert_type(counters.by_outcome(), dict[str, int])
    assert_type(queue.depth, "int | None")
    assert_type(queue.capacity, "int | None")
    assert_type(queue.spool_size, "int | None")
    assert_type(queue.spool_max_size, "int | None")
    assert_type(queue.enabled, bool)
    assert_type(queue.try_put(Vote(1)), bool)


def queues_that_are_off(is_production: bool) -> None:
    """A switch is a bool, or None for the environment's."""
    EventQueue("main", serialize_v2_event, enabled=is_production)
    EventQueue("main", serialize_v2_event, enabled=None)


def queues_in_memory(make_event_queue: EventQueueFactory) -> None:
    """A queue in memory serves where a queue is asked for, and knows the type of its events."""
    clicks: InMemoryEventQueue[Click] = InMemoryEventQueue("main", serialize_v2j_event)
    clicks.put(LongClick(action="click", seconds=1.5))
    assert_type(clicks.events, list[Click])
    assert_type(clicks.only_event(), Click)
    assert_type(clicks.messages, list[bytes])
    assert_type(clicks.errors, list[EventError])
    clicks.fail_with(EventQueueFullError())
    clicks.fail_with(None)
    _clicks: EventQueue[Click] = clicks
    _long_clicks: EventQueue[LongClick] = clicks
    _factory: ContextFactory = clicks
    points = InMemoryEventQueue(
        "main", serialize_point, max_queue_size=1, max_event_size=20, put_timeout=1, mode=0, strict_size=True
    )
    assert_type(points, InMemoryEventQueue[Point])
    with points as same:
        assert_type(same, InMemoryEventQueue[Point])
    assert_type(make_event_queue(serialize_point), InMemoryEventQueue[Point])
    made: InMemoryEventQueue[Click] = make_event_queue(serialize_v2j_event, name="main", max_queue_size=1)
    made.put(Click(action="click"))
    kind: type[EventQueue[Click]] = InMemoryEventQueue[Click]
    kind("main", serialize_v2j_event).put({"action": "click"})


def collectors(collector: EventCollector) -> None:
    """What a collector has taken are JSON objects, whatever was put."""
    assert_type(collector.wait_for(1, refusals=1, timeout=0.5), list[dict[str, object]])
    assert_type(collector.events, list[dict[str, object]])
    assert_type(collector.messages, list[bytes])
    assert_type([(refusal.status, refusal.reason) for refusal in collector.refusals], list[tuple[int, str]])
    assert_type(collector.publisher_config("main", version="2j", retry__cap="1 second"), str)
    collector.answer_with(503)
    collector.answer_with(None)


def facts_of_errors() -> None:
    """An error's attributes have types, and every error is an EventError."""
    too_large = EventTooLargeError(1)
    assert_type(too_large.size, int)
    assert_type(too_large.limit, "int | None")
    full = EventQueueFullError()
    assert_type(full.name, "str | None")
    assert_type(full.capacity, "int | None")
    broken = EventNotSerializableError("user.id", "a problem")
    assert_type(broken.field, str)
    assert_type(broken.problem, str)
    unavailable = EventQueueUnavailableError("/events-main", "a problem")
    assert_type(unavailable.name, str)
    assert_type(unavailable.problem, str)
    mistaken = ConfigurationError("one", "two")
    assert_type(mistaken.problems, "tuple[str, ...]")
    _unavailable: tuple[EventQueueUnavailableError, ...] = (
        EventQueueClosedError("/events-main", ""),
        EventQueueLimitError("/events-main", ""),
        EventQueuePermissionError("/events-main", ""),
        EventQueueRemovedError("/events-main", ""),
        EventQueueUnsupportedError("/events-main", ""),
    )
    _errors: tuple[EventError, ...] = (too_large, full, broken, unavailable, mistaken, EventEmptyError())


def test_what_needs_no_queue_runs() -> None:
    """What type checkers accept is accepted at run time as well, where no queue is needed."""
    json_events()
    facts_of_errors()
