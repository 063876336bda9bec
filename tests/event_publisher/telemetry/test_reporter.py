"""What the publisher reports of itself, beside what `look` sees."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.logs import configure_logging
from baseplate_events.event_publisher.telemetry.reporter import Reporter
from baseplate_events.event_publisher.telemetry.snapshot import Snapshot, SpoolLevel
from baseplate_events.event_publisher.telemetry.systemd import Notifier
from tests.support.publishers import config_text
from tests.support.statsd import parse_line
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    import pytest


@contextlib.contextmanager
def reporting(
    path: Path, make_snapshot: Callable[[float], Snapshot]
) -> Generator[tuple[Reporter, socket.socket]]:
    """Give a reporter of these snapshots, and the statsd server that it reports to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as statsd:
        statsd.bind(str(path / "statsd"))
        statsd.settimeout(PATIENCE)
        config_file = path / "config.ini"
        config_file.write_text(config_text("main", "http://c.test", metrics__endpoint=str(path / "statsd")))
        telemetry = Reporter(load_settings(config_file, "main", {}), Notifier({}), make_snapshot)
        with contextlib.closing(telemetry):
            yield telemetry, statsd


def receive_report(statsd: socket.socket) -> dict[str, str]:
    """Receive what was reported, which was sent before the reporter returned, as numbers by their names."""
    found: dict[str, str] = {}
    statsd.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while data := statsd.recv(65_536):
            found |= {line.name: line.number for line in map(parse_line, data.split(b"\n"))}
    return found


def test_dropped_log_lines_go_to_statsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that stderr didn't take are a counter, whatever `look` knows of them."""
    root = logging.Logger("root")  # noqa: LOG001  pytest has handlers at the real one
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(sys, "stderr", None)
    configure_logging("text", debug=False)
    make = partial(Snapshot, "main", "1.0", 0.0, accounting=Accounting(), queue_depth=0, queue_capacity=10)
    with reporting(tmp_path, make) as (telemetry, statsd):
        for expected in (3, 1):
            for _ in range(expected):
                root.info("lost")
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
    """A gauge of 0 would say that there is an empty one."""
    make = partial(
        Snapshot, "main", "1.0", 0.0, accounting=Accounting(), queue_depth=None, queue_capacity=None
    )
    with reporting(tmp_path, make) as (telemetry, statsd):
        telemetry.report(100.0)
        found = receive_report(statsd)
    assert not [name for name in found if name.startswith(("queue", "spool", "relay", "refused"))]
