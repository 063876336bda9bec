"""A segment is appended to, watched, and closed, and no other file is."""

from __future__ import annotations

import errno
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.spool import segment as segment_module
from baseplate_events.spool.format import EVENT, OVERHEAD, Encoder
from baseplate_events.spool.segment import MAX_AGE, NotAppendedError, Segment
from tests.support.spool_model.alone import HEADER, Alone, records_of
from tests.support.spool_model.kernel import os_error

if TYPE_CHECKING:
    from baseplate_events.spool.segment import FileStatus

START = len(HEADER.encode())


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=12), st.integers(0, 1500))
def test_events_are_sent_while_there_is_room(messages: list[bytes], limit: int) -> None:
    """Events for which `send` returned are in the file, in order; others aren't."""
    alone = Alone()
    segment = alone.segment(limit)
    sent: list[bytes] = []
    size = START
    for message in messages:
        fits = size + OVERHEAD + len(message) <= limit
        try:
            segment.send(message)
        except NotAppendedError:
            assert not fits
        else:
            assert fits
            sent.append(message)
            size += OVERHEAD + len(message)
    (inode,) = alone.files()
    assert records_of(inode) == [(EVENT, message) for message in sent]


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_short_write_ends_it(message: bytes, data: st.DataObject) -> None:
    """After a short write the event isn't in the segment, and nothing more is written."""
    alone = Alone()
    segment = alone.segment()
    alone.kernel.capacity = alone.kernel.stored() + data.draw(st.integers(1, OVERHEAD + len(message) - 1))
    with pytest.raises(NotAppendedError):
        segment.send(message)
    alone.kernel.capacity = None
    assert segment.ended
    assert not segment.check(alone.now)
    size = len(alone.files()[0].data)
    with pytest.raises(NotAppendedError):
        segment.send(message)
    assert len(alone.files()[0].data) == size
    assert alone.records() == []


@given(st.binary(min_size=1, max_size=100), st.integers(0, 100))
def test_append_says_how_much_was_written(data: bytes, room: int) -> None:
    """`append` returns the bytes written, even 0; if they aren't all, the segment ends."""
    alone = Alone()
    segment = alone.segment(50)
    alone.kernel.capacity = alone.kernel.stored() + room
    assert segment.append(data) == min(len(data), room)
    assert segment.ended == (room < len(data))


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPERM),
        *(errno.EPIPE, errno.EAGAIN, errno.ECONNABORTED),  # of a pipe or socket that got the number, or FUSE
    ],
)
def test_errors_of_a_write_are_its_own(number: int) -> None:
    """`refused` recognises the errors of `send`, and none of a signal handler."""
    alone = Alone()
    segment = alone.segment()
    alone.directory.errors["write"] = [number, number]
    with pytest.raises(OSError, match="Errno") as caught:
        segment.send(b"event")
    assert segment.refused(caught.value)
    assert not segment.is_full(caught.value)
    assert segment.append(b"data") == 0
    assert segment.ended


@pytest.mark.parametrize("exc", [TimeoutError(), KeyboardInterrupt(), ValueError(), InterruptedError()])
def test_errors_of_a_signal_handler_are_raised(exc: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exceptions of a signal handler don't end the segment."""
    alone = Alone()

    def write(fd: int, data: bytes) -> int:
        del fd, data
        raise exc

    monkeypatch.setattr(alone.directory, "write", write)
    segment = alone.segment()
    with pytest.raises(type(exc)):
        segment.append(b"data")
    if isinstance(exc, Exception):
        assert not segment.refused(exc)
    assert not segment.ended


def test_it_should_end_when_it_is_nearly_full() -> None:
    """An eighth of the room is left for other threads while one starts the next segment."""
    alone = Alone()
    segment = alone.segment(800)
    while segment.check(alone.now):
        assert segment.room(shared=True) - segment.room(shared=False) == 100
        segment.send(b"x" * 10)
    assert 700 <= len(alone.files()[0].data) < 700 + OVERHEAD + 10
    assert not segment.ended
    segment.send(b"x" * 10)


def test_it_should_end_when_it_is_old() -> None:
    """An old segment may be appended to until the next is started; a nearly empty one goes on."""
    alone = Alone()
    segment = alone.segment(1_600)
    segment.send(b"x" * 50)
    assert segment.check(alone.now + MAX_AGE)
    segment.send(b"x" * 150)
    assert segment.check(alone.now + MAX_AGE - 1)
    assert not segment.check(alone.now + MAX_AGE)
    segment.send(b"event")


def test_check_learns_what_others_appended() -> None:
    """A forked child counts only what it writes itself, until it checks."""
    alone = Alone()
    segment = alone.segment(1000)
    alone.files()[0].data += b"x" * 850
    segment.send(b"event")
    assert not segment.check(alone.now)
    assert segment.room(shared=True) == 1000 - START - 850 - OVERHEAD - 5


def test_what_another_thread_appends_meanwhile_is_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may append between the status of the file and the comparison."""
    alone = Alone()
    segment = alone.segment()
    look = alone.directory.status

    def status(fd: int) -> FileStatus:
        found = look(fd)
        segment.send(b"of another thread")
        return found

    monkeypatch.setattr(alone.directory, "status", status)
    assert segment.check(alone.now)
    assert not segment.ended


@given(st.binary(min_size=1, max_size=100))
def test_no_byte_is_counted_twice(data: bytes) -> None:
    """Another thread may check the file between a write and the addition."""
    alone = Alone()
    write = alone.directory.write
    segment: Segment | None = None

    def write_and_check(fd: int, data: bytes) -> int:
        written = write(fd, data)
        assert segment is not None
        assert segment.check(alone.now)
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alone.directory, "write", write_and_check)
        segment = alone.segment()
    assert segment.append(data) == len(data)
    assert segment.size == len(alone.files()[0].data)
    segment.send(data)
    assert segment.size == len(alone.files()[0].data)
    assert segment.check(alone.now)


def test_one_thread_claims_it() -> None:
    """One of many threads starts the next segment; if it fails, another one tries."""
    segment = Alone().segment()
    claims: list[bool] = []
    for _ in range(50):
        threads = [threading.Thread(target=lambda: claims.append(segment.claim())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        segment.unclaim()
    assert claims.count(True) == 50
    assert len(claims) == 400


def test_a_deleted_file_is_noticed() -> None:
    """A deleted segment ends, and its descriptor is closed with its last reference."""
    alone = Alone()
    segment = alone.segment()
    alone.kernel.destroy(0)
    assert not segment.check(alone.now)
    assert segment.ended
    assert alone.process.descriptors
    del segment
    assert not alone.process.descriptors


def test_a_file_that_was_cut_is_noticed() -> None:
    """Nothing is appended to a truncated file, since the publisher doesn't read it again."""
    alone = Alone()
    segment = alone.segment()
    segment.send(b"event")
    assert segment.check(alone.now)
    del alone.files()[0].data[START:]
    assert not segment.check(alone.now)
    assert segment.ended


def test_another_file_is_neither_written_to_nor_closed() -> None:
    """Descriptors that a program opened after closing all aren't used."""
    alone = Alone()
    segment = alone.segment()
    (fd,) = alone.process.descriptors
    alone.kernel.close(alone.process, fd)
    assert alone.kernel.create(alone.process, alone.kernel.directory(), "theirs") == fd
    assert not segment.check(alone.now)
    with pytest.raises(NotAppendedError):
        segment.send(b"event")
    del segment
    assert fd in alone.process.descriptors
    assert not alone.kernel.directory().names["theirs"].data


def test_another_file_isn_t_closed_if_it_was_not_noticed_before() -> None:
    """The descriptor is compared once more before it is closed."""
    alone = Alone()
    segment = alone.segment()
    (fd,) = alone.process.descriptors
    alone.kernel.close(alone.process, fd)
    alone.kernel.create(alone.process, alone.kernel.directory(), "theirs")
    del segment
    assert fd in alone.process.descriptors


def test_a_closed_descriptor_is_noticed() -> None:
    """Nothing is closed twice."""
    alone = Alone()
    segment = alone.segment()
    (fd,) = alone.process.descriptors
    alone.kernel.close(alone.process, fd)
    assert not segment.check(alone.now)
    alone.kernel.create(alone.process, alone.kernel.directory(), "theirs")
    alone.kernel.inodes[-1].number = alone.kernel.inodes[0].number  # as file systems do
    del segment
    assert fd in alone.process.descriptors


def test_it_is_closed_when_the_last_user_lets_go() -> None:
    """A thread that holds it may still write to it."""
    alone = Alone()
    segment = alone.segment()
    send = segment.send
    del segment
    send(b"event")
    assert alone.process.descriptors
    del send
    assert not alone.process.descriptors


def test_it_is_silent_when_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At interpreter shutdown module names are None; pytest would report an error of `__del__`."""
    alone = Alone()
    segment = alone.segment()
    for name in [name for name in vars(segment_module) if not name.startswith("__")]:
        monkeypatch.setattr(segment_module, name, None)
    with monkeypatch.context() as patch:
        raised: list[object] = []
        patch.setattr(sys, "unraisablehook", raised.append)
        del segment
        assert raised == []


def test_it_can_be_discarded() -> None:
    """A discarded segment is closed, once."""
    alone = Alone()
    segment = alone.segment()
    segment.discard()
    assert segment.ended
    assert not alone.process.descriptors
    alone.kernel.create(alone.process, alone.kernel.directory(), "other")
    alone.kernel.inodes[-1].number = alone.kernel.inodes[0].number
    segment.discard()
    del segment
    assert alone.process.descriptors


def test_a_segment_that_can_t_be_checked_isn_t_closed() -> None:
    """The creator of the descriptor closes it."""
    alone = Alone()
    alone.directory.errors["status"] = [errno.EIO]
    with pytest.raises(OSError, match=os_error(errno.EIO).strerror):
        alone.segment()
    assert alone.process.descriptors


@given(st.binary(min_size=1, max_size=300))
def test_send_encodes_as_the_encoder_does(message: bytes) -> None:
    """`send` writes the same bytes as `Encoder.encode`."""
    alone = Alone()
    alone.segment(10_000).send(message)
    assert bytes(alone.files()[0].data[START:]) == Encoder(HEADER).encode(message)


def test_it_has_no_dictionary() -> None:
    """A segment is small, and misspelt attributes are errors."""
    assert not hasattr(Alone().segment(), "__dict__")
    assert "encoder" in Segment.__slots__
