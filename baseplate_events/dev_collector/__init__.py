"""An event collector for development, tests and the demo; not for production.

It takes what the event publisher sends (`event_publisher/policy/wire.py` describes that), checks all of it,
and hands on the events. Whatever it doesn't take, it refuses with a reason.
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
