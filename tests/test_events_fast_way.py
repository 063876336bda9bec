"""Which calls of a transport an `EventQueue` makes, and with what: `put` can't afford more than it needs."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from baseplate_events import (
    EventEmptyError,
    EventNotSerializableError,
    EventQueue,
    EventQueueClosedError,
    EventQueueFullError,
    EventTooLargeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from baseplate_events.queue_settings import QueueArguments
    from baseplate_events.transport import Channel, Transport

LIMIT = 20


class FullError(Exception):
    """Raised by a send that finds no room."""


class Recorder:
    """A transport, and its channel, that notes each call."""

    name = "recorder"
    max_message_size = LIMIT

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.trusted_until: float = math.inf
        self.is_confirmed = True
        self.room = math.inf

    @property
    def channel(self) -> Channel:
        return self

    def send(self, message: bytes) -> None:
        self.calls.append("send")
        self.take(message)

    def take(self, message: bytes) -> None:
        del message
        if self.room < 1:
            raise FullError
        self.room -= 1

    def refused(self, exc: Exception) -> bool:
        return isinstance(exc, FullError)

    def is_full(self, exc: Exception) -> bool:
        return isinstance(exc, FullError)

    def confirm(self, now: float) -> bool:
        del now
        self.calls.append("confirm")
        return self.is_confirmed

    def put(self, message: bytes, timeout: float = 0.0) -> None:
        self.calls.append(("put", timeout))
        try:
            self.take(message)
        except FullError:
            raise self.full() from None

    def put_many(self, messages: Sequence[bytes], timeout: float) -> None:
        self.calls.append(("put_many", len(messages), timeout))
        for index, message in enumerate(messages):
            try:
                self.take(message)
            except FullError:
                error = self.full()
                error.events_put = index
                raise error from None

    def full(self) -> EventQueueFullError:
        return EventQueueFullError(self.name, 1)

    def gauges(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        self.calls.append("close")


class RecordedQueue(EventQueue[bytes]):
    """A queue of events that goes into a recorder."""

    def _open(self, arguments: QueueArguments) -> Transport:
        del arguments
        self.recorder = Recorder()
        return self.recorder

    def take_calls(self) -> list[object]:
        """Return the calls since the last time."""
        calls, self.recorder.calls = self.recorder.calls, []
        return calls


def make(put_timeout: float = 0.0) -> RecordedQueue:
    """Make a queue that takes events as they are."""
    return RecordedQueue("name", bytes, max_event_size=LIMIT, put_timeout=put_timeout)


def refused(put: Callable[[], None], error: type[Exception]) -> Exception:
    """Return the error of a put."""
    with pytest.raises(error) as caught:
        put()
    return caught.value


@pytest.mark.parametrize("event", [b"{}", b"{x}", b"{%b}" % (b"x" * (LIMIT - 2))])
def test_a_put_is_one_call(event: bytes) -> None:
    """A send, if the channel is trusted; if it isn't, it is confirmed first."""
    queue = make()
    queue.put(event)
    assert queue.take_calls() == ["send"]
    queue.recorder.trusted_until = 0.0
    queue.put(event)
    assert queue.take_calls() == ["confirm", "send"]
    queue.recorder.is_confirmed = False
    queue.put(event)
    assert queue.take_calls() == ["confirm", ("put", 0.0)]
    assert (queue.counters().put, queue.refused) == (3, {})


def test_what_is_in_blanks_goes_the_slow_way() -> None:
    """It is looked at longer, and put."""
    queue = make()
    for event in (b" {}", b"{} ", b"\t{}\r\n", b' {"x":1}', b'{"x":1}\n'):
        queue.put(event)
        assert queue.take_calls() == [("put", 0.0)]


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"", EventEmptyError),
        (b"{", EventNotSerializableError),
        (b"}", EventNotSerializableError),
        (b"{x", EventNotSerializableError),
        (b"x}", EventNotSerializableError),
        (b"}{", EventNotSerializableError),
        (b"{}x", EventNotSerializableError),
        (b"{x}y", EventNotSerializableError),
        (b"x{}", EventNotSerializableError),
        (b"{%b}" % (b"x" * (LIMIT - 1)), EventTooLargeError),
    ],
)
def test_what_is_refused_is_no_call(event: bytes, error: type[Exception]) -> None:
    """It is counted once, and the channel isn't trusted afterwards, so that the next put can report it."""
    queue = make()
    refused(lambda: queue.put(event), error)
    assert queue.take_calls() == []
    assert (sum(queue.refused.values()), queue.counters().put) == (1, 0)
    assert queue.recorder.trusted_until == 0.0
    refused(lambda: queue.put_many([b"{}", event, b"{}"]), error)
    assert queue.take_calls() == []
    assert (sum(queue.refused.values()), queue.counters().put) == (4, 0)


def test_a_full_queue_is_found_by_the_send() -> None:
    """Without a timeout nothing else is tried, except that the queue is the right one."""
    queue = make()
    queue.recorder.room = 0
    refused(lambda: queue.put(b"{}"), EventQueueFullError)
    assert queue.take_calls() == ["send", "confirm"]
    queue.recorder.is_confirmed = False
    queue.recorder.trusted_until = math.inf
    refused(lambda: queue.put(b"{}"), EventQueueFullError)
    assert queue.take_calls() == ["send", "confirm", ("put", 0.0)]
    assert queue.refused == {"full": 2}
    assert queue.try_put(b"{}") is False
    queue.recorder.room = 1
    assert queue.try_put(b"{}") is True


def test_a_put_waits_until_a_wait_was_in_vain() -> None:
    """Then no put waits, and none is sent at once, until one has found room."""
    queue = make(put_timeout=5.0)
    queue.put(b"{}")
    assert queue.take_calls() == ["send"]
    queue.recorder.room = 0
    refused(lambda: queue.put(b"{}"), EventQueueFullError)
    assert queue.take_calls() == ["send", ("put", 5.0)]
    for _ in range(2):
        queue.recorder.trusted_until = math.inf
        refused(lambda: queue.put(b"{}"), EventQueueFullError)
        assert queue.take_calls() == [("put", 0.0)]
    queue.recorder.room = 10
    queue.put(b"{}")
    assert queue.take_calls() == [("put", 0.0)]
    queue.recorder.trusted_until = math.inf
    queue.put(b"{}")
    assert queue.take_calls() == ["send"]


def test_a_put_without_a_timeout_stays_fast() -> None:
    """A full queue changes nothing for the next put."""
    queue = make()
    queue.recorder.room = 0
    refused(lambda: queue.put(b"{}"), EventQueueFullError)
    refused(lambda: queue.put_many([b"{}"]), EventQueueFullError)
    queue.recorder.room = 1
    queue.recorder.trusted_until = math.inf
    queue.take_calls()
    queue.put(b"{}")
    assert queue.take_calls() == ["send"]


@pytest.mark.parametrize(
    ("count", "call"), [(1, ("put", 5.0)), (2, ("put_many", 2, 5.0)), (3, ("put_many", 3, 5.0))]
)
def test_many_are_put_at_once(count: int, call: tuple[object, ...]) -> None:
    """In one call; none for none. What was put before there was no room is counted as put."""
    queue = make(put_timeout=5.0)
    queue.put_many([])
    assert queue.take_calls() == []
    queue.put_many([b"{}"] * count)
    assert queue.take_calls() == [call]
    assert (queue.counters().put, queue.refused) == (count, {})
    queue.recorder.room = count - 1
    error = refused(lambda: queue.put_many([b"{}"] * count), EventQueueFullError)
    assert isinstance(error, EventQueueFullError)
    assert error.events_put == count - 1
    assert (queue.counters().put, queue.refused) == (2 * count - 1, {"full": 1})


def test_what_is_too_large_names_the_smaller_limit() -> None:
    """That of the queue that exists, if it has one, or the one that was asked for."""
    for limit, expected in ((LIMIT - 5, LIMIT - 5), (LIMIT + 5, LIMIT), (0, LIMIT)):
        queue = make()
        queue.recorder.max_message_size = limit
        error = refused(partial(queue.put, b"{%b}" % (b"x" * LIMIT)), EventTooLargeError)
        assert isinstance(error, EventTooLargeError)
        assert error.limit == expected


def test_the_defaults_are_those_of_the_documentation() -> None:
    """No wait, a queue for its owner only, and no error for its size."""
    init: Any = vars(EventQueue)["__init__"]
    parameters = inspect.signature(init).parameters
    names = ("put_timeout", "mode", "strict_size", "enabled")
    assert [parameters[name].default for name in names] == [0.0, 0o600, False, None]


def test_a_queue_can_be_sent_until_it_is_closed() -> None:
    """To a worker, which opens it with the same arguments."""
    queue = make(put_timeout=5.0)
    reopen, arguments = queue.__reduce__()
    assert callable(reopen)
    assert isinstance(arguments, tuple)
    again = reopen(*arguments)
    assert isinstance(again, RecordedQueue)
    again.recorder.trusted_until = 0.0
    again.recorder.is_confirmed = False
    again.put(b"{}")
    assert again.take_calls() == ["confirm", ("put", 5.0)]
    for _ in range(2):
        queue.close()
        assert queue.take_calls() == ["close"]
        with pytest.raises(EventQueueClosedError):
            queue.__reduce__()
