"""Beside baseplate.py: its framework, its event queue and its event publisher, all real."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, serialize_v2_event, serialize_v2j_event
from baseplate_events.dev_collector import DevCollector
from baseplate_events.event_publisher import http_transport
from baseplate_events.event_publisher.policy.batching import FORMATS, Batcher
from baseplate_events.event_publisher.policy.wire import Response, build_request, sign, signature_header
from tests.interop.original import Untyped, original, original_publisher
from tests.support import strategies
from tests.support.fault_collector import FaultCollector
from tests.support.publishers import (
    KEY_NAME,
    MAX_MESSAGE_SIZE,
    MAX_MESSAGES,
    SECRET,
    publisher_process,
    small_queue,
)
from tests.support.queues import drain
from tests.support.schema_samples import NEWER, SHAPES, rich_event, small_event
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from baseplate_events.dev_collector import AcceptedBatch
    from baseplate_events.transport.posix import MessageQueue

#: An event as a JSON object.
JSONEvent = dict[str, object]

BATCHES = {"2": "V2Batch", "2j": "V2JBatch"}


class Arrivals:
    """The events at a collector for development, which accepts signed events only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[bytes] = []

    def __call__(self, batch: AcceptedBatch) -> None:
        with self._changed:
            self._events += batch.events
            self._changed.notify_all()

    def wait_for(self, number: int) -> list[bytes]:
        """Return the events as soon as there are this many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._events) >= number, PATIENCE):
                raise TimeoutError(f"{len(self._events)} of {number} events came")
            return list(self._events)


@pytest.fixture
def posix_queue(name: str) -> Generator[MessageQueue]:
    """The POSIX queue `/events-NAME`, made small before any other process opens it."""
    with small_queue(name) as queue:
        yield queue


@pytest.fixture
def events(name: str, posix_queue: MessageQueue) -> Generator[EventQueue[Mapping[str, object]]]:
    """An event queue of JSON events on that queue."""
    del posix_queue
    with EventQueue(
        name, serialize_v2j_event, max_queue_size=MAX_MESSAGES, max_event_size=MAX_MESSAGE_SIZE
    ) as queue:
        yield queue


def published(version: str, events: list[bytes]) -> bytes:
    """Return the body that our publisher makes of these events."""
    batcher = Batcher(FORMATS[version], max_size=1 << 30, max_events=1 << 30, max_age=1.0)
    for event in events:
        batcher.add(event, 0.0)
    batch = batcher.take()
    assert batch is not None
    return FORMATS[version].join(batch.events)


def published_by_original(version: str, events: list[bytes]) -> Untyped:
    """Return baseplate.py's serialized batch of these events."""
    batch = getattr(original("sidecars.event_publisher"), BATCHES[version])(max_size=1 << 30)
    for event in events:
        batch.add(event)
    return batch.serialize()


def batch_publisher(key_name: str, secret: bytes, *, hostname: str = "", version: str = "2") -> Untyped:
    """Return baseplate.py's sender of batches."""
    metrics = original("lib.metrics")
    return original("sidecars.event_publisher").BatchPublisher(
        metrics.Client(metrics.NullTransport(log_if_unconfigured=False), "test"),
        SimpleNamespace(
            collector=SimpleNamespace(scheme="http", hostname=hostname, version=version),
            key=SimpleNamespace(name=key_name, secret=secret),
        ),
    )


def json_event(*, serial: int) -> JSONEvent:
    """Return an event with text that needs escapes and text that needs none."""
    return {"serial": serial, "text": 'Zoë\x00\n"'}


# --- on baseplate.py's framework ---


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_configure_context_gives_each_request_the_queue(
    events: EventQueue[Mapping[str, object]],
    posix_queue: MessageQueue,
    *,
    configured: bool,
    nested: bool,
) -> None:
    """Whether or not the application's configuration has the key, requests put events on the queue."""
    key = "events.v2" if nested else "events_v2"
    framework = original("").Baseplate({key: "whatever stands there"} if configured else {})
    framework.configure_context({"events": {"v2": events}} if nested else {"events_v2": events})
    for number in range(3):
        with framework.server_context("request") as context:
            (context.events.v2 if nested else context.events_v2).put({"number": number})
    assert drain(posix_queue) == [b'{"number":0}', b'{"number":1}', b'{"number":2}']


def test_add_to_context_gives_each_request_the_queue(
    events: EventQueue[Mapping[str, object]], posix_queue: MessageQueue
) -> None:
    """A queue that was added is the attribute of each request's context, in child spans as well."""
    framework = original("").Baseplate()
    framework.add_to_context("events_production", events)
    context = framework.make_context_object()
    with framework.make_server_span(context, "request"):
        assert context.events_production is events
        context.events_production.put({"made": "by the request"})
        with context.span.make_child("child", local=True, component_name="part") as child:
            child.context.events_production.put({"made": "by its child"})
    assert drain(posix_queue) == [b'{"made":"by the request"}', b'{"made":"by its child"}']


def test_the_frameworks_reports_hold_the_gauges_of_the_queue(
    events: EventQueue[Mapping[str, object]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's monitoring reports how full the queue is, over its own client and a real socket."""
    events.put({"waits": 1})
    events.put({"waits": 2})
    monitor = original("server.runtime_monitor")
    monkeypatch.setattr(monitor, "REPORT_INTERVAL_SECONDS", 0.01)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        port: int = statsd.getsockname()[1]
        framework = original("").Baseplate()
        framework.configure_context({"events_v2": events})
        client = original("lib.metrics").metrics_client_from_config(
            {"metrics.namespace": "service", "metrics.endpoint": f"127.0.0.1:{port}"}
        )
        batches = iter([client.batch()])

        def next_batch() -> object:
            """Return one batch, and then end the framework's loop, which would run forever."""
            for batch in batches:
                return batch
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            monitor._report_runtime_metrics_periodically(
                SimpleNamespace(batch=next_batch),
                [monitor._BaseplateReporter(framework.get_runtime_metric_reporters())],
            )
        lines = statsd.recv(65_536).decode().splitlines()
        client.transport.socket.close()
    tags = f"hostname={socket.gethostname()},PID={os.getpid()},client=events_v2"
    assert [
        f"service.runtime.event_queue.{name}.depth,{tags}:2|g",
        f"service.runtime.event_queue.{name}.capacity,{tags}:{MAX_MESSAGES}|g",
    ] == lines


# --- events from one to the other ---


def test_their_queue_into_our_publisher(
    name: str, posix_queue: MessageQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that baseplate.py's EventQueue puts are delivered by our publisher byte for byte, in order."""
    del posix_queue
    theirs = original("lib.events")
    monkeypatch.setattr(theirs, "MAX_QUEUE_SIZE", MAX_MESSAGES)
    monkeypatch.setattr(theirs, "MAX_EVENT_SIZE", MAX_MESSAGE_SIZE)
    queue = theirs.EventQueue(name, theirs.serialize_v2_event)
    arrivals = Arrivals()
    expected: list[bytes] = []
    with (
        DevCollector({KEY_NAME: SECRET}, arrivals) as collector,
        publisher_process(tmp_path, name, collector.url, collector__version="2") as publisher,
    ):
        for make in (small_event, rich_event):
            for serial in range(MAX_MESSAGES):
                event = make(serial=serial)
                expected.append(theirs.serialize_v2_event(event))
                queue.put(event)
            assert expected == arrivals.wait_for(len(expected))
        assert publisher.stop() == 0
    queue.queue.close()
    assert not collector.counts.rejected


def test_a_queue_that_they_made_is_used_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If baseplate.py was first, our EventQueue uses its queue, and their limits hold."""
    theirs = original("lib.events")
    monkeypatch.setattr(theirs, "MAX_QUEUE_SIZE", 2)
    monkeypatch.setattr(theirs, "MAX_EVENT_SIZE", 100)
    first = theirs.EventQueue(name, theirs.serialize_v2_event)
    try:
        with EventQueue(name, serialize_v2j_event, max_queue_size=3, max_event_size=200) as ours:
            ours.put({"number": 1})
            ours.put({"number": 2})
            with pytest.raises(Exception, match="full") as full:
                ours.put({"number": 3})
            assert type(full.value).__name__ == theirs.EventQueueFullError.__name__
            assert first.queue.get(0) == b'{"number":1}'
            assert first.queue.get(0) == b'{"number":2}'
    finally:
        first.queue.unlink()
        first.queue.close()


@pytest.mark.parametrize(
    ("version", "serializer", "make"),
    [
        pytest.param("2", serialize_v2_event, small_event, id="v2"),
        pytest.param("2", serialize_v2_event, rich_event, id="v2-rich"),
        pytest.param("2j", serialize_v2j_event, json_event, id="v2j"),
    ],
)
def test_our_queue_into_their_publisher(
    version: str,
    serializer: Callable[[Any], bytes],
    make: Callable[..., Any],
    *,
    name: str,
    posix_queue: MessageQueue,
    tmp_path: Path,
) -> None:
    """Events that our EventQueue puts are delivered by baseplate.py's publisher byte for byte, in order."""
    del posix_queue
    arrivals = Arrivals()
    events = [make(serial=serial) for serial in range(3 * MAX_MESSAGES)]
    with (
        DevCollector({KEY_NAME: SECRET}, arrivals) as collector,
        original_publisher(tmp_path, name, collector.url, collector__version=version),
        EventQueue(
            name,
            serializer,
            max_queue_size=MAX_MESSAGES,
            max_event_size=MAX_MESSAGE_SIZE,
            put_timeout=PATIENCE,
        ) as queue,
    ):
        for event in events:
            queue.put(event)
        assert list(map(serializer, events)) == arrivals.wait_for(len(events))
    assert not collector.counts.rejected


# --- the bytes ---


@pytest.mark.parametrize("make", [small_event, rich_event])
@pytest.mark.parametrize("shape", SHAPES)
def test_thrift_events_are_the_same_bytes(shape: str, make: Callable[..., Any]) -> None:
    """Every shape of generated class is serialized to baseplate.py's bytes."""
    event = make(SHAPES[shape])
    assert original("lib.events").serialize_v2_event(event) == serialize_v2_event(event)


def test_thrift_events_of_later_compilers_are_the_same_bytes() -> None:
    """Classes of later compilers, recursive and with real enums, are serialized to baseplate.py's bytes."""
    leaf = NEWER.Node(name="leaf", kind=NEWER.Kind.VOTE)
    event = NEWER.Node(name="root", kinds=[NEWER.Kind.VIEW, NEWER.Kind.REPORT], children=[leaf, leaf])
    assert original("lib.events").serialize_v2_event(event) == serialize_v2_event(event)


@given(
    version=st.sampled_from(sorted(BATCHES)),
    events=st.lists(strategies.json_events, min_size=1, max_size=20),
    key_name=st.from_regex(r"[!-+\--~]{1,20}", fullmatch=True),
    secret=st.binary(min_size=1, max_size=80),
)
def test_body_and_signature_are_the_same_bytes(
    version: str, events: list[bytes], key_name: str, secret: bytes
) -> None:
    """Whatever the events and the key, body and signature are baseplate.py's, in the request as well."""
    theirs = published_by_original(version, events)
    body = published(version, events)
    assert theirs.serialized == body
    assert theirs.item_count == len(events)
    signature = batch_publisher(key_name, secret)._sign_payload(theirs.serialized)
    assert signature == signature_header(key_name, sign(secret, body))
    request = build_request(body, key_name=key_name, secret=secret, level=3, wall_time=0.0)
    assert signature == request.headers["X-Signature"]
    assert theirs.serialized == gzip.decompress(request.body)


@pytest.mark.parametrize("version", sorted(BATCHES))
def test_requests_are_the_same_over_http(version: str) -> None:
    """A collector gets the same request from either publisher, except for its date and new headers."""
    events = [json.dumps({"number": number}).encode() for number in range(1_200)]
    with FaultCollector() as collector:
        hostname = collector.url.removeprefix("http://")
        sender = batch_publisher(KEY_NAME, SECRET, hostname=hostname, version=version)
        sender.publish(published_by_original(version, events))
        sender.session.close()
        ours = http_transport.HTTPTransport(
            f"{collector.url}/v{version}", timeout=PATIENCE, deadline=PATIENCE
        )
        request = build_request(
            published(version, events), key_name=KEY_NAME, secret=SECRET, level=3, wall_time=0.0
        )
        reply = ours.post(request)
        ours.close()
        by_original, by_us = collector.wait_for_requests(2)
    assert isinstance(reply, Response)
    assert (by_original.method, by_original.target) == (by_us.method, by_us.target)
    assert gzip.decompress(by_original.body) == gzip.decompress(by_us.body)
    for header in ("Host", "User-Agent", "Content-Type", "Content-Encoding", "X-Signature"):
        assert by_original.header(header) is not None
        assert by_original.header(header) == by_us.header(header)
