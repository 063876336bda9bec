"""How baseplate.py 2.7.1 fails, failure by failure, and that it can't happen here.

Each test is named after a failure of baseplate.py that was seen when it was run or read; the docstring says
what baseplate.py does. The tests of the modules show the properties behind these examples.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import resource
import signal
import socket
import stat
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from baseplate_events import EventQueue
from baseplate_events.errors import (
    ConfigurationError,
    EventEmptyError,
    EventError,
    EventQueueFullError,
    EventQueuePermissionError,
    EventTooLargeError,
)
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.config.values import InternetEndpoint
from baseplate_events.event_publisher.http_response import MAX_EXCERPT
from baseplate_events.event_publisher.http_transport import HTTPTransport
from baseplate_events.event_publisher.ledger.file import LETTERS_NAME
from baseplate_events.event_publisher.policy.backoff import Backoff
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Refused, Retryable
from baseplate_events.event_publisher.policy.wire import Request, Response
from baseplate_events.event_publisher.telemetry.statsd import LOOKUP_PAUSE, DatagramAddress, StatsdClient
from baseplate_events.transport.posix import MessageQueue
from tests.support.fault_collector import (
    Behaviour,
    Drip,
    Drop,
    FaultCollector,
    Hang,
    HugeBody,
    Respond,
    redirect,
)
from tests.support.ledgers import letters_in
from tests.support.publishers import (
    MAX_MESSAGES,
    arrived,
    config_text,
    drain_and_end,
    events_of,
    make_events,
    publisher_process,
    publishing,
    put_all,
    small_queue,
)
from tests.support.queues import as_user, drain, event_of, needs_root
from tests.support.simulated_publisher import make_delivery, make_event
from tests.support.tools import missing
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from baseplate_events.event_publisher.config.settings import PublisherSettings

#: A user id that no one has here.
STRANGER = 65_534

#: Seconds of a day, for a simulated clock.
DAY = 86_400.0


def small_producer(name: str, max_queue_size: int = MAX_MESSAGES) -> EventQueue[bytes]:
    """Open or make a small queue as a service does."""
    return EventQueue(name, bytes, max_queue_size=max_queue_size, max_event_size=1_024)


def settings_of(folder: Path, name: str, **overrides: str) -> PublisherSettings:
    """Read the settings of a configuration with these values."""
    config_file = folder / f"{name}.ini"
    config_file.write_text(config_text(name, "https://collector.example.com", **overrides))
    return load_settings(config_file, name, {})


def wait_for_arrival(server: FaultCollector, events: list[bytes]) -> None:
    """Return as soon as all of these have been sent, whatever was answered."""
    wait_until(lambda: set(events) <= set(arrived(server)), "events are missing")


# --- Loss ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_or_sigint_loses_the_batch_in_hand(number: signal.Signals, name: str, tmp_path: Path) -> None:
    """baseplate.py ends at once, with a batch in memory and events that a drain would have saved."""
    events = make_events(5)
    with (
        FaultCollector([Hang()]) as server,
        small_queue(name) as queue,
        publisher_process(tmp_path, name, server.url, shutdown__grace="300 milliseconds") as publisher,
    ):
        put_all(queue, events)
        server.wait_for_requests(1)
        publisher.process.send_signal(number)
        assert publisher.process.wait(PATIENCE) == 0
        assert sorted(drain(queue)) == sorted(events)


def test_a_drain_that_forgets_the_bound_of_a_batch_crashes(name: str, tmp_path: Path) -> None:
    """A drain at the end made one batch of everything, and crashed with 170 events in memory."""
    events = [b'{"pad":"%s"}' % (b"x" * 500)] * MAX_MESSAGES
    events = [event.replace(b"pad", b"pad%d" % place) for place, event in enumerate(events)]
    with FaultCollector() as server, small_queue(name) as queue:
        put_all(queue, events)
        publisher = drain_and_end(tmp_path, name, server.url, batch__max_size="1100")
        assert arrived(server) == events
        assert max(len(gzip.decompress(request.body)) for request in server.requests) <= 1_100
        assert publisher.accounting.delivered == len(events)


def test_sigkill_loses_the_batch_in_hand(name: str, tmp_path: Path) -> None:
    """With a spool it doesn't: the next publisher delivers it."""
    events = make_events(5)
    spool = {"spool__directory": str(tmp_path / "spool"), "shutdown__grace": "1 second"}
    with small_queue(name) as queue:
        with (
            FaultCollector([Hang()]) as server,
            publisher_process(tmp_path, name, server.url, **spool) as publisher,
        ):
            put_all(queue, events)
            server.wait_for_requests(1)
            publisher.wait_for(lambda: queue.current_messages == 0)
            publisher.process.kill()
            publisher.process.wait(PATIENCE)
        with FaultCollector() as server:
            with publishing(tmp_path, name, server.url, **spool):
                server.wait_for_requests(1)
            # One event may have been received and not yet appended when the signal came.
            got = set(arrived(server))
            assert got <= set(events)
            assert len(events) - len(got) <= 1


@pytest.mark.parametrize("status", [400, 401, 403, 408, 413, 425, 429])
def test_a_status_of_4xx_drops_the_batch_after_one_try(status: int, name: str, tmp_path: Path) -> None:
    """baseplate.py gives up a whole batch that was refused once, for whatever reason."""
    events = make_events(4)
    with FaultCollector([Respond(status), Respond()]) as server, small_queue(name) as queue:
        put_all(queue, events)
        with publishing(tmp_path, name, server.url) as publisher:
            server.wait_for_requests(2)
        assert [event for request in server.requests[1:] for event in events_of(request)] == events
        assert publisher.accounting.delivered == len(events)


def test_with_a_revoked_key_the_queue_drains_into_the_void(name: str, tmp_path: Path) -> None:
    """baseplate.py drops batch after batch for as long as the key isn't known."""
    events = make_events(60)
    spool = {"spool__directory": str(tmp_path / "spool"), "shutdown__grace": "1 second"}
    with small_queue(name) as queue:
        with (
            FaultCollector([Respond(401)]) as server,
            publisher_process(tmp_path, name, server.url, **spool) as publisher,
        ):
            put_all(queue, events)
            server.wait_for_requests(10)
            assert publisher.stop() == 0
        with (
            FaultCollector() as server,
            publisher_process(tmp_path, name, server.url, **spool) as publisher,
        ):
            assert publisher.stop() == 0
            assert arrived(server) == events


def test_422_is_retried_for_5_minutes_and_then_dropped(name: str, tmp_path: Path) -> None:
    """What is refused while another event is accepted becomes a dead letter, and only that."""
    event, other = make_events(2)
    letters = tmp_path / "letters"
    with FaultCollector([Respond(422), Respond(), Respond(422)]) as server, small_queue(name) as queue:
        put_all(queue, [event, other])  # before the first is refused, which may be tried again soon
        with publishing(
            tmp_path, name, server.url, dead_letters__directory=str(letters), batch__max_events="1"
        ) as publisher:
            server.wait_for_requests(3)
        assert [[event], [other], [event]] == list(map(events_of, server.requests))
    assert [(event, 422)] == [(letter.event, letter.status) for letter in letters_in(letters, LETTERS_NAME)]
    assert publisher.accounting.dead_lettered == 1


@pytest.mark.unmeasured
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_5xx_for_5_minutes_drops_the_batch(status: int) -> None:
    """Here it is retried indefinitely: after a day of 5xx every event is still there."""
    delivery = make_delivery()
    events = [make_event(number) for number in range(4)]
    for event in events:
        assert delivery.offer([event], 0.0) == []
    now = 1.0
    outcome: Outcome = Retryable(str(status), from_collector=True, status=status, may_be_poison=True)
    attempts = 0
    while now < DAY:
        attempt = delivery.next_attempt(now)
        if attempt is None:
            now = delivery.wake_at() or DAY
            continue
        assert set(attempt.batch.events) <= set(events)
        delivery.finish(attempt, outcome, now)
        attempts += 1
    assert attempts > 1_000
    assert delivery.accounting.in_hand == len(events)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_becomes_a_get_that_counts_as_sent(status: int, name: str, tmp_path: Path) -> None:
    """baseplate.py follows a redirect with a GET, whose 200 says nothing about the batch; 304 counts too."""
    events = make_events(3)
    with (
        FaultCollector() as elsewhere,
        FaultCollector([redirect(elsewhere.url, status), Respond(304), Respond()]) as server,
        small_queue(name) as queue,
    ):
        put_all(queue, events)
        with publishing(tmp_path, name, server.url) as publisher:
            server.wait_for_requests(3)
        assert elsewhere.started == 0
        assert ["POST"] * 3 == [request.method for request in server.requests]
        assert events_of(server.requests[2]) == events
        assert publisher.accounting.delivered == len(events)


def test_one_poison_event_loses_its_whole_batch() -> None:
    """baseplate.py drops all events of a batch of which the collector refuses one."""
    delivery = make_delivery(max_events=8, max_size=10_000)
    events = [make_event(number, "refused" if number == 5 else "good") for number in range(8)]
    for event in events:
        delivery.offer([event], 0.0)
    delivered: list[bytes] = []
    while (attempt := delivery.next_attempt(1.0)) is not None:
        if events[5] in attempt.batch.events:
            delivery.finish(attempt, Refused("400", 400), 1.0)
        else:
            delivered += attempt.batch.events
            delivery.finish(attempt, Accepted(200), 1.0)
    assert sorted(events[:5] + events[6:]) == sorted(delivered)
    assert delivery.accounting.delivered == 7
    assert sum(delivery.accounting.dropped.values()) == 1


def test_an_empty_event_is_accepted_and_vanishes(name: str, tmp_path: Path) -> None:
    """`put` refuses it here, and one that another program puts is counted and set aside."""
    letters = tmp_path / "letters"
    with FaultCollector() as server, small_queue(name) as queue:
        with (
            EventQueue[bytes](name, bytes, max_queue_size=1, max_event_size=1) as producer,
            pytest.raises(EventEmptyError),
        ):
            producer.put(b"")
        assert queue.current_messages == 0
        queue.put(b"")
        with publishing(tmp_path, name, server.url, dead_letters__directory=str(letters)) as publisher:
            queue.put(b"{}")
            server.wait_for_requests(1)
        assert [b"{}"] == arrived(server)
        assert [b""] == [letter.event for letter in letters_in(letters, LETTERS_NAME)]
        assert publisher.accounting.dead_lettered == 1


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "no-such-host.invalid:8125", "/no/such/socket"])
@pytest.mark.parametrize("first", [Respond(500), Respond()])
def test_an_unreachable_statsd_host_loses_or_miscounts_a_batch(
    endpoint: str, first: Behaviour, name: str, tmp_path: Path
) -> None:
    """An error of the metrics makes a failing POST lose its batch, and a delivered one count as failed."""
    events = make_events(3)
    with FaultCollector([first, Respond()]) as server, small_queue(name) as queue:
        put_all(queue, events)
        with publishing(tmp_path, name, server.url, metrics__endpoint=endpoint) as publisher:
            server.wait_for_requests(1)
        assert publisher.accounting.delivered == publisher.accounting.received == len(events)
        assert events_of(server.requests[-1]) == events


def test_draining_stops_while_a_post_is_retried(name: str, tmp_path: Path) -> None:
    """Producers of baseplate.py see a full queue during an outage; with a spool here they don't notice."""
    events = make_events(20 * MAX_MESSAGES)
    spool = {"spool__directory": str(tmp_path / "spool"), "shutdown__grace": "1 second"}
    with FaultCollector([Respond(503)]) as server, small_queue(name) as queue:
        with publishing(tmp_path, name, server.url, **spool) as publisher:
            put_all(queue, events)  # has room for all of it, though nothing is delivered
            server.wait_for_requests(3)
        assert publisher.accounting.delivered == 0
        assert publisher.accounting.spooled + queue.current_messages == len(events)


def test_a_queue_that_was_unlinked_leaves_the_publisher_on_the_orphan(name: str, tmp_path: Path) -> None:
    """baseplate.py keeps waiting at a queue that no one can put on any more."""
    events = make_events(2 * MAX_MESSAGES)
    with (
        FaultCollector() as server,
        small_queue(name) as queue,
        publishing(tmp_path, name, server.url),
        small_producer(name) as producer,
    ):
        for event in events[:MAX_MESSAGES]:
            producer.put(event)
        queue.unlink()
        for event in events[MAX_MESSAGES:]:
            producer.put(event)
        wait_for_arrival(server, events)


# --- Duplicates ---


def test_a_connection_that_drops_after_the_commit_sends_a_batch_again_without_an_id(
    name: str, tmp_path: Path
) -> None:
    """The batch has to be resent, but with the same key, by which the collector recognises it."""
    with FaultCollector([Drop(after_reading=True), Respond()]) as server, small_queue(name) as queue:
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url):
            first, second = server.wait_for_requests(2)
        assert first.body == second.body
        assert first.header("Idempotency-Key") == second.header("Idempotency-Key")
        assert len(first.header("Idempotency-Key") or "") == 64


# --- Stalls ---


def test_a_response_that_drips_holds_the_publisher(name: str, tmp_path: Path) -> None:
    """baseplate.py's timeout is for each read, so a byte now and then blocks it forever."""
    deadline = {"collector__timeout": "100 milliseconds", "collector__deadline": "200 milliseconds"}
    with FaultCollector([Drip(start=b"HTTP/1.1 200"), Respond()]) as server, small_queue(name) as queue:
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url, **deadline) as publisher:
            server.wait_for_requests(2)
        assert publisher.accounting.delivered == 1


def test_a_wall_clock_that_steps_back_stops_flushes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """baseplate.py measures the age of a batch by it, and so waits for as long as it went back."""
    wall_time = time.time()
    with FaultCollector() as server, small_queue(name) as queue:
        with publishing(tmp_path, name, server.url):
            for number in range(1, 4):
                monkeypatch.setattr(time, "time", partial(float, wall_time - number * DAY))
                queue.put(b'{"id":%d}' % number)
                server.wait_for_requests(number)
        dates = [request.header("Date") for request in server.requests]
        assert len(set(dates)) == 3


@pytest.mark.parametrize(
    "hostname", ["", "collector example com", "collector.example.com:port", "a/b", "[::1"]
)
def test_an_impossible_url_is_retried_for_5_minutes(hostname: str, name: str, tmp_path: Path) -> None:
    """It is known at the start, and then ends the publisher with the key to fix."""
    with pytest.raises(ConfigurationError, match=r"collector\.hostname"):
        settings_of(tmp_path, name, collector__hostname=hostname)


def test_a_fleet_without_jitter_retries_in_step() -> None:
    """Publishers that fail together come back at different times, spread over the whole wait."""
    waits = [Backoff(1.0, 30.0, random.Random(seed)).draw(16.0) for seed in range(200)]
    in_each_quarter = [sum(place * 4 <= wait < place * 4 + 4 for wait in waits) for place in range(4)]
    assert min(in_each_quarter) > 25
    assert sum(in_each_quarter) == len(waits)


# --- Crashes and misconfiguration ---


def test_select_with_a_descriptor_above_1023(name: str, tmp_path: Path) -> None:
    """baseplate.py's publisher and a waiting producer crash in a process that has many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1_500:
        missing("the limit of open files is too low: raise it to 1500 (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1_500), hard))
    files: list[int] = []
    try:
        with FaultCollector() as server:
            while not files or files[-1] < 1_024:
                files.append(os.open(os.devnull, os.O_RDONLY))
            with small_queue(name) as queue:
                assert queue.fileno() > 1_023
                with publishing(tmp_path, name, server.url) as publisher:
                    put_all(queue, make_events(3 * MAX_MESSAGES))
            assert publisher.accounting.delivered == 3 * MAX_MESSAGES
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_queue_made_smaller_by_another_user_is_a_bare_value_error(name: str) -> None:
    """An event that the smaller queue doesn't take is an `EventTooLargeError` that says the limit."""
    with small_queue(name, max_message_size=16), small_producer(name) as producer:
        producer.put(event_of(16))
        with pytest.raises(EventTooLargeError) as caught:
            producer.put(event_of(17))
        assert (caught.value.size, caught.value.limit) == (17, 16)


@needs_root
def test_a_permission_error_escapes_unwrapped(name: str) -> None:
    """Another user's queue is an `EventError`, as all that a service has to catch."""
    assert issubclass(EventQueuePermissionError, EventError)
    with small_queue(name), as_user(STRANGER):
        producer = small_producer(name)
        with pytest.raises(EventQueuePermissionError):
            producer.put(b"{}")


@pytest.mark.parametrize("secret", ["!!!!", "c2Vj!cmV0", "c2VjcmV0 c2Vj", "c2VjcmV"])
def test_base64_ignores_foreign_characters(secret: str, name: str, tmp_path: Path) -> None:
    """baseplate.py takes `!!!!` for an empty key and signs with it."""
    with pytest.raises(ConfigurationError, match=r"key\.secret") as caught:
        settings_of(tmp_path, name, key__secret=secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("version", ["1", "3", "2J", "two"])
def test_an_unknown_version_is_a_key_error(version: str, name: str, tmp_path: Path) -> None:
    """It is a mistake in the configuration, which names the key and what can stand there."""
    with pytest.raises(ConfigurationError, match=r"collector\.version.*2.*2j"):
        settings_of(tmp_path, name, collector__version=version)


def test_the_statsd_host_is_resolved_once_and_fatally(name: str, tmp_path: Path) -> None:
    """baseplate.py doesn't start without it; here it is looked up again until it is found."""
    with FaultCollector() as server, small_queue(name) as queue:
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url, metrics__endpoint="no-such-host.invalid:8125"):
            server.wait_for_requests(1)
    now = 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        answers: list[DatagramAddress | OSError] = [
            OSError("not found"),
            DatagramAddress(socket.AF_INET, statsd.getsockname()),
        ]
        answered = [threading.Event(), threading.Event()]

        def resolve(_host: str, _port: int) -> DatagramAddress:
            answer = answers.pop(0)
            answered.pop(0).set()
            if isinstance(answer, OSError):
                raise answer
            return answer

        client = StatsdClient("", InternetEndpoint("statsd.test", 8125), resolve=resolve, clock=lambda: now)
        with contextlib.closing(client):
            for lookup in answered.copy():
                client.send(counters={"early": 1})
                assert lookup.wait(PATIENCE)
                for thread in threading.enumerate():
                    if thread.name == "statsd-resolver":
                        thread.join(PATIENCE)
                now += LOOKUP_PAUSE
            client.send(counters={"found": 1})
            while statsd.recv(100) != b"found:1|c":
                pass


# --- Security ---


def test_mode_0644_lets_any_user_steal_events(name: str, tmp_path: Path) -> None:
    """Whoever can read a queue can receive from it; here only its user can, whoever creates it."""
    with small_producer(name) as producer:
        producer.put(b"{}")
        with small_queue(name) as queue:
            assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o600
            if os.geteuid() == 0:
                with as_user(STRANGER), pytest.raises(EventQueuePermissionError):
                    MessageQueue(f"/events-{name}", max_messages=1, max_message_size=1)
    with FaultCollector() as server, publishing(tmp_path, name, server.url), small_queue(name) as queue:
        assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o600


@pytest.mark.parametrize("status", [307, 308])
def test_a_307_carries_body_and_signature_to_another_host(status: int, name: str, tmp_path: Path) -> None:
    """baseplate.py posts the whole batch, signed, to wherever the answer points."""
    with (
        FaultCollector() as elsewhere,
        FaultCollector([redirect(elsewhere.url, status), Respond()]) as server,
        small_queue(name) as queue,
    ):
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url):
            server.wait_for_requests(2)
        assert elsewhere.connections == 0


def test_netrc_and_proxy_variables_are_honoured_unasked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of baseplate.py decides where batches go and with what credentials."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login stranger password guess\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with FaultCollector() as proxy, FaultCollector() as server, small_queue(name) as queue:
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url):
            (request,) = server.wait_for_requests(1)
        assert proxy.connections == 0
        assert request.header("Authorization") is None


def test_an_error_body_of_any_size_is_read_and_logged(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At most 8 KiB of an answer are read, and nothing of it is logged, for it may quote events."""
    caplog.set_level("DEBUG")
    script: list[Behaviour] = [HugeBody(1 << 40, 500), Respond(503, body=b"a quote"), Respond()]
    with FaultCollector(script) as server, small_queue(name) as queue:
        queue.put(b"{}")
        with publishing(tmp_path, name, server.url) as publisher:
            server.wait_for_requests(3)
        assert publisher.accounting.delivered == 1
        assert "503" in caplog.text
        assert "a quote" not in caplog.text
        assert len(caplog.text) < 5_000
        server.change_script(HugeBody(1 << 40, 400))
        collector = HTTPTransport(server.url, timeout=PATIENCE, deadline=PATIENCE)
        reply = collector.post(Request({}, b"{}"))
        assert isinstance(reply, Response)
        assert len(reply.excerpt) == MAX_EXCERPT


# --- Operations ---


def test_no_drop_counter_no_queue_depth_and_no_health(name: str, tmp_path: Path) -> None:
    """baseplate.py reports none of these: statsd gets the depth, the age, and each fate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd, small_queue(name) as queue:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        endpoint = "{}:{}".format(*statsd.getsockname())
        with FaultCollector([Respond(400), Respond(), Respond(400)]) as server:
            put_all(queue, [b"{}", b'{"id":1}', b""])
            with publishing(
                tmp_path, name, server.url, metrics__endpoint=endpoint, batch__max_events="1"
            ) as publisher:
                server.wait_for_requests(3)
        assert publisher.accounting.balanced
        lines: set[str] = set()
        while (
            not {"dropped.refused:1|c", "dropped.invalid:1|c", "queue.depth:0|g", "oldest.age:0|g"} <= lines
        ):
            lines.update(statsd.recv(65_536).decode().split("\n"))
    with small_producer(name, max_queue_size=1) as producer:
        producer.put(b"{}")
        with pytest.raises(EventQueueFullError):
            producer.put(b"{}")
        with pytest.raises(EventEmptyError):
            producer.put(b"")
        assert producer.refused == {"full": 1, "empty": 1}
        MessageQueue(f"/events-{name}", max_messages=1, max_message_size=1).unlink()


def test_a_key_cannot_be_rotated_without_a_restart(name: str, tmp_path: Path) -> None:
    """A changed file is read again when it is asked for, and the next attempt is signed with the new key."""
    with (
        FaultCollector([Respond(401)]) as server,
        small_queue(name) as queue,
        publishing(tmp_path, name, server.url) as publisher,
    ):
        queue.put(b"{}")
        server.wait_for_requests(2)
        (tmp_path / f"{name}.ini").write_text(config_text(name, server.url, key__name="FreshKey"))
        publisher.reload()
        wait_until(
            lambda: "FreshKey" in (server.requests[-1].header("X-Signature") or ""), "the old key is used"
        )
        server.change_script(Respond())
    assert publisher.accounting.delivered == 1


def test_gzip_level_9_in_the_only_thread(name: str, tmp_path: Path) -> None:
    """Draining, compressing and sending wait for each other in the original; here others go on."""
    assert settings_of(tmp_path, name).compression.level < 9
    events = make_events(4 * MAX_MESSAGES)
    settings = {"delivery__concurrency": "2", "batch__max_events": str(MAX_MESSAGES)}
    with (
        FaultCollector([Respond(), Hang(), Respond()]) as server,
        small_queue(name) as queue,
        publishing(tmp_path, name, server.url, **settings),
    ):
        put_all(queue, events)
        wait_for_arrival(server, events)  # one sender delivers while the request of the other hangs
        server.release()
