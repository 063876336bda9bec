"""Reads what was written into a spool, and writes it quickly."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from baseplate_events.spool.format import (
    EVENT,
    IDENTITY_SIZE,
    REFUSALS,
    SEGMENT_SUFFIX,
    Encoder,
    Header,
    SegmentParser,
)

from .records import Record, feed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def segment_name(identity: bytes, writer: str = "0123456789abcdef") -> str:
    """Return the name of a segment that is created now."""
    return f"{time.time_ns():020}-{writer}-{identity.hex()}{SEGMENT_SUFFIX}"


def write_segment(spool: Path, events: Iterable[bytes], event_format: str) -> Path:
    """Leave a segment in the folder of a spool, like a writer that has ended."""
    identity = os.urandom(IDENTITY_SIZE)
    encoder = Encoder(Header(event_format, identity))
    path = spool / segment_name(identity)
    # Published whole, as by a writer: a reader deletes a segment that is empty and that no one has open.
    draft = spool.parent / path.name
    draft.write_bytes(b"".join((encoder.header, *map(encoder.encode, events))))
    draft.chmod(0o600)
    draft.rename(path)
    return path


def read_whole_events(segment: Path) -> list[bytes]:
    """Return the events of a segment that are whole now; none if it has been deleted."""
    try:
        data = segment.read_bytes()
    except FileNotFoundError:
        return []
    header = Header.decode(data)
    if header is None:
        return []
    start = len(Encoder(header).header)
    runs = SegmentParser(header, start).feed_runs(data[start:])
    return [event for run in runs if run.kind == EVENT for event in run.payloads]


def read_records(spool: Path) -> list[Record]:
    """Return all records of a spool in which none is torn and no one writes, oldest segment first."""
    records: list[Record] = []
    for path in sorted(spool.iterdir()):
        assert path.suffix == ".segment", path
        data = path.read_bytes()
        header = Header.decode(data)
        assert header is not None
        start = len(Encoder(header).header)
        parser = SegmentParser(header, start)
        records += feed(parser, data[start:])
        assert (parser.pending, parser.torn) == (0, 0)
    return records


def read_events(spool: Path) -> list[bytes]:
    """Return the events of a spool."""
    return [record.payload for record in read_records(spool) if record.kind == EVENT]


def read_refusals(spool: Path) -> Counter[str]:
    """Return how many refused events were reported in a spool, by reason."""
    total: Counter[str] = Counter()
    for record in read_records(spool):
        if record.kind == REFUSALS:
            total.update(json.loads(record.payload))
    return total
