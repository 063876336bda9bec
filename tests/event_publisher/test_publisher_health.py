"""A real publisher beside its process manager: health endpoint, systemd, logs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.status.command import UnreachableError, scrape
from baseplate_events.cli.status.report import status_of
from baseplate_events.event_publisher.config.values import UnixEndpoint
from baseplate_events.event_publisher.exit_status import EXIT_FAILURE
from baseplate_events.event_publisher.policy.outcome import REMEDIES
from baseplate_events.event_publisher.telemetry.health_server import HealthError
from tests.support.commands import run
from tests.support.disks import delete_in_use
from tests.support.fault_collector import FaultCollector, Respond
from tests.support.processes import PIPE, finish, started
from tests.support.publishers import (
    MAX_MESSAGES,
    config_text,
    make_events,
    make_publisher,
    publisher_process,
    put_all,
    put_into_spool,
    small_queue,
)
from tests.support.spool_segments import write_segment
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from baseplate_events.cli.status.report import Scrape
    from tests.support.publishers import PublisherProcess


@pytest.fixture
def endpoint(tmp_path: Path) -> UnixEndpoint:
    """The health endpoint of the publisher of a test."""
    return UnixEndpoint(str(tmp_path / "health.sock"))


@contextlib.contextmanager
def systemd(path: Path) -> Generator[socket.socket]:
    """Listen where a publisher notifies."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(PATIENCE)
        yield server


def hear(server: socket.socket, words: str) -> None:
    """Receive until a datagram begins with these words."""
    while not server.recv(65_536).decode().startswith(words):
        pass


def made_at(look: Scrape) -> float:
    """When the publisher took the snapshot of a look, in seconds since its start."""
    return look.total("uptime_seconds") - look.total("heartbeat_age_seconds")


def look_until(
    publisher: PublisherProcess, endpoint: UnixEndpoint, condition: Callable[[Scrape], bool]
) -> Scrape:
    """Scrape a publisher until a condition holds, and return that scrape."""
    looks: list[Scrape] = []

    def holds() -> bool:
        with contextlib.suppress(UnreachableError):
            looks.append(scrape(endpoint))
            return condition(looks[-1])
        return False

    publisher.wait_for(holds)
    return looks[-1]


def test_an_event_that_was_given_up_leaves_the_publisher_ready(
    name: str, tmp_path: Path, endpoint: UnixEndpoint
) -> None:
    """Once a refused event is gone and nothing is left, the publisher is ready, without another batch."""
    with (
        small_queue(name) as queue,
        FaultCollector([Respond(400), Respond(400), Respond(200), Respond(400)]) as collector,
        publisher_process(
            tmp_path,
            name,
            collector.url,
            health__bind=endpoint.path,
            batch__max_events="2",
            batch__max_age="1 hour",
        ) as publisher,
    ):
        look_until(publisher, endpoint, lambda look: look.unready is None)
        put_all(queue, make_events(2))
        look = look_until(
            publisher, endpoint, lambda look: status_of(look).delivered == 1 and look.unready is None
        )
        status = status_of(look)
        assert (status.attempts["refused"], status.attempts["accepted"]) == (3, 1)
        assert status.dropped["refused"] == 1
        assert status.failing_for == 0


def test_readiness_follows_delivery(name: str, tmp_path: Path, endpoint: UnixEndpoint) -> None:
    """A publisher is ready at first, unready with the reason while nothing passes, and ready once it does."""
    events = make_events(20)
    with (
        FaultCollector([Respond(401)]) as server,
        small_queue(name) as queue,
        publisher_process(
            tmp_path, name, server.url, health__bind=endpoint.path, spool__directory=str(tmp_path / "spool")
        ) as publisher,
    ):
        assert look_until(publisher, endpoint, lambda _: True).unready is None
        put_all(queue, events)
        look = look_until(
            publisher, endpoint, lambda look: look.unready is not None and look.number("events_spooled") == 20
        )
        assert look.unready == f"401 Scripted; {REMEDIES[401]}"
        status = status_of(look)
        assert (status.received, status.delivered, status.spooled) == (20, 0, 20)
        assert status.failures
        server.change_script(Respond())
        look = look_until(
            publisher,
            endpoint,
            lambda look: look.unready is None and look.number("events_delivered_total") == 20,
        )
        assert status_of(look).spool_size is not None
        assert publisher.stop() == 0
    with pytest.raises(UnreachableError):
        scrape(endpoint)
    assert list(tmp_path.glob("*.sock")) == []


def test_what_is_in_queue_and_spool_can_be_seen(name: str, tmp_path: Path, endpoint: UnixEndpoint) -> None:
    """A scrape has the full queue, refusals, segments set aside, torn bytes, and free space."""
    directory = tmp_path / "spool"
    put_into_spool(directory, name, make_events(2))
    folder = directory / f"events-{name}"
    write_segment(folder, make_events(3), event_format="2j", refusals={"full": 7, "too_large": 1})
    write_segment(folder, event_format="2")
    torn = write_segment(folder, make_events(1), event_format="2j")
    torn.write_bytes(torn.read_bytes()[:-1])
    with (
        FaultCollector([Respond(503)]) as server,
        small_queue(name) as queue,
    ):
        put_all(queue, make_events(queue.max_messages))
        with publisher_process(
            tmp_path,
            name,
            server.url,
            health__bind=endpoint.path,
            spool__directory=str(directory),
            shutdown__grace="1 second",
        ) as publisher:
            look = look_until(
                publisher,
                endpoint,
                lambda look: (
                    look.number("events_spooled") == 5 + MAX_MESSAGES and look.number("spool_torn_total") == 1
                ),
            )
            delete_in_use(folder)
            gone = look_until(publisher, endpoint, lambda later: made_at(later) > made_at(look) + 1.0)
            assert publisher.stop() == 0
    status = status_of(look)
    assert (status.queue_depth, status.queue_highest_depth) == (0, MAX_MESSAGES)
    assert status.queue_full
    assert status.transports == {"posix": True, "spool": True}
    assert {reason: count for reason, count in status.refused.items() if count} == {"full": 7, "too_large": 1}
    assert {reason: count for reason, count in status.set_aside.items() if count} == {"other_format": 1}
    assert status.spool_free_bytes
    assert status.spool_oldest_age
    assert not any((status.relay_paused, status.relay_held, status.problems))
    assert status_of(gone).received == status.received


def test_a_publisher_that_cannot_be_asked_does_not_start(name: str, tmp_path: Path) -> None:
    """If the health endpoint can't listen, the publisher says so at the start."""
    path = str(tmp_path / "nowhere" / "socket")
    with small_queue(name), pytest.raises(HealthError) as caught:
        make_publisher(tmp_path, name, "http://127.0.0.1:1", health__bind=path)
    assert caught.value.address == path
    assert os.strerror(errno.ENOENT) in caught.value.problem


def test_systemd_hears_of_start_reload_life_and_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real publisher notifies systemd that it is ready, alive, reloading and stopping."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with (
        systemd(tmp_path / "notify") as server,
        small_queue(name),
        publisher_process(tmp_path, name, "http://127.0.0.1:1") as publisher,
    ):
        hear(server, "READY=1")
        hear(server, "WATCHDOG=1")
        hear(server, "STATUS=delivering (0 delivered")
        hear(server, "WATCHDOG=1")
        publisher.process.send_signal(signal.SIGHUP)
        hear(server, "RELOADING=1\nMONOTONIC_USEC=")
        hear(server, "READY=1")
        publisher.process.send_signal(signal.SIGTERM)
        hear(server, "STOPPING=1")
        assert publisher.process.wait(PATIENCE) == 0


def test_json_logs_are_objects_to_the_last_line(name: str, tmp_path: Path) -> None:
    """With `--log-format json` each line is an object, and repeated failures are few and counted."""
    config_file = tmp_path / "config.ini"
    with FaultCollector([Respond(400)]) as server, small_queue(name) as queue:
        config_file.write_text(
            config_text(name, server.url, batch__max_events="1", shutdown__grace="1 second")
        )
        words = ["--queue-name", name, "--log-format", "json", str(config_file)]
        with started(
            sys.executable, "-m", "baseplate_events.event_publisher", *words, stderr=PIPE
        ) as process:
            put_all(queue, make_events(5))
            server.wait_for_requests(51)  # so that the answers to 50 were handled
            process.send_signal(signal.SIGTERM)
            log = finish(process).err
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    refusals = [line for line in lines if line["message"].startswith("the collector refuses 1 event")]
    assert len(refusals) < 10
    assert 50 <= sum(1 + line.get("more", 0) for line in refusals) <= len(server.requests)


#: Runs a publisher on a host that allows no thread for the health endpoint.
WITHOUT_THREAD = """
import sys, threading
from baseplate_events.event_publisher.__main__ import main

start = threading.Thread.start

def fail(thread):
    if thread.name == "health":
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = fail
sys.exit(main(sys.argv[1:]))
"""


def test_an_endpoint_without_a_thread_ends_the_publisher(
    endpoint: UnixEndpoint, name: str, tmp_path: Path
) -> None:
    """At the limit of threads it exits with one error and without an event, rather than to be stuck."""
    config_file = tmp_path / "publisher.ini"
    config_file.write_text(config_text(name, "http://localhost:1", health__bind=endpoint.path))
    with small_queue(name) as queue:
        queue.put(b"{}")
        ended = run(sys.executable, "-c", WITHOUT_THREAD, config_file)
        assert queue.current_messages == 1
    assert ended.status == EXIT_FAILURE
    assert f"health.bind {endpoint}: " in ended.err
    assert "Traceback" not in ended.err
