"""Properties of journals: as safe as a file of the segment's own, whatever a crash or a power cut mixes."""

from __future__ import annotations

import errno
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.config.settings import Sync
from baseplate_events.event_publisher.policy.store import StoredBatch
from baseplate_events.event_publisher.spool.segment_format import FRAME_SIZE, LINE_LIMIT, SegmentFormat, frame
from baseplate_events.event_publisher.spool.spool import JOURNALS, WRITTEN_BACK, Spool
from baseplate_events.event_publisher.storage import SpoolError
from tests.support import strategies
from tests.support.simulated_disk import Crashed, SimulatedDisk
from tests.support.spools import HEADER, ROOM, SMALL, append_all, folder_at, recovered, spool_on

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tests.support.simulated_disk import Call

#: Syncs with which there are journals.
lazy_syncs = st.sampled_from([Sync.NEVER, Sync.BATCH])

#: A segment of `{"a":1}` as it was written before there were journals.
EARLIER = b"event-spool 1 2\n" + bytes.fromhex("00000007c4cc67447b2261223a317d")


def journals_of(disk: SimulatedDisk) -> list[str]:
    """Name the journals on a disk."""
    return [name for name in disk.names() if name.startswith("journal-")]


def segments_of(disk: SimulatedDisk) -> list[str]:
    """Name the files that segments have of their own."""
    return [name for name in disk.names() if name.startswith("segment-")]


def fill_journals(spool: Spool) -> list[StoredBatch]:
    """Close segments of an event until the next one has to leave its journal."""
    return list(filter(None, [append_all(spool, [b"kept%d" % number]) for number in range(JOURNALS - 1)]))


@given(sync=lazy_syncs, count=st.integers(1, 50))
def test_what_is_delivered_at_once_costs_no_file(sync: Sync, count: int) -> None:
    """Once there is a journal, segments that are released make, write, close and delete nothing."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync, journal_size=SMALL)
    for _ in range(count):
        segment = append_all(spool, [b"one", b"two"])
        assert segment is not None
        assert (b"one", b"two") == spool.load(segment)
        spool.release(segment.number)
    once: list[Call] = ["create", "write", "map"]
    never: list[Call] = ["delete", "close", "truncate", "cut"]
    assert [1, 1, 1] == [disk.calls[call] for call in once]
    assert [0, 0, 0, 0] == [disk.calls[call] for call in never]
    assert {Sync.NEVER: 0, Sync.BATCH: count}[sync] == disk.calls["sync"]
    assert {Sync.NEVER: 0, Sync.BATCH: 1}[sync] == disk.calls["sync_names"]
    assert SMALL == spool.size == disk.used


@given(sync=lazy_syncs, count=st.integers(0, 20))
def test_segments_that_wait_get_files_of_their_own(sync: Sync, count: int) -> None:
    """However many segments wait, there are few journals, and each file of a segment has one write."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync, journal_size=SMALL)
    segments = [append_all(spool, [b"one", b"two"]) for _ in range(count)]
    assert len(journals_of(disk)) == min(count, JOURNALS)
    assert len(segments_of(disk)) == max(0, count - JOURNALS + 1)
    assert len(disk.names()) == disk.calls["write"]
    for segment in filter(None, segments):
        assert (b"one", b"two") == spool.load(segment)
        spool.release(segment.number)
    assert [] == segments_of(disk)
    spool.close()
    assert ([], 0, 0) == (disk.names(), spool.size, disk.open_handles)


@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=12),
    ends=st.sets(st.integers(0, 12)),
    calls=st.integers(0, 200),
    torn=st.integers(0, 500),
    releases=st.booleans(),
)
def test_a_crash_at_any_point_loses_nothing_and_doubles_nothing(
    sizes: list[int], ends: set[int], calls: int, torn: int, *, releases: bool
) -> None:
    """Wherever the process dies, every event that append returned for comes once, and one more at most."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    appended: list[bytes] = []
    closed: list[tuple[int, int]] = []
    gone = leaving = 0
    disk.crash_after(calls, torn)
    try:
        for number, size in enumerate(sizes):
            event = b"%d:" % number + bytes(size)
            spool.append(event)
            appended.append(event)
            if number in ends:
                segment = spool.close_segment()
                assert segment is not None
                closed.append((segment.number, len(appended)))
                if releases and len(closed) > 1:
                    released, leaving = closed.pop(0)
                    spool.release(released)
                    gone = leaving
    except Crashed:
        pass
    disk.crash()
    found, cut = recovered(disk)
    assert appended[max(gone, leaving) :] == [
        event for event in found if event in appended[max(gone, leaving) :]
    ]
    assert set(found) - set(appended[gone:]) <= {b"%d:" % len(appended) + bytes([*sizes, 0][len(appended)])}
    assert len(found) == len(set(found))
    assert cut <= 1


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    size=st.integers(0, 40),
    random=strategies.chances,
)
def test_no_power_cut_mixes_segments(counts: list[int], size: int, random: Random) -> None:
    """Of whatever pages of whatever moments a journal is left with, it gives the beginning of one segment."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    segments: list[list[bytes]] = []
    for number, count in enumerate(counts):
        segments.append([b"%d.%d:" % (number, place) + bytes(size) for place in range(count)])
        segment = append_all(spool, segments[-1])
        assert segment is not None
        if number + 1 < len(counts):
            spool.release(segment.number)
    disk.cut_power(random)
    spool = spool_on(disk)
    for segment in spool.recover():
        events = list(spool.load(segment))
        assert any(events == whole[: len(events)] for whole in segments)


@given(before=st.lists(st.binary(max_size=30), min_size=1, max_size=4), event=st.binary(max_size=150))
def test_what_was_in_a_journal_is_no_damage(before: list[bytes], event: bytes) -> None:
    """A journal that is used again holds the new events, and nothing that has to be cut off."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    segment = append_all(spool, before)
    assert segment is not None
    spool.release(segment.number)
    assert not any(disk.content("journal-0000000000"))
    spool.append(event)
    assert ([event], 0) == recovered(disk)


@given(events=st.lists(st.binary(max_size=30), min_size=1, max_size=4), random=strategies.chances)
def test_a_batch_that_was_forced_survives_in_its_journal(events: list[bytes], random: Random) -> None:
    """With fsync batch a closed segment survives a power cut, in a journal that was used before too."""
    disk = SimulatedDisk()
    spool = spool_on(disk, Sync.BATCH, journal_size=SMALL)
    first = append_all(spool, [b"before" * 9] * 2)
    assert first is not None
    spool.release(first.number)
    append_all(spool, events)
    spool.append(b"open")
    disk.cut_power(random)
    found, _ = recovered(disk)
    assert events == [event for event in found if event in events][: len(events)]


@pytest.mark.parametrize("call", ["sync", "sync_names"])
@given(random=strategies.chances, goes_on=st.booleans())
def test_a_journal_whose_sync_failed_isnt_believed(call: Call, random: Random, *, goes_on: bool) -> None:
    """After a failed fsync the events are written to another file, and the journal goes."""
    disk = SimulatedDisk()
    spool = spool_on(disk, Sync.BATCH, journal_size=SMALL)
    spool.append(b"one")
    disk.fail(call)
    with pytest.raises(SpoolError):
        spool.close_segment()
    assert spool.size == disk.used
    expected = (b"one", b"two") if goes_on else (b"one",)
    if goes_on:
        spool.append(b"two")
    segment = spool.close_segment()
    assert segment is not None
    assert expected == spool.load(segment)
    assert [] == journals_of(disk)
    assert spool.size == disk.used
    disk.cut_power(random)
    assert set(expected) <= set(recovered(disk)[0])


@given(sync=lazy_syncs, random=strategies.chances)
def test_a_full_disk_doesnt_keep_what_it_has(sync: Sync, random: Random) -> None:
    """Where there is no room for another file, a segment is closed, delivered and released nevertheless."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync, journal_size=SMALL)
    segments = fill_journals(spool)
    spool.append(b"one")
    disk.capacity = disk.used
    last = spool.close_segment()
    assert last is not None
    assert (b"one",) == spool.load(last)
    with pytest.raises(SpoolError, match="No space left"):
        spool.append(b"two")
    spool.release(segments.pop().number)
    spool.append(b"two")
    assert spool.size == disk.used
    if sync is Sync.BATCH:
        spool.close_segment()
        disk.cut_power(random)
    assert {b"one", b"two"} <= set(recovered(disk)[0])


@given(sync=lazy_syncs, emptied_first=st.booleans(), free=st.integers(0, 40))
def test_empty_journals_make_room_on_a_full_disk(sync: Sync, free: int, *, emptied_first: bool) -> None:
    """A journal whose events are delivered keeps no room from an event that the disk has none for."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync, journal_size=SMALL)
    kept, waits = append_all(spool, [b"kept"]), append_all(spool, [b"waits"])
    assert kept is not None
    assert waits is not None
    if emptied_first:
        spool.release(kept.number)
    disk.capacity = disk.used + free
    large = bytes(SMALL)
    with pytest.raises(SpoolError, match="No space left"):
        spool.append(large + bytes(free))
    if not emptied_first:
        spool.release(kept.number)
    spool.append(large[:100])
    assert spool.size == disk.used
    assert {b"waits", large[:100]} == set(recovered(disk)[0])


@given(event=st.binary(max_size=3 * SMALL), behind=st.binary(max_size=3 * SMALL), sync=lazy_syncs)
def test_what_doesnt_fit_goes_on_in_a_file(event: bytes, behind: bytes, sync: Sync) -> None:
    """Events of any size follow those in a journal, and the segment stays one."""
    disk = SimulatedDisk()
    spool = spool_on(disk, sync, journal_size=SMALL)
    events = [b"first", event, behind, b"last"]
    for number, each in enumerate(events):
        spool.append(each)
        assert (events[: number + 1], 0) == recovered_beside(disk)
    segment = spool.close_segment()
    assert segment is not None
    assert tuple(events) == spool.load(segment)
    assert spool.size == disk.used


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_a_journal_is_filled_to_the_byte(excess: int) -> None:
    """An event stays in the journal if it fits, and not if it is a byte larger."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    spool.append(b"one")
    room = SMALL - len(SegmentFormat("2").line(1)) - FRAME_SIZE - len(b"one") - FRAME_SIZE
    spool.append(bytes(room + excess))
    assert (excess > 0) == bool(segments_of(disk))
    assert ([b"one", bytes(room + excess)], 0) == recovered(disk)


@given(number=st.integers(0, 10**200))
def test_a_number_that_is_taken_lets_journals_go_on(number: int) -> None:
    """However large the number of a file is that somebody left, new segments come behind it and are found."""
    disk = SimulatedDisk()
    line = SegmentFormat("2").line(number)
    old = line + frame(b"old", zlib.crc32(line))
    disk.put(f"segment-{number:010d}", old if len(line) <= LINE_LIMIT else EARLIER)
    disk.put("journal-0000000000", b"")
    spool = spool_on(disk, journal_size=SMALL)
    assert [number] == [segment.number for segment in spool.recover()]
    segment = append_all(spool, [b"new"])
    assert segment is not None
    assert number < segment.number
    assert b"new" == recovered(disk)[0][-1]


def test_a_journal_tells_which_number_is_next() -> None:
    """A journal that was used again and again has a segment of a larger number than its own."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    for _ in range(5):
        segment = append_all(spool, [b"old"])
        assert segment is not None
        spool.release(segment.number)
    spool.append(b"last")
    disk.crash()
    spool = spool_on(disk, journal_size=SMALL)
    (last,) = spool.recover()
    segment = append_all(spool, [b"new"])
    assert segment is not None
    assert last.number < segment.number
    assert ([b"last", b"new"], 0) == recovered(disk)


def recovered_beside(disk: SimulatedDisk) -> tuple[list[bytes], int]:
    """Tell what a publisher would find if this one died now, without touching anything."""
    copy = SimulatedDisk()
    for name in disk.names():
        copy.put(name, disk.content(name))
    return recovered(copy)


def test_an_event_that_cant_be_moved_leaves_the_others_where_they_are() -> None:
    """If the disk doesn't take the file, those before the event stay in the journal and can be closed."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    spool.append(b"one")
    disk.capacity = disk.used
    with pytest.raises(SpoolError, match="No space left"):
        spool.append(bytes(SMALL))
    spool.append(b"two")
    segment = spool.close_segment()
    assert segment is not None
    assert (b"one", b"two") == spool.load(segment)
    assert ([b"one", b"two"], 0) == recovered(disk)


@given(seconds=st.floats(0, 3 * WRITTEN_BACK), random=strategies.chances, spills=st.booleans())
def test_what_may_be_on_the_disk_stays_there(seconds: float, random: Random, *, spills: bool) -> None:
    """A segment that was in its journal for long is forced onto the disk when it is moved, but no other."""
    now = 0.0
    disk = SimulatedDisk()
    spool = Spool(
        disk,
        "",
        version="2",
        max_size=ROOM,
        sync=Sync.NEVER,
        journal_size=SMALL,
        clock=lambda: now,
    )
    fill_journals(spool)
    spool.append(b"one")
    now = seconds
    if spills:
        spool.append(bytes(SMALL))
    else:
        spool.close_segment()
    assert (seconds >= WRITTEN_BACK) == disk.calls["sync"]
    if seconds >= WRITTEN_BACK:
        disk.cut_power(random)
        assert b"one" in recovered(disk)[0]


@given(count=st.integers(0, 4), moved=st.integers(0, 4), tail=st.integers(0, 11))
def test_the_journal_or_the_file_whichever_has_more(count: int, moved: int, tail: int) -> None:
    """A crash while a segment is moved leaves both; its events come once, all of them."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    events = [b"%d" % number for number in range(4)]
    for event in events:
        spool.append(event)
    (journal,) = journals_of(disk)
    ends = [len(SegmentFormat("2").line(1)) + number * (FRAME_SIZE + 1) for number in range(5)]
    content = disk.content(journal)
    disk.put(journal, content[: ends[count]] + bytes(SMALL - ends[count]))
    disk.put("segment-0000000001", content[: min(ends[4], ends[moved] + tail)])
    found, _ = recovered(disk)
    assert events[: max(count, moved, min(4, moved + tail // (FRAME_SIZE + 1)))] == found


@pytest.mark.parametrize("sync", Sync)
def test_a_spool_from_before_the_journals_is_delivered(sync: Sync) -> None:
    """Segments in the format without numbers come first, and new ones behind them."""
    disk = SimulatedDisk()
    disk.put("segment-0000000007", EARLIER)
    spool = spool_on(disk, sync, journal_size=SMALL)
    assert [(b'{"a":1}',)] == [spool.load(segment) for segment in spool.recover()]
    append_all(spool, [b"new"])
    assert ([b'{"a":1}', b"new"], 0) == recovered(disk)


@given(position=st.integers(0, 30), byte=st.integers(0, 255))
def test_a_damaged_line_of_a_moved_segment_costs_nothing(position: int, byte: int) -> None:
    """The number of a segment in its own file is in the name too, so its first line isn't needed."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    fill_journals(spool)
    append_all(spool, [b"one", b"two"])
    (name,) = segments_of(disk)
    content = bytearray(disk.content(name))
    content[position % len(SegmentFormat("2").line(7))] = byte
    disk.put(name, bytes(content))
    assert [b"one", b"two"] == recovered(disk)[0][-2:]


@given(events=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), data=st.data())
def test_damage_in_a_journal_is_cut_off_and_counted(events: list[bytes], data: st.DataObject) -> None:
    """Events before the damage come, those behind it don't, and the cut is seen."""
    disk = SimulatedDisk()
    spool = spool_on(disk, journal_size=SMALL)
    for event in events:
        spool.append(event)
    (name,) = journals_of(disk)
    content = bytearray(disk.content(name))
    ends = [len(SegmentFormat("2").line(1))]
    for event in events:
        ends.append(ends[-1] + FRAME_SIZE + len(event))
    position = data.draw(st.integers(ends[0], ends[-1] - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    disk.put(name, bytes(content))
    whole = sum(end <= position for end in ends[1:])
    assert (events[:whole], 1) == recovered(disk)


@pytest.mark.parametrize("beginning", [b"", b"\0", b"event-spool 2 2 1", b"event-spool 2 2 17\n", b"event-"])
def test_a_journal_without_events_is_deleted(beginning: bytes) -> None:
    """A journal that was just made, emptied or torn is no segment, and no reason not to start."""
    disk = SimulatedDisk()
    disk.put("journal-0000000003", beginning + bytes(50) * bool(beginning))
    spool = spool_on(disk)
    assert [] == spool.recover()
    assert ([], 0) == (disk.names(), spool.size)
    assert append_all(spool, [b"one"]) == StoredBatch(4, 1, 3, len(HEADER) + FRAME_SIZE + 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"what is this?\n", "isn't a segment"),
        (b"event-spool 3 2\n", "another format"),
        (b"event-spool 2 2j 1\n", r"another collector\.version"),
    ],
)
def test_a_journal_of_others_is_refused_by_name(data: bytes, words: str) -> None:
    """What looks like a journal by its name only, or is of another version, stops the start and stays."""
    disk = SimulatedDisk()
    disk.put("journal-0000000000", data)
    with pytest.raises(SpoolError, match=f"journal-0000000000: .*{words}"):
        spool_on(disk).recover()
    assert data == disk.content("journal-0000000000")


@given(counts=st.lists(st.integers(0, 3), max_size=6), sync=lazy_syncs)
def test_starts_without_end_take_no_room(counts: list[int], sync: Sync) -> None:
    """However often a publisher dies, a journal takes no more than its events afterwards."""
    disk = SimulatedDisk()
    expected: list[bytes] = []
    for count in counts:
        spool = spool_on(disk, sync, journal_size=SMALL)
        segments = spool.recover()
        assert spool.size == disk.used == sum(segment.size for segment in segments)
        for _ in range(count):
            expected.append(b"%d" % len(expected))
            spool.append(expected[-1])
        disk.crash()
    assert (expected, 0) == recovered(disk)


def test_a_disk_that_is_read_only_gives_what_is_in_a_journal() -> None:
    """A journal that can't be cut to its length is delivered as it is."""
    disk = SimulatedDisk()
    spool_on(disk, journal_size=SMALL).append(b"one")
    disk.crash()
    disk.read_only = True
    spool = spool_on(disk, journal_size=SMALL)
    (segment,) = spool.recover()
    assert (b"one",) == spool.load(segment)
    spool.release(segment.number)
    assert SMALL == spool.size == disk.used


@given(
    extra=st.integers(0, SMALL),
    sizes=st.lists(st.integers(0, 120) | st.integers(0, 2 * SMALL), min_size=20, max_size=60),
    often=st.integers(2, 9),
)
def test_journals_keep_the_limit(extra: int, sizes: list[int], often: int) -> None:
    """Who asks before each event never exceeds `max_size`; room that empty journals take can be had."""
    max_size = 4 * JOURNALS * SMALL + extra
    disk = SimulatedDisk()
    spool = spool_on(disk, max_size=max_size, journal_size=SMALL)
    segments: list[StoredBatch] = []
    for size in sizes:
        if spool.has_room(size):
            journals = journals_of(disk)
            spool.append(bytes(size))
            made = set(journals_of(disk)).difference(journals)
            assert not made or spool.has_room(SMALL), "a journal is made where it can be filled"
        assert spool.size == disk.used <= max_size
        if size % often == 0:
            segments += filter(None, [spool.close_segment()])
        assert spool.size == disk.used <= max_size
    segments += filter(None, [spool.close_segment()])
    for segment in segments:
        spool.release(segment.number)
    largest = max_size - len(HEADER) - FRAME_SIZE
    assert spool.has_room(largest)
    assert 0 == spool.size == disk.used
    spool.append(bytes(largest))
    assert max_size == spool.size == disk.used


@given(slack=st.integers(0, SMALL))
def test_room_is_kept_for_what_is_in_a_journal(slack: int) -> None:
    """An event that there is room for stays within `max_size` with those that it sends to a file."""
    max_size = 4 * JOURNALS * SMALL + slack
    disk = SimulatedDisk()
    spool = spool_on(disk, max_size=max_size, journal_size=SMALL)
    while spool.size + 2 * SMALL + 60 <= max_size:
        append_all(spool, [bytes(10)])
    spool.append(bytes(200))
    largest = max(size for size in range(max_size) if spool.has_room(size))
    spool.append(bytes(largest))
    assert spool.size == disk.used <= max_size


@pytest.mark.parametrize("trouble", ["maps", "small", "event", "map", "create"])
def test_where_no_journal_can_be_had(trouble: str) -> None:
    """Without journals each event is a write to the segment's own file, as it is in the table of losses."""
    disk = SimulatedDisk()
    disk.maps = trouble != "maps"
    if trouble == "map":
        disk.fail("map", errno.ENODEV)
    if trouble == "create":
        disk.fail("create", errno.EMFILE)
    spool = spool_on(
        disk,
        Sync.EVENT if trouble == "event" else Sync.NEVER,
        max_size=4 * JOURNALS * SMALL - (trouble == "small"),
        journal_size=SMALL,
    )
    for number in range(3):
        spool.append(b"%d" % number)
        assert spool.size == disk.used
    assert [] == journals_of(disk)
    assert 0 == disk.calls["copy"]
    assert ([b"0", b"1", b"2"], 0) == recovered(disk)
    assert 1 == disk.open_handles


def test_a_stop_leaves_no_empty_journal(tmp_path: Path) -> None:
    """A spool that is closed has files of events only, each as long as what is in it."""
    place = tmp_path / "spool"
    with folder_at(place) as folder:
        spool = spool_on(folder, journal_size=SMALL)
        first = append_all(spool, [b"one"])
        assert first is not None
        append_all(spool, [b"two"])
        spool.append(b"three")
        spool.release(first.number)
        spool.close()
        assert set() == folder.handles
        assert sorted(len(SegmentFormat("2").line(1)) + FRAME_SIZE + size for size in (3, 5)) == sorted(
            path.stat().st_size for path in place.iterdir()
        )
        assert ([b"two", b"three"], 0) == recovered(folder)
        assert 0o600 == max(path.stat().st_mode & 0o777 for path in place.iterdir())
