"""What type checkers must refuse: each line with an ignore comment is an error, or the comment itself is one.

Both checkers read these comments, and both report one that isn't needed; mypy also checks the code in it. The
functions are for mypy and pyright and never run; each says what is wrong in all of its lines.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from baseplate_events import EventQueue, ThriftStruct, serialize_v2_event, serialize_v2j_event
from baseplate_events.event_publisher.config.declare import BOOLEAN, Group, choice, integer, option, optional
from baseplate_events.testing import InMemoryEventQueue

if TYPE_CHECKING:
    from typing import IO

    from baseplate_events import ContextFactory, EventTooLargeError
    from baseplate_events.event_publisher.config.options import Version
    from baseplate_events.event_publisher.config.settings import PublisherSettings
    from baseplate_events.pytest_plugin import EventQueueFactory
    from baseplate_events.testing import EventCollector


class Click(TypedDict):
    """A JSON event as a dict."""

    action: str


@dataclass
class Vote:
    """A JSON event as an object."""

    direction: int


@dataclass
class WeightedVote(Vote):
    """One with more in it."""

    weight: float


class OnlyWrites:
    """Not a generated class: it can't be read."""

    def write(self, oprot: object) -> None:
        """Write it."""


class Text:
    """Not a dataclass."""

    def __init__(self, text: str) -> None:
        self.text = text


def text_on_queues(
    structs: EventQueue[ThriftStruct], clicks: EventQueue[Click], votes: EventQueue[Vote]
) -> None:
    """Text isn't an event of any of these kinds."""
    structs.put("text")  # type: ignore[arg-type]
    clicks.put("text")  # type: ignore[arg-type]
    votes.put("text")  # type: ignore[arg-type]


def text_on_queues_of_serializers() -> None:
    """The serializer's type is the queue's, without a declaration."""
    structs = EventQueue("main", serialize_v2_event)
    structs.put("text")  # type: ignore[arg-type]
    structs.put({"action": "click"})  # type: ignore[arg-type]
    jsons = EventQueue("main", serialize_v2j_event)
    jsons.put("text")  # type: ignore[arg-type]
    jsons.put(["text"])  # type: ignore[arg-type]
    jsons.put(None)  # type: ignore[arg-type]


def other_events(clicks: EventQueue[Click], votes: EventQueue[Vote]) -> None:
    """An event of another kind, or one with a field that is wrong or missing, isn't the queue's."""
    clicks.put({"action": 1})  # type: ignore[typeddict-item]
    clicks.put({})  # type: ignore[typeddict-item]
    clicks.put(Vote(1))  # type: ignore[arg-type]
    votes.put(Click(action="click"))  # type: ignore[arg-type]
    votes.put(Vote)  # type: ignore[arg-type]
    votes.put_many(Vote(1))  # type: ignore[arg-type]
    votes.try_put("text")  # type: ignore[arg-type]
    votes.put_many(["text"])  # type: ignore[list-item]


def not_thrift_structs(file: IO[bytes], writer: OnlyWrites) -> None:
    """What can be read and written otherwise, or only written, isn't a Thrift struct; nor is a class."""
    serialize_v2_event("text")  # type: ignore[arg-type]
    serialize_v2_event(b"bytes")  # type: ignore[arg-type]
    serialize_v2_event(file)  # type: ignore[arg-type]
    serialize_v2_event(writer)  # type: ignore[arg-type]
    serialize_v2_event({})  # type: ignore[arg-type]
    serialize_v2_event(Vote(1))  # type: ignore[arg-type]
    serialize_v2_event(None)  # type: ignore[arg-type]


def not_json_events(struct: ThriftStruct) -> None:
    """What isn't a mapping with text for keys or an instance of a dataclass isn't a JSON event."""
    serialize_v2j_event("text")  # type: ignore[arg-type]
    serialize_v2j_event(b"bytes")  # type: ignore[arg-type]
    serialize_v2j_event([])  # type: ignore[arg-type]
    serialize_v2j_event({1: "one"})  # type: ignore[dict-item]
    serialize_v2j_event(Text("text"))  # type: ignore[arg-type]
    serialize_v2j_event(struct)  # type: ignore[arg-type]
    serialize_v2j_event(Vote)  # type: ignore[arg-type]
    serialize_v2j_event(None)  # type: ignore[arg-type]


def not_contravariant(weighted: EventQueue[WeightedVote], clicks: EventQueue[Click]) -> None:
    """A queue of a subtype doesn't serve where a queue of a supertype is asked for."""
    _votes: EventQueue[Vote] = weighted  # type: ignore[assignment]
    _objects: EventQueue[object] = clicks  # type: ignore[assignment]
    _structs: EventQueue[ThriftStruct] = clicks  # type: ignore[assignment]


def wrong_serializers() -> None:
    """A serializer takes one event and returns bytes, and the declared queue's events at that."""

    def to_text(_: Vote) -> str:
        return ""

    def of_nothing() -> bytes:
        return b""

    def of_weighted(_: WeightedVote) -> bytes:
        return b""

    EventQueue("main", to_text)  # type: ignore[arg-type]
    EventQueue("main", of_nothing)  # type: ignore[arg-type]
    EventQueue("main", b"")  # type: ignore[arg-type]
    EventQueue[Vote]("main", of_weighted)  # type: ignore[arg-type]
    EventQueue[Click]("main", serialize_v2_event)  # type: ignore[arg-type]
    EventQueue[ThriftStruct]("main", serialize_v2j_event)  # type: ignore[arg-type]


def wrong_arguments() -> None:
    """Settings are keywords and have types."""
    EventQueue("main", serialize_v2_event, 10)  # type: ignore[call-arg]
    EventQueue("main", serialize_v2_event, max_queue_size="10")  # type: ignore[arg-type]
    EventQueue("main", serialize_v2_event, put_timeout=None)  # type: ignore[arg-type]
    EventQueue("main", serialize_v2_event, spool_directory=b"/spool")  # type: ignore[arg-type]
    EventQueue("main", serialize_v2_event, max_spool_size="1 GiB")  # type: ignore[arg-type]
    EventQueue("main", serialize_v2_event, enabled="off")  # type: ignore[arg-type]
    EventQueue("main")  # type: ignore[call-arg]
    EventQueue(b"main", serialize_v2_event)  # type: ignore[arg-type]


def wrong_events_in_memory(clicks: InMemoryEventQueue[Click], make_event_queue: EventQueueFactory) -> None:
    """A queue in memory is as strict, wherever it comes from."""
    clicks.put("text")  # type: ignore[arg-type]
    clicks.put({"action": 1})  # type: ignore[typeddict-item]
    clicks.put(Vote(1))  # type: ignore[arg-type]
    InMemoryEventQueue("main", serialize_v2_event).put("text")  # type: ignore[arg-type]
    InMemoryEventQueue[Click]("main", serialize_v2_event)  # type: ignore[arg-type]
    make_event_queue(serialize_v2j_event).put("text")  # type: ignore[arg-type]
    make_event_queue(b"")  # type: ignore[arg-type]


def not_in_place_of(clicks: InMemoryEventQueue[Click], weighted: InMemoryEventQueue[WeightedVote]) -> None:
    """A queue in memory doesn't serve for another type, nor for a supertype, nor a real one for it."""
    _votes: EventQueue[Vote] = clicks  # type: ignore[assignment]
    _wider: EventQueue[Vote] = weighted  # type: ignore[assignment]
    _wider_too: InMemoryEventQueue[Vote] = weighted  # type: ignore[assignment]
    _memory: InMemoryEventQueue[Click] = EventQueue("main", serialize_v2j_event)  # type: ignore[assignment]


def wrong_tests(clicks: InMemoryEventQueue[Click], collector: EventCollector) -> None:
    """What a test passes to a queue or a collector, and what it gets back, has types too."""
    clicks.fail_with(ValueError())  # type: ignore[arg-type]
    clicks.only_event()["noun"]  # type: ignore[typeddict-item]
    clicks.events = []  # type: ignore[misc]
    collector.answer_with("503")  # type: ignore[arg-type]
    collector.wait_for(1, 2)  # type: ignore[call-arg]
    collector.publisher_config("main", max_queue_size=10)  # type: ignore[call-arg, arg-type]


def not_what_they_seem(queue: EventQueue[Vote], error: EventTooLargeError) -> None:
    """A put gives nothing back, a serializer isn't a context factory, and an error's facts have types."""
    _result: int = queue.put(Vote(1))  # type: ignore[assignment, func-returns-value]
    _factory: ContextFactory = serialize_v2_event  # type: ignore[assignment]
    _limit: int = error.limit  # type: ignore[assignment]
    _depth: int = queue.depth  # type: ignore[assignment]
    queue.counters().put = 1  # type: ignore[misc]
    queue.counters().refused["full"]  # type: ignore[call-overload]


class Misdeclared(Group):
    """The field of an option has the type of its values."""

    number: str = option("a.number", integer(1, 2), "1", "A number.")  # type: ignore[assignment]
    switch: str = option("a.switch", BOOLEAN, "true", "A switch.")  # type: ignore[assignment]
    unset: int = optional("an.unset", integer(1, 2), "May be None.")  # type: ignore[assignment]
    word: Version = option("a.word", choice("2", "3"), "2", "A word.")  # type: ignore[arg-type]


def not_what_options_are(settings: PublisherSettings) -> None:
    """A setting has the type of its option, which isn't there by another name and can't be set."""
    _concurrency: str = settings.delivery.concurrency  # type: ignore[assignment]
    _max_age: float = settings.retry.max_age  # type: ignore[assignment]
    _directory = settings.spool.directory  # type: ignore[union-attr]
    _misspelt = settings.batch.maxsize  # type: ignore[attr-defined]
    settings.batch.max_size = 1  # type: ignore[misc]
