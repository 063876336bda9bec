"""Functions for worker processes of `spawn` and `forkserver`, which import this module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from baseplate_events import EventQueue


def serialize(event: bytes) -> bytes:
    """Return an event that is serialized already."""
    return event


def put_all(queue: EventQueue[bytes], events: Sequence[bytes]) -> tuple[int, int, int]:
    """Put events, and return the worker's number, and how many its counters have as put and refused."""
    for event in events:
        queue.try_put(event)
    counters = queue.counters()
    return os.getpid(), counters.put, counters.refused.total
