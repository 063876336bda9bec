"""The spool as the publisher's source: what is forced onto the disk, and when."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
from typing import TYPE_CHECKING, Final, final
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueue
from baseplate_events.event_publisher import spool_source
from baseplate_events.event_publisher.ledger.ledger import Ledger
from baseplate_events.event_publisher.policy.journal import EnteredBatch
from baseplate_events.event_publisher.policy.outcome import Accepted
from baseplate_events.event_publisher.policy.poison import FaultRecord
from baseplate_events.event_publisher.policy.span import EventRun
from baseplate_events.event_publisher.relay import Relay
from baseplate_events.event_publisher.spool_reader.files import ReaderFolder
from baseplate_events.event_publisher.spool_reader.reader import SpoolReader
from baseplate_events.event_publisher.spool_reader.watch import SpoolWatch
from baseplate_events.event_publisher.spool_source import SpoolSource
from baseplate_events.spool.directory import SpoolDirectory
from tests.support.queues import event_of
from tests.support.spool_directories import fresh_place
from tests.support.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from contextlib import ExitStack
    from pathlib import Path

    from baseplate_events.event_publisher.policy.batching import Batch
    from baseplate_events.event_publisher.policy.outcome import Outcome

#: Seconds after which what was read is forced onto the disk.
PAUSE: Final = 1.0


@final
class NotingFolder(ReaderFolder):
    """A folder that notes how much of a file was forced onto the disk."""

    def __init__(self, directory: SpoolDirectory) -> None:
        super().__init__(directory)
        self.synced = 0

    def sync(self, fd: int) -> None:
        self.synced = self.size(fd)
        super().sync(fd)


@pytest.fixture
def stack() -> Generator[ExitStack]:
    """Close what a test opens."""
    with contextlib.ExitStack() as stack:
        yield stack


def no_disk() -> tuple[int, int | None]:
    """Fail as the folder of a spool does that is gone."""
    raise FileNotFoundError


def test_a_level_is_always_known(tmp_path: Path, stack: ExitStack) -> None:
    """Also if the disk can't be asked for its room. An age is by the wall clock, and never negative."""
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    files = ReaderFolder(directory)
    watch = SpoolWatch(files.path, lambda: 0.0)
    reader = SpoolReader(files, watch, event_format="2", clock=lambda: 0.0, resolved=lambda _: ())
    stack.callback(reader.close)
    ledger = Ledger(
        str(tmp_path / "ledger.sqlite"),
        clock=lambda: 0.0,
        wall_time=lambda: 0.0,
        max_letters_size=10**6,
        queue_name="v2",
    )
    stack.callback(ledger.close)
    relay = Relay(directory, "2", 10**6, clock=lambda: 0.0, free=no_disk)
    source = SpoolSource(reader, relay, ledger, clock=lambda: 0.0, sync_pause=None)
    assert source.level(50.0, 100.0).oldest_at is None
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))
    queue.put(b"{}")
    assert source.read(1, 10).events == [b"{}"]
    (segment,) = (tmp_path / "events-v2").glob("*.segment")
    created = int(segment.name.partition("-")[0]) / 1e9
    level = source.level(50.0, created + 7.0)
    assert (level.free_space, level.free_inodes) == (None, None)
    assert level.oldest_at == pytest.approx(43.0, abs=0.001)
    assert source.level(50.0, created - 7.0).oldest_at == 50.0
    assert level.size == segment.stat().st_size - len(segment.read_bytes().partition(b"\n")[0]) - 1
    assert {reason for reason, count in level.refusals.items() if not count} >= {"full", "too_large"}


def test_what_comes_during_an_outage_is_forced_onto_the_disk(tmp_path: Path, stack: ExitStack) -> None:
    """Also if there is no memory to read it; once nothing waits any more, there is nothing to do."""
    now = 0.0
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    files = NotingFolder(directory)
    ledger = Ledger(
        str(tmp_path / "ledger.sqlite"),
        clock=lambda: now,
        wall_time=lambda: 0.0,
        max_letters_size=10**6,
        queue_name="v2",
    )
    stack.callback(ledger.close)
    reader = SpoolReader(
        files,
        SpoolWatch(files.path, lambda: now),
        event_format="2",
        clock=lambda: now,
        resolved=ledger.resolved,
    )
    stack.callback(reader.close)
    relay = Relay(directory, "2", 10**6, clock=lambda: now)
    source = SpoolSource(reader, relay, ledger, clock=lambda: now, sync_pause=PAUSE)
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))

    queue.put(b"{first}")
    (segment,) = (tmp_path / "events-v2").glob("*.segment")
    run = source.read(10, 10)
    source.enter(EnteredBatch((1, 0), len(run.events), run.spans))
    for event in (b"{second}", b"{third}"):
        queue.put(event)
        assert not source.read(10, 0).events
        assert source.work_at <= now + PAUSE
        now += PAUSE
        source.work(now)
        assert files.synced == segment.stat().st_size
    source.finish((1, 0))
    assert source.read(10, 100).events == [b"{second}", b"{third}"]
    assert not source.read(10, 100).events
    now += PAUSE
    source.work(now)
    assert source.work_at == math.inf


@pytest.mark.parametrize("way", ["outage", "end"])
def test_what_memory_has_no_room_for_or_a_stop_leaves_is_forced_onto_the_disk(
    way: str, tmp_path: Path, stack: ExitStack
) -> None:
    """In a quiet outage without anyone asking again, and at the end without waiting for the pause."""
    now = 0.0
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    files = NotingFolder(directory)
    source = source_of(tmp_path, files, directory, stack, clock=lambda: now, sync_pause=PAUSE)
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))
    assert not source.read(10, 0).events
    if way == "outage":
        now += PAUSE
        source.work(now)
        queue.put(b"{}")
        now += PAUSE
        assert source.work_at <= now
        source.work(now)
    else:
        queue.put(b"{}")
        source.close()
    (segment,) = (tmp_path / "events-v2").glob("*.segment")
    assert files.synced == segment.stat().st_size


def accept(batch: Batch, now: float) -> Outcome:
    """Take every batch."""
    del batch, now
    return Accepted(200)


def test_what_is_relayed_is_handed_on_unless_something_waits_unread(tmp_path: Path, stack: ExitStack) -> None:
    """What memory has no room for is read later, and what is relayed meanwhile goes behind it."""
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    source = source_of(tmp_path, ReaderFolder(directory), directory, stack)
    assert source.relay_events(iter([b"1"]), 1)[1].events == [b"1"]
    assert source.relay_events(iter([b"2"]), 0) == (1, EventRun([], ()))
    assert source.relay_events(iter([b"3"]), 10)[1].events == []
    assert source.read(10, 10).events == [b"2", b"3"]
    assert source.read(10, 10).events == []
    assert source.relay_events(iter([b"4"]), 10)[1].events == [b"4"]
    assert source.read(10, 10).events == []


@given(
    sizes=st.lists(st.sampled_from([1, 100, 3_000, 102_400]), max_size=8),
    memory_left=st.sampled_from([-1, 0, 1, 3_001, 10**6]),
    most=st.sampled_from([1, 200, 6_000, 10**6]),
    syncs=st.booleans(),
)
def test_a_turn_of_the_relay_is_bounded(
    sizes: list[int], memory_left: int, most: int, *, syncs: bool
) -> None:
    """It ends with the event that fills the memory, or that makes it large; the rest stays in the queue."""
    events = [bytes(size) for size in sizes]
    queue = iter(events)
    with fresh_place() as place, contextlib.ExitStack() as stack:
        place.chmod(0o700)
        directory = SpoolDirectory(str(place), "v2", mode=0o600)
        directory.prepare()
        source = source_of(place, ReaderFolder(directory), directory, stack, syncs=syncs)
        with patch.object(spool_source, "BURST_BYTES", most):
            moved, run = source.relay_events(queue, memory_left)
        assert run.events == (events[:moved] if memory_left > 0 else [])
        assert [*source.read(10, 10**7).events, *queue] == events[len(run.events) :]
        assert source.read(10, 10**7).events == []
    bound = min(most, memory_left) if memory_left > 0 else most
    assert sum(sizes[: moved - 1]) < bound or not moved
    assert moved == len(sizes) or sum(sizes[:moved]) >= bound


def test_what_is_relayed_goes_behind_what_an_earlier_run_relayed(tmp_path: Path, stack: ExitStack) -> None:
    """Also if services have written as much meanwhile, which is read in turns with that."""
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    left = [b"%d" % number + bytes(1_000) for number in range(300)]
    with contextlib.ExitStack() as earlier:
        source = source_of(tmp_path, ReaderFolder(directory), directory, earlier)
        assert source.relay_events(iter(left), 0)[0] == len(left)
    source = source_of(tmp_path, ReaderFolder(directory), directory, stack)
    source.recover(Timeline(accept).delivery, 0.0)
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))
    queue.put_many([event_of(1_000)] * len(left))
    handed_out = set[bytes]()
    while source.is_behind:
        handed_out.update(source.read(10, 10**6).events)
    assert handed_out >= set(left)


def test_what_neither_relay_nor_reader_could_sync_is_copied_once(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find out that the disk doesn't keep the same segment."""
    calls = list[int]()

    def fail_twice(fd: int) -> None:
        calls.append(fd)
        if len(calls) <= 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    source = source_of(tmp_path, ReaderFolder(directory), directory, stack, syncs=True)
    monkeypatch.setattr(os, "fdatasync", fail_twice)
    assert source.relay_events(iter([b"{}"]), 10)[1].events == [b"{}"]
    source.work(0.0)
    assert len(calls) >= 2
    segments = (tmp_path / "events-v2").glob("*.segment")
    assert sum(path.read_bytes().count(b"{}") for path in segments) == 2


@final
class FailingFolder(ReaderFolder):
    """A folder whose disk fails to keep the first file that it is asked to keep."""

    def __init__(self, directory: SpoolDirectory) -> None:
        super().__init__(directory)
        self.failed = False

    def sync(self, fd: int) -> None:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


def source_of(
    folder: Path,
    files: ReaderFolder,
    directory: SpoolDirectory,
    stack: ExitStack,
    *,
    clock: Callable[[], float] = lambda: 0.0,
    sync_pause: float = 0.0,
    syncs: bool = False,
) -> SpoolSource:
    """Return the source of a spool."""
    ledger = Ledger(
        str(folder / "ledger.sqlite"),
        clock=clock,
        wall_time=lambda: 0.0,
        max_letters_size=10**6,
        queue_name="v2",
    )
    watch = SpoolWatch(files.path, clock)
    reader = SpoolReader(files, watch, event_format="2", clock=clock, resolved=ledger.resolved)
    relay = Relay(directory, "2", 10**6, clock=clock, syncs=syncs)
    source = SpoolSource(reader, relay, ledger, clock=clock, sync_pause=sync_pause)
    stack.callback(source.close)
    return source


@given(
    sizes=st.lists(st.integers(1, 4), max_size=6),
    rest=st.integers(0, 3),
    finished=st.lists(st.sampled_from([None, "before", "after"]), min_size=6, max_size=6),
)
def test_what_the_disk_did_not_keep_is_written_again(
    sizes: list[int], rest: int, finished: list[str | None]
) -> None:
    """After a failed sync, what has no fate yet is in another file, handed out once, and settled at last."""
    with fresh_place() as place, contextlib.ExitStack() as stack:
        place.chmod(0o700)
        directory = SpoolDirectory(str(place), "v2", mode=0o600)
        directory.prepare()
        source = source_of(place, FailingFolder(directory), directory, stack)
        queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=place, strict_size=True))
        events = [b'{"id":%d}' % number for number in range(sum(sizes) + rest)]
        for event in events:
            queue.put(event)
        batches = [
            EnteredBatch((number, 0), size, source.read(size, 10**6).spans)
            for number, size in enumerate(sizes, 1)
        ]
        for batch in batches:
            source.enter(batch)
        fates = dict(zip([batch.order for batch in batches], finished, strict=False))
        for order in [order for order, fate in fates.items() if fate == "before"]:
            source.finish(order)
        assert source.read(1, 0).events == []  # memory is full
        damaged = set((place / "events-v2").glob("*.segment"))
        source.work(0.0)
        for order in [order for order, fate in fates.items() if fate == "after"]:
            source.finish(order)
        source.ledger.retry()  # as `work` does

        # A power cut takes the damaged file, and all that is known of it.
        copy = place / "copy"
        copy.mkdir(mode=0o700)
        shutil.copytree(place / "events-v2", copy / "events-v2")
        for path in damaged:
            (copy / "events-v2" / path.name).unlink()
        (copy / "events-v2" / "reader.lock").unlink()
        shutil.copy(place / "ledger.sqlite", copy / "ledger.sqlite")
        copied = SpoolDirectory(str(copy), "v2", mode=0o600)
        copied.prepare()
        later = source_of(copy, ReaderFolder(copied), copied, stack)
        left = [
            event
            for number in range(1, len(sizes) + 1)
            if fates[number, 0] is None
            for event in events[sum(sizes[: number - 1]) : sum(sizes[:number])]
        ]
        left += events[sum(sizes) :]
        assert sorted(later.read(100, 10**6).events) == sorted(left)

        run = source.read(100, 10**6)
        assert run.events == events[sum(sizes) :]
        source.resolve(run.spans)
        for order in [order for order, fate in fates.items() if fate is None]:
            source.finish(order)
        assert source.read(100, 10**6).events == []
        source.work(0.0)
        assert source.level(0.0, 0.0).size == 0


def test_what_was_handed_out_can_be_loaded_again(
    tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """As often as wanted, and after a failed sync: what is whole, and None if the folder can't be listed."""
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    source = source_of(tmp_path, FailingFolder(directory), directory, stack)
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))
    queue.put_many([b'{"id":%d}' % number for number in range(4)])
    runs = [source.read(2, 10**6), source.read(2, 10**6)]
    for number, run in enumerate(runs, 1):
        source.enter(EnteredBatch((number, 0), 2, run.spans))
        assert source.load((number, 0)) == run
    source.work(0.0)  # the segment can't be forced onto the disk
    assert [loaded(source, (number, 0)) for number in (1, 2)] == [run.events for run in runs]
    source.finish((1, 0))
    assert loaded(source, (2, 0)) == runs[1].events
    for segment in (tmp_path / "events-v2").glob("*.segment"):
        segment.write_bytes(segment.read_bytes().replace(b'"id":3', b'"id":4'))
    assert loaded(source, (2, 0)) == [b'{"id":2}']
    folder, elsewhere = tmp_path / "events-v2", tmp_path / "elsewhere"
    for segment in folder.glob("*.segment"):
        segment.unlink()
    assert source.read(1, 1).events == []  # which lists the folder
    folder.rename(elsewhere)
    folder.touch()
    for _ in range(2):
        assert source.load((2, 0)) is None, "no one knows what is in a folder that can't be listed"
    assert 1 == sum("failed batch" in message for message in caplog.messages)
    folder.unlink()
    elsewhere.rename(folder)
    assert loaded(source, (2, 0)) == []


def loaded(source: SpoolSource, order: tuple[int, int]) -> list[bytes]:
    """Return the events of a batch that can be read again."""
    run = source.load(order)
    assert run is not None
    return run.events


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    deleted=st.sets(st.integers(0, 3)),
    damaged=st.sets(st.integers(0, 11)),
    moved=st.booleans(),
)
def test_what_is_gone_of_a_batch_ends_and_the_rest_stays(
    sizes: list[int], deleted: set[int], damaged: set[int], moved: bool
) -> None:
    """Whatever was deleted or damaged of it: ledger, reader and the next run know what is left."""
    with fresh_place() as place, contextlib.ExitStack() as stack:
        place.chmod(0o700)
        directory = SpoolDirectory(str(place), "v2", mode=0o600)
        directory.prepare()
        files = FailingFolder(directory) if moved else ReaderFolder(directory)
        source = source_of(place, files, directory, stack)
        events: list[list[bytes]] = []
        for number, size in enumerate(sizes):  # each in a segment of its own
            queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=place, strict_size=True))
            events.append([b'{"id":%02d}' % (3 * number + index) for index in range(size)])
            queue.put_many(events[-1])
        run = source.read(100, 10**6)
        batch = EnteredBatch((1, 0), sum(sizes), run.spans, FaultRecord(failures=1))
        source.enter(batch)
        if moved:
            source.work(0.0)
        lost = {event for number in deleted if number < len(sizes) for event in events[number]}
        lost |= {b'{"id":%02d}' % number for number in damaged}
        for path in (place / "events-v2").glob("*.segment"):
            data = path.read_bytes()
            if any(event in data for number in deleted if number < len(sizes) for event in events[number]):
                path.unlink()
                lost |= {event for event in run.events if event in data}
                continue
            for number in damaged:
                data = data.replace(b'{"id":%02d}' % number, b"{'id':%02d}" % number)
            path.write_bytes(data)
        left = [event for event in run.events if event not in lost]
        assert source.read(1, 1).events == []  # which lists the folder: an open file could still be read
        rest = source.load((1, 0))
        assert rest is not None
        assert rest.events == left
        if len(left) < batch.count:
            source.shrink(EnteredBatch((1, 0), len(left), rest.spans), batch.count - len(left))
        assert [(entered.order, entered.count) for entered in source.ledger.unfinished()] == [
            ((1, 0), len(left))
        ] * bool(left)
        assert source.read(100, 10**6).events == []
        if left:
            assert loaded(source, (1, 0)) == left
            source.finish((1, 0))
        source.work(0.0)
        assert source.level(0.0, 0.0).size == 0


def take_nothing(events: Iterable[bytes]) -> EventRun:
    """Append nothing, as a relay does whose disk is full."""
    del events
    return EventRun([], ())


def test_what_the_disk_neither_kept_nor_takes_goes_next(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of a segment that can't be rewritten are handed on without waiting for any news."""
    directory = SpoolDirectory(str(tmp_path), "v2", mode=0o600)
    directory.prepare()
    source = source_of(tmp_path, FailingFolder(directory), directory, stack)
    queue = stack.enter_context(EventQueue("v2", bytes, spool_directory=tmp_path, strict_size=True))
    queue.put(b"{1}")
    assert source.read(10, 10).events == [b"{1}"]
    assert source.read(10, 10).events == []
    queue.put(b"{2}")
    monkeypatch.setattr(source.relay, "append", take_nothing)
    source.work(0.0)
    assert source.may_be_more
    assert source.read(10, 10).events == [b"{2}"]
