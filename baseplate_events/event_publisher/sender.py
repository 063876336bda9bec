"""A thread that compresses, signs and posts what it is given. It decides nothing."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .addresses import AddressBook
from .certificates import Certificates
from .http_transport import HTTPTransport
from .policy.batching import FORMATS
from .policy.outcome import Outcome, Retryable, classify
from .policy.wire import build_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config.settings import PublisherSettings
    from .policy.pending import Attempt


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt that ended.

    Attributes:
        sender: Who sent it, and is idle now.
        attempt: What was to be sent.
        outcome: What became of it.
        seconds: How long it took.
    """

    sender: Sender
    attempt: Attempt
    outcome: Outcome
    seconds: float


class Sender(threading.Thread):
    """Posts one attempt after the other, over a connection of its own.

    Args:
        current_settings: Gives the settings to use; asked before each attempt, so that new ones take effect
            with the next.
        report: Takes what became of each, in this thread.
    """

    def __init__(
        self, current_settings: Callable[[], PublisherSettings], report: Callable[[Finished], None]
    ) -> None:
        # A daemon, so that one that hangs in a name lookup can't keep the process from ending.
        super().__init__(name="sender", daemon=True)
        self._current_settings = current_settings
        # Made by the thread itself: nothing that can fail happens here.
        self._settings: PublisherSettings | None = None
        self._collector: HTTPTransport | None = None
        self._jobs: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._report = report

    def post(self, attempt: Attempt) -> None:
        """Have an attempt posted, after those that were given before; called by any thread."""
        self._jobs.put(attempt)

    def run(self) -> None:
        """Post until the process ends."""
        while True:
            attempt = self._jobs.get()
            started_at = time.monotonic()
            try:
                outcome = self._post(attempt)
            except Exception as exc:  # noqa: BLE001  a mistake of ours must cost neither batch nor sender
                # Only where it happened: the text of an exception might quote an event.
                *_, (frame, line) = traceback.walk_tb(exc.__traceback__)
                reason = f"internal error: {type(exc).__name__} in {frame.f_code.co_name}, line {line}"
                del frame
                outcome = Retryable(reason=reason, from_collector=False)
            self._report(Finished(self, attempt, outcome, time.monotonic() - started_at))
            del attempt  # rather than keep its events while there is nothing to do

    def _post(self, attempt: Attempt) -> Outcome:
        settings = self._current_settings()
        if self._collector is None or settings is not self._settings:
            if self._collector is not None:
                self._collector.close()
            self._collector = make_transport(settings)
            self._settings = settings
        request = build_request(
            FORMATS[settings.collector.version].join(attempt.batch.events),
            key_name=settings.key.name,
            secret=settings.key.secret.reveal(),
            level=settings.compression_level,
            wall_time=time.time(),
        )
        return classify(self._collector.post(request), settings.retry.codes)


class TransportFactory:
    """Makes ways to the collector that share what they find out about it.

    That is which of its addresses failed, so that not each sender has to find it out for itself, and the
    certificates to trust, which take a megabyte and some milliseconds for each copy.
    """

    def __init__(self) -> None:
        self._addresses = AddressBook()
        self._certificates = Certificates()

    def __call__(self, settings: PublisherSettings) -> HTTPTransport:
        """Make a way to the collector of the settings; nothing is loaded or connected yet."""
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


#: What the senders of this process use.
make_transport: Final = TransportFactory()
