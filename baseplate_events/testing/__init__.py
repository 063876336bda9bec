"""What the tests of a service need: an event queue in memory, and a collector to assert against.

Rules:

1. `InMemoryEventQueue` is an `EventQueue`. It takes and refuses what the real one does, with the same errors,
   because the same code decides; only the bytes go to a list instead of the kernel.
2. A test with it needs no POSIX queue, no `posix_ipc` and nothing of the host's limits, and it never waits.
3. `EventCollector` is a real collector. It takes only what is signed and formatted as it must be.
4. A failed assertion says what happened to the events, and leaves it to the test runner to show them.
"""

from __future__ import annotations

from .event_collector import EventCollector
from .memory_queue import InMemoryEventQueue

__all__ = ["EventCollector", "InMemoryEventQueue"]
