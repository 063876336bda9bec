"""The publisher's reports to statsd."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.errors import ConfigurationError
from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.policy.outcome import Accepted, Outcome, Retryable
from baseplate_events.event_publisher.spool_reader.findings import OwnFindings
from baseplate_events.event_publisher.standard_streams import ClosedStream
from baseplate_events.event_publisher.telemetry import reporter
from baseplate_events.event_publisher.telemetry.logs import configure_logging
from baseplate_events.event_publisher.telemetry.reporter import Reporter
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot, SpoolLevel
from baseplate_events.event_publisher.telemetry.systemd import Notifier
from tests.support.publishers import config_text
from tests.support.statsd import parse_line
from tests.support.strategies import durations, hostile_texts, namespaces, outcomes, snapshots
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


_EMPTY = Snapshot("main", "1.0", 0.0, 0.0, Accounting(), 0, 10, spool=SpoolLevel(size=0, max_size=10))


@contextlib.contextmanager
def reporting(
    path: Path, make_snapshot: Callable[[float], Snapshot], namespace: str = ""
) -> Generator[tuple[Reporter, socket.socket]]:
    """Return a reporter of these snapshots, and the statsd server that it reports to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as statsd:
        statsd.bind(str(path / "statsd"))
        statsd.settimeout(PATIENCE)
        config_file = path / "config.ini"
        metrics = {"metrics__endpoint": str(path / "statsd"), "metrics__namespace": namespace}
        config_file.write_text(config_text("main", "http://c.test", **metrics), "utf-8")
        telemetry = Reporter(load_settings(config_file, "main", {}), Notifier({}), make_snapshot)
        with contextlib.closing(telemetry):
            yield telemetry, statsd


def receive_datagrams(statsd: socket.socket) -> list[bytes]:
    """Receive what was reported, which was sent before the reporter returned."""
    found: list[bytes] = []
    statsd.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(statsd.recv(65_536))
    return found


def receive_report(statsd: socket.socket) -> dict[str, str]:
    """Receive what was reported, as numbers by their names."""
    lines = b"\n".join(receive_datagrams(statsd)).split(b"\n")
    return {line.name: line.number for line in map(parse_line, lines)}


def test_what_statsd_receives_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt is two datagrams, a timer and a counter. A report is one: gauges, then counters."""
    accounting = Accounting(received=9, delivered=7, in_hand=2)
    snapshot = Snapshot(
        "main", "1.0", 0.0, 102.25, accounting, 3, 10, queue_highest=8, queue_full=2, oldest_at=99.9995
    )
    monkeypatch.setattr(reporter, "log_lines_dropped", lambda: 0)
    with reporting(tmp_path, lambda _: snapshot, "app") as (telemetry, statsd):
        telemetry.record(Accepted(200), 7, 0.010012344995629974, 100.0)
        telemetry.record(Retryable("reset", from_collector=False), 7, 3.0, 100.0)
        telemetry.record(Retryable("busy", from_collector=True), 7, 0.00005, 100.0)
        assert receive_datagrams(statsd) == [
            b"app.post:10.012345|ms",
            b"app.sent:7|c",
            b"app.post:3000|ms",
            b"app.error.io:1|c",
            b"app.post:0.05|ms",
            b"app.error.http:1|c",
        ]
        telemetry.report(102.25)
        report = (
            b"app.in_hand:2|g\napp.oldest.age:2.251|g\napp.transport.posix:1|g\napp.queue.depth:3|g\n"
            b"app.queue.highest:8|g\napp.received:9|c\napp.recovered:0|c\napp.delivered:7|c\n"
            b"app.dead_lettered:0|c\napp.returned:0|c\napp.dead_letters.dropped:0|c\n"
            b"app.log_lines_dropped:0|c\napp.dropped.refused:0|c\napp.dropped.expired:0|c\n"
            b"app.dropped.invalid:0|c\napp.dropped.oversize:0|c\napp.dropped.queue_full:0|c\n"
            b"app.dropped.spool_lost:0|c\napp.queue.full:2|c"
        )
        assert [report] == receive_datagrams(statsd)


@given(
    namespaces | hostile_texts,
    st.dictionaries(hostile_texts | st.just("full"), st.integers(1, 9), max_size=5),
    snapshots(),
    outcomes,
    durations,
)
@example("a..b.", {"x:1|c\ny": 1, "": 2, "a.b": 3}, _EMPTY, Accepted(200), 0.1)
def test_no_report_holds_a_malformed_line(
    namespace: str, refused: dict[str, int], snapshot: Snapshot, outcome: Outcome, seconds: float
) -> None:
    """Whatever the configuration and services contain, lines are valid, and no name occurs twice."""
    findings = OwnFindings()
    findings.count_refusals(json.dumps(refused).encode())
    if snapshot.spool is not None:
        snapshot = replace(snapshot, spool=replace(snapshot.spool, refusals=findings.refusals))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ConfigurationError):
        with reporting(Path(folder), lambda _: snapshot, namespace) as (telemetry, statsd):
            telemetry.record(outcome, 1, seconds, snapshot.made_at)
            telemetry.report(snapshot.made_at)
            datagrams = receive_datagrams(statsd)
        lines = [parse_line(line) for line in b"\n".join(datagrams).split(b"\n")]
        numbers = {line.name: line.number for line in lines}
        assert len(lines) == len(numbers)
        prefix = lines[0].name.removesuffix("post")
        if snapshot.spool is not None:
            for reason, count in findings.refusals.items():
                assert str(count) == numbers[f"{prefix}refused.{reason}"]


@pytest.mark.parametrize("character", ":|@#,= \t\x7fé")
def test_a_namespace_that_would_break_lines_is_a_mistake(character: str, tmp_path: Path) -> None:
    """The client relies on the configuration to refuse what the format gives a meaning."""
    with (
        pytest.raises(ConfigurationError, match=r"metrics\.namespace"),
        reporting(tmp_path, lambda _: _EMPTY, f"a{character}b"),
    ):
        pass


def test_dropped_log_lines_go_to_statsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that stderr didn't accept are a counter."""
    root = logging.Logger("root")  # noqa: LOG001  pytest has handlers at the real one
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(sys, "stderr", ClosedStream(None))
    configure_logging("text", debug=False)
    make = partial(Snapshot, "main", "1.0", 0.0, accounting=Accounting(), queue_depth=0, queue_capacity=10)
    with reporting(tmp_path, make) as (telemetry, statsd):
        for expected in (3, 1):
            for _ in range(expected):
                root.info("lost")
            root.handlers[0].flush()
            telemetry.report_at = 0.0
            telemetry.report(100.0 * (4 - expected))
            lines: list[str] = []
            while f"log_lines_dropped:{expected}|c" not in lines:
                lines += statsd.recv(65_536).decode().split("\n")
        telemetry.finish(1_000.0)


def test_levels_of_queue_and_spool_go_to_statsd(tmp_path: Path) -> None:
    """Gauges are as they are, counters are what is new; the highest depth is that since the last report."""
    spool = SpoolLevel(
        size=5,
        max_size=10,
        segments=2,
        oldest_at=60.0,
        aside={"newer": 1},
        torn_bytes=40,
        torn_gaps=4,
        refusals={"full": 7},
        free_space=1_000,
        rekeyed=3,
        paused="full",
        held=1,
        problems=("polls",),
    )
    first = Snapshot("main", "1.0", 0.0, 100.0, Accounting(spooled=6, received=6), 3, 10, spool=spool)
    second = replace(first, queue_full=9, spool=replace(spool, torn_bytes=50, refusals={"full": 8}))
    snapshots = iter(
        [
            replace(first, queue_highest=8, queue_full=2),
            *(replace(second, queue_highest=highest) for highest in (5, 7)),
            second,
        ]
    )
    with reporting(tmp_path, lambda _: next(snapshots)) as (telemetry, statsd):
        telemetry.report(100.0)
        found = receive_report(statsd)
        assert {
            "queue.depth": "3",
            "queue.highest": "8",
            "queue.full": "2",
            "transport.posix": "1",
            "spooled": "6",
            "spool.size": "5",
            "spool.max_size": "10",
            "spool.segments": "2",
            "spool.oldest.age": "40",
            "spool.free": "1000",
            "spool.problems": "1",
            "spool.set_aside.newer": "1",
            "spool.torn": "4",
            "spool.torn_bytes": "40",
            "refused.full": "7",
            "rekeyed": "3",
            "relay.paused": "1",
            "relay.held": "1",
        }.items() <= found.items()
        assert "spool.free_inodes" not in found
        telemetry.stopping(105.0)
        telemetry.report(110.0)
        found = receive_report(statsd)
        assert found["queue.highest"] == "7"
        assert (found["queue.full"], found["refused.full"], found["spool.torn_bytes"]) == ("7", "1", "10")
        telemetry.finish(120.0)
        assert receive_report(statsd)["queue.highest"] == "0"


def test_without_queue_or_spool_nothing_of_them_goes_to_statsd(tmp_path: Path) -> None:
    """Without a queue there is no gauge: 0 would mean an empty one."""
    make = partial(
        Snapshot, "main", "1.0", 0.0, accounting=Accounting(), queue_depth=None, queue_capacity=None
    )
    with reporting(tmp_path, make) as (telemetry, statsd):
        telemetry.report(100.0)
        found = receive_report(statsd)
    assert not [name for name in found if name.startswith(("queue", "spool", "relay", "refused"))]
