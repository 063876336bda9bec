"""Reading a response: what counts as one, what is kept of it, and after which the connection is reusable."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.http_response import (
    MAX_BODY,
    MAX_EXCERPT,
    MAX_HEAD,
    Answer,
    InterruptedResponseError,
    MalformedResponseError,
    ResponseReader,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Peer:
    """Sends these bytes, a piece at a time, and then ends the connection or falls silent.

    Args:
        pieces: What it sends.
        silent: Whether waiting for more times out; otherwise the connection ends.
    """

    def __init__(self, pieces: Iterable[bytes], *, silent: bool = False) -> None:
        self._pieces = filter(None, pieces)
        self._silent = silent
        self._rest = b""
        self.received = 0

    def receive(self, most: int) -> bytes:
        """Return up to so many bytes, like a socket."""
        assert most > 0
        if not self._rest:
            self._rest = next(self._pieces, b"")
            if not self._rest and self._silent:
                raise TimeoutError
        data, self._rest = self._rest[:most], self._rest[most:]
        self.received += len(data)
        return data


def read(*pieces: bytes, early: bytes = b"", silent: bool = False) -> Answer:
    """Read the answer in what a peer sends."""
    return ResponseReader(Peer(pieces, silent=silent).receive, early).read()


def bytewise(data: bytes) -> Iterator[bytes]:
    """Split into single bytes."""
    return (data[place : place + 1] for place in range(len(data)))


# --- what counts as a response ---


@given(interims=st.lists(st.sampled_from([100, 102, 103, 199]), max_size=5), status=st.integers(200, 999))
@example(interims=[103], status=503)
def test_interim_responses_are_not_the_answer(interims: list[int], status: int) -> None:
    """Whatever comes before it, the answer is the final response."""
    heads = [f"HTTP/1.1 {interim} Wait\r\nLink: </a>; rel=preload\r\n\r\n" for interim in interims]
    data = "".join([*heads, f"HTTP/1.1 {status} Done\r\nContent-Length: 0\r\n\r\n"]).encode()
    for pieces in ([data], bytewise(data)):
        answer = read(*pieces)
        assert (answer.response.status, answer.response.reason) == (status, "Done")


def test_switching_protocols_is_an_answer() -> None:
    """101 is final, and what follows it isn't HTTP."""
    answer = read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", b"PRI * HTTP/2.0")
    assert (answer.response.status, answer.reusable, answer.success, answer.refusal) == (
        101,
        False,
        False,
        False,
    )


@given(place=st.integers(0, len(OK)))
@example(place=len(b"HTTP/1.1 200"))
def test_a_head_that_is_broken_off_is_no_response(place: int) -> None:
    """Up to the last byte of the head nothing was answered; from then on the status counts."""
    if place < OK.index(b"{"):
        with pytest.raises(InterruptedResponseError):
            read(OK[:place])
    else:
        answer = read(OK[:place])
        assert answer.response.status == 200
        assert answer.reusable == (place == len(OK))


@pytest.mark.parametrize(
    "headers",
    [
        b"X-A: b\r\n" * 101,
        b"X-Long: " + b"x" * 70_000 + b"\r\n",
        b"X-A: b\r\n" * 100_000,
        b"x" * 100_000,
        b"\n".join([b"X-A: b"] * 100_000),
    ],
)
@pytest.mark.parametrize("status", [200, 503])
def test_our_own_limits_cost_the_connection_and_not_the_answer(status: int, headers: bytes) -> None:
    """However long the head is, its status and the headers that were read count."""
    start = b"HTTP/1.1 %d OK\r\nRetry-After: 7\r\n" % status
    answer = read(start + headers + b"\r\nContent-Length: 0\r\n\r\n")
    assert (answer.response.status, answer.response.retry_after) == (status, "7")
    assert len(headers) < MAX_HEAD or (answer.reusable, answer.response.excerpt) == (False, b"")


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 103 Early Hints\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 ",
    ],
)
@pytest.mark.parametrize("filler", [b"\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", b"X-A: b\r\n", b"x", b" "])
def test_a_response_must_begin_within_the_limit(start: bytes, filler: bytes) -> None:
    """Blank lines, interim responses or a status line without an end are no answer, and reading them ends."""
    peer = Peer(itertools.chain([start], itertools.repeat(filler * 1_000)))
    try:
        status = ResponseReader(peer.receive).read().response.status
    except MalformedResponseError:
        status = None
    assert status is None or (start.endswith(b"200 ") and filler.endswith(b"\n"))
    assert peer.received <= MAX_HEAD + MAX_BODY


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 9999 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 -200 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.x 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"x",
        "HTTP/1.1 ²00 OK\r\n\r\n".encode("latin-1"),
    ],
)
def test_what_isnt_http_is_malformed(garbage: bytes) -> None:
    """A peer that isn't HTTP is recognised by its first bytes, without waiting for the end."""
    with pytest.raises(MalformedResponseError):
        read(garbage, silent=True)


@given(data=st.binary(max_size=300), silent=st.booleans())
def test_any_bytes_are_an_answer_or_one_of_three_errors(data: bytes, silent: bool) -> None:
    """Nothing that a peer sends is an error of another kind."""
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            answer = read(start + data, silent=silent)
        except (MalformedResponseError, InterruptedResponseError, TimeoutError):
            continue
        assert 101 <= answer.response.status <= 999


def test_what_is_logged_is_short_and_printable() -> None:
    """The reason phrase is kept without control characters, since it goes to the log."""
    answer = read(b"HTTP/1.1 500 \x1b[2Jno\r" + b"!" * 1_000 + b"\r\nContent-Length: 0\r\n\r\n")
    assert answer.response.reason == " [2Jno " + "!" * 93


# --- the body ---


@given(
    body=st.binary(max_size=2 * MAX_EXCERPT),
    status=st.sampled_from([200, 201, 400, 503]),
    chunk=st.integers(1, 3_000),
    chunked=st.booleans(),
)
def test_a_body_is_kept_up_to_its_limit(body: bytes, status: int, chunk: int, chunked: bool) -> None:
    """The beginning of a body is kept, however it is delimited; a complete success keeps the connection."""
    if chunked:
        chunks = [body[place : place + chunk] for place in range(0, len(body), chunk)]
        framed = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in chunks)
        data = b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nX-Trailer: a\r\n\r\n"
    else:
        data = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    answer = read(b"HTTP/1.1 %d OK\r\n" % status + data)
    small = len(body) <= MAX_EXCERPT and len(data) < MAX_BODY
    if small:
        assert answer.response.excerpt == body
        assert answer.reusable == (status < 300)
    else:
        assert body.startswith(answer.response.excerpt)
        assert len(answer.response.excerpt) <= MAX_EXCERPT
    if len(body) > MAX_EXCERPT:
        assert not answer.reusable


@pytest.mark.parametrize("ending", [[], [b"HTTP/1.1 200 OK\r\n"], [b"5\r\nab"], [b"-1\r\nabc"]])
def test_a_body_that_breaks_off_changes_nothing(ending: list[bytes]) -> None:
    """After the status, silence, an end or garbage only costs the connection."""
    for status, silent in itertools.product((200, 503), (True, False)):
        head = b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n" % status
        answer = read(head, *ending, silent=silent)
        assert (answer.response.status, answer.reusable) == (status, False)


LENGTHS = [
    "Content-Length: -1",
    "Content-Length: 99999999999999999999999999",
    "Content-Length: 1e3",
    "Content-Length: 0x10",
    "Content-Length: ²",
    "Content-Length: 5 5",
    "Content-Length: 5, 6",
    "Content-Length: 5\r\nContent-Length: 7",
    "Content-Length: " + "9" * 20_000,
    "Content-Length: 900000000000",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "X-No-Length: 1",
]
LINES = ["HTTP/1.1 200 OK", "HTTP/1.1 103 x", "HTTP/1.1 500 x", "", "\n", "0", "abc", ":", " folded"]
FIELDS = ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 3"]
CHUNKS = [
    "-1\r\n",
    "+5\r\n",
    "0x5\r\n",
    " 5\r\n",
    "g\r\n",
    "\r\n",
    "ffffffffffffffff\r\n",
    "1" * 20_000 + "\r\n",
    "5;" + "e" * 20_000,
    "0\r\n" + "X-Trailer: a\r\n" * 10_000,
    "1\r\nx\r\n" * 10_000,
    "5\r\nabcdefgh",
]


@pytest.mark.parametrize("status", [200, 413])
@pytest.mark.parametrize(
    "start",
    [
        *(length + "\r\n\r\n" for length in LENGTHS),
        *("Transfer-Encoding: chunked\r\n\r\n" + c for c in CHUNKS),
    ],
)
@pytest.mark.parametrize("filler", [b"x" * 100_000, b"\r\n" * 50_000, b"0\r\n" * 30_000])
def test_no_claimed_length_makes_us_read_more(start: str, status: int, filler: bytes) -> None:
    """Whatever length a peer claims, and however much it sends, what is read and kept is bounded."""
    peer = Peer(
        itertools.chain([f"HTTP/1.1 {status} OK\r\n{start}".encode("latin-1")], itertools.repeat(filler))
    )
    tracemalloc.start()
    answer = ResponseReader(peer.receive).read()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.response.status, answer.reusable) == (status, False)
    assert len(answer.response.excerpt) <= MAX_EXCERPT
    assert peer.received <= MAX_HEAD + MAX_BODY
    assert most < 4 * (MAX_HEAD + MAX_BODY)


@given(
    start=st.lists(st.sampled_from([*LINES, *FIELDS, *LENGTHS, *CHUNKS]), max_size=8),
    filler=st.binary(min_size=1, max_size=20),
)
def test_reads_and_memory_are_bounded(start: list[str], filler: bytes) -> None:
    """For any bytes that a peer sends, endlessly, the number of bytes read and kept is bounded."""
    pieces = [f"{piece}\r\n".encode("latin-1") for piece in start]
    peer = Peer(itertools.chain(pieces, itertools.repeat(filler * 500)))
    tracemalloc.start()
    try:
        excerpt = ResponseReader(peer.receive).read().response.excerpt
    except MalformedResponseError:
        excerpt = b""
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(excerpt) <= MAX_EXCERPT
    assert peer.received <= MAX_HEAD + MAX_BODY
    assert most < 8 * (MAX_HEAD + MAX_BODY)


# --- the connection ---


@pytest.mark.parametrize(
    ("data", "status", "reusable"),
    [
        (OK, 200, True),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, True),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\ncontent-length:0\r\n\r\n", 200, True),
        # Doubtful, or not to be kept.
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", 204, False),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", 200, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nConnection: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", 200, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nX y: 1\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 5\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nX-A: b\0\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 200, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", 200, False),
        (b"\r\n" + OK, 200, True),
        (b"HTTP/1.1 103 x\r\n\r\n" + OK, 200, True),
        # Whatever isn't a success.
        (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", 503, False),
        (b"HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n", 400, False),
        (b"HTTP/1.1 304 x\r\n\r\n", 304, False),
    ],
)
def test_after_which_responses_a_connection_is_reusable(data: bytes, status: int, reusable: bool) -> None:
    """A connection is reusable only after exactly one complete success, however its bytes arrive."""
    for pieces in ([data], bytewise(data)):
        answer = read(*pieces, silent=True)
        assert (answer.response.status, answer.reusable) == (status, reusable)


@given(rest=st.sampled_from([b"\r\n", OK, b"x"]), place=st.integers(0, len(OK) - 1))
def test_what_follows_a_response_costs_the_connection(rest: bytes, place: int) -> None:
    """Bytes after the response are discarded with the connection."""
    assert not read(OK[:place], OK[place:] + rest).reusable


@pytest.mark.parametrize(
    "head",
    [
        b"Retry-After: 7\r\n",
        b"retry-after:7\r\n",
        b"Retry-After:\r\n 7\r\n",
        b"Retry-After : 7\r\n",
        b"Retry-After: 7\n",
        b"no colon\r\nRetry-After: \t7 \r\n",
        b"Retry-After: 7\r\nRetry-After: 9\r\n",
    ],
)
def test_headers_are_understood_though_they_are_odd(head: bytes) -> None:
    """Oddities cost the connection, not the status."""
    assert read(b"HTTP/1.1 503 Busy\r\n" + head + b"\r\n").response.retry_after == "7"


# --- what came too early ---


@given(data=st.sampled_from([OK, b"HTTP/1.1 103 x\r\n\r\n" + OK]), early=st.integers(0, 80))
def test_an_answer_that_began_before_the_request_ended_is_premature(data: bytes, early: int) -> None:
    """It is premature if its first byte came early, not if only interim responses did."""
    answer = read(data[early:], early=data[:early])
    assert answer.response.status == 200
    assert answer.premature == (early > data.index(b"HTTP/1.1 200"))


def test_a_tunnel_has_no_body() -> None:
    """After the success of a CONNECT comes another protocol, whatever length is claimed."""
    peer = Peer([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"], silent=True)
    assert ResponseReader(peer.receive).read(tunnel=True).rest == 0
    assert read(b"HTTP/1.1 200 OK\r\n\r\nmore", silent=True).rest == 4
