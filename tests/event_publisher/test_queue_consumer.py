"""Tests of how the publisher's queue is received from, and followed when it is removed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from baseplate_events.errors import EventQueuePermissionError, EventQueueRemovedError
from baseplate_events.event_publisher.queue_consumer import QueueConsumer
from baseplate_events.event_publisher.unlink_watch import UnlinkWatch
from baseplate_events.transport.posix import MessageQueue, unlink_queue
from tests.support.machines import check_machine
from tests.support.queues import (
    FEW,
    drain,
    fresh_name,
    lasting_files,
    open_files,
    outlast_trust,
    producer,
    reader,
)

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def name() -> Generator[str]:
    """Yield the name of a queue that doesn't exist."""
    with fresh_name() as fresh:
        yield fresh


def receive(consumer: QueueConsumer, limit: int) -> tuple[list[bytes], bool]:
    """Receive events; return them, and whether the queues were found empty after these."""
    return list(itertools.islice(consumer.receive(), limit)), consumer.found_empty


def wake(consumer: QueueConsumer, *, receiving: bool = False) -> bool:
    """Return whether a poller would wake now, and notify the consumer, as the publisher does."""
    poller = select.poll()
    consumer.register(poller, receiving=receiving)
    ready = poller.poll(0)
    for descriptor, _ in ready:
        consumer.handle_ready(descriptor)
    return bool(ready)


class QueueConsumerMachine(RuleBasedStateMachine):
    """A consumer, a producer, and a process that removes the queue, against plain lists."""

    @initialize()
    def start(self) -> None:
        self.context = fresh_name()
        self.name = self.context.__enter__()
        self.now = 100.0
        self.number = 0
        self.removals = 0
        #: What is in the removed queues, oldest first, and in the one that has the name.
        self.held: list[list[bytes]] = [[]]
        self.returned: set[bytes] = set()
        self.consumer = QueueConsumer(lambda: reader(self.name))
        self.producer = producer(self.name)
        assert not self.consumer.refresh(self.now)

    def teardown(self) -> None:
        if hasattr(self, "producer"):
            self.consumer.close()
            self.producer.close()
            self.context.__exit__(None, None, None)

    @precondition(lambda self: len(self.held[-1]) < FEW)
    @rule()
    def put(self) -> None:
        self.produce()
        assert wake(self.consumer, receiving=True)

    def produce(self) -> None:
        outlast_trust()
        self.number += 1
        event = b"%d" % self.number
        self.producer.put(event)
        self.held[-1].append(event)

    @precondition(lambda self: self.removals < 4)  # a removed queue counts for the user as long as it's open
    @rule(late=st.booleans())
    def remove(self, late: bool) -> None:
        self.removals += 1
        unlink_queue(self.name)
        self.held.append([])
        if late:
            self.produce()  # which makes the new queue
        assert wake(self.consumer)
        assert self.consumer.refresh_at <= self.now
        assert self.consumer.refresh(self.now)
        assert not wake(self.consumer)

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        assert not self.consumer.refresh(self.now)

    @rule(limit=st.integers(1, FEW + 1))
    def receive(self, limit: int) -> None:
        source = next((held for held in self.held if held), self.held[-1])
        expected = source[:limit]
        del source[:limit]
        assert (expected, source is self.held[-1] and len(expected) < limit) == receive(self.consumer, limit)

    @rule(count=st.integers(1, FEW))
    def requeue(self, count: int) -> None:
        """What goes back comes before what was never received, in the order in which it goes back."""
        events, _ = receive(self.consumer, count)
        for held in self.held:
            held[:] = [event for event in held if event not in events]
        self.returned -= set(events)
        for event in events[: FEW - len(self.held[-1])]:
            self.consumer.requeue(event, 0.0, self.now)
            place = sum(held in self.returned for held in self.held[-1])
            self.held[-1].insert(place, event)
            self.returned.add(event)

    @rule()
    def nothing_is_lost(self) -> None:
        self.now += 10.0
        self.consumer.refresh(self.now)
        received = list(self.consumer.receive())
        while not self.consumer.found_empty:
            assert self.consumer.refresh_at <= self.now, "it would sleep"
            received += self.consumer.receive()
        assert [event for held in self.held for event in held] == received
        self.held = [[]]
        self.consumer.refresh(self.now)
        assert math.inf == self.consumer.refresh_at


def test_the_queue_consumer_follows_its_queue() -> None:
    """However often a queue is removed, its events are received in order, those of older queues first."""
    check_machine(QueueConsumerMachine, steps=25)


@given(st.lists(st.tuples(st.integers(0, FEW), st.integers(1, FEW + 1)), max_size=8))
def test_the_highest_depth_is_seen_before_each_burst(bursts: list[tuple[int, int]]) -> None:
    """The depth and a full queue are measured per burst, and reported once."""
    with fresh_name() as name, contextlib.closing(QueueConsumer(lambda: reader(name))) as consumer:
        depth, full = 0, 0
        depths: list[int] = []
        with producer(name) as other:
            for count, limit in bursts:
                for number in range(min(count, FEW - depth)):
                    other.put(b"%d" % number)
                    depth += 1
                depths.append(depth)
                full += depth == FEW
                depth -= len(receive(consumer, limit)[0])
        assert consumer.times_full == full
        assert consumer.take_highest() == max(depths, default=0)
        assert consumer.take_highest() == 0
        assert consumer.measure() == depth == consumer.take_highest()


def test_without_a_watch_the_queue_is_checked_each_second(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system can't announce a removal, the consumer checks every second, and then follows."""

    def refuse(_watch: UnlinkWatch) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(UnlinkWatch, "__init__", refuse)
    consumer = QueueConsumer(lambda: reader(name))
    with producer(name) as other:
        assert not consumer.refresh(100.0)
        assert consumer.refresh_at == 101.0
        unlink_queue(name)
        assert not wake(consumer)
        assert consumer.refresh(101.0)
        other.put(b"x")
        assert wake(consumer, receiving=True)
        assert ([b"x"], True) == receive(consumer, 2)
    consumer.close()


def test_who_asks_for_no_event_does_not_know_that_there_is_none(name: str) -> None:
    """Whether the queue is empty is what the last receive found, not the one before it."""
    consumer = QueueConsumer(lambda: reader(name))
    assert ([], True) == receive(consumer, 1)
    assert ([], False) == receive(consumer, 0)
    consumer.close()


def test_a_queue_that_cannot_be_reopened_is_retried(name: str) -> None:
    """The consumer goes on with the removed queue, and tries again a second later."""
    allowed = True

    def open_queue() -> MessageQueue:
        if not allowed:
            raise EventQueuePermissionError(name, "it belongs to another user")
        return reader(name)

    consumer = QueueConsumer(open_queue)
    with producer(name) as other:
        other.put(b"x")
    allowed = False
    unlink_queue(name)
    assert not consumer.refresh(100.0)
    assert consumer.refresh_at == 101.0
    assert ([b"x"], True) == receive(consumer, 2)
    allowed = True
    assert consumer.refresh(101.0)
    consumer.requeue(b"y", 0.0, 101.0)
    with reader(name) as other:
        assert drain(other) == [b"y"]
    consumer.close()


def test_events_that_go_back_find_the_new_queue(name: str) -> None:
    """What is put back after the queue was removed is in the queue that has the name then."""
    consumer = QueueConsumer(lambda: reader(name))
    unlink_queue(name)
    consumer.requeue(b"x", 0.0, 100.0)
    with reader(name) as other:
        assert drain(other) == [b"x"]
    consumer.close()


def test_a_queue_that_is_removed_before_it_is_watched_is_followed_at_once(name: str) -> None:
    """A queue that comes and goes while the consumer turns to it costs no event of the one after it."""
    removals = 2

    def open_queue() -> MessageQueue:
        nonlocal removals
        queue = reader(name)
        if removals:
            removals -= 1
            unlink_queue(name)
        return queue

    consumer = QueueConsumer(open_queue)
    for left in (1, 0):
        assert consumer.refresh_at == -math.inf, "it would sleep"
        assert consumer.refresh(100.0)
        assert removals == left - (left > 0)
    with producer(name) as other:
        other.put(b"x")
    assert consumer.refresh_at == 101.0
    assert ([b"x"], True) == receive(consumer, 2)
    consumer.close()


def test_events_that_go_back_follow_a_queue_that_is_removed_again(name: str) -> None:
    """What is put back isn't lost although the queue is removed twice meanwhile."""
    removals = 0

    def open_queue() -> MessageQueue:
        nonlocal removals
        queue = reader(name)
        if removals in {1, 2}:
            unlink_queue(name)
        removals += 1
        return queue

    consumer = QueueConsumer(open_queue)
    unlink_queue(name)
    consumer.requeue(b"x", 0.0, 100.0)
    with reader(name) as other:
        assert drain(other) == [b"x"]
    consumer.close()


def watches() -> dict[str, int]:
    """Return the inotify instances of this process, by descriptor, with their numbers of watches."""
    found: dict[str, int] = {}
    for number in lasting_files():
        with contextlib.suppress(OSError):  # one of another thread may be closed by now
            if "inotify" in str(Path("/proc/self/fd", number).readlink()):
                found[number] = Path("/proc/self/fdinfo", number).read_text().count("inotify wd:")
    return found


def test_one_instance_serves_all_queues(name: str) -> None:
    """However many queues are followed, there is one inotify instance, with one watch."""
    others = watches()
    consumer = QueueConsumer(lambda: reader(name))
    first = {key: count for key, count in watches().items() if key not in others}
    assert list(first.values()) == [1]
    instance = os.dup(int(*first))
    for moment in range(3):
        unlink_queue(name)
        assert select.select([instance], [], [], 0)[0], "this queue has another instance"
        assert wake(consumer)
        assert consumer.refresh(100.0 + moment)
        assert not wake(consumer)
        assert {**others, **first, str(instance): 1} == watches()
    os.close(instance)
    consumer.close()
    assert others == watches()


def test_a_queue_that_cant_be_watched_is_checked_until_it_can(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While watches are used up, the consumer checks every second; then it sleeps until it is notified."""

    def refuse(_watch: UnlinkWatch, _queue: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(UnlinkWatch, "watch", refuse)
        consumer = QueueConsumer(lambda: reader(name))
        consumer.refresh(100.0)
        assert consumer.refresh_at == 101.0
    consumer.refresh(101.0)
    assert consumer.refresh_at == math.inf
    unlink_queue(name)
    assert wake(consumer)
    consumer.close()


def test_another_change_wakes_once(name: str) -> None:
    """A change of permissions makes the consumer check once, and sleep again."""
    with contextlib.closing(reader(name)) as other:
        consumer = QueueConsumer(lambda: reader(name))
        consumer.refresh(100.0)
        os.fchmod(other.fileno(), 0o640)
        assert wake(consumer)
        assert consumer.refresh_at == -math.inf
        assert not consumer.refresh(100.0)
        assert consumer.refresh_at == math.inf
        assert not wake(consumer)
        consumer.close()


def test_a_removed_queue_is_kept_for_five_seconds(name: str) -> None:
    """What a service puts into it meanwhile is received; then it is closed if it is empty."""
    consumer = QueueConsumer(lambda: reader(name))
    with producer(name) as other:
        descriptors = len(lasting_files())
        unlink_queue(name)
        assert consumer.refresh(100.0)
        assert len(open_files()) == descriptors + 1
        assert consumer.refresh_at == 101.0
        assert not consumer.refresh(104.99)
        other.channel.send(b"x")
        assert consumer.removed_depth == 1
        assert not consumer.refresh(105.0)
        assert consumer.refresh_at == 106.0
        assert ([b"x"], False) == receive(consumer, 2)
        assert consumer.refresh_at == -math.inf
        assert not consumer.refresh(105.0)
        assert len(open_files()) == descriptors
        assert consumer.refresh_at == math.inf
        assert consumer.removed_depth == 0
    consumer.close()


def test_an_event_that_goes_back_tries_five_queues(name: str) -> None:
    """If each is removed before the event is in it, that is an error, and the event is in none."""
    opened = 0

    def open_queue() -> MessageQueue:
        nonlocal opened
        opened += 1
        queue = reader(name, 1)
        unlink_queue(name)
        return queue

    with contextlib.closing(QueueConsumer(open_queue)) as consumer:
        with pytest.raises(EventQueueRemovedError):
            consumer.requeue(b"x", 0.0, 100.0)
        assert opened == 5
        assert consumer.removed_depth == 0


def test_a_consumer_says_what_its_queue_is(name: str) -> None:
    """Its name, capacity, the size of an event, and how many wait; at first nothing is known of the rest."""
    with contextlib.closing(QueueConsumer(lambda: reader(name, 3, 7))) as consumer, producer(name) as other:
        assert (consumer.name, consumer.capacity, consumer.message_size, consumer.depth) == (name, 3, 7, 0)
        assert (consumer.found_empty, consumer.shared) == (False, False)
        assert (consumer.times_full, consumer.take_highest(), consumer.removed_depth) == (0, 0, 0)
        assert consumer.refresh_at == -math.inf
        for depth in (1, 2):
            other.put(b"x")
            assert consumer.depth == depth == consumer.measure()
        assert consumer.times_full == 0
        other.put(b"x")
        assert consumer.measure() == 3
        assert consumer.times_full == 1


def test_a_consumer_that_is_closed_has_no_descriptor(name: str) -> None:
    """Neither of its queue, nor of those that were removed, nor of the watch; it may be closed again."""
    descriptors = lasting_files()
    consumer = QueueConsumer(lambda: reader(name))
    unlink_queue(name)
    consumer.refresh(100.0)
    consumer.close()
    assert open_files() == descriptors
    consumer.close()


def test_a_shared_queue_is_looked_at_every_five_seconds(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """While another one reads it, whose end is logged once; sooner if there are other reasons to look."""
    with (
        contextlib.closing(QueueConsumer(lambda: reader(name))) as first,
        contextlib.closing(QueueConsumer(lambda: reader(name))) as second,
    ):
        found = [second.shared]
        assert not second.refresh(100.0)
        found.append(second.shared)
        assert second.refresh_at == 105.0
        caplog.clear()
        first.close()
        for moment in (105.0, 106.0):
            assert not second.refresh(moment)
            found.append(second.shared)
        assert second.refresh_at == math.inf
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert found == [True, True, False, False]
        third = QueueConsumer(lambda: reader(name))
        unlink_queue(name)
        assert second.refresh(107.0)
        assert second.refresh_at <= 108.0
        third.close()


def test_what_is_not_the_watch_wakes_no_look(name: str) -> None:
    """A poller that finds the queue ready says nothing of its removal."""
    with contextlib.closing(QueueConsumer(lambda: reader(name))) as consumer:
        consumer.refresh(100.0)
        with producer(name) as other:
            other.put(b"x")
        poller = select.poll()
        consumer.register(poller, receiving=False)
        assert poller.poll(0) == []
        consumer.register(poller, receiving=True)
        ((descriptor, _),) = poller.poll(0)
        consumer.handle_ready(descriptor)
        assert consumer.refresh_at == math.inf
