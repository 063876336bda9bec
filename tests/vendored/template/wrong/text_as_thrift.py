"""Wrong: text on a queue of Thrift structs."""

from __future__ import annotations

from acme._vendor.baseplate_events import EventQueue, serialize_v2_event

EventQueue("main", serialize_v2_event).put("text")
