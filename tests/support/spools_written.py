"""What services wrote into a spool, for tests that know that no one writes meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from baseplate_events.spool.format import EVENT, REFUSALS, Encoder, Header, Record, SegmentParser

if TYPE_CHECKING:
    from pathlib import Path


def read_records(spool: Path) -> list[Record]:
    """Return all records of a spool in which none is torn, oldest segment first."""
    records: list[Record] = []
    for path in sorted(spool.iterdir()):
        assert path.suffix == ".segment", path
        data = path.read_bytes()
        header = Header.decode(data)
        assert header is not None
        start = len(Encoder(header).header)
        parser = SegmentParser(header, start)
        records += parser.feed(data[start:])
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
