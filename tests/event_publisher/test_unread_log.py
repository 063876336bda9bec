"""A publisher whose stderr is unwritable: it delivers, obeys signals and counts lost lines."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from baseplate_events.cli.status.command import scrape
from baseplate_events.dev_collector import DevCollector
from baseplate_events.event_publisher.config.values import UnixEndpoint
from tests.support.processes import Process, started
from tests.support.publishers import (
    KEY_NAME,
    SECRET,
    Arrivals,
    config_text,
    make_events,
    put_all,
    small_queue,
)
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

#: Bytes of the smallest pipe: a page, some forty lines.
PAGE = 4_096

#: Bytes of a batch that holds one event only, as its largest event is.
ONE = {"max_event_size": "936", "batch.max_size": "1000", "batch.max_events": "1"}


def publisher(
    folder: Path, name: str, url: str, stderr: int, *, close: bool = False
) -> AbstractContextManager[Process]:
    """Run a publisher with `--debug` that logs a line for each event, to a descriptor or to none."""
    config_file = folder / f"{name}.ini"
    values = {key.replace(".", "__"): value for key, value in ONE.items()}
    config_file.write_text(config_text(name, url, health__bind=str(folder / "health.sock"), **values))
    words = [
        sys.executable,
        "-m",
        "baseplate_events.event_publisher",
        "--debug",
        "--queue-name",
        name,
        str(config_file),
    ]
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words] if close else words
    return started(*command, stderr=stderr)


def lines_dropped(folder: Path) -> float:
    """Ask the publisher how many lines of its log were dropped."""
    return scrape(UnixEndpoint(str(folder / "health.sock"))).number("log_lines_dropped_total") or 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unread pipe", "full disk", "no reader", "closed"])
def test_a_log_that_cant_be_written_stops_nothing(kind: str, name: str, tmp_path: Path) -> None:
    """Every event is delivered, SIGTERM ends it with 0, and lost lines are counted in the metrics."""
    events = make_events(200)
    arrivals = Arrivals()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    if kind == "full disk":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    elif kind == "no reader":
        os.close(reader)
    with (
        small_queue(name, max_message_size=936) as queue,
        DevCollector({KEY_NAME: SECRET}, arrivals.add) as collector,
        publisher(tmp_path, name, collector.url, writer, close=kind == "closed") as process,
    ):
        os.close(writer)
        put_all(queue, events)
        wait_until(lambda: len(arrivals.events) == len(events), "events are missing")
        if kind != "unread pipe":  # which has more room than that, in the publisher
            wait_until(lambda: lines_dropped(tmp_path) >= len(events), "no lines were dropped")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    if kind != "no reader":
        os.close(reader)


def test_the_last_line_is_read_by_who_begins_to_read_late(name: str, tmp_path: Path) -> None:
    """A reader that comes back while the publisher stops gets every line, the last one too."""
    events = make_events(200)
    arrivals = Arrivals()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    with (
        small_queue(name, max_message_size=936) as queue,
        DevCollector({KEY_NAME: SECRET}, arrivals.add) as collector,
        publisher(tmp_path, name, collector.url, writer) as process,
    ):
        os.close(writer)
        put_all(queue, events)
        wait_until(lambda: len(arrivals.events) == len(events), "events are missing")
        process.send_signal(signal.SIGTERM)
        with os.fdopen(reader, encoding="utf-8") as log:
            lines = log.read().splitlines()
        assert process.wait(PATIENCE) == 0
    assert sum("delivered 1 event" in line for line in lines) == len(events)
    assert " stopped: " in lines[-1]
