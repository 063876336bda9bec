"""A real event collector to assert against; see the rules of this package."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from types import TracebackType  # noqa: TC003 - for typing.get_type_hints
from typing import TYPE_CHECKING, Final, cast, final

from .._words import counted
from ..dev_collector import DevCollector, RejectedBatch

if TYPE_CHECKING:
    from ..dev_collector import AcceptedBatch

#: Seconds to wait for events before the test fails; only a failing test waits this long.
PATIENCE: Final = 30.0

#: Lowest HTTP status that refuses a batch.
_LOWEST_REFUSAL: Final = 300
_HIGHEST_REFUSAL: Final = 599


@final
class EventCollector:
    """A real event collector on a free port of this host, for tests of a service with its event publisher.

    It checks the signature, compression and format of each batch; only correct batches count as arrived. It
    runs from construction to `close()`, and is a context manager.

    Raises:
        OSError: It can't listen.
    """

    def __init__(self) -> None:
        self._changed: threading.Condition = threading.Condition()
        self._messages: list[bytes] = []
        self._refusals: list[RejectedBatch] = []
        self._status: int | None = None
        self._key_name = "test"
        self._secret: bytes = secrets.token_bytes(32)
        self._collector: DevCollector = DevCollector(
            {self._key_name: self._secret}, self._take, on_rejected=self._record
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
    def refusals(self) -> list[RejectedBatch]:
        """The refused requests, in order: status and reason."""
        with self._changed:
            return list(self._refusals)

    def wait_for(
        self, events: int = 0, *, refusals: int = 0, timeout: float = PATIENCE
    ) -> list[dict[str, object]]:
        """Wait until this many events have arrived and this many requests were refused.

        Args:
            events: Fewest events since `clear` or the start.
            refusals: Fewest refusals since then.
            timeout: Seconds until it fails.

        Returns:
            All events that have arrived, as `events`.

        Raises:
            AssertionError: They didn't arrive; the message has the number that did, and the last refusal.
        """
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self._messages) >= events and len(self._refusals) >= refusals, timeout
            )
            if not came:
                wanted = counted(events, "event")
                wanted += f" and {counted(refusals, 'refusal')}" if refusals else ""
                raise AssertionError(f"expected {wanted} within {timeout:g} s: {self!r}")
            return self.events

    def clear(self) -> None:
        """Forget all events and refusals."""
        with self._changed:
            self._messages.clear()
            self._refusals.clear()

    def answer_with(self, status: int | None) -> None:
        """Refuse each batch with this HTTP status from now on; None accepts batches again.

        Args:
            status: A status that refuses: 300 to 599.

        Raises:
            ValueError: The status is another one.
        """
        if status is not None and not _LOWEST_REFUSAL <= status <= _HIGHEST_REFUSAL:
            raise ValueError(f"status must be None or from 300 to 599, not {status}")
        with self._changed:
            self._status = status

    def publisher_config(self, queue_name: str, *, version: str, **settings: str) -> str:
        """Return the INI file for an event publisher that delivers here without delay.

        Args:
            queue_name: The name of the event queue.
            version: The format of the events: `2` for Thrift, `2j` for JSON.
            settings: Other options of the publisher, with `__` for the dot: `max_queue_size="10"`,
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
        """Stop listening and close all connections; a second call does nothing."""
        self._collector.close()

    def __enter__(self) -> EventCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        with self._changed:
            parts = [self.url, counted(len(self._messages), "event")]
            if self._refusals:
                last = self._refusals[-1]
                count = counted(len(self._refusals), "refusal")
                parts.append(f"{count}, the last {last.status}: {last.reason}")
        return f"<{type(self).__name__} {', '.join(parts)}>"

    def _take(self, batch: AcceptedBatch) -> RejectedBatch | None:
        with self._changed:
            if self._status is not None:
                return RejectedBatch(self._status, "the test asked for it")
            self._messages.extend(batch.events)
            self._changed.notify_all()
        return None

    def _record(self, rejected: RejectedBatch) -> None:
        with self._changed:
            self._refusals.append(rejected)
            self._changed.notify_all()
