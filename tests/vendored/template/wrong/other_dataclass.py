"""Wrong: an event on a queue of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from acme._vendor.baseplate_events import EventQueue, serialize_v2j_event

if TYPE_CHECKING:
    from acme.service import VoteEvent


@dataclass
class Other:
    """Not a vote."""

    action: str


queue: EventQueue[VoteEvent] = EventQueue("main", serialize_v2j_event)
queue.put(Other("vote"))
