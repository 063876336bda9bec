"""Segments whose beginning a power cut took: their whole records are delivered, and nothing else.

Records are made and found by `segment_model`, which is written from `docs/protocol.md` alone.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.policy.byte_ranges import ByteRanges
from baseplate_events.event_publisher.policy.span import Span
from baseplate_events.event_publisher.spool_reader import followed_segment, lost_header
from baseplate_events.event_publisher.spool_reader.catalog import RETRY_PAUSE
from baseplate_events.event_publisher.spool_reader.lost_header import LostHeader
from tests.support.segment_model import HEAD, ModelSegment
from tests.support.spool_scene import Scene

if TYPE_CHECKING:
    from tests.support.segment_model import Whole

IDENTITY: Final = bytes(range(16))
NAME: Final = f"{1:020d}-{'a' * 16}-{IDENTITY.hex()}.segment"
BLOCK: Final = 4096

#: The formats whose events a publisher for version 2 delivers.
FORMATS: Final = st.sampled_from(["2", "unknown"])

#: What a writer appended: the sizes of events, among which are reports of refusals and torn records.
RECORDS: Final = st.lists(
    st.tuples(st.sampled_from("EEEERXT"), st.sampled_from([0, 1, 300, 2_000, 5_000])), min_size=1, max_size=12
)


def segment_of(segment: ModelSegment, records: list[tuple[str, int]]) -> bytes:
    """Return a segment with such records."""
    data = segment.line
    for number, (kind, size) in enumerate(records):
        if kind == "T":
            data += segment.record(b"torn" * 20)[: 10 + number]
        elif kind == "R":
            data += segment.record(b'{"full":1}', b"R")
        else:
            data += segment.record(b"%d " % number + os.urandom(size), kind.encode())
    return data


def scene_with(data: bytes, settled: list[tuple[int, int]] | None = None) -> Scene:
    """Return a spool with one segment, of which an earlier run settled some bytes."""
    scene = Scene()
    scene.reader.close()
    (scene.folder / NAME).write_bytes(data)
    scene.data[NAME] = data
    scene.settle([Span(IDENTITY, start, end) for start, end in settled or ()])
    scene.start()
    return scene


def events_in(records: list[Whole]) -> list[tuple[bytes, Span]]:
    """Return the events among records, with their places."""
    return [
        (record.payload, Span(IDENTITY, record.start, record.end))
        for record in records
        if record.kind == b"E"
    ]


@example(event_format="2", records=[("E", 5_000)] * 2, blocks=1, piece=100)
@given(event_format=FORMATS, records=RECORDS, blocks=st.integers(1, 4), piece=st.sampled_from([100, 1 << 17]))
def test_whole_records_behind_lost_blocks_are_delivered(
    event_format: str, records: list[tuple[str, int]], blocks: int, piece: int
) -> None:
    """They are all that is delivered, at the same places by each run; what is between them is torn."""
    segment = ModelSegment(event_format, IDENTITY)
    data = segment_of(segment, records)
    lost = min(blocks * BLOCK, len(data))
    data = bytes(lost) + data[lost:]
    whole = segment.records(data)
    with patch.object(followed_segment, "CHUNK", piece), patch.object(lost_header, "_PIECE", piece):
        scene = scene_with(data)
        found = scene.read(1000)
        assert found == events_in(whole)
        if whole or not data.strip(b"\0"):
            assert not scene.reader.status().aside
            scene.reader.close()
            scene.start()
            assert found == scene.read(1000), "another run found something else"
            scene.reader.resolve([event.span for event in found])
            scene.clock.sleep(1.0)
            assert [IDENTITY] == scene.reader.tidy()
            torn = len(data) - sum(record.end - record.start for record in whole)
            assert torn == scene.reader.status().torn_bytes
        else:
            assert {"unreadable": 1} == scene.reader.status().aside
            assert data == (scene.folder / NAME).read_bytes()
        scene.close()


@given(records=RECORDS, damage=st.binary(max_size=200), at=st.integers(0, 80))
def test_any_damage_to_a_header_costs_what_it_damages(
    records: list[tuple[str, int]], damage: bytes, at: int
) -> None:
    """Not only zeros: whatever is in its place, what is whole behind it is delivered, at the same places."""
    segment = ModelSegment("2", IDENTITY)
    data = segment_of(segment, records)
    data = (data[:at] + damage + data[at + len(damage) :])[: len(data)]
    assume(b"\n" in data[:128] or len(data) >= 128)  # otherwise the header isn't complete yet
    scene = scene_with(data)
    assert events_in(segment.records(data)) == scene.read(1000)
    scene.close()


@given(settled=st.integers(0, 60_000), whole=st.booleans())
def test_only_zeros_beside_what_was_delivered_are_deleted(settled: int, *, whole: bool) -> None:
    """An earlier run delivered all that is left: the file is deleted, whether or not that is still whole."""
    record = ModelSegment("2", IDENTITY).record(b"x" * 3_000)
    data = bytes(60_000) + (record if whole else record[100:])
    scene = scene_with(data + bytes(6_000), [(settled, len(data))])
    assert [] == scene.read()
    scene.clock.sleep(1.0)
    assert [IDENTITY] == scene.reader.tidy()
    assert settled + 6_000 == scene.reader.status().torn_bytes
    scene.close()


def test_a_part_of_an_event_without_a_header_is_set_aside(scene: Scene) -> None:
    """Nothing proves what it is: it may be of a later release."""
    data = bytes(BLOCK) + ModelSegment("2", IDENTITY).record(b"x" * 3_000)[100:]
    (scene.folder / NAME).write_bytes(data)
    assert [] == scene.payloads()
    assert {"unreadable": 1} == scene.reader.status().aside
    assert data == (scene.folder / NAME).read_bytes()


def test_a_segment_of_another_format_is_set_aside(scene: Scene) -> None:
    """Its records say what the format was, so that a publisher for another version doesn't send them."""
    data = segment_of(ModelSegment("2j", IDENTITY), [("E", 10), ("E", 5_000), ("E", 10)])
    (scene.folder / NAME).write_bytes(bytes(BLOCK) + data[BLOCK:])
    assert [] == scene.payloads()
    assert {"other_format": 1} == scene.reader.status().aside
    assert (scene.folder / NAME).exists()


@pytest.mark.parametrize("version", [2, 999_999_999])
def test_a_newer_header_is_not_rebuilt(version: int, scene: Scene) -> None:
    """It isn't damaged, whatever is behind it."""
    line = b"event-segment %d 2 " % version
    data = line + b"%08x\n" % zlib.crc32(line) + ModelSegment("2", IDENTITY).record(b"of version 1")
    (scene.folder / NAME).write_bytes(data)
    assert [] == scene.payloads()
    assert {"newer": 1} == scene.reader.status().aside
    assert data == (scene.folder / NAME).read_bytes()


@pytest.mark.parametrize(
    "segment",
    [
        ModelSegment("2", bytes(16)),
        ModelSegment("2", IDENTITY[:4] + bytes(12)),
        ModelSegment("3", IDENTITY),
    ],
    ids=["another identity", "an identity that begins as this one", "a format that no release has"],
)
def test_records_that_are_not_of_this_segment_confirm_no_header(segment: ModelSegment, scene: Scene) -> None:
    """The file stays."""
    data = bytes(BLOCK) + segment.record(b"an event") * 3
    (scene.folder / NAME).write_bytes(data)
    assert [] == scene.payloads()
    assert {"unreadable": 1} == scene.reader.status().aside
    assert data == (scene.folder / NAME).read_bytes()


def test_no_space_is_freed_before_the_deletion(scene: Scene) -> None:
    """The first record proves the format; without it, a later run would find no header."""
    segment = ModelSegment("2", IDENTITY)
    data = bytes(BLOCK) + segment.record(b"x" * 200_000) + segment.record(b"torn")[:-1]
    (scene.folder / NAME).write_bytes(data + segment.record(b"last"))
    scene.note()
    assert [b"x" * 200_000, b"last"] == scene.read_all()
    scene.reader.resolve([Span(IDENTITY, BLOCK, BLOCK + HEAD + 200_000)])
    scene.clock.sleep(10.0)
    assert [] == scene.reader.tidy()
    assert 0 == scene.files.calls["punch"]


def test_a_header_is_searched_once(scene: Scene) -> None:
    """Neither the attempts that follow, nor reopening, read a file of the same size again."""
    data = bytes(BLOCK) + b"no record" * 100_000
    (scene.folder / NAME).write_bytes(data)
    assert [] == scene.payloads()
    first = scene.files.calls["read"]
    for number in range(1, 4):
        scene.clock.sleep(RETRY_PAUSE)
        assert [] == scene.payloads()
        assert first + number == scene.files.calls["read"], "more than its first bytes were read"
    with (scene.folder / NAME).open("ab") as file:
        file.write(ModelSegment("2", IDENTITY).record(b"found"))
    scene.clock.sleep(RETRY_PAUSE)
    assert [b"found"] == scene.payloads()


@pytest.mark.unmeasured
@given(size=st.integers(0, 500_000), filling=st.sampled_from([b"\0", b"\xff", b"\xffEVE"]))
def test_the_cost_is_linear(size: int, filling: bytes) -> None:
    """Each byte is read at most four times: once for each format, and once to see whether it is zero."""
    data = (filling * (size // len(filling) + 1))[:size]
    read = 0

    def pread(count: int, offset: int) -> bytes:
        nonlocal read
        piece = data[offset : offset + count]
        read += len(piece)
        return piece

    lost = LostHeader()
    lost.search(IDENTITY, pread, size, ByteRanges())
    assert lost.header is None
    assert lost.only_zeros == (not data.strip(b"\0"))
    assert read <= 4 * size
