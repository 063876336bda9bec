"""A reader of a spool that logs each event before it deletes a segment, and may be killed at any moment.

Usage: python -m tests.soak.spool.reader FOLDER LOG. When stdin ends, it reads until no file is left.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Final

from tests.soak.spool.oracle import Entry, encode, identify
from tests.support.spool_reader import SpoolFileReader

#: Seconds between two scans, in which producers have the processor.
_PAUSE: Final = 0.001


def main(folder: str, log_path: str) -> None:
    """Read until the end."""
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(events: list[bytes]) -> None:
        found = [identify(event) for event in events]
        entries = [
            encode(Entry.FOREIGN, 0, 1) if each is None else encode(Entry.ARRIVED, *each) for each in found
        ]
        os.write(log, b"".join(entries))

    with SpoolFileReader(Path(folder), take) as reader:
        while True:
            over, _, _ = select.select([sys.stdin], [], [], _PAUSE)
            before = reader.torn_places, reader.removed, reader.grown
            left = reader.read()
            after = reader.torn_places, reader.removed, reader.grown
            for kind, old, new in zip((Entry.TORN, Entry.REMOVED, Entry.GROWN), before, after, strict=True):
                if new > old:
                    os.write(log, encode(kind, 0, new - old))
            if over and not left:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
