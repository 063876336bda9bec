"""When the publisher takes events of services."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

import pytest

from baseplate_events import EventQueue
from tests.support.simulation import START, Simulation, accept

if TYPE_CHECKING:
    import select
    from pathlib import Path

#: Most events that the service puts, so that a publisher that each of them wakes ends, too.
MANY = 200


@final
class BusyService(Simulation):
    """A service puts an event whenever the publisher sleeps.

    Attributes:
        queue: Its queue.
        woken: For each event whether it woke the publisher, and when.
    """

    queue: EventQueue[bytes]

    def __init__(self) -> None:
        super().__init__(accept)
        self.woken: list[tuple[bool, float]] = []

    def poll(self, poller: select.poll, seconds: float) -> list[tuple[int, int]]:
        if seconds > 0 and len(self.woken) < MANY:
            self.queue.put(b"{}")
            self.woken.append((bool(poller.poll(0)), self.now))
        return super().poll(poller, seconds)


@pytest.mark.parametrize(("max_age", "pause"), [("3 seconds", 0.05), ("200 milliseconds", 0.02)])
def test_events_in_quick_succession_wake_it_once(
    max_age: str, pause: float, name: str, tmp_path: Path
) -> None:
    """After that, the publisher reads once in 50 ms, or in a tenth of `batch.max_age`, and misses nothing."""
    directory = tmp_path / "spool"
    service = BusyService()
    publisher = service.publisher(
        tmp_path, name, spool__directory=str(directory), queue__transport="spool", batch__max_age=max_age
    )
    with contextlib.closing(EventQueue(name, bytes, spool_directory=directory, strict_size=True)) as queue:
        service.queue = queue
        service.run(1.0)
    assert publisher.accounting.delivered == len(service.woken)
    assert service.woken[0] == (True, START)
    others = [(woken, at) for woken, at in service.woken[1:] if START < at < START + 1.0]
    sends = len(service.requests)  # each ends two sleeps: when a batch is due, and when it was delivered
    assert sum(woken for woken, _ in others) <= 2 * sends
    assert 1 / pause - 2 <= len(others) <= 1 / pause + 3 * sends
