"""Wrong: text on a queue of JSON events."""

from __future__ import annotations

from acme._vendor.baseplate_events import EventQueue, serialize_v2j_event

EventQueue("main", serialize_v2j_event).put("text")
