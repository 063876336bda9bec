"""A service that does what it reads from stdin, line by line, and reports when that is done.

Usage: python -m tests.soak.delivery.writer NAME LANE; the spool is in EVENT_SPOOL_DIRECTORY.

    put N   puts the next N events of the lane
    tear    appends the beginning of the next event's record, like a write that hasn't finished
    finish  appends the rest of it
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from baseplate_events import EventQueue
from baseplate_events.spool.format import MAX_HEADER, SEGMENT_SUFFIX, Encoder, Header
from tests.soak.spool.oracle import make_event


def main(name: str, lane: int) -> None:
    """Run the writer as requested."""
    queue = EventQueue(name, bytes, strict_size=True)
    number = 0
    rest = b""
    for line in sys.stdin:
        word, _, count = line.partition(" ")
        if word == "put":
            for _ in range(int(count)):
                queue.put(make_event(lane, number))
                number += 1
        elif word.strip() == "tear":
            record = _encoder().encode(make_event(lane, number))
            number += 1
            os.write(_descriptor(), record[: len(record) // 2])
            rest = record[len(record) // 2 :]
        else:
            os.write(_descriptor(), rest)
        print("done", flush=True)


def _descriptor() -> int:
    """Return the descriptor of the segment that this process appends to."""
    (found,) = (
        int(link.name) for link in Path("/proc/self/fd").iterdir() if _target(link).endswith(SEGMENT_SUFFIX)
    )
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # the descriptor of this listing
        return ""


def _encoder() -> Encoder:
    header = Header.decode(Path(_target(Path(f"/proc/self/fd/{_descriptor()}"))).read_bytes()[:MAX_HEADER])
    assert header is not None
    return Encoder(header)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
