"""The action `read` on real spools: what it takes away, and what it leaves to a publisher."""

from __future__ import annotations

import contextlib
import io
import signal
import sqlite3
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.__main__ import main
from baseplate_events.cli.queue.spool_events import SpoolEvents, own_spool
from baseplate_events.cli.queue.spool_place import SpoolPlace
from baseplate_events.errors import EventError
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from tests.cli.queue.processes import process
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.failing_steps import failing
from tests.support.processes import finish, hear
from tests.support.spool_directories import fresh_place, names_in
from tests.support.spool_publishers import begin, publisher_of, what_is_left
from tests.support.spool_segments import write_segment
from tests.support.spool_services import NAME, open_queue, spool_of
from tests.support.strategies import json_events
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.commands import Result
    from tests.support.processes import Process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a spool, as an operator does."""
    call("queue", "create", NAME, "--spool-directory", str(tmp_path)).check()
    return spool_of(tmp_path)


def read(folder: Path, *words: str) -> Result:
    """Run `read` on a spool."""
    return call("queue", "read", NAME, "--spool-directory", str(folder.parent), *words)


def lines_of(result: Result) -> list[bytes]:
    """Return the lines that it printed, after checking that it succeeded."""
    result.check()
    return result.out_bytes.split(b"\n")[:-1]


def reading(folder: Path, *words: str) -> AbstractContextManager[Process]:
    """Run `read` in a process of its own until the end of a block."""
    return process("read", NAME, "--spool-directory", str(folder.parent), *words)


@given(st.lists(json_events, max_size=8))
@examples(20)
def test_what_is_written_is_read_in_order(events: list[bytes]) -> None:
    """`read` prints what `write` put, and leaves no segment behind."""
    with fresh_place() as place:
        call("queue", "create", NAME, "--spool-directory", str(place)).check()
        text = b"\n".join(events).decode()
        call("queue", "write", NAME, "--spool-directory", str(place), stdin=text).check()
        assert lines_of(read(spool_of(place))) == [event.strip(b" \t") for event in events]
        assert {name.partition("-")[0] for name in names_in(spool_of(place))} <= {
            "ledger.sqlite",
            "reader.lock",
        }


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.data())
@examples(40)
def test_each_event_is_delivered_or_printed_once(events: list[bytes], data: st.DataObject) -> None:
    """Whatever was delivered or in flight before, the printed and the remaining events are the rest."""
    numbers = st.integers(0, len(events))
    delivered, count = data.draw(numbers), data.draw(st.none() | st.integers(1, 10))
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=3))
    with fresh_place() as place:
        folder = spool_of(place)
        folder.mkdir(mode=0o700)
        write_segment(folder, [b"%d" % number for number in range(len(events))])
        with publisher_of(folder) as (ledger, reader):
            if delivered:
                ledger.resolve(reader.read(delivered, sys.maxsize).spans)
            for size in sizes:
                begin(ledger, reader, size)
        undelivered = [b"%d" % number for number in range(delivered, len(events))]
        printed = lines_of(read(folder, *([] if count is None else ["--count", str(count)])))
        assert printed == undelivered[:count]
        assert what_is_left(folder) == undelivered[len(printed) :]
        assert lines_of(read(folder)) == undelivered[len(printed) :]
        assert what_is_left(folder) == []


def test_all_formats_are_read(folder: Path) -> None:
    """Which `collector.version` the events are for makes no difference; nothing is set aside."""
    for number, event_format in enumerate(("2", "2j", "unknown")):
        write_segment(folder, [event_format.encode()], event_format=event_format, created=number)
    assert sorted(lines_of(read(folder))) == [b"2", b"2j", b"unknown"]


def test_a_segment_that_a_service_has_open_stays(folder: Path) -> None:
    """Events of an open segment are printed once, and later ones too."""
    with open_queue(folder.parent) as service:
        service.put(b"{1}")
        assert lines_of(read(folder)) == [b"{1}"]
        service.put(b"{2}")
        assert lines_of(read(folder)) == [b"{2}"]
        assert len([name for name in names_in(folder) if name.endswith(".segment")]) == 1


@pytest.mark.parametrize("words", [(), ("--follow",)])
def test_nothing_is_taken_from_a_publisher(folder: Path, words: tuple[str, ...]) -> None:
    """While one reads the spool, `read` ends with 1 and the remedy."""
    write_segment(folder, [b"{}"])
    with publisher_of(folder):
        result = read(folder, *words)
    assert (1, "") == (result.status, result.out)
    assert "an event publisher is using it; stop" in result.err
    assert what_is_left(folder) == [b"{}"]


def test_an_event_that_cant_be_printed_stays(folder: Path) -> None:
    """A full disk costs nothing: the event and all behind it are still there, and the status is 1."""
    write_segment(folder, [b"1", b"2"])
    words = ["queue", "read", NAME, "--spool-directory", str(folder.parent)]
    with (
        open("/dev/full", "w") as full,  # noqa: PTH123 - a device
        contextlib.redirect_stdout(full),
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        status = main(words)
    assert status == 1
    assert "No space left on device; the event is still in the spool" in err.getvalue()
    assert what_is_left(folder) == [b"1", b"2"]


def test_a_ledger_that_cant_be_used_keeps_all_events(folder: Path) -> None:
    """Without a ledger, printed events would be delivered later; so nothing is printed."""
    write_segment(folder, [b"{}"])
    (folder / "ledger.sqlite.part").mkdir()
    result = read(folder)
    assert (1, "") == (result.status, result.out)
    assert "ledger.sqlite can't be written" in result.err
    (folder / "ledger.sqlite.part").rmdir()
    assert lines_of(read(folder)) == [b"{}"]


@pytest.mark.parametrize("for_a_moment", [True, False])
def test_a_ledger_that_is_locked_is_waited_for(
    for_a_moment: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short lock of the ledger costs nothing; a long one is an error with its consequence."""
    write_segment(folder, [b"1", b"2"])
    with own_spool(SpoolPlace(str(folder.parent), NAME)) as spool, SpoolEvents(spool) as events:
        lock = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")

        def sleep(_seconds: float) -> None:
            if for_a_moment:
                lock.rollback()

        monkeypatch.setattr(time, "sleep", sleep)
        assert events.try_take() == b"1"
        events.settle()
        with (
            contextlib.nullcontext()
            if for_a_moment
            else pytest.raises(EventError, match="last 1 event may be")
        ):
            events.finish()
        lock.close()
    assert what_is_left(folder) == [b"2"]


def test_refusals_of_services_are_reported(folder: Path) -> None:
    """Reports of refusals are deleted with the segment, so `read` prints them."""
    write_segment(folder, [b"{}"], refusals={"full": 1_234})
    result = read(folder)
    assert lines_of(result) == [b"{}"]
    assert result.err == "services report events that they refused: full 1,234\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follow_prints_what_comes_until_a_signal(number: signal.Signals, folder: Path) -> None:
    """Events are printed as they come; a signal ends it with 0, and what was printed isn't left."""
    with reading(folder, "--follow") as running, open_queue(folder.parent) as service:
        for event in (b"{1}", b"{2}"):
            service.put(event)
            assert hear(running) == event.decode()
        running.send_signal(number)
        assert running.wait(PATIENCE) == 0
        service.put(b"{3}")
        assert what_is_left(folder, "unknown") == [b"{3}"]


def test_nothing_is_taken_for_a_reader_that_has_gone(folder: Path) -> None:
    """With a broken pipe for stdout it takes nothing, also while it follows, and ends with 0."""
    with reading(folder, "--follow") as running:
        assert running.stdout is not None
        write_segment(folder, [b"1"])
        assert hear(running) == "1"
        running.stdout.close()
        write_segment(folder, [b"2"], created=2)
        assert running.wait(PATIENCE) == 0
    assert what_is_left(folder) == [b"2"]


def test_a_kill_costs_no_event(folder: Path) -> None:
    """After a kill, events that weren't printed remain; some of the last printed ones may remain too."""
    events = [b"%d" % number for number in range(5_000)]
    write_segment(folder, events)
    with reading(folder) as running:
        printed = [hear(running)]
        running.kill()
        printed += finish(running).out.splitlines()
    left = what_is_left(folder)
    assert events[len(events) - len(left) :] == left
    assert len(events) <= len(printed) + len(left) <= len(events) + 1_001  # the last line may be cut off


def test_a_spool_that_cannot_be_read_is_left_as_it_was(folder: Path) -> None:
    """If its reader can't be created, neither lock nor ledger nor watch stays open."""
    with failing(SpoolReader, "__init__"), own_spool(SpoolPlace(str(folder.parent), NAME)):
        pass
