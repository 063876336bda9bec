"""A thread that compresses, signs and posts attempts. It decides nothing."""

from __future__ import annotations

import queue
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .addresses import AddressBook
from .certificates import Certificates
from .http_transport import HTTPTransport
from .policy.batching import FORMATS
from .policy.outcome import Outcome, Retryable, classify
from .policy.wire import build_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .config.settings import PublisherSettings
    from .policy.pending import Attempt
    from .policy.wire import Reply, Request


class CollectorTransport(Protocol):
    """A connection to the collector, used by one sender at a time; `HTTPTransport` is the real one."""

    def post(self, request: Request, /) -> Reply:
        """Post a request, and return the result; never raises because of the network or the collector."""
        ...

    def close(self) -> None:
        """Close the connection; the next `post` reopens it."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt that ended.

    Attributes:
        sender: The sender, which is idle now; None if none could be started.
        attempt: The attempt.
        outcome: Its outcome.
        seconds: Its duration.
    """

    sender: Sender | None
    attempt: Attempt
    outcome: Outcome
    seconds: float


class Sender(threading.Thread):
    """Posts one attempt after another, over its own transport.

    Args:
        current_settings: Returns the settings; called before each attempt, so that new settings take effect
            with the next one.
        connect: Creates a transport for settings; called in this thread.
        report: Receives the result of each attempt; called in this thread.
        clock: Measures attempts and dates requests.
    """

    def __init__(
        self,
        current_settings: Callable[[], PublisherSettings],
        connect: Callable[[PublisherSettings], CollectorTransport],
        report: Callable[[Finished], None],
        clock: Clock,
    ) -> None:
        # A daemon thread: one that hangs in a name lookup must not keep the process alive.
        super().__init__(name="sender", daemon=True)
        self._current_settings = current_settings
        self._connect = connect
        self._report = report
        self._clock = clock
        self._settings: PublisherSettings | None = None
        self._transport: CollectorTransport | None = None
        self._jobs: queue.SimpleQueue[Attempt] = queue.SimpleQueue()

    def post(self, attempt: Attempt) -> None:
        """Queue an attempt, after earlier ones; may be called from any thread."""
        self._jobs.put(attempt)

    def run(self) -> None:
        """Post until the process ends."""
        while True:
            attempt = self._jobs.get()
            started_at = self._clock.monotonic()
            try:
                outcome = self._post(attempt)
            except Exception as exc:  # noqa: BLE001  a mistake of ours must cost neither batch nor sender
                # Only the place: the text of an exception might quote an event.
                *_, (frame, line) = traceback.walk_tb(exc.__traceback__)
                reason = f"internal error: {type(exc).__name__} in {frame.f_code.co_name}, line {line}"
                del frame
                outcome = Retryable(reason=reason, from_collector=False)
            self._report(Finished(self, attempt, outcome, self._clock.monotonic() - started_at))
            del attempt  # release its events while idle

    def _post(self, attempt: Attempt) -> Outcome:
        settings = self._current_settings()
        if settings is not self._settings or self._transport is None:
            if self._transport is not None:
                self._transport.close()
                self._transport = None
            self._transport = self._connect(settings)
            self._settings = settings
        request = build_request(
            FORMATS[settings.collector.version].pieces(attempt.batch.events),
            key_name=settings.key.name,
            secret=settings.key.secret.reveal(),
            level=settings.compression.level,
            wall_time=self._clock.wall_time(),
        )
        return classify(self._transport.post(request), settings.retry.codes)


class TransportFactory:
    """Creates transports that share the failed addresses and the trusted certificates.

    So each sender needn't rediscover the failed addresses, or load certificates, which take about a megabyte
    and some milliseconds.
    """

    def __init__(self) -> None:
        self._addresses = AddressBook()
        self._certificates = Certificates()

    def __call__(self, settings: PublisherSettings) -> HTTPTransport:
        """Create a transport for settings; nothing is loaded or connected yet."""
        collector = settings.collector
        return HTTPTransport(
            collector.url,
            timeout=collector.timeout,
            deadline=collector.deadline,
            ca_file=collector.ca_file,
            proxy=collector.proxy,
            addresses=self._addresses,
            certificates=self._certificates,
        )
