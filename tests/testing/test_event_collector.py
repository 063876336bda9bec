from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import http.client
import json
import sys
import threading
from configparser import RawConfigParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue, serialize_v2j_event
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.pytest_plugin import event_collector
from baseplate_events.testing import EventCollector
from tests.support.examples import examples
from tests.support.processes import DEVNULL, started
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES, small_queue
from tests.support.queues import fresh_event_name
from tests.support.services import Clicks
from tests.support.strategies import json_objects
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

#: Otherwise unused: importing it is what makes it a fixture of this module.
__all__ = ["event_collector"]

#: What stands in events that no message may show.
SECRET = "4111-1111-1111-1111"


def post(collector: EventCollector, events: list[bytes], secret: bytes | None = None) -> int:
    """Send a batch of JSON events as a publisher does, by means of its own, and return the status."""
    parser = RawConfigParser()
    parser.read_string(collector.publisher_config("main", version="2j"))
    section = parser["event-publisher:main"]
    if secret is None:
        secret = base64.b64decode(section["key.secret"])
    body = b"[" + b",".join(events) + b"]"
    mac = hmac.new(secret, body, hashlib.sha256).hexdigest()
    connection = http.client.HTTPConnection(section["collector.hostname"], timeout=30)
    try:
        connection.request(
            "POST",
            "/v2j",
            gzip.compress(body),
            {
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
                "X-Signature": f"key={section['key.name']}, mac={mac}",
            },
        )
        return connection.getresponse().status
    finally:
        connection.close()


@examples(15)
@given(st.lists(st.lists(json_objects, min_size=1, max_size=3), max_size=3))
def test_what_is_sent_rightly_arrives(batches: list[list[dict[str, object]]]) -> None:
    """All events of batches that are signed arrive in order, as they were serialized and parsed."""
    sent = [[json.dumps(event).encode() for event in batch] for batch in batches]
    with EventCollector() as collector:
        for batch in sent:
            assert post(collector, batch) == 200
        expected = [event for batch in sent for event in batch]
        assert expected == collector.messages
        assert [event for batch in batches for event in batch] == collector.wait_for(len(expected))
        assert [] == collector.refusals
        collector.clear()
        assert collector.messages == []
        assert collector.events == []


def test_what_is_not_signed_is_refused(event_collector: EventCollector) -> None:
    """A batch with a wrong signature is answered with 401, kept as a refusal, and its events don't arrive."""
    assert post(event_collector, [b"{}"], b"another secret") == 401
    assert event_collector.events == []
    assert [401] == [refusal.status for refusal in event_collector.refusals]
    event_collector.clear()
    assert event_collector.refusals == []


@examples(30)
@given(st.one_of(st.none(), st.integers(-1, 700), st.sampled_from([299, 300, 599, 600])))
def test_it_answers_as_requested(status: int | None) -> None:
    """After `answer_with` a status that refuses, each batch gets it and isn't taken; after None it is."""
    with EventCollector() as collector:
        if status is not None and not 300 <= status <= 599:
            with pytest.raises(ValueError, match=f"from 300 to 599, not {status}"):
                collector.answer_with(status)
            status = None
        else:
            collector.answer_with(status)
        assert (status or 200) == post(collector, [b"{}"])
        collector.wait_for(0 if status else 1, refusals=1 if status else 0)
        assert ([] if status else [{}]) == collector.events
        assert ([status] if status else []) == [refusal.status for refusal in collector.refusals]
        collector.answer_with(None)
        assert post(collector, [b"{}"]) == 200


def test_its_configuration_takes_other_settings(tmp_path: Path, event_collector: EventCollector) -> None:
    """A publisher reads the version and every setting that was given; `__` in a name stands for the dot."""
    config_file = tmp_path / "config.ini"
    text = event_collector.publisher_config("main", version="2", max_queue_size="7", retry__cap="1 hour")
    config_file.write_text(text)
    settings = load_settings(config_file, "main", {})
    assert (7, 3_600.0) == (settings.queue.max_size, settings.retry.cap)


@pytest.mark.parametrize(("events", "refusals"), [(2, 0), (0, 2), (1, 2)])
def test_waiting_in_vain_says_what_came(events: int, refusals: int) -> None:
    """Events that don't arrive in time are an assertion with what did arrive, without events or secrets."""
    with EventCollector() as collector:
        post(collector, [b'{"card":"%s"}' % SECRET.encode()])
        post(collector, [b'{"card":"%s"}' % SECRET.encode()], b"another secret")
        with pytest.raises(AssertionError, match=r"within 0 s: .* 1 event, .*401: X-Sig") as caught:
            collector.wait_for(events, refusals=refusals, timeout=0.0)
        assert SECRET not in str(caught.value)
        assert collector.url in str(caught.value)


def test_it_waits_for_what_comes_later(event_collector: EventCollector) -> None:
    """A thread that waits goes on as soon as the last of the events has arrived."""
    started = threading.Event()

    def send() -> None:
        started.wait()
        for number in range(3):
            post(event_collector, [b'{"number":%d}' % number])

    sender = threading.Thread(target=send)
    sender.start()
    started.set()
    assert [{"number": number} for number in range(3)] == event_collector.wait_for(3)
    sender.join()


def test_a_closed_collector_is_gone() -> None:
    """After close, which may be repeated, nothing listens any more; what arrived can still be looked at."""
    with EventCollector() as collector:
        post(collector, [b"{}"])
    collector.close()
    with pytest.raises(ConnectionRefusedError):
        post(collector, [b"{}"])
    assert [{}] == collector.events


def test_the_way_of_an_event_from_end_to_end(tmp_path: Path, event_collector: EventCollector) -> None:
    """With a real queue and a real publisher, what a service puts arrives, after an outage as well."""
    with fresh_event_name() as name, small_queue(name):
        config_file = tmp_path / "config.ini"
        config_file.write_text(
            event_collector.publisher_config(
                name,
                version="2j",
                max_queue_size=str(MAX_MESSAGES),
                max_event_size=str(MAX_MESSAGE_SIZE),
            )
        )
        with (
            EventQueue(
                name, serialize_v2j_event, max_queue_size=MAX_MESSAGES, max_event_size=MAX_MESSAGE_SIZE
            ) as queue,
            started(
                *(sys.executable, "-m", "baseplate_events.event_publisher", "--queue-name", name),
                config_file,
                stderr=DEVNULL,
            ) as publisher,
        ):
            event_collector.answer_with(503)
            service = Clicks(queue)
            assert service.handle("click")
            assert event_collector.wait_for(refusals=2) == []
            event_collector.answer_with(None)
            assert event_collector.wait_for(1) == [{"action": "click"}]
            publisher.terminate()
            assert publisher.wait(PATIENCE) == 0
