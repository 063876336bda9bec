"""The real statsd daemon reads what we send as it was meant."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.values import InternetEndpoint
from baseplate_events.event_publisher.telemetry.statsd import StatsdClient
from tests.peers.daemons import Statsd, statsd
from tests.support.examples import examples
from tests.support.fault_collector import GARBAGE_STATUS_LINE, OK, FaultCollector, Respond
from tests.support.publishers import (
    MAX_MESSAGES,
    arrived,
    make_events,
    publisher_process,
    put_all,
    small_queue,
)
from tests.support.queues import fresh_event_name
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

Value = TypeVar("Value")

#: Few names, so that measurements meet.
_names = st.sampled_from(["a", "b.c", "d_e-f"])
_levels = st.integers(0, 10**6) | st.floats(0, 1e6).map(lambda number: round(number, 3))
#: Seconds, in whole microseconds.
_spans = st.integers(0, 10**9).map(lambda micros: micros / 10**6)
_reports = st.lists(
    st.fixed_dictionaries(
        {
            "timers": st.dictionaries(_names, _spans),
            "gauges": st.dictionaries(_names, _levels),
            "counters": st.dictionaries(_names, st.integers(-(10**6), 10**6)),
        }
    ),
    max_size=8,
)

_namespaces = (f"example{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Statsd]:
    """A statsd daemon for all tests; each has names of its own."""
    with statsd(tmp_path_factory.mktemp("statsd")) as daemon:
        yield daemon


@examples(25)
@given(reports=_reports)
def test_the_daemon_reads_what_was_measured(
    daemon: Statsd, reports: list[dict[str, dict[str, float]]]
) -> None:
    """Counters are the sums, gauges the last values and timers all samples of whatever was measured."""
    namespace = next(_namespaces)
    client = StatsdClient(namespace, InternetEndpoint("127.0.0.1", daemon.port))
    sums: dict[str, float] = {}
    levels: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    for report in reports:
        # The daemon keeps its kinds apart; so do names here, for a reader of its answers.
        timers, gauges, counters = (
            {f"{kind}.{name}": number for name, number in report[kind].items()}
            for kind in ("timers", "gauges", "counters")
        )
        client.send(timers=timers, gauges=gauges, counters=counters)
        levels |= {f"{namespace}.{name}": level for name, level in gauges.items()}
        for name, number in counters.items():
            sums[f"{namespace}.{name}"] = sums.get(f"{namespace}.{name}", 0) + number
        for name, seconds in timers.items():
            samples.setdefault(f"{namespace}.{name}", []).append(seconds * 1_000)
    client.close()
    wait_for_all_before(daemon, namespace)
    assert sums == pytest.approx(of(f"{namespace}.counters", daemon.counters()), abs=1e-6)
    assert levels == pytest.approx(of(f"{namespace}.gauges", daemon.gauges()), abs=1e-6)
    found = of(f"{namespace}.timers", daemon.timers())
    assert samples.keys() == found.keys()
    for key, expected in samples.items():
        assert sorted(expected) == pytest.approx(sorted(found[key]))
    assert daemon.counters()["statsd.bad_lines_seen"] == 0


def wait_for_all_before(daemon: Statsd, namespace: str) -> None:
    """Wait until the daemon has read all that was sent to it; datagrams of loopback keep their order."""
    client = StatsdClient(f"{namespace}-sent", InternetEndpoint("127.0.0.1", daemon.port))
    client.send(gauges={"last": 1})
    client.close()
    wait_until(lambda: f"{namespace}-sent.last" in daemon.gauges(), "the last measurement doesn't come")


def of(namespace: str, values: dict[str, Value]) -> dict[str, Value]:
    """Return what is under a namespace."""
    return {name: value for name, value in values.items() if name.startswith(f"{namespace}.")}


def test_the_publishers_metrics_are_right(daemon: Statsd, tmp_path: Path) -> None:
    """Of a publisher's life the daemon knows every attempt, every fate, and what is left at its end."""
    events = make_events(30)
    namespace = next(_namespaces)
    with (
        fresh_event_name() as name,
        small_queue(name) as queue,
        FaultCollector([Respond(503), GARBAGE_STATUS_LINE, OK]) as collector,
        publisher_process(
            tmp_path,
            name,
            collector.url,
            delivery__concurrency="1",
            metrics__namespace=namespace,
            metrics__endpoint=f"127.0.0.1:{daemon.port}",
        ) as publisher,
    ):
        put_all(queue, events)
        publisher.wait_for(lambda: len(arrived(collector)) == len(events))
        assert publisher.stop() == 0
    wait_for_all_before(daemon, namespace)
    counters = of(namespace, daemon.counters())
    counters.pop(f"{namespace}.queue.full", 0)  # how often it was full depends on who was faster
    attempts = collector.started
    assert {
        f"{namespace}.sent": len(events),
        f"{namespace}.received": len(events),
        f"{namespace}.delivered": len(events),
        f"{namespace}.error.http": 1,
        f"{namespace}.error.io": 1,
    } == {name: count for name, count in counters.items() if count}
    timers = of(namespace, daemon.timers())
    assert list(timers) == [f"{namespace}.post"]
    assert len(timers[f"{namespace}.post"]) == attempts
    assert all(milliseconds > 0 for milliseconds in timers[f"{namespace}.post"])
    gauges = of(namespace, daemon.gauges())
    assert 0 <= float(str(gauges.pop(f"{namespace}.queue.highest"))) <= MAX_MESSAGES
    assert {
        f"{namespace}.queue.depth": 0,
        f"{namespace}.in_hand": 0,
        f"{namespace}.oldest.age": 0,
        f"{namespace}.transport.posix": 1,
    } == gauges
