"""An event collector for development, tests and the demo; not for production.

It accepts what the event publisher sends (see `event_publisher/policy/wire.py`), checks all of it, and passes
the events on. It refuses anything else, with a reason.
"""

from __future__ import annotations

from .check import MAX_SIZE, AcceptedBatch, RejectedBatch, check_batch, check_head
from .server import Counts, DevCollector

__all__ = [
    "MAX_SIZE",
    "AcceptedBatch",
    "Counts",
    "DevCollector",
    "RejectedBatch",
    "check_batch",
    "check_head",
]
