"""The queue that a service puts its events on.

Rules:

1. `put` doesn't wait for room, unless the queue was made with a `put_timeout`, and raises nothing but
   `EventError`s. (With a spool, a busy disk may hold it up.)
2. If `put` returns, the event is in the queue; if it raises an `EventError`, it isn't. After a `put_many`
   that failed, the first `events_put` events are.
3. An error names the queue, sizes and types, and never holds or is chained to what an event contains.
4. Reporting metrics can't fail the service.
"""

from __future__ import annotations

import math
import os
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from .errors import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from .refusals import RefusalCounts
from .serializers import event_format_of
from .spool import MIN_SPOOL_SIZE
from .transport.posix import MAX_NAME_SIZE, MessageQueue, check_arguments
from .transport.unopened import UnopenedTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .spool.directory import SpoolDirectory
    from .transport import Transport

#: Bytes that a serialized event may have: the size of a message of the queue, for producers and the
#: publisher. The original's value, as is the next.
MAX_EVENT_SIZE = 102_400

#: Events that a queue holds.
MAX_QUEUE_SIZE = 10_000

#: Bytes of undelivered events that a spool holds.
MAX_SPOOL_SIZE = 1024 * 1024 * 1024

#: Environment variable with the directory for the spools of services.
SPOOL_VARIABLE = "EVENT_SPOOL_DIRECTORY"

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


class QueueArguments(NamedTuple):
    """The arguments of an `EventQueue` that say what to open; `EventQueue` has their meaning.

    Attributes:
        posix_name: The name of its POSIX queue.
        max_queue_size: Events that it holds.
        max_event_size: Bytes that an event may have.
        mode: Permission bits.
        strict_size: Whether less than the full size is an error.
        spool: Where its spool is to be; None for a POSIX queue.
        max_spool_size: Bytes that its spool holds.
        event_format: The `collector.version` that its events are for, or `unknown`.
    """

    posix_name: str
    max_queue_size: int
    max_event_size: int
    mode: int
    strict_size: bool
    spool: SpoolDirectory | None
    max_spool_size: int
    event_format: str


class EventQueue(Generic[T_contra]):
    """A queue to transfer events to the publisher of this host, or of this pod.

    It may be shared between threads, greenlets and forked workers. It can be given to the original's
    framework by `add_to_context` and `configure_context`.

    Events go through a POSIX message queue of the kernel or, with a `spool_directory`, through files in a
    directory that the service shares with the publisher. If the queue can't be opened, the constructor logs
    why and returns; `put` raises `EventQueueUnavailableError`, and tries again once a second at most.

    Args:
        name: The name of the event queue, which selects the publisher: events go through the POSIX queue
            `/events-NAME`, or the folder `events-NAME` in `spool_directory`. 1 to 247 bytes of UTF-8 without
            a slash.
        event_serializer: Takes an event and returns it as bytes, ready to be sent to the collector: one of
            `serialize_v2_event`, `serialize_v2j_event` or your own.
        max_queue_size: Events that the POSIX queue shall hold if it is made now, 1 to 65,536; one that exists
            keeps its size.
        max_event_size: Bytes that an event may have, 1 to 16 MiB.
        put_timeout: Seconds that `put` waits for room when the queue is full. After a wait times out, later
            puts fail at once while the queue is full, until one has found room. A spool looks for room four
            times a second.
        mode: Permission bits of the queue if it is made now. If service and publisher run as different users,
            0o660 and a common group. A spool takes only 0o600 and 0o660.
        strict_size: Raise if the queue can't be opened or is smaller than requested, instead of logging it.
        spool_directory: The directory that services and publisher share, on a local disk; it must exist. The
            default is the environment variable EVENT_SPOOL_DIRECTORY; without either, a POSIX queue is used.
        max_spool_size: Bytes of undelivered events that the spool holds, 1 MiB or more. Each process that
            puts may exceed it by one segment (1/256 of it, at least 256 KiB) or one event, if that is larger.

    Raises:
        ValueError: An argument is out of its bounds.
        EventQueueUnavailableError: With `strict_size`: the queue can't be opened, or is smaller than
            requested; the subclass says why.
    """

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
        spool_directory: str | os.PathLike[str] | None = None,
        max_spool_size: int = MAX_SPOOL_SIZE,
    ) -> None:
        posix_name = _posix_name(name)
        check_arguments(posix_name, max_queue_size, max_event_size, mode)
        if not (math.isfinite(put_timeout) and put_timeout >= 0):
            raise ValueError(f"put_timeout must be a finite number of seconds, 0 or more, not {put_timeout}")
        if not max_spool_size >= MIN_SPOOL_SIZE:
            raise ValueError(
                f"max_spool_size must be {MIN_SPOOL_SIZE:,} bytes or more, not {max_spool_size:,}"
            )
        arguments = QueueArguments(
            posix_name=posix_name,
            max_queue_size=max_queue_size,
            max_event_size=max_event_size,
            mode=mode,
            strict_size=strict_size,
            spool=_find_spool(name, spool_directory, mode),
            max_spool_size=max_spool_size,
            event_format=event_format_of(event_serializer),
        )
        self._name = name
        self._serialize: Callable[[T_contra], object] = event_serializer  # what it really returns is checked
        self._max_event_size = max_event_size
        self._put_timeout = put_timeout
        # Bytes up to which `put` tries the fast way; -1 from a wait in vain until a put finds room.
        self._fast_limit = max_event_size
        self._refusals = RefusalCounts()
        self._reported: dict[str, int] = {}
        make = partial(self._open, arguments)
        self._queue: Transport
        try:
            self._queue = make()
        except EventQueueUnavailableError as error:
            if strict_size:
                raise
            _log_unopened(error)
            self._queue = UnopenedTransport(error, make)

    def _open(self, arguments: QueueArguments) -> Transport:
        """Open what carries the bytes; the queue for tests has something in memory."""
        if arguments.spool is None:
            return MessageQueue(
                arguments.posix_name,
                max_messages=arguments.max_queue_size,
                max_message_size=arguments.max_event_size,
                mode=arguments.mode,
                strict_size=arguments.strict_size,
                read=False,
            )
        from .transport.spool import SpoolTransport  # noqa: PLC0415 - most services have a POSIX queue

        arguments.spool.prepare()
        return SpoolTransport(
            arguments.spool,
            arguments.event_format,
            max_size=arguments.max_spool_size,
            max_message_size=arguments.max_event_size,
            refusals=self._refusals,
        )

    def put(self, event: T_contra) -> None:
        """Add an event to the queue.

        The queue is local to the server this code is run on. The event publisher on the server takes the
        events and sends them to the collector. A queue that was removed is found again or recreated first.

        Args:
            event: The event to send. Its type depends on the serializer.

        Raises:
            EventTooLargeError: The serialized event is too large.
            EventQueueFullError: The queue is full. Events are not being published fast enough.
            EventEmptyError: The event serialized to nothing.
            EventNotSerializableError: The event can't be serialized.
            EventQueueClosedError: The queue was closed.
            EventQueueRemovedError: The queue was removed and can't be recreated.
            EventQueuePermissionError: The queue was recreated by a user who doesn't let this process in.
            EventQueueUnavailableError: The queue couldn't be opened yet, or can't be used.
            EventError: Whatever else the serializer raises of that kind.
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
            channel = queue.channel  # held by this name as long as it is in use
            full = False
            if (
                type(message) is bytes
                and message
                and len(message) <= self._fast_limit
                and ((now := monotonic()) < queue.trusted_until or queue.confirm(now))
            ):
                try:
                    channel.send(message)
                except Exception as exc:
                    if not channel.refused(exc):
                        raise
                    full = channel.is_full(exc)
                else:
                    return
            self._put_slowly(message, full=full)
            return
        # Outside of the handler: not to be chained to an error that may hold what is in the event.
        refusal = EventNotSerializableError("", problem)
        self._count(refusal)
        raise refusal

    def put_many(self, events: Iterable[T_contra]) -> None:
        """Add events to the queue, in order, with as few system calls as possible.

        All are serialized first: if one can't be, none is put. `put_timeout` is for all of them together.

        Args:
            events: The events to send, any number.

        Raises:
            EventError: As `put` does. The first `events_put` events are in the queue, the others aren't; all
                of those are counted as refused, for the reason of the error.
        """
        all_events = list(events)
        try:
            messages = [self._serialized(event) for event in all_events]
            if messages:
                self._put(messages)
        except EventError as error:
            self._count(error, len(all_events) - error.events_put)
            raise

    def _serialized(self, event: T_contra) -> bytes:
        """Return an event as bytes that the queue can take."""
        try:
            message = self._serialize(event)
        except EventError:
            raise
        except Exception as exc:  # noqa: BLE001 - a serializer may have any bug
            problem = _describe(exc)
        else:
            return self._checked(message)
        # Outside of the handler, as in `put`.
        raise EventNotSerializableError("", problem)

    def _put_slowly(self, message: object, *, full: bool) -> None:
        """Put what couldn't be sent at once, as the queue was `full` just now or has another problem."""
        try:
            checked = self._checked(message)
            queue = self._queue
            if full and not self._put_timeout and queue.confirm(monotonic()):
                raise queue.full()
            self._put([checked])
        except EventError as error:
            self._count(error)
            raise

    def _put(self, messages: list[bytes]) -> None:
        """Put messages, and wait for room if that is wanted and the last wait wasn't in vain."""
        queue = self._queue
        if isinstance(queue, UnopenedTransport):
            queue = self._queue = queue.open()
        timeout = 0.0 if self._fast_limit < 0 else self._put_timeout
        try:
            if len(messages) == 1:
                queue.put(messages[0], timeout)
            else:
                queue.put_many(messages, timeout)
        except EventQueueFullError:
            if timeout:
                # From now on no put takes the fast way, so that the first one that finds room comes by here.
                self._fast_limit = -1
            raise
        self._fast_limit = self._max_event_size

    def _checked(self, message: object) -> bytes:
        """Return what a serializer returned, or raise the error for what no collector would take."""
        if not isinstance(message, bytes):
            problem = f"the event serializer must return bytes, not {type(message).__name__}"
            raise EventNotSerializableError("", problem)
        if not message:
            raise EventEmptyError
        if len(message) > self._max_event_size:
            limit = self._queue.max_message_size or self._max_event_size
            raise EventTooLargeError(len(message), min(self._max_event_size, limit))
        return message

    def _count(self, error: EventError, number: int = 1) -> None:
        reason = "other"
        for kind in type(error).__mro__:
            if kind in _REASONS:
                reason = _REASONS[kind]
                break
        self._refusals.count(reason, number)
        self._queue.trusted_until = 0.0  # so that the next put reports it, if the transport can

    @property
    def refused(self) -> dict[str, int]:
        """How many events `put` and `put_many` have refused in this process, by reason.

        The reasons are `too_large`, `full`, `empty`, `not_serializable`, `unavailable` and `other`; those
        that never occurred are missing. A forked process starts without any.
        """
        return self._refusals.totals

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
        """Report how much is in the queue, how much it holds, and what was refused.

        As the gauges `event_queue.NAME.depth` and `event_queue.NAME.capacity`, in events, or for a spool
        `event_queue.NAME.spool_size` and `event_queue.NAME.spool_max_size`, in bytes; and as the counters
        `event_queue.NAME.refused.REASON` with what came since the last report (see `refused`). Never raises;
        what can't be reported is left out and logged for debugging.
        """
        try:
            for reason, count in self.refused.items():
                news = count - self._reported.get(reason, 0)
                if news > 0:
                    batch.counter(f"event_queue.{self._name}.refused.{reason}").increment(news)
                self._reported[reason] = count
            for gauge, value in self._queue.gauges().items():
                batch.gauge(f"event_queue.{self._name}.{gauge}").replace(value)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with a metrics client is no reason to fail
            import logging  # noqa: PLC0415 - a slow import, as in message_queue

            logging.getLogger(__name__).debug(
                "Can't report the metrics of event queue %s (%s)", self._name, type(exc).__name__
            )


def _find_spool(name: str, directory: str | os.PathLike[str] | None, mode: int) -> SpoolDirectory | None:
    """Return where the spool of a queue is to be, or None if there shall be none; raise a `ValueError`."""
    if directory is None:
        path = os.environ.get(SPOOL_VARIABLE, "").strip()
        if not path:
            return None
    else:
        path = os.fspath(directory)
        if not path:
            raise ValueError(
                "spool_directory must be the path of a directory, not ''; leave it out for a POSIX queue"
            )
    from .spool.directory import SpoolDirectory  # noqa: PLC0415 - most services have a POSIX queue

    try:
        return SpoolDirectory(os.path.abspath(path), name, mode=mode)  # noqa: PTH100 - pathlib is slow to import
    except ValueError as exc:
        problem = f"{exc}; there is a spool because of spool_directory or the variable {SPOOL_VARIABLE}"
        raise ValueError(problem) from None


def _log_unopened(error: EventQueueUnavailableError) -> None:
    import logging  # noqa: PLC0415 - a slow import, as in message_queue

    logging.getLogger(__name__).error(
        "Can't open an event queue; events are refused until that works: %s", error
    )


def _posix_name(name: str) -> str:
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
