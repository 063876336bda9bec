"""The format by example, to the byte: headers, records, and what is torn or pending."""

from __future__ import annotations

import struct
import zlib

import pytest

from baseplate_events.spool import format as spool_format
from baseplate_events.spool.format import (
    EVENT,
    MAX_PAYLOAD,
    REFUSALS,
    Encoder,
    Header,
    SegmentParser,
    UnreadableSegmentError,
)
from tests.support.records import Record, feed

IDENTITY = bytes(range(16))
HEADER = Header("2j", IDENTITY)
ENCODER = Encoder(HEADER)
START = len(ENCODER.header)


def checked(line: bytes) -> bytes:
    """Return a header of this line, with its check."""
    return b"%b%08x\n" % (line, zlib.crc32(line))


def record(payload: bytes, kind: bytes = EVENT) -> bytes:
    """Return a record after the description of the format."""
    (base,) = struct.unpack(">I", IDENTITY[:4])
    check = len(payload) ^ base ^ int.from_bytes(kind * 4, "big")
    crc = zlib.crc32(ENCODER.header + payload)
    return b"\xffEV" + kind + struct.pack(">III", len(payload), check, crc) + payload


def test_the_numbers_of_the_format() -> None:
    """Other programs rely on them."""
    assert (spool_format.VERSION, spool_format.IDENTITY_SIZE, spool_format.OVERHEAD) == (1, 16, 16)
    assert (MAX_PAYLOAD, spool_format.MAX_HEADER) == (16_777_216, 128)
    assert (EVENT, REFUSALS, spool_format.EVENT_MARKER) == (b"E", b"R", b"\xffEVE")


def test_a_header() -> None:
    """One line with a check, which reads back, whatever follows."""
    line = checked(b"event-segment 1 2j 000102030405060708090a0b0c0d0e0f ")
    assert HEADER.encode() == line
    assert ENCODER.header == line
    assert ENCODER.seed == zlib.crc32(line)
    for rest in (b"", b"\n", record(b"{}")):
        assert Header.decode(line + rest) == HEADER
    for size in range(len(line)):
        assert Header.decode(line[:size]) is None


@pytest.mark.parametrize(
    ("event_format", "identity"),
    [("", IDENTITY), ("2 j", IDENTITY), ("x" * 17, IDENTITY), ("2", IDENTITY[:15])],
)
def test_what_no_header_can_hold(event_format: str, identity: bytes) -> None:
    """A format is 1 to 16 letters and digits, an identity 16 bytes."""
    assert Header.decode(Header("x" * 16, IDENTITY).encode()) == Header("x" * 16, IDENTITY)
    with pytest.raises(ValueError, match="no header can hold"):
        Header(event_format, identity).encode()


@pytest.mark.parametrize(
    ("data", "newer"),
    [
        (b"another file", False),
        (b"event-segmenu", False),
        (b"event-segment 1 2j\n", False),
        (b"event-segment 1 " + b"x" * 112, False),
        (HEADER.encode().replace(b"2j", b"2k"), False),
        (checked(b"event-segment 1 2j "), False),
        (checked(b"event-segment 0 2j 000102030405060708090a0b0c0d0e0f "), False),
        (checked(b"event-segment 2 "), True),
        (checked(b"event-segment 2 " + b"x" * 102 + b" "), True),
        (checked(b"event-segment 2 " + b"x" * 103 + b" "), False),
        (checked(b"event-segment 999999999 x "), True),
    ],
)
def test_headers_that_cannot_be_read(data: bytes, newer: bool) -> None:
    """A header of a later version has 128 bytes at most; only such a one is newer."""
    with pytest.raises(UnreadableSegmentError) as caught:
        Header.decode(data)
    assert caught.value.newer is newer


@pytest.mark.parametrize("size", [127, 128])
def test_a_header_that_is_not_complete(size: int) -> None:
    """It may be while the file is shorter than the longest header."""
    data = (b"event-segment 1 " + b"x" * 200)[:size]
    if size < 128:
        assert Header.decode(data) is None
    else:
        with pytest.raises(UnreadableSegmentError):
            Header.decode(data)


@pytest.mark.parametrize("kind", [EVENT, REFUSALS, b"Z"])
@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * 300])
def test_a_record(payload: bytes, kind: bytes) -> None:
    """Of any kind, also one that only later releases know; it is found with its place."""
    data = ENCODER.encode(payload, kind)
    assert data == record(payload, kind)
    if kind == EVENT:
        assert ENCODER.encode(payload) == data
    parser = SegmentParser(HEADER, START)
    assert (parser.position, parser.pending, parser.torn) == (START, 0, 0)
    expected = Record(kind, payload, START, START + len(data))
    assert feed(parser, data) == [expected]
    assert (parser.position, parser.pending, parser.torn) == (expected.end, 0, 0)
    slow = SegmentParser(HEADER, START)
    found = [each for index in range(len(data)) for each in feed(slow, data[index : index + 1])]
    assert found == [expected]
    assert (slow.position, slow.pending, slow.torn) == (expected.end, 0, 0)


def test_the_largest_record() -> None:
    """No reader would find a larger one."""
    payload = bytes(MAX_PAYLOAD)
    data = ENCODER.encode(payload)
    for pieces in ([data], [data[:5], data[5:]]):
        parser = SegmentParser(HEADER, 0)
        assert [len(each.payload) for piece in pieces for each in feed(parser, piece)] == [MAX_PAYLOAD]
    with pytest.raises(ValueError, match="at most 16777216 bytes, not 16777217"):
        ENCODER.encode(bytes(MAX_PAYLOAD + 1))
    for event in (EVENT, b"Z"):
        check = (MAX_PAYLOAD + 1) ^ ENCODER.mask(event)
        crc = zlib.crc32(bytes(MAX_PAYLOAD + 1), ENCODER.seed)
        parser = SegmentParser(HEADER, 0)
        head = b"\xffEV" + event + struct.pack(">III", MAX_PAYLOAD + 1, check, crc)
        assert feed(parser, head) == []
        assert (parser.pending, parser.torn) == (0, 16)
        parser = SegmentParser(HEADER, 0)
        assert feed(parser, head + bytes(MAX_PAYLOAD + 1)) == []


def test_refusals() -> None:
    """JSON of reasons and counts."""
    assert ENCODER.encode_refusals({"full": 3, "other": 1}) == record(b'{"full":3,"other":1}', REFUSALS)


def test_runs_have_records_of_one_kind() -> None:
    """With the place of all of them; each record has its own."""
    data = record(b"a") + record(b"bc") + record(b"{}", REFUSALS) + record(b"d")
    runs = SegmentParser(HEADER, 100).feed_runs(data)
    assert [tuple(run) for run in runs] == [
        (EVENT, [b"a", b"bc"], 100, 135),
        (REFUSALS, [b"{}"], 135, 153),
        (EVENT, [b"d"], 153, 170),
    ]
    found = feed(SegmentParser(HEADER, 100), data)
    assert [(each.start, each.end) for each in found] == [(100, 117), (117, 135), (135, 153), (153, 170)]


@pytest.mark.parametrize("cut", range(1, 21))
def test_a_record_that_is_cut_costs_itself(cut: int) -> None:
    """It is pending until a whole one begins in it, or the segment ends."""
    whole = record(b"event")
    assert len(whole) == 21
    parser = SegmentParser(HEADER, 0)
    assert feed(parser, whole[:cut]) == []
    assert (parser.position, parser.pending, parser.torn) == (0, cut, 0)
    assert feed(parser, whole) == [Record(EVENT, b"event", cut, cut + 21)]
    assert (parser.position, parser.pending, parser.torn) == (cut + 21, 0, cut)
    other = SegmentParser(HEADER, 0)
    feed(other, whole[:cut])
    other.finish()
    assert (other.position, other.pending, other.torn) == (cut, 0, cut)
    assert feed(other, whole) == [Record(EVENT, b"event", cut, cut + 21)]
    assert other.torn == cut


@pytest.mark.parametrize("at", range(21))
def test_a_byte_that_changed_costs_its_record(at: int) -> None:
    """Wherever it is, and however the data comes; the next record is found."""
    whole, following = record(b"event"), record(b"next")
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for pieces in ([damaged + following], [damaged, following], [damaged[:3], damaged[3:] + following]):
        parser = SegmentParser(HEADER, 0)
        found = [each for piece in pieces for each in feed(parser, piece)]
        assert found == [Record(EVENT, b"next", 21, 41)]
        assert (parser.position, parser.pending, parser.torn) == (41, 0, 21)


def test_what_is_between_records_is_torn() -> None:
    """Also beginnings of a marker that are none."""
    for garbage in (
        b"x",
        b"\xff",
        b"\xffE",
        b"\xffEV",
        b"\xffEVE",
        b"\xff\xff",
        b"\xffExxxxxxxxxxxxxxxxxxxxxxx",
    ):
        parser = SegmentParser(HEADER, 0)
        end = 21 + len(garbage)
        found = feed(parser, record(b"event") + garbage + record(b"next"))
        assert found == [Record(EVENT, b"event", 0, 21), Record(EVENT, b"next", end, end + 20)]
        assert parser.torn == len(garbage)


def test_records_of_another_segment_are_none() -> None:
    """Their checks depend on the identity."""
    other = Encoder(Header("2j", bytes(16)))
    parser = SegmentParser(HEADER, 0)
    data = other.encode(b"event")
    assert feed(parser, data + record(b"next")) == [Record(EVENT, b"next", len(data), len(data) + 20)]
    assert parser.torn == len(data)
