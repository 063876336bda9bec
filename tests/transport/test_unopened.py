from __future__ import annotations

import pytest

from baseplate_events import EventQueueClosedError, EventQueueLimitError, EventQueueUnavailableError
from baseplate_events.transport.posix import MessageQueue
from baseplate_events.transport.unopened import NO_CHANNEL, RETRY_PAUSE, UnopenedTransport
from tests.support.clocks import FakeClock
from tests.support.queues import drain, reader


class Host:
    """A host on which a queue can or can't be opened.

    Attributes:
        error: Why it can't be opened; None if it can.
        attempts: How often that was tried.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: EventQueueUnavailableError | None = EventQueueLimitError(name, "no room")
        self.attempts = 0

    def make(self) -> MessageQueue:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        return MessageQueue(self.name, max_messages=1, max_message_size=1, read=False)

    def unopened(self, clock: FakeClock) -> UnopenedTransport:
        return UnopenedTransport(EventQueueLimitError(self.name, "no room"), self.make, clock)


def test_it_is_opened_once_a_second_at_most(name: str) -> None:
    """Between attempts the last error is repeated, as a new exception each time."""
    clock, host = FakeClock(), Host(name)
    transport = host.unopened(clock)
    errors: list[BaseException] = []
    for second in range(3):
        for _ in range(5):
            with pytest.raises(EventQueueLimitError, match="no room") as caught:
                transport.put(b"x")
            errors.append(caught.value)
        assert host.attempts == second
        clock.now += RETRY_PAUSE
    assert len({id(error) for error in errors}) > 3
    host.error = EventQueueUnavailableError(name, "something else")
    for _ in range(2):
        with pytest.raises(EventQueueUnavailableError, match="something else"):
            transport.put_many([b"x"], 0.0)


def test_what_was_opened_is_used(name: str) -> None:
    """Once the host has room, events are put."""
    clock, host = FakeClock(), Host(name)
    transport = host.unopened(clock)
    host.error = None
    clock.now += RETRY_PAUSE
    with reader(name) as queue:
        transport.put(b"x")
        assert [b"x"] == drain(queue)


def test_a_closed_one_is_never_opened(name: str) -> None:
    """A closed transport isn't opened, even if another thread is just opening it."""
    clock, host = FakeClock(), Host(name)
    transport = host.unopened(clock)

    def make() -> MessageQueue:
        made = MessageQueue(name, max_messages=1, max_message_size=1, read=False)
        transport.close()
        opened.append(made)
        return made

    opened: list[MessageQueue] = []
    transport = UnopenedTransport(EventQueueLimitError(name, "no room"), make, clock)
    clock.now += RETRY_PAUSE
    with pytest.raises(EventQueueClosedError):
        transport.open()
    with pytest.raises(EventQueueClosedError):
        opened[0].put(b"x")
    with pytest.raises(EventQueueClosedError):
        transport.put(b"x")
    assert host.attempts == 0


def test_it_has_nothing_to_send_through_and_nothing_to_measure(name: str) -> None:
    """The fast path of `EventQueue.put` always falls back to the slow one."""
    transport = Host(name).unopened(FakeClock())
    assert not transport.confirm(1e9)
    assert transport.trusted_until == 0.0
    assert {} == transport.gauges()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - `refused` says which
        NO_CHANNEL.send(b"x")
    assert NO_CHANNEL.refused(caught.value)
    assert not NO_CHANNEL.refused(ValueError())
    assert not NO_CHANNEL.is_full(caught.value)
