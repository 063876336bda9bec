"""What the tests of a service need: an event queue in memory, and a collector to assert against.

Rules:

1. `InMemoryEventQueue` is an `EventQueue`. It takes and refuses what the real one does, with the same errors,
   because the same code decides; only the bytes go to a list instead of the kernel.
2. A test with it needs no POSIX queue, no `posix_ipc` and nothing of the host's limits, and it never waits.
3. `EventCollector` is a real collector. It takes only what is signed and formatted as it must be.
4. A failed assertion says what happened to the events, and leaves it to the test runner to show them.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

from .dev_collector import Collector, Rejected
from .errors import EventError
from .events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, EventQueue
from .message_queue import MessageQueue
from .posix_queue import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .dev_collector import Accepted
    from .queue_limits import QueueSize

T = TypeVar("T")

#: Seconds that a test waits for events to arrive before it fails; only a failing test waits for so long.
PATIENCE: Final = 30.0

#: HTTP statuses that refuse a batch.
_LOWEST_REFUSAL: Final = 300
_HIGHEST_REFUSAL: Final = 599


class _RefusedError(Exception):
    """Raised by a send that adds nothing; never leaves `MessageQueue`."""


class _MemoryDescriptor(Descriptor):
    """What a queue in memory has for a descriptor.

    Attributes:
        messages: What is in it.
        filled: Whether it takes no more, whatever is in it.
        failure: What to raise instead of taking a message.
    """

    __slots__ = ("failure", "filled", "messages")

    def __init__(self, size: QueueSize) -> None:
        # Instead of what the base class does, which has a descriptor of the kernel.
        self._closed = False
        self.fd = -1
        self.size = size
        self.send = self._send
        self.messages: list[bytes] = []
        self.filled = False
        self.failure: EventError | None = None

    def _send(self, message: bytes, timeout: float | None = None, priority: int = 0, /) -> None:
        del timeout, priority
        if self.failure is not None or self.depth >= self.size.max_messages:
            raise _RefusedError
        self.messages.append(message)

    @property
    def depth(self) -> int:
        return self.size.max_messages if self.filled else len(self.messages)

    def refused(self, exc: Exception) -> bool:
        return isinstance(exc, _RefusedError)

    def is_full(self, exc: Exception) -> bool:
        del exc
        return False  # `try_send` tells

    def try_send(self, message: bytes, priority: int) -> bool:
        try:
            self.send(message, None, priority)
        except _RefusedError:
            if self.failure is not None:
                raise self.failure.with_traceback(None) from None
            return False
        return True

    def removed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True


class _MemoryQueue(MessageQueue):
    """A queue in memory; it is only put to."""

    def _open(self) -> Descriptor:
        return _MemoryDescriptor(self._asked)


class InMemoryEventQueue(EventQueue[T]):
    """An event queue that keeps what is put on it, for unit tests.

    It can be given wherever an `EventQueue[T]` is asked for, and made wherever one is made: it takes the same
    arguments. It is as large as asked, whatever the host allows, and apart from all others of its name.
    Threads may share it; a forked worker has a copy of its own.

    Args:
        name: The name of the event queue.
        event_serializer: Takes an event and returns it as bytes; it is really called.
        max_queue_size: Events that the queue holds, 1 to 65,536.
        max_event_size: Bytes that an event may have, 1 to 16 MiB.
        put_timeout: Checked, and no more: nobody takes events out meanwhile, so a full queue refuses at once.
        mode: Checked, and no more.
        strict_size: Means nothing here: the queue always has its full size.

    Raises:
        ValueError: An argument is out of its bounds.
    """

    _transport = _MemoryQueue

    def __init__(
        self,
        name: str,
        event_serializer: Callable[[T], bytes],
        *,
        max_queue_size: int = MAX_QUEUE_SIZE,
        max_event_size: int = MAX_EVENT_SIZE,
        put_timeout: float = 0.0,
        mode: int = 0o600,
        strict_size: bool = False,
    ) -> None:
        super().__init__(
            name,
            event_serializer,
            max_queue_size=max_queue_size,
            max_event_size=max_event_size,
            put_timeout=put_timeout,
            mode=mode,
            strict_size=strict_size,
        )
        self._put_timeout = 0.0
        self._memory: _MemoryDescriptor = cast("_MemoryDescriptor", self._queue.descriptor)
        self._events: list[T] = []
        self._errors: list[EventError] = []
        self._in_turn: threading.RLock = threading.RLock()  # a serializer may put another event

    def put(self, event: T) -> None:
        """Add an event to the queue, or raise what the real queue would; it never waits.

        Args:
            event: The event to send. Its type depends on the serializer.

        Raises:
            EventTooLargeError: The serialized event is too large.
            EventQueueFullError: The queue is full.
            EventEmptyError: The event serialized to nothing.
            EventNotSerializableError: The event can't be serialized.
            EventQueueClosedError: The queue was closed.
            EventError: Whatever else the serializer raises of that kind, or `fail_with` was given.
        """
        with self._in_turn:
            try:
                super().put(event)
            except EventError as error:
                self._errors.append(error)
                raise
            self._events.append(event)

    @property
    def events(self) -> list[T]:
        """The events in the queue, in order: the very objects that were put."""
        with self._in_turn:
            return list(self._events)

    @property
    def messages(self) -> list[bytes]:
        """The same events, as the serializer wrote them when they were put."""
        with self._in_turn:
            return list(self._memory.messages)

    @property
    def errors(self) -> list[EventError]:
        """What `put` raised, in order, even if the service handled it."""
        with self._in_turn:
            return list(self._errors)

    def only_event(self) -> T:
        """Give the event in the queue.

        Raises:
            AssertionError: There is none, or more than one; the message tells what was refused.
        """
        events = self.events
        if len(events) != 1:
            raise AssertionError(f"expected one event in the queue, there are {len(events)}: {self!r}")
        return events[0]

    def clear(self) -> None:
        """Take everything out of the queue, as the publisher does; there is room again after `fill`."""
        with self._in_turn:
            self._events.clear()
            self._memory.messages.clear()
            self._memory.filled = False

    def fill(self) -> None:
        """Be full from now on, until `clear`; `events` stay as they are."""
        self._memory.filled = True

    def fail_with(self, error: EventError | None) -> None:
        """Raise this for each event that could be put otherwise, until called with None.

        Args:
            error: Such as `EventQueueRemovedError("/events-main", "it was removed and can't be made anew")`.
        """
        self._memory.failure = error

    def __enter__(self) -> InMemoryEventQueue[T]:
        return self

    def __repr__(self) -> str:
        with self._in_turn:
            parts = [repr(self._name), f"{len(self._events)} events"]
            if self._errors:
                last = self._errors[-1]
                parts.append(f"{len(self._errors)} refused, the last with {type(last).__name__}: {last}")
        return f"<{type(self).__name__} {', '.join(parts)}>"


@final
class EventCollector:
    """A real event collector on a free port of this host, for tests of a service with its event publisher.

    It checks signature, compression and format of what it gets; only what is right counts as arrived. It runs
    from construction to `close()`, and is a context manager.

    Raises:
        OSError: It can't listen.
    """

    def __init__(self) -> None:
        self._changed: threading.Condition = threading.Condition()
        self._messages: list[bytes] = []
        self._refusals: list[Rejected] = []
        self._status: int | None = None
        self._key_name = "test"
        self._secret: bytes = secrets.token_bytes(32)
        self._collector: Collector = Collector(
            {self._key_name: self._secret}, self._take, on_rejected=self._note
        )

    @property
    def url(self) -> str:
        """Scheme, host and port, such as `http://127.0.0.1:8080`."""
        return self._collector.url

    @property
    def messages(self) -> list[bytes]:
        """The events that arrived, in order, as the service serialized them."""
        with self._changed:
            return list(self._messages)

    @property
    def events(self) -> list[dict[str, object]]:
        """The events that arrived, in order, as JSON objects; Thrift events are such objects too."""
        return [cast("dict[str, object]", json.loads(message)) for message in self.messages]

    @property
    def refusals(self) -> list[Rejected]:
        """The requests that weren't taken, in order: status and reason."""
        with self._changed:
            return list(self._refusals)

    def wait_for(
        self, events: int = 0, *, refusals: int = 0, timeout: float = PATIENCE
    ) -> list[dict[str, object]]:
        """Wait until so many events have arrived, and so many requests were refused.

        Args:
            events: The least number of events since `clear` or the start.
            refusals: The least number of refusals since then.
            timeout: Seconds until it fails.

        Returns:
            All events that have arrived, as `events`.

        Raises:
            AssertionError: They didn't come; the message tells how many did, and the last refusal.
        """
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self._messages) >= events and len(self._refusals) >= refusals, timeout
            )
            if not came:
                wanted = f"{events} events and {refusals} refusals" if refusals else f"{events} events"
                raise AssertionError(f"expected {wanted} within {timeout} seconds: {self!r}")
            return self.events

    def clear(self) -> None:
        """Forget what has arrived and what was refused."""
        with self._changed:
            self._messages.clear()
            self._refusals.clear()

    def answer_with(self, status: int | None) -> None:
        """Answer each batch with this HTTP status from now on and take none; take them again after None.

        Args:
            status: A status that refuses: 300 to 599.

        Raises:
            ValueError: It is none.
        """
        if status is not None and not _LOWEST_REFUSAL <= status <= _HIGHEST_REFUSAL:
            raise ValueError(f"status must be None or from 300 to 599, not {status}")
        with self._changed:
            self._status = status

    def publisher_config(self, queue_name: str, *, version: str, **settings: str) -> str:
        """Give the INI file of an event publisher that delivers here without delay.

        Args:
            queue_name: The name of the event queue.
            version: The format of the events: `2` for Thrift, `2j` for JSON.
            settings: Other keys of the publisher, with `__` for the dot: `max_queue_size="10"`,
                `retry__cap="1 second"`.
        """
        values = {
            "collector.scheme": "http",
            "collector.hostname": self.url.partition("://")[2],
            "collector.version": version,
            "key.name": self._key_name,
            "key.secret": base64.b64encode(self._secret).decode(),
            "batch.max_age": "10 milliseconds",
            "retry.base": "10 milliseconds",
            "retry.cap": "100 milliseconds",
        }
        values.update((name.replace("__", "."), value) for name, value in settings.items())
        lines = [f"[event-publisher:{queue_name}]", *(f"{name} = {value}" for name, value in values.items())]
        return "\n".join([*lines, ""])

    def close(self) -> None:
        """Stop listening and end all connections; a second call does nothing."""
        self._collector.close()

    def __enter__(self) -> EventCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        with self._changed:
            parts = [self.url, f"{len(self._messages)} events"]
            if self._refusals:
                last = self._refusals[-1]
                parts.append(f"{len(self._refusals)} refusals, the last {last.status}: {last.reason}")
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def _take(self, batch: Accepted) -> Rejected | None:
        with self._changed:
            if self._status is not None:
                return Rejected(self._status, "the test asked for it")
            self._messages.extend(batch.events)
            self._changed.notify_all()
        return None

    def _note(self, rejected: Rejected) -> None:
        with self._changed:
            self._refusals.append(rejected)
            self._changed.notify_all()
