"""Wrong: text on a queue of TypedDicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acme._vendor.baseplate_events import EventQueue, serialize_v2j_event

if TYPE_CHECKING:
    from acme.service import ClickEvent

queue: EventQueue[ClickEvent] = EventQueue("main", serialize_v2j_event)
queue.put("text")
