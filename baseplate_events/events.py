"""The queue that a service puts its events on.

Rules:

1. `put` never waits, unless the queue was made with a `put_timeout`, and raises nothing but `EventError`s.
2. What `put` returned for is in the queue; what it raised for isn't.
3. An error names the queue, sizes and types, and never holds or is chained to what an event contains.
4. Reporting metrics can't fail the service.
"""

from __future__ import annotations

import math
import threading
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from .errors import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from .transport.posix import MAX_NAME_SIZE, MessageQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: Bytes that a serialized event may have: the size of a message of the queue, for producers and the
#: publisher. The original's value, as is the next.
MAX_EVENT_SIZE = 102_400

#: Events that a queue holds.
MAX_QUEUE_SIZE = 10_000

#: What the POSIX name of an event queue starts with; shared with the original's publisher.
_PREFIX = "/events-"

#: What a refusal is called in metrics.
_REASONS: dict[type, str] = {
    EventTooLargeError: "too_large",
    EventQueueFullError: "full",
    EventEmptyError: "empty",
    EventNotSerializableError: "not_serializable",
    EventQueueUnavailableError: "unavailable",
}

T_contra = TypeVar("T_contra", contravariant=True)


class Gauge(Protocol):
    """A value of a metrics client that goes up and down."""

    def replace(self, new_value: float, /) -> object:
        """Set the value."""
        ...


class Counter(Protocol):
    """A value of a metrics client that is counted up."""

    def increment(self, delta: float, /) -> object:
        """Count up."""
        ...


class MetricsBatch(Protocol):
    """The part of a metrics client that `report_runtime_metrics` uses."""

    def counter(self, name: str, /) -> Counter:
        """Give the counter of this name."""
        ...

    def gauge(self, name: str, /) -> Gauge:
        """Give the gauge of this name."""
        ...


class ContextFactory(Protocol):
    """What makes an attribute of a request's context, as the original's framework has it."""

    def make_object_for_context(self, name: str, span: object, /) -> object:
        """Make the attribute `name` for the request that `span` measures."""
        ...

    def report_runtime_metrics(self, batch: MetricsBatch, /) -> None:
        """Report the state of the factory; called once in a while."""
        ...


class EventQueue(Generic[T_contra]):
    """A queue to transfer events to the publisher of this host.

    It may be shared between threads, greenlets and forked workers. It can be given to the original's
    framework by `add_to_context` and `configure_context`.

    Args:
        name: The name of the event queue, which says what publisher sends the events: they go through the
            POSIX queue `/events-NAME`. 1 to 247 bytes of UTF-8 without a slash.
        event_serializer: Takes an event and returns it as bytes, ready to be sent to the collector: one of
            `serialize_v2_event`, `serialize_v2j_event` or your own.
        max_queue_size: Events that the queue shall hold if it is made now, 1 to 65,536; one that exists keeps
            its size.
        max_event_size: Bytes that an event may have, 1 to 16 MiB.
        put_timeout: Seconds that `put` waits for room when the queue is full.
        mode: Permission bits of the queue if it is made now. A publisher of another user than the service's
            needs 0o660 and a common group.
        strict_size: Raise `EventQueueLimitError` if the host doesn't allow the full size or the queue exists
            with less, rather than log a warning and go on.

    Raises:
        ValueError: An argument is out of its bounds.
        EventQueueUnavailableError: The queue can't be opened or made; the subclass says why.
    """

    #: What carries the bytes; the queue for tests has one that stays in memory.
    _transport: ClassVar[type[MessageQueue]] = MessageQueue

    def __init__(
        self,
        name: str,
        event_serializer: Callable[[T_contra], bytes],
        *,
        max_queue_size: int = MAX_QUEUE_SIZE,
        max_event_size: int = MAX_EVENT_SIZE,
        put_timeout: float = 0.0,
        mode: int = 0o600,
        strict_size: bool = False,
    ) -> None:
        queue_name = _queue_name(name)
        if not (math.isfinite(put_timeout) and put_timeout >= 0):
            raise ValueError(f"put_timeout must be a finite number of seconds, 0 or more, not {put_timeout}")
        self._name = name
        self._serialize: Callable[[T_contra], object] = event_serializer  # what it really returns is checked
        self._max_event_size = max_event_size
        self._put_timeout = put_timeout
        self._queue: MessageQueue = self._transport(
            queue_name,
            max_messages=max_queue_size,
            max_message_size=max_event_size,
            mode=mode,
            strict_size=strict_size,
            read=False,
        )
        self._lock = threading.Lock()
        self._refused: dict[str, int] = {}
        self._reported: dict[str, int] = {}

    def put(self, event: T_contra) -> None:
        """Add an event to the queue.

        The queue is local to the server this code is run on. The event publisher on the server takes the
        events and sends them to the collector. A queue that was removed is found again or made anew first.

        Args:
            event: The event to send. Its type depends on the serializer.

        Raises:
            EventTooLargeError: The serialized event is too large.
            EventQueueFullError: The queue is full. Events are not being published fast enough.
            EventEmptyError: The event serialized to nothing.
            EventNotSerializableError: The event can't be serialized.
            EventQueueClosedError: The queue was closed.
            EventQueueRemovedError: The queue was removed and can't be made anew.
            EventQueuePermissionError: The queue was made anew by a user who doesn't let this process in.
            EventError: Whatever else the serializer raises of that kind, or is wrong with the queue.
        """
        try:
            message = self._serialize(event)
        except EventError as error:
            self._count(error)
            raise
        except Exception as exc:  # noqa: BLE001 - a serializer may have any bug
            problem = _describe(exc)
        else:
            queue = self._queue
            descriptor = queue.descriptor  # held by this name as long as it is in use
            full = False
            if (
                type(message) is bytes
                and message
                and len(message) <= self._max_event_size
                and ((now := monotonic()) < queue.trusted_until or queue.confirm(now))
            ):
                try:
                    descriptor.send(message)
                except Exception as exc:
                    if not descriptor.refused(exc):
                        raise
                    full = descriptor.is_full(exc)
                else:
                    return
            self._put_slowly(message, full=full)
            return
        # Outside of the handler: not to be chained to an error that may hold what is in the event.
        refusal = EventNotSerializableError("", problem)
        self._count(refusal)
        raise refusal

    def _put_slowly(self, message: object, *, full: bool) -> None:
        """Put what couldn't be sent at once, as the queue was `full` just now or has another problem."""
        try:
            if not (isinstance(message, bytes) and 0 < len(message) <= self._max_event_size):
                raise self._refusal(message)
            queue = self._queue
            if full and not self._put_timeout and queue.confirm(monotonic()):
                raise EventQueueFullError(queue.name, queue.max_messages)
            queue.put(message, self._put_timeout)
        except EventError as error:
            self._count(error)
            raise

    def _count(self, error: EventError) -> None:
        reason = "other"
        for kind in type(error).__mro__:
            if kind in _REASONS:
                reason = _REASONS[kind]
                break
        # No waiting, and no deadlock in a child that was forked meanwhile: a count may get lost instead.
        locked = self._lock.acquire(blocking=False)
        self._refused[reason] = self._refused.get(reason, 0) + 1
        if locked:
            self._lock.release()

    @property
    def refused(self) -> dict[str, int]:
        """How many events `put` has refused in this process, by reason.

        The reasons are `too_large`, `full`, `empty`, `not_serializable`, `unavailable` and `other`; those
        that never occurred are missing.
        """
        return dict(self._refused)

    def _refusal(self, serialized: object) -> EventError:
        """Give the error for what no collector would take."""
        if not isinstance(serialized, bytes):
            problem = f"the event serializer must return bytes, not {type(serialized).__name__}"
            return EventNotSerializableError("", problem)
        if not serialized:
            return EventEmptyError()
        return EventTooLargeError(len(serialized), min(self._max_event_size, self._queue.max_message_size))

    def close(self) -> None:
        """Close the queue; what is in it stays for the publisher. Closing again does nothing."""
        self._queue.close()

    def __enter__(self) -> EventQueue[T_contra]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    def __call__(self, raw: str = "") -> EventQueue[T_contra]:  # noqa: ARG002 - the framework passes it
        """Give the queue itself, whatever `raw` is: that makes it an item of `configure_context`."""
        return self

    def make_object_for_context(self, name: str, span: object) -> EventQueue[T_contra]:  # noqa: ARG002 - as above
        """Give the queue itself, for the context of each request."""
        return self

    def report_runtime_metrics(self, batch: MetricsBatch) -> None:
        """Report how many events wait in the queue, how many it holds, and what `put` refused.

        As the gauges `event_queue.NAME.depth` and `event_queue.NAME.capacity`, and the counters
        `event_queue.NAME.refused.REASON` with what came since the last report (see `refused`). Never raises;
        what can't be reported is left out and logged for debugging.
        """
        try:
            batch.gauge(f"event_queue.{self._name}.depth").replace(self._queue.current_messages)
            batch.gauge(f"event_queue.{self._name}.capacity").replace(self._queue.max_messages)
            for reason, count in self.refused.items():
                news = count - self._reported.get(reason, 0)
                if news:
                    batch.counter(f"event_queue.{self._name}.refused.{reason}").increment(news)
                    self._reported[reason] = count
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a metrics client is no reason to fail
            import logging  # noqa: PLC0415 - a slow import, as in message_queue

            logging.getLogger(__name__).debug(
                "Can't report the metrics of event queue %s (%s)", self._name, type(exc).__name__
            )


def _queue_name(name: str) -> str:
    """Give the POSIX name of an event queue's queue, or a `ValueError` in terms of `name`."""
    longest = MAX_NAME_SIZE - len(_PREFIX)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate
        size = 0
    if not 1 <= size <= longest or "/" in name or "\0" in name:
        raise ValueError(
            f"name must be 1 to {longest} bytes of UTF-8 without a slash or a NUL, such as 'v2', not {name!r}"
        )
    return _PREFIX + name


def _describe(exc: Exception) -> str:
    """Say what a serializer raised, and where, but not its message, which may hold what is in the event."""
    traceback = exc.__traceback__
    frames = 0
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
        frames += 1
    where = ""
    if traceback is not None and frames:  # the first frame is `put` itself; a serializer in C has no other
        code = traceback.tb_frame.f_code
        where = f" at {code.co_filename}:{traceback.tb_lineno} in {code.co_name}"
    return f"{type(exc).__name__} in the event serializer{where}"
