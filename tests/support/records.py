"""The records of a segment, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from baseplate_events.spool.format import OVERHEAD

if TYPE_CHECKING:
    from baseplate_events.spool.format import SegmentParser


class Record(NamedTuple):
    """A whole record.

    Attributes:
        kind: As in `RecordRun`.
        payload: What the writer encoded.
        start: Offset in the segment of the record's first byte.
        end: Offset in the segment of the byte after its last one.
    """

    kind: bytes
    payload: bytes
    start: int
    end: int


def feed(parser: SegmentParser, data: bytes) -> list[Record]:
    """Feed the next bytes of a segment; return the records that became whole, in order."""
    records: list[Record] = []
    for run in parser.feed_runs(data):
        end = run.start
        for payload in run.payloads:
            start, end = end, end + OVERHEAD + len(payload)
            records.append(Record(run.kind, payload, start, end))
    return records
