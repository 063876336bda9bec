"""The benchmarks of the publisher at a tiny scale, and the parts that their figures depend on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.batching import FORMATS
from baseplate_events.transport.limits import QueueSize
from baseplate_events.transport.posix import unlink_queue
from benchmarks import scaling
from benchmarks.deep_queue import bare_queue, deep_queue, depth_within, stock_queue
from benchmarks.floor import compress
from benchmarks.light_collector import Arrival, LightCollector, count_events
from benchmarks.producer import MAX_EVENT_SIZE
from benchmarks.publisher import filesystem, run_publisher, run_spool
from benchmarks.publisher_rig import config_text, speed
from benchmarks.scale import Scale
from benchmarks.varied_events import make_events
from tests.support.examples import examples
from tests.support.queues import fresh_name
from tests.support.spools_written import read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from baseplate_events.transport.posix import MessageQueue
    from benchmarks.report import Report

LEVELS = st.integers(1, 9)


@pytest.mark.parametrize("run", [run_publisher, run_spool, scaling.run])
def test_a_benchmark_runs(run: Callable[[Scale], Iterable[Report]]) -> None:
    """Every benchmark of the publisher runs to its end and has all its figures."""
    for report in run(Scale.TINY):
        assert all(line.ours >= 0 for line in report.lines)
        assert report.title in str(report)


@given(
    events=st.integers(1, 1_000),
    size=st.integers(1, 10**6),
    pause=st.integers(1, 1_000),
    count=st.integers(2, 50),
    cycle=st.integers(1, 16),
    cpu=st.integers(1, 100),
)
def test_a_steady_rate_is_found(events: int, size: int, pause: int, count: int, cycle: int, cpu: int) -> None:
    """Batches of one size at even intervals give their rate, however many are in flight."""
    found = speed([Arrival(number * pause, events, size) for number in range(count)], cpu, cycle)
    assert pytest.approx(events / pause) == found.rate
    assert pytest.approx(size / events) == found.size
    assert pytest.approx(1e6 * cpu / (events * count)) == found.cpu


@given(
    rounds=st.integers(1, 10),
    cycle=st.integers(1, 16),
    more=st.integers(0, 15),
    spread=st.floats(0.001, 0.06),
)
def test_bunches_dont_bend_a_rate(rounds: int, cycle: int, more: int, spread: float) -> None:
    """If batches arrive in bunches, an incomplete bunch doesn't count."""
    count = 1 + rounds * cycle + min(more, cycle - 1)
    arrivals = [
        Arrival(number // cycle + number % cycle * spread, events=10, size=1) for number in range(count)
    ]
    assert pytest.approx(10 * cycle) == speed(arrivals, 1.0, cycle).rate


@given(arrivals=st.lists(st.just(Arrival(0.0, 1, 1)), max_size=1), cycle=st.integers(1, 16))
def test_one_batch_has_no_rate(arrivals: list[Arrival], cycle: int) -> None:
    """Fewer than two batches give no rate."""
    with pytest.raises(ValueError, match="too few batches"):
        speed(arrivals, 1.0, cycle)


@given(count=st.integers(1, 2_000), event=st.binary(min_size=2, max_size=400), level=LEVELS)
def test_the_events_of_a_request_are_counted(count: int, event: bytes, level: int) -> None:
    """The number of events is read from the kept part of a body of version 2, whatever the events are."""
    body = compress(FORMATS["2"].join((event,) * count), level)
    assert count == count_events(body[:4_096])


@given(st.one_of(st.binary(), st.binary().map(gzip.compress)))
def test_nothing_else_is_counted(body: bytes) -> None:
    """A body that isn't a batch of version 2 is refused rather than counted."""
    with pytest.raises(ValueError, match="holds no batch"):
        count_events(body)


@given(body=st.binary(max_size=2_000), level=LEVELS)
def test_the_floor_compresses(body: bytes, level: int) -> None:
    """What the floor compresses is gzip, and nothing is lost."""
    assert body == gzip.decompress(compress(body, level))


@given(st.lists(st.sampled_from([1, 20, 5_000]), min_size=1, max_size=4))
@examples(10)
@example([5_000, 1])  # more than the collector reads at a time
def test_the_collector_takes_every_request(counts: list[int]) -> None:
    """Each request of a connection is answered with 200, and recorded with its events and size, in order."""
    noise = random.Random(0)
    bodies = [
        compress(FORMATS["2"].join(tuple(noise.randbytes(100) for _ in range(count))), 1) for count in counts
    ]
    recorded: list[tuple[int, int]] = []
    with (
        contextlib.closing(LightCollector()) as collector,
        contextlib.closing(http.client.HTTPConnection(collector.hostname)) as connection,
    ):
        for number, body in enumerate(bodies, 1):
            connection.request("POST", "/v2", body)
            response = connection.getresponse()
            assert (200, b"ok") == (response.status, response.read())
            assert number == len(collector)
            recorded = [(arrival.events, arrival.size) for arrival in collector.arrivals()]
    assert [(count, len(body)) for count, body in zip(counts, bodies, strict=True)] == recorded


@given(
    msg_max=st.integers(1, 70_000),
    rlimit=st.one_of(st.none(), st.integers(0, 10**9)),
    size=st.integers(1, 10_000),
)
def test_a_queue_is_as_deep_as_it_can_be(msg_max: int, rlimit: int | None, size: int) -> None:
    """The depth keeps within the limits, unless that is less than one, and one more event would not."""
    depth = depth_within(msg_max, rlimit, size)

    def allowed(messages: int) -> bool:
        charged = QueueSize(messages, size).bytes_charged
        return messages <= min(msg_max, 10_000) and (rlimit is None or charged <= rlimit)

    assert allowed(depth) or depth == 1
    assert not allowed(depth + 1)


@pytest.mark.parametrize("make", [deep_queue, stock_queue])
def test_a_queue_of_the_benchmarks_is_a_queue(
    make: Callable[[str, int], contextlib.AbstractContextManager[MessageQueue]],
) -> None:
    """What is sent to it can be received, and afterwards neither it nor its namespace is left."""
    before = Path("/proc/self/ns/ipc").readlink()
    with fresh_name("/events-") as name:
        with make(name, MAX_EVENT_SIZE) as queue:
            sender, busy = bare_queue(name, read=False)
            for _ in range(queue.max_messages):
                sender.send(b"{}")
            with pytest.raises(busy):
                sender.send(b"{}")
            sender.close()
            assert b"{}" == queue.get()
        assert not unlink_queue(name)
    assert before == Path("/proc/self/ns/ipc").readlink()


def test_varied_events_are_distinct_and_the_same_again() -> None:
    """They are JSON, fit into the queue, differ from each other, and don't differ from run to run."""
    events = make_events(300)
    assert events == make_events(300)
    assert 300 == len(set(events))
    assert all(isinstance(json.loads(event), dict) for event in events)
    assert all(len(event) <= 740 for event in events)


@pytest.mark.parametrize("count", [1, 69_999, 70_000, 70_001])
def test_a_spool_is_filled(tmp_path: Path, count: int) -> None:
    """It holds as many events as requested."""
    scaling.fill_spool(tmp_path, count)
    events = read_events(tmp_path)
    assert len(events) == count
    assert all(json.loads(event) for event in events[:10])


@given(level=LEVELS, depth=st.integers(1, 10_000))
def test_the_settings_are_what_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory, level: int, depth: int
) -> None:
    """The INI file has the candidate's settings, and defaults for all others."""
    path = tmp_path_factory.mktemp("settings") / "publisher.ini"
    path.write_text(config_text("main", "localhost:1", depth, {"compression.level": str(level)}))
    found = load_settings(path, "main", {})
    assert (level, depth) == (found.compression.level, found.queue.max_size)
    assert "http://localhost:1/v2" == found.collector.url
    assert 512_000 == found.batch.max_size


def test_filesystems_have_names() -> None:
    """The file system of a path is that of the nearest mount point above it."""
    assert "proc" == filesystem(Path("/proc/self"))
    assert filesystem(Path("/")) == filesystem(Path("/no/such/place"))
