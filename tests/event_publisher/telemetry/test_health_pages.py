from __future__ import annotations

import http.client
import io
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.foreign_text import MAX_FOREIGN, printable
from baseplate_events.event_publisher.policy.accounting import Accounting
from baseplate_events.event_publisher.telemetry.health_pages import MAX_HEAD, answer, head_length
from baseplate_events.event_publisher.telemetry.snapshot import STUCK_AFTER, Snapshot
from tests.support.strategies import snapshots

if TYPE_CHECKING:
    import socket

_SNAPSHOT = Snapshot("v2", "1.0", 0.0, 1.0, Accounting(), 0, 10)

#: What clients send: requests, nearly requests, and anything at all.
_heads = st.one_of(
    st.binary(max_size=60),
    st.builds(
        b"%b %b HTTP/1.%b\r\n%b\r\n".__mod__,
        st.tuples(
            st.sampled_from([b"GET", b"HEAD", b"POST", b"get", b"", b"G T"]),
            st.sampled_from(
                [b"/healthz", b"/readyz", b"/metrics?a=b", b"/", b"*", b"http://h/metrics", b"//[", b""]
            )
            | st.binary(max_size=10),
            st.sampled_from([b"0", b"1", b"x"]),
            st.sampled_from([b"", b"Host: h\r\n", b"Content-Length: 5\r\n", b"\xff\r\n", b"A: \0\r\n"])
            | st.binary(max_size=10),
        ),
    ),
)


class _Peer:
    """The socket of a client for which an answer has come."""

    def __init__(self, response: bytes) -> None:
        self._response = response

    def makefile(self, mode: str) -> io.BytesIO:
        """Return the answer to be read."""
        assert mode == "rb"
        return io.BytesIO(self._response)


def read(response: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, str]:
    """Read a response as Python's own client does, and give it with its text."""
    reader = http.client.HTTPResponse(cast("socket.socket", _Peer(response)), method=method)
    reader.begin()
    return reader, reader.read().decode()


def ask(path: str, snapshot: Snapshot = _SNAPSHOT, now: float = 1.0) -> tuple[int, str]:
    """Return status and text of a page."""
    response, text = read(answer(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), snapshot, now))
    return response.status, text


@given(_heads)
def test_whatever_comes_is_answered(head: bytes) -> None:
    """Each answer is a whole HTTP response, the last of its connection, of one of a few statuses."""
    response, text = read(answer(head, _SNAPSHOT, 1.0), "HEAD" if head.startswith(b"HEAD ") else "GET")
    assert response.status in {200, 400, 404, 405, 421}
    assert response.getheader("Connection") == "close"
    if response.status == 200:
        assert head.startswith((b"GET ", b"HEAD "))
    assert (text == "") == head.startswith(b"HEAD ")


@given(st.binary(max_size=40), st.sampled_from([b"\r\n\r\n", b"\n\n"]), st.binary(max_size=10))
def test_the_end_of_a_head_is_found(start: bytes, end: bytes, rest: bytes) -> None:
    """A head ends with the first empty line, whatever comes after it, and not before that is there."""
    start = start.replace(b"\n", b"")
    assert head_length(start + end + rest) == len(start + end)
    assert head_length(start + end[:-1]) is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_head_is_get_without_the_text(path: str) -> None:
    """HEAD has the status and headers of GET, the length of the text included, and no text."""
    requests = [f"{method} {path} HTTP/1.1\r\n\r\n".encode() for method in ("GET", "HEAD")]
    get, head = (answer(request, _SNAPSHOT, 1.0) for request in requests)
    assert get.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % (len(get) - len(head)) in head


@pytest.mark.parametrize(
    ("request_line", "fields", "status"),
    [
        ("GET /readyz HTTP/1.1", "", 200),
        ("GET /readyz?verbose=1 HTTP/1.0", "", 200),
        ("GET http://127.0.0.1:9102/readyz HTTP/1.1", "", 400),
        ("GET /readyz HTTP/1.1", "Content-Length: 0\r\n", 200),
        ("GET /readyz HTTP/1.1", "Content-Length: 1\r\n", 200),
        ("GET /readyz/ HTTP/1.1", "", 404),
        ("GET / HTTP/1.1", "", 404),
        ("POST /readyz HTTP/1.1", "", 405),
        ("DELETE /readyz HTTP/1.1", "", 405),
        ("GET /readyz", "", 400),
        ("GET  /readyz HTTP/1.1", "", 400),
        ("GET /readyz HTTP/2.0", "", 400),
        ("GET /readyz HTTP/1.1", "x" * MAX_HEAD, 431),
    ],
)
def test_requests_by_example(request_line: str, fields: str, status: int) -> None:
    """GET and HEAD get the page, and everything else its error status."""
    response, _ = read(answer(f"{request_line}\r\n{fields}\r\n".encode(), _SNAPSHOT, 1.0))
    assert status == response.status
    assert (response.getheader("Allow") == "GET, HEAD") == (status == 405)


@given(snapshots(), st.floats(0, 2 * STUCK_AFTER))
def test_health_is_life_and_readiness_is_delivery(snapshot: Snapshot, later: float) -> None:
    """`/healthz` fails only when the publisher is stuck; `/readyz` if it doesn't deliver, with why."""
    now = snapshot.made_at + later
    unready = snapshot.unready(now)
    assert (200 if snapshot.alive(now) else 503) == ask("/healthz", snapshot, now)[0]
    status, text = ask("/readyz", snapshot, now)
    assert (200 if unready is None else 503) == status
    expected = "ready" if unready is None else printable(unready, MAX_FOREIGN)
    assert f"{expected}\n" == text
    assert text.count("\n") == 1
