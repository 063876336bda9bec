"""A whole publisher in simulated time: real threads, queue and disk, but simulated clocks and collector."""

from __future__ import annotations

import gzip
import json
import math
import threading
from functools import partial
from typing import TYPE_CHECKING

from baseplate_events.event_publisher.config.settings import load_settings
from baseplate_events.event_publisher.policy.wire import Response
from baseplate_events.event_publisher.publisher import EventPublisher
from tests.support.publishers import config_text

if TYPE_CHECKING:
    import select
    from collections.abc import Callable
    from pathlib import Path

    from baseplate_events.event_publisher.config.settings import PublisherSettings
    from baseplate_events.event_publisher.policy.wire import Reply, Request

#: Where simulated time begins, in seconds of the monotonic clock and since the epoch.
START = 1_000.0
EPOCH = 1_750_000_000.0


class Simulation:
    """The clock and the transport of the publisher created by `publisher`.

    Time stands still while an attempt is in flight or an event can be received, and jumps to the next moment
    at which the publisher has something to do.

    Args:
        answer: What the collector answers to a batch of events at a moment of the monotonic clock.

    Attributes:
        now: Seconds of the simulated monotonic clock.
        requests: When each batch was posted, with its events.
        at_end: Called just before the publisher is asked to stop.
        on_poll: Called whenever the publisher is about to wait.
    """

    def __init__(self, answer: Callable[[list[object], float], Reply]) -> None:
        self.now: float = START
        self.requests: list[tuple[float, list[object]]] = []
        self.at_end: Callable[[], None] = lambda: None
        self.on_poll: Callable[[], None] = lambda: None
        self._answer = answer
        self._lock = threading.Lock()
        self._publisher: EventPublisher | None = None
        self._ends_at = math.inf

    def publisher(self, folder: Path, name: str, **overrides: str) -> EventPublisher:
        """Create a publisher of the queue `/events-NAME` in this simulation."""
        config_file = folder / f"{name}.ini"
        config_file.write_text(config_text(name, "http://collector.test", **overrides))
        load = partial(load_settings, config_file, name, {})
        self._publisher = EventPublisher(load, self, clock=self, connect=self.connect)
        return self._publisher

    def run(self, seconds: float) -> None:
        """Run the publisher for this long, then stop it and wait for its end."""
        assert self._publisher is not None
        self._ends_at = self.now + seconds
        self._publisher.run()

    # The clock.

    def monotonic(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return EPOCH + self.now

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        assert self._publisher is not None
        self.on_poll()
        if ready := poller.poll(None if self._publisher.in_flight else 0):
            return ready
        wake_at = self.now + max(0.0, seconds)
        if self.now < self._ends_at <= wake_at:
            self.now = self._ends_at
            self.at_end()
            self._publisher.stop()
        else:
            assert wake_at < math.inf, "the publisher sleeps for ever"
            self.now = wake_at
        return []

    # Chance.

    def uniform(self, a: float, b: float, /) -> float:
        return (a + b) / 2.0

    # The transport, of any number of senders.

    def connect(self, settings: PublisherSettings) -> Simulation:
        del settings
        return self

    def post(self, request: Request, /) -> Reply:
        events: list[object] = json.loads(gzip.decompress(request.body))
        with self._lock:
            self.requests.append((self.now, events))
            return self._answer(events, self.now)

    def close(self) -> None:
        pass


def accept(events: list[object], now: float) -> Reply:
    """Accept every batch."""
    del events, now
    return Response(200)
