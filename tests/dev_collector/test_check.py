from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import gzip
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, TypeAlias
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.cli.collect import add_arguments, run
from baseplate_events.dev_collector import (
    MAX_SIZE,
    AcceptedBatch,
    Counts,
    DevCollector,
    RejectedBatch,
    check_batch,
    check_head,
)
from tests.support.fault_collector import PATIENCE, trusted_tls
from tests.support.strategies import json_events, json_non_objects, json_objects, texts

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

KEYS = {"TestKey": b"a secret", "other.key": b"\x00\xff another"}

#: A text that no reason may repeat.
MARKER = "d41d8cd9"


@dataclass(frozen=True)
class Request:
    """A request to check; its Content-Length is always right."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def check(self, max_size: int = MAX_SIZE) -> AcceptedBatch | RejectedBatch:
        headers = [*self.headers, ("Content-Length", str(len(self.body)))]
        return check_batch(self.method, self.path, headers, self.body, KEYS, max_size=max_size)

    def with_header(self, name: str, *values: str) -> Request:
        """Return the request with exactly these values of a header."""
        others = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return replace(self, headers=(*others, *((name, value) for value in values)))


def mac_of(plain: bytes, key: str = "TestKey") -> str:
    """Return the right mac of a body, computed by other means than the package's."""
    return hmac.new(KEYS[key], plain, hashlib.sha256).hexdigest()


def sealed(path: str, plain: bytes, key: str = "TestKey", level: int | None = 1) -> Request:
    """Return a request that carries these bytes, rightly signed; level None leaves out the compression."""
    headers = (("Content-Type", "application/json"), ("X-Signature", f"key={key}, mac={mac_of(plain, key)}"))
    if level is None:
        return Request("POST", path, headers, plain)
    body = gzip.compress(plain, level, mtime=0)
    return Request("POST", path, (*headers, ("Content-Encoding", "gzip")), body)


def batch_of(events: list[bytes], path: str, count: int | None = None) -> bytes:
    """Return the body of a batch by the wire format."""
    joined = b",".join(events)
    if path == "/v2j":
        return b"[" + joined + b"]"
    return b'{"1":{"lst":["rec",%d,' % (len(events) if count is None else count) + joined + b"]}}"


def assert_refused(verdict: AcceptedBatch | RejectedBatch, *statuses: int) -> RejectedBatch:
    """Assert that a request is refused with one of these statuses, and return the refusal."""
    assert isinstance(verdict, RejectedBatch)
    assert verdict.status in statuses, verdict
    assert verdict.reason.isascii()
    assert verdict.reason.isprintable()
    return verdict


paths = st.sampled_from(["/v2", "/v2j"])
event_lists = st.lists(json_events, min_size=1, max_size=4)


@st.composite
def batch_requests(draw: st.DrawFn, levels: tuple[int | None, ...]) -> Request:
    """Give rightly signed requests of any events, compressed at one of these levels."""
    path = draw(paths)
    plain = batch_of(draw(event_lists), path)
    return sealed(path, plain, draw(st.sampled_from(sorted(KEYS))), draw(st.sampled_from(levels)))


requests = batch_requests((None, 1, 9))
gzipped_requests = batch_requests((1, 9))
SAMPLE = sealed("/v2", batch_of([b'{"id":1}', b'{"id":2}'], "/v2"))


# --- The batch ---


@given(event_lists, paths, st.sampled_from(sorted(KEYS)), st.sampled_from([None, 1, 6, 9]))
def test_any_batch_of_the_wire_comes_out_as_it_went_in(
    events: list[bytes], path: str, key: str, level: int | None
) -> None:
    """A rightly signed batch of any events is accepted, and gives back exactly their bytes."""
    assert AcceptedBatch(tuple(events)) == sealed(path, batch_of(events, path), key, level).check()


@given(event_lists, paths, st.sampled_from(["", " ", "\t\r\n "]))
def test_blanks_around_events_are_left_out(events: list[bytes], path: str, blanks: str) -> None:
    """Blanks between events are valid JSON, and no part of the events."""
    spaced = [blanks.encode() + event + blanks.encode() for event in events]
    assert AcceptedBatch(tuple(events)) == sealed(path, batch_of(spaced, path)).check()


@given(json_objects, paths)
def test_an_event_of_several_lines_comes_out_in_one(value: dict[str, object], path: str) -> None:
    """Line breaks between the tokens of an event go, with all other blanks there; the tokens stay."""
    written = json.dumps(value, indent="\t ", ensure_ascii=False)
    several_lines = written.replace("\n", "\r\n").encode()
    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert AcceptedBatch((compact,)) == sealed(path, batch_of([several_lines], path)).check()


def test_tokens_of_an_event_of_several_lines_are_not_rewritten() -> None:
    """Numbers, escapes and blanks within strings come out as they were written."""
    event = b'{ "a\\" b" :\n[1.50e+2, 12345678901234567890.0,\r"\\u0041 \\\\ ," ] }'
    expected = b'{"a\\" b":[1.50e+2,12345678901234567890.0,"\\u0041 \\\\ ,"]}'
    assert AcceptedBatch((expected,)) == sealed("/v2j", b"[" + event + b"]").check()


def test_numbers_of_any_length_pass() -> None:
    """A number with more digits than Python converts is valid JSON."""
    event = b'{"n":' + b"9" * 10_000 + b"}"
    assert AcceptedBatch((event,)) == sealed("/v2j", b"[" + event + b"]").check()


@given(st.lists(json_events, min_size=1, max_size=3), json_non_objects, st.integers(0, 3), paths)
def test_an_event_that_is_no_object_is_refused(
    events: list[bytes], value: object, place: int, path: str
) -> None:
    """One value that isn't an object refuses the batch, wherever it stands."""
    events.insert(place, json.dumps(value).encode())
    assert "isn't a JSON object" in assert_refused(sealed(path, batch_of(events, path)).check(), 400).reason


@given(event_lists, st.integers(0, 20))
def test_the_count_must_be_right(events: list[bytes], count: int) -> None:
    """A batch of version 2 is accepted with the number of its events, and with no other."""
    verdict = sealed("/v2", batch_of(events, "/v2", count)).check()
    if count == len(events):
        assert AcceptedBatch(tuple(events)) == verdict
    else:
        assert f"holds {len(events)}" in assert_refused(verdict, 400).reason


@given(event_lists, paths, st.data())
def test_a_batch_cut_anywhere_is_refused(events: list[bytes], path: str, data: st.DataObject) -> None:
    """No beginning of a batch is a batch, though its signature is right."""
    plain = batch_of(events, path)
    end = data.draw(st.integers(0, len(plain) - 1))
    assert_refused(sealed(path, plain[:end]).check(), 400)


@given(st.integers(0, 31), paths)
def test_raw_control_characters_in_strings_are_refused(code: int, path: str) -> None:
    """What a lax JSON writer leaves in a string isn't strict JSON."""
    event = b'{"a":"' + bytes([code]) + b'"}'
    assert "event 1" in assert_refused(sealed(path, batch_of([event], path)).check(), 400).reason


@pytest.mark.parametrize(
    ("path", "plain", "reason"),
    [
        ("/v2", b"", "a batch of version 2 is"),
        ("/v2", b"[{}]", "a batch of version 2 is"),
        ("/v2", b' {"1":{"lst":["rec",1,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1": {"lst":["rec",1,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"2":{"lst":["rec",1,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1":{"lst":["str",1,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1":{"lst":["rec",01,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1":{"lst":["rec",-1,{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1":{"lst":["rec",1{}]}}', "a batch of version 2 is"),
        ("/v2", b'{"1":{"lst":["rec",1,{}]}}\n', "doesn't end with ]}}"),
        ("/v2", b'{"1":{"lst":["rec",1,{}]}},"2":{}}', "doesn't end with ]}}"),
        ("/v2", b'{"1":{"lst":["rec",0]}}', "holds no events"),
        ("/v2", b'{"1":{"lst":["rec",0,]}}', "holds no events"),
        ("/v2", b'{"1":{"lst":["rec",1,{"a":[{"b":{}}]}}', "event 1 is followed by neither"),
        ("/v2j", b"", "a batch of version 2j is"),
        ("/v2j", b"{}", "a batch of version 2j is"),
        ("/v2j", b"[]", "holds no events"),
        ("/v2j", b"[", "doesn't end with ]"),
        ("/v2j", b"[{},]", "event 2 isn't a JSON object"),
        ("/v2j", b"[,{}]", "event 1 isn't a JSON object"),
        ("/v2j", b"[{}{}]", "event 1 is followed by neither"),
        ("/v2j", b"[{}]]", "event 1 is followed by neither"),
        ("/v2j", b'[{"a":NaN}]', "NaN or Infinity"),
        ("/v2j", b'[{"a":[-Infinity]}]', "NaN or Infinity"),
        ("/v2j", b'[{"a":01}]', "event 1 isn't valid JSON"),
        ("/v2j", b"[{},{'a':1}]", "event 2 isn't valid JSON"),
        ("/v2j", b'[{"a":1,}]', "event 1 isn't valid JSON"),
        ("/v2j", b'[{"a":"\\x"}]', "event 1 isn't valid JSON"),
        ("/v2j", b'[{"a":"\xff"}]', "isn't UTF-8 at byte 7"),
        ("/v2j", b'[{"a":"\xed\xa0\x80"}]', "isn't UTF-8 at byte 7"),
        ("/v2j", b"\xef\xbb\xbf[{}]", "a batch of version 2j is"),
    ],
)
def test_batches_of_the_wrong_shape_are_refused(path: str, plain: bytes, reason: str) -> None:
    """Nothing but the wire's wrapper around strict JSON objects is a batch; the reason says what is wrong."""
    assert reason in assert_refused(sealed(path, plain).check(), 400).reason


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_refused(opening: bytes, closed: bool) -> None:
    """An event nested deeper than the parser goes refuses the batch, and does no harm."""
    depth = 80_000
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    event = b'{"a":' + opening * depth + b"0" + (closing * depth + b"}" if closed else b"")
    assert_refused(sealed("/v2j", b"[" + event + b"]").check(), 400)


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which `json` reads although JSON doesn't have them."""
    raise ValueError(name)


def shape_of(path: str, plain: bytes) -> list[object] | None:
    """Return the parsed events of a batch, the way that a stranger would find them, or None."""
    try:
        parsed = json.loads(plain.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return None
    match path, parsed:
        case "/v2j", [*events]:
            pass
        case "/v2", {"1": {"lst": ["rec", int(count), *events]}} if count == len(events):
            pass
        case _:
            return None
    return events if events and all(isinstance(event, dict) for event in events) else None


@given(
    paths,
    st.lists(
        st.sampled_from(
            [*'{}[]:,"\\ \n0', "{}", '"a":', "null", "NaN", "1", '["rec",', '{"1":{"lst":["rec",1,']
        )
    ).map(lambda pieces: "".join(pieces).encode())
    | st.binary(max_size=30),
    st.booleans(),
)
@example("/v2j", b'{"a":NaN}', True)
def test_it_agrees_with_the_json_module(path: str, inner: bytes, wrapped: bool) -> None:
    """What is accepted holds the same events for `json.loads`; what is refused holds none for it."""
    plain = batch_of([inner], path) if wrapped else inner
    verdict = sealed(path, plain).check()
    expected = shape_of(path, plain)
    if isinstance(verdict, AcceptedBatch):
        events = [json.loads(event, parse_constant=refuse_constant) for event in verdict.events]
        assert events == expected
        assert not any(b"\n" in event or b"\r" in event for event in verdict.events)
    elif wrapped:
        assert expected is None


# --- The compression ---


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=16))
def test_several_gzip_members_are_one_body(pieces: list[bytes]) -> None:
    """A body may be gzipped in pieces, empty ones among them."""
    plain = batch_of(
        [json.dumps({"piece": base64.b64encode(piece).decode()}).encode() for piece in pieces], "/v2j"
    )
    cuts = [
        plain[len(plain) * i // len(pieces) : len(plain) * (i + 1) // len(pieces)] for i in range(len(pieces))
    ]
    body = b"".join(gzip.compress(cut, mtime=0) for cut in cuts)
    verdict = replace(sealed("/v2j", plain), body=body).check()
    assert isinstance(verdict, AcceptedBatch)
    assert len(pieces) == len(verdict.events)


def test_the_number_of_gzip_members_is_bounded() -> None:
    """More members than anybody needs are refused before they cost anything."""
    request = sealed("/v2j", b"[{}]")
    members = gzip.compress(b"", mtime=0) * 10_000
    assert "more than 16 gzip members" in assert_refused(replace(request, body=members).check(), 400).reason


@given(gzipped_requests, st.data())
def test_a_damaged_gzip_body_is_never_another_batch(request: Request, data: st.DataObject) -> None:
    """A changed byte of a compressed body either changes nothing (in its header) or refuses the batch."""
    before = request.check()
    place = data.draw(st.integers(0, len(request.body) - 1))
    changed = request.body[place] ^ data.draw(st.integers(1, 255))
    body = request.body[:place] + bytes([changed]) + request.body[place + 1 :]
    after = replace(request, body=body).check()
    if after != before:
        assert_refused(after, 400, 401, 413)


@given(gzipped_requests, st.data())
def test_a_cut_or_continued_gzip_body_is_refused(request: Request, data: st.DataObject) -> None:
    """A compressed body must be all there, with nothing behind it."""
    end = data.draw(st.integers(0, len(request.body) - 1))
    assert_refused(replace(request, body=request.body[:end]).check(), 400)
    rest = data.draw(st.binary(min_size=1, max_size=20))
    assert_refused(replace(request, body=request.body + rest).check(), 400)


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=4), st.integers(1, 3_000), st.booleans())
def test_the_size_is_bounded(parts: list[int], max_size: int, compressed: bool) -> None:
    """A batch is refused as too large exactly when it is larger, uncompressed, than it may be."""
    plain = b"".join(b"%d" % (part % 10) * part for part in parts)
    request = sealed("/v2j", plain, level=None)
    if compressed:
        members = b"".join(gzip.compress(b"%d" % (part % 10) * part, mtime=0) for part in parts)
        request = replace(request.with_header("Content-Encoding", "gzip"), body=members)
    verdict = assert_refused(request.check(max_size), 400, 413)
    assert (413 if len(plain) > max_size else 400) == verdict.status


@given(st.binary(max_size=2_000), st.integers(0, 9))
def test_what_is_small_enough_is_small_enough_compressed(noise: bytes, level: int) -> None:
    """The bound on a body as sent never refuses a batch that keeps the bound on its size."""
    event = json.dumps({"noise": base64.b64encode(noise).decode()}).encode()
    plain = batch_of([event], "/v2j")
    assert AcceptedBatch((event,)) == sealed("/v2j", plain, level=level).check(max_size=len(plain))


@pytest.mark.parametrize("members", [1, 8])
def test_a_bomb_is_not_inflated(members: int) -> None:
    """The memory that a body takes is bounded, whatever it would inflate to."""
    body = gzip.compress(b"[" + b" " * (64 << 20), 9, mtime=0) * members
    request = replace(sealed("/v2j", b"[{}]"), body=body)
    tracemalloc.start()
    try:
        verdict = request.check()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_refused(verdict, 413)
    assert peak < 4 * MAX_SIZE


# --- The signature ---


@given(requests, st.integers(0, 63), st.sampled_from("0123456789abcdefABCDEF"))
def test_any_other_mac_is_refused(request: Request, place: int, digit: str) -> None:
    """A mac with one digit changed is refused."""
    signature = dict(request.headers)["X-Signature"]
    start = signature.index("mac=") + len("mac=") + place
    changed = signature[:start] + digit + signature[start + 1 :]
    verdict = request.with_header("X-Signature", changed).check()
    if changed == signature:
        assert isinstance(verdict, AcceptedBatch)
    else:
        assert_refused(verdict, 401)


@given(requests, st.data())
def test_any_other_body_is_refused(request: Request, data: st.DataObject) -> None:
    """A body with one byte changed, added or left out doesn't match its signature."""
    is_gzip = ("Content-Encoding", "gzip") in request.headers
    plain = gzip.decompress(request.body) if is_gzip else request.body
    place = data.draw(st.integers(0, len(plain) - 1))
    put = data.draw(st.binary(max_size=2).filter(lambda put: put != plain[place : place + 1]))
    changed = plain[:place] + put + plain[place + 1 :]
    body = gzip.compress(changed, mtime=0) if is_gzip else changed
    assert "doesn't match" in assert_refused(replace(request, body=body).check(), 401).reason


@given(requests, texts.filter(lambda name: name not in KEYS and name and "," not in name))
def test_any_other_key_is_refused(request: Request, name: str) -> None:
    """A key that isn't known is refused, and so is the mac of one key under the name of another."""
    signature = dict(request.headers)["X-Signature"]
    used, _, mac = signature.removeprefix("key=").partition(", mac=")
    verdict = request.with_header("X-Signature", f"key={name}, mac={mac}").check()
    assert "unknown key" in assert_refused(verdict, 401).reason
    (other,) = KEYS.keys() - {used}
    verdict = request.with_header("X-Signature", f"key={other}, mac={mac}").check()
    assert "doesn't match" in assert_refused(verdict, 401).reason


@given(texts)
def test_a_signature_of_any_other_form_is_refused(words: str) -> None:
    """What isn't `key=NAME, mac=HEX` is refused as such, whatever the body is."""
    verdict = replace(SAMPLE, body=b"not gzip").with_header("X-Signature", words).check()
    assert "X-Signature isn't" in assert_refused(verdict, 401).reason


# --- The head ---


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (replace(SAMPLE, path="/v1"), 404, "'/v1'"),
        (replace(SAMPLE, path="/v2/"), 404, "'/v2/'"),
        (replace(SAMPLE, path="/v2?x"), 404, "'/v2?x'"),
        (replace(SAMPLE, path="/" + "x" * 5_000), 404, "x...'"),
        (replace(SAMPLE, method="PUT", path="/"), 404, "'/'"),
        (replace(SAMPLE, method="GET"), 405, "'GET'"),
        (replace(SAMPLE, method="post"), 405, "'post'"),
        (SAMPLE.with_header("Transfer-Encoding", "chunked"), 411, "Transfer-Encoding"),
        (SAMPLE.with_header("content-length", "7"), 400, "Content-Length was sent 2 times"),
        (SAMPLE.with_header("Content-Type"), 415, "Content-Type"),
        (SAMPLE.with_header("Content-Type", "text/plain"), 415, "Content-Type"),
        (SAMPLE.with_header("Content-Type", "application/json", "application/json"), 415, "2 times"),
        (SAMPLE.with_header("Content-Encoding", "br"), 415, "Content-Encoding"),
        (SAMPLE.with_header("Content-Encoding", "gzip, gzip"), 415, "Content-Encoding"),
        (SAMPLE.with_header("Content-Encoding", "gzip", "gzip"), 415, "2 times"),
        (SAMPLE.with_header("Content-Encoding"), 401, "doesn't match"),
        (SAMPLE.with_header("X-Signature"), 401, "missing"),
        (SAMPLE.with_header("X-Signature", *[dict(SAMPLE.headers)["X-Signature"]] * 2), 401, "2 times"),
    ],
)
def test_a_wrong_head_is_refused(request_: Request, status: int, reason: str) -> None:
    """Each header, the path and the method have one status of their own."""
    assert reason in assert_refused(request_.check(), status).reason


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (None, 411),
        ("", 400),
        ("x", 400),
        ("-1", 400),
        ("+1", 400),
        ("1 1", 400),
        ("\u0661", 400),
        ("4", 400),
        ("5000000", 413),
    ],
)
def test_a_wrong_length_is_refused(length: str | None, status: int) -> None:
    """The length must be there, be a number, be that of the body, and be bounded."""
    headers = [*SAMPLE.headers, *([] if length is None else [("Content-Length", length)])]
    assert_refused(check_batch("POST", "/v2", headers, SAMPLE.body, KEYS), status)


@given(requests, st.data())
def test_names_of_headers_have_no_case(request: Request, data: st.DataObject) -> None:
    """Headers may come in any case and order, with blanks around their values."""
    cases = [str.lower, str.upper, str.title]
    headers = tuple(
        (data.draw(st.sampled_from(cases))(name), f" {value}\t")
        for name, value in data.draw(st.permutations(request.headers))
    )
    assert isinstance(replace(request, headers=headers).check(), AcceptedBatch)


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
@pytest.mark.parametrize("encoding", ["GZIP", "gzip"])
def test_equal_ways_to_write_a_header_are_accepted(media_type: str, encoding: str) -> None:
    """Media types and encodings have no case, and a media type may have parameters."""
    request = SAMPLE.with_header("Content-Type", media_type).with_header("Content-Encoding", encoding)
    assert isinstance(request.check(), AcceptedBatch)


any_text = st.text(max_size=20)
header_names = any_text | st.sampled_from(
    ["Content-Length", "Content-Type", "Content-Encoding", "X-Signature", "Transfer-Encoding"]
)
header_values = any_text | st.sampled_from(
    ["3", "gzip", "application/json", f"key=TestKey, mac={mac_of(b'[]')}", f"key=\udcff, mac={'0' * 64}"]
)


@given(
    st.sampled_from(["POST", "GET"]) | any_text,
    paths | any_text,
    st.lists(st.tuples(header_names, header_values), max_size=8),
    st.binary(max_size=50),
    st.integers(1, 100),
)
def test_nothing_raises(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes, max_size: int
) -> None:
    """Any request at all gets a verdict, and a reason of one line of printable ASCII."""
    verdict = check_batch(method, path, headers, body, KEYS, max_size=max_size)
    if isinstance(verdict, RejectedBatch):
        assert_refused(verdict, 400, 401, 404, 405, 411, 413, 415)
    head = check_head(method, path, headers, max_size=max_size)
    if isinstance(head, RejectedBatch):
        assert head == verdict


@given(event_lists, paths, st.data())
def test_reasons_and_reprs_repeat_no_event_and_no_secret(
    events: list[bytes], path: str, data: st.DataObject
) -> None:
    """Whatever is wrong with a batch, the verdict shows none of its content, no secret and no right mac."""
    marked = [
        b'{"' + MARKER.encode() + b'":"' + MARKER.encode() + b'"}',
        *events,
        b'{"a":[' + b'"%s"' % MARKER.encode() + b"]}",
    ]
    plain = batch_of(marked, path)
    place = data.draw(st.integers(0, len(plain) - 1))
    put = data.draw(st.binary(max_size=1) | st.sampled_from([b'"', b"\\", b"NaN", b"{", b"]"]))
    broken = plain[:place] + put + plain[place + 1 :]
    for request in (sealed(path, broken), replace(sealed(path, plain), body=gzip.compress(broken))):
        shown = repr(request.check())
        assert MARKER not in shown
        assert mac_of(broken) not in shown
        assert "a secret" not in shown


# --- The server ---


class Sink:
    """Keeps what a collector hands on."""

    def __init__(self) -> None:
        self.batches: list[tuple[bytes, ...]] = []
        self.rejected: list[RejectedBatch] = []

    def on_batch(self, batch: AcceptedBatch) -> None:
        self.batches.append(batch.events)


@pytest.fixture
def sink() -> Sink:
    """Give a sink that keeps all."""
    return Sink()


@pytest.fixture
def collector(sink: Sink) -> Generator[DevCollector, None, None]:
    """Give a running collector."""
    with DevCollector(KEYS, sink.on_batch, on_rejected=sink.rejected.append) as running:
        yield running


@contextlib.contextmanager
def connected(collector: DevCollector) -> Generator[http.client.HTTPConnection, None, None]:
    """Give a client of a collector; it connects with its first request."""
    connection = http.client.HTTPConnection(*collector.address, timeout=PATIENCE)
    try:
        yield connection
    finally:
        connection.close()


def post(connection: http.client.HTTPConnection, request: Request) -> tuple[int, str]:
    """Send a request and return the status and the body of the answer."""
    connection.request(request.method, request.path, request.body, dict(request.headers))
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_a_connection_carries_batch_after_batch(collector: DevCollector, sink: Sink) -> None:
    """Connections are kept alive, also over refusals for signature, size and content."""
    with connected(collector) as connection:
        connection.connect()
        own_end = connection.sock.getsockname()
        for number in range(5):
            request = sealed("/v2", batch_of([b'{"id":%d}' % number], "/v2"))
            assert post(connection, request) == (200, '{"accepted": 1}\n')
            assert post(connection, request.with_header("X-Signature"))[0] == 401
            assert post(connection, sealed("/v2j", b"[1]"))[0] == 400
            assert post(connection, sealed("/v2j", b" " * (MAX_SIZE + 1)))[0] == 413
        assert own_end == connection.sock.getsockname()
    assert [(b'{"id":%d}' % number,) for number in range(5)] == sink.batches
    assert Counts(5, 5, {401: 5, 400: 5, 413: 5}) == collector.counts
    assert [rejected.status for rejected in sink.rejected] == [401, 400, 413] * 5


def test_clients_are_served_at_the_same_time(collector: DevCollector, sink: Sink) -> None:
    """Each event of many clients is handed on once, in whole batches, each before its answer."""
    rounds = 20

    def client(number: int) -> None:
        with connected(collector) as connection:
            for turn in range(rounds):
                events = [b'{"client":%d,"turn":%d,"place":%d}' % (number, turn, place) for place in range(3)]
                assert post(connection, sealed("/v2j", batch_of(events, "/v2j"))) == (
                    200,
                    '{"accepted": 3}\n',
                )
                assert tuple(events) in sink.batches

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert len(set(sink.batches)) == len(sink.batches) == 8 * rounds
    assert Counts(8 * rounds, 3 * 8 * rounds, {}) == collector.counts


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (replace(SAMPLE, path="/events"), 404),
        (replace(SAMPLE, method="PUT"), 405),
        (replace(SAMPLE, method="BREW"), 501),
        (SAMPLE.with_header("Content-Type", "text/plain"), 415),
        (SAMPLE.with_header("Content-Length", "x"), 400),
        (replace(SAMPLE, body=b"x" * (8 << 20)), 413),
    ],
)
def test_a_client_sees_why_it_is_refused(collector: DevCollector, request_: Request, status: int) -> None:
    """The answer arrives though the body was not read, also when the client sends all of it first."""
    with connected(collector) as connection:
        found, reason = post(connection, request_)
        assert status == found
        assert reason.strip()
        assert connection.sock is None, "the collector says that it ends the connection"
        # The next request needs a new connection, and gets it.
        assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
    assert Counts(1, 2, {status: 1}) == collector.counts


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /v2 HTTP/1.1\r\n\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", 411),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 405),
        (b"HEAD / HTTP/1.0\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"what " + MARKER.encode() + b" ever it is\r\n\r\n", 400),
        (b"POST /v2 HTTP/9.0\r\n\r\n", 505),
        (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"POST /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", 431),
    ],
)
def test_any_bytes_get_an_answer(collector: DevCollector, data: bytes, status: int) -> None:
    """What isn't a request of the wire, or of HTTP at all, gets a reason, and its connection is ended."""
    with socket.create_connection(collector.address, PATIENCE) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65_536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Length: " in head
    assert b"Connection: close" in head
    assert (b"\r\nAllow: POST\r\n" in head) == (status == 405)
    assert data.startswith(b"HEAD") == (body == b"")
    assert MARKER.encode() not in answer
    assert {status: 1} == collector.counts.rejected


def test_the_root_says_what_this_is(collector: DevCollector) -> None:
    """Somebody who looks at it with a browser learns that it is a collector for development."""
    with connected(collector) as connection:
        status, text = post(connection, Request("GET", "/", (), b""))
    assert status == 200
    assert "for development" in text


def test_a_client_that_waits_for_leave_gets_it(collector: DevCollector) -> None:
    """`Expect: 100-continue` is answered before the body is there."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in SAMPLE.headers)
    head = f"POST /v2 HTTP/1.1\r\n{headers}Content-Length: {len(SAMPLE.body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(collector.address, PATIENCE) as client:
        client.sendall(head.encode())
        assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        client.sendall(SAMPLE.body)
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_clients_that_leave_harm_nobody(collector: DevCollector, capfd: pytest.CaptureFixture[str]) -> None:
    """A client may leave at any point of its request; the others are served and nothing is printed."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in SAMPLE.headers)
    whole = f"POST /v2 HTTP/1.1\r\n{headers}Content-Length: {len(SAMPLE.body)}\r\n\r\n".encode() + SAMPLE.body
    for end in range(0, len(whole), 7):
        with socket.create_connection(collector.address, PATIENCE) as client:
            client.sendall(whole[:end])
            if end % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with connected(collector) as connection:
        assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
    collector.close()
    assert collector.counts.batches == 1
    assert capfd.readouterr() == ("", "")


def test_a_sink_that_fails_refuses_the_batch() -> None:
    """Events that couldn't be handed on are not acknowledged, and count as refused."""

    def full(_: AcceptedBatch) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), MARKER)

    with DevCollector(KEYS, full) as collector, connected(collector) as connection:
        assert post(connection, SAMPLE) == (500, "can't write the events: No space left on device\n")
        assert Counts(0, 0, {500: 1}) == collector.counts


def test_a_bug_of_the_sink_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """An error that isn't the system's ends the connection and is printed with its traceback."""

    def broken(_: AcceptedBatch) -> None:
        raise ZeroDivisionError

    with DevCollector(KEYS, broken) as collector, connected(collector) as connection:
        with pytest.raises(http.client.RemoteDisconnected):
            post(connection, SAMPLE)
        assert collector.counts.batches == 0
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_closing_ends_idle_connections_and_refuses_new_ones(collector: DevCollector) -> None:
    """After `close` nothing is accepted any more, on no connection; closing again does nothing."""
    with connected(collector) as connection:
        assert post(connection, SAMPLE)[0] == 200
        collector.close()
        with pytest.raises(ConnectionError):
            post(connection, SAMPLE)
        connection.close()
        with pytest.raises(ConnectionRefusedError):
            post(connection, SAMPLE)
    collector.close()
    assert collector.counts.batches == 1


def test_closing_waits_for_an_answer_under_way() -> None:
    """A batch that is being handed on when the collector closes is answered, then its connection ended."""
    handing_on, go_on = threading.Event(), threading.Event()

    def slow(_: AcceptedBatch) -> None:
        handing_on.set()
        assert go_on.wait(PATIENCE)

    collector = DevCollector(KEYS, slow)
    with ThreadPoolExecutor(2) as pool, connected(collector) as connection:
        answer = pool.submit(post, connection, SAMPLE)
        assert handing_on.wait(PATIENCE)
        closed = pool.submit(collector.close)
        while is_open(collector):
            assert not closed.done()
        assert not closed.done()
        go_on.set()
        assert answer.result(PATIENCE) == (200, '{"accepted": 2}\n')
        closed.result(PATIENCE)
        assert connection.sock is None
    assert collector.counts.batches == 1


def is_open(collector: DevCollector) -> bool:
    """Return whether a collector, or the system for it, takes new connections."""
    with socket.socket() as probe:
        return probe.connect_ex(collector.address) == 0


def test_it_speaks_tls(sink: Sink) -> None:
    """With a context it serves HTTPS to clients who trust its authority, and survives those who don't."""
    context, authority = trusted_tls()
    client = ssl.create_default_context(cadata=authority.decode())
    with DevCollector(KEYS, sink.on_batch, ssl_context=context) as collector:
        assert collector.url.startswith("https://127.0.0.1:")
        with socket.create_connection(collector.address, PATIENCE):  # says nothing, and holds up nobody
            stranger = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE)
            with pytest.raises(ssl.SSLCertVerificationError):
                post(stranger, SAMPLE)
            stranger.close()
            connection = http.client.HTTPSConnection(*collector.address, timeout=PATIENCE, context=client)
            for _ in range(2):
                assert post(connection, SAMPLE) == (200, '{"accepted": 2}\n')
            collector.close()
            connection.close()
    assert len(sink.batches) == 2


def test_it_listens_on_ipv6(sink: Sink) -> None:
    """An address of IPv6 works, and is written in brackets in the URL."""
    try:
        collector = DevCollector(KEYS, sink.on_batch, host="::1")
    except OSError:
        pytest.skip("this host has no IPv6")
    with collector, connected(collector) as connection:
        assert urlsplit(collector.url).port == collector.address[1]
        assert urlsplit(collector.url).hostname == "::1"
        assert post(connection, SAMPLE)[0] == 200


# --- The command ---

#: The process of the command, and its URL.
Running: TypeAlias = tuple[subprocess.Popen[str], str]

SECRET = base64.b64encode(KEYS["TestKey"]).decode()


@contextlib.contextmanager
def collecting(*options: str, stdout: int = subprocess.PIPE) -> Generator[Running, None, None]:
    """Run the command with a key on a free port; give the process and its URL."""
    command = [sys.executable, "-m", "baseplate_events", "collect", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--key", f"TestKey={SECRET}", *options], stdout=stdout, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("listening on http://127.0.0.1:"), line + process.stderr.read()
            assert line.endswith(" (for development only)\n")
            yield process, line.split()[2]
        finally:
            process.kill()


def post_to(url: str, request: Request) -> tuple[int, str]:
    """Send a request on a connection of its own."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        return post(connection, request)
    finally:
        connection.close()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_writes_events_as_lines(ending: signal.Signals) -> None:
    """Each event is one line of stdout, each refusal one of stderr, and a signal ends it with status 0."""
    wrong = sealed("/v2j", b'[{"a":"%s}]' % MARKER.encode())
    with collecting() as (process, url):
        assert post_to(url, SAMPLE)[0] == 200
        assert post_to(url, wrong)[0] == 400
        assert post_to(url, SAMPLE.with_header("X-Signature", f"key=no\x7f, mac={'0' * 64}"))[0] == 401
        process.send_signal(ending)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert out == '{"id":1}\n{"id":2}\n'
    refused, unknown = err.splitlines()
    assert refused.startswith("refused with 400: event 1 isn't valid JSON")
    assert unknown == "refused with 401: X-Signature: unknown key 'no\\x7f'"
    assert MARKER not in err


def test_the_command_appends_to_a_file(tmp_path: Path) -> None:
    """With --output the events follow what the file held, and are there when the batch is answered."""
    output = tmp_path / "events"
    output.write_text("before\n")
    with collecting("--output", str(output)) as (process, url):
        assert post_to(url, SAMPLE)[0] == 200
        assert output.read_text() == 'before\n{"id":1}\n{"id":2}\n'
        process.terminate()
        assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0


def test_the_command_ends_when_nobody_reads() -> None:
    """When the reader of stdout is gone, the batch isn't acknowledged and the command ends with status 0."""
    reading, writing = os.pipe()
    with collecting(stdout=writing) as (process, url):
        os.close(writing)
        os.close(reading)
        assert post_to(url, SAMPLE) == (500, "can't write the events: Broken pipe\n")
        err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0
    assert err == "refused with 500: can't write the events: Broken pipe\n"


def test_the_command_bounds_the_size() -> None:
    """--max-size is the bound on a batch."""
    with collecting("--max-size", "20") as (_, url):
        assert post_to(url, sealed("/v2j", b'[{"a":"%s"}]' % (b"x" * 20)))[0] == 413
        assert post_to(url, sealed("/v2j", b'[{"a":"x"}]'))[0] == 200


def parse(*options: str) -> argparse.Namespace:
    """Return the arguments of a command line."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--bind", "8080"], "--bind '8080': expected HOST:PORT"),
        (["--bind", ":8080"], "--bind ':8080': expected HOST:PORT"),
        (["--bind", "127.0.0.1:65536"], "--bind '127.0.0.1:65536': expected HOST:PORT"),
        (["--bind", "127.0.0.1:x\n"], "--bind '127.0.0.1:x\\n': expected HOST:PORT"),
        (["--bind", "::1:80"], "--bind '::1:80': expected HOST:PORT"),
        (["--bind", "[localhost]:80"], "--bind '[localhost]:80': expected HOST:PORT"),
        (["--bind", "192.0.2.1:0"], "--bind: can't listen on 192.0.2.1, port 0: "),
        (["--bind", "a..b:0"], "--bind: can't listen on a..b, port 0: "),
        (["--max-size", "0"], "--max-size '0': expected a number of bytes"),
        (["--max-size", "1MB"], "--max-size '1MB': expected a number of bytes"),
        (["--output", "/nowhere/at/all"], "--output '/nowhere/at/all': can't be written: No such file"),
        (["--output", "\0"], "--output '\\x00': can't be written: ValueError"),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(
    options: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A mistake is told in one line that names the option, with status 2."""
    assert run(parse("--bind", "127.0.0.1:0", "--key", f"TestKey={SECRET}", *options)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"collect: {complaint}")
    assert err.count("\n") == 1
    assert SECRET not in err


@pytest.mark.parametrize(
    "key",
    [
        SECRET,
        f"={SECRET}",
        "name=",
        "justone",
        f"a,b={SECRET}",
        f"a b={SECRET}",
        f"name=!!{SECRET}",
        f"name={SECRET}*",
    ],
)
def test_a_key_that_cannot_be_used_is_not_shown(key: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A mistake in a key is told by its number, without a word of it: any of them may be the secret."""
    # The size is wrong as well, so that the command doesn't run where the key is taken.
    assert run(parse("--key", f"TestKey={SECRET}", "--key", key, "--max-size", "0")) == 2
    err = capfd.readouterr().err
    assert err.startswith("collect: --key, number 2: expected NAME=BASE64")
    assert err.count("\n") == 2
    assert SECRET not in err
    assert key not in err


def test_all_mistakes_are_told_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Each mistake has its line."""
    key = f"TestKey={SECRET}"
    assert run(parse("--bind", "x", "--key", key, "--key", key, "--key", "y", "--max-size", "z")) == 2
    err = capfd.readouterr().err
    assert [line.split()[1] for line in err.splitlines()] == ["--bind", "--key,", "--key,", "--max-size"]
    assert "number 2: there is a key of this name already" in err


def test_the_address_may_be_taken(collector: DevCollector, capfd: pytest.CaptureFixture[str]) -> None:
    """A port that somebody else has is a mistake like others."""
    assert run(parse("--bind", f"127.0.0.1:{collector.address[1]}", "--key", f"TestKey={SECRET}")) == 2
    assert "Address already in use" in capfd.readouterr().err


def test_signals_are_as_before() -> None:
    """Running the command leaves the signal mask of the thread as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run(parse("--key", "x")) == 2
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.SIGTERM not in before, "a test before this one left it blocked"


def test_a_signal_too_many_is_ignored() -> None:
    """A signal that is waiting when the command ends doesn't strike afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        signal.raise_signal(signal.SIGTERM)
        assert signal.SIGTERM in signal.sigpending()
        assert run(parse("--key", "x")) == 2
        assert signal.SIGTERM not in signal.sigpending()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_missing_stdout_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A process without a stdout needs a file to write to."""
    monkeypatch.setattr(sys, "stdout", None)
    assert run(parse("--bind", "127.0.0.1:0", "--key", f"TestKey={SECRET}")) == 2
    assert capfd.readouterr().err == "collect: there is no stdout; give --output FILE\n"


def test_the_help_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The help page warns of production."""
    with pytest.raises(SystemExit) as ending:
        parse("--help")
    assert ending.value.code == 0
    assert "NOT for production" in capsys.readouterr().out
