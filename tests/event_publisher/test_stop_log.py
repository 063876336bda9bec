"""What a stopping publisher logs, and what it does: with and without `shutdown.drain`."""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baseplate_events import EventQueue
from baseplate_events.event_publisher.policy.wire import Failure, FailureKind, Reply
from baseplate_events.event_publisher.stop_log import Left, StopLog
from tests.support.examples import examples
from tests.support.fault_collector import FaultCollector, Hang
from tests.support.publishers import (
    MAX_MESSAGES,
    arrived,
    make_events,
    publisher_process,
    put_all,
    put_into_spool,
    small_queue,
)
from tests.support.simulation import START, Simulation
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

counts = st.integers(0, 10**12)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of the stop, and forget it."""
    found = [record.getMessage() for record in caplog.records if record.getMessage().startswith("stopping: ")]
    caplog.clear()
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    left=st.builds(Left, counts, counts, st.none() | counts, st.none() | counts),
    drains=st.booleans(),
    now=st.floats(0, 1e6),
    grace=st.floats(0, 3_600),
)
def test_a_line_has_all_that_is_left(
    caplog: pytest.LogCaptureFixture, left: Left, drains: bool, now: float, grace: float
) -> None:
    """The first line says what is done; the next has all numbers of what is left, and the time."""
    caplog.set_level(logging.INFO)
    StopLog().write(left, now, drains=drains, ends_at=now + grace)
    doing, said = lines(caplog)
    assert ("shutdown.drain is false" in doing) == (not drains)
    assert left.queued is not None or "queue" not in f"{doing}{said}"
    numbers = [int(text.replace(",", "")) for text in re.findall(r"(?<![\d.])[\d,]+(?= [a-z])", said)]
    wanted = [number for number in left if number is not None]
    assert numbers[: len(wanted)] == wanted
    assert said.endswith(f"; shutdown.grace ends in {max(0.0, now + grace - now):.1f} seconds")


@settings(examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(grace=st.floats(0, 3_600), step=st.floats(0.01, 5))
def test_lines_come_often_at_first_and_are_bounded(
    caplog: pytest.LogCaptureFixture, grace: float, step: float
) -> None:
    """A step that comes when a line is due logs it: one a second at first, at most 400 in an hour."""
    caplog.set_level(logging.INFO)
    log, now, end = StopLog(), 500.0, 500.0 + grace
    gaps: list[float] = []
    while now <= end:
        if now >= log.due_at:
            log.write(Left(0, 0, 0, 0), now, drains=True, ends_at=end)
            gaps.append(log.due_at - now)
        now += step
    assert len(lines(caplog)) == len(gaps) + 1
    assert len(gaps) <= 400
    assert set(gaps[:2]) <= {1.0}


@pytest.mark.parametrize("drain", ["true", "false"])
def test_a_long_stop_logs_every_second(
    drain: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the collector down, a stop that drains logs until the grace ends; any other ends at once."""

    def down(events: list[object], now: float) -> Reply:
        del events, now
        return Failure(FailureKind.UNREACHABLE, "connection refused")

    caplog.set_level(logging.INFO)
    events = make_events(30)
    put_into_spool(tmp_path / "spool", name, events)
    simulation = Simulation(down)
    with small_queue(name):
        publisher = simulation.publisher(
            tmp_path,
            name,
            spool__directory=str(tmp_path / "spool"),
            shutdown__grace="10 seconds",
            shutdown__drain=drain,
        )
        simulation.run(5.0)
    said = lines(caplog)
    if drain == "true":
        assert 8 <= len(said) - 1 <= 11
        assert "30 events in memory" in said[-1]
    else:
        assert simulation.now < START + 6.0
        assert len(said) == 2
    assert publisher.accounting.spooled == 30


def test_without_drain_nothing_new_is_sent_and_the_queue_is_moved(name: str, tmp_path: Path) -> None:
    """At SIGTERM under load the queue's depth goes into the spool, and it waits for the request in flight.

    It ends as soon as that is answered, although `shutdown.grace` is an hour.
    """
    spool = tmp_path / "spool"
    events = make_events(MAX_MESSAGES + 1)
    overrides = {"spool__directory": str(spool), "shutdown__drain": "false", "shutdown__grace": "1 hour"}
    with small_queue(name) as queue, FaultCollector([Hang()]) as server:
        with publisher_process(
            tmp_path, name, server.url, collector__timeout="1 hour", collector__deadline="1 hour", **overrides
        ) as publisher:
            queue.put(events[0])
            server.wait_for_requests(1)
            put_all(queue, events[1:])
            ended = threading.Event()

            def put_more() -> None:
                with EventQueue(name, bytes, spool_directory=str(spool)) as service:
                    while not ended.is_set():
                        service.put(b'{"later":1}')
                        ended.wait(0.001)

            service = threading.Thread(target=put_more)
            service.start()
            try:
                publisher.process.terminate()
                publisher.wait_for_log("stopping: shutdown.drain is false")
                publisher.wait_for(lambda: queue.current_messages == 0)
                publisher.wait_for_log("1 request in flight")
                assert publisher.process.poll() is None
                server.change_script()
                server.release()
                assert publisher.process.wait(PATIENCE) == 0
            finally:
                ended.set()
                service.join()
            assert len(server.requests) == 1
            assert re.search(r"[1-9]\d* bytes? left ", publisher.log)
        with FaultCollector() as up, publisher_process(tmp_path, name, up.url, **overrides) as publisher:
            publisher.wait_for(lambda: set(events[1:]) <= set(arrived(up)))
            assert publisher.stop() == 0
