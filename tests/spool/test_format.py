"""The format of segments: whatever happens to a segment, its whole records come back, and only these."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.spool import UNKNOWN_FORMAT
from baseplate_events.spool import format as segment_format
from baseplate_events.spool.format import (
    EVENT,
    IDENTITY_SIZE,
    MAX_HEADER,
    MAX_PAYLOAD,
    OVERHEAD,
    REFUSALS,
    VERSION,
    Encoder,
    Header,
    RecordRun,
    SegmentParser,
    UnreadableSegmentError,
)
from tests.support import segment_vectors, strategies, vector_files
from tests.support.records import Record, feed
from tests.support.segment_model import HEAD, MARKER, ModelSegment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.vector_files import Vector

OURS = ModelSegment("2", bytes(range(16)))

#: Segments whose records must not pass for ours, as alike as segments can be.
OTHERS = (
    ModelSegment("2", bytes(16)),
    ModelSegment("2j", OURS.identity),
    ModelSegment("2", OURS.identity[:4] + bytes(12)),
    ModelSegment("2", bytes(4) + OURS.identity[4:]),
)

HEADER = Header(*OURS)
BEGIN = len(OURS.line)

# --- strategies: few values, and those that the format is made of ---

kinds = st.sampled_from([EVENT, REFUSALS, b"\0", b"\xff", b"V"])

#: Bytes that look like records: pieces of ours, heads with right and wrong lengths, records of others.
plain = st.binary(max_size=12) | st.sampled_from(
    [b"", b"{}", MARKER, MARKER[:1], MARKER[:2], MARKER * 5, OURS.line]
)
lengths = st.sampled_from([0, 1, 5, 16, 17, 40, 300, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**32 - 1])
heads = st.builds(OURS.head, lengths, kinds, st.sampled_from([0, zlib.crc32(OURS.line)]))
short_records = st.builds(OURS.record, plain, kinds)
other_records = st.builds(ModelSegment.record, st.sampled_from(OTHERS), plain, kinds)
zeros = st.integers(0, 40).map(bytes)


@st.composite
def damaged(draw: st.DrawFn, records: st.SearchStrategy[bytes]) -> bytes:
    """A record without its end, beginning or some of its middle, or with a changed byte."""
    record = draw(records)
    first = draw(st.integers(0, len(record) - 1))
    last = draw(st.integers(first, len(record) - 1) | st.just(len(record) - 1))
    change = draw(st.none() | st.integers(1, 255))
    middle = b"" if change is None else bytes([record[first] ^ change]) + record[first + 1 : last + 1]
    return record[:first] + middle + record[last + 1 :]


scraps = st.one_of(plain, zeros, heads, other_records, damaged(short_records))

#: Payloads: no whole record of the segment itself is in one, as its writer can't know the identity.
payloads = st.one_of(
    plain, zeros, st.lists(scraps, max_size=4).map(b"".join).filter(lambda payload: not OURS.records(payload))
)
records = st.builds(OURS.record, payloads, kinds)


class Piece(NamedTuple):
    """A part of a segment, and whether it is a record as its writer wrote it."""

    data: bytes
    intact: bool


pieces = st.lists(
    st.one_of(
        st.builds(Piece, records, st.just(True)),
        st.builds(Piece, damaged(records) | scraps, st.just(False)),
    ),
    max_size=8,
)


@st.composite
def segments(draw: st.DrawFn) -> bytes:
    """The data of a segment behind its header, in which no record is inside another."""
    data = b"".join(piece.data for piece in draw(pieces))
    data = data[: draw(st.integers(0, len(data)) | st.just(len(data)))]
    assume(not any(OURS.records(record.payload) for record in OURS.records(data)))
    return data


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """Cut data at places, taken modulo its size."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        yield data[start:end]


places = st.lists(st.integers(0, 1 << 16), max_size=12)


def state(parser: SegmentParser) -> tuple[int, int, int]:
    """Return what a parser counts."""
    return parser.position, parser.torn, parser.pending


# --- reading ---


@given(segments(), places, st.sampled_from([0, BEGIN, 10**12]))
@example(OURS.record(b"a") + OURS.head(99) + OURS.record(b"b") + OURS.record(b"c")[:-1], [20, 33, 50, 51], 0)
@example(OURS.head(99) + OURS.head(98) + OURS.head(1) + b"x" + OURS.record(b"c"), list(range(99)), 0)
def test_at_each_moment_the_whole_records_are_found(data: bytes, places: list[int], begin: int) -> None:
    """After each piece, exactly the records that are whole so far are out; the rest is torn or pending.

    Pending is what may become a record, and no more. So none of this depends on where the data was cut, and
    no record waits for what precedes it.
    """
    parser = SegmentParser(HEADER, begin)
    found: list[Record] = []
    size = 0
    for piece in cut(data, places):
        found += feed(parser, piece)
        size += len(piece)
        expected = OURS.records(data[:size])
        assert [
            (kind, payload, begin + start, begin + end) for kind, payload, start, end in expected
        ] == found
        pending = OURS.pending(data[:size])
        torn = pending - sum(record.end - record.start for record in found)
        assert (begin + pending, torn, size - pending) == state(parser)
    parser.finish()
    torn = size - sum(record.end - record.start for record in found)
    assert (begin + size, torn, 0) == state(parser)


class CarefulParser(SegmentParser):
    """A parser that takes each record by itself."""

    def _walk(self, data: bytes, at: int, runs: list[RecordRun]) -> int:
        del data, runs
        return at


@given(segments(), places)
def test_the_fast_path_finds_what_the_careful_one_finds(data: bytes, places: list[int]) -> None:
    """`feed_runs` finds the same records, for any data and pieces; each run has one kind and no gaps."""
    fast, careful = SegmentParser(HEADER, BEGIN), CarefulParser(HEADER, BEGIN)
    again = SegmentParser(HEADER, BEGIN)
    for piece in cut(data, places):
        records = feed(careful, piece)
        runs = fast.feed_runs(piece)
        assert records == feed(again, piece)
        assert state(careful) == state(fast) == state(again)
        assert [record.payload for record in records] == [each for run in runs for each in run.payloads]
        kinds = [(run.kind, len(run.payloads)) for run in runs]
        assert [record.kind for record in records] == [kind for kind, count in kinds for _ in range(count)]
        for run in runs:
            assert run.end - run.start == sum(OVERHEAD + len(payload) for payload in run.payloads)
            assert {run.start, run.end} <= {each for record in records for each in record[2:]}


@given(pieces=pieces, places=places)
def test_every_intact_record_is_found(pieces: list[Piece], places: list[int]) -> None:
    """Each record that stands in the data as it was written comes back, whatever stands around it.

    The exception is a record whose first bytes complete a torn one, see below.
    """
    parser = SegmentParser(HEADER, 0)
    data = b"".join(piece.data for piece in pieces)
    expected = OURS.records(data)
    assume(not any(OURS.records(record.payload) for record in expected))
    found = {(record.start, record.end) for piece in cut(data, places) for record in feed(parser, piece)}
    start = 0
    for piece in pieces:
        end = start + len(piece.data)
        if piece.intact and not any(record.start < start < record.end for record in expected):
            assert (start, end) in found
        start = end


@given(text=strategies.texts, size=st.integers(0, 100), payload=payloads, places=places)
def test_a_torn_text_costs_only_itself(text: str, size: int, payload: bytes, places: list[int]) -> None:
    """A record whose payload is UTF-8 is torn wherever it is cut, and the one behind it is found."""
    torn = OURS.record(text.encode())
    torn = torn[: size % len(torn)]
    parser = SegmentParser(HEADER, 0)
    found = [record for piece in cut(torn + OURS.record(payload), places) for record in feed(parser, piece)]
    assert [(payload, len(torn))] == [(record.payload, record.start) for record in found]


def test_only_other_payloads_can_take_from_the_next_record() -> None:
    """The limit of the format: a marker completes a payload that was cut before the same bytes."""
    cut_off = OURS.record(b"x\xff")[:-1]
    found = feed(SegmentParser(HEADER, 0), cut_off + OURS.record(b"lost") + OURS.record(b"found"))
    assert [b"x\xff", b"found"] == [record.payload for record in found]


@given(events=st.lists(payloads, max_size=6), damage=st.data())
def test_a_changed_byte_costs_only_its_record(events: list[bytes], damage: st.DataObject) -> None:
    """If one byte of a segment changes, all records but the one that it belongs to come back."""
    data = bytearray(b"".join(map(OURS.record, events)))
    assume(data)
    at = damage.draw(st.integers(0, len(data) - 1))
    data[at] ^= damage.draw(st.integers(1, 255))
    ends = [sum(HEAD + len(event) for event in events[: n + 1]) for n in range(len(events))]
    hit = sum(end <= at for end in ends)
    found = feed(SegmentParser(HEADER, 0), bytes(data))
    assert events[:hit] + events[hit + 1 :] == [record.payload for record in found]


@given(data=segments(), later=segments(), places=places)
def test_reading_goes_on_from_any_record(data: bytes, later: bytes, places: list[int]) -> None:
    """A reader that begins where a record ends, or after `finish`, finds the same as one that read on."""
    assume(not any(OURS.records(record.payload) for record in OURS.records(data + later)))
    found = feed(SegmentParser(HEADER, BEGIN), data + later)
    for number, record in enumerate(found, 1):
        again = SegmentParser(HEADER, record.end)
        rest = [
            new for piece in cut((data + later)[record.end - BEGIN :], places) for new in feed(again, piece)
        ]
        assert found[number:] == rest
    parser = SegmentParser(HEADER, BEGIN)
    first = feed(parser, data)
    parser.finish()
    at, torn = parser.position, parser.torn
    fresh = SegmentParser(HEADER, at)
    assert feed(fresh, later) == feed(parser, later)
    assert (fresh.position, fresh.torn + torn, fresh.pending) == state(parser)
    assert at == BEGIN + len(data) == BEGIN + torn + sum(record.end - record.start for record in first)


@given(payload=payloads, kind=kinds, other=st.sampled_from(OTHERS))
def test_a_record_belongs_to_its_segment(payload: bytes, kind: bytes, other: ModelSegment) -> None:
    """A record of a segment that differs in its format, or in any part of its identity, is no record."""
    parser = SegmentParser(HEADER, BEGIN)
    assert [] == feed(parser, other.record(payload, kind))


def test_the_largest_payload_comes_back() -> None:
    """A payload of 16 MiB is a record; a head that claims a byte more isn't waited for."""
    payload = bytes(MAX_PAYLOAD)
    parser = SegmentParser(HEADER, 0)
    record = Encoder(HEADER).encode(payload)
    assert [] == feed(parser, record[:-1])
    (found,) = feed(parser, record[-1:] + OURS.head(MAX_PAYLOAD + 1))
    assert (payload, 0, OVERHEAD) == (found.payload, parser.torn - OVERHEAD, found.end - MAX_PAYLOAD)


def test_an_event_that_is_too_large_is_torn() -> None:
    """A record that is too large is torn, even if it is complete: no writer writes it."""
    data = OURS.record(bytes(MAX_PAYLOAD + 1)) + OURS.record(b"x")
    for parser in (SegmentParser(HEADER, 0), CarefulParser(HEADER, 0)):
        assert [b"x"] == [record.payload for record in feed(parser, data)]
        assert parser.torn == HEAD + MAX_PAYLOAD + 1


# --- the work is linear ---


class Work:
    """Counts what a parser does: bytes in CRCs, bytes searched for markers, and places that are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.summed = self.searched = self.looks = 0
        crc32, look = zlib.crc32, SegmentParser._parse_at  # pyright: ignore[reportPrivateUsage]

        def counting_crc32(data: bytes, value: int = 0) -> int:
            self.summed += len(data)
            return crc32(data, value)

        def counting_parse_at(parser: SegmentParser, data: bytes, at: int) -> RecordRun | bool:
            self.looks += 1
            return look(parser, data, at)

        monkeypatch.setattr(zlib, "crc32", counting_crc32)
        monkeypatch.setattr(SegmentParser, "_parse_at", counting_parse_at)
        pattern = segment_format._BEGINNING  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(segment_format, "_BEGINNING", _Pattern(self, pattern))


class _Pattern:
    """A pattern that counts the bytes at which it tries to match."""

    def __init__(self, work: Work, pattern: re.Pattern[bytes]) -> None:
        self._work = work
        self._pattern = pattern

    def search(self, data: bytes, at: int) -> re.Match[bytes] | None:
        found = self._pattern.search(data, at)
        self._work.searched += (found.start() + 1 if found else len(data)) - at
        return found


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What all parsers do from now on."""
    return Work(monkeypatch)


#: Bytes of the data below: some thousand of the smallest pieces.
LENGTH = 1 << 18

#: Data with nothing in it, or with little.
HARD = {
    "zeros": bytes(LENGTH),
    "markers": MARKER * (LENGTH // 3),
    "first bytes of markers": MARKER[:1] * LENGTH,
    "zeros behind a pending record": OURS.head(MAX_PAYLOAD) + bytes(LENGTH),
    "markers behind a pending record": OURS.head(MAX_PAYLOAD) + MARKER * (LENGTH // 3),
    "zeros behind two pending records": OURS.head(MAX_PAYLOAD) * 2 + bytes(LENGTH),
    "markers behind two pending records": OURS.head(MAX_PAYLOAD) * 2 + MARKER * (LENGTH // 3),
    "a torn record behind two pending ones": OURS.head(MAX_PAYLOAD) * 2
    + OURS.head(LENGTH // 2)
    + bytes(LENGTH),
    "a torn record, then markers": OURS.head(LENGTH // 2) + MARKER * (LENGTH // 3),
    "records that claim the rest": b"".join(OURS.head(LENGTH - n) + bytes(999) for n in range(1, 9))
    + bytes(LENGTH),
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("size", [1 << 30, 16_384, 1_021])
@pytest.mark.parametrize("data", HARD.values(), ids=HARD)
def test_reading_is_linear(data: bytes, size: int, work: Work) -> None:
    """If no record is found, the work is bounded by the size of the data, in one piece and in many.

    A marker is looked at twice: behind a pending record, and once that turned out to be torn. The last bytes
    of each piece, where six beginnings fit, are looked at again with the next piece. CRCs are computed of
    what torn records claim, twice as well, and of nothing else.
    """
    parser = SegmentParser(HEADER, 0)
    work.summed = 0
    count = 0
    for at in range(0, len(data), size):
        assert feed(parser, data[at : at + size]) == []
        count += 1
    parser.finish()
    assert parser.torn == len(data)
    claims = sum(
        length
        for match in re.finditer(MARKER + b"E", data)
        if (length := int.from_bytes(data[match.end() : match.end() + 4], "big")) < MAX_PAYLOAD
    )
    assert work.looks <= 2 * data.count(MARKER) + 12 * count
    assert work.searched <= 2 * len(data) + 32 * count
    assert work.summed <= 2 * claims


@pytest.mark.parametrize("size", [1 << 30, 65_536, 61])
@pytest.mark.parametrize("length", [MAX_PAYLOAD, 2**32 - 1, 40_000])
@pytest.mark.parametrize("right", [True, False])
def test_a_bad_length_costs_no_body(length: int, size: int, right: bool, work: Work) -> None:
    """A head without its body, in the middle of a segment, costs what it claims if it is right, or nothing.

    The records behind it are found with the piece that completes them.
    """
    events = [b"%04d" % number * 100 for number in range(200)]
    before, behind = b"".join(map(OURS.record, events[:100])), b"".join(map(OURS.record, events[100:]))
    head = OURS.head(length)
    if not right:
        head = head[:11] + bytes([head[11] ^ 1]) + head[12:]
    data = before + head + behind
    parser = SegmentParser(HEADER, 0)
    work.summed = 0
    found: list[Record] = []
    ends = list(range(416, len(before) + 1, 416))
    ends += [len(before) + HEAD + end for end in range(416, len(behind) + 1, 416)]
    for at in range(0, len(data), size):
        found += feed(parser, data[at : at + size])
        assert len(found) == sum(end <= at + size for end in ends)
    assert events == [record.payload for record in found]
    assert (len(data), HEAD, 0) == state(parser)
    complete = 2 * length if right and length < len(behind) else 0
    # Each event once, and what the head claims twice: not even that if the next record was whole before.
    assert work.summed <= 400 * 200 + complete
    assert work.looks <= 200 + 10 + 2 * len(data) // size


@pytest.mark.parametrize("size", [1 << 30, 65_536, 61])
def test_many_torn_records_are_linear(size: int, work: Work) -> None:
    """Each torn record costs the search for the next whole one, however much data is behind that."""
    events = [b"%04d" % number * 10 for number in range(2_000)]
    data = b"".join(OURS.head(MAX_PAYLOAD) + OURS.record(event) for event in events)
    parser = SegmentParser(HEADER, 0)
    work.summed = 0
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert events == [record.payload for piece in pieces for record in feed(parser, piece)]
    assert (len(data), HEAD * len(events), 0) == state(parser)
    assert work.summed == sum(map(len, events))
    assert work.looks <= 2 * len(events) + 12 * len(pieces)
    assert work.searched <= 2 * len(data)


# --- the header ---

formats = st.sampled_from(["2", "2j", UNKNOWN_FORMAT]) | st.from_regex(r"[0-9a-z]{1,16}", fullmatch=True)
identities = st.binary(min_size=IDENTITY_SIZE, max_size=IDENTITY_SIZE)
headers = st.builds(Header, formats, identities)


@given(header=headers, behind=st.binary(max_size=200))
def test_a_header_round_trips(header: Header, behind: bytes) -> None:
    """A header is read back, whatever follows, and is as the protocol describes it; a prefix is none yet."""
    line = header.encode()
    assert ModelSegment(*header).line == line
    assert len(line) <= MAX_HEADER
    assert header == Header.decode(line) == Header.decode(line + behind)
    assert {Header.decode(line[:size]) for size in range(len(line))} == {None}


@given(header=headers, behind=st.just(b"") | payloads.map(OURS.record), damage=st.data())
def test_a_damaged_header_is_never_another(header: Header, behind: bytes, damage: st.DataObject) -> None:
    """With a byte changed, or some removed, a header is unreadable or not complete yet; it is never newer."""
    line = bytearray(header.encode())
    at = damage.draw(st.integers(0, len(line) - 1))
    if damage.draw(st.booleans()):
        line[at] ^= damage.draw(st.integers(1, 255))
    else:
        del line[at : at + damage.draw(st.integers(1, len(line)))]
    data = bytes(line) + behind
    try:
        found = Header.decode(data)
    except UnreadableSegmentError as error:
        assert not error.newer  # noqa: PT017 - it may be raised or not
    else:
        assert found is None
        assert b"\n" not in data
        assert len(data) < MAX_HEADER


def other_version(version: int, fields: bytes) -> bytes:
    """Return a header of another version."""
    line = b"event-segment %d %b" % (version, fields)
    return line + b"%08x\n" % zlib.crc32(line)


@given(
    version=st.integers(2, 10**9 - 1), fields=st.just(b"") | st.from_regex(rb"[ -~]{0,60} ", fullmatch=True)
)
def test_a_later_version_is_reported(version: int, fields: bytes) -> None:
    """Whatever else a later version has in its header, it is recognized; with a bad check it is damaged."""
    line = other_version(version, fields)
    with pytest.raises(
        UnreadableSegmentError, match=f"version is {version}, .*upgrade the event publisher"
    ) as caught:
        Header.decode(line)
    assert caught.value.newer
    with pytest.raises(UnreadableSegmentError, match="damaged") as caught:
        Header.decode(line[:-2] + (b"0" if line[-2:-1] != b"0" else b"1") + b"\n")
    assert not caught.value.newer


@given(
    data=st.one_of(st.binary(max_size=300), zeros, records, st.sampled_from([b"\n", b"event-spool 1 2\n"]))
)
@example(data=b"event-segment 1 " + b"2" * MAX_HEADER)
@example(data=other_version(1, b"2J " + b"0" * 32 + b" "))
@example(data=other_version(0, OURS.line[16:-9]))
@example(data=OURS.line.upper())
@example(data=OURS.line[:-9] + OURS.line[-9:].upper())
def test_a_foreign_file_is_refused(data: bytes) -> None:
    """What isn't the beginning of a header is unreadable at once, and isn't newer."""
    may_be_cut_off = b"\n" not in data and len(data) < MAX_HEADER
    assume(not (may_be_cut_off and b"event-segment ".startswith(data[:14])))
    with pytest.raises(UnreadableSegmentError) as caught:
        Header.decode(data)
    assert not caught.value.newer


def test_an_empty_file_has_no_header_yet() -> None:
    """A file that was just created isn't foreign."""
    assert Header.decode(b"") is None


@pytest.mark.parametrize(
    ("event_format", "identity"),
    [
        ("", bytes(16)),
        ("2 j", bytes(16)),
        ("2\n", bytes(16)),
        ("é", bytes(16)),
        ("2" * 17, bytes(16)),
        ("2", bytes(15)),
    ],
)
def test_a_header_that_could_not_be_read_is_not_written(event_format: str, identity: bytes) -> None:
    """A format or identity that no header can hold is an error before anything is written."""
    with pytest.raises(ValueError, match=re.escape(repr(event_format))):
        Encoder(Header(event_format, identity))


# --- writing ---


@given(header=headers, payload=payloads, kind=kinds)
def test_a_record_is_as_described(header: Header, payload: bytes, kind: bytes) -> None:
    """A record is written as the protocol describes it, by default as an event."""
    encoder = Encoder(header)
    assert ModelSegment(*header).line == encoder.header
    assert ModelSegment(*header).record(payload, kind) == encoder.encode(payload, kind)
    assert encoder.encode(payload) == encoder.encode(payload, EVENT)


def test_a_record_that_no_reader_would_find_is_not_written() -> None:
    """A payload of more than 16 MiB is an error before anything is written."""
    with pytest.raises(ValueError, match="at most 16777216 bytes, not 16777217"):
        Encoder(HEADER).encode(bytes(MAX_PAYLOAD + 1))


@given(
    counts=st.dictionaries(
        st.from_regex(r"[A-Za-z_]{1,20}", fullmatch=True), st.integers(0, 2**63), max_size=5
    )
)
def test_refusals_are_json(counts: dict[str, int]) -> None:
    """Any JSON reader reads the counts of refused events back."""
    (record,) = feed(SegmentParser(HEADER, 0), Encoder(HEADER).encode_refusals(counts))
    assert record.kind == REFUSALS
    assert counts == json.loads(record.payload)


# --- the test vectors ---

VECTORS = {
    f"{path.stem}: {vector['name']}": vector
    for path in sorted(vector_files.FOLDER.glob("segments-*.json"))
    for vector in vector_files.load(path.stem)
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_the_segments_of_every_release_are_read(vector: Vector) -> None:
    """In each vector of each version of the format, a reader finds what it should, also byte by byte."""
    data = base64.b64decode(vector["segment_base64"], validate=True)
    found = segment_vectors.read(data)
    assert {key: vector[key] for key in found} == found
    if vector["header"] == "good":
        header = Header(vector["format"], bytes.fromhex(vector["identity"]))
        begin = data.index(b"\n") + 1
        parser = SegmentParser(header, begin)
        records = [record for at in range(begin, len(data)) for record in feed(parser, data[at : at + 1])]
        assert [(record["start"], record["end"]) for record in vector["records"]] == [r[2:] for r in records]
        assert (len(data) - vector["pending"], vector["torn"], vector["pending"]) == state(parser)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in vector_files.load(f"segments-{VERSION}") if vector["written"]],
    ids=lambda vector: vector["name"],
)
def test_a_segment_is_written_as_ever(vector: Vector) -> None:
    """A segment with the records of a vector is the vector's, byte for byte."""
    encoder = Encoder(Header(vector["format"], bytes.fromhex(vector["identity"])))
    written = [
        encoder.encode(base64.b64decode(record["payload_base64"]), record["kind"].encode())
        for record in vector["records"]
    ]
    assert base64.b64decode(vector["segment_base64"]) == encoder.header + b"".join(written)


def test_the_vectors_show_every_finding() -> None:
    """No state of a header or record is without an example, and what was written is read whole."""
    vectors = vector_files.load(f"segments-{VERSION}")
    assert {vector["header"] for vector in vectors} == {"good", "incomplete", "newer", "unreadable"}
    assert {record["kind"] for vector in vectors for record in vector["records"]} == {"E", "R", "X"}
    assert {vector["format"] for vector in vectors} == {"2", "2j", UNKNOWN_FORMAT, None}
    states = {(vector["torn"] > 0, vector["pending"] > 0) for vector in vectors if not vector["written"]}
    assert len(states) == 4
    assert not any(vector["torn"] or vector["pending"] for vector in vectors if vector["written"])
