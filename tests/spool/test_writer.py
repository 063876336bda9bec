"""The writer starts, fills and ends segments, and refuses what has no place."""

from __future__ import annotations

import errno
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.errors import (
    EventQueueFullError,
    EventQueuePermissionError,
    EventQueueUnavailableError,
)
from baseplate_events.spool import writer as writer_module
from baseplate_events.spool.format import EVENT, REFUSALS, Header
from baseplate_events.spool.segment import MAX_AGE, NotAppendedError
from baseplate_events.spool.writer import FULL_PAUSE, MIN_SEGMENT_SIZE, SEGMENTS, UNAVAILABLE_PAUSE
from tests.support.spool_model.alone import Alone, records_of

if TYPE_CHECKING:
    from baseplate_events.spool.segment import FileStatus
    from baseplate_events.spool.writer import SpoolWriter

#: Errors for which room is the remedy, with a word of it; and others.
NO_ROOM = {
    errno.ENOSPC: "free some",
    errno.EDQUOT: "quota",
    errno.EFBIG: "ulimit -f",
    errno.EROFS: "mount it writable",
}
OTHERS = {errno.EMFILE: "ulimit -n", errno.ENFILE: "fs.file-max", errno.EIO: "Input/output error"}

#: Calls that start a segment; `status` belongs to its making.
CALLS = ("open", "used", "create", "lock", "write", "status", "publish")

#: An event after which a segment isn't too small to end by its age.
FIRST = b"f" * (MIN_SEGMENT_SIZE // 8)


def payloads(alone: Alone) -> list[bytes]:
    """Return the events in the spool, in order."""
    return [payload for kind, payload in alone.records() if kind == EVENT]


def refused(writer: SpoolWriter) -> EventQueueFullError | EventQueueUnavailableError:
    """Return the error of an event that is refused."""
    try:
        writer.append([b"refused"])
    except (EventQueueFullError, EventQueueUnavailableError) as error:
        return error
    pytest.fail("it wasn't refused")


@given(
    st.lists(
        st.lists(st.binary(min_size=1, max_size=MIN_SEGMENT_SIZE // 3), min_size=1, max_size=6), max_size=6
    )
)
def test_all_events_are_there_in_order(calls: list[list[bytes]]) -> None:
    """All events are in the spool, however they are put; segments keep their limit."""
    alone = Alone()
    writer = alone.writer(2**30)
    for messages in calls:
        writer.append(messages)
    assert payloads(alone) == [message for messages in calls for message in messages]
    assert all(re.fullmatch(r"\d{20}-[0-9a-f]{16}-[0-9a-f]{32}\.segment", name) for name in alone.names)
    assert all(len(inode.data) <= 2**30 // SEGMENTS for inode in alone.files())
    assert len(alone.process.descriptors) == (1 if calls else 0)


def test_a_segment_says_what_it_is() -> None:
    """The header of a segment has the event format, and the identity in its name."""
    alone = Alone()
    alone.writer().append([b"event"])
    header = Header.decode(bytes(alone.files()[0].data))
    assert header is not None
    assert header.event_format == "2"
    assert alone.names[0].endswith(f"-{header.identity.hex()}.segment")


def test_it_is_locked_before_it_has_its_name() -> None:
    """A segment is started in the order of the rules; each further event is one `write`."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"event"])
    assert alone.directory.calls == ["open", "used", "create", "lock", "write", "status", "publish"]
    alone.directory.calls.clear()
    writer.append([b"another", b"and one more"])
    assert alone.directory.calls == ["status", "write"]
    (inode,) = alone.files()
    assert [description.lock for description in inode.locked] == ["shared"]


@pytest.mark.parametrize("max_size", [2**20, 2**27])
def test_it_rotates_by_size(max_size: int) -> None:
    """A segment is a part of the spool, but not too small a one; a larger event has one of its own."""
    alone = Alone()
    writer = alone.writer(max_size)
    size = max(max_size // SEGMENTS, MIN_SEGMENT_SIZE)
    for _ in range(20):
        writer.append([b"x" * (size // 8)])
    sizes = [len(inode.data) for inode in alone.files()]
    assert all(size * 7 // 8 <= one <= size for one in sizes[:-1])
    assert len(sizes) == 3
    writer.append([b"y" * 2 * size])
    assert payloads(alone)[-1] == b"y" * 2 * size
    assert len(alone.names) == 4


def test_it_rotates_by_age() -> None:
    """An old segment is followed by another one at the next event, and closed."""
    alone = Alone()
    writer = alone.writer()
    writer.append([FIRST])
    alone.now += MAX_AGE - 1
    writer.append([b"second"])
    assert len(alone.names) == 1
    alone.now += 1
    writer.append([b"third"])
    assert [records_of(inode) for inode in alone.files()] == [
        [(EVENT, FIRST), (EVENT, b"second")],
        [(EVENT, b"third")],
    ]
    assert len(alone.process.descriptors) == 1


def test_nothing_follows_in_a_segment_that_was_replaced() -> None:
    """A thread that still takes the old segment for the current one appends nothing there."""
    alone = Alone()
    writer = alone.writer()
    writer.append([FIRST])
    first = writer.segment
    assert first is not None
    alone.now += MAX_AGE
    writer.append([b"second"])
    with pytest.raises(NotAppendedError):
        first.send(b"late")
    assert payloads(alone) == [FIRST, b"second"]


def test_a_segment_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that was checking the old segment while another replaced it uses the new one."""
    alone = Alone()
    writer = alone.writer()
    writer.append([FIRST])
    alone.now += MAX_AGE
    look = alone.directory.status

    def status(fd: int) -> FileStatus:
        found = look(fd)
        monkeypatch.undo()
        writer.append([b"of another thread"])
        return found

    monkeypatch.setattr(alone.directory, "status", status)
    writer.append([b"last"])
    assert payloads(alone) == [FIRST, b"of another thread", b"last"]
    assert len(alone.names) == 2


def test_names_are_in_order_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order holds even if the wall clock steps back."""
    times = iter([10**18, 10**17, 10**16])
    monkeypatch.setattr(writer_module, "time_ns", lambda: next(times))
    alone = Alone()
    writer = alone.writer()
    events = [bytes([letter]) * len(FIRST) for letter in b"abc"]
    for event in events:
        writer.append([event])
        alone.now += MAX_AGE
    assert payloads(alone) == events


def test_the_spool_has_a_limit() -> None:
    """Beyond the limit events are refused with the reason, and the spool is measured now and then."""
    alone = Alone()
    writer = alone.writer(2**20)
    message = b"x" * (MIN_SEGMENT_SIZE // 2)
    with pytest.raises(EventQueueFullError, match=r"it holds [\d,]+ of at most 1,048,576 bytes") as caught:
        writer.append([message] * 100)
    done = caught.value.events_put
    assert payloads(alone) == [message] * done
    assert sum(len(inode.data) for inode in alone.files()) <= 2**20 + MIN_SEGMENT_SIZE
    alone.directory.calls.clear()
    for _ in range(3):
        with pytest.raises(EventQueueFullError, match="it holds"):
            writer.append([message])
    assert "open" not in alone.directory.calls
    alone.now += FULL_PAUSE
    with pytest.raises(EventQueueFullError):
        writer.append([message])
    assert alone.directory.calls.count("open") == 1
    alone.kernel.destroy(0)
    alone.now += FULL_PAUSE
    writer.append([message])


@pytest.mark.parametrize(("more", "segments"), [(0, 1), (1, 2)])
def test_a_segment_is_filled_to_the_byte(more: int, segments: int) -> None:
    """The last record may end where the segment does; with one byte more, it begins another one."""
    alone = Alone()
    writer = alone.writer(2**20)
    writer.append([b"first"])
    used = len(alone.files()[0].data)
    filler = b"x" * (MIN_SEGMENT_SIZE * 3 // 4)
    writer.append([filler])
    record = len(alone.files()[0].data) - used - len(filler)
    last = b"x" * (MIN_SEGMENT_SIZE - used - len(filler) - 2 * record + more)
    writer.append([last])
    assert len(alone.files()) == segments
    assert payloads(alone) == [b"first", filler, last]


def test_what_is_left_of_a_segment_is_used() -> None:
    """A segment that should end, as it is old or nearly full, goes on if no other can be started."""
    alone = Alone()
    writer = alone.writer()
    writer.append([FIRST])
    alone.now += MAX_AGE
    alone.directory.errors["create"] = [errno.ENOSPC]
    writer.append([b"second"])
    assert payloads(alone) == [FIRST, b"second"]
    assert len(alone.names) == 1
    alone.now += FULL_PAUSE
    writer.append([b"third"])
    assert payloads(alone) == [FIRST, b"second", b"third"]
    assert len(alone.names) == 2


def test_what_is_left_of_a_segment_is_not_used_for_later_events() -> None:
    """Several events keep their order, even if a segment could be started only for the first."""
    alone = Alone()
    writer = alone.writer()
    writer.append([FIRST])
    alone.now += MAX_AGE
    alone.directory.errors["create"] = [0, errno.ENOSPC]
    large = b"x" * MIN_SEGMENT_SIZE
    with pytest.raises(EventQueueFullError) as caught:
        writer.append([large, b"third"])
    assert caught.value.events_put == 1
    assert payloads(alone) == [FIRST, large]


@pytest.mark.parametrize("number", [*NO_ROOM, *OTHERS])
@pytest.mark.parametrize("call", CALLS)
def test_errors_are_translated(call: str, number: int) -> None:
    """Each error for lack of space has its remedy, costs one attempt per pause, and leaves nothing behind."""
    alone = Alone()
    writer = alone.writer()
    alone.directory.errors[call] = [number]
    error = refused(writer)
    assert type(error) is (EventQueueFullError if number in NO_ROOM else EventQueueUnavailableError)
    assert (NO_ROOM | OTHERS)[number] in str(error)
    assert alone.directory.path in str(error)
    assert error.events_put == 0
    assert alone.names == []
    assert not alone.process.descriptors
    alone.directory.calls.clear()
    again = refused(writer)
    assert again is not error
    assert str(again) == str(error)
    assert alone.directory.calls == []
    alone.now += FULL_PAUSE if isinstance(error, EventQueueFullError) else UNAVAILABLE_PAUSE
    writer.append([b"event"])
    assert payloads(alone) == [b"event"]


@pytest.mark.parametrize("number", [*NO_ROOM, *OTHERS])
@pytest.mark.parametrize("room", [1, 70])
def test_the_reason_of_a_short_write_is_found(number: int, room: int) -> None:
    """A short write gives no reason; the next one does."""
    alone = Alone()
    alone.kernel.capacity = room
    alone.directory.errors["write"] = [0, number]
    error = refused(alone.writer())
    assert (NO_ROOM | OTHERS)[number] in str(error)
    assert alone.names == []
    assert not alone.process.descriptors


def test_errors_of_the_directory_are_kept() -> None:
    """Other errors are raised with their type, and repeated until the next attempt."""
    alone = Alone()
    writer = alone.writer()
    problem = EventQueuePermissionError(alone.directory.path, "it belongs to another user")

    def fail() -> None:
        raise problem

    opened = alone.directory.open
    alone.directory.open = fail  # type: ignore[assignment,method-assign]
    assert refused(writer) is problem
    alone.directory.open = opened  # type: ignore[method-assign]
    again = refused(writer)
    assert type(again) is EventQueuePermissionError
    assert str(again) == str(problem)
    alone.now += UNAVAILABLE_PAUSE
    writer.append([b"event"])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("exc", [KeyboardInterrupt, TimeoutError])
def test_a_signal_handler_may_raise(
    call: str, exc: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of a signal handler passes, leaves no file or descriptor, and loses no refusal."""
    alone = Alone()
    writer = alone.writer()
    alone.refusals.count("full", 3)
    fail = alone.directory.fail

    def interrupted(name: str) -> None:
        if name == call:
            monkeypatch.undo()
            raise exc
        fail(name)

    monkeypatch.setattr(alone.directory, "fail", interrupted)
    with pytest.raises(exc):
        writer.append([b"event"])
    assert alone.names == []
    assert not alone.process.descriptors
    writer.append([b"event"])
    assert alone.records() == [(REFUSALS, b'{"full":3}'), (EVENT, b"event")]


@pytest.mark.parametrize("call", ["lock", "write", "publish"])
def test_a_file_that_is_deleted_before_it_has_its_name_is_replaced(call: str) -> None:
    """If a reader deletes an unlocked new file, another one is started."""
    alone = Alone()
    begin = alone.directory.begin
    deleted: list[str] = []

    def delete(name: str, detail: object = "") -> None:
        begin(name, detail)
        if (
            name == ("publish" if call == "publish" else "status" if call == "write" else "lock")
            and not deleted
        ):
            deleted.extend(alone.names)
            for file in deleted:
                alone.kernel.destroy_file(file, 0)

    alone.directory.begin = delete  # type: ignore[assignment,method-assign]
    writer = alone.writer()
    writer.append([b"event"])
    assert len(deleted) == 1
    assert payloads(alone) == [b"event"]
    assert len(alone.process.descriptors) == 1


def test_files_that_can_t_be_locked_are_given_up() -> None:
    """If new files repeatedly can't be locked, that is an error, and none is left."""
    alone = Alone()
    alone.directory.lockable = False
    writer = alone.writer()
    assert "another process keeps deleting its new files" in str(refused(writer))
    assert alone.directory.calls.count("create") == 20
    assert alone.names == []
    assert not alone.process.descriptors


def test_a_deleted_directory_is_made_again() -> None:
    """Events after a deletion are in another segment."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"lost"])
    alone.kernel.destroy(0)
    writer.append([b"event"])
    assert payloads(alone) == [b"event"]
    assert len(alone.process.descriptors) == 1


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=8),
    st.integers(0, 12_000),
    st.dictionaries(st.sampled_from(["full", "empty"]), st.integers(1, 9)),
)
def test_what_a_full_disk_took_is_known(sizes: list[int], room: int, counts: dict[str, int]) -> None:
    """Of several events the first ones are in the spool: as many as the error says, or all."""
    alone = Alone()
    writer = alone.writer()
    for reason, count in counts.items():
        alone.refusals.count(reason, count)
    alone.kernel.capacity = room
    messages = [str(number).encode() * size for number, size in enumerate(sizes)]
    try:
        writer.append(messages)
    except EventQueueFullError as error:
        done, text = error.events_put, str(error)
    else:
        done, text = len(messages), "no space, put before that"
    assert "no space" in text
    assert ("put before that" in text) == (done > 0)
    assert payloads(alone) == messages[:done]
    assert all(records_of(inode) for inode in alone.files())
    reported = [json.loads(payload) for kind, payload in alone.records() if kind == REFUSALS]
    left = alone.refusals.take()
    assert reported + ([left] if left else []) == ([counts] if counts else [])


def test_refusals_are_reported_with_the_next_event() -> None:
    """Refusals are reported before the next event, in the same `write`, once."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"first"])
    alone.refusals.count("full", 2)
    alone.refusals.count("too_large")
    writer.append([b"second"])
    writer.append([b"third"])
    assert alone.records() == [
        (EVENT, b"first"),
        (REFUSALS, b'{"full":2,"too_large":1}'),
        (EVENT, b"second"),
        (EVENT, b"third"),
    ]


def test_refusals_are_kept_until_they_are_reported() -> None:
    """While no event can be put, no refusal is forgotten."""
    alone = Alone()
    writer = alone.writer()
    alone.refusals.count("full", 2)
    alone.directory.errors["create"] = [errno.ENOSPC]
    for _ in range(3):
        refused(writer)
        alone.refusals.count("full")
    alone.now += FULL_PAUSE
    writer.append([b"event"])
    assert alone.records() == [(REFUSALS, b'{"full":5}'), (EVENT, b"event")]


@pytest.mark.parametrize("room", [1, 20])
def test_refusals_whose_record_is_torn_are_kept(room: int) -> None:
    """Refusals whose record is torn are reported when there is room."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"first"])
    alone.refusals.count("full", 2)
    alone.kernel.capacity = alone.kernel.stored() + room
    refused(writer)
    alone.kernel.capacity = None
    alone.now += FULL_PAUSE
    writer.append([b"second"])
    assert alone.records() == [(EVENT, b"first"), (REFUSALS, b'{"full":2}'), (EVENT, b"second")]


def test_a_segment_whose_first_write_was_cut_short_ends() -> None:
    """After a short write of several events, the whole ones are there, and the others in the next segment."""
    alone = Alone()
    writer = alone.writer()
    alone.kernel.capacity = 150

    def more(_: object) -> None:
        alone.kernel.capacity = None

    alone.directory.published = more
    writer.append([b"x" * 30] * 4)
    assert [len(records_of(inode)) for inode in alone.files()] == [1, 3]


def test_it_knows_what_is_used_and_whether_it_is_read() -> None:
    """Whether a spool that can't be opened has a reader is unknown."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"event"])
    assert writer.used() == len(alone.files()[0].data)
    assert writer.has_reader() is True
    alone.directory.errors["open"] = [errno.EIO, errno.EIO]
    assert writer.has_reader() is None
    with pytest.raises(OSError, match="Input/output"):
        writer.used()


def test_an_error_keeps_no_file_open() -> None:
    """A service may keep an error; the space of the file is freed anyway."""
    alone = Alone()
    writer = alone.writer()
    alone.directory.errors["publish"] = [errno.EIO]
    error = refused(writer)
    assert error.__cause__ is not None
    assert not alone.process.descriptors
    assert alone.kernel.stored() == 0


def test_the_numbers_are_those_of_the_documentation() -> None:
    """Four looks for room a second; 256 segments in a spool, of 256 KiB or more."""
    assert (FULL_PAUSE, UNAVAILABLE_PAUSE) == (0.25, 1.0)
    assert (SEGMENTS, MIN_SEGMENT_SIZE) == (256, 262_144)


@pytest.mark.parametrize(("deletions", "starts"), [(0, True), (19, True), (20, False)])
def test_a_file_that_is_deleted_while_it_starts_is_tried_twenty_times(
    deletions: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is an error, and so for a second."""
    alone = Alone()
    writer = alone.writer()
    attempts = 0

    def start(_messages: object, _refusals: object) -> int:
        nonlocal attempts
        attempts += 1
        return 0 if attempts <= deletions else original([b"event"], {})

    original = writer._try_to_start  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(writer, "_try_to_start", start)
    if starts:
        writer.append([b"event"])
        assert payloads(alone) == [b"event"]
    else:
        with pytest.raises(EventQueueUnavailableError, match="keeps deleting"):
            writer.append([b"event"])
        assert attempts == 20


@pytest.mark.parametrize(("spare", "starts"), [(0, False), (1, True)])
def test_no_segment_starts_in_a_spool_that_is_full_to_the_byte(spare: int, starts: bool) -> None:
    """One byte less is room for a segment."""
    alone = Alone()
    writer = alone.writer()
    writer.append([b"event"])
    writer.max_size = writer.used() + spare
    large = b"x" * MIN_SEGMENT_SIZE
    if starts:
        writer.append([large])
        assert payloads(alone) == [b"event", large]
    else:
        with pytest.raises(EventQueueFullError):
            writer.append([large])
        assert payloads(alone) == [b"event"]
