"""The pages of the health endpoint, as HTTP/1.1 responses. Pure.

    GET /healthz    200 while the publisher does its work, 503 once it is stuck: restart it
    GET /readyz     200 while events are being delivered; otherwise 503 and the reason, which no restart fixes
    GET /metrics    counters, attempts and ages in Prometheus' text format; see `metrics`

Rules:

1. Each response closes its connection. A request has a path as its target, and a head of at most `MAX_HEAD`
   bytes; a body isn't read. It names an address, `localhost` or a name that the operator lists; see
   `host_check`.
2. No page holds the content of an event, a secret, or the body of a collector's response. An operator may
   let other hosts read the pages.
"""

from __future__ import annotations

import http
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..foreign_text import MAX_FOREIGN, printable
from .host_check import host_of, is_allowed
from .metrics import metrics_of
from .prometheus import MEDIA_TYPE, format_metrics

if TYPE_CHECKING:
    from collections.abc import Collection

    from .snapshot import Snapshot

#: Most bytes of a request up to the empty line: the default of nginx and Apache.
MAX_HEAD: Final = 8_192

_TEXT: Final = "text/plain; charset=utf-8"

#: A request line and header lines. Those are parsed only as far as an answer needs them.
_REQUEST: Final = re.compile(rb"(?s)([A-Za-z]+) (/[!-~]*) HTTP/1\.[0-9](?:\r?\n(.*))?")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer.

    Attributes:
        status: The HTTP status.
        text: The text; each line ends with a line feed.
        media_type: Its media type.
    """

    status: int
    text: str
    media_type: str = _TEXT


_UNREADABLE: Final = Page(400, "not a valid request\n")

_MISDIRECTED: Final = Page(
    421, "no such host here: use an address, localhost, or a name that health.hosts lists\n"
)


def head_length(data: bytes) -> int | None:
    """Return the length of the head of a request, with its empty line; None while that hasn't arrived."""
    match = re.search(rb"\r?\n\r?\n", data)
    return None if match is None else match.end()


def answer(head: bytes, snapshot: Snapshot, now: float, *, hosts: Collection[str] | None = ()) -> bytes:
    """Answer a request.

    Args:
        head: Its head, whatever the client sent.
        snapshot: The last snapshot of the publisher.
        now: Seconds of the monotonic clock.
        hosts: Names of this host that a request may use besides `localhost`, in lower case; None for any.

    Returns:
        The whole response. Close the connection after it.
    """
    return format_response(_respond(head, snapshot, now, hosts), with_body=not head.startswith(b"HEAD "))


def _respond(head: bytes, snapshot: Snapshot, now: float, hosts: Collection[str] | None) -> Page:
    if len(head) > MAX_HEAD:
        return Page(431, f"the head of a request may have at most {MAX_HEAD} bytes\n")
    match = _REQUEST.fullmatch(head.rstrip(b"\r\n"))
    if match is None:
        return _UNREADABLE
    method, target, fields = match.groups(b"")
    try:
        host = host_of(fields)
    except ValueError:
        return _UNREADABLE
    if host is not None and hosts is not None and not is_allowed(host, hosts):
        return _MISDIRECTED
    if method not in {b"GET", b"HEAD"}:
        return Page(405, "only GET and HEAD are allowed\n")
    return _page(target.partition(b"?")[0], snapshot, now)


def format_response(page: Page, *, with_body: bool = True) -> bytes:
    """Format a page as an HTTP response that closes its connection; for HEAD without the body."""
    body = page.text.encode()
    lines = [
        f"HTTP/1.1 {page.status} {http.HTTPStatus(page.status).phrase}",
        f"Content-Type: {page.media_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(["Allow: GET, HEAD"] if page.status == http.HTTPStatus.METHOD_NOT_ALLOWED else []),
        "Connection: close",
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + (body if with_body else b"")


def _page(path: bytes, snapshot: Snapshot, now: float) -> Page:
    if path == b"/healthz":
        alive = snapshot.alive(now)
        return Page(200 if alive else 503, f"{'alive' if alive else snapshot.unready(now)}\n")
    if path == b"/readyz":
        unready = snapshot.unready(now)
        return Page(200, "ready\n") if unready is None else Page(503, f"{printable(unready, MAX_FOREIGN)}\n")
    if path == b"/metrics":
        return Page(200, format_metrics(metrics_of(snapshot, now)), MEDIA_TYPE)
    return Page(404, "not found; the pages are /healthz, /readyz and /metrics\n")
