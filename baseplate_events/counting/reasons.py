"""Why an event was refused: a word for metrics, and what an error says of a serializer that failed."""

from __future__ import annotations

from ..errors import (
    EventEmptyError,
    EventError,
    EventNotSerializableError,
    EventQueueFullError,
    EventQueueUnavailableError,
    EventTooLargeError,
)

#: What a refusal is called in metrics.
_REASONS: dict[type, str] = {
    EventTooLargeError: "too_large",
    EventQueueFullError: "full",
    EventEmptyError: "empty",
    EventNotSerializableError: "not_serializable",
    EventQueueUnavailableError: "unavailable",
}


def reason_of(error: EventError) -> str:
    """Return the reason that a refusal with this error is counted under."""
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), "other")


def describe_failure(exc: Exception) -> str:
    """Name what a serializer raised, and where, without its message, which may quote the event."""
    traceback = exc.__traceback__
    frames = 0
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
        frames += 1
    where = ""
    if traceback is not None and frames:  # the first frame is `put` itself; a serializer in C has no other
        code = traceback.tb_frame.f_code
        where = f" at {code.co_filename}:{traceback.tb_lineno} in {code.co_name}"
    return f"{type(exc).__name__} in the event serializer{where}"
