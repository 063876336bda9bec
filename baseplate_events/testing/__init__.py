"""Helpers for the tests of a service: an in-memory event queue, and a collector to assert against.

Rules:

1. `InMemoryEventQueue` is an `EventQueue`. It accepts and refuses what the real one does, with the same
   errors, because the same code decides; only the bytes go to a list instead of the kernel.
2. A test with it needs no POSIX queue and no `posix_ipc`, doesn't depend on the host's limits, and never
   waits.
3. `EventCollector` is a real collector. It accepts only correctly signed and formatted batches.
4. A failed assertion says what happened to the events; showing them is left to the test runner.
"""

from __future__ import annotations

from .event_collector import EventCollector
from .memory_queue import InMemoryEventQueue

__all__ = ["EventCollector", "InMemoryEventQueue"]
