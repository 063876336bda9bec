"""Properties of the wire format."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import hmac
import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.wire import (
    Failure,
    FailureKind,
    Request,
    Response,
    build_request,
    compress,
    sign,
    signature_header,
)


@given(
    body=st.binary(max_size=2_000),
    secret=st.binary(min_size=1, max_size=80),
    level=st.integers(1, 9),
    wall_time=st.integers(0, 4_000_000_000),
)
def test_a_request_carries_body_signature_and_date(
    body: bytes, secret: bytes, level: int, wall_time: int
) -> None:
    """Whatever the body and secret, the collector can unpack the body, verify it, and read the date."""
    request = build_request(body, key_name="name", secret=secret, level=level, wall_time=wall_time)
    mac = hmac.new(secret, body, hashlib.sha256).hexdigest()
    assert gzip.decompress(request.body) == body
    assert request.headers["X-Signature"] == f"key=name, mac={mac}"
    assert request.headers["Idempotency-Key"] == mac
    assert email.utils.parsedate_to_datetime(request.headers["Date"]).timestamp() == wall_time
    assert request.headers["Date"].endswith(" GMT")


@given(pieces=st.lists(st.binary(max_size=500), max_size=8), level=st.integers(1, 9))
def test_a_body_in_pieces_is_the_body(pieces: list[bytes], level: int) -> None:
    """However a body is cut, its request says the same."""
    whole, cut = (
        build_request(body, key_name="k", secret=b"s", level=level, wall_time=0)
        for body in (b"".join(pieces), iter(pieces))
    )
    assert gzip.decompress(cut.body) == gzip.decompress(whole.body) == b"".join(pieces)
    assert cut.headers == whole.headers


def test_a_body_is_never_in_memory_whole() -> None:
    """Of a body that is given in pieces there is one piece, what zlib needs, and what it makes of it."""
    pieces = (b"%d" % place * 60_000 for place in range(100))
    tracemalloc.start()
    request = build_request(pieces, key_name="k", secret=b"s", level=1, wall_time=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(gzip.decompress(request.body)) > 6_000_000
    assert most < 1_000_000


@given(
    body=st.binary(max_size=200), first=st.integers(0, 2_000_000_000), second=st.integers(0, 2_000_000_000)
)
def test_a_retry_differs_in_its_date_only(body: bytes, first: int, second: int) -> None:
    """A later attempt carries the same bytes and mac, so that a collector can recognise duplicates."""
    one, other = (
        build_request(body, key_name="k", secret=b"s", level=3, wall_time=wall_time)
        for wall_time in (first, second)
    )
    assert one.body == other.body
    assert {**one.headers, "Date": ""} == {**other.headers, "Date": ""}


@given(body=st.binary(max_size=200), secret=st.binary(min_size=1, max_size=80))
def test_mac_is_lower_case_hexadecimal(body: bytes, secret: bytes) -> None:
    """A mac is 64 lower-case hexadecimal digits, and another body or secret has another one."""
    mac = sign(secret, body)
    assert len(mac) == 64
    assert set(mac) <= set("0123456789abcdef")
    assert sign(secret, body + b" ") != mac
    assert sign(secret + b"x", body) != mac


def test_signature_by_example() -> None:
    """RFC 4231, test case 2, in the header's form."""
    mac = sign(b"Jefe", b"what do ya want for nothing?")
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature_header("NameOfASecretKey", mac) == f"key=NameOfASecretKey, mac={expected}"


def test_headers_by_example() -> None:
    """The headers of a request are these, and no others."""
    request = build_request(b"[{}]", key_name="k", secret=b"s", level=1, wall_time=0)
    assert dict(request.headers) == {
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
        "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "User-Agent": "baseplate-event-publisher/1.0",
        "X-Signature": f"key=k, mac={sign(b's', b'[{}]')}",
        "Idempotency-Key": sign(b"s", b"[{}]"),
    }


def test_what_repeats_within_32_kib_is_found() -> None:
    """The window is the largest one, so that batches become as small as they can."""
    part = random.Random(1).randbytes(30_000)
    assert len(compress(part + part, 9)) < 31_000


def test_what_goes_over_the_wire_are_values() -> None:
    """They are compared by what they hold; of a response nothing but its status must be known."""
    assert Failure(FailureKind.TIMED_OUT, "why") == Failure(FailureKind.TIMED_OUT, "why")
    assert Failure(FailureKind.TIMED_OUT, "why") != Failure(FailureKind.INTERRUPTED, "why")
    assert Response(200) == Response(200, "", None, None, b"")
    assert Request({"a": "b"}, b"") == Request({"a": "b"}, b"")
