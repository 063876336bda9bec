from __future__ import annotations

import contextlib
import fcntl
import itertools
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events import (
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from baseplate_events.counting.refusals import RefusalCounts
from baseplate_events.spool import MIN_SPOOL_SIZE, problems
from baseplate_events.spool.directory import READER_LOCK, SpoolDirectory
from baseplate_events.transport.spool import CHECK_PAUSE, UNREAD_LIMIT, SpoolTransport
from tests.support.clocks import FakeClock
from tests.support.queues import open_files
from tests.support.spools_written import read_events, read_refusals

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

#: Bytes that a message may have.
LIMIT = 200_000

#: Messages of which some fill a segment, and few the spool.
LARGE = b"x" * LIMIT


class Spool:
    """A transport on a clock of its own, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.refusals = RefusalCounts()
        self.sleeps: list[float] = []
        self.directory = SpoolDirectory(str(folder), "main", mode=0o600)
        self.directory.prepare()
        self.path = folder / "events-main"
        self.transport = SpoolTransport(
            self.directory,
            "2j",
            max_size=MIN_SPOOL_SIZE,
            max_message_size=LIMIT,
            refusals=self.refusals,
            clock=self.clock,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.clock.sleep(seconds)

    def fill(self) -> int:
        """Put until there is no room, and return how many messages there was room for."""
        for count in range(100):
            try:
                self.transport.put(LARGE)
            except EventQueueFullError:
                return count
        raise AssertionError

    def empty(self) -> None:
        """Deliver everything."""
        for path in self.path.iterdir():
            path.unlink()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    return Spool(tmp_path)


@given(batches=st.lists(st.lists(st.binary(min_size=1, max_size=20), max_size=5), max_size=5))
def test_messages_arrive_in_order(
    batches: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All messages arrive, whether put singly, in bulk, or through the channel."""
    spool = Spool(tmp_path_factory.mktemp("spool"))
    for number, batch in enumerate(batches):
        if number % 2:
            spool.transport.put_many(batch, 0.0)
            continue
        for message in batch:
            if spool.transport.confirm(spool.clock()):
                spool.transport.channel.send(message)
            else:
                spool.transport.put(message)
    assert [*itertools.chain(*batches)] == read_events(spool.path)


def test_a_message_that_is_too_large_puts_none(spool: Spool) -> None:
    """Sizes are checked before anything is written."""
    with pytest.raises(EventTooLargeError) as caught:
        spool.transport.put_many([b"x", LARGE + b"x"], 0.0)
    assert (caught.value.size, caught.value.limit, caught.value.events_put) == (LIMIT + 1, LIMIT, 0)
    assert [] == read_events(spool.path)


def test_a_full_spool_is_an_error_that_says_how_many_were_put(spool: Spool) -> None:
    """As many messages as `events_put` says are in the spool."""
    with pytest.raises(
        EventQueueFullError, match=r"1,048,576 bytes.*\(\d+ events were put before that\)"
    ) as caught:
        spool.transport.put_many([LARGE] * 10, 0.0)
    assert 5 <= caught.value.events_put <= 7
    assert caught.value.events_put == len(read_events(spool.path))


def test_put_waits_for_room_if_it_may(spool: Spool) -> None:
    """A wait sleeps briefly at a time, and at most its timeout in total."""
    count = spool.fill()
    with pytest.raises(EventQueueFullError):
        spool.transport.put(LARGE, 1.0)
    assert sum(spool.sleeps) == pytest.approx(1.0)
    assert max(spool.sleeps) <= 0.05
    assert count == len(read_events(spool.path))
    sleep = spool._sleep  # pyright: ignore[reportPrivateUsage]

    def deliver_and_sleep(seconds: float) -> None:
        spool.empty()
        sleep(seconds)

    spool.transport._sleep = deliver_and_sleep  # pyright: ignore[reportPrivateUsage]
    spool.transport.put_many([LARGE] * 2, 1.0)
    assert [LARGE] * 2 == read_events(spool.path)


def test_a_wait_ends_when_it_is_closed(spool: Spool) -> None:
    """A close ends the wait of other threads."""
    spool.fill()

    def close_and_sleep(seconds: float) -> None:
        del seconds
        spool.transport.close()

    spool.transport._sleep = close_and_sleep  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(EventQueueClosedError):
        spool.transport.put(LARGE, 1.0)


def test_a_spool_that_cant_be_used_isnt_waited_for(spool: Spool) -> None:
    """Only for a full spool does a put wait."""
    spool.path.rmdir()
    spool.path.write_text("in the way")
    with pytest.raises(EventQueueUnavailableError) as caught:
        spool.transport.put(b"x", 1.0)
    assert problems.not_a_folder(str(spool.path)) == caught.value.problem
    assert [] == spool.sleeps


def test_refusals_travel_with_the_next_message(spool: Spool) -> None:
    """The channel isn't trusted while there are refusals to report."""
    spool.transport.put(b"first")
    assert spool.transport.confirm(spool.clock())
    spool.refusals.count("too_large", 2)
    assert not spool.transport.confirm(spool.clock())
    assert {} == read_refusals(spool.path)
    spool.transport.put(b"second")
    assert {"too_large": 2} == read_refusals(spool.path)
    assert spool.transport.confirm(spool.clock())
    spool.empty()
    spool.clock.now += 1.0
    spool.transport.put(b"third")
    assert {} == read_refusals(spool.path)


def test_refusals_of_a_full_spool_are_reported_when_there_is_room(spool: Spool) -> None:
    """A failed put reports nothing, and loses no count."""
    spool.fill()
    spool.refusals.count("full")
    for _ in range(3):
        with pytest.raises(EventQueueFullError):
            spool.transport.put(LARGE)
    spool.empty()
    spool.clock.now += 1.0
    spool.transport.put(b"x")
    assert {"full": 1} == read_refusals(spool.path)


def test_it_reports_bytes(spool: Spool) -> None:
    """The gauges are the bytes in the spool, and its capacity."""
    assert {"spool_size": 0, "spool_max_size": MIN_SPOOL_SIZE} == spool.transport.gauges()
    spool.transport.put(LARGE)
    gauges = spool.transport.gauges()
    assert LIMIT < gauges["spool_size"] < LIMIT + 200


def test_a_closed_one_says_so(spool: Spool) -> None:
    """After close nothing can be put, and the descriptor is closed."""
    before = open_files()
    spool.transport.put(b"x")
    for _ in range(2):
        spool.transport.close()
    assert open_files() <= before
    assert not spool.transport.confirm(spool.clock())
    for messages in ([b"x"], [b"x", b"y"]):
        with pytest.raises(EventQueueClosedError):
            spool.transport.put_many(messages, 0.0)
    assert [b"x"] == read_events(spool.path)


# --- no publisher ---


@contextlib.contextmanager
def reading(spool: Spool) -> Generator[None]:
    """Hold the lock of a publisher."""
    with (spool.path / READER_LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def put_for(spool: Spool, seconds: float) -> None:
    """Put a message a second."""
    for _ in range(int(seconds)):
        if spool.transport.confirm(spool.clock()):
            spool.transport.channel.send(b"x")
        else:
            spool.transport.put(b"x")
        spool.clock.now += 1.0


def test_a_spool_that_no_one_reads_is_logged_once(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    """After a minute of puts without a publisher, a warning names the directory; for a full spool too."""
    put_for(spool, UNREAD_LIMIT)
    assert [] == caplog.messages
    put_for(spool, 3 * UNREAD_LIMIT)
    (message,) = caplog.messages
    assert str(spool.path) in message
    assert "events put for 60 seconds, but no event publisher reads this spool" in message


def test_a_publisher_that_restarts_is_not_missed(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    """The minute starts again whenever a publisher was there."""
    for _ in range(5):
        put_for(spool, UNREAD_LIMIT - CHECK_PAUSE)
        with reading(spool):
            put_for(spool, CHECK_PAUSE + 1)
    assert [] == caplog.messages
    put_for(spool, UNREAD_LIMIT + CHECK_PAUSE)
    assert len(caplog.messages) == 1


def test_a_publisher_that_restarts_is_not_missed_by_a_quiet_service(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    """One check without a publisher is no reason to warn, however long ago the check before it was."""
    with reading(spool):
        spool.transport.put(b"x")
    spool.clock.now += 10 * UNREAD_LIMIT
    spool.transport.put(b"x")
    assert [] == caplog.messages


def test_threads_share_it(spool: Spool) -> None:
    """Each message of each thread arrives once, in the order of its thread."""

    def put_all(thread: int) -> None:
        for number in range(200):
            spool.transport.put(b"%d %d" % (thread, number))

    threads = [threading.Thread(target=put_all, args=(thread,)) for thread in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = [[*map(int, event.split())] for event in read_events(spool.path)]
    for thread in range(4):
        assert [*range(200)] == [number for number_of, number in found if number_of == thread]
