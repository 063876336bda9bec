"""Two publishers on one POSIX queue: the second one warns, or is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.queue_consumer import QueueConsumer
from baseplate_events.event_publisher.queue_lock import (
    QueueInUseError,
    describe_sharing,
    find_holder,
    lock_queue,
)
from baseplate_events.transport.posix import MessageQueue
from tests.support.fault_collector import FaultCollector
from tests.support.publishers import publisher_process, small_queue
from tests.support.queues import fresh_name
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.publishers import PublisherProcess


def opened(name: str) -> MessageQueue:
    """Open a tiny queue, or make it."""
    return MessageQueue(name, max_messages=1, max_message_size=16)


@given(st.lists(st.tuples(st.sampled_from(["lock", "close"]), st.integers(0, 2)), max_size=12))
def test_each_knows_of_the_others(steps: list[tuple[str, int]]) -> None:
    """Each that locks knows whether another one has. Closing ends that; services don't lock."""
    with fresh_name() as name:
        queues = [opened(name) for _ in range(3)]
        readers: set[int] = set()
        for deed, who in steps:
            if deed == "lock":
                assert lock_queue(queues[who].fileno()) == (readers <= {who})
                readers.add(who)
                assert find_holder(queues[1].fileno()) == os.getpid()
            else:
                queues[who].close()
                queues[who] = opened(name)
                readers.discard(who)
        queues[0].put(b"x")
        assert next(queues[2].drain()) == b"x"
        for queue in queues:
            queue.close()
        opened(name).unlink()


def test_what_cant_be_locked_is_no_ones() -> None:
    """If flock(2) doesn't work, no other publisher is noticed, and nothing fails."""
    descriptor = os.open("/proc/self", os.O_PATH)
    assert lock_queue(descriptor)
    os.close(descriptor)
    assert find_holder(1_000_000) is None


def test_the_words_on_another_publisher() -> None:
    """The queue is named, and the process if it is known."""
    assert describe_sharing("/events-v2", None) == "another publisher also reads /events-v2"
    assert str(QueueInUseError("/events-v2", 7)) == (
        "another publisher (process 7) also reads /events-v2, and queue.exclusive is set: stop the other one"
    )


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_second_consumer_warns_or_is_refused(
    exclusive: bool, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the queue and the process. The first learns of it, and the second when the first has gone."""
    posix_name = f"/events-{name}"
    first = QueueConsumer(lambda: opened(posix_name), exclusive=exclusive)
    try:
        assert not first.is_shared()
        if exclusive:
            with pytest.raises(QueueInUseError) as caught:
                QueueConsumer(lambda: opened(posix_name), exclusive=True)
            assert (posix_name, os.getpid()) == (caught.value.name, caught.value.holder)
            first.close()
            first = QueueConsumer(lambda: opened(posix_name), exclusive=True)
            return
        second = QueueConsumer(lambda: opened(posix_name))
        assert second.is_shared()
        assert describe_sharing(posix_name, os.getpid()) in caplog.text
        caplog.clear()
        for _ in range(2):
            assert first.is_shared()
        (record,) = caplog.records
        assert describe_sharing(posix_name, None) in record.message
        second.refresh(100.0)
        assert second.is_shared()
        assert second.refresh_at <= 105.0
        first.close()
        second.refresh(105.0)
        assert "has ended" in caplog.text
        assert not second.is_shared()
        third = QueueConsumer(lambda: opened(posix_name))
        assert third.is_shared()
        second.close()
        assert not third.is_shared()
        third.close()
    finally:
        first.close()
        opened(posix_name).unlink()


@pytest.mark.unmeasured
@pytest.mark.parametrize("spool", [False, True])
@pytest.mark.parametrize("exclusive", ["true", "false"])
def test_a_second_publisher(exclusive: str, spool: bool, name: str, tmp_path: Path) -> None:
    """With `queue.exclusive` the second exits with 1; otherwise both run. `kill -9` frees the queue."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with small_queue(name) as queue, FaultCollector() as server:

        def publisher(folder: Path, exclusive: str) -> AbstractContextManager[PublisherProcess]:
            overrides = {"queue__exclusive": exclusive}
            if spool:
                overrides["spool__directory"] = str(folder / "spool")
            return publisher_process(folder, name, server.url, **overrides)

        with publisher(folders[0], "false") as first:
            first.wait_until_it_publishes()
            with publisher(folders[1], exclusive) as second:
                if exclusive == "true":
                    assert second.process.wait(PATIENCE) == 1
                    lines = [line for line in second.log.splitlines() if "WARNING" not in line]
                    assert len(lines) == 1
                    assert describe_sharing(f"/events-{name}", first.process.pid) in lines[0]
                else:
                    second.wait_until_it_publishes()
                    assert describe_sharing(f"/events-{name}", first.process.pid) in second.log
            if exclusive == "true":
                assert "WARNING" not in first.log
            first.process.kill()
            first.process.wait(PATIENCE)
        with publisher(folders[1], "true") as third:
            third.wait_until_it_publishes()
            assert "WARNING" not in third.log
            assert third.stop() == 0
        assert queue.current_messages == 0
