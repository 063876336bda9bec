"""What the health endpoint answers: three pages over a few lines of HTTP/1.1. Pure.

    GET /healthz    200 while the publisher does its work, 503 once it is stuck: restart it
    GET /readyz     200 while events are being delivered, 503 and why otherwise: nothing that a restart mends
    GET /metrics    the books, attempts and ages in Prometheus' text format

Rules:

1. Each answer is the last of its connection. A request has no body, and a head of `MAX_HEAD` bytes at most.
   It names an address, `localhost` or a name that the operator lists; see `host_check`.
2. No page holds the content of an event or a secret.
3. Names of metrics are those that go to statsd as far as the two forms allow; docs/operations.md has both.
"""

from __future__ import annotations

import http
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..foreign_text import MAX_FOREIGN, printable
from .host_check import host_of, is_allowed
from .prometheus import MEDIA_TYPE, Metric, Sample, format_metrics, histogram_samples

if TYPE_CHECKING:
    from collections.abc import Collection

    from .prometheus import Labels
    from .snapshot import Snapshot

#: Bytes of a request up to the empty line: what nginx and Apache allow by default.
MAX_HEAD: Final = 8_192

_TEXT: Final = "text/plain; charset=utf-8"

_PREFIX: Final = "event_publisher_"

#: A request line and header lines; what stands in those is looked at only as far as an answer needs it.
_REQUEST: Final = re.compile(rb"(?s)([A-Za-z]+) ([!-~]+) HTTP/1\.[0-9](?:\r?\n(.*))?")

#: The path of a target that is a path or a whole URL.
_PATH: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?([^?#]*)")

#: A header that announces a body; one of 0 bytes is none.
_BODY: Final = re.compile(rb"(?im)^(?:transfer-encoding[ \t]*:|content-length[ \t]*:(?![ \t]*0+[ \t]*\r?$))")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer.

    Attributes:
        status: The HTTP status.
        text: What it says, lines with their ends.
        media_type: What kind of text it is.
    """

    status: int
    text: str
    media_type: str = _TEXT


_UNREADABLE: Final = Page(400, "not a request that can be read\n")

_MISDIRECTED: Final = Page(
    421, "no such host here: use an address, localhost, or a name that health.hosts lists\n"
)


def head_length(data: bytes) -> int | None:
    """Tell how many of the bytes that came are the head of a request, None while its end isn't there."""
    match = re.search(rb"\r?\n\r?\n", data)
    return None if match is None else match.end()


def answer(head: bytes, snapshot: Snapshot, now: float, *, hosts: Collection[str] | None = ()) -> bytes:
    """Answer a request.

    Args:
        head: Its head, whatever the client sent.
        snapshot: What the publisher was last seen doing.
        now: Seconds of the monotonic clock.
        hosts: Names of this host that a request may use besides `localhost`, in lower case; None for any.

    Returns:
        The whole response. The connection is to be closed after it.
    """
    return format_response(_respond(head, snapshot, now, hosts), with_body=not head.startswith(b"HEAD "))


def _respond(head: bytes, snapshot: Snapshot, now: float, hosts: Collection[str] | None) -> Page:
    if len(head) > MAX_HEAD:
        return Page(431, f"a request has at most {MAX_HEAD} bytes here\n")
    match = _REQUEST.fullmatch(head.rstrip(b"\r\n"))
    if match is None:
        return _UNREADABLE
    method, raw_target, fields = match.groups(b"")
    target = raw_target.decode()
    try:
        host = host_of(target, fields)
    except ValueError:
        return _UNREADABLE
    if host is not None and hosts is not None and not is_allowed(host, hosts):
        return _MISDIRECTED
    if method not in {b"GET", b"HEAD"}:
        return Page(405, "only GET and HEAD\n")
    if _BODY.search(fields):
        return Page(413, "a request has no body here\n")
    return _page(target, snapshot, now)


def format_response(page: Page, *, with_body: bool = True) -> bytes:
    """Write a page as an HTTP response, the last of its connection; of HEAD without its body."""
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


def _page(target: str, snapshot: Snapshot, now: float) -> Page:
    match = _PATH.match(target)
    path = "" if match is None else match[1]
    if path == "/healthz":
        alive = snapshot.alive(now)
        return Page(200 if alive else 503, f"{'alive' if alive else snapshot.unready(now)}\n")
    if path == "/readyz":
        unready = snapshot.unready(now)
        return Page(200, "ready\n") if unready is None else Page(503, f"{printable(unready, MAX_FOREIGN)}\n")
    if path == "/metrics":
        return Page(200, format_metrics(metrics_of(snapshot, now)), MEDIA_TYPE)
    return Page(404, "there are /healthz, /readyz and /metrics\n")


def metrics_of(snapshot: Snapshot, now: float) -> list[Metric]:
    """Say a snapshot in metrics; ages are those at `now`, in seconds of the monotonic clock."""
    books, attempts = snapshot.accounting, snapshot.attempts
    queue: Labels = (("queue", snapshot.queue_name),)

    def one(value: float | None) -> tuple[Sample, ...]:
        return () if value is None else (Sample(queue, value),)

    def since(moment: float | None) -> float | None:
        return None if moment is None else round(max(0.0, now - moment), 3)

    metrics = [
        Metric(
            "build_info",
            "gauge",
            "1, with the version of the publisher.",
            (Sample((*queue, ("version", snapshot.version)), 1),),
        ),
        Metric("uptime_seconds", "gauge", "Time since the start.", one(since(snapshot.started_at))),
        Metric(
            "heartbeat_age_seconds",
            "gauge",
            "Time since the publisher last did something; it is stuck when this grows.",
            one(since(snapshot.made_at)),
        ),
        Metric(
            "ready", "gauge", "Whether events are being delivered.", one(int(snapshot.unready(now) is None))
        ),
        Metric(
            "events_received_total",
            "counter",
            "Events taken from the queue, or from the spool of an earlier run.",
            one(books.received),
        ),
        Metric(
            "events_recovered_total",
            "counter",
            "Those of the received that came from the spool of an earlier run.",
            one(books.recovered),
        ),
        Metric("events_delivered_total", "counter", "Events that the collector took.", one(books.delivered)),
        Metric(
            "events_dead_lettered_total",
            "counter",
            "Events that were given up and are in the dead letters.",
            one(books.dead_lettered),
        ),
        Metric("events_returned_total", "counter", "Events put back into the queue.", one(books.returned)),
        Metric(
            "events_dropped_total",
            "counter",
            "Events that are gone.",
            tuple(
                Sample((*queue, ("reason", reason.value)), count) for reason, count in books.dropped.items()
            ),
        ),
        Metric("events_in_hand", "gauge", "Events in memory only.", one(books.in_hand)),
        Metric("events_spooled", "gauge", "Events in the spool.", one(books.spooled)),
        Metric(
            "oldest_event_age_seconds",
            "gauge",
            "Time since the oldest event came that isn't delivered; 0 where there is none.",
            one(since(snapshot.oldest_at) or 0),
        ),
        Metric("queue_depth", "gauge", "Events that wait in the queue.", one(snapshot.queue_depth)),
        Metric("queue_capacity", "gauge", "Events that the queue holds.", one(snapshot.queue_capacity)),
        Metric(
            "dead_letters_dropped_total",
            "counter",
            "Old dead letters that made room for new ones.",
            one(books.letters_dropped),
        ),
        Metric(
            "attempts_total",
            "counter",
            "Requests to the collector, by how they ended.",
            tuple(
                Sample((*queue, ("result", result.value)), count)
                for result, count in attempts.results.items()
            ),
        ),
        Metric(
            "attempt_seconds",
            "histogram",
            "How long a request to the collector took, compression included.",
            histogram_samples(attempts.seconds, queue),
        ),
        Metric(
            "failures_in_row", "gauge", "Attempts that failed since the last success.", one(snapshot.failures)
        ),
        Metric(
            "failing_seconds",
            "gauge",
            "Time since attempts began to fail; 0 while they don't.",
            one(since(attempts.failing_since) or 0),
        ),
        Metric(
            "last_success_age_seconds",
            "gauge",
            "Time since the collector last took a batch; not there before the first.",
            one(since(attempts.last_success_at)),
        ),
        Metric(
            "disk_failing",
            "gauge",
            "Whether the disk of the spool or the dead letters takes nothing.",
            one(int(snapshot.disk_error is not None)),
        ),
        Metric(
            "metrics_dropped_total",
            "counter",
            "Lines for statsd that could not be sent.",
            one(snapshot.metrics_dropped),
        ),
        Metric(
            "log_lines_dropped_total",
            "counter",
            "Lines of the log that could not be written to stderr.",
            one(snapshot.log_lines_dropped),
        ),
    ]
    if snapshot.spool is not None:
        metrics += [
            Metric("spool_size_bytes", "gauge", "Bytes in the spool.", one(snapshot.spool.size)),
            Metric(
                "spool_max_size_bytes",
                "gauge",
                "Bytes that the spool may take, spool.max_size.",
                one(snapshot.spool.max_size),
            ),
        ]
    return [Metric(_PREFIX + metric.name, metric.kind, metric.meaning, metric.samples) for metric in metrics]
