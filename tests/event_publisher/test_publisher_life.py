"""A publisher's start and end, and its whole life in simulated time."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.control import Control
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Reply, Response
from baseplate_events.event_publisher.publisher import EventPublisher
from baseplate_events.event_publisher.sender import Sender
from baseplate_events.event_publisher.telemetry.health_server import HealthError
from tests.support.examples import examples
from tests.support.fault_collector import FaultCollector
from tests.support.processes import PIPE, finish, started
from tests.support.publishers import (
    MAX_MESSAGES,
    arrived,
    config_text,
    make_events,
    make_publisher,
    put_all,
    put_into_spool,
    small_queue,
)
from tests.support.queues import drain, fresh_event_name, open_files
from tests.support.simulation import START, Simulation, accept
from tests.support.waiting import wait_until

HOUR = 3_600.0


def test_a_start_that_fails_leaves_nothing_open(name: str, tmp_path: Path) -> None:
    """With a health endpoint that can't listen, queue, spool and dead letters are closed again."""
    spool = tmp_path / "spool"
    before: set[str] = set()
    for _ in range(2):  # a lock that was left would make the second start fail otherwise
        before = open_files()  # after the first one, a library may keep a file open
        with pytest.raises(HealthError):
            make_publisher(
                tmp_path,
                name,
                "http://localhost:1",
                spool__directory=str(spool),
                health__bind=str(tmp_path / "nowhere" / "socket"),
            )
    assert open_files() <= before


def test_a_stop_during_the_start_loses_nothing(name: str, tmp_path: Path) -> None:
    """A publisher that is asked to stop before it runs still sends what is there, and ends."""
    events = make_events(3)
    put_into_spool(tmp_path / "spool", name, events)
    config_file = tmp_path / "config.ini"
    with FaultCollector() as server:
        config_file.write_text(config_text(name, server.url, spool__directory=str(tmp_path / "spool")))
        control = Control(time.monotonic)
        control.stop()
        publisher = EventPublisher(
            partial(load_settings, config_file, name, os.environ), random.Random(0), control=control
        )
        publisher.run()
        assert arrived(server) == events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handled_from_the_start_on(number: signal.Signals, name: str, tmp_path: Path) -> None:
    """A signal that comes before the configuration was read ends the publisher in order; SIGHUP doesn't."""
    config_file = tmp_path / "config.ini"
    os.mkfifo(config_file)  # whose reader waits for a writer
    regular_file = tmp_path / "regular.ini"
    with small_queue(name) as queue, FaultCollector() as server:
        regular_file.write_text(config_text(name, server.url))
        events = make_events(5)
        put_all(queue, events)
        command = (sys.executable, "-m", "baseplate_events.event_publisher", "--queue-name", name)
        with started(*command, config_file, stderr=PIPE) as process:
            status = Path(f"/proc/{process.pid}/status")

            def handles() -> bool:
                try:
                    caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
                except (FileNotFoundError, ProcessLookupError, IndexError):
                    return False  # it has ended, of which `wait_until` reports the status
                return all(caught & 1 << (one - 1) for one in (signal.SIGHUP, number))

            wait_until(handles, "no handlers", process=process)
            process.send_signal(signal.SIGHUP)
            process.send_signal(number)
            with config_file.open("w") as pipe:  # as soon as there is a reader
                pipe.write(config_text(name, server.url))
                regular_file.replace(config_file)  # which SIGHUP has it read again, after this
            result = finish(process)
        assert (result.status, "Traceback" in result.err) == (0, False)
        assert arrived(server) == events


@pytest.mark.unmeasured
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(
    "backlog", [pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 10]
)
def test_a_stop_moves_the_queue_into_the_spool(backlog: int, busy: bool, name: str, tmp_path: Path) -> None:
    """What the queue held at the stop is spooled; neither producers nor the collector hold it up."""
    spool = tmp_path / "spool"
    events = make_events(2_000)
    before, at_stop, later = events[:3], events[3 : 3 + backlog], events[20:]
    with small_queue(name) as queue:
        simulation = Simulation(lambda _events, _now: Response(503))
        publisher = simulation.publisher(tmp_path, name, spool__directory=str(spool), shutdown__drain="false")
        put_all(queue, before)

        def put_more() -> None:
            while busy and queue.current_messages < MAX_MESSAGES:
                queue.put(later.pop())

        def at_end() -> None:
            put_all(queue, at_stop)
            simulation.on_poll = put_more

        simulation.at_end = at_end
        simulation.run(60.0)
        assert simulation.now < START + 61.0, "it ended long before the grace of 10 seconds"
        accounting = publisher.accounting
        assert (accounting.spooled, accounting.in_hand) == (len(before) + backlog, 0)
        left = drain(queue)
        assert not {*before, *at_stop} & set(left)
        with FaultCollector() as server:
            publisher = make_publisher(tmp_path, name, server.url, spool__directory=str(spool))
            publisher.stop()
            publisher.run()
            assert sorted(arrived(server)) == sorted([*before, *at_stop])


@pytest.mark.unmeasured
def test_an_outage_of_a_day_in_no_time(name: str, tmp_path: Path) -> None:
    """All of a publisher lives in simulated time: requests become rare, and everything arrives afterwards."""
    day = 24 * HOUR

    def answer(events: list[object], now: float) -> Reply:
        del events
        if now < START + day:
            return Failure(FailureKind.UNREACHABLE, "connection refused")
        return Response(200)

    events = make_events(8)
    with small_queue(name) as queue:
        simulation = Simulation(answer)
        publisher = simulation.publisher(tmp_path, name, retry__base="1 second", retry__cap="30 seconds")
        put_all(queue, events)
        simulation.run(day + HOUR)
        assert publisher.accounting.delivered == len(events)
        down = [at for at, _ in simulation.requests if at < START + day]
        assert day / 30.0 < len(down) < day / 10.0
        assert publisher.unready is None
        assert drain(queue) == []


@given(
    count=st.integers(1, 10),
    faults=st.lists(st.sampled_from([401, 408, 429, 500, 503, 302, None]), max_size=20),
    concurrency=st.integers(1, 3),
)
@examples(25)
def test_every_event_arrives_in_simulated_time(
    count: int, faults: list[int | None], concurrency: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the collector answers at first, every event arrives, and is counted once."""
    answers = list(faults)

    def answer(events: list[object], now: float) -> Reply:
        if not answers:
            return accept(events, now)
        status = answers.pop()
        return Failure(FailureKind.INTERRUPTED, "reset") if status is None else Response(status)

    with fresh_event_name() as name, small_queue(name) as queue:
        simulation = Simulation(answer)
        publisher = simulation.publisher(
            tmp_path_factory.mktemp("life"), name, delivery__concurrency=str(concurrency)
        )
        put_all(queue, make_events(count))
        simulation.run(HOUR)
        assert publisher.accounting.delivered == publisher.accounting.received == count
        assert publisher.accounting.balanced


def test_without_a_free_thread_nothing_is_lost(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sender that can't be started is a failed attempt, with a remedy in the log, and is tried again."""
    refused = iter([True, True])
    start = Sender.start

    def start_or_fail(sender: Sender) -> None:
        if next(refused, False):
            raise RuntimeError("can't start new thread")
        start(sender)

    monkeypatch.setattr(Sender, "start", start_or_fail)
    with small_queue(name) as queue:
        simulation = Simulation(accept)
        publisher = simulation.publisher(tmp_path, name)
        put_all(queue, make_events(5))
        simulation.run(60.0)
        assert publisher.accounting.delivered == 5
    assert "no thread for a sender: can't start new thread; raise the process limit" in caplog.text


def test_a_reload_names_what_needs_a_restart(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Options in effect and waiting ones are logged, and both are in the snapshot."""
    caplog.set_level(logging.INFO)
    simulation = Simulation(accept)
    waits = "changed options that need a restart: batch.max_age; they keep their old values"
    nothing = "no option that takes effect without a restart was changed"
    with small_queue(name):
        publisher = simulation.publisher(tmp_path, name)
        config_file = tmp_path / f"{name}.ini"
        text = config_file.read_text()
        late = text.replace("batch.max_age = 20 milliseconds", "batch.max_age = 7 seconds")
        steps = iter(
            [
                (late.replace("TestKey", "NewKey"), "key.name took effect", True),
                (late.replace("TestKey", "NewKey"), nothing, True),
                (text.replace("TestKey", "NewKey"), nothing, False),
                (text, "key.name took effect", False),
            ]
        )
        expected: list[tuple[str, bool]] = []

        def act() -> None:
            if expected:
                effect, waiting = expected[-1]
                snapshot = publisher.snapshot()
                lines = [record.getMessage() for record in caplog.records]
                assert f"configuration reloaded: {effect}" in lines
                assert (snapshot.waiting, waits in lines) == (("batch.max_age",) if waiting else (), waiting)
                assert snapshot.settings["batch.max_age"] == 0.02
                caplog.clear()
            for changed, effect, waiting in steps:
                config_file.write_text(changed)
                expected.append((effect, waiting))
                publisher.reload()
                return
            simulation.on_poll = lambda: None

        simulation.on_poll = act
        simulation.run(5.0)
    assert len(expected) == 4
