"""The publisher's shell: real queues, real HTTP, real processes and signals."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher import stop_log
from baseplate_events.event_publisher.http_transport import HTTPTransport
from baseplate_events.event_publisher.policy.outcome import REMEDIES
from baseplate_events.events import EventQueue
from tests.support.examples import examples
from tests.support.fault_collector import (
    GARBAGE_STATUS_LINE,
    Behaviour,
    Drop,
    FaultCollector,
    Hang,
    Respond,
    redirect,
)
from tests.support.publishers import (
    MAX_MESSAGES,
    arrived,
    drain_and_end,
    events_of,
    fates,
    make_events,
    publisher_process,
    publishing,
    put_all,
    small_queue,
)
from tests.support.queues import drain, fresh_event_name, open_files
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from baseplate_events.transport.posix import MessageQueue


FIVES: tuple[Behaviour, ...] = (Respond(500), Respond(503, (("Retry-After", "0"),)))

transient = st.sampled_from(
    [
        *FIVES,
        Respond(429),
        Respond(401),
        Respond(404),
        redirect("http://127.0.0.1:1/elsewhere"),
        Drop(),
        Drop(reset=True),
        Drop(after_reading=True),
        GARBAGE_STATUS_LINE,
    ]
)


@examples(20)
@given(script=st.lists(transient, max_size=6), count=st.integers(1, 60), concurrency=st.integers(1, 3))
def test_every_event_arrives_whatever_fails_before(
    script: list[Behaviour], count: int, concurrency: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a collector does at first, once it accepts events every event arrives, in valid batches."""
    events = make_events(count)
    with (
        fresh_event_name() as name,
        FaultCollector([*script, Respond()]) as server,
        small_queue(name) as queue,
    ):
        with publishing(
            tmp_path_factory.mktemp("config"), name, server.url, delivery__concurrency=str(concurrency)
        ) as publisher:
            put_all(queue, events)
        received = arrived(server)
        assert sorted(received) == sorted(events)
        # A batch that the collector answers with 5xx, or hangs up on, may be overtaken by others.
        overtaken = any(isinstance(step, Drop) or step in FIVES for step in script)
        assert concurrency > 1 or overtaken or events == received
        assert publisher.accounting.balanced
        assert publisher.accounting.delivered == publisher.accounting.received == count


def test_a_publisher_that_ended_leaves_nothing_open(name: str, tmp_path: Path) -> None:
    """Afterwards it has no descriptors, and a late stop request hits no other file."""
    before = open_files()
    publisher = drain_and_end(tmp_path, name, "http://localhost:1", spool__directory=str(tmp_path / "spool"))
    assert open_files() <= before
    publisher.stop()
    publisher.reload()


def test_senders_work_side_by_side(name: str, tmp_path: Path) -> None:
    """As many requests as `delivery.concurrency` are in flight at once; what they fail to send arrives."""
    events = make_events(5)
    with (
        FaultCollector([Respond(), Hang(), Hang(), Hang(), Hang(), Respond()]) as server,
        small_queue(name) as queue,
        publishing(tmp_path, name, server.url, batch__max_events="1", delivery__concurrency="4") as publisher,
    ):
        queue.put(events[0])
        server.wait_for_requests(1)
        put_all(queue, events[1:])
        server.wait_for_starts(5)  # the first, and four that all wait for their answers
        server.release()
        server.wait_for_requests(9)
    assert sorted(arrived(server)) == sorted(events)
    assert publisher.accounting.delivered == len(events)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "behaviour",
    [
        redirect("http://127.0.0.1:1/elsewhere"),
        Respond(304),
        Respond(401),
        Respond(503),
        Respond(429),
        Hang(),
    ],
    ids=["302", "304", "401", "503", "429", "hang"],
)
def test_a_collector_that_recovers_gets_everything(behaviour: Behaviour, name: str, tmp_path: Path) -> None:
    """Each way of not taking events leaves every one of them delivered once the collector recovers."""
    events = make_events(30)
    hangs = isinstance(behaviour, Hang)
    settings = {"collector__timeout": "100 milliseconds"} if hangs else {}
    with (
        FaultCollector([behaviour, behaviour, behaviour, Respond()]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url, **settings) as publisher,
    ):
        put_all(queue, events)
        assert publisher.stop() == 0
        # A request that the collector reads only after its timeout may be overtaken by others.
        assert sorted(arrived(server)) == sorted(events)
        assert hangs or arrived(server) == events
        assert fates(received=30, delivered=30) in publisher.log


def test_a_refused_connection_keeps_everything(name: str, tmp_path: Path) -> None:
    """While nothing listens events wait; once a collector does, all of them arrive."""
    events = make_events(15)
    with socket.socket() as listener, small_queue(name) as queue:
        listener.bind(("127.0.0.1", 0))
        with publisher_process(tmp_path, name, "http://{}:{}".format(*listener.getsockname())) as publisher:
            put_all(queue, events)
            publisher.wait_for_log("can't connect")
            with FaultCollector(listener=listener) as server:
                assert publisher.stop() == 0
                assert arrived(server) == events


def test_it_is_unready_while_nothing_is_delivered(name: str, tmp_path: Path) -> None:
    """A publisher that gets nothing through says why, and is ready again with the first success."""
    with FaultCollector([Respond(401)]) as server, small_queue(name) as queue:
        with publishing(tmp_path, name, server.url) as publisher:
            reasons = [publisher.unready]
            queue.put(b"{}")
            server.wait_for_requests(2)
            reasons.append(publisher.unready)
            server.change_script(Respond())
        reasons.append(publisher.unready)
    assert reasons == [None, f"401 Scripted; {REMEDIES[401]}", None]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused_content_is_counted_and_does_not_block_the_line(
    status: int, name: str, tmp_path: Path
) -> None:
    """A refused event of two is found and kept, and dropped once the other was accepted."""
    script = [Respond(status), Respond(status), Respond(), Respond(status)]
    with (
        FaultCollector(script) as server,
        small_queue(name) as queue,
        publisher_process(
            tmp_path, name, server.url, batch__max_events="2", batch__max_age="1 hour"
        ) as publisher,
    ):
        put_all(queue, [b'{"secret content": 1}', b'{"id": 2}'])
        server.wait_for_requests(4)
        assert publisher.stop() == 0
        assert [1, 1, 1] == [len(events_of(request)) for request in server.requests[1:]]
        assert events_of(server.requests[2]) == [b'{"id": 2}']
        assert f"refuses 1 event: {status}" in publisher.log
        assert "kept until it accepts other events" in publisher.log
        assert fates(received=2, delivered=1, refused=1) in publisher.log
        assert "secret content" not in publisher.log


def test_sigterm_under_load_delivers_everything(name: str, tmp_path: Path) -> None:
    """A publisher that is stopped in the middle of a load delivers what was put, and ends with status 0."""
    events = make_events(500)
    with FaultCollector() as server, small_queue(name) as queue:
        with publisher_process(tmp_path, name, server.url) as publisher:
            producer = threading.Thread(target=put_all, args=(queue, events[:400]))
            producer.start()
            server.wait_for_requests(1)
            producer.join()
            assert publisher.stop() == 0
            assert arrived(server) == events[:400]
        with publisher_process(tmp_path, name, server.url) as publisher:
            put_all(queue, events[400:])
            assert publisher.stop() == 0
        assert arrived(server) == events
        assert drain(queue) == []


def test_sigterm_with_the_collector_down_leaves_everything_in_the_queue(name: str, tmp_path: Path) -> None:
    """What can't be delivered goes back, in order and ahead of newer events, for the next publisher."""
    events = make_events(6)
    with FaultCollector([Respond(503)]) as server, small_queue(name) as queue:
        with publisher_process(tmp_path, name, server.url, shutdown__grace="500 milliseconds") as publisher:
            put_all(queue, events[:4])
            server.wait_for_requests(1)
            put_all(queue, events[4:])
            assert publisher.stop() == 0
            counts = range(1, len(events) + 1)  # the rest may not have been received
            assert any(fates(received=count, returned=count) in publisher.log for count in counts)
        assert queue.current_messages == 6
        with FaultCollector() as recovered:
            with publisher_process(tmp_path, name, recovered.url) as publisher:
                assert publisher.stop() == 0
            assert arrived(recovered) == events


def test_a_second_signal_puts_everything_back_at_once(name: str, tmp_path: Path) -> None:
    """With an hour of grace, a second SIGTERM ends the publisher now, and nothing is lost."""
    events = make_events(5)
    with (
        FaultCollector([Hang()]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url, shutdown__grace="1 hour") as publisher,
    ):
        put_all(queue, events)
        server.wait_for_requests(1)
        assert publisher.stop(twice=True) == 0
        assert sorted(drain(queue)) == sorted(events)


def test_what_does_not_fit_back_is_counted_and_logged(name: str, tmp_path: Path) -> None:
    """If others have filled the queue, events without room are lost, and the log says so."""
    events = make_events(5)
    with (
        FaultCollector([Respond(503)]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url, shutdown__grace="300 milliseconds") as publisher,
    ):
        put_all(queue, events)
        server.wait_for_requests(2)
        for _ in range(MAX_MESSAGES - 2):
            queue.put(b"{}", timeout=PATIENCE)
        assert publisher.stop() == 0
        left = drain(queue)
        assert len(left) == MAX_MESSAGES
        assert left[0] == events[0]
        lost = len(events) + MAX_MESSAGES - 2 - len(left)
        assert f"lost {lost} events" in publisher.log
        # The publisher may have received events of others, too, and put them back.
        counts = range(len(events), len(events) + MAX_MESSAGES - 1)
        assert any(fates(received=n, returned=n - lost, queue_full=lost) in publisher.log for n in counts)


def test_raw_messages_that_no_batch_can_hold_are_dropped_alone(name: str, tmp_path: Path) -> None:
    """An empty message of some other producer costs nothing but itself."""
    with (
        FaultCollector() as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url) as publisher,
    ):
        put_all(queue, [b"{}", b"", b'{"id":2}'])
        assert publisher.stop() == 0
        assert arrived(server) == [b"{}", b'{"id":2}']
        assert fates(received=3, delivered=2, invalid=1) in publisher.log


def is_empty(queue: MessageQueue) -> bool:
    """Return whether nothing waits in a queue."""
    return queue.current_messages == 0


def test_a_queue_that_is_unlinked_and_recreated_is_followed(name: str, tmp_path: Path) -> None:
    """Events of the old queue and of the new one are delivered, though the publisher isn't restarted."""
    with (
        FaultCollector() as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url) as publisher,
        EventQueue[bytes](
            name, bytes, max_queue_size=5, max_event_size=512, put_timeout=PATIENCE
        ) as producer,
    ):
        events = make_events(300)
        for number, event in enumerate(events):
            if number % 100 == 50:
                with small_queue(name) as current:  # one that comes and goes unseen is lost
                    wait_until(partial(is_empty, current), "no one receives")
                queue.unlink()
            producer.put(event)
        with small_queue(name) as renewed:
            assert renewed.max_messages in {5, MAX_MESSAGES}  # as whoever came first has made it
            assert publisher.stop() == 0
        assert sorted(arrived(server)) == sorted(events)
        assert "was unlinked; reading its successor" in publisher.log


def test_metrics_arrive_and_their_absence_does_not_matter(name: str, tmp_path: Path) -> None:
    """`post`, `sent` and the errors arrive at statsd; delivery is the same if nothing listens there."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,
        FaultCollector([Drop(), Respond(503), Respond()]) as server,
        small_queue(name) as queue,
    ):
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        endpoint = "{}:{}".format(*statsd.getsockname())
        one_batch = {"batch__max_events": "2", "batch__max_age": "1 hour"}
        with publisher_process(
            tmp_path, name, server.url, metrics__endpoint=endpoint, metrics__namespace="pub", **one_batch
        ) as publisher:
            put_all(queue, [b"{}", b"{}"])
            lines: set[str] = set()
            while "pub.sent:2|c" not in lines:
                lines.update(statsd.recv(65_536).decode().split("\n"))
            assert publisher.stop() == 0
        assert {"pub.error.http:1|c", "pub.error.io:1|c", "pub.sent:2|c"} <= lines
        assert any(line.startswith("pub.post:") and line.endswith("|ms") for line in lines)
        statsd.close()
        with publisher_process(
            tmp_path, name, server.url, metrics__endpoint=endpoint, metrics__namespace="pub"
        ) as publisher:
            put_all(queue, make_events(20))
            assert publisher.stop() == 0
            assert fates(received=20, delivered=20) in publisher.log


def test_a_retry_carries_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Every attempt for a batch carries the same body, signature and idempotency key."""
    with (
        FaultCollector([Respond(503), Respond(500), Respond()]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url) as publisher,
    ):
        queue.put(b"{}")
        server.wait_for_requests(3)
        assert publisher.stop() == 0
        first, *others = server.requests
        for other in others:
            assert first.body == other.body
            assert first.header("X-Signature") == other.header("X-Signature")
            assert first.header("Idempotency-Key") == other.header("Idempotency-Key")


def test_a_body_never_exceeds_its_limit(name: str, tmp_path: Path) -> None:
    """However many events wait, no body is larger than `batch.max_size`, wrapper included."""
    with (
        FaultCollector([Hang(), Respond()]) as server,
        small_queue(name) as queue,
        publisher_process(
            tmp_path, name, server.url, batch__max_size="1088", batch__max_age="10 seconds"
        ) as publisher,
    ):
        events = [b'{"pad": "%s"}' % (b"x" * (37 * number % 900)) for number in range(100)]
        producer = threading.Thread(target=put_all, args=(queue, events))
        producer.start()
        server.wait_for_starts(1)
        server.release()
        producer.join()
        assert publisher.stop() == 0
        assert arrived(server) == list(dict.fromkeys(events))
        assert max(len(gzip.decompress(request.body)) for request in server.requests) <= 1088


def test_an_internal_error_costs_no_event(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a sender is logged without contents, and the batch is retried."""
    real_post = HTTPTransport.post
    failures = iter([ValueError("private content")])

    def post(self: HTTPTransport, request: object) -> object:
        for failure in failures:
            raise failure
        return real_post(self, request)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(HTTPTransport, "post", post)
    caplog.set_level(logging.DEBUG)
    with FaultCollector() as server, small_queue(name) as queue:
        with publishing(tmp_path, name, server.url) as publisher:
            queue.put(b"{}")
            server.wait_for_requests(1)
        assert publisher.accounting.delivered == 1
    assert "internal error: ValueError in post" in caplog.text
    assert "private content" not in caplog.text


def test_a_stop_that_takes_long_says_how_far_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs what it does and what is left; events read from the spool count as in memory."""
    monkeypatch.setattr(stop_log, "_INTERVAL", 0.0)
    caplog.set_level(logging.INFO)
    with small_queue(name) as queue, FaultCollector([Respond(503)]) as server:
        queue.put(b"{}")
        drain_and_end(
            tmp_path, name, server.url, spool__directory=str(tmp_path / "spool"), shutdown__grace="1 second"
        )
    assert "stopping: delivering the queue and the spool" in caplog.text
    assert (
        "stopping: 0 requests in flight, 0 events in memory, 1 event to move from the queue, 0 bytes"
        in caplog.text
    )
    assert ", 1 event in memory, 0 events to move from the queue, 18 bytes in the spool left; " in caplog.text
    assert "; 18 bytes left in the spool" in caplog.text
