"""Send events from a service without ever waiting for the network."""

from __future__ import annotations

from .counting.counters import QueueCounters, RefusedEvents
from .errors import (
    ConfigurationError,
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueueClosedError,
    EventQueueFullError,
    EventQueueLimitError,
    EventQueuePermissionError,
    EventQueueRemovedError,
    EventQueueUnavailableError,
    EventQueueUnsupportedError,
    EventTooLargeError,
)
from .events import MAX_EVENT_SIZE, MAX_QUEUE_SIZE, EventQueue
from .framework import ContextFactory
from .serializers import ThriftStruct, json_serializer, serialize_v2_event, serialize_v2j_event

__version__ = "0.1.0"

__all__ = [
    "MAX_EVENT_SIZE",
    "MAX_QUEUE_SIZE",
    "ConfigurationError",
    "ContextFactory",
    "EventEmptyError",
    "EventError",
    "EventNotSerializableError",
    "EventQueue",
    "EventQueueClosedError",
    "EventQueueFullError",
    "EventQueueLimitError",
    "EventQueuePermissionError",
    "EventQueueRemovedError",
    "EventQueueUnavailableError",
    "EventQueueUnsupportedError",
    "EventTooLargeError",
    "QueueCounters",
    "RefusedEvents",
    "ThriftStruct",
    "__version__",
    "json_serializer",
    "serialize_v2_event",
    "serialize_v2j_event",
]
