"""Locks that lie, disks that fail, files that vanish, and files that aren't what they should be."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import EventQueueUnavailableError
from baseplate_events.event_publisher.policy.span import Span
from baseplate_events.event_publisher.spool_reader import catalog
from baseplate_events.event_publisher.spool_reader.catalog import NEW_PAUSE, RETRY_PAUSE
from baseplate_events.event_publisher.spool_reader.files import TAKEN
from baseplate_events.spool.format import Encoder, Header
from tests.support.clocks import FakeClock
from tests.support.queues import open_files
from tests.support.spool_directories import names_in, spool_in
from tests.support.spool_publishers import open_spool_reader
from tests.support.spool_scene import Scene

if TYPE_CHECKING:
    from pathlib import Path

    from baseplate_events.event_publisher.spool_reader.reader import SpoolReader

IDENTITY = bytes(range(16))
SEGMENT = f"{1:020d}-{'a' * 16}-{IDENTITY.hex()}.segment"
OURS = Encoder(Header("2", IDENTITY))


def test_what_is_appended_after_deletion_is_delivered(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """If locks lie, a segment may grow after that. From then on, only sealed segments are deleted."""
    writer, other = scene.writer(), scene.writer()
    first = writer.put([b"a"])
    kept = other.put([b"b"])
    assert scene.read_all() == [b"a", b"b"]
    scene.files.lock_lies = True
    scene.reader.resolve([event.span for event in scene.outstanding if event.payload == b"a"])
    child = writer.fork()
    record = child.segment.record(b"late")

    def append_a_part() -> None:
        os.write(child.fd, record[:-1])

    scene.files.after["delete"] = append_a_part
    assert scene.reader.tidy() == [writer.identity]
    assert first not in scene.names()
    assert not scene.reader.status().locks_work
    assert "locks don't work" in caplog.text
    assert caplog.text.count("ERROR") == 1
    assert scene.payloads() == []
    os.write(child.fd, record[-1:])
    os.write(child.fd, child.segment.record(b"later"))
    os.close(child.fd)
    assert scene.payloads() == [b"late", b"later"]
    scene.reader.resolve([event.span for event in scene.outstanding])
    scene.clock.sleep(10)
    assert scene.reader.tidy() == [], "its writer may still have it open"
    assert kept in scene.names()
    other.rotate()
    last = other.put([b"c"])
    scene.note()
    assert scene.payloads() == [b"c"]
    scene.clock.sleep(10)
    assert len(scene.reader.tidy()) == 1
    assert set(scene.names()) == {last, writer.name} & set(scene.names())
    assert kept not in scene.names()
    assert caplog.text.count("ERROR") == 1


def test_what_is_appended_before_the_lock_is_obtained_is_delivered(scene: Scene) -> None:
    """A writer may append an event and end after its segment was read to its end."""
    writer = scene.writer()
    name = writer.put([b"1"])
    child = writer.fork()
    scene.writers.clear()
    del writer
    assert scene.read_all() == [b"1"]
    scene.reader.resolve([event.span for event in scene.outstanding])

    def append_and_end() -> None:
        os.write(child.fd, child.segment.record(b"2"))
        os.close(child.fd)

    scene.files.before["lock"] = append_and_end
    assert scene.reader.tidy() == []
    assert scene.names() == [name]
    assert scene.payloads() == [b"2"]


def test_what_was_read_after_all_was_settled_is_not_deleted(scene: Scene) -> None:
    """A late event gets its fate before its segment is deleted."""
    writer = scene.writer()
    name = writer.put([b"1"])
    (event,) = scene.read()
    scene.reader.resolve([event.span])
    writer.put([b"2"])
    (event,) = scene.read()
    scene.writers.clear()
    del writer
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == []
    assert name in names_in(scene.folder)
    scene.reader.resolve([event.span])
    assert scene.reader.tidy() == [event.span.identity]


def test_a_segment_that_ends_with_another_is_read_to_its_end(scene: Scene) -> None:
    """A child may append and end just before its segment is found closed."""
    writer = scene.writer()
    writer.put([b"1"])
    child = writer.fork()
    writer.rotate()
    writer.put([b"3"])

    def append_and_end() -> None:
        os.write(child.fd, child.segment.record(b"2"))
        os.close(child.fd)

    scene.files.before["lock"] = append_and_end
    assert scene.payloads() == [b"1", b"2", b"3"]


def test_a_record_whose_end_comes_after_deletion_is_delivered(scene: Scene) -> None:
    """If locks lie, a record may be incomplete when its segment is deleted."""
    writer = scene.writer()
    writer.put([b"a"])
    child = writer.fork()
    record = child.segment.record(b"cut")
    os.write(child.fd, record[:10])
    assert scene.read_all() == [b"a"]
    scene.files.lock_lies = True
    scene.reader.resolve([event.span for event in scene.outstanding])
    scene.files.after["delete"] = lambda: os.write(child.fd, record[10:])
    assert scene.reader.tidy() == [writer.identity]
    assert scene.payloads() == [b"cut"]
    os.close(child.fd)


def test_segments_that_locks_said_nothing_about_are_followed_again(scene: Scene) -> None:
    """Once locks are known to lie, earlier results don't count."""
    writer, victim = scene.writer(), scene.writer()
    writer.put([b"a"])
    child = writer.fork()
    writer.rotate()
    writer.put([b"b"])
    victim.put([b"v"])
    scene.files.lock_lies = True
    assert set(scene.read_all()) == {b"a", b"b", b"v"}
    scene.reader.resolve([event.span for event in scene.outstanding if event.payload == b"v"])
    other = victim.fork()
    scene.files.after["delete"] = lambda: os.write(other.fd, other.segment.record(b"w"))
    scene.reader.tidy()
    os.write(child.fd, child.segment.record(b"a2"))
    assert {event.payload for event in scene.read(10, 1000)} == {b"w", b"a2"}
    os.close(child.fd)
    os.close(other.fd)


@given(call=st.sampled_from(["open", "read", "lock", "size"]), attempts=st.integers(1, 4))
def test_a_segment_that_cannot_be_read_is_retried(call: str, attempts: int) -> None:
    """While a segment can't be read, all others are. Nothing is lost."""
    scene = Scene()
    writer, other = scene.writer(), scene.writer()
    bad = writer.put([b"1"])
    writer.rotate()
    writer.put([b"2"])
    other.put([b"3"])
    scene.note()
    scene.files.broken = {call: {bad: errno.EIO}}
    found = scene.payloads()
    scene.reader.status()
    found += scene.payloads()
    expected = {b"2", b"3"} if call in {"open", "read"} else {b"1", b"2", b"3"}
    assert set(found) == expected
    status = scene.reader.status()
    if call in {"open", "read"}:
        assert status.aside == {"unreadable": 1}
    for _ in range(attempts):
        if call == "read":
            before = scene.files.calls["open"]
            scene.clock.sleep(RETRY_PAUSE - 0.001)
            assert scene.payloads() == []
            assert scene.files.calls["open"] == before
            scene.clock.sleep(0.002)
            assert scene.payloads() == []
            assert scene.files.calls["open"] == before + 1
    scene.files.broken = {}
    scene.clock.sleep(RETRY_PAUSE)
    found += scene.payloads()
    assert sorted(found) == [b"1", b"2", b"3"]
    assert not scene.reader.status().aside
    scene.close()


def test_a_deleted_folder_is_recreated_and_read(scene: Scene) -> None:
    """If the folder is deleted, read events are delivered, and open segments are read to their end."""
    writer, other = scene.writer(), scene.writer()
    writer.put([b"1", b"2", b"3"])
    scene.note()
    assert scene.payloads(1) == [b"1"]
    other.put([b"lost"])
    child = writer.fork()
    os.write(child.fd, child.segment.record(b"4"))
    shutil.rmtree(scene.folder)
    assert scene.reader.status()[:3] == (0, 0, None)
    writer.put([b"5"])
    found = scene.payloads()
    assert found == [b"2", b"3", b"4", b"5"]
    status = scene.reader.status()
    assert (status.segments, status.problem) == (1, None)
    assert names_in(scene.folder) == {writer.name, "reader.lock"}
    scene.clock.sleep(10)
    assert scene.payloads() == []
    assert scene.files.open_now == 1, "what is gone is closed in the end"
    os.close(child.fd)


def test_a_segment_that_vanishes_is_forgotten(scene: Scene) -> None:
    """A segment may vanish before it is opened, read, resolved or deleted."""
    writers = [scene.writer() for _ in range(3)]
    for number in range(3):
        writers[number].put([b"%d" % number])
    (scene.folder / writers[0].name).unlink()
    scene.note()
    events = scene.read(10, 1000)
    assert [event.payload for event in events] == [b"1", b"2"]
    (scene.folder / writers[1].name).unlink()
    scene.reader.resolve([event.span for event in events])
    assert scene.reader.load([events[0].span]) in (None, [b"1"])
    assert scene.reader.status().segments == 1
    assert scene.reader.load([events[0].span]) is None
    scene.writers.clear()
    writers.clear()
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == [events[1].span.identity]
    assert scene.reader.identities() == frozenset()


def test_a_segment_that_vanishes_before_it_is_opened_is_forgotten(scene: Scene) -> None:
    """A segment may vanish after it was listed."""
    name = scene.writer().put([b"1"])
    scene.files.before["open"] = (scene.folder / name).unlink
    assert scene.payloads() == []
    assert scene.reader.status().segments == 0
    assert scene.reader.identities() == frozenset()


def test_a_segment_that_vanished_and_cannot_be_read_is_closed(scene: Scene) -> None:
    """A vanished segment isn't set aside."""
    writer = scene.writer()
    name = writer.put([b"1"])
    assert scene.read_all() == [b"1"]
    child = writer.fork()
    (scene.folder / name).unlink()
    os.write(child.fd, child.segment.record(b"2"))
    os.close(child.fd)
    scene.files.broken = {"read": {name: errno.EIO}}
    assert scene.payloads() == []
    assert scene.files.open_now == 0
    assert not scene.reader.status().aside


def test_a_spool_is_opened_by_one_publisher(tmp_path: Path) -> None:
    """A publisher that is refused leaves nothing open."""
    spool = spool_in(tmp_path)
    before = open_files()

    def open_reader() -> SpoolReader:
        return open_spool_reader(spool, event_format="2", clock=FakeClock(), resolved=lambda _: ())

    reader = open_reader()
    during = open_files()
    with pytest.raises(EventQueueUnavailableError) as caught:
        open_reader()
    assert caught.value.args == (spool.path, TAKEN)
    del caught
    assert open_files() <= during
    assert reader.read(1, 1) == ([], ())
    reader.close()
    assert open_files() <= before


def test_a_folder_that_cannot_be_listed_is_reported(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and in the status until it can be listed; known segments are still read."""
    writer = scene.writer()
    writer.put([b"1"])
    scene.read_all()
    scene.files.broken = {"names": {"": errno.EACCES}}
    for _ in range(3):
        scene.clock.sleep(10)
        writer.put([b"2"])
        assert scene.payloads() == [b"2"]
        assert scene.reader.wait_time(1.0) > 0
    assert "Permission denied" in (scene.reader.status().problem or "")
    assert caplog.text.count("Permission denied") == 1
    scene.files.broken = {}
    scene.clock.sleep(10)
    scene.reader.wait_time(1.0)
    assert scene.reader.status().problem is None


def test_a_segment_that_cannot_be_deleted_is_tried_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A segment that can't be deleted isn't delivered again."""
    name = scene.writer().put([b"1"])
    scene.writers.clear()
    scene.files.broken = {"delete": {name: errno.EROFS}}
    assert scene.deliver() == [b"1"]
    assert scene.deliver() == []
    assert scene.names() == [name]
    assert caplog.text.count("can't be deleted (Read-only file system)") == 1
    scene.files.broken = {}
    scene.deliver()
    assert scene.names() == []


def test_a_segment_in_which_no_holes_can_be_punched_is_read_on(scene: Scene) -> None:
    """Without hole punching, space is freed by deletion."""
    writer = scene.writer()
    name = writer.put([b"x" * 200_000])
    scene.files.broken = {"punch": {name: errno.EBADF}}
    assert len(scene.deliver()) == 1
    writer.put([b"y"])
    assert scene.deliver() == [b"y"]
    scene.writers.clear()
    del writer
    scene.deliver()
    assert scene.names() == []


#: What may be in the place of a segment, and for which reason it is set aside.
STRANGE = {
    "newer": (b"event-segment 2 2 x ", "newer"),
    "other format": (Encoder(Header("2j", IDENTITY)).header + b"x", "other_format"),
    "zeros before something": (bytes(4096) + b"x", "unreadable"),
    "text": (b"hello\n", "unreadable"),
    "other identity": (Encoder(Header("2", bytes(16))).header, "unreadable"),
    "damaged": (OURS.header[:-2] + b"x\n", "unreadable"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_segment_is_set_aside(kind: str, scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """An unreadable segment stays, is counted and reported, and others are read."""
    data, reason = STRANGE[kind]
    if kind == "newer":
        data += b"%08x\n" % zlib.crc32(data)
    (scene.folder / SEGMENT).write_bytes(data)
    scene.writer().put([b"1"])
    assert scene.payloads() == [b"1"]
    for _ in range(3):
        scene.clock.sleep(RETRY_PAUSE)
        scene.read(10, 1000)
        scene.reader.tidy()
        status = scene.reader.status()
        assert status.aside == {reason: 1}
        assert status.segments == 1
    assert (scene.folder / SEGMENT).read_bytes() == data
    assert caplog.text.count("was set aside") == 1
    assert scene.reader.load([event.span._replace(identity=IDENTITY) for event in scene.handed[:1]]) in (
        None,
        [],
    )


@pytest.mark.parametrize("event_format", ["2", "2j", "unknown"])
def test_formats_are_distinguished(event_format: str, scene: Scene) -> None:
    """Segments of this publisher's format, and of an unknown one, are read."""
    encoder = Encoder(Header(event_format, IDENTITY))
    (scene.folder / SEGMENT).write_bytes(encoder.header + encoder.encode(b"x"))
    found = scene.payloads()
    assert found == ([] if event_format == "2j" else [b"x"])


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "socket"])
def test_what_is_no_regular_file_is_not_opened(kind: str, scene: Scene) -> None:
    """Links, pipes and folders are neither read nor deleted."""
    outside = scene.folder.parent / "outside"
    outside.write_bytes(OURS.header + OURS.encode(b"secret"))
    for name in (SEGMENT, SEGMENT.replace(".segment", ".new")):
        path = scene.folder / name
        if kind == "symlink":
            path.symlink_to(outside)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        else:
            os.mknod(path, 0o140600)
    scene.writer().put([b"1"])
    for _ in range(3):
        found = scene.payloads()
        assert found in ([b"1"], [])
        scene.clock.sleep(RETRY_PAUSE)
        scene.reader.tidy()
    assert scene.reader.status().aside == {"unreadable": 1}
    assert {SEGMENT, SEGMENT.replace(".segment", ".new")} <= names_in(scene.folder)
    assert outside.exists()


def test_a_copy_of_a_segment_is_set_aside(scene: Scene) -> None:
    """A copy of a segment is set aside, since places of events would be ambiguous."""
    name = scene.writer().put([b"1"])
    shutil.copy(scene.folder / name, scene.folder / name.replace(name[:20], "9" * 20))
    assert scene.payloads() == [b"1"]
    assert scene.reader.status().aside == {"duplicate": 1}
    (scene.folder / name.replace(name[:20], "9" * 20)).unlink()
    assert scene.payloads() == []
    assert not scene.reader.status().aside
    assert scene.reader.status().segments == 1


@given(size=st.integers(0, len(OURS.header) - 1))
def test_a_file_that_ends_within_its_header_has_no_events(size: int) -> None:
    """A file without a header is deleted, since it is torn; a power cut may leave such files."""
    scene = Scene()
    (scene.folder / SEGMENT).write_bytes(OURS.header[:size])
    assert scene.payloads() == []
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == [IDENTITY]
    assert scene.reader.status().torn_bytes == size
    scene.close()


@pytest.mark.parametrize("data", [OURS.header[:30], bytes(4096)], ids=["half a header", "zeros"])
def test_a_segment_without_a_header_that_was_opened_before_is_deleted(data: bytes, scene: Scene) -> None:
    """It isn't read when it is opened for another reason, here a sync, and closed to open others."""
    (scene.folder / SEGMENT).write_bytes(data)
    scene.writer().put([b"1"])
    with patch.object(catalog, "MAX_OPEN", 1):
        assert [] == scene.reader.sync()
        assert [b"1"] == scene.payloads()
        scene.clock.sleep(1.0)
        assert [IDENTITY] == scene.reader.tidy()


@given(size=st.integers(1, 20_000), settled=st.integers(0, 20_000))
def test_a_segment_of_which_nothing_is_on_the_disk_is_deleted(size: int, settled: int) -> None:
    """A power cut may leave its length only, if space in it was freed before its header was on the disk."""
    scene = Scene()
    scene.reader.close()
    with (scene.folder / SEGMENT).open("wb") as file:
        file.truncate(size)
    scene.data[SEGMENT] = b""
    scene.settle([Span(IDENTITY, 0, settled)])
    scene.start()
    assert scene.payloads() == []
    assert not scene.reader.status().aside
    scene.clock.sleep(1.0)
    assert scene.reader.tidy() == [IDENTITY]
    assert scene.names() == []
    assert scene.reader.status().torn_bytes == max(0, size - settled)
    scene.close()


def test_files_that_were_never_published_are_removed(scene: Scene) -> None:
    """Unpublished files are deleted if no process has them open. Unknown files are left alone."""
    new = SEGMENT.replace(".segment", ".new")
    held = new.replace("a" * 16, "b" * 16)
    foreign = {"ledger.sqlite", "x.new", "x.segment", new + "~", SEGMENT.upper(), "probe-1"}
    for name in foreign:
        (scene.folder / name).write_bytes(b"x")
    with scene.directory.open() as opened:
        fd = opened.create(held)
        assert scene.directory.lock(fd)
        os.close(opened.create(new))
    assert scene.payloads() == []
    scene.reader.tidy()
    assert {new, held} < names_in(scene.folder)
    scene.clock.sleep(NEW_PAUSE)
    scene.reader.tidy()
    assert names_in(scene.folder) == foreign | {held, "reader.lock"}
    os.close(fd)
    scene.clock.sleep(NEW_PAUSE)
    scene.reader.tidy()
    assert names_in(scene.folder) == foreign | {"reader.lock"}
    assert scene.reader.status().segments == 0


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"[]",
        b"nonsense",
        b'{"full":-1,"x":true,"y":"1"}',
        b'{"full":9223372036854775809}',
        b"[" * 100_000,
    ],
)
def test_a_report_of_refusals_that_is_wrong_is_ignored(report: bytes, scene: Scene) -> None:
    """A bad report of refusals doesn't stop the reader."""
    name = scene.writer().put([b"1"])
    scene.append(name, scene.format_of(name).record(report, b"R"))
    assert scene.deliver() == [b"1"]
    assert scene.reader.status().refusals == {}


@pytest.mark.parametrize("reason", ["", "a.b", "\\ud800", "a b", "x" * 65])
def test_a_reason_that_cant_be_part_of_a_metric_is_another(reason: str, scene: Scene) -> None:
    """Events of an unknown reason are counted too."""
    name = scene.writer().put([b"1"])
    scene.append(name, scene.format_of(name).record(f'{{"{reason}":2}}'.encode(), b"R"))
    assert scene.deliver() == [b"1"]
    assert scene.reader.status().refusals == {"other": 2}


def test_reasons_of_refusals_are_bounded(scene: Scene) -> None:
    """Further reasons are counted together."""
    name = scene.writer().put([b"1"])
    for number in range(100):
        scene.append(name, scene.format_of(name).record(b'{"reason%d":2}' % number, b"R"))
    scene.deliver()
    refusals = scene.reader.status().refusals
    assert len(refusals) == 33
    assert sum(refusals.values()) == 200


def test_a_place_that_is_impossible_is_not_loaded(scene: Scene) -> None:
    """Places of a damaged ledger don't keep a segment from being read."""
    scene.writer().put([b"1"])
    scene.note()
    name = scene.names()[0]
    span = scene.events(name)[0].span
    for start, end in [(-5, 3), (5, 5), (9, 4), (0, 1 << 60), (1 << 60, (1 << 60) + 20), (0, 40)]:
        assert scene.reader.load([span, span._replace(start=start, end=end)]) is None
    assert scene.reader.load([]) == []
    assert scene.read_all() == [b"1"]


def test_a_place_with_torn_bytes_is_not_loaded(scene: Scene) -> None:
    """A place with a gap isn't loaded, and its events are read as usual."""
    writer = scene.writer()
    name = writer.put([b"1"])
    scene.append(name, b"torn")
    writer.put([b"2", b"3"])
    scene.note()
    first, second, third = (event.span for event in scene.events(name))
    assert scene.reader.load([first._replace(end=third.end)]) is None
    assert scene.reader.load([first._replace(start=first.end, end=second.end)]) is None
    assert scene.reader.load([third, second._replace(end=third.end - 1)]) is None
    assert scene.reader.load([first, second._replace(end=third.end)]) == [b"1", b"2", b"3"]
    assert scene.read_all() == []


def test_a_report_of_refusals_is_not_loaded(scene: Scene) -> None:
    """A place of other records isn't loaded."""
    name = scene.writer().put([b"1"])
    scene.append(name, scene.format_of(name).record(b"{}", b"R"))
    event, report = scene.records(name)
    identity = scene.format_of(name).identity
    assert scene.reader.load([Span(identity, report.start, report.end)]) is None
    assert scene.reader.load([Span(identity, event.start, event.end)]) == [b"1"]


def test_an_event_that_was_changed_is_not_loaded(scene: Scene) -> None:
    """A damaged record isn't loaded."""
    name = scene.writer().put([b"abc"])
    scene.note()
    span = scene.events(name)[0].span
    with (scene.folder / name).open("r+b") as file:
        file.seek(span.end - 1)
        file.write(b"!")
    assert scene.reader.load([span]) is None
