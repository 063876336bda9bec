"""The documentation of baseplate.py's `baseplate.lib.events`, section by section, with the names changed.

Each test is a section of it, in its order, with its examples unchanged where possible.
"""

from __future__ import annotations

import base64
import inspect
import sys
import time
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import baseplate_events
from baseplate_events import (
    EventError,
    EventQueue,
    EventQueueFullError,
    EventTooLargeError,
    serialize_v2_event,
)
from baseplate_events.events import SPOOL_VARIABLE
from tests.interop.original import Untyped, original
from tests.support.commands import run
from tests.support.documents import blocks
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES, small_queue
from tests.support.queues import drain
from tests.support.schema_samples import PLAIN
from tests.support.spool_reader import SpoolFileReader

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from baseplate_events import ContextFactory
    from baseplate_events.transport.posix import MessageQueue

Event = PLAIN.Event

CONFIG = """\
[event-publisher:something]
collector.hostname = some-domain.example.com

key.name = NameOfASecretKey
key.secret = {secret}

metrics.namespace = a.name.to.put.metrics.under
metrics.endpoint = the-statsd-host:1234
"""


@pytest.fixture
def posix_queue(name: str) -> Generator[MessageQueue]:
    """The queue behind an EventQueue, made small: not every host allows the documentation's size."""
    with small_queue(name) as queue:
        yield queue


def make_event() -> Untyped:
    """Return the event of the documentation."""
    return Event(
        source="baseplate",
        action="test",
        noun="baseplate",
        client_timestamp=time.time() * 1000,
        uuid=str(uuid.uuid4()),
    )


def test_building_events(name: str, posix_queue: MessageQueue) -> None:
    """The example of a handler and of `make_wsgi_app`: the handler's event is on the queue."""
    made: list[Untyped] = []

    def my_handler(request: Untyped) -> None:
        ev2 = make_event()
        made.append(ev2)
        request.events_v2.put(ev2)

    def make_wsgi_app(app_config: dict[str, str]) -> Untyped:
        baseplate = original("").Baseplate(app_config)
        baseplate.configure_context({"events_v2": EventQueue(name, serialize_v2_event)})
        return baseplate

    with make_wsgi_app({}).server_context("my_handler") as request:
        my_handler(request)
        request.events_v2.close()
    assert list(map(serialize_v2_event, made)) == drain(posix_queue)


def test_queuing_events(name: str, posix_queue: MessageQueue) -> None:
    """The examples of `add_to_context` and of a service's method: the method's event is on the queue."""
    made: list[Untyped] = []

    def some_service_method(_: object, context: Untyped) -> None:
        event = make_event()
        made.append(event)
        context.events_production.put(event)

    baseplate = original("").Baseplate()
    event_queue = EventQueue(name, serialize_v2_event)
    baseplate.add_to_context("events_production", event_queue)
    with baseplate.server_context("some_service_method") as context:
        some_service_method(SimpleNamespace(), context)
    event_queue.close()
    assert list(map(serialize_v2_event, made)) == drain(posix_queue)


def test_context_attributes_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example for the framework, as it stands in the README: both attributes put events."""
    block = blocks("README.md", "python", heading="In a service")[3]
    monkeypatch.setenv(SPOOL_VARIABLE, str(tmp_path))  # no other test has the queues of the example
    baseplate = original("").Baseplate()
    names = {"EventQueue": EventQueue, "serialize_v2_event": serialize_v2_event, "baseplate": baseplate}
    exec(compile(block.text, "README.md", "exec"), names)
    made = make_event()
    with baseplate.server_context("my_handler") as context:
        for queue, name in ((context.events_v2, "v2"), (context.events_production, "production")):
            queue.put(made)
            queue.close()
            with SpoolFileReader(tmp_path / f"events-{name}") as reader:
                reader.read()
                assert [serialize_v2_event(made)] == reader.events


def test_event_queue_takes_the_documented_arguments(name: str, posix_queue: MessageQueue) -> None:
    """`EventQueue(name, event_serializer)` takes both by position and by name, and any serializer."""
    documented = list(inspect.signature(original("lib.events").EventQueue).parameters)
    assert documented == list(inspect.signature(EventQueue).parameters)[: len(documented)]

    def serialize(event: str) -> bytes:
        return b'{"text":"%b"}' % event.encode()

    with (
        EventQueue(name, serialize) as by_position,
        EventQueue(name=name, event_serializer=serialize) as by_name,
    ):
        by_position.put("first")
        by_name.put(event="second")
    assert drain(posix_queue) == [b'{"text":"first"}', b'{"text":"second"}']


def test_event_queue_is_a_context_factory(name: str, posix_queue: MessageQueue) -> None:
    """It has each method of baseplate.py's ContextFactory, with the same arguments."""
    del posix_queue
    with EventQueue(name, serialize_v2_event) as queue:
        factory: ContextFactory = queue
        for method, function in inspect.getmembers(original("clients").ContextFactory, inspect.isfunction):
            documented = list(inspect.signature(function).parameters)[1:]  # all but self
            assert documented == list(inspect.signature(getattr(factory, method)).parameters)


def test_put_raises_the_documented_errors(name: str, posix_queue: MessageQueue) -> None:
    """An event that is too large and one that finds the queue full raise what is documented."""
    with EventQueue(name, serialize_v2_event) as queue:
        with pytest.raises(EventTooLargeError):
            queue.put(Event(source="x" * MAX_MESSAGE_SIZE))
        for _ in range(MAX_MESSAGES):
            queue.put(make_event())
        with pytest.raises(EventQueueFullError):
            queue.put(make_event())
    assert len(drain(posix_queue)) == MAX_MESSAGES


def test_the_exceptions_are_made_and_caught_as_documented() -> None:
    """`EventTooLargeError(size)` and `EventQueueFullError()` are EventErrors with baseplate.py's words."""
    theirs = original("lib.events")
    for ours, original_error in (
        (EventTooLargeError(102_401), theirs.EventTooLargeError(102_401)),
        (EventQueueFullError(), theirs.EventQueueFullError()),
    ):
        assert isinstance(ours, EventError)
        assert str(original_error) == str(ours)


def test_every_documented_name_is_there() -> None:
    """All names that baseplate.py's module defines can be imported from here, with the same constants."""
    theirs = original("lib.events")
    documented = {
        name
        for name, member in vars(theirs).items()
        if getattr(member, "__module__", None) == theirs.__name__ and not name.startswith("_")
    } - {"T", "EventLogger", "DebugLogger"}  # not in its documentation
    assert documented == documented & set(baseplate_events.__all__)
    assert (theirs.MAX_EVENT_SIZE, theirs.MAX_QUEUE_SIZE) == (
        baseplate_events.MAX_EVENT_SIZE,
        baseplate_events.MAX_QUEUE_SIZE,
    )


def test_publishing_events(tmp_path: Path) -> None:
    """The documented section of the INI file is valid with the documented command line."""
    config_file = tmp_path / "config_file.ini"
    config_file.write_text(CONFIG.format(secret=base64.b64encode(b"blob of randomness").decode()))
    command = [
        sys.executable,
        "-m",
        "baseplate_events.event_publisher",
        "--queue-name",
        "something",
        str(config_file),
    ]
    checked = run(*command, "--check")
    assert checked.err == ""
    assert checked.status == 0
