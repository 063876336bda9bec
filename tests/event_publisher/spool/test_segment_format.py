"""What a segment looks like: damage costs what is behind it, and no other file is taken for one."""

from __future__ import annotations

from itertools import accumulate, takewhile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baseplate_events.event_publisher.spool.segment_format import SegmentFormat
from baseplate_events.event_publisher.storage import SpoolError
from tests.support import strategies
from tests.support.simulated_disk import SimulatedDisk
from tests.support.spools import FIRST, HEADER, append_all, recovered, spool_on


def survivors(events: list[bytes], data: bytes) -> tuple[list[bytes], int]:
    """Tell which events are whole in what became of their segment, and how many cuts can be seen: 0 or 1."""
    frames = [SegmentFormat("2").frame(event) for event in events]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(data, HEADER + b"".join(frames), strict=False))
    intact = sum(1 for _ in same)
    ends = list(accumulate(map(len, frames), initial=len(HEADER)))
    count = sum(end <= intact for end in ends[1:])
    return events[:count], int(not count or ends[count] < len(data))


@given(events=st.lists(strategies.spooled_events, min_size=1, max_size=8), data=st.data())
def test_damage_costs_only_what_is_behind_it(events: list[bytes], data: st.DataObject) -> None:
    """Whatever bytes become others, the events before them and of other segments come; it is counted."""
    disk = SimulatedDisk()
    spool = spool_on(disk)
    append_all(spool, events)
    append_all(spool, [b"another"])
    content = disk.content(FIRST)
    position = data.draw(st.integers(len(HEADER), len(content)))
    damage = data.draw(st.binary(min_size=1, max_size=20))
    damaged = content[:position] + damage + content[position + len(damage) :]
    disk.put(FIRST, damaged)
    expected, cut = survivors(events, damaged)
    assert ([*expected, b"another"], cut) == recovered(disk)


@given(events=st.lists(strategies.spooled_events, min_size=1, max_size=8), data=st.data())
def test_a_segment_cut_anywhere_gives_its_whole_frames(events: list[bytes], data: st.DataObject) -> None:
    """A file torn at any byte, with nothing or zeros behind, gives the events that are whole."""
    disk = SimulatedDisk()
    append_all(spool_on(disk), events)
    content = disk.content(FIRST)
    torn = content[: data.draw(st.integers(0, len(content)))] + bytes(data.draw(st.integers(0, 400)))
    disk.put(FIRST, torn)
    expected, cut = survivors(events, torn)
    assert (expected, cut) == recovered(disk)
    assert bool(expected) == bool(disk.names()), "a file without an event is deleted"


@given(position=st.integers(0, len(HEADER) - 1), byte=st.integers(0, 255))
def test_a_damaged_first_line_costs_nothing(position: int, byte: int) -> None:
    """Frames that are whole prove whose they are, whatever the line before them says."""
    disk = SimulatedDisk()
    append_all(spool_on(disk), [b"one", b"two"])
    content = bytearray(disk.content(FIRST))
    content[position] = byte
    disk.put(FIRST, bytes(content))
    assert ([b"one", b"two"], 0) == recovered(disk)


@given(length=st.integers(0, 2**32 - 1), rest=st.binary(max_size=50))
@example(length=2**32 - 1, rest=b"")
@example(length=0, rest=bytes(50))
def test_absurd_lengths_end_a_segment(length: int, rest: bytes) -> None:
    """A length that isn't that of the rest ends the segment, and is not taken for an amount of memory."""
    disk = SimulatedDisk()
    append_all(spool_on(disk), [b"one"])
    disk.put(FIRST, disk.content(FIRST) + length.to_bytes(4, "big") + rest)
    assert ([b"one"], 1) == recovered(disk)


@given(event=st.binary(max_size=40), claimed=st.integers(1, 2**31))
def test_a_length_beyond_the_end_is_never_believed(event: bytes, claimed: int) -> None:
    """A frame that says it goes on behind the end isn't whole, even if its CRC is that of what is there."""
    frame = SegmentFormat("2").frame(event)
    longer = (len(event) + claimed).to_bytes(4, "big") + frame[4:]
    assert [] == list(SegmentFormat("2").spans(HEADER + longer))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"what is this?\n", "isn't a segment"),
        (b"event-spool 3 2\n", "another format"),
        (b"event-spool\n....", "another format"),
        (b"event-spool 1 2j\n", "another collector.version"),
    ],
)
def test_a_refusal_says_why(data: bytes, words: str) -> None:
    """The error tells a foreign file, another format and another version apart."""
    disk = SimulatedDisk()
    disk.put(FIRST, data)
    with pytest.raises(SpoolError, match=words):
        spool_on(disk).recover()


@given(events=st.lists(strategies.spooled_events, min_size=1, max_size=5))
def test_another_version_is_refused(events: list[bytes]) -> None:
    """Events of one `collector.version` are never delivered as those of another."""
    disk = SimulatedDisk()
    append_all(spool_on(disk, version="2j"), events)
    with pytest.raises(SpoolError, match=r"another collector\.version"):
        spool_on(disk, version="2").recover()
    assert 1 == len(spool_on(disk, version="2j").recover())
