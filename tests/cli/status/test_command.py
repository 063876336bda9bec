from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import sys
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.status import command
from baseplate_events.cli.status.command import UnreachableError, scrape
from baseplate_events.cli.status.report import Scrape, format_json, format_status, status_of
from baseplate_events.cli.terminal import visible_length
from baseplate_events.dev_collector import DevCollector
from baseplate_events.event_publisher.config.values import InternetEndpoint, UnixEndpoint
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.policy.outcome import Accepted, Retryable
from baseplate_events.event_publisher.telemetry.health_server import HealthServer
from baseplate_events.event_publisher.telemetry.metrics import metrics_of
from baseplate_events.event_publisher.telemetry.prometheus import format_metrics, parse_samples
from baseplate_events.event_publisher.telemetry.snapshot import Attempts, Snapshot, SpoolLevel
from tests.support.commands import Result, run
from tests.support.processes import DEVNULL, read_screen, started
from tests.support.publishers import config_text
from tests.support.strategies import snapshots
from tests.support.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from tests.support.processes import Process

_PROGRAM = """
import argparse, sys
from baseplate_events.cli.status import command
parser = argparse.ArgumentParser(prog="status")
command.add_arguments(parser)
sys.exit(command.run(parser.parse_args()))
"""


def look(snapshot: Snapshot) -> Scrape:
    """Scrape a snapshot as it was made."""
    now = snapshot.made_at
    return Scrape(snapshot.unready(now), parse_samples(format_metrics(metrics_of(snapshot, now))))


def a_snapshot(*, delivered: int = 0, failure: str | None = None, made_at: float | None = None) -> Snapshot:
    """What a publisher is doing that is alive now."""
    now = time.monotonic() if made_at is None else made_at
    attempts = Attempts()
    attempts.record(Accepted(200), 0.02, now)
    if failure is not None:
        attempts.record(Retryable(reason=failure, from_collector=True), 0.04, now)
    counters = Accounting(received=delivered, delivered=delivered)
    return Snapshot("v2", "1.0", 0.0, now, counters, 3, 10, attempts=attempts.counts())


@contextlib.contextmanager
def serving(read_snapshot: Callable[[], Snapshot]) -> Generator[HealthServer]:
    """Serve snapshots for the time of a block."""
    server = HealthServer(InternetEndpoint("127.0.0.1", 0), read_snapshot)
    server.start()
    try:
        yield server
    finally:
        server.close()


def status(*words: str) -> Result:
    """Run the command without a terminal."""
    return run(sys.executable, "-c", _PROGRAM, *words)


# --- what a look means ---


@given(snapshots())
def test_a_status_says_what_the_snapshot_says(snapshot: Snapshot) -> None:
    """Whatever a publisher is doing, its status has the counters, levels and attempts as they are."""
    found = status_of(look(snapshot))
    counters, attempts = snapshot.accounting, snapshot.attempts
    assert found.unready == snapshot.unready(snapshot.made_at)
    assert found.ready == (found.unready is None)
    assert (found.queue, found.version) == (snapshot.queue_name, snapshot.version)
    for name in ("received", "recovered", "delivered", "dead_lettered", "returned", "spooled", "in_hand"):
        assert getattr(found, name) == getattr(counters, name)
    assert found.dropped == {reason.value: count for reason, count in counters.dropped.items()}
    assert found.attempts == {result.value: count for result, count in attempts.results.items()}
    assert (found.queue_depth, found.queue_capacity) == (snapshot.queue_depth, snapshot.queue_capacity)
    assert found.transports == snapshot.transports
    assert (found.last_success_age is None) == (attempts.last_success_at is None)
    assert found.failures == snapshot.failures
    assert found.rates is None
    assert (found.mean_attempt is None) == (attempts.seconds.count == 0)
    printed = json.loads(format_json(found))
    assert (printed["received"], printed["unready"]) == (counters.received, found.unready)


@given(snapshots())
def test_a_status_says_how_full_queue_and_spool_are(snapshot: Snapshot) -> None:
    """Each number of the levels is there; what there isn't, or isn't known, is null."""
    found, spool = status_of(look(snapshot)), snapshot.spool
    has_queue = snapshot.queue_depth is not None
    queue = (found.queue_highest_depth, found.queue_full)
    assert queue == ((snapshot.queue_highest, snapshot.queue_full) if has_queue else (None, None))
    if spool is None:
        assert {found.spool_size, found.spool_max_size, found.spool_segments, found.torn} == {None}
        assert not any((found.set_aside, found.refused, found.problems, found.relay_paused))
        return
    assert (found.spool_size, found.spool_max_size) == (spool.size, spool.max_size)
    assert found.spool_segments == spool.segments
    assert (found.torn, found.torn_bytes) == (spool.torn_gaps, spool.torn_bytes)
    assert (found.spool_free_bytes, found.spool_free_inodes) == (spool.free_space, spool.free_inodes)
    assert (found.set_aside, found.refused, found.rekeyed) == (spool.aside, spool.refusals, spool.rekeyed)
    assert (found.relay_paused, found.relay_held) == (spool.paused is not None, spool.held)
    assert bool(found.problems) == any((spool.error, spool.paused, spool.problems))


@given(snapshots(), st.booleans())
def test_a_status_can_always_be_shown(snapshot: Snapshot, colour: bool) -> None:
    """Whatever a publisher says, it is lines without anything that a terminal would act on but colours."""
    lines = format_status(status_of(look(snapshot)), colour=colour)
    text = "".join(lines)
    assert re.sub(r"\x1b\[[0-9]+m", "", text).isprintable()
    assert ("\x1b" in text) == colour
    assert all(visible_length(line) == len(line) for line in lines) == (not colour)
    first = [line.split()[0] for line in lines if line]
    assert ["queue", "state"] == first[:2]


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(0.001, 10))
def test_the_mean_of_attempts_is_that_of_the_last_ones(count: int, seconds: float, rate: float) -> None:
    """It is that of the last ten seconds, or else since the start; there are no rates just after that."""
    snapshot = a_snapshot(delivered=count)
    found = status_of(look(snapshot))
    assert (found.rates, found.mean_attempt) == (None, 0.02)
    found = status_of(look(replace(snapshot, rates={"attempts": rate, "attempt_seconds": rate * seconds})))
    assert found.rates == {"attempts": rate}
    assert found.mean_attempt == pytest.approx(seconds, abs=1e-6)
    found = status_of(look(replace(snapshot, rates={"attempts": 0.0, "attempt_seconds": 0.0})))
    assert found.mean_attempt == 0.02


@given(st.integers(0, 10**9), st.none() | st.floats(-1e6, 1e6), st.booleans())
def test_the_time_left_is_the_backlog_by_its_rate(level: int, change: float | None, spooled: bool) -> None:
    """What shrinks ends when its rate says; what grows or stays has no end; nothing is done at once."""
    snapshot = replace(a_snapshot(), rates={} if change is None else {"backlog": change})
    if spooled:
        snapshot = replace(snapshot, spool=SpoolLevel(level, 1))
    else:
        counters = Accounting(received=10**9, in_hand=level)
        snapshot = replace(snapshot, accounting=counters, queue_depth=0)
    found = status_of(look(snapshot))
    assert (found.backlog, found.rates) == (level, None)
    row = next(line for line in format_status(found, colour=False) if line.startswith("backlog"))
    if level == 0:
        assert (found.backlog_time, "nothing waits" in row) == (0, True)
    elif change is not None and change < 0:
        assert found.backlog_time == pytest.approx(level / -change, abs=0.1)
        assert "delivered in" in row
    else:
        assert found.backlog_time is None
        assert ("growing by" in row) == (round(change or 0) > 0)
        assert ("steady" in row) == (change is not None and round(change) == 0)


@given(snapshots(), st.floats(-1e6, 1e6))
def test_one_look_has_the_rates_of_the_publisher(snapshot: Snapshot, change: float) -> None:
    """Rates and the time left are those that the publisher reports."""
    found = status_of(look(replace(snapshot, rates={"received": 3.0, "delivered": 4.5, "backlog": change})))
    assert found.rates == {"received": 3.0, "delivered": 4.5}
    assert (found.backlog, found.backlog_change) == (snapshot.backlog, change)
    if change < -1 and snapshot.backlog:
        assert found.backlog_time == pytest.approx(snapshot.backlog / -change, abs=0.1)


@given(snapshots(), st.lists(st.sampled_from(["batch.max_age", "retry.cap"]), unique=True), st.booleans())
def test_a_status_says_where_events_go(snapshot: Snapshot, waiting: list[str], shared: bool) -> None:
    """It has the collector and its last answer, options that need a restart, and another publisher."""
    url = "https://events.example.com/v2"
    snapshot = replace(snapshot, collector=url, waiting=waiting, queue_shared=shared)
    found, attempts = status_of(look(snapshot)), snapshot.attempts
    assert (found.collector, found.restart_needed) == (url, waiting)
    assert found.last_answer_status == attempts.last_status
    assert (found.last_answer_age is None) == (attempts.last_answer_at is None)
    assert found.queue_shared == (shared and snapshot.queue_depth is not None)
    text = "\n".join(format_status(found, colour=False))
    assert url in text
    assert ("no answer yet" in text) == (attempts.last_status is None)
    assert all(name in text for name in waiting)
    assert ("another publisher reads too" in text) == found.queue_shared


def test_the_table_by_example() -> None:
    """The table of a publisher with a spool whose collector is out of order, as an operator sees it."""
    attempts = Attempts()
    for seconds, outcome in (
        (0.02, Accepted(200)),
        (0.04, Retryable(reason="503 Busy", from_collector=True, status=503)),
    ):
        attempts.record(outcome, seconds, 86_400.0)
    first = Snapshot(
        queue_name="v2",
        version="1.0",
        started_at=0.0,
        made_at=86_400.0,
        accounting=Accounting(received=1_000, delivered=1_000),
        queue_depth=0,
        queue_capacity=10_000,
        attempts=attempts.counts(),
        collector="https://events.example.com/v2",
        waiting=("batch.max_age", "retry.cap"),
    )
    counters = Accounting(received=5_000, delivered=1_500, dead_lettered=1, spooled=3_400, in_hand=99)
    second = replace(
        first,
        made_at=86_410.0,
        accounting=counters,
        queue_depth=2_500,
        failures=3,
        oldest_at=86_280.0,
        spool=SpoolLevel(
            3 * 1_024**2,
            1_024**3,
            segments=5,
            oldest_at=86_200.0,
            aside={"newer": 1, "unreadable": 0},
            torn_bytes=4_096,
            torn_gaps=2,
            refusals={"full": 7, "empty": 0},
            free_space=10 * 1_024**3,
            free_inodes=655_360,
            paused="the disk is full",
            held=1,
            problems=("inotify is not available",),
        ),
        queue_highest=9_000,
        queue_full=3,
        transports={"posix": True, "spool": True},
        rates={"received": 400.0, "delivered": 50.0, "attempts": 0.0, "attempt_seconds": 0.0},
    )
    assert format_status(status_of(look(second)), colour=False) == [
        "queue           v2 (publisher 1.0, up 1 d 0 h)",
        "state           not delivering: 503 Busy",
        "problem         the disk is full",
        "problem         inotify is not available",
        "restart         needed for batch.max_age, retry.cap",
        "transport       posix and spool",
        "collector       https://events.example.com/v2, last answer 503 Service Unavailable 10.0 s ago",
        "",
        "in the queue    2,500 of 10,000 events (25 %), lately up to 9,000, found full 3 times",
        "in the spool    3,145,728 of 1,073,741,824 bytes (0 %), 5 segments, 3,400 events read",
        "oldest segment  3 min 30 s",
        "free            10,737,418,240 bytes, 655,360 inodes",
        "set aside       1 newer (segments)",
        "torn            4,096 bytes in 2 places",
        "relay           paused, holds 1 event of the queue",
        "in memory       99 events",
        "backlog         3,145,728 bytes",
        "oldest          2 min 10 s",
        "",
        "received        5,000 (400.0 a second)",
        "delivered       1,500 (50.0 a second)",
        "dead letters    1",
        "dropped         0",
        "refused         7 full (by services)",
        "",
        "requests        1 accepted, 1 retryable (0.0 a second)",
        "mean time       30.0 ms",
        "last success    10.0 s ago",
        "failing         for 10.0 s, 3 attempts in a row",
    ]


# --- asking ---


def test_an_endpoint_is_asked_over_both_kinds_of_sockets(tmp_path: Path) -> None:
    """Over loopback and over a Unix socket the look is that of the snapshot."""
    path = UnixEndpoint(str(tmp_path / "health.sock"))
    for endpoint in (InternetEndpoint("127.0.0.1", 0), InternetEndpoint("::1", 0), path):
        with contextlib.closing(HealthServer(endpoint, lambda: a_snapshot(failure="503 Busy"))) as server:
            server.start()
            seen = scrape(server.endpoint)
            assert seen.unready == "503 Busy"
            assert status_of(seen).queue_depth == 3


def test_what_is_no_publisher_is_reported(tmp_path: Path) -> None:
    """No server at the address, and a server that is no publisher, are errors that name the address."""
    missing = UnixEndpoint(str(tmp_path / "nothing.sock"))
    with pytest.raises(UnreachableError, match="No such file") as caught:
        scrape(missing)
    assert missing.path == caught.value.address
    assert str(caught.value) == (
        f"can't reach the publisher at {missing}: No such file or directory; check that it runs with "
        "health.bind set to this address"
    )
    with DevCollector({}, lambda _: None) as collector:
        other = InternetEndpoint(*collector.address)
        with pytest.raises(UnreachableError, match="this isn't a publisher"):
            scrape(other)


def test_a_look_has_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is longer than any of ours isn't read to its end, and is no look."""
    monkeypatch.setattr(command, "_MAX_PAGE", 50)
    with serving(a_snapshot) as server, pytest.raises(UnreachableError, match="end within a line"):
        scrape(server.endpoint)


# --- the command ---


def test_elsewhere_than_on_a_terminal_it_is_one_json_object() -> None:
    """Into a pipe goes one JSON object with rates, and the exit status says whether events are delivered."""
    with serving(lambda: replace(a_snapshot(), rates={"delivered": 3.5})) as server:
        result = status("--health-bind", str(server.endpoint))
    (line,) = result.check().splitlines()
    found = json.loads(line)
    assert found["ready"] is True
    assert found["queue"] == "v2"
    assert found["rates"]["delivered"] == 3.5


def test_a_publisher_that_does_not_deliver_ends_it_with_1() -> None:
    """The JSON object has the reason, and the exit status is 1."""
    with serving(lambda: a_snapshot(failure="401 Unauthorized; check key.name")) as server:
        result = status("--health-bind", str(server.endpoint), "--interval", "100 milliseconds")
    assert (result.status, result.err) == (1, "")
    assert json.loads(result.out)["unready"] == "401 Unauthorized; check key.name"


def test_the_address_is_that_of_the_configuration(tmp_path: Path) -> None:
    """With a configuration, `health.bind` of the queue's section is asked, without any secret."""
    path = tmp_path / "health.sock"
    config = tmp_path / "publisher.ini"
    config.write_text(
        config_text("v2", "https://collector.test", health__bind=str(path), key__secret="$UNSET_VARIABLE")
    )
    with contextlib.closing(HealthServer(UnixEndpoint(str(path)), a_snapshot)) as server:
        server.start()
        words = (str(config), "--queue-name", "v2", "--interval", "100 milliseconds")
        status(*words).check()
    result = status(*words)
    with pytest.raises(UnreachableError) as caught:
        scrape(UnixEndpoint(str(path)))
    assert Result(1, "", f"{caught.value}\n") == result


def test_mistakes_of_usage_end_it_with_2(tmp_path: Path) -> None:
    """No address, one that isn't set, one that isn't of this host, and a missing file each end it with 2."""
    config = tmp_path / "publisher.ini"
    config.write_text(config_text("v2", "https://collector.test"))
    for words, named in {
        (): "--health-bind ADDRESS",
        (str(config), "--queue-name", "v2"): "[event-publisher:v2] health.bind",
        (str(config),): "[event-publisher:v2] health.bind",
        (str(tmp_path / "missing.ini"),): "missing.ini",
        ("--health-bind", "a.test:80"): "'a.test:80'",
        ("--health-bind", "127.0.0.1:80", "--interval", "0 seconds"): "'0 seconds'",
    }.items():
        result = status(*words)
        assert (result.status, result.out) == (2, "")
        assert named in result.err


class Terminal:
    """The command on a terminal."""

    def __init__(self, process: Process, master: int) -> None:
        self.process = process
        self.master = master
        self.shown = ""

    def read_until(self, words: str) -> None:
        """Read what is shown until these words come.

        Raises:
            TimeoutError: They don't.
        """
        wait_until(lambda: words in self.read_available(), lambda: self.shown)

    def read_available(self) -> str:
        """Read what is shown by now, and return all that was."""
        if select.select([self.master], [], [], 0.0)[0]:
            self.shown += os.read(self.master, 65_536).decode()
        return self.shown

    def read_all(self) -> str:
        """Read what is shown until the command has ended."""
        self.shown += read_screen(self.master)
        return self.shown

    def press(self, key: str) -> None:
        """Press a key."""
        os.write(self.master, key.encode())


@contextlib.contextmanager
def on_terminal(*words: str, keyboard: bool = True, **environ: str) -> Generator[Terminal]:
    """Run the command on a terminal until the end of the block."""
    master, slave = pty.openpty()
    with started(
        *(sys.executable, "-c", _PROGRAM, *words),
        stdin=slave if keyboard else DEVNULL,
        stdout=slave,
        stderr=slave,
        session=True,
        environ={"TERM": "xterm", "NO_COLOR": "", **environ},
    ) as process:
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            os.close(master)


def test_on_a_terminal_it_refreshes_until_q() -> None:
    """Like `top` it shows what changes, survives a publisher that goes away, and ends with `q`."""
    seen = [a_snapshot(delivered=1_234)]
    with (
        serving(lambda: replace(seen[0], made_at=time.monotonic())) as server,
        on_terminal("--health-bind", str(server.endpoint), "--interval", "100 milliseconds") as terminal,
    ):
        terminal.read_until("1,234")
        seen[0] = a_snapshot(delivered=56_789, failure="503 Busy")
        terminal.read_until("56,789")
        terminal.read_until("503 Busy")
        seen[0] = a_snapshot(delivered=99_999)
        terminal.read_until("99,999")
        terminal.press("x")
        server.close()
        terminal.read_until(str(server.endpoint))  # which isn't reached any more
        terminal.press("q")
        shown = terminal.read_all()
        assert terminal.process.wait(PATIENCE) == 1  # as it was last seen
    assert shown.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in shown
    assert "\x1b[32m" in shown


@pytest.mark.parametrize("keyboard", [True, False])
def test_ctrl_c_ends_it_too(*, keyboard: bool) -> None:
    """The interrupt key ends it as `q` does, without a traceback, also where stdin is no keyboard."""
    with (
        serving(a_snapshot) as server,
        on_terminal("--health-bind", str(server.endpoint), keyboard=keyboard, NO_COLOR="1") as terminal,
    ):
        terminal.read_until("v2")
        terminal.process.send_signal(2)
        shown = terminal.read_all()
        assert terminal.process.wait(PATIENCE) == 0
    assert "Traceback" not in shown
    assert "\x1b[32m" not in shown


@pytest.mark.parametrize("option", ["--once", "--json"])
def test_one_look_on_a_terminal(option: str) -> None:
    """`--once` is one table and `--json` one object; neither takes the screen."""
    with (
        serving(a_snapshot) as server,
        on_terminal(
            "--health-bind", str(server.endpoint), option, "--interval", "100 milliseconds"
        ) as terminal,
    ):
        shown = terminal.read_all()
        assert terminal.process.wait(PATIENCE) == 0
    assert "\x1b[?1049h" not in shown
    assert shown.startswith("queue " if option == "--once" else "{")


def test_an_address_that_is_wrong_from_the_beginning_ends_it() -> None:
    """If the first look fails, it says so and ends with 1 without taking the screen."""
    missing = UnixEndpoint(f"/tmp/{uuid.uuid4().hex}")
    with on_terminal("--health-bind", missing.path) as terminal:
        shown = terminal.read_all()
        assert terminal.process.wait(PATIENCE) == 1
    with pytest.raises(UnreachableError) as caught:
        scrape(missing)
    assert shown == f"{caught.value}\r\n"
