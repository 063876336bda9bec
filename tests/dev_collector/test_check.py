from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
from dataclasses import replace
from typing import NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.dev_collector import MAX_SIZE, AcceptedBatch, RejectedBatch, check_batch, check_head
from tests.support.signed_requests import KEYS, MARKER, SAMPLE, SignedRequest, batch_of, mac_of, sealed
from tests.support.strategies import json_events, json_non_objects, json_objects, texts


def assert_refused(checked: AcceptedBatch | RejectedBatch, *statuses: int) -> RejectedBatch:
    """Assert that a request is refused with one of these statuses, and return the refusal."""
    assert isinstance(checked, RejectedBatch)
    assert checked.status in statuses, checked
    assert checked.reason.isascii()
    assert checked.reason.isprintable()
    return checked


#: What a signature that doesn't match is refused for; a wrong form and an unknown key have the same status.
MISMATCH = "the mac doesn't match"

paths = st.sampled_from(["/v2", "/v2j"])
event_lists = st.lists(json_events, min_size=1, max_size=4)


@st.composite
def batch_requests(draw: st.DrawFn, levels: tuple[int | None, ...]) -> SignedRequest:
    """Return rightly signed requests of any events, compressed at one of these levels."""
    path = draw(paths)
    plain = batch_of(draw(event_lists), path)
    return sealed(path, plain, draw(st.sampled_from(sorted(KEYS))), draw(st.sampled_from(levels)))


requests = batch_requests((None, 1, 9))
gzipped_requests = batch_requests((1, 9))


# --- The batch ---


@given(event_lists, paths, st.sampled_from(sorted(KEYS)), st.sampled_from([None, 1, 6, 9]))
def test_any_batch_of_the_wire_comes_out_as_it_went_in(
    events: list[bytes], path: str, key: str, level: int | None
) -> None:
    """A rightly signed batch of any events is accepted, and returns exactly their bytes."""
    assert AcceptedBatch(tuple(events)) == sealed(path, batch_of(events, path), key, level).check()


@given(event_lists, paths, st.sampled_from(["", " ", "\t\r\n "]))
def test_blanks_around_events_are_left_out(events: list[bytes], path: str, blanks: str) -> None:
    """Blanks between events are valid JSON, and no part of the events."""
    spaced = [blanks.encode() + event + blanks.encode() for event in events]
    assert AcceptedBatch(tuple(events)) == sealed(path, batch_of(spaced, path)).check()


@given(json_objects, paths)
def test_an_event_of_several_lines_comes_out_in_one(value: dict[str, object], path: str) -> None:
    """Line breaks and blanks between the tokens of an event are removed; the tokens stay."""
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
    refused = assert_refused(sealed(path, batch_of(events, path)).check(), 400)
    assert f"event {min(place, len(events) - 1) + 1} isn't a JSON object" in refused.reason


@given(event_lists, st.integers(0, 20))
def test_the_count_must_be_right(events: list[bytes], count: int) -> None:
    """A batch of version 2 is accepted with the number of its events, and with no other."""
    checked = sealed("/v2", batch_of(events, "/v2", count)).check()
    if count == len(events):
        assert AcceptedBatch(tuple(events)) == checked
    else:
        assert f"holds {len(events)}" in assert_refused(checked, 400).reason


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
    """Only the protocol's wrapper around strict JSON objects is a batch; the reason says what is wrong."""
    assert reason in assert_refused(sealed(path, plain).check(), 400).reason


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_refused(opening: bytes, closed: bool) -> None:
    """An event nested deeper than the parser goes refuses the batch, and does no harm."""
    depth = 80_000
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    event = b'{"a":' + opening * depth + b"0" + (closing * depth + b"}" if closed else b"")
    assert (
        "event 1 is nested too deep"
        in assert_refused(sealed("/v2j", b"[" + event + b"]").check(), 400).reason
    )


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which `json` reads although JSON doesn't have them."""
    raise ValueError(name)


def shape_of(path: str, plain: bytes) -> list[object] | None:
    """Return the events of a batch, parsed independently of the implementation, or None."""
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
    checked = sealed(path, plain).check()
    expected = shape_of(path, plain)
    if isinstance(checked, AcceptedBatch):
        events = [json.loads(event, parse_constant=refuse_constant) for event in checked.events]
        assert events == expected
        assert not any(b"\n" in event or b"\r" in event for event in checked.events)
    elif wrapped:
        assert expected is None


# --- The compression ---


def test_several_gzip_members_are_refused() -> None:
    """The protocol has one."""
    request = sealed("/v2j", b"[{}]")
    members = gzip.compress(b"[", mtime=0) + gzip.compress(b"{}]", mtime=0)
    assert "after its gzip member" in assert_refused(replace(request, body=members).check(), 400).reason


@given(gzipped_requests, st.data())
def test_a_damaged_gzip_body_is_never_another_batch(request: SignedRequest, data: st.DataObject) -> None:
    """A changed byte of a compressed body either changes nothing (in its header) or refuses the batch."""
    before = request.check()
    place = data.draw(st.integers(0, len(request.body) - 1))
    changed = request.body[place] ^ data.draw(st.integers(1, 255))
    body = request.body[:place] + bytes([changed]) + request.body[place + 1 :]
    after = replace(request, body=body).check()
    if after != before:
        assert_refused(after, 400, 401, 413)


@given(gzipped_requests, st.data())
def test_a_cut_or_continued_gzip_body_is_refused(request: SignedRequest, data: st.DataObject) -> None:
    """A compressed body must be all there, with nothing behind it."""
    end = data.draw(st.integers(0, len(request.body) - 1))
    cut = assert_refused(replace(request, body=request.body[:end]).check(), 400)
    assert "ends too early" in cut.reason
    rest = data.draw(st.binary(min_size=1, max_size=20))
    continued = assert_refused(replace(request, body=request.body + rest).check(), 400)
    assert "after its gzip member" in continued.reason


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=4), st.integers(1, 3_000), st.booleans())
def test_the_size_is_bounded(parts: list[int], max_size: int, compressed: bool) -> None:
    """A batch is refused as too large exactly if it exceeds the limit uncompressed."""
    plain = b"".join(b"%d" % (part % 10) * part for part in parts)
    request = sealed("/v2j", plain, level=None)
    if compressed:
        body = gzip.compress(plain, mtime=0)
        request = replace(request.with_header("Content-Encoding", "gzip"), body=body)
    checked = assert_refused(request.check(max_size), 400, 413)
    assert (413 if len(plain) > max_size else 400) == checked.status


@given(st.binary(max_size=2_000), st.integers(0, 9))
def test_what_is_small_enough_is_small_enough_compressed(noise: bytes, level: int) -> None:
    """The limit on a body as sent never refuses a batch within the limit on its size."""
    event = json.dumps({"noise": base64.b64encode(noise).decode()}).encode()
    plain = batch_of([event], "/v2j")
    assert AcceptedBatch((event,)) == sealed("/v2j", plain, level=level).check(max_size=len(plain))


def test_a_bomb_is_not_inflated() -> None:
    """The memory that a body takes is bounded, whatever it would inflate to."""
    body = gzip.compress(b"[" + b" " * (64 << 20), 9, mtime=0)
    request = replace(sealed("/v2j", b"[{}]"), body=body)
    tracemalloc.start()
    try:
        checked = request.check()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_refused(checked, 413)
    assert peak < 4 * MAX_SIZE


# --- The signature ---


@given(requests, st.integers(0, 63), st.sampled_from("0123456789abcdefABCDEF"))
def test_any_other_mac_is_refused(request: SignedRequest, place: int, digit: str) -> None:
    """A mac with one digit changed is refused; only lower-case digits make a mac at all."""
    signature = dict(request.headers)["X-Signature"]
    start = signature.index("mac=") + len("mac=") + place
    changed = signature[:start] + digit + signature[start + 1 :]
    checked = request.with_header("X-Signature", changed).check()
    if changed == signature:
        assert isinstance(checked, AcceptedBatch)
    else:
        expected = "X-Signature isn't" if digit.isupper() else MISMATCH
        assert expected in assert_refused(checked, 401).reason


@given(requests, st.data())
def test_any_other_body_is_refused(request: SignedRequest, data: st.DataObject) -> None:
    """A body with one byte changed, added or left out doesn't match its signature."""
    is_gzip = ("Content-Encoding", "gzip") in request.headers
    plain = gzip.decompress(request.body) if is_gzip else request.body
    place = data.draw(st.integers(0, len(plain) - 1))
    put = data.draw(st.binary(max_size=2).filter(lambda put: put != plain[place : place + 1]))
    changed = plain[:place] + put + plain[place + 1 :]
    body = gzip.compress(changed, mtime=0) if is_gzip else changed
    assert MISMATCH in assert_refused(replace(request, body=body).check(), 401).reason


@given(requests, texts.filter(lambda name: name not in KEYS and name and "," not in name))
def test_any_other_key_is_refused(request: SignedRequest, name: str) -> None:
    """A key that isn't known is refused, and so is the mac of one key under the name of another."""
    signature = dict(request.headers)["X-Signature"]
    used, _, mac = signature.removeprefix("key=").partition(", mac=")
    checked = request.with_header("X-Signature", f"key={name}, mac={mac}").check()
    assert "unknown key" in assert_refused(checked, 401).reason
    (other,) = KEYS.keys() - {used}
    checked = request.with_header("X-Signature", f"key={other}, mac={mac}").check()
    assert f"{MISMATCH} the body under key {other!a}" in assert_refused(checked, 401).reason


@given(texts)
def test_a_signature_of_any_other_form_is_refused(words: str) -> None:
    """What isn't `key=NAME, mac=HEX` is refused as such, whatever the body is."""
    checked = replace(SAMPLE, body=b"not gzip").with_header("X-Signature", words).check()
    assert "X-Signature isn't" in assert_refused(checked, 401).reason


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
def test_a_wrong_head_is_refused(request_: SignedRequest, status: int, reason: str) -> None:
    """Each header, the path and the method have one status of their own."""
    assert reason in assert_refused(request_.check(), status).reason


@pytest.mark.parametrize(
    ("length", "status", "reason"),
    [
        (None, 411, "Content-Length is missing"),
        *((length, 400, "a number") for length in ("", "x", "-1", "+1", "1 1", "\u0661")),
        ("4", 400, f"after {len(SAMPLE.body)} of 4 bytes"),
        ("5000000", 413, "as sent"),
    ],
)
def test_a_wrong_length_is_refused(length: str | None, status: int, reason: str) -> None:
    """The length must be there, be a number, be that of the body, and be bounded."""
    headers = [*SAMPLE.headers, *([] if length is None else [("Content-Length", length)])]
    assert reason in assert_refused(check_batch("POST", "/v2", headers, SAMPLE.body, KEYS), status).reason


@given(requests, st.data())
def test_names_of_headers_have_no_case(request: SignedRequest, data: st.DataObject) -> None:
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
    """Any request at all gets a checked, and a reason of one line of printable ASCII."""
    checked = check_batch(method, path, headers, body, KEYS, max_size=max_size)
    if isinstance(checked, RejectedBatch):
        assert_refused(checked, 400, 401, 404, 405, 411, 413, 415)
    head = check_head(method, path, headers, max_size=max_size)
    if isinstance(head, RejectedBatch):
        assert head == checked


@given(event_lists, paths, st.data())
def test_reasons_and_reprs_repeat_no_event_and_no_secret(
    events: list[bytes], path: str, data: st.DataObject
) -> None:
    """Whatever is wrong with a batch, the checked shows none of its content, no secret and no right mac."""
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
