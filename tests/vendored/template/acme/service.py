"""A strictly typed service that puts events of every kind."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TypedDict

from event_schemas.ttypes import Event

from ._vendor.baseplate_events import (
    ContextFactory,
    EventError,
    EventQueue,
    EventQueueFullError,
    EventTooLargeError,
    ThriftStruct,
    serialize_v2_event,
    serialize_v2j_event,
)
from ._vendor.baseplate_events.transport.posix import unlink_queue


class ClickEvent(TypedDict):
    """A JSON event as a dict."""

    action: str
    client_timestamp: int


@dataclass(frozen=True)
class VoteEvent:
    """A JSON event as an object."""

    action: str
    direction: int


class Context:
    """What each request has."""

    def __init__(
        self,
        views: EventQueue[ThriftStruct],
        clicks: EventQueue[ClickEvent],
        votes: EventQueue[VoteEvent],
    ) -> None:
        self.views = views
        self.clicks = clicks
        self.votes = votes

    @property
    def factories(self) -> dict[str, ContextFactory]:
        """What the framework makes these of."""
        return {"views": self.views, "clicks": self.clicks, "votes": self.votes}


def handle(context: Context) -> None:
    """Handle a request: put an event of each kind."""
    now = int(time.time() * 1000)
    context.views.put(Event(source="acme", action="view", client_timestamp=float(now)))  # type: ignore[no-untyped-call]
    context.clicks.put({"action": "click", "client_timestamp": now})
    context.clicks.put(ClickEvent(action="click", client_timestamp=now))
    context.votes.put(VoteEvent("vote", 1))


def explain(error: EventError) -> str:
    """Return what came of an event."""
    if isinstance(error, EventTooLargeError):
        limit: int | None = error.limit
        return f"{error.size} bytes of {limit}"
    if isinstance(error, EventQueueFullError):
        name: str | None = error.name
        capacity: int | None = error.capacity
        return f"{name} holds {capacity}"
    return str(error)


def main() -> int:
    """Handle a request on queues of its own; return whether all went well."""
    name = f"acme-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with (
            EventQueue(
                f"{name}-thrift", serialize_v2_event, max_queue_size=4, max_event_size=256, strict_size=True
            ) as views,
            EventQueue(f"{name}-json", serialize_v2j_event, max_queue_size=4, max_event_size=256) as jsons,
        ):
            # A queue of any JSON event serves where one of a certain event is asked for.
            handle(Context(views, jsons, jsons))
        with (
            tempfile.TemporaryDirectory() as folder,
            EventQueue("json", serialize_v2j_event, spool_directory=folder, strict_size=True) as spooled,
        ):
            spooled.put_many([ClickEvent(action="click", client_timestamp=1)])
            spooled.put({"action": "click"})
    except EventError as exc:
        sys.stderr.write(f"{explain(exc)}\n")
        return 1
    finally:
        for kind in ("thrift", "json"):
            unlink_queue(f"/events-{name}-{kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
