"""The action `unlink` on real spools: what it removes, and what it refuses to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.cli.queue.spool_events import IN_USE
from baseplate_events.event_publisher.foreign_text import printable
from baseplate_events.event_publisher.policy.journal import DeadLetter
from tests.support.commands import call
from tests.support.examples import examples
from tests.support.spool_directories import fresh_place, names_in
from tests.support.spool_publishers import begin, publisher_of
from tests.support.spool_reader import SpoolFileReader
from tests.support.spool_segments import write_segment
from tests.support.spool_services import NAME, open_queue, spool_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Result


def unlink(place: Path, *words: str) -> Result:
    """Run `unlink` on the spool in a place."""
    return call("queue", "unlink", NAME, "--spool-directory", str(place), *words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a spool, as an operator does."""
    call("queue", "create", NAME, "--spool-directory", str(tmp_path)).check()
    return spool_of(tmp_path)


@given(st.lists(st.lists(st.binary(min_size=1, max_size=9), max_size=3), max_size=4), st.booleans())
@examples(30)
def test_no_event_is_lost_unless_that_is_wanted(segments: list[list[bytes]], force: bool) -> None:
    """A spool is removed only if no segment holds an event, or by `--force`, which counts them."""
    events = sum(map(len, segments))
    with fresh_place() as place:
        folder = spool_of(place)
        folder.mkdir(mode=0o700)
        for each in segments:
            write_segment(folder, each, refusals={"full": 1})
        before = names_in(folder)
        result = unlink(place, *["--force"] * force)
        if force or not events:
            what = f" with {events} event{'' if events == 1 else 's'}" if events else ""
            assert (0, f"removed {folder}{what}\n", "") == (result.status, result.out, result.err)
            assert not folder.exists()
        else:
            assert result.status == 1
            assert f"would lose {events} event" in result.err
            assert "--force" in result.err
            assert names_in(folder) - {"ledger.sqlite-journal"} == before | {"reader.lock", "ledger.sqlite"}


def test_files_that_arent_finished_go_as_well(folder: Path) -> None:
    """Leftovers of a killed service, and the lock file of a publisher, don't prevent it."""
    write_segment(folder).rename(folder / f"{1:020}-{2:016x}-{3:032x}.new")
    (folder / "reader.lock").touch()
    assert unlink(folder.parent).check() == f"removed {folder}\n"
    assert not folder.exists()


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_nothing_is_removed_while_a_publisher_reads(folder: Path, words: tuple[str, ...]) -> None:
    """It ends with 1 and the remedy, with `--force` too."""
    with SpoolFileReader(folder):
        result = unlink(folder.parent, *words)
    assert result.status == 1
    assert IN_USE in result.err
    assert folder.exists()


def test_a_segment_that_a_service_has_open_stays(folder: Path) -> None:
    """Events put in the meantime could be lost; with `--force` the segment is removed too."""
    with open_queue(folder.parent) as service:
        service.put(b"{1}")
        with SpoolFileReader(folder) as reader:
            assert reader.read()
        result = unlink(folder.parent)
        assert result.status == 1
        assert "1 segment that a service has open" in result.err
        assert (
            unlink(folder.parent, "--force").check()
            == f"removed {folder} with 1 event, 1 segment that a service has open\n"
        )
        assert not folder.exists()


def test_what_cant_be_read_may_hold_events(folder: Path) -> None:
    """A segment that is damaged stays without `--force`."""
    write_segment(folder, head=b"no header\n")
    result = unlink(folder.parent)
    assert result.status == 1
    assert "1 segment that can't be read" in result.err
    unlink(folder.parent, "--force").check()


@pytest.mark.parametrize(
    "name", ["notes\x1b", "backup.segment", "backup.new", f"{1:020}-{2:016x}-{3:031x}.segment"]
)
def test_what_isnt_of_a_spool_keeps_all_of_it(folder: Path, name: str) -> None:
    """A foreign file is named, and nothing is removed, not even with `--force`."""
    (folder / name).write_bytes(b"a stranger's")
    segment = write_segment(folder)
    result = unlink(folder.parent, "--force")
    assert result.status == 1
    assert f"it contains {printable(name)}, which is no part of a spool" in result.err
    assert segment.exists()
    assert (folder / name).read_bytes() == b"a stranger's"


def test_dead_letters_are_lost_as_well(folder: Path) -> None:
    """Dead letters are in the ledger, so they prevent removal; so does a damaged ledger."""
    with publisher_of(folder) as (ledger, _):
        ledger.resolve((), [DeadLetter(b"{}", 400, "no", b"")])
    (folder / "ledger.sqlite.damaged-1").touch()
    result = unlink(folder.parent)
    assert result.status == 1
    assert "would lose 1 dead letter, 1 damaged ledger with dead letters;" in result.err
    unlink(folder.parent, "--force").check()


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=5), st.data())
@examples(20)
def test_what_was_delivered_isnt_lost(events: list[bytes], data: st.DataObject) -> None:
    """Only undelivered events count, including those of a batch in flight."""
    delivered = data.draw(st.integers(0, len(events)))
    with fresh_place() as place:
        folder = spool_of(place)
        folder.mkdir(mode=0o700)
        write_segment(folder, events)
        with publisher_of(folder) as (ledger, reader):
            if delivered:
                ledger.resolve(reader.read(delivered, 1_000).spans)
            begin(ledger, reader, 2)
        result = unlink(place)
        left = len(events) - delivered
        assert (result.status, left == 0) in {(0, True), (1, False)}
        assert left == 0 or f"would lose {left} event" in result.err
