"""The queue that a service puts its events on.

Rules:

1. `put` doesn't wait for room, unless the queue was created with a `put_timeout`, and raises only
   `EventError`s. (With a spool, a busy disk may delay it.)
2. If `put` returns, the event is in the queue; if it raises an `EventError`, it isn't. After a `put_many`
   that failed, the first `events_put` events are.
3. An error names the queue, sizes and types. It never contains, and is never chained to, the content of an
   event.
4. Reporting metrics and logging can't fail the service.
"""

from __future__ import annotations

import os  # noqa: TC003 - for typing.get_type_hints, as the next
from collections.abc import Callable, Iterable  # noqa: TC003
from time import monotonic
from types import TracebackType  # noqa: TC003
from typing import Generic, TypeVar

from .counting.counters import MANY
from .counting.reasons import describe_failure, reason_of
from .counting.refusal_log import RefusalLog, log_ignored, log_switched_off, log_unopened
from .errors import (
    TOO_MANY_FILES,
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)
from .observed_queue import ObservedQueue
from .queue_settings import (
    ENABLED_VARIABLE,
    MAX_EVENT_SIZE,
    MAX_QUEUE_SIZE,
    MAX_SPOOL_SIZE,
    SPOOL_VARIABLE,
    EventQueueSettings,
    QueueArguments,
    check_serializer,
    check_settings,
    find_spool_directory,
    find_switch,
    parse_switch,
)
from .transport import Transport  # noqa: TC001
from .transport.opening import open_transport
from .transport.unopened import UnopenedTransport

__all__ = [
    "ENABLED_VARIABLE",
    "MAX_EVENT_SIZE",
    "MAX_QUEUE_SIZE",
    "MAX_SPOOL_SIZE",
    "SPOOL_VARIABLE",
    "EventQueue",
]

#: The first and last byte of a JSON object; every event is one.
_OPENS = ord("{")
_CLOSES = ord("}")

T_contra = TypeVar("T_contra", contravariant=True)


class EventQueue(ObservedQueue, Generic[T_contra]):
    """A queue to transfer events to the publisher of this host, or of this pod.

    Threads, greenlets and forked workers may share it. Add it to baseplate.py's framework with
    `add_to_context` and `configure_context`.

    Events go through a POSIX message queue of the kernel or, with a `spool_directory`, through files in a
    directory that the service shares with the publisher. If the queue can't be opened, the constructor logs
    why and returns; `put` raises `EventQueueUnavailableError`, and tries to open it at most once a second.

    Args:
        name: The name of the event queue, which selects the publisher: events go through the POSIX queue
            `/events-NAME`, or the folder `events-NAME` in `spool_directory`. 1 to 247 bytes of UTF-8 without
            a slash.
        event_serializer: Returns an event as the bytes to send to the collector: one of
            `serialize_v2_event`, `serialize_v2j_event` or your own.
        max_queue_size: Events that the POSIX queue holds if this call creates it, 1 to 65,536; an existing
            queue keeps its size.
        max_event_size: Largest serialized event in bytes, 1 to 16 MiB.
        put_timeout: Seconds that `put` waits for room when the queue is full. After a wait times out, later
            puts fail immediately while the queue is full, until one succeeds. A spool checks for room four
            times a second.
        mode: Permission bits of the queue if this call creates it. If service and publisher run as different
            users, use 0o660 and a common group. A spool accepts only 0o600 and 0o660.
        strict_size: Raise if the queue can't be opened or is smaller than requested, instead of logging it.
        spool_directory: The directory that services and publisher share, on a local disk; it must exist. The
            default is the environment variable EVENT_SPOOL_DIRECTORY; without either, a POSIX queue is used.
        max_spool_size: Bytes of undelivered events that the spool holds, 1 MiB or more. Each process that
            puts may exceed it by one segment (1/256 of it, at least 256 KiB), or by one larger event.
        enabled: False switches the queue off, for development: nothing is opened; `put` accepts and discards
            every event without serializing it, and never fails; `counters` counts them. The default is
            the environment variable EVENT_QUEUES_ENABLED (`on` or `off`), and True if that isn't set.

    Raises:
        ValueError: An argument is out of bounds.
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
        enabled: bool | None = None,
    ) -> None:
        settings = EventQueueSettings(
            name=name,
            max_queue_size=max_queue_size,
            max_event_size=max_event_size,
            put_timeout=put_timeout,
            mode=mode,
            strict_size=strict_size,
            spool_directory=find_spool_directory(spool_directory),
            max_spool_size=max_spool_size,
            enabled=find_switch(enabled),
        )
        self._set_up(settings, event_serializer)

    def _set_up(self, settings: EventQueueSettings, event_serializer: Callable[[T_contra], bytes]) -> None:
        """Set up the queue; also called for a copy in another process, with the same settings."""
        self._settings = settings
        self._event_serializer = event_serializer
        self._observe(settings.name)
        self._serialize: Callable[[T_contra], object] = event_serializer  # its result is checked at run time
        self._max_event_size = settings.max_event_size
        self._put_timeout = settings.put_timeout
        # Largest message for the fast path of `put`; 0 after a wait timed out, until a put succeeds.
        self._fast_limit = settings.max_event_size
        self._refusal_log = RefusalLog(settings.name, self._refusals)
        self._count_afresh()
        self._closed = False
        if not settings.enabled:
            check_settings(settings, event_serializer)
            self._switch_off()
            return
        try:
            self._queue = self._make()
        except EventQueueUnavailableError as error:
            if settings.strict_size:
                raise
            log_unopened(error)
            self._queue = UnopenedTransport(error, self._make)

    def _switch_off(self) -> None:
        from .transport.discarding import (  # noqa: PLC0415 - production doesn't need it
            DiscardingTransport,
            serialize_nothing,
        )

        self._settings = self._settings._replace(enabled=False)
        # The order matters: a put in another thread finds a usable transport at every moment.
        self._max_event_size = max(self._max_event_size, DiscardingTransport.max_message_size)
        self._fast_limit = self._max_event_size
        self._count_afresh()
        self._queue = DiscardingTransport(self._name)
        self._serialize = serialize_nothing
        log_switched_off(self._name)

    def _make(self) -> Transport:
        """Check the arguments, and open the transport."""
        settings = self._settings
        try:
            return self._open(check_settings(settings, self._event_serializer))
        except (ImportError, OSError) as exc:  # a module that is loaded now can't be
            problem = TOO_MANY_FILES.get(getattr(exc, "errno", 0), f"it can't be opened ({exc})")
            path = f"{settings.spool_directory or ''}/events-{settings.name}"
            raise EventQueueUnavailableError(path, problem) from exc

    def _open(self, arguments: QueueArguments) -> Transport:
        """Open the transport; the in-memory queue for tests overrides this."""
        return open_transport(arguments, self._refusals)

    def put(self, event: T_contra) -> None:
        """Add an event to the queue.

        The queue is local to this host. Its event publisher reads the events and sends them to the collector.
        If the queue was removed, it is reopened or recreated first.

        Args:
            event: The event to send. Its type depends on the serializer.

        Raises:
            EventTooLargeError: The serialized event is too large.
            EventQueueFullError: The queue is full. Events are not being published fast enough.
            EventEmptyError: The event serialized to nothing.
            EventNotSerializableError: The event can't be serialized, or the serializer returned something
                that doesn't begin and end like a JSON object.
            EventQueueClosedError: The queue was closed.
            EventQueueRemovedError: The queue was removed and can't be recreated.
            EventQueuePermissionError: The queue was recreated by another user, and this process may not use
                it.
            EventQueueUnavailableError: The queue can't be opened or used.
            EventError: Any other EventError that the serializer raises.
        """
        try:
            message = self._serialize(event)
        except EventError as error:
            self._count(error)
            raise
        except Exception as exc:  # noqa: BLE001 - a serializer may have any bug
            problem = describe_failure(exc)
        else:
            queue = self._queue
            channel = queue.channel  # this reference keeps it open while it is in use
            if (
                type(message) is bytes
                and message
                and message[0] == self._opens[1]  # see `_count_afresh`
                and message[-1] == _CLOSES
                and len(message) <= self._fast_limit
                and ((now := monotonic()) < queue.trusted_until or self._confirm(queue, now))
            ):
                try:
                    channel.send(message)
                except Exception as exc:
                    if not channel.refused(exc):
                        raise
                    full = channel.is_full(exc)
                else:
                    self._fresh.append(None)
                    return
                self._put_slowly(message, full=full)
                return
            self._put_slowly(message, full=False)
            return
        # Raised outside the handler, so that it isn't chained to an error that may contain the event.
        refusal = EventNotSerializableError("", problem)
        self._count(refusal)
        raise refusal

    def _confirm(self, queue: Transport, now: float) -> bool:
        """Do what isn't done for each put."""
        if len(self._fresh) > MANY:
            self._taken.add_up()
        return queue.confirm(now)

    def try_put(self, event: T_contra) -> bool:
        """Add an event to the queue as `put` does, but return False on failure instead of raising.

        Refused events are counted and logged as warnings: the first one immediately, then at most one warning
        in ten seconds, with the counts and reasons since the last one.

        Args:
            event: The event to send. Its type depends on the serializer.

        Returns:
            Whether the event is in the queue, or was discarded by a queue that is switched off.
        """
        try:
            self.put(event)
        except EventError as error:
            self._refusal_log.note(error)
            return False
        if self._refusal_log.pending:
            self._refusal_log.recovered()
        return True

    def put_many(self, events: Iterable[T_contra]) -> None:
        """Add events to the queue, in order and with as few system calls as possible.

        All events are serialized first; if one can't be, none is put. `put_timeout` applies to the call as a
        whole.

        Args:
            events: The events to send, any number.

        Raises:
            EventError: As for `put`. The first `events_put` events are in the queue, the others aren't; all
                of the others count as refused, for the reason of the error.
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
        """Return the serialized event, checked."""
        try:
            message = self._serialize(event)
        except EventError as error:
            error.events_put = 0  # it may come from another queue, if the serializer puts there
            raise
        except Exception as exc:  # noqa: BLE001 - a serializer may have any bug
            problem = describe_failure(exc)
        else:
            return self._checked(message)
        # Outside the handler, as in `put`.
        raise EventNotSerializableError("", problem)

    def _put_slowly(self, message: object, *, full: bool) -> None:
        """Put a message whose first try failed: the queue was `full`, or has another problem."""
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
        """Put messages; wait for room if `put_timeout` allows and the last wait didn't time out."""
        queue = self._queue
        if isinstance(queue, UnopenedTransport):
            queue = self._queue = queue.open()
            if self._closed:  # closed in the meantime by another thread, which saw only the placeholder
                queue.close()
        timeout = self._put_timeout if self._fast_limit else 0.0
        try:
            if len(messages) == 1:
                (message,) = messages
                queue.put(message, timeout)
            else:
                queue.put_many(messages, timeout)
        except EventError as error:
            self._taken.add(error.events_put)
            if timeout and isinstance(error, EventQueueFullError):
                # Close the fast path, so that the first put that succeeds passes here and reopens it.
                self._fast_limit = 0
            raise
        self._taken.add(len(messages))
        self._fast_limit = self._max_event_size
        self._count_afresh()

    def _count_afresh(self) -> None:
        """Have `put` count what the transport takes from now on, in this process.

        In a forked child, the byte that `put` compares events with is 0. So its first put comes by here.
        """
        self._fresh = self._taken.fresh
        self._opens[1] = _OPENS  # at last: other threads use `_fresh` from now on

    def _checked(self, message: object) -> bytes:
        """Return the serializer's result, or raise the error for what no collector accepts."""
        if not isinstance(message, bytes):
            problem = f"the event serializer must return bytes, not {type(message).__name__}"
            raise EventNotSerializableError("", problem)
        if not message:
            raise EventEmptyError
        if not (message[0] == _OPENS and message[-1] == _CLOSES) and not _may_be_object(message):
            problem = (
                "the event serializer must return a JSON object, as formats 2 and 2j require, but its result "
                "doesn't begin with { and end with }"
            )
            raise EventNotSerializableError("", problem)
        if len(message) > self._max_event_size:
            limit = self._queue.max_message_size or self._max_event_size
            raise EventTooLargeError(len(message), min(self._max_event_size, limit))
        return message

    def _count(self, error: EventError, number: int = 1) -> None:
        self._refusals.count(reason_of(error), number)
        self._queue.trusted_until = 0.0  # so that the next put reports the refusal, if the transport can

    def close(self) -> None:
        """Close the queue; its events stay for the publisher. Closing it again does nothing."""
        self._closed = True
        self._queue.close()
        self._refusal_log.close()

    def __enter__(self) -> EventQueue[T_contra]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the queue as its arguments, so that a worker opens it by name.

        This lets `spawn` and `forkserver` send it. The worker's counters start at 0, and its environment
        doesn't change the transport. A subclass with attributes of its own has to extend this method.

        Raises:
            EventQueueClosedError: The queue was closed.
            pickle.PicklingError: The serializer can't be sent; the message says what to do.
        """
        if self._closed:
            raise EventQueueClosedError(self._queue.name)
        check_serializer(self._name, self._event_serializer)
        return type(self)._reopen, (self._settings, self._event_serializer)  # noqa: SLF001 - of this class

    @classmethod
    def _reopen(
        cls, settings: EventQueueSettings, event_serializer: Callable[[T_contra], bytes]
    ) -> EventQueue[T_contra]:
        queue = cls.__new__(cls)
        queue._set_up(settings, event_serializer)  # noqa: SLF001 - likewise
        return queue

    def __call__(self, raw: str = "") -> EventQueue[T_contra]:
        """Return the queue itself, so that it can be an item of `configure_context`.

        Args:
            raw: The configured value. `off` (or `false`, `no`, `0`) switches the queue off, as
                `enabled=False` does; anything else is ignored.
        """
        if self.enabled and raw:
            switch = parse_switch(raw)
            if switch is None:
                log_ignored(self._name)
            elif not switch:
                self._switch_off()  # the open transport closes when the last thread stops using it
        return self

    def make_object_for_context(self, name: str, span: object) -> EventQueue[T_contra]:  # noqa: ARG002 - the framework's
        """Return the queue itself, for the context of each request."""
        return self


def _may_be_object(message: bytes) -> bool:
    """Check both ends of a message, ignoring the blanks that JSON allows there."""
    text = message.strip(b" \t\r\n")
    return text[:1] == b"{" and text[-1:] == b"}"
