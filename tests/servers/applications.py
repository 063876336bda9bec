"""A service that puts an event for each request, as a WSGI and as an ASGI application.

It answers with the number of the process that did it, and with 503 where the event was refused:

- `/put/ID` puts the event ID without waiting.
- `/wait/ID` puts it with a `put_timeout`.
- `/waiting` returns how many of the latter this process is waiting for.
- `/count` returns its process, and how many events that has put without waiting, by its own count.

The variable EVENT_QUEUE names the event queue, which is opened at import: before the fork if the server loads
the application first, else after it. EVENT_AT_IMPORT is put at once.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, TypedDict

from baseplate_events import EventQueue, EventQueueFullError, serialize_v2j_event
from tests.support.publishers import MAX_MESSAGE_SIZE, MAX_MESSAGES
from tests.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Visit(TypedDict):
    """The event of a request."""

    id: str
    worker: int


def _open(put_timeout: float) -> EventQueue[Visit]:
    return EventQueue(
        os.environ["EVENT_QUEUE"],
        serialize_v2j_event,
        max_queue_size=MAX_MESSAGES,
        max_event_size=MAX_MESSAGE_SIZE,
        put_timeout=put_timeout,
    )


_prompt: Final = _open(0.0)
_patient: Final = _open(PATIENCE)

if "EVENT_AT_IMPORT" in os.environ:
    _prompt.put({"id": os.environ["EVENT_AT_IMPORT"], "worker": os.getpid()})

#: Events that are being put with patience.
_waiting: Final[set[str]] = set()


def _put(queue: EventQueue[Visit], event_id: str) -> int:
    """Put the event and return the HTTP status."""
    try:
        queue.put({"id": event_id, "worker": os.getpid()})
    except EventQueueFullError:
        return 503
    return 200


def _put_patiently(event_id: str) -> int:
    _waiting.add(event_id)
    try:
        return _put(_patient, event_id)
    finally:
        _waiting.discard(event_id)


def wsgi(
    environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> list[bytes]:
    """Answer a request of a WSGI server."""
    _, kind, *rest = str(environ["PATH_INFO"]).split("/")
    status, body = 200, str(os.getpid())
    if kind == "put":
        status = _put(_prompt, *rest)
    elif kind == "wait":
        status = _put_patiently(*rest)
    elif kind == "count":
        body += f" {_prompt.counters().put}"
    else:
        body = str(len(_waiting))
    start_response(f"{status} Done", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]


async def asgi(
    scope: dict[str, object],
    receive: Callable[[], Awaitable[dict[str, object]]],
    send: Callable[[dict[str, object]], Awaitable[None]],
) -> None:
    """Answer a request of an ASGI server."""
    del receive
    if scope["type"] != "http":
        raise NotImplementedError  # what an application does that wants no messages of the lifespan
    _, kind, *rest = str(scope["path"]).split("/")
    status, body = 200, str(os.getpid())
    if kind == "put":
        status = _put(_prompt, *rest)  # it never waits, so it may be called in a coroutine
    elif kind == "wait":
        status = await asyncio.to_thread(_put_patiently, *rest)
    else:
        body = str(len(_waiting))
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
