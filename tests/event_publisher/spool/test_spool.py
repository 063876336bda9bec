"""Properties of the spool: what was appended comes back, whatever happens to process, disk and power."""

from __future__ import annotations

import errno
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.spool.segment_format import FRAME_SIZE, SegmentFormat
from baseplate_events.event_publisher.spool.spool import JOURNALS, Spool
from baseplate_events.event_publisher.storage import SpoolError
from tests.support import strategies
from tests.support.machines import check_machine
from tests.support.simulated_disk import CALLS, Call, Crashed, SimulatedDisk
from tests.support.spools import (
    FIRST,
    HEADER,
    NONE,
    ROOM,
    SMALL,
    TrackedFolder,
    append_all,
    recovered,
    spool_on,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from baseplate_events.event_publisher.policy.store import StoredBatch


def is_within(part: list[bytes], whole: list[bytes]) -> bool:
    """Whether all of a list is in another, in that order."""
    rest = iter(whole)
    return all(event in rest for event in part)


class SpoolMachine(RuleBasedStateMachine):
    """What happens to any spool, against lists of events; each event is another one."""

    spool: Spool

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []
        self.open: list[bytes] = []
        self.closed: dict[StoredBatch, list[bytes]] = {}
        self.settled: set[bytes] = set()
        self.durable: set[bytes] = set()
        self.healthy = True  # nothing is wrong with the disk
        self.exact = True  # and nothing was since the start of this process
        self.in_flight: set[bytes] = set()  # events that a crash may have left or not

    @initialize(sync=strategies.syncs, journal_size=st.sampled_from([NONE, SMALL, 4 * SMALL]))
    def start(self, sync: Sync, journal_size: int) -> None:
        self.sync = sync
        self.journal_size = journal_size
        self.make_disk()
        self.spool = self.make_spool()
        assert [] == self.spool.recover()

    def make_disk(self) -> None:
        raise NotImplementedError

    def make_spool(self) -> Spool:
        raise NotImplementedError

    def end_process(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        """Mend the disk."""

    @property
    def used(self) -> int:
        raise NotImplementedError

    def attempt(self, act: Callable[[], None]) -> bool:
        """Do something that the disk may prevent; tell whether it was done."""
        try:
            act()
        except SpoolError:
            assert not self.healthy, "a disk that is well takes everything"
            return False
        except Crashed:
            self.restart()
            return False
        return True

    @rule(filler=strategies.spooled_events)
    def append(self, filler: bytes) -> None:
        event = b"%d:%b" % (len(self.given), filler)
        self.given.append(event)
        self.in_flight.add(event)
        if self.attempt(lambda: self.spool.append(event)):
            self.open.append(event)
            if self.sync is Sync.EVENT:
                self.durable.add(event)
        self.in_flight.discard(event)

    @rule()
    def close(self) -> None:
        def act() -> None:
            segment = self.spool.close_segment()
            assert (segment is not None) == bool(self.open)
            if segment is not None:
                assert segment.count == len(self.open)
                assert segment.events_size == sum(map(len, self.open))
                lines = {len(HEADER), len(SegmentFormat("2").line(segment.number))}
                assert segment.size - segment.count * FRAME_SIZE - segment.events_size in lines
                self.closed[segment], self.open = self.open, []
                if self.sync is Sync.BATCH:
                    self.durable.update(self.closed[segment])

        self.attempt(act)

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(sorted(self.closed, key=lambda segment: segment.number)))
        expected = tuple(self.closed[segment])
        loaded: list[tuple[bytes, ...]] = []
        if self.attempt(lambda: loaded.append(self.spool.load(segment))):
            assert [expected] == loaded

    @precondition(lambda self: self.closed)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        segment = data.draw(st.sampled_from(sorted(self.closed, key=lambda segment: segment.number)))
        events = self.closed.pop(segment)
        self.settled.update(events)
        self.in_flight.update(events)
        self.attempt(lambda: self.spool.release(segment.number))
        self.in_flight.difference_update(events)

    @rule(excess=st.integers(0, 1))
    def ask_for_room(self, excess: int) -> None:
        rest = ROOM - self.spool.size - len(HEADER) - FRAME_SIZE + excess
        answers: list[bool] = []
        self.in_flight.update(self.settled)  # what couldn't be deleted may be now
        if self.attempt(lambda: answers.append(self.spool.has_room(rest))):
            free = ROOM - rest - len(HEADER) - FRAME_SIZE - self.spool.size
            assert free >= 0 or not answers[0]
            # What is in a journal may get a file of its own, for which room is kept.
            assert free < (self.journal_size if self.journal_size != NONE and self.open else 0) or answers[0]
        self.in_flight.difference_update(self.settled)

    @rule()
    def stop(self) -> None:
        if self.attempt(self.spool.close):
            self.restart()

    @rule()
    def crash(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin with what the process left behind."""
        self.end_process()
        expected = [event for events in self.closed.values() for event in events] + self.open
        cut_before = self.spool.cut
        found = self.recover()
        if self.exact:
            assert expected == [event for event in found if event not in self.in_flight]
            assert self.spool.cut <= cut_before + 1, "at most what was under way, now and in the runs before"
        unsettled = [event for event in expected if event not in self.settled]
        assert is_within(unsettled, found), "nothing is lost with the process"
        self.exact = self.healthy

    def recover(self) -> list[bytes]:
        segments: list[StoredBatch] = []
        found: list[tuple[StoredBatch, list[bytes]]] = []

        def act() -> None:
            segments[:] = self.spool.recover()
            found[:] = [(segment, list(self.spool.load(segment))) for segment in segments]

        while not self.attempt_to_start(act):
            pass
        assert segments == sorted(segments, key=lambda segment: segment.number)
        for segment, events in found:
            assert (segment.count, segment.events_size) == (len(events), sum(map(len, events)))
            assert set(events) <= set(self.given), "nothing comes that wasn't appended"
        self.closed, self.open = dict(found), []
        return [event for _, events in found for event in events]

    def attempt_to_start(self, act: Callable[[], None]) -> bool:
        self.spool = self.make_spool()
        try:
            act()
        except SpoolError:
            assert not self.healthy
            self.heal()
            return False
        except Crashed:
            self.end_process()
            return False
        return True

    @invariant()
    def size_is_what_the_files_take(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert self.used == self.spool.size


class SimulatedSpoolMachine(SpoolMachine):
    """The same with every fault that a disk can have, crashes in the midst of things, and power cuts."""

    def make_disk(self) -> None:
        self.disk = SimulatedDisk()

    def make_spool(self) -> Spool:
        return spool_on(self.disk, self.sync, journal_size=self.journal_size)

    def end_process(self) -> None:
        self.disk.crash()

    @property
    def used(self) -> int:
        return self.disk.used

    def spoil(self) -> None:
        self.healthy = self.exact = False

    @rule(
        call=st.sampled_from(CALLS),
        times=st.integers(1, 3),
        number=st.sampled_from([errno.EIO, errno.EDQUOT]),
    )
    def fail(self, call: Call, times: int, number: int) -> None:
        self.spoil()
        self.disk.fail(call, number, times)

    @rule(free=st.integers(0, 100))
    def fill(self, free: int) -> None:
        self.spoil()
        self.disk.capacity = self.disk.used + free

    @rule()
    def make_read_only(self) -> None:
        self.spoil()
        self.disk.read_only = True

    @rule(size=st.integers(1, 50))
    def shorten(self, size: int) -> None:
        self.disk.shorten(size)

    @rule(calls=st.integers(0, 5), torn=st.integers(0, 60))
    def crash_soon(self, calls: int, torn: int) -> None:
        self.disk.crash_after(calls, torn)

    @rule()
    def heal(self) -> None:
        self.disk.heal()
        self.healthy = True

    @rule(random=strategies.chances)
    def cut_power(self, random: Random) -> None:
        appended = [event for events in self.closed.values() for event in events] + self.open
        promised = [event for event in appended if event in self.durable - self.settled]
        self.disk.cut_power(random)
        found = self.recover()
        assert is_within(promised, found), "nothing is lost that was forced onto the disk"
        self.durable.update(found)
        self.settled.difference_update(found)
        self.exact = self.healthy

    @invariant()
    def few_files_are_open(self) -> None:
        if hasattr(self, "disk"):
            assert self.disk.open_handles <= (1 if self.journal_size == NONE else 2 + JOURNALS)


class FolderSpoolMachine(SpoolMachine):
    """The same on a real disk, without faults and power cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    def make_disk(self) -> None:
        self.folder = TrackedFolder(f"{self.directory.name}/spool")

    def make_spool(self) -> Spool:
        return spool_on(self.folder, self.sync, journal_size=self.journal_size)

    def end_process(self) -> None:
        self.folder.crash()
        self.make_disk()

    @property
    def used(self) -> int:
        return self.folder.used

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.crash()
        self.directory.cleanup()


def test_spool_on_a_disk_that_fails() -> None:
    """Whatever fails, crashes or loses power when: nothing is lost beyond the window, nothing made up."""
    check_machine(SimulatedSpoolMachine, examples=200)


def test_spool_on_a_real_disk() -> None:
    """A real folder behaves as the simulated one."""
    check_machine(FolderSpoolMachine, steps=25, examples=30)


@given(sync=strategies.syncs, count=st.integers(1, 20))
def test_what_an_append_costs(sync: Sync, count: int) -> None:
    """An event is one write; fsync is called for each event, for each segment, or not at all."""
    disk = SimulatedDisk()
    append_all(spool_on(disk, sync), [b"event"] * count)
    syncs = {Sync.NEVER: 0, Sync.BATCH: 1, Sync.EVENT: count}[sync]
    assert count == disk.calls["write"]
    assert syncs == disk.calls["sync"]
    assert min(syncs, 1) == disk.calls["sync_names"]
    assert 1 == disk.calls["create"] == disk.calls["close"]
    assert 0 == disk.calls["truncate"] == disk.calls["read"]


@given(sizes=st.lists(st.integers(0, 200), max_size=20), max_size=st.integers(0, 2_000))
def test_has_room_keeps_the_limit(sizes: list[int], max_size: int) -> None:
    """Who asks before each event never exceeds `max_size`, and gets room again by releasing."""
    disk = SimulatedDisk()
    spool = spool_on(disk, max_size=max_size)
    segments: list[StoredBatch] = []
    for size in sizes:
        if spool.has_room(size):
            spool.append(bytes(size))
            segments += filter(None, [spool.close_segment()]) if size % 3 == 0 else []
        assert spool.size == disk.used <= max(max_size, 0)
    segments += filter(None, [spool.close_segment()])
    for segment in segments:
        spool.release(segment.number)
    assert 0 == spool.size == disk.used


def test_a_full_disk_keeps_what_it_has() -> None:
    """At the end of the disk the event is refused and all others stay whole; with room it goes on."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    spool.append(b"one")
    disk.capacity = disk.used + FRAME_SIZE + 2
    for _ in range(3):
        with pytest.raises(SpoolError, match="No space left"):
            spool.append(b"two")
        assert len(HEADER) + FRAME_SIZE + 3 == spool.size == disk.used
    disk.capacity = None
    spool.append(b"three")
    assert ([b"one", b"three"], 0) == recovered(disk)
    assert 1 == disk.calls["create"]


def test_nothing_lands_behind_a_torn_frame() -> None:
    """If what a failed write left can't be cut off, the events go to another file and come once."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    spool.append(b"one")
    disk.capacity = disk.used + FRAME_SIZE + 2
    disk.fail("truncate")
    with pytest.raises(SpoolError):
        spool.append(b"two")
    assert spool.size == disk.used
    assert ([b"one"], 1) == recovered(disk)
    disk.heal()
    spool.append(b"three")
    assert ["segment-0000000001"] == disk.names()
    assert ([b"one", b"three"], 0) == recovered(disk)


@pytest.mark.parametrize("call", ["sync", "sync_names"])
@pytest.mark.parametrize("sync", [Sync.BATCH, Sync.EVENT])
@given(random=strategies.chances)
def test_a_failed_sync_isnt_believed_later(sync: Sync, call: Call, random: Random) -> None:
    """After a failed fsync the events are written anew, so that they survive a power cut nevertheless."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync)
    disk.fail(call)
    with pytest.raises(SpoolError):
        append_all(spool, [b"one"])
    if sync is Sync.EVENT:
        spool.append(b"one")
    assert spool.close_segment() is not None
    disk.cut_power(random)
    assert b"one" in recovered(disk)[0]


@given(random=strategies.chances, truncates=st.booleans())
def test_an_event_that_wasnt_forced_spoils_its_file(random: Random, *, truncates: bool) -> None:
    """If fsync fails in mid-segment, what was forced before and what comes after survive a power cut."""
    disk = SimulatedDisk()
    spool = spool_on(disk, Sync.EVENT)
    spool.append(b"one")
    disk.fail("sync")
    disk.fail("truncate", times=0 if truncates else 1)
    with pytest.raises(SpoolError):
        spool.append(b"two")
    assert spool.size == disk.used
    spool.append(b"two")
    assert spool.size == disk.used
    disk.cut_power(random)
    assert is_within([b"one", b"two"], recovered(disk)[0])


def test_a_segment_that_vanished_is_cut_once() -> None:
    """A file that somebody deleted or damaged gives what is left of it, and is counted once."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    segment = append_all(spool, [b"one", b"two"])
    assert segment is not None
    disk.put(FIRST, disk.content(FIRST)[:-1])
    assert ((b"one",), 1) == (spool.load(segment), spool.cut)
    disk.put(FIRST, disk.content(FIRST) + b"." + SegmentFormat("2").frame(b"three"))
    assert ((b"one",), 1) == (spool.load(segment), spool.cut)
    disk.remove(FIRST)
    assert ((), 1) == (spool.load(segment), spool.cut)
    spool.release(segment.number)
    assert 0 == spool.size


def test_a_segment_has_no_more_events_than_it_had() -> None:
    """Events that somebody added to a closed segment aren't given: nobody accounted for them."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    segment = append_all(spool, [b"one"])
    assert segment is not None
    disk.put(FIRST, disk.content(FIRST) + SegmentFormat("2").frame(b"two"))
    assert (b"one",) == spool.load(segment)


def test_closing_never_raises() -> None:
    """A disk that fails at the end doesn't keep a publisher from ending; what it took is there."""
    disk = SimulatedDisk()
    spool = spool_on(disk, Sync.BATCH)
    spool.append(b"one")
    disk.fail("sync", times=9)
    disk.fail("close", times=9)
    spool.close()
    spool.close()
    disk.heal()
    assert ([b"one"], 0) == recovered(disk)


def test_errors_hold_no_event() -> None:
    """What the spool says names the file and the trouble, never what users did."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    disk.read_only = True
    with pytest.raises(SpoolError) as refused:
        spool.append(b"secret event")
    disk.put(FIRST, b"secret event")
    with pytest.raises(SpoolError) as foreign:
        spool.recover()
    for error in (refused.value, foreign.value):
        assert "secret" not in f"{error}{error!r}{error.__cause__!r}"
    assert "secret" not in repr(spool)
